//! Seeded draws. Every random choice of a scene comes from here or from `noise`, never from a picture's size.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A stream of draws keyed by a seed and a purpose.
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&purpose.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }
    pub(crate) fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }
    /// Uniform in 0..1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.bits() >> 8) as f32 * (1.0 / 16_777_216.0)
    }
    pub(crate) fn range(&mut self, lo: f32, hi: f32) -> f32 {
        lo + (hi - lo) * self.unit()
    }
    /// Uniform in the logarithm.
    pub(crate) fn log_range(&mut self, lo: f32, hi: f32) -> f32 {
        crate::maths::exp(self.range(crate::maths::ln(lo), crate::maths::ln(hi)))
    }
    /// Bell-shaped around 0, within ±1.5.
    pub(crate) fn bell(&mut self) -> f32 {
        self.unit() + self.unit() + self.unit() - 1.5
    }
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((self.unit() * n as f32) as usize).min(n.saturating_sub(1))
    }
    pub(crate) fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }
}
