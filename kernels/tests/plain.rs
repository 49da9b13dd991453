//! Every kernel on every path that this CPU has, against the plainest loop that says what it means,
//! over odd shapes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/conv.rs"]
mod conv;
mod support;

use conv::{as_plus, plain_conv, plus, reached};
use proptest::prelude::*;
use semblance_kernels::*;
use support::{ACTS, allowed_of, close, near, near_or_close, noise, paths, plain_act};

/// Largest error of a number that is a sum of `terms` products in f32, beside the number or 1.
fn exact(terms: usize) -> f64 {
    4e-6 * (4.0 + (terms as f64).sqrt())
}

fn plain_linear(x: &[f32], w: &[f32], b: &[f32], inputs: usize) -> Vec<f64> {
    x.chunks_exact(inputs)
        .flat_map(|row| {
            w.chunks_exact(inputs).zip(b).map(|(w, b)| {
                let sum: f64 = row
                    .iter()
                    .zip(w)
                    .map(|(x, w)| f64::from(*x) * f64::from(*w))
                    .sum();
                sum + f64::from(*b)
            })
        })
        .collect()
}

fn check_linear(samples: usize, rows: usize, io: (usize, usize), kind: u8, act: Act, gated: bool) {
    let (inputs, outputs) = (io.0, if gated { 2 * io.1 } else { io.1 });
    let x = noise(samples * rows * inputs, 1);
    let (w, b) = (noise(inputs * outputs, 2), noise(outputs, 3));
    let mut want = plain_linear(&x, &w, &b, inputs);
    if gated {
        want = want
            .chunks_exact(outputs)
            .flat_map(|row| {
                let (values, gates) = row.split_at(outputs / 2);
                let product = |(v, g): (&f64, &f64)| v * plain_act(Act::Gelu, *g);
                values.iter().zip(gates).map(product).collect::<Vec<_>>()
            })
            .collect();
    }
    let data = plus(kind, samples, io.1, &mut want);
    want.iter_mut().for_each(|x| *x = plain_act(act, *x));
    for cpu in paths() {
        let w = match gated {
            true => Weights::gated(cpu, &w, Some(&b), inputs, outputs),
            false => Weights::linear(cpu, &w, Some(&b), inputs, outputs),
        }
        .unwrap();
        let finish = Finish {
            plus: as_plus(kind, &data),
            act,
        };
        let mut out = vec![f32::NAN; want.len()];
        linear(&x, samples, &w, finish, &mut out).unwrap();
        // Products of two numbers in −1..1 are a ninth in the mean of their squares.
        let variance = inputs as f64 / 9.0;
        let direct = allowed_of(cpu, Tiling::Direct, inputs);
        let limits = match gated {
            false => (variance, direct, exact(inputs)),
            // Both factors are off.
            true => {
                let exact = (1.0 + (inputs as f64).sqrt()) * exact(inputs);
                (variance * variance / 4.0, 1.5 * direct, exact)
            }
        };
        near_or_close(cpu, "linear", &out, &want, limits);
    }
}

fn check_linears(rows: usize, inputs: usize, outputs: &[usize]) {
    let x = noise(rows * inputs, 1);
    let numbers = outputs.iter().zip(2..);
    let numbers = numbers.map(|(n, seed)| (noise(inputs * n, seed), noise(*n, seed + 50)));
    let numbers: Vec<_> = numbers.collect();
    for cpu in paths() {
        let pack = |((w, b), n): (&(Vec<f32>, Vec<f32>), &usize)| {
            Weights::linear(cpu, w, Some(b), inputs, *n).unwrap()
        };
        let layers: Vec<_> = numbers.iter().zip(outputs).map(pack).collect();
        let outs = outputs.iter().map(|n| vec![f32::NAN; rows * n]);
        let mut outs: Vec<_> = outs.collect();
        let each = layers.iter().zip(&mut outs);
        let mut each: Vec<_> = each.map(|(w, out)| (w, out.into())).collect();
        linears(&x, 1, &mut each).unwrap();
        drop(each);
        for (out, (w, b)) in outs.iter().zip(&numbers) {
            let want = plain_linear(&x, w, b, inputs);
            let usual = inputs as f64 / 9.0;
            let limits = (
                usual,
                allowed_of(cpu, Tiling::Direct, inputs),
                exact(inputs),
            );
            near_or_close(cpu, "linears", out, &want, limits);
        }
    }
}

fn check_conv(s: Size, outputs: usize, win: Window, kind: u8, act: Act) {
    if win.output(s.h).is_none() || win.output(s.w).is_none() {
        return;
    }
    let area = win.size * win.size;
    let x = noise(s.len().unwrap(), 4);
    let (kernel, bias) = (noise(outputs * s.c * area, 5), noise(outputs, 6));
    let mut want = plain_conv(&x, s, &kernel, &bias, win);
    let data = plus(kind, s.n, outputs, &mut want);
    want.iter_mut().for_each(|x| *x = plain_act(act, *x));
    for cpu in paths() {
        let w = Conv::new(cpu, &kernel, &bias, s.c, outputs, win).unwrap();
        let finish = Finish {
            plus: as_plus(kind, &data),
            act,
        };
        let mut out = vec![f32::NAN; want.len()];
        w.run(&x, s, finish, &mut out).unwrap();
        let usual = reached(s, win) * s.c as f64 / 9.0;
        let limits = (
            usual,
            allowed_of(cpu, w.tiling(), area * s.c),
            exact(area * s.c),
        );
        near_or_close(cpu, "conv", &out, &want, limits);
    }
}

fn check_attention(h: Heads, mask: Mask) {
    let row = h.heads * h.size;
    let q = noise(h.samples * h.queries * row, 7);
    let (k, v) = (
        noise(h.samples * h.keys * row, 8),
        noise(h.samples * h.keys * row, 9),
    );
    // Sharp enough that the maximum moves from block to block.
    let q: Vec<f32> = q.iter().map(|x| 4.0 * x).collect();
    let mut want = vec![0.0; q.len()];
    let mut usual = 0.0;
    for n in 0..h.samples {
        for head in 0..h.heads {
            for i in 0..h.queries {
                let at = |rows: usize, i: usize| (n * rows + i) * row + head * h.size;
                let query = &q[at(h.queries, i)..][..h.size];
                let seen = match mask {
                    Mask::None => h.keys,
                    Mask::Causal => (i + 1).min(h.keys),
                };
                let scores: Vec<f64> = (0..seen)
                    .map(|j| {
                        let key = &k[at(h.keys, j)..][..h.size];
                        let dot: f64 = (query.iter().zip(key))
                            .map(|(a, b)| f64::from(*a) * f64::from(*b))
                            .sum();
                        dot / (h.size as f64).sqrt()
                    })
                    .collect();
                let top = scores.iter().fold(f64::MIN, |a, b| a.max(*b));
                let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
                for d in 0..h.size {
                    let (mut sum, mut squares) = (0.0, 0.0);
                    for (j, s) in scores.iter().enumerate() {
                        let term = (s - top).exp() / total * f64::from(v[at(h.keys, j) + d]);
                        sum += term;
                        squares += term * term;
                    }
                    want[at(h.queries, i) + d] = sum;
                    usual += squares;
                }
            }
        }
    }
    let usual = usual / q.len() as f64;
    for cpu in paths() {
        let mut out = vec![f32::NAN; q.len()];
        attention(cpu, &q, &k, &v, h, mask, &mut out).unwrap();
        match attention_rounds(cpu, h.keys) {
            false => close(cpu, "attention", &out, &want, 1e-5),
            // Weights and values are rounded, and scores of up to four are off by as many parts.
            true => near(cpu, "attention", &out, &want, usual, 1e-2),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_linear_layer_is_its_sums_at_any_size(
        samples in 1..4_usize, rows in 1..40_usize, inputs in 1..90_usize, outputs in 1..100_usize,
        kind in 0..3_u8, act in 0..5_usize, gated in any::<bool>(),
    ) {
        check_linear(samples, rows, (inputs, outputs), kind, ACTS[act], gated);
    }

    #[test]
    fn layers_of_the_same_rows_are_their_sums_at_any_size(
        rows in 1..80_usize, inputs in 1..100_usize,
        outputs in prop::collection::vec(1..100_usize, 1..6),
    ) {
        check_linears(rows, inputs, &outputs);
    }

    #[test]
    fn a_convolution_is_its_sums_at_any_size_stride_and_padding(
        n in 1..3_usize, h in 1..12_usize, w in 1..15_usize, c in 1..40_usize, outputs in 1..70_usize,
        size in 1..8_usize, stride in 1..4_usize, before in 0..4_usize, after in 0..4_usize,
        kind in 0..3_u8, act in 0..5_usize,
    ) {
        let win = Window { size, stride, padding: (before, after) };
        check_conv(Size { n, h, w, c }, outputs, win, kind, ACTS[act]);
    }

    #[test]
    fn attention_is_the_softmax_that_defines_it(
        samples in 1..3_usize, queries in 1..70_usize, keys in 1..90_usize, heads in 1..4_usize,
        size in 1..50_usize, causal in any::<bool>(),
    ) {
        let mask = if causal { Mask::Causal } else { Mask::None };
        check_attention(Heads { samples, queries, keys, heads, size }, mask);
    }

    #[test]
    fn norms_are_what_their_definitions_say(
        samples in 1..3_usize, rows in 1..300_usize, width in 1..40_usize, groups in 1..4_usize,
        offset in -100.0..100.0_f32, act in 0..5_usize,
    ) {
        check_norms(samples, rows, width, groups, offset, ACTS[act]);
    }

    #[test]
    fn rows_of_any_width_are_divided_by_their_root_mean_square(
        rows in 1..60_usize, width in 1..2500_usize, offset in -100.0..100.0_f32,
        size in 1e-3..10.0_f32, eps in 1e-6..0.1_f32,
    ) {
        check_rms_norm(rows, width, (offset, size), eps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

    /// As many keys as attention rounds for on every path of bf16.
    #[test]
    fn attention_over_many_keys_is_the_softmax_that_defines_it(
        samples in 1..3_usize, queries in 1..50_usize, keys in 500..800_usize, heads in 1..3_usize,
        size in 1..161_usize, causal in any::<bool>(),
    ) {
        let mask = if causal { Mask::Causal } else { Mask::None };
        check_attention(Heads { samples, queries, keys, heads, size }, mask);
    }
}

/// Rows of numbers around `offset` of a size of `size`.
fn check_rms_norm(rows: usize, width: usize, (offset, size): (f32, f32), eps: f32) {
    let x = noise(rows * width, 13);
    let x: Vec<f32> = x.iter().map(|x| size * (offset + x)).collect();
    let scale = noise(width, 14);
    let affine = Affine {
        scale: &scale,
        shift: &[],
        eps,
    };
    let mut want = Vec::new();
    for row in x.chunks_exact(width) {
        let squares: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum();
        let factor = 1.0 / (squares / width as f64 + f64::from(eps)).sqrt();
        let numbers = row.iter().zip(&scale);
        want.extend(numbers.map(|(x, s)| f64::from(*x) * factor * f64::from(*s)));
    }
    for cpu in paths() {
        let mut out = vec![f32::NAN; x.len()];
        rms_norm(cpu, &x, affine, &mut out).unwrap();
        near(cpu, "rms_norm", &out, &want, 0.0, 3e-7);
    }
}

fn check_norms(samples: usize, rows: usize, width: usize, groups: usize, offset: f32, act: Act) {
    let c = width * groups;
    let x: Vec<f32> = noise(samples * rows * c, 10)
        .iter()
        .map(|x| offset + x)
        .collect();
    let (scale, shift) = (noise(c, 11), noise(c, 12));
    let affine = Affine {
        scale: &scale,
        shift: &shift,
        eps: 1e-3,
    };
    let stats = |set: &[f64]| {
        let mean = set.iter().sum::<f64>() / set.len() as f64;
        let variance = set.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / set.len() as f64;
        (mean, 1.0 / (variance + 1e-3).sqrt())
    };
    let sample = rows * c;
    let mut group = vec![0.0; x.len()];
    for n in 0..samples {
        for g in 0..groups {
            let places: Vec<usize> = (0..rows)
                .flat_map(|r| (0..width).map(move |i| n * sample + r * c + g * width + i))
                .collect();
            let set: Vec<f64> = places.iter().map(|i| f64::from(x[*i])).collect();
            let (mean, factor) = stats(&set);
            for i in places {
                let y = (f64::from(x[i]) - mean) * factor * f64::from(scale[i % c]);
                group[i] = plain_act(act, y + f64::from(shift[i % c]));
            }
        }
    }
    let by_row = |rms: bool| -> Vec<f64> {
        x.chunks_exact(c)
            .flat_map(|row| {
                let set: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
                let (mut mean, mut factor) = stats(&set);
                if rms {
                    let square = set.iter().map(|x| x * x).sum::<f64>() / c as f64;
                    (mean, factor) = (0.0, 1.0 / (square + 1e-3).sqrt());
                }
                let one = |(i, x): (usize, &f64)| {
                    let b = if rms { 0.0 } else { f64::from(shift[i]) };
                    (x - mean) * factor * f64::from(scale[i]) + b
                };
                set.iter().enumerate().map(one).collect::<Vec<_>>()
            })
            .collect()
    };
    let (layer, rms) = (by_row(false), by_row(true));
    // What f32 keeps of a number near the offset, times the largest factor.
    let allowed = 2e-5 + 4e-6 * f64::from(offset.abs());
    for cpu in paths() {
        let mut out = vec![f32::NAN; x.len()];
        group_norm(cpu, &x, samples, groups, affine, act, &mut out).unwrap();
        close(cpu, "group_norm", &out, &group, allowed);
        layer_norm(cpu, &x, affine, &mut out).unwrap();
        close(cpu, "layer_norm", &out, &layer, allowed);
        rms_norm(cpu, &x, affine, &mut out).unwrap();
        close(cpu, "rms_norm", &out, &rms, allowed);
    }
}

#[test]
fn sums_longer_than_a_block_and_more_rows_than_a_task_are_the_same_sums() {
    // More inputs than one block of packed weights, in one tap and in several.
    check_linear(1, 70, (5000, 40), 2, Act::Identity, false);
    check_linear(2, 300, (64, 33), 1, Act::Silu, false);
    // Many tasks, each of which asks for the next one's rows.
    check_linear(1, 2100, (64, 33), 1, Act::Identity, false);
    // A last panel whose columns are taken as a whole, behind others that are not.
    check_linear(1, 96, (512, 48), 1, Act::Identity, false);
    check_linear(1, 60, (400, 80), 0, Act::Identity, false);
    check_linear(1, 26, (3000, 20), 0, Act::Identity, true);
    let same = Window {
        size: 3,
        stride: 1,
        padding: (1, 1),
    };
    let size = |h, w, c| Size { n: 1, h, w, c };
    check_conv(size(5, 5, 700), 33, same, 2, Act::Identity);
    check_conv(size(3, 4, 2500), 17, same, 1, Act::Identity);
    check_conv(size(40, 37, 16), 16, same, 0, Act::Silu);
    check_conv(size(33, 41, 3), 20, same, 0, Act::Identity);
}

#[test]
fn attention_takes_more_keys_than_a_block_and_large_heads() {
    let h = |queries, keys, heads, size| Heads {
        samples: 1,
        queries,
        keys,
        heads,
        size,
    };
    check_attention(h(100, 700, 2, 40), Mask::None);
    check_attention(h(600, 600, 1, 20), Mask::Causal);
    check_attention(h(13, 77, 2, 160), Mask::None);
    check_attention(h(5, 30, 1, 301), Mask::None);
    check_attention(h(90, 40, 1, 8), Mask::Causal);
    // Heads that take turns, and heads with too many keys to.
    let some = |heads| Heads {
        samples: 2,
        ..heads
    };
    check_attention(some(h(150, 40, 3, 24)), Mask::None);
    check_attention(some(h(150, 150, 3, 24)), Mask::Causal);
    check_attention(some(h(130, 700, 3, 160)), Mask::None);
    // So many queries that they are shared out in bands.
    check_attention(h(1100, 70, 3, 16), Mask::None);
    check_attention(h(1100, 420, 2, 160), Mask::Causal);
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    let cpu = Cpu::new(CpuPath::Portable).unwrap();
    let w = Weights::linear(cpu, &[0.0; 12], None, 4, 3).unwrap();
    let mut out = [7.0; 6];
    let plain = Finish::default();
    assert!(linear(&[0.0; 7], 1, &w, plain, &mut out).is_err());
    assert!(linear(&[0.0; 8], 3, &w, plain, &mut out).is_err());
    assert!(linear(&[0.0; 12], 1, &w, plain, &mut out).is_err());
    let short = Finish {
        plus: Plus::Residual((&[0.0; 5]).into()),
        ..plain
    };
    assert!(linear(&[0.0; 8], 1, &w, short, &mut out).is_err());
    assert!(Weights::linear(cpu, &[0.0; 11], None, 4, 3).is_err());
    assert!(Weights::gated(cpu, &[0.0; 12], None, 4, 3).is_err());
    assert!(Weights::linear(cpu, &[], None, usize::MAX, 2).is_err());
    let win = |size, stride| Window {
        size,
        stride,
        padding: (0, 0),
    };
    assert!(Conv::new(cpu, &[0.0; 9], &[0.0], 1, 1, win(3, 0)).is_err());
    let conv = Conv::new(cpu, &[0.0; 9], &[0.0], 1, 1, win(3, 1)).unwrap();
    let size = |h, w| Size { n: 1, h, w, c: 1 };
    assert!(conv.run(&[0.0; 4], size(2, 2), plain, &mut out).is_err());
    assert!(conv.run(&[0.0; 12], size(3, 4), plain, &mut out).is_err());
    let h = Heads {
        samples: 1,
        queries: 2,
        keys: 2,
        heads: 2,
        size: 2,
    };
    assert!(
        attention(
            cpu,
            &[0.0; 8],
            &[0.0; 8],
            &[0.0; 7],
            h,
            Mask::None,
            &mut [0.0; 8]
        )
        .is_err()
    );
    assert!(softmax(cpu, 0, &mut out).is_err() && softmax(cpu, 4, &mut out).is_err());
    assert!(combine(cpu, &[], &mut out).is_err());
    assert!(concat(&[0.0; 2], &[0.0; 3], (1, 1), &mut out).is_err());
    assert!(upsample(&[0.0; 4], size(2, 2), 0, 3, &mut []).is_err());
    assert_eq!(out, [7.0; 6]);
}

#[test]
fn no_bit_depends_on_the_number_of_threads() {
    let s = Size {
        n: 2,
        h: 30,
        w: 31,
        c: 48,
    };
    let win = Window {
        size: 3,
        stride: 1,
        padding: (1, 1),
    };
    let x = noise(s.len().unwrap(), 30);
    for cpu in paths() {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.unwrap().install(|| {
                let w = Conv::new(cpu, &noise(9 * 48 * 80, 31), &noise(80, 32), 48, 80, win);
                let mut y = vec![0.0; 2 * 30 * 31 * 80];
                w.unwrap().run(&x, s, Finish::default(), &mut y).unwrap();
                let (scale, shift) = (noise(80, 33), noise(80, 34));
                let affine = Affine {
                    scale: &scale,
                    shift: &shift,
                    eps: 1e-5,
                };
                let mut z = y.clone();
                group_norm(cpu, &y, 2, 8, affine, Act::Silu, &mut z).unwrap();
                let h = Heads {
                    samples: 2,
                    queries: 930,
                    keys: 930,
                    heads: 2,
                    size: 40,
                };
                attention(cpu, &z, &y, &z, h, Mask::None, &mut y.clone()).unwrap();
                let mut out = y.clone();
                attention(cpu, &z, &y, &z, h, Mask::None, &mut out).unwrap();
                out.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
            })
        };
        let one = run(1);
        assert!([2, 3, 7].into_iter().all(|threads| run(threads) == one));
    }
}
