//! A test of networks on every backend, and how near its numbers are.

#[path = "devices.rs"]
mod devices;
#[path = "paths.rs"]
mod paths;

use semblance::nn::candle::Candle;
use semblance::nn::derivatives::Derivatives;
use semblance_kernels::Precision;

use paths::paths;

/// A test, for any backend; `exact` is how near to the truth its products are.
pub trait Check {
    fn on<O: Derivatives + Clone + 'static>(&self, ops: &O, exact: f64);
}

/// Runs a test on candle, on candle's devices and on every path of the native backend ([`paths`]);
/// paths that round to bf16 are as exact as `rounded`.
pub fn everywhere(check: impl Check, rounded: f64) {
    check.on(&Candle, 1e-5);
    for device in devices::devices() {
        check.on(&device, 1e-5);
    }
    for ops in paths() {
        let exact = match ops.cpu().precision() {
            Precision::F32 => 1e-5,
            Precision::Bf16 => rounded,
        };
        check.on(&ops, exact);
    }
}

pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

pub fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

/// ‖a − b‖ ≤ `allowed` ‖b‖.
pub fn near(what: &str, a: &[f32], b: &[f32], allowed: f64) {
    assert_eq!(a.len(), b.len(), "{what}");
    let apart: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let error = norm(&apart) / norm(b).max(1e-30);
    println!("{what}: {error:.1e}");
    assert!(error <= allowed, "{what}: off by {error} of {}", norm(b));
}
