//! The autoencoder of Stable Diffusion (`AutoencoderKL` of diffusers).
//!
//! For: pictures to latents and back. Not for: sampling the latent's distribution, of which an edit
//! uses the mean, and tiling.

use serde::Deserialize;
use serde_json::json;

use super::block::{Resnet, Upsample, next_block, project};
use super::build::{Builder, Kind};
use crate::error::{Code, Error, Result};
use crate::job::Cancel;
use crate::nn::{Act, Mask, Ops, Plus, Reads};
use crate::weights::Config;

const EPS: f64 = 1e-6;

#[derive(Debug, Deserialize)]
#[serde(default)]
struct File {
    in_channels: usize,
    out_channels: usize,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    block_out_channels: Vec<usize>,
    layers_per_block: usize,
    latent_channels: usize,
    norm_num_groups: usize,
    scaling_factor: f64,
}

impl Default for File {
    fn default() -> Self {
        File {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec!["DownEncoderBlock2D".into()],
            up_block_types: vec!["UpDecoderBlock2D".into()],
            block_out_channels: vec![64],
            layers_per_block: 1,
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
        }
    }
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Channels from the picture's size to the latents'.
    pub channels: Vec<usize>,
    /// Residual blocks a level in the encoder; one more in the decoder.
    pub layers: usize,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// What brings latents to about unit variance.
    pub scaling_factor: f64,
    groups: usize,
    /// Height and width of the pictures that it was trained on, about.
    side: usize,
}

impl VaeConfig {
    /// Reads and checks a `config.json`.
    pub(crate) fn read(config: &Config) -> Result<Self> {
        config.require(&[
            ("_class_name", json!("AutoencoderKL")),
            ("act_fn", json!("silu")),
            ("in_channels", json!(3)),
            ("out_channels", json!(3)),
            ("mid_block_add_attention", json!(true)),
            ("use_quant_conv", json!(true)),
            ("use_post_quant_conv", json!(true)),
        ])?;
        for key in ["shift_factor", "latents_mean", "latents_std"] {
            if config.get(key).is_some() {
                return Err(config.unsupported(key, "only left out or null is supported"));
            }
        }
        let file: File = config.parse()?;
        let in_range = |key: &str, value: usize, to: usize| {
            if (1..=to).contains(&value) {
                return Ok(());
            }
            Err(config.outside(key, value, &format!("1..={to}")))
        };
        let count = file.block_out_channels.len();
        in_range("block_out_channels (its length)", count, 8)?;
        in_range("layers_per_block", file.layers_per_block, 16)?;
        in_range("latent_channels", file.latent_channels, 64)?;
        in_range("norm_num_groups", file.norm_num_groups, 1024)?;
        for &channels in &file.block_out_channels {
            in_range("block_out_channels", channels, 16384)?;
            if !channels.is_multiple_of(file.norm_num_groups) {
                let range = format!("a multiple of norm_num_groups, {}", file.norm_num_groups);
                return Err(config.outside("block_out_channels", channels, &range));
            }
        }
        for (key, types, only) in [
            (
                "down_block_types",
                &file.down_block_types,
                "DownEncoderBlock2D",
            ),
            ("up_block_types", &file.up_block_types, "UpDecoderBlock2D"),
        ] {
            if types.len() != count || types.iter().any(|t| t != only) {
                return Err(config.unsupported(key, &format!("only {count} × {only} is supported")));
            }
        }
        if !(1e-6..=1e6).contains(&file.scaling_factor) {
            return Err(config.outside("scaling_factor", file.scaling_factor, "1e-6..=1e6"));
        }
        Ok(VaeConfig {
            channels: file.block_out_channels,
            layers: file.layers_per_block,
            latent_channels: file.latent_channels,
            scaling_factor: file.scaling_factor,
            groups: file.norm_num_groups,
            // Only what is fast depends on it, so nothing is refused here.
            side: config
                .get("sample_size")
                .and_then(serde_json::Value::as_u64)
                .map_or(512, |side| side.min(1 << 16) as usize),
        })
    }

    /// Picture pixels per latent pixel, in each direction.
    pub fn factor(&self) -> usize {
        1 << (self.channels.len() - 1)
    }
}

/// One head of attention over all positions, between two residual blocks.
struct Middle<O: Ops> {
    before: Resnet<O>,
    norm: O::Norm,
    qkv: [O::Linear; 3],
    out: O::Linear,
    after: Resnet<O>,
    groups: usize,
}

impl<O: Ops> Middle<O> {
    fn new(b: &Builder<'_, O>, c: usize, groups: usize) -> Result<Self> {
        let a = b.at("attentions.0");
        // Files that older diffusers wrote have other names for the same.
        let [q, k, v, o] = match a.has("to_q.weight") {
            true => ["to_q", "to_k", "to_v", "to_out.0"],
            false if a.has("query.weight") => ["query", "key", "value", "proj_attn"],
            false => ["to_q", "to_k", "to_v", "to_out.0"],
        };
        let resnet = |name| Resnet::new(&b.at(name), (c, c), None, groups, EPS);
        Ok(Middle {
            before: resnet("resnets.0")?,
            norm: a.norm("group_norm", c, EPS)?,
            qkv: [a.linear(q, c, c)?, a.linear(k, c, c)?, a.linear(v, c, c)?],
            out: a.linear(o, c, c)?,
            after: resnet("resnets.1")?,
            groups,
        })
    }

    fn forward<R: Reads<O>>(&self, ops: &R, x: &R::Tensor, cancel: &Cancel) -> Result<R::Tensor> {
        let x = self.before.forward(ops, x, None)?;
        next_block(ops, cancel)?;
        let h = ops.group_norm(&x, &self.norm, self.groups, Act::Identity)?;
        let [q, k, v] = project(ops, &h, &self.qkv)?;
        let h = ops.attention(&q, &k, &v, 1, Mask::None)?;
        let x = ops.linear(&h, &self.out, Plus::Residual(&x))?;
        next_block(ops, cancel)?;
        self.after.forward(ops, &x, None)
    }
}

/// The residual blocks of one size, and what leads to the next size.
type Level<O, Next> = (Vec<Resnet<O>>, Option<Next>);

struct Encoder<O: Ops> {
    conv_in: O::Conv,
    down: Vec<Level<O, O::Conv>>,
    middle: Middle<O>,
    norm_out: O::Norm,
    conv_out: O::Conv,
    quant: O::Conv,
}

struct Decoder<O: Ops> {
    quant: O::Conv,
    conv_in: O::Conv,
    middle: Middle<O>,
    up: Vec<Level<O, Upsample<O>>>,
    norm_out: O::Norm,
    conv_out: O::Conv,
}

/// The autoencoder.
pub struct Vae<O: Ops> {
    config: VaeConfig,
    encoder: Encoder<O>,
    decoder: Decoder<O>,
}

/// The distribution that a picture is encoded to, `n × c × h × w` each, not yet scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Means.
    pub mean: Vec<f32>,
    /// Logarithms of the variances.
    pub logvar: Vec<f32>,
}

impl<O: Ops> Vae<O> {
    /// Builds the autoencoder from the weights at `b`.
    pub fn new<'a>(b: &Builder<'a, O>, config: VaeConfig) -> Result<Self> {
        let (Some(&first), Some(&last)) = (config.channels.first(), config.channels.last()) else {
            return Err(Error::new(Code::Internal, "an autoencoder without levels"));
        };
        let (z, groups) = (config.latent_channels, config.groups);
        let deepest = config.channels.len() - 1;
        let resnets = |b: &Builder<'_, O>, inputs: usize, outputs: usize, count: usize| {
            (0..count)
                .map(|j| {
                    let io = (if j == 0 { inputs } else { outputs }, outputs);
                    Resnet::new(&b.at(&format!("resnets.{j}")), io, None, groups, EPS)
                })
                .collect::<Result<Vec<_>>>()
        };

        // The place `b` at the size of level `i`.
        let on = |b: Builder<'a, O>, i: usize| {
            let side = config.side.div_ceil(1 << i);
            b.on(side, side)
        };

        let e = b.at("encoder");
        let mut down = Vec::new();
        let mut inputs = first;
        for (i, &c) in config.channels.iter().enumerate() {
            let b = on(e.at(&format!("down_blocks.{i}")), i);
            let halve = (i < deepest)
                .then(|| b.conv("downsamplers.0.conv", c, c, Kind::DownAfter))
                .transpose()?;
            down.push((resnets(&b, inputs, c, config.layers)?, halve));
            inputs = c;
        }
        let encoder = Encoder {
            conv_in: e.conv("conv_in", 3, first, Kind::Same3)?,
            down,
            middle: Middle::new(&on(e.at("mid_block"), deepest), last, groups)?,
            norm_out: e.norm("conv_norm_out", last, EPS)?,
            conv_out: e.conv("conv_out", last, 2 * z, Kind::Same3)?,
            quant: b.conv("quant_conv", 2 * z, 2 * z, Kind::Point)?,
        };

        let d = b.at("decoder");
        let mut up = Vec::new();
        let mut inputs = last;
        for (i, &c) in config.channels.iter().rev().enumerate() {
            let b = on(d.at(&format!("up_blocks.{i}")), deepest - i);
            let blocks = resnets(&b, inputs, c, config.layers + 1)?;
            let double = (i < deepest)
                .then(|| Upsample::new(&on(b, deepest - i - 1), c))
                .transpose()?;
            up.push((blocks, double));
            inputs = c;
        }
        let decoder = Decoder {
            quant: b.conv("post_quant_conv", z, z, Kind::Point)?,
            conv_in: d.conv("conv_in", z, last, Kind::Same3)?,
            middle: Middle::new(&on(d.at("mid_block"), deepest), last, groups)?,
            up,
            norm_out: d.norm("conv_norm_out", first, EPS)?,
            conv_out: on(d, 0).conv("conv_out", first, 3, Kind::Same3)?,
        };
        Ok(Vae {
            config,
            encoder,
            decoder,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// Encodes pictures, `n × h × w × 3` in −1..=1, h and w multiples of [`VaeConfig::factor`].
    pub fn encode(&self, ops: &O, x: &O::Tensor, cancel: &Cancel) -> Result<Moments> {
        let e = &self.encoder;
        let mut x = ops.conv(x, &e.conv_in, Plus::Nothing)?;
        for (resnets, halve) in &e.down {
            for resnet in resnets {
                cancel.check()?;
                x = resnet.forward(ops, &x, None)?;
            }
            if let Some(halve) = halve {
                cancel.check()?;
                x = ops.conv(&x, halve, Plus::Nothing)?;
            }
        }
        cancel.check()?;
        let x = e.middle.forward(ops, &x, cancel)?;
        let x = ops.group_norm(&x, &e.norm_out, self.config.groups, Act::Silu)?;
        let x = ops.conv(&x, &e.conv_out, Plus::Nothing)?;
        let x = ops.conv(&x, &e.quant, Plus::Nothing)?;
        let shape = ops.shape(&x)?;
        let half = shape.rows_per_sample() * self.config.latent_channels;
        let mut moments = Moments {
            mean: Vec::new(),
            logvar: Vec::new(),
        };
        for sample in ops.numbers_nchw(&x)?.chunks_exact(2 * half) {
            let (mean, logvar) = sample.split_at(half);
            moments.mean.extend_from_slice(mean);
            moments
                .logvar
                .extend(logvar.iter().map(|x| x.clamp(-30.0, 20.0)));
        }
        Ok(moments)
    }

    /// Decodes latents, `n × h × w × latent_channels`, already divided by the scaling factor, to
    /// pictures in about −1..=1.
    /// Any reading over the network's backend may be given.
    pub fn decode<R: Reads<O>>(
        &self,
        ops: &R,
        z: &R::Tensor,
        cancel: &Cancel,
    ) -> Result<R::Tensor> {
        let d = &self.decoder;
        let x = ops.conv(z, &d.quant, Plus::Nothing)?;
        let x = ops.conv(&x, &d.conv_in, Plus::Nothing)?;
        next_block(ops, cancel)?;
        let mut x = d.middle.forward(ops, &x, cancel)?;
        for (resnets, double) in &d.up {
            for resnet in resnets {
                next_block(ops, cancel)?;
                x = resnet.forward(ops, &x, None)?;
            }
            if let Some(double) = double {
                next_block(ops, cancel)?;
                let shape = ops.shape(&x)?;
                x = double.forward(ops, &x, (2 * shape.h, 2 * shape.w))?;
            }
        }
        next_block(ops, cancel)?;
        let x = ops.group_norm(&x, &d.norm_out, self.config.groups, Act::Silu)?;
        ops.conv(&x, &d.conv_out, Plus::Nothing)
    }
}
