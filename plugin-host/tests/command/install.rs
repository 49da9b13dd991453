//! What is missing, and what to do about it.

use semblance_host::Samples;
use semblance_host::document::Kind;
use serde_json::Value;

use crate::support::{
    bare, code, files, picture, semblance, stderr, stdout, succeeded, tiny, write,
};

#[test]
fn a_missing_library_is_exit_four_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &picture(Kind::Png, Samples::U8),
        &folder.path().join("a.png"),
    );
    let output = bare(
        folder.path(),
        &["edit", "a.png", "-a", "sunset=1", "-o", "b.png"],
    );
    assert_eq!(code(&output), 4);
    let text = stderr(&output);
    assert!(text.starts_with("semblance: error: "), "{text}");
    assert!(
        text.contains("no-library.so") && text.contains("\nhint: "),
        "{text}"
    );
    assert_eq!(files(folder.path()), ["a.png"]);
}

#[test]
fn doctor_says_what_is_missing_in_words_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let output = bare(folder.path(), &["doctor"]);
    assert_eq!(code(&output), 4);
    assert!(
        stdout(&output).contains("what to do"),
        "{}",
        stdout(&output)
    );
    let output = bare(folder.path(), &["doctor", "--json"]);
    let facts: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(facts["ok"], false);
    assert_eq!(facts["findings"][0]["error"]["name"], "library");
}

#[test]
fn doctor_is_content_with_a_whole_installation() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = tiny();
    let output = semblance(
        folder.path(),
        &["doctor", "--model", tiny.to_str().unwrap()],
    );
    succeeded(&output);
    assert!(
        stdout(&output).contains("Everything is in place"),
        "{}",
        stdout(&output)
    );
}
