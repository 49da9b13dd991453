//! Group and layer normalisation.

use candle_core::Tensor;
use rayon::prelude::*;

use super::{BLOCK, PARALLEL_FROM, by_rows, math, read, shape, tensor};
use crate::error::Result;
use crate::nn::{Act, Shape, mismatch};

/// A normalisation's scale and shift per channel.
#[derive(Debug)]
pub struct Norm {
    pub(super) scale: Vec<f32>,
    pub(super) shift: Vec<f32>,
    pub(super) eps: f32,
}

/// Σ over rows of `f(channel, x)` per channel. Blocks of fixed size are summed in f32, then in f64.
fn per_channel(x: &[f32], c: usize, f: impl Fn(f32, f32) -> f32 + Sync, mean: &[f32]) -> Vec<f64> {
    let block = (BLOCK / c).clamp(1, 1024) * c;
    let sum = |x: &[f32]| {
        let mut sums = vec![0.0_f32; c];
        for row in x.chunks_exact(c) {
            for ((s, &x), &m) in sums.iter_mut().zip(row).zip(mean) {
                *s += f(x, m);
            }
        }
        sums
    };
    let parts: Vec<Vec<f32>> = if x.len() < PARALLEL_FROM {
        x.chunks(block).map(sum).collect()
    } else {
        x.par_chunks(block).map(sum).collect()
    };
    let mut total = vec![0.0_f64; c];
    for part in parts {
        for (t, p) in total.iter_mut().zip(part) {
            *t += f64::from(p);
        }
    }
    total
}

impl Norm {
    pub(super) fn new(scale: &[f32], shift: &[f32], eps: f32) -> Result<Self> {
        if scale.len() != shift.len() || scale.is_empty() {
            return Err(mismatch(
                "norm",
                format!("{} scales, {} shifts", scale.len(), shift.len()),
            ));
        }
        Ok(Norm {
            scale: scale.to_vec(),
            shift: shift.to_vec(),
            eps,
        })
    }

    pub(super) fn check(&self, s: Shape) -> Result<()> {
        if s.c == self.scale.len() && !s.is_empty() {
            return Ok(());
        }
        Err(mismatch(
            "norm",
            format!("{s:?} over {} channels", self.scale.len()),
        ))
    }

    pub(super) fn group(&self, x: &Tensor, groups: usize, act: Act) -> Result<Tensor> {
        let s = shape(x)?;
        self.check(s)?;
        let c = s.c;
        if groups == 0 || !c.is_multiple_of(groups) {
            return Err(mismatch(
                "group_norm",
                format!("{c} channels in {groups} groups"),
            ));
        }
        let (width, rows) = (c / groups, s.rows_per_sample());
        let count = (width * rows) as f64;
        read(x, |x| {
            let mut out = vec![0.0; x.len()];
            for (x, out) in x.chunks_exact(rows * c).zip(out.chunks_exact_mut(rows * c)) {
                let over_groups = |sums: Vec<f64>, f: &dyn Fn(f64) -> f64| -> Vec<f32> {
                    sums.chunks_exact(width)
                        .flat_map(|g| {
                            let value = f(g.iter().sum::<f64>() / count) as f32;
                            std::iter::repeat_n(value, width)
                        })
                        .collect()
                };
                let zero = vec![0.0; c];
                let mean = over_groups(per_channel(x, c, |x, _| x, &zero), &|m| m);
                let squares = per_channel(x, c, |x, m| (x - m) * (x - m), &mean);
                let eps = f64::from(self.eps);
                let mut factor = over_groups(squares, &|v| 1.0 / (v + eps).sqrt());
                factor
                    .iter_mut()
                    .zip(&self.scale)
                    .for_each(|(f, s)| *f *= s);
                by_rows(out, c, |first, out| {
                    let rows = x.chunks_exact(c).skip(first);
                    for (out, x) in out.chunks_exact_mut(c).zip(rows) {
                        let channels = mean.iter().zip(&factor).zip(&self.shift);
                        for ((out, x), ((m, f), b)) in out.iter_mut().zip(x).zip(channels) {
                            *out = (x - m) * f + b;
                        }
                    }
                    math::apply(act, out);
                });
            }
            tensor(out, s)
        })
    }

    pub(super) fn layer(&self, x: &Tensor) -> Result<Tensor> {
        let s = shape(x)?;
        self.check(s)?;
        let c = s.c;
        read(x, |x| {
            let mut out = x.to_vec();
            by_rows(&mut out, c, |_, out| {
                for row in out.chunks_exact_mut(c) {
                    let mean = (row.iter().map(|&x| f64::from(x)).sum::<f64>() / c as f64) as f32;
                    let variance =
                        row.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / c as f32;
                    let factor = 1.0 / (variance + self.eps).sqrt();
                    for (x, (s, b)) in row.iter_mut().zip(self.scale.iter().zip(&self.shift)) {
                        *x = (*x - mean) * factor * s + b;
                    }
                }
            });
            tensor(out, s)
        })
    }
}
