//! softmax(q kᵀ / √d) v, head by head, without the matrix of scores.
//!
//! For: self- and cross-attention of any head size, with and without a causal mask, in the manner of
//! Dao et al. 2022 (arXiv 2205.14135): keys in blocks, sums and maxima corrected as blocks come.
//! Not for: other masks and biases.
//!
//! Keys and values are packed once a head, as weights are, and both products are tiles.

use rayon::prelude::*;

use crate::error::{Result, mismatch};
use crate::isa::{self, Cpu, Micro, Precision, Task, Tile};
use crate::math::{self, max};
use crate::memory::with_scratch;
use crate::pack::Panels;

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
/// Queries in a task: a multiple of every tile's rows.
const QUERIES: usize = 48;

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
    let geometry = cpu.geometry(Precision::F32);
    let key_panels = Panels::new(keys, geometry.lanes);
    let value_panels = Panels::new(size, geometry.lanes);
    let packed_keys = key_panels.columns() * size;
    let packed_values = value_panels.columns() * keys;
    let packed = packed_keys + packed_values;
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
                key_panels,
                value_panels,
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
                tile_rows: geometry.rows,
                key_panels,
                value_panels,
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
    key_panels: Panels,
    value_panels: Panels,
}

/// The numbers of head `task` in row `row` of its sample.
#[inline(always)]
fn head(x: &[f32], heads: Heads, rows: usize, task: usize, row: usize) -> &[f32] {
    let (sample, head) = (task / heads.heads, task % heads.heads);
    let at = ((sample * rows + row) * heads.heads + head) * heads.size;
    x.get(at..at + heads.size).unwrap_or_default()
}

impl Task for Pack<'_> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let Heads { keys, .. } = self.heads;
        let (heads, task) = (self.heads, self.task);
        pack_across(self.k, heads, keys, task, self.key_panels, self.keys_to);
        pack_along(self.v, heads, keys, task, self.value_panels, self.values_to);
    }
}

/// Packs the `rows` rows of head `task` of `x` as columns: a column for each row, padded with zeros.
#[inline(always)]
pub(crate) fn pack_across(
    x: &[f32],
    heads: Heads,
    rows: usize,
    task: usize,
    panels: Panels,
    to: &mut [f32],
) {
    let panel = panels.wide * heads.size;
    for (p, to) in to.chunks_mut(panel).enumerate() {
        let width = panels.width(p);
        for j in 0..width {
            let row = p * panels.wide + j;
            let places = to.iter_mut().skip(j).step_by(width);
            match row < rows {
                true => {
                    let from = head(x, heads, rows, task, row);
                    places.zip(from).for_each(|(to, x)| *to = *x);
                }
                false => places.for_each(|to| *to = 0.0),
            }
        }
    }
}

/// Packs the `rows` rows of head `task` of `x` as rows: a column for each of the head's numbers.
#[inline(always)]
pub(crate) fn pack_along(
    x: &[f32],
    heads: Heads,
    rows: usize,
    task: usize,
    panels: Panels,
    to: &mut [f32],
) {
    let panel = panels.wide * rows;
    for (p, to) in to.chunks_mut(panel).enumerate() {
        let width = panels.width(p);
        let column = p * panels.wide;
        for (row, to) in to.chunks_exact_mut(width).enumerate() {
            let from = head(x, heads, rows, task, row);
            let from = from.get(column..).unwrap_or_default();
            let kept = width.min(from.len());
            let (to, rest) = to.split_at_mut(kept);
            to.iter_mut().zip(from).for_each(|(to, x)| *to = *x);
            rest.fill(0.0);
        }
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
    tile_rows: usize,
    key_panels: Panels,
    value_panels: Panels,
    output: &'a Output,
}

struct Working<'a> {
    piece: Piece<'a>,
    scratch: &'a mut [f32],
}

impl Piece<'_> {
    fn start(self, cpu: Cpu) -> Result<()> {
        let columns = self.value_panels.columns();
        // Scores of one tile; sums, maximum and total of every query.
        let scratch = self.tile_rows * KEYS + self.count * (columns + 2);
        with_scratch(scratch, |scratch| {
            cpu.run(Working {
                piece: self,
                scratch,
            });
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
}

impl Task for Working<'_> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let p = &self.piece;
        let Heads { keys, size, .. } = p.heads;
        let columns = p.value_panels.columns();
        let scale = 1.0 / (size as f32).sqrt();
        let (scores, rest) = self.scratch.split_at_mut(p.tile_rows * KEYS);
        let (sums, rest) = rest.split_at_mut(p.count * columns);
        let (maxima, totals) = rest.split_at_mut(p.count);
        sums.fill(0.0);
        maxima.fill(f32::MIN);
        totals.fill(0.0);
        let tiles = p.count.div_ceil(p.tile_rows);
        let border = |i: usize| i * p.count / tiles;
        for key in (0..keys).step_by(KEYS) {
            for tile in 0..tiles {
                let (from, rows) = (border(tile), border(tile + 1) - border(tile));
                let most = p.seen(from + rows - 1).min(key + KEYS);
                if most <= key {
                    continue;
                }
                let block = most - key;
                p.scores::<M>(from, rows, (key, block), scores);
                for r in 0..rows {
                    let i = from + r;
                    let seen = p.seen(i).clamp(key, most) - key;
                    let row = scores.get_mut(r * KEYS..r * KEYS + block);
                    let (row, hidden) = row.unwrap_or_default().split_at_mut(seen);
                    hidden.fill(0.0);
                    let (Some(top), Some(total)) = (maxima.get_mut(i), totals.get_mut(i)) else {
                        continue;
                    };
                    let new = top.max(max(row) * scale);
                    row.iter_mut()
                        .for_each(|x| *x = math::exp::<M>(M::fma(*x, scale, -new)));
                    let sum = math::sum(row, |x| x);
                    let old = math::exp::<M>(*top - new);
                    *total = M::fma(*total, old, sum);
                    if new > *top {
                        *top = new;
                        p.of_row(sums, from, rows, r, |part| {
                            part.iter_mut().for_each(|x| *x *= old);
                        });
                    }
                }
                p.values::<M>(from, rows, (key, block), scores, sums);
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
        let panels = &self.value_panels;
        let start = from * panels.columns();
        for panel in 0..panels.count {
            let width = panels.width(panel);
            let at = start + panel * panels.wide * rows + r * width;
            if let Some(part) = sums.get_mut(at..at + width) {
                f(part);
            }
        }
    }

    /// The scores of the tile at `from` for `block` keys from `key` on, a row every [`KEYS`].
    #[inline(always)]
    fn scores<M: Micro>(
        &self,
        from: usize,
        rows: usize,
        (key, block): (usize, usize),
        scores: &mut [f32],
    ) {
        let Heads { queries, size, .. } = self.heads;
        let mut at = [std::ptr::null::<u8>(); 12];
        for (r, at) in at.iter_mut().enumerate().take(rows) {
            let row = self.first + from + r;
            *at = head(self.q, self.heads, queries, self.task, row)
                .as_ptr()
                .cast();
        }
        let panels = &self.key_panels;
        // KEYS is a multiple of every panel's width.
        let first = key / panels.wide;
        for panel in first..(key + block).div_ceil(panels.wide) {
            let width = panels.width(panel);
            let column = (panel - first) * panels.wide;
            debug_assert!(column + width <= KEYS);
            // SAFETY: each pointer leads to `size` numbers of a query; the packed panel holds `size`
            // rows of `width`; the scores have `tile_rows` rows of `KEYS`.
            unsafe {
                let t = Tile {
                    rows: at.as_ptr(),
                    taps: 1,
                    skip: 0,
                    steps: size,
                    b: self.keys_at.as_ptr().add(panel * panels.wide * size).cast(),
                    out: scores.as_mut_ptr().add(column),
                    stride: KEYS,
                    fresh: true,
                };
                isa::tile::<M>(rows, width / M::LANES, t);
            }
        }
    }

    /// Adds the values of `block` keys from `key` on, weighted by `weights`, to the tile's sums.
    #[inline(always)]
    fn values<M: Micro>(
        &self,
        from: usize,
        rows: usize,
        (key, block): (usize, usize),
        weights: &[f32],
        sums: &mut [f32],
    ) {
        let mut at = [std::ptr::null::<u8>(); 12];
        for (at, row) in at.iter_mut().zip(weights.chunks_exact(KEYS)).take(rows) {
            *at = row.as_ptr().cast();
        }
        let panels = &self.value_panels;
        let keys = self.heads.keys;
        let start = from * panels.columns();
        for panel in 0..panels.count {
            let width = panels.width(panel);
            // SAFETY: each pointer leads to `block` ≤ KEYS weights; the packed panel holds `keys` rows
            // of `width`, of which `key..key + block` are taken; the tile's sums are `rows` rows of
            // all columns, panel by panel.
            unsafe {
                let b = self.values_at.as_ptr();
                let t = Tile {
                    rows: at.as_ptr(),
                    taps: 1,
                    skip: 0,
                    steps: block,
                    b: b.add(panel * panels.wide * keys + key * width).cast(),
                    out: sums.as_mut_ptr().add(start + panel * panels.wide * rows),
                    stride: width,
                    fresh: false,
                };
                isa::tile::<M>(rows, width / M::LANES, t);
            }
        }
    }
}
