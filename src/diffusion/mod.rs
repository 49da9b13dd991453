//! Diffusion over latents: schedules, samplers, inversion, noise.
//!
//! For: everything between a latent and its noise, without knowing any network or tensor library: a
//! network is whatever implements [`Denoiser`]. Not for: networks (`model`) and what an edit means
//! (`method`). Numbers per latent are f32, numbers per step are found in f64.

mod condition;
pub mod ddim;
mod denoiser;
mod inversion;
mod latent;
pub mod noise;
pub mod plms;
mod schedule;
mod span;
#[cfg(test)]
mod tests;

pub use condition::{Condition, Embedding};
pub use ddim::Stochastic;
pub use denoiser::{Denoiser, Guidance};
pub use inversion::Inversion;
pub(crate) use inversion::q_sample;
pub use latent::Latent;
pub use schedule::{Betas, Grid, Prediction, Schedule, ScheduleConfig, Spacing, Step};
pub use span::Span;
