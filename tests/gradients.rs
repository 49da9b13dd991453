//! Derivatives: of each operation on each backend, and of whole networks against torch
//! (`tests/fixtures/make_gradients.py`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/backends.rs"]
mod backends;
#[path = "support/noise.rs"]
mod noise;

use std::path::PathBuf;
use std::sync::Arc;

use safetensors::SafeTensors;
use semblance::Code;
use semblance::job::Cancel;
use semblance::model::Pipeline;
use semblance::model::unet::{KeyValue, Prediction, TextKeys};
use semblance::nn::candle::Candle;
use semblance::nn::derivatives::Derivatives;
use semblance::nn::dual::Dual;
use semblance::nn::native::Native;
use semblance::nn::step::{Added, Reading, Step};
use semblance::nn::tape::{Memory, Tape};
use semblance::nn::{Act, ConvSpec, LinearSpec, Mask, Ops, Reads, Shape};
use semblance::weights::ModelSource;
use semblance_kernels::{Cpu, CpuPath};

use backends::{Check, dot, everywhere, near, norm};
use noise::noise;

/// Every operation over odd shapes: its name, itself, the shapes of its operands.
fn steps<O: Ops>(ops: &O) -> Vec<(String, Step<O>, Vec<Shape>)> {
    let mut all = Vec::new();
    let s = Shape::map;
    for (i, (from, outputs, size, stride, padding, added)) in [
        (s(2, 5, 7, 3), 9, 3, 1, (1, 1), Added::PerSample),
        (s(1, 7, 6, 10), 4, 3, 1, (1, 1), Added::Residual),
        (s(2, 7, 6, 9), 11, 3, 2, (1, 1), Added::Nothing),
        (s(1, 6, 8, 5), 3, 3, 2, (0, 1), Added::Residual),
        (s(3, 4, 3, 5), 6, 1, 1, (0, 0), Added::PerSample),
        (s(1, 33, 34, 16), 12, 3, 1, (1, 1), Added::Nothing),
    ]
    .into_iter()
    .enumerate()
    {
        let seed = i as u32;
        let spec = ConvSpec {
            kernel: &noise(outputs * from.c * size * size, seed + 50),
            bias: &noise(outputs, seed + 90),
            inputs: from.c,
            outputs,
            size,
            stride,
            padding,
            map: None,
        };
        let (h, w) = (spec.output(from.h).unwrap(), spec.output(from.w).unwrap());
        let mut shapes = vec![from];
        match added {
            Added::Nothing => {}
            Added::PerSample => shapes.push(s(from.n, 1, 1, outputs)),
            Added::Residual => shapes.push(s(from.n, h, w, outputs)),
        }
        let step = Step::Conv(ops.make_conv(spec).unwrap(), added);
        all.push((format!("conv {i}"), step, shapes));
    }
    // Of channels that are rounded on tiles, some of them with places that two share.
    for (i, (from, outputs, added)) in [
        (s(2, 6, 5, 32), 64, Added::PerSample),
        (s(1, 5, 4, 96), 32, Added::Residual),
    ]
    .into_iter()
    .enumerate()
    {
        let seed = 7 + i as u32;
        let spec = ConvSpec {
            kernel: &noise(outputs * from.c * 9, seed + 50),
            bias: &noise(outputs, seed + 90),
            inputs: from.c,
            outputs,
            size: 3,
            stride: 1,
            padding: (1, 1),
            map: None,
        };
        let more = match added {
            Added::PerSample => s(from.n, 1, 1, outputs),
            _ => s(from.n, from.h, from.w, outputs),
        };
        let step = Step::Conv(ops.make_conv(spec).unwrap(), added);
        all.push((format!("wide conv {i}"), step, vec![from, more]));
    }
    let (weight, bias) = (noise(5 * 14, 3), noise(14, 4));
    let spec = |bias| LinearSpec {
        weight: &weight,
        bias,
        inputs: 5,
        outputs: 14,
    };
    let x = s(2, 3, 7, 5);
    let linear = |bias| ops.make_linear(spec(bias)).unwrap();
    let mut push = |name: &str, step, shapes: &[Shape]| {
        all.push((name.to_owned(), step, shapes.to_vec()));
    };
    push("linear", Step::Linear(linear(None), Added::Nothing), &[x]);
    let residual = Step::Linear(linear(Some(&*bias)), Added::Residual);
    push("linear and residual", residual, &[x, s(2, 3, 7, 14)]);
    let vectors = Step::Linear(linear(Some(&*bias)), Added::PerSample);
    push("linear and vectors", vectors, &[x, s(2, 1, 1, 14)]);
    let gate = ops.make_gate(spec(Some(&*bias))).unwrap();
    push("geglu", Step::Geglu(gate), &[x]);
    let affine = |c: usize| ops.make_norm(&noise(c, 5), &noise(c, 6), 1e-5).unwrap();
    for act in [
        Act::Identity,
        Act::Silu,
        Act::Gelu,
        Act::QuickGelu,
        Act::Relu,
    ] {
        let shape = s(2, 5, 7, 12);
        push(&format!("{act:?}"), Step::Act(act), &[shape]);
        let step = Step::GroupNorm(affine(12), 3, act);
        push(&format!("group norm, {act:?}"), step, &[shape]);
    }
    let wide = s(2, 5, 7, 64);
    let step = Step::GroupNorm(affine(64), 32, Act::Silu);
    push("wide group norm", step, &[wide]);
    let (weight, bias) = (noise(64 * 64, 8), noise(64, 9));
    let step = ops.make_gate(LinearSpec {
        weight: &weight,
        bias: Some(&bias),
        inputs: 64,
        outputs: 64,
    });
    push("wide geglu", Step::Geglu(step.unwrap()), &[s(2, 1, 35, 64)]);
    let step = ops.make_linear(LinearSpec {
        weight: &weight,
        bias: Some(&bias),
        inputs: 64,
        outputs: 64,
    });
    let step = Step::Linear(step.unwrap(), Added::Residual);
    push("wide linear and residual", step, &[wide, wide]);
    push(
        "wide layer norm",
        Step::LayerNorm(affine(64)),
        &[s(2, 1, 9, 64)],
    );
    push("wide upsample", Step::Upsample(10, 14), &[wide]);
    push("wide concat", Step::Concat, &[wide, s(2, 5, 7, 32)]);
    push("wide stack", Step::Stack, &[s(1, 3, 4, 32), s(3, 3, 4, 32)]);
    push(
        "wide combine",
        Step::Combine(vec![0.3, -1.7]),
        &[wide, wide],
    );
    push("wide act", Step::Act(Act::Silu), &[wide]);
    push("layer norm", Step::LayerNorm(affine(13)), &[s(2, 1, 9, 13)]);
    let (q, k) = (s(2, 1, 61, 12), s(2, 1, 17, 12));
    push("attention", Step::Attention(3, Mask::None), &[q, k, k]);
    let (q, many) = (s(1, 1, 70, 12), s(1, 1, 517, 12));
    push(
        "attention over many keys",
        Step::Attention(2, Mask::None),
        &[q, many, many],
    );
    let causal = Step::Attention(2, Mask::Causal);
    push("causal attention", causal, &[k, k, k]);
    push("upsample", Step::Upsample(7, 10), &[s(2, 4, 5, 3)]);
    push("max pool", Step::MaxPool(2), &[s(2, 5, 6, 3)]);
    push("patches", Step::Patches(3), &[s(2, 6, 9, 2)]);
    push("join", Step::Join, &[s(2, 1, 4, 3), s(2, 1, 5, 3)]);
    push("tokens", Step::Tokens(2, 3), &[s(2, 1, 7, 4)]);
    push("concat", Step::Concat, &[s(2, 3, 4, 5), s(2, 3, 4, 7)]);
    let stacked = [s(1, 3, 4, 5), s(3, 3, 4, 5)];
    push("stack", Step::Stack, &stacked);
    push("combine", Step::Combine(vec![0.3, -1.7]), &[x, x]);
    all
}

/// Values of some shapes, as numbers and as the backend's.
struct Values<O: Ops> {
    numbers: Vec<Vec<f32>>,
    tensors: Vec<O::Tensor>,
}

impl<O: Ops> Values<O> {
    fn new(ops: &O, shapes: &[Shape], seed: u32) -> Self {
        let numbers: Vec<_> = (shapes.iter().zip(seed..))
            .map(|(s, seed)| noise(s.len(), seed))
            .collect();
        Values::of(ops, shapes, numbers)
    }

    fn of(ops: &O, shapes: &[Shape], numbers: Vec<Vec<f32>>) -> Self {
        let tensors = (shapes.iter().zip(&numbers))
            .map(|(s, x)| ops.value(x.clone(), *s).unwrap())
            .collect();
        Values { numbers, tensors }
    }

    fn refs(&self) -> Vec<&O::Tensor> {
        self.tensors.iter().collect()
    }
}

/// The tangent, and the cotangents, of one step at the same numbers on any backend.
fn both_ways<O: Derivatives>(
    ops: &O,
    step: &Step<O>,
    shapes: &[Shape],
) -> (Vec<f32>, Vec<f32>, Vec<Vec<f32>>, Values<O>) {
    let (x, dx) = (Values::new(ops, shapes, 20), Values::new(ops, shapes, 30));
    let (y, left) = step.run_leaving(ops, &x.refs()).unwrap();
    let left = left.as_ref().map(|more| [&y, more]);
    let along: Vec<_> = dx.tensors.iter().map(Some).collect();
    let dy = step.tangent(ops, &x.refs(), &along).unwrap();
    let shape = ops.shape(&y).unwrap();
    assert_eq!(ops.shape(&dy).unwrap(), shape);
    let g = noise(shape.len(), 40);
    let cotangent = ops.value(g.clone(), shape).unwrap();
    let wanted = vec![true; shapes.len()];
    let back = step.cotangent(ops, (&x.refs(), left), shapes, &cotangent, &wanted);
    let back: Vec<_> = (back.unwrap().iter().zip(shapes))
        .map(|(g, s)| {
            let g = g.as_ref().unwrap();
            assert_eq!(ops.shape(g).unwrap(), *s);
            ops.numbers(g).unwrap()
        })
        .collect();
    (ops.numbers(&dy).unwrap(), g, back, dx)
}

#[test]
fn of_every_operation_the_cotangent_is_the_transpose_of_the_tangent() {
    struct Here;
    impl Check for Here {
        fn on<O: Derivatives + Clone + 'static>(&self, ops: &O, exact: f64) {
            for (name, step, shapes) in steps(ops) {
                let (dy, g, back, dx) = both_ways(ops, &step, &shapes);
                let pushed = dot(&g, &dy);
                let pulled: f64 = back.iter().zip(&dx.numbers).map(|(a, b)| dot(a, b)).sum();
                let size = norm(&g) * norm(&dy);
                assert!(
                    (pushed - pulled).abs() <= exact * size,
                    "{} {name}: {pushed} is not {pulled} of {size}",
                    ops.name()
                );
            }
        }
    }
    everywhere(Here, 1e-2);
}

#[test]
fn every_operation_is_that_of_the_reference() {
    struct Here;
    impl Check for Here {
        fn on<O: Derivatives + Clone + 'static>(&self, ops: &O, exact: f64) {
            for ((name, step, shapes), (_, other, _)) in steps(ops).iter().zip(steps(&Candle)) {
                let found = Values::new(ops, shapes, 20);
                let found = step.run(ops, &found.refs()).unwrap();
                let want = Values::new(&Candle, shapes, 20);
                let want = other.run(&Candle, &want.refs()).unwrap();
                let name = format!("{} {name}", ops.name());
                let want = Candle.numbers(&want).unwrap();
                near(&name, &ops.numbers(&found).unwrap(), &want, exact);
            }
        }
    }
    everywhere(Here, 1e-2);
}

#[test]
fn every_derivative_is_that_of_the_reference() {
    struct Here;
    impl Check for Here {
        fn on<O: Derivatives + Clone + 'static>(&self, ops: &O, exact: f64) {
            for ((name, step, shapes), (_, other, _)) in steps(ops).iter().zip(steps(&Candle)) {
                let (dy, _, back, _) = both_ways(ops, step, shapes);
                let (want, _, want_back, _) = both_ways(&Candle, &other, shapes);
                let name = format!("{} {name}", ops.name());
                near(&name, &dy, &want, exact);
                for (found, want) in back.iter().zip(&want_back) {
                    near(&name, found, want, exact);
                }
            }
        }
    }
    everywhere(Here, 1e-2);
}

#[test]
fn differences_show_every_tangent() {
    struct Here;
    impl Check for Here {
        fn on<O: Derivatives + Clone + 'static>(&self, ops: &O, exact: f64) {
            if exact > 1e-4 {
                return; // Differences drown in bf16.
            }
            for (name, step, shapes) in steps(ops) {
                if name.contains("Relu") || name == "max pool" {
                    continue; // They have corners, and differences reach around them.
                }
                let (dy, _, _, dx) = both_ways(ops, &step, &shapes);
                let x = Values::new(ops, &shapes, 20);
                let small = 5e-3;
                let at = |side: f32| {
                    let moved = (x.numbers.iter().zip(&dx.numbers))
                        .map(|(x, dx)| x.iter().zip(dx).map(|(x, dx)| x + side * dx).collect())
                        .collect();
                    let moved = Values::of(ops, &shapes, moved);
                    ops.numbers(&step.run(ops, &moved.refs()).unwrap()).unwrap()
                };
                let found: Vec<f32> = (at(small).iter().zip(at(-small)))
                    .map(|(a, b)| (a - b) / (2.0 * small))
                    .collect();
                near(&format!("{} {name}", ops.name()), &found, &dy, 1e-2);
            }
        }
    }
    everywhere(Here, 1e-2);
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// One case of the fixture, for a model on a backend.
struct Case<O: Ops> {
    name: String,
    pipeline: Arc<Pipeline<O>>,
    numbers: Vec<u8>,
    /// Tokens' shape.
    text: Shape,
    times: Vec<f32>,
}

impl<O: Derivatives + Clone + 'static> Case<O> {
    fn all(ops: &O) -> Vec<Self> {
        let numbers = std::fs::read(fixtures().join("parity/gradients.safetensors")).unwrap();
        let mut all = Vec::new();
        for (name, folder) in [
            ("tiny", "tiny"),
            ("sd1", "parity/sd1"),
            ("sd2", "parity/sd2"),
        ] {
            let source = ModelSource::Directory(fixtures().join(folder));
            let pipeline = Pipeline::load_on(ops.clone(), &source, &Cancel::new()).unwrap();
            for i in 0..2 {
                let mut case = Case {
                    name: format!("{name}.{i}"),
                    pipeline: Arc::clone(&pipeline),
                    numbers: numbers.clone(),
                    text: Shape::tokens(1, 1, 1),
                    times: Vec::new(),
                };
                let (shape, _) = case.get("c");
                case.text = Shape::tokens(shape[0], shape[1], shape[2]);
                case.times = case.get("t").1;
                all.push(case);
            }
        }
        all
    }

    fn get(&self, what: &str) -> (Vec<usize>, Vec<f32>) {
        let file = SafeTensors::deserialize(&self.numbers).unwrap();
        let tensor = file.tensor(&format!("{}.{what}", self.name)).unwrap();
        let (words, _) = tensor.data().as_chunks::<4>();
        let numbers = words.iter().map(|w| f32::from_le_bytes(*w)).collect();
        (tensor.shape().to_vec(), numbers)
    }

    fn ops(&self) -> &O {
        self.pipeline.ops()
    }

    /// A map of the fixture, which has channels first.
    fn map(&self, what: &str) -> O::Tensor {
        let (s, data) = self.get(what);
        let shape = Shape::map(s[0], s[2], s[3], s[1]);
        self.ops().value_nchw(&data, shape).unwrap()
    }

    fn tokens(&self, what: &str) -> O::Tensor {
        self.ops().value(self.get(what).1, self.text).unwrap()
    }

    fn forward<R: Reads<O>>(&self, r: &R, x: &R::Tensor, c: &R::Tensor) -> Prediction<R::Tensor> {
        let net = self.pipeline.unet_network();
        let keys = net.text_keys(r, c).unwrap();
        net.forward(r, x, &self.times, &keys, &Cancel::new())
            .unwrap()
    }

    fn compare(&self, what: &str, found: &[f32], exact: f64) {
        let name = format!("{} {} {what}", self.ops().name(), self.name);
        near(&name, found, &self.get(what).1, exact);
    }

    /// Gradients to the latents and to the text, and how many numbers were kept.
    fn pull(&self, memory: Memory) -> (Vec<f32>, Vec<f32>, usize) {
        let ops = self.ops();
        let tape = Tape::new(ops, memory);
        let x = tape.watch(self.map("x")).unwrap();
        let c = tape.watch(self.tokens("c")).unwrap();
        let y = self.forward(&tape, &x, &c);
        let (out, middle) = (self.map("g.out"), self.map("g.mid"));
        let results = [(&y.out, &out), (&y.middle, &middle)];
        let g = tape.backward(&results, &[&x, &c], &Cancel::new()).unwrap();
        (
            ops.numbers_nchw(&g[0]).unwrap(),
            ops.numbers(&g[1]).unwrap(),
            tape.kept(),
        )
    }
}

#[test]
fn gradients_and_tangents_of_networks_are_those_of_torch() {
    struct Here;
    impl Check for Here {
        fn on<O: Derivatives + Clone + 'static>(&self, ops: &O, exact: f64) {
            for case in Case::all(ops) {
                let exact = 4.0 * exact;
                let (gx, gc, _) = case.pull(Memory::All);
                case.compare("x.g", &gx, exact);
                case.compare("c.g", &gc, exact);

                let dual = Dual::new(ops);
                let x = dual.moving(case.map("x"), case.map("dx")).unwrap();
                let c = dual.moving(case.tokens("c"), case.tokens("dc")).unwrap();
                let y = case.forward(&dual, &x, &c);
                let (mut pushed, mut size) = (0.0, 0.0);
                for (at, y) in [("out", y.out), ("mid", y.middle)] {
                    let dy = ops.numbers_nchw(&y.tangent.unwrap()).unwrap();
                    case.compare(&format!("d.{at}"), &dy, exact);
                    let g = case.get(&format!("g.{at}")).1;
                    pushed += dot(&g, &dy);
                    size += norm(&g) * norm(&dy);
                }
                // The one is the other's transpose.
                let pulled = dot(&gx, &case.get("dx").1) + dot(&gc, &case.get("dc").1);
                let apart = (pushed - pulled).abs();
                assert!(apart <= exact * size, "{}: {pushed} {pulled}", case.name);
            }
        }
    }
    everywhere(Here, 1e-2);
}

#[test]
fn values_are_the_same_bits_in_every_reading() {
    struct Here;
    impl Check for Here {
        fn on<O: Derivatives + Clone + 'static>(&self, ops: &O, _: f64) {
            for case in Case::all(ops) {
                let plain = case.forward(ops, &case.map("x"), &case.tokens("c"));
                let plain = ops.numbers(&plain.out).unwrap();
                let dual = Dual::new(ops);
                let x = dual.moving(case.map("x"), case.map("dx")).unwrap();
                let c = dual.moving(case.tokens("c"), case.tokens("dc")).unwrap();
                let y = case.forward(&dual, &x, &c);
                let what = format!("{}: {}", ops.name(), case.name);
                assert!(dual.numbers(&y.out).unwrap() == plain, "{what}");
                let tape = Tape::new(ops, Memory::Checkpoints);
                let x = tape.watch(case.map("x")).unwrap();
                let c = tape.watch(case.tokens("c")).unwrap();
                let y = case.forward(&tape, &x, &c);
                assert!(tape.numbers(&y.out).unwrap() == plain, "{what}");
            }
        }
    }
    everywhere(Here, 1e-2);
}

#[test]
fn checkpoints_keep_less_and_change_no_bit_of_a_gradient() {
    struct Here;
    impl Check for Here {
        fn on<O: Derivatives + Clone + 'static>(&self, ops: &O, _: f64) {
            for case in Case::all(ops) {
                let (all, few) = (case.pull(Memory::All), case.pull(Memory::Checkpoints));
                assert!(all.0 == few.0 && all.1 == few.1, "{}", case.name);
                println!(
                    "{}: {} numbers kept, {} checkpointed",
                    case.name, all.2, few.2
                );
                assert!(2 * few.2 < all.2, "{}: {} of {}", case.name, few.2, all.2);
            }
        }
    }
    everywhere(Here, 1e-2);
}

#[test]
fn what_is_not_watched_costs_nothing_and_what_moves_nothing_has_no_gradient() {
    let ops = Native::detect().unwrap();
    let case = &Case::all(&ops)[0];
    let (both, ..) = case.pull(Memory::All);
    let tape = Tape::new(&ops, Memory::All);
    let x = tape.watch(case.map("x")).unwrap();
    let idle = tape.watch(case.map("dx")).unwrap();
    let c = tape.constant(case.tokens("c"));
    let y = case.forward(&tape, &x, &c);
    let (out, middle) = (case.map("g.out"), case.map("g.mid"));
    let results = [(&y.out, &out), (&y.middle, &middle)];
    let g = tape.backward(&results, &[&x, &idle], &Cancel::new());
    let g = g.unwrap();
    assert!(ops.numbers_nchw(&g[0]).unwrap() == both);
    assert!(ops.numbers(&g[1]).unwrap().iter().all(|x| *x == 0.0));
}

#[test]
fn keys_and_values_of_a_text_may_be_watched_themselves() {
    let ops = Native::new(Cpu::new(CpuPath::Portable).unwrap());
    for case in Case::all(&ops) {
        let net = case.pipeline.unet_network();
        let dual = Dual::new(&ops);
        let c = dual.moving(case.tokens("c"), case.tokens("dc")).unwrap();
        let moving = net.text_keys(&dual, &c).unwrap().0;
        let tape = Tape::new(&ops, Memory::Checkpoints);
        let x = tape.constant(case.map("x"));
        let watched: Vec<_> = (moving.iter())
            .map(|kv| KeyValue {
                key: tape.watch(kv.key.value.clone()).unwrap(),
                value: tape.watch(kv.value.value.clone()).unwrap(),
            })
            .collect();
        let text = TextKeys(watched);
        let y = net.forward(&tape, &x, &case.times, &text, &Cancel::new());
        let y = y.unwrap();
        let (out, middle) = (case.map("g.out"), case.map("g.mid"));
        let results = [(&y.out, &out), (&y.middle, &middle)];
        let to: Vec<_> = text.0.iter().flat_map(|kv| [&kv.key, &kv.value]).collect();
        let g = tape.backward(&results, &to, &Cancel::new()).unwrap();
        let along = moving.iter().flat_map(|kv| [&kv.key, &kv.value]);
        let pulled: f64 = (g.iter().zip(along))
            .map(|(g, kv)| {
                let moved = ops.numbers(kv.tangent.as_ref().unwrap()).unwrap();
                dot(&ops.numbers(g).unwrap(), &moved)
            })
            .sum();
        let (gc, dc) = (case.get("c.g").1, case.get("dc").1);
        let apart = (pulled - dot(&gc, &dc)).abs();
        assert!(
            apart <= 1e-4 * norm(&gc) * norm(&dc),
            "{}: {apart}",
            case.name
        );
    }
}

#[test]
fn mistakes_are_errors_and_a_raised_flag_stops_the_backward_pass() {
    let ops = Native::detect().unwrap();
    let case = &Case::all(&ops)[0];
    let tape = Tape::new(&ops, Memory::Checkpoints);
    let x = tape.watch(case.map("x")).unwrap();
    let c = tape.watch(case.tokens("c")).unwrap();
    let y = case.forward(&tape, &x, &c);
    let run = |g, cancel: &Cancel| {
        let found = tape.backward(&[(&y.out, &g)], &[&x], cancel);
        found.err().map(|e| e.code())
    };
    assert_eq!(run(case.map("g.mid"), &Cancel::new()), Some(Code::Internal));
    let raised = Cancel::new();
    raised.cancel();
    assert_eq!(run(case.map("g.out"), &raised), Some(Code::Cancelled));
    assert_eq!(run(case.map("g.out"), &Cancel::new()), None);
    let other = Tape::new(&ops, Memory::All);
    assert!(other.act(&y.out, Act::Silu).is_err());
    let dual = Dual::new(&ops);
    assert!(dual.moving(case.map("x"), case.map("g.mid")).is_err());
}
