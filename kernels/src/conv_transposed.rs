//! The transpose of a convolution: what takes a cotangent of its result back to its input.
//!
//! For: reverse mode. Not for: networks with transposed convolutions of their own (no bias here).
//!
//! At stride 1 it is a convolution with the kernel turned by 180° and inputs and outputs exchanged. At a
//! larger one every position is multiplied with all places of the kernel, and every input adds up what
//! its places got: no more work than the convolution itself.

use std::sync::Arc;

use crate::arena::Arena;
use crate::conv::{Conv, Size, Window};
use crate::error::{Result, mismatch};
use crate::finish::Finish;
use crate::linear::linear;
use crate::memory::with_scratch;
use crate::pack::{Plain, Weights};
use crate::slices::by_rows;
use crate::winograd::Tiling;

/// A transposed convolution, packed for one path.
#[derive(Debug)]
pub struct ConvTransposed {
    back: Back,
    /// The window of the convolution whose transpose it is, and its channels in and out.
    window: Window,
    channels: (usize, usize),
}

#[derive(Debug)]
enum Back {
    /// A convolution back.
    Turned(Conv),
    /// From a position to `size² · inputs` numbers, place by place of the kernel.
    Apart(Weights),
}

impl Conv {
    /// The transpose, packed anew, in a buffer of `room` or of its own.
    ///
    /// Errors when there are more zeros around the map than the kernel reaches over.
    pub fn transposed(&self, room: Option<&Arc<Arena>>) -> Result<ConvTransposed> {
        let window = self.window;
        let (size, padding) = (window.size, window.padding);
        let around = |p: usize| (size - 1).checked_sub(p);
        let (Some(before), Some(after)) = (around(padding.0), around(padding.1)) else {
            let what = format!("padding {padding:?} of a kernel of {size}");
            return Err(mismatch("transposed", what));
        };
        let turned = Window {
            size,
            stride: 1,
            padding: (before, after),
        };
        let back = match window.stride {
            1 => Back::Turned(self.turned(turned, room)?),
            _ => Back::Apart(self.apart(room)?),
        };
        Ok(ConvTransposed {
            back,
            window,
            channels: self.channels(),
        })
    }

    fn turned(&self, window: Window, room: Option<&Arc<Arena>>) -> Result<Conv> {
        let (inputs, outputs) = self.channels();
        let tiling = self.tiling;
        let gathers = self.gathers || Conv::gathers(outputs, window);
        if tiling != Tiling::Direct || !gathers {
            return Conv::over(
                self.weights.exchanged(tiling, room)?,
                outputs,
                window,
                tiling,
            );
        }
        let last = window.size * window.size - 1;
        let number = |i: usize, tap: usize, o: usize| self.number(o, last - tap, i);
        let io = (outputs, inputs);
        Conv::assemble(self.weights.cpu, number, None, io, window, tiling)
    }

    fn apart(&self, room: Option<&Arc<Arena>>) -> Result<Weights> {
        let quick = (!self.gathers).then(|| self.weights.exchanged_apart(room));
        if let Some(weights) = quick.flatten() {
            return weights;
        }
        let (inputs, outputs) = self.channels();
        let plain = Plain {
            taps: 1,
            inputs: outputs,
            outputs: self.window.size * self.window.size * inputs,
            gated: false,
            numbers: |at: usize, o: usize, to: &mut [f32]| {
                to.fill(self.number(o, at / inputs, at % inputs));
            },
        };
        Weights::pack(self.weights.cpu, &plain, None)
    }
}

impl ConvTransposed {
    /// Takes `g`, of the size `from` of the convolution's result, back to the size `to` of its input.
    ///
    /// Errors when sizes do not fit.
    pub fn run(&self, g: &[f32], from: Size, to: Size, out: &mut [f32]) -> Result<()> {
        let size = self.window.size;
        let (inputs, outputs) = self.channels;
        let fits = (to.n, to.c, from.c) == (from.n, inputs, outputs)
            && self.window.output(to.h) == Some(from.h)
            && self.window.output(to.w) == Some(from.w)
            && from.len() == Some(g.len())
            && to.len() == Some(out.len())
            && !g.is_empty();
        if !fits {
            let what = format!("{} numbers of {from:?} back to {to:?}", g.len());
            return Err(mismatch("conv transposed", what));
        }
        let weights = match &self.back {
            Back::Turned(conv) => return conv.run(g, from, Finish::default(), out),
            Back::Apart(weights) => weights,
        };
        let each = size * size * inputs;
        let line = to.w * inputs;
        with_scratch(from.n * from.h * from.w * each, |scratch| -> Result<()> {
            linear(g, from.n, weights, Finish::default(), &mut *scratch)?;
            let parts: &[f32] = scratch;
            by_rows(out, line, |first, rows| {
                for (i, row) in rows.chunks_exact_mut(line).enumerate() {
                    row.fill(0.0);
                    let (n, y) = ((first + i) / to.h, (first + i) % to.h);
                    for dy in 0..size {
                        let Some(gy) = self.reached(y, dy, from.h) else {
                            continue;
                        };
                        let start = (n * from.h + gy) * from.w;
                        for (x, pixel) in row.chunks_exact_mut(inputs).enumerate() {
                            for dx in 0..size {
                                let Some(gx) = self.reached(x, dx, from.w) else {
                                    continue;
                                };
                                let at = (start + gx) * each + (dy * size + dx) * inputs;
                                let part = parts.get(at..at + inputs).unwrap_or_default();
                                pixel.iter_mut().zip(part).for_each(|(to, x)| *to += x);
                            }
                        }
                    }
                }
            });
            Ok(())
        })?
    }

    /// The position, of `count`, whose window has its place `d` on the input row or column `at`.
    fn reached(&self, at: usize, d: usize, count: usize) -> Option<usize> {
        let Window {
            stride, padding, ..
        } = self.window;
        let begin = (at + padding.0).checked_sub(d)?;
        let position = begin / stride;
        (begin.is_multiple_of(stride) && position < count).then_some(position)
    }
}
