//! The noise predictor of Stable Diffusion 1.x and 2.x (`UNet2DConditionModel` of diffusers;
//! Rombach et al. 2022, arXiv 2112.10752).
//!
//! For: any configuration of plain and cross-attention blocks. Not for: SDXL's added conditions,
//! class embeddings, adapters: those are refused by name.
//!
//! Hooks are values. What cross-attention takes from a text, [`TextKeys`], is made by
//! [`UNet::text_keys`] and handed over, so it may be read, mixed or replaced on the way. The middle
//! block's output h lies in [`Middle`], between the network's two halves: there it may be read, moved
//! (h-space editing; Kwon et al., arXiv 2210.10960) or be an end of its own (Park et al., arXiv
//! 2307.12868, need no more than the first half).

mod config;

pub use self::config::{Level, UNetConfig};
pub use super::block::KeyValue;
use super::block::{Attend, Resnet, Transformer, Upsample, next_block};
use super::build::{Builder, Kind};
use crate::error::{Code, Error, Result};
use crate::job::Cancel;
use crate::nn::{Act, Ops, Plus, Reads, Several, Shape};

/// Residual blocks, each followed by attention where the block attends.
struct Block<O: Ops> {
    resnets: Vec<Resnet<O>>,
    attentions: Vec<Transformer<O>>,
}

/// The network.
pub struct UNet<O: Ops> {
    config: UNetConfig,
    time: [O::Linear; 2],
    conv_in: O::Conv,
    down: Vec<(Block<O>, Option<O::Conv>)>,
    middle: Block<O>,
    up: Vec<(Block<O>, Option<Upsample<O>>)>,
    norm_out: O::Norm,
    conv_out: O::Conv,
    /// Cross-attention layers.
    slots: usize,
}

/// The keys and values of every cross-attention layer for some texts, in the order of the layers: way
/// down, middle, way up. They are linear in the text, so a mix of texts is the same mix of these.
#[derive(Clone, Debug)]
pub struct TextKeys<T>(pub Vec<KeyValue<T>>);

impl<T> TextKeys<T> {
    /// What `f` makes of the keys of all `parts`, then of their values, layer by layer.
    fn each(parts: &[&Self], f: impl Fn(&[&T]) -> Result<T>) -> Result<Self> {
        let layers = parts.first().map(|first| first.0.len());
        let Some(layers) = layers.filter(|n| parts.iter().all(|part| part.0.len() == *n)) else {
            let what = "keys and values of no text, or of different networks";
            return Err(Error::new(Code::Internal, what));
        };
        let layer = |i: usize| -> Result<KeyValue<T>> {
            let own = || parts.iter().filter_map(move |part| part.0.get(i));
            Ok(KeyValue {
                key: f(&own().map(|kv| &kv.key).collect::<Several<_>>())?,
                value: f(&own().map(|kv| &kv.value).collect::<Several<_>>())?,
            })
        };
        Ok(TextKeys((0..layers).map(layer).collect::<Result<_>>()?))
    }

    /// Σ weightᵢ · keysᵢ over at least one term: those of the same mix of texts, but for rounding. A
    /// single term of weight 1 comes back bit for bit.
    pub fn mix<R: Ops<Tensor = T>>(ops: &R, terms: &[(f32, &Self)]) -> Result<Self> {
        let weights: Several<f32> = terms.iter().map(|(weight, _)| *weight).collect();
        let parts: Several<&Self> = terms.iter().map(|(_, part)| *part).collect();
        Self::each(&parts, |x| {
            let terms: Several<_> = weights.iter().copied().zip(x.iter().copied()).collect();
            ops.combine(&terms)
        })
    }

    /// Those of all samples of all `parts` (at least one).
    pub fn stack<R: Ops<Tensor = T>>(ops: &R, parts: &[&Self]) -> Result<Self> {
        Self::each(parts, |x| ops.stack(x))
    }
}

/// The network half run: after its middle block.
#[derive(Clone, Debug)]
pub struct Middle<T> {
    /// The middle block's output, `n × h × w × channels` of the coarsest level: the h of h-space. What
    /// stands here when the second half begins is what it takes.
    pub h: T,
    /// What goes past the middle.
    skips: Several<T>,
    /// The time embedding as the blocks after it take it, the last one first.
    times: Several<T>,
}

/// What a forward pass gives.
#[derive(Clone, Debug)]
pub struct Prediction<T> {
    /// The prediction, `n × h × w × out_channels`: noise or velocity, as the scheduler says.
    pub out: T,
    /// The middle block's output.
    pub middle: T,
}

impl<O: Ops> UNet<O> {
    /// Builds the network from the weights at `b`.
    pub fn new<'a>(b: &Builder<'a, O>, config: UNetConfig) -> Result<Self> {
        let c = &config;
        let (Some(first), Some(last)) = (c.levels.first(), c.levels.last()) else {
            return Err(Error::new(Code::Internal, "a U-Net without levels"));
        };
        let how = Attend {
            text_width: c.text_width,
            linear_projection: c.linear_projection,
            layers: c.transformer_layers,
            groups: c.groups,
        };
        let time = 4 * first.channels;
        let mut slot = 0;
        let mut block =
            |b: &Builder<'_, O>, io: &[(usize, usize)], heads: Option<usize>, attends: usize| {
                let mut resnets = Vec::new();
                let mut attentions = Vec::new();
                for (i, &io) in io.iter().enumerate() {
                    let at = b.at(&format!("resnets.{i}"));
                    resnets.push(Resnet::new(&at, io, Some(time), c.groups, c.eps)?);
                }
                if let (Some(heads), Some(&(_, channels))) = (heads, io.first()) {
                    for i in 0..attends {
                        let at = b.at(&format!("attentions.{i}"));
                        attentions.push(Transformer::new(&at, channels, heads, &how, slot)?);
                        slot += c.transformer_layers;
                    }
                }
                Ok::<_, Error>(Block {
                    resnets,
                    attentions,
                })
            };
        let deepest = c.levels.len() - 1;
        // The place `b` at the size of level `i`.
        let on = |b: Builder<'a, O>, i: usize| {
            let side = c.sample_size.div_ceil(1 << i);
            b.on(side, side)
        };
        let mut down = Vec::new();
        let mut inputs = first.channels;
        for (i, level) in c.levels.iter().enumerate() {
            let b = on(b.at(&format!("down_blocks.{i}")), i);
            let out = level.channels;
            let io: Vec<_> = (0..c.layers)
                .map(|j| (if j == 0 { inputs } else { out }, out))
                .collect();
            let made = block(&b, &io, level.down_attends.then_some(level.heads), c.layers)?;
            let halve = (i < deepest)
                .then(|| b.conv("downsamplers.0.conv", out, out, Kind::Down))
                .transpose()?;
            down.push((made, halve));
            inputs = out;
        }
        let deep = last.channels;
        let middle = block(
            &on(b.at("mid_block"), deepest),
            &[(deep, deep), (deep, deep)],
            Some(last.heads),
            1,
        )?;
        let mut up = Vec::new();
        let mut before = deep;
        for (i, level) in c.levels.iter().rev().enumerate() {
            let b = on(b.at(&format!("up_blocks.{i}")), deepest - i);
            let out = level.channels;
            // The skip of the last residual block comes from the level above.
            let above = c.levels.iter().rev().nth(i + 1).unwrap_or(first).channels;
            let io: Vec<_> = (0..=c.layers)
                .map(|j| {
                    let skip = if j == c.layers { above } else { out };
                    (if j == 0 { before } else { out } + skip, out)
                })
                .collect();
            let made = block(
                &b,
                &io,
                level.up_attends.then_some(level.heads),
                c.layers + 1,
            )?;
            let double = (i < deepest)
                .then(|| Upsample::new(&on(b, deepest - i - 1), out))
                .transpose()?;
            up.push((made, double));
            before = out;
        }
        Ok(UNet {
            time: [
                b.linear("time_embedding.linear_1", first.channels, time)?,
                b.linear("time_embedding.linear_2", time, time)?,
            ],
            conv_in: b.conv("conv_in", c.in_channels, first.channels, Kind::Same3)?,
            down,
            middle,
            up,
            norm_out: b.norm("conv_norm_out", first.channels, c.eps)?,
            conv_out: b.conv("conv_out", first.channels, c.out_channels, Kind::Same3)?,
            slots: slot,
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// The keys and values of every cross-attention layer for `text`, `n × 1 × tokens × text_width`.
    /// Any reading over the network's backend may be given, here and to [`UNet::forward`].
    pub fn text_keys<R: Reads<O>>(&self, ops: &R, text: &R::Tensor) -> Result<TextKeys<R::Tensor>> {
        let mut out = Vec::new();
        let down = self.down.iter().map(|(block, _)| block);
        let up = self.up.iter().map(|(block, _)| block);
        for block in down.chain([&self.middle]).chain(up) {
            for transformer in &block.attentions {
                transformer.keys_and_values(ops, text, &mut out)?;
            }
        }
        Ok(TextKeys(out))
    }

    /// Predicts from noisy latents `x` (`n × h × w × in_channels`, any h and w) at `times` (one per
    /// sample) under `text` (as many samples): [`UNet::descend`], then [`UNet::ascend`]. `cancel` is polled
    /// before every block.
    pub fn forward<R: Reads<O>>(
        &self,
        ops: &R,
        x: &R::Tensor,
        times: &[f32],
        text: &TextKeys<R::Tensor>,
        cancel: &Cancel,
    ) -> Result<Prediction<R::Tensor>> {
        let middle = self.descend(ops, x, times, text, cancel)?;
        let h = middle.h.clone();
        let out = self.ascend(ops, middle, text, cancel)?;
        Ok(Prediction { out, middle: h })
    }

    /// The first half: from noisy latents to the middle block's output, as [`UNet::forward`].
    pub fn descend<R: Reads<O>>(
        &self,
        ops: &R,
        x: &R::Tensor,
        times: &[f32],
        text: &TextKeys<R::Tensor>,
        cancel: &Cancel,
    ) -> Result<Middle<R::Tensor>> {
        let n = ops.shape(x)?.n;
        if times.len() != n {
            return Err(Error::new(
                Code::Internal,
                format!("{} times for {n} latents", times.len()),
            ));
        }
        let text = self.all_layers(text)?;
        let width = self.config.levels.first().map_or(0, |l| l.channels);
        let time = self.config.sinusoids(times, width);
        let time = ops.value(&time[..], Shape::map(n, 1, 1, width))?;
        let [one, two] = &self.time;
        let time = ops.linear_act(&time, one, Act::Silu)?;
        // Every block begins with the SiLU of the embedding, so it is taken once.
        let time = ops.linear_act(&time, two, Act::Silu)?;
        let layers: Several<_> = self.resnets().filter_map(Resnet::time).collect();
        let mut times = ops.linears(&time, &layers)?;
        times.reverse();

        let mut x = ops.conv(x, &self.conv_in, Plus::Nothing)?;
        let mut skips = Several::new();
        skips.push(x.clone());
        for (block, halve) in &self.down {
            for (i, resnet) in block.resnets.iter().enumerate() {
                next_block(ops, cancel)?;
                x = resnet.forward(ops, &x, times.pop().as_ref())?;
                if let Some(attention) = block.attentions.get(i) {
                    next_block(ops, cancel)?;
                    x = attention.forward(ops, &x, text)?;
                }
                skips.push(x.clone());
            }
            if let Some(halve) = halve {
                x = ops.conv(&x, halve, Plus::Nothing)?;
                skips.push(x.clone());
            }
        }

        for (i, resnet) in self.middle.resnets.iter().enumerate() {
            next_block(ops, cancel)?;
            x = resnet.forward(ops, &x, times.pop().as_ref())?;
            if let Some(attention) = self.middle.attentions.get(i) {
                next_block(ops, cancel)?;
                x = attention.forward(ops, &x, text)?;
            }
        }
        Ok(Middle { h: x, skips, times })
    }

    /// The second half: from where [`UNet::descend`] ended, or a changed [`Middle::h`] of the same
    /// size, to the prediction, `n × h × w × out_channels`. `text` may be another than the first half's.
    pub fn ascend<R: Reads<O>>(
        &self,
        ops: &R,
        middle: Middle<R::Tensor>,
        text: &TextKeys<R::Tensor>,
        cancel: &Cancel,
    ) -> Result<R::Tensor> {
        let text = self.all_layers(text)?;
        let Middle {
            h: mut x,
            mut skips,
            mut times,
        } = middle;
        for (block, double) in &self.up {
            for (i, resnet) in block.resnets.iter().enumerate() {
                next_block(ops, cancel)?;
                let skip = skips.pop().ok_or_else(no_skip)?;
                x = resnet.forward(ops, &ops.concat(&x, &skip)?, times.pop().as_ref())?;
                if let Some(attention) = block.attentions.get(i) {
                    next_block(ops, cancel)?;
                    x = attention.forward(ops, &x, text)?;
                }
            }
            if let Some(double) = double {
                // Odd sizes were rounded up on the way down, so double is not always right.
                let skip = ops.shape(skips.last().ok_or_else(no_skip)?)?;
                x = double.forward(ops, &x, (skip.h, skip.w))?;
            }
        }
        next_block(ops, cancel)?;
        let x = ops.group_norm(&x, &self.norm_out, self.config.groups, Act::Silu)?;
        ops.conv(&x, &self.conv_out, Plus::Nothing)
    }

    /// All residual blocks, as data comes to them.
    fn resnets(&self) -> impl Iterator<Item = &Resnet<O>> {
        let down = self.down.iter().map(|(block, _)| block);
        let up = self.up.iter().map(|(block, _)| block);
        let blocks = down.chain([&self.middle]).chain(up);
        blocks.flat_map(|block| &block.resnets)
    }

    /// `text`, which must have keys and values for every layer.
    fn all_layers<'a, T>(&self, text: &'a TextKeys<T>) -> Result<&'a [KeyValue<T>]> {
        let found = text.0.len();
        match found == self.slots {
            true => Ok(&text.0),
            false => Err(Error::new(
                Code::Internal,
                format!(
                    "keys and values of {found} layers for a U-Net with {}",
                    self.slots
                ),
            )),
        }
    }
}

fn no_skip() -> Error {
    Error::new(Code::Internal, "a U-Net with more blocks up than down")
}
