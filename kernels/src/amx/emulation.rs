//! The tile instructions in software.
//!
//! For: testing the tiles on a CPU without AMX, and the CPU's against their definition (Intel's
//! Software Developer's Manual, volume 2, TDPBF16PS). Not for: speed.
//!
//! A use that the CPU would fault on panics. NaNs are NaNs, without their payloads.

use super::instructions::{Config, Instructions};
use super::{GROUP, LINE};
use crate::isa::{Micro, Portable};
use crate::vector::Four;

/// Registers of 16 rows of 16 words.
#[derive(Default)]
pub(crate) struct Emulated {
    shapes: [Shape; 8],
    words: [[Row; GROUP]; 8],
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
#[inline(always)]
fn flushed(x: f32) -> f32 {
    match x.is_subnormal() {
        true => 0.0_f32.copysign(x),
        false => x,
    }
}

/// a · b + c in one rounding to the nearest, ties to even; denormals in and out are zeros. The test
/// for a tiny result needs 53 bits: a and b have 8 bits each, or one of them is 1.
#[inline(always)]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    let (a, b, c) = (flushed(a), flushed(b), flushed(c));
    let sum = a.mul_add(b, c);
    match (f64::from(a) * f64::from(b) + f64::from(c)).abs() < TINY {
        true => 0.0_f32.copysign(sum),
        false => sum,
    }
}

/// The two bf16 in a word, as f32.
#[inline(always)]
fn pair(word: u32) -> [f32; 2] {
    [
        f32::from_bits(word << 16),
        f32::from_bits(word & 0xFFFF_0000),
    ]
}

type Row = [u32; LINE / 4];

/// Adds to the first `columns` of every row of `c` what its row of `a`, `pairs` long, and `b` give.
#[inline(always)]
fn add(c: &mut [Row], a: &[Row; GROUP], b: &[Row; GROUP], (pairs, columns): (usize, usize)) {
    for (c, a) in c.iter_mut().zip(a) {
        // The first and the second of each pair are added up apart.
        let (mut firsts, mut seconds) = ([0.0_f32; LINE / 4], [0.0_f32; LINE / 4]);
        for (a, b) in a.iter().zip(b).take(pairs) {
            let a = pair(*a);
            for ((first, second), b) in firsts.iter_mut().zip(&mut seconds).zip(b) {
                let b = pair(*b);
                *first = fused(a[0], b[0], *first);
                *second = fused(a[1], b[1], *second);
            }
        }
        let sums = firsts.into_iter().zip(seconds);
        for (word, (first, second)) in c.iter_mut().zip(sums).take(columns) {
            let sum = fused(1.0, first, second);
            *word = fused(1.0, f32::from_bits(*word), sum).to_bits();
        }
    }
}

/// [`add`], where products that are rounded once cost no call.
///
/// # Safety
/// The CPU has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_with_fma(c: &mut [Row], a: &[Row; GROUP], b: &[Row; GROUP], shape: (usize, usize)) {
    add(c, a, b, shape);
}

impl Emulated {
    fn shape<const T: usize>(&self) -> Shape {
        let shape = self.shapes[T];
        assert!(shape != Shape::default(), "tile {T} has no shape");
        shape
    }
}

impl Instructions for Emulated {
    type Vector = Four;

    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        Portable::fma(a, b, c)
    }

    #[inline(always)]
    fn round(from: &[f32], to: &mut [f32]) {
        crate::bf16::round(from, to);
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
        let (a_words, b_words) = (self.words[A], self.words[B]);
        let c_words = &mut self.words[C][..c.rows];
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
        {
            // SAFETY: the CPU has both.
            return unsafe { add_with_fma(c_words, &a_words, &b_words, (a.words, c.words)) };
        }
        add(c_words, &a_words, &b_words, (a.words, c.words));
    }
}
