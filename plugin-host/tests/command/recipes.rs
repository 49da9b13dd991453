//! Recipes that travel in files and make the same bytes again.

use semblance_host::Samples;
use semblance_host::document::Kind;
use serde_json::{Value, json};

use crate::support::{bare, edit, picture, read, semblance, stdout, succeeded, tiny, write};

#[test]
fn a_recipe_is_printed_from_json_and_from_a_png() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = json!({"semblance": 1, "seed": 9});
    let mut carrier = picture(Kind::Png, Samples::U8);
    carrier.set_recipe(&recipe);
    write(&carrier, &folder.path().join("r.png"));
    std::fs::write(folder.path().join("r.json"), recipe.to_string()).unwrap();
    for file in ["r.png", "r.json"] {
        let output = bare(folder.path(), &["recipe", file]);
        succeeded(&output);
        let printed: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(printed, recipe, "{file}");
    }
}

#[test]
fn an_edit_carries_a_recipe_that_makes_the_same_file_again() {
    let folder = tempfile::tempdir().unwrap();
    let before = folder.path().join("a.png");
    write(&picture(Kind::Png, Samples::U16), &before);
    let tiny = tiny();
    let model = tiny.to_str().unwrap();
    for ext in ["png", "tif", "jpg", "webp", "ora"] {
        let (once, again) = (format!("b.{ext}"), format!("c.{ext}"));
        let line = ["a.png", "--seed", "3", "--strength", "1.5", "-o", &once];
        succeeded(&edit(folder.path(), &line));
        succeeded(&semblance(folder.path(), &["recipe", &once]));
        let line = [
            "edit", "a.png", "--model", model, "--recipe", &once, "-o", &again,
        ];
        succeeded(&semblance(folder.path(), &line));
        let bytes = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        assert!(bytes(&once) == bytes(&again), "{ext}");
    }
    assert_ne!(
        read(&folder.path().join("b.png")).pixels,
        read(&before).pixels
    );
}
