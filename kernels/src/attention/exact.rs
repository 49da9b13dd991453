//! Attention in f32.
//!
//! For: paths of f32, and few keys on those of bf16: a block's scores become weights in their place, and where a row's
//! maximum grows its sums are corrected. Not for: operands that are rounded ([`super::Rounded`]).

use super::{Lie, Piece};
use crate::attention::Heads;
use crate::error::Result;
use crate::isa::{self, Cpu, Micro, Task};
use crate::math::{self, max};
use crate::memory::with_scratch;
use crate::softmax::{self, Power};
use crate::values::Input;

pub(super) struct Exact<'a> {
    piece: Piece<'a>,
    /// Of one tile, a row every block of keys; then the weights in their place.
    scores: &'a mut [f32],
    /// Of every query, as are the maxima and totals.
    sums: &'a mut [f32],
    maxima: &'a mut [f32],
    totals: &'a mut [f32],
}

impl Exact<'_> {
    pub fn start(piece: Piece<'_>, cpu: Cpu) -> Result<()> {
        let layout = piece.layout;
        let columns = layout.values.panels.columns();
        let scores = layout.tile_rows * layout.block.keys;
        with_scratch(scores + piece.count * (columns + 2), |scratch| {
            let (scores, rest) = scratch.split_at_mut(scores);
            let (sums, rest) = rest.split_at_mut(piece.count * columns);
            let (maxima, totals) = rest.split_at_mut(piece.count);
            let work = Exact {
                piece,
                scores,
                sums,
                maxima,
                totals,
            };
            cpu.run_at(layout.keys.precision, work);
        })
    }
}

impl Task for Exact<'_> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let Exact {
            piece,
            scores,
            sums,
            maxima,
            totals,
        } = self;
        let p = &piece;
        let Heads { keys, size, .. } = p.heads;
        let at_once = p.layout.block.keys;
        let power = Power::Exact;
        let scale = power.base() / (size as f32).sqrt();
        sums.fill(0.0);
        maxima.fill(f32::MIN);
        totals.fill(0.0);
        let tiles = p.count.div_ceil(M::ROWS);
        let border = |i: usize| isa::border::<M>(i, tiles, p.count);
        let mut unit = M::Unit::default();
        let lie = Lie {
            panel: p.layout.keys.panels.wide,
            row: at_once,
        };
        for key in (0..keys).step_by(at_once) {
            for tile in 0..tiles {
                let (from, rows) = (border(tile), border(tile + 1) - border(tile));
                let most = p.seen(from + rows - 1).min(key + at_once);
                if most <= key {
                    continue;
                }
                let block = most - key;
                let queries = |i: usize| match p.query(i) {
                    Input::Plain(x) | Input::Rounded(x) => x.as_ptr().cast(),
                };
                p.scores::<M>(&mut unit, (from, rows), (key, block), queries, lie, scores);
                for r in 0..rows {
                    let i = from + r;
                    let seen = p.seen(i).clamp(key, most) - key;
                    // Whole vectors: the compiler's loops for what fills none are slow.
                    let whole = block.next_multiple_of(math::LANES).min(at_once);
                    let row = scores.get_mut(r * at_once..r * at_once + whole);
                    let row = row.unwrap_or_default();
                    row.iter_mut().skip(seen).for_each(|x| *x = f32::MIN);
                    let (Some(top), Some(total)) = (maxima.get_mut(i), totals.get_mut(i)) else {
                        continue;
                    };
                    let new = top.max(max(row) * scale);
                    let sum = softmax::weigh::<M>(power, scale, new, row);
                    row.iter_mut().skip(seen).for_each(|x| *x = 0.0);
                    let old = power.of_one::<M>(*top - new);
                    *total = M::fma(*total, old, sum);
                    if new > *top {
                        *top = new;
                        p.of_row(sums, (from, rows), r, |part| {
                            part.iter_mut().for_each(|x| *x *= old);
                        });
                    }
                }
                p.values::<M>(&mut unit, (from, rows), (key, block), scores, sums);
            }
        }
        for tile in 0..tiles {
            let (from, rows) = (border(tile), border(tile + 1) - border(tile));
            let mut totals = totals.iter().skip(from).copied();
            p.finish::<M>(sums, (from, rows), || totals.next());
        }
    }
}
