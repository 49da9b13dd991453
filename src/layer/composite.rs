//! Brings a change to a layer's own pixels, any rectangle at a time.
//!
//! For: out = in + mask · [T⁻¹(T(in) + D) − T⁻¹(T(in))] with D the change at that place and colour, in
//! sRGB-encoded values. Every pixel depends on its own bytes and its place in the layer only, so that
//! tiles equal the whole byte for byte, at any thread count. Not for: fitting the change (`change`).

use std::borrow::Cow;

use rayon::prelude::*;

use super::Tally;
use super::change::{Cell, Change};
use super::color::Converter;
use super::format::{self, Pixel};
use super::place::{Geometry, Placement};
use super::rect::Rect;
use super::view::{LayerView, LayerViewMut, MaskView};
use crate::error::{Code, Error, Result};
use crate::limits::MAX_COORDINATE;

/// Pixels handled at a time: keeps the work of a row in the first-level cache.
const SPAN: usize = 512;

/// Applies `change` to the pixels of `layer`, a part of the layer that `placement` was made for (or
/// of one with the same size and content).
///
/// Nothing changes outside the placement's extent, where `mask` is 0, under alpha 0, in pixels with
/// NaN or infinity, and in alpha. Runs in the current rayon pool. Errors with
/// [`Code::InvalidLayer`] for a bad profile and [`Code::Internal`] for maps of another size.
pub fn render_in_place(
    change: &Change,
    placement: &Placement,
    layer: &mut LayerViewMut<'_>,
    mask: Option<&MaskView<'_>>,
) -> Result<Tally> {
    composite(change, placement, &placement.geometry(), layer, mask)
}

/// As [`render_in_place`], on a part of a copy of the layer at another size: the copy's rectangle
/// `whole` shows the rectangle `part` of the layer, and `mask` is one of the copy.
///
/// The same change at the places where the copy's pixels lie, so that what is shown is what the
/// layer will become. Errors also with [`Code::InvalidLayer`] for an empty `part`.
pub fn render_reduced(
    change: &Change,
    placement: &Placement,
    (part, whole): (Rect, Rect),
    copy: &mut LayerViewMut<'_>,
    mask: Option<&MaskView<'_>>,
) -> Result<Tally> {
    let far = |place: i64| place.checked_abs().is_none_or(|p| p > MAX_COORDINATE);
    if part.is_empty() || far(part.x) || far(part.y) {
        return Err(Error::new(
            Code::InvalidLayer,
            format!(
                "part of {} × {} pixels at {}, {}: must hold a pixel, within ±{MAX_COORDINATE}",
                part.width, part.height, part.x, part.y
            ),
        )
        .with_hint("give the rectangle of the layer that the copy shows")
        .with_parameter("part"));
    }
    let geometry = placement.geometry_on(part, whole);
    composite(change, placement, &geometry, copy, mask)
}

fn composite(
    change: &Change,
    placement: &Placement,
    geometry: &Geometry,
    layer: &mut LayerViewMut<'_>,
    mask: Option<&MaskView<'_>>,
) -> Result<Tally> {
    let (gw, gh) = placement.grid;
    if (change.width, change.height) != (gw as usize, gh as usize) {
        return Err(Error::new(
            Code::Internal,
            format!(
                "change of {} × {}: must be {gw} × {gh}",
                change.width, change.height
            ),
        ));
    }
    let (rect, format) = (layer.rect(), layer.format());
    let pixels = u64::from(rect.width) * u64::from(rect.height);
    let mut active = rect.intersect(&geometry.extent);
    if let Some(mask) = mask {
        active = active.intersect(&mask.rect());
    }
    let mut tally = Tally::default();
    if change.is_zero() {
        tally.selected = selected(active, mask);
    } else if !active.is_empty() {
        let (color, gray) = (layer.color(), format.order.is_gray());
        let converter = if placement.converter.serves(&color, gray) {
            Cow::Borrowed(placement.converter.as_ref())
        } else {
            Cow::Owned(Converter::new(&color, gray)?)
        };
        let (origin, step) = (geometry.origin, geometry.step);
        let work = Work {
            change,
            mask,
            converter: &converter,
            gray,
            format,
            active,
            columns: (active.x..active.right())
                .map(|x| Taps::at(x, origin.0, step.0, change.width))
                .collect(),
        };
        let size = format.pixel_bytes();
        let from = (active.x - rect.x) as usize * size;
        let to = from + active.width as usize * size;
        let rows: Vec<Tally> = layer
            .rows_mut()
            .into_par_iter()
            .enumerate()
            .skip((active.y - rect.y) as usize)
            .take(active.height as usize)
            .map_init(Scratch::default, |scratch, (r, row)| {
                let y = rect.y + r as i64;
                let taps = Taps::at(y, origin.1, step.1, change.height);
                row.get_mut(from..to)
                    .map(|row| work.row(y, &taps, row, scratch))
                    .unwrap_or_default()
            })
            .collect();
        tally = rows.into_iter().fold(tally, Tally::plus);
    }
    tally.kept = pixels - tally.changed;
    Ok(tally)
}

/// Pixels of `active` above 0 in the mask, or all of them.
fn selected(active: Rect, mask: Option<&MaskView<'_>>) -> u64 {
    let Some(mask) = mask else {
        return u64::from(active.width) * u64::from(active.height);
    };
    let line = || vec![0.0; active.width as usize];
    let rows = (0..i64::from(active.height)).into_par_iter();
    rows.map_init(line, |line, r| {
        mask.read(active.x, active.y + r, line);
        line.iter().filter(|&&m| m > 0.0).count() as u64
    })
    .sum()
}

/// Copies the pixels of `dst`'s rectangle from `src`, which must hold it and have its format and
/// colour space (else [`Code::InvalidLayer`]); `dst` can then be rendered in place.
pub fn copy_pixels(src: &LayerView<'_>, dst: &mut LayerViewMut<'_>) -> Result<()> {
    let (from, to) = (src.rect(), dst.rect());
    let fail = |message: String, hint: &str| {
        Err(Error::new(Code::InvalidLayer, message)
            .with_hint(hint)
            .with_parameter("dst"))
    };
    if !from.contains(&to) {
        return fail(
            format!("target {to:?} lies outside the source {from:?}"),
            "both are in the layer's coordinates",
        );
    }
    if src.format() != dst.format() || src.color() != dst.color() {
        return fail(
            format!(
                "target is {:?}, source is {:?}: must be equal",
                dst.format(),
                src.format()
            ),
            "format and colour space of both must be the same",
        );
    }
    let left = (to.x - from.x) as usize * src.format().pixel_bytes();
    let top = (to.y - from.y) as u32;
    dst.rows_mut()
        .into_par_iter()
        .enumerate()
        .for_each(|(r, row)| {
            let source = src.row(top + r as u32).get(left..left + row.len());
            if let Some(source) = source {
                row.copy_from_slice(source);
            }
        });
    Ok(())
}

/// As [`render_in_place`], from `src` into `dst`: see [`copy_pixels`].
pub fn render(
    change: &Change,
    placement: &Placement,
    src: &LayerView<'_>,
    mask: Option<&MaskView<'_>>,
    dst: &mut LayerViewMut<'_>,
) -> Result<Tally> {
    copy_pixels(src, dst)?;
    render_in_place(change, placement, dst, mask)
}

/// Where one coordinate of the layer lies in the maps: taps `first..first + 4` of the maps padded by
/// [`PAD`], and their weights.
#[derive(Clone, Copy)]
struct Taps {
    first: usize,
    smooth: [f32; 4],
    sharp: [f32; 4],
}

/// Cells repeated at each end of a line of maps.
const PAD: usize = 2;

impl Taps {
    fn at(place: i64, origin: f64, step: f64, len: usize) -> Taps {
        let u = ((place as f64 - origin + 0.5) / step - 0.5).clamp(-0.5, len as f64 - 0.5);
        let low = u.floor();
        let t = (u - low) as f32;
        let s = 1.0 - t;
        Taps {
            first: (low as i64 - 1 + PAD as i64) as usize,
            // Cubic B-spline, then Catmull–Rom (Keys 1981, a = −1/2).
            smooth: [
                s * s * s / 6.0,
                (4.0 - 6.0 * t * t + 3.0 * t * t * t) / 6.0,
                (4.0 - 6.0 * s * s + 3.0 * s * s * s) / 6.0,
                t * t * t / 6.0,
            ],
            sharp: [
                -0.5 * t * s * s,
                1.0 + t * t * (1.5 * t - 2.5),
                1.0 + s * s * (1.5 * s - 2.5),
                -0.5 * s * t * t,
            ],
        }
    }
}

/// Four cells under the weights of their taps.
#[inline(always)]
fn blend(cells: [&Cell; 4], taps: &Taps) -> Cell {
    let mut out: Cell = [[0.0; 4]; 5];
    for (k, cell) in cells.into_iter().enumerate() {
        for i in 0..4 {
            for c in 0..4 {
                out[i][c] += taps.smooth[k] * cell[i][c];
            }
        }
        for c in 0..4 {
            out[4][c] += taps.sharp[k] * cell[4][c];
        }
    }
    out
}

/// What all rows of a render share.
struct Work<'a> {
    change: &'a Change,
    mask: Option<&'a MaskView<'a>>,
    converter: &'a Converter,
    gray: bool,
    format: super::Format,
    active: Rect,
    columns: Vec<Taps>,
}

/// What a thread keeps from row to row.
#[derive(Default)]
struct Scratch {
    line: Vec<Cell>,
    mask: Vec<f32>,
    pixels: Vec<Pixel>,
    before: Vec<Pixel>,
    after: Vec<Pixel>,
}

impl Work<'_> {
    fn row(&self, y: i64, taps: &Taps, bytes: &mut [u8], scratch: &mut Scratch) -> Tally {
        let mut tally = Tally::default();
        scratch.mask.clear();
        scratch.mask.resize(self.active.width as usize, 1.0);
        if let Some(mask) = self.mask {
            mask.read(self.active.x, y, &mut scratch.mask);
        }
        tally.selected = scratch.mask.iter().filter(|&&m| m > 0.0).count() as u64;
        if tally.selected == 0 {
            return tally;
        }
        self.line(taps, &mut scratch.line);
        let size = self.format.pixel_bytes();
        let spans = bytes
            .chunks_mut(SPAN * size)
            .zip(self.columns.chunks(SPAN))
            .zip(scratch.mask.chunks(SPAN));
        for (i, ((bytes, columns), mask)) in spans.enumerate() {
            if mask.iter().all(|&m| m == 0.0) {
                continue;
            }
            let pixels = &mut scratch.pixels;
            pixels.clear();
            pixels.resize(columns.len(), [0.0; 4]);
            format::decode(self.format, bytes, pixels);
            scratch.before.clone_from(pixels);
            self.converter.to_srgb(&mut scratch.before);
            scratch.after.clear();
            scratch
                .after
                .extend(
                    scratch
                        .before
                        .iter()
                        .zip(columns)
                        .zip(mask)
                        .map(|((p, taps), &mask)| {
                            if p[3] == 0.0 || mask == 0.0 {
                                return [0.0; 4];
                            }
                            self.pixel(&scratch.line, p, taps)
                        }),
                );
            self.to_layer(&scratch.before, &mut scratch.after, mask);
            let place = (self.active.x + (i * SPAN) as i64, y);
            format::add(
                self.format,
                bytes,
                pixels,
                &scratch.after,
                place,
                &mut tally,
            );
        }
        tally
    }

    /// The maps at one row of the layer, padded.
    fn line(&self, taps: &Taps, line: &mut Vec<Cell>) {
        let (width, height) = (self.change.width, self.change.height);
        let rows: [&[Cell]; 4] = std::array::from_fn(|k| {
            let y = (taps.first + k).saturating_sub(PAD).min(height - 1);
            &self.change.cells[y * width..(y + 1) * width]
        });
        line.clear();
        line.resize(width + 2 * PAD, [[0.0; 4]; 5]);
        for x in 0..width {
            line[x + PAD] = blend(rows.map(|r| &r[x]), taps);
        }
        for i in 0..PAD {
            line[i] = line[PAD];
            line[width + PAD + i] = line[width + PAD - 1];
        }
    }

    /// The change of one sRGB-encoded pixel. Beyond the model's 0..=1 it grows with the pixel, so that
    /// a highlight of 6.0 is darkened like one of 1.0; it never pushes a colour below 0.
    #[inline(always)]
    fn pixel(&self, line: &[Cell], p: &Pixel, taps: &Taps) -> Pixel {
        let Some([a, b, c, d]) = line.get(taps.first..taps.first + 4) else {
            return [0.0; 4];
        };
        let cell = blend([a, b, c, d], taps);
        let most = p[0].max(p[1]).max(p[2]).max(1.0);
        let by = 1.0 / most;
        let v = [p[0] * by, p[1] * by, p[2] * by];
        let mut out = [0.0; 4];
        for c in 0..4 {
            let d =
                cell[0][c] * v[0] + cell[1][c] * v[1] + cell[2][c] * v[2] + cell[3][c] + cell[4][c];
            out[c] = (d * most).max(-(p[c].max(0.0)));
        }
        out
    }

    /// Turns changes of sRGB-encoded pixels into masked changes of the layer's own colours.
    fn to_layer(&self, before: &[Pixel], change: &mut [Pixel], mask: &[f32]) {
        if self.converter.is_identity() {
            if self.gray {
                self.converter.to_native(change);
            }
        } else {
            let still: Vec<bool> = change.iter().map(|c| c[..3] == [0.0; 3]).collect();
            let mut base = before.to_vec();
            for (c, b) in change.iter_mut().zip(before) {
                for k in 0..3 {
                    c[k] += b[k];
                }
            }
            self.converter.to_native(&mut base);
            self.converter.to_native(change);
            for ((c, b), still) in change.iter_mut().zip(&base).zip(still) {
                for k in 0..3 {
                    c[k] = if still { 0.0 } else { c[k] - b[k] };
                }
            }
        }
        for (c, &mask) in change.iter_mut().zip(mask) {
            for v in &mut c[..3] {
                *v *= mask;
            }
        }
    }
}
