//! What moves or combines numbers, and functions of single ones, over odd shapes: against the plainest loops.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use proptest::prelude::*;
use semblance_kernels::*;
use support::{ACTS, close, noise, paths, plain_act};

/// Every channel of every place of `s`, in order.
fn places(s: Size) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..s.n)
        .flat_map(move |n| (0..s.h).map(move |y| (n, y)))
        .flat_map(move |(n, y)| (0..s.w).map(move |x| (n, y, x)))
        .flat_map(move |(n, y, x)| (0..s.c).map(move |c| (n, y, x, c)))
}

/// Where the number of channel `c` at (y, x) of sample `n` lies.
fn at(s: Size, (n, y, x, c): (usize, usize, usize, usize)) -> usize {
    ((n * s.h + y) * s.w + x) * s.c + c
}

/// There and back between `s` and `h × w`.
fn check_upsample(s: Size, h: usize, w: usize) {
    let to = Size { h, w, ..s };
    let (x, g) = (noise(s.len().unwrap(), 1), noise(to.len().unwrap(), 2));
    let (mut y, mut back) = (vec![f32::NAN; g.len()], vec![f32::NAN; x.len()]);
    upsample(&x, s, h, w, &mut y).unwrap();
    upsample_cotangent(&g, to, s.h, s.w, &mut back).unwrap();
    let mut sums = vec![0.0; x.len()];
    for (place, (y, g)) in places(to).zip(y.iter().zip(&g)) {
        let (n, i, j, c) = place;
        let from = at(s, (n, i * s.h / h, j * s.w / w, c));
        assert_eq!(*y, x[from], "{s:?} to {h} × {w} at {place:?}");
        sums[from] += f64::from(*g);
    }
    close(paths()[0], "upsample cotangent", &back, &sums, 5e-6);
}

/// Two maps of `s` of `s.c` and of `others` channels side by side, and a part of the channels of both.
fn check_concat(s: Size, others: usize, (first, count): (usize, usize)) {
    let rows = s.n * s.h * s.w;
    let (a, b) = (noise(rows * s.c, 3), noise(rows * others, 4));
    let width = s.c + others;
    let mut all = vec![f32::NAN; rows * width];
    concat(&a, &b, (s.c, others), &mut all).unwrap();
    for (i, x) in all.iter().enumerate() {
        let (row, c) = (i / width, i % width);
        let want = match c < s.c {
            true => a[row * s.c + c],
            false => b[row * others + c - s.c],
        };
        assert_eq!(*x, want, "row {row}, {c}");
    }
    let first = first % width;
    let count = 1 + count % (width - first);
    let mut part = vec![f32::NAN; rows * count];
    columns(&all, width, (first, count), &mut part).unwrap();
    for (i, x) in part.iter().enumerate() {
        assert_eq!(*x, all[i / count * width + first + i % count]);
    }
}

fn check_sum_rows(s: Size) {
    let x = noise(s.len().unwrap(), 5);
    let mut want = vec![0.0; s.n * s.c];
    for (place, x) in places(s).zip(&x) {
        want[place.0 * s.c + place.3] += f64::from(*x);
    }
    let mut sums = vec![f32::NAN; want.len()];
    sum_rows(&x, s.c, &mut sums).unwrap();
    close(paths()[0], "sum of rows", &sums, &want, 1e-5);
}

fn check_max_pool(s: Size, by: usize) {
    let x: Vec<f32> = noise(s.len().unwrap(), 6).iter().map(|x| x - 0.5).collect();
    let to = Size {
        h: s.h / by,
        w: s.w / by,
        ..s
    };
    let mut out = vec![f32::NAN; to.len().unwrap()];
    let done = max_pool(&x, s, by, &mut out);
    assert_eq!(done.is_ok(), !out.is_empty(), "{s:?} by {by}");
    for ((n, i, j, c), found) in places(to).zip(&out) {
        let window = (0..by).flat_map(|y| (0..by).map(move |x| (y, x)));
        let window = window.map(|(y, xx)| x[at(s, (n, i * by + y, j * by + xx, c))]);
        let want = window.fold(f32::MIN, f32::max);
        assert_eq!(*found, want, "{s:?} by {by}: {n}, {i}, {j}, {c}");
    }
}

fn check_softmax(rows: usize, width: usize, sharp: f32) {
    let x: Vec<f32> = (noise(rows * width, 20).iter())
        .map(|x| sharp * x)
        .collect();
    let mut want = Vec::new();
    for row in x.chunks_exact(width) {
        let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        want.extend(row.iter().map(|x| f64::from(*x).exp() / total));
    }
    for cpu in paths() {
        let mut y = x.clone();
        softmax(cpu, width, &mut y).unwrap();
        close(cpu, "softmax", &y, &want, 1e-6);
        for row in y.chunks_exact(width) {
            let sum: f64 = row.iter().map(|x| f64::from(*x)).sum();
            assert!((sum - 1.0).abs() < 3e-6, "{cpu}: {sum} is not all");
        }
    }
}

fn check_activate(len: usize, act: Act, wide: f32) {
    let x: Vec<f32> = noise(len, 21).iter().map(|x| wide * x).collect();
    let want: Vec<f64> = x.iter().map(|x| plain_act(act, f64::from(*x))).collect();
    for cpu in paths() {
        let mut y = x.clone();
        activate(cpu, act, &mut y);
        close(cpu, "act", &y, &want, 4e-6);
    }
}

fn check_combine(len: usize, weights: &[f32]) {
    let seeds = 30..;
    let numbers: Vec<_> = (weights.iter().zip(seeds))
        .map(|(_, s)| noise(len, s))
        .collect();
    let mut want = vec![0.0; len];
    for (weight, x) in weights.iter().zip(&numbers) {
        for (want, x) in want.iter_mut().zip(x) {
            *want += f64::from(*weight) * f64::from(*x);
        }
    }
    let terms: Vec<_> = (weights.iter().zip(&numbers))
        .map(|(w, x)| (*w, &x[..]))
        .collect();
    for cpu in paths() {
        let mut out = vec![f32::NAN; len];
        combine(cpu, &terms, &mut out).unwrap();
        close(cpu, "combine", &out, &want, 1e-6);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn what_is_moved_lies_where_it_should_at_any_size(
        n in 1..3_usize, h in 1..9_usize, w in 1..9_usize, c in 1..20_usize, others in 1..20_usize,
        taller in 1..20_usize, wider in 1..20_usize, first in 0..40_usize, count in 0..40_usize,
    ) {
        let s = Size { n, h, w, c };
        check_upsample(s, taller, wider);
        check_concat(s, others, (first, count));
        check_sum_rows(s);
    }

    #[test]
    fn the_largest_number_of_every_whole_window_is_found(
        n in 1..3_usize, h in 1..20_usize, w in 1..20_usize, c in 1..20_usize, by in 1..6_usize,
    ) {
        check_max_pool(Size { n, h, w, c }, by);
    }

    #[test]
    fn rows_of_any_width_have_their_softmax(
        rows in 1..300_usize, width in 1..300_usize, sharp in 0.1..9.0_f32,
    ) {
        check_softmax(rows, width, sharp);
    }

    #[test]
    fn activations_are_their_functions_over_any_length(
        len in 1..50_000_usize, act in 0..5_usize, wide in 0.1..7.0_f32,
    ) {
        check_activate(len, ACTS[act], wide);
    }

    #[test]
    fn combinations_are_their_sums_over_any_length(
        len in 1..50_000_usize, weights in prop::collection::vec(-2.0..2.0_f32, 1..6),
    ) {
        check_combine(len, &weights);
    }
}

#[test]
fn large_maps_are_moved_by_several_threads_and_misfits_are_refused() {
    let (n, h, w, c) = (2, 33, 31, 40);
    let s = Size { n, h, w, c };
    check_upsample(s, 66, 62);
    check_upsample(s, 20, 70);
    check_concat(s, 24, (7, 50));
    check_concat(s, 1, (40, 0));
    check_sum_rows(s);
    check_max_pool(s, 2);
    let mut out = [7.0; 6];
    let s = Size {
        n: 1,
        h: 2,
        w: 3,
        c: 1,
    };
    assert!(columns(&[0.0; 8], 4, (2, 3), &mut out).is_err());
    assert!(columns(&[0.0; 8], 4, (0, 0), &mut []).is_err());
    assert!(columns(&[0.0; 7], 4, (0, 3), &mut out).is_err());
    assert!(upsample_cotangent(&[0.0; 5], s, 2, 3, &mut out).is_err());
    assert!(upsample_cotangent(&[0.0; 6], s, 0, 3, &mut []).is_err());
    assert!(sum_rows(&[0.0; 13], 6, &mut out).is_err());
    assert!(sum_rows(&[], 6, &mut out).is_err());
    assert_eq!(out, [7.0; 6]);
}

#[test]
fn softmax_activations_and_combinations_are_theirs() {
    let x: Vec<f32> = noise(37 * 41, 20).iter().map(|x| 9.0 * x).collect();
    let want = |f: &dyn Fn(f64) -> f64| x.iter().map(|x| f(f64::from(*x))).collect::<Vec<_>>();
    for cpu in paths() {
        for act in ACTS {
            let mut y = x.clone();
            activate(cpu, act, &mut y);
            close(cpu, "act", &y, &want(&|x| plain_act(act, x)), 4e-6);
        }
        let mut y = x.clone();
        softmax(cpu, 41, &mut y).unwrap();
        let rows: Vec<f64> = (x.chunks_exact(41))
            .flat_map(|row| {
                let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
                row.iter().map(move |x| f64::from(*x).exp() / total)
            })
            .collect();
        close(cpu, "softmax", &y, &rows, 1e-6);
        combine(cpu, &[(2.0, &x), (-0.5, &x)], &mut y).unwrap();
        close(cpu, "combine", &y, &want(&|x| 1.5 * x), 1e-6);
        // Far from zero an exponential neither overflows nor turns into something else.
        let mut far = [-1e30, -90.0, 90.0, 1e30, f32::NAN];
        activate(cpu, Act::Silu, &mut far);
        assert!(far[0].abs() < 1e-3 && far[1].abs() < 1e-3 && far[2] == 90.0 && far[3] == 1e30);
        assert!(far[4].is_nan());
    }
}

#[test]
fn moving_numbers_changes_none() {
    let from = Size {
        n: 1,
        h: 2,
        w: 2,
        c: 1,
    };
    let mut out = [0.0; 12];
    upsample(&[1., 2., 3., 4.], from, 3, 4, &mut out).unwrap();
    assert_eq!(out, [1., 1., 2., 2., 1., 1., 2., 2., 3., 3., 4., 4.]);
    let mut out = [0.0; 6];
    concat(&[1., 2., 3., 4.], &[5., 6.], (2, 1), &mut out).unwrap();
    assert_eq!(out, [1., 2., 5., 3., 4., 6.]);
    // Two channels; the last column belongs to no whole window.
    let (h, w) = (2, 3);
    let x = [1., -8., 2., -7., 9., 9., 4., -6., 3., -5., 9., 9.];
    let mut out = [0.0; 2];
    max_pool(&x, Size { h, w, c: 2, n: 1 }, 2, &mut out).unwrap();
    assert_eq!(out, [4., -5.]);
    assert!(max_pool(&x, Size { h, w, c: 2, n: 1 }, 3, &mut out).is_err());
    assert!(max_pool(&x, Size { h, w, c: 2, n: 1 }, 0, &mut out).is_err());
}
