//! Values of the native backend: in f32, or rounded to bf16 where products take them so.
//!
//! For: what every operation makes and reads, and when it is rounded. Not for: the operations.

use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;
use semblance_kernels as kernels;
use semblance_kernels::{CpuPath, Input, Output, Pooled};

use super::Native;
use crate::error::Result;
use crate::nn::{Several, Shape};

/// Numbers of a sample from which a value is rounded where products outrun memory: what leaves the second
/// caches in f32.
pub(super) const LARGE: usize = 1 << 18;

/// A value.
#[derive(Clone, Debug)]
pub struct Tensor(pub(super) Arc<Value>);

#[derive(Debug)]
pub(super) struct Value {
    numbers: Numbers,
    pub shape: Shape,
    /// Where it goes when nobody has it.
    home: Option<Arc<Shelf>>,
}

/// Values without numbers, in whose memory the next ones are put.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Vec<Arc<Value>>>);

/// Values on a shelf at most: more than a network has at once, but for one whose derivative is taken.
const SHELVED: usize = 256;

impl Shelf {
    fn tensor(self: &Arc<Shelf>, numbers: Numbers, shape: Shape) -> Tensor {
        let value = Value {
            numbers,
            shape,
            home: Some(Arc::clone(self)),
        };
        let old = self.0.lock().pop();
        let Some(mut old) = old else {
            return Tensor(Arc::new(value));
        };
        match Arc::get_mut(&mut old) {
            Some(place) => *place = value,
            // Who dropped it last is about to let go of it.
            None => old = Arc::new(value),
        }
        Tensor(old)
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        let Some(value) = Arc::get_mut(&mut self.0) else {
            return;
        };
        value.numbers = Numbers::None;
        if let Some(home) = value.home.take() {
            let mut shelf = home.0.lock();
            if shelf.len() < SHELVED {
                shelf.push(Arc::clone(&self.0));
            }
        }
    }
}

/// A value's numbers, as the operation that made them left them.
#[derive(Debug)]
enum Numbers {
    Plain(Pooled),
    /// Two bf16 numbers in a place.
    Rounded(Pooled),
    /// Given back: nobody has the value.
    None,
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
    /// For what takes either.
    pub(super) fn input(&self) -> Input<'_> {
        match &self.0.numbers {
            Numbers::Plain(data) => Input::Plain(data),
            Numbers::Rounded(data) => Input::Rounded(data),
            Numbers::None => Input::Plain(&[]),
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
        Ok(self.tensor(data, false, shape))
    }

    /// As [`Native::make`], of a rounded value.
    pub(super) fn make_rounded(
        &self,
        shape: Shape,
        fill: impl FnOnce(&mut [f32]) -> kernels::Result<()>,
    ) -> Result<Tensor> {
        let mut data = self.arena.take(shape.len() / 2)?;
        fill(&mut data)?;
        Ok(self.tensor(data, true, shape))
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
    pub(super) fn rounds_value(&self, shape: Shape) -> bool {
        let large = shape.rows_per_sample() * shape.c >= self.large;
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

    /// As [`Native::make_value`], of one for each of `parts`, of some shape.
    pub(super) fn make_values<P: Copy>(
        &self,
        parts: impl Iterator<Item = (P, Shape)>,
        fill: impl FnOnce(&mut [(P, Output<'_>)]) -> kernels::Result<()>,
    ) -> Result<Several<Tensor>> {
        let room = |(part, shape): (P, Shape)| {
            let rounded = self.rounds_value(shape);
            let places = match rounded {
                true => shape.len() / 2,
                false => shape.len(),
            };
            Ok((part, self.arena.take(places)?, rounded, shape))
        };
        let mut all = parts.map(room).collect::<Result<Several<_>>>()?;
        let outs = all.iter_mut().map(|(part, data, rounded, _)| {
            let out = match rounded {
                true => Output::Rounded(data),
                false => Output::Plain(data),
            };
            (*part, out)
        });
        fill(&mut outs.collect::<Several<_>>())?;
        let value = |(_, data, rounded, shape)| self.tensor(data, rounded, shape);
        Ok(all.into_iter().map(value).collect())
    }

    /// A value with these numbers, rounded ones or not.
    pub(super) fn tensor(&self, data: Pooled, rounded: bool, shape: Shape) -> Tensor {
        let numbers = match rounded {
            true => Numbers::Rounded(data),
            false => Numbers::Plain(data),
        };
        self.shelf.tensor(numbers, shape)
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
            let places: Several<_> = places.collect();
            return self.make_rounded(shape, |out| f(&places, 2, out));
        }
        let plain = parts.iter().map(|x| self.plain(x));
        let plain = plain.collect::<Result<Several<_>>>()?;
        let numbers: Several<&[f32]> = plain.iter().map(|x| &**x).collect();
        self.make(shape, |out| f(&numbers, 1, out))
    }
}
