//! Linear layers: one product, position by position, or several of the same positions at once.

use crate::error::{Result, mismatch};
use crate::finish::{Finish, Plus};
use crate::isa::{Micro, Precision};
use crate::pack::Weights;
use crate::product::{Rows, products, rounded};
use crate::values::{Input, Output};

/// Rows that lie one after the other.
struct Dense {
    at: *const u8,
    bytes: usize,
}

// SAFETY: it only reads what its maker borrows.
unsafe impl Sync for Dense {}

impl Rows for Dense {
    fn even(&self) -> bool {
        true
    }

    fn line(&self, first: usize) -> Option<*const u8> {
        Some(self.at.wrapping_add(first * self.bytes))
    }

    #[inline(always)]
    fn find<M: Micro>(
        &self,
        first: usize,
        count: usize,
        _: &mut [f32],
        put: &mut impl FnMut(usize, usize, *const u8),
    ) {
        for i in 0..count {
            // SAFETY: the rows up to `first + count` lie in what `at` points to.
            put(i, 0, unsafe { self.at.add((first + i) * self.bytes) });
        }
    }
}

/// The layer `w` at every position of `x` (`positions × inputs`) into `out` (`positions × outputs`);
/// `samples` as many samples lie one after the other.
///
/// Errors when lengths do not fit, and for rounded values where products take none ([`crate::Cpu::rounds`]).
pub fn linear<'a>(
    x: impl Into<Input<'a>>,
    samples: usize,
    w: &Weights,
    finish: Finish<'_>,
    out: impl Into<Output<'a>>,
) -> Result<()> {
    let (x, out) = (x.into(), out.into());
    let (width, len) = (w.outputs(), out.len());
    check(&finish, samples, width, len)?;
    together(x, samples, &mut [(w, out)], finish)
}

/// Each of `layers`, which were packed for one CPU and have the same inputs, as [`linear`] at the positions of
/// `x`: what is read and shared out once.
///
/// Errors as [`linear`], when inputs differ, and without layers.
pub fn linears<'a>(
    x: impl Into<Input<'a>>,
    samples: usize,
    layers: &mut [(&Weights, Output<'_>)],
) -> Result<()> {
    together(x.into(), samples, layers, Finish::default())
}

fn together(
    x: Input<'_>,
    samples: usize,
    layers: &mut [(&Weights, Output<'_>)],
    finish: Finish<'_>,
) -> Result<()> {
    let Some(&(one, _)) = layers.first() else {
        return Err(mismatch("linear", "no layers"));
    };
    let rows = x.len() / one.inputs().max(1);
    for (w, out) in layers.iter() {
        let alike = (w.inputs, w.cpu, w.precision) == (one.inputs, one.cpu, one.precision);
        let fits = w.taps == 1 && rows * w.inputs == x.len() && out.len() == rows * w.outputs();
        if !alike || !fits || samples == 0 || !rows.is_multiple_of(samples) {
            let what = format!(
                "{} numbers of {samples} samples by {} → {} into {}",
                x.len(),
                w.inputs(),
                w.outputs(),
                out.len()
            );
            return Err(mismatch("linear", what));
        }
        served(w, w.inputs, x, out)?;
    }
    let mut go = |at: *const u8| {
        let dense = Dense {
            at,
            bytes: one.padded * one.precision.bytes(),
        };
        products(&dense, rows, layers, finish, rows / samples)
    };
    match (one.precision, x) {
        (Precision::F32, Input::Plain(x)) => go(x.as_ptr().cast()),
        _ => rounded(one.cpu, x, one.inputs, one.padded, go),
    }
}

/// Whether rounded values, if there are any, are what products with `w` take: rows of `inputs` numbers.
pub(crate) fn served(w: &Weights, inputs: usize, x: Input<'_>, out: &Output<'_>) -> Result<()> {
    let reads = matches!(x, Input::Plain(_)) || w.cpu.rounds(inputs);
    let writes = matches!(out, Output::Plain(_)) || w.cpu.rounds(w.outputs());
    match reads && writes && (w.precision == Precision::Bf16 || matches!(x, Input::Plain(_))) {
        true => Ok(()),
        false => Err(mismatch(
            "product",
            "rounded values, which it does not take",
        )),
    }
}

/// Whether what is to be added has the right length.
pub(crate) fn check(finish: &Finish<'_>, samples: usize, width: usize, len: usize) -> Result<()> {
    let (found, want) = match finish.plus {
        Plus::Nothing => return Ok(()),
        Plus::PerSample(x) => (x.len(), samples * width),
        Plus::Residual(x) => (x.len(), len),
    };
    match found == want {
        true => Ok(()),
        false => Err(mismatch("plus", format!("{found} numbers, must be {want}"))),
    }
}
