//! All randomness: normal noise that is a function of (seed, purpose, step, index) and nothing else.
//!
//! For: latents to start from, q-samples, the noise of η > 0. Not for: keys and secrets.
//!
//! ChaCha8 (Bernstein 2008) with the key `seed ‖ purpose ‖ step ‖ "semblnce"` (little-endian u64s)
//! and stream 0 is read as a counter over the numbers of a latent in NCHW order: numbers 2p and
//! 2p + 1 are the cosine and sine branch of Box–Muller (1958) over the stream's p-th pair of u64s.
//! So a number does not depend on how many are asked for, nor on threads; and because logarithm,
//! sine and cosine come from `libm`, nor on the machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::Latent;
use crate::error::Result;

/// What noise is for: two purposes never share a number. The numbers are part of every recipe's
/// meaning and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// The latent that sampling starts from.
    Start = 1,
    /// What a step with η > 0 adds.
    Step = 2,
    /// The q-samples of an inversion.
    Invert = 3,
}

/// The first `len` numbers of standard normal noise for `step` (a training timestep as a rule).
pub fn normal(seed: u64, purpose: Purpose, step: u64, len: usize) -> Vec<f32> {
    let mut key = [0u8; 32];
    let parts = [
        seed.to_le_bytes(),
        (purpose as u64).to_le_bytes(),
        step.to_le_bytes(),
        *b"semblnce",
    ];
    for (slot, part) in key.chunks_exact_mut(8).zip(parts) {
        slot.copy_from_slice(&part);
    }
    let mut stream = ChaCha8Rng::from_seed(key);
    let mut numbers = Vec::with_capacity(len + 1);
    while numbers.len() < len {
        // (0, 1] for the logarithm, [0, 1) for the angle; both exact in f64.
        let u = ((stream.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        let v = (stream.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let radius = (-2.0 * libm::log(u)).sqrt();
        let angle = std::f64::consts::TAU * v;
        numbers.push((radius * libm::cos(angle)) as f32);
        numbers.push((radius * libm::sin(angle)) as f32);
    }
    numbers.truncate(len);
    numbers
}

/// Standard normal noise in the shape (channels, height, width).
pub fn latent(seed: u64, purpose: Purpose, step: u64, shape: [usize; 3]) -> Result<Latent> {
    let len = shape.iter().product();
    Latent::new(normal(seed, purpose, step, len), shape)
}
