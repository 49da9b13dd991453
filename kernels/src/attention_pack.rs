//! One head's keys and values in the order in which a tile reads them.
//!
//! For: attention and its derivatives, which pack them at every call. Not for: weights (`pack`), which
//! lie the same way and are packed once.

use crate::attention::Heads;
use crate::bf16::pair;
use crate::isa::{Cpu, Micro, Precision};
use crate::pack::Panels;
use crate::values::Input;
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

/// The first number of head `task` in row `row` of its sample.
#[inline(always)]
fn place(heads: Heads, rows: usize, task: usize, row: usize) -> usize {
    let (sample, head) = (task / heads.heads, task % heads.heads);
    ((sample * rows + row) * heads.heads + head) * heads.size
}

/// The numbers of head `task` in row `row` of its sample.
#[inline(always)]
pub(crate) fn head(x: &[f32], heads: Heads, rows: usize, task: usize, row: usize) -> &[f32] {
    let at = place(heads, rows, task, row);
    x.get(at..at + heads.size).unwrap_or_default()
}

/// The same of numbers that may be rounded, of an even head size then.
#[inline(always)]
pub(crate) fn head_of(
    x: Input<'_>,
    heads: Heads,
    rows: usize,
    task: usize,
    row: usize,
) -> Input<'_> {
    x.part(place(heads, rows, task, row), heads.size)
}

/// Rounds numbers into `to`, two to a place, then zeros.
#[inline(always)]
pub(crate) fn round<M: Micro>(x: Input<'_>, to: &mut [f32]) {
    match x {
        Input::Plain(x) => M::round(x, to),
        Input::Rounded(x) => {
            let (places, zeros) = to.split_at_mut(x.len().min(to.len()));
            for (to, from) in places.iter_mut().zip(x) {
                *to = *from;
            }
            zeros.fill(0.0);
        }
    }
}

/// Packs the `rows` rows of head `task` of `x` as columns: a column for each row, padded with zeros.
#[inline(always)]
pub(crate) fn pack_across<M: Micro>(
    x: Input<'_>,
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
            let mut places = to.iter_mut().skip(j).step_by(width);
            let from = match row < rows {
                true => head_of(x, heads, rows, task, row),
                false => Input::Plain(&[]),
            };
            match (columns.precision, from) {
                (Precision::F32, Input::Plain(from)) => fill(places, from.iter().copied()),
                // Refused before.
                (Precision::F32, Input::Rounded(_)) => places.for_each(|to| *to = 0.0),
                (Precision::Bf16, from) => {
                    for first in (0..columns.depth).step_by(RUN) {
                        let mut rounded = [0.0; RUN];
                        let at = (2 * first).min(from.len());
                        let part = from.part(at, (from.len() - at).min(2 * RUN));
                        round::<M>(part, &mut rounded);
                        let places = places.by_ref().take(columns.depth - first);
                        places.zip(&rounded).for_each(|(to, pair)| *to = *pair);
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
    x: Input<'_>,
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
        let part = |row: usize| match row < rows {
            true => {
                let row = head_of(x, heads, rows, task, row);
                let at = column.min(row.len());
                row.part(at, (row.len() - at).min(width))
            }
            false => Input::Plain(&[]),
        };
        for (i, to) in to.chunks_exact_mut(width).enumerate() {
            match (columns.precision, part(i)) {
                (Precision::F32, Input::Plain(part)) => fill(to.iter_mut(), part.iter().copied()),
                // Refused before.
                (Precision::F32, Input::Rounded(_)) => to.fill(0.0),
                (Precision::Bf16, _) => {
                    let mut rooms = [[0.0; 32]; 2];
                    let [first, second] = &mut rooms;
                    let first = part(2 * i).widened::<M::Vector>(first);
                    let second = part(2 * i + 1).widened::<M::Vector>(second);
                    turns::<M::Vector>(first, second, to);
                }
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
