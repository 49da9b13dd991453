//! The tile instructions in software.
//!
//! For: testing the tiles on a CPU without AMX, and the CPU's against their definition (Intel's
//! Software Developer's Manual, volume 2, TDPBF16PS). Not for: speed.
//!
//! A use that the CPU would fault on panics. NaNs are NaNs, without their payloads.

use super::instructions::{Config, Instructions};
use super::{GROUP, LINE};
use crate::isa::{Micro, Portable};

/// Registers of 16 rows of 16 words.
#[derive(Default)]
pub(crate) struct Emulated {
    shapes: [Shape; 8],
    words: [[[u32; LINE / 4]; GROUP]; 8],
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Shape {
    rows: usize,
    /// Words in a row.
    words: usize,
}

/// Below this a result, rounded to the 24 bits of an f32 of any exponent, is below the least normal
/// one: half a unit under it ties to even, which it is.
const TINY: f64 = f32::MIN_POSITIVE as f64 * (1.0 - 1.0 / (1_u64 << 25) as f64);

/// Denormals are zeros.
fn flushed(x: f32) -> f32 {
    match x.is_subnormal() {
        true => 0.0_f32.copysign(x),
        false => x,
    }
}

/// a · b + c in one rounding to the nearest, ties to even; denormals in and out are zeros. The test
/// for a tiny result needs 53 bits: a and b have 8 bits each, or one of them is 1.
fn fused(a: f32, b: f32, c: f32) -> f32 {
    let (a, b, c) = (flushed(a), flushed(b), flushed(c));
    let sum = a.mul_add(b, c);
    match (f64::from(a) * f64::from(b) + f64::from(c)).abs() < TINY {
        true => 0.0_f32.copysign(sum),
        false => sum,
    }
}

/// The two bf16 in a word, as f32.
fn pair(word: u32) -> [f32; 2] {
    [
        f32::from_bits(word << 16),
        f32::from_bits(word & 0xFFFF_0000),
    ]
}

impl Emulated {
    fn shape<const T: usize>(&self) -> Shape {
        let shape = self.shapes[T];
        assert!(shape != Shape::default(), "tile {T} has no shape");
        shape
    }
}

impl Instructions for Emulated {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        Portable::fma(a, b, c)
    }

    unsafe fn configure(&mut self, config: &Config) {
        let Config {
            palette,
            start_row,
            reserved,
            bytes,
            rows,
        } = *config;
        assert!(palette == 1 && start_row == 0 && reserved == [0; 14]);
        assert!(bytes[8..] == [0; 8] && rows[8..] == [0; 8]);
        self.words = Default::default();
        for (shape, (rows, bytes)) in self.shapes.iter_mut().zip(rows.into_iter().zip(bytes)) {
            let (rows, bytes) = (usize::from(rows), usize::from(bytes));
            assert!(rows <= GROUP && bytes <= LINE && (rows == 0) == (bytes == 0));
            assert!(bytes.is_multiple_of(4));
            *shape = Shape {
                rows,
                words: bytes / 4,
            };
        }
    }

    unsafe fn release(&mut self) {
        *self = Self::default();
    }

    unsafe fn zero<const T: usize>(&mut self) {
        self.shape::<T>();
        self.words[T] = Default::default();
    }

    unsafe fn load<const T: usize>(&mut self, from: *const u8, pitch: usize) {
        let shape = self.shape::<T>();
        self.words[T] = Default::default();
        for (r, row) in self.words[T].iter_mut().enumerate().take(shape.rows) {
            // As the CPU takes it, an address is a number.
            let at = from.expose_provenance().wrapping_add(r.wrapping_mul(pitch));
            let at = std::ptr::with_exposed_provenance::<u32>(at);
            for (w, word) in row.iter_mut().enumerate().take(shape.words) {
                // SAFETY: the caller lets every row be read.
                *word = unsafe { at.add(w).read_unaligned() };
            }
        }
    }

    unsafe fn store<const T: usize>(&mut self, to: *mut u8, pitch: usize) {
        let shape = self.shape::<T>();
        for (r, row) in self.words[T].iter().enumerate().take(shape.rows) {
            let at = to.expose_provenance().wrapping_add(r.wrapping_mul(pitch));
            let at = std::ptr::with_exposed_provenance_mut::<u32>(at);
            for (w, word) in row.iter().enumerate().take(shape.words) {
                // SAFETY: the caller lets every row be written.
                unsafe { at.add(w).write_unaligned(*word) };
            }
        }
    }

    unsafe fn dot<const C: usize, const A: usize, const B: usize>(&mut self) {
        let (c, a, b) = (self.shape::<C>(), self.shape::<A>(), self.shape::<B>());
        assert!(C != A && A != B && B != C, "one register twice");
        assert!(
            c.rows == a.rows && c.words == b.words && a.words == b.rows,
            "shapes"
        );
        for m in 0..c.rows {
            // The first and the second of each pair are added up apart.
            let mut sums = [[0.0_f32; 2]; LINE / 4];
            for (a, b) in self.words[A][m].iter().zip(&self.words[B]).take(a.words) {
                let a = pair(*a);
                for (sums, b) in sums.iter_mut().zip(b).take(c.words) {
                    let b = pair(*b);
                    *sums = [fused(a[0], b[0], sums[0]), fused(a[1], b[1], sums[1])];
                }
            }
            for (word, sums) in self.words[C][m].iter_mut().zip(sums).take(c.words) {
                let sum = fused(1.0, sums[0], sums[1]);
                *word = fused(1.0, f32::from_bits(*word), sum).to_bits();
            }
        }
    }
}
