//! What the engine needs of the CPU itself: which instructions there are, and in which mode it
//! computes.
//!
//! For: the project's only numeric `unsafe`, behind safe functions. Not for: anything that knows of
//! models, layers or hosts.

pub mod cpu;
pub mod fpcontrol;

pub use cpu::{CpuError, CpuPath};
pub use fpcontrol::FpScope;
