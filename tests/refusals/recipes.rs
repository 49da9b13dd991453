//! Every bad recipe, and recipes that come back from their JSON form as they went in.

use std::collections::HashSet;

use semblance::{Code, Recipe, Slider};

use Code::{InvalidParameter, InvalidRecipe};

use crate::check;

/// One a line: code, what the text must say, JSON.
const RECIPES: &str = include_str!("../fixtures/bad-recipes.tsv");

#[test]
fn every_bad_recipe_is_refused_with_its_own_text() {
    let mut seen = HashSet::new();
    for line in RECIPES.lines().filter(|line| !line.starts_with('#')) {
        let [code, text, json] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let code = Code::ALL.into_iter().find(|c| c.name() == code).unwrap();
        let error = Recipe::from_json(json).expect_err(json);
        check(&error, code, text, json, &mut seen);
    }
    assert!(seen.len() >= 90, "{}", seen.len());
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
        "steps":1000,"guidance":20,"noise":1,"compositor":"direct","radius":64,"epsilon":1e-8,"rest":0.25,"form":"published",
        "identity_shortcut":"off","stamp":{"version":"9","model":"m","model_hash":"h","cpu_path":"p"}}"#;
    let recipe = Recipe::from_json(text).unwrap();
    assert_eq!(recipe.attributes[1].strength, 1.0);
    assert_eq!(
        Recipe::from_json(&recipe.to_json().unwrap()).unwrap(),
        recipe
    );
}
