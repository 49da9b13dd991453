//! The layers that both towers of CLIP are made of (`CLIPEncoder` of transformers).
//!
//! For: `text::clip` and `vision::clip`. Not for: what comes before the layers and after them.

use serde::Deserialize;

use super::block::{next_block, project};
use super::build::Builder;
use crate::error::Result;
use crate::job::Cancel;
use crate::nn::{Act, Mask, Ops, Plus, Reads};
use crate::weights::Config;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
}

/// Sizes, checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TowerConfig {
    /// Of a token.
    pub(super) width: usize,
    /// Of a token between the two linear layers of a layer.
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) act: Act,
    pub(super) eps: f64,
}

impl TowerConfig {
    /// Reads them from a tower's `config.json`; `or` has width, hidden width, layers and heads where
    /// the file has none.
    pub(super) fn read(config: &Config, or: [usize; 4]) -> Result<Self> {
        let file: File = config.parse()?;
        let sizes = [
            ("hidden_size", file.hidden_size, 16384),
            ("intermediate_size", file.intermediate_size, 65536),
            ("num_hidden_layers", file.num_hidden_layers, 128),
            ("num_attention_heads", file.num_attention_heads, 16384),
        ];
        let mut checked = or;
        for (place, (key, value, to)) in checked.iter_mut().zip(sizes) {
            *place = in_range(config, key, value.unwrap_or(*place), to)?;
        }
        let [width, hidden, layers, heads] = checked;
        if !width.is_multiple_of(heads) {
            let range = format!("a divisor of hidden_size, {width}");
            return Err(config.outside("num_attention_heads", heads, &range));
        }
        let eps = file.layer_norm_eps.unwrap_or(1e-5);
        if !(0.0..=1.0).contains(&eps) {
            return Err(config.outside("layer_norm_eps", eps, "0..=1"));
        }
        let act = match file.hidden_act.as_deref() {
            None | Some("quick_gelu") => Act::QuickGelu,
            Some("gelu") => Act::Gelu,
            Some(_) => {
                let why = "only quick_gelu and gelu are supported";
                return Err(config.unsupported("hidden_act", why));
            }
        };
        Ok(TowerConfig {
            width,
            hidden,
            layers,
            heads,
            act,
            eps,
        })
    }
}

/// `value`, which must be in 1..=`to`.
pub(super) fn in_range(config: &Config, key: &str, value: usize, to: usize) -> Result<usize> {
    match (1..=to).contains(&value) {
        true => Ok(value),
        false => Err(config.outside(key, value, &format!("1..={to}"))),
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

/// The layers, one after the other.
pub(super) struct Tower<O: Ops> {
    layers: Vec<Layer<O>>,
    heads: usize,
    act: Act,
}

impl<O: Ops> Tower<O> {
    /// `b` is where the tower's `encoder` is.
    pub(super) fn new(b: &Builder<'_, O>, config: &TowerConfig) -> Result<Self> {
        let (c, eps) = (config.width, config.eps);
        let layer = |i: usize| -> Result<Layer<O>> {
            let b = b.at(&format!("encoder.layers.{i}"));
            let attend = b.at("self_attn");
            Ok(Layer {
                norm1: b.norm("layer_norm1", c, eps)?,
                qkv: [
                    attend.linear("q_proj", c, c)?,
                    attend.linear("k_proj", c, c)?,
                    attend.linear("v_proj", c, c)?,
                ],
                out: attend.linear("out_proj", c, c)?,
                norm2: b.norm("layer_norm2", c, eps)?,
                fc1: b.linear("mlp.fc1", c, config.hidden)?,
                fc2: b.linear("mlp.fc2", config.hidden, c)?,
            })
        };
        Ok(Tower {
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            heads: config.heads,
            act: config.act,
        })
    }

    /// `x` is `n × 1 × tokens × width`, and so is the result. `cancel` is polled before every layer.
    pub(super) fn forward<R: Reads<O>>(
        &self,
        ops: &R,
        x: R::Tensor,
        mask: Mask,
        cancel: &Cancel,
    ) -> Result<R::Tensor> {
        let mut x = x;
        for layer in &self.layers {
            next_block(ops, cancel)?;
            let h = ops.layer_norm(&x, &layer.norm1)?;
            let [q, k, v] = project(ops, &h, &layer.qkv)?;
            let h = ops.attention(&q, &k, &v, self.heads, mask)?;
            x = ops.linear(&h, &layer.out, Plus::Residual(&x))?;
            let h = ops.layer_norm(&x, &layer.norm2)?;
            let h = ops.linear_act(&h, &layer.fc1, self.act)?;
            x = ops.linear(&h, &layer.fc2, Plus::Residual(&x))?;
        }
        Ok(x)
    }
}
