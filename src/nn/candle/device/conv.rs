//! Convolution and its transpose, both as candle's convolution, in bands of rows that bound what it gathers.

use candle_core::{Device, Tensor};

use super::{shape, taken};
use crate::error::Result;
use crate::nn::{ConvSpec, Shape, mismatch};

/// Numbers that are gathered at one time, 1 GiB of them: candle puts the windows of the whole map side by
/// side on a card, nine numbers for one.
const GATHERED: usize = 1 << 28;

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

/// Windows of a map: output (i, j) sees rows from i · stride − before on, and columns from j · stride − before.
struct Windows {
    stride: usize,
    before: isize,
    /// Rows and columns of the result.
    to: (usize, usize),
}

impl Windows {
    /// `x`, a map among zeros, convolved with `weight`; channels are last in both values. At most `most`
    /// numbers are gathered at one time, or one row of the result.
    fn convolve(&self, x: &Tensor, weight: &Tensor, most: usize) -> Result<Tensor> {
        let (outputs, inputs, size, _) = weight.dims4()?;
        let (n, _, height, width) = x.dims4()?;
        let (h, w) = self.to;
        let rows = (most / (n * w * size * size * inputs).max(1)).clamp(1, h.max(1));
        if let (Ok(padding), true) = (usize::try_from(self.before), rows == h) {
            let whole = |length: usize, to: usize| {
                let room = (length + 2 * padding).checked_sub(size);
                room.is_some_and(|room| room / self.stride + 1 == to)
            };
            if whole(height, h) && whole(width, w) {
                return pixels(&x.conv2d(weight, padding, self.stride, 1, 1)?);
            }
        }
        let reach = |count: usize| (count - 1) * self.stride + size;
        let x = window(x, 3, -self.before, reach(w))?;
        let mut bands = Vec::new();
        for first in (0..h).step_by(rows) {
            let count = rows.min(h - first);
            let from = (first * self.stride) as isize - self.before;
            let band = window(&x, 2, from, reach(count))?;
            bands.push(pixels(&band.conv2d(weight, 0, self.stride, 1, 1)?)?);
        }
        Ok(Tensor::cat(&bands, 1)?.reshape((n, h, w, outputs))?)
    }
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
        self.product_by(x, GATHERED)
    }

    fn product_by(&self, x: &Tensor, most: usize) -> Result<Tensor> {
        let s = shape(x)?;
        let (outputs, inputs, size, _) = self.weight.dims4()?;
        let (Some(h), Some(w), true) = (
            self.output(s.h)?,
            self.output(s.w)?,
            s.c == inputs && !s.is_empty(),
        ) else {
            let what = format!("{s:?} into {inputs} inputs, kernel {size}");
            return Err(mismatch("conv", what));
        };
        if size == 1 && self.stride == 1 && self.padding == (0, 0) {
            let weight = self.weight.reshape((outputs, inputs))?.t()?;
            let y = x.reshape((s.rows(), s.c))?.matmul(&weight)?;
            return Ok(y.reshape((s.n, s.h, s.w, outputs))?);
        }
        let windows = Windows {
            stride: self.stride,
            before: self.padding.0 as isize,
            to: (h, w),
        };
        windows.convolve(&planes(x)?, &self.weight, most)
    }

    /// The transpose of [`Conv::product`], onto a map of size `from`: the cotangent spread apart by the
    /// stride and convolved with the kernel turned around.
    pub(super) fn back(&self, g: &Tensor, from: Shape) -> Result<Tensor> {
        self.back_by(g, from, GATHERED)
    }

    fn back_by(&self, g: &Tensor, from: Shape, most: usize) -> Result<Tensor> {
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
        let windows = Windows {
            stride: 1,
            before: size as isize - 1 - self.padding.0 as isize,
            to: (from.h, from.w),
        };
        windows.convolve(&spread(&planes(g)?, self.stride)?, &weight, most)
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

    #[test]
    fn bands_of_rows_change_nothing_but_rounding_both_ways() {
        let wave = |count: usize, f: f32| -> Vec<f32> {
            (0..count).map(|i| (i as f32 * f).sin()).collect()
        };
        let near = |a: Result<Tensor>, b: Result<Tensor>| {
            let apart = (a.unwrap() - b.unwrap()).unwrap().abs().unwrap();
            assert!(apart.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-5);
        };
        for (size, stride, padding) in [
            (3, 1, (1, 1)),
            (3, 2, (0, 1)),
            (3, 2, (1, 1)),
            (2, 2, (0, 0)),
            (1, 1, (1, 2)),
            (5, 3, (4, 0)),
        ] {
            let spec = ConvSpec {
                kernel: &wave(4 * 3 * size * size, 1.7),
                bias: &wave(4, 0.9),
                inputs: 3,
                outputs: 4,
                size,
                stride,
                padding,
                map: None,
            };
            let w = Conv::new(&Device::Cpu, spec).unwrap();
            let s = Shape::map(2, 9, 8, 3);
            let x = Tensor::from_vec(wave(s.len(), 0.37), (2, 9, 8, 3), &Device::Cpu).unwrap();
            let whole = w.product(&x).unwrap();
            let g = whole.affine(0.5, 0.1).unwrap();
            for most in [0, 2 * 8 * size * size * 4 * 2] {
                near(w.product_by(&x, most), Ok(whole.clone()));
                near(w.back_by(&g, s, most), w.back(&g, s));
            }
        }
    }
}
