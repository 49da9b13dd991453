//! What the tests of kernels share: the paths of this CPU, numbers, and a comparison.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use semblance_kernels::{Cpu, CpuPath};

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

#[allow(dead_code, reason = "not every test compares")]
pub fn close(cpu: Cpu, what: &str, found: &[f32], want: &[f64], allowed: f64) {
    assert_eq!(found.len(), want.len());
    for (i, (a, b)) in found.iter().zip(want).enumerate() {
        let error = (f64::from(*a) - b).abs();
        assert!(
            error <= allowed * (1.0 + b.abs()),
            "{what} on {cpu}: {i}: {a} is not {b}"
        );
    }
}
