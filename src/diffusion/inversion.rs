//! Exact inversion: noise and residuals that give a latent back, to the bit.
//!
//! Huberman-Spiegelglas et al., "An Edit Friendly DDPM Noise Space", arXiv 2304.06140: draw an
//! INDEPENDENT q-sample of the latent at every level, x_i = √ᾱ_i z + √(1 − ᾱ_i) n_i, and keep for
//! each step the residual u_i = x_{i+1} − μ(x_i, c0) that makes it land on the next level's sample
//! (the published release of method A aims at the step's own level; `method::published` keeps that).
//! Replaying with another condition c keeps the picture and changes what c changes:
//!
//!   x'_{i+1} = μ(x'_i, c) + u_i
//!
//! Here this is computed as **x'_{i+1} = x_{i+1} + (μ(x'_i, c) − μ(x_i, c0))** from stored samples
//! and means. In exact arithmetic it is the same; in floating point μ + (x − μ) is x up to a
//! rounding, whereas this is x itself whenever the network is shown the same numbers twice. So an
//! edit that changes nothing gives the input back bit for bit, at any guidance and with any
//! network, and an edit that tends to nothing tends to it; no residual is stored.
//!
//! The samples are independent of each other, so any step can be inverted alone: an edit that starts
//! at step k needs the means of steps k.. only, and [`Inversion::complete`] adds earlier ones when a
//! later edit asks for them. Every trajectory that ends at z serves, so the samples may carry a share of
//! the noise only, or none ([`Stochastic::with_share`]): a network trained for it then edits a picture
//! that no noise hides. Memory per step: two latents (128 KiB for 4×64×64) and a number per
//! channel.

use super::ddim::{Stochastic, Update};
use super::noise::{self, Purpose};
use super::{Condition, Denoiser, Grid, Guidance, Latent, Span, Step};
use crate::error::{Code, Error, Result};

/// A latent's trajectory under its neutral condition: what every slider move reuses.
#[derive(Clone, Debug)]
pub struct Inversion {
    grid: Grid,
    noise: Stochastic,
    guidance: Guidance,
    base: Condition,
    /// x_i at each level, noisiest first, and the latent itself last.
    states: Vec<Latent>,
    /// What the network makes of each x_i under `base`, where it was asked.
    sources: Vec<Option<Source>>,
}

#[derive(Clone, Debug)]
struct Source {
    mean: Latent,
    /// Spatial deviation of x̂_0, per channel.
    deviations: Vec<f32>,
}

impl Inversion {
    /// Draws the q-samples of `latent`; asks the network nothing yet.
    ///
    /// `base` is the neutral text, `guidance` what edits will use (inverted with, so that it drifts
    /// nowhere), `noise` the η of the steps (1 is edit-friendly), the seed and the share of the noise.
    pub fn new(
        grid: Grid,
        latent: Latent,
        base: Condition,
        guidance: Guidance,
        noise: Stochastic,
    ) -> Result<Self> {
        guidance.check(&base)?;
        if let Some(bad) = latent.data.iter().find(|v| !v.is_finite()) {
            return Err(Error::new(
                Code::InvalidModel,
                format!("the latent to invert has the value {bad}: must be finite"),
            )
            .with_hint("the weights of the VAE are damaged: fetch the model again"));
        }
        let mut states = Vec::with_capacity(grid.steps().len() + 1);
        for step in grid.steps() {
            states.push(q_sample(&latent, step, noise)?);
        }
        states.push(latent);
        Ok(Inversion {
            sources: vec![None; grid.steps().len()],
            grid,
            noise,
            guidance,
            base,
            states,
        })
    }

    /// Asks the network for the means of the steps `from..` that are still missing, one guided
    /// prediction each. What was done before a cancel is kept.
    pub fn complete<N: Denoiser + ?Sized>(
        &mut self,
        net: &N,
        from: usize,
        span: Span<'_>,
    ) -> Result<()> {
        let steps = self.grid.steps();
        let missing: Vec<usize> = (from..steps.len())
            .filter(|&i| self.sources.get(i).is_some_and(Option::is_none))
            .collect();
        for (done, &i) in missing.iter().enumerate() {
            span.tell(done, missing.len())?;
            let (Some(step), Some(x)) = (steps.get(i), self.states.get(i)) else {
                continue;
            };
            let p = (self.guidance).predict(net, x, step.t, &self.base, span.control())?;
            let update = Update::new(step, self.grid.prediction(), self.noise.eta());
            if let Some(slot) = self.sources.get_mut(i) {
                *slot = Some(Source {
                    mean: update.mean(x, &p),
                    deviations: update.clean(x, &p).deviations(),
                });
            }
        }
        span.tell(1, 1)
    }

    /// The steps.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// The neutral condition.
    pub fn base(&self) -> &Condition {
        &self.base
    }

    /// The guidance it was inverted with, and that edits use.
    pub fn guidance(&self) -> &Guidance {
        &self.guidance
    }

    /// The trajectory: x_i before each step, noisiest first, and the inverted latent last.
    pub fn states(&self) -> &[Latent] {
        &self.states
    }

    /// Whether the means of the steps `from..` are all there.
    pub fn is_complete_from(&self, from: usize) -> bool {
        self.sources.iter().skip(from).all(Option::is_some)
    }

    /// Step `i` from `x` under `condition`: the stored next state plus what the condition (and the
    /// way that `x` left the trajectory) changes of the mean.
    ///
    /// `damping` in 0..=1 shrinks the residual where the edit flattens the picture: per channel by
    /// 1 + damping · (min(1, dev x̂_0(x, c) / dev x̂_0(x_i, c0)) − 1). A residual carries the source's
    /// contrast, daylight's into a night (measured: night +1.8 dB, snow −1.1, so it is 0 unless an
    /// attribute asks). With u = x_{i+1} − μ_source it is one more term, (ratio − 1) · u, and exactly
    /// nothing when the condition changes nothing.
    ///
    /// Fails with [`Code::Internal`] when the step was not completed.
    pub fn replay<N: Denoiser + ?Sized>(
        &self,
        net: &N,
        i: usize,
        x: &Latent,
        condition: &Condition,
        damping: f32,
        span: Span<'_>,
    ) -> Result<Latent> {
        let (Some(step), Some(next), Some(Some(source))) = (
            self.grid.steps().get(i),
            self.states.get(i + 1),
            self.sources.get(i),
        ) else {
            return Err(Error::new(
                Code::Internal,
                format!("step {i} of the inversion is replayed before it was computed"),
            ));
        };
        let p = (self.guidance).predict(net, x, step.t, condition, span.control())?;
        let update = Update::new(step, self.grid.prediction(), self.noise.eta());
        let change = update.mean(x, &p).zip(&source.mean, |new, old| new - old);
        // Where nothing changes the state is copied: −0 + 0 would be +0.
        let mut out = next.zip(&change, |x, d| if d == 0.0 { x } else { x + d });
        if damping > 0.0 {
            let edited = update.clean(x, &p).deviations();
            let area = (out.height * out.width).max(1);
            let planes = out.data.chunks_mut(area).zip(next.data.chunks(area));
            let planes = planes.zip(source.mean.data.chunks(area));
            for (((out, next), mean), (e, s)) in planes.zip(edited.iter().zip(&source.deviations)) {
                let shrink = if e < s { damping * (e / s - 1.0) } else { 0.0 };
                if shrink < 0.0 {
                    for ((out, next), mean) in out.iter_mut().zip(next).zip(mean) {
                        *out += shrink * (next - mean);
                    }
                }
            }
        }
        Ok(out)
    }
}

/// x_t = √ᾱ z + share √(1 − ᾱ) n, with noise of its own for each timestep.
pub(crate) fn q_sample(z: &Latent, step: &Step, noise: Stochastic) -> Result<Latent> {
    let n = noise::latent(noise.seed(), Purpose::Invert, step.t as u64, z.shape())?;
    let signal = step.level.sqrt() as f32;
    let sigma = noise.share() * (1.0 - step.level).max(0.0).sqrt() as f32;
    Ok(z.zip(&n, |z, n| signal * z + sigma * n))
}
