//! Every bad attribute file, and files that are none.

use std::collections::HashSet;

use semblance::layer::{AlphaState, ChannelOrder, ColorSpace, Format, LayerView, Rect, SampleType};
use semblance::{Code, Engine, EngineOptions, Error, ModelChoice, Recipe};

use Code::InvalidAttribute;

use crate::check;

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
