//! CLIP's text tower (Radford et al. 2021, arXiv 2103.00020; `CLIPTextModel` of transformers), as
//! Stable Diffusion uses it: the last hidden state after the final norm.
//!
//! For: any width and depth, with or without the `text_model.` prefix of older files and with or
//! without the projection that compares texts with pictures. Not for: skipping last layers.

use serde::Deserialize;

use crate::error::{Code, Error, Result};
use crate::job::Cancel;
use crate::model::build::Builder;
use crate::nn::{Act, Mask, Ops, Packed, Plus, Shape};
use crate::weights::Config;

#[derive(Debug, Deserialize)]
#[serde(default)]
struct File {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    projection_dim: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: String,
    layer_norm_eps: f64,
}

impl Default for File {
    fn default() -> Self {
        File {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
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
    hidden: usize,
    projection: usize,
    layers: usize,
    heads: usize,
    act: Act,
    eps: f64,
}

impl ClipTextConfig {
    /// Reads and checks a `config.json`.
    pub(crate) fn read(config: &Config) -> Result<Self> {
        let file: File = config.parse()?;
        for (key, value, to) in [
            ("vocab_size", file.vocab_size, 1 << 20),
            ("hidden_size", file.hidden_size, 16384),
            ("intermediate_size", file.intermediate_size, 65536),
            ("projection_dim", file.projection_dim, 16384),
            ("num_hidden_layers", file.num_hidden_layers, 128),
            (
                "max_position_embeddings",
                file.max_position_embeddings,
                4096,
            ),
        ] {
            if !(1..=to).contains(&value) {
                return Err(config.outside(key, value, &format!("1..={to}")));
            }
        }
        if file.max_position_embeddings < 3 {
            let value = file.max_position_embeddings;
            return Err(config.outside("max_position_embeddings", value, "3 or more"));
        }
        let heads = file.num_attention_heads;
        if heads == 0 || !file.hidden_size.is_multiple_of(heads) {
            let range = format!("a divisor of hidden_size, {}", file.hidden_size);
            return Err(config.outside("num_attention_heads", heads, &range));
        }
        if !(0.0..=1.0).contains(&file.layer_norm_eps) {
            return Err(config.outside("layer_norm_eps", file.layer_norm_eps, "0..=1"));
        }
        let act = match file.hidden_act.as_str() {
            "quick_gelu" => Act::QuickGelu,
            "gelu" => Act::Gelu,
            _ => {
                return Err(
                    config.unsupported("hidden_act", "only quick_gelu and gelu are supported")
                );
            }
        };
        Ok(ClipTextConfig {
            vocabulary: file.vocab_size,
            width: file.hidden_size,
            length: file.max_position_embeddings,
            hidden: file.intermediate_size,
            projection: file.projection_dim,
            layers: file.num_hidden_layers,
            heads,
            act,
            eps: file.layer_norm_eps,
        })
    }
}

struct Layer<O: Ops> {
    norm1: O::Norm,
    qkv: [O::Linear; 3],
    out: O::Linear,
    norm2: O::Norm,
    fc1: O::Linear,
    fc2: O::Linear,
}

/// The network.
pub struct ClipText<O: Ops> {
    config: ClipTextConfig,
    tokens: Packed,
    positions: Vec<f32>,
    layers: Vec<Layer<O>>,
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
        let layer = |i: usize| -> Result<Layer<O>> {
            let b = b.at(&format!("encoder.layers.{i}"));
            let attend = b.at("self_attn");
            Ok(Layer {
                norm1: b.norm("layer_norm1", c, config.eps)?,
                qkv: [
                    attend.linear("q_proj", c, c)?,
                    attend.linear("k_proj", c, c)?,
                    attend.linear("v_proj", c, c)?,
                ],
                out: attend.linear("out_proj", c, c)?,
                norm2: b.norm("layer_norm2", c, config.eps)?,
                fc1: b.linear("mlp.fc1", c, config.hidden)?,
                fc2: b.linear("mlp.fc2", config.hidden, c)?,
            })
        };
        Ok(ClipText {
            tokens: b.table("embeddings.token_embedding.weight", &[config.vocabulary, c])?,
            positions: b.numbers("embeddings.position_embedding.weight", &[config.length, c])?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            norm: b.norm("final_layer_norm", c, config.eps)?,
            projection,
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// The last hidden state of a batch of texts of the same number of tokens, at most
    /// [`ClipTextConfig::length`]: `n × 1 × tokens × width`.
    pub fn forward(&self, ops: &O, texts: &[&[u32]], cancel: &Cancel) -> Result<O::Tensor> {
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
        let mut x = ops.value(x, Shape::tokens(texts.len(), length, c))?;
        for layer in &self.layers {
            cancel.check()?;
            let h = ops.layer_norm(&x, &layer.norm1)?;
            let [q, k, v] = &layer.qkv;
            let q = ops.linear(&h, q, Plus::Nothing)?;
            let k = ops.linear(&h, k, Plus::Nothing)?;
            let v = ops.linear(&h, v, Plus::Nothing)?;
            let h = ops.attention(&q, &k, &v, self.config.heads, Mask::Causal)?;
            x = ops.linear(&h, &layer.out, Plus::Residual(&x))?;
            let h = ops.layer_norm(&x, &layer.norm2)?;
            let h = ops.act(&ops.linear(&h, &layer.fc1, Plus::Nothing)?, self.config.act)?;
            x = ops.linear(&h, &layer.fc2, Plus::Residual(&x))?;
        }
        ops.layer_norm(&x, &self.norm)
    }

    /// The text's place in the space it shares with pictures, `width` numbers not normalised: the
    /// state at the token `end` of the first text in `hidden`, projected. `None` without projection.
    pub fn project(&self, ops: &O, hidden: &O::Tensor, end: usize) -> Result<Option<Vec<f32>>> {
        let Some(w) = &self.projection else {
            return Ok(None);
        };
        let c = self.config.width;
        let hidden = ops.numbers(hidden)?;
        let row = hidden.get(end * c..(end + 1) * c).unwrap_or_default();
        let x = ops.value(row.to_vec(), Shape::tokens(1, 1, c))?;
        Ok(Some(ops.numbers(&ops.linear(&x, w, Plus::Nothing)?)?))
    }
}
