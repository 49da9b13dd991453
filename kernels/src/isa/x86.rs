//! The paths of x86-64: AVX2, AVX-512 and bf16 dot products, and the way into AMX's.
//!
//! For: [`Micro`] by those instructions, and running a [`Task`] where they may be used. Not for: tile
//! registers ([`crate::amx`]).

use std::arch::x86_64::*;

use super::{Micro, Task, Tile};
use crate::amx::{Real, Tiles};
use crate::halves::Storage;
use crate::vector;
use crate::vector::x86::{widen_256, widen_512, widen_f16_256, widen_f16_512};

pub struct Avx2;
pub struct Avx512;
pub struct Bf16;

/// # Safety
/// The CPU has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn with_avx2<T: Task>(task: T) -> T::Out {
    task.run::<Avx2>()
}

/// # Safety
/// The CPU has AVX-512 F, BW, DQ and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub unsafe fn with_avx512<T: Task>(task: T) -> T::Out {
    task.run::<Avx512>()
}

/// # Safety
/// As [`with_avx512`], and it has AVX512-BF16 and VBMI.
#[target_feature(enable = "avx512vbmi,avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub unsafe fn with_bf16<T: Task>(task: T) -> T::Out {
    task.run::<Bf16>()
}

/// # Safety
/// As [`with_bf16`], and it has AMX-BF16, which the operating system lets this process use.
#[target_feature(enable = "avx512vbmi,avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub unsafe fn with_amx<T: Task>(task: T) -> T::Out {
    task.run::<Tiles<Real>>()
}

#[target_feature(enable = "avx2,fma")]
unsafe fn tile256<const R: usize, const V: usize>(t: Tile) {
    // SAFETY: the promise of [`Micro::tile`], which alone calls this.
    unsafe {
        tile_body!(
            t,
            R,
            V,
            (f32, f32),
            8,
            1,
            true,
            _mm256_setzero_ps(),
            |p: *mut f32| _mm256_loadu_ps(p),
            |p: *mut f32, x| _mm256_storeu_ps(p, x),
            |p: *const f32| _mm256_set1_ps(*p),
            |p: *const f32| _mm256_loadu_ps(p),
            |a, b, c| _mm256_fmadd_ps(a, b, c)
        );
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn tile512<const R: usize, const V: usize>(t: Tile) {
    // SAFETY: the promise of [`Micro::tile`], which alone calls this.
    unsafe {
        tile_body!(
            t,
            R,
            V,
            (f32, f32),
            16,
            1,
            true,
            _mm512_setzero_ps(),
            |p: *mut f32| _mm512_loadu_ps(p),
            |p: *mut f32, x| _mm512_storeu_ps(p, x),
            |p: *const f32| _mm512_set1_ps(*p),
            |p: *const f32| _mm512_loadu_ps(p),
            |a, b, c| _mm512_fmadd_ps(a, b, c)
        );
    }
}

/// Tiles of columns that are kept in halves: `$load` makes a vector of f32 of those at a pointer, which also goes to
/// where the next tile reads it.
macro_rules! of_halves {
    ($name:ident, $features:literal, $lanes:literal, ($zero:ident, $read:ident, $store:ident, $set:ident, $fma:ident),
     $load:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $name<const R: usize, const V: usize>((t, widened): (Tile, *mut f32)) {
            let mut to = widened;
            // SAFETY: the promise of [`Micro::tile_of_halves`], which alone calls this.
            unsafe {
                tile_body!(
                    t,
                    R,
                    V,
                    (f32, u16),
                    $lanes,
                    1,
                    false,
                    $zero(),
                    |p: *mut f32| $read(p),
                    |p: *mut f32, x| $store(p, x),
                    |p: *const f32| $set(*p),
                    |p: *const u16| {
                        let x = $load(p);
                        $store(to, x);
                        to = to.add($lanes);
                        x
                    },
                    |a, b, c| $fma(a, b, c)
                );
            }
        }
    };
}

/// The instructions of a tile of 256 bits, or of 512.
macro_rules! of_halves_by {
    (256, $name:ident, $load:expr) => {
        of_halves!(
            $name,
            "avx2,fma,f16c",
            8,
            (
                _mm256_setzero_ps,
                _mm256_loadu_ps,
                _mm256_storeu_ps,
                _mm256_set1_ps,
                _mm256_fmadd_ps
            ),
            $load
        );
    };
    (512, $name:ident, $load:expr) => {
        of_halves!(
            $name,
            "avx512f",
            16,
            (
                _mm512_setzero_ps,
                _mm512_loadu_ps,
                _mm512_storeu_ps,
                _mm512_set1_ps,
                _mm512_fmadd_ps
            ),
            $load
        );
    };
}

of_halves_by!(256, tile256_f16, widen_f16_256);
of_halves_by!(256, tile256_bf16, widen_256);
of_halves_by!(512, tile512_f16, widen_f16_512);
of_halves_by!(512, tile512_bf16, widen_512);

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile_bf16<const R: usize, const V: usize>(t: Tile) {
    let pair = |x: __m512i| -> __m512bh {
        // SAFETY: both are 512 bits without invalid patterns.
        unsafe { std::mem::transmute(x) }
    };
    // SAFETY: the promise of [`Micro::tile`], which alone calls this.
    unsafe {
        tile_body!(
            t,
            R,
            V,
            (u16, u16),
            16,
            2,
            true,
            _mm512_setzero_ps(),
            |p: *mut f32| _mm512_loadu_ps(p),
            |p: *mut f32, x| _mm512_storeu_ps(p, x),
            |p: *const u16| pair(_mm512_set1_epi32(p.cast::<i32>().read_unaligned())),
            |p: *const u16| pair(_mm512_loadu_si512(p.cast())),
            |a, b, c| _mm512_dpbf16_ps(c, a, b)
        );
    }
}

/// As [`tile_bf16`], on vectors of half the width.
#[target_feature(enable = "avx512f,avx512vl,avx512bf16")]
unsafe fn half_bf16<const R: usize, const V: usize>(t: Tile) {
    let pair = |x: __m256i| -> __m256bh {
        // SAFETY: both are 256 bits without invalid patterns.
        unsafe { std::mem::transmute(x) }
    };
    // SAFETY: the promise of [`Micro::tile`], which alone calls this.
    unsafe {
        tile_body!(
            t,
            R,
            V,
            (u16, u16),
            8,
            2,
            true,
            _mm256_setzero_ps(),
            |p: *mut f32| _mm256_loadu_ps(p),
            |p: *mut f32, x| _mm256_storeu_ps(p, x),
            |p: *const u16| pair(_mm256_set1_epi32(p.cast::<i32>().read_unaligned())),
            |p: *const u16| pair(_mm256_loadu_si256(p.cast())),
            |a, b, c| _mm256_dpbf16_ps(c, a, b)
        );
    }
}

/// [`bf16::round`] by the instruction for it.
///
/// # Safety
/// The CPU has AVX512-BF16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub unsafe fn round(from: &[f32], to: &mut [f32]) {
    let (whole, rest) = from.as_chunks::<32>();
    let (places, last) = to.split_at_mut((16 * whole.len()).min(to.len()));
    for (to, from) in places.as_chunks_mut::<16>().0.iter_mut().zip(whole) {
        // SAFETY: 32 numbers are read, and the 16 places that they take as bf16 written.
        unsafe {
            let first = _mm512_loadu_ps(from.as_ptr());
            let second = _mm512_loadu_ps(from.as_ptr().add(16));
            let both = _mm512_cvtne2ps_pbh(second, first);
            to.as_mut_ptr().cast::<__m512bh>().write_unaligned(both);
        }
    }
    // The first `n` of sixteen.
    let some = |n: usize| ((1_u32 << n.min(16)) - 1) as u16;
    let mut rest = rest;
    for to in last.chunks_mut(16) {
        // SAFETY: the masks let no more be read than `rest` has, which is less than 32, nor more written
        // than there are places.
        unsafe {
            let at = rest.as_ptr();
            let first = _mm512_maskz_loadu_ps(some(rest.len()), at);
            let beyond = some(rest.len().saturating_sub(16));
            let second = _mm512_maskz_loadu_ps(beyond, at.wrapping_add(16));
            let both = _mm512_cvtne2ps_pbh(second, first);
            let both: __m512i = std::mem::transmute(both);
            _mm512_mask_storeu_epi32(to.as_mut_ptr().cast(), some(to.len()), both);
        }
        rest = &[];
    }
}

macro_rules! micro {
    ($name:ident, $lanes:literal, $narrow:literal, $rows:literal, $step:literal, $tile:ident $(or $half:ident)?: $r:tt
     $(, round: $round:ident)? $(, halves: [$($storage:ident $whole:ident $(or $part:ident)?),*])?) => {
        impl Micro for $name {
            const LANES: usize = $lanes;
            const NARROW: usize = $narrow;
            const ROWS: usize = $rows;
            const STEP: usize = $step;
            const EVEN: bool = false;

            type Unit = ();
            type Vector = vector::x86::$name;

            #[inline(always)]
            fn fma(a: f32, b: f32, c: f32) -> f32 {
                a.mul_add(b, c)
            }

            #[inline(always)]
            unsafe fn tile(_: &mut (), rows: usize, width: usize, t: Tile) {
                by_rows!($tile $(or $half)?, $lanes, rows, width, t: $r);
            }

            $(
                #[inline(always)]
                unsafe fn tile_of_halves(
                    _: &mut (),
                    rows: usize,
                    width: usize,
                    t: Tile,
                    storage: Storage,
                    widened: *mut f32,
                ) {
                    let both = (t, widened);
                    match storage {
                        $( Storage::$storage => by_rows!($whole $(or $part)?, $lanes, rows, width, both: $r), )*
                        Storage::Ready => debug_assert!(false, "columns that are no halves"),
                    }
                }
            )?

            $(
                #[inline(always)]
                fn round(from: &[f32], to: &mut [f32]) {
                    // SAFETY: whoever is at this path has its instructions.
                    unsafe { $round(from, to) }
                }
            )?
        }
    };
}

micro!(Avx2, 8, 8, 6, 1, tile256: [1 2 3 4 5 6], halves: [F16 tile256_f16, Bf16 tile256_bf16]);
micro!(Avx512, 16, 8, 12, 1, tile512 or tile256: [1 2 3 4 5 6 7 8 9 10 11 12],
    halves: [F16 tile512_f16 or tile256_f16, Bf16 tile512_bf16 or tile256_bf16]);
micro!(Bf16, 16, 8, 12, 2, tile_bf16 or half_bf16: [1 2 3 4 5 6 7 8 9 10 11 12], round: round);
