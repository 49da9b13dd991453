//! What a backend gives besides values: the derivative of each operation, both ways.
//!
//! For: [`super::dual`] and [`super::tape`], which read a model over any backend that has these. Not
//! for: gradients to weights, which are frozen, and second derivatives.
//!
//! A tangent is a small change of a value and has its shape; a cotangent of a value is a gradient to it
//! and has its shape too. Weights come as the backend made them. What only moves numbers has its
//! derivative here, for every backend.

use super::{Act, Mask, Ops, Plus, Shape, mismatch, moves};
use crate::error::Result;

/// Which way a derivative is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a tangent of the operand to the tangent of the result.
    Forward,
    /// From a cotangent of the result to the cotangent of the operand.
    Back,
}

/// The derivatives of a backend's operations. A mismatch is [`crate::Code::Internal`], as in [`Ops`].
pub trait Derivatives: Ops {
    /// [`Ops::conv`] without bias: of a tangent, the tangent.
    fn conv_tangent(
        &self,
        dx: &Self::Tensor,
        w: &Self::Conv,
        plus: Plus<'_, Self::Tensor>,
    ) -> Result<Self::Tensor>;
    /// The transpose of [`Ops::conv`]: from a cotangent of the result to that of the operand, whose
    /// size is `from`.
    fn conv_cotangent(&self, g: &Self::Tensor, w: &Self::Conv, from: Shape)
    -> Result<Self::Tensor>;
    /// [`Ops::linear`] without bias.
    fn linear_tangent(
        &self,
        dx: &Self::Tensor,
        w: &Self::Linear,
        plus: Plus<'_, Self::Tensor>,
    ) -> Result<Self::Tensor>;
    /// The transpose of [`Ops::linear`].
    fn linear_cotangent(&self, g: &Self::Tensor, w: &Self::Linear) -> Result<Self::Tensor>;
    /// `t` through the derivative of [`Ops::geglu`] at `x`.
    fn geglu_derivative(
        &self,
        x: &Self::Tensor,
        t: &Self::Tensor,
        w: &Self::Linear,
        way: Way,
    ) -> Result<Self::Tensor>;
    /// `t` through the derivative of [`Ops::group_norm`] at `x`.
    fn group_norm_derivative(
        &self,
        x: &Self::Tensor,
        t: &Self::Tensor,
        w: &Self::Norm,
        norm: (usize, Act),
        way: Way,
    ) -> Result<Self::Tensor>;
    /// `t` through the derivative of [`Ops::layer_norm`] at `x`.
    fn layer_norm_derivative(
        &self,
        x: &Self::Tensor,
        t: &Self::Tensor,
        w: &Self::Norm,
        way: Way,
    ) -> Result<Self::Tensor>;
    /// The tangent of [`Ops::attention`] at queries, keys and values; `along` holds theirs, those that
    /// are not zero.
    fn attention_tangent(
        &self,
        qkv: [&Self::Tensor; 3],
        along: [Option<&Self::Tensor>; 3],
        heads: usize,
        mask: Mask,
    ) -> Result<Self::Tensor>;
    /// [`Ops::attention`], and besides, if it is worth keeping, what [`Derivatives::attention_cotangent`] can start
    /// from.
    fn attention_leaving(
        &self,
        [q, k, v]: [&Self::Tensor; 3],
        heads: usize,
        mask: Mask,
    ) -> Result<(Self::Tensor, Option<Self::Tensor>)> {
        Ok((self.attention(q, k, v, heads, mask)?, None))
    }
    /// The cotangents of queries, keys and values, from that of [`Ops::attention`]; `left` is its result and what
    /// else [`Derivatives::attention_leaving`] gave, if anything.
    fn attention_cotangent(
        &self,
        qkv: [&Self::Tensor; 3],
        left: Option<[&Self::Tensor; 2]>,
        g: &Self::Tensor,
        heads: usize,
        mask: Mask,
    ) -> Result<[Self::Tensor; 3]>;
    /// `t` times the derivative of `act` at `x`, number by number: one and the same both ways.
    fn act_derivative(&self, x: &Self::Tensor, t: &Self::Tensor, act: Act) -> Result<Self::Tensor>;

    /// Zeros.
    fn zeros(&self, shape: Shape) -> Result<Self::Tensor> {
        self.value(vec![0.0; shape.len()], shape)
    }

    /// The transpose of [`Ops::upsample`]: every number added to where it came from, in a map of
    /// `h × w`.
    fn upsample_cotangent(&self, g: &Self::Tensor, h: usize, w: usize) -> Result<Self::Tensor> {
        let s = self.shape(g)?;
        if s.is_empty() || h == 0 || w == 0 {
            return Err(mismatch("upsample", format!("{s:?} back to {h} × {w}")));
        }
        let to = Shape { h, w, ..s };
        let mut out = vec![0.0; to.len()];
        let data = self.numbers(g)?;
        for (i, row) in data.chunks_exact(s.w * s.c).enumerate() {
            let (n, y) = (i / s.h, i % s.h);
            let at = (n * h + y * h / s.h) * w * s.c;
            let line = out.get_mut(at..at + w * s.c).unwrap_or_default();
            for (j, pixel) in row.chunks_exact(s.c).enumerate() {
                let at = j * w / s.w * s.c;
                let place = line.get_mut(at..at + s.c).unwrap_or_default();
                place.iter_mut().zip(pixel).for_each(|(to, g)| *to += g);
            }
        }
        self.value(out, to)
    }

    /// The transpose of [`Plus::PerSample`]: the sum over each sample's positions, `n × 1 × 1 × c`.
    fn sum_positions(&self, g: &Self::Tensor) -> Result<Self::Tensor> {
        let s = self.shape(g)?;
        let to = Shape::map(s.n, 1, 1, s.c);
        let data = self.numbers(g)?;
        let mut out = Vec::with_capacity(to.len());
        if !data.is_empty() {
            for sample in data.chunks_exact(s.rows_per_sample() * s.c) {
                let mut sums = vec![0.0_f64; s.c];
                for row in sample.chunks_exact(s.c) {
                    (sums.iter_mut().zip(row)).for_each(|(sum, x)| *sum += f64::from(*x));
                }
                out.extend(sums.into_iter().map(|x| x as f32));
            }
        }
        self.value(out, to)
    }

    /// `t` through the derivative of [`Ops::max_pool`] at `x`.
    fn max_pool_derivative(
        &self,
        x: &Self::Tensor,
        t: &Self::Tensor,
        size: usize,
        way: Way,
    ) -> Result<Self::Tensor> {
        let (x, s) = (self.numbers(x)?, self.shape(x)?);
        let (data, to) = moves::max_pool_derivative((&x, s), &self.numbers(t)?, size, way)?;
        self.value(data, to)
    }

    /// The transpose of [`Ops::patches`], back to a map of size `from`.
    fn patches_cotangent(
        &self,
        g: &Self::Tensor,
        size: usize,
        from: Shape,
    ) -> Result<Self::Tensor> {
        self.value(moves::patches_back(&self.numbers(g)?, from, size)?, from)
    }

    /// The transpose of [`Ops::tokens`], back to a sequence of size `from`.
    fn tokens_cotangent(
        &self,
        g: &Self::Tensor,
        (first, count): (usize, usize),
        from: Shape,
    ) -> Result<Self::Tensor> {
        let data = moves::tokens_back(&self.numbers(g)?, from, first, count)?;
        self.value(data, from)
    }

    /// The transpose of [`Ops::concat`]: the first `c` channels, and the others.
    fn split(&self, g: &Self::Tensor, c: usize) -> Result<(Self::Tensor, Self::Tensor)> {
        let s = self.shape(g)?;
        if c == 0 || c >= s.c {
            return Err(mismatch("split", format!("{s:?} after {c} channels")));
        }
        let data = self.numbers(g)?;
        let (mut a, mut b) = (
            Vec::with_capacity(s.rows() * c),
            Vec::with_capacity(s.rows() * (s.c - c)),
        );
        for row in data.chunks_exact(s.c) {
            let (left, right) = row.split_at(c);
            a.extend_from_slice(left);
            b.extend_from_slice(right);
        }
        let first = self.value(a, Shape { c, ..s })?;
        Ok((first, self.value(b, Shape { c: s.c - c, ..s })?))
    }

    /// The transpose of [`Ops::stack`], part by part: samples `first..first + count`.
    fn samples(&self, g: &Self::Tensor, first: usize, count: usize) -> Result<Self::Tensor> {
        let s = self.shape(g)?;
        let sample = s.rows_per_sample() * s.c;
        let data = self.numbers(g)?;
        match data.get(first * sample..(first + count) * sample) {
            Some(own) => self.value(own.to_vec(), Shape { n: count, ..s }),
            None => Err(mismatch(
                "samples",
                format!("{count} of {s:?} from {first}"),
            )),
        }
    }
}
