//! OpenRaster: the edit is a new layer, all else stays.

use semblance_host::document::Kind;
use semblance_host::document::ora::OpenRaster;
use semblance_host::{Order, Samples};
use serde_json::json;

use crate::support::{STACK, archive, encode, entries, opaque, picture};

#[test]
fn an_openraster_keeps_everything_and_gains_a_layer_above() {
    let before = archive(STACK);
    let mut document = OpenRaster::parse(before.clone()).unwrap();
    let sky = document.layer(Some("sky")).unwrap().clone();
    let edited = opaque(240);
    let recipe = json!({"semblance": 1});
    document
        .insert_above(&sky, &edited, "sunset 0.8", &recipe)
        .unwrap();
    let after = document.encode().unwrap();

    let (old, new) = (entries(&before), entries(&after));
    assert_eq!(new[0].0, "mimetype");
    for (name, bytes) in &old {
        let now = &new.iter().find(|entry| entry.0 == *name).unwrap().1;
        match name.as_str() {
            "stack.xml" | "mergedimage.png" | "Thumbnails/thumbnail.png" => {
                assert_ne!(now, bytes, "{name}");
            }
            _ => assert_eq!(now, bytes, "{name}"),
        }
    }
    let added: Vec<&str> = new
        .iter()
        .map(|entry| entry.0.as_str())
        .filter(|name| !old.iter().any(|entry| entry.0 == *name))
        .collect();
    assert_eq!(added, ["data/semblance-1.png", "semblance/recipe.json"]);

    let line = "<layer name=\"sunset 0.8\" src=\"data/semblance-1.png\" x=\"2\" y=\"1\" opacity=\"1\" visibility=\"visible\" composite-op=\"svg:src-over\"/>\n      ";
    let stack = new.iter().find(|entry| entry.0 == "stack.xml").unwrap();
    let stack = std::str::from_utf8(&stack.1).unwrap();
    assert_eq!(stack.replace(line, ""), STACK);
    assert!(stack.find("sunset").unwrap() < stack.find("\"sky\"").unwrap());

    let again = OpenRaster::parse(after).unwrap();
    let layer = again.layer(Some("sunset 0.8")).unwrap();
    assert_eq!(again.picture(layer).unwrap().pixels, edited.pixels);
    assert_eq!(again.recipe().unwrap(), "{\n  \"semblance\": 1\n}");
    // At (2, 1): the new layer, under half of a multiplied ink: 240 (1/2 + 1/2 · 100/255).
    let merged = again.merged().unwrap().pixels;
    assert_eq!((merged.width, merged.height), (10, 8));
    let at = (10 + 2) * 4;
    assert_eq!(merged.bytes[at..at + 4], [167, 167, 167, 255]);
}

#[test]
fn a_see_through_layer_is_hidden_under_its_edit() {
    let mut document = OpenRaster::parse(archive(STACK)).unwrap();
    let ink = document.layer(Some("1")).unwrap().clone();
    assert_eq!(ink.name, "ink");
    document
        .insert_above(&ink, &opaque(100), "fog 1", &json!({"semblance": 1}))
        .unwrap();
    assert!(document.warnings.iter().any(|w| w.contains("hidden")));
    assert!(!document.layer(Some("ink")).unwrap().visible);
    let new = document.layer(Some("fog 1")).unwrap();
    assert_eq!(new.opacity, 0.5);
    assert_eq!(new.mode.name(), "svg:multiply");
}

#[test]
fn an_edit_that_changes_nothing_leaves_the_merged_picture_as_it_was() {
    let mut document = OpenRaster::parse(archive(STACK)).unwrap();
    let sky = document.layer(Some("sky")).unwrap().clone();
    let recipe = json!({"semblance": 1});
    document
        .insert_above(&sky, &opaque(200), "a", &recipe)
        .unwrap();
    let once = document.merged().unwrap().pixels;
    document
        .insert_above(&sky, &opaque(200), "b", &recipe)
        .unwrap();
    assert_eq!(document.merged().unwrap().pixels, once);
}

#[test]
fn an_unclear_layer_is_asked_for_with_a_list() {
    let document = OpenRaster::parse(archive(STACK)).unwrap();
    for choice in [None, Some("mountain"), Some("4"), Some("0")] {
        let (what, hint) = document.layer(choice).unwrap_err();
        assert!(
            hint.contains("1 \"ink\", 2 \"sky\", 3 \"land\""),
            "{what} {hint}"
        );
    }
    let selected = STACK.replace("name=\"land\"", "name=\"land\" selected=\"true\"");
    let document = OpenRaster::parse(archive(&selected)).unwrap();
    assert_eq!(document.layer(None).unwrap().name, "land");
}

#[test]
fn a_picture_becomes_an_openraster_with_an_editable_stack() {
    let picture = picture(Kind::Png, Samples::U16, Order::Rgb);
    let bytes = encode(&picture, Kind::Ora);
    let document = OpenRaster::parse(bytes).unwrap();
    let layer = document.layer(None).unwrap();
    assert_eq!(document.picture(layer).unwrap().pixels, picture.pixels);
}
