//! DDIM: the sampler of every form but the published one.
//!
//! Song et al., "Denoising Diffusion Implicit Models", arXiv 2010.02502, equations 12 and 16:
//!
//! x_next = √ᾱ' x̂_0 + √(1 − ᾱ' − σ²) ε̂ + σ z,  σ = η √((1 − ᾱ')/(1 − ᾱ)) √(1 − ᾱ/ᾱ')
//!
//! x̂_0 and ε̂ are linear in x and in the network's answer p, so a step is two numbers, found in f64:
//! x_next = A x + B p + σ z. With v-prediction x̂_0 = √ᾱ x − √(1−ᾱ) p and ε̂ = √(1−ᾱ) x + √ᾱ p, which
//! needs no division and is right at ᾱ = 0 (zero terminal SNR); ε-prediction divides by √ᾱ, and
//! [`Schedule::grid`](super::Schedule::grid) refuses it there.

use std::borrow::Cow;

use super::noise::{self, Purpose};
use super::{Condition, Denoiser, Grid, Guidance, Latent, Prediction, Span, Step};
use crate::error::{Code, Error, Result};

/// The numbers of one step; each pair multiplies (x, prediction).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// To the mean of x at the next level.
    pub mean: [f32; 2],
    /// To the predicted clean latent x̂_0.
    pub clean: [f32; 2],
    /// Deviation of the noise that is added to the mean.
    pub sigma: f32,
}

impl Update {
    /// The update of `step` with η in 0..=1: 0 adds no noise, 1 as much as DDPM.
    pub fn new(step: &Step, prediction: Prediction, eta: f64) -> Self {
        let (a, next) = (step.level, step.next);
        let (signal, noise) = (a.sqrt(), (1.0 - a).max(0.0).sqrt());
        let left = (1.0 - next).max(0.0);
        // ᾱ = 1 before the step would be 0/0: no noise is there and none is added.
        let variance = if noise > 0.0 && next > 0.0 {
            eta * eta * (left / (1.0 - a) * (1.0 - a / next)).max(0.0)
        } else {
            0.0
        };
        let (clean, eps) = match prediction {
            Prediction::Epsilon => ([1.0 / signal, -noise / signal], [0.0, 1.0]),
            Prediction::V => ([signal, -noise], [noise, signal]),
        };
        let (to_clean, to_eps) = (next.sqrt(), (left - variance).max(0.0).sqrt());
        let mean = [0, 1].map(|i| (to_clean * clean[i] + to_eps * eps[i]) as f32);
        Update {
            mean,
            clean: clean.map(|v| v as f32),
            sigma: variance.sqrt() as f32,
        }
    }

    /// The mean of the next latent.
    pub fn mean(&self, x: &Latent, prediction: &Latent) -> Latent {
        let [a, b] = self.mean;
        x.zip(prediction, |x, p| a * x + b * p)
    }

    /// The predicted clean latent x̂_0.
    pub fn clean(&self, x: &Latent, prediction: &Latent) -> Latent {
        let [a, b] = self.clean;
        x.zip(prediction, |x, p| a * x + b * p)
    }
}

/// The noise added on the way, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stochastic {
    eta: f64,
    seed: u64,
    share: f32,
}

impl Stochastic {
    /// η in 0..=1 (0 none, 1 as DDPM) and the seed of all noise.
    pub fn new(eta: f64, seed: u64) -> Result<Self> {
        if !(0.0..=1.0).contains(&eta) {
            return Err(Error::new(
                Code::InvalidParameter,
                format!("eta = {eta}: must be 0..=1"),
            )
            .with_hint("try 1 for inversion, 0 for sampling")
            .with_parameter("eta"));
        }
        Ok(Stochastic {
            eta,
            seed,
            share: 1.0,
        })
    }

    /// With `share` (0..=1) of the noise in the samples that an inversion starts from: 1 is a
    /// q-sample, 0 the latent itself, scaled to the level. What is edited is then seen by the network
    /// as it is, and the seed does nothing.
    pub fn with_share(self, share: f32) -> Result<Self> {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::new(
                Code::InvalidParameter,
                format!("noise = {share}: must be 0..=1"),
            )
            .with_hint("try 1")
            .with_parameter("noise"));
        }
        Ok(Stochastic { share, ..self })
    }

    /// The share of the noise in an inversion's samples.
    pub fn share(&self) -> f32 {
        self.share
    }

    /// η.
    pub fn eta(&self) -> f64 {
        self.eta
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// One sampling run: all that does not change from step to step.
#[derive(Clone, Copy, Debug)]
pub struct Sampling<'a> {
    /// The steps.
    pub grid: &'a Grid,
    /// Classifier-free guidance.
    pub guidance: &'a Guidance,
    /// The noise added on the way.
    pub noise: Stochastic,
    /// Whom to tell, and who may stop it.
    pub span: Span<'a>,
}

/// Samples from `start`, the latent at the grid's first level, under one condition.
pub fn sample<N: Denoiser + ?Sized>(
    net: &N,
    start: Latent,
    condition: &Condition,
    run: &Sampling<'_>,
) -> Result<Latent> {
    sample_with(net, start, |_| Cow::Borrowed(condition), run)
}

/// Samples from `start` under a condition that may change from step to step.
pub fn sample_with<'c, N: Denoiser + ?Sized>(
    net: &N,
    start: Latent,
    condition: impl Fn(&Step) -> Cow<'c, Condition>,
    run: &Sampling<'_>,
) -> Result<Latent> {
    let Sampling {
        grid,
        guidance,
        noise,
        span,
    } = *run;
    let mut x = start;
    for (i, step) in grid.steps().iter().enumerate() {
        span.tell(i, grid.steps().len())?;
        let condition = condition(step);
        guidance.check(&condition)?;
        let prediction = guidance.predict(net, &x, step.t, &condition, span.control())?;
        let update = Update::new(step, grid.prediction(), noise.eta);
        x = update.mean(&x, &prediction);
        if update.sigma > 0.0 {
            let z = noise::latent(noise.seed, Purpose::Step, step.t as u64, x.shape())?;
            x = x.zip(&z, |x, z| x + update.sigma * z);
        }
    }
    span.tell(1, 1)?;
    Ok(x)
}
