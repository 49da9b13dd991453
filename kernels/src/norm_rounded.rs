//! Norms of values that are rounded: vectors by name, for the compiler makes of plain loops over bf16 numbers
//! three times as much.
//!
//! For: rows of whole vectors whose results are rounded, so that exponentials and reciprocals need not be
//! better than 1e-4. Not for: results in f32, and other rows (`norm`).

use crate::math::Act;
use crate::norm::Affine;
use crate::values::Input;
use crate::vector::{MOST_LANES, Vector, Wide, fold};

/// Whether rows of `c` numbers are whole vectors on every path.
pub(crate) fn suits(c: usize) -> bool {
    c > 0 && c.is_multiple_of(MOST_LANES)
}

/// A vector of `x` from number `i` on.
///
/// # Safety
/// They are there.
#[inline(always)]
unsafe fn load<V: Vector>(x: Input<'_>, i: usize) -> V {
    // SAFETY: the caller's promise.
    unsafe {
        match x {
            Input::Plain(x) => V::load(x.as_ptr().add(i)),
            Input::Rounded(x) => V::load_bf16(x.as_ptr().cast::<u16>().add(i)),
        }
    }
}

/// Per channel Σ (x − base) and Σ (x − base)² of some rows, `base` as long as a row, which [`suits`]; `to` is
/// twice as long.
pub(crate) struct Sums<'a> {
    pub x: Input<'a>,
    pub base: &'a [f32],
    pub to: &'a mut [f32],
}

impl Wide for Sums<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let c = self.base.len();
        self.to.fill(0.0);
        if !suits(c) || self.to.len() != 2 * c {
            debug_assert!(false, "sums of other rows");
            return;
        }
        let (sums, squares) = self.to.split_at_mut(c);
        let (sums, squares) = (sums.as_mut_ptr(), squares.as_mut_ptr());
        for row in 0..self.x.len() / c {
            for i in (0..c).step_by(V::LANES) {
                // SAFETY: whole vectors of whole rows, all as long as `base`.
                unsafe {
                    let x: V = load(self.x, row * c + i);
                    let d = x.sub(V::load(self.base.as_ptr().add(i)));
                    V::load(sums.add(i)).add(d).store(sums.add(i));
                    d.fma(d, V::load(squares.add(i))).store(squares.add(i));
                }
            }
        }
    }
}

/// (x − mean) · factor + shift per channel, then the activation, rounded: `channels` are all means, all
/// factors and all shifts, and rows [`suits`].
pub(crate) struct Apply<'a> {
    pub x: Input<'a>,
    pub out: &'a mut [f32],
    pub channels: &'a [f32],
    pub act: Act,
}

/// x · sigmoid(x) to 1e-4 of x: what is positive of x, less |x| e / (1 + e) with e = exp(−|x|).
#[inline(always)]
fn silu<V: Vector>(x: V) -> V {
    let zero = V::splat(0.0);
    let size = zero.sub(x).max(x);
    let e = size.mul(V::splat(-std::f32::consts::LOG2_E)).exp2();
    let part = e.mul(e.add(V::splat(1.0)).reciprocal());
    // Not `x.max(zero)`, which would hide what is not a number.
    zero.max(x).sub(size.mul(part))
}

impl Wide for Apply<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let c = self.channels.len() / 3;
        if !suits(c) || self.x.len() != 2 * self.out.len() || !self.x.len().is_multiple_of(c) {
            debug_assert!(false, "a norm of other rows");
            return;
        }
        let channels = self.channels.as_ptr();
        let out = self.out.as_mut_ptr().cast::<u16>();
        let silus = self.act == Act::Silu;
        for row in 0..self.x.len() / c {
            for i in (0..c).step_by(V::LANES) {
                // SAFETY: whole vectors of whole rows; `channels` is three times as long as one, and `out` has
                // a place for every two numbers.
                unsafe {
                    let x: V = load(self.x, row * c + i);
                    let d = x.sub(V::load(channels.add(i)));
                    let factor = V::load(channels.add(c + i));
                    let mut y = d.fma(factor, V::load(channels.add(2 * c + i)));
                    if silus {
                        y = silu(y);
                    }
                    y.store_bf16(out.add(row * c + i));
                }
            }
        }
    }
}

/// Rows normalised over their channels, rounded; they [`suits`].
pub(crate) struct Layer<'a> {
    pub x: Input<'a>,
    pub out: &'a mut [f32],
    pub affine: Affine<'a>,
}

impl Wide for Layer<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Affine { scale, shift, eps } = self.affine;
        let c = scale.len();
        let fits = self.x.len() == 2 * self.out.len() && self.x.len().is_multiple_of(c.max(1));
        if !suits(c) || shift.len() != c || !fits {
            debug_assert!(false, "a norm of other rows");
            return;
        }
        let out = self.out.as_mut_ptr().cast::<u16>();
        for row in 0..self.x.len() / c {
            let first = row * c;
            // Sums are taken of the distance to the first number, so that a large mean costs no digits.
            let base = self.x.number(first);
            let distance = |i: usize, from: V| -> V {
                // SAFETY: a whole vector of this row.
                unsafe { load::<V>(self.x, first + i) }.sub(from)
            };
            let mut sum = V::splat(0.0);
            for i in (0..c).step_by(V::LANES) {
                sum = sum.add(distance(i, V::splat(base)));
            }
            let mean = base + fold(sum, |a, b| a + b) / c as f32;
            let mut squares = V::splat(0.0);
            for i in (0..c).step_by(V::LANES) {
                let d = distance(i, V::splat(mean));
                squares = d.fma(d, squares);
            }
            let variance = fold(squares, |a, b| a + b) / c as f32;
            let factor = V::splat(1.0 / (variance + eps).sqrt());
            for i in (0..c).step_by(V::LANES) {
                // SAFETY: whole vectors of rows that are as long as the scale and the shift; `out` has a place
                // for every two numbers.
                unsafe {
                    let x = distance(i, V::splat(mean)).mul(factor);
                    let y = x.fma(
                        V::load(scale.as_ptr().add(i)),
                        V::load(shift.as_ptr().add(i)),
                    );
                    y.store_bf16(out.add(first + i));
                }
            }
        }
    }
}
