//! One head's keys and values in the order in which a tile reads them.
//!
//! For: attention and its derivatives, which pack them at every call. Not for: weights (`pack`), which
//! lie the same way and are packed once.

use crate::attention::Heads;
use crate::bf16::pair;
use crate::isa::{Cpu, Micro, Precision};
use crate::pack::Panels;
use crate::vector::Vector;

/// Packed columns. A place holds one f32, or two bf16 that follow each other in a column.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    pub panels: Panels,
    /// Places of a column.
    pub depth: usize,
    pub precision: Precision,
}

impl Columns {
    /// `count` columns of `inputs` numbers, rounded up to the steps of `cpu`'s tiles.
    pub fn new(cpu: Cpu, precision: Precision, count: usize, inputs: usize) -> Columns {
        let geometry = cpu.geometry(precision);
        Columns {
            panels: Panels::new(count, geometry.lanes).narrowed(count, geometry.narrow),
            depth: inputs.next_multiple_of(geometry.step) * precision.bytes() / 4,
            precision,
        }
    }

    /// Places of all columns.
    pub fn len(&self) -> usize {
        self.panels.columns() * self.depth
    }

    /// The first place of panel `panel`.
    #[inline(always)]
    pub fn start(&self, panel: usize) -> usize {
        panel * self.panels.wide * self.depth
    }
}

/// The numbers of head `task` in row `row` of its sample.
#[inline(always)]
pub(crate) fn head(x: &[f32], heads: Heads, rows: usize, task: usize, row: usize) -> &[f32] {
    let (sample, head) = (task / heads.heads, task % heads.heads);
    let at = ((sample * rows + row) * heads.heads + head) * heads.size;
    x.get(at..at + heads.size).unwrap_or_default()
}

/// Packs the `rows` rows of head `task` of `x` as columns: a column for each row, padded with zeros.
#[inline(always)]
pub(crate) fn pack_across<M: Micro>(
    x: &[f32],
    heads: Heads,
    rows: usize,
    task: usize,
    columns: Columns,
    to: &mut [f32],
) {
    /// Places that are rounded at a time.
    const RUN: usize = 64;
    let panels = columns.panels;
    let panel = (panels.wide * columns.depth).max(1);
    for (p, to) in to.chunks_mut(panel).enumerate() {
        let width = panels.width(p);
        for j in 0..width {
            let row = p * panels.wide + j;
            let from = match row < rows {
                true => head(x, heads, rows, task, row),
                false => &[],
            };
            let mut places = to.iter_mut().skip(j).step_by(width);
            match columns.precision {
                Precision::F32 => fill(places, from.iter().copied()),
                Precision::Bf16 => {
                    for first in (0..columns.depth).step_by(RUN) {
                        let mut rounded = [0.0; RUN];
                        let part = from.get(2 * first..).unwrap_or_default();
                        let part = part.get(..2 * RUN).unwrap_or(part);
                        M::round(part, &mut rounded);
                        places
                            .by_ref()
                            .zip(&rounded)
                            .for_each(|(to, pair)| *to = *pair);
                    }
                }
            }
        }
    }
}

/// Puts `numbers` into `places`, then zeros.
#[inline(always)]
fn fill<'a>(places: impl Iterator<Item = &'a mut f32>, numbers: impl Iterator<Item = f32>) {
    let numbers = numbers.chain(std::iter::repeat(0.0));
    places.zip(numbers).for_each(|(to, x)| *to = x);
}

/// Packs the `rows` rows of head `task` of `x` as rows: a column for each of the head's numbers.
#[inline(always)]
pub(crate) fn pack_along<M: Micro>(
    x: &[f32],
    heads: Heads,
    rows: usize,
    task: usize,
    columns: Columns,
    to: &mut [f32],
) {
    let panels = columns.panels;
    let panel = (panels.wide * columns.depth).max(1);
    for (p, to) in to.chunks_mut(panel).enumerate() {
        let width = panels.width(p);
        let column = p * panels.wide;
        // Row `row`'s part in this panel; nothing past the last.
        let part = |row: usize| {
            let row = match row < rows {
                true => head(x, heads, rows, task, row),
                false => &[],
            };
            let part = row.get(column..).unwrap_or_default();
            part.get(..width).unwrap_or(part)
        };
        for (i, to) in to.chunks_exact_mut(width).enumerate() {
            match columns.precision {
                Precision::F32 => fill(to.iter_mut(), part(i).iter().copied()),
                Precision::Bf16 => turns::<M::Vector>(part(2 * i), part(2 * i + 1), to),
            }
        }
    }
}

/// The numbers of `first` and `second`, which may have none, rounded and by turns, into `to`, then zeros.
#[inline(always)]
fn turns<V: Vector>(first: &[f32], second: &[f32], to: &mut [f32]) {
    let both = first.len().min(second.len()).min(to.len());
    let whole = both / V::LANES * V::LANES;
    for at in (0..whole).step_by(V::LANES) {
        // SAFETY: all three have a vector's numbers there.
        unsafe {
            let next = V::load(second.as_ptr().add(at));
            V::load(first.as_ptr().add(at)).store_pairs(next, to.as_mut_ptr().add(at));
        }
    }
    let number = |x: &[f32], i: usize| x.get(i).copied().unwrap_or_default();
    for (i, to) in to.iter_mut().enumerate().skip(whole) {
        *to = pair(number(first, i), number(second, i));
    }
}
