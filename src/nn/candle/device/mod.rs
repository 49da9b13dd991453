//! [`Ops`] in candle's own tensor operations, on whatever device candle runs on.
//!
//! For: graphics cards (CUDA and Metal, each behind the cargo feature of its name), values and
//! derivatives ([`Derivatives`](crate::nn::derivatives::Derivatives)) alike. On the CPU it is how the same
//! text is tested without a card. Not for: speed on a CPU ([`crate::nn::native`]), candle's own gradients
//! and the same bits on every device: sums are taken in the order that the device likes.
//!
//! Values lie as `n × h × w × c` in f32 and stay on the device from [`Ops::value`] to [`Ops::numbers`].
//! Only a pool's derivative takes its numbers through the host's memory: it goes to the first of equal
//! numbers, an order that candle's operations do not promise. candle's fused softmax and layer norm are
//! not used, so that what runs is what is tested.

mod act;
mod attention;
mod conv;
mod derivative;
mod norm;
mod place;

use std::sync::Arc;

use candle_core::{Device, DeviceLocation, Tensor};

use super::shape;
use crate::error::Result;
use crate::nn::{Act, ConvSpec, LinearSpec, Mask, Ops, Plus, Shape, mismatch};

pub use conv::Conv;
pub use norm::Norm;
pub use place::{Place, VARIABLE};

/// The backend on one device. Clones are the same device; values of two devices do not meet.
#[derive(Clone, Debug)]
pub struct OnDevice {
    device: Arc<Device>,
}

/// A linear layer: weights as `outputs × inputs`.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl OnDevice {
    /// candle's operations on the CPU.
    pub fn cpu() -> Self {
        OnDevice {
            device: Arc::new(Device::Cpu),
        }
    }

    fn tensor(&self, data: Vec<f32>, shape: Shape) -> Result<Tensor> {
        if data.len() != shape.len() {
            let what = format!("{} numbers for {shape:?}", data.len());
            return Err(mismatch("value", what));
        }
        let shape = (shape.n, shape.h, shape.w, shape.c);
        Ok(Tensor::from_vec(data, shape, &self.device)?)
    }
}

/// Adds `plus` to a result of shape `n × h × w × c`.
fn add(y: Tensor, plus: Plus<'_, Tensor>) -> Result<Tensor> {
    let out = shape(&y)?;
    match plus {
        Plus::Nothing => Ok(y),
        Plus::Residual(r) if shape(r)? == out => Ok((y + r)?),
        Plus::PerSample(v) if shape(v)? == Shape::map(out.n, 1, 1, out.c) => {
            Ok(y.broadcast_add(v)?)
        }
        Plus::Residual(x) | Plus::PerSample(x) => {
            Err(mismatch("plus", format!("{:?} onto {out:?}", shape(x)?)))
        }
    }
}

/// The entries `from` of dimension `dim`, in that order.
fn taken(x: &Tensor, from: Vec<u32>, dim: usize) -> Result<Tensor> {
    let from = Tensor::new(from, x.device())?;
    Ok(x.contiguous()?.index_select(&from, dim)?)
}

/// Where each of `to` entries comes from when `from` ones are enlarged: ⌊i · from / to⌋.
fn nearest(from: usize, to: usize) -> Result<Vec<u32>> {
    let at = |i: usize| u32::try_from(i as u128 * from as u128 / to as u128);
    let all: std::result::Result<_, _> = (0..to).map(at).collect();
    all.map_err(|_| mismatch("upsample", format!("{from} to {to}")))
}

impl Linear {
    /// The product, bias added, of the shape of a value.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.product(x)?;
        match &self.bias {
            Some(bias) => Ok(y.broadcast_add(bias)?),
            None => Ok(y),
        }
    }

    /// The product alone.
    fn product(&self, x: &Tensor) -> Result<Tensor> {
        let (s, (outputs, inputs)) = (shape(x)?, self.weight.dims2()?);
        if s.c != inputs || s.is_empty() {
            return Err(mismatch("linear", format!("{s:?} into {inputs} inputs")));
        }
        let y = x.reshape((s.rows(), s.c))?.matmul(&self.weight.t()?)?;
        Ok(y.reshape((s.n, s.h, s.w, outputs))?)
    }

    /// The transpose of [`Linear::product`].
    fn back(&self, g: &Tensor) -> Result<Tensor> {
        let (s, (outputs, inputs)) = (shape(g)?, self.weight.dims2()?);
        if s.c != outputs || s.is_empty() {
            let what = format!("{s:?} back through {outputs} outputs");
            return Err(mismatch("linear", what));
        }
        let x = g.reshape((s.rows(), s.c))?.matmul(&self.weight)?;
        Ok(x.reshape((s.n, s.h, s.w, inputs))?)
    }

    /// What a gated layer gives, in its two halves.
    fn halves(&self, y: &Tensor) -> Result<(Tensor, Tensor)> {
        let c = shape(y)?.c;
        if !c.is_multiple_of(2) {
            return Err(mismatch("geglu", format!("{c} outputs")));
        }
        Ok((y.narrow(3, 0, c / 2)?, y.narrow(3, c / 2, c / 2)?))
    }
}

impl Ops for OnDevice {
    type Tensor = Tensor;
    type Conv = Arc<Conv>;
    type Linear = Arc<Linear>;
    type Norm = Arc<Norm>;

    fn name(&self) -> String {
        match self.device.location() {
            DeviceLocation::Cpu => "candle-device-cpu".to_owned(),
            DeviceLocation::Cuda { gpu_id } => format!("candle-cuda:{gpu_id}"),
            DeviceLocation::Metal { gpu_id } => format!("candle-metal:{gpu_id}"),
        }
    }

    fn make_conv(&self, spec: ConvSpec<'_>) -> Result<Arc<Conv>> {
        Conv::new(&self.device, spec).map(Arc::new)
    }

    fn make_linear(&self, spec: LinearSpec<'_>) -> Result<Arc<Linear>> {
        let (i, o) = (spec.inputs, spec.outputs);
        let bias = spec.bias;
        let fits = spec.weight.len() == i * o && bias.is_none_or(|b| b.len() == o);
        if !fits || spec.weight.is_empty() {
            return Err(mismatch("linear", format!("weights do not fit {i} → {o}")));
        }
        let bias = bias.map(|bias| Tensor::new(bias, &self.device));
        Ok(Arc::new(Linear {
            weight: Tensor::from_slice(spec.weight, (o, i), &self.device)?,
            bias: bias.transpose()?,
        }))
    }

    fn make_norm(&self, scale: &[f32], shift: &[f32], eps: f32) -> Result<Arc<Norm>> {
        Norm::new(&self.device, scale, shift, eps).map(Arc::new)
    }

    fn value(&self, data: impl AsRef<[f32]> + Into<Vec<f32>>, shape: Shape) -> Result<Tensor> {
        self.tensor(data.into(), shape)
    }

    fn numbers(&self, x: &Tensor) -> Result<Vec<f32>> {
        Ok(x.flatten_all()?.to_vec1()?)
    }

    fn shape(&self, x: &Tensor) -> Result<Shape> {
        shape(x)
    }

    fn conv(&self, x: &Tensor, w: &Arc<Conv>, plus: Plus<'_, Tensor>) -> Result<Tensor> {
        add(w.forward(x)?, plus)
    }

    fn linear(&self, x: &Tensor, w: &Arc<Linear>, plus: Plus<'_, Tensor>) -> Result<Tensor> {
        add(w.forward(x)?, plus)
    }

    fn geglu(&self, x: &Tensor, w: &Arc<Linear>) -> Result<Tensor> {
        let (a, b) = w.halves(&w.forward(x)?)?;
        Ok((a * b.gelu_erf()?)?)
    }

    fn group_norm(&self, x: &Tensor, w: &Arc<Norm>, groups: usize, act: Act) -> Result<Tensor> {
        act::apply(&w.group(x, groups)?, act)
    }

    fn layer_norm(&self, x: &Tensor, w: &Arc<Norm>) -> Result<Tensor> {
        w.layer(x)
    }

    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        heads: usize,
        mask: Mask,
    ) -> Result<Tensor> {
        attention::Attention::new([q, k, v], heads, mask)?.value()
    }

    fn act(&self, x: &Tensor, act: Act) -> Result<Tensor> {
        act::apply(x, act)
    }

    fn upsample(&self, x: &Tensor, h: usize, w: usize) -> Result<Tensor> {
        let s = shape(x)?;
        if s.is_empty() || h == 0 || w == 0 {
            return Err(mismatch("upsample", format!("{s:?} to {h} × {w}")));
        }
        taken(&taken(x, nearest(s.h, h)?, 1)?, nearest(s.w, w)?, 2)
    }

    fn concat(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        Ok(Tensor::cat(&[a, b], 3)?)
    }

    fn stack(&self, parts: &[&Tensor]) -> Result<Tensor> {
        match parts {
            [] => Err(mismatch("stack", "no parts")),
            [one] => Ok((*one).clone()),
            _ => Ok(Tensor::cat(parts, 0)?),
        }
    }

    fn combine(&self, terms: &[(f32, &Tensor)]) -> Result<Tensor> {
        let Some(((weight, first), rest)) = terms.split_first() else {
            return Err(mismatch("combine", "no terms"));
        };
        if *weight == 1.0 && rest.is_empty() {
            return Ok((*first).clone());
        }
        let mut sum = first.affine(f64::from(*weight), 0.0)?;
        for (weight, x) in rest {
            sum = (sum + x.affine(f64::from(*weight), 0.0)?)?;
        }
        Ok(sum)
    }

    fn max_pool(&self, x: &Tensor, size: usize) -> Result<Tensor> {
        let s = shape(x)?;
        let (h, w) = match (s.h.checked_div(size), s.w.checked_div(size)) {
            (Some(h), Some(w)) if h > 0 && w > 0 && !s.is_empty() => (h, w),
            _ => return Err(mismatch("max_pool", format!("{s:?} by {size}"))),
        };
        // Whole windows; the largest row of each, then the largest column.
        let x = x.narrow(1, 0, h * size)?.narrow(2, 0, w * size)?;
        let rows = x.reshape((s.n * h, size, w * size * s.c))?.max(1)?;
        let pixels = rows.reshape((s.n * h * w, size, s.c))?.max(1)?;
        Ok(pixels.reshape((s.n, h, w, s.c))?)
    }

    fn patches(&self, x: &Tensor, size: usize) -> Result<Tensor> {
        let s = shape(x)?;
        let (h, w) = patch_counts(s, size)?;
        let windows = x.reshape((s.n, h, size, w, size * s.c))?.transpose(2, 3)?;
        Ok(windows.reshape((s.n, 1, h * w, size * size * s.c))?)
    }

    fn join(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let (sa, sb) = (shape(a)?, shape(b)?);
        if sa.h != 1 || (Shape { w: sb.w, ..sa }) != sb || sa.is_empty() || sb.is_empty() {
            return Err(mismatch("join", format!("{sa:?} and {sb:?}")));
        }
        Ok(Tensor::cat(&[a, b], 2)?)
    }

    fn tokens(&self, x: &Tensor, first: usize, count: usize) -> Result<Tensor> {
        check_run(shape(x)?, first, count)?;
        Ok(x.narrow(2, first, count)?.contiguous()?)
    }
}

/// Windows of `size × size` positions in a column and in a row of a map that holds whole ones.
fn patch_counts(s: Shape, size: usize) -> Result<(usize, usize)> {
    match (s.h.checked_div(size), s.w.checked_div(size)) {
        (Some(h), Some(w)) if h * size == s.h && w * size == s.w && !s.is_empty() => Ok((h, w)),
        _ => Err(mismatch("patches", format!("{s:?} by {size}"))),
    }
}

/// Whether a sequence of size `s` has `count` tokens from `first` on.
fn check_run(s: Shape, first: usize, count: usize) -> Result<()> {
    match first.checked_add(count) {
        Some(end) if s.h == 1 && count > 0 && end <= s.w && !s.is_empty() => Ok(()),
        _ => Err(mismatch("tokens", format!("{count} from {first} of {s:?}"))),
    }
}
