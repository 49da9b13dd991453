//! How the derivatives of one attention are cut up, and the products and rows that they are made of.
//!
//! For: scores of a block of queries, panel by panel. Not for: which of them a derivative takes
//! (`attention_derivative`).

use std::ops::Range;

use super::QUERIES;
use crate::attention::{Heads, Mask};
use crate::attention_pack::{Columns, pack_across, pack_along};
use crate::isa::{self, Cpu, Micro, Precision, Tile};
use crate::pack::Panels;
use crate::softmax::{self, Power};
use crate::vector::{self, Vector};

/// Rows of numbers, one every `stride`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub at: &'a [f32],
    pub count: usize,
    pub stride: usize,
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
            isa::tile::<M>(count, width, t);
        }
    }
}

/// How one attention is cut up.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub heads: Heads,
    mask: Mask,
    /// Keys as columns.
    across: Panels,
    /// A head's numbers as columns.
    pub along: Panels,
    scale: f32,
}

impl Plan {
    pub fn new(cpu: Cpu, heads: Heads, mask: Mask) -> Plan {
        let lanes = cpu.geometry(Precision::F32).lanes;
        Plan {
            heads,
            mask,
            across: Panels::new(heads.keys, lanes),
            along: Panels::new(heads.size, lanes),
            scale: 1.0 / (heads.size as f32).sqrt(),
        }
    }

    pub fn across_len(&self) -> usize {
        self.across.columns() * self.heads.size
    }

    pub fn along_len(&self) -> usize {
        self.along.columns() * self.heads.keys
    }

    pub fn scores_len(&self) -> usize {
        self.across.columns() * QUERIES
    }

    /// Keys or values of head `task` as columns.
    #[inline(always)]
    pub fn pack_across(&self, x: &[f32], task: usize, to: &mut [f32]) {
        let columns = self.columns(self.across, self.heads.size);
        pack_across(x, self.heads, self.heads.keys, task, columns, to);
    }

    /// Keys or values of head `task` as rows.
    #[inline(always)]
    pub fn pack_along(&self, x: &[f32], task: usize, to: &mut [f32]) {
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
    pub fn queries<'a>(&self, x: &'a [f32], task: usize, first: usize, count: usize) -> Rows<'a> {
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
    pub fn against<M: Micro>(&self, rows: Rows<'_>, packed: &[f32], to: &mut [f32], fresh: bool) {
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
    pub fn softmax<M: Micro>(&self, first: usize, count: usize, p: &mut [f32]) {
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
    pub fn lean<M: Micro>(&self, count: usize, p: &[f32], d: &mut [f32]) {
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
    pub fn mix<M: Micro>(
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
    pub fn spread<M: Micro>(
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
    pub fn unpack_across(&self, packed: &[f32], out: &mut [f32]) {
        let size = self.heads.size;
        for (key, row) in out.chunks_exact_mut(size).enumerate() {
            let (start, width) = self.panel(key / self.across.wide);
            let column = packed.get(start * size + key - start..);
            let column = column.unwrap_or_default().iter().step_by(width);
            row.iter_mut().zip(column).for_each(|(to, x)| *to = *x);
        }
    }
}
