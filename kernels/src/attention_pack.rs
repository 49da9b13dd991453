//! One head's keys and values in the order in which a tile reads them.
//!
//! For: attention and its derivatives, which pack them at every call. Not for: weights (`pack`), which
//! lie the same way and are packed once.

use crate::attention::Heads;
use crate::bf16::pair;
use crate::isa::{Cpu, Precision};
use crate::pack::Panels;

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
pub(crate) fn pack_across(
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
        for j in 0..width {
            let row = p * panels.wide + j;
            let from = match row < rows {
                true => head(x, heads, rows, task, row),
                false => &[],
            };
            let places = to.iter_mut().skip(j).step_by(width);
            match columns.precision {
                Precision::F32 => fill(places, from.iter().copied()),
                Precision::Bf16 => {
                    let (pairs, last) = from.as_chunks::<2>();
                    let pairs = pairs.iter().map(|[a, b]| pair(*a, *b));
                    fill(places, pairs.chain(last.iter().map(|a| pair(*a, 0.0))));
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
pub(crate) fn pack_along(
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
        let part = |row: usize| match row < rows {
            true => (head(x, heads, rows, task, row).get(column..)).unwrap_or_default(),
            false => &[],
        };
        for (i, to) in to.chunks_exact_mut(width).enumerate() {
            match columns.precision {
                Precision::F32 => fill(to.iter_mut(), part(i).iter().copied()),
                Precision::Bf16 => {
                    let second = part(2 * i + 1).iter().copied();
                    let second = second.chain(std::iter::repeat(0.0));
                    let pairs = part(2 * i).iter().zip(second);
                    fill(to.iter_mut(), pairs.map(|(a, b)| pair(*a, b)));
                }
            }
        }
    }
}
