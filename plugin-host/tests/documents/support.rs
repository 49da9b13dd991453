//! Pictures, profiles, EXIF and archives made up for these tests.

use std::io::{Cursor, Read, Write};

use semblance_host::document::{self, Document, Encoding, Kind, Metadata, Picture};
use semblance_host::{Alpha, Color, Order, Pixels, Samples};
use zip::write::SimpleFileOptions;

pub const ORDERS: [Order; 4] = [Order::Gray, Order::GrayAlpha, Order::Rgb, Order::Rgba];

/// An RGB or grey profile as far as anything here looks into one.
pub fn profile(order: Order) -> Vec<u8> {
    let mut profile: Vec<u8> = (0..200u8).collect();
    profile[16..20].copy_from_slice(if order.is_gray() { b"GRAY" } else { b"RGB " });
    profile
}

pub fn picture(kind: Kind, samples: Samples, order: Order) -> Picture {
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

pub fn encode(picture: &Picture, kind: Kind) -> Vec<u8> {
    picture.encode(kind, Encoding::default()).unwrap().0
}

pub fn decode(bytes: Vec<u8>) -> Picture {
    match document::parse(bytes).unwrap() {
        Document::Picture(picture) => *picture,
        Document::Layers(_) => panic!("layers"),
    }
}

/// A little-endian EXIF block that says nothing but its orientation.
pub fn exif(orientation: u8) -> Vec<u8> {
    let mut exif = b"II*\0\x08\0\0\0\x01\0".to_vec();
    exif.extend([0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0]);
    exif.extend([0; 4]);
    exif
}

pub const STACK: &str = r#"<?xml version='1.0' encoding='UTF-8'?>
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

pub fn opaque(value: u8) -> Picture {
    let mut picture = picture(Kind::Png, Samples::U8, Order::Rgba);
    picture.pixels.color = Color::Srgb;
    for pixel in picture.pixels.bytes.chunks_exact_mut(4) {
        pixel.copy_from_slice(&[value, value, value, 255]);
    }
    picture
}

pub fn archive(stack: &str) -> Vec<u8> {
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

pub fn entries(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
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

/// The checksum of a PNG chunk.
pub fn crc32(bytes: &[u8]) -> u32 {
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
