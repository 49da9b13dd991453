//! One operation as data, so that it can be done again, pushed through or pulled back.
//!
//! For: readings of a model other than plain values. [`Step`] says which operation with which weights;
//! a [`Reading`] says what becomes of a step, and is [`Ops`] by that alone. Not for: plain values, which
//! call the backend directly.

use super::derivatives::{Derivatives, Way};
use super::{Act, ConvSpec, LinearSpec, Mask, Ops, Plus, Shape, mismatch};
use crate::error::Result;

/// What the last operand of a product is, if it has a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// There is none.
    Nothing,
    /// [`Plus::PerSample`].
    PerSample,
    /// [`Plus::Residual`].
    Residual,
}

impl Added {
    fn of<T>(plus: &Plus<'_, T>) -> Added {
        match plus {
            Plus::Nothing => Added::Nothing,
            Plus::PerSample(_) => Added::PerSample,
            Plus::Residual(_) => Added::Residual,
        }
    }

    fn plus<'a, T>(self, x: Option<&'a T>) -> Plus<'a, T> {
        match (self, x) {
            (Added::PerSample, Some(x)) => Plus::PerSample(x),
            (Added::Residual, Some(x)) => Plus::Residual(x),
            _ => Plus::Nothing,
        }
    }
}

/// An operation of [`Ops`] without its operands.
pub enum Step<O: Ops> {
    /// [`Ops::conv`]: the map, then what is added.
    Conv(O::Conv, Added),
    /// [`Ops::linear`]: as [`Step::Conv`].
    Linear(O::Linear, Added),
    /// [`Ops::geglu`].
    Geglu(O::Linear),
    /// [`Ops::group_norm`].
    GroupNorm(O::Norm, usize, Act),
    /// [`Ops::layer_norm`].
    LayerNorm(O::Norm),
    /// [`Ops::attention`]: queries, keys, values.
    Attention(usize, Mask),
    /// [`Ops::act`].
    Act(Act),
    /// [`Ops::upsample`].
    Upsample(usize, usize),
    /// [`Ops::max_pool`].
    MaxPool(usize),
    /// [`Ops::patches`].
    Patches(usize),
    /// [`Ops::join`]: two.
    Join,
    /// [`Ops::tokens`]: from which on, how many.
    Tokens(usize, usize),
    /// [`Ops::concat`]: two.
    Concat,
    /// [`Ops::stack`]: one or more.
    Stack,
    /// [`Ops::combine`]: as many as there are weights.
    Combine(Vec<f32>),
}

/// Operands that an operation does not have.
fn operands<T>(x: &[T]) -> crate::Error {
    mismatch("step", format!("{} operands", x.len()))
}

impl<O: Ops> Step<O> {
    /// Does it.
    pub fn run(&self, ops: &O, x: &[&O::Tensor]) -> Result<O::Tensor> {
        match (self, x) {
            (Step::Conv(w, added), [x, rest @ ..]) => {
                ops.conv(x, w, added.plus(rest.first().copied()))
            }
            (Step::Linear(w, added), [x, rest @ ..]) => {
                ops.linear(x, w, added.plus(rest.first().copied()))
            }
            (Step::Geglu(w), [x]) => ops.geglu(x, w),
            (Step::GroupNorm(w, groups, act), [x]) => ops.group_norm(x, w, *groups, *act),
            (Step::LayerNorm(w), [x]) => ops.layer_norm(x, w),
            (Step::Attention(heads, mask), [q, k, v]) => ops.attention(q, k, v, *heads, *mask),
            (Step::Act(act), [x]) => ops.act(x, *act),
            (Step::Upsample(h, w), [x]) => ops.upsample(x, *h, *w),
            (Step::MaxPool(size), [x]) => ops.max_pool(x, *size),
            (Step::Patches(size), [x]) => ops.patches(x, *size),
            (Step::Join, [a, b]) => ops.join(a, b),
            (Step::Tokens(first, count), [x]) => ops.tokens(x, *first, *count),
            (Step::Concat, [a, b]) => ops.concat(a, b),
            (Step::Stack, parts) => ops.stack(parts),
            (Step::Combine(weights), x) if weights.len() == x.len() => {
                let terms: Vec<_> = weights.iter().copied().zip(x.iter().copied()).collect();
                ops.combine(&terms)
            }
            _ => Err(operands(x)),
        }
    }

    /// Whether its derivative depends on where it is taken: the others are linear.
    pub fn is_curved(&self) -> bool {
        matches!(
            self,
            Step::Geglu(_)
                | Step::GroupNorm(..)
                | Step::LayerNorm(_)
                | Step::Attention(..)
                | Step::Act(_)
                | Step::MaxPool(_)
        )
    }
}

impl<O: Derivatives> Step<O> {
    /// [`Step::run`], and what else [`Step::cotangent`] can start from, if anything.
    pub fn run_leaving(&self, ops: &O, x: &[&O::Tensor]) -> Result<(O::Tensor, Option<O::Tensor>)> {
        match (self, x) {
            (Step::Attention(heads, mask), &[q, k, v]) => {
                ops.attention_leaving([q, k, v], *heads, *mask)
            }
            _ => Ok((self.run(ops, x)?, None)),
        }
    }

    /// The tangent of the result at operands `x` whose tangents are `dx`, those that are not zero: at
    /// least one.
    pub fn tangent(
        &self,
        ops: &O,
        x: &[&O::Tensor],
        dx: &[Option<&O::Tensor>],
    ) -> Result<O::Tensor> {
        match (self, x, dx) {
            (Step::Conv(w, added), [x, ..], [dx, rest @ ..]) => {
                let plus = added.plus(rest.first().copied().flatten());
                match dx {
                    Some(dx) => ops.conv_tangent(dx, w, plus),
                    None => ops.conv_tangent(&ops.zeros(ops.shape(x)?)?, w, plus),
                }
            }
            (Step::Linear(w, added), [x, ..], [dx, rest @ ..]) => {
                let plus = added.plus(rest.first().copied().flatten());
                match dx {
                    Some(dx) => ops.linear_tangent(dx, w, plus),
                    None => ops.linear_tangent(&ops.zeros(ops.shape(x)?)?, w, plus),
                }
            }
            (Step::Geglu(w), [x], [Some(dx)]) => ops.geglu_derivative(x, dx, w, Way::Forward),
            (Step::GroupNorm(w, groups, act), [x], [Some(dx)]) => {
                ops.group_norm_derivative(x, dx, w, (*groups, *act), Way::Forward)
            }
            (Step::LayerNorm(w), [x], [Some(dx)]) => {
                ops.layer_norm_derivative(x, dx, w, Way::Forward)
            }
            (Step::Attention(heads, mask), &[q, k, v], &[dq, dk, dv]) => {
                ops.attention_tangent([q, k, v], [dq, dk, dv], *heads, *mask)
            }
            (Step::Act(act), [x], [Some(dx)]) => ops.act_derivative(x, dx, *act),
            (Step::MaxPool(size), [x], [Some(dx)]) => {
                ops.max_pool_derivative(x, dx, *size, Way::Forward)
            }
            (Step::Combine(weights), ..) if weights.len() == dx.len() => {
                let terms = weights.iter().zip(dx);
                let terms: Vec<_> = terms.filter_map(|(w, dx)| Some((*w, (*dx)?))).collect();
                ops.combine(&terms)
            }
            (
                Step::Upsample(..)
                | Step::Concat
                | Step::Stack
                | Step::Patches(_)
                | Step::Join
                | Step::Tokens(..),
                ..,
            ) => {
                let zeros = |x: &&O::Tensor| ops.zeros(ops.shape(x)?);
                let filled = (x.iter().zip(dx))
                    .map(|(x, dx)| dx.map_or_else(|| zeros(x), |dx| Ok(dx.clone())))
                    .collect::<Result<Vec<_>>>()?;
                self.run(ops, &filled.iter().collect::<Vec<_>>())
            }
            _ => Err(operands(x)),
        }
    }

    /// The cotangents of those operands that are `wanted`, from the cotangent `g` of the result; `x`
    /// holds the operands where [`Step::is_curved`], and nothing is read of it where not. `left` is the result and
    /// what else [`Step::run_leaving`] gave, if anything. `shapes` are the operands'.
    pub fn cotangent(
        &self,
        ops: &O,
        (x, left): (&[&O::Tensor], Option<[&O::Tensor; 2]>),
        shapes: &[Shape],
        g: &O::Tensor,
        wanted: &[bool],
    ) -> Result<Vec<Option<O::Tensor>>> {
        let wants = |i: usize| wanted.get(i).copied().unwrap_or_default();
        let second = |added: Added| match added {
            Added::PerSample if wants(1) => ops.sum_positions(g).map(Some),
            Added::Residual if wants(1) => Ok(Some(g.clone())),
            _ => Ok(None),
        };
        let one = |y: O::Tensor| Ok(vec![Some(y)]);
        match (self, x, shapes) {
            (Step::Conv(w, added), _, [from, ..]) => {
                let first = wants(0).then(|| ops.conv_cotangent(g, w, *from));
                Ok(vec![first.transpose()?, second(*added)?])
            }
            (Step::Linear(w, added), ..) => {
                let first = wants(0).then(|| ops.linear_cotangent(g, w));
                Ok(vec![first.transpose()?, second(*added)?])
            }
            (Step::Geglu(w), [x], _) => one(ops.geglu_derivative(x, g, w, Way::Back)?),
            (Step::GroupNorm(w, groups, act), [x], _) => {
                one(ops.group_norm_derivative(x, g, w, (*groups, *act), Way::Back)?)
            }
            (Step::LayerNorm(w), [x], _) => one(ops.layer_norm_derivative(x, g, w, Way::Back)?),
            (Step::Attention(heads, mask), &[q, k, v], _) => {
                let all = ops.attention_cotangent([q, k, v], left, g, *heads, *mask)?;
                Ok(all.into_iter().map(Some).collect())
            }
            (Step::Act(act), [x], _) => one(ops.act_derivative(x, g, *act)?),
            (Step::Upsample(..), _, [from]) => one(ops.upsample_cotangent(g, from.h, from.w)?),
            (Step::MaxPool(size), [x], _) => {
                one(ops.max_pool_derivative(x, g, *size, Way::Back)?)
            }
            (Step::Patches(size), _, [from]) => one(ops.patches_cotangent(g, *size, *from)?),
            (Step::Join, _, [a, b]) => Ok(vec![
                Some(ops.tokens(g, 0, a.w)?),
                Some(ops.tokens(g, a.w, b.w)?),
            ]),
            (Step::Tokens(first, count), _, [from]) => {
                one(ops.tokens_cotangent(g, (*first, *count), *from)?)
            }
            (Step::Concat, _, [a, _]) => {
                let (a, b) = ops.split(g, a.c)?;
                Ok(vec![Some(a), Some(b)])
            }
            (Step::Stack, ..) => {
                let mut first = 0;
                let part = |shape: &Shape| {
                    first += shape.n;
                    ops.samples(g, first - shape.n, shape.n).map(Some)
                };
                shapes.iter().map(part).collect()
            }
            (Step::Combine(weights), ..) => {
                let term = |w: &f32| ops.combine(&[(*w, g)]).map(Some);
                weights.iter().map(term).collect()
            }
            _ => Err(operands(shapes)),
        }
    }
}

/// A way to read a model over a backend, told step by step: [`Ops`] for models, with the backend's own
/// weights.
pub trait Reading: Send + Sync {
    /// The backend.
    type Over: Ops;
    /// What a value is in this reading; cheap to clone.
    type Value: Clone + Send + Sync;

    /// What reports call it: a word before the backend's name.
    fn label(&self) -> &'static str;
    /// The backend.
    fn over(&self) -> &Self::Over;
    /// A value that depends on nothing.
    fn constant(&self, x: <Self::Over as Ops>::Tensor) -> Self::Value;
    /// The plain value.
    fn plain<'a>(&self, x: &'a Self::Value) -> &'a <Self::Over as Ops>::Tensor;
    /// Does `step`.
    fn step(&self, step: Step<Self::Over>, x: &[&Self::Value]) -> Result<Self::Value>;
    /// See [`Ops::boundary`].
    fn block_ends(&self) {}
}

/// The second operand of a product, if it has one, after the first.
fn with<'a, T>(x: &'a T, plus: &Plus<'a, T>) -> Vec<&'a T> {
    match plus {
        Plus::Nothing => vec![x],
        Plus::PerSample(more) | Plus::Residual(more) => vec![x, *more],
    }
}

impl<R: Reading> Ops for R {
    type Tensor = R::Value;
    type Conv = <R::Over as Ops>::Conv;
    type Linear = <R::Over as Ops>::Linear;
    type Norm = <R::Over as Ops>::Norm;

    fn name(&self) -> String {
        format!("{} over {}", self.label(), self.over().name())
    }

    fn make_conv(&self, spec: ConvSpec<'_>) -> Result<Self::Conv> {
        self.over().make_conv(spec)
    }

    fn make_linear(&self, spec: LinearSpec<'_>) -> Result<Self::Linear> {
        self.over().make_linear(spec)
    }

    fn make_gate(&self, spec: LinearSpec<'_>) -> Result<Self::Linear> {
        self.over().make_gate(spec)
    }

    fn make_norm(&self, scale: &[f32], shift: &[f32], eps: f32) -> Result<Self::Norm> {
        self.over().make_norm(scale, shift, eps)
    }

    fn value(
        &self,
        data: impl AsRef<[f32]> + Into<Vec<f32>>,
        shape: Shape,
    ) -> Result<Self::Tensor> {
        Ok(self.constant(self.over().value(data, shape)?))
    }

    fn numbers(&self, x: &Self::Tensor) -> Result<Vec<f32>> {
        self.over().numbers(self.plain(x))
    }

    fn shape(&self, x: &Self::Tensor) -> Result<Shape> {
        self.over().shape(self.plain(x))
    }

    fn conv(
        &self,
        x: &Self::Tensor,
        w: &Self::Conv,
        plus: Plus<'_, Self::Tensor>,
    ) -> Result<Self::Tensor> {
        self.step(Step::Conv(w.clone(), Added::of(&plus)), &with(x, &plus))
    }

    fn linear(
        &self,
        x: &Self::Tensor,
        w: &Self::Linear,
        plus: Plus<'_, Self::Tensor>,
    ) -> Result<Self::Tensor> {
        self.step(Step::Linear(w.clone(), Added::of(&plus)), &with(x, &plus))
    }

    fn geglu(&self, x: &Self::Tensor, w: &Self::Linear) -> Result<Self::Tensor> {
        self.step(Step::Geglu(w.clone()), &[x])
    }

    fn group_norm(
        &self,
        x: &Self::Tensor,
        w: &Self::Norm,
        groups: usize,
        act: Act,
    ) -> Result<Self::Tensor> {
        self.step(Step::GroupNorm(w.clone(), groups, act), &[x])
    }

    fn layer_norm(&self, x: &Self::Tensor, w: &Self::Norm) -> Result<Self::Tensor> {
        self.step(Step::LayerNorm(w.clone()), &[x])
    }

    fn attention(
        &self,
        q: &Self::Tensor,
        k: &Self::Tensor,
        v: &Self::Tensor,
        heads: usize,
        mask: Mask,
    ) -> Result<Self::Tensor> {
        self.step(Step::Attention(heads, mask), &[q, k, v])
    }

    fn act(&self, x: &Self::Tensor, act: Act) -> Result<Self::Tensor> {
        self.step(Step::Act(act), &[x])
    }

    fn upsample(&self, x: &Self::Tensor, h: usize, w: usize) -> Result<Self::Tensor> {
        self.step(Step::Upsample(h, w), &[x])
    }

    fn max_pool(&self, x: &Self::Tensor, size: usize) -> Result<Self::Tensor> {
        self.step(Step::MaxPool(size), &[x])
    }

    fn patches(&self, x: &Self::Tensor, size: usize) -> Result<Self::Tensor> {
        self.step(Step::Patches(size), &[x])
    }

    fn join(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor> {
        self.step(Step::Join, &[a, b])
    }

    fn tokens(&self, x: &Self::Tensor, first: usize, count: usize) -> Result<Self::Tensor> {
        self.step(Step::Tokens(first, count), &[x])
    }

    fn concat(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor> {
        self.step(Step::Concat, &[a, b])
    }

    fn stack(&self, parts: &[&Self::Tensor]) -> Result<Self::Tensor> {
        self.step(Step::Stack, parts)
    }

    fn combine(&self, terms: &[(f32, &Self::Tensor)]) -> Result<Self::Tensor> {
        let (weights, x): (Vec<f32>, Vec<&Self::Tensor>) = terms.iter().copied().unzip();
        self.step(Step::Combine(weights), &x)
    }

    fn awake<T>(&self, f: impl FnOnce() -> T) -> T {
        self.over().awake(f)
    }

    fn boundary(&self) {
        self.block_ends();
    }
}
