//! Values as operations hand them to each other: in f32, or rounded for the products that come next.
//!
//! For: norms, gates and attention, whose results mostly go into products; where those round their operands,
//! the value is rounded once, when it is made. And for large values of any kind, where products are so fast
//! that writing and reading f32 would take as long. Not for: sums while they are added up, which are f32
//! everywhere.
//!
//! A rounded value has two bf16 numbers in a place of an `f32` slice, row after row, and only rows that are
//! whole steps of the path's products are ever rounded ([`Cpu::rounds`]), so that they lie as a product takes
//! them.

use crate::arena::Pooled;
use crate::error::{Result, mismatch};
use crate::isa::{Cpu, Precision};
use crate::memory::Buffer;
use crate::slices::by_rows;
use crate::vector::{Vector, Wide};

/// What an operation reads.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Numbers.
    Plain(&'a [f32]),
    /// Numbers rounded to bf16, two in a place.
    Rounded(&'a [f32]),
}

/// Where an operation writes.
#[derive(Debug)]
pub enum Output<'a> {
    /// Numbers.
    Plain(&'a mut [f32]),
    /// Numbers rounded to bf16, two in a place.
    Rounded(&'a mut [f32]),
}

impl Input<'_> {
    /// How many numbers.
    pub fn len(&self) -> usize {
        match self {
            Input::Plain(x) => x.len(),
            Input::Rounded(x) => 2 * x.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> Input<'a> {
    /// `len` numbers from `from` on; of rounded ones both are even.
    #[inline(always)]
    pub(crate) fn part(self, from: usize, len: usize) -> Input<'a> {
        match self {
            Input::Plain(x) => Input::Plain(x.get(from..from + len).unwrap_or_default()),
            Input::Rounded(x) => {
                Input::Rounded(x.get(from / 2..(from + len) / 2).unwrap_or_default())
            }
        }
    }

    /// Number `i`; 0 where there is none.
    #[inline(always)]
    pub(crate) fn number(self, i: usize) -> f32 {
        match self {
            Input::Plain(x) => x.get(i).copied().unwrap_or_default(),
            Input::Rounded(x) => {
                let pair = x.get(i / 2).copied().unwrap_or_default().to_bits();
                f32::from_bits(match i.is_multiple_of(2) {
                    true => pair << 16,
                    false => pair & 0xFFFF_0000,
                })
            }
        }
    }

    /// The same numbers in f32: those that are, or what `room` is filled with.
    #[inline(always)]
    pub(crate) fn widened<'r, V: Vector>(self, room: &'r mut [f32]) -> &'r [f32]
    where
        'a: 'r,
    {
        match self {
            Input::Plain(x) => x,
            Input::Rounded(x) => {
                let room = room.get_mut(..2 * x.len()).unwrap_or_default();
                widen_row::<V>(x, room);
                room
            }
        }
    }
}

/// The numbers of a rounded row; `out` is twice as long.
#[inline(always)]
pub(crate) fn widen_row<V: Vector>(x: &[f32], out: &mut [f32]) {
    let count = (2 * x.len()).min(out.len());
    let whole = count / V::LANES * V::LANES;
    let at = x.as_ptr().cast::<u16>();
    for i in (0..whole).step_by(V::LANES) {
        // SAFETY: both have a vector's numbers from there on.
        unsafe { V::load_bf16(at.add(i)).store(out.as_mut_ptr().add(i)) };
    }
    for (i, out) in out.iter_mut().enumerate().take(count).skip(whole) {
        // SAFETY: `x` has `count` numbers.
        *out = f32::from_bits(u32::from(unsafe { at.add(i).read() }) << 16);
    }
}

impl Output<'_> {
    /// How many numbers.
    pub fn len(&self) -> usize {
        match self {
            Output::Plain(x) => x.len(),
            Output::Rounded(x) => 2 * x.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `len` numbers from `from` on; of rounded ones both are even.
    pub(crate) fn part(&mut self, from: usize, len: usize) -> Output<'_> {
        match self {
            Output::Plain(x) => Output::Plain(x.get_mut(from..from + len).unwrap_or_default()),
            Output::Rounded(x) => {
                let part = from / 2..(from + len) / 2;
                Output::Rounded(x.get_mut(part).unwrap_or_default())
            }
        }
    }
}

impl<'a> From<&'a [f32]> for Input<'a> {
    fn from(x: &'a [f32]) -> Self {
        Input::Plain(x)
    }
}

impl<'a> From<&'a Vec<f32>> for Input<'a> {
    fn from(x: &'a Vec<f32>) -> Self {
        Input::Plain(x)
    }
}

impl<'a, const N: usize> From<&'a [f32; N]> for Input<'a> {
    fn from(x: &'a [f32; N]) -> Self {
        Input::Plain(x)
    }
}

impl<'a> From<&'a Buffer> for Input<'a> {
    fn from(x: &'a Buffer) -> Self {
        Input::Plain(x)
    }
}

impl<'a> From<&'a Pooled> for Input<'a> {
    fn from(x: &'a Pooled) -> Self {
        Input::Plain(x)
    }
}

impl<'a> From<&'a mut [f32]> for Output<'a> {
    fn from(x: &'a mut [f32]) -> Self {
        Output::Plain(x)
    }
}

impl<'a> From<&'a mut Vec<f32>> for Output<'a> {
    fn from(x: &'a mut Vec<f32>) -> Self {
        Output::Plain(x)
    }
}

impl<'a, const N: usize> From<&'a mut [f32; N]> for Output<'a> {
    fn from(x: &'a mut [f32; N]) -> Self {
        Output::Plain(x)
    }
}

impl<'a> From<&'a mut Pooled> for Output<'a> {
    fn from(x: &'a mut Pooled) -> Self {
        Output::Plain(x)
    }
}

impl Cpu {
    /// Whether products on this path round operands of rows of `width` numbers, and take them rounded.
    pub fn rounds(self, width: usize) -> bool {
        let step = self.geometry(Precision::Bf16).step;
        self.precision() == Precision::Bf16 && width > 0 && width.is_multiple_of(step.max(2))
    }
}

/// Work of [`widen_row`].
pub(crate) struct Widen<'a>(pub &'a [f32], pub &'a mut [f32]);

impl Wide for Widen<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        widen_row::<V>(self.0, self.1);
    }
}

/// The numbers of a rounded value.
///
/// Errors when `out` is not twice as long.
pub fn widen(cpu: Cpu, x: &[f32], out: &mut [f32]) -> Result<()> {
    if out.len() != 2 * x.len() {
        let what = format!("{} places into {} numbers", x.len(), out.len());
        return Err(mismatch("widen", what));
    }
    by_rows(out, 2, |first, out| {
        cpu.wide(Widen(x.get(first..).unwrap_or_default(), out));
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16::pair;

    #[test]
    fn a_rounded_value_is_widened_in_order_whatever_its_length() {
        let cpus = crate::CpuPath::ALL
            .into_iter()
            .filter_map(|p| Cpu::new(p).ok());
        for (cpu, len) in cpus.flat_map(|cpu| [0, 1, 7, 19, 40_000].map(|len| (cpu, len))) {
            let number = |i: usize| (i % 200) as f32 - 100.0;
            let x: Vec<f32> = (0..len)
                .map(|i| pair(number(2 * i), number(2 * i + 1)))
                .collect();
            let mut out = vec![f32::NAN; 2 * len];
            assert_eq!(widen(cpu, &x, &mut out), Ok(()));
            assert!(out.iter().enumerate().all(|(i, x)| *x == number(i)));
        }
        assert!(widen(Cpu::emulated_amx(), &[0.0], &mut [0.0]).is_err());
    }
}
