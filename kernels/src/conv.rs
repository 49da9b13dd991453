//! Convolution of maps that lie as `n × h × w × c`.
//!
//! For: any square kernel, stride and padding, as a product whose rows are windows: a pointer for
//! each place of the kernel, to a row of zeros outside the map; or, where that is faster, by tiles
//! (`winograd`). Not for: groups and dilation, which none of our networks has.

use crate::conv_maps;
use crate::error::{Result, mismatch};
use crate::finish::{Finish, Plus};
use crate::isa::{Cpu, Micro, Precision};
use crate::linear::{check, linear};
use crate::memory::Buffer;
use crate::pack::{Plain, Weights};
use crate::product::{Rows, product, rounded};
use crate::values::{Input, Output};
use crate::winograd::{Tiled, Tiling};

/// The size of a value: samples, rows, columns, channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Samples.
    pub n: usize,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels.
    pub c: usize,
}

impl Size {
    /// How many numbers, if that is a number.
    pub fn len(&self) -> Option<usize> {
        self.positions()?.checked_mul(self.c)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    fn positions(&self) -> Option<usize> {
        self.n.checked_mul(self.h)?.checked_mul(self.w)
    }
}

/// Below so many channels windows are gathered: a pointer would lead to too little.
const GATHER_BELOW: usize = 8;

/// A convolution's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height and width of the kernel.
    pub size: usize,
    /// Distance between neighbouring windows.
    pub stride: usize,
    /// Zeros before (top, left) and after (bottom, right).
    pub padding: (usize, usize),
}

impl Window {
    /// Output rows (or columns) of `length` input ones; `None` when the kernel does not fit.
    pub fn output(&self, length: usize) -> Option<usize> {
        let padded = length
            .checked_add(self.padding.0)?
            .checked_add(self.padding.1)?;
        Some(padded.checked_sub(self.size)?.checked_div(self.stride)? + 1)
    }
}

/// A convolution's frozen weights, packed for one path.
#[derive(Debug)]
pub struct Conv {
    pub(crate) weights: Weights,
    pub(crate) inputs: usize,
    pub(crate) window: Window,
    pub(crate) gathers: bool,
    pub(crate) tiling: Tiling,
    pub(crate) zeros: Buffer,
}

impl Conv {
    /// A convolution that is computed directly. `kernel` is `outputs × inputs × size × size`, `bias` one
    /// per output.
    ///
    /// Errors when lengths do not fit or a side is 0.
    pub fn new(
        cpu: Cpu,
        kernel: &[f32],
        bias: &[f32],
        inputs: usize,
        outputs: usize,
        window: Window,
    ) -> Result<Conv> {
        Self::tiled(cpu, kernel, bias, (inputs, outputs), window, Tiling::Direct)
    }

    /// As [`Conv::new`], computed as `tiling` says, of any map; [`Tiling::choose`] knows what is fast.
    ///
    /// Errors also for tiles of anything but a 3 × 3 kernel at stride 1.
    pub fn tiled(
        cpu: Cpu,
        kernel: &[f32],
        bias: &[f32],
        (inputs, outputs): (usize, usize),
        window: Window,
        tiling: Tiling,
    ) -> Result<Conv> {
        let area = window.size.saturating_mul(window.size);
        let len = inputs
            .checked_mul(area)
            .and_then(|l| l.checked_mul(outputs));
        if len != Some(kernel.len()) || kernel.is_empty() || bias.len() != outputs {
            let what = format!(
                "{} weights and {} biases for {inputs} → {outputs}, kernel {}",
                kernel.len(),
                bias.len(),
                window.size
            );
            return Err(mismatch("conv", what));
        }
        if window.stride == 0 {
            return Err(mismatch("conv", "stride 0"));
        }
        if !tiling.fits(window) {
            let what = format!("tiles of a kernel of {} at {}", window.size, window.stride);
            return Err(mismatch("conv", what));
        }
        let number = |o: usize, tap: usize, i: usize| {
            let at = (o * inputs + i) * area + tap;
            kernel.get(at).copied().unwrap_or_default()
        };
        Self::assemble(cpu, number, Some(bias), (inputs, outputs), window, tiling)
    }

    /// A convolution whose weights are given by (output, place in the kernel, input).
    pub(crate) fn assemble(
        cpu: Cpu,
        number: impl Fn(usize, usize, usize) -> f32 + Sync,
        bias: Option<&[f32]>,
        (inputs, outputs): (usize, usize),
        window: Window,
        tiling: Tiling,
    ) -> Result<Conv> {
        let area = window.size * window.size;
        let weights = if tiling != Tiling::Direct {
            tiling.pack(cpu, number, bias, (inputs, outputs))?
        } else if Self::gathers(inputs, window) {
            let plain = Plain {
                taps: 1,
                inputs: inputs * area,
                outputs,
                gated: false,
                numbers: |o: usize, k: usize, to: &mut [f32]| {
                    to.fill(number(o, k / inputs, k % inputs));
                },
            };
            Weights::pack(cpu, &plain, bias)?.halved()?
        } else {
            let plain = Plain {
                taps: area,
                inputs,
                outputs,
                gated: false,
                numbers: |o: usize, i: usize, to: &mut [f32]| {
                    let taps = to.iter_mut().enumerate();
                    taps.for_each(|(tap, to)| *to = number(o, tap, i));
                },
            };
            Weights::pack(cpu, &plain, bias)?.halved()?
        };
        Self::over(weights, inputs, window, tiling)
    }

    pub(crate) fn gathers(inputs: usize, window: Window) -> bool {
        inputs < GATHER_BELOW && window.size > 1
    }

    pub(crate) fn over(
        weights: Weights,
        inputs: usize,
        window: Window,
        tiling: Tiling,
    ) -> Result<Conv> {
        Ok(Conv {
            zeros: Buffer::zeros(weights.padded)?,
            weights,
            inputs,
            window,
            gathers: tiling == Tiling::Direct && Self::gathers(inputs, window),
            tiling,
        })
    }

    /// The same convolution without bias, which is what a tangent goes through; the packed numbers are
    /// shared.
    pub fn without_bias(&self) -> Result<Conv> {
        let weights = self.weights.without_bias()?;
        Self::over(weights, self.inputs, self.window, self.tiling)
    }

    /// The weight, as rounded, of input `i` at place `tap` of the kernel for output `o`, of a
    /// convolution that is not tiled.
    pub(crate) fn number(&self, o: usize, tap: usize, i: usize) -> f32 {
        match self.gathers {
            true => self.weights.number(o, 0, tap * self.inputs + i),
            false => self.weights.number(o, tap, i),
        }
    }

    /// How it is computed.
    pub fn tiling(&self) -> Tiling {
        self.tiling
    }

    /// Channels in and out.
    pub(crate) fn channels(&self) -> (usize, usize) {
        (self.inputs, self.weights.outputs())
    }

    /// The size of the result for an input of size `from`; `None` when it does not fit.
    pub fn output(&self, from: Size) -> Option<Size> {
        (from.c == self.inputs).then_some(Size {
            n: from.n,
            h: self.window.output(from.h)?,
            w: self.window.output(from.w)?,
            c: self.weights.outputs(),
        })
    }

    /// Bytes of packed weights.
    pub fn bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Convolves `x` of size `from` into `out` of size [`Conv::output`].
    ///
    /// Errors when sizes do not fit, and for rounded numbers where [`Conv::takes_rounded`] says no.
    pub fn run<'a>(
        &self,
        x: impl Into<Input<'a>>,
        from: Size,
        finish: Finish<'_>,
        out: impl Into<Output<'a>>,
    ) -> Result<()> {
        let (x, out) = (x.into(), out.into());
        let to = self.output(from).filter(|to| {
            from.len() == Some(x.len()) && to.len() == Some(out.len()) && !x.is_empty()
        });
        let Some(to) = to else {
            let what = format!(
                "{from:?} into {} inputs, kernel {}, {} numbers out",
                self.inputs,
                self.window.size,
                out.len()
            );
            return Err(mismatch("conv", what));
        };
        let w = &self.weights;
        if self.window.size == 1 && self.window.stride == 1 && self.window.padding == (0, 0) {
            return linear(x, from.n, w, finish, out);
        }
        check(&finish, to.n, to.c, out.len())?;
        let reads = matches!(x, Input::Plain(_)) || self.takes_rounded();
        if !reads || matches!(out, Output::Rounded(_)) && !self.gives_rounded() {
            return Err(mismatch("conv", "rounded numbers, which it does not take"));
        }
        if self.tiling != Tiling::Direct {
            let tiled = Tiled {
                tiling: self.tiling,
                w,
                zeros: &self.zeros,
                before: self.window.padding.0,
            };
            let rounded = matches!(finish.plus, Plus::Residual(Input::Rounded(_)));
            let (Input::Plain(x), Output::Plain(out), false) = (x, out, rounded) else {
                return Err(mismatch("conv", "rounded numbers by tiles"));
            };
            return tiled.run((x, from), finish, (out, to));
        }
        if self.even() {
            return conv_maps::run(self, (x, from), finish, (out, to));
        }
        let per_sample = to.h * to.w;
        let rows = to.n * per_sample;
        let plain = match x {
            Input::Plain(x) => x,
            Input::Rounded(_) => &[],
        };
        let windows = |at: *const u8| Windows {
            conv: self,
            x: plain,
            at,
            from,
            to,
        };
        match (w.precision, self.gathers) {
            (Precision::F32, _) | (_, true) => {
                let windows = windows(plain.as_ptr().cast());
                product(&windows, rows, w, finish, per_sample, out)
            }
            (Precision::Bf16, false) => rounded(w.cpu, x, from.c, w.padded, |at| {
                product(&windows(at), rows, w, finish, per_sample, out)
            }),
        }
    }

    /// Whether it reads numbers that are rounded.
    pub fn takes_rounded(&self) -> bool {
        self.tiling == Tiling::Direct && !self.gathers && self.weights.cpu.rounds(self.inputs)
    }

    /// Whether it writes numbers that are rounded.
    pub fn gives_rounded(&self) -> bool {
        self.tiling == Tiling::Direct && self.weights.cpu.rounds(self.weights.outputs())
    }

    /// Whether its windows are made to lie evenly first.
    fn even(&self) -> bool {
        let w = &self.weights;
        w.precision == Precision::Bf16 && !self.gathers && w.cpu.geometry(w.precision).even
    }
}

/// The windows of a map.
struct Windows<'a> {
    conv: &'a Conv,
    x: &'a [f32],
    /// The map's numbers in the weights' precision, every position padded.
    at: *const u8,
    from: Size,
    to: Size,
}

// SAFETY: it only reads what its maker borrows.
unsafe impl Sync for Windows<'_> {}

impl Windows<'_> {
    /// Calls `f(i, tap, place)` for the windows of the output rows `first..first + count`: the input
    /// position that each place of the kernel lies on, `None` outside the map.
    #[inline(always)]
    fn places(&self, first: usize, count: usize, mut f: impl FnMut(usize, usize, Option<usize>)) {
        let Window {
            size,
            stride,
            padding,
        } = self.conv.window;
        let (from, to) = (self.from, self.to);
        let before = padding.0;
        let sample = to.h * to.w;
        let (mut n, rest) = (first / sample, first % sample);
        let (mut oy, mut ox) = (rest / to.w, rest % to.w);
        for i in 0..count {
            // Where the window begins, counted from the padding's corner.
            let (y, x) = (oy * stride, ox * stride);
            let inside = |at: usize, length: usize| at >= before && at + size <= length + before;
            if inside(y, from.h) && inside(x, from.w) {
                let corner = (n * from.h + y - before) * from.w + x - before;
                for dy in 0..size {
                    for dx in 0..size {
                        f(i, dy * size + dx, Some(corner + dy * from.w + dx));
                    }
                }
            } else {
                for dy in 0..size {
                    let line = (y + dy).checked_sub(before).filter(|l| *l < from.h);
                    let line = line.map(|l| (n * from.h + l) * from.w);
                    for dx in 0..size {
                        let column = (x + dx).checked_sub(before);
                        let column = column.filter(|c| *c < from.w);
                        let place = line.and_then(|l| Some(l + column?));
                        f(i, dy * size + dx, place);
                    }
                }
            }
            ox += 1;
            if ox == to.w {
                (ox, oy) = (0, oy + 1);
                if oy == to.h {
                    (oy, n) = (0, n + 1);
                }
            }
        }
    }

    /// Gathers rows into `scratch`, which then holds them as a linear layer's inputs.
    #[inline(always)]
    fn gather<M: Micro>(
        &self,
        first: usize,
        count: usize,
        scratch: &mut [f32],
        put: &mut impl FnMut(usize, usize, *const u8),
    ) {
        let w = &self.conv.weights;
        let len = w.inputs;
        // Places of a row; rounded, two numbers lie in one.
        let places = w.padded * w.precision.bytes() / 4;
        let (room, scratch) = scratch.split_at_mut(w.padded.min(scratch.len()));
        room.fill(0.0);
        for (i, row) in scratch.chunks_exact_mut(places).take(count).enumerate() {
            match w.precision {
                Precision::Bf16 => {
                    self.window(first + i, room.get_mut(..len).unwrap_or_default());
                    // All of it: loops over whole steps are vectors.
                    M::round(room, row);
                }
                Precision::F32 => {
                    let (window, rest) = row.split_at_mut(len.min(row.len()));
                    self.window(first + i, window);
                    rest.fill(0.0);
                }
            }
            put(i, 0, row.as_ptr().cast());
        }
    }

    /// The numbers of the window of output row `row` into `to`, zeros where it is outside the map.
    #[inline(always)]
    fn window(&self, row: usize, to: &mut [f32]) {
        let Window {
            size,
            stride,
            padding,
        } = self.conv.window;
        let (from, c) = (self.from, self.from.c);
        let (n, at) = (row / (self.to.h * self.to.w), row % (self.to.h * self.to.w));
        let (y, x) = (at / self.to.w * stride, at % self.to.w * stride);
        // Its columns in the map.
        let before = padding.0;
        let left = before.saturating_sub(x).min(size);
        let right = (from.w + before).saturating_sub(x).clamp(left, size);
        for (dy, to) in to.chunks_exact_mut(size * c).enumerate() {
            let y = (y + dy).checked_sub(before).filter(|y| *y < from.h);
            let numbers = y.and_then(|y| {
                let start = ((n * from.h + y) * from.w + (x + left).saturating_sub(before)) * c;
                self.x.get(start..start + (right - left) * c)
            });
            let numbers = numbers.unwrap_or_default();
            match (size * c, numbers.len()) {
                (9, 9) => copy::<9>(numbers, to),
                (12, 12) => copy::<12>(numbers, to),
                (_, 0) => to.fill(0.0),
                _ => {
                    let (zeros, to) = to.split_at_mut(left * c);
                    let (to, more) = to.split_at_mut(numbers.len());
                    to.iter_mut().zip(numbers).for_each(|(to, x)| *to = *x);
                    zeros.fill(0.0);
                    more.fill(0.0);
                }
            }
        }
    }
}

/// Copies so many numbers, which are few, in a few moves.
#[inline(always)]
fn copy<const N: usize>(from: &[f32], to: &mut [f32]) {
    if let (Some(from), Some(to)) = (from.first_chunk::<N>(), to.first_chunk_mut::<N>()) {
        *to = *from;
    }
}

impl Rows for Windows<'_> {
    fn scratch(&self, rows: usize) -> usize {
        match self.conv.gathers {
            // One in f32 before it is rounded.
            true => (rows + 1) * self.conv.weights.padded,
            false => 0,
        }
    }

    fn even(&self) -> bool {
        self.conv.gathers
    }

    #[inline(always)]
    fn find<M: Micro>(
        &self,
        first: usize,
        count: usize,
        scratch: &mut [f32],
        put: &mut impl FnMut(usize, usize, *const u8),
    ) {
        if self.conv.gathers {
            return self.gather::<M>(first, count, scratch, put);
        }
        let w = &self.conv.weights;
        let bytes = w.padded * w.precision.bytes();
        let zeros = self.conv.zeros.as_ptr().cast::<u8>();
        self.places(first, count, |i, tap, place| {
            let at = match place {
                // SAFETY: a position inside the map, `bytes` each.
                Some(place) => unsafe { self.at.add(place * bytes) },
                None => zeros,
            };
            put(i, tap, at);
        });
    }
}
