//! softmax(q kᵀ / √d) v, head by head, without the matrix of scores.
//!
//! For: self- and cross-attention of any head size, with and without a causal mask, in the manner of
//! Dao et al. 2022 (arXiv 2205.14135): keys in blocks, sums and maxima corrected as blocks come.
//! Not for: other masks and biases.
//!
//! Keys and values are packed once a head, as weights are, and both products are tiles. On a path of
//! bf16 their operands are rounded, the weights of the values among them, unless keys are few; scores,
//! exponentials and all sums are f32.

use rayon::prelude::*;

use crate::attention_pack::{Columns, head, pack_across, pack_along};
use crate::error::{Result, mismatch};
use crate::isa::{self, Cpu, Micro, Precision, Task, Tile};
use crate::math::{self, max};
use crate::memory::with_scratch;
use crate::softmax::{self, Power};

/// Which keys a query may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// All.
    None,
    /// Those at its own position and before.
    Causal,
}

/// How many of what an attention has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Samples.
    pub samples: usize,
    /// Queries in a sample.
    pub queries: usize,
    /// Keys, and values, in a sample.
    pub keys: usize,
    /// Heads, side by side in a row.
    pub heads: usize,
    /// Numbers in a head's part of a row.
    pub size: usize,
}

/// Keys in a block: their packed form and their values stay in the second cache.
const KEYS: usize = 256;
/// Keys below which operands stay f32: rounding has to pay (on Zen 4 it costs a fifth at 77 keys, and at
/// 1024 and 4096 saves a third).
const FEW_KEYS: usize = 512;
/// Queries in a task: a multiple of every tile's rows.
const QUERIES: usize = 48;
/// Most rows in a tile.
const MOST_ROWS: usize = 32;

/// What the operands of attention over `keys` keys are rounded to.
pub(crate) fn precision(cpu: Cpu, keys: usize) -> Precision {
    match keys < FEW_KEYS {
        true => Precision::F32,
        false => cpu.precision(),
    }
}

/// Attention of `q` (`samples × queries × heads · size`) over `k` and `v` (`samples × keys × heads ·
/// size`) into `out`, which has `q`'s shape.
///
/// Errors when lengths do not fit.
pub fn attention(
    cpu: Cpu,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    heads: Heads,
    mask: Mask,
    out: &mut [f32],
) -> Result<()> {
    let Heads {
        samples,
        queries,
        keys,
        heads: count,
        size,
    } = heads;
    let len = |rows: usize| {
        let row = count.checked_mul(size)?;
        samples.checked_mul(rows)?.checked_mul(row)
    };
    let fits = len(queries) == Some(q.len())
        && len(keys) == Some(k.len())
        && k.len() == v.len()
        && out.len() == q.len();
    if !fits || q.is_empty() || k.is_empty() {
        let lengths = (q.len(), k.len(), v.len(), out.len());
        let what = format!("{lengths:?} numbers for {heads:?}");
        return Err(mismatch("attention", what));
    }
    let precision = precision(cpu, keys);
    let layout = Layout {
        tile_rows: cpu.geometry(precision).rows,
        keys: Columns::new(cpu, precision, keys, size),
        values: Columns::new(cpu, precision, size, keys),
    };
    let packed_keys = layout.keys.len();
    let packed = packed_keys + layout.values.len();
    let all = samples * count;
    with_scratch(all * packed, |scratch| {
        let pack = |(task, to): (usize, &mut [f32])| {
            let (keys_to, values_to) = to.split_at_mut(packed_keys);
            cpu.run(Pack {
                k,
                v,
                heads,
                task,
                keys_to,
                values_to,
                layout,
            });
        };
        let small = all * packed < 1 << 14;
        match small {
            true => scratch.chunks_mut(packed).enumerate().for_each(pack),
            false => (scratch.par_chunks_mut(packed).enumerate()).for_each(pack),
        }
        let packed_all: &[f32] = scratch;
        let chunks = queries.div_ceil(QUERIES);
        let output = Output(out.as_mut_ptr());
        let work = |i: usize| {
            let (task, chunk) = (i / chunks, i % chunks);
            let at = task * packed;
            let both = packed_all.get(at..at + packed).unwrap_or_default();
            let (keys_at, values_at) = both.split_at(packed_keys);
            let first = chunk * QUERIES;
            let piece = Piece {
                q,
                keys_at,
                values_at,
                heads,
                mask,
                task,
                first,
                count: QUERIES.min(queries - first),
                layout,
                output: &output,
            };
            piece.start(cpu)
        };
        let n = all * chunks;
        match all * queries * keys * size < 1 << 18 {
            true => (0..n).try_for_each(work),
            false => (0..n).into_par_iter().try_for_each(work),
        }
    })?
}

/// How one attention is cut up.
#[derive(Clone, Copy)]
struct Layout {
    tile_rows: usize,
    /// A column for each key.
    keys: Columns,
    /// A column for each of a head's numbers.
    values: Columns,
}

/// The result; each task writes the columns of one head in some rows.
struct Output(*mut f32);

// SAFETY: tasks write disjoint places.
unsafe impl Sync for Output {}

/// Packs the keys (transposed) and the values of one head of one sample.
struct Pack<'a> {
    k: &'a [f32],
    v: &'a [f32],
    heads: Heads,
    task: usize,
    keys_to: &'a mut [f32],
    values_to: &'a mut [f32],
    layout: Layout,
}

impl Task for Pack<'_> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let Heads { keys, .. } = self.heads;
        let (heads, task, layout) = (self.heads, self.task, self.layout);
        pack_across(self.k, heads, keys, task, layout.keys, self.keys_to);
        pack_along(self.v, heads, keys, task, layout.values, self.values_to);
    }
}

/// Some queries of one head.
struct Piece<'a> {
    q: &'a [f32],
    keys_at: &'a [f32],
    values_at: &'a [f32],
    heads: Heads,
    mask: Mask,
    task: usize,
    first: usize,
    count: usize,
    layout: Layout,
    output: &'a Output,
}

struct Working<'a> {
    piece: Piece<'a>,
    /// Of one tile, a row every [`KEYS`].
    scores: &'a mut [f32],
    /// The same rounded, and the task's queries; empty where nothing is.
    weights: &'a mut [f32],
    queries: &'a mut [f32],
    /// Of every query, as are the maxima and totals.
    sums: &'a mut [f32],
    maxima: &'a mut [f32],
    totals: &'a mut [f32],
}

impl Piece<'_> {
    fn start(self, cpu: Cpu) -> Result<()> {
        let Layout {
            tile_rows,
            keys,
            values,
        } = self.layout;
        let (scores, columns) = (tile_rows * KEYS, values.panels.columns());
        let (weights, queries) = match keys.precision {
            Precision::F32 => (0, 0),
            Precision::Bf16 => (scores / 2, self.count * keys.depth),
        };
        let all = scores + weights + queries + self.count * (columns + 2);
        with_scratch(all, |scratch| {
            let (scores, rest) = scratch.split_at_mut(scores);
            let (weights, rest) = rest.split_at_mut(weights);
            let (queries, rest) = rest.split_at_mut(queries);
            let (sums, rest) = rest.split_at_mut(self.count * columns);
            let (maxima, totals) = rest.split_at_mut(self.count);
            let work = Working {
                piece: self,
                scores,
                weights,
                queries,
                sums,
                maxima,
                totals,
            };
            cpu.run_at(keys.precision, work);
        })
    }

    /// Keys that query `i` of the task sees.
    #[inline(always)]
    fn seen(&self, i: usize) -> usize {
        match self.mask {
            Mask::None => self.heads.keys,
            Mask::Causal => (self.first + i + 1).min(self.heads.keys),
        }
    }

    /// The numbers of query `i` of the task.
    #[inline(always)]
    fn query(&self, i: usize) -> &[f32] {
        let row = self.first + i;
        head(self.q, self.heads, self.heads.queries, self.task, row)
    }
}

impl Task for Working<'_> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let Working {
            piece,
            scores,
            weights,
            queries,
            sums,
            maxima,
            totals,
        } = self;
        let p = &piece;
        let Heads { keys, size, .. } = p.heads;
        // Weights that are rounded need no better exponential than a short one, to the base of two.
        let rounds = M::STEP > 1;
        let power = match rounds {
            true => Power::Coarse,
            false => Power::Exact,
        };
        let scale = power.base() / (size as f32).sqrt();
        if rounds {
            let places = queries.chunks_exact_mut(p.layout.keys.depth);
            for (i, to) in places.enumerate() {
                M::round(p.query(i), to);
            }
        }
        sums.fill(0.0);
        maxima.fill(f32::MIN);
        totals.fill(0.0);
        let tiles = p.count.div_ceil(M::ROWS);
        let border = |i: usize| isa::border::<M>(i, tiles, p.count);
        let mut unit = M::Unit::default();
        for key in (0..keys).step_by(KEYS) {
            for tile in 0..tiles {
                let (from, rows) = (border(tile), border(tile + 1) - border(tile));
                let most = p.seen(from + rows - 1).min(key + KEYS);
                if most <= key {
                    continue;
                }
                let block = most - key;
                p.scores::<M>(&mut unit, (from, rows), (key, block), queries, scores);
                for r in 0..rows {
                    let i = from + r;
                    let seen = p.seen(i).clamp(key, most) - key;
                    // Whole vectors: the compiler's loops for what fills none are slow.
                    let whole = block.next_multiple_of(math::LANES).min(KEYS);
                    let row = scores.get_mut(r * KEYS..r * KEYS + whole);
                    let row = row.unwrap_or_default();
                    row.iter_mut().skip(seen).for_each(|x| *x = f32::MIN);
                    let (Some(top), Some(total)) = (maxima.get_mut(i), totals.get_mut(i)) else {
                        continue;
                    };
                    let new = top.max(max(row) * scale);
                    let sum = if rounds {
                        let from = r * KEYS / 2;
                        let to = from + whole.max(block.next_multiple_of(M::STEP)) / 2;
                        let to = weights.get_mut(from..to).unwrap_or_default();
                        let sum = softmax::weigh_rounded::<M>(power, scale, new, row, to);
                        softmax::hide(to, seen);
                        sum
                    } else {
                        let sum = softmax::weigh::<M>(power, scale, new, row);
                        row.iter_mut().skip(seen).for_each(|x| *x = 0.0);
                        sum
                    };
                    let old = power.of_one::<M>(*top - new);
                    *total = M::fma(*total, old, sum);
                    if new > *top {
                        *top = new;
                        p.of_row(sums, from, rows, r, |part| {
                            part.iter_mut().for_each(|x| *x *= old);
                        });
                    }
                }
                let weights: &[f32] = if rounds { weights } else { scores };
                p.values::<M>(&mut unit, (from, rows), (key, block), weights, sums);
            }
        }
        for tile in 0..tiles {
            let (from, rows) = (border(tile), border(tile + 1) - border(tile));
            for r in 0..rows {
                let factor = 1.0 / totals.get(from + r).copied().unwrap_or(1.0);
                let (sample, head) = (p.task / p.heads.heads, p.task % p.heads.heads);
                let row = sample * p.heads.queries + p.first + from + r;
                // SAFETY: the place of this head in this row of the result, which no other task
                // writes.
                let out = unsafe {
                    let at = (row * p.heads.heads + head) * size;
                    std::slice::from_raw_parts_mut(p.output.0.add(at), size)
                };
                let mut out = out.iter_mut();
                p.of_row(sums, from, rows, r, |part| {
                    for (x, out) in part.iter().zip(&mut out) {
                        *out = *x * factor;
                    }
                });
            }
        }
    }
}

impl Piece<'_> {
    /// Calls `f` with the parts, panel by panel, of row `r` of the tile at `from`. The sums of a
    /// tile lie together, panel by panel.
    #[inline(always)]
    fn of_row(
        &self,
        sums: &mut [f32],
        from: usize,
        rows: usize,
        r: usize,
        mut f: impl FnMut(&mut [f32]),
    ) {
        let panels = &self.layout.values.panels;
        let start = from * panels.columns();
        for panel in 0..panels.count {
            let width = panels.width(panel);
            let at = start + panel * panels.wide * rows + r * width;
            if let Some(part) = sums.get_mut(at..at + width) {
                f(part);
            }
        }
    }

    /// The scores of the `rows` queries from `from` on for `block` keys from `key` on, a row every
    /// [`KEYS`]; `rounded` holds the queries where they are.
    #[inline(always)]
    fn scores<M: Micro>(
        &self,
        unit: &mut M::Unit,
        (from, rows): (usize, usize),
        (key, block): (usize, usize),
        rounded: &[f32],
        scores: &mut [f32],
    ) {
        let columns = self.layout.keys;
        let mut at = [std::ptr::null::<u8>(); MOST_ROWS];
        for (i, at) in (from..from + rows).zip(&mut at) {
            *at = match columns.precision {
                Precision::F32 => self.query(i).as_ptr().cast(),
                Precision::Bf16 => {
                    let place = rounded.get(i * columns.depth..).unwrap_or_default();
                    place.as_ptr().cast()
                }
            };
        }
        let panels = &columns.panels;
        // KEYS is a multiple of every panel's width.
        let first = key / panels.wide;
        for panel in first..(key + block).div_ceil(panels.wide) {
            let width = panels.width(panel);
            let column = (panel - first) * panels.wide;
            debug_assert!(column + width <= KEYS);
            // SAFETY: each pointer leads to a query, rounded up to whole steps as the packed columns
            // are; the panel holds `width` of those; the scores have a tile's rows of `KEYS`.
            unsafe {
                let t = Tile {
                    rows: at.as_ptr(),
                    taps: 1,
                    skip: 0,
                    steps: self.heads.size.div_ceil(M::STEP),
                    b: self.keys_at.as_ptr().add(columns.start(panel)).cast(),
                    out: scores.as_mut_ptr().add(column),
                    stride: KEYS,
                    fresh: true,
                };
                M::tile(unit, rows, width, t);
            }
        }
    }

    /// Adds the values of `block` keys from `key` on, weighted by `weights`, to the tile's sums.
    #[inline(always)]
    fn values<M: Micro>(
        &self,
        unit: &mut M::Unit,
        (from, rows): (usize, usize),
        (key, block): (usize, usize),
        weights: &[f32],
        sums: &mut [f32],
    ) {
        let columns = self.layout.values;
        let bytes = columns.precision.bytes();
        let mut at = [std::ptr::null::<u8>(); MOST_ROWS];
        let lines = weights.chunks_exact(KEYS * bytes / 4);
        for (at, row) in at.iter_mut().zip(lines).take(rows) {
            *at = row.as_ptr().cast();
        }
        let panels = &columns.panels;
        let start = from * panels.columns();
        for panel in 0..panels.count {
            let width = panels.width(panel);
            // SAFETY: each pointer leads to `block` ≤ KEYS weights and zeros up to whole steps, as the
            // packed columns have after the last key; of those the panel holds `width`, from whose row
            // `key` on `block` are taken; the tile's sums are `rows` rows of all columns, panel by
            // panel.
            unsafe {
                let b = self.values_at.as_ptr().add(columns.start(panel));
                let t = Tile {
                    rows: at.as_ptr(),
                    taps: 1,
                    skip: 0,
                    steps: block.div_ceil(M::STEP),
                    b: b.add(key * bytes / 4 * width).cast(),
                    out: sums.as_mut_ptr().add(start + panel * panels.wide * rows),
                    stride: width,
                    fresh: false,
                };
                M::tile(unit, rows, width, t);
            }
        }
    }
}
