//! A convolution's input as tile registers take it: rounded, with zeros around it, and so that the windows
//! of 16 neighbouring results lie at equal distances.
//!
//! For: paths whose tiles are loaded so ([`crate::isa::Micro::EVEN`]). Not for: paths that take a row from
//! anywhere, which read the map as it lies (`conv`).
//!
//! Where a line of results is whole groups of 16, that is the map with its border. Elsewhere a group goes on
//! in the next line; then there is a copy of the map for each column of the kernel, moved by that column,
//! whose lines have no border and follow each other as the results do.

use crate::conv::{Conv, Size};
use crate::error::Result;
use crate::finish::{Finish, Plus};
use crate::isa::{Micro, Precision, Task};
use crate::memory::with_scratch;
use crate::product::{Rows, product};
use crate::share::chunks;
use crate::values::{Input, Output};

/// Results that must lie evenly: the rows of a tile register.
const GROUP: usize = 16;
/// Bytes of rounded maps at a time: what a thread keeps for the next call.
const AT_ONCE: usize = 16 << 20;
/// Bytes of rounded maps that every task makes for itself: what another core made comes slowly.
const OWN: usize = 96 << 10;
/// Numbers that one task rounds, about.
const ROUND: usize = 1 << 15;

/// The convolution `conv` of `x` (`from`) into `out` (`to`), all lengths checked by the caller, by maps
/// that are made a band of lines at a time.
pub(crate) fn run(
    conv: &Conv,
    (x, from): (Input<'_>, Size),
    finish: Finish<'_>,
    (out, to): (Output<'_>, Size),
) -> Result<()> {
    let whole = Band {
        conv,
        from,
        to,
        first: 0,
    };
    if whole.bytes() <= AT_ONCE {
        return whole.run(x, finish, out);
    }
    // Sample by sample, and of each as many lines as fit; one at least.
    let line = Band {
        to: Size { n: 1, h: 1, ..to },
        ..whole
    };
    let lines = (AT_ONCE / line.bytes().max(1)).clamp(1, to.h);
    let sample = (from.h * from.w * from.c, to.h * to.w * to.c);
    let (out, each) = match out {
        Output::Plain(out) => (out, 1),
        Output::Rounded(out) => (out, 2),
    };
    for (n, out) in out.chunks_exact_mut((sample.1 / each).max(1)).enumerate() {
        let x = x.part(n * sample.0, sample.0);
        let width = to.w * to.c;
        for (i, out) in out.chunks_mut(lines * width / each).enumerate() {
            let band = Band {
                from: Size { n: 1, ..from },
                to: Size {
                    n: 1,
                    h: each * out.len() / width,
                    ..to
                },
                first: i * lines,
                ..whole
            };
            let at = n * sample.1 + i * lines * width;
            let plus = match finish.plus {
                Plus::Nothing => Plus::Nothing,
                Plus::PerSample(x) => {
                    Plus::PerSample(x.get(n * to.c..(n + 1) * to.c).unwrap_or_default())
                }
                Plus::Residual(x) => Plus::Residual(x.part(at, each * out.len())),
            };
            let out = match each {
                1 => Output::Plain(out),
                _ => Output::Rounded(out),
            };
            band.run(x, Finish { plus, ..finish }, out)?;
        }
    }
    Ok(())
}

/// Some lines of a convolution's results.
#[derive(Clone, Copy)]
struct Band<'a> {
    conv: &'a Conv,
    /// The whole input.
    from: Size,
    /// The lines: of every sample from the same one on.
    to: Size,
    first: usize,
}

impl Band<'_> {
    /// Whether a copy is made for each column of the kernel.
    fn moved(&self) -> bool {
        let window = self.conv.window;
        !self.to.w.is_multiple_of(GROUP) && window.stride == 1 && self.to.w == self.from.w
    }

    fn copies(&self) -> usize {
        match self.moved() {
            true => self.conv.window.size,
            false => 1,
        }
    }

    /// Lines of a sample in a copy, and positions in a line.
    fn lines(&self) -> (usize, usize) {
        let window = self.conv.window;
        let (before, after) = window.padding;
        let columns = match self.moved() {
            true => self.from.w,
            false => self.from.w + before + after,
        };
        ((self.to.h - 1) * window.stride + window.size, columns)
    }

    /// Positions in a copy.
    fn positions(&self) -> usize {
        let (lines, columns) = self.lines();
        self.from.n.min(self.to.n) * lines * columns
    }

    fn bytes(&self) -> usize {
        let w = &self.conv.weights;
        (self.copies() * self.positions())
            .saturating_mul(w.padded)
            .saturating_mul(w.precision.bytes())
    }

    fn run(self, x: Input<'_>, finish: Finish<'_>, out: Output<'_>) -> Result<()> {
        let Size { n, h, w, .. } = self.to;
        let product = |maps: Option<&[f32]>| {
            let windows = Windows {
                band: self,
                x,
                maps: maps.map(|maps| maps.as_ptr().cast()),
            };
            product(&windows, n * h * w, &self.conv.weights, finish, h * w, out)
        };
        if self.bytes() <= OWN {
            return product(None);
        }
        with_scratch(self.bytes() / 4, |maps| {
            self.round(x, maps);
            product(Some(maps))
        })?
    }

    /// Places of a line of a copy.
    fn line(&self) -> usize {
        self.lines().1 * self.conv.weights.padded / 2
    }

    /// Rounds the input into all copies.
    fn round(&self, x: Input<'_>, maps: &mut [f32]) {
        let w = &self.conv.weights;
        let line = self.line();
        let at_once = (ROUND / line.max(1)).max(1);
        let some = |first: usize, to: &mut [f32]| {
            let lines = Lines {
                band: self,
                x,
                first: first * at_once,
                line,
                to,
            };
            w.cpu.run_at(Precision::Bf16, lines);
        };
        let pieces = at_once * line;
        match maps.len() <= pieces {
            true => some(0, maps),
            false => chunks(maps, pieces, some),
        }
    }
}

/// Lines of the copies, to be filled.
struct Lines<'a> {
    band: &'a Band<'a>,
    x: Input<'a>,
    /// The first line's number, of all copies.
    first: usize,
    /// Places of a line.
    line: usize,
    to: &'a mut [f32],
}

impl Task for Lines<'_> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let band = self.band;
        let (window, from) = (band.conv.window, band.from);
        let (lines, _) = band.lines();
        let before = window.padding.0;
        let place = band.conv.weights.padded / 2;
        for (i, to) in self.to.chunks_exact_mut(self.line).enumerate() {
            let i = self.first + i;
            let (copy, i) = (i / (band.to.n * lines), i % (band.to.n * lines));
            let (n, y) = (i / lines, i % lines);
            let y = (band.first * window.stride + y).checked_sub(before);
            let Some(y) = y.filter(|y| *y < from.h) else {
                to.fill(0.0);
                continue;
            };
            let row = (n * from.h + y) * from.w * from.c;
            let row = row..row + from.w * from.c;
            // Positions of the line that lie before the map.
            let (border, skip) = match band.moved() {
                true => (before.saturating_sub(copy), copy.saturating_sub(before)),
                false => (before, 0),
            };
            let (zeros, to) = to.split_at_mut((border * place).min(to.len()));
            zeros.fill(0.0);
            let row = row.start + skip * from.c..row.end;
            let inside = (row.len() / from.c * place).min(to.len());
            let (to, zeros) = to.split_at_mut(inside);
            zeros.fill(0.0);
            match self.x {
                Input::Plain(x) => {
                    let row = x.get(row).unwrap_or_default();
                    for (to, from) in to.chunks_exact_mut(place).zip(row.chunks_exact(from.c)) {
                        M::round(from, to);
                    }
                }
                Input::Rounded(x) => {
                    let row = x.get(row.start / 2..row.start / 2 + inside);
                    to.copy_from_slice(row.unwrap_or_default());
                }
            }
        }
    }
}

/// The windows of a band.
struct Windows<'a> {
    band: Band<'a>,
    x: Input<'a>,
    /// All copies; where there are none, every task makes them.
    maps: Option<*const u8>,
}

// SAFETY: it only reads what its maker borrows.
unsafe impl Sync for Windows<'_> {}

impl Rows for Windows<'_> {
    fn scratch(&self, _: usize) -> usize {
        match self.maps {
            None => self.band.bytes() / 4,
            Some(_) => 0,
        }
    }

    fn makes(&self) -> bool {
        self.maps.is_none()
    }

    fn even(&self) -> bool {
        let to = self.band.to;
        match self.band.moved() {
            true => to.n == 1 || (to.h * to.w).is_multiple_of(GROUP),
            false => to.w.is_multiple_of(GROUP),
        }
    }

    #[inline(always)]
    fn find<M: Micro>(
        &self,
        first: usize,
        count: usize,
        scratch: &mut [f32],
        put: &mut impl FnMut(usize, usize, *const u8),
    ) {
        let band = self.band;
        let maps = match self.maps {
            Some(maps) => maps,
            None => {
                let at = scratch.as_ptr().cast();
                let lines = Lines {
                    band: &band,
                    x: self.x,
                    first: 0,
                    line: band.line(),
                    to: scratch,
                };
                lines.run::<M>();
                at
            }
        };
        let (window, w) = (band.conv.window, &band.conv.weights);
        let bytes = w.padded * w.precision.bytes();
        let (lines, columns) = band.lines();
        let (copy, to) = (band.positions(), band.to);
        // Of rows at equal distances nobody looks at more than the first two of a group.
        let told = if self.even() { 2 } else { GROUP };
        let (mut n, rest) = (first / (to.h * to.w), first % (to.h * to.w));
        let (mut y, mut x) = (rest / to.w, rest % to.w);
        for i in 0..count {
            let taps = if i % GROUP < told { window.size } else { 0 };
            let corner = (n * lines + y * window.stride) * columns + x * window.stride;
            for dy in 0..taps {
                for dx in 0..taps {
                    let moved = match band.moved() {
                        true => dx * copy,
                        false => dx,
                    };
                    let position = corner + dy * columns + moved;
                    debug_assert!(position < band.copies() * copy);
                    // SAFETY: a position of the maps, `bytes` each.
                    let at = unsafe { maps.add(position * bytes) };
                    put(i, dy * window.size + dx, at);
                }
            }
            x += 1;
            if x == to.w {
                (x, y) = (0, y + 1);
                if y == to.h {
                    (y, n) = (0, n + 1);
                }
            }
        }
    }
}
