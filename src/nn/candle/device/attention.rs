//! Attention and its derivatives, all heads at once, in blocks of queries that bound what the scores take.

use candle_core::{D, Tensor};

use super::shape;
use crate::error::Result;
use crate::nn::{Mask, Shape, mismatch};

/// Scores that exist at one time, of all heads of all samples; those of one query may be more. A block
/// takes about four times their 4 bytes on its way.
const SCORES: usize = 1 << 26;

/// One attention: its operands as `(samples · heads) × positions × numbers of a head`.
pub(super) struct Attention {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: usize,
    mask: Mask,
    scale: f64,
    /// Sizes of the queries' value and of the keys'.
    sizes: (Shape, Shape),
    /// Queries of one block.
    block: usize,
}

/// A value's heads, side by side in its channels, one after the other.
fn apart(x: &Tensor, heads: usize) -> Result<Tensor> {
    let s = shape(x)?;
    let (rows, d) = (s.rows_per_sample(), s.c / heads);
    let x = x.reshape((s.n, rows, heads, d))?.transpose(1, 2)?;
    Ok(x.reshape((s.n * heads, rows, d))?)
}

/// The transpose of [`apart`], to a value of size `s`.
fn together(x: &Tensor, s: Shape, heads: usize) -> Result<Tensor> {
    let x = x.reshape((s.n, heads, s.rows_per_sample(), s.c / heads))?;
    Ok(x.transpose(1, 2)?.reshape((s.n, s.h, s.w, s.c))?)
}

/// a bᵀ, matrix by matrix.
fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(a.matmul(&b.t()?)?)
}

/// aᵀ b, matrix by matrix.
fn product_back(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(a.t()?.contiguous()?.matmul(b)?)
}

/// P ∘ (d − Σ P ∘ d) row by row: what a softmax makes of a change `d` of its scores, both ways.
fn lean(weights: &Tensor, d: &Tensor) -> Result<Tensor> {
    let mean = (weights * d)?.sum_keepdim(D::Minus1)?;
    Ok((weights * d.broadcast_sub(&mean)?)?)
}

/// Σ of blocks' parts.
fn sum(to: Option<Tensor>, part: Tensor) -> Result<Tensor> {
    match to {
        Some(to) => Ok((to + part)?),
        None => Ok(part),
    }
}

impl Attention {
    /// Errors when the values do not fit each other or the heads.
    pub fn new([q, k, v]: [&Tensor; 3], heads: usize, mask: Mask) -> Result<Self> {
        let (sq, sk) = (shape(q)?, shape(k)?);
        let fits = shape(v)? == sk && sq.n == sk.n && sq.c == sk.c;
        let empty = sq.is_empty() || sk.is_empty();
        if !fits || empty || heads == 0 || !sq.c.is_multiple_of(heads) {
            let what = format!("{sq:?} over {sk:?} with {heads} heads");
            return Err(mismatch("attention", what));
        }
        Ok(Attention {
            q: apart(q, heads)?,
            k: apart(k, heads)?,
            v: apart(v, heads)?,
            heads,
            mask,
            scale: 1.0 / ((sq.c / heads) as f64).sqrt(),
            sizes: (sq, sk),
            block: (SCORES / (sq.n * heads * sk.rows_per_sample())).max(1),
        })
    }

    /// The first query of each block, and how many it has.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> {
        let (queries, block) = (self.sizes.0.rows_per_sample(), self.block);
        let firsts = (0..queries).step_by(block);
        firsts.map(move |first| (first, block.min(queries - first)))
    }

    /// The softmax of the scores of `count` queries from `first` on.
    fn weights(&self, first: usize, count: usize) -> Result<Tensor> {
        let q = self.q.narrow(1, first, count)?.contiguous()?;
        let scores = product(&q, &self.k)?.affine(self.scale, 0.0)?;
        let scores = match self.mask {
            Mask::None => scores,
            Mask::Causal => {
                let (device, keys) = (scores.device(), scores.dim(2)?);
                let query = Tensor::arange(first as u32, (first + count) as u32, device)?;
                let key = Tensor::arange(0, keys as u32, device)?;
                let hidden = key.unsqueeze(0)?.broadcast_gt(&query.unsqueeze(1)?)?;
                let hidden = hidden.broadcast_as(scores.shape())?.contiguous()?;
                let nothing = scores.zeros_like()?.affine(1.0, f64::NEG_INFINITY)?;
                hidden.where_cond(&nothing, &scores)?
            }
        };
        let top = scores.max_keepdim(D::Minus1)?;
        let weights = scores.broadcast_sub(&top)?.exp()?;
        Ok(weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?)
    }

    /// Of a part for each block of queries, the whole of the queries' size.
    fn queries(&self, f: impl Fn(usize, usize) -> Result<Tensor>) -> Result<Tensor> {
        let parts: Result<Vec<_>> = self.blocks().map(|(at, count)| f(at, count)).collect();
        together(&Tensor::cat(&parts?, 1)?, self.sizes.0, self.heads)
    }

    /// softmax(q kᵀ / √d) v.
    pub fn value(&self) -> Result<Tensor> {
        self.queries(|first, count| Ok(self.weights(first, count)?.matmul(&self.v)?))
    }

    /// Its tangent, where queries, keys and values move along `along`.
    pub fn tangent(&self, along: [Option<&Tensor>; 3]) -> Result<Tensor> {
        let (sq, sk) = self.sizes;
        let moved = |x: Option<&Tensor>, s: Shape| -> Result<Option<Tensor>> {
            match x {
                Some(x) if shape(x)? != s => {
                    Err(mismatch("derivative", format!("{:?} at {s:?}", shape(x)?)))
                }
                Some(x) => apart(x, self.heads).map(Some),
                None => Ok(None),
            }
        };
        let [dq, dk, dv] = along;
        let (dq, dk, dv) = (moved(dq, sq)?, moved(dk, sk)?, moved(dv, sk)?);
        self.queries(|first, count| {
            let weights = self.weights(first, count)?;
            let mut scores = None;
            if let Some(dq) = &dq {
                let dq = dq.narrow(1, first, count)?.contiguous()?;
                scores = Some(sum(scores, product(&dq, &self.k)?)?);
            }
            if let Some(dk) = &dk {
                let q = self.q.narrow(1, first, count)?.contiguous()?;
                scores = Some(sum(scores, product(&q, dk)?)?);
            }
            let mut out = None;
            if let Some(scores) = scores {
                let leaned = lean(&weights, &scores.affine(self.scale, 0.0)?)?;
                out = Some(sum(out, leaned.matmul(&self.v)?)?);
            }
            if let Some(dv) = &dv {
                out = Some(sum(out, weights.matmul(dv)?)?);
            }
            match out {
                Some(out) => Ok(out),
                None => Ok(self.q.narrow(1, first, count)?.zeros_like()?),
            }
        })
    }

    /// The cotangents of queries, keys and values from that of the result.
    pub fn cotangent(&self, g: &Tensor) -> Result<[Tensor; 3]> {
        let (sq, sk) = self.sizes;
        if shape(g)? != sq {
            let what = format!("{:?} at {sq:?}", shape(g)?);
            return Err(mismatch("derivative", what));
        }
        let g = apart(g, self.heads)?;
        let (mut gq, mut gk, mut gv) = (Vec::new(), None, None);
        for (first, count) in self.blocks() {
            let weights = self.weights(first, count)?;
            let g = g.narrow(1, first, count)?.contiguous()?;
            let q = self.q.narrow(1, first, count)?.contiguous()?;
            let leaned = lean(&weights, &product(&g, &self.v)?)?.affine(self.scale, 0.0)?;
            gq.push(leaned.matmul(&self.k)?);
            gk = Some(sum(gk, product_back(&leaned, &q)?)?);
            gv = Some(sum(gv, product_back(&weights, &g)?)?);
        }
        let none = || mismatch("attention", "no queries");
        Ok([
            together(&Tensor::cat(&gq, 1)?, sq, self.heads)?,
            together(&gk.ok_or_else(none)?, sk, self.heads)?,
            together(&gv.ok_or_else(none)?, sk, self.heads)?,
        ])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use candle_core::Device;

    use super::*;

    #[test]
    fn blocks_of_queries_change_nothing_but_rounding() {
        let value = |rows: usize, seed: f64| {
            let count = (2 * rows * 6) as u32;
            let x = Tensor::arange(0, count, &Device::Cpu).unwrap();
            let x = x.to_dtype(candle_core::DType::F32).unwrap();
            let x = x.affine(seed, 0.3).unwrap().sin().unwrap();
            x.reshape((2, 1, rows, 6)).unwrap()
        };
        let near = |a: &Tensor, b: &Tensor| {
            let apart = (a - b).unwrap().abs().unwrap().max_all().unwrap();
            assert!(apart.to_scalar::<f32>().unwrap() < 1e-6);
        };
        let x = [value(7, 1.1), value(7, 2.3), value(7, 3.7)];
        let (dx, g) = ([value(7, 0.7), value(7, 1.9), value(7, 4.1)], value(7, 5.3));
        for mask in [Mask::None, Mask::Causal] {
            let whole = Attention::new([&x[0], &x[1], &x[2]], 3, mask).unwrap();
            assert_eq!(whole.blocks().count(), 1);
            let mut parts = Attention::new([&x[0], &x[1], &x[2]], 3, mask).unwrap();
            parts.block = 3;
            let found: Vec<_> = parts.blocks().collect();
            assert_eq!(found, [(0, 3), (3, 3), (6, 1)]);
            near(&whole.value().unwrap(), &parts.value().unwrap());
            let along = || [Some(&dx[0]), Some(&dx[1]), Some(&dx[2])];
            let (a, b) = (whole.tangent(along()), parts.tangent(along()));
            near(&a.unwrap(), &b.unwrap());
            let (a, b) = (whole.cotangent(&g).unwrap(), parts.cotangent(&g).unwrap());
            a.iter().zip(&b).for_each(|(a, b)| near(a, b));
        }
    }
}
