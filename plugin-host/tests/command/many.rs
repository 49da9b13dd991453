//! Several files in one run: going on, skipping, the summary and the exit code.

use semblance_host::Samples;
use semblance_host::document::Kind;
use serde_json::Value;

use crate::support::{
    code, edit, files, picture, semblance, stderr, stdout, succeeded, tiny, write,
};

#[test]
fn many_files_go_on_after_a_bad_one_and_json_tells_each() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.png", "c.png"] {
        write(&picture(Kind::Png, Samples::U8), &folder.path().join(name));
    }
    std::fs::write(folder.path().join("b.png"), b"").unwrap();
    let line = [
        "a.png",
        "b.png",
        "c.png",
        "--json",
        "-o",
        "out/{stem}-x.{ext}",
    ];
    let output = edit(folder.path(), &line);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    let lines: Vec<Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let oks: Vec<&Value> = lines.iter().map(|line| &line["ok"]).collect();
    assert_eq!(oks, [true, false, true]);
    assert_eq!(lines[1]["error"]["name"], "invalid_file");
    assert_eq!(lines[0]["recipe"]["semblance"], 1);
    assert_eq!(files(&folder.path().join("out")), ["a-x.png", "c-x.png"]);

    let line = [
        "a.png",
        "b.png",
        "c.png",
        "--skip-existing",
        "-o",
        "out/{stem}-x.{ext}",
    ];
    let words = edit(folder.path(), &line);
    assert_eq!(code(&words), 3);
    let summary = "semblance: 0 edited, 2 skipped, 1 failed of 3";
    assert!(stderr(&words).contains(summary), "{}", stderr(&words));

    let again = edit(
        folder.path(),
        &[
            "a.png",
            "--skip-existing",
            "--json",
            "-o",
            "out/{stem}-x.png",
        ],
    );
    succeeded(&again);
    assert!(stdout(&again).contains("\"skipped\":true"));
}

#[test]
fn what_is_wrong_for_all_files_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.png", "b.png"] {
        write(&picture(Kind::Png, Samples::U8), &folder.path().join(name));
    }
    let tiny = tiny();
    let line = [
        "edit",
        "a.png",
        "b.png",
        "-a",
        "no-such=1",
        "-o",
        "o/{name}",
        "--model",
    ];
    let output = semblance(
        folder.path(),
        &[&line[..], &[tiny.to_str().unwrap()]].concat(),
    );
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert_eq!(stderr(&output).matches("semblance: error:").count(), 1);
}
