//! Colours for the transparent parts of a picture, smoothly continued from the visible ones.
//!
//! The pyramid of Burt (1988), "moment images", better known as push–pull: average what is known at
//! half the size until something is known everywhere, then fill each size from the one below.

use super::format::Pixel;

/// Coverage from which a pixel's own colour is trusted.
const KNOWN: f32 = 1.0 / 1024.0;

/// Turns sums of (colour · coverage, coverage) into plain colours with alpha 1, in place; `picture`
/// has `width × height` pixels, rows top first. Where nothing is visible at all: middle grey.
pub(super) fn fill_holes(picture: &mut [Pixel], width: usize, height: usize) {
    for p in picture.iter_mut() {
        *p = if p[3] >= KNOWN {
            [p[0] / p[3], p[1] / p[3], p[2] / p[3], 1.0]
        } else {
            [0.0; 4]
        };
    }
    fill(picture, width, height);
}

fn fill(picture: &mut [Pixel], width: usize, height: usize) {
    if picture.iter().all(|p| p[3] > 0.0) {
        return;
    }
    if width <= 1 && height <= 1 {
        picture.fill([0.5, 0.5, 0.5, 1.0]);
        return;
    }
    let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
    let mut half = vec![[0.0f32; 4]; half_width * half_height];
    for (y, row) in picture.chunks(width).enumerate() {
        for (x, p) in row.iter().enumerate() {
            for (sum, v) in half[y / 2 * half_width + x / 2].iter_mut().zip(p) {
                *sum += v;
            }
        }
    }
    for p in half.iter_mut().filter(|p| p[3] > 0.0) {
        *p = [p[0] / p[3], p[1] / p[3], p[2] / p[3], 1.0];
    }
    fill(&mut half, half_width, half_height);
    for (y, row) in picture.chunks_mut(width).enumerate() {
        for (x, p) in row.iter_mut().enumerate().filter(|(_, p)| p[3] == 0.0) {
            // Bilinear: three quarters from the nearer half-size pixel, one from its neighbour.
            let near = |i: usize, count: usize| {
                let other = if i.is_multiple_of(2) {
                    (i / 2).saturating_sub(1)
                } else {
                    (i / 2 + 1).min(count - 1)
                };
                [(i / 2, 0.75), (other, 0.25)]
            };
            let mut out = [0.0; 4];
            for (v, wv) in near(y, half_height) {
                for (u, wu) in near(x, half_width) {
                    for (o, s) in out.iter_mut().zip(half[v * half_width + u]) {
                        *o += wu * wv * s;
                    }
                }
            }
            *p = [out[0], out[1], out[2], 1.0];
        }
    }
}
