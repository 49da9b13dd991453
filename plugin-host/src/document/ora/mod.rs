//! OpenRaster: a zip of PNGs and a stack.xml that orders them.
//!
//! For: taking out one layer and putting a new one above it, with every other entry copied byte for
//! byte, the merged picture and the thumbnail made anew. Not for: other edits of documents. See
//! <https://www.openraster.org/baseline/layer-stack-spec.html>.

pub mod merge;
pub mod stack;

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};

use serde_json::Value;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::{Encoding, Kind, Picture};
use crate::limits;
use crate::pixels::{Alpha, Color, Order, Pixels, Samples};
use stack::{Layer, Node, Stack};

const MIMETYPE: &[u8] = b"image/openraster";
const RECIPE: &str = "semblance/recipe.json";
const MERGED: &str = "mergedimage.png";
const THUMBNAIL: &str = "Thumbnails/thumbnail.png";
/// The longer side of the thumbnail, as the specification says.
const THUMBNAIL_SIDE: u32 = 256;

/// A layered document.
#[derive(Clone, Debug)]
pub struct OpenRaster {
    /// The file as it was read; none for a document made here.
    archive: Option<ZipArchive<Cursor<Vec<u8>>>>,
    /// Entries that are new or replaced.
    entries: BTreeMap<String, Vec<u8>>,
    /// `stack.xml`, parsed and as text.
    stack: Stack,
    /// What could not be kept or had to be assumed, in plain words.
    pub warnings: Vec<String>,
}

impl OpenRaster {
    /// Reads a document; its layers are decoded when asked for.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        let archive = ZipArchive::new(Cursor::new(bytes))
            .map_err(|error| format!("a damaged zip: {error}"))?;
        if archive.len() > limits::ARCHIVE_ENTRIES {
            return Err(format!(
                "{} entries: at most {}",
                archive.len(),
                limits::ARCHIVE_ENTRIES
            ));
        }
        if archive.has_duplicate_names() {
            return Err("two entries of the same name".to_owned());
        }
        let unpacked = archive.decompressed_size().unwrap_or_default();
        if unpacked > u128::from(limits::ARCHIVE_BYTES) {
            return Err(format!(
                "{} GiB unpacked: at most {}",
                unpacked >> 30,
                limits::ARCHIVE_BYTES >> 30
            ));
        }
        let mut archive = archive;
        let mimetype = read_entry(&mut archive, "mimetype", 64)
            .map_err(|_| "a zip, but no OpenRaster document: no mimetype".to_owned())?;
        if mimetype.trim_ascii() != MIMETYPE {
            return Err(format!(
                "a zip, but no OpenRaster document: its mimetype is {}",
                String::from_utf8_lossy(&mimetype).escape_debug()
            ));
        }
        let xml = read_entry(&mut archive, "stack.xml", limits::STACK_BYTES)?;
        let xml = String::from_utf8(xml).map_err(|_| "stack.xml: not UTF-8".to_owned())?;
        Ok(OpenRaster {
            archive: Some(archive),
            entries: BTreeMap::new(),
            stack: Stack::parse(xml)?,
            warnings: Vec::new(),
        })
    }

    /// A new document with one layer, `name`; see [`OpenRaster::refresh`].
    pub fn of_picture(picture: &Picture, name: &str) -> Result<Self, String> {
        let mut document = OpenRaster {
            archive: None,
            entries: BTreeMap::new(),
            stack: Stack::parse(format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                 <image version=\"0.0.6\" w=\"{}\" h=\"{}\">\n  <stack>\n    \
                 <layer name=\"{}\" src=\"data/layer-0.png\" x=\"0\" y=\"0\"/>\n  \
                 </stack>\n</image>\n",
                picture.pixels.width,
                picture.pixels.height,
                quick_xml::escape::escape(name)
            ))?,
            warnings: Vec::new(),
        };
        let png = encode_layer(picture)?;
        document.entries.insert("data/layer-0.png".to_owned(), png);
        Ok(document)
    }

    /// Canvas size.
    pub fn size(&self) -> (u32, u32) {
        (self.stack.width, self.stack.height)
    }

    /// The layer called `choice`, else the one with that number (1 is the uppermost); without a
    /// choice the one marked as selected, else the only one.
    pub fn layer(&self, choice: Option<&str>) -> Result<&Layer, (String, String)> {
        let layers = self.stack.layers();
        let listed = || {
            let names: Vec<String> = layers
                .iter()
                .enumerate()
                .map(|(at, layer)| format!("{} {:?}", at + 1, layer.name))
                .collect();
            format!("layers from the top: {}", names.join(", "))
        };
        match choice {
            Some(name) => {
                let mut named = layers.iter().filter(|layer| layer.name == name);
                if let Some(first) = named.next() {
                    return match named.next() {
                        None => Ok(first),
                        Some(_) => Err((
                            format!("layer {name:?}: several have this name"),
                            format!("give a number; {}", listed()),
                        )),
                    };
                }
                name.parse::<usize>()
                    .ok()
                    .and_then(|number| layers.get(number.checked_sub(1)?).copied())
                    .ok_or_else(|| (format!("layer {name:?}: there is none"), listed()))
            }
            None => match layers.as_slice() {
                [] => Err(("has no layers".to_owned(), String::new())),
                [only] => Ok(only),
                _ => layers
                    .iter()
                    .find(|layer| layer.selected)
                    .copied()
                    .ok_or_else(|| {
                        (
                            format!("{} layers: which one?", layers.len()),
                            format!("say --layer NAME or NUMBER; {}", listed()),
                        )
                    }),
            },
        }
    }

    /// Decodes a layer's picture.
    pub fn picture(&self, layer: &Layer) -> Result<Picture, String> {
        let bytes = self.entry(&layer.src)?;
        match Kind::of_bytes(&bytes) {
            Some(kind @ Kind::Png) => super::decode(kind, &bytes),
            _ => Err("not a PNG".to_owned()),
        }
        .map_err(|what| format!("layer {:?} ({}): {what}", layer.name, layer.src))
    }

    /// Puts `picture` as a layer called `name` directly above `below`, at its offset and with its
    /// opacity and mode, and makes merged picture and thumbnail anew. `below` is hidden where its
    /// showing through would apply the edit twice.
    pub fn insert_above(
        &mut self,
        below: &Layer,
        picture: &Picture,
        name: &str,
        recipe: &Value,
    ) -> Result<(), String> {
        let src = self.free_name()?;
        let shows_through =
            below.opacity < 1.0 || below.mode != merge::Mode::NORMAL || !picture.pixels.is_opaque();
        self.stack = self
            .stack
            .with_layer_above(below, name, &src, shows_through)?;
        if shows_through && below.visible {
            self.warnings.push(format!(
                "layer {:?} is hidden: it would show through the new one",
                below.name
            ));
        }
        self.add(src, picture, recipe)
    }

    /// An entry for a new layer.
    fn free_name(&self) -> Result<String, String> {
        (1..=limits::ARCHIVE_ENTRIES)
            .map(|number| format!("data/semblance-{number}.png"))
            .find(|src| !self.has_entry(src))
            .ok_or_else(|| "too many layers".to_owned())
    }

    /// Adds what a layer of the stack shows, and the recipe that made it.
    fn add(&mut self, src: String, picture: &Picture, recipe: &Value) -> Result<(), String> {
        self.entries.insert(src, encode_layer(picture)?);
        let text = serde_json::to_vec_pretty(recipe).map_err(|error| error.to_string())?;
        self.entries.insert(RECIPE.to_owned(), text);
        self.refresh()
    }

    fn warn_all(&mut self, warnings: Vec<String>) {
        for warning in warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }

    /// What the visible layers show together: 8 bits, straight alpha, canvas size. Merged anew,
    /// whatever the file's own merged picture says.
    pub fn visible(&mut self) -> Result<Picture, String> {
        let merged = merge::merge(self)?;
        self.warn_all(merged.warnings);
        Ok(plain(merged.pixels))
    }

    /// Puts `picture` as the uppermost layer, called `name`, at the canvas' origin, and makes merged
    /// picture and thumbnail anew.
    pub fn insert_on_top(
        &mut self,
        picture: &Picture,
        name: &str,
        recipe: &Value,
    ) -> Result<(), String> {
        let src = self.free_name()?;
        self.stack = self.stack.with_layer_on_top(name, &src)?;
        self.add(src, picture, recipe)
    }

    /// The merged picture: 8 bits, straight alpha.
    pub fn merged(&self) -> Result<Picture, String> {
        let bytes = self.entry(MERGED)?;
        super::decode(Kind::Png, &bytes)
    }

    /// `semblance/recipe.json`, or the recipe in the uppermost layer that has one.
    pub fn recipe(&self) -> Option<String> {
        let bytes = self.entry_within(RECIPE, limits::RECIPE_BYTES).ok()?;
        String::from_utf8(bytes).ok()
    }

    /// The document as a file: entries that did not change as they were packed, in their order,
    /// `mimetype` first and stored.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        let text = |error: zip::result::ZipError| error.to_string();
        let mut out = ZipWriter::new(Cursor::new(Vec::new()));
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        let packed = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        let put = |out: &mut ZipWriter<Cursor<Vec<u8>>>, name: &str, bytes: &[u8]| {
            // PNGs are packed already.
            let options = if name == "mimetype" || name.ends_with(".png") {
                stored
            } else {
                packed
            };
            out.start_file(name, options)
                .map_err(text)
                .and_then(|()| out.write_all(bytes).map_err(|error| error.to_string()))
        };
        put(&mut out, "mimetype", MIMETYPE)?;
        let mut entries = self.entries.clone();
        entries.insert("stack.xml".to_owned(), self.stack.xml.clone().into_bytes());
        if let Some(archive) = &self.archive {
            let mut archive = archive.clone();
            for index in 0..archive.len() {
                let file = archive.by_index_raw(index).map_err(text)?;
                let name = file.name().map_err(text)?.into_owned();
                if name == "mimetype" {
                    continue;
                }
                match entries.remove(&name) {
                    Some(bytes) => put(&mut out, &name, &bytes)?,
                    None => out.raw_copy_file(file).map_err(text)?,
                }
            }
        }
        for (name, bytes) in &entries {
            put(&mut out, name, bytes)?;
        }
        Ok(out.finish().map_err(text)?.into_inner())
    }

    /// Makes `mergedimage.png` and the thumbnail from the stack, as a document must have them.
    pub fn refresh(&mut self) -> Result<(), String> {
        let merged = merge::merge(self)?;
        self.warn_all(merged.warnings);
        let thumbnail = thumbnail(&merged.pixels)?;
        let merged = encode_layer(&plain(merged.pixels))?;
        self.entries.insert(MERGED.to_owned(), merged);
        let thumbnail = encode_layer(&plain(thumbnail))?;
        self.entries.insert(THUMBNAIL.to_owned(), thumbnail);
        Ok(())
    }

    fn has_entry(&self, name: &str) -> bool {
        let archived = self.archive.as_ref();
        self.entries.contains_key(name)
            || archived.is_some_and(|archive| archive.index_for_name(name).is_some())
    }

    fn entry(&self, name: &str) -> Result<Vec<u8>, String> {
        self.entry_within(name, limits::FILE_BYTES)
    }

    fn entry_within(&self, name: &str, limit: u64) -> Result<Vec<u8>, String> {
        if let Some(bytes) = self.entries.get(name) {
            return Ok(bytes.clone());
        }
        match &self.archive {
            Some(archive) => read_entry(&mut archive.clone(), name, limit),
            None => Err(format!("{name}: no such entry")),
        }
    }

    /// The nodes of the stack, uppermost first.
    fn nodes(&self) -> &[Node] {
        &self.stack.nodes
    }
}

/// A picture that is nothing but its pixels.
fn plain(pixels: Pixels) -> Picture {
    Picture {
        kind: Kind::Png,
        pixels,
        metadata: super::Metadata::default(),
        warnings: Vec::new(),
    }
}

/// Unpacks one entry, but never more than `limit` bytes whatever its header claims.
fn read_entry(
    archive: &mut ZipArchive<Cursor<Vec<u8>>>,
    name: &str,
    limit: u64,
) -> Result<Vec<u8>, String> {
    let file = archive
        .by_name(name)
        .map_err(|error| format!("{name}: {error}"))?;
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{name}: {error}"))?;
    if bytes.len() as u64 > limit {
        return Err(format!("{name}: more than {limit} bytes unpacked"));
    }
    Ok(bytes)
}

/// A layer as a PNG. Float pictures have no place in an OpenRaster.
fn encode_layer(picture: &Picture) -> Result<Vec<u8>, String> {
    picture
        .encode(Kind::Png, Encoding::default())
        .map(|(bytes, _)| bytes)
        .map_err(|(what, _)| what)
}

/// The picture made small, for file managers.
fn thumbnail(pixels: &Pixels) -> Result<Pixels, String> {
    let longer = pixels.width.max(pixels.height).max(THUMBNAIL_SIDE);
    let side = |length: u32| {
        let scaled = u64::from(length) * u64::from(THUMBNAIL_SIDE) / u64::from(longer);
        u32::try_from(scaled).unwrap_or(1).max(1)
    };
    let picture = image::RgbaImage::from_raw(pixels.width, pixels.height, pixels.bytes.clone())
        .ok_or("the thumbnail's size contradicts itself")?;
    let small = image::imageops::thumbnail(&picture, side(pixels.width), side(pixels.height));
    Ok(Pixels {
        width: small.width(),
        height: small.height(),
        samples: Samples::U8,
        order: Order::Rgba,
        alpha: Alpha::Straight,
        color: Color::Srgb,
        bytes: small.into_raw(),
    })
}
