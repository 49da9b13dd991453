//! One layer: PNG, JPEG, TIFF, WebP.

use std::io::Cursor;

use semblance_host::document::{self, Encoding, Kind, Picture, xmp};
use semblance_host::{Alpha, Order, Samples};
use serde_json::json;

use crate::support::{ORDERS, decode, encode, exif, picture};

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
