//! Normalisation: of groups of channels, of rows, and of rows by their root mean square.
//!
//! For: the three norms of our networks, the group's with its activation in the same pass. Not for:
//! statistics kept from training (batch norm).

use rayon::prelude::*;

use crate::error::{Result, mismatch};
use crate::isa::{Cpu, Micro, Precision, Task};
use crate::math::{self, Act};
use crate::memory::with_scratch;
use crate::slices::{PARALLEL_FROM, by_rows};
use crate::values::Output;

/// Scale and shift per channel.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// Factors.
    pub scale: &'a [f32],
    /// Added after; none for a root-mean-square norm.
    pub shift: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

/// Rows whose sums are added up in f32 before they are added in f64.
pub(crate) const BLOCK_ROWS: usize = 128;

/// Normalises each sample of `x` (`samples × rows × channels`) over its rows and `groups` runs of
/// channels, then `act`, into `out`.
///
/// Errors when lengths do not fit.
pub fn group_norm<'o>(
    cpu: Cpu,
    x: &[f32],
    samples: usize,
    groups: usize,
    affine: Affine<'_>,
    act: Act,
    out: impl Into<Output<'o>>,
) -> Result<()> {
    let out = out.into();
    check_groups("group_norm", x, samples, groups, affine, out.len())?;
    let c = affine.scale.len();
    let sample = x.len() / samples;
    let blocks = (sample / c).div_ceil(BLOCK_ROWS);
    // Per block and channel a sum and a sum of squares; per channel mean, factor, shift.
    with_scratch(2 * c * blocks + 3 * c, |scratch| {
        let (parts, channels) = scratch.split_at_mut(2 * c * blocks);
        let (out, rounded) = places(cpu, c, out)?;
        let each = if rounded { 2 } else { 1 };
        let samples = x
            .chunks_exact(sample)
            .zip(out.chunks_exact_mut(sample / each));
        for (x, out) in samples {
            moments(cpu, x, groups, affine, parts, channels);
            let channels: &[f32] = channels;
            by_rows(out, c / each, |first, out| {
                let rows = first * c..first * c + each * out.len();
                let x = x.get(rows).unwrap_or_default();
                let apply = Apply {
                    x,
                    out,
                    rounded,
                    channels,
                    act,
                };
                match rounded {
                    false => cpu.run(apply),
                    true => cpu.run_at(Precision::Bf16, apply),
                }
            });
        }
        Ok(())
    })?
}

/// The places of a result of rows of `c` numbers, and whether they are rounded.
fn places(cpu: Cpu, c: usize, out: Output<'_>) -> Result<(&mut [f32], bool)> {
    match out {
        Output::Plain(out) => Ok((out, false)),
        Output::Rounded(out) if cpu.rounds(c) => Ok((out, true)),
        Output::Rounded(_) => Err(mismatch("norm", format!("{c} rounded numbers in a row"))),
    }
}

/// Numbers of a row that are made at a time where they are then rounded.
const PART: usize = 64;

/// Makes a row of `$c` numbers part by part: `$body` sets all of `$part`, the numbers from `$first` on, which
/// are rounded into their places or lie there already.
macro_rules! by_parts {
    ($micro:ident, $out:ident, $rounded:expr, $c:expr, |$first:ident, $part:ident| $body:block) => {
        let run = if $rounded { PART } else { $c };
        for $first in (0..$c).step_by(run.max(1)) {
            let len = run.min($c - $first);
            let mut made = [0.0; PART];
            let $part = match $rounded {
                true => made.get_mut(..len).unwrap_or_default(),
                false => &mut *$out,
            };
            $body
            if $rounded {
                let places = $out.get_mut($first / 2..($first + len) / 2);
                $micro::round(made.get(..len).unwrap_or_default(), places.unwrap_or_default());
            }
        }
    };
}

/// Whether a group norm's lengths fit.
pub(crate) fn check_groups(
    operation: &'static str,
    x: &[f32],
    samples: usize,
    groups: usize,
    affine: Affine<'_>,
    out: usize,
) -> Result<()> {
    let c = affine.scale.len();
    let whole = samples.checked_mul(c).unwrap_or(0);
    let fits = c > 0
        && groups > 0
        && c.is_multiple_of(groups)
        && affine.shift.len() == c
        && !x.is_empty()
        && x.len() == out
        && whole > 0
        && x.len().is_multiple_of(whole);
    if fits {
        return Ok(());
    }
    let what = format!(
        "{} numbers of {samples} samples into {out}, {c} channels in {groups} groups",
        x.len()
    );
    Err(mismatch(operation, what))
}

/// Mean, factor and shift of every channel of one sample into `channels` (3 · c); `parts` has room
/// for two numbers a channel for each [`BLOCK_ROWS`] rows.
pub(crate) fn moments(
    cpu: Cpu,
    x: &[f32],
    groups: usize,
    affine: Affine<'_>,
    parts: &mut [f32],
    channels: &mut [f32],
) {
    let c = affine.scale.len();
    // Sums are taken of the distance to the sample's first row, so that a large mean costs no digits.
    let base = x.get(..c).unwrap_or_default();
    let sum = |(x, to): (&[f32], &mut [f32])| cpu.run(Sums { x, base, to });
    let pieces = (BLOCK_ROWS * c, 2 * c);
    if x.len() < PARALLEL_FROM {
        x.chunks(pieces.0)
            .zip(parts.chunks_mut(pieces.1))
            .for_each(sum);
    } else {
        (x.par_chunks(pieces.0).zip(parts.par_chunks_mut(pieces.1))).for_each(sum);
    }
    statistics(parts, base, x.len() / c, groups, affine, channels);
}

/// Mean, factor and shift of every channel from the sums of every block.
fn statistics(
    parts: &[f32],
    base: &[f32],
    rows: usize,
    groups: usize,
    affine: Affine<'_>,
    channels: &mut [f32],
) {
    let c = base.len();
    let width = c / groups;
    let n = rows as f64;
    let (means, rest) = channels.split_at_mut(c);
    let (factors, shifts) = rest.split_at_mut(c);
    shifts.copy_from_slice(affine.shift);
    // Of a channel: its mean and the sum of squares around it.
    let channel = |i: usize| {
        let part = |i: usize| parts.iter().skip(i).step_by(2 * c).map(|x| f64::from(*x));
        let (sum, squares) = (part(i).sum::<f64>(), part(c + i).sum::<f64>());
        let base = f64::from(base.get(i).copied().unwrap_or_default());
        (base + sum / n, squares - sum * sum / n)
    };
    for group in 0..groups {
        let own = group * width..(group + 1) * width;
        let mean = own.clone().map(|i| channel(i).0).sum::<f64>() / width as f64;
        let squares: f64 = own
            .clone()
            .map(|i| {
                let (m, s) = channel(i);
                s + n * (m - mean) * (m - mean)
            })
            .sum();
        let variance = (squares / (n * width as f64)).max(0.0);
        let factor = 1.0 / (variance + f64::from(affine.eps)).sqrt();
        for i in own {
            let scale = affine.scale.get(i).copied().unwrap_or_default();
            if let (Some(m), Some(f)) = (means.get_mut(i), factors.get_mut(i)) {
                *m = mean as f32;
                *f = factor as f32 * scale;
            }
        }
    }
}

/// Per channel Σ (x − base) and Σ (x − base)² of some rows.
struct Sums<'a> {
    x: &'a [f32],
    base: &'a [f32],
    to: &'a mut [f32],
}

impl Task for Sums<'_> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let c = self.base.len();
        let (sums, squares) = self.to.split_at_mut(c);
        // Some channels at a time, so that their sums stay in registers.
        const RUN: usize = 32;
        let mut first = 0;
        while first + RUN <= c {
            let mut s = [0.0_f32; RUN];
            let mut q = [0.0_f32; RUN];
            let base = self.base.get(first..).and_then(|b| b.first_chunk::<RUN>());
            let base = *base.unwrap_or(&[0.0; RUN]);
            for row in self.x.chunks_exact(c) {
                let Some(row) = row.get(first..).and_then(|r| r.first_chunk::<RUN>()) else {
                    continue;
                };
                for i in 0..RUN {
                    let d = row[i] - base[i];
                    s[i] += d;
                    q[i] = M::fma(d, d, q[i]);
                }
            }
            let run = first..first + RUN;
            if let (Some(a), Some(b)) = (sums.get_mut(run.clone()), squares.get_mut(run)) {
                a.copy_from_slice(&s);
                b.copy_from_slice(&q);
            }
            first += RUN;
        }
        let tail = sums.iter_mut().zip(squares.iter_mut()).enumerate();
        for (i, (sum, square)) in tail.skip(first) {
            let base = self.base.get(i).copied().unwrap_or_default();
            let (mut s, mut q) = (0.0, 0.0);
            for x in self.x.iter().skip(i).step_by(c) {
                let d = x - base;
                s += d;
                q = M::fma(d, d, q);
            }
            (*sum, *square) = (s, q);
        }
    }
}

/// (x − mean) · factor + shift per channel, then the activation.
struct Apply<'a> {
    x: &'a [f32],
    /// Two numbers in a place where they are rounded.
    out: &'a mut [f32],
    rounded: bool,
    channels: &'a [f32],
    act: Act,
}

impl<'a> Task for Apply<'a> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let c = self.channels.len() / 3;
        let (means, rest) = self.channels.split_at(c);
        let (factors, shifts) = rest.split_at(c);
        let each = if self.rounded { 2 } else { 1 };
        let rows = self.out.chunks_exact_mut(c / each);
        for (x, out) in self.x.chunks_exact(c).zip(rows) {
            by_parts!(M, out, self.rounded, c, |first, part| {
                let from = |x: &'a [f32]| x.get(first..).unwrap_or_default();
                let channels = from(means).iter().zip(from(factors)).zip(from(shifts));
                let x = x.get(first..).unwrap_or_default();
                for ((out, x), ((m, f), b)) in part.iter_mut().zip(x).zip(channels) {
                    *out = M::fma(x - m, *f, *b);
                }
                math::apply::<M>(self.act, part);
            });
        }
    }
}

/// Normalises each row of `x` over its channels into `out`.
///
/// Errors when lengths do not fit.
pub fn layer_norm<'o>(
    cpu: Cpu,
    x: &[f32],
    affine: Affine<'_>,
    out: impl Into<Output<'o>>,
) -> Result<()> {
    let out = out.into();
    check("layer_norm", x, affine, affine.shift.len(), out.len())?;
    rows(cpu, x, affine, Kind::Layer, out)
}

/// Divides each row of `x` by its root mean square (Zhang and Sennrich 2019, arXiv 1910.07467) into
/// `out`; the shift is not used.
///
/// Errors when lengths do not fit.
pub fn rms_norm(cpu: Cpu, x: &[f32], affine: Affine<'_>, out: &mut [f32]) -> Result<()> {
    check("rms_norm", x, affine, affine.scale.len(), out.len())?;
    rows(cpu, x, affine, Kind::Rms, out.into())
}

pub(crate) fn check(
    operation: &'static str,
    x: &[f32],
    affine: Affine<'_>,
    shifts: usize,
    out: usize,
) -> Result<()> {
    let c = affine.scale.len();
    if c > 0 && shifts == c && x.len() == out && x.len().is_multiple_of(c) {
        return Ok(());
    }
    let what = format!(
        "{} numbers into {out}, {c} scales, {shifts} shifts",
        x.len()
    );
    Err(mismatch(operation, what))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Layer,
    Rms,
}

fn rows(cpu: Cpu, x: &[f32], affine: Affine<'_>, kind: Kind, out: Output<'_>) -> Result<()> {
    let c = affine.scale.len();
    let (out, rounded) = places(cpu, c, out)?;
    let each = if rounded { 2 } else { 1 };
    by_rows(out, c / each, |first, out| {
        let rows = first * c..first * c + each * out.len();
        let work = ByRow {
            x: x.get(rows).unwrap_or_default(),
            out,
            rounded,
            affine,
            kind,
        };
        match rounded {
            false => cpu.run(work),
            true => cpu.run_at(Precision::Bf16, work),
        }
    });
    Ok(())
}

struct ByRow<'a> {
    x: &'a [f32],
    /// Two numbers in a place where they are rounded.
    out: &'a mut [f32],
    rounded: bool,
    affine: Affine<'a>,
    kind: Kind,
}

impl<'a> Task for ByRow<'a> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let c = self.affine.scale.len();
        let n = c as f32;
        let Affine { scale, shift, eps } = self.affine;
        let each = if self.rounded { 2 } else { 1 };
        let rows = self.out.chunks_exact_mut(c / each);
        for (x, out) in self.x.chunks_exact(c).zip(rows) {
            if self.kind == Kind::Rms {
                let factor = 1.0 / (math::sum(x, |x| x * x) / n + eps).sqrt();
                for ((out, x), s) in out.iter_mut().zip(x).zip(scale) {
                    *out = x * factor * s;
                }
                continue;
            }
            let base = x.first().copied().unwrap_or_default();
            let mean = base + math::sum(x, |x| x - base) / n;
            let variance = math::sum(x, |x| (x - mean) * (x - mean)) / n;
            let factor = 1.0 / (variance + eps).sqrt();
            by_parts!(M, out, self.rounded, c, |first, part| {
                let from = |x: &'a [f32]| x.get(first..).unwrap_or_default();
                let channels = from(scale).iter().zip(from(shift));
                for ((out, x), (s, b)) in part.iter_mut().zip(from(x)).zip(channels) {
                    *out = M::fma((x - mean) * factor, *s, *b);
                }
            });
        }
    }
}
