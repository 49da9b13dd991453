//! What happens to the sums of a product before they are written.
//!
//! For: biases, what is added, gates and activations, while a tile's sums are in the first cache. Not for: the
//! sums (`product`).

use crate::bf16::pair;
use crate::isa::{Beside, Micro};
use crate::math::{self, Act};
use crate::values::Input;
use crate::vector::Vector;
use crate::vector_math;

/// What is added to a product besides its bias.
#[derive(Clone, Copy, Debug, Default)]
pub enum Plus<'a> {
    /// Nothing.
    #[default]
    Nothing,
    /// A row for each sample, at every position of it.
    PerSample(&'a [f32]),
    /// A number for each of the result's.
    Residual(Input<'a>),
}

/// What happens to a product before it is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Finish<'a> {
    /// Added first.
    pub plus: Plus<'a>,
    /// Then applied.
    pub act: Act,
}

/// The result, written by several tasks, each its own rows and columns.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub at: *mut f32,
    /// Numbers in a row.
    pub width: usize,
    /// Whether they are rounded to bf16, two in a place.
    pub rounded: bool,
}

// SAFETY: the tasks of one product write disjoint rectangles of it.
unsafe impl Sync for Place {}

/// A tile's sums on their way into the result, row by row.
pub(crate) struct Ending<'a> {
    pub finish: Finish<'a>,
    pub to: Place,
    /// Rows of a sample.
    pub per_sample: usize,
    /// Of every row the first `lanes` sums are values, and so many further on are their gates.
    pub gates: Option<usize>,
    /// Whether what is multiplied is rounded, and gates are no more exact.
    pub coarse: bool,
    /// The next row to write, and how many there are.
    pub row: usize,
    pub rows: usize,
    /// The first column in the result, and how many are kept.
    pub column: usize,
    pub kept: usize,
    /// The sums of the next row; as many to a row as there are biases.
    pub sums: *mut f32,
    pub bias: &'a [f32],
    /// How many rows are written at a time beside a tile.
    pub share: usize,
}

impl Beside for Ending<'_> {
    /// # Safety
    /// As [`Ending::write`].
    #[inline(always)]
    unsafe fn some<M: Micro>(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.write::<M>(self.share) };
    }
}

impl Ending<'_> {
    /// Writes up to `count` rows where they are whole vectors to which nothing is applied; others are left to
    /// [`Ending::rest`], or every tile's loop would hold the code of all activations.
    ///
    /// # Safety
    /// There are so many rows of sums, which nobody else writes; the result has the rows and columns that are
    /// written, which nobody else does; and what is added is as large as it. Of a rounded one columns are even.
    #[inline(always)]
    pub unsafe fn write<M: Micro>(&mut self, count: usize) {
        let count = count.min(self.rows);
        if count == 0 || !self.is_whole::<M::Vector>() {
            return;
        }
        // SAFETY: the caller's promise; `kept` sums of a row, and gates behind them, are there.
        unsafe {
            match self.gates {
                None => self.whole::<M::Vector, false>(count),
                Some(_) => self.whole::<M::Vector, true>(count),
            }
            self.go_on(count);
        }
    }

    /// Writes all rows that are left.
    ///
    /// # Safety
    /// As [`Ending::write`].
    #[inline(always)]
    pub unsafe fn rest<M: Micro>(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.write::<M>(self.rows) };
        while self.rows > 0 {
            // SAFETY: as above; a row of sums has as many as there are biases.
            unsafe {
                let sums = std::slice::from_raw_parts_mut(self.sums, self.bias.len());
                self.single::<M>(sums);
                self.go_on(1);
            }
        }
    }

    /// Whether rows are whole vectors, and so are the gates, that nothing is applied to.
    #[inline(always)]
    fn is_whole<V: Vector>(&self) -> bool {
        self.finish.act == Act::Identity
            && self.kept.is_multiple_of(V::LANES)
            && self.kept + self.gates.unwrap_or_default() <= self.bias.len()
    }

    /// # Safety
    /// There are `count` rows.
    #[inline(always)]
    unsafe fn go_on(&mut self, count: usize) {
        self.row += count;
        self.rows -= count;
        // SAFETY: the caller's promise.
        self.sums = unsafe { self.sums.add(count * self.bias.len()) };
    }

    /// Rows of whole vectors.
    ///
    /// # Safety
    /// As [`Ending::write`]; the kept columns are whole vectors, and so are their gates.
    #[inline(always)]
    unsafe fn whole<V: Vector, const GATED: bool>(&self, count: usize) {
        let gates = self.gates.unwrap_or_default();
        let (from, bias, width) = (self.sums, self.bias.as_ptr(), self.bias.len());
        for r in 0..count {
            let row = self.row + r;
            let number = row * self.to.width + self.column;
            // SAFETY: this function's promise.
            unsafe {
                let from = from.add(r * width);
                for v in (0..self.kept).step_by(V::LANES) {
                    let sum = |v: usize| V::load(from.add(v)).add(V::load(bias.add(v)));
                    let mut x = sum(v);
                    if GATED {
                        x = x.mul(gelu(sum(v + gates), self.coarse));
                    }
                    match self.finish.plus {
                        Plus::Nothing => {}
                        Plus::PerSample(rows) => {
                            let sample = row / self.per_sample.max(1);
                            let at = sample * self.to.width + self.column + v;
                            x = x.add(V::load(rows.as_ptr().add(at)));
                        }
                        Plus::Residual(Input::Plain(rest)) => {
                            x = x.add(V::load(rest.as_ptr().add(number + v)));
                        }
                        Plus::Residual(Input::Rounded(rest)) => {
                            let rest = rest.as_ptr().cast::<u16>();
                            x = x.add(V::load_bf16(rest.add(number + v)));
                        }
                    }
                    match self.to.rounded {
                        false => x.store(self.to.at.add(number + v)),
                        true => x.store_bf16(self.to.at.cast::<u16>().add(number + v)),
                    }
                }
            }
        }
    }

    /// The next row, number by number where the compiler does no better.
    ///
    /// # Safety
    /// As [`Ending::write`].
    #[inline(always)]
    unsafe fn single<M: Micro>(&self, sums: &mut [f32]) {
        let (row, bias) = (self.row, self.bias);
        match self.gates {
            Some(lanes) => gate::<M::Vector>(sums, bias, lanes, self.coarse),
            None => (sums.iter_mut().zip(bias)).for_each(|(sum, b)| *sum += b),
        }
        let sums = sums.get_mut(..self.kept).unwrap_or_default();
        let number = row * self.to.width + self.column;
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum += match self.finish.plus {
                Plus::Nothing => 0.0,
                Plus::PerSample(rows) => {
                    let sample = row / self.per_sample.max(1);
                    Input::Plain(rows).number(sample * self.to.width + self.column + i)
                }
                Plus::Residual(rest) => rest.number(number + i),
            };
        }
        math::apply::<M>(self.finish.act, sums);
        for (i, sum) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                match self.to.rounded {
                    false => self.to.at.add(number + i).write(*sum),
                    true if i % 2 == 0 => {
                        let next = sums.get(i + 1).copied().unwrap_or_default();
                        self.to.at.add((number + i) / 2).write(pair(*sum, next));
                    }
                    true => {}
                }
            }
        }
    }
}

/// Biases added, every one of the first `lanes` sums is multiplied with the gelu of the one `lanes` further
/// on.
#[inline(always)]
fn gate<V: Vector>(sums: &mut [f32], bias: &[f32], lanes: usize, coarse: bool) {
    if sums.len().min(bias.len()) < 2 * lanes {
        debug_assert!(false, "a gate without its values");
        return;
    }
    for at in (0..lanes).step_by(V::LANES) {
        // SAFETY: it was checked that there are twice as many as `lanes`, a multiple of the vector's.
        unsafe {
            let sum =
                |at: usize| V::load(sums.as_ptr().add(at)).add(V::load(bias.as_ptr().add(at)));
            let value = sum(at).mul(gelu(sum(at + lanes), coarse));
            value.store(sums.as_mut_ptr().add(at));
        }
    }
}

#[inline(always)]
fn gelu<V: Vector>(x: V, coarse: bool) -> V {
    match coarse {
        false => vector_math::gelu(x),
        true => vector_math::coarse_gelu(x),
    }
}
