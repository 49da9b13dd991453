//! What an editor in a sandbox sees of the disk, on made-up machines.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{at_home, stdout, succeeded, tiny};

const CACHE: &str = ".cache/huggingface/hub";

/// A home with a model in Hugging Face's cache, a Flatpak GIMP and a Snap of Krita.
fn machine(permissions: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put(&format!("{CACHE}/models--any--one/refs/main"), "1");
    put(
        "flatpak/app/org.gimp.GIMP/current/active/metadata",
        &format!("[Application]\nname=org.gimp.GIMP\n\n[Context]\nfilesystems={permissions}\n"),
    );
    put(".var/app/org.gimp.GIMP/config/GIMP/3.0/gimprc", "");
    put("snap/krita/current/.local/share/krita/kritarc", "");
    home
}

fn doctor(home: &Path) -> Value {
    let tiny = tiny();
    let output = at_home(
        home,
        &["doctor", "--json", "--model", tiny.to_str().unwrap()],
    );
    succeeded(&output);
    serde_json::from_str(&stdout(&output)).unwrap()
}

fn unseen(facts: &Value, at: usize) -> Vec<String> {
    let list = facts["sandboxes"][at]["cannot_see"].as_array().unwrap();
    list.iter()
        .map(|one| one["folder"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn doctor_says_which_folders_of_models_a_sandboxed_editor_cannot_see() {
    let home = machine("home;");
    let (cache, tiny) = (home.path().join(CACHE), tiny());
    let (cache, tiny) = (cache.to_str().unwrap(), tiny.to_str().unwrap());
    let facts = doctor(home.path());
    assert_eq!(facts["sandboxes"][0]["editor"], "GIMP (Flatpak)");
    assert_eq!(unseen(&facts, 0), [tiny]);
    assert_eq!(
        facts["sandboxes"][0]["cannot_see"][0]["hint"],
        format!("flatpak override --user --filesystem={tiny}:ro org.gimp.GIMP")
    );
    assert_eq!(facts["sandboxes"][1]["editor"], "Krita (Snap)");
    assert_eq!(unseen(&facts, 1), [tiny, cache]);
    let words = stdout(&at_home(home.path(), &["doctor", "--model", tiny]));
    let line = format!("Krita (Snap) cannot see the models in {cache}: copy the model");
    assert!(words.contains(&line), "{words}");
}

#[test]
fn the_users_overrides_of_a_flatpak_count() {
    let home = machine("xdg-run/gvfs;");
    let cache = home.path().join(CACHE);
    let cache = cache.to_str().unwrap();
    assert!(unseen(&doctor(home.path()), 0).contains(&cache.to_owned()));
    let overrides = home.path().join(".local/share/flatpak/overrides");
    std::fs::create_dir_all(&overrides).unwrap();
    std::fs::write(
        overrides.join("org.gimp.GIMP"),
        "[Context]\nfilesystems=xdg-cache/huggingface:ro;\n",
    )
    .unwrap();
    assert!(!unseen(&doctor(home.path()), 0).contains(&cache.to_owned()));
}

#[test]
fn install_says_which_models_a_sandboxed_editor_can_use() {
    let home = machine("~/pictures");
    let output = at_home(home.path(), &["install", "gimp"]);
    succeeded(&output);
    let text = stdout(&output);
    assert!(text.contains("GIMP (Flatpak) sees models in "), "{text}");
    assert!(text.contains("/pictures"), "{text}");
    let line = format!(
        "not in {}: flatpak override --user",
        home.path().join(CACHE).display()
    );
    assert!(text.contains(&line), "{text}");
    let text = stdout(&at_home(home.path(), &["install", "krita"]));
    assert!(text.contains("Krita (Snap) sees models in "), "{text}");
    assert!(text.contains("begins with a dot"), "{text}");
}

#[test]
fn a_machine_without_sandboxes_is_told_of_none() {
    let home = tempfile::tempdir().unwrap();
    let facts = doctor(home.path());
    assert_eq!(facts["sandboxes"], json!([]));
    let findings = facts["findings"].as_array().unwrap();
    assert!(findings.iter().all(|one| one["what"] != "sandbox"));
}
