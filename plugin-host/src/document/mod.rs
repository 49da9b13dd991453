//! Files with pictures in them: what an edit reads and writes.
//!
//! For: taking pixels out of PNG, JPEG, TIFF, WebP and OpenRaster files and putting edited ones
//! back with everything else as it was: depth, alpha, profile, EXIF, other layers. Not for: other
//! formats, or editing.
//!
//! A file's kind is found from its first bytes, never from its name; an output's kind from its
//! name. EXIF orientation is applied once, on reading, and reset.

pub mod atomic;
mod exif;
mod jpeg;
pub mod ora;
mod png;
mod tiff;
mod webp;
pub mod xmp;

use std::borrow::Cow;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::limits;
use crate::pixels::{Alpha, Color, Order, Pixels, Samples};

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 8 or 16 bits, grey or RGB, with or without alpha.
    Png,
    /// 8 bits, grey or RGB.
    Jpeg,
    /// 8 or 16 bits or float.
    Tiff,
    /// 8 bits; written without loss, or lossy at a quality.
    Webp,
    /// Layers.
    Ora,
}

impl Kind {
    /// What the first bytes of a file say.
    pub fn of_bytes(bytes: &[u8]) -> Option<Kind> {
        Some(match bytes {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Kind::Png,
            [0xff, 0xd8, 0xff, ..] => Kind::Jpeg,
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Kind::Tiff,
            [
                b'R',
                b'I',
                b'F',
                b'F',
                _,
                _,
                _,
                _,
                b'W',
                b'E',
                b'B',
                b'P',
                ..,
            ] => Kind::Webp,
            [b'P', b'K', 3, 4, ..] => Kind::Ora,
            _ => return None,
        })
    }

    /// What a file's name says.
    pub fn of_path(path: &Path) -> Option<Kind> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match extension.as_str() {
            "png" => Kind::Png,
            "jpg" | "jpeg" => Kind::Jpeg,
            "tif" | "tiff" => Kind::Tiff,
            "webp" => Kind::Webp,
            "ora" => Kind::Ora,
            _ => return None,
        })
    }

    /// The format's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Png => "PNG",
            Kind::Jpeg => "JPEG",
            Kind::Tiff => "TIFF",
            Kind::Webp => "WebP",
            Kind::Ora => "OpenRaster",
        }
    }
}

/// What a picture's file says beside its pixels and its profile.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// EXIF as a TIFF structure, orientation reset.
    pub exif: Option<Vec<u8>>,
    /// The XMP packet, orientation reset.
    pub xmp: Option<String>,
    /// Texts, resolution and the like of a PNG.
    png: Option<Box<png::Extras>>,
    /// Descriptive tags of a TIFF.
    tiff: tiff::Extras,
}

/// A picture of one layer.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The format that it came in.
    pub kind: Kind,
    /// Its pixels, turned upright.
    pub pixels: Pixels,
    /// Everything else.
    pub metadata: Metadata,
    /// What could not be kept or had to be assumed, in plain words.
    pub warnings: Vec<String>,
}

/// A file that was read.
#[derive(Clone, Debug)]
pub enum Document {
    /// One layer.
    Picture(Box<Picture>),
    /// An OpenRaster document.
    Layers(Box<ora::OpenRaster>),
}

/// How files are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Quality of a JPEG (95 where it is left out) or of a WebP (without loss where it is left out), 1..=100.
    pub quality: Option<u8>,
}

/// Quality of a JPEG where nobody says another.
const JPEG_QUALITY: u8 = 95;

/// Reads a regular file within the limits.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    let unreadable = |error: std::io::Error| Failure::unreadable(path, &error);
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(Failure::invalid_file(path, "is a folder, not a picture")
            .hint(format!("try {}/*.png", path.display())));
    }
    if metadata.len() > limits::FILE_BYTES {
        return Err(Failure::invalid_file(
            path,
            format!(
                "{} bytes: too large, at most {} GiB",
                metadata.len(),
                limits::FILE_BYTES >> 30
            ),
        ));
    }
    let mut bytes = Vec::new();
    file.take(limits::FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}

/// Reads a picture or a layered document.
pub fn open(path: &Path) -> Result<Document> {
    let bytes = read_file(path)?;
    parse(bytes).map_err(|what| {
        let failure = Failure::invalid_file(path, &what);
        if what.starts_with("not a picture") {
            failure.hint("PNG, JPEG, TIFF, WebP and OpenRaster are read")
        } else {
            failure
        }
    })
}

/// As [`open`], from memory; the error is a text without the path.
pub fn parse(bytes: Vec<u8>) -> std::result::Result<Document, String> {
    let Some(kind) = Kind::of_bytes(&bytes) else {
        return Err(if bytes.is_empty() {
            "an empty file".to_owned()
        } else {
            "not a picture of a known kind".to_owned()
        });
    };
    if kind == Kind::Ora {
        return Ok(Document::Layers(Box::new(ora::OpenRaster::parse(bytes)?)));
    }
    Ok(Document::Picture(Box::new(decode(kind, &bytes)?)))
}

/// Decodes a picture of one layer.
fn decode(kind: Kind, bytes: &[u8]) -> std::result::Result<Picture, String> {
    // A decoder that panics on a damaged file must not end a run over a thousand others.
    let mut picture = std::panic::catch_unwind(|| match kind {
        Kind::Png => png::decode(bytes),
        Kind::Jpeg => jpeg::decode(bytes),
        Kind::Tiff => tiff::decode(bytes),
        Kind::Webp => webp::decode(bytes),
        Kind::Ora => Err("layers within layers".to_owned()),
    })
    .unwrap_or_else(|_| Err("its decoder gave up".to_owned()))
    .map_err(|what| {
        // Some decoders' texts have line breaks.
        let words: Vec<&str> = what.split_whitespace().collect();
        format!("{} cannot be decoded: {}", kind.name(), words.join(" "))
    })?;
    if let Some(exif) = &mut picture.metadata.exif
        && let Some(orientation) = image::metadata::Orientation::remove_from_exif_chunk(exif)
    {
        picture.pixels = picture.pixels.oriented(orientation.to_exif());
    }
    picture.metadata.xmp = picture
        .metadata
        .xmp
        .filter(|xmp| xmp.len() <= limits::XMP_BYTES)
        .map(|xmp| xmp::without_orientation(&xmp));
    picture.warnings.extend(picture.pixels.check_profile());
    Ok(picture)
}

impl Picture {
    /// The picture as a file of `kind`, and what that format could not hold.
    ///
    /// Errors with a text and a hint when the format cannot hold the samples at all.
    pub fn encode(
        &self,
        kind: Kind,
        encoding: Encoding,
    ) -> std::result::Result<(Vec<u8>, Vec<String>), (String, String)> {
        let mut warnings = Vec::new();
        let pixels = self.fitted(kind, &mut warnings)?;
        let bytes = match kind {
            Kind::Png => png::encode(&pixels, &self.metadata),
            Kind::Jpeg => {
                let quality = encoding.quality.unwrap_or(JPEG_QUALITY);
                jpeg::encode(&pixels, &self.metadata, quality)
            }
            Kind::Tiff => tiff::encode(&pixels, &self.metadata),
            Kind::Webp => webp::encode(&pixels, &self.metadata, encoding.quality),
            Kind::Ora => ora::OpenRaster::of_picture(self, "background").and_then(|mut layers| {
                layers.refresh()?;
                layers.encode()
            }),
        }
        .map_err(|what| {
            (
                format!("{} cannot be written: {what}", kind.name()),
                String::new(),
            )
        })?;
        Ok((bytes, warnings))
    }

    /// The pixels in a format that `kind` can hold; converts only what it must.
    fn fitted(
        &self,
        kind: Kind,
        warnings: &mut Vec<String>,
    ) -> std::result::Result<Pixels, (String, String)> {
        let mut pixels = Cow::Borrowed(&self.pixels);
        // Of these only a PNG can say, without a profile, that its integers are linear light.
        if pixels.color == Color::LinearSrgb && !pixels.samples.is_float() && kind != Kind::Png {
            pixels = Cow::Owned(pixels.srgb_encoded());
            warnings.push(format!(
                "{} cannot say that samples are linear light: they were encoded as sRGB",
                kind.name()
            ));
        }
        if kind == Kind::Tiff {
            return Ok(pixels.into_owned());
        }
        if pixels.samples.is_float() {
            return Err((
                format!("float samples: {} cannot hold them", kind.name()),
                "write a .tif".to_owned(),
            ));
        }
        let eight = matches!(kind, Kind::Jpeg | Kind::Webp);
        let samples = if eight { Samples::U8 } else { pixels.samples };
        if samples != pixels.samples {
            warnings.push(format!(
                "{} holds 8 bits a sample: the picture's 16 were rounded",
                kind.name()
            ));
        }
        let mut order = pixels.order;
        if kind == Kind::Jpeg && order.has_alpha() {
            order = order.opaque();
            if !pixels.is_opaque() {
                warnings.push("JPEG has no transparency: laid over white".to_owned());
            }
        }
        Ok(
            if pixels.samples == samples
                && pixels.order == order
                && pixels.alpha != Alpha::Premultiplied
            {
                pixels.into_owned()
            } else {
                pixels.to_integer(order, samples)
            },
        )
    }

    /// Puts `recipe` into the XMP packet, in place of an earlier one.
    pub fn set_recipe(&mut self, recipe: &Value) {
        self.metadata.xmp = Some(xmp::with_recipe(
            self.metadata.xmp.as_deref(),
            &recipe.to_string(),
        ));
    }
}

/// The recipe that a file carries: a JSON file's own text, a picture's XMP or an OpenRaster's
/// `semblance/recipe.json`.
pub fn recipe_of(path: &Path) -> Result<Value> {
    let bytes = read_file(path)?;
    let none = || {
        Failure::invalid_file(path, "carries no recipe")
            .hint("recipes are in files that `semblance edit` wrote")
    };
    let text = match Kind::of_bytes(&bytes) {
        None => String::from_utf8(bytes)
            .ok()
            .filter(|text| text.trim_start().starts_with('{'))
            .ok_or_else(none)?,
        Some(_) => match parse(bytes).map_err(|what| Failure::invalid_file(path, what))? {
            Document::Picture(picture) => picture
                .metadata
                .xmp
                .as_deref()
                .and_then(xmp::recipe_of)
                .ok_or_else(none)?,
            Document::Layers(layers) => layers.recipe().ok_or_else(none)?,
        },
    };
    if text.len() as u64 > limits::RECIPE_BYTES {
        return Err(Failure::invalid_file(path, "its recipe is too large"));
    }
    let value: Value = serde_json::from_str(&text).map_err(|error| {
        Failure::invalid_file(path, format!("its recipe is no JSON: {error}"))
            .hint("the least is {\"semblance\": 1}, with \"attributes\" or \"text\"")
    })?;
    if value.get("semblance").is_none() {
        return Err(
            Failure::invalid_file(path, "JSON, but no recipe: no \"semblance\"")
                .hint("a recipe begins with {\"semblance\": 1"),
        );
    }
    Ok(value)
}

/// Zeroed bytes, or a text where there is not enough memory.
fn zeroed(size: usize) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(size)
        .map_err(|_| format!("{} MiB: not enough memory", size >> 20))?;
    bytes.resize(size, 0);
    Ok(bytes)
}

/// A picture from one of the decoders of the `image` crate: 8 or 16 bits, straight alpha.
fn from_image_decoder<D: image::ImageDecoder>(
    mut decoder: D,
    kind: Kind,
) -> std::result::Result<Picture, String> {
    let text = |error: image::ImageError| error.to_string();
    let (width, height) = decoder.dimensions();
    let (samples, order) = match decoder.color_type() {
        image::ColorType::L8 => (Samples::U8, Order::Gray),
        image::ColorType::La8 => (Samples::U8, Order::GrayAlpha),
        image::ColorType::Rgb8 => (Samples::U8, Order::Rgb),
        image::ColorType::Rgba8 => (Samples::U8, Order::Rgba),
        image::ColorType::L16 => (Samples::U16, Order::Gray),
        image::ColorType::Rgb16 => (Samples::U16, Order::Rgb),
        other => return Err(format!("{other:?} samples are not supported")),
    };
    let size = crate::pixels::checked_size(width, height, samples.size() * order.channels())?;
    let mut bounds = image::Limits::default();
    bounds.max_alloc = Some(limits::PICTURE_BYTES);
    decoder.set_limits(bounds).map_err(text)?;
    let icc = decoder.icc_profile().unwrap_or_default();
    let exif = decoder.exif_metadata().unwrap_or_default();
    let xmp = decoder.xmp_metadata().unwrap_or_default();
    let mut bytes = zeroed(size)?;
    if decoder.total_bytes() != size as u64 {
        return Err("its size contradicts itself".to_owned());
    }
    decoder.read_image(&mut bytes).map_err(text)?;
    Ok(Picture {
        kind,
        pixels: Pixels {
            width,
            height,
            samples,
            order,
            alpha: if order.has_alpha() {
                Alpha::Straight
            } else {
                Alpha::None
            },
            color: icc.map_or(Color::Srgb, Color::Icc),
            bytes,
        },
        metadata: Metadata {
            exif,
            xmp: xmp.and_then(|xmp| String::from_utf8(xmp).ok()),
            ..Metadata::default()
        },
        warnings: Vec::new(),
    })
}
