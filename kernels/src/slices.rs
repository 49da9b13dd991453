//! What moves or combines numbers, and functions of single ones.
//!
//! For: everything a network does between its products and its norms.

use crate::conv::Size;
use crate::error::{Result, mismatch};
use crate::isa::{Cpu, Micro, Task};
use crate::math::{self, Act, max};
use crate::share;

/// Numbers that one task takes, about.
const BLOCK: usize = 1 << 13;
/// Numbers below which every thread has one task: as products do, so that it finds most of its rows in its own caches.
const FEW: usize = 1 << 16;
/// What a thread's share of few rows is a multiple of: rows of a product's tile.
const TILE: usize = 32;

/// Calls `f(first row, rows)` for blocks of whole rows of `out`, side by side when that pays.
pub(crate) fn by_rows(out: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let width = width.max(1);
    if !share::pays(out.len()) {
        return f(0, out);
    }
    let own = (out.len() / width).div_ceil(rayon::current_num_threads());
    let rows = match out.len() < FEW {
        true => own.next_multiple_of(TILE),
        false => (BLOCK / width).max(1),
    };
    share::chunks(out, rows * width, |i, out| f(i * rows, out));
}

/// `act` at every number of `x`, in place.
pub fn activate(cpu: Cpu, act: Act, x: &mut [f32]) {
    struct Apply<'a>(Act, &'a mut [f32]);
    impl Task for Apply<'_> {
        type Out = ();
        #[inline(always)]
        fn run<M: Micro>(self) {
            math::apply::<M>(self.0, self.1);
        }
    }
    by_rows(x, 1, |_, x| cpu.run(Apply(act, x)));
}

/// exp(x) / Σ exp(x) of every row of `width` numbers of `x`, in place.
///
/// Errors when `x` is not whole rows.
pub fn softmax(cpu: Cpu, width: usize, x: &mut [f32]) -> Result<()> {
    struct Rows<'a>(usize, &'a mut [f32]);
    impl Task for Rows<'_> {
        type Out = ();
        #[inline(always)]
        fn run<M: Micro>(self) {
            for row in self.1.chunks_exact_mut(self.0) {
                let top = max(row);
                row.iter_mut().for_each(|x| *x = math::exp::<M>(*x - top));
                let factor = 1.0 / math::sum(row, |x| x);
                row.iter_mut().for_each(|x| *x *= factor);
            }
        }
    }
    if width == 0 || !x.len().is_multiple_of(width) {
        let what = format!("{} numbers in rows of {width}", x.len());
        return Err(mismatch("softmax", what));
    }
    by_rows(x, width, |_, x| cpu.run(Rows(width, x)));
    Ok(())
}

/// Σ weightᵢ · xᵢ into `out`, the terms added in their order.
///
/// Errors without terms and when lengths differ.
pub fn combine(cpu: Cpu, terms: &[(f32, &[f32])], out: &mut [f32]) -> Result<()> {
    struct Sum<'a>(&'a [(f32, &'a [f32])], usize, &'a mut [f32]);
    impl Task for Sum<'_> {
        type Out = ();
        #[inline(always)]
        fn run<M: Micro>(self) {
            let Sum(terms, first, out) = self;
            for (i, (weight, x)) in terms.iter().enumerate() {
                let x = x.get(first..first + out.len()).unwrap_or_default();
                match i {
                    0 => (out.iter_mut().zip(x)).for_each(|(out, x)| *out = weight * x),
                    _ => (out.iter_mut().zip(x)).for_each(|(out, x)| *out += weight * x),
                }
            }
        }
    }
    if terms.is_empty() || terms.iter().any(|(_, x)| x.len() != out.len()) {
        let lengths: Vec<_> = terms.iter().map(|(_, x)| x.len()).collect();
        let what = format!("terms of {lengths:?} numbers into {}", out.len());
        return Err(mismatch("combine", what));
    }
    by_rows(out, 1, |first, out| cpu.run(Sum(terms, first, out)));
    Ok(())
}

/// Nearest neighbour of `x` of size `from` to `h × w` in `out`: output (i, j) is input
/// (⌊i·H/h⌋, ⌊j·W/w⌋).
///
/// Errors when lengths do not fit or a side is 0.
pub fn upsample(x: &[f32], from: Size, h: usize, w: usize, out: &mut [f32]) -> Result<()> {
    let to = Size { h, w, ..from };
    if from.len() != Some(x.len()) || to.len() != Some(out.len()) || x.is_empty() || out.is_empty()
    {
        let what = format!("{from:?} to {h} × {w} in {} numbers", out.len());
        return Err(mismatch("upsample", what));
    }
    let c = from.c;
    by_rows(out, w * c, |first, out| {
        for (i, row) in out.chunks_exact_mut(w * c).enumerate() {
            let (n, y) = ((first + i) / h, (first + i) % h);
            let at = (n * from.h + y * from.h / h) * from.w * c;
            let line = x.get(at..at + from.w * c).unwrap_or_default();
            for (j, out) in row.chunks_exact_mut(c).enumerate() {
                let at = j * from.w / w * c;
                if let Some(pixel) = line.get(at..at + c) {
                    out.copy_from_slice(pixel);
                }
            }
        }
    });
    Ok(())
}

/// The largest number of each channel in every whole window of `by × by` positions of `x`, of size
/// `from`, side by side: `n × ⌊h/by⌋ × ⌊w/by⌋ × c` in `out`.
///
/// Errors when lengths do not fit or there is no whole window.
pub fn max_pool(x: &[f32], from: Size, by: usize, out: &mut [f32]) -> Result<()> {
    let sides = (from.h.checked_div(by), from.w.checked_div(by));
    let (h, w) = (sides.0.unwrap_or_default(), sides.1.unwrap_or_default());
    let to = Size { h, w, ..from };
    if from.len() != Some(x.len()) || to.len() != Some(out.len()) || out.is_empty() {
        let what = format!("{from:?} by {by} into {} numbers", out.len());
        return Err(mismatch("max_pool", what));
    }
    let c = from.c;
    by_rows(out, w * c, |first, out| {
        for (i, row) in out.chunks_exact_mut(w * c).enumerate() {
            let (n, y) = ((first + i) / h, (first + i) % h);
            row.fill(f32::NEG_INFINITY);
            for line in 0..by {
                let at = (n * from.h + y * by + line) * from.w * c;
                let line = x.get(at..at + w * by * c).unwrap_or_default();
                for (out, window) in row.chunks_exact_mut(c).zip(line.chunks_exact(by * c)) {
                    for pixel in window.chunks_exact(c) {
                        for (out, x) in out.iter_mut().zip(pixel) {
                            *out = if *x > *out { *x } else { *out };
                        }
                    }
                }
            }
        }
    });
    Ok(())
}

/// The channels of `a` (`widths.0` a row), then those of `b`, row by row into `out`.
///
/// Errors when lengths do not fit.
pub fn concat(a: &[f32], b: &[f32], widths: (usize, usize), out: &mut [f32]) -> Result<()> {
    let c = widths.0 + widths.1;
    let rows = out.len() / c.max(1);
    let fits = widths.0 > 0
        && widths.1 > 0
        && rows * c == out.len()
        && rows * widths.0 == a.len()
        && rows * widths.1 == b.len();
    if !fits {
        let what = format!(
            "{} and {} numbers in rows of {widths:?} into {}",
            a.len(),
            b.len(),
            out.len()
        );
        return Err(mismatch("concat", what));
    }
    by_rows(out, c, |first, out| {
        let (a, b) = (a.chunks_exact(widths.0), b.chunks_exact(widths.1));
        let rows = a.skip(first).zip(b.skip(first));
        for (out, (a, b)) in out.chunks_exact_mut(c).zip(rows) {
            let (left, right) = out.split_at_mut(widths.0);
            left.copy_from_slice(a);
            right.copy_from_slice(b);
        }
    });
    Ok(())
}
