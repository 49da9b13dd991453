//! Bad recipes and attribute files: each is refused with its own code and text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;

use semblance::layer::{AlphaState, ChannelOrder, ColorSpace, Format, LayerView, Rect, SampleType};
use semblance::{Code, Engine, EngineOptions, Error, ModelChoice, Recipe, Slider};

use Code::{InvalidAttribute, InvalidParameter, InvalidRecipe};

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

/// What follows the head of an attribute file, and what the text must say.
const BODIES: &[(&str, &str)] = &[
    ("extra = 1", "key `extra` is unknown"),
    ("[txt]", "key `txt` is unknown"),
    ("", "key `text` is missing"),
    ("text = 3", "text = 3: must be an object"),
    ("[text]", "key `text.neutral` is missing"),
    ("[text]\nneutral = \"a\"", "key `text.styled` is missing"),
    (
        "[text]\nneutral = \"\"\nstyled = \"b\"",
        "text.neutral = \"\": must be one line",
    ),
    (
        "[text]\nneutral = \"a {place}\"\nstyled = \"b\"",
        "text.neutral = \"a {place}\": must be text whose only braces",
    ),
    (
        "[text]\nneutral = \"a\"\nstyled = \"a\"",
        "text.styled = \"a\": must be different",
    ),
    (
        "[text]\nneutral = \"a\"\nstyled = \"b {\"",
        "text.styled = \"b {\"",
    ),
    (
        "[text]\nneutral = \"a\"\nstyled = \"b\"\nscene = \"{scene}\"",
        "text.scene = \"{scene}\": must be text without braces",
    ),
    (
        "[text]\nneutral = \"a\"\nstyled = \"b\"\nopposit = \"c\"",
        "`text.opposit` is unknown",
    ),
    (
        "GOOD\n[edit]\nt_star = 1",
        "edit.t_star = 1: must be 0..=0.95",
    ),
    ("GOOD\n[edit]\nt_star = -0.1", "edit.t_star = -0.1"),
    (
        "GOOD\n[edit]\nt_star = nan",
        "edit.t_star = nothing: must be a finite number",
    ),
    (
        "GOOD\n[edit]\nt_star = \"early\"",
        "edit.t_star = \"early\": must be a number",
    ),
    ("GOOD\n[edit]\nd = 1.5", "edit.d = 1.5: must be -1..=1"),
    ("GOOD\n[edit]\nd = inf", "edit.d = nothing"),
    (
        "GOOD\n[edit]\nscale = 0",
        "edit.scale = 0: must be 0.05..=2",
    ),
    (
        "GOOD\n[edit]\nsteps = 0",
        "edit.steps = 0: must be a whole number 1..=1000",
    ),
    (
        "GOOD\n[edit]\nsteps = -4",
        "edit.steps = -4: must be a whole number from 0",
    ),
    (
        "GOOD\n[edit]\nguidance = 21",
        "edit.guidance = 21: must be a number 1..=20",
    ),
    (
        "GOOD\n[edit]\nresiduals = \"some\"",
        "edit.residuals = \"some\": must be \"exact\" or \"scaled\"",
    ),
    (
        "GOOD\n[edit]\nrange = [0]",
        "edit.range = [0]: must be two numbers",
    ),
    ("GOOD\n[edit]\nrange = [0.5, 1]", "edit.range = [0.5,1]"),
    ("GOOD\n[edit]\nrange = [0, 3]", "edit.range = [0,3]"),
    ("GOOD\n[edit]\nrange = 1", "edit.range = 1: must be a list"),
    ("GOOD\n[edit]\ntstar = 0", "`edit.tstar` is unknown"),
    (
        "GOOD\n[composite]\nradius = 0",
        "composite.radius = 0: must be a whole number 1..=64",
    ),
    (
        "GOOD\n[composite]\nepsilon = 0.0",
        "composite.epsilon = 0: must be a number",
    ),
    (
        "GOOD\n[composite]\nsigma = 0.0",
        "`composite.sigma` is unknown",
    ),
    (
        "GOOD\n[learned]\nlambda = [1]",
        "`learned.times` is missing",
    ),
    (
        "GOOD\n[learned]\ntimes = []\nlambda = []",
        "learned.times = 0 numbers: must be a list of 1 to 1000",
    ),
    (
        "GOOD\n[learned]\ntimes = [0.5]\nlambda = [1, 2]",
        "learned.lambda = 2 numbers: must be as many as times (1)",
    ),
    (
        "GOOD\n[learned]\ntimes = [0.5, 0.6]\nlambda = [1, 1]",
        "learned.times = [0.5, 0.6]: must be falling",
    ),
    (
        "GOOD\n[learned]\ntimes = [981]\nlambda = [1]",
        "learned.times = 981",
    ),
    (
        "GOOD\n[learned]\ntimes = [0.5]\nlambda = [7]",
        "learned.lambda = 7",
    ),
    (
        "GOOD\n[learned]\ntimes = [0.5]\nlambda = [nan]",
        "learned.lambda = nothing",
    ),
];

const HEAD: &str = "schema = 1\nname = \"x\"\nmodels = [\"mini\"]\nlicence = \"CC0-1.0\"\n";
const GOOD: &str = "[text]\nneutral = \"a photo\"\nstyled = \"a photo, at night\"";

/// Whole files, and what the text must say.
const FILES: &[(&str, &str)] = &[
    ("schema = ", "line 1: is not TOML"),
    (
        "schema = 1\nname = \"x\"\nname = \"y\"",
        "line 3: is not TOML: duplicate key",
    ),
    ("name = \"x\"", "key `schema` is missing"),
    ("schema = 2", "schema = 2: this library reads schema 1"),
    ("schema = \"1\"", "schema = \"1\": must be a whole number"),
    ("schema = 1", "key `name` is missing"),
    (
        "schema = 1\nname = \"Sun Set\"",
        "name = \"Sun Set\": must be 1 to 64 of a-z",
    ),
    (
        "schema = 1\nname = \"x\"\n[text]\nneutral = \"a\"\nstyled = \"b\"",
        "is missing",
    ),
    (
        "schema = 1\nname = \"x\"\nmodels = []\nlicence = \"l\"\n[text]\nneutral = \"a\"\nstyled = \"b\"",
        "models = 0 entries",
    ),
    (
        "schema = 1\nname = \"x\"\nmodels = \"mini\"\nlicence = \"l\"\n[text]\nneutral = \"a\"\nstyled = \"b\"",
        "models = \"mini\": must be a list",
    ),
    (
        "schema = 1\nname = \"x\"\nmodels = [3]\nlicence = \"l\"\n[text]\nneutral = \"a\"\nstyled = \"b\"",
        "models = 3: must be a list of names",
    ),
    (
        "schema = 1\nname = \"x\"\nmodels = [\"mini\"]\n[text]\nneutral = \"a\"\nstyled = \"b\"",
        "key `licence` is missing",
    ),
    (
        "schema = 1\nname = \"x\"\ntitle = \"a\\nb\"\n[text]\nneutral = \"a\"\nstyled = \"b\"",
        "title = \"a\\nb\": must be one line of 1 to 80 bytes",
    ),
];

fn check(error: &Error, code: Code, text: &str, what: &str, seen: &mut HashSet<String>) {
    assert_eq!(error.code(), code, "{what}: {error}");
    assert!(
        error.message().contains(text),
        "{what}: {error}, must say {text}"
    );
    assert!(
        seen.insert(error.message().to_owned()),
        "{what}: said before: {error}"
    );
}

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

fn tiny() -> Engine {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny");
    Engine::new(EngineOptions {
        model: ModelChoice::Folder(folder.into()),
        ..EngineOptions::default()
    })
    .unwrap()
}

fn read(engine: &Engine, file: &std::path::Path) -> Result<(), Error> {
    let format = Format {
        samples: SampleType::U8,
        order: ChannelOrder::Rgb,
        alpha: AlphaState::None,
    };
    let rect = Rect {
        x: 0,
        y: 0,
        width: 8,
        height: 8,
    };
    let data = vec![90; 8 * 8 * 3];
    let layer = LayerView::new(&data, 0, 24, rect, format, ColorSpace::Srgb).unwrap();
    engine
        .read(&layer, None, &Recipe::of(file.to_str().unwrap(), 1.0))
        .map(|_| ())
}

#[test]
fn every_bad_attribute_file_is_refused_with_its_own_text() {
    let engine = tiny();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.toml");
    std::fs::write(&file, format!("{HEAD}{GOOD}")).unwrap();
    read(&engine, &file).unwrap();
    let bodies = BODIES
        .iter()
        .map(|(body, text)| (format!("{HEAD}{}", body.replace("GOOD", GOOD)), *text));
    let files = FILES.iter().map(|(file, text)| ((*file).to_owned(), *text));
    let mut seen = HashSet::new();
    for (text, must) in bodies.chain(files) {
        std::fs::write(&file, &text).unwrap();
        let error = read(&engine, &file).expect_err(&text);
        check(&error, InvalidAttribute, must, &text, &mut seen);
        assert!(
            error.message().contains("x.toml"),
            "names the file: {error}"
        );
    }
    assert!(seen.len() >= 50);
}

#[test]
fn what_is_no_attribute_file_is_refused_without_being_read_to_its_end() {
    let engine = tiny();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("big.toml");
    std::fs::write(&file, "#".repeat(1 << 20)).unwrap();
    assert!(
        read(&engine, &file)
            .unwrap_err()
            .message()
            .contains("must be at most 65536")
    );
    std::fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
    assert_eq!(read(&engine, &file).unwrap_err().code(), Code::Io);
    let error = read(&engine, &folder.path().join("none.toml")).unwrap_err();
    assert_eq!(error.code(), Code::Io);
    #[cfg(unix)]
    {
        let error = read(&engine, std::path::Path::new("/dev/zero")).unwrap_err();
        assert!(error.message().contains("is not a plain file"), "{error}");
    }
    let error = read(&engine, &folder.path().join("")).unwrap_err();
    assert!(error.message().contains("is not a plain file"), "{error}");
}
