//! The derivative of every kernel on every path that this CPU has, against the plainest sums that say
//! what it is, over odd shapes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use semblance_kernels::*;
use support::{ACTS, allowed_of, close, difference, near_or_close, noise, paths, plain_act};

/// Largest error of a number that is a sum of `terms` products in f32, beside the number or 1.
fn exact(terms: usize) -> f64 {
    4e-6 * (4.0 + (terms as f64).sqrt())
}

/// Those with a slope everywhere.
const SMOOTH: &[Act] = ACTS.split_at(4).0;

fn check_conv(s: Size, outputs: usize, win: Window) {
    let (Some(h), Some(w)) = (win.output(s.h), win.output(s.w)) else {
        return;
    };
    if win.padding.0.max(win.padding.1) >= win.size {
        let (kernel, bias) = (
            noise(outputs * s.c * win.size * win.size, 5),
            vec![0.0; outputs],
        );
        let conv = Conv::new(paths()[0], &kernel, &bias, s.c, outputs, win).unwrap();
        assert!(conv.transposed(None).is_err());
        return;
    }
    let to = Size {
        h,
        w,
        c: outputs,
        ..s
    };
    let k = win.size;
    let kernel = noise(outputs * s.c * k * k, 5);
    let bias = noise(outputs, 6);
    let (dx, g) = (noise(s.len().unwrap(), 4), noise(to.len().unwrap(), 7));
    let mut push = vec![0.0; g.len()];
    let mut pull = vec![0.0; dx.len()];
    // Places of the kernel that lie on the map, of all positions.
    let mut places = 0;
    for n in 0..s.n {
        for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
            for (dy, dx_) in (0..k).flat_map(|a| (0..k).map(move |b| (a, b))) {
                let row = (y * win.stride + dy).wrapping_sub(win.padding.0);
                let col = (x * win.stride + dx_).wrapping_sub(win.padding.0);
                if row >= s.h || col >= s.w {
                    continue;
                }
                places += 1;
                for o in 0..outputs {
                    let there = ((n * h + y) * w + x) * outputs + o;
                    for i in 0..s.c {
                        let here = ((n * s.h + row) * s.w + col) * s.c + i;
                        let weight = f64::from(kernel[((o * s.c + i) * k + dy) * k + dx_]);
                        push[there] += weight * f64::from(dx[here]);
                        pull[here] += weight * f64::from(g[there]);
                    }
                }
            }
        }
    }
    // Products of two numbers in −1..1 are a ninth in the mean of their squares.
    let usual = f64::from(places) * (s.c * outputs) as f64 / 9.0;
    for cpu in paths() {
        let conv = Conv::new(cpu, &kernel, &bias, s.c, outputs, win).unwrap();
        let mut out = vec![f32::NAN; push.len()];
        let plain = conv.without_bias().unwrap();
        plain.run(&dx, s, Finish::default(), &mut out).unwrap();
        let limits = |to: &[f64], terms: usize| {
            let allowed = allowed_of(cpu, conv.tiling(), terms);
            (usual / to.len() as f64, allowed, exact(terms))
        };
        let limits_there = limits(&push, k * k * s.c);
        near_or_close(cpu, "conv tangent", &out, &push, limits_there);
        let mut out = vec![f32::NAN; pull.len()];
        let back = conv.transposed(None).unwrap();
        back.run(&g, to, s, &mut out).unwrap();
        let mut again = vec![f32::NAN; pull.len()];
        let back = conv.transposed(Some(&used())).unwrap();
        back.run(&g, to, s, &mut again).unwrap();
        assert_eq!(out, again, "conv cotangent on {cpu}, in used memory");
        let limits_back = limits(&pull, k * k * outputs);
        near_or_close(cpu, "conv cotangent", &out, &pull, limits_back);
        assert!(back.run(&g, s, to, &mut out).is_err() || s == to);
    }
}

fn check_linear(rows: usize, inputs: usize, outputs: usize) {
    let (w, bias) = (noise(inputs * outputs, 2), noise(outputs, 3));
    let (dx, g) = (noise(rows * inputs, 1), noise(rows * outputs, 4));
    let mut push = vec![0.0; g.len()];
    let mut pull = vec![0.0; dx.len()];
    for r in 0..rows {
        for o in 0..outputs {
            for i in 0..inputs {
                let weight = f64::from(w[o * inputs + i]);
                push[r * outputs + o] += weight * f64::from(dx[r * inputs + i]);
                pull[r * inputs + i] += weight * f64::from(g[r * outputs + o]);
            }
        }
    }
    for cpu in paths() {
        let layer = Weights::linear(cpu, &w, Some(&bias), inputs, outputs).unwrap();
        let mut out = vec![f32::NAN; push.len()];
        let plain = layer.without_bias().unwrap();
        linear(&dx, 1, &plain, Finish::default(), &mut out).unwrap();
        let limits = |terms: usize| {
            let direct = allowed_of(cpu, Tiling::Direct, terms);
            (terms as f64 / 9.0, direct, exact(terms))
        };
        near_or_close(cpu, "linear tangent", &out, &push, limits(inputs));
        let mut out = vec![f32::NAN; pull.len()];
        let back = layer.transposed(None).unwrap();
        linear(&g, 1, &back, Finish::default(), &mut out).unwrap();
        let mut again = vec![f32::NAN; pull.len()];
        let back = layer.transposed(Some(&used())).unwrap();
        linear(&g, 1, &back, Finish::default(), &mut again).unwrap();
        assert_eq!(out, again, "linear cotangent on {cpu}, in used memory");
        near_or_close(cpu, "linear cotangent", &out, &pull, limits(outputs));
    }
}

/// D P and P D (see `derivative.rs`) of one set of numbers that are normalised together; `at` gives
/// scale and shift of each.
fn plain_norm(x: &[f64], t: &[f64], at: &[(f64, f64)], act: Act, way: Way, eps: f64) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let factor = 1.0 / (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n + eps).sqrt();
    let hat: Vec<f64> = x.iter().map(|x| (x - mean) * factor).collect();
    let scaled = |u: &[f64]| -> Vec<f64> {
        let slope = |x| difference(|x| plain_act(act, x), x);
        (u.iter().zip(&hat).zip(at))
            .map(|((u, x), (s, b))| u * s * slope(x * s + b))
            .collect()
    };
    let project = |u: &[f64]| -> Vec<f64> {
        let sum = u.iter().sum::<f64>() / n;
        let product = u.iter().zip(&hat).map(|(u, x)| u * x).sum::<f64>() / n;
        (u.iter().zip(&hat))
            .map(|(u, x)| factor * (u - sum - x * product))
            .collect()
    };
    match way {
        Way::Tangent => scaled(&project(t)),
        Way::Cotangent => project(&scaled(t)),
    }
}

fn check_norms(samples: usize, rows: usize, width: usize, groups: usize, act: Act, way: Way) {
    let c = width * groups;
    let x: Vec<f32> = noise(samples * rows * c, 10)
        .iter()
        .map(|x| 3.0 + 2.0 * x)
        .collect();
    let t = noise(x.len(), 13);
    let (scale, shift) = (noise(c, 11), noise(c, 12));
    let eps = 0.1_f32;
    let affine = Affine {
        scale: &scale,
        shift: &shift,
        eps,
    };
    let gather = |places: &[usize], act: Act, out: &mut [f64]| {
        let of = |x: &[f32]| places.iter().map(|i| f64::from(x[*i])).collect::<Vec<_>>();
        let at: Vec<_> = (places.iter().map(|i| i % c))
            .map(|i| (f64::from(scale[i]), f64::from(shift[i])))
            .collect();
        let moved = plain_norm(&of(&x), &of(&t), &at, act, way, f64::from(eps));
        places.iter().zip(moved).for_each(|(i, y)| out[*i] = y);
    };
    let mut group = vec![0.0; x.len()];
    for (n, g) in (0..samples).flat_map(|n| (0..groups).map(move |g| (n, g))) {
        let places: Vec<usize> = (0..rows)
            .flat_map(|r| (0..width).map(move |i| (n * rows + r) * c + g * width + i))
            .collect();
        gather(&places, act, &mut group);
    }
    let mut layer = vec![0.0; x.len()];
    for r in 0..samples * rows {
        let places: Vec<usize> = (r * c..(r + 1) * c).collect();
        gather(&places, Act::Identity, &mut layer);
    }
    for cpu in paths() {
        let mut out = vec![f32::NAN; x.len()];
        let norm = GroupNorm {
            samples,
            groups,
            affine,
            act,
        };
        group_norm_derivative(cpu, &x, &t, norm, way, &mut out).unwrap();
        close(cpu, "group_norm", &out, &group, 2e-4);
        layer_norm_derivative(cpu, &x, &t, affine, way, &mut out).unwrap();
        close(cpu, "layer_norm", &out, &layer, 2e-4);
    }
}

/// Memory that last held what is no number, as a transpose may find it.
fn used() -> Arc<Arena> {
    let arena = Arena::new(1 << 27);
    arena.take(1 << 21).unwrap().fill(f32::NAN);
    arena
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_convolution_has_its_tangent_and_its_transpose_at_any_size_stride_and_padding(
        n in 1..3_usize, h in 1..10_usize, w in 1..12_usize, c in 1..24_usize, outputs in 1..40_usize,
        size in 1..8_usize, stride in 1..4_usize, before in 0..4_usize, after in 0..4_usize,
    ) {
        let win = Window { size, stride, padding: (before, after) };
        check_conv(Size { n, h, w, c }, outputs, win);
    }

    #[test]
    fn a_linear_layer_has_its_tangent_and_its_transpose(
        rows in 1..30_usize, inputs in 1..60_usize, outputs in 1..70_usize,
    ) {
        check_linear(rows, inputs, outputs);
    }

    #[test]
    fn norms_have_their_derivatives_both_ways(
        samples in 1..3_usize, rows in 1..200_usize, width in 1..30_usize, groups in 1..4_usize,
        act in 0..4_usize, back in any::<bool>(),
    ) {
        let way = if back { Way::Cotangent } else { Way::Tangent };
        check_norms(samples, rows, width, groups, SMOOTH[act], way);
    }

}

#[test]
fn activations_have_the_slopes_that_differences_show() {
    let x: Vec<f32> = noise(1003, 30).iter().map(|x| 4.0 * x).collect();
    let t = noise(x.len(), 31);
    for cpu in paths() {
        for act in SMOOTH.iter().copied() {
            let mut out = vec![f32::NAN; x.len()];
            activate_derivative(cpu, act, &x, &t, &mut out).unwrap();
            let want: Vec<f64> = (x.iter().zip(&t))
                .map(|(x, t)| f64::from(*t) * difference(|x| plain_act(act, x), f64::from(*x)))
                .collect();
            close(cpu, "act", &out, &want, 5e-6);
        }
        let mut out = [f32::NAN; 4];
        activate_derivative(cpu, Act::Relu, &[2.0, -0.0, 0.0, -1.0], &[3.0; 4], &mut out).unwrap();
        assert_eq!(out, [3.0, 0.0, 0.0, 0.0]);
    }
}

#[test]
fn work_that_is_shared_among_threads_is_the_same_work() {
    check_norms(1, 700, 24, 3, Act::Silu, Way::Cotangent);
    check_norms(2, 700, 24, 3, Act::Silu, Way::Tangent);
    let win = |stride, padding| Window {
        size: 3,
        stride,
        padding,
    };
    let s = |h, w, c| Size { n: 1, h, w, c };
    check_conv(s(37, 40, 16), 17, win(1, (1, 1)));
    check_conv(s(37, 40, 16), 17, win(2, (1, 1)));
    check_conv(s(36, 41, 16), 3, win(2, (0, 1)));
    check_conv(s(9, 8, 32), 33, win(2, (1, 1)));
    check_conv(s(8, 9, 64), 40, win(2, (0, 1)));
    check_conv(s(7, 7, 32), 5, win(3, (1, 2)));
    check_conv(s(6, 5, 96), 64, win(1, (1, 1)));
    let even = Window {
        size: 4,
        ..win(1, (1, 3))
    };
    check_conv(s(1, 7, 1), 17, even);
}
