//! Values that are rounded when they are made: whatever reads them must give what it gives for the same
//! numbers in f32, and whatever makes them the nearest bf16 numbers of what it makes in f32.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use semblance_kernels::*;
use support::{both, nearest, noise, paths};

/// The paths that round operands: there is always AMX's in software.
fn rounding() -> Vec<Cpu> {
    let all: Vec<_> = paths().into_iter().filter(|cpu| cpu.rounds(64)).collect();
    assert!(!all.is_empty());
    all
}

fn finish(plus: Plus<'_>) -> Finish<'_> {
    Finish {
        plus,
        ..Finish::default()
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// That `run` makes the same of plain and of rounded numbers, and that what it rounds is what it makes, to the
/// bit or, where `exact` says no, to the last place of bf16 and 1e-3 of the largest number.
fn check(
    what: &str,
    cpu: Cpu,
    (plain, rounded): (&[f32], &[f32]),
    len: usize,
    (same, exact): (bool, bool),
    run: impl Fn(Input<'_>, Output<'_>) -> Result<()>,
) {
    let mut of_plain = vec![f32::NAN; len];
    run(Input::Plain(plain), (&mut of_plain).into()).unwrap();
    let mut of_rounded = vec![f32::NAN; len];
    run(Input::Rounded(rounded), (&mut of_rounded).into()).unwrap();
    let top = of_plain.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    for (i, (a, b)) in of_plain.iter().zip(&of_rounded).enumerate() {
        let fits = match same {
            true => a.to_bits() == b.to_bits(),
            false => (a - b).abs() <= 1e-5 * top,
        };
        assert!(
            fits,
            "{what} on {cpu}: {i}: {b} of rounded numbers, {a} of plain ones"
        );
    }
    for input in [Input::Plain(plain), Input::Rounded(rounded)] {
        let mut places = vec![f32::NAN; len / 2];
        run(input, Output::Rounded(&mut places)).unwrap();
        let mut wide = vec![f32::NAN; len];
        widen(cpu, &places, &mut wide).unwrap();
        for (i, (found, want)) in wide.iter().zip(&of_plain).enumerate() {
            let fits = match exact {
                // The instruction takes denormals for zeros.
                true if want.abs() < f32::MIN_POSITIVE => found.abs() <= f32::MIN_POSITIVE,
                true => found.to_bits() >> 16 == nearest(*want),
                false => (found - want).abs() <= want.abs() / 128.0 + 1e-3 * top,
            };
            assert!(fits, "{what} on {cpu}: {i}: {found} is not {want} rounded");
        }
    }
}

#[test]
fn linear_layers_read_and_write_rounded_values() {
    for cpu in rounding() {
        for (rows, inputs, outputs, samples) in [
            (1, 64, 32, 1),
            (33, 96, 64, 1),
            (70, 1088, 160, 2),
            (600, 64, 96, 1),
        ] {
            let (x, places) = both(rows * inputs, 1);
            let (weight, bias) = (noise(inputs * outputs, 2), noise(outputs, 3));
            let w = Weights::linear(cpu, &weight, Some(&bias), inputs, outputs).unwrap();
            let (rest, rest_places) = both(rows * outputs, 4);
            let per_sample = noise(samples * outputs, 5);
            for (plus, act) in [
                (Plus::Nothing, Act::Identity),
                (Plus::Nothing, Act::Gelu),
                (Plus::PerSample(&per_sample), Act::Identity),
                (Plus::Residual((&rest).into()), Act::Identity),
                (Plus::Residual(Input::Rounded(&rest_places)), Act::Identity),
                (Plus::Residual(Input::Rounded(&rest_places)), Act::Silu),
            ] {
                let finish = Finish { plus, act };
                let run = |x: Input<'_>, out: Output<'_>| linear(x, samples, &w, finish, out);
                let len = rows * outputs;
                check("linear", cpu, (&x, &places), len, (true, true), run);
            }
            let add = |plus| {
                let finish = Finish {
                    plus,
                    ..Finish::default()
                };
                let mut out = vec![f32::NAN; rows * outputs];
                linear(&x, samples, &w, finish, &mut out).unwrap();
                bits(&out)
            };
            let plain = add(Plus::Residual((&rest).into()));
            assert_eq!(plain, add(Plus::Residual(Input::Rounded(&rest_places))));
            let gated = Weights::gated(cpu, &weight, Some(&bias), inputs, outputs);
            if let (Ok(w), true) = (gated, cpu.rounds(outputs / 2)) {
                let run = |x: Input<'_>, out: Output<'_>| linear(x, 1, &w, Finish::default(), out);
                let len = rows * outputs / 2;
                check("gate", cpu, (&x, &places), len, (true, true), run);
            }
        }
    }
}

#[test]
fn convolutions_read_and_write_rounded_maps_of_any_width() {
    let same = |size: usize, stride| Window {
        size,
        stride,
        padding: (size / 2, size / 2),
    };
    let late = Window {
        size: 3,
        stride: 2,
        padding: (0, 1),
    };
    for cpu in rounding() {
        for (n, h, w, window) in [
            (1, 5, 16, same(3, 1)),
            (2, 6, 32, same(3, 1)),
            (1, 8, 8, same(3, 1)),
            (2, 3, 7, same(3, 1)),
            (2, 4, 12, same(5, 1)),
            (1, 9, 1, same(3, 1)),
            (1, 8, 64, same(3, 2)),
            (2, 10, 14, late),
            (2, 5, 9, same(1, 1)),
            // Larger than what every task rounds for itself.
            (1, 44, 16, same(3, 1)),
            (1, 30, 30, same(3, 1)),
        ] {
            let (c, outputs) = (64, 32);
            let from = Size { n, h, w, c };
            let (x, places) = both(n * h * w * c, 7);
            let kernel = noise(c * outputs * window.size * window.size, 8);
            let conv = Conv::new(cpu, &kernel, &noise(outputs, 9), c, outputs, window).unwrap();
            assert!(conv.takes_rounded() && conv.gives_rounded());
            let to = conv.output(from).unwrap();
            let len = to.len().unwrap();
            let (_, rest) = both(len, 10);
            let per_sample = noise(n * outputs, 11);
            for plus in [
                Plus::Nothing,
                Plus::PerSample(&per_sample),
                Plus::Residual(Input::Rounded(&rest)),
            ] {
                let finish = Finish {
                    plus,
                    ..Finish::default()
                };
                let run = |x: Input<'_>, out: Output<'_>| conv.run(x, from, finish, out);
                check("conv", cpu, (&x, &places), len, (true, true), run);
            }
        }
    }
}

/// Maps of more than what is rounded at a time, on the path where that matters and is quick.
#[test]
fn bands_of_a_large_map_are_the_map() {
    let Ok(cpu) = Cpu::new(CpuPath::Amx) else {
        return println!("skipped: no AMX here");
    };
    let (n, h, w, c) = (2, 210, 200, 128);
    let from = Size { n, h, w, c };
    let window = Window {
        size: 3,
        stride: 1,
        padding: (1, 1),
    };
    let (x, kernel) = (noise(n * h * w * c, 12), noise(32 * c * 9, 13));
    let conv = Conv::new(cpu, &kernel, &noise(32, 14), c, 32, window).unwrap();
    let rest = noise(n * h * w * 32, 15);
    let per_sample = noise(n * 32, 16);
    for plus in [Plus::PerSample(&per_sample), Plus::Residual((&rest).into())] {
        let mut whole = vec![f32::NAN; n * h * w * 32];
        conv.run(&x, from, finish(plus), &mut whole).unwrap();
        // The same by a map of a few lines around each line.
        for (sample, y) in [(0, 0), (0, 77), (1, 78), (1, 131), (1, h - 1)] {
            let first = y.max(2) - 2;
            let lines = (y + 3).min(h) - first;
            let at = (sample * h + first) * w;
            let some = Size {
                n: 1,
                h: lines,
                ..from
            };
            let part = &x[at * c..(at + lines * w) * c];
            let rows = |x: &[f32]| x[at * 32..(at + lines * w) * 32].to_vec();
            let (rest, row) = (rows(&rest), &per_sample[sample * 32..][..32]);
            let plus = match plus {
                Plus::Residual(_) => Plus::Residual((&rest).into()),
                _ => Plus::PerSample(row),
            };
            let mut out = vec![f32::NAN; lines * w * 32];
            conv.run(part, some, finish(plus), &mut out).unwrap();
            let line = (y - first) * w * 32..(y - first + 1) * w * 32;
            let own = (sample * h + y) * w * 32;
            assert_eq!(
                bits(&out[line]),
                bits(&whole[own..own + w * 32]),
                "{sample}, {y}"
            );
        }
    }
}

#[test]
fn norms_read_and_write_rounded_values() {
    for cpu in rounding() {
        for (samples, rows, c, groups) in [(1, 5, 64, 4), (2, 300, 96, 32), (1, 70, 320, 32)] {
            let (x, places) = both(samples * rows * c, 17);
            let (scale, shift) = (noise(c, 18), noise(c, 19));
            let affine = Affine {
                scale: &scale,
                shift: &shift,
                eps: 1e-5,
            };
            let len = x.len();
            for act in [Act::Identity, Act::Silu, Act::Gelu] {
                let run = |x: Input<'_>, out: Output<'_>| {
                    group_norm(cpu, x, samples, groups, affine, act, out)
                };
                check("group norm", cpu, (&x, &places), len, (false, false), run);
            }
            let run = |x: Input<'_>, out: Output<'_>| layer_norm(cpu, x, affine, out);
            check("layer norm", cpu, (&x, &places), len, (false, false), run);
        }
        let (wide, affine) = (vec![0.0; WIDEST + 2], vec![1.0; 2 * WIDEST + 4]);
        let affine = Affine {
            scale: &affine,
            shift: &affine,
            eps: 1e-5,
        };
        let mut out = vec![0.0; 2 * wide.len()];
        assert!(layer_norm(cpu, Input::Rounded(&wide), affine, &mut out).is_err());
    }
}

fn heads(queries: usize, keys: usize, heads: usize, size: usize) -> Heads {
    Heads {
        samples: 1,
        queries,
        keys,
        heads,
        size,
    }
}

#[test]
fn attention_reads_and_writes_rounded_values() {
    for cpu in rounding() {
        for (h, mask) in [
            (heads(70, 600, 2, 48), Mask::None),
            (heads(33, 513, 8, 40), Mask::None),
            (heads(530, 530, 1, 64), Mask::Causal),
        ] {
            let row = h.heads * h.size;
            let (q, places) = both(h.queries * row, 20);
            let (k, k_places) = both(h.keys * row, 21);
            let (v, v_places) = both(h.keys * row, 22);
            assert!(attention_rounds(cpu, h.keys));
            let run = |x: Input<'_>, out: Output<'_>| match x {
                Input::Plain(q) => attention(cpu, q, &k, &v, h, mask, out),
                Input::Rounded(_) => {
                    let (k, v) = (Input::Rounded(&k_places), Input::Rounded(&v_places));
                    attention(cpu, x, k, v, h, mask, out)
                }
            };
            check("attention", cpu, (&q, &places), q.len(), (true, true), run);
        }
    }
}

/// Scores of later blocks that are far above those of the first: what was taken off is too little then.
#[test]
fn attention_follows_scores_that_grow_by_any_power() {
    for cpu in rounding() {
        for (mask, growth) in [
            (Mask::None, 3.0_f32),
            (Mask::None, 40.0),
            (Mask::Causal, 40.0),
            (Mask::None, 24_000.0),
            (Mask::None, -24_000.0),
            (Mask::Causal, -24_000.0),
            (Mask::None, 1e9),
        ] {
            let h = heads(600, 600, 1, 32);
            // Every query is all ones, and key j gives the score growth · ⌊j / 100⌋ − j / 50.
            let score = |j: usize| growth * (j / 100) as f32 - j as f32 / 50.0;
            let q = vec![1.0; 600 * 32];
            let mut k = vec![0.0; 600 * 32];
            for (j, key) in k.chunks_exact_mut(32).enumerate() {
                // Exactly in bf16: what is large in one number, what is small in another.
                key[0] = growth * (j / 100) as f32 * 4.0;
                key[1] = -(j as f32 / 50.0) * 32.0_f32.sqrt();
                key[0] *= 32.0_f32.sqrt() / 4.0;
            }
            let v: Vec<f32> = (0..600 * 32).map(|i| (i / 32 % 7) as f32).collect();
            let mut out = vec![f32::NAN; q.len()];
            attention(cpu, &q, &k, &v, h, mask, &mut out).unwrap();
            for i in [0, 99, 100, 255, 256, 431, 599] {
                let seen = match mask {
                    Mask::None => 600,
                    Mask::Causal => i + 1,
                };
                let top = (0..seen).map(score).fold(f32::MIN, f32::max);
                let weight = |j: usize| f64::from(score(j) - top).exp();
                let total: f64 = (0..seen).map(weight).sum();
                let want: f64 = (0..seen).map(|j| weight(j) * (j % 7) as f64).sum::<f64>() / total;
                let found = f64::from(out[i * 32 + 5]);
                // Keys that are rounded move scores of up to 200 by as many parts in 256.
                let allowed = if growth.abs() > 10.0 { 1.5 } else { 0.1 };
                assert!(
                    (found - want).abs() < allowed,
                    "{cpu}: {i}: {found} is not {want}"
                );
                assert!(found.is_finite() && (0.0..=6.0).contains(&found));
            }
        }
    }
}

#[test]
fn rounded_values_are_refused_where_nothing_takes_them() {
    let portable = Cpu::new(CpuPath::Portable).unwrap();
    let places = [0.0; 32];
    let mut out = [0.0; 64];
    let w = Weights::linear(portable, &[0.0; 64 * 64], None, 64, 64).unwrap();
    let finish = Finish::default();
    assert!(!portable.rounds(64));
    assert!(linear(Input::Rounded(&places), 1, &w, finish, &mut out).is_err());
    let rounded = Output::Rounded(&mut out[..32]);
    assert!(linear(&[0.0; 64], 1, &w, finish, rounded).is_err());
    for cpu in rounding() {
        // Rows that are no whole steps.
        let w = Weights::linear(cpu, &[0.0; 31 * 31], None, 31, 31).unwrap();
        assert!(linear(Input::Rounded(&[0.0; 31]), 1, &w, finish, &mut out[..62]).is_err());
        assert!(linear(&[0.0; 62], 1, &w, finish, Output::Rounded(&mut [0.0; 31])).is_err());
    }
}

#[test]
fn layers_of_the_same_rows_are_together_what_each_is_alone() {
    let shapes: [(usize, usize, &[usize]); 6] = [
        (1, 128, &[32, 64, 64, 96, 32, 192, 64, 40, 64, 64, 33]),
        (70, 40, &[40, 40, 40]),
        // Columns of all that stay in the second cache, and those that do not.
        (1100, 320, &[320, 320, 320]),
        (600, 1280, &[128, 1280, 72]),
        (257, 96, &[96]),
        (40, 256, &[64, 512]),
    ];
    for (cpu, threads) in paths()
        .into_iter()
        .flat_map(|cpu| [(cpu, 1), (cpu, 2), (cpu, 5)])
    {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.unwrap();
        for (rows, inputs, outputs) in shapes {
            let (x, places) = both(rows * inputs, 1);
            let takes = cpu.rounds(inputs);
            let x = if takes {
                Input::Rounded(&places)
            } else {
                (&x).into()
            };
            let layers: Vec<_> = (outputs.iter().zip(2..))
                .map(|(&n, seed)| {
                    let (weight, bias) = (noise(inputs * n, seed), noise(n, seed + 50));
                    Weights::linear(cpu, &weight, Some(&bias), inputs, n).unwrap()
                })
                .collect();
            let rounded = |n: usize| takes && cpu.rounds(n) && n != 96;
            let room = |n: usize| vec![f32::NAN; if rounded(n) { rows * n / 2 } else { rows * n }];
            fn output(rounded: bool, to: &mut [f32]) -> Output<'_> {
                match rounded {
                    true => Output::Rounded(to),
                    false => Output::Plain(to),
                }
            }
            let alone = outputs.iter().zip(&layers).map(|(&n, w)| {
                let mut out = room(n);
                linear(x, 1, w, Finish::default(), output(rounded(n), &mut out)).unwrap();
                bits(&out)
            });
            let alone: Vec<_> = alone.collect();
            let mut outs: Vec<_> = outputs.iter().map(|&n| room(n)).collect();
            let both = layers.iter().zip(outputs.iter().zip(&mut outs));
            let both = both.map(|(w, (&n, out))| (w, output(rounded(n), out)));
            let mut both: Vec<_> = both.collect();
            pool.install(|| linears(x, 1, &mut both)).unwrap();
            let together: Vec<_> = outs.iter().map(|out| bits(out)).collect();
            assert!(
                alone == together,
                "{cpu}, {threads} threads, {rows} rows of {inputs}"
            );
        }
    }
}

#[test]
fn layers_of_other_rows_are_refused_together() {
    let cpu = paths()[0];
    let layer = |inputs: usize| Weights::linear(cpu, &vec![0.0; 3 * inputs], None, inputs, 3);
    let (one, other) = (layer(4).unwrap(), layer(2).unwrap());
    let (mut a, mut b) = ([7.0; 6], [7.0; 12]);
    assert!(linears(&[0.0; 8], 1, &mut []).is_err());
    let mut both = vec![(&one, (&mut a).into()), (&other, (&mut b).into())];
    assert!(linears(&[0.0; 8], 1, &mut both).is_err());
    let mut both = vec![(&one, (&mut a).into()), (&one, (&mut b).into())];
    assert!(linears(&[0.0; 8], 1, &mut both).is_err());
    assert_eq!((a, b), ([7.0; 6], [7.0; 12]));
}
