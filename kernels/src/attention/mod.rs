//! softmax(q kᵀ / √d) v, head by head, without the matrix of scores.
//!
//! For: self- and cross-attention of any head size, with and without a causal mask, in the manner of
//! Dao et al. 2022 (arXiv 2205.14135): keys in blocks, sums and maxima corrected as blocks come.
//! Not for: other masks and biases.
//!
//! Keys and values are packed once a head, as weights are, and both products are tiles. On a path of
//! bf16 their operands are rounded, the weights of the values among them, unless keys are few; scores,
//! exponentials and all sums are f32.

mod exact;
mod rounded;

use std::ops::Range;

use self::exact::Exact;
use self::rounded::Rounded;
use crate::attention_pack::{Columns, head_of, pack_across, pack_along};
use crate::error::{Result, mismatch};
use crate::isa::{self, Block, Cpu, Micro, Precision, Task, Tile};
use crate::memory::with_scratch;
use crate::share::{self, try_each};
use crate::values::{Input, Output};
use crate::vector::Vector;

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

/// Multiplications below which an attention is not worth a second thread.
const SMALL: usize = 1 << 15;
/// Bytes that stay in the second cache.
const STAYS: usize = 512 << 10;
/// Most rows in a tile.
const MOST_ROWS: usize = 32;

/// Whether attention over `keys` keys rounds its operands to bf16, and takes them rounded.
pub fn attention_rounds(cpu: Cpu, keys: usize) -> bool {
    let few = cpu.geometry(cpu.precision()).attention.few;
    cpu.precision() == Precision::Bf16 && keys >= few
}

/// Attention of `q` (`samples × queries × heads · size`) over `k` and `v` (`samples × keys × heads ·
/// size`) into `out`, which has `q`'s shape.
///
/// Errors when lengths do not fit, for rounded operands where it rounds none ([`attention_rounds`]), and for
/// anything rounded in heads of an odd size or in rows that products do not take ([`Cpu::rounds`]).
pub fn attention<'a>(
    cpu: Cpu,
    q: impl Into<Input<'a>>,
    k: impl Into<Input<'a>>,
    v: impl Into<Input<'a>>,
    heads: Heads,
    mask: Mask,
    out: impl Into<Output<'a>>,
) -> Result<()> {
    let qkv = [q.into(), k.into(), v.into()];
    attend(cpu, qkv, (heads, mask), out.into(), None)
}

/// [`attention`] that rounds its operands, and into `lse`, a number for every query of every head (`samples × heads ×
/// queries`), what [`crate::attention_cotangent`] makes weights of scores with: log₂ Σ 2ˢ over the keys that the
/// query sees, where s is a score, scaled, times log₂ e.
///
/// Errors as [`attention`], and where nothing is rounded ([`attention_rounds`]).
pub fn attention_and_lse(
    cpu: Cpu,
    qkv: [Input<'_>; 3],
    heads: Heads,
    mask: Mask,
    out: Output<'_>,
    lse: &mut [f32],
) -> Result<()> {
    attend(cpu, qkv, (heads, mask), out, Some(lse))
}

fn attend(
    cpu: Cpu,
    [q, k, v]: [Input<'_>; 3],
    (heads, mask): (Heads, Mask),
    out: Output<'_>,
    lse: Option<&mut [f32]>,
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
    let (out, rounded) = match out {
        Output::Plain(out) => (out, false),
        Output::Rounded(out) => (out, true),
    };
    let even = size.is_multiple_of(2) && cpu.rounds(count * size);
    let reads = [q, k, v].iter().any(|x| matches!(x, Input::Rounded(_)));
    let rounds = attention_rounds(cpu, keys);
    let fits = fits && (even || !rounded && !reads) && (!reads || rounds);
    let wanted = samples.saturating_mul(count).saturating_mul(queries);
    let fits = fits && lse.as_ref().is_none_or(|to| rounds && to.len() == wanted);
    if !fits || q.is_empty() || k.is_empty() {
        let lengths = (q.len(), k.len(), v.len(), out.len(), rounded);
        let what = format!("{lengths:?} numbers for {heads:?}");
        return Err(mismatch("attention", what));
    }
    let precision = match rounds {
        true => Precision::Bf16,
        false => Precision::F32,
    };
    let geometry = cpu.geometry(precision);
    let layout = Layout {
        tile_rows: geometry.rows,
        block: geometry.attention,
        keys: Columns::new(cpu, precision, keys, size),
        values: Columns::new(cpu, precision, size, keys),
    };
    let packed_keys = layout.keys.len();
    let packed = packed_keys + layout.values.len();
    let all = samples * count;
    let pack = |task: usize, to: &mut [f32]| {
        let (keys_to, values_to) = to.split_at_mut(packed_keys);
        let pack = Pack {
            k,
            v,
            heads,
            task,
            keys_to,
            values_to,
            layout,
        };
        cpu.run_at(precision, pack);
    };
    let chunks = queries.div_ceil(layout.block.queries);
    let output = Place {
        at: out.as_mut_ptr(),
        rounded,
        lse: lse.map(<[f32]>::as_mut_ptr),
    };
    let work = |(task, chunk): (usize, usize), next: Option<(usize, usize)>, packed: &[f32]| {
        let (keys_at, values_at) = packed.split_at(packed_keys);
        let first = chunk * layout.block.queries;
        let piece = Piece {
            q,
            keys_at,
            values_at,
            heads,
            mask,
            task,
            first,
            count: layout.block.queries.min(queries - first),
            layout,
            output: &output,
            next: next.map(|(task, chunk)| (task, chunk * layout.block.queries)),
        };
        piece.start(cpu)
    };
    let small = all * queries * keys * size < SMALL;
    if chunks == 1 {
        // Who alone needs a head's keys packs them.
        let whole = |task: usize| {
            with_scratch(packed, |to| {
                pack(task, to);
                work((task, 0), None, to)
            })?
        };
        return match small {
            true => (0..all).try_for_each(whole),
            false => try_each(all, whole),
        };
    }
    with_scratch(all * packed, |scratch| {
        share::chunks(scratch, packed, pack);
        let packed_all: &[f32] = scratch;
        // In bands of queries, head after head. Where products give a thread its share of the rows, so does this, or
        // values would come from another core: one chunk where the keys of all heads stay in the second cache, else a
        // thread's share. Few rows are shared out by columns, which are heads.
        let threads = rayon::current_num_threads().div_ceil(samples);
        let bands = match threads {
            _ if queries < threads * geometry.chunk.rows => 1,
            _ if 4 * packed * count <= STAYS => chunks,
            _ => threads,
        };
        let band = chunks.div_ceil(bands);
        let n = all * bands * band;
        let of = |i: usize| {
            let (i, at) = (i / band, i % band);
            let (i, head) = (i / count, i % count);
            let (sample, chunk) = (i / bands, i % bands * band + at);
            // The last band may have fewer.
            (chunk < chunks && sample < samples).then_some((sample * count + head, chunk))
        };
        let work = |i: usize| match of(i) {
            Some(own) => {
                let packed = packed_all.get(own.0 * packed..(own.0 + 1) * packed);
                work(own, of(i + 1), packed.unwrap_or_default())
            }
            None => Ok(()),
        };
        match small {
            true => (0..n).try_for_each(work),
            false => try_each(n, work),
        }
    })?
}

/// How one attention is cut up.
#[derive(Clone, Copy)]
struct Layout {
    tile_rows: usize,
    block: Block,
    /// A column for each key.
    keys: Columns,
    /// A column for each of a head's numbers.
    values: Columns,
}

/// The result; each task writes the columns of one head in some rows.
struct Place {
    at: *mut f32,
    /// Whether its numbers are rounded to bf16, two in a place.
    rounded: bool,
    /// Where a number for every query of every head goes, if it is wanted: see [`attention_and_lse`].
    lse: Option<*mut f32>,
}

// SAFETY: tasks write disjoint places.
unsafe impl Sync for Place {}

/// Packs the keys (transposed) and the values of one head of one sample.
struct Pack<'a> {
    k: Input<'a>,
    v: Input<'a>,
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
        pack_across::<M>(self.k, heads, keys, task, layout.keys, self.keys_to);
        pack_along::<M>(self.v, heads, keys, task, layout.values, self.values_to);
    }
}

/// Some queries of one head.
struct Piece<'a> {
    q: Input<'a>,
    keys_at: &'a [f32],
    values_at: &'a [f32],
    heads: Heads,
    mask: Mask,
    task: usize,
    first: usize,
    count: usize,
    layout: Layout,
    output: &'a Place,
    /// Head and first query of what this thread probably does next.
    next: Option<(usize, usize)>,
}

impl Piece<'_> {
    fn start(self, cpu: Cpu) -> Result<()> {
        match self.layout.keys.precision {
            Precision::F32 => Exact::start(self, cpu),
            Precision::Bf16 => Rounded::start(self, cpu),
        }
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
    fn query(&self, i: usize) -> Input<'_> {
        let row = self.first + i;
        head_of(self.q, self.heads, self.heads.queries, self.task, row)
    }

    /// Asks the memory for the places of the task's queries `rows` in the result, and for as many of the next task's
    /// queries: a head's numbers lie a row apart, which no CPU foresees.
    #[inline(always)]
    fn fetch(&self, rows: Range<usize>) {
        let Heads {
            queries,
            heads,
            size,
            ..
        } = self.heads;
        let all = heads * size;
        let (sample, head) = (self.task / heads, self.task % heads);
        let each = if self.output.rounded { 2 } else { 1 };
        for row in rows {
            let at = (sample * queries + self.first + row) * all + head * size;
            isa::fetch(self.output.at.wrapping_add(at / each), size / each);
            if let Some((task, first)) = self.next
                && let Input::Plain(x) | Input::Rounded(x) =
                    head_of(self.q, self.heads, queries, task, first + row)
            {
                isa::fetch(x.as_ptr(), x.len());
            }
        }
    }
}

/// Where the scores of a tile lie: so many numbers from a panel's to the next one's, and from a row to the
/// next.
#[derive(Clone, Copy)]
struct Lie {
    panel: usize,
    row: usize,
}

impl Piece<'_> {
    /// Calls `f` with the parts, panel by panel, of row `r` of the tile at `from`. The sums of a
    /// tile lie together, panel by panel.
    #[inline(always)]
    fn of_row(
        &self,
        sums: &mut [f32],
        (from, rows): (usize, usize),
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

    /// Notes `lse` of query `i` of the task, where it is wanted.
    #[inline(always)]
    fn note(&self, i: usize, lse: f32) {
        if let Some(to) = self.output.lse
            && i < self.count
        {
            let at = self.task * self.heads.queries + self.first + i;
            // SAFETY: there is a number for every query of every head, and no other task has this one.
            unsafe { to.add(at).write(lse) };
        }
    }

    /// Writes the tile of `rows` rows at `from`, the sums of each divided by the next of their totals.
    #[inline(always)]
    fn finish<M: Micro>(
        &self,
        sums: &[f32],
        (from, rows): (usize, usize),
        mut total: impl FnMut() -> Option<f32>,
    ) {
        let (sample, head) = (self.task / self.heads.heads, self.task % self.heads.heads);
        let (size, all) = (self.heads.size, self.heads.heads * self.heads.size);
        let row = sample * self.heads.queries + self.first + from;
        let panels = &self.layout.values.panels;
        let (lanes, wide) = (M::Vector::LANES, panels.wide);
        let start = from * panels.columns();
        debug_assert!(start + rows * panels.columns() <= sums.len() && panels.columns() >= size);
        let sums = sums.as_ptr().wrapping_add(start);
        for r in 0..rows {
            let factor = M::Vector::splat(1.0 / total().unwrap_or(1.0));
            let first = (row + r) * all + head * size;
            for panel in 0..panels.count {
                let width = panels.width(panel);
                let column = panel * wide;
                let part = column * rows + r * width;
                let kept = width.min(size.saturating_sub(column));
                for at in (0..kept).step_by(lanes) {
                    let place = first + column + at;
                    let count = (kept - at).min(lanes);
                    // SAFETY: a tile's sums lie together, panel by panel, and a part of a row is whole vectors; the
                    // place of this head in this row of the result, which no other task writes. A size that is
                    // rounded is even.
                    unsafe {
                        let x = M::Vector::load(sums.add(part + at)).mul(factor);
                        let out = self.output.at;
                        match (self.output.rounded, count == lanes) {
                            (true, true) => x.store_bf16(out.cast::<u16>().add(place)),
                            (false, true) => x.store(out.add(place)),
                            (true, false) => {
                                x.store_first_bf16(count, out.cast::<u16>().add(place))
                            }
                            (false, false) => x.store_first(count, out.add(place)),
                        }
                    }
                }
            }
        }
    }

    /// The scores of the `rows` queries from `from` on for `block` keys from `key` on, which lie as `lie`
    /// says; `query` tells where a query's numbers are, in the packed keys' precision.
    #[inline(always)]
    fn scores<M: Micro>(
        &self,
        unit: &mut M::Unit,
        (from, rows): (usize, usize),
        (key, block): (usize, usize),
        query: impl Fn(usize) -> *const u8,
        lie: Lie,
        scores: &mut [f32],
    ) {
        let columns = self.layout.keys;
        let mut at = [std::ptr::null::<u8>(); MOST_ROWS];
        for (i, at) in (from..from + rows).zip(&mut at) {
            *at = query(i);
        }
        let panels = &columns.panels;
        // A block of keys is a multiple of every panel's width.
        let first = key / panels.wide;
        for panel in first..(key + block).div_ceil(panels.wide) {
            let width = panels.width(panel);
            let place = (panel - first) * lie.panel;
            debug_assert!(place + (rows - 1) * lie.row + width <= scores.len());
            // SAFETY: each pointer leads to a query, rounded up to whole steps as the packed columns
            // are; the panel holds `width` of those; the scores have room for a tile's rows of a block's
            // keys, which is what `lie` shares out.
            unsafe {
                let t = Tile {
                    rows: at.as_ptr(),
                    taps: 1,
                    skip: 0,
                    steps: self.heads.size.div_ceil(M::STEP),
                    b: self.keys_at.as_ptr().add(columns.start(panel)).cast(),
                    out: scores.as_mut_ptr().add(place),
                    stride: lie.row,
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
        let lines = weights.chunks_exact(self.layout.block.keys * bytes / 4);
        for (at, row) in at.iter_mut().zip(lines).take(rows) {
            *at = row.as_ptr().cast();
        }
        let panels = &columns.panels;
        let start = from * panels.columns();
        for panel in 0..panels.count {
            let width = panels.width(panel);
            // SAFETY: each pointer leads to a block's weights and zeros up to whole steps, as the
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
