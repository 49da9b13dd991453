//! The embedded model of Semblance.
//!
//! For: carrying a model inside the library. Not for: reading it, which is `semblance::weights`.

/// Every file of the model in diffusers layout: its path in the model's folder, its contents. Empty
/// while no model has been trained.
pub static FILES: &[(&str, &[u8])] = &[];
