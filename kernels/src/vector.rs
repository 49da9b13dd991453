//! Vectors of f32 by name.
//!
//! For: loops that the compiler does not vectorise by itself, written once for every path ([`Wide`]).
//! Not for: the tile of a product (`isa`), nor plain loops over slices, which it does vectorise.

use crate::bf16::pair;
use crate::isa::Cpu;
use crate::vector_math;

/// What [`Vector::power`] finds its power in, added: 1.5 · 2²³ rounds a number to an integer, which is
/// then in the low bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// Work that is compiled once for each kind of vector. `run` must be `#[inline(always)]`, and so must
/// what it calls on its hot way, or it is compiled for the plainest CPU.
pub(crate) trait Wide {
    type Out;
    fn run<V: Vector>(self) -> Self::Out;
}

/// Some f32 numbers. A kind of vector is named only by [`Cpu::wide`] and by paths ([`Micro`]), where the
/// CPU has it, which is what makes its safe functions safe.
///
/// [`Micro`]: crate::isa::Micro
pub(crate) trait Vector: Copy {
    /// How many.
    const LANES: usize;

    /// # Safety
    /// `at` may be read for [`Vector::LANES`] numbers.
    unsafe fn load(at: *const f32) -> Self;

    /// # Safety
    /// `at` may be written for [`Vector::LANES`] numbers.
    unsafe fn store(self, at: *mut f32);

    /// Stores the nearest bf16 numbers.
    ///
    /// # Safety
    /// `at` may be written for [`Vector::LANES`] numbers.
    unsafe fn store_bf16(self, at: *mut u16);

    /// Stores the first `count` numbers, at most all.
    ///
    /// # Safety
    /// `at` may be written for `count` numbers.
    #[inline(always)]
    unsafe fn store_first(self, count: usize, at: *mut f32) {
        let mut numbers = [0.0_f32; MOST_LANES];
        // SAFETY: the caller's promise; the array is as long as any vector.
        unsafe {
            self.store(numbers.as_mut_ptr());
            std::ptr::copy_nonoverlapping(numbers.as_ptr(), at, count.min(Self::LANES));
        }
    }

    /// Stores the bf16 numbers nearest to the first `count` ones, at most all.
    ///
    /// # Safety
    /// `at` may be written for `count` numbers.
    #[inline(always)]
    unsafe fn store_first_bf16(self, count: usize, at: *mut u16) {
        let mut numbers = [0_u16; MOST_LANES];
        // SAFETY: the caller's promise; the array is as long as any vector.
        unsafe {
            self.store_bf16(numbers.as_mut_ptr());
            std::ptr::copy_nonoverlapping(numbers.as_ptr(), at, count.min(Self::LANES));
        }
    }

    /// Stores the nearest bf16 numbers of self and of `next` by turns, self's first.
    ///
    /// # Safety
    /// `at` may be written for as many places as a vector has numbers, two bf16 numbers in each.
    unsafe fn store_pairs(self, next: Self, at: *mut f32);

    /// As many bf16 numbers.
    ///
    /// # Safety
    /// `at` may be read for [`Vector::LANES`] bf16 numbers.
    unsafe fn load_bf16(at: *const u16) -> Self;

    fn splat(x: f32) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// self · b + c, in one rounding where the path can.
    fn fma(self, b: Self, c: Self) -> Self;
    /// Where self is larger, self, else `other`: that one too where either is not a number.
    fn max(self, other: Self) -> Self;
    /// 2ˢᵉˡᶠ to 1e-4 of it; at the far ends at least 0 and at most about 2⁻¹²⁶, and at least about 2¹²⁶.
    fn exp2(self) -> Self;
    /// 1 / self to 1e-4 of it.
    fn reciprocal(self) -> Self;
    /// 1 / self, which is a normal number, to a unit or two in the last place.
    fn inverse(self) -> Self;
    /// Whether any number is larger than `bound`.
    fn exceeds(self, bound: f32) -> bool;
    /// self · 2ⁿ, where `shifted` is n + [`ROUND`]; self, not 0, and the result are normal numbers.
    fn power(self, shifted: Self) -> Self;
}

/// Most numbers in a vector.
pub(crate) const MOST_LANES: usize = 16;

/// The first `count` < [`Vector::LANES`] numbers at `at`, then zeros.
///
/// # Safety
/// `at` may be read for `count` numbers.
#[inline(always)]
pub(crate) unsafe fn load_part<V: Vector>(at: *const f32, count: usize) -> V {
    debug_assert!(count < V::LANES && V::LANES <= MOST_LANES);
    let mut part = [0.0_f32; MOST_LANES];
    // SAFETY: the caller's promise; the array is as long as any vector.
    unsafe {
        std::ptr::copy_nonoverlapping(at, part.as_mut_ptr(), count);
        V::load(part.as_ptr())
    }
}

/// All numbers of `x` as one, halves first: the shortest chain.
#[inline(always)]
pub(crate) fn fold<V: Vector>(x: V, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut numbers = [0.0_f32; MOST_LANES];
    // SAFETY: the array is as long as any vector.
    unsafe { x.store(numbers.as_mut_ptr()) };
    let mut count = V::LANES;
    while count > 1 {
        count /= 2;
        for i in 0..count {
            numbers[i] = f(numbers[i], numbers[i + count]);
        }
    }
    numbers[0]
}

impl Cpu {
    /// Runs `task` with the vectors of this path.
    pub(crate) fn wide<T: Wide>(self, task: T) -> T::Out {
        #[cfg(target_arch = "x86_64")]
        use crate::cpu::CpuPath;
        match self.vectors() {
            #[cfg(target_arch = "x86_64")]
            CpuPath::Avx512Bf16 | CpuPath::Amx => {
                // SAFETY: `Cpu` is made only of a path that this CPU has.
                unsafe { x86::with_bf16(task) }
            }
            #[cfg(target_arch = "x86_64")]
            CpuPath::Avx512 => {
                // SAFETY: as above.
                unsafe { x86::with_avx512(task) }
            }
            #[cfg(target_arch = "x86_64")]
            CpuPath::Avx2 => {
                // SAFETY: as above.
                unsafe { x86::with_avx2(task) }
            }
            _ => task.run::<Four>(),
        }
    }
}

/// Any CPU: what the compiler makes of an array.
#[derive(Clone, Copy)]
pub(crate) struct Four([f32; 4]);

impl Vector for Four {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Four(unsafe { at.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, at: *mut u16) {
        // SAFETY: the caller's promise.
        unsafe {
            at.cast::<[u16; 4]>()
                .write_unaligned(self.0.map(crate::pack::to_bf16))
        }
    }

    #[inline(always)]
    unsafe fn store_pairs(self, next: Self, at: *mut f32) {
        let pairs: [f32; 4] = std::array::from_fn(|i| pair(self.0[i], next.0[i]));
        // SAFETY: the caller's promise.
        unsafe { at.cast::<[f32; 4]>().write_unaligned(pairs) }
    }

    #[inline(always)]
    unsafe fn load_bf16(at: *const u16) -> Self {
        // SAFETY: the caller's promise.
        let numbers = unsafe { at.cast::<[u16; 4]>().read_unaligned() };
        Four(numbers.map(|x| f32::from_bits(u32::from(x) << 16)))
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Four([x; 4])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Four(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Four(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Four(std::array::from_fn(|i| self.0[i] * other.0[i]))
    }

    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        use crate::isa::{Micro, Portable};
        Four(std::array::from_fn(|i| {
            Portable::fma(self.0[i], b.0[i], c.0[i])
        }))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Four(std::array::from_fn(|i| {
            let (a, b) = (self.0[i], other.0[i]);
            if a > b { a } else { b }
        }))
    }

    #[inline(always)]
    fn exp2(self) -> Self {
        // Not `min`, which would hide what is not a number.
        let most = self.0.map(|x| if x > 126.0 { 126.0 } else { x });
        vector_math::exp2(Four(most))
    }

    #[inline(always)]
    fn reciprocal(self) -> Self {
        Four(self.0.map(|x| 1.0 / x))
    }

    #[inline(always)]
    fn inverse(self) -> Self {
        self.reciprocal()
    }

    #[inline(always)]
    fn exceeds(self, bound: f32) -> bool {
        self.0.iter().any(|x| *x > bound)
    }

    #[inline(always)]
    fn power(self, shifted: Self) -> Self {
        Four(std::array::from_fn(|i| {
            let n = shifted.0[i].to_bits() << 23;
            f32::from_bits(self.0[i].to_bits().wrapping_add(n))
        }))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
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
    /// As [`with_avx512`], and it has AVX512-BF16.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
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
        ($name:ident, $inner:ty, $lanes:literal, ($load:ident, $widen:ident), $store:ident, $set:ident, $fma:ident,
         ($round:expr, $pair:expr), ($exp2:expr, ($reciprocal:expr, $inverse:expr), $exceeds:expr),
         [$($of_two:ident $instruction:ident),*] $(, first: $first:expr)?) => {
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
        ($name:ident, $round:expr, $pair:expr $(, first: $first:expr)?) => {
            vector!(
                $name,
                __m512,
                16,
                (_mm512_loadu_ps, widen_512),
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
                $(, first: $first)?
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
    unsafe fn widen_512(at: *const u16) -> __m512 {
        // SAFETY: the caller lets 16 bf16 numbers be read.
        let numbers = unsafe { _mm256_loadu_si256(at.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(numbers)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn widen_256(at: *const u16) -> __m256 {
        // SAFETY: the caller lets 8 bf16 numbers be read.
        let numbers = unsafe { _mm_loadu_si128(at.cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(numbers)))
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
        _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_set1_ps(bound)) != 0
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn exceeds_256(x: __m256, bound: f32) -> bool {
        _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(x, _mm256_set1_ps(bound))) != 0
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
        (_mm256_loadu_ps, widen_256),
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
    avx512!(Bf16, round_bf16, pair_bf16, first: first_bf16);
}
