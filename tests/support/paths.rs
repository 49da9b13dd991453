//! The paths that a test of the native backend is run on.

use semblance::nn::native::Native;
use semblance_kernels::{Cpu, CpuPath};

/// Every path of the native backend that this CPU has, and tiles in software; those on tiles a second time with all
/// values rounded that may be.
pub fn paths() -> Vec<Native> {
    let here = CpuPath::ALL
        .into_iter()
        .filter_map(|path| match Cpu::new(path) {
            Ok(cpu) => Some(cpu),
            Err(_) => {
                println!("skipped: no {path} here");
                None
            }
        });
    let mut all: Vec<_> = here.chain([Cpu::emulated_amx()]).map(Native::new).collect();
    let tiles = all.iter().filter(|ops| ops.cpu().path() == CpuPath::Amx);
    let rounding: Vec<_> = tiles.map(|ops| ops.clone().rounding_from(0)).collect();
    all.extend(rounding);
    all
}
