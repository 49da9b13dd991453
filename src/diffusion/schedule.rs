//! How much noise there is at each time, and which times a sampler visits.
//!
//! For: noise levels ᾱ of diffusers' schedulers and their timestep spacings. Not for: what a step
//! does with them (`ddim`, `plms`).
//!
//! x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε with ᾱ_t = Π (1 − β_s) (Ho et al., arXiv 2006.11239). Everything
//! here is f64; diffusers computes in f32, from which this differs by less than 1e-6.

use serde::Deserialize;

use crate::error::{Code, Error, Result};
use crate::fields::shorten;

/// What the network predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise ε.
    Epsilon,
    /// v = √ᾱ ε − √(1 − ᾱ) x_0 (Salimans and Ho, arXiv 2202.00512).
    #[serde(rename = "v_prediction")]
    V,
}

/// How β grows over the training timesteps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Betas {
    /// Evenly.
    Linear,
    /// Evenly in √β (Stable Diffusion).
    ScaledLinear,
    /// ᾱ is a squared cosine, β at most 0.999 (Nichol and Dhariwal, arXiv 2102.09672).
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredCosine,
}

/// Which timesteps a sampler of n steps visits (table 2 of Lin et al., arXiv 2305.08891).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// Multiples of ⌊T/n⌋ from 0, moved up by `steps_offset`.
    Leading,
    /// From 0 to T − 1, both included.
    Linspace,
    /// Down from T − 1 in steps of T/n; the one that starts at the noisiest level.
    Trailing,
}

/// `scheduler_config.json` of a model in diffusers layout. Keys that change nothing here are
/// ignored, those that would are refused by [`Schedule::new`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct ScheduleConfig {
    /// The class that wrote it; it decides defaults that differ between classes.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// Training timesteps T.
    pub num_train_timesteps: usize,
    /// First β; the class's default when absent, as the next two.
    pub beta_start: Option<f64>,
    /// Last β.
    pub beta_end: Option<f64>,
    /// How β grows.
    pub beta_schedule: Option<Betas>,
    /// What the network predicts.
    pub prediction_type: Prediction,
    /// Which timesteps are visited.
    pub timestep_spacing: Spacing,
    /// Added to leading timesteps.
    pub steps_offset: usize,
    /// Whether ᾱ after the last step is 1 instead of ᾱ_0; the class's default when absent.
    pub set_alpha_to_one: Option<bool>,
    /// Whether β is rescaled so that ᾱ_{T−1} = 0.
    pub rescale_betas_zero_snr: bool,
    /// Whether diffusers would clip x_0; the class's default when absent.
    pub clip_sample: Option<bool>,
    /// Whether diffusers would threshold x_0.
    pub thresholding: bool,
    /// Whether diffusers would take the noise levels of a flow.
    pub use_flow_sigmas: bool,
    /// βs given one by one.
    pub trained_betas: Option<Vec<f64>>,
}

impl Default for ScheduleConfig {
    /// The defaults of diffusers.
    fn default() -> Self {
        ScheduleConfig {
            class_name: "PNDMScheduler".into(),
            num_train_timesteps: 1000,
            beta_start: None,
            beta_end: None,
            beta_schedule: None,
            prediction_type: Prediction::Epsilon,
            timestep_spacing: Spacing::Leading,
            steps_offset: 0,
            set_alpha_to_one: None,
            rescale_betas_zero_snr: false,
            clip_sample: None,
            thresholding: false,
            use_flow_sigmas: false,
            trained_betas: None,
        }
    }
}

/// The noise levels of a model, and the way its timesteps are spaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    levels: Vec<f64>,
    last: f64,
    prediction: Prediction,
    spacing: Spacing,
    offset: usize,
}

/// Classes of diffusers whose noise levels are those of [`Betas`], and what β is where a file does not say.
const CLASSES: [(&[&str], f64, f64, Betas); 3] = [
    (
        &[
            "DDIMInverseScheduler",
            "DDIMParallelScheduler",
            "DDIMScheduler",
            "DDPMParallelScheduler",
            "DDPMScheduler",
            "DEISMultistepScheduler",
            "DPMSolverMultistepInverseScheduler",
            "DPMSolverMultistepScheduler",
            "DPMSolverSinglestepScheduler",
            "EulerAncestralDiscreteScheduler",
            "EulerDiscreteScheduler",
            "LMSDiscreteScheduler",
            "PNDMScheduler",
            "SASolverScheduler",
            "UniPCMultistepScheduler",
        ],
        1e-4,
        0.02,
        Betas::Linear,
    ),
    (
        &[
            "DPMSolverSDEScheduler",
            "HeunDiscreteScheduler",
            "KDPM2AncestralDiscreteScheduler",
            "KDPM2DiscreteScheduler",
        ],
        0.00085,
        0.012,
        Betas::Linear,
    ),
    (
        &["LCMScheduler", "TCDScheduler"],
        0.00085,
        0.012,
        Betas::ScaledLinear,
    ),
];

/// The largest T that is believed; published models have 1000. Bounds the work of a hostile file.
const MAX_TRAIN_TIMESTEPS: usize = 100_000;

impl Schedule {
    /// Computes ᾱ for every training timestep.
    ///
    /// Fails with [`Code::InvalidModel`] on numbers outside their range and with
    /// [`Code::UnsupportedModel`] on what is not served (clipping, thresholding).
    pub fn new(config: &ScheduleConfig) -> Result<Self> {
        let invalid = |what: String| Err(Error::new(Code::InvalidModel, what));
        let steps = config.num_train_timesteps;
        if !(1..=MAX_TRAIN_TIMESTEPS).contains(&steps) {
            return invalid(format!(
                "scheduler: num_train_timesteps = {steps}: must be 1..={MAX_TRAIN_TIMESTEPS}"
            ));
        }
        let class = config.class_name.as_str();
        let known = CLASSES.into_iter().find(|known| known.0.contains(&class));
        let Some((_, b0, b1, growth)) = known else {
            return Err(Error::new(
                Code::UnsupportedModel,
                format!(
                    "scheduler: _class_name = {}: must be one of those whose noise levels β gives",
                    shorten(class),
                ),
            )
            .with_hint("those of DDIM, DDPM, PNDM, LMS, Euler, Heun, KDPM2, DPMSolver, DEIS, UniPC, SASolver, LCM and TCD do"));
        };
        let b0 = config.beta_start.unwrap_or(b0);
        let b1 = config.beta_end.unwrap_or(b1);
        if !(b0 > 0.0 && b0 <= b1 && b1 < 1.0) {
            return invalid(format!(
                "scheduler: beta_start = {b0}, beta_end = {b1}: must be 0 < start ≤ end < 1"
            ));
        }
        if config.use_flow_sigmas {
            let what = "scheduler: use_flow_sigmas = true: must be false";
            return Err(Error::new(Code::UnsupportedModel, what));
        }
        let ddim = class.starts_with("DDIM");
        let clips = ddim || class.starts_with("DDPM");
        if config.clip_sample.unwrap_or(clips) || config.thresholding {
            return Err(Error::new(
                Code::UnsupportedModel,
                "scheduler: clip_sample or thresholding is on: must be off",
            )
            .with_hint("latent models are trained without; set both to false"));
        }
        // As many steps as anybody takes must fit.
        let few = steps.min(20);
        let most = steps - 1 - (few - 1) * (steps / few);
        if config.timestep_spacing == Spacing::Leading && config.steps_offset > most {
            return invalid(format!(
                "scheduler: steps_offset = {}: must be 0..={most}",
                config.steps_offset
            ));
        }
        let betas = match &config.trained_betas {
            Some(b) if b.len() == steps && b.iter().all(|b| *b > 0.0 && *b < 1.0) => b.clone(),
            Some(b) => {
                return invalid(format!(
                    "scheduler: trained_betas has {} numbers: must be {steps}, each in 0..1",
                    b.len()
                ));
            }
            None => betas(config.beta_schedule.unwrap_or(growth), b0, b1, steps),
        };
        let mut levels: Vec<f64> = betas
            .iter()
            .scan(1.0, |product, beta| {
                *product *= 1.0 - beta;
                Some(*product)
            })
            .collect();
        if config.rescale_betas_zero_snr {
            rescale_to_zero_terminal_snr(&mut levels);
        }
        let first = levels.first().copied().unwrap_or(1.0);
        let one = ddim || class.starts_with("LCM") || class.starts_with("TCD");
        let to_one = config.set_alpha_to_one.unwrap_or(one);
        Ok(Schedule {
            last: if to_one { 1.0 } else { first },
            levels,
            prediction: config.prediction_type,
            spacing: config.timestep_spacing,
            offset: config.steps_offset,
        })
    }

    /// ᾱ of every training timestep, the cleanest first.
    pub fn levels(&self) -> &[f64] {
        &self.levels
    }

    /// What the network predicts.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// The times that `steps` steps visit (1..=T), the noisiest first.
    ///
    /// A step leads from its level to the next one of the grid. diffusers' DDIM instead subtracts
    /// ⌊T/steps⌋ from the timestep, which is the same where steps divides T and otherwise skips
    /// some noise or takes some twice.
    ///
    /// Fails with [`Code::InvalidParameter`] when the count is out of range, leaves the schedule
    /// after its offset, or starts at ᾱ = 0 with a network that predicts ε.
    pub fn grid(&self, steps: usize) -> Result<Grid> {
        let all = self.levels.len();
        let refuse = |why: String, hint: &str| {
            Err(Error::new(Code::InvalidParameter, why)
                .with_hint(hint)
                .with_parameter("steps"))
        };
        if !(1..=all).contains(&steps) {
            return refuse(format!("steps = {steps}: must be 1..={all}"), "try 20");
        }
        let mut grid = Vec::with_capacity(steps);
        for i in 0..steps {
            let t = self.timestep(i, steps);
            let Some(&level) = self.levels.get(t) else {
                return refuse(
                    format!("steps = {steps}: the first timestep is {t}, must be 0..{all}"),
                    "try 20: this model's schedule moves its timesteps up by an offset",
                );
            };
            if level == 0.0 && self.prediction == Prediction::Epsilon {
                return Err(Error::new(
                    Code::UnsupportedModel,
                    format!("scheduler: timestep {t} has no signal (ᾱ = 0) and the network predicts ε: x_0 cannot be found there"),
                )
                .with_hint("zero terminal SNR needs prediction_type v_prediction"));
            }
            grid.push(Step {
                t,
                time: (t + 1) as f64 / all as f64,
                level,
                next: self.last,
            });
        }
        let nexts: Vec<f64> = grid.iter().skip(1).map(|step| step.level).collect();
        for (step, next) in grid.iter_mut().zip(nexts) {
            step.next = next;
        }
        Ok(Grid {
            steps: grid,
            prediction: self.prediction,
        })
    }

    /// The timestep of the i-th of n steps, rounded as numpy does (ties to even).
    fn timestep(&self, i: usize, n: usize) -> usize {
        let all = self.levels.len();
        match self.spacing {
            Spacing::Leading => ((n - 1 - i) * (all / n)).saturating_add(self.offset),
            Spacing::Linspace => {
                let last = (all - 1) as f64;
                let share = (n - 1 - i) as f64 * (last / (n - 1).max(1) as f64);
                share.round_ties_even() as usize
            }
            Spacing::Trailing => {
                let time = all as f64 - i as f64 * (all as f64 / n as f64);
                // Never below 1: i < n ≤ T.
                time.round_ties_even() as usize - 1
            }
        }
    }
}

/// One step of a sampler: from noise level `level` to `next`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The training timestep that the network is told.
    pub t: usize,
    /// The same as a fraction of all training timesteps, (t + 1) / T, in (0, 1]: what λ is
    /// scheduled by, so that an edit means the same on every grid.
    pub time: f64,
    /// ᾱ before the step.
    pub level: f64,
    /// ᾱ after the step.
    pub next: f64,
}

/// The steps of one sampling run, the noisiest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    steps: Vec<Step>,
    prediction: Prediction,
}

impl Grid {
    /// The steps, the noisiest first; never empty.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What the network predicts.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }
}

fn betas(kind: Betas, start: f64, end: f64, n: usize) -> Vec<f64> {
    let even = |from: f64, to: f64| {
        let gap = (to - from) / (n - 1).max(1) as f64;
        (0..n).map(move |i| from + gap * i as f64)
    };
    match kind {
        Betas::Linear => even(start, end).collect(),
        Betas::ScaledLinear => even(start.sqrt(), end.sqrt()).map(|b| b * b).collect(),
        Betas::SquaredCosine => {
            let level = |i: usize| {
                let angle = (i as f64 / n as f64 + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2;
                libm::cos(angle).powi(2)
            };
            (0..n)
                .map(|i| (1.0 - level(i + 1) / level(i)).min(0.999))
                .collect()
        }
    }
}

/// Algorithm 1 of Lin et al. (arXiv 2305.08891): √ᾱ is shifted to end at 0 and scaled to start
/// where it did.
fn rescale_to_zero_terminal_snr(levels: &mut [f64]) {
    let (Some(first), Some(last)) = (levels.first().copied(), levels.last().copied()) else {
        return;
    };
    let (first, last) = (first.sqrt(), last.sqrt());
    if first > last {
        for level in levels {
            *level = ((level.sqrt() - last) * (first / (first - last))).powi(2);
        }
    }
}
