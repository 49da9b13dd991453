//! The pipeline's U-Net as the samplers see it.
//!
//! For: a text's keys and values in every cross-attention layer, computed once for each text, kept with
//! it from one edit to the next and mixed as the texts are mixed: the empty text's stay as they are at
//! every step of guidance. Not for: anything that changes a number: what was kept is the same bits as
//! what is computed again.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::cache::Text;
use crate::diffusion::{Condition, Denoiser, Embedding, Latent};
use crate::error::Result;
use crate::job::Control;
use crate::model::{Context, Pipeline, TextEmbedding};
use crate::nn::Ops;

/// Mixes remembered: base, edited and empty text, and one more for a λ that moves.
const REMEMBERED: usize = 4;

/// A model that predicts, for one run.
pub(super) struct Net<'a, O: Ops> {
    pipeline: &'a Pipeline<O>,
    texts: Mutex<Vec<(Embedding, Context<O>)>>,
    recent: Mutex<Vec<(Condition, Context<O>)>>,
    predictions: AtomicUsize,
}

impl<'a, O: Ops + 'static> Net<'a, O> {
    /// The U-Net of `pipeline`, with the keys and values of `texts`.
    pub fn new<'t>(pipeline: &'a Pipeline<O>, texts: impl Iterator<Item = &'t Text<O>>) -> Self {
        let contexts = texts.flat_map(|text| {
            let terms = text.condition.terms().iter();
            terms.map(move |(_, embedding)| (embedding.clone(), text.context.clone()))
        });
        Net::with(pipeline, contexts.collect())
    }

    /// The U-Net of `pipeline`, with keys and values that are known.
    fn with(pipeline: &'a Pipeline<O>, texts: Vec<(Embedding, Context<O>)>) -> Self {
        Net {
            pipeline,
            texts: Mutex::new(texts),
            recent: Mutex::default(),
            predictions: AtomicUsize::new(0),
        }
    }

    /// Latents that were predicted for.
    pub fn predictions(&self) -> usize {
        self.predictions.load(Ordering::Relaxed)
    }

    /// The keys and values of one text.
    fn text(&self, embedding: &Embedding) -> Result<Context<O>> {
        let mut texts = self.texts.lock();
        if let Some((_, context)) = texts.iter().find(|(known, _)| known == embedding) {
            return Ok(context.clone());
        }
        let context = self.pipeline.context(&TextEmbedding {
            data: embedding.data().to_vec(),
            length: embedding.tokens(),
            width: embedding.width(),
            dropped: 0,
        })?;
        texts.push((embedding.clone(), context.clone()));
        Ok(context)
    }

    /// Those of a mix.
    fn context(&self, condition: &Condition) -> Result<Context<O>> {
        if let Some((_, context)) = self.recent.lock().iter().find(|(c, _)| c == condition) {
            return Ok(context.clone());
        }
        let parts = (condition.terms().iter())
            .map(|(weight, text)| Ok((*weight, self.text(text)?)))
            .collect::<Result<Vec<_>>>()?;
        let parts: Vec<_> = parts.iter().map(|(weight, text)| (*weight, text)).collect();
        let context = self.pipeline.mix(&parts)?;
        let mut recent = self.recent.lock();
        recent.truncate(REMEMBERED - 1);
        recent.insert(0, (condition.clone(), context.clone()));
        Ok(context)
    }
}

impl<O: Ops + 'static> Denoiser for Net<'_, O> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::diffusion::{Guidance, Schedule, Span, ddim};
    use crate::job::{Cancel, Phase};
    use crate::method::{Blend, Lambda, mix};
    use crate::nn::native::Native;
    use crate::nn::step::{Added, Reading, Step};
    use crate::weights::ModelSource;

    /// Plain values, and how many linear layers were given a text.
    #[derive(Clone)]
    struct Counted {
        native: Native,
        projections: Arc<AtomicUsize>,
    }

    const TOKENS: usize = 24;

    impl Reading for Counted {
        type Over = Native;
        type Value = <Native as Ops>::Tensor;

        fn label(&self) -> &'static str {
            "counted"
        }

        fn over(&self) -> &Native {
            &self.native
        }

        fn constant(&self, x: Self::Value) -> Self::Value {
            x
        }

        fn plain<'a>(&self, x: &'a Self::Value) -> &'a Self::Value {
            x
        }

        fn step(&self, step: Step<Native>, x: &[&Self::Value]) -> Result<Self::Value> {
            if let (Step::Linear(_, Added::Nothing), [x]) = (&step, x) {
                let s = self.native.shape(x)?;
                let text = (s.h, s.w) == (1, TOKENS);
                self.projections
                    .fetch_add(usize::from(text), Ordering::Relaxed);
            }
            step.run(&self.native, x)
        }
    }

    fn tiny() -> (Arc<Pipeline<Counted>>, Counted) {
        let ops = Counted {
            native: Native::detect().unwrap(),
            projections: Arc::default(),
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
        let source = ModelSource::Directory(folder);
        let load = Pipeline::load_on(ops.clone(), &source, &Cancel::new());
        (load.unwrap(), ops)
    }

    fn condition(pipeline: &Pipeline<Counted>, text: &str) -> Condition {
        let text = pipeline.encode_text(text, &Cancel::new()).unwrap();
        assert_eq!(text.length, TOKENS);
        Condition::new(text.data, text.length, text.width).unwrap()
    }

    /// Samples a few guided steps with a λ that differs from step to step.
    fn sample(net: &Net<'_, Counted>, [base, styled, empty]: &[Condition; 3]) -> Latent {
        let schedule = Schedule::new(net.pipeline.outline().schedule()).unwrap();
        let (grid, control) = (schedule.grid(5).unwrap(), Default::default());
        let run = ddim::Sampling {
            grid: &grid,
            guidance: &Guidance::new(2.0, empty.clone()).unwrap(),
            noise: ddim::Stochastic::new(0.0, 0).unwrap(),
            span: Span::new(&control, Phase::Edit, 0.0, 1.0),
        };
        let start = Latent::new((0..256).map(|i| (i as f32).sin()).collect(), [4, 8, 8]);
        let lambda = Lambda::learned(&[1.0, 0.1], &[0.0, 1.0]).unwrap();
        let blends = [Blend::new(base, styled, lambda, 0.9).unwrap()];
        mix::generate(net, start.unwrap(), base, &blends, &run).unwrap()
    }

    #[test]
    fn each_texts_keys_and_values_are_computed_once_a_run_and_kept_ones_give_the_same_bits() {
        let (pipeline, ops) = tiny();
        let texts = ["a photo of the lake", "a photo of the lake at night", ""];
        let texts = texts.map(|text| condition(&pipeline, text));
        let count = || ops.projections.swap(0, Ordering::Relaxed);
        count();
        let known: Vec<_> = (texts.iter())
            .map(|text| {
                let (_, embedding) = &text.terms()[0];
                let context = Net::with(&pipeline, Vec::new()).text(embedding).unwrap();
                (embedding.clone(), context)
            })
            .collect();
        let three = count();
        assert!(
            three > 0 && three.is_multiple_of(2 * texts.len()),
            "{three}"
        );

        let computed = sample(&Net::with(&pipeline, Vec::new()), &texts);
        assert_eq!(count(), three);
        let kept = sample(&Net::with(&pipeline, known), &texts);
        assert_eq!(count(), 0);
        assert_eq!(kept.data, computed.data);
    }
}
