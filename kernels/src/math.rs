//! Elementary functions of whole slices, in a form that the compiler vectorises, and the same on
//! every platform, which the C library's `expf` is not.

use crate::isa::Micro;

/// A pointwise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Act {
    /// x.
    #[default]
    Identity,
    /// x · sigmoid(x).
    Silu,
    /// x · Φ(x), the exact normal distribution function to 1e-6, not its tanh approximation.
    Gelu,
    /// x · sigmoid(1.702 x).
    QuickGelu,
    /// x where it is positive, 0 elsewhere; its derivative at 0 is 0.
    Relu,
}

/// eˣ to 2 units in the last place; 0 below −87.3, capped at e^88 (Cephes' polynomial).
#[inline(always)]
pub(crate) fn exp<M: Micro>(x: f32) -> f32 {
    // Adding 1.5 · 2²³ rounds to an integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.0);
    let shifted = M::fma(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = M::fma(n, -0.693_359_4, x);
    let r = M::fma(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4_f32;
    p = M::fma(p, r, 1.398_199_9e-3);
    p = M::fma(p, r, 8.333_452e-3);
    p = M::fma(p, r, 4.166_579_6e-2);
    p = M::fma(p, r, 1.666_666_5e-1);
    p = M::fma(p, r, 0.5);
    p = M::fma(p * r, r, r) + 1.0;
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

#[inline(always)]
fn sigmoid<M: Micro>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<M>(-x))
}

/// erf to 1e-6 (Abramowitz and Stegun 7.1.26, whose own error is 1.5e-7).
#[inline(always)]
fn erf<M: Micro>(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / M::fma(0.327_591_1, a, 1.0);
    let mut p = M::fma(1.061_405_4, t, -1.453_152);
    p = M::fma(p, t, 1.421_413_8);
    p = M::fma(p, t, -0.284_496_73);
    p = M::fma(p, t, 0.254_829_6);
    M::fma(-p * t, exp::<M>(-a * a), 1.0).copysign(x)
}

#[inline(always)]
pub(crate) fn gelu<M: Micro>(x: f32) -> f32 {
    0.5 * x * (1.0 + erf::<M>(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// `act` over a slice, in place.
#[inline(always)]
pub(crate) fn apply<M: Micro>(act: Act, x: &mut [f32]) {
    match act {
        Act::Identity => {}
        Act::Silu => x.iter_mut().for_each(|x| *x *= sigmoid::<M>(*x)),
        Act::Gelu => x.iter_mut().for_each(|x| *x = gelu::<M>(*x)),
        Act::QuickGelu => x.iter_mut().for_each(|x| *x *= sigmoid::<M>(1.702 * *x)),
        // Not `max`, which would hide what is not a number.
        Act::Relu => (x.iter_mut()).for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x }),
    }
}

/// x · sigmoid(k x)'s derivative.
#[inline(always)]
fn logistic_slope<M: Micro>(k: f32, x: f32) -> f32 {
    let s = sigmoid::<M>(k * x);
    M::fma(k * x * s, 1.0 - s, s)
}

/// [`gelu`] and its derivative.
#[inline(always)]
pub(crate) fn gelu_with_slope<M: Micro>(x: f32) -> (f32, f32) {
    const DENSITY: f32 = 0.398_942_3; // 1 / √2π
    let below = 0.5 * (1.0 + erf::<M>(x * std::f32::consts::FRAC_1_SQRT_2));
    let slope = M::fma(x * DENSITY, exp::<M>(-0.5 * x * x), below);
    (x * below, slope)
}

/// Work that needs an activation's derivative, which is chosen once.
pub(crate) trait Sloped {
    fn go(self, slope: impl Fn(f32) -> f32);
}

/// Does `work` with the derivative of `act`.
#[inline(always)]
pub(crate) fn with_slope<M: Micro>(act: Act, work: impl Sloped) {
    match act {
        Act::Identity => work.go(|_| 1.0),
        Act::Silu => work.go(|x| logistic_slope::<M>(1.0, x)),
        Act::Gelu => work.go(|x| gelu_with_slope::<M>(x).1),
        Act::QuickGelu => work.go(|x| logistic_slope::<M>(1.702, x)),
        Act::Relu => work.go(|x| if x > 0.0 { 1.0 } else { 0.0 }),
    }
}

/// Sums are kept in so many lanes on every path.
pub(crate) const LANES: usize = 16;

/// Σ f(x).
#[inline(always)]
pub(crate) fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        lanes = std::array::from_fn(|i| lanes[i] + f(x[i]));
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += f(*x);
    }
    fold(lanes, |a, b| a + b)
}

/// All lanes as one number, halves first: the shortest chain.
#[inline(always)]
pub(crate) fn fold(lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| f(lanes[i], lanes[i + 8]));
    let four: [f32; 4] = std::array::from_fn(|i| f(eight[i], eight[i + 4]));
    f(f(four[0], four[2]), f(four[1], four[3]))
}

/// Σ a · (b − mean) over two slices of one length.
#[inline(always)]
pub(crate) fn dot<M: Micro>(a: &[f32], b: &[f32], mean: f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane = M::fma(*a, b - mean, *lane);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane = M::fma(*a, b - mean, *lane);
    }
    lanes.iter().sum()
}

/// The largest number, −∞ of none.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        lanes = std::array::from_fn(|i| larger(lanes[i], x[i]));
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, *x);
    }
    fold(lanes, larger)
}
