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

    /// As many f16 numbers.
    ///
    /// # Safety
    /// `at` may be read for [`Vector::LANES`] f16 numbers.
    unsafe fn load_f16(at: *const u16) -> Self;

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
    /// Whether any number is larger than `bound`, or is none.
    fn exceeds(self, bound: f32) -> bool;
    /// self · 2ⁿ, where `shifted` is n + [`ROUND`]; self, not 0, and the result are normal numbers.
    fn power(self, shifted: Self) -> Self;

    /// What [`Vector::weigh`] multiplies a score with, and adds to it, for `top` to 1/256.
    #[inline(always)]
    fn line(scale: f32, top: f32) -> (Self, Self) {
        (Self::splat(scale), Self::splat(-top))
    }

    /// Stores 2^(scale · x − top), to 7e-3 of it, as bf16 for the [`PAIR`] numbers x at `from`, and adds those
    /// powers, or what was stored, to `total`, lane by lane; `line` is [`Vector::line`] of scale and top. Far
    /// above the top the total is at least about 2¹²⁶ or no number; far below it powers are next to nothing, but 2¹⁵
    /// and more below it they too may make the total no number.
    ///
    /// # Safety
    /// `from` may be read and `to` be written for [`PAIR`] numbers.
    #[inline(always)]
    unsafe fn weigh(line: (Self, Self), from: *const f32, to: *mut u16, total: Self) -> Self {
        let mut total = total;
        for at in (0..PAIR).step_by(Self::LANES) {
            // SAFETY: the caller's promise.
            unsafe {
                let y = Self::load(from.add(at)).fma(line.0, line.1).exp2();
                y.store_bf16(to.add(at));
                total = total.add(y);
            }
        }
        total
    }
}

/// Most numbers in a vector.
pub(crate) const MOST_LANES: usize = 16;
/// Numbers that [`Vector::weigh`] takes: two of the longest vectors.
pub(crate) const PAIR: usize = 2 * MOST_LANES;

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
    unsafe fn load_f16(at: *const u16) -> Self {
        // SAFETY: the caller's promise.
        let numbers = unsafe { at.cast::<[u16; 4]>().read_unaligned() };
        Four(numbers.map(|x| half::f16::from_bits(x).to_f32()))
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
        !self.0.iter().all(|x| *x <= bound)
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
pub(crate) mod x86;
