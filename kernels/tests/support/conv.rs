//! A convolution as a loop, and what a product may add to its sums.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code, reason = "no test needs all of it")]

use semblance_kernels::{Plus, Size, Window};

use crate::support::noise;

/// The sums that a convolution is, in f64.
pub fn plain_conv(x: &[f32], s: Size, kernel: &[f32], bias: &[f32], win: Window) -> Vec<f64> {
    let (oh, ow) = (win.output(s.h).unwrap(), win.output(s.w).unwrap());
    let k = win.size;
    let mut out = Vec::new();
    for n in 0..s.n {
        for y in 0..oh {
            for xx in 0..ow {
                for (o, b) in bias.iter().enumerate() {
                    let mut sum = f64::from(*b);
                    for dy in 0..k {
                        for dx in 0..k {
                            let row = (y * win.stride + dy).wrapping_sub(win.padding.0);
                            let col = (xx * win.stride + dx).wrapping_sub(win.padding.0);
                            if row >= s.h || col >= s.w {
                                continue;
                            }
                            for i in 0..s.c {
                                let a = x[((n * s.h + row) * s.w + col) * s.c + i];
                                let b = kernel[((o * s.c + i) * k + dy) * k + dx];
                                sum += f64::from(a) * f64::from(b);
                            }
                        }
                    }
                    out.push(sum);
                }
            }
        }
    }
    out
}

/// The mean, over the map that a convolution makes, of how many places of its kernel lie on the map that it reads.
pub fn reached(s: Size, win: Window) -> f64 {
    let along = |side: usize| {
        let count = win.output(side).unwrap();
        let lies = |y: usize, d: &usize| (y * win.stride + d).wrapping_sub(win.padding.0) < side;
        let all = (0..count).map(|y| (0..win.size).filter(|d| lies(y, d)).count());
        all.sum::<usize>() as f64 / count as f64
    };
    along(s.h) * along(s.w)
}

/// Adds what `kind` says (0 nothing, 1 a row per sample, 2 a residual) to `want`; what to add.
pub fn plus(kind: u8, samples: usize, width: usize, want: &mut [f64]) -> Vec<f32> {
    let sample = want.len() / samples;
    let data = match kind {
        0 => Vec::new(),
        1 => noise(samples * width, 71),
        _ => noise(want.len(), 72),
    };
    for (i, x) in want.iter_mut().enumerate() {
        *x += match kind {
            0 => 0.0,
            1 => f64::from(data[i / sample * width + i % width]),
            _ => f64::from(data[i]),
        };
    }
    data
}

pub fn as_plus(kind: u8, data: &[f32]) -> Plus<'_> {
    match kind {
        0 => Plus::Nothing,
        1 => Plus::PerSample(data),
        _ => Plus::Residual(data.into()),
    }
}
