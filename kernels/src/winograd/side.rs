//! A convolution of three weights along one side of a tile, by products of transformed numbers.
//!
//! Toom and Cook's scheme as Winograd uses it: polynomials are multiplied by their values at some
//! points. What is gained is products: m + 2 of them for m results instead of 3 m.

use crate::vector::Vector;

/// Most results and inputs along a side.
pub(super) const MOST_OUT: usize = 4;
pub(super) const MOST_IN: usize = MOST_OUT + 2;

/// The transforms along one side. Results = output(input(x) ⊙ W), where W = [`Side::WEIGHTS`] · weights.
pub(super) trait Side {
    /// Results along the side, and inputs and products: two more.
    const OUT: usize;
    const IN: usize;

    /// [`Side::IN`] rows: of three weights, the factor of every product.
    const WEIGHTS: [[f32; 3]; MOST_IN];

    /// What is the factor of each product when the three weights come in reverse order: so much times
    /// that factor of the weights as they are. The points are each other's inverses, so this is all.
    const TURNED: [(f32, usize); MOST_IN];

    /// The first [`Side::IN`] numbers, transformed; the others mean nothing.
    fn input<V: Vector>(x: [V; MOST_IN]) -> [V; MOST_IN];

    /// [`Side::OUT`] results from the first [`Side::IN`] products; the others mean nothing.
    fn output<V: Vector>(m: [V; MOST_IN]) -> [V; MOST_OUT];
}

/// Two results from four products: the points 0, 1, −1 and ∞ (Lavin and Gray 2016, arXiv 1509.09308).
pub(super) struct Two;

impl Side for Two {
    const OUT: usize = 2;
    const IN: usize = 4;

    const WEIGHTS: [[f32; 3]; MOST_IN] = [
        [1.0, 0.0, 0.0],
        [0.5, 0.5, 0.5],
        [0.5, -0.5, 0.5],
        [0.0, 0.0, 1.0],
        [0.0; 3],
        [0.0; 3],
    ];

    const TURNED: [(f32, usize); MOST_IN] =
        [(1.0, 3), (1.0, 1), (1.0, 2), (1.0, 0), (0.0, 4), (0.0, 5)];

    #[inline(always)]
    fn input<V: Vector>(x: [V; MOST_IN]) -> [V; MOST_IN] {
        [
            x[0].sub(x[2]),
            x[1].add(x[2]),
            x[2].sub(x[1]),
            x[3].sub(x[1]),
            x[4],
            x[5],
        ]
    }

    #[inline(always)]
    fn output<V: Vector>(m: [V; MOST_IN]) -> [V; MOST_OUT] {
        let first = m[0].add(m[1]).add(m[2]);
        let second = m[1].sub(m[2]).add(m[3]);
        [first, second, m[2], m[3]]
    }
}

/// Four results from six products: the points 0, ±√½, ±√2 and ∞, whose rounding is half of that of
/// the usual 0, ±1, ±2 and ∞ (the choice of points: Barabasz et al. 2020, arXiv 1803.10986).
pub(super) struct Four;

/// √½, the smaller point; the larger is twice that.
const P: f32 = std::f32::consts::FRAC_1_SQRT_2;

impl Side for Four {
    const OUT: usize = 4;
    const IN: usize = 6;

    const WEIGHTS: [[f32; 3]; MOST_IN] = [
        [1.0, 0.0, 0.0],
        [-2.0 / 3.0, -2.0 / 3.0 * P, -1.0 / 3.0],
        [-2.0 / 3.0, 2.0 / 3.0 * P, -1.0 / 3.0],
        [1.0 / 6.0, P / 3.0, 1.0 / 3.0],
        [1.0 / 6.0, -P / 3.0, 1.0 / 3.0],
        [0.0, 0.0, 1.0],
    ];

    const TURNED: [(f32, usize); MOST_IN] = [
        (1.0, 5),
        (-2.0, 3),
        (-2.0, 4),
        (-0.5, 1),
        (-0.5, 2),
        (1.0, 0),
    ];

    #[inline(always)]
    fn input<V: Vector>(x: [V; MOST_IN]) -> [V; MOST_IN] {
        let (minus_half, minus_two) = (V::splat(-0.5), V::splat(-2.0));
        let (minus_five_halves, p) = (V::splat(-2.5), V::splat(P));
        let (minus_p, two_p) = (V::splat(-P), V::splat(2.0 * P));
        let minus_two_p = V::splat(-2.0 * P);
        // x(x² − 2) and x(x² − ½) without their points, even and odd parts.
        let even_near = x[2].fma(minus_two, x[4]);
        let odd_near = x[1].fma(minus_two, x[3]);
        let even_far = x[2].fma(minus_half, x[4]);
        let odd_far = x[1].fma(minus_half, x[3]);
        [
            x[2].fma(minus_five_halves, x[0].add(x[4])),
            odd_near.fma(p, even_near),
            odd_near.fma(minus_p, even_near),
            odd_far.fma(two_p, even_far),
            odd_far.fma(minus_two_p, even_far),
            x[3].fma(minus_five_halves, x[1].add(x[5])),
        ]
    }

    #[inline(always)]
    fn output<V: Vector>(m: [V; MOST_IN]) -> [V; MOST_OUT] {
        let (near, near_odd) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (far, far_odd) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(near).add(far),
            near_odd
                .mul(V::splat(P))
                .add(far_odd.mul(V::splat(2.0 * P))),
            near.mul(V::splat(0.5)).add(far.add(far)),
            far_odd.fma(V::splat(4.0 * P), near_odd.fma(V::splat(0.5 * P), m[5])),
        ]
    }
}
