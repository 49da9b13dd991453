//! The networks, each written once over [`crate::nn::Ops`], and the pipeline that joins them.
//!
//! For: [`Pipeline`], which is what the engine uses, and the parts of Stable Diffusion 1.x and 2.x
//! and of the embedded model: U-Net, autoencoder, CLIP's towers for texts and pictures; VGG-16, to compare
//! pictures with. Not for: samplers (`diffusion`), files (`weights`) and what an edit means (`method`).
//!
//! The structure follows diffusers and transformers, whose names the weights have; `tests/parity.rs`
//! compares the numbers.

mod block;
mod build;
mod family;
pub mod text;
mod tower;
pub mod unet;
pub mod vae;
pub mod vision;

pub use build::Builder;
pub use family::{Context, Grid, Outline, Pipeline, TextEmbedding};
