//! Convolution and its transpose, both as candle's convolution.

use candle_core::{Device, Tensor};

use super::{shape, taken};
use crate::error::Result;
use crate::nn::{ConvSpec, Shape, mismatch};

/// A convolution: weights as `outputs × inputs × size × size`.
#[derive(Debug)]
pub struct Conv {
    weight: Tensor,
    bias: Tensor,
    stride: usize,
    padding: (usize, usize),
}

/// `length` entries of dimension `dim` from `first` on, of a map among zeros.
fn window(x: &Tensor, dim: usize, first: isize, length: usize) -> Result<Tensor> {
    let whole = x.dim(dim)?;
    let before = first.min(0).unsigned_abs().min(length);
    let from = first.max(0).unsigned_abs().min(whole);
    let inside = (length - before).min(whole - from);
    if inside == 0 {
        let mut dims = x.dims().to_vec();
        dims.iter_mut().skip(dim).take(1).for_each(|d| *d = length);
        return Ok(Tensor::zeros(dims, x.dtype(), x.device())?);
    }
    let x = x.narrow(dim, from, inside)?;
    Ok(x.pad_with_zeros(dim, before, length - before - inside)?)
}

/// Puts `stride − 1` zeros after every entry of both sides of `n × c × h × w`.
fn spread(x: &Tensor, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(x.clone());
    }
    let (n, c, h, w) = x.dims4()?;
    let x = x.reshape((n * c * h, 1, w, 1))?;
    let x = (x.pad_with_zeros(3, 0, stride - 1)?).pad_with_zeros(1, 0, stride - 1)?;
    Ok(x.reshape((n, c, h * stride, w * stride))?)
}

/// Channels to the front of each sample.
fn planes(x: &Tensor) -> Result<Tensor> {
    Ok(x.permute((0, 3, 1, 2))?.contiguous()?)
}

/// Channels to the back again.
fn pixels(x: &Tensor) -> Result<Tensor> {
    Ok(x.permute((0, 2, 3, 1))?.contiguous()?)
}

impl Conv {
    pub(super) fn new(device: &Device, spec: ConvSpec<'_>) -> Result<Self> {
        let (i, o, size) = (spec.inputs, spec.outputs, spec.size);
        let fits = spec.kernel.len() == i * o * size * size && spec.bias.len() == o;
        if !fits || spec.kernel.is_empty() || spec.stride == 0 {
            return Err(mismatch("conv", format!("weights do not fit {i} → {o}")));
        }
        Ok(Conv {
            weight: Tensor::from_slice(spec.kernel, (o, i, size, size), device)?,
            bias: Tensor::new(spec.bias, device)?,
            stride: spec.stride,
            padding: spec.padding,
        })
    }

    /// Rows (or columns) of the result for `length` ones.
    fn output(&self, length: usize) -> Result<Option<usize>> {
        let padded = length + self.padding.0 + self.padding.1;
        let room = padded.checked_sub(self.weight.dim(3)?);
        Ok(room.map(|room| room / self.stride + 1))
    }

    /// The convolution, bias added.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.product(x)?.broadcast_add(&self.bias)?)
    }

    /// The convolution alone.
    pub(super) fn product(&self, x: &Tensor) -> Result<Tensor> {
        let s = shape(x)?;
        let (outputs, inputs, size, _) = self.weight.dims4()?;
        let (h, w) = (self.output(s.h)?, self.output(s.w)?);
        if s.c != inputs || s.is_empty() || h.is_none() || w.is_none() {
            let what = format!("{s:?} into {inputs} inputs, kernel {size}");
            return Err(mismatch("conv", what));
        }
        if size == 1 && self.stride == 1 && self.padding == (0, 0) {
            let weight = self.weight.reshape((outputs, inputs))?.t()?;
            let y = x.reshape((s.rows(), s.c))?.matmul(&weight)?;
            return Ok(y.reshape((s.n, s.h, s.w, outputs))?);
        }
        let (before, after) = self.padding;
        let x = planes(x)?;
        // candle pads both sides alike.
        let (x, padding) = match before == after {
            true => (x, before),
            false => {
                let x = x.pad_with_zeros(2, before, after)?;
                (x.pad_with_zeros(3, before, after)?, 0)
            }
        };
        pixels(&x.conv2d(&self.weight, padding, self.stride, 1, 1)?)
    }

    /// The transpose of [`Conv::product`], onto a map of size `from`: the cotangent spread apart by the
    /// stride and convolved with the kernel turned around.
    pub(super) fn back(&self, g: &Tensor, from: Shape) -> Result<Tensor> {
        let to = shape(g)?;
        let (outputs, inputs, size, _) = self.weight.dims4()?;
        let fits = self.output(from.h)? == Some(to.h) && self.output(from.w)? == Some(to.w);
        let fits = fits && from.n == to.n && from.c == inputs && to.c == outputs;
        if !fits || from.is_empty() || to.is_empty() {
            return Err(mismatch("conv", format!("{to:?} back to {from:?}")));
        }
        let turned: Vec<u32> = (0..size as u32).rev().collect();
        let weight = self.weight.transpose(0, 1)?;
        let weight = taken(&taken(&weight, turned.clone(), 2)?, turned, 3)?;
        let g = spread(&planes(g)?, self.stride)?;
        let first = self.padding.0 as isize - (size as isize - 1);
        let g = window(&g, 2, first, from.h + size - 1)?;
        let g = window(&g, 3, first, from.w + size - 1)?;
        pixels(&g.conv2d(&weight, 0, 1, 1, 1)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_window_shows_what_is_there_and_zeros_around_it() {
        let x = Tensor::new(&[1.0_f32, 2.0, 3.0], &Device::Cpu).unwrap();
        let of = |first, length| -> Vec<f32> {
            let window = window(&x, 0, first, length).unwrap();
            window.to_vec1().unwrap()
        };
        assert_eq!(of(-2, 6), [0.0, 0.0, 1.0, 2.0, 3.0, 0.0]);
        assert_eq!(of(1, 1), [2.0]);
        assert_eq!(of(2, 3), [3.0, 0.0, 0.0]);
        assert_eq!(of(-4, 2), [0.0, 0.0]);
        assert_eq!(of(5, 2), [0.0, 0.0]);
    }
}
