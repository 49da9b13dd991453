//! What the config.json of a `UNet2DConditionModel` says, read and checked.
//!
//! For: sizes and kinds of blocks, and what is refused by name. Not for: weights, or what is computed of
//! them (`unet`).

use serde::Deserialize;
use serde_json::json;
use smallvec::SmallVec;

use crate::error::Result;
use crate::weights::Config;

/// One number for all blocks, or one for each.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "must be a number, or a list of one for each block"
)]
enum PerBlock {
    All(usize),
    Each(Vec<usize>),
}

impl PerBlock {
    fn get(&self, block: usize) -> Option<usize> {
        match self {
            PerBlock::All(x) => Some(*x),
            PerBlock::Each(x) => x.get(block).copied(),
        }
    }

    /// The number of all `blocks`, where it is the same for each; `key` is what the file calls it.
    fn same(&self, config: &Config, key: &str, blocks: usize) -> Result<usize> {
        self.check(config, key, blocks)?;
        let first = self.get(0).unwrap_or_default();
        match (1..blocks).all(|block| self.get(block) == Some(first)) {
            true => Ok(first),
            false => Err(config.unsupported(key, "only the same for every block is supported")),
        }
    }

    /// Fails unless there is a number for each of `blocks`, and no more.
    fn check(&self, config: &Config, key: &str, blocks: usize) -> Result<()> {
        match self {
            PerBlock::Each(x) if x.len() != blocks => {
                let range = format!("one number, or {blocks}: one for each block");
                Err(config.outside(key, format!("{} numbers", x.len()), &range))
            }
            _ => Ok(()),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct File {
    sample_size: usize,
    in_channels: usize,
    out_channels: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    block_out_channels: Vec<usize>,
    layers_per_block: PerBlock,
    norm_num_groups: usize,
    norm_eps: f64,
    cross_attention_dim: PerBlock,
    attention_head_dim: PerBlock,
    use_linear_projection: bool,
    transformer_layers_per_block: PerBlock,
}

impl Default for File {
    fn default() -> Self {
        let cross = |part: &str| format!("CrossAttn{part}Block2D");
        let plain = |part: &str| format!("{part}Block2D");
        File {
            sample_size: 64,
            in_channels: 4,
            out_channels: 4,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: vec![cross("Down"), cross("Down"), cross("Down"), plain("Down")],
            up_block_types: vec![plain("Up"), cross("Up"), cross("Up"), cross("Up")],
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: PerBlock::All(2),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: PerBlock::All(1280),
            attention_head_dim: PerBlock::All(8),
            use_linear_projection: false,
            transformer_layers_per_block: PerBlock::All(1),
        }
    }
}

/// One resolution of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// Channels.
    pub channels: usize,
    /// Attention heads, which diffusers' files call `attention_head_dim`.
    pub heads: usize,
    /// Whether the block on the way down attends to the text.
    pub down_attends: bool,
    /// Whether the block on the way up does.
    pub up_attends: bool,
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct UNetConfig {
    /// Latents' height and width that the model was trained at.
    pub sample_size: usize,
    /// Channels of the noisy latent.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// From the finest to the coarsest.
    pub levels: Vec<Level>,
    /// Residual blocks a level on the way down; one more on the way up.
    pub layers: usize,
    /// Width of the text's tokens.
    pub text_width: usize,
    pub(super) groups: usize,
    pub(super) eps: f64,
    pub(super) linear_projection: bool,
    pub(super) transformer_layers: usize,
    cos_first: bool,
    freq_shift: f64,
}

impl UNetConfig {
    /// The sizes of Stable Diffusion 1.x.
    pub fn stable_diffusion_1() -> Self {
        let level = |channels, attends| Level {
            channels,
            heads: 8,
            down_attends: attends,
            up_attends: attends,
        };
        UNetConfig {
            sample_size: 64,
            in_channels: 4,
            out_channels: 4,
            levels: vec![
                level(320, true),
                level(640, true),
                level(1280, true),
                level(1280, false),
            ],
            layers: 2,
            text_width: 768,
            groups: 32,
            eps: 1e-5,
            linear_projection: false,
            transformer_layers: 1,
            cos_first: true,
            freq_shift: 0.0,
        }
    }

    /// Reads and checks a `config.json`.
    pub(crate) fn read(config: &Config) -> Result<Self> {
        config.require(&[
            ("_class_name", json!("UNet2DConditionModel")),
            ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
            ("act_fn", json!("silu")),
            ("time_embedding_type", json!("positional")),
            ("resnet_time_scale_shift", json!("default")),
            ("attention_type", json!("default")),
            ("conv_in_kernel", json!(3)),
            ("conv_out_kernel", json!(3)),
            ("downsample_padding", json!(1)),
            ("center_input_sample", json!(false)),
            ("dual_cross_attention", json!(false)),
            ("only_cross_attention", json!(false)),
            ("resnet_skip_time_act", json!(false)),
        ])?;
        if config.is_null("mid_block_type") {
            let why = "a network without a middle block is not supported";
            return Err(config.unsupported("mid_block_type", why));
        }
        for key in [
            "addition_embed_type",
            "class_embed_type",
            "num_class_embeds",
            "encoder_hid_dim",
            "encoder_hid_dim_type",
            "num_attention_heads",
            "time_embedding_dim",
            "time_embedding_act_fn",
            "time_cond_proj_dim",
            "timestep_post_act",
            "cross_attention_norm",
            "reverse_transformer_layers_per_block",
        ] {
            if config.get(key).is_some() {
                return Err(config
                    .unsupported(key, "only left out or null is supported")
                    .with_hint("Stable Diffusion 1.x and 2.x run; SDXL and later do not yet"));
            }
        }
        for key in ["mid_block_scale_factor", "resnet_out_scale_factor"] {
            if config.get(key).is_some_and(|v| v.as_f64() != Some(1.0)) {
                return Err(config.unsupported(key, "only 1 is supported"));
            }
        }
        let file: File = config.parse()?;
        let in_range = |key: &str, value: usize, from: usize, to: usize| {
            if (from..=to).contains(&value) {
                return Ok(());
            }
            Err(config.outside(key, value, &format!("{from}..={to}")))
        };
        let count = file.block_out_channels.len();
        in_range("sample_size", file.sample_size, 1, 4096)?;
        in_range("in_channels", file.in_channels, 1, 64)?;
        in_range("out_channels", file.out_channels, 1, 64)?;
        in_range("block_out_channels (its length)", count, 1, 8)?;
        let same = |key: &str, number: &PerBlock| number.same(config, key, count);
        let layers = same("layers_per_block", &file.layers_per_block)?;
        in_range("layers_per_block", layers, 1, 16)?;
        in_range("norm_num_groups", file.norm_num_groups, 1, 1024)?;
        let text_width = same("cross_attention_dim", &file.cross_attention_dim)?;
        in_range("cross_attention_dim", text_width, 1, 16384)?;
        let key = "transformer_layers_per_block";
        let transformer_layers = same(key, &file.transformer_layers_per_block)?;
        in_range(key, transformer_layers, 1, 32)?;
        let heads = &file.attention_head_dim;
        heads.check(config, "attention_head_dim", count)?;
        if !(0.0..=1.0).contains(&file.norm_eps) {
            return Err(config.outside("norm_eps", file.norm_eps, "0..=1"));
        }
        if !(-1.0..=1.0).contains(&file.freq_shift) {
            return Err(config.outside("freq_shift", file.freq_shift, "-1..=1"));
        }
        let types = (&file.down_block_types, &file.up_block_types);
        for (key, types) in [("down_block_types", types.0), ("up_block_types", types.1)] {
            if types.len() != count {
                return Err(config.outside(
                    key,
                    format!("{} blocks", types.len()),
                    &count.to_string(),
                ));
            }
        }
        let attends = |key: &str, name: Option<&String>, part: &str| match name {
            Some(name) if *name == format!("CrossAttn{part}Block2D") => Ok(true),
            Some(name) if *name == format!("{part}Block2D") => Ok(false),
            _ => Err(config.unsupported(
                key,
                &format!("only {part}Block2D and CrossAttn{part}Block2D are supported"),
            )),
        };
        let mut levels = Vec::new();
        for (i, &channels) in file.block_out_channels.iter().enumerate() {
            in_range("block_out_channels", channels, 2, 16384)?;
            if !channels.is_multiple_of(file.norm_num_groups) || channels % 2 == 1 {
                return Err(config.outside(
                    "block_out_channels",
                    channels,
                    &format!(
                        "even and a multiple of norm_num_groups, {}",
                        file.norm_num_groups
                    ),
                ));
            }
            let heads = heads.get(i).unwrap_or(0);
            if heads == 0 || !channels.is_multiple_of(heads) {
                return Err(config.outside(
                    "attention_head_dim",
                    heads,
                    &format!("a divisor of the {channels} channels of block {i}"),
                ));
            }
            levels.push(Level {
                channels,
                heads,
                down_attends: attends("down_block_types", file.down_block_types.get(i), "Down")?,
                up_attends: attends(
                    "up_block_types",
                    file.up_block_types.get(count - 1 - i),
                    "Up",
                )?,
            });
        }
        Ok(UNetConfig {
            sample_size: file.sample_size,
            in_channels: file.in_channels,
            out_channels: file.out_channels,
            levels,
            layers,
            text_width,
            groups: file.norm_num_groups,
            eps: file.norm_eps,
            linear_projection: file.use_linear_projection,
            transformer_layers,
            cos_first: file.flip_sin_to_cos,
            freq_shift: file.freq_shift,
        })
    }

    /// Sinusoids of `times`, a row of `width` numbers each (Vaswani et al. 2017, as diffusers'
    /// `get_timestep_embedding`, in f32 like it).
    pub(super) fn sinusoids(&self, times: &[f32], width: usize) -> SmallVec<[f32; 1024]> {
        let half = width / 2;
        let step = -(10000.0_f64.ln() as f32);
        let divisor = (half as f64 - self.freq_shift) as f32;
        let mut out = SmallVec::with_capacity(times.len() * width);
        for &t in times {
            let angle = |i: usize| t * libm::expf(step * i as f32 / divisor);
            let sin = (0..half).map(|i| libm::sinf(angle(i)));
            let cos = (0..half).map(|i| libm::cosf(angle(i)));
            match self.cos_first {
                true => out.extend(cos.chain(sin)),
                false => out.extend(sin.chain(cos)),
            }
        }
        out
    }
}
