//! Elementary functions of a vector.
//!
//! For: loops over a few vectors, which the compiler would take for too short to vectorise. Not for:
//! whole slices (`math`).

use crate::vector::{ROUND, Vector};

/// Σ factorᵢ · rⁱ, the highest power first.
#[inline(always)]
fn polynomial<V: Vector, const N: usize>(r: V, factors: [f32; N]) -> V {
    let factors = factors.map(V::splat);
    let sum = factors.into_iter().reduce(|sum, factor| sum.fma(r, factor));
    sum.unwrap_or(r)
}

/// eˣ for x ≤ 0 to 2 units in the last place, at least e^−87.3 (Cephes' polynomial).
#[inline(always)]
pub(crate) fn exp<V: Vector>(x: V) -> V {
    let x = V::splat(-87.3).max(x);
    let shifted = x.fma(V::splat(std::f32::consts::LOG2_E), V::splat(ROUND));
    let n = shifted.sub(V::splat(ROUND));
    let r = n.fma(V::splat(-0.693_359_4), x);
    let r = n.fma(V::splat(2.121_944_4e-4), r);
    let p = polynomial(
        r,
        [
            1.987_569_1e-4,
            1.398_199_9e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            1.666_666_5e-1,
            0.5,
        ],
    );
    p.mul(r).fma(r, r).add(V::splat(1.0)).power(shifted)
}

/// 2ˣ for x ≤ 126 to 1e-4 of it, at least about 2⁻¹²⁶.
#[inline(always)]
pub(crate) fn exp2<V: Vector>(x: V) -> V {
    let x = V::splat(-126.0).max(x);
    let shifted = x.add(V::splat(ROUND));
    let r = x.sub(shifted.sub(V::splat(ROUND)));
    let p = [5.508_868e-2, 2.426_040_5e-1, 6.932_763e-1, 0.999_928_94];
    polynomial(r, p).power(shifted)
}

/// x · sigmoid(x) to a few units in the last place: what is positive of x, less |x| e / (1 + e) with
/// e = exp(−|x|).
#[inline(always)]
pub(crate) fn silu<V: Vector>(x: V) -> V {
    let zero = V::splat(0.0);
    let size = zero.sub(x).max(x);
    let e = exp(zero.sub(size));
    let part = e.mul(e.add(V::splat(1.0)).inverse());
    // Not `x.max(zero)`, which would hide what is not a number.
    zero.max(x).sub(size.mul(part))
}

/// x · Φ(x) as [`crate::Act::Gelu`] has it: max(x, 0) less |x| times the normal distribution's tail
/// beyond |x| (Abramowitz and Stegun 7.1.26).
#[inline(always)]
pub(crate) fn gelu<V: Vector>(x: V) -> V {
    let zero = V::splat(0.0);
    let size = zero.sub(x).max(x);
    let a = size.mul(V::splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = a.fma(V::splat(0.327_591_1), V::splat(1.0)).inverse();
    let p = [
        1.061_405_4,
        -1.453_152,
        1.421_413_8,
        -0.284_496_73,
        0.254_829_6,
    ];
    let power = exp(zero.sub(a.mul(a)));
    let tail = polynomial(t, p).mul(t).mul(power);
    // Not `x.max(zero)`, which would hide what is not a number.
    zero.max(x).sub(size.mul(V::splat(0.5)).mul(tail))
}

/// [`gelu`] with the tail to 2.5e-4 of it, for sums of numbers rounded to bf16: the tail is the density times
/// a polynomial of 1 / (1 + c |x|), all fitted to the least relative error on 0 ≤ |x| ≤ 9.
#[inline(always)]
pub(crate) fn coarse_gelu<V: Vector>(x: V) -> V {
    let zero = V::splat(0.0);
    let size = zero.sub(x).max(x);
    let t = size.fma(V::splat(0.486_989_57), V::splat(1.0)).reciprocal();
    let p = [-0.124_451_3, 0.261_264_1, 0.166_454_05, 0.196_658_49];
    let power = size
        .mul(size)
        .mul(V::splat(-0.5 * std::f32::consts::LOG2_E));
    let tail = polynomial(t, p).mul(t).mul(power.exp2());
    // Not `x.max(zero)`, which would hide what is not a number.
    zero.max(x).sub(size.mul(tail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Micro, Precision, Task};
    use crate::vector::MOST_LANES;
    use crate::{Cpu, CpuPath};

    /// Both gelus of a number.
    struct Gelus(f32);

    impl Task for Gelus {
        type Out = (f32, f32);
        #[inline(always)]
        fn run<M: Micro>(self) -> (f32, f32) {
            let x = M::Vector::splat(self.0);
            let first = |x: M::Vector| {
                let mut numbers = [0.0; MOST_LANES];
                // SAFETY: no vector is longer.
                unsafe { x.store(numbers.as_mut_ptr()) };
                numbers[0]
            };
            (first(gelu(x)), first(coarse_gelu(x)))
        }
    }

    #[test]
    fn a_coarse_gelu_is_one_to_less_than_rounding_costs() {
        for cpu in CpuPath::ALL.into_iter().filter_map(|p| Cpu::new(p).ok()) {
            for i in -900..=900 {
                let x = i as f32 / 100.0;
                let (exact, coarse) = cpu.run_at(Precision::Bf16, Gelus(x));
                // The exact one's own error counts where it is as small as that.
                let most = 3e-4 * exact.abs() + 4e-7 * x.abs();
                assert!(
                    (exact - coarse).abs() <= most,
                    "{cpu}: {x}: {exact} {coarse}"
                );
            }
            for far in [40.0, 1e18, 1e30, f32::MAX] {
                let of = |x: f32| cpu.run_at(Precision::Bf16, Gelus(x)).1;
                assert!(of(far) == far && of(-far).abs() < 1e-30, "{cpu}: {far}");
            }
            assert!(
                cpu.run_at(Precision::Bf16, Gelus(f32::NAN)).1.is_nan(),
                "{cpu}"
            );
        }
    }
}
