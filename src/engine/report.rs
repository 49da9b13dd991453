//! What a run did, for people and programs.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::diffusion::Span;
use crate::error::Result;
use crate::job::{Control, Phase};

/// One phase and its time.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PhaseTime {
    pub phase: &'static str,
    pub ms: f64,
}

/// The model that worked.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ModelReport {
    pub name: String,
    pub family: String,
    pub hash: String,
}

/// The report of one edit; its JSON is what [`crate::Edit::report`] gives.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub version: &'static str,
    pub model: ModelReport,
    pub cpu_path: String,
    pub threads: usize,
    pub seed: u64,
    pub steps: u32,
    pub guidance: f32,
    /// Network calls that this run made; cached ones are not among them.
    pub predictions: usize,
    /// Whether the model was skipped because every strength is 0.
    pub skipped: bool,
    /// The model's picture, pixels.
    pub grid: [usize; 2],
    /// What the model saw of the layer: x, y, width, height.
    pub region: [i64; 4],
    /// Layer pixels per model pixel, along a side.
    pub scale: f32,
    /// PSNR of the autoencoder's own reconstruction of the picture, dB; absent when skipped. Low says
    /// that the model does not know such pictures; high does not say that it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_db: Option<f32>,
    /// What came from earlier edits: `text`, `encode`, `invert`.
    pub cached: Vec<&'static str>,
    /// Bytes that were forecast.
    pub forecast_bytes: u64,
    pub phases: Vec<PhaseTime>,
    pub ms: f64,
    pub warnings: Vec<String>,
}

/// The whole job's progress, dealt out to phases by how long each is expected to take.
pub(super) struct Course<'a> {
    control: &'a Control,
    done: f32,
    begun: Instant,
    phases: Vec<PhaseTime>,
}

impl<'a> Course<'a> {
    pub fn new(control: &'a Control) -> Self {
        Course {
            control,
            done: 0.0,
            begun: Instant::now(),
            phases: Vec::new(),
        }
    }

    /// How much of the job is left, 0..=1.
    pub fn left(&self) -> f32 {
        1.0 - self.done
    }

    /// Does `work` as `phase`, which is `share` (0..=1) of the whole job.
    pub fn phase<T>(
        &mut self,
        phase: Phase,
        share: f32,
        work: impl FnOnce(Span<'_>) -> Result<T>,
    ) -> Result<T> {
        let until = (self.done + share).min(1.0);
        let span = Span::new(self.control, phase, self.done, until);
        span.tell(0, 1)?;
        let begun = Instant::now();
        let result = work(span)?;
        self.phases.push(PhaseTime {
            phase: phase.name(),
            ms: ms(begun.elapsed()),
        });
        self.done = until;
        Ok(result)
    }

    /// Tells that all is done; the phases' times and the whole, in milliseconds.
    pub fn end(self) -> Result<(Vec<PhaseTime>, f64)> {
        self.control.tell(Phase::Fit, 1.0)?;
        Ok((self.phases, ms(self.begun.elapsed())))
    }
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}

/// PSNR in dB of two pictures in 0..=1; 99 when they are equal.
pub(super) fn psnr(a: &[f32], b: &[f32]) -> f32 {
    let sum: f64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| f64::from(a.clamp(0.0, 1.0) - b).powi(2))
        .sum();
    let mean = sum / a.len().max(1) as f64;
    (-10.0 * mean.max(1e-10).log10()).min(99.0) as f32
}
