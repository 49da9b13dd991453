//! OpenRaster in and out: which layer is edited and what becomes of the others.

use std::io::{Cursor, Read, Write};
use std::path::Path;

use semblance_host::Samples;
use semblance_host::document::ora::OpenRaster;
use semblance_host::document::{Encoding, Kind};
use zip::write::SimpleFileOptions;

use crate::support::{code, edit, files, picture, read, semblance, stderr, succeeded, write};

/// A document of two layers, the lower in a group with things that we do not know; the upper lies at
/// `x`, `y`.
fn document(path: &Path, x: i64, y: i64) {
    let png = picture(Kind::Png, Samples::U8)
        .encode(Kind::Png, Encoding::default())
        .unwrap();
    let stack = stack(x, y);
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let entries: [(&str, &[u8]); 5] = [
        ("mimetype", b"image/openraster"),
        ("stack.xml", stack.as_bytes()),
        ("data/a.png", &png.0),
        ("data/b.png", &png.0),
        ("other/notes.txt", b"keep me"),
    ];
    for (name, bytes) in entries {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    std::fs::write(path, zip.finish().unwrap().into_inner()).unwrap();
}

fn stack(x: i64, y: i64) -> String {
    format!(
        "<image w=\"64\" h=\"48\" maker=\"kept\"><stack>\
         <layer name=\"a\" src=\"data/a.png\" x=\"{x}\" y=\"{y}\" opacity=\"0.5\" odd=\"kept\"/>\
         <stack name=\"group\" isolation=\"isolate\"><layer name=\"b\" src=\"data/b.png\"/></stack>\
         <text kept=\"too\"/></stack></image>"
    )
}

fn entry(path: &Path, name: &str) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut bytes = Vec::new();
    zip.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn what_is_visible_is_edited_as_a_new_layer_on_top() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after) = (folder.path().join("a.ora"), folder.path().join("b.ora"));
    document(&before, 5, 7);
    succeeded(&edit(
        folder.path(),
        &["a.ora", "--source", "visible", "-o", "b.ora"],
    ));
    let text = String::from_utf8(entry(&after, "stack.xml")).unwrap();
    let new = "\n<layer name=\"a photo at night\" src=\"data/semblance-1.png\" x=\"0\" y=\"0\"/>";
    assert_eq!(text.replace(new, ""), stack(5, 7));
    for name in ["data/a.png", "data/b.png", "other/notes.txt"] {
        assert!(entry(&before, name) == entry(&after, name), "{name}");
    }
    let document = OpenRaster::parse(std::fs::read(&after).unwrap()).unwrap();
    let top = document.layer(Some("1")).unwrap();
    let top = document.picture(top).unwrap().pixels;
    assert_eq!((top.width, top.height), document.size());
    // As a picture it is that layer.
    succeeded(&edit(
        folder.path(),
        &["a.ora", "--source", "visible", "-o", "c.png"],
    ));
    assert_eq!(read(&folder.path().join("c.png")).pixels, top);
}

#[test]
fn a_layer_outside_the_canvas_is_edited_and_a_canvas_mask_does_not_reach_it() {
    let folder = tempfile::tempdir().unwrap();
    document(&folder.path().join("a.ora"), -900, 4000);
    let line = ["a.ora", "--layer", "a", "-o", "b.ora"];
    succeeded(&edit(folder.path(), &line));
    let text = String::from_utf8(entry(&folder.path().join("b.ora"), "stack.xml")).unwrap();
    // At the same place, with the same opacity, above the old one, which is hidden: it shows through.
    assert!(
        text.contains("x=\"-900\" y=\"4000\" opacity=\"0.5\" visibility=\"visible\""),
        "{text}"
    );
    assert!(
        text.contains("odd=\"kept\" visibility=\"hidden\""),
        "{text}"
    );
    let mut mask = picture(Kind::Png, Samples::U8);
    (mask.pixels.width, mask.pixels.height) = (64, 48);
    mask.pixels.bytes = vec![255; 64 * 48 * 4];
    write(&mask, &folder.path().join("m.png"));
    let line = ["a.ora", "--layer", "a", "--mask", "m.png", "-o", "c.ora"];
    let refused = edit(folder.path(), &line);
    assert_ne!(code(&refused), 0);
    assert!(
        stderr(&refused).contains("the mask is 0 on every pixel"),
        "{}",
        stderr(&refused)
    );
    assert_eq!(files(folder.path()), ["a.ora", "b.ora", "m.png"]);
}

#[test]
fn an_openraster_gains_a_layer_named_after_the_edit() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &picture(Kind::Png, Samples::U8),
        &folder.path().join("a.ora"),
    );
    let line = [
        "a.ora",
        "--layer",
        "background",
        "--strength",
        "0.5",
        "-o",
        "b.ora",
    ];
    succeeded(&edit(folder.path(), &line));
    let bytes = std::fs::read(folder.path().join("b.ora")).unwrap();
    let document = OpenRaster::parse(bytes).unwrap();
    assert_eq!(
        document.layer(Some("1")).unwrap().name,
        "a photo at night 0.5"
    );
    assert_eq!(document.layer(Some("2")).unwrap().name, "background");
    succeeded(&semblance(folder.path(), &["recipe", "b.ora"]));
}
