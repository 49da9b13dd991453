//! Every bad recipe, and recipes that come back from their JSON form as they went in.

use std::collections::HashSet;

use semblance::{Code, Recipe, Slider};

use Code::{InvalidParameter, InvalidRecipe};

use crate::check;

/// Recipes, what refuses them, and what the text must say.
const RECIPES: &[(&str, Code, &str)] = &[
    ("", InvalidRecipe, "recipe: is not JSON"),
    ("{", InvalidRecipe, "EOF"),
    ("[]", InvalidRecipe, "recipe: is a list, must be an object"),
    ("1", InvalidRecipe, "recipe: is a number, must be an object"),
    (
        "null",
        InvalidRecipe,
        "recipe: is nothing, must be an object",
    ),
    ("{}", InvalidRecipe, "`semblance` is missing"),
    (
        r#"{"semblance": 0}"#,
        InvalidRecipe,
        "semblance = 0: this library reads recipes of version 1",
    ),
    (
        r#"{"semblance": 2, "new": 1}"#,
        InvalidRecipe,
        "semblance = 2: this library reads",
    ),
    (
        r#"{"semblance": "1"}"#,
        InvalidRecipe,
        "semblance = \"1\": must be a whole number",
    ),
    (
        r#"{"semblance": 1.5}"#,
        InvalidRecipe,
        "semblance = 1.5: must be a whole number",
    ),
    (
        r#"{"semblance": 1, "stepz": 4}"#,
        InvalidRecipe,
        "key `stepz` is unknown",
    ),
    (
        r#"{"semblance": 1, "": 4}"#,
        InvalidRecipe,
        "key `` is unknown",
    ),
    (
        r#"{"semblance": 1} x"#,
        InvalidRecipe,
        "trailing characters",
    ),
    (
        r#"{"semblance": 1, "attributes": {}}"#,
        InvalidRecipe,
        "attributes = an object: must be a list",
    ),
    (
        r#"{"semblance": 1, "attributes": ["sunset"]}"#,
        InvalidRecipe,
        "attributes[0] = \"sunset\": must be an object",
    ),
    (
        r#"{"semblance": 1, "attributes": [{}]}"#,
        InvalidRecipe,
        "`attributes[0].name` is missing",
    ),
    (
        r#"{"semblance": 1, "attributes": [{"name": 3}]}"#,
        InvalidRecipe,
        "attributes[0].name = 3: must be text",
    ),
    (
        r#"{"semblance": 1, "attributes": [{"name": ""}]}"#,
        InvalidRecipe,
        "attributes[0].name: is empty",
    ),
    (
        r#"{"semblance": 1, "attributes": [{"name": "a\nb"}]}"#,
        InvalidRecipe,
        "control character U+000A",
    ),
    (
        r#"{"semblance": 1, "attributes": [{"name": "fog", "strenght": 1}]}"#,
        InvalidRecipe,
        "`attributes[0].strenght` is unknown",
    ),
    (
        r#"{"semblance": 1, "attributes": [{"name": "fog", "strength": "1"}]}"#,
        InvalidRecipe,
        "attributes[0].strength = \"1\": must be a number -2..=2",
    ),
    (
        r#"{"semblance": 1, "attributes": [{"name": "fog", "strength": 2.5}]}"#,
        InvalidParameter,
        "attributes[0].strength = 2.5: must be a number -2..=2",
    ),
    (
        r#"{"semblance": 1, "attributes": [{"name": "fog", "strength": -1e300}]}"#,
        InvalidParameter,
        "attributes[0].strength = -1000",
    ),
    (
        r#"{"semblance": 1, "attributes": [{"name": "fog"}, {"name": "fog", "strength": 3}]}"#,
        InvalidParameter,
        "attributes[1].strength = 3",
    ),
    (
        r#"{"semblance": 1, "attributes": [{"name": "fog"}, {"name": "fog"}]}"#,
        InvalidRecipe,
        "attributes[1].name = \"fog\": already named by attributes[0]",
    ),
    (
        r#"{"semblance": 1, "text": "at night"}"#,
        InvalidRecipe,
        "text = \"at night\": must be an object",
    ),
    (
        r#"{"semblance": 1, "text": {"to": "x"}}"#,
        InvalidRecipe,
        "`text.from` is missing",
    ),
    (
        r#"{"semblance": 1, "text": {"from": "x"}}"#,
        InvalidRecipe,
        "`text.to` is missing",
    ),
    (
        r#"{"semblance": 1, "text": {"from": "x", "to": " "}}"#,
        InvalidParameter,
        "text.to: is empty",
    ),
    (
        r#"{"semblance": 1, "text": {"from": "x\u0000", "to": "y"}}"#,
        InvalidParameter,
        "text.from: holds the control character U+0000",
    ),
    (
        r#"{"semblance": 1, "text": {"from": "x", "to": "y", "strength": 9}}"#,
        InvalidParameter,
        "text.strength = 9",
    ),
    (
        r#"{"semblance": 1, "text": {"from": "x", "to": "y", "by": 1}}"#,
        InvalidRecipe,
        "`text.by` is unknown",
    ),
    (
        r#"{"semblance": 1, "scene": ""}"#,
        InvalidParameter,
        "scene = \"\"",
    ),
    (
        r#"{"semblance": 1, "scene": 4}"#,
        InvalidRecipe,
        "scene = 4: must be text",
    ),
    (
        r#"{"semblance": 1, "seed": -1}"#,
        InvalidParameter,
        "seed = -1: must be a whole number 0..=18446744073709551615",
    ),
    (
        r#"{"semblance": 1, "seed": 1.5}"#,
        InvalidParameter,
        "seed = 1.5",
    ),
    (
        r#"{"semblance": 1, "seed": "x"}"#,
        InvalidRecipe,
        "seed = \"x\"",
    ),
    (
        r#"{"semblance": 1, "seed": 18446744073709551616}"#,
        InvalidParameter,
        "seed = 1.8446744073709552e+19",
    ),
    (
        r#"{"semblance": 1, "steps": 0}"#,
        InvalidParameter,
        "steps = 0: must be a whole number 1..=1000",
    ),
    (
        r#"{"semblance": 1, "steps": 1001}"#,
        InvalidParameter,
        "steps = 1001",
    ),
    (
        r#"{"semblance": 1, "steps": 4294967300}"#,
        InvalidParameter,
        "steps = 4294967300",
    ),
    (
        r#"{"semblance": 1, "steps": true}"#,
        InvalidRecipe,
        "steps = true: must be a whole number",
    ),
    (
        r#"{"semblance": 1, "guidance": 0.5}"#,
        InvalidParameter,
        "guidance = 0.5: must be a number 1..=20",
    ),
    (
        r#"{"semblance": 1, "guidance": 1e39}"#,
        InvalidParameter,
        "guidance = 1000000000000000000000000000000000000000",
    ),
    (
        r#"{"semblance": 1, "guidance": []}"#,
        InvalidRecipe,
        "guidance = a list",
    ),
    (
        r#"{"semblance": 1, "compositor": "chagne"}"#,
        InvalidParameter,
        "compositor = \"chagne\": must be one of change, direct, difference",
    ),
    (
        r#"{"semblance": 1, "compositor": 1}"#,
        InvalidRecipe,
        "compositor = 1",
    ),
    (
        r#"{"semblance": 1, "radius": 0}"#,
        InvalidParameter,
        "radius = 0: must be a whole number 1..=64",
    ),
    (
        r#"{"semblance": 1, "radius": 65}"#,
        InvalidParameter,
        "radius = 65",
    ),
    (
        r#"{"semblance": 1, "epsilon": 0}"#,
        InvalidParameter,
        "epsilon = 0: must be a number",
    ),
    (
        r#"{"semblance": 1, "epsilon": -1}"#,
        InvalidParameter,
        "epsilon = -1",
    ),
    (
        r#"{"semblance": 1, "form": "old"}"#,
        InvalidParameter,
        "form = \"old\": must be one of corrected, published",
    ),
    (
        r#"{"semblance": 1, "identity_shortcut": false}"#,
        InvalidRecipe,
        "identity_shortcut = false: must be one of on, off",
    ),
    (
        r#"{"semblance": 1, "stamp": []}"#,
        InvalidRecipe,
        "stamp = a list: must be an object",
    ),
    (
        r#"{"semblance": 1, "stamp": {"versoin": "1"}}"#,
        InvalidRecipe,
        "`stamp.versoin` is unknown",
    ),
    (
        r#"{"semblance": 1, "stamp": {"version": 1}}"#,
        InvalidRecipe,
        "stamp.version = 1: must be text",
    ),
];

#[test]
fn every_bad_recipe_is_refused_with_its_own_text() {
    let mut seen = HashSet::new();
    for (json, code, text) in RECIPES {
        let error = Recipe::from_json(json).expect_err(json);
        check(&error, *code, text, json, &mut seen);
    }
    assert!(seen.len() >= 50);
}

#[test]
fn a_misspelt_key_is_answered_with_the_right_one() {
    let error = Recipe::from_json(r#"{"semblance": 1, "stepz": 4}"#).unwrap_err();
    assert_eq!(error.hint(), "did you mean `steps`?");
}

#[test]
fn too_many_sliders_and_too_long_texts_are_refused_with_the_bound() {
    let sliders: Vec<Slider> = (0..17)
        .map(|i| Slider {
            name: format!("a{i}"),
            strength: 1.0,
        })
        .collect();
    let recipe = Recipe {
        attributes: sliders,
        ..Recipe::default()
    };
    assert!(
        recipe
            .check()
            .unwrap_err()
            .message()
            .contains("17 sliders, must be at most 16")
    );
    let long = Recipe {
        scene: Some("x".repeat(1001)),
        ..Recipe::default()
    };
    assert!(
        long.check()
            .unwrap_err()
            .message()
            .contains("1001 bytes of text, must be at most 1000")
    );
    let huge = format!(
        "{{\"semblance\": 1, \"scene\": \"{}\"}}",
        "x".repeat(1 << 20)
    );
    assert!(
        Recipe::from_json(&huge)
            .unwrap_err()
            .message()
            .contains("must be at most 262144")
    );
    let deep = "[".repeat(100_000);
    assert_eq!(Recipe::from_json(&deep).unwrap_err().code(), InvalidRecipe);
    let name = Recipe::of("x".repeat(5000), 1.0);
    assert!(
        name.check()
            .unwrap_err()
            .message()
            .contains("5000 bytes, must be at most 4096")
    );
}

#[test]
fn a_recipe_made_in_code_is_checked_like_one_that_was_read() {
    for bad in [f32::NAN, f32::INFINITY, 2.1, -3.0] {
        assert_eq!(
            Recipe::of("fog", bad).check().unwrap_err().code(),
            InvalidParameter
        );
    }
    let recipe = Recipe {
        epsilon: Some(f32::NAN),
        ..Recipe::default()
    };
    assert!(recipe.check().is_err() && recipe.to_json().is_err());
}

#[test]
fn a_recipe_survives_its_json_form() {
    let text = r#"{"semblance":1,"attributes":[{"name":"fog","strength":0.3},{"name":"a/b.toml"}],
        "text":{"from":"a \"photo\"","to":"é — 写真","strength":-2},"scene":"hills","seed":18446744073709551615,
        "steps":1000,"guidance":20,"compositor":"direct","radius":64,"epsilon":1e-8,"form":"published",
        "identity_shortcut":"off","stamp":{"version":"9","model":"m","model_hash":"h","cpu_path":"p"}}"#;
    let recipe = Recipe::from_json(text).unwrap();
    assert_eq!(recipe.attributes[1].strength, 1.0);
    assert_eq!(
        Recipe::from_json(&recipe.to_json().unwrap()).unwrap(),
        recipe
    );
}
