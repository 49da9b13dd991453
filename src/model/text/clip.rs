//! CLIP's text tower (Radford et al. 2021, arXiv 2103.00020; `CLIPTextModel` of transformers), as
//! Stable Diffusion uses it: the last hidden state after the final norm.
//!
//! For: any width and depth (CLIP-L of Stable Diffusion 1.x, OpenCLIP-H of 2.x), with or without the
//! `text_model.` prefix of older files and with or without the projection that compares texts with
//! pictures; in every reading of the operations. Not for: skipping last layers.

use serde::Deserialize;

use crate::error::{Code, Error, Result};
use crate::job::Cancel;
use crate::model::build::Builder;
use crate::model::tower::{Tower, TowerConfig, in_range};
use crate::nn::{Mask, Ops, Packed, Plus, Reads, Shape};
use crate::weights::Config;

#[derive(Debug, Deserialize)]
#[serde(default)]
struct File {
    vocab_size: usize,
    projection_dim: usize,
    max_position_embeddings: usize,
}

impl Default for File {
    fn default() -> Self {
        File {
            vocab_size: 49408,
            projection_dim: 512,
            max_position_embeddings: 77,
        }
    }
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextConfig {
    /// Tokens known.
    pub vocabulary: usize,
    /// Width of a token's embedding.
    pub width: usize,
    /// Tokens in a text, start, end and padding included.
    pub length: usize,
    projection: usize,
    tower: TowerConfig,
}

impl ClipTextConfig {
    /// Reads and checks a `config.json`.
    pub(crate) fn read(config: &Config) -> Result<Self> {
        if config
            .get("use_attention_mask")
            .is_some_and(|v| *v != false)
        {
            return Err(config.unsupported(
                "use_attention_mask",
                "only false is supported: padding is seen as any token",
            ));
        }
        let file: File = config.parse()?;
        let tower = TowerConfig::read(config, [512, 2048, 12, 8])?;
        let length = file.max_position_embeddings;
        if length < 3 {
            return Err(config.outside("max_position_embeddings", length, "3 or more"));
        }
        Ok(ClipTextConfig {
            vocabulary: in_range(config, "vocab_size", file.vocab_size, 1 << 20)?,
            width: tower.width,
            length: in_range(config, "max_position_embeddings", length, 4096)?,
            projection: in_range(config, "projection_dim", file.projection_dim, 16384)?,
            tower,
        })
    }
}

/// The network.
pub struct ClipText<O: Ops> {
    config: ClipTextConfig,
    tokens: Packed,
    positions: Vec<f32>,
    tower: Tower<O>,
    norm: O::Norm,
    projection: Option<O::Linear>,
}

impl<O: Ops> ClipText<O> {
    /// Builds the network from the weights at `b`.
    pub fn new(b: &Builder<'_, O>, config: ClipTextConfig) -> Result<Self> {
        let projection = b
            .has("text_projection.weight")
            .then(|| b.linear_no_bias("text_projection", config.width, config.projection))
            .transpose()?;
        let inner = b.at("text_model");
        let b = match inner.has("embeddings.token_embedding.weight") {
            true => &inner,
            false => b,
        };
        let c = config.width;
        Ok(ClipText {
            tokens: b.table("embeddings.token_embedding.weight", &[config.vocabulary, c])?,
            positions: b.numbers("embeddings.position_embedding.weight", &[config.length, c])?,
            tower: Tower::new(b, &config.tower)?,
            norm: b.norm("final_layer_norm", c, config.tower.eps)?,
            projection,
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// What the layers are given of a batch of texts of the same number of tokens, at most
    /// [`ClipTextConfig::length`]: the tokens' embeddings with those of their places added,
    /// `n × 1 × tokens × width`.
    ///
    /// Errors with [`Code::InvalidModel`] for a token or a place that the model does not have.
    pub fn embed<R: Reads<O>>(&self, ops: &R, texts: &[&[u32]]) -> Result<R::Tensor> {
        let c = self.config.width;
        let length = texts.first().map_or(0, |ids| ids.len());
        let mut x = Vec::with_capacity(texts.len() * length * c);
        for ids in texts {
            for (i, &id) in ids.iter().enumerate() {
                let at = id as usize * c;
                let token = self.tokens.get(at..at + c);
                let position = self.positions.get(i * c..(i + 1) * c);
                let (Some(token), Some(position)) = (token, position) else {
                    return Err(Error::new(
                        Code::InvalidModel,
                        format!(
                            "token {id} at {i}: the text encoder has {} tokens and {} places",
                            self.config.vocabulary, self.config.length
                        ),
                    )
                    .with_hint("tokenizer and text encoder are not of the same model"));
                };
                x.extend(token.iter().zip(position).map(|(t, p)| t + p));
            }
        }
        ops.value(x, Shape::tokens(texts.len(), length, c))
    }

    /// The last hidden state of what [`ClipText::embed`] gives, of the same size. Any reading over the
    /// network's backend may be given. `cancel` is polled before every layer.
    pub fn encode<R: Reads<O>>(&self, ops: &R, x: R::Tensor, cancel: &Cancel) -> Result<R::Tensor> {
        let x = self.tower.forward(ops, x, Mask::Causal, cancel)?;
        ops.layer_norm(&x, &self.norm)
    }

    /// The last hidden state of a batch of texts: [`ClipText::embed`], then [`ClipText::encode`].
    pub fn forward<R: Reads<O>>(
        &self,
        ops: &R,
        texts: &[&[u32]],
        cancel: &Cancel,
    ) -> Result<R::Tensor> {
        self.encode(ops, self.embed(ops, texts)?, cancel)
    }

    /// The texts' places in the space that they share with pictures, not normalised: the states at the
    /// token `end` of each text in `hidden`, projected, `n × 1 × 1 × projection`. `None` without
    /// projection.
    pub fn project<R: Reads<O>>(
        &self,
        ops: &R,
        hidden: &R::Tensor,
        end: usize,
    ) -> Result<Option<R::Tensor>> {
        let Some(w) = &self.projection else {
            return Ok(None);
        };
        let end = ops.tokens(hidden, end, 1)?;
        ops.linear(&end, w, Plus::Nothing).map(Some)
    }
}
