//! The network as the samplers see it, and classifier-free guidance over it.
//!
//! For: asking a network what the noise is. Not for: how the network answers (`model`).

use super::{Condition, Latent};
use crate::error::{Code, Error, Result};
use crate::job::Control;

/// A network that looks at noisy latents and predicts ε or v, whichever its schedule says.
pub trait Denoiser {
    /// Predictions for each of `x` at training timestep `t` under the condition of the same index,
    /// in the same shapes and order.
    ///
    /// Must be a pure function of its arguments, bit for bit: identity rests on it. It polls
    /// `control` at least once per network block and fails with what that says.
    fn predict(
        &self,
        x: &[&Latent],
        t: usize,
        conditions: &[&Condition],
        control: &Control,
    ) -> Result<Vec<Latent>>;
}

impl<N: Denoiser + ?Sized> Denoiser for &N {
    fn predict(
        &self,
        x: &[&Latent],
        t: usize,
        conditions: &[&Condition],
        control: &Control,
    ) -> Result<Vec<Latent>> {
        (**self).predict(x, t, conditions, control)
    }
}

/// Classifier-free guidance (Ho and Salimans, arXiv 2207.12598):
/// prediction = p(∅) + scale · (p(c) − p(∅)).
#[derive(Clone, Debug, PartialEq)]
pub struct Guidance(Option<(f32, Condition)>);

impl Guidance {
    /// No guidance (scale 1): one prediction a step.
    pub const OFF: Guidance = Guidance(None);

    /// Guidance by `scale` (1..=20; 1 is none) away from `empty`, the embedding of the empty text.
    pub fn new(scale: f32, empty: Condition) -> Result<Self> {
        if !(1.0..=20.0).contains(&scale) {
            return Err(Error::new(
                Code::InvalidParameter,
                format!("guidance = {scale}: must be 1..=20"),
            )
            .with_hint("try 1.5")
            .with_parameter("guidance"));
        }
        Ok(Guidance((scale != 1.0).then_some((scale, empty))))
    }

    /// The scale; 1 is none.
    pub fn scale(&self) -> f32 {
        self.0.as_ref().map_or(1.0, |(scale, _)| *scale)
    }

    /// Latents that the network is shown a step: 1 without guidance, 2 with.
    pub fn batch(&self) -> usize {
        1 + usize::from(self.0.is_some())
    }

    /// Fails when the empty text's embedding has another shape than `condition`.
    pub(crate) fn check(&self, condition: &Condition) -> Result<()> {
        match &self.0 {
            Some((_, empty)) => condition.check_same_shape(empty),
            None => Ok(()),
        }
    }

    /// The guided prediction at `x`. Polls `control` first, and refuses an answer of another shape
    /// or with a number that is not finite.
    pub fn predict<N: Denoiser + ?Sized>(
        &self,
        net: &N,
        x: &Latent,
        t: usize,
        condition: &Condition,
        control: &Control,
    ) -> Result<Latent> {
        control.check()?;
        let answer = match &self.0 {
            None => net.predict(&[x], t, &[condition], control)?,
            Some((_, empty)) => net.predict(&[x, x], t, &[empty, condition], control)?,
        };
        let shapes_fit = answer.iter().all(|p| p.shape() == x.shape());
        let guided = match (&self.0, answer.as_slice()) {
            (None, [p]) if shapes_fit => p.clone(),
            (Some((scale, _)), [u, c]) if shapes_fit => u.zip(c, |u, c| u + scale * (c - u)),
            _ => {
                return Err(Error::new(
                    Code::Internal,
                    format!(
                        "the network answered {} latents: must be {} of shape {:?}",
                        answer.len(),
                        self.batch(),
                        x.shape()
                    ),
                ));
            }
        };
        if guided.data.iter().all(|v| v.is_finite()) {
            return Ok(guided);
        }
        Err(Error::new(
            Code::InvalidModel,
            format!("the network's prediction at timestep {t} is not finite"),
        )
        .with_hint("the weights are damaged, or too large for 16 bits: fetch the model again"))
    }
}
