//! Scores to weights, a row at a time.
//!
//! For: attention, which takes keys in blocks and so knows a row's sum only at the end. Not for: the
//! softmax of whole rows (`slices`), or elementary functions of plain loops (`math`).

use crate::isa::Micro;
use crate::math::{LANES, fold};
use crate::vector::{self, PAIR, Vector};
use crate::vector_math::exp;

/// How good an exponential has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    /// eˣ to 2 units in the last place (Cephes' polynomial).
    Exact,
    /// 2ˣ to 1e-4 of it, for any x: see [`Vector::exp2`]. For weights that are rounded to bf16.
    Coarse,
}

impl Power {
    /// What a score is multiplied with besides its scale.
    pub fn base(self) -> f32 {
        match self {
            Power::Exact => 1.0,
            Power::Coarse => std::f32::consts::LOG2_E,
        }
    }

    /// The power of `x` ≤ 0; at the far end the smallest normal number or so, or 0 ([`Power::Coarse`]).
    #[inline(always)]
    fn of<V: Vector>(self, x: V) -> V {
        match self {
            Power::Exact => exp(x),
            Power::Coarse => x.exp2(),
        }
    }

    /// [`Power::of`] one number.
    #[inline(always)]
    pub fn of_one<M: Micro>(self, x: f32) -> f32 {
        vector::fold(self.of(M::Vector::splat(x)), |first, _| first)
    }
}

/// Calls `f` with every vector of `x`, whole lines of [`LANES`] numbers, and where it begins; the sum of
/// what comes back, kept in as many lanes on every path.
#[inline(always)]
fn sum<V: Vector>(x: &[f32], mut f: impl FnMut(usize, V) -> V) -> f32 {
    let mut sums = [V::splat(0.0); LANES / 4];
    let vectors = LANES / V::LANES;
    for (line, x) in x.as_chunks::<LANES>().0.iter().enumerate() {
        for (i, sum) in sums.iter_mut().enumerate().take(vectors) {
            let at = i * V::LANES;
            // SAFETY: vectors share a line out evenly.
            let x = unsafe { V::load(x.as_ptr().add(at)) };
            *sum = sum.add(f(line * LANES + at, x));
        }
    }
    let mut lanes = [0.0; LANES];
    for (i, sum) in sums.iter().enumerate().take(vectors) {
        // SAFETY: as above.
        unsafe { sum.store(lanes.as_mut_ptr().add(i * V::LANES)) };
    }
    fold(lanes, |a, b| a + b)
}

/// The power of scale · x − top ≤ 0 in the place of every x of `row`, whole lines of [`LANES`] numbers;
/// their sum.
#[inline(always)]
pub(crate) fn weigh<M: Micro>(power: Power, scale: f32, top: f32, row: &mut [f32]) -> f32 {
    let (scale, top) = (M::Vector::splat(scale), M::Vector::splat(-top));
    let to = row.as_mut_ptr();
    // SAFETY: lines of the same row, whose length is that of the loop below.
    let row = unsafe { std::slice::from_raw_parts(to.cast_const(), row.len()) };
    sum(row, |at, x: M::Vector| {
        let y = power.of(x.fma(scale, top));
        // SAFETY: inside the row, and read before.
        unsafe { y.store(to.add(at)) };
        y
    })
}

/// [`weigh`] for a row in parts of whole vectors; to `sums` are added, number by number of a vector, the
/// powers and the powers times what `d`, as long, has in their places.
#[inline(always)]
pub(crate) fn weigh_more<V: Vector>(
    power: Power,
    (scale, top): (f32, f32),
    part: &mut [f32],
    d: &[f32],
    sums: (V, V),
) -> (V, V) {
    let (scale, top) = (V::splat(scale), V::splat(-top));
    let (mut total, mut product) = sums;
    for (x, d) in part
        .chunks_exact_mut(V::LANES)
        .zip(d.chunks_exact(V::LANES))
    {
        // SAFETY: a vector's numbers each.
        unsafe {
            let y = power.of(V::load(x.as_ptr()).fma(scale, top));
            y.store(x.as_mut_ptr());
            total = total.add(y);
            product = y.fma(V::load(d.as_ptr()), product);
        }
    }
    (total, product)
}

/// The largest of `part`, whole vectors, and `top`, number by number of a vector.
#[inline(always)]
pub(crate) fn highest<V: Vector>(part: &[f32], top: V) -> V {
    let mut top = top;
    for x in part.chunks_exact(V::LANES) {
        // SAFETY: a vector's numbers.
        top = unsafe { V::load(x.as_ptr()) }.max(top);
    }
    top
}

/// Stores 2^(scale · x − top) for every x of `row`, whole lines of [`PAIR`] numbers, as bf16 in `to`, two to a
/// place, and adds them to `total`, number by number of a vector: see [`Vector::weigh`].
#[inline(always)]
pub(crate) fn weigh_rounded<V: Vector>(
    (scale, top): (f32, f32),
    row: &[f32],
    to: &mut [f32],
    mut total: V,
) -> V {
    let line = V::line(scale, top);
    if row.len() > 2 * to.len() {
        debug_assert!(false, "no room for the weights");
        return total;
    }
    let to = to.as_mut_ptr().cast::<u16>();
    for (i, x) in row.chunks_exact(PAIR).enumerate() {
        // SAFETY: so many numbers; it was checked that there are as many places.
        total = unsafe { V::weigh(line, x.as_ptr(), to.add(i * PAIR), total) };
    }
    total
}

/// The largest of `row`, whole vectors, scaled, to 1/256: what [`Vector::weigh`] takes off exactly.
#[inline(always)]
pub(crate) fn top<V: Vector>(row: &[f32], scale: f32) -> f32 {
    let largest = highest(row, V::splat(f32::NEG_INFINITY));
    let largest = vector::fold(largest, |a, b| if b > a { b } else { a });
    (256.0 * scale * largest).round_ties_even() / 256.0
}

/// Makes `least` of what is less.
#[inline(always)]
pub(crate) fn lift(row: &mut [f32], least: f32) {
    row.iter_mut()
        .filter(|x| **x < least)
        .for_each(|x| *x = least);
}

/// Makes zeros of the bf16 numbers in `places` from `from` on.
#[inline(always)]
pub(crate) fn hide(places: &mut [f32], from: usize) {
    let mut rest = places.iter_mut().skip(from / 2);
    if from % 2 == 1
        && let Some(half) = rest.next()
    {
        *half = f32::from_bits(half.to_bits() & 0xFFFF);
    }
    rest.for_each(|x| *x = 0.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Precision, Task};
    use crate::pack::to_bf16;
    use crate::vector::Wide;
    use crate::{Cpu, CpuPath};

    const TOP: f32 = 1.5;
    const SCALE: f32 = 0.25;

    /// A row's weights, and its sum, with rounding and without.
    struct Both<'a>(&'a [f32]);

    impl Task for Both<'_> {
        type Out = (Vec<f32>, f32, Vec<f32>, f32);
        #[inline(always)]
        fn run<M: Micro>(self) -> Self::Out {
            let mut exact = self.0.to_vec();
            let sum = weigh::<M>(Power::Exact, SCALE, TOP, &mut exact);
            let mut rounded = vec![f32::NAN; self.0.len() / 2 + 3];
            let by = (SCALE * Power::Coarse.base(), TOP * Power::Coarse.base());
            let zero = M::Vector::splat(0.0);
            let coarse = weigh_rounded(by, self.0, &mut rounded, zero);
            (exact, sum, rounded, vector::fold(coarse, |a, b| a + b))
        }
    }

    #[test]
    fn rows_become_weights_on_every_path() {
        let x: Vec<f32> = (0..64).map(|i| 6.0 - 1.37 * i as f32).collect();
        let want: Vec<f64> = (x.iter())
            .map(|x| f64::from(SCALE * x - TOP).exp())
            .collect();
        let total: f64 = want.iter().sum();
        for cpu in cpus() {
            let (exact, sum, rounded, coarse) = cpu.run_at(Precision::Bf16, Both(&x));
            assert!((f64::from(sum) - total).abs() < 1e-6 * total, "{cpu}");
            // By a table the total is that of what was stored, and t is rounded to 1/256 besides (1.4e-3 of a power).
            let table = cpu.wide(ByTable);
            let stored = rounded.iter().take(32).flat_map(both).sum::<f64>();
            let (total, near) = if table { (stored, 1e-6) } else { (total, 2e-4) };
            assert!((f64::from(coarse) - total).abs() < near * total, "{cpu}");
            let near = if table { 6e-3 } else { 5e-3 };
            for (i, (y, want)) in exact.iter().zip(&want).enumerate() {
                let bits = rounded[i / 2].to_bits() >> (16 * (i % 2)) << 16;
                let short = f64::from(f32::from_bits(bits));
                assert!((f64::from(*y) - want).abs() < 1e-6 * want, "{cpu}: {i}");
                assert!((short - want).abs() < near * want, "{cpu}: {i}");
            }
            assert!(rounded[32..].iter().all(|x| x.is_nan()), "{cpu}");
        }
    }

    /// The two bf16 numbers of a place.
    fn both(place: &f32) -> [f64; 2] {
        let bits = [place.to_bits() << 16, place.to_bits() & 0xFFFF_0000];
        bits.map(|bits| f64::from(f32::from_bits(bits)))
    }

    /// Whether a path's vectors weigh by a table: what they add up is what they store.
    struct ByTable;

    impl Wide for ByTable {
        type Out = bool;
        #[inline(always)]
        fn run<V: Vector>(self) -> bool {
            let mut to = [0_u16; PAIR];
            // SAFETY: so many numbers each.
            let total = unsafe {
                let line = V::line(1.0, 0.4);
                V::weigh(line, [0.0; PAIR].as_ptr(), to.as_mut_ptr(), V::splat(0.0))
            };
            let stored = f32::from_bits(u32::from(to[0]) << 16);
            vector::fold(total, |a, b| a + b) == PAIR as f32 * stored
        }
    }

    /// 2^(x − top) of a row as bf16, and whether its total is beyond `far`.
    struct Rounded<'a>(&'a [f32], f32, f32);

    impl Task for Rounded<'_> {
        type Out = (Vec<f64>, bool);
        #[inline(always)]
        fn run<M: Micro>(self) -> Self::Out {
            let mut to = vec![0.0; self.0.len() / 2];
            let zero = M::Vector::splat(0.0);
            let total = weigh_rounded((1.0, self.1), self.0, &mut to, zero);
            (to.iter().flat_map(both).collect(), total.exceeds(self.2))
        }
    }

    fn cpus() -> impl Iterator<Item = Cpu> {
        let real = CpuPath::ALL.into_iter().filter_map(|p| Cpu::new(p).ok());
        real.chain([Cpu::emulated_amx()])
    }

    #[test]
    fn rounded_weights_are_right_on_average_at_every_fraction() {
        // 1/1024 apart, below the top and above it.
        let x: Vec<f32> = (0..64 * 1024).map(|i| 8.0 - i as f32 / 1024.0).collect();
        for cpu in cpus() {
            for top in [0.0, 3.0 + 77.0 / 256.0, -60.0] {
                let (y, far) = cpu.run_at(Precision::Bf16, Rounded(&x, top, 1e30));
                assert!(!far, "{cpu}");
                let off = |(y, x): (&f64, &f32)| y / f64::from(x - top).exp2() - 1.0;
                let off: Vec<f64> = y.iter().zip(&x).map(off).collect();
                for octave in off.chunks(1024) {
                    let mean = octave.iter().sum::<f64>() / 1024.0;
                    let most = octave.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
                    let allowed = if cpu.wide(ByTable) { 7e-3 } else { 5e-3 };
                    assert!(mean.abs() < 4e-4 && most < allowed, "{cpu}: {mean}, {most}");
                }
            }
        }
    }

    #[test]
    fn scores_far_above_the_top_are_noticed_and_far_below_it_are_nothing() {
        for cpu in cpus() {
            for high in [
                70.0,
                127.0,
                129.0,
                200.0,
                300.0,
                4e4,
                1e9,
                f32::MAX,
                f32::INFINITY,
            ] {
                for at in [0, 15, 16, 31, 37] {
                    let mut x = [-1.0; 64];
                    x[at] = high;
                    let far = |top| cpu.run_at(Precision::Bf16, Rounded(&x, top, 1e19)).1;
                    assert!(far(0.0), "{cpu}: {high}");
                    assert!(high > 1e3 || !far(high - 2.0), "{cpu}: {high}");
                }
            }
            for low in [-130.0, -300.0, -3e4, -1e9, f32::MIN, f32::NEG_INFINITY] {
                let (y, far) = cpu.run_at(Precision::Bf16, Rounded(&[low; 32], 0.0, 1e-30));
                assert!(
                    !far && y.iter().all(|y| (0.0..1e-37).contains(y)),
                    "{cpu}: {low}"
                );
            }
        }
    }

    #[test]
    fn far_scores_weigh_next_to_nothing_and_no_number_stays_none() {
        let mut x = [f32::MIN; PAIR];
        x[3] = f32::NAN;
        for cpu in CpuPath::ALL.into_iter().filter_map(|p| Cpu::new(p).ok()) {
            let (exact, sum, _, coarse) = cpu.run_at(Precision::Bf16, Both(&x));
            assert!(
                sum.is_nan() && coarse.is_nan() && exact[3].is_nan(),
                "{cpu}"
            );
            assert!((0.0..1e-37).contains(&exact[0]), "{cpu}: {}", exact[0]);
        }
    }

    #[test]
    fn hidden_weights_are_zeros() {
        let both = u32::from(to_bf16(1.0)) | u32::from(to_bf16(2.0)) << 16;
        for from in 0..=6 {
            let mut places = [f32::from_bits(both); 3];
            hide(&mut places, from);
            for i in 0..6 {
                let kept = places[i / 2].to_bits() >> (16 * (i % 2)) & 0xFFFF != 0;
                assert_eq!(kept, i < from, "{from}: {i}");
            }
        }
    }
}
