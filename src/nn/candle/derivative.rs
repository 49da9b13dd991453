//! The derivatives of the reference: plain sums in f64, as the definitions say.
//!
//! Nothing here is fast. Products are candle's with the weights transposed; a convolution's cotangent is
//! spread over the windows that each output was gathered from.

use std::sync::Arc;

use candle_core::Tensor;

use super::{Candle, Conv, Linear, Norm, read, shape, tensor};
use crate::error::Result;
use crate::nn::derivatives::{Derivatives, Way};
use crate::nn::{Act, Mask, Plus, Shape, mismatch};

/// The numbers of a value.
fn numbers(x: &Tensor) -> Result<Vec<f64>> {
    read(x, |x| Ok(x.iter().map(|x| f64::from(*x)).collect()))
}

fn value(x: &[f64], s: Shape) -> Result<Tensor> {
    tensor(x.iter().map(|x| *x as f32).collect(), s)
}

/// Whether `t` can be a change of `x`.
fn same(x: &Tensor, t: &Tensor) -> Result<Shape> {
    let (s, other) = (shape(x)?, shape(t)?);
    match s == other && !s.is_empty() {
        true => Ok(s),
        false => Err(mismatch("derivative", format!("{other:?} at {s:?}"))),
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// Φ(x), and the density there.
fn normal(x: f64) -> (f64, f64) {
    let density = libm::exp(-0.5 * x * x) / (2.0 * std::f64::consts::PI).sqrt();
    let below = 0.5 * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2));
    (below, density)
}

/// The derivative of `act`.
fn slope(act: Act, x: f64) -> f64 {
    let logistic = |k: f64| {
        let s = sigmoid(k * x);
        s + k * x * s * (1.0 - s)
    };
    match act {
        Act::Identity => 1.0,
        Act::Silu => logistic(1.0),
        Act::QuickGelu => logistic(1.702),
        Act::Gelu => {
            let (below, density) = normal(x);
            below + x * density
        }
        Act::Relu => f64::from(x > 0.0),
    }
}

/// Numbers that are normalised together, with the scale and shift of each.
struct Set {
    /// (x, what goes through, scale, shift), and where each comes from.
    items: Vec<(f64, f64, f64, f64, usize)>,
    eps: f64,
}

impl Set {
    /// What goes through the derivative of act(scale · x̂ + shift), x̂ = (x − mean) / √(variance + eps).
    fn derivative(&self, act: Act, way: Way, out: &mut [f64]) {
        let n = self.items.len() as f64;
        let mean = self.items.iter().map(|i| i.0).sum::<f64>() / n;
        let variance = self.items.iter().map(|i| (i.0 - mean).powi(2)).sum::<f64>() / n;
        let factor = 1.0 / (variance + self.eps).sqrt();
        let hat = |x: f64| (x - mean) * factor;
        // What the result moves by when x̂ does.
        let gain = |x: f64, scale: f64, shift: f64| scale * slope(act, scale * hat(x) + shift);
        let inner = |&(x, t, scale, shift, _): &(f64, f64, f64, f64, usize)| match way {
            Way::Forward => t,
            Way::Back => t * gain(x, scale, shift),
        };
        let sum = self.items.iter().map(inner).sum::<f64>() / n;
        let products = self.items.iter().map(|i| inner(i) * hat(i.0));
        let product = products.sum::<f64>() / n;
        for item in &self.items {
            let &(x, _, scale, shift, at) = item;
            let moved = factor * (inner(item) - sum - hat(x) * product);
            if let Some(out) = out.get_mut(at) {
                *out = match way {
                    Way::Forward => moved * gain(x, scale, shift),
                    Way::Back => moved,
                };
            }
        }
    }
}

impl Norm {
    /// The numbers at `places`.
    fn set(&self, x: &[f64], t: &[f64], places: impl Iterator<Item = usize>) -> Set {
        let c = self.scale.len();
        let item = |at: usize| {
            let channel = |x: &[f32]| x.get(at % c).copied().map_or(0.0, f64::from);
            let number = |x: &[f64]| x.get(at).copied().unwrap_or_default();
            let (scale, shift) = (channel(&self.scale), channel(&self.shift));
            (number(x), number(t), scale, shift, at)
        };
        Set {
            items: places.map(item).collect(),
            eps: f64::from(self.eps),
        }
    }
}

impl Conv {
    /// The cotangent of windows of the rows of `g`, added to where they were gathered from.
    fn spread(&self, windows: &Tensor, to: Shape, from: Shape) -> Result<Tensor> {
        let mut out = vec![0.0_f64; from.len()];
        let width = self.size * self.size * self.inputs;
        let data = numbers(windows)?;
        for (i, window) in data.chunks_exact(width).enumerate() {
            let (n, rest) = (i / to.rows_per_sample(), i % to.rows_per_sample());
            let (y, x) = (rest / to.w * self.stride, rest % to.w * self.stride);
            for (tap, pixel) in window.chunks_exact(self.inputs).enumerate() {
                let row = (y + tap / self.size).checked_sub(self.padding.0);
                let column = (x + tap % self.size).checked_sub(self.padding.0);
                let (Some(row), Some(column)) = (row, column) else {
                    continue;
                };
                if row >= from.h || column >= from.w {
                    continue;
                }
                let at = ((n * from.h + row) * from.w + column) * from.c;
                let place = out.get_mut(at..at + from.c).unwrap_or_default();
                place.iter_mut().zip(pixel).for_each(|(to, g)| *to += g);
            }
        }
        value(&out, from)
    }
}

impl Linear {
    fn back(&self, g: &Tensor, rows: usize) -> Result<Tensor> {
        let g = g.reshape((rows, self.outputs))?;
        Ok(g.matmul(&self.weight.t()?)?)
    }
}

/// One head's numbers in a row.
fn head(x: &[f64], row: usize, s: Shape, head: usize, d: usize) -> &[f64] {
    let at = row * s.c + head * d;
    x.get(at..at + d).unwrap_or_default()
}

fn head_mut(x: &mut [f64], row: usize, s: Shape, head: usize, d: usize) -> &mut [f64] {
    let at = row * s.c + head * d;
    x.get_mut(at..at + d).unwrap_or_default()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Adds `factor` times `x`.
fn add(to: &mut [f64], factor: f64, x: &[f64]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += factor * x);
}

/// The weights of one query over the keys that it sees.
struct Query<'a> {
    /// Row of the query, and of each key that it sees.
    row: usize,
    keys: std::ops::Range<usize>,
    head: usize,
    d: usize,
    weights: &'a [f64],
}

/// Calls `f` for every query of every head.
fn queries(
    [q, k]: [&[f64]; 2],
    [sq, sk]: [Shape; 2],
    heads: usize,
    mask: Mask,
    mut f: impl FnMut(Query<'_>),
) {
    let d = sq.c / heads;
    let (length, keys) = (sq.rows_per_sample(), sk.rows_per_sample());
    for row in 0..sq.rows() {
        let (n, i) = (row / length, row % length);
        let seen = match mask {
            Mask::None => keys,
            Mask::Causal => (i + 1).min(keys),
        };
        let seen = n * keys..n * keys + seen;
        for h in 0..heads {
            let query = head(q, row, sq, h, d);
            let score = |key: usize| dot(query, head(k, key, sk, h, d)) / (d as f64).sqrt();
            let mut weights: Vec<f64> = seen.clone().map(score).collect();
            let top = weights.iter().copied().fold(f64::MIN, f64::max);
            weights.iter_mut().for_each(|x| *x = libm::exp(*x - top));
            let total: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|x| *x /= total);
            f(Query {
                row,
                keys: seen.clone(),
                head: h,
                d,
                weights: &weights,
            });
        }
    }
}

fn check_heads(sq: Shape, sk: Shape, sv: Shape, heads: usize) -> Result<()> {
    let fits = sk == sv && sq.n == sk.n && sq.c == sk.c && !sq.is_empty() && !sk.is_empty();
    match fits && heads > 0 && sq.c.is_multiple_of(heads) {
        true => Ok(()),
        false => {
            let what = format!("{sq:?} over {sk:?} with {heads} heads");
            Err(mismatch("attention", what))
        }
    }
}

/// P ∘ (d − Σ P ∘ d).
fn lean(weights: &[f64], d: &[f64]) -> Vec<f64> {
    let mean = dot(weights, d);
    weights.iter().zip(d).map(|(p, d)| p * (d - mean)).collect()
}

impl Derivatives for Candle {
    fn conv_tangent(&self, dx: &Tensor, w: &Arc<Conv>, plus: Plus<'_, Tensor>) -> Result<Tensor> {
        w.forward(dx, &vec![0.0; w.bias.len()], plus)
    }

    fn conv_cotangent(&self, g: &Tensor, w: &Arc<Conv>, from: Shape) -> Result<Tensor> {
        let to = shape(g)?;
        let length = |l: usize| {
            let padded = l + w.padding.0 + w.padding.1;
            padded.checked_sub(w.size).map(|l| l / w.stride + 1)
        };
        let fits = length(from.h) == Some(to.h) && length(from.w) == Some(to.w);
        if !fits || from.n != to.n || from.c != w.inputs || to.c != w.bias.len() {
            return Err(mismatch("conv", format!("{to:?} back to {from:?}")));
        }
        let windows = g.reshape((to.rows(), to.c))?.matmul(&w.weight.t()?)?;
        w.spread(&windows, to, from)
    }

    fn linear_tangent(
        &self,
        dx: &Tensor,
        w: &Arc<Linear>,
        plus: Plus<'_, Tensor>,
    ) -> Result<Tensor> {
        w.forward(dx, &vec![0.0; w.bias.len()], plus)
    }

    fn linear_cotangent(&self, g: &Tensor, w: &Arc<Linear>) -> Result<Tensor> {
        let s = shape(g)?;
        if s.c != w.outputs || s.is_empty() {
            let what = format!("{s:?} back through {} outputs", w.outputs);
            return Err(mismatch("linear", what));
        }
        Ok(w.back(g, s.rows())?.reshape((s.n, s.h, s.w, w.inputs))?)
    }

    fn geglu_derivative(
        &self,
        x: &Tensor,
        t: &Tensor,
        w: &Arc<Linear>,
        way: Way,
    ) -> Result<Tensor> {
        let (y, wide) = w.product(x)?;
        let half = wide.c / 2;
        let z: Vec<f64> = (numbers(&y)?.chunks_exact(wide.c))
            .flat_map(|row| row.iter().zip(&w.bias).map(|(x, b)| x + f64::from(*b)))
            .collect();
        let rows = z.chunks_exact(wide.c).map(|row| row.split_at(half));
        let narrow = Shape { c: half, ..wide };
        if way == Way::Forward {
            let (dz, moved) = w.product(t)?;
            if moved != wide {
                return Err(mismatch("geglu", format!("{moved:?} at {wide:?}")));
            }
            let dz = numbers(&dz)?;
            let tangents = dz.chunks_exact(wide.c).map(|row| row.split_at(half));
            let mut out = Vec::with_capacity(narrow.len());
            for ((a, b), (da, db)) in rows.zip(tangents) {
                for ((a, b), (da, db)) in a.iter().zip(b).zip(da.iter().zip(db)) {
                    out.push(da * b * normal(*b).0 + a * slope(Act::Gelu, *b) * db);
                }
            }
            return value(&out, narrow);
        }
        if shape(t)? != narrow {
            return Err(mismatch("geglu", format!("{:?} at {narrow:?}", shape(t)?)));
        }
        let g = numbers(t)?;
        let mut gz = Vec::with_capacity(z.len());
        for ((a, b), g) in rows.zip(g.chunks_exact(half)) {
            gz.extend(g.iter().zip(b).map(|(g, b)| g * b * normal(*b).0));
            let both = a.iter().zip(b);
            gz.extend(
                g.iter()
                    .zip(both)
                    .map(|(g, (a, b))| g * a * slope(Act::Gelu, *b)),
            );
        }
        let back = w.back(&value(&gz, wide)?, wide.rows())?;
        Ok(back.reshape((wide.n, wide.h, wide.w, w.inputs))?)
    }

    fn group_norm_derivative(
        &self,
        x: &Tensor,
        t: &Tensor,
        w: &Arc<Norm>,
        (groups, act): (usize, Act),
        way: Way,
    ) -> Result<Tensor> {
        let s = same(x, t)?;
        w.check(s)?;
        if groups == 0 || !s.c.is_multiple_of(groups) {
            let what = format!("{} channels in {groups} groups", s.c);
            return Err(mismatch("group_norm", what));
        }
        let (width, rows) = (s.c / groups, s.rows_per_sample());
        let (x, t) = (numbers(x)?, numbers(t)?);
        let mut out = vec![0.0; x.len()];
        for n in 0..s.n {
            for group in 0..groups {
                let row = |r: usize| {
                    let at = (n * rows + r) * s.c + group * width;
                    at..at + width
                };
                let set = w.set(&x, &t, (0..rows).flat_map(row));
                set.derivative(act, way, &mut out);
            }
        }
        value(&out, s)
    }

    fn layer_norm_derivative(
        &self,
        x: &Tensor,
        t: &Tensor,
        w: &Arc<Norm>,
        way: Way,
    ) -> Result<Tensor> {
        let s = same(x, t)?;
        w.check(s)?;
        let (x, t) = (numbers(x)?, numbers(t)?);
        let mut out = vec![0.0; x.len()];
        for row in 0..s.rows() {
            let set = w.set(&x, &t, row * s.c..(row + 1) * s.c);
            set.derivative(Act::Identity, way, &mut out);
        }
        value(&out, s)
    }

    fn attention_tangent(
        &self,
        [q, k, v]: [&Tensor; 3],
        along: [Option<&Tensor>; 3],
        heads: usize,
        mask: Mask,
    ) -> Result<Tensor> {
        let (sq, sk) = (shape(q)?, shape(k)?);
        check_heads(sq, sk, shape(v)?, heads)?;
        let moved = |x: &Tensor, t: Option<&Tensor>| match t {
            Some(t) => same(x, t).and_then(|_| numbers(t)),
            None => Ok(vec![0.0; shape(x)?.len()]),
        };
        let [dq, dk, dv] = along;
        let (dq, dk, dv) = (moved(q, dq)?, moved(k, dk)?, moved(v, dv)?);
        let (q, k, v) = (numbers(q)?, numbers(k)?, numbers(v)?);
        let mut out = vec![0.0; q.len()];
        queries([&q, &k], [sq, sk], heads, mask, |at| {
            let of = |x, row| head(x, row, sk, at.head, at.d);
            let (query, moves) = (of(&q, at.row), of(&dq, at.row));
            let score = |key: usize| dot(moves, of(&k, key)) + dot(query, of(&dk, key));
            let scores: Vec<f64> = (at.keys.clone())
                .map(|key| score(key) / (at.d as f64).sqrt())
                .collect();
            let leaned = lean(at.weights, &scores);
            let place = head_mut(&mut out, at.row, sq, at.head, at.d);
            for (key, (s, p)) in at.keys.clone().zip(leaned.iter().zip(at.weights)) {
                add(place, *s, of(&v, key));
                add(place, *p, of(&dv, key));
            }
        });
        value(&out, sq)
    }

    fn attention_cotangent(
        &self,
        [q, k, v]: [&Tensor; 3],
        _left: Option<[&Tensor; 2]>,
        g: &Tensor,
        heads: usize,
        mask: Mask,
    ) -> Result<[Tensor; 3]> {
        let (sq, sk) = (shape(q)?, shape(k)?);
        check_heads(sq, sk, shape(v)?, heads)?;
        same(q, g)?;
        let (q, k, v, g) = (numbers(q)?, numbers(k)?, numbers(v)?, numbers(g)?);
        let mut out = [vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]];
        let [gq, gk, gv] = &mut out;
        queries([&q, &k], [sq, sk], heads, mask, |at| {
            let of = |x, row| head(x, row, sk, at.head, at.d);
            let (query, back) = (of(&q, at.row), of(&g, at.row));
            let scores: Vec<f64> = (at.keys.clone())
                .map(|key| dot(back, of(&v, key)))
                .collect();
            let leaned = lean(at.weights, &scores);
            for (key, (s, p)) in at.keys.clone().zip(leaned.iter().zip(at.weights)) {
                let s = s / (at.d as f64).sqrt();
                add(head_mut(gq, at.row, sq, at.head, at.d), s, of(&k, key));
                add(head_mut(gk, key, sk, at.head, at.d), s, query);
                add(head_mut(gv, key, sk, at.head, at.d), *p, back);
            }
        });
        let [gq, gk, gv] = out;
        Ok([value(&gq, sq)?, value(&gk, sk)?, value(&gv, sk)?])
    }

    fn act_derivative(&self, x: &Tensor, t: &Tensor, act: Act) -> Result<Tensor> {
        let s = same(x, t)?;
        let (x, t) = (numbers(x)?, numbers(t)?);
        let out: Vec<f64> = (x.iter().zip(&t))
            .map(|(x, t)| t * slope(act, *x))
            .collect();
        value(&out, s)
    }
}
