//! Attention whose operands are rounded to bf16.
//!
//! For: paths of bf16, where exponentials take as long as the products. What is taken off the scores
//! before is not a row's maximum so far but that of its first block: rounding is relative, so weights may
//! be as large as f32 goes, and only where a total grows too far ([`FAR`]) is there a new maximum and are
//! sums corrected. So a later block is gone through once, and a row's total is added up lane by lane, to be
//! folded at the end. Not for: f32 ([`super::Exact`]).
//!
//! All scores of a block are made before the first is read, and all weights before the first is multiplied:
//! a tile waits long for what was stored just before.

use super::{Lie, MOST_ROWS, Piece};
use crate::attention_pack;
use crate::error::Result;
use crate::isa::{self, Cpu, Micro, Task};
use crate::memory::with_scratch;
use crate::softmax::{self, Power};
use crate::vector::{self, MOST_LANES, PAIR, Vector};

/// What a lane of a total may reach: sums of values with such weights are still numbers.
const FAR: f32 = (1_u128 << 64) as f32;
/// Scores that are so far below what is taken off weigh nothing.
const NOTHING: f32 = 1024.0;
/// Numbers between two rows of scores, besides the keys: a line, or many rows would lie in the same places
/// of a cache.
const APART: usize = 16;

pub(super) struct Rounded<'a> {
    piece: Piece<'a>,
    /// Of every query, for a block of keys; the same as rounded weights.
    scores: &'a mut [f32],
    weights: &'a mut [f32],
    /// The task's queries.
    queries: &'a mut [f32],
    /// Of every query: sums of values, and a vector of totals.
    sums: &'a mut [f32],
    totals: &'a mut [f32],
    /// Of every query: what is taken off.
    tops: &'a mut [f32],
}

impl<'a> Rounded<'a> {
    pub fn start(piece: Piece<'_>, cpu: Cpu) -> Result<()> {
        let layout = piece.layout;
        let (count, depth) = (piece.count, layout.keys.depth);
        let keys = layout.block.keys;
        let lengths = [
            count * (keys + APART),
            count * keys / 2,
            count * depth,
            count * layout.values.panels.columns(),
            count * MOST_LANES,
            count,
        ];
        // Each at a line of its own: tiles are read and written by lines.
        let lengths = lengths.map(|len: usize| len.next_multiple_of(16));
        with_scratch(lengths.iter().sum(), |mut rest| {
            let mut next = |len: usize| {
                let (part, after) = std::mem::take(&mut rest).split_at_mut(len);
                rest = after;
                part
            };
            let [scores, weights, queries, sums, totals, tops] = lengths.map(&mut next);
            let work = Rounded {
                piece,
                scores,
                weights,
                queries,
                sums,
                totals,
                tops,
            };
            cpu.run_at(layout.keys.precision, work);
        })
    }
}

/// What the rows of a block are gone through with, where all see the same keys of it.
struct State<'a> {
    scores: &'a mut [f32],
    weights: &'a mut [f32],
    totals: &'a mut [f32],
    tops: &'a mut [f32],
    /// Numbers from a row of scores to the next one's, and places of a row of weights to the next one's.
    row: usize,
    weight_row: usize,
    /// Keys that every row sees, and the same in whole vectors: what is beyond weighs next to nothing.
    keys: usize,
    whole: usize,
}

impl State<'_> {
    /// Weighs the rows of a tile and adds up their totals; of the first block their maxima are taken off.
    /// Whether a total grew too far: then nothing was added.
    #[inline(always)]
    fn weigh<M: Micro>(self, (from, rows): (usize, usize), scale: f32, first: bool) -> bool {
        let State {
            scores,
            weights,
            totals,
            tops,
            row,
            weight_row,
            keys,
            whole,
        } = self;
        let own = from * row..(from + rows) * row;
        let scores = scores.get_mut(own).unwrap_or_default();
        let own = from * weight_row..(from + rows) * weight_row;
        let weights = weights.get_mut(own).unwrap_or_default();
        let own = from * MOST_LANES..(from + rows) * MOST_LANES;
        let totals = totals.get_mut(own).unwrap_or_default();
        let tops = tops.get_mut(from..from + rows).unwrap_or_default();
        let mut made = [0.0; MOST_ROWS * MOST_LANES];
        let mut far = false;
        let rows = scores
            .chunks_exact_mut(row)
            .zip(weights.chunks_exact_mut(weight_row))
            .zip(tops);
        let lanes = totals
            .chunks_exact(MOST_LANES)
            .zip(made.chunks_exact_mut(MOST_LANES));
        for (((row, to), top), (before, after)) in rows.zip(lanes) {
            let row = row.get_mut(..whole).unwrap_or_default();
            row.iter_mut().skip(keys).for_each(|x| *x = f32::MIN);
            if first {
                *top = softmax::top::<M::Vector>(row, scale);
            }
            // SAFETY: a vector has at most so many numbers.
            unsafe {
                let before = M::Vector::load(before.as_ptr());
                let total = softmax::weigh_rounded((scale, *top), row, to, before);
                far |= total.exceeds(FAR);
                total.store(after.as_mut_ptr());
            }
        }
        if !far {
            let made = made.get(..totals.len()).unwrap_or_default();
            totals.copy_from_slice(made);
        }
        far
    }
}

impl Task for Rounded<'_> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let Rounded {
            piece,
            scores,
            weights,
            queries,
            sums,
            totals,
            tops,
        } = self;
        let p = &piece;
        let depth = p.layout.keys.depth;
        for (i, to) in queries.chunks_exact_mut(depth).enumerate().take(p.count) {
            attention_pack::round::<M>(p.query(i), to);
        }
        let queries: &[f32] = queries;
        let query = |i: usize| queries.get(i * depth..).unwrap_or_default().as_ptr().cast();
        let power = Power::Coarse;
        let scale = power.base() / (p.heads.size as f32).sqrt();
        sums.fill(0.0);
        totals.fill(0.0);
        let tiles = p.count.div_ceil(M::ROWS);
        let border = |i: usize| isa::border::<M>(i, tiles, p.count);
        let mut unit = M::Unit::default();
        let at_once = p.layout.block.keys;
        let lie = Lie {
            panel: p.layout.keys.panels.wide,
            row: at_once + APART,
        };
        let blocks = p.heads.keys.div_ceil(at_once);
        for key in (0..p.heads.keys).step_by(at_once) {
            let of = |i: usize| i * p.count / blocks;
            // One block is done before what is asked for is there.
            if blocks > 1 {
                p.fetch(of(key / at_once)..of(key / at_once + 1));
            }
            // Keys of this block that the rows of tile `tile` see.
            let block = |tile: usize| {
                let most = p.seen(border(tile + 1) - 1).min(key + at_once);
                most.saturating_sub(key)
            };
            for tile in 0..tiles {
                let (from, rows) = (border(tile), border(tile + 1) - border(tile));
                let scores = scores.get_mut(from * lie.row..).unwrap_or_default();
                if block(tile) > 0 {
                    let keys = (key, block(tile));
                    p.scores::<M>(&mut unit, (from, rows), keys, query, lie, scores);
                }
            }
            for tile in 0..tiles {
                let (from, rows) = (border(tile), border(tile + 1) - border(tile));
                let block = block(tile);
                if block == 0 {
                    continue;
                }
                let whole = block.next_multiple_of(M::STEP.max(PAIR)).min(at_once);
                if p.seen(from) >= key + block {
                    let state = State {
                        scores: &mut *scores,
                        weights: &mut *weights,
                        totals: &mut *totals,
                        tops: &mut *tops,
                        row: lie.row,
                        weight_row: at_once / 2,
                        keys: block,
                        whole,
                    };
                    let far = state.weigh::<M>((from, rows), scale, key == 0);
                    if !far {
                        continue;
                    }
                }
                for r in 0..rows {
                    let i = from + r;
                    let seen = p.seen(i).clamp(key, key + block) - key;
                    let row = scores.get_mut(i * lie.row..i * lie.row + whole);
                    let row = row.unwrap_or_default();
                    row.iter_mut().skip(seen).for_each(|x| *x = f32::MIN);
                    let to = weights.get_mut(i * at_once / 2..(i * at_once + whole) / 2);
                    let to = to.unwrap_or_default();
                    let total = totals.get_mut(i * MOST_LANES..(i + 1) * MOST_LANES);
                    let (Some(top), Some(total)) = (tops.get_mut(i), total) else {
                        continue;
                    };
                    if key == 0 {
                        *top = softmax::top::<M::Vector>(row, scale);
                    }
                    // SAFETY: a vector has at most so many numbers.
                    let before = unsafe { M::Vector::load(total.as_ptr()) };
                    let mut after = softmax::weigh_rounded((scale, *top), row, to, before);
                    if after.exceeds(FAR) {
                        let new = top.max(softmax::top::<M::Vector>(row, scale));
                        let old = power.of_one::<M>(*top - new);
                        *top = new;
                        p.of_row(sums, (from, rows), r, |part| {
                            part.iter_mut().for_each(|x| *x *= old);
                        });
                        let before = before.mul(M::Vector::splat(old));
                        softmax::lift(row, (new - NOTHING) / scale);
                        after = softmax::weigh_rounded((scale, new), row, to, before);
                    }
                    // SAFETY: as above.
                    unsafe { after.store(total.as_mut_ptr()) };
                    softmax::hide(to, seen);
                }
            }
            for tile in 0..tiles {
                let (from, rows) = (border(tile), border(tile + 1) - border(tile));
                let weights = weights.get(from * at_once / 2..).unwrap_or_default();
                if block(tile) > 0 {
                    let keys = (key, block(tile));
                    p.values::<M>(&mut unit, (from, rows), keys, weights, sums);
                }
            }
        }
        for tile in 0..tiles {
            let (from, rows) = (border(tile), border(tile + 1) - border(tile));
            let totals = totals.get(from * MOST_LANES..).unwrap_or_default();
            let both = totals.chunks_exact(MOST_LANES).zip(tops.iter().skip(from));
            let mut totals = (from..).zip(both).map(|(i, (total, top))| {
                // SAFETY: as above.
                let total = unsafe { M::Vector::load(total.as_ptr()) };
                let total = vector::fold(total, |a, b| a + b);
                p.note(i, top + total.log2());
                total
            });
            p.finish::<M>(sums, (from, rows), || totals.next());
        }
    }
}
