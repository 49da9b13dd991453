//! Derivatives of [`crate::attention`], head by head, in blocks of queries.
//!
//! For: forward and reverse mode. Not for: memory that does not grow with the keys: the scores of one
//! block of queries are held for all of them.
//!
//! With P = softmax(s Q Kᵀ) and O = P V, a change of the scores S moves P by P ∘ (dS − Σ P ∘ dS), and the
//! same map takes a cotangent of P back to one of S. So dO = L(s (dQ Kᵀ + Q dKᵀ)) V + P dV, and for a
//! cotangent G of O: gV = Pᵀ G, gS = s L(G Vᵀ), gQ = gS K, gK = gSᵀ Q. Everything is tiles: scores lie
//! panel by panel, which is also how a tile wants its second operand.

mod plan;

use rayon::prelude::*;

use self::plan::{Plan, Rows};
use crate::attention::{Heads, Mask};
use crate::error::{Result, mismatch};
use crate::isa::{Cpu, Micro, Task};
use crate::memory::with_scratch;
use crate::slices::by_rows;

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
