//! Norms of rows of whole vectors, by name: of plain loops the compiler makes three times as much where
//! numbers are rounded, and as much again where rows are short.
//!
//! For: nearly all norms of our networks. Results that are rounded need exponentials and reciprocals no better
//! than 1e-4. Not for: other rows (`norm`).

use crate::math::Act;
use crate::norm::Affine;
use crate::values::Input;
use crate::vector::{MOST_LANES, Vector, Wide, fold};
use crate::vector_math;

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

/// Vectors of a row whose sums stay in registers.
const RUN: usize = 4;

impl Wide for Sums<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let c = self.base.len();
        if !suits(c) || self.to.len() != 2 * c {
            debug_assert!(false, "sums of other rows");
            return;
        }
        let vectors = c / V::LANES;
        for first in (0..vectors).step_by(RUN) {
            let at = first * V::LANES;
            match vectors - first {
                1 => self.some::<V, 1>(at),
                2 => self.some::<V, 2>(at),
                3 => self.some::<V, 3>(at),
                _ => self.some::<V, RUN>(at),
            }
        }
    }
}

impl Sums<'_> {
    /// The sums of `N` vectors from channel `first` on, which are there.
    #[inline(always)]
    fn some<V: Vector, const N: usize>(&mut self, first: usize) {
        let c = self.base.len();
        let (sums, squares) = self.to.split_at_mut(c);
        let (sums, squares) = (sums.as_mut_ptr(), squares.as_mut_ptr());
        let place = |v: usize| first + v * V::LANES;
        let mut all = [(V::splat(0.0), V::splat(0.0)); N];
        // SAFETY: whole vectors of whole rows, all as long as `base`, and `to` is twice as long.
        unsafe {
            let base: [V; N] = std::array::from_fn(|v| V::load(self.base.as_ptr().add(place(v))));
            for row in 0..self.x.len() / c {
                for (v, (sum, square)) in all.iter_mut().enumerate() {
                    let d = load::<V>(self.x, row * c + place(v)).sub(base[v]);
                    *sum = sum.add(d);
                    *square = d.fma(d, *square);
                }
            }
            for (v, (sum, square)) in all.into_iter().enumerate() {
                sum.store(sums.add(place(v)));
                square.store(squares.add(place(v)));
            }
        }
    }
}

/// (x − mean) · factor + shift per channel, then the activation, none or [`Act::Silu`]: `channels` are all means,
/// all factors and all shifts, and rows [`suits`].
pub(crate) struct Apply<'a> {
    pub x: Input<'a>,
    /// Two numbers in a place where they are rounded.
    pub out: &'a mut [f32],
    pub rounded: bool,
    pub channels: &'a [f32],
    pub act: Act,
}

/// As [`vector_math::silu`], to 1e-4 of x.
#[inline(always)]
fn coarse_silu<V: Vector>(x: V) -> V {
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
        let each = if self.rounded { 2 } else { 1 };
        if !suits(c) || self.x.len() != each * self.out.len() || !self.x.len().is_multiple_of(c) {
            debug_assert!(false, "a norm of other rows");
            return;
        }
        match (self.rounded, self.act == Act::Silu) {
            (false, false) => self.rows::<V, false, false>(),
            (false, true) => self.rows::<V, false, true>(),
            (true, false) => self.rows::<V, true, false>(),
            (true, true) => self.rows::<V, true, true>(),
        }
    }
}

impl Apply<'_> {
    /// What [`Apply`] says, its lengths checked.
    #[inline(always)]
    fn rows<V: Vector, const ROUNDED: bool, const SILU: bool>(self) {
        let c = self.channels.len() / 3;
        let channels = self.channels.as_ptr();
        let out = self.out.as_mut_ptr();
        for row in 0..self.x.len() / c {
            for i in (0..c).step_by(V::LANES) {
                // SAFETY: whole vectors of whole rows; `channels` is three times as long as one, and `out` has
                // a place for every number, or for every two.
                unsafe {
                    let x: V = load(self.x, row * c + i);
                    let d = x.sub(V::load(channels.add(i)));
                    let factor = V::load(channels.add(c + i));
                    let y = d.fma(factor, V::load(channels.add(2 * c + i)));
                    let y = match (SILU, ROUNDED) {
                        (false, _) => y,
                        (true, false) => vector_math::silu(y),
                        (true, true) => coarse_silu(y),
                    };
                    match ROUNDED {
                        false => y.store(out.add(row * c + i)),
                        true => y.store_bf16(out.cast::<u16>().add(row * c + i)),
                    }
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
