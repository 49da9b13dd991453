//! The cotangents of one head whose operands are rounded to bf16, key block by key block.
//!
//! For: the way back over many keys, in the manner of Dao et al. 2022 (arXiv 2205.14135, algorithm 4): what the
//! attention itself left, its result and the log of what every query's weights come to, makes weights of scores one
//! by one, so all queries can pass by some keys while the gradients to those stay in a cache. Not for: f32, and
//! tangents, which take all keys of a query at once.

use std::f32::consts::LOG2_E;

use super::plan::{Plan, Rows, places, times};
use super::{Left, Qkv, take};
use crate::attention::Heads;
use crate::attention_pack::head;
use crate::bf16::pair;
use crate::isa::{Micro, Task};
use crate::vector::{self, Vector};

/// Queries that pass by at a time: a multiple of every step, and of every tile's rows.
const QUERIES: usize = 128;
/// Places of a number for each of them.
const PLACES: usize = QUERIES / 2;
/// Keys that they pass: a multiple of every panel's width, and of every step.
const KEYS: usize = 256;

/// What a head's cotangents are made of.
pub(super) struct Rounded<'a> {
    pub plan: Plan,
    pub at: Qkv<'a>,
    /// The cotangent of the attention, and what that left.
    pub g: &'a [f32],
    pub left: Left<'a>,
    pub task: usize,
    /// Rows of queries, keys and values, one after the other.
    pub out: &'a mut [f32],
    pub scratch: &'a mut [f32],
}

/// Lengths of what a head is worked out in, in places: whole lines, for tiles are read and written by lines.
struct Lengths {
    /// Keys or values as columns, and keys as rows.
    across: usize,
    along: usize,
    /// Rows of queries, and rows of a number of each.
    rows: usize,
    turned: usize,
    /// Gradients to queries, and to the keys of a block.
    queries: usize,
    keys: usize,
    /// Scores of a block, and its weights as rows or columns.
    scores: usize,
    sides: usize,
    /// A number for each query.
    means: usize,
}

impl Lengths {
    fn new(plan: &Plan) -> Lengths {
        let Heads { queries, size, .. } = plan.heads;
        let lines = |len: usize| len.next_multiple_of(16);
        Lengths {
            across: lines(plan.across.len()),
            along: lines(plan.along.len()),
            rows: lines(queries * plan.across.depth),
            turned: lines(queries.div_ceil(QUERIES) * size * PLACES),
            queries: lines(queries * plan.along.panels.columns()),
            keys: lines(KEYS * size),
            scores: QUERIES * KEYS,
            sides: PLACES * KEYS,
            means: lines(queries),
        }
    }
}

impl Rounded<'_> {
    /// Places of scratch that a head takes.
    pub fn len(plan: &Plan) -> usize {
        let l = Lengths::new(plan);
        let twice = l.across + l.rows + l.turned + l.keys + l.scores;
        2 * twice + l.along + l.queries + l.means + 3 * l.sides
    }
}

/// Queries, or something of their shape, as operands.
struct Operand<'a> {
    plan: &'a Plan,
    /// A row for each query.
    rows: &'a [f32],
    /// Block by block, a row for each of a head's numbers.
    turned: &'a [f32],
}

impl<'a> Operand<'a> {
    /// Head `task` of `x`.
    #[inline(always)]
    fn new<M: Micro>(
        plan: &'a Plan,
        x: &[f32],
        task: usize,
        rows: &'a mut [f32],
        turned: &'a mut [f32],
    ) -> Operand<'a> {
        let Heads { queries, size, .. } = plan.heads;
        let row = |i: usize| head(x, plan.heads, queries, task, i);
        let to = rows.chunks_exact_mut(plan.across.depth.max(1));
        for (i, to) in to.enumerate().take(queries) {
            M::round(row(i), to);
        }
        let blocks = turned.chunks_exact_mut((size * PLACES).max(1));
        for (b, to) in blocks.enumerate() {
            for at in 0..PLACES {
                let first = b * QUERIES + 2 * at;
                let of = |i: usize| if i < queries { row(i) } else { &[] };
                let numbers = |i: usize| of(i).iter().chain(std::iter::repeat(&0.0));
                let places = to.iter_mut().skip(at).step_by(PLACES);
                let pairs = numbers(first).zip(numbers(first + 1));
                places
                    .zip(pairs)
                    .for_each(|(to, (x, y))| *to = pair(*x, *y));
            }
        }
        Operand { plan, rows, turned }
    }

    /// Rows of the `count` queries from `first` on.
    #[inline(always)]
    fn rows(&self, first: usize, count: usize) -> Rows<'a> {
        let depth = self.plan.across.depth;
        Rows {
            at: self.rows.get(first * depth..).unwrap_or_default(),
            count,
            stride: depth,
        }
    }

    /// A row for each of the head's numbers, of the block of queries that begins with `first`.
    #[inline(always)]
    fn turned(&self, first: usize) -> Rows<'a> {
        let size = self.plan.heads.size;
        let at = first / QUERIES * size * PLACES;
        Rows {
            at: self.turned.get(at..).unwrap_or_default(),
            count: size,
            stride: PLACES,
        }
    }
}

/// What a block of queries knows of a block of keys.
struct Weights<'a> {
    /// Scores, and what comes back to weights: panel by panel, rows of a panel's width.
    p: &'a mut [f32],
    d: &'a mut [f32],
    /// What comes back to scores as rows; that, and weights, as columns.
    d_rows: &'a mut [f32],
    d_columns: &'a mut [f32],
    p_columns: &'a mut [f32],
}

impl Weights<'_> {
    /// Makes operands of scores and of what comes back to weights, of `count` queries and the `width` keys of a panel
    /// from key `at` of the block on; `lse` and `means` have, for each query, the log of what its weights come to and
    /// − Σ P ∘ D.
    #[inline(always)]
    fn weigh<M: Micro>(
        &mut self,
        plan: &Plan,
        (at, width): (usize, usize),
        count: usize,
        (lse, means): (&[f32], &[f32]),
    ) {
        let own = at * count..(at + width) * count;
        let (p, d) = (self.p.get(own.clone()), self.d.get(own));
        let (p, d) = (p.unwrap_or_default(), d.unwrap_or_default());
        let from = at * PLACES;
        let columns = from..from + count.div_ceil(M::STEP) * places::<M>() * width;
        let fits = p.len() == width * count
            && d.len() == p.len()
            && width.is_multiple_of(M::Vector::LANES)
            && count <= QUERIES
            && at + width <= KEYS
            && self.d_rows.len() >= PLACES * KEYS
            && self.d_columns.len().min(self.p_columns.len()) >= columns.end
            && lse.len() == count
            && means.len() == count;
        if !fits {
            debug_assert!(false, "weights that do not fit");
            return;
        }
        let scale = M::Vector::splat(LOG2_E * plan.scale);
        let by = M::Vector::splat(plan.scale);
        let of = |x: &[f32], r: usize, by: f32| {
            M::Vector::splat(x.get(r).copied().unwrap_or_default() * by)
        };
        let none = M::Vector::splat(0.0);
        let d_rows = self.d_rows.as_mut_ptr().cast::<u16>();
        for r in (0..count).step_by(2) {
            let less = [of(lse, r, -1.0), of(lse, r + 1, -1.0)];
            let means = [of(means, r, plan.scale), of(means, r + 1, plan.scale)];
            for v in (0..width).step_by(M::Vector::LANES) {
                // SAFETY: rows `r` and, where there is one, `r + 1` of a panel whose width whole vectors fill; it
                // was checked that all that is read and written has room for them. There is room for a row after
                // the last, for QUERIES is even.
                unsafe {
                    let one = |i: usize| {
                        if r + i >= count {
                            return (none, none);
                        }
                        let at = (r + i) * width + v;
                        let (p, d) = (p.as_ptr().add(at), d.as_ptr().add(at));
                        let weight = M::Vector::load(p).fma(scale, less[i]).exp2();
                        let back = M::Vector::load(d).fma(by, means[i]);
                        (weight, weight.mul(back))
                    };
                    let ((p0, d0), (p1, d1)) = (one(0), one(1));
                    d0.store_bf16(d_rows.add(r * KEYS + at + v));
                    d1.store_bf16(d_rows.add((r + 1) * KEYS + at + v));
                    let place = from + r / 2 * width + v;
                    d0.store_pairs(d1, self.d_columns.as_mut_ptr().add(place));
                    p0.store_pairs(p1, self.p_columns.as_mut_ptr().add(place));
                }
            }
        }
        let rest = from + count.div_ceil(2) * width..columns.end;
        for columns in [&mut *self.d_columns, &mut *self.p_columns] {
            columns.get_mut(rest.clone()).unwrap_or_default().fill(0.0);
        }
    }

    /// What comes back to the scores of `count` queries and `keys` keys, which fill panels to `end`: rows of so many
    /// steps.
    #[inline(always)]
    fn rows<M: Micro>(&mut self, (keys, end): (usize, usize), count: usize) -> (Rows<'_>, usize) {
        let steps = keys.div_ceil(M::STEP);
        // Columns that a step takes besides: zeros, for what lies there may be no number.
        if end < steps * M::STEP {
            for row in self.d_rows.chunks_exact_mut(KEYS / 2) {
                row.iter_mut().skip(end / 2).for_each(|x| *x = 0.0);
            }
        }
        let rows = Rows {
            at: self.d_rows,
            count,
            stride: KEYS / 2,
        };
        (rows, steps)
    }
}

impl Task for Rounded<'_> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let (plan, task) = (&self.plan, self.task);
        let Heads { queries, size, .. } = plan.heads;
        let l = Lengths::new(plan);
        let mut rest = self.scratch;
        let mut next = |len: usize| take(&mut rest, len);
        let (columns_k, columns_v, rows_k) = (next(l.across), next(l.across), next(l.along));
        plan.pack_across::<M>(self.at.k, task, columns_k);
        plan.pack_across::<M>(self.at.v, task, columns_v);
        plan.pack_along::<M>(self.at.k, task, rows_k);
        let q = Operand::new::<M>(plan, self.at.q, task, next(l.rows), next(l.turned));
        let g = Operand::new::<M>(plan, self.g, task, next(l.rows), next(l.turned));
        let own = task * queries..(task + 1) * queries;
        let (means, lse) = (next(l.means), self.left.lse.get(own).unwrap_or_default());
        let of = |x, i| head(x, plan.heads, queries, task, i);
        for (i, mean) in means.iter_mut().enumerate().take(queries) {
            // Σ P ∘ D is what comes back to the result, along the result.
            *mean = -dot::<M::Vector>(of(self.g, i), of(self.left.y, i));
        }
        let (gq, gk, gv) = (next(l.queries), next(l.keys), next(l.keys));
        let columns = plan.along.panels.columns();
        let mut weights = Weights {
            p: next(l.scores),
            d: next(l.scores),
            d_rows: next(l.sides),
            d_columns: next(l.sides),
            p_columns: next(l.sides),
        };
        let (out_q, out) = self.out.split_at_mut(queries * size);
        let (out_k, out_v) = out.split_at_mut(plan.heads.keys * size);
        let unit = &mut M::Unit::default();
        let panels = &plan.across.panels;
        let together = KEYS / panels.wide;
        for first_panel in (0..panels.count).step_by(together) {
            let own = first_panel..(first_panel + together).min(panels.count);
            let start = plan.panel(first_panel).0;
            let (last, width) = plan.panel(own.end - 1);
            let filled = ((plan.heads.keys - start).min(KEYS), last + width - start);
            let mut fresh = true;
            for first in (0..queries).step_by(QUERIES) {
                let count = QUERIES.min(queries - first);
                if plan.seen(first + count - 1) <= start {
                    continue;
                }
                for panel in own.clone() {
                    let (key, width) = plan.panel(panel);
                    let at = key - start;
                    let part = at * count..(at + width) * count;
                    for (x, columns, to) in [
                        (&q, &*columns_k, &mut *weights.p),
                        (&g, &*columns_v, &mut *weights.d),
                    ] {
                        let to = to.get_mut(part.clone()).unwrap_or_default();
                        plan.against::<M>(unit, x.rows(first, count), columns, panel, (to, true));
                    }
                    // What a query does not see weighs nothing, nor do columns that are no keys.
                    if key + width > plan.seen(first) {
                        let scores = weights.p.get_mut(part).unwrap_or_default();
                        for (i, row) in scores.chunks_exact_mut(width).enumerate() {
                            plan.hide(row, key, first + i, f32::MIN);
                        }
                    }
                }
                // One kind of product after the other: a tile takes long to change its shape.
                let some = first..first + count;
                let (lse, means) = (lse.get(some.clone()), means.get(some));
                let known = (lse.unwrap_or_default(), means.unwrap_or_default());
                for panel in own.clone() {
                    let (key, width) = plan.panel(panel);
                    weights.weigh::<M>(plan, (key - start, width), count, known);
                }
                let steps = count.div_ceil(M::STEP);
                for panel in own.clone() {
                    let (key, width) = plan.panel(panel);
                    let at = key - start;
                    for (x, columns, to) in [
                        (&q, &*weights.d_columns, &mut *gk),
                        (&g, &*weights.p_columns, &mut *gv),
                    ] {
                        let columns = columns.get(at * PLACES..).unwrap_or_default();
                        let to = to.get_mut(at * size..(at + width) * size);
                        let to = (to.unwrap_or_default(), width);
                        times::<M>(unit, x.turned(first), (columns, width), steps, to, fresh);
                    }
                }
                fresh = false;
                let to = gq.get_mut(first * columns..(first + count) * columns);
                let to = (to.unwrap_or_default(), start == 0);
                plan.mix::<M>(unit, weights.rows::<M>(filled, count), (rows_k, start), to);
            }
            for (sums, out) in [(&mut *gk, &mut *out_k), (&mut *gv, &mut *out_v)] {
                if fresh {
                    sums.fill(0.0);
                }
                let out = out.get_mut(start * size..).unwrap_or_default();
                plan.unpack_across(own.clone(), sums, out);
            }
        }
        for (out, row) in out_q.chunks_exact_mut(size).zip(gq.chunks_exact(columns)) {
            out.copy_from_slice(row.get(..size).unwrap_or_default());
        }
    }
}

/// Σ aᵢ bᵢ.
#[inline(always)]
fn dot<V: Vector>(a: &[f32], b: &[f32]) -> f32 {
    let (whole_a, rest_a) = a.split_at(a.len() / V::LANES * V::LANES);
    let (whole_b, rest_b) = b.split_at(whole_a.len().min(b.len()));
    let vectors = whole_a
        .chunks_exact(V::LANES)
        .zip(whole_b.chunks_exact(V::LANES));
    // SAFETY: a vector's numbers each.
    let sum = vectors.fold(V::splat(0.0), |sum, (a, b)| unsafe {
        V::load(a.as_ptr()).fma(V::load(b.as_ptr()), sum)
    });
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum();
    vector::fold(sum, |a, b| a + b) + rest
}
