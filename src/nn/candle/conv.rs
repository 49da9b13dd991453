//! Convolution as a matrix product over gathered rows.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::{by_rows, read, shape, tensor, with_finish};
use crate::error::Result;
use crate::nn::{ConvSpec, Plus, Shape, mismatch, transpose_to};

/// Numbers that are gathered at once: small enough to stay in a core's own cache, large enough that
/// the matrix product packs its weights seldom.
const TILE: usize = 1 << 18;

/// A convolution: weights as `(size · size · inputs) × outputs`.
#[derive(Debug)]
pub struct Conv {
    pub(super) weight: Tensor,
    pub(super) bias: Vec<f32>,
    pub(super) inputs: usize,
    pub(super) size: usize,
    pub(super) stride: usize,
    pub(super) padding: (usize, usize),
}

/// Where the windows lie.
struct Windows<'a> {
    x: &'a [f32],
    from: Shape,
    to: Shape,
    size: usize,
    stride: usize,
    pad: usize,
}

impl Windows<'_> {
    /// Numbers in one window.
    fn width(&self) -> usize {
        self.size * self.size * self.from.c
    }

    /// Gathers the windows of the output positions from `first` on; `out` is zero before.
    fn gather(&self, first: usize, out: &mut [f32]) {
        let (s, c) = (self.from, self.from.c);
        for (i, window) in out.chunks_exact_mut(self.width()).enumerate() {
            let i = first + i;
            let (n, rest) = (i / self.to.rows_per_sample(), i % self.to.rows_per_sample());
            let (y, x) = (
                rest / self.to.w * self.stride,
                rest % self.to.w * self.stride,
            );
            // Columns of the window that lie inside the map, counted from the window's left.
            let left = self.pad.saturating_sub(x);
            let right = self.size.min((s.w + self.pad).saturating_sub(x));
            if right <= left {
                continue;
            }
            for (dy, line) in window.chunks_exact_mut(self.size * c).enumerate() {
                let Some(row) = (y + dy).checked_sub(self.pad).filter(|row| *row < s.h) else {
                    continue;
                };
                let from = ((n * s.h + row) * s.w + x + left - self.pad) * c;
                let source = self.x.get(from..from + (right - left) * c);
                if let (Some(source), Some(to)) = (source, line.get_mut(left * c..right * c)) {
                    to.copy_from_slice(source);
                }
            }
        }
    }
}

impl Conv {
    pub(super) fn new(spec: ConvSpec<'_>) -> Result<Self> {
        let (i, o, area) = (spec.inputs, spec.outputs, spec.size * spec.size);
        if spec.kernel.len() != i * o * area
            || spec.bias.len() != o
            || spec.stride == 0
            || i * area == 0
        {
            return Err(mismatch("conv", format!("weights do not fit {i} → {o}")));
        }
        // outputs × inputs × area to area × inputs × outputs.
        let mut weight = vec![0.0; spec.kernel.len()];
        let place = |column: usize| column % area * i + column / area;
        transpose_to(spec.kernel, &mut weight, o, i * area, place);
        Ok(Conv {
            weight: Tensor::from_vec(weight, (area * i, o), &Device::Cpu)?,
            bias: spec.bias.to_vec(),
            inputs: i,
            size: spec.size,
            stride: spec.stride,
            padding: spec.padding,
        })
    }

    pub(super) fn forward(
        &self,
        x: &Tensor,
        bias: &[f32],
        plus: Plus<'_, Tensor>,
    ) -> Result<Tensor> {
        let from = shape(x)?;
        let length = |l: usize| {
            let padded = l + self.padding.0 + self.padding.1;
            padded.checked_sub(self.size).map(|l| l / self.stride + 1)
        };
        let (Some(h), Some(w), true) = (length(from.h), length(from.w), from.c == self.inputs)
        else {
            return Err(mismatch(
                "conv",
                format!("{from:?} into {} inputs, kernel {}", self.inputs, self.size),
            ));
        };
        let c = self.bias.len();
        let to = Shape::map(from.n, h, w, c);
        let done = |y: Tensor| Ok(y.reshape((to.n, to.h, to.w, to.c))?);
        with_finish(bias, &plus, to, |finish| {
            if self.size == 1 && self.stride == 1 && self.padding == (0, 0) {
                let y = x.reshape((from.rows(), from.c))?.matmul(&self.weight)?;
                y.inplace_op1(&finish)?;
                return done(y);
            }
            read(x, |x| {
                let windows = Windows {
                    x,
                    from,
                    to,
                    size: self.size,
                    stride: self.stride,
                    pad: self.padding.0,
                };
                let width = windows.width();
                let product = |rows: Vec<f32>| -> Result<Tensor> {
                    let m = rows.len() / width;
                    Ok(Tensor::from_vec(rows, (m, width), &Device::Cpu)?.matmul(&self.weight)?)
                };
                let tile = (TILE / width).max(64);
                if to.rows() <= tile {
                    let mut rows = vec![0.0; to.rows() * width];
                    by_rows(&mut rows, width, |first, rows| windows.gather(first, rows));
                    let y = product(rows)?;
                    y.inplace_op1(&finish)?;
                    return done(y);
                }
                let mut out = vec![0.0; to.len()];
                out.par_chunks_mut(tile * c)
                    .enumerate()
                    .try_for_each(|(i, out)| {
                        let mut rows = vec![0.0; out.len() / c * width];
                        windows.gather(i * tile, &mut rows);
                        read(&product(rows)?, |y| {
                            out.copy_from_slice(y);
                            finish.rows(i * tile, out);
                            Ok(())
                        })
                    })?;
                tensor(out, to)
            })
        })
    }
}
