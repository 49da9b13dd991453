//! What is missing, and what to do about it; the editors' plug-ins.

use std::process::Command;

use semblance_host::Samples;
use semblance_host::document::Kind;
use serde_json::Value;

use crate::support::{
    at_home, bare, code, files, picture, semblance, stderr, stdout, succeeded, tiny, write,
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

#[test]
fn kritas_extension_is_put_in_place_and_taken_away_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("krita's data");
    let mut line = vec!["install", "krita", "--user-dir", root.to_str().unwrap()];
    let output = semblance(folder.path(), &line);
    succeeded(&output);
    let text = stdout(&output);
    assert!(text.contains("Python Plugin Manager"), "{text}");
    assert_eq!(
        files(&root.join("pykrita")),
        ["semblance_krita", "semblance_krita.desktop"]
    );
    assert_eq!(files(&root.join("actions")), ["semblance_krita.action"]);
    let home = root.join("pykrita/semblance_krita");
    assert!(home.join(semblance_host::library::file_name()).is_file());
    let program = home.join(format!("semblance{}", std::env::consts::EXE_SUFFIX));
    let output = Command::new(&program)
        .env_remove("SEMBLANCE_LIBRARY")
        .arg("--version")
        .output()
        .unwrap();
    // The two that lie there belong together.
    let text = stdout(&output);
    assert!(text.contains("libsemblance 0"), "{text}");
    assert!(text.contains("krita's data"), "{text}");

    std::fs::write(root.join("pykrita/other.desktop"), "x").unwrap();
    line.push("--uninstall");
    succeeded(&semblance(folder.path(), &line));
    assert_eq!(files(&root.join("pykrita")), ["other.desktop"]);
    assert!(files(&root.join("actions")).is_empty());
    let text = stdout(&semblance(folder.path(), &line));
    assert!(text.contains("nothing to remove"), "{text}");
}

#[test]
fn every_editor_of_the_user_is_found_installed_to_and_told_of() {
    let home = tempfile::tempdir().unwrap();
    for folder in [
        ".config/GIMP/3.0",
        ".config/GIMP/2.10",
        ".local/share/krita",
        ".var/app/org.kde.krita/data/krita",
    ] {
        std::fs::create_dir_all(home.path().join(folder)).unwrap();
    }
    let output = at_home(home.path(), &["install", "krita"]);
    succeeded(&output);
    assert!(
        stdout(&output).contains("is a Flatpak"),
        "{}",
        stdout(&output)
    );
    let tiny = tiny();
    let line = ["doctor", "--json", "--model", tiny.to_str().unwrap()];
    let output = at_home(home.path(), &line);
    let facts: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(
        facts["editors"],
        serde_json::json!([
            "GIMP 2.10: without Semblance: semblance install gimp",
            "GIMP 3.0: without Semblance: semblance install gimp",
            "Krita: has Semblance",
            "Krita (Flatpak): has Semblance",
        ])
    );
}

#[cfg(unix)]
#[test]
fn a_gimp_2_10_without_a_compiler_is_told_what_to_install_and_spoils_no_gimp_3() {
    let home = tempfile::tempdir().unwrap();
    let old = home.path().join(".config/GIMP/2.10");
    std::fs::create_dir_all(&old).unwrap();
    let alone = at_home(home.path(), &["install", "gimp"]);
    assert_eq!(code(&alone), 2);
    let text = stderr(&alone);
    assert!(text.contains("libgimp2.0-dev"), "{text}");
    assert!(!old.join("plug-ins").exists());
    std::fs::create_dir_all(home.path().join(".config/GIMP/3.0")).unwrap();
    let both = at_home(home.path(), &["install", "gimp"]);
    succeeded(&both);
    let text = stdout(&both);
    assert!(text.contains("left out"), "{text}");
    assert!(text.contains("3.0/plug-ins/semblance-edit"), "{text}");
}

#[test]
fn an_editor_that_is_not_there_is_a_usage_error_that_says_how_to_find_it() {
    let home = tempfile::tempdir().unwrap();
    for editor in ["gimp", "krita"] {
        let output = at_home(home.path(), &["install", editor]);
        assert_eq!(code(&output), 2);
        let text = stderr(&output);
        assert!(text.contains("--user-dir"), "{text}");
    }
}
