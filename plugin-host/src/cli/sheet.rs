//! `semblance sheet`: strengths side by side. One engine makes them all and inverts the picture
//! once.

use std::path::Path;

use image::{Rgb, RgbImage, imageops};
use serde_json::json;

use super::args::{Sheet, Source, Space};
use super::session::Session;
use super::{mask, pattern, recipe, text};
use crate::document::{self, Document, Encoding, Kind, Metadata, Picture, atomic};
use crate::failure::{Failure, Result};
use crate::pixels::{Alpha, Color, Order, Pixels, Samples};

/// Pixels between pictures and around them.
const GAP: u32 = 8;
const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
const INK: Rgb<u8> = Rgb([24, 24, 24]);

pub(super) fn run(sheet: &Sheet) -> Result<()> {
    let making = &sheet.making;
    let (inputs, outputs) = (
        std::slice::from_ref(&sheet.input),
        std::slice::from_ref(&sheet.output),
    );
    let others = [making.mask.as_deref(), making.recipe.as_deref()];
    pattern::protect(inputs, outputs, &others, sheet.force)?;
    let kind = super::edit::output_kind(&sheet.output)?;
    if kind == Kind::Ora {
        return Err(
            Failure::invalid_file(&sheet.output, "a sheet has no layers").hint("write a .png"),
        );
    }
    let recipes = recipe::of_sheet(sheet)?;
    let (picture, canvas, offset) = match document::open(&sheet.input)? {
        Document::Picture(picture) => {
            if let Some(layer) = &making.layer {
                return Err(super::edit::no_layers(&sheet.input, layer, picture.kind));
            }
            let canvas = (picture.pixels.width, picture.pixels.height);
            (*picture, canvas, (0, 0))
        }
        Document::Layers(mut layers) => {
            let failure = |what: String| Failure::invalid_file(&sheet.input, what);
            if making.source == Source::Visible {
                let picture = layers.visible().map_err(failure)?;
                let canvas = layers.size();
                (picture, canvas, (0, 0))
            } else {
                let layer = layers
                    .layer(making.layer.as_deref())
                    .map_err(|(what, hint)| failure(what).hint(hint))?;
                let picture = layers.picture(layer).map_err(failure)?;
                (picture, layers.size(), (layer.x, layer.y))
            }
        }
    };
    let mut warnings = picture.warnings;
    let mut layer = picture.pixels;
    assume(&mut layer, making.assume);
    let size = (layer.width, layer.height);
    let mask = match &making.mask {
        Some(path) => Some(mask::fit(path, &mask::open(path)?, size, canvas, offset)?),
        None => None,
    };
    let session = Session::open(&sheet.machine, &sheet.speech)?;
    let mut cells = Vec::new();
    for (at, (slider, recipe)) in recipes.iter().enumerate() {
        let label = format!("{} {}", stem(&slider.name), slider.strength);
        session.reporter.begin(&label, at + 1, recipes.len());
        let outcome = session.edit(&layer, mask.as_ref(), recipe)?;
        let mut edited = layer.clone();
        outcome.render(&mut edited, mask.as_ref())?;
        cells.push((label, shrunk(&edited, sheet.size)));
        for warning in super::edit::warnings_in(&outcome.report()?) {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
    }
    session.reporter.end();
    let columns = sheet.columns.unwrap_or(sheet.steps);
    let pixels = arranged(&cells, columns, layer.color.clone()).map_err(|what| {
        Failure::usage(format!("the sheet: {what}")).hint("try a smaller --size")
    })?;
    let sheet_picture = Picture {
        kind,
        pixels,
        metadata: Metadata::default(),
        warnings: Vec::new(),
    };
    let (bytes, said) = sheet_picture
        .encode(kind, Encoding::default())
        .map_err(|(what, hint)| Failure::invalid_file(&sheet.output, what).hint(hint))?;
    atomic::write(&sheet.output, &bytes, super::stopped)?;
    warnings.extend(said);
    for warning in &warnings {
        super::warn(&format!("{}: {warning}", sheet.input.display()));
    }
    if sheet.speech.json {
        let strengths: Vec<f64> = recipes
            .iter()
            .take(sheet.steps as usize)
            .map(|(slider, _)| slider.strength)
            .collect();
        super::say(
            &json!({
                "ok": true,
                "input": sheet.input.to_string_lossy(),
                "output": sheet.output.to_string_lossy(),
                "attributes": sheet.attributes,
                "strengths": strengths,
                "warnings": warnings,
            })
            .to_string(),
        );
    } else {
        super::say(&format!(
            "{}: {} at {} strengths",
            sheet.output.display(),
            sheet.attributes.join(", "),
            sheet.steps
        ));
    }
    Ok(())
}

/// Gives float samples without a profile the meaning that the user says they have.
pub(super) fn assume(pixels: &mut Pixels, space: Option<Space>) {
    if pixels.color == Color::Unknown {
        pixels.color = match space {
            Some(Space::Srgb) => Color::Srgb,
            Some(Space::Linear) => Color::LinearSrgb,
            None => return,
        };
    }
}

fn stem(attribute: &str) -> String {
    if attribute.contains('/') || attribute.ends_with(".toml") {
        let stem = Path::new(attribute).file_stem().unwrap_or_default();
        return stem.to_string_lossy().into_owned();
    }
    attribute.to_owned()
}

/// The picture with its longer side at most `size`, over white; linear samples are encoded.
fn shrunk(pixels: &Pixels, size: u32) -> RgbImage {
    let linear = pixels.color == Color::LinearSrgb;
    let encode = |value: f32| {
        if linear {
            crate::pixels::srgb_transfer(value)
        } else {
            value
        }
    };
    let full = RgbImage::from_fn(pixels.width, pixels.height, |x, y| {
        let [r, g, b, a] = pixels.rgba(y as usize * pixels.width as usize + x as usize);
        Rgb([r, g, b].map(|value| {
            let value = encode(value).clamp(0.0, 1.0) * a + (1.0 - a);
            (value * 255.0).round() as u8
        }))
    });
    let longer = pixels.width.max(pixels.height);
    if longer <= size {
        return full;
    }
    let side = |length: u32| {
        let scaled = u64::from(length) * u64::from(size) / u64::from(longer);
        u32::try_from(scaled).unwrap_or(1).max(1)
    };
    imageops::resize(
        &full,
        side(pixels.width),
        side(pixels.height),
        imageops::FilterType::CatmullRom,
    )
}

/// Pictures in rows of `columns`, each with its label below.
fn arranged(
    cells: &[(String, RgbImage)],
    columns: u32,
    color: Color,
) -> std::result::Result<Pixels, String> {
    let widest = |(label, picture): &(String, RgbImage)| picture.width().max(text::width(label));
    let cell_width = cells.iter().map(widest).max().unwrap_or(1);
    let cell_height = cells.iter().map(|cell| cell.1.height()).max().unwrap_or(1);
    let columns = columns.clamp(1, u32::try_from(cells.len()).unwrap_or(u32::MAX).max(1));
    let rows = u32::try_from(cells.len()).unwrap_or(1).div_ceil(columns);
    let row_height = cell_height + GAP / 2 + text::HEIGHT + GAP;
    let width = GAP + columns * (cell_width + GAP);
    let height = GAP + rows * row_height;
    crate::pixels::checked_size(width, height, 3)?;
    let mut canvas = RgbImage::from_pixel(width, height, PAPER);
    for (at, (label, picture)) in (0u32..).zip(cells) {
        let x = GAP + at % columns * (cell_width + GAP);
        let y = GAP + at / columns * row_height;
        let left = x + (cell_width - picture.width()) / 2;
        imageops::replace(&mut canvas, picture, i64::from(left), i64::from(y));
        let left = x + (cell_width - text::width(label).min(cell_width)) / 2;
        text::draw(&mut canvas, label, left, y + cell_height + GAP / 2, INK);
    }
    Ok(Pixels {
        width,
        height,
        samples: Samples::U8,
        order: Order::Rgb,
        alpha: Alpha::None,
        // A grey profile would not fit the sheet's RGB.
        color: match color {
            Color::Icc(profile) if profile.get(16..20) == Some(b"RGB ") => Color::Icc(profile),
            _ => Color::Srgb,
        },
        bytes: canvas.into_raw(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_drawn_below_their_pictures() {
        let cell = |label: &str| {
            (
                label.to_owned(),
                RgbImage::from_pixel(200, 10, Rgb([9, 99, 9])),
            )
        };
        let sheet = arranged(
            &[cell("fog -1"), cell("fog 0"), cell("fog 1")],
            2,
            Color::Srgb,
        )
        .unwrap();
        assert_eq!((sheet.width, sheet.height), (8 + 2 * 208, 8 + 2 * 38));
        let ink = sheet
            .bytes
            .as_chunks::<3>()
            .0
            .iter()
            .filter(|pixel| **pixel == INK.0)
            .count();
        assert!(ink > 100, "{ink}");
    }

    #[test]
    fn pictures_are_shrunk_and_never_enlarged() {
        let pixels = Pixels {
            width: 40,
            height: 10,
            samples: Samples::U8,
            order: Order::Gray,
            alpha: Alpha::None,
            color: Color::Srgb,
            bytes: vec![7; 400],
        };
        assert_eq!(shrunk(&pixels, 20).dimensions(), (20, 5));
        assert_eq!(shrunk(&pixels, 90).dimensions(), (40, 10));
    }
}
