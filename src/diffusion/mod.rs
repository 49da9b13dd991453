//! Diffusion over latents: schedules, samplers, inversion, noise.
//!
//! For: everything between a latent and its noise, without knowing any network. Not for: networks
//! (`model`) and what an edit means (`method`).

mod latent;

pub use latent::Latent;
