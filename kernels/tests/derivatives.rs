//! The derivative of every kernel on every path that this CPU has, against the plainest sums that say
//! what it is, over odd shapes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use semblance_kernels::*;
use support::{close, noise, paths};

/// Largest error of a product of `terms` numbers in −1..1: rounding of operands and of sums.
fn allowed(cpu: Cpu, terms: usize) -> f64 {
    let root = (terms as f64).sqrt();
    match cpu.precision() {
        Precision::F32 => 4e-6 * (4.0 + root),
        Precision::Bf16 => 3e-2 * (1.0 + root),
    }
}

/// How far `f` moves at x along t, by differences in f64.
fn difference(f: impl Fn(f64) -> f64, x: f64) -> f64 {
    let step = 1e-5;
    (f(x + step) - f(x - step)) / (2.0 * step)
}

/// erf by its Taylor series, exact enough for |x| < 5.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn plain_act(act: Act, x: f64) -> f64 {
    match act {
        Act::Identity => x,
        Act::Silu => x / (1.0 + (-x).exp()),
        Act::Gelu => 0.5 * x * (1.0 + erf(x / 2.0_f64.sqrt())),
        Act::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Act::Relu => x.max(0.0),
    }
}

/// Those with a slope everywhere.
const ACTS: [Act; 4] = [Act::Identity, Act::Silu, Act::Gelu, Act::QuickGelu];

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
    for n in 0..s.n {
        for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
            for (dy, dx_) in (0..k).flat_map(|a| (0..k).map(move |b| (a, b))) {
                let row = (y * win.stride + dy).wrapping_sub(win.padding.0);
                let col = (x * win.stride + dx_).wrapping_sub(win.padding.0);
                if row >= s.h || col >= s.w {
                    continue;
                }
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
    for cpu in paths() {
        let conv = Conv::new(cpu, &kernel, &bias, s.c, outputs, win).unwrap();
        let mut out = vec![f32::NAN; push.len()];
        let plain = conv.without_bias().unwrap();
        plain.run(&dx, s, Finish::default(), &mut out).unwrap();
        close(cpu, "conv tangent", &out, &push, allowed(cpu, k * k * s.c));
        let mut out = vec![f32::NAN; pull.len()];
        let back = conv.transposed(None).unwrap();
        back.run(&g, to, s, &mut out).unwrap();
        let mut again = vec![f32::NAN; pull.len()];
        let back = conv.transposed(Some(&used())).unwrap();
        back.run(&g, to, s, &mut again).unwrap();
        assert_eq!(out, again, "conv cotangent on {cpu}, in used memory");
        close(
            cpu,
            "conv cotangent",
            &out,
            &pull,
            allowed(cpu, k * k * outputs),
        );
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
        close(cpu, "linear tangent", &out, &push, allowed(cpu, inputs));
        let mut out = vec![f32::NAN; pull.len()];
        let back = layer.transposed(None).unwrap();
        linear(&g, 1, &back, Finish::default(), &mut out).unwrap();
        let mut again = vec![f32::NAN; pull.len()];
        let back = layer.transposed(Some(&used())).unwrap();
        linear(&g, 1, &back, Finish::default(), &mut again).unwrap();
        assert_eq!(out, again, "linear cotangent on {cpu}, in used memory");
        close(cpu, "linear cotangent", &out, &pull, allowed(cpu, outputs));
    }
}

/// Value · gelu(gate) of a layer of `inputs` and `2 · half` outputs.
fn check_gates(rows: usize, inputs: usize, half: usize) {
    // Gates stay where the plain erf has digits enough for differences.
    let w: Vec<f32> = noise(2 * half * inputs, 2)
        .iter()
        .map(|w| 0.4 * w)
        .collect();
    let bias = noise(2 * half, 3);
    let (x, dx, g) = (
        noise(rows * inputs, 1),
        noise(rows * inputs, 5),
        noise(rows * half, 4),
    );
    let layer = |x: &[f32], bias: Option<&[f32]>, r: usize, o: usize| -> f64 {
        let row = &x[r * inputs..][..inputs];
        let sum: f64 = (row.iter().zip(&w[o * inputs..]))
            .map(|(x, w)| f64::from(*x) * f64::from(*w))
            .sum();
        sum + bias.map_or(0.0, |b| f64::from(b[o]))
    };
    let gelu = |x: f64| plain_act(Act::Gelu, x);
    let mut push = vec![0.0; rows * half];
    let mut pull = vec![0.0; rows * inputs];
    for r in 0..rows {
        for o in 0..half {
            let (a, b) = (
                layer(&x, Some(&bias), r, o),
                layer(&x, Some(&bias), r, half + o),
            );
            let slope = difference(gelu, b);
            let (da, db) = (layer(&dx, None, r, o), layer(&dx, None, r, half + o));
            push[r * half + o] = da * gelu(b) + a * slope * db;
            let g = f64::from(g[r * half + o]);
            for i in 0..inputs {
                pull[r * inputs + i] += g * gelu(b) * f64::from(w[o * inputs + i])
                    + g * a * slope * f64::from(w[(half + o) * inputs + i]);
            }
        }
    }
    for cpu in paths() {
        let layer = Weights::gated(cpu, &w, Some(&bias), inputs, 2 * half).unwrap();
        assert!(layer.transposed(None).is_err());
        let open = layer.opened().unwrap();
        let wide = rows * open.outputs();
        let (mut z, mut dz) = (vec![f32::NAN; wide], vec![f32::NAN; wide]);
        linear(&x, 1, &open, Finish::default(), &mut z).unwrap();
        let plain = open.without_bias().unwrap();
        linear(&dx, 1, &plain, Finish::default(), &mut dz).unwrap();
        let mut out = vec![f32::NAN; push.len()];
        gate_tangent(&layer, &z, &dz, &mut out).unwrap();
        let scale = 1.0 + (inputs as f64).sqrt();
        close(
            cpu,
            "gate tangent",
            &out,
            &push,
            2.0 * scale * allowed(cpu, inputs),
        );
        let back = open.transposed(None).unwrap();
        let pull_back = |layer: &Weights, g: &[f32]| {
            let mut out = vec![f32::NAN; pull.len()];
            let (x, to) = (Input::from(&x), Output::Plain(&mut out));
            geglu_cotangent(x, layer, &back, g.into(), to).map(|()| out)
        };
        close(
            cpu,
            "geglu cotangent",
            &pull_back(&layer, &g).unwrap(),
            &pull,
            2.0 * scale * allowed(cpu, 2 * half),
        );
        assert!(pull_back(&open, &g).is_err());
        assert!(pull_back(&layer, &g[1..]).is_err());
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
        size in 1..6_usize, stride in 1..4_usize, before in 0..4_usize, after in 0..4_usize,
    ) {
        let win = Window { size, stride, padding: (before, after) };
        check_conv(Size { n, h, w, c }, outputs, win);
    }

    #[test]
    fn what_was_moved_comes_back(
        n in 1..3_usize, h in 1..9_usize, w in 1..9_usize, c in 1..20_usize, others in 1..20_usize,
        taller in 1..20_usize, wider in 1..20_usize,
    ) {
        check_moves(Size { n, h, w, c }, taller, wider, others);
    }

    #[test]
    fn a_linear_layer_has_its_tangent_and_its_transpose_gated_or_not(
        rows in 1..30_usize, inputs in 1..60_usize, outputs in 1..70_usize,
    ) {
        check_linear(rows, inputs, outputs);
        check_gates(rows, inputs, outputs);
    }

    #[test]
    fn norms_have_their_derivatives_both_ways(
        samples in 1..3_usize, rows in 1..200_usize, width in 1..30_usize, groups in 1..4_usize,
        act in 0..4_usize, back in any::<bool>(),
    ) {
        let way = if back { Way::Cotangent } else { Way::Tangent };
        check_norms(samples, rows, width, groups, ACTS[act], way);
    }

}

#[test]
fn activations_have_the_slopes_that_differences_show() {
    let x: Vec<f32> = noise(1003, 30).iter().map(|x| 4.0 * x).collect();
    let t = noise(x.len(), 31);
    for cpu in paths() {
        for act in ACTS {
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
}

fn inner(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a * b)).sum()
}

fn check_moves(s: Size, h: usize, w: usize, others: usize) {
    let to = Size { h, w, ..s };
    let (x, g) = (noise(s.len().unwrap(), 1), noise(to.len().unwrap(), 2));
    let (mut y, mut back) = (vec![0.0; g.len()], vec![9.0; x.len()]);
    upsample(&x, s, h, w, &mut y).unwrap();
    upsample_cotangent(&g, to, s.h, s.w, &mut back).unwrap();
    let (there, here) = (inner(&y, &g), inner(&x, &back));
    let size = (inner(&y, &y) * inner(&g, &g)).sqrt();
    assert!((there - here).abs() <= 1e-6 * size, "{there} is not {here}");

    let b = noise(x.len() / s.c * others, 3);
    let mut both = vec![0.0; x.len() + b.len()];
    concat(&x, &b, (s.c, others), &mut both).unwrap();
    let (mut first, mut second) = (vec![9.0; x.len()], vec![9.0; b.len()]);
    columns(&both, s.c + others, (0, s.c), &mut first).unwrap();
    columns(&both, s.c + others, (s.c, others), &mut second).unwrap();
    assert_eq!((first, second), (x.clone(), b));

    let mut sums = vec![9.0; s.n * s.c];
    sum_rows(&x, s.c, &mut sums).unwrap();
    for (i, sum) in sums.iter().enumerate() {
        let sample = x.chunks_exact(s.h * s.w * s.c).nth(i / s.c).unwrap();
        let own = sample.iter().skip(i % s.c).step_by(s.c);
        let want: f64 = own.map(|x| f64::from(*x)).sum();
        assert!((f64::from(*sum) - want).abs() <= 1e-5 * (1.0 + want.abs()));
    }
}

#[test]
fn what_was_moved_comes_back_over_large_maps_and_misfits_are_refused() {
    let (n, h, w, c) = (2, 33, 31, 40);
    check_moves(Size { n, h, w, c }, 66, 62, 24);
    check_moves(Size { n, h, w, c }, 20, 70, 1);
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
