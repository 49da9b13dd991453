//! The derivatives of attention on every path that this CPU has, against the plainest sums that say what they are,
//! over odd shapes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use proptest::prelude::*;
use semblance_kernels::*;
use support::{close, noise, paths};

/// As [`close`]; where operands are rounded to bf16 (attention over many keys), by the distance of the
/// whole.
fn close_or_rounded(
    cpu: Cpu,
    (what, keys): (&str, usize),
    found: &[f32],
    want: &[f64],
    allowed: f64,
) {
    if keys < 512 || cpu.precision() == Precision::F32 {
        return close(cpu, what, found, want, allowed);
    }
    let square = |x: f64| x * x;
    let pairs = found.iter().zip(want);
    let apart: f64 = pairs.map(|(a, b)| square(f64::from(*a) - b)).sum();
    let whole: f64 = want.iter().map(|b| square(*b)).sum();
    let distance = (apart / whole.max(1e-20)).sqrt();
    assert!(distance < 1e-2, "{what} on {cpu}: {distance} of it");
}

/// What attention over many keys leaves on a path of bf16.
fn left(cpu: Cpu, at: Qkv<'_>, h: Heads, mask: Mask) -> (Vec<f32>, Vec<f32>) {
    let mut y = vec![f32::NAN; at.q.len()];
    let mut lse = vec![f32::NAN; h.samples * h.heads * h.queries];
    let qkv = [at.q, at.k, at.v].map(Input::from);
    attention_and_lse(cpu, qkv, h, mask, Output::Plain(&mut y), &mut lse).unwrap();
    (y, lse)
}

fn check_attention(h: Heads, mask: Mask, moved: [bool; 3]) {
    let row = h.heads * h.size;
    let (queries, keys) = (h.samples * h.queries * row, h.samples * h.keys * row);
    let q: Vec<f32> = noise(queries, 7).iter().map(|x| 3.0 * x).collect();
    let (k, v) = (noise(keys, 8), noise(keys, 9));
    let (dq, dk, dv) = (noise(queries, 20), noise(keys, 21), noise(keys, 22));
    let g = noise(queries, 23);
    let mut push = vec![0.0; queries];
    let mut pull = [vec![0.0; queries], vec![0.0; keys], vec![0.0; keys]];
    let scale = 1.0 / (h.size as f64).sqrt();
    let number = |x: &[f32], at: usize, d: usize| f64::from(x[at + d]);
    for (n, head) in (0..h.samples).flat_map(|n| (0..h.heads).map(move |head| (n, head))) {
        let at = |rows: usize, i: usize| (n * rows + i) * row + head * h.size;
        for i in 0..h.queries {
            let seen = match mask {
                Mask::None => h.keys,
                Mask::Causal => (i + 1).min(h.keys),
            };
            let query = at(h.queries, i);
            let dot = |x: &[f32], y: &[f32], j: usize| -> f64 {
                (0..h.size)
                    .map(|d| number(x, query, d) * number(y, at(h.keys, j), d))
                    .sum()
            };
            let scores: Vec<f64> = (0..seen).map(|j| scale * dot(&q, &k, j)).collect();
            let top = scores.iter().fold(f64::MIN, |a, b| a.max(*b));
            let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
            let p: Vec<f64> = scores.iter().map(|s| (s - top).exp() / total).collect();
            let lean = |d: Vec<f64>| -> Vec<f64> {
                let mean: f64 = d.iter().zip(&p).map(|(d, p)| d * p).sum();
                d.iter().zip(&p).map(|(d, p)| p * (d - mean)).collect()
            };
            let ds = lean(
                (0..seen)
                    .map(|j| {
                        let one = if moved[0] { dot(&dq, &k, j) } else { 0.0 };
                        let two = if moved[1] { dot(&q, &dk, j) } else { 0.0 };
                        scale * (one + two)
                    })
                    .collect(),
            );
            let gs = lean((0..seen).map(|j| dot(&g, &v, j)).collect());
            for j in 0..seen {
                let key = at(h.keys, j);
                for d in 0..h.size {
                    let step = if moved[2] { number(&dv, key, d) } else { 0.0 };
                    push[query + d] += ds[j] * number(&v, key, d) + p[j] * step;
                    pull[0][query + d] += scale * gs[j] * number(&k, key, d);
                    pull[1][key + d] += scale * gs[j] * number(&q, query, d);
                    pull[2][key + d] += p[j] * number(&g, query, d);
                }
            }
        }
    }
    let at = Qkv {
        q: &q,
        k: &k,
        v: &v,
    };
    for cpu in paths() {
        let mut out = vec![f32::NAN; queries];
        let along = [
            moved[0].then_some(&*dq),
            moved[1].then_some(&*dk),
            moved[2].then_some(&*dv),
        ];
        attention_tangent(cpu, at, along, h, mask, &mut out).unwrap();
        close_or_rounded(cpu, ("attention tangent", h.keys), &out, &push, 3e-5);
        let back = |left: Option<Left<'_>>| {
            let mut out = [queries, keys, keys].map(|len| vec![f32::NAN; len]);
            let to = out.each_mut().map(|x| &mut x[..]);
            attention_cotangent(cpu, at, left, &g, h, mask, to).unwrap();
            out
        };
        let found = back(None);
        for (found, want) in found.iter().zip(&pull) {
            close_or_rounded(cpu, ("attention cotangent", h.keys), found, want, 1e-4);
        }
        if attention_leaves(cpu, h.keys) {
            let (y, lse) = left(cpu, at, h, mask);
            assert_eq!(back(Some(Left { y: &y, lse: &lse })), found, "{cpu}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn attention_has_its_derivatives_both_ways(
        samples in 1..3_usize, queries in 1..110_usize, keys in 1..90_usize, heads in 1..4_usize,
        size in 1..40_usize, causal in any::<bool>(), moved in any::<[bool; 3]>(),
    ) {
        let mask = if causal { Mask::Causal } else { Mask::None };
        check_attention(Heads { samples, queries, keys, heads, size }, mask, moved);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    /// As many keys as operands are rounded for on every path of bf16.
    #[test]
    fn attention_over_many_keys_has_its_derivatives_both_ways(
        samples in 1..3_usize, queries in 20..60_usize, keys in 500..700_usize, heads in 1..3_usize,
        size in 1..161_usize, causal in any::<bool>(), moved in any::<[bool; 3]>(),
    ) {
        let mask = if causal { Mask::Causal } else { Mask::None };
        check_attention(Heads { samples, queries, keys, heads, size }, mask, moved);
    }
}

#[test]
fn attention_over_many_keys_has_its_derivatives_rounded_or_not() {
    let heads = |samples, queries, keys, heads, size| Heads {
        samples,
        queries,
        keys,
        heads,
        size,
    };
    check_attention(heads(1, 150, 600, 2, 21), Mask::None, [true; 3]);
    check_attention(heads(2, 49, 513, 1, 40), Mask::None, [true, false, true]);
    check_attention(heads(1, 600, 600, 1, 8), Mask::Causal, [true; 3]);
    check_attention(heads(1, 97, 1031, 1, 7), Mask::None, [false, true, false]);
    check_attention(heads(1, 33, 528, 1, 160), Mask::None, [false, false, true]);
}

#[test]
fn attention_over_keys_that_all_lie_far_away_has_derivatives() {
    // What a column that is no key would weigh, were it one, is no number.
    let h = Heads {
        samples: 1,
        queries: 40,
        keys: 515,
        heads: 1,
        size: 8,
    };
    let long = |len: usize, by: f32| -> Vec<f32> {
        noise(len, 40)
            .iter()
            .map(|x| by * (1.0 + 0.01 * x))
            .collect()
    };
    let (q, k) = (long(40 * 8, 30.0), long(515 * 8, -30.0));
    let (v, g) = (noise(515 * 8, 41), noise(40 * 8, 42));
    let at = Qkv {
        q: &q,
        k: &k,
        v: &v,
    };
    for cpu in paths() {
        let mut out = [40, 515, 515].map(|rows| vec![f32::NAN; rows * 8]);
        let to = out.each_mut().map(|x| &mut x[..]);
        attention_cotangent(cpu, at, None, &g, h, Mask::None, to).unwrap();
        assert!(out.iter().flatten().all(|x| x.is_finite()), "{cpu}");
        // Every query's weights add up to 1.
        let sum = |x: &[f32]| x.iter().map(|x| f64::from(*x)).sum::<f64>();
        let (given, back) = (sum(&g), sum(&out[2]));
        assert!((given - back).abs() < 0.1, "{cpu}: {back} of {given}");
    }
}

#[test]
fn what_an_attention_left_must_be_that_attention_s() {
    for cpu in paths() {
        let h = Heads {
            samples: 1,
            queries: 3,
            keys: 512,
            heads: 2,
            size: 4,
        };
        let (q, k) = (noise(24, 1), noise(4096, 2));
        let at = Qkv {
            q: &q,
            k: &k,
            v: &k,
        };
        let mut y = vec![0.0; 24];
        let mut lse = vec![0.0; 5];
        let qkv = [&q, &k, &k].map(|x| Input::from(&x[..]));
        let few = attention_and_lse(cpu, qkv, h, Mask::None, Output::Plain(&mut y), &mut lse);
        assert!(few.is_err(), "{cpu}");
        let mut out = [24, 4096, 4096].map(|len| vec![0.0; len]);
        let to = out.each_mut().map(|x| &mut x[..]);
        let given = Left { y: &y, lse: &lse };
        let found = attention_cotangent(cpu, at, Some(given), &q, h, Mask::None, to);
        assert_eq!(found.is_err(), attention_leaves(cpu, h.keys), "{cpu}");
    }
}

#[test]
fn heads_that_are_shared_among_threads_are_the_same_heads() {
    let heads = Heads {
        samples: 1,
        queries: 150,
        keys: 300,
        heads: 3,
        size: 21,
    };
    check_attention(heads, Mask::None, [true; 3]);
}
