//! How the derivatives of one attention are cut up, and the products and rows that they are made of.
//!
//! For: what a block of queries knows of all keys, panel by panel ([`Block`]). Not for: which products a
//! derivative is made of (`attention_derivative`), or weights as operands (`sides`).

use std::ops::Range;

use super::sides::Of;
use super::{QUERIES, take};
use crate::attention::{Heads, Mask, attention_rounds};
use crate::attention_pack::{Columns, head, pack_across, pack_along};
use crate::isa::{self, Cpu, Micro, Precision, Tile};
use crate::pack::Panels;
use crate::softmax::{self, Power};
use crate::vector::{self, MOST_LANES, Vector};

/// Most rows in a tile.
const MOST_ROWS: usize = 32;
/// Keys below which operands stay f32: there is little to gain (a hundredth of a gradient over 77 keys).
const FEW_KEYS: usize = 512;

/// Whether derivatives of attention over `keys` keys round their operands to bf16, and its cotangent starts from what
/// [`crate::attention_and_lse`] left.
pub fn attention_leaves(cpu: Cpu, keys: usize) -> bool {
    keys >= FEW_KEYS && attention_rounds(cpu, keys)
}

/// Rows of places, one every `stride`. A place holds one f32, or two bf16 that follow each other.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub at: &'a [f32],
    pub count: usize,
    pub stride: usize,
}

/// Places of a row that a step takes.
#[inline(always)]
pub(super) const fn places<M: Micro>() -> usize {
    M::STEP.div_ceil(2)
}

/// The first `steps` steps of every row times a packed panel of `width` columns, written, or unless
/// `fresh` added, to rows of `to.0`, one every `to.1`.
#[inline(always)]
pub(super) fn times<M: Micro>(
    unit: &mut M::Unit,
    rows: Rows<'_>,
    (panel, width): (&[f32], usize),
    steps: usize,
    to: (&mut [f32], usize),
    fresh: bool,
) {
    let (out, stride) = to;
    let Some(last) = rows.count.checked_sub(1) else {
        return;
    };
    let long = steps * places::<M>();
    let fits = last * rows.stride + long <= rows.at.len()
        && long * width <= panel.len()
        && last * stride + width <= out.len();
    if !fits {
        debug_assert!(false, "a product that does not fit");
        return;
    }
    let tiles = rows.count.div_ceil(M::ROWS);
    for tile in 0..tiles {
        let first = isa::border::<M>(tile, tiles, rows.count);
        let count = isa::border::<M>(tile + 1, tiles, rows.count) - first;
        let mut at = [std::ptr::null::<u8>(); MOST_ROWS];
        for (r, at) in at.iter_mut().enumerate().take(count) {
            let row = rows.at.get((first + r) * rows.stride..);
            *at = row.unwrap_or_default().as_ptr().cast();
        }
        // SAFETY: it was checked that every row has the places of `steps` steps, the panel as many
        // times `width`, and `out` room for `width` numbers at every row.
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
            M::tile(unit, count, width, t);
        }
    }
}

/// How one attention is cut up.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub heads: Heads,
    mask: Mask,
    /// Keys as columns.
    pub across: Columns,
    /// A head's numbers as columns.
    pub along: Columns,
    pub scale: f32,
}

/// What some queries know of all keys.
pub(super) struct Block<'a> {
    /// The first query, and how many.
    pub first: usize,
    pub count: usize,
    /// Scores, then weights that are not divided by their sum, panel by panel.
    pub p: &'a mut [f32],
    /// What moves a score's weight, or what the weight moves; then E, where nothing is rounded.
    pub d: &'a mut [f32],
    /// Of every query, a vector's numbers each: the largest score, the sum of the weights, and that of
    /// the weights times `d`.
    tops: &'a mut [f32],
    totals: &'a mut [f32],
    products: &'a mut [f32],
    /// Of every query: one over the sum of its weights, and the mean of `d`.
    pub factors: [f32; QUERIES],
    pub means: [f32; QUERIES],
}

impl<'a> Block<'a> {
    /// Numbers of scratch that a block takes.
    pub fn len(plan: &Plan) -> usize {
        2 * plan.across.panels.columns() * QUERIES + 3 * QUERIES * MOST_LANES
    }

    pub fn new(plan: &Plan, scratch: &mut &'a mut [f32]) -> Block<'a> {
        let scores = plan.across.panels.columns() * QUERIES;
        let mut next = |len| take(scratch, len);
        Block {
            first: 0,
            count: 0,
            p: next(scores),
            d: next(scores),
            tops: next(QUERIES * MOST_LANES),
            totals: next(QUERIES * MOST_LANES),
            products: next(QUERIES * MOST_LANES),
            factors: [0.0; QUERIES],
            means: [0.0; QUERIES],
        }
    }
}

impl Block<'_> {
    /// Where panel `panel` of `p` and `d` lies.
    #[inline(always)]
    pub fn part(&self, plan: &Plan, panel: usize) -> Range<usize> {
        let (start, width) = plan.panel(panel);
        start * self.count..(start + width) * self.count
    }

    /// What is added to query `r`'s s · D before it is weighted: − s Σ P ∘ D.
    #[inline(always)]
    pub fn shift(&self, plan: &Plan, r: usize) -> f32 {
        -plan.scale * self.means.get(r).copied().unwrap_or_default()
    }

    #[inline(always)]
    pub fn of(&self, of: Of) -> &[f32] {
        match of {
            Of::P => self.p,
            Of::E => self.d,
        }
    }
}

/// The numbers of query `r`.
#[inline(always)]
fn vector<V: Vector>(all: &[f32], r: usize) -> V {
    match all.get(r * MOST_LANES..(r + 1) * MOST_LANES) {
        // SAFETY: as many as the longest vector has.
        Some(x) => unsafe { V::load(x.as_ptr()) },
        None => V::splat(0.0),
    }
}

#[inline(always)]
fn set_vector<V: Vector>(all: &mut [f32], r: usize, x: V) {
    if let Some(to) = all.get_mut(r * MOST_LANES..(r + 1) * MOST_LANES) {
        // SAFETY: as many as the longest vector has.
        unsafe { x.store(to.as_mut_ptr()) };
    }
}

impl Plan {
    pub fn new(cpu: Cpu, heads: Heads, mask: Mask) -> Plan {
        let precision = match attention_leaves(cpu, heads.keys) {
            true => Precision::Bf16,
            false => Precision::F32,
        };
        let geometry = cpu.geometry(precision);
        Plan {
            heads,
            mask,
            // Whole vectors, for what goes through the scores row by row.
            across: Columns {
                panels: Panels::new(heads.keys, geometry.lanes),
                ..Columns::new(cpu, precision, heads.keys, heads.size)
            },
            along: Columns::new(cpu, precision, heads.size, heads.keys),
            scale: 1.0 / (heads.size as f32).sqrt(),
        }
    }

    pub fn precision(&self) -> Precision {
        self.across.precision
    }

    /// Rows of a sample's queries, keys and values.
    pub fn rows(&self) -> [usize; 3] {
        let Heads { queries, keys, .. } = self.heads;
        [queries, keys, keys]
    }

    /// Numbers of a head for each key, laid out panel by panel.
    pub fn sums_len(&self) -> usize {
        self.across.panels.columns() * self.heads.size
    }

    /// Places of a block's rounded queries.
    pub fn queries_len(&self) -> usize {
        match self.precision() {
            Precision::F32 => 0,
            Precision::Bf16 => QUERIES * self.across.depth,
        }
    }

    /// Keys or values of head `task` as columns.
    #[inline(always)]
    pub fn pack_across<M: Micro>(&self, x: &[f32], task: usize, to: &mut [f32]) {
        pack_across::<M>(x.into(), self.heads, self.heads.keys, task, self.across, to);
    }

    /// Keys or values of head `task` as rows.
    #[inline(always)]
    pub fn pack_along<M: Micro>(&self, x: &[f32], task: usize, to: &mut [f32]) {
        pack_along::<M>(x.into(), self.heads, self.heads.keys, task, self.along, to);
    }

    /// The block's rows of head `task` of something of the queries' shape; rounded in `room` where they
    /// must be.
    #[inline(always)]
    pub fn queries<'a, M: Micro>(
        &self,
        x: &'a [f32],
        task: usize,
        (first, count): (usize, usize),
        room: &'a mut [f32],
    ) -> Rows<'a> {
        let Heads { queries, heads, .. } = self.heads;
        let row = |i: usize| head(x, self.heads, queries, task, first + i);
        if M::STEP == 1 {
            let (sample, head) = (task / heads, task % heads);
            let at = ((sample * queries + first) * heads + head) * self.heads.size;
            return Rows {
                at: x.get(at..).unwrap_or_default(),
                count,
                stride: heads * self.heads.size,
            };
        }
        let depth = self.across.depth;
        for (i, to) in room.chunks_exact_mut(depth).enumerate().take(count) {
            M::round(row(i), to);
        }
        Rows {
            at: room,
            count,
            stride: depth,
        }
    }

    /// The block's rows of head `task` of something of the queries' shape, times `factors`, as columns: a
    /// row for each of the head's numbers.
    #[inline(always)]
    pub fn turn<'a>(
        &self,
        x: &[f32],
        task: usize,
        block: &Block<'_>,
        to: &'a mut [f32],
    ) -> Rows<'a> {
        let queries = self.heads.queries;
        let factors = block.factors.iter().enumerate().take(block.count);
        for (r, factor) in factors {
            let row = head(x, self.heads, queries, task, block.first + r);
            let places = to.iter_mut().skip(r).step_by(QUERIES);
            places.zip(row).for_each(|(to, x)| *to = x * factor);
        }
        Rows {
            at: to,
            count: self.heads.size,
            stride: QUERIES,
        }
    }

    /// First key, and packed keys, of panel `panel`.
    #[inline(always)]
    pub fn panel(&self, panel: usize) -> (usize, usize) {
        let panels = &self.across.panels;
        (panel * panels.wide, panels.width(panel))
    }

    /// The products of `rows` with the packed columns of panel `panel`, to rows of its width: written, or unless
    /// fresh added.
    #[inline(always)]
    pub fn against<M: Micro>(
        &self,
        unit: &mut M::Unit,
        rows: Rows<'_>,
        packed: &[f32],
        panel: usize,
        (to, fresh): (&mut [f32], bool),
    ) {
        let (start, width) = self.panel(panel);
        let depth = self.across.depth;
        let b = packed.get(start * depth..(start + width) * depth);
        let to = (to, width);
        let steps = self.heads.size.div_ceil(M::STEP);
        times::<M>(unit, rows, (b.unwrap_or_default(), width), steps, to, fresh);
    }

    /// `rows` of weights of keys from the second of `from` on, so many steps, times the first of it, packed along:
    /// to rows of all its columns.
    #[inline(always)]
    pub fn mix<M: Micro>(
        &self,
        unit: &mut M::Unit,
        (rows, steps): (Rows<'_>, usize),
        from: (&[f32], usize),
        (to, fresh): (&mut [f32], bool),
    ) {
        let along = &self.along;
        for part in 0..along.panels.count {
            let (column, width) = (part * along.panels.wide, along.panels.width(part));
            let at = along.start(part) + from.1 / M::STEP.min(2) * width;
            let b = (from.0.get(at..).unwrap_or_default(), width);
            let to = to.get_mut(column..).unwrap_or_default();
            times::<M>(unit, rows, b, steps, (to, along.panels.columns()), fresh);
        }
    }

    /// Keys that query `query` sees.
    #[inline(always)]
    pub fn seen(&self, query: usize) -> usize {
        match self.mask {
            Mask::None => self.heads.keys,
            Mask::Causal => (query + 1).min(self.heads.keys),
        }
    }

    /// Puts `x` in the place of the scores in `part`, whose first key is `start`, that query `query` does
    /// not see.
    #[inline(always)]
    pub fn hide(&self, part: &mut [f32], start: usize, query: usize, x: f32) {
        let seen = self.seen(query);
        if start + part.len() > seen {
            let seen = seen.saturating_sub(start);
            part.get_mut(seen..).unwrap_or_default().fill(x);
        }
    }

    /// The scores of the queries, and the largest of each.
    #[inline(always)]
    pub fn scores<M: Micro>(
        &self,
        unit: &mut M::Unit,
        q: Rows<'_>,
        keys: &[f32],
        block: &mut Block<'_>,
    ) {
        block.tops.fill(f32::MIN);
        block.totals.fill(0.0);
        block.products.fill(0.0);
        for panel in 0..self.across.panels.count {
            let (start, width) = self.panel(panel);
            let to = block.p.get_mut(block.part(self, panel));
            self.against::<M>(unit, q, keys, panel, (to.unwrap_or_default(), true));
            for r in 0..block.count {
                let at = start * block.count + r * width;
                let part = block.p.get_mut(at..at + width).unwrap_or_default();
                self.hide(part, start, block.first + r, f32::MIN);
                let top = softmax::highest::<M::Vector>(part, vector(block.tops, r));
                set_vector(block.tops, r, top);
            }
        }
        for r in 0..block.count {
            let top = vector::fold(vector::<M::Vector>(block.tops, r), f32::max);
            set_vector(block.tops, r, M::Vector::splat(top));
        }
    }

    /// Weights in the place of scores in panel `panel`, of which `d` is known, and their sums.
    #[inline(always)]
    pub fn weigh<M: Micro>(&self, panel: usize, block: &mut Block<'_>) {
        // Weights that are rounded need no better exponential than a short one.
        let power = match M::STEP {
            1 => Power::Exact,
            _ => Power::Coarse,
        };
        let scale = power.base() * self.scale;
        let (start, width) = self.panel(panel);
        for r in 0..block.count {
            let at = start * block.count + r * width;
            let p = block.p.get_mut(at..at + width).unwrap_or_default();
            let d = block.d.get(at..at + width).unwrap_or_default();
            let top = block.tops.get(r * MOST_LANES).copied().unwrap_or_default() * scale;
            let sums = (vector(block.totals, r), vector(block.products, r));
            let sums: (M::Vector, _) = softmax::weigh_more(power, (scale, top), p, d, sums);
            set_vector(block.totals, r, sums.0);
            set_vector(block.products, r, sums.1);
            self.hide(p, start, block.first + r, 0.0);
        }
    }

    /// What the sums come to once all panels were weighed.
    #[inline(always)]
    pub fn sum_up<M: Micro>(&self, block: &mut Block<'_>) {
        let sum = |all: &[f32], r| vector::fold(vector::<M::Vector>(all, r), |a, b| a + b);
        let both = block.factors.iter_mut().zip(&mut block.means);
        for (r, (factor, mean)) in both.enumerate().take(block.count) {
            *factor = 1.0 / sum(block.totals, r);
            *mean = sum(block.products, r) * *factor;
        }
    }

    /// The keys of `panels`, rows of a head, from `packed`, which has a row for each of a head's numbers in each panel.
    #[inline(always)]
    pub fn unpack_across(&self, panels: Range<usize>, packed: &[f32], out: &mut [f32]) {
        let size = self.heads.size;
        let (first, wide) = (self.panel(panels.start).0, self.across.panels.wide);
        let keys = out.chunks_exact_mut(size).take(panels.len() * wide);
        for (i, row) in keys.enumerate() {
            let (start, width) = self.panel((first + i) / wide);
            let column = packed.get((start - first) * size + (first + i - start)..);
            let column = column.unwrap_or_default().iter().step_by(width);
            row.iter_mut().zip(column).for_each(|(to, x)| *to = *x);
        }
    }
}
