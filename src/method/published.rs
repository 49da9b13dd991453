//! Method A as its authors released it, defects included, to compare with. Nobody edits with this.
//!
//! Wu et al., arXiv 2212.08698, real images: (1) deterministic DDIM inversion of the latent to the
//! noisiest level, with guidance; (2) an independent q-sample at every step; (3) PLMS under the
//! neutral text, storing the residual that lands each step on a q-sample; (4) PLMS under the mixed
//! text with the residuals of the first 33 of 50 steps added back, none after.
//!
//! What is wrong with it, and kept here: the residual of a step aims at the q-sample of the step's
//! OWN level instead of the next one; PLMS keeps its history across latents that were re-noised in
//! between; residuals stop at two thirds; and the DDIM inversion treats the clean latent as if it
//! were at the grid's last level. So strength 0 does not give the input back.

use super::mix::{Blend, condition_at};
use crate::diffusion::ddim::{Stochastic, Update};
use crate::diffusion::plms::{self, History};
use crate::diffusion::{
    Condition, Denoiser, Grid, Guidance, Latent, Prediction, Span, Step, q_sample,
};
use crate::error::Result;

/// What the released inversion stores.
#[derive(Clone, Debug)]
pub struct PublishedInversion {
    grid: Grid,
    guidance: Guidance,
    base: Condition,
    start: Latent,
    residuals: Vec<Latent>,
}

/// Residuals are added in this share of the steps.
const KEPT: (usize, usize) = (33, 50);

impl PublishedInversion {
    /// Inverts `latent`. Published values: 50 leading steps with offset 1, ε, guidance 7.5.
    pub fn new<N: Denoiser + ?Sized>(
        net: &N,
        grid: Grid,
        latent: &Latent,
        base: Condition,
        guidance: Guidance,
        seed: u64,
        span: Span<'_>,
    ) -> Result<Self> {
        plms::check(&grid)?;
        guidance.check(&base)?;
        let steps = grid.steps();
        let work = 2 * steps.len();
        let look = |x: &Latent, t: usize| guidance.predict(net, x, t, &base, span.control());

        // Upwards, from the last level of the grid to its first.
        let mut start = latent.clone();
        for (done, pair) in steps.windows(2).rev().enumerate() {
            span.tell(done, work)?;
            let [up, here] = pair else { continue };
            let e = look(&start, here.t)?;
            start = Update::new(&towards(here, up), Prediction::Epsilon, 0.0).mean(&start, &e);
        }

        let noise = Stochastic::new(1.0, seed)?;
        let mut residuals = Vec::with_capacity(steps.len());
        let mut history = History::new();
        let mut x = start.clone();
        for (i, step) in steps.iter().enumerate() {
            span.tell(steps.len() + i, work)?;
            let target = q_sample(latent, step, noise)?;
            let landed = |_: Latent| target.clone();
            let mean = history.advance(step, plms::after(&grid, i), &x, look, landed)?;
            residuals.push(target.zip(&mean, |q, m| q - m));
            x = target;
        }
        span.tell(1, 1)?;
        Ok(PublishedInversion {
            start,
            residuals,
            grid,
            guidance,
            base,
        })
    }

    /// The released edit.
    pub fn edit<N: Denoiser + ?Sized>(
        &self,
        net: &N,
        blends: &[Blend<'_>],
        span: Span<'_>,
    ) -> Result<Latent> {
        let steps = self.grid.steps();
        let kept = (steps.len() * KEPT.0).div_ceil(KEPT.1);
        let mut history = History::new();
        let mut x = self.start.clone();
        for (i, (step, residual)) in steps.iter().zip(&self.residuals).enumerate() {
            span.tell(i, steps.len())?;
            let condition = condition_at(&self.base, blends, step);
            let look = |x: &Latent, t: usize| {
                (self.guidance).predict(net, x, t, &condition, span.control())
            };
            let add = |mean: Latent| {
                if i < kept {
                    mean.zip(residual, |m, r| m + r)
                } else {
                    mean
                }
            };
            let mean = history.advance(step, plms::after(&self.grid, i), &x, look, add)?;
            x = add(mean);
        }
        span.tell(1, 1)?;
        Ok(x)
    }

    /// The latent that replays start from, inverted to the noisiest level.
    pub fn start(&self) -> &Latent {
        &self.start
    }

    /// The steps.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }
}

/// A step from `here` up to the noisier `up`.
fn towards(here: &Step, up: &Step) -> Step {
    Step {
        next: up.level,
        ..*here
    }
}
