//! What texts, attributes and options are called, and what the engine says of them: warnings,
//! errors, lists. Not for: every text that can be refused (`tests/refusals`).

use std::num::NonZeroUsize;

use semblance::job::Control;
use semblance::{Code, Engine, EngineOptions, FreeText, ModelChoice, Recipe};

use crate::support::{Picture, RGBA8, attribute, edit, engine, recipe, report, tiny};

#[test]
fn free_text_edits_and_names_the_words_that_the_model_never_learned() {
    let picture = Picture::new(130, 90, RGBA8);
    let text = FreeText {
        from: "a photo of the hills".into(),
        to: "a photo of the hills with a xylophone".into(),
        strength: 1.0,
    };
    let recipe = Recipe {
        text: Some(text),
        ..recipe(&[])
    };
    let edit = edit(&engine(), &picture, &recipe).unwrap();
    assert!(picture.rendered(&edit).1.changed > 0);
    let warnings = report(&edit)["warnings"].to_string();
    assert!(warnings.contains("never learned: xylophone"), "{warnings}");
}

#[test]
fn a_picture_that_the_model_does_not_know_is_warned_of() {
    let picture = Picture::new(130, 90, RGBA8);
    let edit = edit(&engine(), &picture, &recipe(&[("fog", 1.0)])).unwrap();
    let report = report(&edit);
    assert!(report["known_db"].as_f64().unwrap() < 20.0, "{report}");
    assert!(
        report["warnings"]
            .to_string()
            .contains("it knows few like it"),
        "{report}"
    );
}

#[test]
fn a_recipe_made_with_other_weights_is_warned_of() {
    let picture = Picture::new(70, 50, RGBA8);
    let mut recipe = recipe(&[("fog", 1.0)]);
    recipe.stamp = Some(semblance::Stamp {
        version: semblance::VERSION.into(),
        model: "tiny".into(),
        model_hash: "0".repeat(64),
        ..Default::default()
    });
    let edit = edit(&engine(), &picture, &recipe).unwrap();
    let warnings = report(&edit)["warnings"].to_string();
    assert!(warnings.contains("other weights"), "{warnings}");
}

#[test]
fn an_unknown_attribute_is_answered_with_the_nearest_names() {
    let picture = Picture::new(70, 50, RGBA8);
    let error = edit(&engine(), &picture, &recipe(&[("sunest", 1.0)])).unwrap_err();
    assert_eq!(error.code(), Code::UnknownAttribute);
    assert!(error.hint().contains("sunset"), "{error}");
}

#[test]
fn an_attribute_may_serve_a_model_by_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    let picture = Picture::new(70, 50, RGBA8);
    let hash =
        report(&edit(&engine(), &picture, &recipe(&[("fog", 1.0)])).unwrap())["model"]["hash"]
            .as_str()
            .unwrap()
            .to_owned();
    let path = attribute(folder.path(), "mine", "");
    let text = std::fs::read_to_string(&path).unwrap();
    for (models, served) in [(&hash[..16], true), ("0123456789abcdef", false)] {
        std::fs::write(&path, text.replace("\"mini\"", &format!("\"{models}\""))).unwrap();
        let name = path.to_str().unwrap();
        // On an engine that has not loaded its model yet.
        let result = edit(&engine(), &picture, &recipe(&[(name, 1.0)]));
        match served {
            true => assert!(result.is_ok(), "{:?}", result.err()),
            false => assert_eq!(result.unwrap_err().code(), Code::AttributeNotForModel),
        }
    }
}

#[test]
fn a_path_names_an_attribute_file_and_its_range_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = attribute(folder.path(), "mine", "[edit]\nrange = [0, 1]");
    let name = path.to_str().unwrap();
    let picture = Picture::new(70, 50, RGBA8);
    let engine = engine();
    assert!(edit(&engine, &picture, &recipe(&[(name, 1.0)])).is_ok());
    let error = edit(&engine, &picture, &recipe(&[(name, -1.0)])).unwrap_err();
    assert!(
        error.message().contains("must be 0..=1 for mine"),
        "{error}"
    );
    let error = edit(&engine, &picture, &recipe(&[("no/such.toml", 1.0)])).unwrap_err();
    assert_eq!(error.code(), Code::Io);
}

#[test]
fn the_engine_describes_itself_and_lists_attributes_and_parameters() {
    let engine = engine();
    let describe: serde_json::Value = serde_json::from_str(&engine.describe().unwrap()).unwrap();
    assert_eq!(describe["model"]["name"], "tiny");
    assert_eq!(describe["model"]["loaded"], false);
    assert_eq!(describe["threads"], 2);
    engine.load(&Control::default()).unwrap();
    let describe: serde_json::Value = serde_json::from_str(&engine.describe().unwrap()).unwrap();
    assert_eq!(describe["model"]["loaded"], true);
    let attributes: serde_json::Value =
        serde_json::from_str(&engine.attributes().unwrap()).unwrap();
    let names: Vec<&str> = attributes
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "sunset", "night", "snow", "fog", "autumn", "overcast", "rain"
        ]
    );
    assert!(attributes[0]["served"].as_bool().unwrap());
    let parameters: serde_json::Value =
        serde_json::from_str(&Engine::parameters().unwrap()).unwrap();
    assert!(
        parameters
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["id"] == "strength" && p["max"] == 2.0)
    );
}

#[test]
fn options_that_cannot_be_are_refused() {
    let options = EngineOptions {
        model: tiny(),
        threads: NonZeroUsize::new(100_000),
        ..EngineOptions::default()
    };
    assert_eq!(
        Engine::new(options).unwrap_err().code(),
        Code::InvalidParameter
    );
    let options = EngineOptions {
        model: ModelChoice::Folder("no/such/folder".into()),
        ..EngineOptions::default()
    };
    assert_eq!(
        Engine::new(options).unwrap_err().code(),
        Code::ModelNotFound
    );
    let options = EngineOptions {
        model: tiny(),
        attribute_folders: vec!["no/such/folder".into()],
        ..EngineOptions::default()
    };
    assert_eq!(Engine::new(options).unwrap_err().code(), Code::Io);
}
