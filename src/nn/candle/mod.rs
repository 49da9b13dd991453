//! [`Ops`] over candle's tensors on the CPU in f32: the reference for every faster backend.
//!
//! For: an independent second opinion, in tests and benchmarks, on values and derivatives. Not for: the
//! engine, candle's own gradients (what walks slices here is invisible to them) and other devices, which
//! are [`device`]'s.
//!
//! Values lie as `n × h × w × c`, so that a convolution is one matrix product over gathered rows
//! (`conv`), a linear layer is one without gathering, and tokens are maps. candle supplies storage
//! and the matrix product; the rest walks slices, in blocks whose borders depend on the shapes
//! alone, which keeps every result the same at any number of threads.

mod attention;
mod conv;
mod derivative;
pub mod device;
mod math;
mod norm;

use std::sync::Arc;

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Storage, Tensor};
use rayon::prelude::*;
use semblance_kernels::CpuPath;

use super::{Act, ConvSpec, LinearSpec, Mask, Ops, Plus, Shape, mismatch};
use crate::error::{Code, Error, Result};

/// Numbers below which work is not worth a second thread.
const PARALLEL_FROM: usize = 1 << 15;
/// Numbers that one task takes.
const BLOCK: usize = 1 << 13;

/// The backend; has no state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candle;

/// A linear layer: weights as `inputs × outputs`.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Vec<f32>,
    inputs: usize,
    outputs: usize,
}

pub use conv::Conv;
pub use device::OnDevice;
pub use norm::Norm;

/// What candle says, without the backtrace that it may add.
fn said(e: &candle_core::Error) -> String {
    e.to_string().lines().next().unwrap_or_default().to_owned()
}

impl From<candle_core::Error> for Error {
    fn from(e: candle_core::Error) -> Self {
        let what = format!("tensor operation: {}", said(&e));
        // What a driver says when a card is full has no kind of its own in candle.
        match what.to_ascii_lowercase().replace('_', " ") {
            words if words.contains("out of memory") => Error::new(Code::OutOfMemory, what)
                .with_hint("close what else uses the device, or unset SEMBLANCE_DEVICE"),
            _ => Error::new(Code::Internal, what),
        }
    }
}

/// A tensor of `shape` over `data`, which is not copied.
fn tensor(data: Vec<f32>, shape: Shape) -> Result<Tensor> {
    if data.len() != shape.len() {
        return Err(mismatch(
            "value",
            format!("{} numbers for {shape:?}", data.len()),
        ));
    }
    Ok(Tensor::from_vec(
        data,
        (shape.n, shape.h, shape.w, shape.c),
        &Device::Cpu,
    )?)
}

fn shape(x: &Tensor) -> Result<Shape> {
    let (n, h, w, c) = x.dims4()?;
    Ok(Shape { n, h, w, c })
}

/// Calls `f` with a tensor's numbers.
fn read<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = x.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(data)), Some((from, to))) => match data.get(from..to) {
            Some(data) => f(data),
            None => Err(mismatch("read", "layout outside its storage")),
        },
        _ => Err(mismatch("read", "not a contiguous f32 tensor on the CPU")),
    }
}

/// Calls `f(first row, rows)` for blocks of whole rows of `out`, side by side when that pays.
fn by_rows(out: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = (BLOCK / width.max(1)).max(1);
    let block = rows * width.max(1);
    if out.len() < PARALLEL_FROM {
        f(0, out);
    } else {
        out.par_chunks_mut(block)
            .enumerate()
            .for_each(|(i, chunk)| f(i * rows, chunk));
    }
}

/// Adds bias and residual to a product, in place.
struct Finish<'a> {
    bias: &'a [f32],
    residual: Option<&'a [f32]>,
    /// A vector per sample, and the rows of one sample.
    per_sample: Option<(&'a [f32], usize)>,
}

impl Finish<'_> {
    /// Finishes the rows of `out`, the first of which is row `first` of the whole.
    fn rows(&self, first: usize, out: &mut [f32]) {
        let c = self.bias.len();
        for (i, row) in out.chunks_exact_mut(c).enumerate() {
            let i = first + i;
            for (x, b) in row.iter_mut().zip(self.bias) {
                *x += b;
            }
            let plus = match (self.residual, self.per_sample) {
                (Some(residual), _) => residual.get(i * c..(i + 1) * c),
                (_, Some((vectors, rows))) => vectors.get(i / rows * c..(i / rows + 1) * c),
                _ => None,
            };
            for (x, p) in row.iter_mut().zip(plus.unwrap_or_default()) {
                *x += p;
            }
        }
    }
}

impl InplaceOp1 for Finish<'_> {
    fn name(&self) -> &'static str {
        "finish"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        match storage {
            CpuStorage::F32(out) => {
                by_rows(out, self.bias.len(), |first, out| self.rows(first, out))
            }
            _ => candle_core::bail!("finish: not f32"),
        }
        Ok(())
    }
}

/// Calls `f` with what finishes a product of shape `out`.
fn with_finish<R>(
    bias: &[f32],
    plus: &Plus<'_, Tensor>,
    out: Shape,
    f: impl FnOnce(Finish<'_>) -> Result<R>,
) -> Result<R> {
    let none = Finish {
        bias,
        residual: None,
        per_sample: None,
    };
    match plus {
        Plus::Nothing => f(none),
        Plus::Residual(r) if shape(r)? == out => read(r, |r| {
            f(Finish {
                residual: Some(r),
                ..none
            })
        }),
        Plus::PerSample(v) if shape(v)? == Shape::map(out.n, 1, 1, out.c) => read(v, |v| {
            f(Finish {
                per_sample: Some((v, out.rows_per_sample().max(1))),
                ..none
            })
        }),
        Plus::Residual(x) | Plus::PerSample(x) => {
            Err(mismatch("plus", format!("{:?} onto {out:?}", shape(x)?)))
        }
    }
}

impl Linear {
    fn forward(&self, x: &Tensor, bias: &[f32], plus: Plus<'_, Tensor>) -> Result<Tensor> {
        let (y, out) = self.product(x)?;
        with_finish(bias, &plus, out, |finish| Ok(y.inplace_op1(&finish)?))?;
        Ok(y.reshape((out.n, out.h, out.w, out.c))?)
    }

    /// The product without bias, `rows × outputs`.
    fn product(&self, x: &Tensor) -> Result<(Tensor, Shape)> {
        let s = shape(x)?;
        if s.c != self.inputs {
            return Err(mismatch(
                "linear",
                format!("{s:?} into {} inputs", self.inputs),
            ));
        }
        let y = x.reshape((s.rows(), s.c))?.matmul(&self.weight)?;
        Ok((
            y,
            Shape {
                c: self.outputs,
                ..s
            },
        ))
    }
}

/// A pointwise function of one value.
fn pointwise(x: &Tensor, f: impl Fn(&mut [f32]) + Sync) -> Result<Tensor> {
    let mut out = read(x, |x| Ok(x.to_vec()))?;
    by_rows(&mut out, 1, |_, out| f(out));
    tensor(out, shape(x)?)
}

impl Ops for Candle {
    type Tensor = Tensor;
    type Conv = Arc<Conv>;
    type Linear = Arc<Linear>;
    type Norm = Arc<Norm>;

    fn name(&self) -> String {
        // candle's matrix product takes AVX2 and FMA where it finds them and nothing above.
        format!("candle-{}", CpuPath::best().min(CpuPath::Avx2))
    }

    fn make_conv(&self, spec: ConvSpec<'_>) -> Result<Arc<Conv>> {
        Conv::new(spec).map(Arc::new)
    }

    fn make_linear(&self, spec: LinearSpec<'_>) -> Result<Arc<Linear>> {
        let (i, o) = (spec.inputs, spec.outputs);
        if spec.weight.len() != i * o || spec.bias.is_some_and(|b| b.len() != o) {
            return Err(mismatch("linear", format!("weights do not fit {i} → {o}")));
        }
        let mut weight = vec![0.0; i * o];
        super::transpose(spec.weight, &mut weight, o, i);
        Ok(Arc::new(Linear {
            weight: Tensor::from_vec(weight, (i, o), &Device::Cpu)?,
            bias: spec.bias.map_or_else(|| vec![0.0; o], <[f32]>::to_vec),
            inputs: i,
            outputs: o,
        }))
    }

    fn make_norm(&self, scale: &[f32], shift: &[f32], eps: f32) -> Result<Arc<Norm>> {
        Norm::new(scale, shift, eps).map(Arc::new)
    }

    fn value(&self, data: impl AsRef<[f32]> + Into<Vec<f32>>, shape: Shape) -> Result<Tensor> {
        tensor(data.into(), shape)
    }

    fn numbers(&self, x: &Tensor) -> Result<Vec<f32>> {
        read(x, |x| Ok(x.to_vec()))
    }

    fn shape(&self, x: &Tensor) -> Result<Shape> {
        shape(x)
    }

    fn conv(&self, x: &Tensor, w: &Arc<Conv>, plus: Plus<'_, Tensor>) -> Result<Tensor> {
        w.forward(x, &w.bias, plus)
    }

    fn linear(&self, x: &Tensor, w: &Arc<Linear>, plus: Plus<'_, Tensor>) -> Result<Tensor> {
        w.forward(x, &w.bias, plus)
    }

    fn geglu(&self, x: &Tensor, w: &Arc<Linear>) -> Result<Tensor> {
        let (y, wide) = w.product(x)?;
        let c = wide.c / 2;
        let (bias_a, bias_b) = w.bias.split_at(c);
        let out = read(&y, |y| {
            let mut out = vec![0.0; wide.rows() * c];
            by_rows(&mut out, c, |first, out| {
                let rows = y.chunks_exact(2 * c).skip(first);
                for (out, row) in out.chunks_exact_mut(c).zip(rows) {
                    let (a, b) = row.split_at(c);
                    let pairs = a.iter().zip(bias_a).zip(b.iter().zip(bias_b));
                    for (out, ((a, ba), (b, bb))) in out.iter_mut().zip(pairs) {
                        *out = (a + ba) * math::gelu(b + bb);
                    }
                }
            });
            Ok(out)
        })?;
        tensor(out, Shape { c, ..wide })
    }

    fn group_norm(&self, x: &Tensor, w: &Arc<Norm>, groups: usize, act: Act) -> Result<Tensor> {
        w.group(x, groups, act)
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
        attention::attention(q, k, v, heads, mask)
    }

    fn act(&self, x: &Tensor, act: Act) -> Result<Tensor> {
        pointwise(x, |x| math::apply(act, x))
    }

    fn upsample(&self, x: &Tensor, h: usize, w: usize) -> Result<Tensor> {
        let s = shape(x)?;
        if s.is_empty() || h == 0 || w == 0 {
            return Err(mismatch("upsample", format!("{s:?} to {h} × {w}")));
        }
        let out = read(x, |x| {
            let mut out = vec![0.0; s.n * h * w * s.c];
            by_rows(&mut out, w * s.c, |first, out| {
                for (i, row) in out.chunks_exact_mut(w * s.c).enumerate() {
                    let (n, y) = ((first + i) / h, (first + i) % h);
                    let from = (n * s.h + y * s.h / h) * s.w * s.c;
                    let line = x.get(from..from + s.w * s.c).unwrap_or_default();
                    for (j, out) in row.chunks_exact_mut(s.c).enumerate() {
                        let from = j * s.w / w * s.c;
                        if let Some(pixel) = line.get(from..from + s.c) {
                            out.copy_from_slice(pixel);
                        }
                    }
                }
            });
            Ok(out)
        })?;
        tensor(out, Shape { h, w, ..s })
    }

    fn concat(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let (sa, sb) = (shape(a)?, shape(b)?);
        if (Shape { c: sb.c, ..sa }) != sb {
            return Err(mismatch("concat", format!("{sa:?} and {sb:?}")));
        }
        let c = sa.c + sb.c;
        let out = read(a, |a| {
            read(b, |b| {
                let mut out = vec![0.0; sa.rows() * c];
                by_rows(&mut out, c, |first, out| {
                    let rows = a.chunks_exact(sa.c).zip(b.chunks_exact(sb.c)).skip(first);
                    for (out, (a, b)) in out.chunks_exact_mut(c).zip(rows) {
                        let (left, right) = out.split_at_mut(sa.c);
                        left.copy_from_slice(a);
                        right.copy_from_slice(b);
                    }
                });
                Ok(out)
            })
        })?;
        tensor(out, Shape { c, ..sa })
    }

    fn stack(&self, parts: &[&Tensor]) -> Result<Tensor> {
        match parts {
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
        let s = shape(first)?;
        let mut out = read(first, |x| {
            Ok(x.iter().map(|x| weight * x).collect::<Vec<_>>())
        })?;
        for (weight, x) in rest {
            if shape(x)? != s {
                return Err(mismatch("combine", format!("{s:?} and {:?}", shape(x)?)));
            }
            read(x, |x| {
                out.iter_mut()
                    .zip(x)
                    .for_each(|(out, x)| *out += weight * x);
                Ok(())
            })?;
        }
        tensor(out, s)
    }
}
