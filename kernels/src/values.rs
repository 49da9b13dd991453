//! Values as operations hand them to each other: in f32, or rounded for the products that come next.
//!
//! For: norms, gates and attention, whose results mostly go into products; where those round their operands,
//! the value is rounded once, when it is made, and takes half the memory. Not for: what a rounding would add
//! up in (the sums of residuals stay f32).
//!
//! A rounded value has two bf16 numbers in a place of an `f32` slice, row after row, and only rows that are
//! whole steps of the path's products are ever rounded ([`Cpu::rounds`]), so that they lie as a product takes
//! them.

use crate::error::{Result, mismatch};
use crate::isa::{Cpu, Precision};
use crate::memory::{Buffer, Pooled};
use crate::slices::by_rows;

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

/// The numbers of a rounded value.
///
/// Errors when `out` is not twice as long.
pub fn widen(x: &[f32], out: &mut [f32]) -> Result<()> {
    if out.len() != 2 * x.len() {
        let what = format!("{} places into {} numbers", x.len(), out.len());
        return Err(mismatch("widen", what));
    }
    by_rows(out, 2, |first, out| {
        let pairs = x.get(first..).unwrap_or_default();
        for ([a, b], pair) in out.as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
            *a = f32::from_bits(pair.to_bits() << 16);
            *b = f32::from_bits(pair.to_bits() & 0xFFFF_0000);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16::pair;

    #[test]
    fn a_rounded_value_is_widened_in_order_whatever_its_length() {
        for len in [0, 1, 7, 40_000] {
            let number = |i: usize| (i % 200) as f32 - 100.0;
            let x: Vec<f32> = (0..len)
                .map(|i| pair(number(2 * i), number(2 * i + 1)))
                .collect();
            let mut out = vec![f32::NAN; 2 * len];
            assert_eq!(widen(&x, &mut out), Ok(()));
            assert!(out.iter().enumerate().all(|(i, x)| *x == number(i)));
        }
        assert!(widen(&[0.0], &mut [0.0]).is_err());
    }
}
