//! What the tests of kernels share: the paths of this CPU, numbers, plain functions, and comparisons.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code, reason = "no test needs all of it")]

use semblance_kernels::{Act, Cpu, CpuPath, Precision, Tiling};

/// Every path, weakest first, and AMX's tiles in software; those that this CPU lacks are named.
pub fn paths() -> Vec<Cpu> {
    let here = |path| match Cpu::new(path) {
        Ok(cpu) => Some(cpu),
        Err(why) => {
            println!("skipped: no {path} here ({why})");
            None
        }
    };
    let software = std::iter::once(Cpu::emulated_amx());
    let all = CpuPath::ALL.into_iter().filter_map(here);
    all.chain(software).collect()
}

/// Numbers in −1..1 that look random, the same every time.
pub fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// The bits of the nearest bf16 number.
pub fn nearest(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16
}

/// Numbers that bf16 has, and the same two in a place.
pub fn both(count: usize, seed: u32) -> (Vec<f32>, Vec<f32>) {
    let numbers: Vec<f32> = (noise(count, seed).iter())
        .map(|x| f32::from_bits(nearest(*x) << 16))
        .collect();
    let places = numbers.as_chunks::<2>().0.iter();
    let places = places.map(|[a, b]| f32::from_bits(nearest(*a) | nearest(*b) << 16));
    (numbers.clone(), places.collect())
}

/// erf by its Taylor series, exact enough for |x| < 5.
pub fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
        if term.abs() < 1e-20 {
            break;
        }
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

pub fn plain_act(act: Act, x: f64) -> f64 {
    match act {
        Act::Identity => x,
        Act::Silu => x / (1.0 + (-x).exp()),
        Act::Gelu => 0.5 * x * (1.0 + erf(x / 2.0_f64.sqrt())),
        Act::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Act::Relu => x.max(0.0),
    }
}

/// All; the last has no slope at 0.
pub const ACTS: [Act; 5] = [
    Act::Identity,
    Act::Silu,
    Act::Gelu,
    Act::QuickGelu,
    Act::Relu,
];

/// How far `f` moves at x along t, by differences in f64.
pub fn difference(f: impl Fn(f64) -> f64, x: f64) -> f64 {
    let step = 1e-5;
    (f(x + step) - f(x - step)) / (2.0 * step)
}

/// Asserts that every number of `found` is that of `want` up to `allowed` of it, or of 1 where it is smaller. For f32:
/// where operands are rounded to bf16, [`near`].
pub fn close(cpu: Cpu, what: &str, found: &[f32], want: &[f64], allowed: f64) {
    assert!(allowed < 0.1, "{what}: what is no result would be close");
    assert_eq!(found.len(), want.len());
    for (i, (a, b)) in found.iter().zip(want).enumerate() {
        let error = (f64::from(*a) - b).abs();
        assert!(
            error <= allowed * (1.0 + b.abs()),
            "{what} on {cpu}: {i}: {a} is not {b}"
        );
    }
}

/// What numbers of `want` are, in the root of the mean of their squares; `usual` is that mean where few of them are
/// small by chance.
fn middle(want: &[f64], usual: f64) -> f64 {
    let mean = want.iter().map(|b| b * b).sum::<f64>() / want.len() as f64;
    mean.max(usual).max(f64::MIN_POSITIVE).sqrt()
}

/// Asserts that ‖found − want‖ / ‖want‖ is `allowed` at most, and that no number is off by six times that of itself
/// and of what numbers are in the middle: see [`middle`] for `usual`.
pub fn near(cpu: Cpu, what: &str, found: &[f32], want: &[f64], usual: f64, allowed: f64) {
    assert!(allowed < 0.05, "{what}: what is no result would be near");
    assert_eq!(found.len(), want.len());
    let middle = middle(want, usual);
    let mut square = 0.0;
    for (i, (a, b)) in found.iter().zip(want).enumerate() {
        let error = (f64::from(*a) - b).abs();
        assert!(
            error <= 6.0 * allowed * (middle + b.abs()),
            "{what} on {cpu}: {i}: {a} is not {b}"
        );
        square += error * error;
    }
    let error = (square / want.len() as f64).sqrt() / middle;
    assert!(error <= allowed, "{what} on {cpu}: off by {error:e} of it");
}

/// The largest relative error of one product or convolution: three times what is usual, for the smallest have few
/// numbers. Operands that are rounded to bf16 are each off by 2⁻⁹ at most; by tiles, so are what they are
/// transformed to.
pub fn allowed(cpu: Cpu, tiling: Tiling) -> f64 {
    3.0 * match (cpu.precision(), tiling) {
        (Precision::F32, _) => 3e-6,
        (Precision::Bf16, Tiling::Direct) => 2.4e-3,
        (Precision::Bf16, Tiling::TwoByTwo) => 4e-3,
        (Precision::Bf16, Tiling::FourByTwo) => 7e-3,
        (Precision::Bf16, _) => 1.1e-2,
    }
}

/// [`allowed`] of a product of `terms` terms: in f32, of sums that are added up one by one.
pub fn allowed_of(cpu: Cpu, tiling: Tiling, terms: usize) -> f64 {
    match (cpu.precision(), tiling) {
        (Precision::F32, Tiling::Direct) => 3.0 * (1e-7 + 1.6e-8 * (terms as f64).sqrt()),
        _ => allowed(cpu, tiling),
    }
}

/// [`near`], and on paths of f32 number by number too, [`close`] up to `exact`.
pub fn near_or_close(
    cpu: Cpu,
    what: &str,
    found: &[f32],
    want: &[f64],
    (usual, allowed, exact): (f64, f64, f64),
) {
    if cpu.precision() == Precision::F32 {
        close(cpu, what, found, want, exact);
    }
    near(cpu, what, found, want, usual, allowed);
}
