//! Products on tile registers: AMX-BF16, or the same instructions in software.
//!
//! For: [`Tiles`], the tile of a matrix product that [`crate::isa`] asks a path for, written once over
//! the instructions ([`Instructions`]), real or emulated. Not for: choosing them ([`Cpu`]), or vectors,
//! which stay AVX-512's.
//!
//! 32 rows by 32 columns of sums lie in four registers of 16 × 16; a step takes 32 inputs, two
//! registers of rows and two of packed columns. Columns lie as they do for `vdpbf16ps`: pairs of
//! inputs side by side. A register is loaded from rows at equal distances, so rows that do not lie so
//! (a convolution's at the border of its map) are copied once for all columns ([`straighten`]).
//!
//! [`Cpu`]: crate::Cpu

mod emulation;
mod instructions;
mod permission;
mod straight;

use std::marker::PhantomData;

pub(crate) use emulation::Emulated;
#[cfg(target_arch = "x86_64")]
pub(crate) use instructions::Real;
pub(crate) use permission::{Refusal, ask};
pub(crate) use straight::straighten;

use crate::isa::{self, Beside, Block, Chunk, Micro, Tile};
use instructions::{Config, Instructions};

/// Rows of a register.
const GROUP: usize = 16;
/// Bytes in a row of a register: 32 inputs, or 16 sums.
const LINE: usize = 64;

/// Tiles by the instructions `I`.
pub(crate) struct Tiles<I>(PhantomData<I>);

/// This thread's tile registers, from the first product to the drop.
pub(crate) struct Unit<I: Instructions> {
    instructions: I,
    /// The rows that they are shaped for; 0 before the first.
    rows: usize,
    /// What the next tile fetches, and how many lines at each step.
    ahead: (*const u8, usize),
    // Registers belong to a thread: neither Send nor Sync.
    _thread: PhantomData<*const ()>,
}

impl<I: Instructions> Default for Unit<I> {
    fn default() -> Self {
        Unit {
            instructions: I::default(),
            rows: 0,
            ahead: (std::ptr::null(), 0),
            _thread: PhantomData,
        }
    }
}

impl<I: Instructions> Unit<I> {
    /// Shapes the registers for `rows` rows, which empties them, unless they are.
    ///
    /// # Safety
    /// The CPU has the instructions, and the operating system lets the process use them.
    #[inline(always)]
    unsafe fn shape(&mut self, rows: usize) {
        if self.rows != rows {
            // SAFETY: the caller's promise.
            unsafe { self.instructions.configure(&Config::new(rows)) };
            self.rows = rows;
        }
    }
}

impl<I: Instructions> Drop for Unit<I> {
    fn drop(&mut self) {
        if self.rows > 0 {
            // SAFETY: the registers were shaped, so they can be used.
            unsafe { self.instructions.release() };
        }
    }
}

impl<I: Instructions> Micro for Tiles<I> {
    const LANES: usize = 16;
    const NARROW: usize = 16;
    const ROWS: usize = 2 * GROUP;
    const STEP: usize = 32;
    const EVEN: bool = true;
    const BESIDE: bool = true;
    // Every CPU with tiles has 2 MiB of second cache.
    const CHUNK: Chunk = Chunk {
        bytes: 1312 << 10,
        rows: 512,
        panel: 384 << 10,
        block: 96 << 10,
        dense: 20 << 10,
        worth: 1 << 19,
    };
    const ATTENTION: Block = Block {
        keys: 256,
        queries: 64,
        few: 32,
    };

    type Unit = Unit<I>;
    type Vector = I::Vector;

    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        I::fma(a, b, c)
    }

    #[inline(always)]
    fn round(from: &[f32], to: &mut [f32]) {
        I::round(from, to);
    }

    #[inline(always)]
    unsafe fn tile(unit: &mut Unit<I>, rows: usize, width: usize, t: Tile) {
        // SAFETY: the caller's promise.
        unsafe { Self::tile_beside(unit, rows, width, t, &mut ()) };
    }

    #[inline(always)]
    unsafe fn tile_beside(
        unit: &mut Unit<I>,
        rows: usize,
        width: usize,
        t: Tile,
        beside: &mut impl Beside,
    ) {
        debug_assert!((1..=Self::ROWS).contains(&rows) && [16, 32].contains(&width));
        // SAFETY: the caller's promise.
        unsafe {
            unit.shape(rows);
            let ahead = std::mem::replace(&mut unit.ahead, (std::ptr::null(), 0));
            let tiles = &mut unit.instructions;
            match (rows > GROUP, width > 16) {
                (false, false) => block::<I, 1, 1>(tiles, rows, t, ahead, beside),
                (false, true) => block::<I, 1, 2>(tiles, rows, t, ahead, beside),
                (true, false) => block::<I, 2, 1>(tiles, rows, t, ahead, beside),
                (true, true) => block::<I, 2, 2>(tiles, rows, t, ahead, beside),
            }
        }
    }

    #[inline(always)]
    fn ahead(unit: &mut Unit<I>, from: *const u8, lines: usize) {
        unit.ahead = (from, lines);
    }
}

/// The place of `rows` rows at equal distances whose pointers `at` has, and the distance in bytes.
///
/// # Safety
/// `at` leads to `rows` pointers, at least one.
#[inline(always)]
unsafe fn line(at: *const *const u8, rows: usize) -> (*const u8, usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let first = at.read();
        let pitch = match rows {
            1 => 0,
            _ => at.add(1).read().addr().wrapping_sub(first.addr()),
        };
        (first, pitch)
    }
}

/// `R` registers of rows, `rows` in all, by `V` of columns. Registers 0 to 3 hold the sums, two to a
/// register of rows; 4 and 5 rows; 6 and 7 columns.
///
/// # Safety
/// As [`Micro::tile`], and the registers are shaped for `rows`, which fill `R`.
#[inline(always)]
unsafe fn block<I: Instructions, const R: usize, const V: usize>(
    tiles: &mut I,
    rows: usize,
    t: Tile,
    (mut ahead, lines): (*const u8, usize),
    beside: &mut impl Beside,
) {
    let pitch = V * LINE;
    let out_pitch = 4 * t.stride;
    let upper = t.out.cast::<u8>();
    let lower = upper.wrapping_add(GROUP * out_pitch);
    macro_rules! sums {
        ($do:ident $(, $pitch:expr)?) => {
            tiles.$do::<0>($(upper, $pitch)?);
            if V > 1 {
                tiles.$do::<1>($(upper.wrapping_add(LINE), $pitch)?);
            }
            if R > 1 {
                tiles.$do::<2>($(lower, $pitch)?);
            }
            if R > 1 && V > 1 {
                tiles.$do::<3>($(lower.wrapping_add(LINE), $pitch)?);
            }
        };
    }
    // SAFETY: the caller's promise: `taps · rows` pointers, each to `steps` steps of inputs behind
    // `skip`; `taps · steps` steps of columns, 16 rows of `pitch` bytes each; `rows` rows of sums.
    unsafe {
        if t.fresh {
            sums!(zero);
        } else {
            sums!(load, out_pitch);
        }
        let mut b = t.b;
        for tap in 0..t.taps {
            let at = t.rows.add(tap * rows);
            let (upper, upper_pitch) = line(at, rows.min(GROUP));
            let (lower, lower_pitch) = match R {
                1 => (upper, upper_pitch),
                _ => line(at.add(GROUP), rows - GROUP),
            };
            let mut skip = t.skip;
            for _ in 0..t.steps {
                for _ in 0..lines {
                    isa::fetch_line(ahead);
                    ahead = ahead.wrapping_add(LINE);
                }
                tiles.load::<6>(b, pitch);
                tiles.load::<4>(upper.wrapping_add(skip), upper_pitch);
                tiles.dot::<0, 4, 6>();
                if V > 1 {
                    tiles.load::<7>(b.wrapping_add(LINE), pitch);
                    tiles.dot::<1, 4, 7>();
                }
                if R > 1 {
                    tiles.load::<5>(lower.wrapping_add(skip), lower_pitch);
                    tiles.dot::<2, 5, 6>();
                }
                if R > 1 && V > 1 {
                    tiles.dot::<3, 5, 7>();
                }
                beside.some::<Tiles<I>>();
                b = b.wrapping_add(GROUP * pitch);
                skip += LINE;
            }
        }
        sums!(store, out_pitch);
    }
}

#[cfg(test)]
mod tests;
