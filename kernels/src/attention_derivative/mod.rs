//! Derivatives of [`crate::attention`], head by head, in blocks of queries.
//!
//! For: forward and reverse mode. Not for: memory that does not grow with the keys: the scores of one
//! block of queries are held for all of them, but for cotangents that are rounded (`rounded`).
//!
//! With P = softmax(s Q Kᵀ) and O = P V, a change of the scores S moves P by P ∘ (dS − Σ P ∘ dS), and the
//! same map takes a cotangent of P back to one of S. So dO = L(s (dQ Kᵀ + Q dKᵀ)) V + P dV, and for a
//! cotangent G of O: gV = Pᵀ G, gS = s L(G Vᵀ), gQ = gS K, gK = gSᵀ Q. Everything is tiles: scores lie
//! panel by panel, which is also how a tile wants its second operand. What a row of weights must be
//! divided by is known when all its scores are, and goes to the other operand, or to the result. On a path
//! of bf16 operands are rounded as in the attention itself; scores, and all sums, are f32.

mod plan;
mod rounded;
mod sides;

pub use self::plan::attention_leaves;
use self::plan::{Block, Plan, Rows, times};
use self::rounded::Rounded;
use self::sides::{Of, Sides, lean};
use crate::attention::{Heads, Mask, attention_and_lse};
use crate::error::{Result, mismatch};
use crate::isa::{Cpu, Micro, Task};
use crate::memory::with_scratch;
use crate::share::try_chunks;
use crate::slices::by_rows;
use crate::values::{Input, Output};

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
    let scratch = 2 * plan.across.len()
        + 2 * plan.along.len()
        + 2 * plan.queries_len()
        + Block::len(&plan)
        + Sides::len(&plan)
        + QUERIES * plan.along.panels.columns();
    let rows = [heads.queries];
    by_head(heads, &rows, &mut [out], |task, out| {
        with_scratch(scratch, |scratch| {
            cpu.run_at(
                plan.precision(),
                Tangent {
                    plan,
                    at,
                    along,
                    task,
                    out,
                    scratch,
                },
            );
        })
    })
}

/// What [`attention_and_lse`] leaves for [`attention_cotangent`].
#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    /// The attention's result.
    pub y: &'a [f32],
    /// The log of what every query's weights come to.
    pub lse: &'a [f32],
}

/// The cotangents of queries, keys and values into `out`, where `g` is the cotangent of the attention
/// at `at`. What that left, where [`attention_leaves`] anything, is made anew if it is not given.
///
/// Errors when lengths do not fit.
pub fn attention_cotangent(
    cpu: Cpu,
    at: Qkv<'_>,
    left: Option<Left<'_>>,
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
    let queries = heads.samples * heads.heads * heads.queries;
    match left {
        _ if !attention_leaves(cpu, heads.keys) => cotangent(cpu, plan, at, g, &mut out),
        Some(left) if left.y.len() == g.len() && left.lse.len() == queries => {
            cotangent_rounded(cpu, plan, at, (left, g), &mut out)
        }
        Some(_) => Err(mismatch("attention_cotangent", "what was left of another")),
        None => with_scratch(g.len() + queries, |room| {
            let (y, lse) = room.split_at_mut(g.len());
            let qkv = [at.q, at.k, at.v].map(Input::from);
            attention_and_lse(cpu, qkv, heads, mask, Output::Plain(&mut *y), &mut *lse)?;
            cotangent_rounded(cpu, plan, at, (Left { y, lse }, g), &mut out)
        })?,
    }
}

fn cotangent(
    cpu: Cpu,
    plan: Plan,
    at: Qkv<'_>,
    g: &[f32],
    out: &mut [&mut [f32]; 3],
) -> Result<()> {
    let size = plan.heads.size;
    let scratch = 2 * plan.across.len()
        + plan.along.len()
        + 2 * plan.sums_len()
        + 2 * QUERIES * size
        + Block::len(&plan)
        + QUERIES * plan.along.panels.columns();
    by_head(plan.heads, &plan.rows(), out, |task, out| {
        with_scratch(scratch, |scratch| {
            cpu.run_at(
                plan.precision(),
                Cotangent {
                    plan,
                    at,
                    g,
                    task,
                    out,
                    scratch,
                },
            );
        })
    })
}

fn cotangent_rounded(
    cpu: Cpu,
    plan: Plan,
    at: Qkv<'_>,
    (left, g): (Left<'_>, &[f32]),
    out: &mut [&mut [f32]; 3],
) -> Result<()> {
    by_head(plan.heads, &plan.rows(), out, |task, out| {
        with_scratch(Rounded::len(&plan), |scratch| {
            cpu.run_at(
                plan.precision(),
                Rounded {
                    plan,
                    at,
                    g,
                    left,
                    task,
                    out,
                    scratch,
                },
            );
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
        match heads.samples * heads.heads * heads.queries * heads.keys * size < 1 << 16 {
            true => (all.chunks_mut(own).enumerate()).try_for_each(|(i, out)| f(i, out))?,
            false => try_chunks(all, own, f)?,
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

/// Writes the block's rows from rows of `columns` numbers, of which the first are kept, times the block's
/// factors.
#[inline(always)]
fn keep(out: &mut [f32], size: usize, block: &Block<'_>, rows: &[f32], columns: usize) {
    let out = out.chunks_exact_mut(size).skip(block.first);
    let rows = rows.chunks_exact(columns).zip(&block.factors);
    for (out, (row, factor)) in out.zip(rows).take(block.count) {
        out.iter_mut().zip(row).for_each(|(to, x)| *to = x * factor);
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
        let columns = plan.along.panels.columns();
        let mut rest = self.scratch;
        let keys = take(&mut rest, plan.across.len());
        let keys_along = take(&mut rest, plan.across.len());
        let values = take(&mut rest, plan.along.len());
        let values_along = take(&mut rest, plan.along.len());
        plan.pack_across::<M>(self.at.k, task, keys);
        plan.pack_along::<M>(self.at.v, task, values);
        if let Some(dk) = dk {
            plan.pack_across::<M>(dk, task, keys_along);
        }
        if let Some(dv) = dv {
            plan.pack_along::<M>(dv, task, values_along);
        }
        let (q_room, dq_room) = (
            take(&mut rest, plan.queries_len()),
            take(&mut rest, plan.queries_len()),
        );
        let y = take(&mut rest, QUERIES * columns);
        let mut sides = Sides::new(&plan, &mut rest);
        let mut block = Block::new(&plan, &mut rest);
        let unit = &mut M::Unit::default();
        for first in (0..queries).step_by(QUERIES) {
            let count = QUERIES.min(queries - first);
            (block.first, block.count) = (first, count);
            let q = plan.queries::<M>(self.at.q, task, (first, count), q_room);
            let dq = dq.map(|dq| plan.queries::<M>(dq, task, (first, count), dq_room));
            plan.scores::<M>(unit, q, keys, &mut block);
            for panel in 0..plan.across.panels.count {
                let to = block
                    .d
                    .get_mut(block.part(&plan, panel))
                    .unwrap_or_default();
                if let Some(dq) = dq {
                    plan.against::<M>(unit, dq, keys, panel, (&mut *to, true));
                }
                if dk.is_some() {
                    plan.against::<M>(unit, q, keys_along, panel, (to, dq.is_none()));
                }
                if dq.is_none() && dk.is_none() {
                    block.d.fill(0.0);
                }
                plan.weigh::<M>(panel, &mut block);
            }
            plan.sum_up::<M>(&mut block);
            for (i, panels) in Sides::groups(&plan).enumerate() {
                sides.fill::<M>(&plan, &mut block, panels);
                sides.mix::<M>(&plan, unit, (Of::E, &block), values, (&mut *y, i == 0));
                if dv.is_some() {
                    let p = (Of::P, &block);
                    sides.mix::<M>(&plan, unit, p, values_along, (&mut *y, false));
                }
            }
            keep(self.out, size, &block, y, columns);
        }
    }
}

/// The cotangents of one head whose operands are f32: all keys of a block of queries at once.
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
        let columns = plan.along.panels.columns();
        let panels = 0..plan.across.panels.count;
        let mut rest = self.scratch;
        let keys = take(&mut rest, plan.across.len());
        let values = take(&mut rest, plan.across.len());
        let keys_along = take(&mut rest, plan.along.len());
        plan.pack_across::<M>(self.at.k, task, keys);
        plan.pack_across::<M>(self.at.v, task, values);
        plan.pack_along::<M>(self.at.k, task, keys_along);
        let (gk, gv) = (
            take(&mut rest, plan.sums_len()),
            take(&mut rest, plan.sums_len()),
        );
        let (q_turned, g_turned) = (
            take(&mut rest, QUERIES * size),
            take(&mut rest, QUERIES * size),
        );
        let gq = take(&mut rest, QUERIES * columns);
        let mut block = Block::new(&plan, &mut rest);
        let (out_q, out) = self.out.split_at_mut(queries * size);
        let (out_k, out_v) = out.split_at_mut(plan.heads.keys * size);
        let unit = &mut M::Unit::default();
        for first in (0..queries).step_by(QUERIES) {
            let count = QUERIES.min(queries - first);
            (block.first, block.count) = (first, count);
            let q = plan.queries::<M>(self.at.q, task, (first, count), &mut []);
            let g = plan.queries::<M>(self.g, task, (first, count), &mut []);
            plan.scores::<M>(unit, q, keys, &mut block);
            for panel in panels.clone() {
                let to = block
                    .d
                    .get_mut(block.part(&plan, panel))
                    .unwrap_or_default();
                plan.against::<M>(unit, g, values, panel, (to, true));
                plan.weigh::<M>(panel, &mut block);
            }
            plan.sum_up::<M>(&mut block);
            let q = plan.turn(self.at.q, task, &block, q_turned);
            let g = plan.turn(self.g, task, &block, g_turned);
            for panel in panels.clone() {
                let (start, width) = plan.panel(panel);
                lean(&plan, &mut block, panel);
                let own = start * size..(start + width) * size;
                for (turned, weights, to) in [(q, &block.d, &mut *gk), (g, &block.p, &mut *gv)] {
                    let columns = weights.get(start * count..).unwrap_or_default();
                    let to = to.get_mut(own.clone()).unwrap_or_default();
                    times::<M>(
                        unit,
                        turned,
                        (columns, width),
                        count,
                        (to, width),
                        first == 0,
                    );
                }
                let rows = Rows {
                    at: block.d.get(start * count..).unwrap_or_default(),
                    count,
                    stride: width,
                };
                let steps = width.min(plan.heads.keys - start);
                let to = (&mut *gq, panel == 0);
                plan.mix::<M>(unit, (rows, steps), (keys_along, start), to);
            }
            keep(out_q, size, &block, gq, columns);
        }
        plan.unpack_across(panels.clone(), gk, out_k);
        plan.unpack_across(panels, gv, out_v);
    }
}
