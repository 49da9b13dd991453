//! Distances between pictures: PSNR under a mask, CIEDE2000, and the affine colour map that a LUT
//! could do at best.

use palette::color_difference::Ciede2000;
use palette::{IntoColor, Lab, Srgb};

/// A cap for PSNR where nothing differs, so that means stay finite; in dB.
pub const IDENTICAL: f64 = 99.0;

/// An 8-bit RGB picture, row by row.
#[derive(Clone)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    pub rgb: Vec<u8>,
}

impl Picture {
    fn pixels(&self) -> impl Iterator<Item = [u8; 3]> + '_ {
        self.rgb.as_chunks::<3>().0.iter().copied()
    }
}

/// PSNR in dB over the pixels that `keep` selects; `None` when it selects none of them.
pub fn psnr(a: &Picture, b: &Picture, keep: impl Fn(usize) -> bool) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0u64);
    for (i, (p, q)) in a.pixels().zip(b.pixels()).enumerate() {
        if keep(i) {
            for (&x, &y) in p.iter().zip(&q) {
                sum += (f64::from(x) - f64::from(y)).powi(2);
            }
            count += 3;
        }
    }
    if count == 0 {
        return None;
    }
    let mse = sum / count as f64;
    Some((10.0 * (255.0 * 255.0 / mse.max(1e-12)).log10()).min(IDENTICAL))
}

/// Mean CIEDE2000 over every `step`-th pixel that `keep` selects; 0 when it selects none.
pub fn delta_e(a: &Picture, b: &Picture, step: usize, keep: impl Fn(usize) -> bool) -> f64 {
    let lab = |p: [u8; 3]| -> Lab { Srgb::from(p).into_linear::<f32>().into_color() };
    let (mut sum, mut count) = (0.0, 0u64);
    for (i, (p, q)) in a.pixels().zip(b.pixels()).enumerate().step_by(step) {
        if keep(i) {
            sum += f64::from(lab(p).difference(lab(q)));
            count += 1;
        }
    }
    if count == 0 { 0.0 } else { sum / count as f64 }
}

/// Least squares of `target ≈ M · (r, g, b, 1)`: the best constant affine colour map.
#[derive(Default)]
pub struct AffineFit {
    normal: [[f64; 4]; 4],
    right: [[f64; 3]; 4],
}

/// Rows are output channels, columns red, green, blue and the constant, in 0..=255.
pub type AffineMap = [[f64; 4]; 3];

impl AffineFit {
    /// Adds the pixels of a picture and of its counterfactual.
    pub fn add(&mut self, source: &Picture, target: &Picture) {
        for (p, q) in source.pixels().zip(target.pixels()) {
            let x = [f64::from(p[0]), f64::from(p[1]), f64::from(p[2]), 1.0];
            for i in 0..4 {
                for j in 0..4 {
                    self.normal[i][j] += x[i] * x[j];
                }
                for (right, &q) in self.right[i].iter_mut().zip(&q) {
                    *right += x[i] * f64::from(q);
                }
            }
        }
    }

    /// Solves the normal equations by Gaussian elimination with row exchange.
    pub fn solve(mut self) -> AffineMap {
        for col in 0..4 {
            let pivot = (col..4)
                .max_by(|&a, &b| {
                    self.normal[a][col]
                        .abs()
                        .total_cmp(&self.normal[b][col].abs())
                })
                .unwrap_or(col);
            self.normal.swap(col, pivot);
            self.right.swap(col, pivot);
            for row in (0..4).filter(|&r| r != col) {
                let k = self.normal[row][col] / self.normal[col][col];
                for j in 0..4 {
                    self.normal[row][j] -= k * self.normal[col][j];
                }
                for c in 0..3 {
                    self.right[row][c] -= k * self.right[col][c];
                }
            }
        }
        std::array::from_fn(|c| std::array::from_fn(|i| self.right[i][c] / self.normal[i][i]))
    }
}

/// The picture through an affine colour map.
pub fn apply(map: &AffineMap, picture: &Picture) -> Picture {
    let rgb = picture
        .pixels()
        .flat_map(|p| {
            map.map(|m| {
                let v =
                    m[0] * f64::from(p[0]) + m[1] * f64::from(p[1]) + m[2] * f64::from(p[2]) + m[3];
                v.round().clamp(0.0, 255.0) as u8
            })
        })
        .collect();
    Picture { rgb, ..*picture }
}
