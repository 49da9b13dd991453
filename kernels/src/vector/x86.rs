//! The vectors of x86-64: AVX2, AVX-512, and AVX-512 with bf16.
//!
//! For: [`Vector`] by those instructions, and running a [`Wide`] task where they may be used. Not for: what is the
//! same on every path (`vector_math`).

use std::arch::x86_64::*;

use super::{Vector, Wide};
use crate::bf16::pair;
use crate::vector_math;

/// # Safety
/// The CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn with_avx2<T: Wide>(task: T) -> T::Out {
    task.run::<Avx2>()
}

/// # Safety
/// The CPU has AVX-512 F, BW, DQ and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub unsafe fn with_avx512<T: Wide>(task: T) -> T::Out {
    task.run::<Avx512>()
}

/// # Safety
/// As [`with_avx512`], and it has AVX512-BF16 and VBMI.
#[target_feature(enable = "avx512vbmi,avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub unsafe fn with_bf16<T: Wide>(task: T) -> T::Out {
    task.run::<Bf16>()
}

/// Rounds by the plain function: paths without the instruction have no bf16 products.
#[inline(always)]
unsafe fn round_plainly<V: Vector, const N: usize>(x: V, at: *mut u16) {
    let mut numbers = [0.0_f32; N];
    // SAFETY: the array is a vector long, and so is what the caller may write.
    unsafe {
        x.store(numbers.as_mut_ptr());
        let rounded = numbers.map(crate::pack::to_bf16);
        at.cast::<[u16; N]>().write_unaligned(rounded);
    }
}

/// As [`round_plainly`], of two vectors by turns.
#[inline(always)]
unsafe fn pair_plainly<V: Vector, const N: usize>(x: V, next: V, at: *mut f32) {
    let (mut first, mut second) = ([0.0_f32; N], [0.0_f32; N]);
    // SAFETY: the arrays are a vector long, and so is what the caller may write.
    unsafe {
        x.store(first.as_mut_ptr());
        next.store(second.as_mut_ptr());
        let pairs: [f32; N] = std::array::from_fn(|i| pair(first[i], second[i]));
        at.cast::<[f32; N]>().write_unaligned(pairs);
    }
}

macro_rules! vector {
    ($name:ident, $inner:ty, $lanes:literal, ($load:ident, $widen:ident, $widen_f16:ident), $store:ident, $set:ident, $fma:ident,
     ($round:expr, $pair:expr), ($exp2:expr, ($reciprocal:expr, $inverse:expr), $exceeds:expr),
     [$($of_two:ident $instruction:ident),*] $(, first: $first:expr, weigh: $weigh:expr, line: $line:expr)?) => {
        #[derive(Clone, Copy)]
        pub struct $name($inner);

        impl Vector for $name {
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn load(at: *const f32) -> Self {
                // SAFETY: the caller's promise; the CPU has these vectors ([`Vector`]).
                $name(unsafe { $load(at) })
            }

            #[inline(always)]
            unsafe fn load_bf16(at: *const u16) -> Self {
                // SAFETY: as above.
                $name(unsafe { $widen(at) })
            }

            #[inline(always)]
            unsafe fn load_f16(at: *const u16) -> Self {
                // SAFETY: as above.
                $name(unsafe { $widen_f16(at) })
            }

            #[inline(always)]
            unsafe fn store(self, at: *mut f32) {
                // SAFETY: as above.
                unsafe { $store(at, self.0) }
            }

            #[inline(always)]
            unsafe fn store_bf16(self, at: *mut u16) {
                // SAFETY: as above.
                unsafe { $round(self, at) }
            }

            #[inline(always)]
            unsafe fn store_pairs(self, next: Self, at: *mut f32) {
                // SAFETY: as above.
                unsafe { $pair(self, next, at) }
            }

            $(
                #[inline(always)]
                unsafe fn store_first_bf16(self, count: usize, at: *mut u16) {
                    // SAFETY: as above.
                    unsafe { $first(self, count, at) }
                }

                #[inline(always)]
                fn line(scale: f32, top: f32) -> (Self, Self) {
                    $line(scale, top)
                }

                #[inline(always)]
                unsafe fn weigh(line: (Self, Self), from: *const f32, to: *mut u16, total: Self) -> Self {
                    // SAFETY: as above.
                    unsafe { $weigh(line, from, to, total) }
                }
            )?

            #[inline(always)]
            fn splat(x: f32) -> Self {
                // SAFETY: the CPU has these vectors ([`Vector`]).
                $name(unsafe { $set(x) })
            }

            #[inline(always)]
            fn exp2(self) -> Self {
                // SAFETY: as above.
                $name(unsafe { $exp2(self.0) })
            }

            #[inline(always)]
            fn reciprocal(self) -> Self {
                // SAFETY: as above.
                $name(unsafe { $reciprocal(self.0) })
            }

            #[inline(always)]
            fn inverse(self) -> Self {
                // SAFETY: as above.
                $name(unsafe { $inverse(self.0) })
            }

            #[inline(always)]
            fn exceeds(self, bound: f32) -> bool {
                // SAFETY: as above.
                unsafe { $exceeds(self.0, bound) }
            }

            #[inline(always)]
            fn fma(self, b: Self, c: Self) -> Self {
                // SAFETY: as above.
                $name(unsafe { $fma(self.0, b.0, c.0) })
            }

            $(
                #[inline(always)]
                fn $of_two(self, other: Self) -> Self {
                    // SAFETY: the CPU has these vectors ([`Vector`]).
                    $name(unsafe { $instruction(self.0, other.0) })
                }
            )*
        }
    };
}

macro_rules! avx512 {
    ($name:ident, $round:expr, $pair:expr $(, first: $first:expr, weigh: $weigh:expr, line: $line:expr)?) => {
        vector!(
            $name,
            __m512,
            16,
            (_mm512_loadu_ps, widen_512, widen_f16_512),
            _mm512_storeu_ps,
            _mm512_set1_ps,
            _mm512_fmadd_ps,
            ($round, $pair),
            (exp2_512, (_mm512_rcp14_ps, inverse_512), exceeds_512),
            [
                add _mm512_add_ps,
                sub _mm512_sub_ps,
                mul _mm512_mul_ps,
                max _mm512_max_ps,
                power power512
            ]
            $(, first: $first, weigh: $weigh, line: $line)?
        );
    };
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn round_bf16(x: Bf16, at: *mut u16) {
    // SAFETY: the caller may write 16 numbers there; both are 256 bits without invalid patterns.
    unsafe {
        let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(x.0));
        _mm256_storeu_si256(at.cast(), rounded);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn first_bf16(x: Bf16, count: usize, at: *mut u16) {
    let mask = (1_u32 << count.min(Bf16::LANES)) - 1;
    // SAFETY: the caller may write `count` numbers there; both are 256 bits without invalid patterns.
    unsafe {
        let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(x.0));
        _mm256_mask_storeu_epi16(at.cast(), mask as u16, rounded);
    }
}

/// Where the numbers of a pair lie among two vectors' rounded ones.
const BY_TURNS: [u16; 32] = {
    let mut from = [0; 32];
    let mut i = 0;
    while i < 32 {
        from[i] = (i / 2 + i % 2 * 16) as u16;
        i += 1;
    }
    from
};

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pair_bf16(x: Bf16, next: Bf16, at: *mut f32) {
    // SAFETY: the caller may write 16 places there; all are 512 bits without invalid patterns.
    unsafe {
        let both: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(next.0, x.0));
        let from: __m512i = std::mem::transmute(BY_TURNS);
        _mm512_storeu_si512(at.cast(), _mm512_permutexvar_epi16(from, both));
    }
}

/// 2²³: a number that is added to it is rounded to an integer, which is in the low bits of the sum.
const POINT: f32 = 8_388_608.0;

/// What makes [`POINT`] + 256 (127 + t) + 1 of a score that weighs 2ᵗ.
#[inline(always)]
fn fixed(scale: f32, top: f32) -> (Bf16, Bf16) {
    let one = POINT + 256.0 * 127.0 + 1.0;
    (Bf16::splat(256.0 * scale), Bf16::splat(one - 256.0 * top))
}

/// 256 (1 + f − 2ᶠ) for the four 256 f from 4 i − 1 on, on average (of f < 0, for f + 1), and a half: what is halved
/// and cut off after it is rounded up once in two.
const BELOW: [u8; 64] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 15, 16, 17, 17, 18, 19, 19, 20, 20, 21, 21,
    21, 22, 22, 22, 22, 22, 22, 23, 23, 22, 22, 22, 22, 22, 22, 21, 21, 21, 20, 20, 19, 19, 18, 17,
    16, 16, 15, 14, 13, 12, 11, 10, 9, 7, 6, 5, 3, 2,
];

/// [`Vector::weigh`] by a table. n + f with eight bits behind the point is, less the lowest one, how bf16 writes
/// 2ⁿ (1 + f): what is missing is 1 + f − 2ᶠ.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512bf16")]
unsafe fn powers((scale, add): (Bf16, Bf16), from: *const f32, to: *mut u16, total: Bf16) -> Bf16 {
    const EVEN_BYTES: u64 = 0x5555_5555_5555_5555;
    const ONE: i16 = 0x3F80;
    // SAFETY: the caller lets so many numbers be read and written; all are 512 bits without invalid patterns.
    unsafe {
        let fixed = |at: *const f32| {
            let sum = _mm512_fmadd_ps(_mm512_loadu_ps(at), scale.0, add.0);
            let point = _mm512_set1_epi32(POINT.to_bits() as i32);
            _mm512_sub_epi32(_mm512_castps_si512(sum), point)
        };
        // What is below 0 becomes 0, and what is too large no number in the end, as is a negative sum, from which no
        // 2²³ can be taken. Packed by quarters.
        let fixed = _mm512_packus_epi32(fixed(from), fixed(from.add(Bf16::LANES)));
        let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
        let fixed = _mm512_permutexvar_epi64(order, fixed);
        let table = std::mem::transmute::<[u8; 64], __m512i>(BELOW);
        let index = _mm512_srli_epi16::<2>(fixed);
        let below = _mm512_maskz_permutexvar_epi8(EVEN_BYTES, index, table);
        // The 1 that was added rounds.
        let powers = _mm512_srli_epi16::<1>(_mm512_subs_epu16(fixed, below));
        _mm512_storeu_si512(to.cast(), powers);
        let powers = std::mem::transmute::<__m512i, __m512bh>(powers);
        let ones = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi16(ONE));
        Bf16(_mm512_dpbf16_ps(total.0, powers, ones))
    }
}

/// The instructions that part a number into what is before and behind its point, and that multiply by a
/// power of two, take the place of the shifts and limits of [`vector_math::exp2`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn exp2_512(x: __m512) -> __m512 {
    const DOWN: i32 = 1;
    let r = _mm512_reduce_ps::<DOWN>(x);
    let [a, b, c, d] = EXP2.map(|factor| _mm512_set1_ps(factor));
    let p = _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_fmadd_ps(a, r, b), r, c), r, d);
    _mm512_scalef_ps(p, x)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn exp2_256(x: __m256) -> __m256 {
    // The second where either is not a number.
    let most = _mm256_min_ps(_mm256_set1_ps(126.0), x);
    vector_math::exp2(Avx2(most)).0
}

#[inline]
#[target_feature(enable = "avx512f")]
pub unsafe fn widen_512(at: *const u16) -> __m512 {
    // SAFETY: the caller lets 16 bf16 numbers be read.
    let numbers = unsafe { _mm256_loadu_si256(at.cast()) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(numbers)))
}

#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn widen_256(at: *const u16) -> __m256 {
    // SAFETY: the caller lets 8 bf16 numbers be read.
    let numbers = unsafe { _mm_loadu_si128(at.cast()) };
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(numbers)))
}

#[inline]
#[target_feature(enable = "avx512f")]
pub unsafe fn widen_f16_512(at: *const u16) -> __m512 {
    // SAFETY: the caller lets 16 f16 numbers be read.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) })
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub unsafe fn widen_f16_256(at: *const u16) -> __m256 {
    // SAFETY: the caller lets 8 f16 numbers be read.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(at.cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn reciprocal_256(x: __m256) -> __m256 {
    _mm256_div_ps(_mm256_set1_ps(1.0), x)
}

/// Newton's step doubles the digits; a division of so many numbers takes four times as long.
#[inline]
#[target_feature(enable = "avx512f")]
fn inverse_512(x: __m512) -> __m512 {
    let about = _mm512_rcp14_ps(x);
    let off = _mm512_fnmadd_ps(x, about, _mm512_set1_ps(1.0));
    _mm512_fmadd_ps(about, off, about)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn exceeds_512(x: __m512, bound: f32) -> bool {
    _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(x, _mm512_set1_ps(bound)) != 0
}

#[inline]
#[target_feature(enable = "avx2")]
fn exceeds_256(x: __m256, bound: f32) -> bool {
    _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLE_UQ>(x, _mm256_set1_ps(bound))) != 0
}

/// The factors of 2ʳ for r in 0..1, highest power first, to 1e-4 of it.
const EXP2: [f32; 4] = [0.078_024_52, 0.226_067_16, 0.695_833_5, 0.999_925_2];

#[inline]
#[target_feature(enable = "avx2")]
fn power256(x: __m256, shifted: __m256) -> __m256 {
    let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
    _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), n))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn power512(x: __m512, shifted: __m512) -> __m512 {
    let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
    _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), n))
}

vector!(
    Avx2,
    __m256,
    8,
    (_mm256_loadu_ps, widen_256, widen_f16_256),
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    (round_plainly::<Avx2, 8>, pair_plainly::<Avx2, 8>),
    (exp2_256, (reciprocal_256, reciprocal_256), exceeds_256),
    [
        add _mm256_add_ps,
        sub _mm256_sub_ps,
        mul _mm256_mul_ps,
        max _mm256_max_ps,
        power power256
    ]
);
avx512!(
    Avx512,
    round_plainly::<Avx512, 16>,
    pair_plainly::<Avx512, 16>
);
avx512!(Bf16, round_bf16, pair_bf16, first: first_bf16, weigh: powers, line: fixed);
