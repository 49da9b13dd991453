//! The derivatives of the native backend: kernels of their own, and products with weights transposed.
//!
//! A layer's weights are transposed when a gradient first asks for them: the eval path does not pay for
//! it. A small layer's transpose is kept; a large one's is made again at each use, in memory that the last
//! one lay in, for a second copy of all weights costs more than all the transposing takes. On a path of
//! bf16 these products round their operands too.

use std::ops::Deref;
use std::sync::Arc;

use once_cell::sync::OnceCell;
use semblance_kernels as kernels;
use semblance_kernels::{Arena, GroupNorm, Qkv};

use super::{Conv, Linear, Native, Norm, Tensor, activation, masking, size};
use crate::error::{Error, Result};
use crate::nn::derivatives::{Derivatives, Way};
use crate::nn::{Act, Mask, Plus, Shape, mismatch};

fn direction(way: Way) -> kernels::Way {
    match way {
        Way::Forward => kernels::Way::Tangent,
        Way::Back => kernels::Way::Cotangent,
    }
}

/// Bytes of packed weights up to which a layer's transpose is kept.
const KEEP_TRANSPOSE: usize = 1 << 20;

/// A layer's transpose, for one product or for all.
enum Transpose<'a, T> {
    Kept(&'a T),
    Made(T),
}

impl Native {
    /// The transpose of a layer of `bytes` in `place`, where it is one to keep, or what `make` gives.
    fn transpose<'a, T>(
        &self,
        place: &'a OnceCell<T>,
        bytes: usize,
        make: impl FnOnce(Option<&Arc<Arena>>) -> kernels::Result<T>,
    ) -> Result<Transpose<'a, T>> {
        Ok(match bytes <= KEEP_TRANSPOSE {
            true => Transpose::Kept(place.get_or_try_init(|| make(None))?),
            false => Transpose::Made(make(Some(&self.transposes))?),
        })
    }

    /// The transpose of a linear layer; of a gated one, of all values and gates.
    fn transposed<'a>(&self, w: &'a Linear) -> Result<Transpose<'a, kernels::Weights>> {
        self.transpose(&w.transposed, w.weights.bytes(), |room| match w.gated {
            true => w.weights.opened()?.transposed(room),
            false => w.weights.transposed(room),
        })
    }
}

impl<T> Deref for Transpose<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Transpose::Kept(x) => x,
            Transpose::Made(x) => x,
        }
    }
}

/// Whether `t` can be a change of `x`.
fn same(x: &Tensor, t: &Tensor) -> Result<()> {
    match x.0.shape == t.0.shape {
        true => Ok(()),
        false => {
            let what = format!("{:?} at {:?}", t.0.shape, x.0.shape);
            Err(mismatch("derivative", what))
        }
    }
}

impl Derivatives for Native {
    fn conv_tangent(&self, dx: &Tensor, w: &Arc<Conv>, plus: Plus<'_, Tensor>) -> Result<Tensor> {
        self.convolve(dx, &w.0.without_bias()?, &plus)
    }

    fn conv_cotangent(&self, g: &Tensor, w: &Arc<Conv>, from: Shape) -> Result<Tensor> {
        let transposed = self.transpose(&w.1, w.0.bytes(), |room| w.0.transposed(room))?;
        let numbers = self.plain(g)?;
        self.make(from, |out| {
            transposed.run(&numbers, size(g.0.shape), size(from), out)
        })
    }

    fn linear_tangent(
        &self,
        dx: &Tensor,
        w: &Arc<Linear>,
        plus: Plus<'_, Tensor>,
    ) -> Result<Tensor> {
        match w.gated {
            false => self.product(dx, &w.weights.without_bias()?, &plus),
            true => Err(mismatch("linear", "a gated layer")),
        }
    }

    fn linear_cotangent(&self, g: &Tensor, w: &Arc<Linear>) -> Result<Tensor> {
        match w.gated {
            false => {
                let back = self.transposed(w)?;
                self.product(g, &back, &Plus::Nothing)
            }
            true => Err(mismatch("linear", "a gated layer")),
        }
    }

    fn geglu_derivative(
        &self,
        x: &Tensor,
        t: &Tensor,
        w: &Arc<Linear>,
        way: Way,
    ) -> Result<Tensor> {
        match way {
            Way::Forward => {
                let open = w.weights.opened()?;
                let z = self.product(x, &open, &Plus::Nothing)?;
                let dz = self.product(t, &open.without_bias()?, &Plus::Nothing)?;
                let c = w.weights.outputs();
                let (z, dz) = (self.plain(&z)?, self.plain(&dz)?);
                self.make(Shape { c, ..x.0.shape }, |out| {
                    kernels::gate_tangent(&w.weights, &z, &dz, out)
                })
            }
            Way::Back => {
                let back = self.transposed(w)?;
                let takes = self.cpu.rounds(x.0.shape.c);
                let (x, shape) = (self.read(x, takes)?, x.0.shape);
                self.make_value(shape, |out| {
                    kernels::geglu_cotangent(x.input(), &w.weights, &back, t.input(), out)
                })
            }
        }
    }

    fn group_norm_derivative(
        &self,
        x: &Tensor,
        t: &Tensor,
        w: &Arc<Norm>,
        (groups, act): (usize, Act),
        way: Way,
    ) -> Result<Tensor> {
        same(x, t)?;
        let norm = GroupNorm {
            samples: x.0.shape.n,
            groups,
            affine: w.affine(),
            act: activation(act),
        };
        let (shape, x, t) = (x.0.shape, self.plain(x)?, self.plain(t)?);
        self.make(shape, |out| {
            kernels::group_norm_derivative(self.cpu, &x, &t, norm, direction(way), out)
        })
    }

    fn layer_norm_derivative(
        &self,
        x: &Tensor,
        t: &Tensor,
        w: &Arc<Norm>,
        way: Way,
    ) -> Result<Tensor> {
        same(x, t)?;
        let (shape, x, t) = (x.0.shape, self.plain(x)?, self.plain(t)?);
        self.make(shape, |out| {
            kernels::layer_norm_derivative(self.cpu, &x, &t, w.affine(), direction(way), out)
        })
    }

    fn attention_tangent(
        &self,
        [q, k, v]: [&Tensor; 3],
        along: [Option<&Tensor>; 3],
        heads: usize,
        mask: Mask,
    ) -> Result<Tensor> {
        let counts = Self::heads(q, k, v, heads)?;
        let (pq, pk, pv) = (self.plain(q)?, self.plain(k)?, self.plain(v)?);
        let at = Qkv {
            q: &pq,
            k: &pk,
            v: &pv,
        };
        let [dq, dk, dv] = along.map(|t| t.map(|t| self.plain(t)).transpose());
        let (dq, dk, dv) = (dq?, dk?, dv?);
        let along = [dq.as_deref(), dk.as_deref(), dv.as_deref()];
        self.make(q.0.shape, |out| {
            kernels::attention_tangent(self.cpu, at, along, counts, masking(mask), out)
        })
    }

    fn attention_leaving(
        &self,
        qkv: [&Tensor; 3],
        heads: usize,
        mask: Mask,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let [q, k, _] = qkv.map(|x| x.0.shape);
        if !kernels::attention_leaves(self.cpu, k.rows_per_sample()) {
            return Ok((self.attend(qkv, (heads, mask), None)?, None));
        }
        let shape = Shape::map(q.n, heads, q.rows_per_sample(), 1);
        let mut lse = self.arena.take(shape.len())?;
        let y = self.attend(qkv, (heads, mask), Some(&mut lse))?;
        Ok((y, Some(self.tensor(lse, false, shape))))
    }

    fn attention_cotangent(
        &self,
        [q, k, v]: [&Tensor; 3],
        left: Option<[&Tensor; 2]>,
        g: &Tensor,
        heads: usize,
        mask: Mask,
    ) -> Result<[Tensor; 3]> {
        let counts = Self::heads(q, k, v, heads)?;
        let (pq, pk, pv) = (self.plain(q)?, self.plain(k)?, self.plain(v)?);
        let at = Qkv {
            q: &pq,
            k: &pk,
            v: &pv,
        };
        let mut gq = self.arena.take(q.0.shape.len())?;
        let mut gk = self.arena.take(k.0.shape.len())?;
        let mut gv = self.arena.take(v.0.shape.len())?;
        let out = [&mut *gq, &mut *gk, &mut *gv];
        let g = self.plain(g)?;
        let left = (left.map(|[y, lse]| Ok::<_, Error>((self.plain(y)?, self.plain(lse)?))))
            .transpose()?;
        let left = left.as_ref().map(|(y, lse)| kernels::Left { y, lse });
        kernels::attention_cotangent(self.cpu, at, left, &g, counts, masking(mask), out)?;
        Ok([
            self.tensor(gq, false, q.0.shape),
            self.tensor(gk, false, k.0.shape),
            self.tensor(gv, false, v.0.shape),
        ])
    }

    fn act_derivative(&self, x: &Tensor, t: &Tensor, act: Act) -> Result<Tensor> {
        same(x, t)?;
        let (shape, x, t) = (x.0.shape, self.plain(x)?, self.plain(t)?);
        self.make(shape, |out| {
            kernels::activate_derivative(self.cpu, activation(act), &x, &t, out)
        })
    }

    fn upsample_cotangent(&self, g: &Tensor, h: usize, w: usize) -> Result<Tensor> {
        let (s, g) = (g.0.shape, self.plain(g)?);
        self.make(Shape { h, w, ..s }, |out| {
            kernels::upsample_cotangent(&g, size(s), h, w, out)
        })
    }

    fn sum_positions(&self, g: &Tensor) -> Result<Tensor> {
        let (s, g) = (g.0.shape, self.plain(g)?);
        self.make(Shape::map(s.n, 1, 1, s.c), |out| {
            kernels::sum_rows(&g, s.c, out)
        })
    }

    fn split(&self, g: &Tensor, c: usize) -> Result<(Tensor, Tensor)> {
        let (s, g) = (g.0.shape, self.plain(g)?);
        let part = |first: usize, c: usize| {
            self.make(Shape { c, ..s }, |out| {
                kernels::columns(&g, s.c, (first, c), out)
            })
        };
        Ok((part(0, c)?, part(c, s.c.saturating_sub(c))?))
    }
}
