//! The numeric kernels and what they need of the CPU: which instructions there are, and in which
//! mode it computes.
//!
//! For: the project's only numeric `unsafe`, behind functions that check every length. Not for:
//! anything that knows of models, layers or hosts.
//!
//! Values are `f32` slices that lie as `n × h × w × c`. A [`Cpu`] says which instructions to take;
//! weights are packed for it once ([`Weights`], [`Conv`]). Work is shared out in the rayon pool of
//! the caller; how it is shared out changes no bit of a result.

pub mod cpu;
pub mod fpcontrol;

mod amx;
mod arena;
mod attention;
mod attention_derivative;
mod attention_pack;
mod bf16;
mod conv;
mod conv_maps;
mod conv_transposed;
mod derivative;
mod error;
mod exchange;
mod finish;
mod gates;
mod halves;
mod isa;
mod linear;
mod mapped;
mod math;
mod memory;
mod moves_back;
mod norm;
mod norm_vectors;
mod pack;
mod packed;
mod pages;
mod parts;
mod product;
mod share;
mod slices;
mod softmax;
mod team;
mod values;
mod vector;
mod vector_math;
mod winograd;
mod workers;

pub use arena::{Arena, Pooled};
pub use attention::{Heads, Mask, attention, attention_and_lse, attention_rounds};
pub use attention_derivative::{
    Left, Qkv, attention_cotangent, attention_leaves, attention_tangent,
};
pub use conv::{Conv, Size, Window};
pub use conv_transposed::ConvTransposed;
pub use cpu::{CpuError, CpuFamily, CpuPath};
pub use derivative::{
    GroupNorm, Way, activate_derivative, group_norm_derivative, layer_norm_derivative,
};
pub use error::{KernelError, Result};
pub use finish::{Finish, Plus};
pub use fpcontrol::FpScope;
pub use gates::{gate_tangent, geglu_cotangent};
pub use isa::{Cpu, Precision};
pub use linear::{linear, linears};
pub use mapped::Mapped;
pub use math::Act;
pub use memory::Buffer;
pub use moves_back::{columns, sum_rows, upsample_cotangent};
pub use norm::{Affine, WIDEST, group_norm, layer_norm, rms_norm};
pub use pack::Weights;
pub use packed::{LINE, Packed};
pub use slices::{activate, combine, concat, max_pool, softmax, upsample};
pub use values::{Input, Output, widen};
pub use winograd::Tiling;
pub use workers::{Workers, awake};
