//! The pipeline's U-Net as the samplers see it.
//!
//! For: turning text embeddings into keys and values once, not at every step. Not for: anything that
//! changes a number: a remembered context is the same bits as a new one.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::diffusion::{Condition, Denoiser, Latent};
use crate::error::Result;
use crate::job::Control;
use crate::model::{Context, Pipeline, TextEmbedding};

/// Contexts remembered: base, edited and empty text, and one more for a λ that moves.
const REMEMBERED: usize = 4;

/// A model that predicts, for one run.
pub(super) struct Net<'a> {
    pipeline: &'a Pipeline,
    recent: Mutex<Vec<(Condition, Context)>>,
    predictions: AtomicUsize,
}

impl<'a> Net<'a> {
    /// The U-Net of `pipeline`.
    pub fn new(pipeline: &'a Pipeline) -> Self {
        Net {
            pipeline,
            recent: Mutex::default(),
            predictions: AtomicUsize::new(0),
        }
    }

    /// Latents that were predicted for.
    pub fn predictions(&self) -> usize {
        self.predictions.load(Ordering::Relaxed)
    }

    fn context(&self, condition: &Condition) -> Result<Context> {
        if let Some((_, context)) = self.recent.lock().iter().find(|(c, _)| c == condition) {
            return Ok(context.clone());
        }
        let context = self.pipeline.context(&TextEmbedding {
            data: condition.data().to_vec(),
            length: condition.tokens(),
            width: condition.width(),
            dropped: 0,
        })?;
        let mut recent = self.recent.lock();
        recent.truncate(REMEMBERED - 1);
        recent.insert(0, (condition.clone(), context.clone()));
        Ok(context)
    }
}

impl Denoiser for Net<'_> {
    fn predict(
        &self,
        x: &[&Latent],
        t: usize,
        conditions: &[&Condition],
        control: &Control,
    ) -> Result<Vec<Latent>> {
        let contexts = conditions
            .iter()
            .map(|c| self.context(c))
            .collect::<Result<Vec<_>>>()?;
        let batch: Vec<_> = x
            .iter()
            .zip(&contexts)
            .map(|(x, c)| (*x, t as f32, c))
            .collect();
        self.predictions.fetch_add(batch.len(), Ordering::Relaxed);
        self.pipeline.unet(&batch, control.cancel())
    }
}
