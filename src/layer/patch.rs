//! A layer reduced to what the model sees.
//!
//! For: reading a host's pixels once, row by row, without a full-size copy. Not for: bringing an
//! edit back (`composite`).

use std::sync::Arc;

use rayon::prelude::*;

use super::color::Converter;
use super::fill::fill_holes;
use super::format::{self, Pixel};
use super::place::Placement;
use super::view::{LayerView, MaskView};
use crate::error::{Code, Error, Result};
use crate::job::Cancel;

/// The part of a layer around an edit, at the model's size.
///
/// Colours are sRGB-encoded, clamped to 0..=1; what is transparent in the layer is filled from its
/// surroundings, because models have no alpha and the colour under alpha 0 is anything.
#[derive(Clone, Debug)]
pub struct Patch {
    pixels: Vec<f32>,
    placement: Placement,
    hash: [u8; 32],
}

impl Patch {
    /// Reads what an edit of `layer` under `mask` needs; `grids` are the picture sizes that the model
    /// serves, (width, height) in pixels.
    ///
    /// The region is the mask's box and half as much again, at least the model's size, or the whole
    /// layer without a mask. Reduction is by exact area, enlargement linear, both in sRGB-encoded
    /// values; runs in the current rayon pool, with the same result at any thread count. Errors:
    /// [`Code::InvalidMask`] for a mask that selects nothing, [`Code::InvalidLayer`] for a bad
    /// profile, [`Code::InvalidModel`] for grids that no model can have.
    pub fn read(
        layer: &LayerView<'_>,
        mask: Option<&MaskView<'_>>,
        grids: &[(u32, u32)],
    ) -> Result<Patch> {
        Patch::read_until(layer, mask, grids, &Cancel::new())
    }

    /// As [`Patch::read`], given up when `cancel` is raised: polled at every row of the mask and of
    /// the model's picture.
    pub fn read_until(
        layer: &LayerView<'_>,
        mask: Option<&MaskView<'_>>,
        grids: &[(u32, u32)],
        cancel: &Cancel,
    ) -> Result<Patch> {
        let rect = layer.rect();
        let wanted = match mask {
            None => None,
            Some(mask) => Some(mask.bounds(&rect, cancel)?.ok_or_else(|| {
                Error::new(
                    Code::InvalidMask,
                    "the mask is 0 on every pixel of the layer",
                )
                .with_hint("clear the selection, or select a part of this layer")
                .with_parameter("mask")
            })?),
        };
        let converter = Arc::new(Converter::new(
            &layer.color(),
            layer.format().order.is_gray(),
        )?);
        let placement = Placement::choose(rect, wanted, grids, converter)?;
        let pixels = reduce(layer, &placement, cancel)?;
        let hash = hash(&pixels, placement.grid);
        Ok(Patch {
            pixels,
            placement,
            hash,
        })
    }

    /// Red, green and blue planes one after the other (NCHW with N = 1), rows top first, 0..=1.
    pub fn pixels(&self) -> &[f32] {
        &self.pixels
    }

    /// Width, model pixels.
    pub fn width(&self) -> usize {
        self.placement.grid.0 as usize
    }

    /// Height, model pixels.
    pub fn height(&self) -> usize {
        self.placement.grid.1 as usize
    }

    /// Where it lies in the layer.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// BLAKE3 of size and pixels: equal patches have equal hashes, whatever layer they come from.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

fn hash(pixels: &[f32], (width, height): (u32, u32)) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&width.to_le_bytes())
        .update(&height.to_le_bytes());
    let mut bytes = Vec::with_capacity(4096);
    for part in pixels.chunks(1024) {
        bytes.clear();
        bytes.extend(part.iter().flat_map(|v| v.to_le_bytes()));
        hasher.update(&bytes);
    }
    *hasher.finalize().as_bytes()
}

/// Which source pixels make each output pixel along one axis, and how much of each.
struct Axis(Vec<Vec<(usize, f32)>>);

impl Axis {
    /// `count` outputs over `window` pixels that begin `before` pixels before the source's `len`
    /// pixels; beyond its ends the source is mirrored. Each source pixel stands once in an output's
    /// list, however often the window mirrors it.
    fn new(count: u32, window: u32, before: i64, len: u32) -> Axis {
        let step = f64::from(window) / f64::from(count);
        let outputs = (0..count).map(|i| {
            let mut taps: Vec<(usize, f64)> = Vec::new();
            if step >= 1.0 {
                let (from, to) = (f64::from(i) * step, f64::from(i + 1) * step);
                let mut at = from.floor();
                while at < to {
                    let covered = (at + 1.0).min(to) - at.max(from);
                    if covered > 1e-9 {
                        taps.push((mirror(at as i64 - before, len), covered / step));
                    }
                    at += 1.0;
                }
            } else {
                let centre = (f64::from(i) + 0.5) * step - 0.5;
                let low = centre.floor();
                let part = centre - low;
                let high = (low as i64 + 1).min(i64::from(window) - 1);
                taps.push((mirror((low as i64).max(0) - before, len), 1.0 - part));
                taps.push((mirror(high - before, len), part));
            }
            taps.sort_unstable_by_key(|(at, _)| *at);
            taps.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                if same {
                    kept.1 += next.1;
                }
                same
            });
            taps.into_iter().map(|(at, w)| (at, w as f32)).collect()
        });
        Axis(outputs.collect())
    }
}

/// Index `at` of a row of `len` that is mirrored at both ends, the end pixels repeated.
fn mirror(at: i64, len: u32) -> usize {
    let len = i64::from(len);
    let at = at.rem_euclid(2 * len);
    at.min(2 * len - 1 - at) as usize
}

/// Clamped to 0..=1; NaN, which a hostile profile can make, becomes 0.
#[inline(always)]
fn unit(v: f32) -> f32 {
    if v > 0.0 { v.min(1.0) } else { 0.0 }
}

fn reduce(layer: &LayerView<'_>, placement: &Placement, cancel: &Cancel) -> Result<Vec<f32>> {
    let (window, region) = (placement.window, placement.region);
    let (gw, gh) = placement.grid;
    let columns = Axis::new(gw, window.width, region.x - window.x, region.width);
    let rows = Axis::new(gh, window.height, region.y - window.y, region.height);
    let top = (region.y - layer.rect().y) as u32;
    let size = layer.format().pixel_bytes();
    let left = (region.x - layer.rect().x) as usize * size;
    let width = region.width as usize;
    let scratch = || (vec![[0.0; 4]; width], vec![[0.0; 4]; width]);
    let lines: Result<Vec<Vec<Pixel>>> = rows
        .0
        .par_iter()
        .map_init(
            scratch,
            |(line, sum): &mut (Vec<Pixel>, Vec<Pixel>), taps| {
                cancel.check()?;
                sum.fill([0.0; 4]);
                for &(row, weight) in taps {
                    let bytes = layer.row(top + row as u32).get(left..).unwrap_or_default();
                    format::decode(layer.format(), bytes, line);
                    placement.converter.to_srgb(line);
                    for (sum, p) in sum.iter_mut().zip(&*line) {
                        let weight = weight * p[3];
                        for c in 0..3 {
                            sum[c] += weight * unit(p[c]);
                        }
                        sum[3] += weight;
                    }
                }
                let reduced = columns.0.iter().map(|taps| {
                    let mut out = [0.0; 4];
                    for &(column, weight) in taps {
                        if let Some(p) = sum.get(column) {
                            for c in 0..4 {
                                out[c] += weight * p[c];
                            }
                        }
                    }
                    out
                });
                Ok(reduced.collect())
            },
        )
        .collect();
    let mut picture = lines?.concat();
    fill_holes(&mut picture, gw as usize, gh as usize);
    let plane = |c: usize| picture.iter().map(move |p| unit(p[c]));
    Ok(plane(0).chain(plane(1)).chain(plane(2)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirrored_window_reads_each_source_pixel_once_for_an_output() {
        // One row under a window of 3846, and five in the middle of 64.
        for (count, window, before, len) in [(128, 3846, 1922, 1), (16, 64, 30, 5), (64, 8, 2, 3)] {
            for taps in Axis::new(count, window, before, len).0 {
                assert!(taps.windows(2).all(|w| w[0].0 < w[1].0), "{taps:?}");
                let sum: f32 = taps.iter().map(|(_, weight)| weight).sum();
                assert!((sum - 1.0).abs() < 1e-5, "{taps:?}");
            }
        }
    }
}
