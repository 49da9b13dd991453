//! Where a model's files are, and their checked contents.
//!
//! For: [`ModelSource`], tensors by name with limits on every length, the diffusers layout, the
//! model's identity, the registry that shares loaded models, and packed weights on disk ([`Packs`]). Not
//! for: what the tensors mean (`model`). Nothing here executes anything: pickles are refused by their
//! first bytes.

mod diffusers;
mod packed;
mod registry;
mod source;
mod tensors;

pub(crate) use diffusers::Config;
pub use diffusers::Layout;
pub(crate) use packed::Pack;
pub use packed::{Kept, Packs};
pub use registry::shared;
pub use source::{ModelSource, Stamp};
pub use tensors::{TensorFile, Tensors};

/// A model's JSON files: a larger one is not a configuration. Stops a file that fills the memory.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// A vocabulary. Stops a file that fills the memory; CLIP's largest is 3.6 MB.
pub const MAX_TOKENIZER_BYTES: u64 = 32 << 20;
/// A safetensors header, which is parsed in memory. Stable Diffusion's largest is 0.2 MB.
pub const MAX_HEADER_BYTES: u64 = 16 << 20;
/// A tensor's dimensions; convolutions have four.
pub const MAX_RANK: usize = 8;
