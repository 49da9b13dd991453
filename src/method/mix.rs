//! Method A: mixing text embeddings over time, every random draw kept.
//!
//! Wu et al., CVPR 2023, arXiv 2212.08698: swapping part of the text condition with all noise fixed
//! changes the style and keeps the content. At each step the network is shown
//!
//!   c_t = c_base + Σ_i s_i λ_i(t) (c1_i − c0_i)
//!
//! with one (c0, c1, λ, strength s) per attribute; the text of guidance's empty branch is untouched.
//!
//! Deviations from the release (kept in [`super::published`]): exact residual inversion one level
//! lower and for all steps, DDIM instead of PLMS, λ over time instead of step counts, the same
//! guidance in inversion and edit.
//!
//! The sum is kept as texts and their weights, each text once ([`Condition::plus`]): keys and values
//! are linear in the text, so the network mixes those that each text has, computed once.
//!
//! Two exact cases: one attribute with c0 = c_base is (1 − w) c0 + w c1, so weight 1 is plain styled
//! sampling bit for bit; where all weights are 0 it is c_base itself. The order of the attributes
//! changes no bit: weights and texts are sorted before they are summed. A negative strength extrapolates away from c1; a caller with an `opposite` text
//! passes that as c1 and the strength's magnitude instead.

use std::borrow::Cow;

use super::Lambda;
use crate::diffusion::ddim::{self, Sampling};
use crate::diffusion::{Condition, Denoiser, Grid, Inversion, Latent, Span, Step};
use crate::error::{Code, Error, Result};

/// One attribute of an edit.
#[derive(Clone, Debug)]
pub struct Blend<'a> {
    neutral: &'a Condition,
    styled: &'a Condition,
    lambda: Lambda,
    strength: f32,
    damping: f32,
}

/// Where an edit starts on the stored trajectory. Both give the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the first step with a weight that is not 0; what comes before is stored already.
    #[default]
    FirstChange,
    /// At the first step: slower, for tests of identity without a shortcut.
    Beginning,
}

impl<'a> Blend<'a> {
    /// From `neutral` (c0) to `styled` (c1) by `strength` (−2..=2) times λ.
    pub fn new(
        neutral: &'a Condition,
        styled: &'a Condition,
        lambda: Lambda,
        strength: f32,
    ) -> Result<Self> {
        neutral.check_same_shape(styled)?;
        if !(-2.0..=2.0).contains(&strength) {
            return Err(Error::new(
                Code::InvalidParameter,
                format!("strength = {strength}: must be -2..=2"),
            )
            .with_hint("1 is the full effect")
            .with_parameter("strength"));
        }
        Ok(Blend {
            neutral,
            styled,
            lambda,
            strength,
            damping: 0.0,
        })
    }

    /// The same attribute with residuals damped by `damping` (0..=1) where it flattens the picture;
    /// see [`Inversion::replay`]. Less in proportion while |s λ| < 1, so that it fades with the edit.
    pub fn with_damping(mut self, damping: f32) -> Result<Self> {
        if !(0.0..=1.0).contains(&damping) {
            return Err(Error::new(
                Code::InvalidAttribute,
                format!("damping = {damping}: must be 0..=1"),
            )
            .with_hint("try 0; 1 suits edits that darken")
            .with_parameter("damping"));
        }
        self.damping = damping;
        Ok(self)
    }

    /// s λ at a step.
    pub fn weight(&self, step: &Step) -> f32 {
        self.strength * self.lambda.at(step.time)
    }
}

/// The condition of one step.
pub fn condition_at<'a>(
    base: &'a Condition,
    blends: &[Blend<'a>],
    step: &Step,
) -> Cow<'a, Condition> {
    let active: Vec<(f32, &Blend<'a>)> = (blends.iter())
        .map(|blend| (blend.weight(step), blend))
        .filter(|(weight, _)| *weight != 0.0)
        .collect();
    if active.is_empty() {
        return Cow::Borrowed(base);
    }
    let parts = active
        .iter()
        .flat_map(|(w, blend)| [(*w, blend.styled), (-w, blend.neutral)]);
    Cow::Owned(base.plus(&parts.collect::<Vec<_>>()))
}

/// The first step of `grid` with a weight that is not 0; the number of steps when there is none.
/// The inversion must be complete from here.
pub fn first_change(grid: &Grid, blends: &[Blend<'_>]) -> usize {
    (grid.steps().iter())
        .position(|step| blends.iter().any(|blend| blend.weight(step) != 0.0))
        .unwrap_or(grid.steps().len())
}

/// The inverted latent with `blends` applied: one guided prediction per step from `start` on.
///
/// `inversion` must be complete from the first step that is run ([`first_change`], or 0).
pub fn edit<N: Denoiser + ?Sized>(
    net: &N,
    inversion: &Inversion,
    blends: &[Blend<'_>],
    start: Start,
    span: Span<'_>,
) -> Result<Latent> {
    check(inversion.base(), blends)?;
    let steps = inversion.grid().steps();
    let first = match start {
        Start::FirstChange => first_change(inversion.grid(), blends),
        Start::Beginning => 0,
    };
    let Some(mut x) = inversion.states().get(first).cloned() else {
        return Err(Error::new(Code::Internal, "an inversion without states"));
    };
    for (i, step) in steps.iter().enumerate().skip(first) {
        span.tell(i - first, steps.len() - first)?;
        let condition = condition_at(inversion.base(), blends, step);
        let damping = (blends.iter())
            .map(|blend| blend.damping * blend.weight(step).abs().min(1.0))
            .fold(0.0, f32::max);
        x = inversion.replay(net, i, &x, &condition, damping, span)?;
    }
    span.tell(1, 1)?;
    Ok(x)
}

/// A latent sampled from `start` (noise at the grid's first level) with `blends` applied to `base`:
/// the method on generated pictures, without an inversion.
pub fn generate<N: Denoiser + ?Sized>(
    net: &N,
    start: Latent,
    base: &Condition,
    blends: &[Blend<'_>],
    run: &Sampling<'_>,
) -> Result<Latent> {
    check(base, blends)?;
    ddim::sample_with(net, start, |step| condition_at(base, blends, step), run)
}

fn check(base: &Condition, blends: &[Blend<'_>]) -> Result<()> {
    (blends.iter()).try_for_each(|blend| base.check_same_shape(blend.styled))
}
