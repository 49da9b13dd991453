//! Derivatives of what is no product: activations and norms.
//!
//! For: forward mode (a tangent is pushed through) and reverse mode (a cotangent is pulled back). Not
//! for: products, whose derivatives are products ([`crate::Weights::without_bias`],
//! [`crate::Weights::transposed`]), gates (`gates`) and attention (`attention_derivative`).
//!
//! A norm y = act(s · x̂ + b), x̂ = f · (x − mean), has the derivative D P, where D multiplies with
//! s · act′ and P u = f · (u − mean(u) − x̂ · mean(u x̂)) is symmetric: a cotangent goes through P D.

use crate::error::{Result, mismatch};
use crate::isa::{Cpu, Micro, Task};
use crate::math::{self, Act, Sloped};
use crate::memory::with_scratch;
use crate::norm::{self, Affine, block_rows};
use crate::share;
use crate::slices::by_rows;

/// Which way a derivative is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From a change of the input to the change of the result.
    Tangent,
    /// From a gradient to the result to the gradient to the input.
    Cotangent,
}

/// The part of `x` that belongs to the rows of `out` from `first` on.
pub(crate) fn part(x: &[f32], width: usize, first: usize, len: usize) -> &[f32] {
    x.get(first * width..first * width + len)
        .unwrap_or_default()
}

/// `t` times the derivative of `act` at `x`, number by number, into `out`.
///
/// Errors when lengths differ.
pub fn activate_derivative(
    cpu: Cpu,
    act: Act,
    x: &[f32],
    t: &[f32],
    out: &mut [f32],
) -> Result<()> {
    struct Numbers<'a> {
        x: &'a [f32],
        t: &'a [f32],
        out: &'a mut [f32],
    }
    impl Sloped for Numbers<'_> {
        #[inline(always)]
        fn go(self, slope: impl Fn(f32) -> f32) {
            for (out, (x, t)) in self.out.iter_mut().zip(self.x.iter().zip(self.t)) {
                *out = t * slope(*x);
            }
        }
    }
    struct Run<'a>(Act, Numbers<'a>);
    impl Task for Run<'_> {
        type Out = ();
        #[inline(always)]
        fn run<M: Micro>(self) {
            math::with_slope::<M>(self.0, self.1);
        }
    }
    if x.len() != out.len() || t.len() != out.len() {
        let what = format!("{} and {} numbers into {}", x.len(), t.len(), out.len());
        return Err(mismatch("activate_derivative", what));
    }
    by_rows(out, 1, |first, out| {
        let (x, t) = (part(x, 1, first, out.len()), part(t, 1, first, out.len()));
        cpu.run(Run(act, Numbers { x, t, out }));
    });
    Ok(())
}

/// What [`crate::group_norm`] is told besides its input.
#[derive(Clone, Copy, Debug)]
pub struct GroupNorm<'a> {
    /// Samples that lie one after the other.
    pub samples: usize,
    /// Runs of channels.
    pub groups: usize,
    /// Scale and shift.
    pub affine: Affine<'a>,
    /// What follows.
    pub act: Act,
}

/// `t` through the derivative of [`crate::group_norm`] at `x`, into `out`.
///
/// Errors when lengths do not fit.
pub fn group_norm_derivative(
    cpu: Cpu,
    x: &[f32],
    t: &[f32],
    norm: GroupNorm<'_>,
    way: Way,
    out: &mut [f32],
) -> Result<()> {
    let GroupNorm {
        samples,
        groups,
        affine,
        act,
    } = norm;
    norm::check_groups(
        "group_norm_derivative",
        x.len(),
        samples,
        groups,
        affine,
        out.len(),
    )?;
    if t.len() != x.len() {
        let what = format!("{} numbers for {}", t.len(), x.len());
        return Err(mismatch("group_norm_derivative", what));
    }
    let c = affine.scale.len();
    let sample = x.len() / samples;
    let blocks = (sample / c).div_ceil(block_rows(sample / c));
    // Per block and channel two sums; per channel a one, mean, factor, shift, and the means of what is
    // projected and of its product with x̂.
    with_scratch(2 * c * blocks + 6 * c, |scratch| {
        let (parts, rest) = scratch.split_at_mut(2 * c * blocks);
        let (ones, rest) = rest.split_at_mut(c);
        let (channels, means) = rest.split_at_mut(3 * c);
        ones.fill(1.0);
        let plain = Affine {
            scale: ones,
            ..affine
        };
        let each = x.chunks_exact(sample).zip(t.chunks_exact(sample));
        for ((x, t), out) in each.zip(out.chunks_exact_mut(sample)) {
            norm::moments(cpu, x.into(), groups, plain, parts, channels);
            let at = Channels::new(channels, affine.scale);
            // What is projected, and its sums, while it lies in the caches.
            let begin = |x: &[f32], t: &[f32], u: &mut [f32], to: &mut [f32]| {
                u.copy_from_slice(t);
                if way == Way::Cotangent {
                    cpu.run(Through(act, Multiply { x, at, out: u }));
                }
                cpu.run(Sums { x, u, at, to });
            };
            let (rows, pair) = (block_rows(sample / c) * c, 2 * c);
            let begin = |i: usize, u: &mut [f32], to: &mut [f32]| {
                begin(part(x, rows, i, u.len()), part(t, rows, i, u.len()), u, to);
            };
            if share::pays(x.len()) {
                share::both((&mut *out, rows), (&mut *parts, pair), begin);
            } else {
                let all = out.chunks_mut(rows).zip(parts.chunks_mut(pair));
                (all.enumerate()).for_each(|(i, (u, to))| begin(i, u, to));
            }
            average(parts, groups, sample / c, means);
            let means: &[f32] = means;
            by_rows(out, c, |first, out| {
                let x = part(x, c, first, out.len());
                let u = Project {
                    x,
                    at,
                    means,
                    out: &mut *out,
                };
                cpu.run(u);
                if way == Way::Tangent {
                    cpu.run(Through(act, Multiply { x, at, out }));
                }
            });
        }
    })
}

/// What a normalisation does to each channel.
#[derive(Clone, Copy)]
struct Channels<'a> {
    mean: &'a [f32],
    factor: &'a [f32],
    shift: &'a [f32],
    scale: &'a [f32],
}

impl<'a> Channels<'a> {
    fn new(channels: &'a [f32], scale: &'a [f32]) -> Self {
        let (mean, rest) = channels.split_at(scale.len());
        let (factor, shift) = rest.split_at(scale.len());
        Channels {
            mean,
            factor,
            shift,
            scale,
        }
    }
}

/// Multiplies with the scale and the activation's derivative.
struct Through<'a>(Act, Multiply<'a>);

struct Multiply<'a> {
    x: &'a [f32],
    at: Channels<'a>,
    out: &'a mut [f32],
}

impl Task for Through<'_> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        math::with_slope::<M>(self.0, self.1);
    }
}

impl Sloped for Multiply<'_> {
    #[inline(always)]
    fn go(self, slope: impl Fn(f32) -> f32) {
        let at = self.at;
        let c = at.scale.len();
        let rows = self.x.chunks_exact(c).zip(self.out.chunks_exact_mut(c));
        for (x, out) in rows {
            let channels = at
                .mean
                .iter()
                .zip(at.factor)
                .zip(at.shift.iter().zip(at.scale));
            for ((out, x), ((m, f), (b, s))) in out.iter_mut().zip(x).zip(channels) {
                *out *= s * slope((x - m) * f * s + b);
            }
        }
    }
}

/// Per channel Σ u and Σ u x̂ of some rows.
struct Sums<'a> {
    x: &'a [f32],
    u: &'a [f32],
    at: Channels<'a>,
    to: &'a mut [f32],
}

impl Task for Sums<'_> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let at = self.at;
        let c = at.scale.len();
        self.to.fill(0.0);
        let (sums, products) = self.to.split_at_mut(c);
        for (x, u) in self.x.chunks_exact(c).zip(self.u.chunks_exact(c)) {
            let sums = sums.iter_mut().zip(products.iter_mut());
            let channels = at.mean.iter().zip(at.factor).zip(sums);
            for ((x, u), ((m, f), (sum, product))) in x.iter().zip(u).zip(channels) {
                *sum += u;
                *product = M::fma(*u, (x - m) * f, *product);
            }
        }
    }
}

/// The means over each group of what the sums of every block add up to, for every channel.
fn average(parts: &[f32], groups: usize, rows: usize, means: &mut [f32]) {
    let c = means.len() / 2;
    let width = c / groups;
    let count = (rows * width) as f64;
    // Both kinds of sum have the same layout.
    for (kind, means) in means.chunks_exact_mut(c).enumerate() {
        for (group, means) in means.chunks_exact_mut(width).enumerate() {
            let at = kind * c + group * width;
            let own = |block: &[f32]| -> f64 {
                let own = block.get(at..at + width).unwrap_or_default();
                own.iter().map(|x| f64::from(*x)).sum()
            };
            let total: f64 = parts.chunks_exact(2 * c).map(own).sum();
            means.fill((total / count) as f32);
        }
    }
}

/// f · (u − mean(u) − x̂ · mean(u x̂)), in place of u.
struct Project<'a> {
    x: &'a [f32],
    at: Channels<'a>,
    means: &'a [f32],
    out: &'a mut [f32],
}

impl Task for Project<'_> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let at = self.at;
        let c = at.scale.len();
        let (sums, products) = self.means.split_at(c);
        let rows = self.x.chunks_exact(c).zip(self.out.chunks_exact_mut(c));
        for (x, out) in rows {
            let channels = at.mean.iter().zip(at.factor).zip(sums.iter().zip(products));
            for ((out, x), ((m, f), (sum, product))) in out.iter_mut().zip(x).zip(channels) {
                *out = f * M::fma(-(x - m) * f, *product, *out - sum);
            }
        }
    }
}

/// `t` through the derivative of [`crate::layer_norm`] at `x`, into `out`.
///
/// Errors when lengths do not fit.
pub fn layer_norm_derivative(
    cpu: Cpu,
    x: &[f32],
    t: &[f32],
    affine: Affine<'_>,
    way: Way,
    out: &mut [f32],
) -> Result<()> {
    norm::check(
        "layer_norm_derivative",
        x.len(),
        affine,
        affine.shift.len(),
        out.len(),
    )?;
    if t.len() != x.len() {
        let what = format!("{} numbers for {}", t.len(), x.len());
        return Err(mismatch("layer_norm_derivative", what));
    }
    let c = affine.scale.len();
    by_rows(out, c, |first, out| {
        let (x, t) = (part(x, c, first, out.len()), part(t, c, first, out.len()));
        out.copy_from_slice(t);
        cpu.run(ByRow {
            x,
            affine,
            way,
            out,
        });
    });
    Ok(())
}

struct ByRow<'a> {
    x: &'a [f32],
    affine: Affine<'a>,
    way: Way,
    out: &'a mut [f32],
}

impl Task for ByRow<'_> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let Affine { scale, eps, .. } = self.affine;
        let c = scale.len();
        let n = c as f32;
        let rows = self.x.chunks_exact(c).zip(self.out.chunks_exact_mut(c));
        for (x, u) in rows {
            let base = x.first().copied().unwrap_or_default();
            let mean = base + math::sum(x, |x| x - base) / n;
            let variance = math::sum(x, |x| (x - mean) * (x - mean)) / n;
            let factor = 1.0 / (variance + eps).sqrt();
            let scaled = |u: &mut [f32]| u.iter_mut().zip(scale).for_each(|(u, s)| *u *= s);
            if self.way == Way::Cotangent {
                scaled(u);
            }
            let sum = math::sum(u, |u| u) / n;
            let product = math::dot::<M>(u, x, mean) * factor / n;
            for (u, x) in u.iter_mut().zip(x) {
                *u = factor * M::fma(-(x - mean) * factor, product, *u - sum);
            }
            if self.way == Way::Tangent {
                scaled(u);
            }
        }
    }
}
