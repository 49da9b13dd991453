//! What the U-Net and the autoencoder are built from.

use super::build::{Builder, Kind};
use crate::error::{Code, Error, Result};
use crate::job::Cancel;
use crate::nn::{Act, Mask, Ops, Plus, Reads};

/// What happens between two blocks: the flag is polled, and a reading may forget what is behind.
pub(super) fn next_block(ops: &impl Ops, cancel: &Cancel) -> Result<()> {
    cancel.check()?;
    ops.boundary();
    Ok(())
}

/// `x` through each of `layers`: queries, keys and values.
pub(super) fn project<O: Ops, R: Reads<O>, const N: usize>(
    ops: &R,
    x: &R::Tensor,
    layers: &[O::Linear; N],
) -> Result<[R::Tensor; N]> {
    let all = ops.linears(x, &layers.each_ref())?;
    if all.len() != N {
        let what = format!("{} results of {N} layers", all.len());
        return Err(Error::new(Code::Internal, what));
    }
    let mut all = all.into_iter();
    // There is one for each.
    Ok(std::array::from_fn(|_| {
        all.next().unwrap_or_else(|| x.clone())
    }))
}

/// A residual block (`ResnetBlock2D`): norm, conv, the time added, norm, conv, the input added.
pub(super) struct Resnet<O: Ops> {
    norm1: O::Norm,
    conv1: O::Conv,
    time: Option<O::Linear>,
    norm2: O::Norm,
    conv2: O::Conv,
    shortcut: Option<O::Conv>,
    groups: usize,
}

impl<O: Ops> Resnet<O> {
    /// `time` is the width of the time embedding, if the block takes one.
    pub(super) fn new(
        b: &Builder<'_, O>,
        (inputs, outputs): (usize, usize),
        time: Option<usize>,
        groups: usize,
        eps: f64,
    ) -> Result<Self> {
        Ok(Resnet {
            norm1: b.norm("norm1", inputs, eps)?,
            conv1: b.conv("conv1", inputs, outputs, Kind::Same3)?,
            time: time
                .map(|width| b.linear("time_emb_proj", width, outputs))
                .transpose()?,
            norm2: b.norm("norm2", outputs, eps)?,
            conv2: b.conv("conv2", outputs, outputs, Kind::Same3)?,
            shortcut: (inputs != outputs)
                .then(|| b.conv("conv_shortcut", inputs, outputs, Kind::Point))
                .transpose()?,
            groups,
        })
    }

    /// What projects the time embedding after its SiLU, `n × 1 × 1 × width`, if the block takes one.
    pub(super) fn time(&self) -> Option<&O::Linear> {
        self.time.as_ref()
    }

    /// `time` is the embedding through [`Resnet::time`].
    pub(super) fn forward<R: Reads<O>>(
        &self,
        ops: &R,
        x: &R::Tensor,
        time: Option<&R::Tensor>,
    ) -> Result<R::Tensor> {
        let h = ops.group_norm(x, &self.norm1, self.groups, Act::Silu)?;
        let plus = time.map_or(Plus::Nothing, Plus::PerSample);
        let h = ops.conv(&h, &self.conv1, plus)?;
        let h = ops.group_norm(&h, &self.norm2, self.groups, Act::Silu)?;
        match &self.shortcut {
            Some(w) => {
                let x = ops.conv(x, w, Plus::Nothing)?;
                ops.conv(&h, &self.conv2, Plus::Residual(&x))
            }
            None => ops.conv(&h, &self.conv2, Plus::Residual(x)),
        }
    }
}

/// Nearest-neighbour enlarging and a convolution (`Upsample2D`).
pub(super) struct Upsample<O: Ops>(O::Conv);

impl<O: Ops> Upsample<O> {
    pub(super) fn new(b: &Builder<'_, O>, channels: usize) -> Result<Self> {
        Ok(Upsample(b.conv(
            "upsamplers.0.conv",
            channels,
            channels,
            Kind::Same3,
        )?))
    }

    pub(super) fn forward<R: Reads<O>>(
        &self,
        ops: &R,
        x: &R::Tensor,
        (h, w): (usize, usize),
    ) -> Result<R::Tensor> {
        ops.conv(&ops.upsample(x, h, w)?, &self.0, Plus::Nothing)
    }
}

/// The keys and values that one cross-attention layer takes from the text.
#[derive(Clone, Debug)]
pub struct KeyValue<T> {
    /// Keys, `n × 1 × tokens × channels`.
    pub key: T,
    /// Values, as the keys.
    pub value: T,
}

/// Self-attention, cross-attention, GEGLU (`BasicTransformerBlock`).
struct Layer<O: Ops> {
    norms: [O::Norm; 3],
    self_qkv: [O::Linear; 3],
    self_out: O::Linear,
    cross_q: O::Linear,
    cross_kv: [O::Linear; 2],
    cross_out: O::Linear,
    gate: O::Linear,
    down: O::Linear,
}

/// Layers of attention over a map's positions (`Transformer2DModel`).
pub(super) struct Transformer<O: Ops> {
    norm: O::Norm,
    proj_in: O::Linear,
    layers: Vec<Layer<O>>,
    proj_out: O::Linear,
    groups: usize,
    heads: usize,
    /// Place of the first layer's keys and values in the U-Net's list of them.
    slot: usize,
}

/// What transformers of one U-Net have in common.
pub(super) struct Attend {
    pub(super) text_width: usize,
    pub(super) linear_projection: bool,
    pub(super) layers: usize,
    pub(super) groups: usize,
}

impl<O: Ops> Transformer<O> {
    pub(super) fn new(
        b: &Builder<'_, O>,
        c: usize,
        heads: usize,
        how: &Attend,
        slot: usize,
    ) -> Result<Self> {
        let project = |name| match how.linear_projection {
            true => b.linear(name, c, c),
            false => b.linear_from_point(name, c, c),
        };
        let layer = |i: usize| -> Result<Layer<O>> {
            let b = b.at(&format!("transformer_blocks.{i}"));
            let (one, two) = (b.at("attn1"), b.at("attn2"));
            let text = how.text_width;
            Ok(Layer {
                norms: [
                    b.norm("norm1", c, 1e-5)?,
                    b.norm("norm2", c, 1e-5)?,
                    b.norm("norm3", c, 1e-5)?,
                ],
                self_qkv: [
                    one.linear_no_bias("to_q", c, c)?,
                    one.linear_no_bias("to_k", c, c)?,
                    one.linear_no_bias("to_v", c, c)?,
                ],
                self_out: one.linear("to_out.0", c, c)?,
                cross_q: two.linear_no_bias("to_q", c, c)?,
                cross_kv: [
                    two.linear_no_bias("to_k", text, c)?,
                    two.linear_no_bias("to_v", text, c)?,
                ],
                cross_out: two.linear("to_out.0", c, c)?,
                gate: b.gate("ff.net.0.proj", c, 8 * c)?,
                down: b.linear("ff.net.2", 4 * c, c)?,
            })
        };
        Ok(Transformer {
            norm: b.norm("norm", c, 1e-6)?,
            proj_in: project("proj_in")?,
            layers: (0..how.layers).map(layer).collect::<Result<_>>()?,
            proj_out: project("proj_out")?,
            groups: how.groups,
            heads,
            slot,
        })
    }

    /// The keys and values of every layer for `text`, `n × 1 × tokens × text_width`.
    pub(super) fn keys_and_values<R: Reads<O>>(
        &self,
        ops: &R,
        text: &R::Tensor,
        out: &mut Vec<KeyValue<R::Tensor>>,
    ) -> Result<()> {
        for layer in &self.layers {
            let [key, value] = project(ops, text, &layer.cross_kv)?;
            out.push(KeyValue { key, value });
        }
        Ok(())
    }

    /// `text` holds the keys and values of the whole U-Net, in order.
    pub(super) fn forward<R: Reads<O>>(
        &self,
        ops: &R,
        x: &R::Tensor,
        text: &[KeyValue<R::Tensor>],
    ) -> Result<R::Tensor> {
        let residual = x;
        let x = ops.group_norm(x, &self.norm, self.groups, Act::Identity)?;
        let mut x = ops.linear(&x, &self.proj_in, Plus::Nothing)?;
        for (layer, kv) in self.layers.iter().zip(text.iter().skip(self.slot)) {
            let [norm1, norm2, norm3] = &layer.norms;
            let h = ops.layer_norm(&x, norm1)?;
            let [q, k, v] = project(ops, &h, &layer.self_qkv)?;
            let h = ops.attention(&q, &k, &v, self.heads, Mask::None)?;
            x = ops.linear(&h, &layer.self_out, Plus::Residual(&x))?;

            let h = ops.layer_norm(&x, norm2)?;
            let q = ops.linear(&h, &layer.cross_q, Plus::Nothing)?;
            let h = ops.attention(&q, &kv.key, &kv.value, self.heads, Mask::None)?;
            x = ops.linear(&h, &layer.cross_out, Plus::Residual(&x))?;

            let h = ops.layer_norm(&x, norm3)?;
            let h = ops.geglu(&h, &layer.gate)?;
            x = ops.linear(&h, &layer.down, Plus::Residual(&x))?;
        }
        ops.linear(&x, &self.proj_out, Plus::Residual(residual))
    }
}
