//! A host of libsemblance: documents, the command line and the wrapper they use.
//!
//! For: editing files. Not for: editing pixels, which the library does; this crate reaches it only
//! through the built shared object and its C ABI, as any editor would, so that whatever works here
//! works there.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod abi;
pub mod cli;
pub mod document;
mod failure;
#[allow(unsafe_code)]
pub mod library;
pub mod limits;
mod pixels;

pub use failure::{Exit, Failure, Result};
pub use pixels::{Alpha, Color, Order, Pixels, Samples};
