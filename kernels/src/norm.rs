//! Normalisation: of groups of channels, of rows, and of rows by their root mean square.
//!
//! For: the three norms of our networks, the group's with its activation in the same pass. Not for:
//! statistics kept from training (batch norm).

use crate::error::{Result, mismatch};
use crate::isa::{Cpu, Micro, Precision, Task};
use crate::math::{self, Act};
use crate::memory::with_scratch;
use crate::norm_vectors;
use crate::share;
use crate::slices::by_rows;
use crate::values::{Input, Output, Widen};

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

/// Rows whose sums are added up in f32 before they are added in f64, in a sample of `rows`: fewer where two threads
/// would have none to share.
pub(crate) fn block_rows(rows: usize) -> usize {
    if rows <= 64 { 32 } else { 128 }
}

/// Normalises each sample of `x` (`samples × rows × channels`) over its rows and `groups` runs of
/// channels, then `act`, into `out`.
///
/// Errors when lengths do not fit.
pub fn group_norm<'a>(
    cpu: Cpu,
    x: impl Into<Input<'a>>,
    samples: usize,
    groups: usize,
    affine: Affine<'_>,
    act: Act,
    out: impl Into<Output<'a>>,
) -> Result<()> {
    let (x, out) = (x.into(), out.into());
    check_groups("group_norm", x.len(), samples, groups, affine, out.len())?;
    let c = affine.scale.len();
    let sample = x.len() / samples;
    let blocks = (sample / c).div_ceil(block_rows(sample / c));
    if matches!(x, Input::Rounded(_)) && !c.is_multiple_of(2) {
        return Err(mismatch(
            "group_norm",
            format!("{c} rounded numbers in a row"),
        ));
    }
    // Per block and channel a sum and a sum of squares; per channel mean, factor, shift.
    with_scratch(2 * c * blocks + 3 * c, |scratch| {
        let (parts, channels) = scratch.split_at_mut(2 * c * blocks);
        let (out, rounded) = places(cpu, c, out)?;
        let each = if rounded { 2 } else { 1 };
        for (n, out) in out.chunks_exact_mut(sample / each).enumerate() {
            let x = x.part(n * sample, sample);
            moments(cpu, x, groups, affine, parts, channels);
            let channels: &[f32] = channels;
            by_rows(out, c / each, |first, out| {
                let x = x.part(first * c, each * out.len());
                if norm_vectors::suits(c) && matches!(act, Act::Silu | Act::Identity) {
                    return cpu.wide(norm_vectors::Apply {
                        x,
                        out,
                        rounded,
                        channels,
                        act,
                    });
                }
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

/// Numbers of a row that are made at a time.
const PART: usize = 64;

/// Makes a row of `$c` numbers part by part: `$body` sets all of `$part`, the numbers from `$first` on, which
/// are rounded into their places or lie there already.
macro_rules! by_parts {
    ($micro:ident, $out:ident, $rounded:expr, $c:expr, |$first:ident, $part:ident| $body:block) => {
        for $first in (0..$c).step_by(PART) {
            let len = PART.min($c - $first);
            let mut made = [0.0; PART];
            let $part = match $rounded {
                true => made.get_mut(..len).unwrap_or_default(),
                false => $out.get_mut($first..$first + len).unwrap_or_default(),
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
    x: usize,
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
        && x > 0
        && x == out
        && whole > 0
        && x.is_multiple_of(whole);
    if fits {
        return Ok(());
    }
    let what =
        format!("{x} numbers of {samples} samples into {out}, {c} channels in {groups} groups");
    Err(mismatch(operation, what))
}

/// Mean, factor and shift of every channel of one sample into `channels` (3 · c); `parts` has room
/// for two numbers a channel for each [`block_rows`] rows.
pub(crate) fn moments(
    cpu: Cpu,
    x: Input<'_>,
    groups: usize,
    affine: Affine<'_>,
    parts: &mut [f32],
    channels: &mut [f32],
) {
    let c = affine.scale.len();
    // Sums are taken of the distance to the sample's first row, so that a large mean costs no digits. It lies
    // where the shifts are put in the end.
    let (others, base) = channels.split_at_mut(2 * c);
    match x.part(0, c) {
        Input::Plain(row) => base.copy_from_slice(row),
        Input::Rounded(row) => cpu.wide(Widen(row, base)),
    }
    let base: &[f32] = base;
    let sum = |i: usize, to: &mut [f32]| {
        let n = block_rows(x.len() / c);
        let first = i * n * c;
        let x = x.part(first, (n * c).min(x.len() - first));
        match norm_vectors::suits(c) {
            true => cpu.wide(norm_vectors::Sums { x, base, to }),
            false => cpu.run(Sums { x, base, to }),
        }
    };
    match share::pays(x.len()) {
        true => share::chunks(parts, 2 * c, sum),
        false => (parts.chunks_mut(2 * c).enumerate()).for_each(|(i, to)| sum(i, to)),
    }
    statistics(parts, base, x.len() / c, groups, affine, others);
    channels.split_at_mut(2 * c).1.copy_from_slice(affine.shift);
}

/// Mean and factor of every channel from the sums of every block.
fn statistics(
    parts: &[f32],
    base: &[f32],
    rows: usize,
    groups: usize,
    affine: Affine<'_>,
    channels: &mut [f32],
) {
    /// Channels whose sums over all blocks are added up side by side.
    const RUN: usize = 32;
    let c = base.len();
    let width = c / groups;
    let n = rows as f64;
    let (per_row, per_channel) = (1.0 / n, 1.0 / width as f64);
    let (means, factors) = channels.split_at_mut(c);
    // Of a group: its channels' means, taken from the first number on, added up; their squares; the squares
    // around each; and how many channels are still to come.
    let (mut from, mut sum, mut square, mut around) = (0.0, 0.0, 0.0, 0.0);
    let mut left = 0;
    for first in (0..c).step_by(RUN) {
        let run = first..(first + RUN).min(c);
        let mut sums = [[0.0_f64; RUN]; 2];
        for block in parts.chunks_exact(2 * c) {
            let (of_block, squares) = block.split_at(c);
            for (sums, block) in sums.iter_mut().zip([of_block, squares]) {
                let block = block.get(run.clone()).unwrap_or_default();
                (sums.iter_mut().zip(block)).for_each(|(s, x)| *s += f64::from(*x));
            }
        }
        let [sums, squares] = sums;
        let base = base.get(run.clone()).unwrap_or_default();
        for (((i, base), s), q) in run.zip(base).zip(sums).zip(squares) {
            let base = f64::from(*base);
            if left == 0 {
                (from, sum, square, around) = (base, 0.0, 0.0, 0.0);
                left = width;
            }
            let of_rows = s * per_row;
            let mean = base - from + of_rows;
            sum += mean;
            square += mean * mean;
            around += q - s * of_rows;
            left -= 1;
            if left > 0 {
                continue;
            }
            let mean = sum * per_channel;
            let squares = around + n * (square - sum * mean);
            let variance = (squares * per_row * per_channel).max(0.0);
            let factor = (1.0 / (variance + f64::from(affine.eps)).sqrt()) as f32;
            let own = i + 1 - width..i + 1;
            let (means, factors) = (means.get_mut(own.clone()), factors.get_mut(own.clone()));
            means.unwrap_or_default().fill((from + mean) as f32);
            let scales = affine.scale.get(own).unwrap_or_default();
            for (to, scale) in factors.unwrap_or_default().iter_mut().zip(scales) {
                *to = factor * scale;
            }
        }
    }
}

/// Per channel Σ (x − base) and Σ (x − base)² of some rows.
struct Sums<'a> {
    x: Input<'a>,
    base: &'a [f32],
    to: &'a mut [f32],
}

impl Task for Sums<'_> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let c = self.base.len();
        let rows = self.x.len() / c;
        let (sums, squares) = self.to.split_at_mut(c);
        for (i, (sum, square)) in sums.iter_mut().zip(squares).enumerate() {
            let base = self.base.get(i).copied().unwrap_or_default();
            let (mut s, mut q) = (0.0, 0.0);
            for row in 0..rows {
                let d = self.x.number(row * c + i) - base;
                s += d;
                q = M::fma(d, d, q);
            }
            (*sum, *square) = (s, q);
        }
    }
}

/// (x − mean) · factor + shift per channel, then the activation.
struct Apply<'a> {
    x: Input<'a>,
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
        for (i, out) in self.out.chunks_exact_mut(c / each).enumerate() {
            by_parts!(M, out, self.rounded, c, |first, part| {
                let from = |x: &'a [f32]| x.get(first..).unwrap_or_default();
                let channels = from(means).iter().zip(from(factors)).zip(from(shifts));
                let mut room = [0.0; PART];
                let x = self.x.part(i * c + first, part.len());
                let x = x.widened::<M::Vector>(&mut room);
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
/// Errors when lengths do not fit, and for rounded rows of more than [`WIDEST`] numbers.
pub fn layer_norm<'a>(
    cpu: Cpu,
    x: impl Into<Input<'a>>,
    affine: Affine<'_>,
    out: impl Into<Output<'a>>,
) -> Result<()> {
    let (x, out) = (x.into(), out.into());
    check("layer_norm", x.len(), affine, affine.shift.len(), out.len())?;
    rows(cpu, x, affine, Kind::Layer, out)
}

/// Divides each row of `x` by its root mean square (Zhang and Sennrich 2019, arXiv 1910.07467) into
/// `out`; the shift is not used.
///
/// Errors when lengths do not fit.
pub fn rms_norm(cpu: Cpu, x: &[f32], affine: Affine<'_>, out: &mut [f32]) -> Result<()> {
    check("rms_norm", x.len(), affine, affine.scale.len(), out.len())?;
    rows(cpu, x.into(), affine, Kind::Rms, out.into())
}

pub(crate) fn check(
    operation: &'static str,
    x: usize,
    affine: Affine<'_>,
    shifts: usize,
    out: usize,
) -> Result<()> {
    let c = affine.scale.len();
    if c > 0 && shifts == c && x == out && x.is_multiple_of(c) {
        return Ok(());
    }
    let what = format!("{x} numbers into {out}, {c} scales, {shifts} shifts");
    Err(mismatch(operation, what))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Layer,
    Rms,
}

/// Most numbers of a rounded row that a norm reads.
pub const WIDEST: usize = 2048;

fn rows(cpu: Cpu, x: Input<'_>, affine: Affine<'_>, kind: Kind, out: Output<'_>) -> Result<()> {
    let c = affine.scale.len();
    let suits = norm_vectors::suits(c) && kind == Kind::Layer;
    if matches!((x, &out), (Input::Rounded(_), Output::Rounded(_))) && suits {
        // Of any width.
    } else if matches!(x, Input::Rounded(_)) && (c > WIDEST || !c.is_multiple_of(2)) {
        let what = format!("{c} rounded numbers in a row, must be even and at most {WIDEST}");
        return Err(mismatch("norm", what));
    }
    let (out, rounded) = places(cpu, c, out)?;
    let each = if rounded { 2 } else { 1 };
    by_rows(out, c / each, |first, out| {
        let work = ByRow {
            x: x.part(first * c, each * out.len()),
            out,
            rounded,
            affine,
            kind,
        };
        match rounded {
            false => cpu.run(work),
            true if suits => {
                let ByRow { x, out, affine, .. } = work;
                cpu.wide(norm_vectors::Layer { x, out, affine });
            }
            true => cpu.run_at(Precision::Bf16, work),
        }
    });
    Ok(())
}

struct ByRow<'a> {
    x: Input<'a>,
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
        let mut room = [0.0; WIDEST];
        for (i, out) in self.out.chunks_exact_mut(c / each).enumerate() {
            let x = self.x.part(i * c, c).widened::<M::Vector>(&mut room);
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
                let x = x.get(first..).unwrap_or_default();
                for ((out, x), (s, b)) in part.iter_mut().zip(x).zip(channels) {
                    *out = M::fma((x - mean) * factor, *s, *b);
                }
            });
        }
    }
}
