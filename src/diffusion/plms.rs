//! PLMS, for the `published` form of method A only.
//!
//! Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", arXiv 2202.09778,
//! equations 9 and 12, started as the latent diffusion release does: the first step is a Heun step
//! with a second look at the next time (so n steps are n + 1 predictions), then Adams–Bashforth of
//! order 2, 3, 4 over the last predictions. diffusers' `PNDMScheduler` with `skip_prk_steps`
//! computes the same and lists the second timestep twice.
//!
//! Predictions are of ε: the history averages them across levels, where v would mean something else.

use super::ddim::Update;
use super::{Condition, Denoiser, Grid, Guidance, Latent, Prediction, Span, Step};
use crate::error::{Code, Error, Result};

/// The last predictions of ε, the newest first, at most three.
#[derive(Clone, Debug, Default)]
pub struct History(Vec<Latent>);

/// Fails when the grid's network does not predict ε.
pub fn check(grid: &Grid) -> Result<()> {
    if grid.prediction() == Prediction::Epsilon {
        return Ok(());
    }
    Err(Error::new(
        Code::UnsupportedModel,
        "the published form needs a network that predicts ε; this one predicts v",
    )
    .with_hint("use the default form"))
}

impl History {
    /// No prediction yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The mean of x at `step`'s next level. `look` predicts ε at a latent and a timestep; `land`
    /// turns the Heun step's first mean into the latent that is looked at second (identity in plain
    /// sampling; inversion adds its residual). `after` is the timestep of the next step.
    pub fn advance(
        &mut self,
        step: &Step,
        after: usize,
        x: &Latent,
        look: impl Fn(&Latent, usize) -> Result<Latent>,
        land: impl Fn(Latent) -> Latent,
    ) -> Result<Latent> {
        let update = Update::new(step, Prediction::Epsilon, 0.0);
        let e = look(x, step.t)?;
        let slope = match self.0.as_slice() {
            [] => {
                let next = look(&land(update.mean(x, &e)), after)?;
                e.zip(&next, |e, n| (e + n) / 2.0)
            }
            [a] => e.zip(a, |e, a| (3.0 * e - a) / 2.0),
            [a, b] => e
                .zip(a, |e, a| 23.0 * e - 16.0 * a)
                .zip(b, |s, b| (s + 5.0 * b) / 12.0),
            [a, b, c, ..] => e
                .zip(a, |e, a| 55.0 * e - 59.0 * a)
                .zip(b, |s, b| s + 37.0 * b)
                .zip(c, |s, c| (s - 9.0 * c) / 24.0),
        };
        self.0.insert(0, e);
        self.0.truncate(3);
        Ok(update.mean(x, &slope))
    }
}

/// The timestep of the step after the i-th; the last one's own.
pub(crate) fn after(grid: &Grid, i: usize) -> usize {
    let steps = grid.steps();
    let next = steps.get(i + 1).or(steps.last());
    next.map_or(0, |step| step.t)
}

/// Samples from `start`, the latent at the grid's first level, under one condition.
pub fn sample<N: Denoiser + ?Sized>(
    net: &N,
    grid: &Grid,
    start: Latent,
    condition: &Condition,
    guidance: &Guidance,
    span: Span<'_>,
) -> Result<Latent> {
    check(grid)?;
    guidance.check(condition)?;
    let look = |x: &Latent, t: usize| guidance.predict(net, x, t, condition, span.control());
    let mut history = History::new();
    let mut x = start;
    for (i, step) in grid.steps().iter().enumerate() {
        span.tell(i, grid.steps().len())?;
        x = history.advance(step, after(grid, i), &x, look, |x| x)?;
    }
    span.tell(1, 1)?;
    Ok(x)
}
