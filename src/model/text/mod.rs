//! Text encoders and their tokenizers.

pub mod clip;
mod tokenizer;

pub use tokenizer::{Tokenized, Tokenizer};
