//! Semblance: change one attribute of a layer, keep its likeness.
//!
//! For: editing a layer's pixels with a diffusion model, through [`Engine`]. Not for: files,
//! windows and the C ABI, which live in `plugin-host` and `ffi`.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod attribute;
pub mod diffusion;
mod engine;
mod error;
mod fields;
pub mod job;
pub mod layer;
mod limits;
pub mod method;
pub mod model;
pub mod nn;
mod params;
mod recipe;
pub mod weights;

/// This library's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub use diffusion::Latent;
pub use engine::{Edit, Engine, EngineOptions, ModelChoice, Request};
pub use error::{Code, Error, Result};
pub use layer::Tally;
pub use recipe::{
    Compositor, Form, FreeText, IdentityShortcut, RECIPE_VERSION, Recipe, Slider, Stamp,
};
