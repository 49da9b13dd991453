//! The weights of some keys, and how they lean, as rows of products: rounded where the path does.
//!
//! For: tangents; what is not rounded serves where it lies. Not for: where weights come from (`plan`), or cotangents
//! that are rounded (`rounded`).

use std::ops::Range;

use super::QUERIES;
use super::plan::{Block, Plan, Rows};
use crate::isa::{Micro, Precision};
use crate::vector::Vector;

/// Keys in a group: a multiple of every panel's width and of every step.
const GROUP: usize = 128;

/// Weights P and E = s P ∘ (D − Σ P ∘ D) of a block of queries and of a group of keys; neither is divided
/// by the sum of the weights.
pub(super) struct Sides<'a> {
    /// Rounded: a row for each query.
    e_rows: &'a mut [f32],
    p_rows: &'a mut [f32],
    /// The panels, and the first key.
    panels: Range<usize>,
    start: usize,
}

/// Which of both an operand is.
#[derive(Clone, Copy)]
pub(super) enum Of {
    P,
    E,
}

impl<'a> Sides<'a> {
    /// Places of a group's weights.
    fn rows(plan: &Plan) -> usize {
        match plan.precision() {
            Precision::F32 => 0,
            Precision::Bf16 => QUERIES * GROUP / 2,
        }
    }

    /// Places of scratch that they take.
    pub fn len(plan: &Plan) -> usize {
        2 * Self::rows(plan)
    }

    pub fn new(plan: &Plan, scratch: &mut &'a mut [f32]) -> Sides<'a> {
        let rows = Self::rows(plan);
        Sides {
            e_rows: super::take(scratch, rows),
            p_rows: super::take(scratch, rows),
            panels: 0..0,
            start: 0,
        }
    }

    /// The groups of panels that all keys make.
    pub fn groups(plan: &Plan) -> impl Iterator<Item = Range<usize>> {
        let panels = &plan.across.panels;
        let (count, together) = (panels.count, GROUP / panels.wide);
        (0..count)
            .step_by(together)
            .map(move |first| first..(first + together).min(count))
    }

    /// Takes the weights of `panels` from `block`, where E takes D's place.
    #[inline(always)]
    pub fn fill<M: Micro>(&mut self, plan: &Plan, block: &mut Block<'_>, panels: Range<usize>) {
        self.start = plan.panel(panels.start).0;
        self.panels = panels.clone();
        if M::STEP == 1 {
            panels.for_each(|panel| lean(plan, block, panel));
            return;
        }
        let mut end = 0;
        for panel in panels {
            let (start, width) = plan.panel(panel);
            let column = start - self.start;
            self.lean_rounded::<M>(plan, block, (start, width), column);
            end = column + width;
        }
        // Columns that a step takes besides: zeros, for what lies there may be no number.
        if !end.is_multiple_of(M::STEP) {
            for rows in [&mut *self.e_rows, &mut *self.p_rows] {
                for row in rows.chunks_exact_mut(GROUP / 2) {
                    row.iter_mut().skip(end / 2).for_each(|x| *x = 0.0);
                }
            }
        }
    }

    #[inline(always)]
    fn lean_rounded<M: Micro>(
        &mut self,
        plan: &Plan,
        block: &Block<'_>,
        (start, width): (usize, usize),
        column: usize,
    ) {
        let count = block.count;
        let at = start * count..(start + width) * count;
        let (p, d) = (block.p.get(at.clone()), block.d.get(at));
        let (p, d) = (p.unwrap_or_default(), d.unwrap_or_default());
        let fits = p.len() == width * count
            && d.len() == p.len()
            && count <= QUERIES
            && column + width <= GROUP
            && self.e_rows.len().min(self.p_rows.len()) >= QUERIES * GROUP / 2;
        if !fits {
            debug_assert!(false, "weights that do not fit");
            return;
        }
        let scale = M::Vector::splat(plan.scale);
        let shift = |r| M::Vector::splat(block.shift(plan, r));
        let none = M::Vector::splat(0.0);
        for r in (0..count).step_by(2) {
            let shifts = [shift(r), shift(r + 1)];
            for v in (0..width).step_by(M::Vector::LANES) {
                // SAFETY: rows `r` and, where there is one, `r + 1` of a panel whose width whole vectors
                // fill; it was checked that all that is read and written has room for them. There is
                // room for a row after the last, for QUERIES is even.
                unsafe {
                    let one = |r: usize| match r < count {
                        true => (
                            M::Vector::load(p.as_ptr().add(r * width + v)),
                            M::Vector::load(d.as_ptr().add(r * width + v)),
                        ),
                        false => (none, none),
                    };
                    let ((p0, d0), (p1, d1)) = (one(r), one(r + 1));
                    let e0 = p0.mul(d0.fma(scale, shifts[0]));
                    let e1 = p1.mul(d1.fma(scale, shifts[1]));
                    let row = |rows: &mut [f32], r: usize, x: M::Vector| {
                        let at = rows.as_mut_ptr().cast::<u16>();
                        x.store_bf16(at.add(r * GROUP + column + v));
                    };
                    row(self.e_rows, r, e0);
                    row(self.e_rows, r + 1, e1);
                    row(self.p_rows, r, p0);
                    row(self.p_rows, r + 1, p1);
                }
            }
        }
    }

    /// The block's rows of weights times rows packed along, to rows of all their columns.
    #[inline(always)]
    pub fn mix<M: Micro>(
        &self,
        plan: &Plan,
        unit: &mut M::Unit,
        (of, block): (Of, &Block<'_>),
        packed: &[f32],
        (to, fresh): (&mut [f32], bool),
    ) {
        let (keys, count) = (plan.heads.keys, block.count);
        if M::STEP > 1 {
            let at = match of {
                Of::P => &*self.p_rows,
                Of::E => &*self.e_rows,
            };
            let stride = GROUP / 2;
            let steps = (keys - self.start).min(GROUP).div_ceil(M::STEP);
            let rows = Rows { at, count, stride };
            plan.mix::<M>(unit, (rows, steps), (packed, self.start), (to, fresh));
            return;
        }
        for panel in self.panels.clone() {
            let (start, width) = plan.panel(panel);
            let rows = Rows {
                at: block.of(of).get(start * count..).unwrap_or_default(),
                count,
                stride: width,
            };
            let steps = width.min(keys - start);
            let fresh = fresh && panel == self.panels.start;
            plan.mix::<M>(unit, (rows, steps), (packed, start), (&mut *to, fresh));
        }
    }
}

/// E in the place of D in panel `panel`.
#[inline(always)]
pub(super) fn lean(plan: &Plan, block: &mut Block<'_>, panel: usize) {
    let (start, width) = plan.panel(panel);
    for r in 0..block.count {
        let shift = block.shift(plan, r);
        let at = start * block.count + r * width;
        let (p, d) = (block.p.get(at..at + width), block.d.get_mut(at..at + width));
        for (p, d) in p.unwrap_or_default().iter().zip(d.unwrap_or_default()) {
            *d = p * (*d * plan.scale + shift);
        }
    }
}
