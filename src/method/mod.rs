//! What an edit means: from conditions and strengths to an edited latent.
//!
//! For: the published methods, each in its own module with its paper and equations. Not for:
//! sampling as such (`diffusion`), attribute files (`attribute`), pixels (`layer`).
//!
//! So far method A, mixing of text embeddings ([`mix`], its schedules in [`lambda`]), and the form
//! of it that its authors released ([`published`]), kept to compare with.

pub mod lambda;
pub mod mix;
pub mod published;
#[cfg(test)]
mod tests;

pub use lambda::Lambda;
pub use mix::{Blend, Start};
