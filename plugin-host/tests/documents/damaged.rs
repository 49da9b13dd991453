//! Bad, huge and damaged files.

use std::io::{Cursor, Write};

use semblance_host::document::ora::OpenRaster;
use semblance_host::document::{self, Kind};
use semblance_host::{Exit, Order, Samples};
use zip::write::SimpleFileOptions;

use crate::support::{STACK, archive, crc32, encode, picture};

#[test]
fn bad_files_are_errors_with_the_path_and_exit_code_three() {
    let folder = tempfile::tempdir().unwrap();
    let png = encode(&picture(Kind::Png, Samples::U8, Order::Rgb), Kind::Png);
    let jpeg = encode(&picture(Kind::Jpeg, Samples::U8, Order::Rgb), Kind::Jpeg);
    // A PNG of 60 bytes that claims 2³¹ − 1 pixels a side.
    let mut bomb = png.clone();
    bomb[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    let check = crc32(&bomb[12..29]).to_be_bytes();
    bomb[29..33].copy_from_slice(&check);
    let cases: Vec<(&str, Option<Vec<u8>>, &str)> = vec![
        ("missing.png", None, "no such file"),
        ("empty.png", Some(Vec::new()), "empty"),
        ("text.png", Some(b"hello".to_vec()), "not a picture"),
        (
            "cut.png",
            Some(png[..png.len() / 2].to_vec()),
            "cannot be decoded",
        ),
        ("magic.png", Some(png[..8].to_vec()), "cannot be decoded"),
        ("bomb.png", Some(bomb), "large"),
        (
            "cut.jpg",
            Some(vec![0xff, 0xd8, 0xff, 0xe0]),
            "cannot be decoded",
        ),
        ("half.jpg", Some(jpeg[..jpeg.len() / 2].to_vec()), "cut off"),
        (
            "cut.tif",
            Some(b"II*\0\x08\0\0\0".to_vec()),
            "cannot be decoded",
        ),
        (
            "cut.webp",
            Some(b"RIFF\x04\0\0\0WEBP".to_vec()),
            "cannot be decoded",
        ),
        ("cut.ora", Some(archive(STACK)[..100].to_vec()), "zip"),
        ("no-image.ora", Some(archive("<stack/>")), "<image>"),
    ];
    for (name, bytes, expected) in cases {
        let path = folder.path().join(name);
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).unwrap();
        }
        let failure = document::open(&path).unwrap_err();
        assert_eq!(failure.exit, Exit::File, "{name}: {failure}");
        assert!(failure.message.contains(name), "{name}: {failure}");
        assert!(failure.message.contains(expected), "{name}: {failure}");
        assert!(!failure.message.contains('\n'), "{name}: {failure}");
    }
    let failure = document::open(folder.path()).unwrap_err();
    assert!(failure.message.contains("folder"), "{failure}");
}

#[test]
fn a_zip_that_unpacks_to_gigabytes_is_stopped_at_the_limit() {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let packed = SimpleFileOptions::default();
    zip.start_file("mimetype", packed).unwrap();
    zip.write_all(b"image/openraster").unwrap();
    zip.start_file("stack.xml", packed).unwrap();
    let blank = vec![b' '; 1 << 20];
    for _ in 0..20 {
        zip.write_all(&blank).unwrap();
    }
    let bytes = zip.finish().unwrap().into_inner();
    assert!(bytes.len() < 100_000);
    let what = OpenRaster::parse(bytes).unwrap_err();
    assert!(what.contains("stack.xml: more than"), "{what}");
}

#[test]
fn damaged_files_never_panic_the_reader() {
    let pictures = [
        encode(&picture(Kind::Png, Samples::U16, Order::Rgba), Kind::Png),
        encode(&picture(Kind::Jpeg, Samples::U8, Order::Rgb), Kind::Jpeg),
        encode(&picture(Kind::Tiff, Samples::U16, Order::Rgba), Kind::Tiff),
        encode(&picture(Kind::Webp, Samples::U8, Order::Rgba), Kind::Webp),
        archive(STACK),
    ];
    for bytes in &pictures {
        for cut in (0..bytes.len()).step_by(7) {
            let _ = document::parse(bytes[..cut].to_vec());
        }
        for at in (4..bytes.len()).step_by(5) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0xff;
            let _ = document::parse(bytes);
        }
    }
}
