//! Attention head by head, in blocks of queries, so that the scores stay small at any length.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::{math, read, shape, tensor};
use crate::error::Result;
use crate::nn::{Mask, Shape, mismatch};

/// Queries whose scores exist at one time, per head.
const QUERIES: usize = 512;

/// One head's columns of one sample, `rows × d`.
fn head(x: &[f32], s: Shape, n: usize, at: usize, d: usize) -> Vec<f32> {
    let sample = s.rows_per_sample() * s.c;
    x.get(n * sample..(n + 1) * sample)
        .unwrap_or_default()
        .chunks_exact(s.c)
        .flat_map(|row| row.get(at..at + d).unwrap_or_default())
        .copied()
        .collect()
}

/// exp(x · scale − max) per row, normalised; keys after the query's own position count nothing
/// under a causal mask. Row 0 is query `first`.
fn softmax(scores: &mut [f32], keys: usize, scale: f32, mask: Mask, first: usize) {
    for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
        let seen = match mask {
            Mask::None => keys,
            Mask::Causal => (first + i + 1).min(keys),
        };
        let (row, hidden) = row.split_at_mut(seen);
        hidden.fill(0.0);
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter_mut()
            .for_each(|x| *x = math::exp((*x - max) * scale));
        let sum = 1.0 / row.iter().sum::<f32>();
        row.iter_mut().for_each(|x| *x *= sum);
    }
}

pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    mask: Mask,
) -> Result<Tensor> {
    let (sq, sk) = (shape(q)?, shape(k)?);
    let fits = shape(v)? == sk && sq.n == sk.n && sq.c == sk.c && !sq.is_empty() && !sk.is_empty();
    if !fits || heads == 0 || !sq.c.is_multiple_of(heads) {
        return Err(mismatch(
            "attention",
            format!("{sq:?} over {sk:?} with {heads} heads"),
        ));
    }
    let d = sq.c / heads;
    let (queries, keys) = (sq.rows_per_sample(), sk.rows_per_sample());
    let scale = 1.0 / (d as f32).sqrt();
    let one = |q: &[f32], k: &[f32], v: &[f32], task: usize| -> Result<Vec<f32>> {
        let (n, at) = (task / heads, task % heads * d);
        let q = Tensor::from_vec(head(q, sq, n, at, d), (queries, d), &Device::Cpu)?;
        let k = Tensor::from_vec(head(k, sk, n, at, d), (keys, d), &Device::Cpu)?.t()?;
        let v = Tensor::from_vec(head(v, sk, n, at, d), (keys, d), &Device::Cpu)?;
        let mut out = Vec::with_capacity(queries * d);
        for first in (0..queries).step_by(QUERIES) {
            let count = QUERIES.min(queries - first);
            let scores = q.narrow(0, first, count)?.matmul(&k)?;
            let mut p = read(&scores, |s| Ok(s.to_vec()))?;
            softmax(&mut p, keys, scale, mask, first);
            let y = Tensor::from_vec(p, (count, keys), &Device::Cpu)?.matmul(&v)?;
            read(&y, |y| {
                out.extend_from_slice(y);
                Ok(())
            })?;
        }
        Ok(out)
    };
    let parts: Vec<Vec<f32>> = read(q, |q| {
        read(k, |k| {
            read(v, |v| {
                (0..sq.n * heads)
                    .into_par_iter()
                    .map(|task| one(q, k, v, task))
                    .collect()
            })
        })
    })?;
    let mut out = vec![0.0; sq.len()];
    for (task, part) in parts.iter().enumerate() {
        let (n, at) = (task / heads, task % heads * d);
        let rows = out.chunks_exact_mut(sq.c).skip(n * queries);
        for (row, part) in rows.zip(part.chunks_exact(d)) {
            if let Some(to) = row.get_mut(at..at + d) {
                to.copy_from_slice(part);
            }
        }
    }
    tensor(out, sq)
}
