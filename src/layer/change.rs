//! What an edit changes, at the model's size: maps that any pixel of the layer can be put through.
//!
//! For: turning the model's two decoded pictures, reconstruction and edit, into
//! `change(pixel) = A · pixel + b + rest`, where A, b are a local affine model of edit − reconstruction
//! over the reconstruction (`guided`) and rest is what it did not explain. With ε → ∞ that is the
//! plain difference, with ε → 0 the transfer of local colours; where nothing changed it is 0.
//! With A = −1, b = 0 the rest is the edit itself: what takes the place of content that moved.
//! Not for: the layer's pixels (`composite`).

use super::confidence;
use super::guided::{self, Affine};
use crate::error::{Code, Error, Result};

/// Four vectors of (red, green, blue, unused): A's columns for red, green and blue, and b; these are
/// read through a cubic B-spline. The fifth is the rest, read through Catmull–Rom.
pub(super) type Cell = [[f32; 4]; 5];

/// An edit's change, fitted at the model's size.
#[derive(Clone, Debug)]
pub struct Change {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) cells: Vec<Cell>,
    zero: bool,
}

impl Change {
    /// Window radius of the local model, model pixels; the best of 4 and 8 through an autoencoder.
    pub const RADIUS: usize = 8;

    /// Ridge of the local model, in squared units of 0..=1 colour (10⁻³ in the −1..=1 of the models).
    pub const EPSILON: f64 = 2.5e-4;

    /// The local affine model in windows of `2 · radius + 1` with ridge `epsilon`, and its rest.
    ///
    /// From the decoded reconstruction and edit, planes R, G, B one after the other (NCHW), each
    /// `width × height`, sRGB-encoded, 0..=1 nominal. Errors with [`Code::Internal`] when the sizes
    /// do not fit or the model's output is not finite.
    pub fn fit(
        recon: &[f32],
        edit: &[f32],
        width: usize,
        height: usize,
        radius: usize,
        epsilon: f64,
    ) -> Result<Change> {
        let pair = Pair::new(recon, edit, width, height)?;
        Ok(pair.change(|| pair.model(radius, epsilon)))
    }

    /// With `share` of the rest, 0..=1: 1 keeps all that the local model did not explain, 0 nothing.
    ///
    /// The rest is where structure appears, and where a small model's errors are; how much of it is
    /// worth having is measured for each attribute (`benches/counterfactual`).
    pub fn with_rest(mut self, share: f32) -> Change {
        for cell in &mut self.cells {
            for v in &mut cell[4] {
                *v *= share;
            }
        }
        self
    }

    /// As [`Change::fit`], with the edit itself in place of the layer's pixels where content moved
    /// or appeared (`confidence`): there the layer's own detail is a ghost. Sizes and errors as in
    /// [`Change::fit`].
    pub fn direct(
        recon: &[f32],
        edit: &[f32],
        width: usize,
        height: usize,
        radius: usize,
        epsilon: f64,
    ) -> Result<Change> {
        let pair = Pair::new(recon, edit, width, height)?;
        Ok(pair.change(|| {
            let mut model = pair.model(radius, epsilon);
            let moved = confidence::moved(&pair.guide, &pair.target, &model, width, height);
            for (cell, moved) in model.iter_mut().zip(moved) {
                for (i, to) in cell.iter_mut().enumerate() {
                    for (c, v) in to.iter_mut().enumerate() {
                        let own = if i == c { -1.0 } else { 0.0 };
                        *v += moved * (own - *v);
                    }
                }
            }
            model
        }))
    }

    /// The edit itself everywhere, enlarged: what `direct` is where its confidence is 1. Sizes and
    /// errors as in [`Change::fit`].
    pub fn replacement(recon: &[f32], edit: &[f32], width: usize, height: usize) -> Result<Change> {
        let pair = Pair::new(recon, edit, width, height)?;
        let own = std::array::from_fn(|i| std::array::from_fn(|c| if i == c { -1.0 } else { 0.0 }));
        Ok(pair.change(|| vec![own; width * height]))
    }

    /// The plain difference: A = b = 0. Sizes and errors as in [`Change::fit`].
    pub fn difference(recon: &[f32], edit: &[f32], width: usize, height: usize) -> Result<Change> {
        let pair = Pair::new(recon, edit, width, height)?;
        Ok(pair.change(|| vec![[[0.0; 3]; 4]; width * height]))
    }

    /// Whether it changes no pixel at all.
    pub fn is_zero(&self) -> bool {
        self.zero
    }

    /// A and b as the B-spline gives them at the pixels' centres: weights 1, 4, 1 over 6, both ways.
    fn smoothed(&self) -> Vec<[[f32; 3]; 4]> {
        let (w, h) = (self.width, self.height);
        let get = |x: usize, y: usize, i: usize, c: usize| self.cells[y * w + x][i][c];
        let across: Vec<[[f32; 3]; 4]> = (0..w * h)
            .map(|k| {
                let (x, y) = (k % w, k / w);
                let (l, r) = (x.saturating_sub(1), (x + 1).min(w - 1));
                std::array::from_fn(|i| {
                    std::array::from_fn(|c| {
                        (get(l, y, i, c) + 4.0 * get(x, y, i, c) + get(r, y, i, c)) / 6.0
                    })
                })
            })
            .collect();
        (0..w * h)
            .map(|k| {
                let (x, y) = (k % w, k / w);
                let (u, d) = (y.saturating_sub(1), (y + 1).min(h - 1));
                let get = |y: usize, i: usize, c: usize| across[y * w + x][i][c];
                std::array::from_fn(|i| {
                    std::array::from_fn(|c| {
                        (get(u, i, c) + 4.0 * get(y, i, c) + get(d, i, c)) / 6.0
                    })
                })
            })
            .collect()
    }
}

/// Reconstruction and change of the model's picture.
struct Pair {
    guide: [Vec<f64>; 3],
    target: [Vec<f64>; 3],
    width: usize,
    height: usize,
}

impl Pair {
    fn new(recon: &[f32], edit: &[f32], width: usize, height: usize) -> Result<Pair> {
        check(recon, edit, width, height)?;
        let count = width * height;
        let planes = |f: &dyn Fn(usize) -> f64| -> [Vec<f64>; 3] {
            std::array::from_fn(|c| (c * count..(c + 1) * count).map(f).collect())
        };
        Ok(Pair {
            guide: planes(&|i| f64::from(recon[i])),
            target: planes(&|i| f64::from(edit[i]) - f64::from(recon[i])),
            width,
            height,
        })
    }

    /// The local affine model of the change.
    fn model(&self, radius: usize, epsilon: f64) -> Vec<Affine> {
        let (w, h) = (self.width, self.height);
        guided::fit(&self.guide, &self.target, w, h, radius, epsilon.max(1e-9))
    }

    /// The change with `model`'s affine part, and whatever that leaves as the rest.
    fn change(&self, model: impl FnOnce() -> Vec<Affine>) -> Change {
        let (width, height) = (self.width, self.height);
        let mut change = Change {
            width,
            height,
            cells: vec![[[0.0; 4]; 5]; width * height],
            zero: self.target.iter().flatten().all(|v| *v == 0.0),
        };
        if change.zero {
            return change;
        }
        for (cell, affine) in change.cells.iter_mut().zip(model()) {
            for (to, from) in cell.iter_mut().zip(&affine) {
                to[..3].copy_from_slice(from);
            }
        }
        // The B-spline smooths the maps at the pixels themselves; the rest makes up for it.
        let smooth = change.smoothed();
        for (k, (cell, s)) in change.cells.iter_mut().zip(&smooth).enumerate() {
            let guide: [f32; 3] = std::array::from_fn(|i| self.guide[i][k] as f32);
            for c in 0..3 {
                cell[4][c] = self.target[c][k] as f32
                    - (s[0][c] * guide[0] + s[1][c] * guide[1] + s[2][c] * guide[2] + s[3][c]);
            }
        }
        change
    }
}

fn check(recon: &[f32], edit: &[f32], width: usize, height: usize) -> Result<()> {
    let count = width.saturating_mul(height).saturating_mul(3);
    for (name, picture) in [("reconstruction", recon), ("edit", edit)] {
        if count == 0 || picture.len() != count {
            return Err(Error::new(
                Code::Internal,
                format!(
                    "{name} of {} numbers: must be 3 × {height} × {width}",
                    picture.len()
                ),
            ));
        }
        if let Some(i) = picture.iter().position(|v| !v.is_finite()) {
            return Err(Error::new(
                Code::InvalidModel,
                format!("{name}: number {i} is {}: must be finite", picture[i]),
            )
            .with_hint("lower the guidance or the strength; the model may be damaged"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_share_of_the_rest_leaves_the_local_model_alone() {
        let recon: Vec<f32> = (0..3 * 12 * 9)
            .map(|i| (i * 37 % 101) as f32 / 101.0)
            .collect();
        let edit: Vec<f32> = recon
            .iter()
            .enumerate()
            .map(|(i, v)| v * 0.5 + (i * 61 % 89) as f32 / 200.0)
            .collect();
        let fit = || Change::fit(&recon, &edit, 12, 9, 3, 1e-3).unwrap();
        let (whole, half) = (fit(), fit().with_rest(0.5));
        for (a, b) in whole.cells.iter().zip(&half.cells) {
            assert_eq!(a[..4], b[..4]);
            for c in 0..3 {
                assert!(a[4][c] != 0.0 && b[4][c] == 0.5 * a[4][c]);
            }
        }
    }
}
