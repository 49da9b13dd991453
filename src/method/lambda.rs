//! λ over time: how much of the styled text is mixed in at each noise level.
//!
//! Wu et al., "Uncovering the Disentanglement Capability in Text-to-Image Diffusion Models", CVPR
//! 2023, arXiv 2212.08698, have one scalar per step of a fixed 50-step sampler: 0 for the first t*
//! steps, 1 − d after, optionally learned from there. Here λ is a function of TIME, the fraction
//! (t + 1)/T of the training timesteps that is left, so that one schedule means the same edit on
//! every grid. λ is the weight of the STYLED text (the release stores 1 − λ).

use crate::error::{Code, Error, Result};

/// λ as a function of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Lambda(Kind);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// `height` from time `until` down to 0.
    Step { until: f64, height: f32 },
    /// Linear between knots of falling time, constant beyond them.
    Learned { knots: Vec<(f64, f32)> },
}

/// Steps of the sampler that the published numbers count in.
const PUBLISHED_STEPS: u32 = 50;
/// The largest |λ|: published extrapolation reaches 1.2, and images break well below this.
const MAX_LAMBDA: f32 = 4.0;
/// Half a timestep of a thousand: grids round their times to whole timesteps.
const ROUNDING: f64 = 0.5e-3;

impl Lambda {
    /// step(t; t*, d): 0 while less than `onset` of the way is done, 1 − `d` after.
    ///
    /// `onset` (t*, 0..1) is the share of the noise levels that is skipped: 0 changes everything,
    /// light and layout; 0.1 to 0.4 surfaces; later ones detail. `d` (−3..=1) extrapolates when
    /// negative.
    pub fn step(onset: f64, d: f32) -> Result<Self> {
        if !(0.0..1.0).contains(&onset) {
            return Err(Error::new(
                Code::InvalidParameter,
                format!("onset = {onset}: must be 0..1"),
            )
            .with_hint("try 0 for light and weather, 0.25 for surfaces")
            .with_parameter("onset"));
        }
        let height = 1.0 - d;
        check(height)?;
        Ok(Lambda(Kind::Step {
            until: 1.0 - onset,
            height,
        }))
    }

    /// A published preset: t* in steps of the 50-step sampler (0..=49) and d.
    pub fn published(steps: u32, d: f32) -> Result<Self> {
        Self::step(f64::from(steps) / f64::from(PUBLISHED_STEPS), d)
    }

    /// A learned λ: `values` at `times`, which are fractions (t + 1)/T in (0, 1], strictly falling.
    pub fn learned(times: &[f64], values: &[f32]) -> Result<Self> {
        let refuse = |why: String| {
            Err(Error::new(Code::InvalidAttribute, why)
                .with_hint("a learned λ has one value for each time, noisiest first")
                .with_parameter("lambda"))
        };
        if times.is_empty() || times.len() != values.len() {
            return refuse(format!(
                "lambda: {} times for {} values: must be as many, and at least one",
                times.len(),
                values.len()
            ));
        }
        if let Some(bad) = times.iter().find(|&&t| !(t > 0.0 && t <= 1.0)) {
            return refuse(format!("lambda: time {bad}: must be above 0 and at most 1"));
        }
        if let Some(pair) = times.windows(2).find(|pair| pair[0] <= pair[1]) {
            return refuse(format!(
                "lambda: time {} after {}: must fall",
                pair[1], pair[0]
            ));
        }
        for &value in values {
            check(value)?;
        }
        Ok(Lambda(Kind::Learned {
            knots: times.iter().copied().zip(values.iter().copied()).collect(),
        }))
    }

    /// λ at `time` = (t + 1)/T.
    pub fn at(&self, time: f64) -> f32 {
        match &self.0 {
            Kind::Step { until, height } if time <= until + ROUNDING => *height,
            Kind::Step { .. } => 0.0,
            Kind::Learned { knots } => {
                let below = knots.partition_point(|(t, _)| *t > time);
                let late = knots.get(below);
                let early = below.checked_sub(1).and_then(|i| knots.get(i));
                match (early, late) {
                    // A knot itself gives its value untouched.
                    (_, Some((t, value))) if *t == time => *value,
                    (Some((t0, v0)), Some((t1, v1))) => {
                        let share = ((t0 - time) / (t0 - t1)) as f32;
                        v0 + share * (v1 - v0)
                    }
                    (Some((_, value)), None) | (None, Some((_, value))) => *value,
                    (None, None) => 0.0,
                }
            }
        }
    }
}

fn check(value: f32) -> Result<()> {
    if value.abs() <= MAX_LAMBDA {
        return Ok(());
    }
    Err(Error::new(
        Code::InvalidAttribute,
        format!("lambda = {value}: must be -{MAX_LAMBDA}..={MAX_LAMBDA}"),
    )
    .with_hint("1 is the styled text itself, 1.2 the strongest published")
    .with_parameter("lambda"))
}
