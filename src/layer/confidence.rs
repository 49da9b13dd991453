//! Where an edit moved content or let it appear, as a confidence from 0 to 1.
//!
//! For: the `direct` compositor, which shows the edit itself there. What tints, veils, darkens or
//! flattens is an affine function of the reconstruction in every neighbourhood, and the local model
//! explains it; what moves or appears is not, and stays in the residual. Not for: how well the model
//! knows a picture.

use super::guided::{Affine, box_mean};

/// Neighbourhood over which energies are compared, model pixels.
const RADIUS: usize = 2;
/// Share of a change's energy that the local model leaves unexplained: below the one nothing moved,
/// above the other something did.
const UNEXPLAINED: (f64, f64) = (0.15, 0.45);
/// Root mean square of the unexplained part, in 0..=1 of full scale, from which it counts, and counts
/// fully: below lies the noise of an autoencoder.
const SIZE: (f64, f64) = (0.03, 0.08);

/// Confidence for each pixel, 0..=1, exactly 0 where nothing changes; `model` explains `target` (the
/// change) over `guide` (the reconstruction), planes of `width × height`.
pub(super) fn moved(
    guide: &[Vec<f64>; 3],
    target: &[Vec<f64>; 3],
    model: &[Affine],
    width: usize,
    height: usize,
) -> Vec<f32> {
    let mut left = vec![0.0; width * height];
    let mut all = vec![0.0; width * height];
    for (k, affine) in model.iter().enumerate() {
        for (c, target) in target.iter().enumerate() {
            let explained: f64 = (0..3)
                .map(|i| f64::from(affine[i][c]) * guide[i][k])
                .sum::<f64>()
                + f64::from(affine[3][c]);
            left[k] += (target[k] - explained).powi(2) / 3.0;
            all[k] += target[k].powi(2) / 3.0;
        }
    }
    let (left, all) = (
        box_mean(&left, width, height, RADIUS),
        box_mean(&all, width, height, RADIUS),
    );
    let sure: Vec<f64> = left
        .iter()
        .zip(&all)
        .map(|(&left, &all)| {
            let share = if all > 0.0 { left / all } else { 0.0 };
            step(share, UNEXPLAINED) * step(left.max(0.0).sqrt(), SIZE)
        })
        .collect();
    // Grown over its own neighbourhood, then softened, so that no edge of it shows.
    let grown = widest(&sure, width, height);
    let soft = box_mean(&grown, width, height, RADIUS);
    soft.iter().map(|v| v.clamp(0.0, 1.0) as f32).collect()
}

/// 0 below the first bound, 1 above the second, smooth between (Hermite).
fn step(v: f64, (from, to): (f64, f64)) -> f64 {
    let t = ((v - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// The largest value within [`RADIUS`], along rows and then columns.
fn widest(plane: &[f64], width: usize, height: usize) -> Vec<f64> {
    let near = |at: usize, len: usize| at.saturating_sub(RADIUS)..(at + RADIUS + 1).min(len);
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let across: Vec<f64> = (0..plane.len())
        .map(|k| {
            let row = k - k % width;
            most(&mut near(k % width, width).map(|x| plane[row + x]))
        })
        .collect();
    (0..plane.len())
        .map(|k| most(&mut near(k / width, height).map(|y| across[y * width + k % width])))
        .collect()
}
