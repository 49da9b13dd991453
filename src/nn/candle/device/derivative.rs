//! The derivatives, each in the operations of its value.

use std::sync::Arc;

use candle_core::Tensor;

use super::attention::Attention;
use super::{Conv, Linear, Norm, OnDevice, act, add, check_run, nearest, patch_counts, shape};
use crate::error::Result;
use crate::nn::derivatives::{Derivatives, Way};
use crate::nn::{Act, Mask, Plus, Shape, mismatch};

/// Whether `t` can be a change of `x`.
fn same(x: &Tensor, t: &Tensor) -> Result<()> {
    let (s, other) = (shape(x)?, shape(t)?);
    match s == other && !s.is_empty() {
        true => Ok(()),
        false => Err(mismatch("derivative", format!("{other:?} at {s:?}"))),
    }
}

/// Entries of dimension `dim` added up where `to` says, of `length`.
fn gathered(x: &Tensor, to: Vec<u32>, dim: usize, length: usize) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    dims.iter_mut().skip(dim).take(1).for_each(|d| *d = length);
    let to = Tensor::new(to, x.device())?;
    let zeros = Tensor::zeros(dims, x.dtype(), x.device())?;
    Ok(zeros.index_add(&to, &x.contiguous()?, dim)?)
}

impl Derivatives for OnDevice {
    fn conv_tangent(&self, dx: &Tensor, w: &Arc<Conv>, plus: Plus<'_, Tensor>) -> Result<Tensor> {
        add(w.product(dx)?, plus)
    }

    fn conv_cotangent(&self, g: &Tensor, w: &Arc<Conv>, from: Shape) -> Result<Tensor> {
        w.back(g, from)
    }

    fn linear_tangent(
        &self,
        dx: &Tensor,
        w: &Arc<Linear>,
        plus: Plus<'_, Tensor>,
    ) -> Result<Tensor> {
        add(w.product(dx)?, plus)
    }

    fn linear_cotangent(&self, g: &Tensor, w: &Arc<Linear>) -> Result<Tensor> {
        w.back(g)
    }

    fn geglu_derivative(
        &self,
        x: &Tensor,
        t: &Tensor,
        w: &Arc<Linear>,
        way: Way,
    ) -> Result<Tensor> {
        let (a, b) = w.halves(&w.forward(x)?)?;
        match way {
            Way::Forward => {
                same(x, t)?;
                let (da, db) = w.halves(&w.product(t)?)?;
                let db = act::slope(&b, &db, Act::Gelu)?;
                Ok(((da * b.gelu_erf()?)? + (a * db)?)?)
            }
            Way::Back => {
                same(&a, t)?;
                let ga = (t * b.gelu_erf()?)?;
                let gb = act::slope(&b, &(t * a)?, Act::Gelu)?;
                w.back(&Tensor::cat(&[ga, gb], 3)?)
            }
        }
    }

    fn group_norm_derivative(
        &self,
        x: &Tensor,
        t: &Tensor,
        w: &Arc<Norm>,
        norm: (usize, Act),
        way: Way,
    ) -> Result<Tensor> {
        same(x, t)?;
        w.group_derivative(x, t, norm, way)
    }

    fn layer_norm_derivative(
        &self,
        x: &Tensor,
        t: &Tensor,
        w: &Arc<Norm>,
        way: Way,
    ) -> Result<Tensor> {
        same(x, t)?;
        w.layer_derivative(x, t, way)
    }

    fn attention_tangent(
        &self,
        qkv: [&Tensor; 3],
        along: [Option<&Tensor>; 3],
        heads: usize,
        mask: Mask,
    ) -> Result<Tensor> {
        Attention::new(qkv, heads, mask)?.tangent(along)
    }

    fn attention_cotangent(
        &self,
        qkv: [&Tensor; 3],
        _left: Option<[&Tensor; 2]>,
        g: &Tensor,
        heads: usize,
        mask: Mask,
    ) -> Result<[Tensor; 3]> {
        Attention::new(qkv, heads, mask)?.cotangent(g)
    }

    fn act_derivative(&self, x: &Tensor, t: &Tensor, act: Act) -> Result<Tensor> {
        same(x, t)?;
        act::slope(x, t, act)
    }

    fn upsample_cotangent(&self, g: &Tensor, h: usize, w: usize) -> Result<Tensor> {
        let s = shape(g)?;
        if s.is_empty() || h == 0 || w == 0 {
            return Err(mismatch("upsample", format!("{s:?} back to {h} × {w}")));
        }
        gathered(
            &gathered(g, nearest(h, s.h)?, 1, h)?,
            nearest(w, s.w)?,
            2,
            w,
        )
    }

    fn sum_positions(&self, g: &Tensor) -> Result<Tensor> {
        // Columns first: sums of sums lose less in f32.
        Ok(g.sum_keepdim(2)?.sum_keepdim(1)?)
    }

    fn patches_cotangent(&self, g: &Tensor, size: usize, from: Shape) -> Result<Tensor> {
        let (h, w) = patch_counts(from, size)?;
        let windows = g.reshape((from.n, h, w, size, size * from.c))?;
        let rows = windows.transpose(2, 3)?;
        Ok(rows.reshape((from.n, from.h, from.w, from.c))?)
    }

    fn tokens_cotangent(
        &self,
        g: &Tensor,
        (first, count): (usize, usize),
        from: Shape,
    ) -> Result<Tensor> {
        check_run(from, first, count)?;
        let s = shape(g)?;
        if s != (Shape { w: count, ..from }) {
            return Err(mismatch("tokens", format!("{s:?} back to {from:?}")));
        }
        Ok(g.pad_with_zeros(2, first, from.w - first - count)?)
    }

    fn split(&self, g: &Tensor, c: usize) -> Result<(Tensor, Tensor)> {
        let s = shape(g)?;
        if c == 0 || c >= s.c {
            return Err(mismatch("split", format!("{s:?} after {c} channels")));
        }
        // Copies: a view would keep the whole alive.
        let part = |first, count| g.narrow(3, first, count)?.contiguous();
        Ok((part(0, c)?, part(c, s.c - c)?))
    }

    fn samples(&self, g: &Tensor, first: usize, count: usize) -> Result<Tensor> {
        Ok(g.narrow(0, first, count)?.force_contiguous()?)
    }
}
