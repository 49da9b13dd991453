//! Linear layers: one product, position by position.

use crate::error::{Result, mismatch};
use crate::isa::Precision;
use crate::pack::Weights;
use crate::product::{Finish, Plus, Rows, product, rounded};

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

    #[inline(always)]
    fn find(
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
/// Errors when lengths do not fit.
pub fn linear(
    x: &[f32],
    samples: usize,
    w: &Weights,
    finish: Finish<'_>,
    out: &mut [f32],
) -> Result<()> {
    let rows = x.len() / w.inputs().max(1);
    let fits = w.taps == 1 && rows * w.inputs == x.len() && out.len() == rows * w.outputs();
    if !fits || samples == 0 || !rows.is_multiple_of(samples) {
        let what = format!(
            "{} numbers of {samples} samples by {} → {} into {}",
            x.len(),
            w.inputs(),
            w.outputs(),
            out.len()
        );
        return Err(mismatch("linear", what));
    }
    check(&finish, samples, w.outputs(), out.len())?;
    let go = |at: *const u8, out: &mut [f32]| {
        let dense = Dense {
            at,
            bytes: w.padded * w.precision.bytes(),
        };
        product(&dense, rows, w, finish, rows / samples, out)
    };
    match w.precision {
        Precision::F32 => go(x.as_ptr().cast(), out),
        Precision::Bf16 => rounded(w.cpu, x, w.inputs, w.padded, |at| go(at, out)),
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
