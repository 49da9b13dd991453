//! Derivatives of [`crate::attention`], head by head, in blocks of queries.
//!
//! For: forward and reverse mode. Not for: memory that does not grow with the keys: the scores of one
//! block of queries are held for all of them.
//!
//! With P = softmax(s Q Kᵀ) and O = P V, a change of the scores S moves P by P ∘ (dS − Σ P ∘ dS), and the
//! same map takes a cotangent of P back to one of S. So dO = L(s (dQ Kᵀ + Q dKᵀ)) V + P dV, and for a
//! cotangent G of O: gV = Pᵀ G, gS = s L(G Vᵀ), gQ = gS K, gK = gSᵀ Q. Everything is tiles: scores lie
//! panel by panel, which is also how a tile wants its second operand.

use std::ops::Range;

use rayon::prelude::*;

use crate::attention::{Heads, Mask};
use crate::attention_pack::{Columns, pack_across, pack_along};
use crate::error::{Result, mismatch};
use crate::isa::{self, Cpu, Micro, Precision, Task, Tile};
use crate::memory::with_scratch;
use crate::pack::Panels;
use crate::slices::by_rows;
use crate::softmax::{self, Power};
use crate::vector::{self, Vector};

/// Queries in a block: a multiple of every tile's rows.
const QUERIES: usize = 48;

/// Queries, keys and values, as [`crate::attention`] takes them.
#[derive(Clone, Copy, Debug)]
pub struct Qkv<'a> {
    /// Queries.
    pub q: &'a [f32],
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
}

/// The tangent of the attention at `at` into `out`, which has the queries' shape; `along` holds the
/// tangents of queries, keys and values, those that are not zero.
///
/// Errors when lengths do not fit.
pub fn attention_tangent(
    cpu: Cpu,
    at: Qkv<'_>,
    along: [Option<&[f32]>; 3],
    heads: Heads,
    mask: Mask,
    out: &mut [f32],
) -> Result<()> {
    check(at, heads, out)?;
    let mut pairs = along.iter().zip([at.q, at.k, at.v]);
    if pairs.any(|(t, x)| t.is_some_and(|t| t.len() != x.len())) {
        return Err(mismatch("attention_tangent", "tangents of other lengths"));
    }
    let plan = Plan::new(cpu, heads, mask);
    let scratch = 2 * plan.across_len()
        + 2 * plan.along_len()
        + 2 * plan.scores_len()
        + QUERIES * plan.along.columns();
    let rows = [heads.queries];
    by_head(heads, &rows, &mut [out], |task, out| {
        with_scratch(scratch, |scratch| {
            cpu.run(Tangent {
                plan,
                at,
                along,
                task,
                out,
                scratch,
            });
        })
    })
}

/// The cotangents of queries, keys and values into `out`, where `g` is the cotangent of the attention
/// at `at`.
///
/// Errors when lengths do not fit.
pub fn attention_cotangent(
    cpu: Cpu,
    at: Qkv<'_>,
    g: &[f32],
    heads: Heads,
    mask: Mask,
    mut out: [&mut [f32]; 3],
) -> Result<()> {
    check(at, heads, g)?;
    let mut pairs = out.iter().zip([at.q, at.k, at.v]);
    if pairs.any(|(out, x)| out.len() != x.len()) {
        return Err(mismatch("attention_cotangent", "results of other lengths"));
    }
    let plan = Plan::new(cpu, heads, mask);
    let scratch = 4 * plan.across_len()
        + plan.along_len()
        + 2 * plan.scores_len()
        + QUERIES * (plan.along.columns() + heads.size);
    let rows = [heads.queries, heads.keys, heads.keys];
    by_head(heads, &rows, &mut out, |task, out| {
        with_scratch(scratch, |scratch| {
            cpu.run(Cotangent {
                plan,
                at,
                g,
                task,
                out,
                scratch,
            });
        })
    })
}

fn check(at: Qkv<'_>, heads: Heads, out: &[f32]) -> Result<()> {
    let len = |rows: usize| {
        let row = heads.heads.checked_mul(heads.size)?;
        heads.samples.checked_mul(rows)?.checked_mul(row)
    };
    let fits = len(heads.queries) == Some(at.q.len())
        && len(heads.keys) == Some(at.k.len())
        && at.k.len() == at.v.len()
        && out.len() == at.q.len();
    if fits && !at.q.is_empty() && !at.k.is_empty() {
        return Ok(());
    }
    let lengths = (at.q.len(), at.k.len(), at.v.len(), out.len());
    let what = format!("{lengths:?} numbers for {heads:?}");
    Err(mismatch("attention derivative", what))
}

/// Calls `f(task, numbers)` for every head of every sample, side by side, and puts what it wrote, the
/// head's rows of each of `outs` one after the other, where they belong.
fn by_head(
    heads: Heads,
    rows: &[usize],
    outs: &mut [&mut [f32]],
    f: impl Fn(usize, &mut [f32]) -> Result<()> + Sync,
) -> Result<()> {
    let size = heads.size;
    let own = rows.iter().sum::<usize>() * size;
    with_scratch(heads.samples * heads.heads * own, |all| -> Result<()> {
        let work = |(task, out): (usize, &mut [f32])| f(task, out);
        match heads.samples * heads.heads * heads.queries * heads.keys * size < 1 << 16 {
            true => all.chunks_mut(own).enumerate().try_for_each(work)?,
            false => all.par_chunks_mut(own).enumerate().try_for_each(work)?,
        }
        let all: &[f32] = all;
        let mut before = 0;
        for (out, &rows) in outs.iter_mut().zip(rows) {
            by_rows(out, heads.heads * size, |first, part| {
                for (i, row) in part.chunks_exact_mut(heads.heads * size).enumerate() {
                    let (sample, i) = ((first + i) / rows, (first + i) % rows);
                    for (head, to) in row.chunks_exact_mut(size).enumerate() {
                        let task = sample * heads.heads + head;
                        let at = task * own + (before + i) * size;
                        to.copy_from_slice(all.get(at..at + size).unwrap_or_default());
                    }
                }
            });
            before += rows;
        }
        Ok(())
    })?
}

/// Rows of numbers, one every `stride`.
#[derive(Clone, Copy)]
struct Rows<'a> {
    at: &'a [f32],
    count: usize,
    stride: usize,
}

/// The first `steps` numbers of every row times a packed panel (`steps` rows of `width`), written, or
/// unless `fresh` added, to rows of `to.0`, one every `to.1`.
#[inline(always)]
fn times<M: Micro>(
    rows: Rows<'_>,
    steps: usize,
    panel: &[f32],
    width: usize,
    to: (&mut [f32], usize),
    fresh: bool,
) {
    let (out, stride) = to;
    let Some(last) = rows.count.checked_sub(1) else {
        return;
    };
    let fits = last * rows.stride + steps <= rows.at.len()
        && steps * width <= panel.len()
        && last * stride + width <= out.len();
    if !fits {
        debug_assert!(false, "a product that does not fit");
        return;
    }
    for first in (0..rows.count).step_by(M::ROWS) {
        let count = M::ROWS.min(rows.count - first);
        let mut at = [std::ptr::null::<u8>(); 12];
        for (r, at) in at.iter_mut().enumerate().take(count) {
            let row = rows.at.get((first + r) * rows.stride..);
            *at = row.unwrap_or_default().as_ptr().cast();
        }
        // SAFETY: it was checked that every row has `steps` numbers, the panel `steps · width`, and
        // `out` room for `width` numbers at every row.
        unsafe {
            let t = Tile {
                rows: at.as_ptr(),
                taps: 1,
                skip: 0,
                steps,
                b: panel.as_ptr().cast(),
                out: out.as_mut_ptr().add(first * stride),
                stride,
                fresh,
            };
            isa::tile::<M>(count, width / M::LANES, t);
        }
    }
}

/// How one attention is cut up.
#[derive(Clone, Copy)]
struct Plan {
    heads: Heads,
    mask: Mask,
    /// Keys as columns.
    across: Panels,
    /// A head's numbers as columns.
    along: Panels,
    scale: f32,
}

impl Plan {
    fn new(cpu: Cpu, heads: Heads, mask: Mask) -> Plan {
        let lanes = cpu.geometry(Precision::F32).lanes;
        Plan {
            heads,
            mask,
            across: Panels::new(heads.keys, lanes),
            along: Panels::new(heads.size, lanes),
            scale: 1.0 / (heads.size as f32).sqrt(),
        }
    }

    fn across_len(&self) -> usize {
        self.across.columns() * self.heads.size
    }

    fn along_len(&self) -> usize {
        self.along.columns() * self.heads.keys
    }

    fn scores_len(&self) -> usize {
        self.across.columns() * QUERIES
    }

    /// Keys or values of head `task` as columns.
    #[inline(always)]
    fn pack_across(&self, x: &[f32], task: usize, to: &mut [f32]) {
        let columns = self.columns(self.across, self.heads.size);
        pack_across(x, self.heads, self.heads.keys, task, columns, to);
    }

    /// Keys or values of head `task` as rows.
    #[inline(always)]
    fn pack_along(&self, x: &[f32], task: usize, to: &mut [f32]) {
        let columns = self.columns(self.along, self.heads.keys);
        pack_along(x, self.heads, self.heads.keys, task, columns, to);
    }

    #[inline(always)]
    fn columns(&self, panels: Panels, depth: usize) -> Columns {
        Columns {
            panels,
            depth,
            precision: Precision::F32,
        }
    }

    /// Rows `first..first + count` of head `task` of something of the queries' shape.
    #[inline(always)]
    fn queries<'a>(&self, x: &'a [f32], task: usize, first: usize, count: usize) -> Rows<'a> {
        let Heads {
            queries,
            heads,
            size,
            ..
        } = self.heads;
        let (sample, head) = (task / heads, task % heads);
        let at = ((sample * queries + first) * heads + head) * size;
        Rows {
            at: x.get(at..).unwrap_or_default(),
            count,
            stride: heads * size,
        }
    }

    /// First key, and packed keys, of panel `panel`.
    #[inline(always)]
    fn panel(&self, panel: usize) -> (usize, usize) {
        (panel * self.across.wide, self.across.width(panel))
    }

    /// The products of `rows` with every packed column, panel by panel.
    #[inline(always)]
    fn against<M: Micro>(&self, rows: Rows<'_>, packed: &[f32], to: &mut [f32], fresh: bool) {
        let size = self.heads.size;
        for panel in 0..self.across.count {
            let (start, width) = self.panel(panel);
            let b = packed.get(start * size..(start + width) * size);
            let to = to.get_mut(start * rows.count..(start + width) * rows.count);
            let to = (to.unwrap_or_default(), width);
            times::<M>(rows, size, b.unwrap_or_default(), width, to, fresh);
        }
    }

    /// First key, place and packed keys of the part in panel `panel` of row `r` of `count`.
    #[inline(always)]
    fn part(&self, panel: usize, count: usize, r: usize) -> (usize, Range<usize>) {
        let (start, width) = self.panel(panel);
        let at = start * count + r * width;
        (start, at..at + width)
    }

    /// Puts `x` in the place of the scores of the keys that row `r` of `count` does not see.
    #[inline(always)]
    fn hide(&self, p: &mut [f32], (count, r): (usize, usize), seen: usize, x: f32) {
        let first = seen / self.across.wide;
        for panel in first..self.across.count {
            let (start, at) = self.part(panel, count, r);
            let part = p.get_mut(at).unwrap_or_default();
            let seen = seen.saturating_sub(start).min(part.len());
            part.get_mut(seen..).unwrap_or_default().fill(x);
        }
    }

    /// Weights from scores, in place; the first row is query `first`.
    #[inline(always)]
    fn softmax<M: Micro>(&self, first: usize, count: usize, p: &mut [f32]) {
        let keys = self.heads.keys;
        for r in 0..count {
            let seen = match self.mask {
                Mask::None => keys,
                Mask::Causal => (first + r + 1).min(keys),
            };
            self.hide(p, (count, r), seen, f32::MIN);
            let mut top = M::Vector::splat(f32::MIN);
            for panel in 0..self.across.count {
                let part = p.get(self.part(panel, count, r).1);
                top = softmax::highest(part.unwrap_or_default(), top);
            }
            let top = vector::fold(top, f32::max) * self.scale;
            let mut total = M::Vector::splat(0.0);
            for panel in 0..self.across.count {
                let part = p.get_mut(self.part(panel, count, r).1);
                let part = part.unwrap_or_default();
                total = softmax::weigh_more(Power::Exact, self.scale, top, part, total);
            }
            self.hide(p, (count, r), seen, 0.0);
            let factor = 1.0 / vector::fold(total, |a, b| a + b);
            for panel in 0..self.across.count {
                let part = p.get_mut(self.part(panel, count, r).1);
                for x in part.unwrap_or_default() {
                    *x *= factor;
                }
            }
        }
    }

    /// s · P ∘ (D − Σ P ∘ D) in place of D, row by row.
    #[inline(always)]
    fn lean<M: Micro>(&self, count: usize, p: &[f32], d: &mut [f32]) {
        let scale = self.scale;
        for r in 0..count {
            let mut mean = M::Vector::splat(0.0);
            for panel in 0..self.across.count {
                let at = self.part(panel, count, r).1;
                let (p, d) = (p.get(at.clone()), d.get(at));
                mean = softmax::dot(p.unwrap_or_default(), d.unwrap_or_default(), mean);
            }
            let mean = vector::fold(mean, |a, b| a + b);
            for panel in 0..self.across.count {
                let at = self.part(panel, count, r).1;
                let (p, d) = (p.get(at.clone()), d.get_mut(at));
                for (d, p) in d.unwrap_or_default().iter_mut().zip(p.unwrap_or_default()) {
                    *d = scale * p * (*d - mean);
                }
            }
        }
    }

    /// `count` rows of weights, panel by panel, times rows packed along, to rows of `along.columns()`.
    #[inline(always)]
    fn mix<M: Micro>(
        &self,
        count: usize,
        weights: &[f32],
        packed: &[f32],
        to: &mut [f32],
        fresh: bool,
    ) {
        let (keys, columns) = (self.heads.keys, self.along.columns());
        for panel in 0..self.across.count {
            let (start, stride) = self.panel(panel);
            let steps = stride.min(keys - start);
            let at = weights.get(start * count..(start + stride) * count);
            let rows = Rows {
                at: at.unwrap_or_default(),
                count,
                stride,
            };
            for part in 0..self.along.count {
                let (column, width) = (part * self.along.wide, self.along.width(part));
                let from = column * keys + start * width;
                let b = packed.get(from..from + steps * width).unwrap_or_default();
                let to = to.get_mut(column..).unwrap_or_default();
                times::<M>(rows, steps, b, width, (to, columns), fresh && panel == 0);
            }
        }
    }

    /// `t` (`size × count`) times `count` rows of weights, panel by panel, added to what is laid out as
    /// packed across.
    #[inline(always)]
    fn spread<M: Micro>(
        &self,
        count: usize,
        t: &[f32],
        weights: &[f32],
        to: &mut [f32],
        fresh: bool,
    ) {
        let size = self.heads.size;
        let rows = Rows {
            at: t,
            count: size,
            stride: count,
        };
        for panel in 0..self.across.count {
            let (start, width) = self.panel(panel);
            let b = weights.get(start * count..(start + width) * count);
            let to = to.get_mut(start * size..(start + width) * size);
            let to = (to.unwrap_or_default(), width);
            times::<M>(rows, count, b.unwrap_or_default(), width, to, fresh);
        }
    }

    /// Rows of a head from what is laid out as packed across.
    #[inline(always)]
    fn unpack_across(&self, packed: &[f32], out: &mut [f32]) {
        let size = self.heads.size;
        for (key, row) in out.chunks_exact_mut(size).enumerate() {
            let (start, width) = self.panel(key / self.across.wide);
            let column = packed.get(start * size + key - start..);
            let column = column.unwrap_or_default().iter().step_by(width);
            row.iter_mut().zip(column).for_each(|(to, x)| *to = *x);
        }
    }
}

/// The first `len` numbers of `rest`, which loses them.
fn take<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (taken, left) = std::mem::take(rest).split_at_mut(len);
    *rest = left;
    taken
}

/// `size × count` from the first `size` numbers of `count` rows.
#[inline(always)]
fn turn(rows: Rows<'_>, size: usize, to: &mut [f32]) {
    for r in 0..rows.count {
        let row = rows.at.get(r * rows.stride..).unwrap_or_default();
        let places = to.iter_mut().skip(r).step_by(rows.count);
        places.zip(row).take(size).for_each(|(to, x)| *to = *x);
    }
}

/// Writes the rows from `first` on from rows of `columns` numbers, of which the first are kept.
#[inline(always)]
fn keep(out: &mut [f32], size: usize, first: usize, rows: &[f32], columns: usize) {
    let out = out.chunks_exact_mut(size).skip(first);
    for (out, row) in out.zip(rows.chunks_exact(columns)) {
        out.iter_mut().zip(row).for_each(|(to, x)| *to = *x);
    }
}

struct Tangent<'a> {
    plan: Plan,
    at: Qkv<'a>,
    along: [Option<&'a [f32]>; 3],
    task: usize,
    out: &'a mut [f32],
    scratch: &'a mut [f32],
}

impl Task for Tangent<'_> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let (plan, task) = (self.plan, self.task);
        let [dq, dk, dv] = self.along;
        let Heads { queries, size, .. } = plan.heads;
        let columns = plan.along.columns();
        let mut rest = self.scratch;
        let keys = take(&mut rest, plan.across_len());
        let keys_along = take(&mut rest, plan.across_len());
        let values = take(&mut rest, plan.along_len());
        let values_along = take(&mut rest, plan.along_len());
        plan.pack_across(self.at.k, task, keys);
        plan.pack_along(self.at.v, task, values);
        if let Some(dk) = dk {
            plan.pack_across(dk, task, keys_along);
        }
        if let Some(dv) = dv {
            plan.pack_along(dv, task, values_along);
        }
        let (p, d) = (
            take(&mut rest, plan.scores_len()),
            take(&mut rest, plan.scores_len()),
        );
        let y = take(&mut rest, QUERIES * columns);
        for first in (0..queries).step_by(QUERIES) {
            let count = QUERIES.min(queries - first);
            let q = plan.queries(self.at.q, task, first, count);
            plan.against::<M>(q, keys, p, true);
            plan.softmax::<M>(first, count, p);
            if let Some(dq) = dq {
                let dq = plan.queries(dq, task, first, count);
                plan.against::<M>(dq, keys, d, true);
            }
            if dk.is_some() {
                plan.against::<M>(q, keys_along, d, dq.is_none());
            }
            let moved = dq.is_some() || dk.is_some();
            let y = y.get_mut(..count * columns).unwrap_or_default();
            if moved {
                plan.lean::<M>(count, p, d);
                plan.mix::<M>(count, d, values, y, true);
            }
            if dv.is_some() {
                plan.mix::<M>(count, p, values_along, y, !moved);
            } else if !moved {
                y.fill(0.0);
            }
            keep(self.out, size, first, y, columns);
        }
    }
}

struct Cotangent<'a> {
    plan: Plan,
    at: Qkv<'a>,
    g: &'a [f32],
    task: usize,
    /// Rows of queries, keys and values, one after the other.
    out: &'a mut [f32],
    scratch: &'a mut [f32],
}

impl Task for Cotangent<'_> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let (plan, task) = (self.plan, self.task);
        let Heads { queries, size, .. } = plan.heads;
        let columns = plan.along.columns();
        let mut rest = self.scratch;
        let keys = take(&mut rest, plan.across_len());
        let values = take(&mut rest, plan.across_len());
        let keys_along = take(&mut rest, plan.along_len());
        plan.pack_across(self.at.k, task, keys);
        plan.pack_across(self.at.v, task, values);
        plan.pack_along(self.at.k, task, keys_along);
        let (gk, gv) = (
            take(&mut rest, plan.across_len()),
            take(&mut rest, plan.across_len()),
        );
        let (p, d) = (
            take(&mut rest, plan.scores_len()),
            take(&mut rest, plan.scores_len()),
        );
        let gq = take(&mut rest, QUERIES * columns);
        let turned = take(&mut rest, QUERIES * size);
        let (out_q, out) = self.out.split_at_mut(queries * size);
        let (out_k, out_v) = out.split_at_mut(plan.heads.keys * size);
        for first in (0..queries).step_by(QUERIES) {
            let count = QUERIES.min(queries - first);
            let q = plan.queries(self.at.q, task, first, count);
            let g = plan.queries(self.g, task, first, count);
            let fresh = first == 0;
            plan.against::<M>(q, keys, p, true);
            plan.softmax::<M>(first, count, p);
            turn(g, size, turned);
            plan.spread::<M>(count, turned, p, gv, fresh);
            plan.against::<M>(g, values, d, true);
            plan.lean::<M>(count, p, d);
            turn(q, size, turned);
            plan.spread::<M>(count, turned, d, gk, fresh);
            let gq = gq.get_mut(..count * columns).unwrap_or_default();
            plan.mix::<M>(count, d, keys_along, gq, true);
            keep(out_q, size, first, gq, columns);
        }
        plan.unpack_across(gk, out_k);
        plan.unpack_across(gv, out_v);
    }
}
