//! Files come back as they were: samples, depth, alpha, profile, texts, layers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Cursor, Read, Write};

use semblance_host::document::ora::OpenRaster;
use semblance_host::document::{self, Document, Encoding, Kind, Metadata, Picture, xmp};
use semblance_host::{Alpha, Color, Exit, Order, Pixels, Samples};
use serde_json::json;
use zip::write::SimpleFileOptions;

const ORDERS: [Order; 4] = [Order::Gray, Order::GrayAlpha, Order::Rgb, Order::Rgba];

/// An RGB or grey profile as far as anything here looks into one.
fn profile(order: Order) -> Vec<u8> {
    let mut profile: Vec<u8> = (0..200u8).collect();
    profile[16..20].copy_from_slice(if order.is_gray() { b"GRAY" } else { b"RGB " });
    profile
}

fn picture(kind: Kind, samples: Samples, order: Order) -> Picture {
    let (width, height) = (7u32, 5u32);
    let count = width as usize * height as usize * order.channels();
    let bytes = (0..count)
        .flat_map(|at| {
            let at = at as u32;
            match samples {
                Samples::U8 => vec![(at * 37 % 256) as u8],
                Samples::U16 => ((at * 7919 % 65_536) as u16).to_ne_bytes().to_vec(),
                // Halves between 0 and 1.
                Samples::F16 => ((at * 53 % 0x3c00) as u16).to_ne_bytes().to_vec(),
                Samples::F32 => (at as f32 / 97.0 - 0.1).to_ne_bytes().to_vec(),
            }
        })
        .collect();
    let alpha = if order.has_alpha() {
        Alpha::Straight
    } else {
        Alpha::None
    };
    Picture {
        kind,
        pixels: Pixels {
            width,
            height,
            samples,
            order,
            alpha,
            color: Color::Icc(profile(order)),
            bytes,
        },
        metadata: Metadata::default(),
        warnings: Vec::new(),
    }
}

fn encode(picture: &Picture, kind: Kind) -> Vec<u8> {
    picture.encode(kind, Encoding::default()).unwrap().0
}

fn decode(bytes: Vec<u8>) -> Picture {
    match document::parse(bytes).unwrap() {
        Document::Picture(picture) => *picture,
        Document::Layers(_) => panic!("layers"),
    }
}

/// A little-endian EXIF block that says nothing but its orientation.
fn exif(orientation: u8) -> Vec<u8> {
    let mut exif = b"II*\0\x08\0\0\0\x01\0".to_vec();
    exif.extend([0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0]);
    exif.extend([0; 4]);
    exif
}

#[test]
fn png_keeps_every_sample_of_every_format() {
    for samples in [Samples::U8, Samples::U16] {
        for order in ORDERS {
            let before = picture(Kind::Png, samples, order);
            let after = decode(encode(&before, Kind::Png));
            assert_eq!(after.pixels, before.pixels, "{samples:?} {order:?}");
        }
    }
}

#[test]
fn tiff_keeps_every_sample_of_every_format_floats_too() {
    for samples in [Samples::U8, Samples::U16, Samples::F16, Samples::F32] {
        for order in ORDERS {
            for alpha in [Alpha::Straight, Alpha::Premultiplied] {
                let mut before = picture(Kind::Tiff, samples, order);
                if order.has_alpha() {
                    before.pixels.alpha = alpha;
                }
                let after = decode(encode(&before, Kind::Tiff));
                assert_eq!(
                    after.pixels, before.pixels,
                    "{samples:?} {order:?} {alpha:?}"
                );
            }
        }
    }
}

#[test]
fn webp_is_written_without_loss() {
    for order in [Order::Rgb, Order::Rgba] {
        let mut before = picture(Kind::Webp, Samples::U8, order);
        if order.has_alpha() {
            // WebP's own decoders are free with colour under alpha 0; ours here keeps it.
            before
                .pixels
                .bytes
                .chunks_exact_mut(4)
                .for_each(|pixel| pixel[3] |= 1);
        }
        let after = decode(encode(&before, Kind::Webp));
        assert_eq!(after.pixels, before.pixels, "{order:?}");
    }
}

/// The picture as a WebP of that quality.
fn lossy_webp(picture: &Picture, quality: u8) -> Vec<u8> {
    let encoding = Encoding {
        quality: Some(quality),
    };
    picture.encode(Kind::Webp, encoding).unwrap().0
}

#[test]
fn a_webp_with_a_quality_is_smaller_and_near_and_keeps_all_else() {
    for order in [Order::Gray, Order::GrayAlpha, Order::Rgb, Order::Rgba] {
        let mut before = picture(Kind::Webp, Samples::U8, order);
        let (width, height) = (96_u32, 64_u32);
        (before.pixels.width, before.pixels.height) = (width, height);
        let channels = before.pixels.bytes.len() / 35;
        before.pixels.bytes = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .flat_map(|(x, y)| {
                let waves = (f64::from(x * x + 3 * y * y) / 40.0).sin() * 60.0;
                (0..channels).map(move |c| (120.0 + waves + 20.0 * c as f64) as u8)
            })
            .collect();
        if order.has_alpha() {
            // A clear corner, whose colour is to be kept.
            let pixels = before.pixels.bytes.chunks_exact_mut(channels);
            pixels
                .take(20 * 96)
                .for_each(|pixel| pixel[channels - 1] = 0);
        }
        before.metadata.exif = Some(exif(1));
        before.set_recipe(&json!({"semblance": 1, "seed": 5}));
        let lossless = encode(&before, Kind::Webp);
        let (low, high) = (lossy_webp(&before, 20), lossy_webp(&before, 95));
        assert!(
            low.len() < high.len() && high.len() < lossless.len(),
            "{order:?}"
        );
        for (file, near) in [(low, 20.0), (high, 5.0)] {
            let (after, exact) = (decode(file), decode(lossless.clone()));
            assert_eq!((after.pixels.width, after.pixels.height), (width, height));
            assert_eq!(after.pixels.order, exact.pixels.order, "{order:?}");
            assert_eq!(after.pixels.color, exact.pixels.color, "{order:?}");
            assert_eq!(after.metadata.exif, before.metadata.exif, "{order:?}");
            assert_eq!(after.metadata.xmp, exact.metadata.xmp, "{order:?}");
            let pairs = || after.pixels.bytes.iter().zip(&exact.pixels.bytes);
            let sum: f64 = pairs().map(|(&a, &b)| f64::from(a.abs_diff(b))).sum();
            let mean = sum / after.pixels.bytes.len() as f64;
            assert!(mean > 0.0 && mean < near, "{order:?}: {mean}");
            if order.has_alpha() {
                let alpha =
                    |bytes: &[u8]| bytes.iter().skip(3).step_by(4).copied().collect::<Vec<_>>();
                assert_eq!(alpha(&after.pixels.bytes), alpha(&exact.pixels.bytes));
            }
        }
    }
}

#[test]
fn jpeg_and_webp_keep_size_profile_exif_and_recipe() {
    for kind in [Kind::Jpeg, Kind::Webp] {
        let mut before = picture(kind, Samples::U8, Order::Rgb);
        before.metadata.exif = Some(exif(1));
        before.set_recipe(&json!({"semblance": 1, "seed": 5}));
        let after = decode(encode(&before, kind));
        assert_eq!((after.pixels.width, after.pixels.height), (7, 5));
        assert_eq!(after.pixels.color, before.pixels.color, "{kind:?}");
        assert_eq!(after.metadata.exif, before.metadata.exif, "{kind:?}");
        let recipe = xmp::recipe_of(&after.metadata.xmp.unwrap()).unwrap();
        assert_eq!(recipe, r#"{"seed":5,"semblance":1}"#, "{kind:?}");
    }
}

/// A big-endian EXIF block with a maker, a date and a place.
fn told() -> Vec<u8> {
    let mut block = b"MM\0*\0\0\0\x08\0\x03".to_vec();
    let field = |tag: u16, kind: u16, count: u32, value: u32| {
        let mut field = tag.to_be_bytes().to_vec();
        field.extend(kind.to_be_bytes());
        field.extend(count.to_be_bytes());
        field.extend(value.to_be_bytes());
        field
    };
    block.extend(field(0x010f, 2, 6, 86)); // Make
    block.extend(field(0x8769, 4, 1, 50)); // EXIF
    block.extend(field(0x8825, 4, 1, 68)); // GPS
    block.extend([0; 4]);
    block.extend([0, 1]);
    block.extend(field(0x9003, 2, 20, 92)); // when it was taken
    block.extend([0; 4]);
    block.extend([0, 1]);
    block.extend(field(0x001d, 2, 11, 112)); // the day of the position
    block.extend([0; 4]);
    block.extend(b"Maker\0");
    block.extend(b"2024:05:06 07:08:09\0");
    block.extend(b"2024:05:06\0");
    block
}

#[test]
fn exif_travels_into_a_tiff_and_out_of_it() {
    let has = |block: &[u8], text: &[u8]| block.windows(text.len()).any(|part| part == text);
    let mut before = picture(Kind::Jpeg, Samples::U8, Order::Rgb);
    before.metadata.exif = Some(told());
    let tiff = decode(encode(&before, Kind::Tiff));
    assert!(tiff.warnings.is_empty(), "{:?}", tiff.warnings);
    let block = tiff.metadata.exif.clone().unwrap();
    for text in [&b"Maker\0"[..], b"2024:05:06 07:08:09\0", b"2024:05:06\0"] {
        assert!(has(&block, text), "{text:?}");
    }
    // Once more into a TIFF, and out of it into a PNG.
    let again = decode(encode(&tiff, Kind::Tiff));
    assert_eq!(again.metadata.exif.as_ref(), Some(&block));
    let png = decode(encode(&again, Kind::Png));
    assert_eq!(png.metadata.exif, Some(block));
    // A damaged block is left out, and the picture is written.
    for cut in [0, 7, 9, 30, 60, 100] {
        before.metadata.exif = Some(told()[..cut].to_vec());
        let after = decode(encode(&before, Kind::Tiff));
        assert_eq!(after.pixels, before.pixels, "{cut}");
    }
}

#[test]
fn orientation_is_applied_once_and_reset() {
    for kind in [Kind::Png, Kind::Jpeg, Kind::Webp] {
        let mut before = picture(kind, Samples::U8, Order::Rgb);
        before.metadata.exif = Some(exif(6));
        let once = decode(encode(&before, kind));
        assert_eq!((once.pixels.width, once.pixels.height), (5, 7), "{kind:?}");
        assert_eq!(once.metadata.exif, Some(exif(1)), "{kind:?}");
        let twice = decode(encode(&once, kind));
        assert_eq!(
            (twice.pixels.width, twice.pixels.height),
            (5, 7),
            "{kind:?}"
        );
    }
}

#[test]
fn recipes_survive_png_and_tiff_and_replace_each_other() {
    for kind in [Kind::Png, Kind::Tiff] {
        let mut first = picture(kind, Samples::U16, Order::Rgb);
        first.set_recipe(&json!({"semblance": 1, "seed": 1}));
        let mut second = decode(encode(&first, kind));
        second.set_recipe(&json!({"semblance": 1, "seed": 2}));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, encode(&second, kind)).unwrap();
        let recipe = document::recipe_of(&path).unwrap();
        assert_eq!(recipe, json!({"semblance": 1, "seed": 2}), "{kind:?}");
    }
}

#[test]
fn png_texts_and_resolution_travel() {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
    encoder.set_pixel_dims(Some(png::PixelDimensions {
        xppu: 2835,
        yppu: 2835,
        unit: png::Unit::Meter,
    }));
    encoder
        .add_text_chunk("Author".into(), "me".into())
        .unwrap();
    encoder.add_itxt_chunk("Title".into(), "Ü".into()).unwrap();
    encoder
        .write_header()
        .unwrap()
        .write_image_data(&[1, 2])
        .unwrap();
    let again = encode(&decode(bytes), Kind::Png);
    let reader = png::Decoder::new(Cursor::new(again)).read_info().unwrap();
    let info = reader.info();
    assert_eq!(info.pixel_dims.unwrap().xppu, 2835);
    assert_eq!(info.uncompressed_latin1_text[0].text, "me");
    assert_eq!(info.utf8_text[0].get_text().unwrap(), "Ü");
}

#[test]
fn a_palette_with_transparency_becomes_rgba() {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_palette(vec![1, 2, 3, 4, 5, 6]);
    encoder.set_trns(vec![255, 0]);
    encoder
        .write_header()
        .unwrap()
        .write_image_data(&[0, 1])
        .unwrap();
    let pixels = decode(bytes).pixels;
    assert_eq!(pixels.order, Order::Rgba);
    assert_eq!(pixels.bytes, [1, 2, 3, 255, 4, 5, 6, 0]);
}

#[test]
fn what_a_format_cannot_hold_is_said() {
    let deep = picture(Kind::Png, Samples::U16, Order::Rgba);
    let (_, warnings) = deep.encode(Kind::Jpeg, Encoding::default()).unwrap();
    assert!(
        warnings.iter().any(|w| w.contains("rounded")),
        "{warnings:?}"
    );
    assert!(warnings.iter().any(|w| w.contains("white")), "{warnings:?}");
    let float = picture(Kind::Tiff, Samples::F32, Order::Rgb);
    for kind in [Kind::Png, Kind::Jpeg, Kind::Webp] {
        let (what, hint) = float.encode(kind, Encoding::default()).unwrap_err();
        assert!(what.contains("float") && hint.contains(".tif"), "{what}");
    }
}

#[test]
fn transparent_pixels_are_laid_over_white_for_jpeg() {
    let mut clear = picture(Kind::Png, Samples::U8, Order::Rgba);
    clear
        .pixels
        .bytes
        .chunks_exact_mut(4)
        .for_each(|pixel| pixel[3] = 0);
    let white = decode(encode(&clear, Kind::Jpeg)).pixels;
    assert!(white.bytes.iter().all(|value| *value >= 250));
}

const STACK: &str = r#"<?xml version='1.0' encoding='UTF-8'?>
<image version="0.0.3" w="10" h="8" xres="72" yres="72">
  <stack>
    <layer name="ink" src="data/ink.png" x="0" y="0" opacity="0.5" composite-op="svg:multiply" />
    <stack name="group" unknown="kept">
      <layer name="sky" src="data/sky.png" x="2" y="1"/>
      <layer name="land" src="data/land.png" x="-1" y="0" visibility="hidden"/>
    </stack>
  </stack>
</image>
"#;

fn opaque(value: u8) -> Picture {
    let mut picture = picture(Kind::Png, Samples::U8, Order::Rgba);
    picture.pixels.color = Color::Srgb;
    for pixel in picture.pixels.bytes.chunks_exact_mut(4) {
        pixel.copy_from_slice(&[value, value, value, 255]);
    }
    picture
}

fn archive(stack: &str) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let packed = SimpleFileOptions::default();
    let mut put = |name: &str, bytes: &[u8], options| {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    };
    put("mimetype", b"image/openraster", stored);
    put("data/ink.png", &encode(&opaque(100), Kind::Png), packed);
    put("data/sky.png", &encode(&opaque(200), Kind::Png), packed);
    put("data/land.png", &encode(&opaque(50), Kind::Png), packed);
    put("stack.xml", stack.as_bytes(), packed);
    put("Thumbnails/thumbnail.png", b"old", stored);
    put("mergedimage.png", b"old", stored);
    put("other/notes.txt", b"keep me", packed);
    zip.finish().unwrap().into_inner()
}

fn entries(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    (0..zip.len())
        .map(|at| {
            let mut file = zip.by_index(at).unwrap();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            (file.name().unwrap().into_owned(), bytes)
        })
        .collect()
}

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

/// The checksum of a PNG chunk.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            };
        }
    }
    !crc
}
