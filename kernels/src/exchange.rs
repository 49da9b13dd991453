//! Packed weights with inputs and outputs exchanged: what a cotangent goes back through.
//!
//! For: transposing from packed to packed, in blocks that lie in the first cache, so fast that large
//! layers need no second copy in memory. Not for: layers whose windows are gathered, whose groups are
//! mixed with their inputs (`conv_transposed` takes those number by number).

use std::sync::Arc;

use crate::arena::{Arena, lasting};
use crate::error::Result;
use crate::isa::Precision;
use crate::pack::Weights;
use crate::share::chunks;
use crate::vector::MOST_LANES;
use crate::winograd::Tiling;

/// Most columns of a panel.
const WIDEST: usize = 2 * MOST_LANES;

impl Weights {
    /// The weights of the kernel turned by 180°, with inputs and outputs exchanged and without bias, all
    /// packed for `tiling`; of a linear layer its transpose. A gated layer must be [`Weights::opened`]
    /// first. The numbers lie in a buffer of `room`, or of their own.
    pub(crate) fn exchanged(&self, tiling: Tiling, room: Option<&Arc<Arena>>) -> Result<Weights> {
        let to = Self::laid_out(self.cpu, self.taps, self.outputs, self.inputs, false);
        let group = to.column() / to.taps;
        Self::exchange(to, room, |p, width, panel| {
            let groups = panel.chunks_exact_mut((group * width).max(1));
            for (tap, group) in groups.enumerate() {
                let (factor, tap) = tiling.turned(self.taps, tap);
                self.exchange_group(tap, p * self.panels.wide, group, width);
                if factor != 1.0 {
                    self.scale(factor, group);
                }
            }
        })
    }

    /// Multiplies packed numbers with a power of two, which is exact.
    fn scale(&self, factor: f32, packed: &mut [f32]) {
        match self.precision {
            Precision::F32 => packed.iter_mut().for_each(|x| *x *= factor),
            Precision::Bf16 => packed.iter_mut().for_each(|x| {
                let low = f32::from_bits(x.to_bits() << 16) * factor;
                let high = f32::from_bits(x.to_bits() & 0xFFFF_0000) * factor;
                *x = f32::from_bits(low.to_bits() >> 16 | (high.to_bits() & 0xFFFF_0000));
            }),
        }
    }

    /// A linear layer from these outputs to the inputs of all groups, one group after the other. `None`
    /// where a group's inputs do not fill whole panels.
    pub(crate) fn exchanged_apart(&self, room: Option<&Arc<Arena>>) -> Option<Result<Weights>> {
        let wide = self.panels.wide;
        let to = Self::laid_out(self.cpu, 1, self.outputs, self.taps * self.inputs, false);
        self.inputs.is_multiple_of(wide).then(|| {
            Self::exchange(to, room, |p, width, panel| {
                let (tap, first) = (p * wide / self.inputs, p * wide % self.inputs);
                self.exchange_group(tap, first, panel, width);
            })
        })
    }

    /// `to` with its numbers: `fill` is told each panel, its width and its place.
    fn exchange(
        to: Weights,
        room: Option<&Arc<Arena>>,
        fill: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) -> Result<Weights> {
        let (column, len) = (to.column(), to.column() * to.panels.columns());
        // What `fill` leaves out: inputs and columns up to whole steps and panels.
        let gaps = to.inputs < to.padded || to.outputs < to.panels.columns();
        // All panels but the last are equal, so the pieces are the panels.
        let fill = |p: usize, panel: &mut [f32]| {
            if gaps {
                panel.fill(0.0);
            }
            fill(p, to.panels.width(p), panel);
        };
        let fill_all = |data: &mut [f32]| {
            chunks(data, column * to.panels.wide, fill);
        };
        let data = match room {
            Some(room) => {
                let mut data = room.take(len)?;
                fill_all(&mut data);
                data.into()
            }
            None => {
                let mut data = lasting(len)?;
                fill_all(&mut data);
                data.into()
            }
        };
        Ok(Weights {
            data,
            bias: lasting(to.panels.columns())?.into(),
            ..to
        })
    }

    /// The inputs from `first` on of group `tap` become columns of `to`, whose rows have `width`; the
    /// outputs become rows.
    fn exchange_group(&self, tap: usize, first: usize, to: &mut [f32], width: usize) {
        let step = match self.precision {
            Precision::F32 => 1,
            Precision::Bf16 => 2,
        };
        let inputs = self.inputs.saturating_sub(first).min(width);
        let from_row = (tap * self.padded + first) / step;
        let mut room = [0.0; WIDEST * WIDEST];
        for q in 0..self.panels.count {
            let own = self.panels.width(q);
            let before = q * self.panels.wide;
            let outputs = self.outputs.saturating_sub(before).min(own);
            let at = before * self.column() + from_row * own;
            let numbers = at..at + inputs.div_ceil(step) * own;
            let from = match self.storage.is_half() {
                true => self.widened(numbers, &mut room),
                false => self.data.get(numbers),
            };
            let begin = before / step * width;
            let to = to.get_mut(begin..begin + outputs.div_ceil(step) * width);
            let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
            match self.precision {
                Precision::F32 => block(from, own, to, width),
                Precision::Bf16 => block_of_pairs(from, own, to, width),
            }
        }
    }
}

/// `from`, rows of `own` numbers, becomes columns of `to`, whose rows have `width`.
fn block(from: &[f32], own: usize, to: &mut [f32], width: usize) {
    for (j, row) in from.chunks_exact(own).enumerate() {
        let column = to.get_mut(j..).unwrap_or_default();
        for (to, x) in column.iter_mut().step_by(width).zip(row) {
            *to = *x;
        }
    }
}

/// As [`block`], for bf16: a number holds two rows' values of its column, the first in its low half.
fn block_of_pairs(from: &[f32], own: usize, to: &mut [f32], width: usize) {
    for (j, row) in from.chunks_exact(own).enumerate() {
        let (pairs, _) = row.as_chunks::<2>();
        for (to, [a, b]) in to.chunks_exact_mut(width).zip(pairs) {
            let (a, b) = (a.to_bits(), b.to_bits());
            if let Some([low, high]) = to.get_mut(2 * j..2 * j + 2) {
                *low = f32::from_bits((a & 0xFFFF) | b << 16);
                *high = f32::from_bits(a >> 16 | (b & 0xFFFF_0000));
            }
        }
    }
}
