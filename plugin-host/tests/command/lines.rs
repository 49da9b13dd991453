//! Lines and files that are refused: exit codes, texts, and nothing written. Not for: installations (`install`).

use semblance_host::Samples;
use semblance_host::document::Kind;
use serde_json::Value;

use crate::support::{
    bare, code, files, picture, semblance, stderr, stdout, succeeded, tiny, write,
};

#[test]
fn lines_that_make_no_sense_are_exit_two() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &picture(Kind::Png, Samples::U8),
        &folder.path().join("a.png"),
    );
    for line in [
        &[][..],
        &["edit"],
        &["edit", "a.png", "-o", "b.png"],
        &["edit", "a.png", "-a", "sunset", "-o", "b.png"],
        &["edit", "a.png", "-a", "sunset=1", "-o", "./a.png"],
        &["edit", "a.png", "-a", "sunset=1", "-o", "{what}.png"],
        &["edit", "a.png", "b.png", "-a", "sunset=1", "-o", "c.png"],
        &["sheet", "a.png", "-a", "sunset", "-o", "a.png"],
        &[
            "edit", "a.png", "-a", "sunset=1", "--mask", "m.png", "-o", "m.png",
        ],
        &[
            "sheet", "a.png", "-a", "sunset", "--recipe", "r.png", "-o", "./r.png",
        ],
    ] {
        let output = bare(folder.path(), line);
        assert_eq!(code(&output), 2, "{line:?}: {}", stderr(&output));
    }
}

#[test]
fn files_that_cannot_be_read_are_exit_three() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text.json"), "hello").unwrap();
    for line in [
        &["recipe", "missing.png"][..],
        &["recipe", "text.json"],
        &["edit", "a.png", "-a", "sunset=1", "-o", "b.gif"],
        &[
            "edit", "a.png", "-a", "sunset=1", "--recipe", "r.json", "-o", "b.png",
        ],
        &[
            "edit", "a.png", "-a", "sunset=1", "--mask", "m.png", "-o", "b.png",
        ],
    ] {
        let output = bare(folder.path(), line);
        assert_eq!(code(&output), 3, "{line:?}: {}", stderr(&output));
    }
}

#[test]
fn completions_and_versions_need_no_library() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = bare(folder.path(), &["completions", shell]);
        succeeded(&output);
        assert!(stdout(&output).contains("semblance"), "{shell}");
    }
    let output = bare(folder.path(), &["--version"]);
    succeeded(&output);
    assert!(stdout(&output).starts_with("semblance "));
}

#[test]
fn a_line_that_makes_no_sense_is_told_as_json_too() {
    let folder = tempfile::tempdir().unwrap();
    let output = bare(folder.path(), &["edit", "a.png", "--json", "--nonsense"]);
    assert_eq!(code(&output), 2);
    let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(told["error"]["name"], "usage");
    assert!(
        stderr(&output).starts_with("semblance: error: "),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_librarys_own_texts_come_through() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &picture(Kind::Png, Samples::U8),
        &folder.path().join("a.png"),
    );
    let tiny = tiny();
    let run = |model: &str, line: &[&str]| {
        let head = ["edit", "a.png", "-o", "b.png", "--json", "--model", model];
        semblance(folder.path(), &[&head[..], line].concat())
    };
    let model = tiny.to_str().unwrap();
    for (model, line, exit, name, text) in [
        (
            model,
            &["-a", "no-such=1"][..],
            2,
            "unknown_attribute",
            "no-such",
        ),
        (
            model,
            &["-a", "fog=9"],
            2,
            "invalid_parameter",
            "strength = 9",
        ),
        (
            model,
            &["-a", "fog=1", "--steps", "0"],
            2,
            "invalid_parameter",
            "steps = 0",
        ),
        ("nowhere", &["-a", "fog=1"], 4, "model_not_found", "nowhere"),
    ] {
        let output = run(model, line);
        assert_eq!(code(&output), exit, "{}", stderr(&output));
        let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(told["error"]["name"], name, "{told}");
        assert!(stderr(&output).contains(text), "{}", stderr(&output));
    }
    assert_eq!(files(folder.path()), ["a.png"]);
}

#[test]
fn no_output_replaces_another_input() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["i2.png", "i3.png"] {
        write(&picture(Kind::Png, Samples::U8), &folder.path().join(name));
    }
    let before = std::fs::read(folder.path().join("i2.png")).unwrap();
    let line = [
        "edit",
        "i2.png",
        "i3.png",
        "-a",
        "fog=1",
        "-o",
        "i{number}.png",
    ];
    let output = bare(folder.path(), &line);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("i2.png"), "{}", stderr(&output));
    assert_eq!(std::fs::read(folder.path().join("i2.png")).unwrap(), before);
    assert_eq!(files(folder.path()), ["i2.png", "i3.png"]);
}

#[test]
fn every_bad_recipe_is_refused_with_a_text_and_a_hint_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &picture(Kind::Png, Samples::U8),
        &folder.path().join("a.png"),
    );
    let tiny = tiny();
    let head = [
        "edit", "a.png", "-o", "b.png", "--json", "--recipe", "r.json", "--model",
    ];
    let line = [&head[..], &[tiny.to_str().unwrap()]].concat();
    let bad = include_str!("../../../tests/fixtures/bad-recipes.tsv");
    for row in bad.lines().filter(|row| !row.starts_with('#')) {
        let recipe = row.splitn(3, '\t').nth(2).unwrap();
        std::fs::write(folder.path().join("r.json"), recipe).unwrap();
        let output = semblance(folder.path(), &line);
        assert!(
            [2, 3].contains(&code(&output)),
            "{recipe}: {}",
            stderr(&output)
        );
        let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
        for part in ["name", "message", "hint"] {
            let text = told["error"][part].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{recipe}: no {part}: {told}");
        }
        assert_eq!(files(folder.path()), ["a.png", "r.json"], "{recipe}");
    }
}
