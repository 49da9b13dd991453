//! Pixels in a file that two processes share: on Linux best one in /dev/shm, which is memory.
//!
//! For: `serve`. Not for: picture files. The file is the asking program's: it makes it, sizes it,
//! keeps it from others and removes it. Samples lie in it in the machine's byte order, rows without
//! padding.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::library::{Mask, Rect};
use crate::pixels::{Alpha, Color, Order, Pixels, Samples, checked_size};

/// The file of one request, and where in it things lie.
pub(super) struct Shared<'a> {
    path: PathBuf,
    file: File,
    request: &'a Value,
    /// Whether blue lies first in it; here red does.
    blue_first: bool,
}

impl<'a> Shared<'a> {
    /// Opens the request's file, which nobody else may reach.
    pub(super) fn open(request: &'a Value) -> Result<Shared<'a>> {
        let path = request.get("file").and_then(Value::as_str);
        let path = PathBuf::from(path.ok_or_else(|| {
            Failure::usage("file: missing: must be the path of the file with the pixels")
                .hint("make one in /dev/shm")
        })?);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(|error| Failure::unreadable(&path, &error))?;
        let facts = file.metadata();
        let facts = facts.map_err(|error| Failure::unreadable(&path, &error))?;
        if !facts.is_file() {
            return Err(Failure::invalid_file(&path, "is no plain file"));
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let mode = facts.mode() & 0o777;
            if mode & 0o077 != 0 {
                let what = format!("others may reach it (mode {mode:o}): must be private");
                return Err(Failure::invalid_file(&path, what).hint("make it with mode 600"));
            }
        }
        Ok(Shared {
            path,
            file,
            request,
            blue_first: false,
        })
    }

    /// The layer: {"offset", "width", "height", "samples", "order", "alpha", "color", "icc"}.
    pub(super) fn layer(&mut self) -> Result<Pixels> {
        let layer = object(self.request, "layer")?;
        let (width, height) = (
            number(layer, "width", None)?,
            number(layer, "height", None)?,
        );
        let samples = one_of(
            layer,
            "samples",
            "u8",
            &[
                ("u8", Samples::U8),
                ("u16", Samples::U16),
                ("f16", Samples::F16),
                ("f32", Samples::F32),
            ],
        )?;
        let (order, blue_first) = one_of(
            layer,
            "order",
            "rgba",
            &[
                ("rgb", (Order::Rgb, false)),
                ("rgba", (Order::Rgba, false)),
                ("bgra", (Order::Rgba, true)),
                ("gray", (Order::Gray, false)),
                ("gray_alpha", (Order::GrayAlpha, false)),
            ],
        )?;
        let alpha = match order.has_alpha() {
            false => Alpha::None,
            true => one_of(
                layer,
                "alpha",
                "straight",
                &[
                    ("straight", Alpha::Straight),
                    ("premultiplied", Alpha::Premultiplied),
                ],
            )?,
        };
        let color = one_of(
            layer,
            "color",
            "srgb",
            &[
                ("srgb", Color::Srgb),
                ("linear_srgb", Color::LinearSrgb),
                ("icc", Color::Icc(Vec::new())),
            ],
        )?;
        let color = match color {
            Color::Icc(_) => {
                let icc = object(layer, "icc")?;
                let size = number(icc, "size", None)?;
                Color::Icc(self.read(number(icc, "offset", None)?, size)?)
            }
            color => color,
        };
        let size = samples.size() * order.channels();
        let size = checked_size(width, height, size).map_err(Failure::usage)?;
        let mut bytes = self.read(number(layer, "offset", Some(0))?, size)?;
        self.blue_first = blue_first;
        if blue_first {
            exchange_red_and_blue(&mut bytes, samples.size());
        }
        Ok(Pixels {
            width,
            height,
            samples,
            order,
            alpha,
            color,
            bytes,
        })
    }

    /// The mask, if there is one: {"offset", "x", "y", "width", "height", "samples"}.
    pub(super) fn mask(&mut self) -> Result<Option<Mask>> {
        if self.request.get("mask").is_none_or(Value::is_null) {
            return Ok(None);
        }
        let mask = object(self.request, "mask")?;
        let rect = rect(mask)?;
        let kinds = [("u8", Samples::U8), ("f32", Samples::F32)];
        let samples = one_of(mask, "samples", "u8", &kinds)?;
        let size = checked_size(rect.width, rect.height, samples.size());
        let size = size.map_err(Failure::usage)?;
        let bytes = self.read(number(mask, "offset", None)?, size)?;
        let samples = match samples {
            Samples::F32 => {
                let (floats, _) = bytes.as_chunks::<4>();
                floats.iter().copied().map(f32::from_ne_bytes).collect()
            }
            _ => bytes.into_iter().map(|v| f32::from(v) / 255.0).collect(),
        };
        Ok(Some(Mask { rect, samples }))
    }

    /// The part of a layer that a copy of another size shows, if it is one: {"x", "y", "width",
    /// "height"}.
    pub(super) fn part(&self) -> Result<Option<Rect>> {
        if self.request.get("part").is_none_or(Value::is_null) {
            return Ok(None);
        }
        rect(object(self.request, "part")?).map(Some)
    }

    /// Writes the layer back to where it was read.
    pub(super) fn put(&mut self, mut layer: Pixels) -> Result<()> {
        let offset = number(object(self.request, "layer")?, "offset", Some(0))?;
        if self.blue_first {
            exchange_red_and_blue(&mut layer.bytes, layer.samples.size());
        }
        self.file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.file.write_all(&layer.bytes))
            .map_err(|error| Failure::unwritable(&self.path, &error))
    }

    fn read(&mut self, offset: u64, size: usize) -> Result<Vec<u8>> {
        let unreadable = |error| Failure::unreadable(&self.path, &error);
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(size)
            .map_err(|_| unreadable(std::io::ErrorKind::OutOfMemory.into()))?;
        self.file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| {
                Read::by_ref(&mut self.file)
                    .take(size as u64)
                    .read_to_end(&mut bytes)
            })
            .map_err(unreadable)?;
        if bytes.len() != size {
            let what = format!(
                "has {} bytes from {offset} on: the request needs {size}",
                bytes.len()
            );
            return Err(Failure::invalid_file(&self.path, what).hint("make the file larger"));
        }
        Ok(bytes)
    }
}

fn object<'a>(request: &'a Value, key: &str) -> Result<&'a Value> {
    let value = request.get(key).filter(|value| value.is_object());
    value.ok_or_else(|| {
        Failure::usage(format!("{key}: must be a JSON object")).hint("see `semblance help serve`")
    })
}

fn rect(object: &Value) -> Result<Rect> {
    Ok(Rect {
        x: number(object, "x", Some(0))?,
        y: number(object, "y", Some(0))?,
        width: number(object, "width", None)?,
        height: number(object, "height", None)?,
    })
}

/// Exchanges the first and the third of each pixel's four samples, of `size` bytes each.
fn exchange_red_and_blue(bytes: &mut [u8], size: usize) {
    for pixel in bytes.chunks_exact_mut(4 * size) {
        let (first, rest) = pixel.split_at_mut(2 * size);
        let (red, _) = first.split_at_mut(size);
        let (blue, _) = rest.split_at_mut(size);
        red.swap_with_slice(blue);
    }
}

/// A whole number that its type can hold.
fn number<T: TryFrom<i64>>(object: &Value, key: &str, default: Option<T>) -> Result<T> {
    let value = match (object.get(key), default) {
        (None, Some(default)) => return Ok(default),
        (value, _) => value.unwrap_or(&Value::Null),
    };
    let number = value.as_i64().and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| {
        Failure::usage(format!(
            "{key}: {value}: must be a whole number, not too large"
        ))
        .hint("see `semblance help serve`")
    })
}

fn one_of<T: Clone>(object: &Value, key: &str, default: &str, choices: &[(&str, T)]) -> Result<T> {
    let said = match object.get(key) {
        None => default,
        Some(value) => value.as_str().unwrap_or_default(),
    };
    let found = choices.iter().find(|(name, _)| *name == said);
    found.map(|(_, value)| value.clone()).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        Failure::usage(format!("{key}: {said:?}: must be {}", names.join(", ")))
    })
}
