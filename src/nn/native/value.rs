//! Values of the native backend: in f32, or rounded to bf16 where products take them so.
//!
//! For: what every operation makes and reads, and when it is rounded. Not for: the operations.

use std::ops::Deref;
use std::sync::Arc;

use semblance_kernels as kernels;
use semblance_kernels::{CpuPath, Input, Output, Pooled};

use super::Native;
use crate::error::Result;
use crate::nn::Shape;

/// Numbers of a sample from which a value is rounded where products outrun memory: what leaves the second
/// caches in f32.
const LARGE: usize = 1 << 18;

/// A value.
#[derive(Clone, Debug)]
pub struct Tensor(pub(super) Arc<Value>);

#[derive(Debug)]
pub(super) struct Value {
    numbers: Numbers,
    pub shape: Shape,
}

/// A value's numbers, as the operation that made them left them.
#[derive(Debug)]
enum Numbers {
    Plain(Pooled),
    /// Two bf16 numbers in a place.
    Rounded(Pooled),
}

/// A value's numbers in f32.
pub(super) struct Plain<'a>(Reading<'a>);

impl Deref for Plain<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.0 {
            Reading::There(Input::Plain(numbers)) => numbers,
            Reading::Made(numbers) => numbers,
            // Never made: rounded numbers were widened.
            Reading::There(Input::Rounded(_)) => &[],
        }
    }
}

/// What an operation reads of a value: what there is, or that widened for a while.
pub(super) enum Reading<'a> {
    There(Input<'a>),
    Made(Pooled),
}

impl Reading<'_> {
    pub fn input(&self) -> Input<'_> {
        match self {
            Reading::There(numbers) => *numbers,
            Reading::Made(numbers) => Input::Plain(numbers),
        }
    }
}

impl Tensor {
    pub(super) fn plain(data: Pooled, shape: Shape) -> Tensor {
        let numbers = Numbers::Plain(data);
        Tensor(Arc::new(Value { numbers, shape }))
    }

    /// For what takes either.
    pub(super) fn input(&self) -> Input<'_> {
        match &self.0.numbers {
            Numbers::Plain(data) => Input::Plain(data),
            Numbers::Rounded(data) => Input::Rounded(data),
        }
    }

    pub(super) fn is_rounded(&self) -> bool {
        matches!(self.0.numbers, Numbers::Rounded(_))
    }
}

impl Native {
    /// A new value of `shape`, whose numbers `fill` sets, all of them.
    pub(super) fn make(
        &self,
        shape: Shape,
        fill: impl FnOnce(&mut [f32]) -> kernels::Result<()>,
    ) -> Result<Tensor> {
        let mut data = self.arena.take(shape.len())?;
        fill(&mut data)?;
        Ok(Tensor::plain(data, shape))
    }

    /// As [`Native::make`], of a rounded value.
    pub(super) fn make_rounded(
        &self,
        shape: Shape,
        fill: impl FnOnce(&mut [f32]) -> kernels::Result<()>,
    ) -> Result<Tensor> {
        let mut data = self.arena.take(shape.len() / 2)?;
        fill(&mut data)?;
        let numbers = Numbers::Rounded(data);
        Ok(Tensor(Arc::new(Value { numbers, shape })))
    }

    /// As [`Native::make`], of a value that mostly goes into products: rounded where those round.
    pub(super) fn make_operand(
        &self,
        shape: Shape,
        fill: impl FnOnce(Output<'_>) -> kernels::Result<()>,
    ) -> Result<Tensor> {
        match self.cpu.rounds(shape.c) {
            true => self.make_rounded(shape, |out| fill(Output::Rounded(out))),
            false => self.make(shape, |out| fill(Output::Plain(out))),
        }
    }

    /// Whether any other value of `shape` is rounded: where it is large and products outrun memory.
    fn rounds_value(&self, shape: Shape) -> bool {
        let large = shape.rows_per_sample() * shape.c >= LARGE;
        large && self.cpu.path() == CpuPath::Amx && self.cpu.rounds(shape.c)
    }

    /// As [`Native::make`], of any other value.
    pub(super) fn make_value(
        &self,
        shape: Shape,
        fill: impl FnOnce(Output<'_>) -> kernels::Result<()>,
    ) -> Result<Tensor> {
        match self.rounds_value(shape) {
            true => self.make_rounded(shape, |out| fill(Output::Rounded(out))),
            false => self.make(shape, |out| fill(Output::Plain(out))),
        }
    }

    /// As [`Native::make_value`], of one for each of `shapes`.
    pub(super) fn make_values(
        &self,
        shapes: impl Iterator<Item = Shape>,
        fill: impl FnOnce(Vec<Output<'_>>) -> kernels::Result<()>,
    ) -> Result<Vec<Tensor>> {
        let room = |shape: Shape| {
            let rounded = self.rounds_value(shape);
            let places = if rounded {
                shape.len() / 2
            } else {
                shape.len()
            };
            Ok((self.arena.take(places)?, rounded, shape))
        };
        let mut all = shapes.map(room).collect::<Result<Vec<_>>>()?;
        let outs = all.iter_mut().map(|(data, rounded, _)| match rounded {
            true => Output::Rounded(data),
            false => Output::Plain(data),
        });
        fill(outs.collect())?;
        let value = |(data, rounded, shape)| {
            let numbers = match rounded {
                true => Numbers::Rounded(data),
                false => Numbers::Plain(data),
            };
            Tensor(Arc::new(Value { numbers, shape }))
        };
        Ok(all.into_iter().map(value).collect())
    }

    /// The numbers of `x` for an operation that takes rounded ones, or does not.
    pub(super) fn read<'a>(&self, x: &'a Tensor, rounded: bool) -> Result<Reading<'a>> {
        match x.input() {
            Input::Rounded(data) if !rounded => {
                let mut wide = self.arena.take(x.0.shape.len())?;
                kernels::widen(self.cpu, data, &mut wide)?;
                Ok(Reading::Made(wide))
            }
            numbers => Ok(Reading::There(numbers)),
        }
    }

    /// The numbers of `x` in f32.
    pub(super) fn plain<'a>(&self, x: &'a Tensor) -> Result<Plain<'a>> {
        self.read(x, false).map(Plain)
    }

    /// A value that only moves what `parts` have: rounded where all of them are. `f` is told how many numbers
    /// are in a place.
    pub(super) fn moved(
        &self,
        parts: &[&Tensor],
        shape: Shape,
        f: impl FnOnce(&[&[f32]], usize, &mut [f32]) -> kernels::Result<()>,
    ) -> Result<Tensor> {
        if parts.iter().all(|x| x.is_rounded()) {
            let places = parts.iter().map(|x| match x.input() {
                Input::Plain(x) | Input::Rounded(x) => x,
            });
            let places: Vec<_> = places.collect();
            return self.make_rounded(shape, |out| f(&places, 2, out));
        }
        let plain = parts.iter().map(|x| self.plain(x));
        let plain = plain.collect::<Result<Vec<_>>>()?;
        let numbers: Vec<&[f32]> = plain.iter().map(|x| &**x).collect();
        self.make(shape, |out| f(&numbers, 1, out))
    }
}
