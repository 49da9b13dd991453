//! One head's keys and values in the order in which a tile reads them.
//!
//! For: attention and its derivatives, which pack them at every call. Not for: weights (`pack`), which
//! lie the same way and are packed once.

use crate::attention::Heads;
use crate::bf16::pair;
use crate::isa::{self, Cpu, Micro, Precision};
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
            copy(x, places);
            fill(zeros);
        }
    }
}

/// Numbers that are moved at a time.
const MOVED: usize = 16;

/// As many of the first numbers of `from` as `to` takes: few, for which a call of the system's would take longer.
#[inline(always)]
fn copy(from: &[f32], to: &mut [f32]) {
    let (from, from_rest) = from.as_chunks::<MOVED>();
    let (to, to_rest) = to.as_chunks_mut::<MOVED>();
    (to.iter_mut().zip(from)).for_each(|(to, from)| *to = *from);
    (to_rest.iter_mut().zip(from_rest)).for_each(|(to, from)| *to = *from);
}

/// Zeros, few of them.
#[inline(always)]
fn fill(to: &mut [f32]) {
    let (to, rest) = to.as_chunks_mut::<MOVED>();
    to.iter_mut().for_each(|to| *to = [0.0; MOVED]);
    rest.iter_mut().for_each(|to| *to = 0.0);
}

/// Rows that are asked for before they are packed.
const AHEAD: usize = 16;

/// Asks the memory for row `row`, if there is one: a head's numbers lie a row apart, which no CPU foresees.
#[inline(always)]
fn fetch_row(x: Input<'_>, heads: Heads, rows: usize, task: usize, row: usize) {
    if row < rows
        && let Input::Plain(x) | Input::Rounded(x) = head_of(x, heads, rows, task, row)
    {
        isa::fetch(x.as_ptr(), x.len());
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
    let Columns {
        panels,
        depth,
        precision,
    } = columns;
    let panel = (panels.wide * depth).max(1);
    let each = 4 / precision.bytes();
    for (p, to) in to.chunks_mut(panel).enumerate() {
        let width = panels.width(p);
        for j in 0..width {
            let row = p * panels.wide + j;
            let from = match row < rows {
                true => head_of(x, heads, rows, task, row),
                false => Input::Plain(&[]),
            };
            fetch_row(x, heads, rows, task, row + AHEAD);
            for first in (0..depth).step_by(RUN) {
                let count = RUN.min(depth - first);
                let at = (each * first).min(from.len());
                let part = from.part(at, (from.len() - at).min(each * count));
                let mut room = [0.0; RUN];
                let numbers = match (precision, part) {
                    (Precision::F32, Input::Plain(part)) => part,
                    (Precision::Bf16, Input::Rounded(part)) => part,
                    (Precision::Bf16, Input::Plain(part)) => {
                        M::round(part, &mut room);
                        &room
                    }
                    // Refused before.
                    (Precision::F32, Input::Rounded(_)) => &room,
                };
                let places = to.get_mut(first * width + j..).unwrap_or_default();
                put_across(numbers, places, width, count);
            }
        }
    }
}

/// Puts `numbers`, then zeros, into `count` places `width` apart.
#[inline(always)]
fn put_across(numbers: &[f32], places: &mut [f32], width: usize, count: usize) {
    if count == 0 || (count - 1) * width >= places.len() {
        debug_assert!(count == 0, "no room for {count} numbers {width} apart");
        return;
    }
    let to = places.as_mut_ptr();
    let numbers = numbers.get(..count).unwrap_or(numbers);
    for (i, number) in numbers.iter().enumerate() {
        // SAFETY: at most `count` numbers, for whose last one there is a place.
        unsafe { to.add(i * width).write(*number) };
    }
    for i in numbers.len()..count {
        // SAFETY: as above.
        unsafe { to.add(i * width).write(0.0) };
    }
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
            if columns.precision == Precision::F32 {
                match part(i) {
                    Input::Plain(part) => put_across(part, to, 1, width),
                    // Refused before.
                    Input::Rounded(_) => to.fill(0.0),
                }
                continue;
            }
            if p == 0 {
                fetch_row(x, heads, rows, task, 2 * i + AHEAD);
                fetch_row(x, heads, rows, task, 2 * i + 1 + AHEAD);
            }
            match (part(2 * i), part(2 * i + 1)) {
                (Input::Rounded(first), Input::Rounded(second)) => {
                    turns_rounded(first, second, to);
                }
                (first, second) => {
                    let mut rooms = [[0.0; 32]; 2];
                    let [one, two] = &mut rooms;
                    let first = first.widened::<M::Vector>(one);
                    let second = second.widened::<M::Vector>(two);
                    turns::<M::Vector>(first, second, to);
                }
            }
        }
    }
}

/// The numbers of two rounded rows of one length by turns, then zeros.
#[inline(always)]
fn turns_rounded(first: &[f32], second: &[f32], to: &mut [f32]) {
    let count = 2 * first.len().min(second.len());
    let (to, zeros) = to.split_at_mut(count.min(to.len()));
    let (pairs, _) = to.as_chunks_mut::<2>();
    for ([low, high], (a, b)) in pairs.iter_mut().zip(first.iter().zip(second)) {
        let (a, b) = (a.to_bits(), b.to_bits());
        *low = f32::from_bits(a & 0xFFFF | b << 16);
        *high = f32::from_bits(a >> 16 | b & 0xFFFF_0000);
    }
    zeros.fill(0.0);
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
