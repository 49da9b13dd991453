//! Each operation of each backend against the plainest loop that says what it means.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/devices.rs"]
mod devices;
#[path = "support/noise.rs"]
mod noise;

use noise::noise;
use semblance::nn::candle::Candle;
use semblance::nn::native::Native;
use semblance::nn::{Act, ConvSpec, LinearSpec, Mask, Ops, Plus, Shape};
use semblance::{Code, Result};
use semblance_kernels::{Cpu, CpuPath};

/// A test of operations, for any backend.
trait Check {
    fn on<O: Ops>(&self, ops: &O);
}

/// Runs a test on candle, on candle's devices and on every exact path of the native backend.
fn everywhere(check: impl Check) {
    check.on(&Candle);
    for device in devices::devices() {
        check.on(&device);
    }
    for path in [CpuPath::Portable, CpuPath::Avx2, CpuPath::Avx512] {
        match Cpu::new(path) {
            Ok(cpu) => check.on(&Native::new(cpu)),
            Err(_) => println!("skipped: no {path} here"),
        }
    }
}

fn close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!(
            (a - b).abs() <= 2e-5 * (1.0 + b.abs()),
            "{i}: {a} is not {b}"
        );
    }
}

fn plain_conv(x: &[f32], s: Shape, spec: &ConvSpec<'_>) -> Vec<f32> {
    let (oh, ow) = (spec.output(s.h).unwrap(), spec.output(s.w).unwrap());
    let k = spec.size;
    let mut out = Vec::new();
    for n in 0..s.n {
        for y in 0..oh {
            for xx in 0..ow {
                for o in 0..spec.outputs {
                    let mut sum = f64::from(spec.bias[o]);
                    for dy in 0..k {
                        for dx in 0..k {
                            let row = (y * spec.stride + dy).wrapping_sub(spec.padding.0);
                            let col = (xx * spec.stride + dx).wrapping_sub(spec.padding.0);
                            if row >= s.h || col >= s.w {
                                continue;
                            }
                            for i in 0..s.c {
                                let a = x[((n * s.h + row) * s.w + col) * s.c + i];
                                let b = spec.kernel[((o * s.c + i) * k + dy) * k + dx];
                                sum += f64::from(a * b);
                            }
                        }
                    }
                    out.push(sum as f32);
                }
            }
        }
    }
    out
}

#[test]
fn convolution_is_the_sum_that_defines_it_at_every_stride_padding_and_size() {
    struct Here;
    impl Check for Here {
        fn on<O: Ops>(&self, ops: &O) {
            // The last two are larger than one tile of gathered rows.
            for (i, (s, outputs, size, stride, padding)) in [
                (Shape::map(2, 5, 7, 3), 4, 3, 1, (1, 1)),
                (Shape::map(1, 6, 5, 2), 3, 3, 2, (1, 1)),
                (Shape::map(2, 6, 4, 2), 3, 3, 2, (0, 1)),
                (Shape::map(1, 1, 1, 4), 2, 3, 1, (1, 1)),
                (Shape::map(3, 4, 4, 5), 6, 1, 1, (0, 0)),
                (Shape::map(1, 65, 66, 16), 5, 3, 1, (1, 1)),
                (Shape::map(2, 70, 90, 8), 3, 3, 2, (0, 1)),
            ]
            .into_iter()
            .enumerate()
            {
                let seed = i as u32;
                let x = noise(s.len(), seed);
                let (kernel, bias) = (
                    noise(outputs * s.c * size * size, seed + 50),
                    noise(outputs, seed + 90),
                );
                let spec = ConvSpec {
                    kernel: &kernel,
                    bias: &bias,
                    inputs: s.c,
                    outputs,
                    size,
                    stride,
                    padding,
                    map: None,
                };
                let want = plain_conv(&x, s, &spec);
                let value = ops.value(x, s).unwrap();
                let w = ops.make_conv(spec).unwrap();
                let y = ops.conv(&value, &w, Plus::Nothing).unwrap();
                close(&ops.numbers(&y).unwrap(), &want);

                let out = ops.shape(&y).unwrap();
                let residual = noise(out.len(), seed + 7);
                let r = ops.value(residual.clone(), out).unwrap();
                let y = ops.conv(&value, &w, Plus::Residual(&r)).unwrap();
                let more: Vec<f32> = want.iter().zip(&residual).map(|(a, b)| a + b).collect();
                close(&ops.numbers(&y).unwrap(), &more);

                let vectors = noise(out.n * out.c, seed + 8);
                let v = ops
                    .value(vectors.clone(), Shape::map(out.n, 1, 1, out.c))
                    .unwrap();
                let y = ops.conv(&value, &w, Plus::PerSample(&v)).unwrap();
                let sample = out.rows_per_sample() * out.c;
                let more: Vec<f32> = want
                    .iter()
                    .enumerate()
                    .map(|(i, a)| a + vectors[i / sample * out.c + i % out.c])
                    .collect();
                close(&ops.numbers(&y).unwrap(), &more);
            }
        }
    }
    everywhere(Here);
}

#[test]
fn attention_is_the_softmax_that_defines_it_masked_and_in_blocks_of_queries() {
    struct Here;
    impl Check for Here {
        fn on<O: Ops>(&self, ops: &O) {
            let heads = 2;
            for (lq, lk, mask) in [
                (3, 5, Mask::None),
                (6, 6, Mask::Causal),
                (600, 9, Mask::None),
                (530, 530, Mask::Causal),
            ] {
                let (sq, sk) = (Shape::tokens(2, lq, 8), Shape::tokens(2, lk, 8));
                let (q, k, v) = (noise(sq.len(), 1), noise(sk.len(), 2), noise(sk.len(), 3));
                let mut want = vec![0.0; sq.len()];
                for n in 0..2 {
                    for h in 0..heads {
                        for i in 0..lq {
                            let seen = if mask == Mask::Causal { i + 1 } else { lk };
                            let weight = |j: usize| {
                                let dot: f32 = (0..4)
                                    .map(|d| {
                                        q[(n * lq + i) * 8 + h * 4 + d]
                                            * k[(n * lk + j) * 8 + h * 4 + d]
                                    })
                                    .sum();
                                (f64::from(dot) / 2.0).exp()
                            };
                            let total: f64 = (0..seen).map(weight).sum();
                            for d in 0..4 {
                                let sum: f64 = (0..seen)
                                    .map(|j| weight(j) * f64::from(v[(n * lk + j) * 8 + h * 4 + d]))
                                    .sum();
                                want[(n * lq + i) * 8 + h * 4 + d] = (sum / total) as f32;
                            }
                        }
                    }
                }
                let (q, k, v) = (
                    ops.value(q, sq).unwrap(),
                    ops.value(k, sk).unwrap(),
                    ops.value(v, sk).unwrap(),
                );
                let y = ops.attention(&q, &k, &v, heads, mask).unwrap();
                close(&ops.numbers(&y).unwrap(), &want);
            }
        }
    }
    everywhere(Here);
}

#[test]
fn layers_of_the_same_rows_are_together_what_each_is_alone() {
    struct Here;
    impl Check for Here {
        fn on<O: Ops>(&self, ops: &O) {
            let s = Shape::map(2, 3, 5, 24);
            let x = ops.value(noise(s.len(), 1), s).unwrap();
            let layer = |outputs: usize, seed| {
                let (weight, bias) = (noise(24 * outputs, seed), noise(outputs, seed + 9));
                let bias = (seed > 2).then_some(&*bias);
                let (weight, inputs) = (&*weight, 24);
                let spec = LinearSpec {
                    weight,
                    bias,
                    inputs,
                    outputs,
                };
                ops.make_linear(spec).unwrap()
            };
            let layers = [layer(24, 2), layer(7, 3), layer(64, 4)];
            let together = ops.linears(&x, &layers.each_ref()).unwrap();
            assert_eq!(together.len(), 3);
            for (w, y) in layers.iter().zip(together) {
                let alone = ops.linear(&x, w, Plus::Nothing).unwrap();
                assert_eq!(ops.shape(&y).unwrap(), ops.shape(&alone).unwrap());
                assert_eq!(ops.numbers(&y).unwrap(), ops.numbers(&alone).unwrap());
            }
            let narrow = Shape::map(1, 1, 2, 12);
            let narrow = ops.value(noise(24, 1), narrow).unwrap();
            assert!(ops.linears(&narrow, &layers.each_ref()).is_err());
        }
    }
    everywhere(Here);
}

#[test]
fn group_norm_has_mean_zero_and_variance_one_in_each_group() {
    struct Here;
    impl Check for Here {
        fn on<O: Ops>(&self, ops: &O) {
            let s = Shape::map(2, 40, 30, 12);
            let x: Vec<f32> = noise(s.len(), 4).iter().map(|x| 100.0 + x).collect();
            let w = ops.make_norm(&[1.0; 12], &[0.0; 12], 1e-6).unwrap();
            let y = ops.group_norm(&ops.value(x, s).unwrap(), &w, 3, Act::Identity);
            let y = ops.numbers(&y.unwrap()).unwrap();
            for n in 0..2 {
                for g in 0..3 {
                    let group: Vec<f64> = (0..1200)
                        .flat_map(|r| (0..4).map(move |c| (n * 1200 + r) * 12 + g * 4 + c))
                        .map(|i| f64::from(y[i]))
                        .collect();
                    let mean = group.iter().sum::<f64>() / group.len() as f64;
                    let variance = group.iter().map(|x| x * x).sum::<f64>() / group.len() as f64;
                    assert!(
                        mean.abs() < 1e-3 && (variance - 1.0).abs() < 1e-3,
                        "{mean} {variance}"
                    );
                }
            }
        }
    }
    everywhere(Here);
}

#[test]
fn layer_norm_scales_and_shifts_each_position_by_itself() {
    struct Here;
    impl Check for Here {
        fn on<O: Ops>(&self, ops: &O) {
            let s = Shape::map(2, 3, 5, 24);
            let (x, scale, shift) = (noise(s.len(), 9), noise(24, 10), noise(24, 11));
            let w = ops.make_norm(&scale, &shift, 1e-5).unwrap();
            let y = ops.layer_norm(&ops.value(x.clone(), s).unwrap(), &w);
            let mut want = Vec::new();
            for row in x.chunks_exact(24) {
                let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
                let mean = row.iter().sum::<f64>() / 24.0;
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 24.0;
                for (x, (a, b)) in row.iter().zip(scale.iter().zip(&shift)) {
                    let hat = (x - mean) / (variance + 1e-5).sqrt();
                    want.push((hat * f64::from(*a) + f64::from(*b)) as f32);
                }
            }
            close(&ops.numbers(&y.unwrap()).unwrap(), &want);
        }
    }
    everywhere(Here);
}

fn plain_act(act: Act, x: f64) -> f64 {
    match act {
        Act::Identity => x,
        Act::Silu => x / (1.0 + (-x).exp()),
        Act::Gelu => 0.5 * x * (1.0 + libm::erf(x / 2.0_f64.sqrt())),
        Act::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Act::Relu => x.max(0.0),
    }
}

#[test]
fn activations_are_the_functions_that_define_them_far_from_zero_too() {
    struct Here;
    impl Check for Here {
        fn on<O: Ops>(&self, ops: &O) {
            let x: Vec<f32> = (-2000..2000).map(|i| i as f32 * 0.05).collect();
            let s = Shape::map(1, 4, 100, 10);
            for act in [
                Act::Identity,
                Act::Silu,
                Act::Gelu,
                Act::QuickGelu,
                Act::Relu,
            ] {
                let want: Vec<f32> = (x.iter())
                    .map(|x| plain_act(act, f64::from(*x)) as f32)
                    .collect();
                let y = ops.act(&ops.value(x.clone(), s).unwrap(), act).unwrap();
                close(&ops.numbers(&y).unwrap(), &want);
                // What is no number is not hidden.
                let broken = ops.value(vec![f32::NAN; 8], Shape::map(1, 1, 1, 8));
                let y = ops.numbers(&ops.act(&broken.unwrap(), act).unwrap());
                assert!(y.unwrap().iter().all(|y| y.is_nan()), "{act:?}");
            }
        }
    }
    everywhere(Here);
}

#[test]
fn a_gated_layer_is_one_half_of_it_times_the_gelu_of_the_other() {
    struct Here;
    impl Check for Here {
        fn on<O: Ops>(&self, ops: &O) {
            let s = Shape::tokens(2, 7, 5);
            let (x, weight, bias) = (noise(s.len(), 12), noise(5 * 12, 13), noise(12, 14));
            let spec = LinearSpec {
                weight: &weight,
                bias: Some(&bias),
                inputs: 5,
                outputs: 12,
            };
            let w = ops.make_gate(spec).unwrap();
            let y = ops.geglu(&ops.value(x.clone(), s).unwrap(), &w).unwrap();
            let mut want = Vec::new();
            for row in x.chunks_exact(5) {
                let output = |o: usize| {
                    let products = row.iter().zip(&weight[o * 5..]);
                    let sum: f64 = products.map(|(x, w)| f64::from(x * w)).sum();
                    sum + f64::from(bias[o])
                };
                let number = |o| (output(o) * plain_act(Act::Gelu, output(o + 6))) as f32;
                want.extend((0..6).map(number));
            }
            close(&ops.numbers(&y).unwrap(), &want);
        }
    }
    everywhere(Here);
}

#[test]
fn enlarging_takes_the_nearest_pixel_to_odd_sizes_too() {
    struct Here;
    impl Check for Here {
        fn on<O: Ops>(&self, ops: &O) {
            let x = ops
                .value(vec![1.0, 2.0, 3.0, 4.0], Shape::map(1, 2, 2, 1))
                .unwrap();
            let y = ops.upsample(&x, 3, 4).unwrap();
            let want = [1., 1., 2., 2., 1., 1., 2., 2., 3., 3., 4., 4.];
            assert_eq!(ops.numbers(&y).unwrap(), want);
        }
    }
    everywhere(Here);
}

#[test]
fn planes_and_rows_are_the_same_numbers_in_another_order() {
    struct Here;
    impl Check for Here {
        fn on<O: Ops>(&self, ops: &O) {
            let s = Shape::map(2, 2, 3, 2);
            let data = noise(s.len(), 5);
            let x = ops.value_nchw(&data, s).unwrap();
            assert_eq!(ops.numbers_nchw(&x).unwrap(), data);
            let rows = ops.numbers(&x).unwrap();
            assert_eq!((rows[0], rows[1], rows[2]), (data[0], data[6], data[1]));
        }
    }
    everywhere(Here);
}

#[test]
fn stacked_concatenated_and_combined_values_hold_their_parts() {
    struct Here;
    impl Check for Here {
        fn on<O: Ops>(&self, ops: &O) {
            let s = Shape::map(1, 1, 2, 2);
            let a = ops.value(vec![1., 2., 3., 4.], s).unwrap();
            let b = ops.value(vec![5., 6., 7., 8.], s).unwrap();
            let numbers = |x: Result<O::Tensor>| ops.numbers(&x.unwrap()).unwrap();
            assert_eq!(
                numbers(ops.concat(&a, &b)),
                [1., 2., 5., 6., 3., 4., 7., 8.]
            );
            assert_eq!(
                numbers(ops.stack(&[&a, &b])),
                [1., 2., 3., 4., 5., 6., 7., 8.]
            );
            assert_eq!(
                numbers(ops.combine(&[(2.0, &a), (-1.0, &b)])),
                [-3., -2., -1., 0.]
            );
        }
    }
    everywhere(Here);
}

#[test]
fn a_pool_takes_the_largest_of_each_window_and_patches_its_numbers_in_order() {
    struct Here;
    impl Check for Here {
        fn on<O: Ops>(&self, ops: &O) {
            // Rows and columns that make no whole window are left out.
            let s = Shape::map(2, 5, 7, 3);
            let x = noise(s.len(), 6);
            let at = |n: usize, y: usize, column: usize, c: usize| {
                x[((n * s.h + y) * s.w + column) * s.c + c]
            };
            let y = ops.max_pool(&ops.value(x.clone(), s).unwrap(), 2).unwrap();
            assert_eq!(ops.shape(&y).unwrap(), Shape::map(2, 2, 3, 3));
            let found = ops.numbers(&y).unwrap();
            for (i, found) in found.iter().enumerate() {
                let (c, column, row, n) = (i % 3, i / 3 % 3, i / 9 % 2, i / 18);
                let window = [(0, 0), (0, 1), (1, 0), (1, 1)];
                let want = window.map(|(dy, dx)| at(n, 2 * row + dy, 2 * column + dx, c));
                assert_eq!(*found, want.into_iter().fold(f32::MIN, f32::max));
            }
            let counted: Vec<f32> = (0..16).map(|i| i as f32).collect();
            let x = ops.value(counted, Shape::map(1, 2, 4, 2)).unwrap();
            let y = ops.patches(&x, 2).unwrap();
            assert_eq!(ops.shape(&y).unwrap(), Shape::tokens(1, 2, 8));
            let first = [0., 1., 2., 3., 8., 9., 10., 11.];
            let second = [4., 5., 6., 7., 12., 13., 14., 15.];
            assert_eq!(ops.numbers(&y).unwrap(), [first, second].concat());
        }
    }
    everywhere(Here);
}

#[test]
fn joined_sequences_come_apart_again_sample_by_sample() {
    struct Here;
    impl Check for Here {
        fn on<O: Ops>(&self, ops: &O) {
            let (sa, sb) = (Shape::tokens(2, 1, 3), Shape::tokens(2, 4, 3));
            let (a, b) = (noise(sa.len(), 7), noise(sb.len(), 8));
            let value = |x: &[f32], s| ops.value(x.to_vec(), s).unwrap();
            let joined = ops.join(&value(&a, sa), &value(&b, sb)).unwrap();
            assert_eq!(ops.shape(&joined).unwrap(), Shape::tokens(2, 5, 3));
            let part = |first, count| {
                let part = ops.tokens(&joined, first, count).unwrap();
                (ops.numbers(&part).unwrap(), ops.shape(&part).unwrap())
            };
            assert_eq!(part(0, 1), (a.clone(), sa));
            assert_eq!(part(1, 4), (b.clone(), sb));
            let (middle, _) = part(2, 2);
            assert_eq!(middle, [&b[3..9], &b[15..21]].concat());
            assert!(ops.tokens(&joined, 2, 4).is_err());
            assert!(ops.tokens(&joined, usize::MAX, 2).is_err());
            let tall = value(&b, Shape::map(2, 2, 2, 3));
            assert!(ops.join(&value(&a, sa), &tall).is_err());
        }
    }
    everywhere(Here);
}

#[test]
fn what_does_not_fit_is_an_error_not_a_panic() {
    struct Here;
    impl Check for Here {
        fn on<O: Ops>(&self, ops: &O) {
            let x = ops.value(vec![0.0; 12], Shape::map(1, 2, 2, 3)).unwrap();
            let w = ops
                .make_linear(LinearSpec {
                    weight: &[0.0; 8],
                    bias: None,
                    inputs: 4,
                    outputs: 2,
                })
                .unwrap();
            assert_eq!(
                ops.linear(&x, &w, Plus::Nothing).err().map(|e| e.code()),
                Some(Code::Internal)
            );
            assert!(ops.value(vec![0.0; 5], Shape::map(1, 2, 2, 3)).is_err());
            assert!(ops.attention(&x, &x, &x, 2, Mask::None).is_err());
            assert!(ops.upsample(&x, 0, 1).is_err());
            assert!(ops.max_pool(&x, 0).is_err() && ops.max_pool(&x, 3).is_err());
            assert!(ops.patches(&x, 0).is_err() && ops.patches(&x, 3).is_err());
            assert!(ops.combine(&[]).is_err());
        }
    }
    everywhere(Here);
}
