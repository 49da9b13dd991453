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
