//! Elementary functions for whole slices: written so that the compiler vectorises them, and the
//! same on every platform, which the C library's `expf` is not.

use crate::nn::Act;

/// eˣ to 2 units in the last place; 0 below −87.3, capped at e^88 (Cephes' polynomial).
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2²³ rounds to an integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4_f32;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

#[inline]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// erf to 1e-6 (Abramowitz and Stegun 7.1.26, whose own error is 1.5e-7).
#[inline]
fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let p = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_8) * t - 0.284_496_73) * t
        + 0.254_829_6)
        * t;
    (1.0 - p * exp(-a * a)).copysign(x)
}

#[inline]
pub(super) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// `act` over a slice, in place.
pub(super) fn apply(act: Act, x: &mut [f32]) {
    match act {
        Act::Identity => {}
        Act::Silu => x.iter_mut().for_each(|x| *x *= sigmoid(*x)),
        Act::Gelu => x.iter_mut().for_each(|x| *x = gelu(*x)),
        Act::QuickGelu => x.iter_mut().for_each(|x| *x *= sigmoid(1.702 * *x)),
        // Not `max`, which would hide what is not a number.
        Act::Relu => (x.iter_mut().filter(|x| **x < 0.0)).for_each(|x| *x = 0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_erf_agree_with_libm() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let want = libm::exp(f64::from(x));
            assert!((f64::from(exp(x)) / want - 1.0).abs() < 3e-7, "exp {x}");
            let y = x / 20.0;
            assert!(
                (f64::from(erf(y)) - libm::erf(f64::from(y))).abs() < 1e-6,
                "erf {y}"
            );
        }
        assert!(exp(-1e30) < 1e-37 && exp(f32::NAN).is_nan());
    }
}
