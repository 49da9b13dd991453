//! Networks that look at pictures: what they see becomes numbers that two pictures, or a picture and a
//! text, are compared by.
//!
//! For: losses and measures over pictures. Not for: pictures to latents ([`super::vae`]).

pub mod clip;
pub mod vgg;
