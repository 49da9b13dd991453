//! What may be done between the parts of the U-Net: its middle block's output read, moved and watched;
//! the keys and values of its cross-attention mixed and replaced.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/backends.rs"]
mod backends;
#[path = "support/noise.rs"]
mod noise;

use std::path::PathBuf;
use std::sync::Arc;

use semblance::Code;
use semblance::job::Cancel;
use semblance::model::Pipeline;
use semblance::model::unet::{KeyValue, Middle, TextKeys, UNet};
use semblance::nn::derivatives::Derivatives;
use semblance::nn::dual::Dual;
use semblance::nn::native::Native;
use semblance::nn::step::Reading;
use semblance::nn::tape::{Memory, Tape};
use semblance::nn::{Ops, Reads, Shape};
use semblance::weights::ModelSource;
use semblance_kernels::{Cpu, CpuPath};

use backends::{Check, dot, everywhere, near, norm};
use noise::noise;

const TIMES: [f32; 2] = [741.0, 120.0];

/// A tiny random model, and what it is shown.
struct Case<O: Ops> {
    what: String,
    pipeline: Arc<Pipeline<O>>,
    ops: O,
    x: O::Tensor,
    texts: [O::Tensor; 2],
    keys: [TextKeys<O::Tensor>; 2],
}

impl<O: Ops + Clone + 'static> Case<O> {
    fn all(ops: &O) -> Vec<Self> {
        let case = |folder: &str| {
            let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
            let source = ModelSource::Directory(root.join(folder));
            let pipeline = Pipeline::load_on(ops.clone(), &source, &Cancel::new()).unwrap();
            let net = pipeline.unet_network();
            let value = |s: Shape, seed| ops.value(noise(s.len(), seed), s).unwrap();
            let text = Shape::tokens(TIMES.len(), 6, net.config().text_width);
            let texts = [value(text, 2), value(text, 3)];
            let keys = [&texts[0], &texts[1]].map(|text| net.text_keys(ops, text).unwrap());
            Case {
                what: format!("{} {folder}", ops.name()),
                x: value(Shape::map(TIMES.len(), 9, 7, 4), 1),
                ops: ops.clone(),
                pipeline,
                texts,
                keys,
            }
        };
        ["tiny", "parity/sd1", "parity/sd2"].map(case).into()
    }

    fn net(&self) -> &UNet<O> {
        self.pipeline.unet_network()
    }

    fn descend<R: Reads<O>>(
        &self,
        r: &R,
        x: &R::Tensor,
        text: &TextKeys<R::Tensor>,
    ) -> Middle<R::Tensor> {
        let net = self.net();
        net.descend(r, x, &TIMES, text, &Cancel::new()).unwrap()
    }

    fn ascend<R: Reads<O>>(
        &self,
        r: &R,
        middle: Middle<R::Tensor>,
        text: &TextKeys<R::Tensor>,
    ) -> R::Tensor {
        self.net().ascend(r, middle, text, &Cancel::new()).unwrap()
    }

    fn predict(&self, text: &TextKeys<O::Tensor>) -> Vec<f32> {
        let (ops, net) = (&self.ops, self.net());
        let y = net.forward(ops, &self.x, &TIMES, text, &Cancel::new());
        ops.numbers(&y.unwrap().out).unwrap()
    }

    /// The first text's keys and values in a reading, where nothing moves them.
    fn fixed<R: Reading<Over = O>>(&self, reading: &R) -> TextKeys<R::Value> {
        let fixed = |kv: &KeyValue<O::Tensor>| KeyValue {
            key: reading.constant(kv.key.clone()),
            value: reading.constant(kv.value.clone()),
        };
        TextKeys(self.keys[0].0.iter().map(fixed).collect())
    }

    /// The prediction when h is moved by `by` times `along`.
    fn moved(&self, by: f32, along: &O::Tensor) -> Vec<f32> {
        let ops = &self.ops;
        let mut middle = self.descend(ops, &self.x, &self.keys[0]);
        middle.h = ops.combine(&[(1.0, &middle.h), (by, along)]).unwrap();
        let y = self.ascend(ops, middle, &self.keys[0]);
        ops.numbers(&y).unwrap()
    }

    /// A direction of h.
    fn direction(&self) -> (O::Tensor, Vec<f32>) {
        let ops = &self.ops;
        let h = self.descend(ops, &self.x, &self.keys[0]).h;
        let shape = ops.shape(&h).unwrap();
        let along = noise(shape.len(), 9);
        (ops.value(along.clone(), shape).unwrap(), along)
    }
}

/// A test of hooks, for any backend; `exact` is how near to the truth its products are.
trait OfCase {
    fn on<O: Derivatives + Clone + 'static>(&self, case: &Case<O>, exact: f64);
}

/// The test, on every case.
struct All<T>(T);

impl<T: OfCase> Check for All<T> {
    fn on<O: Derivatives + Clone + 'static>(&self, ops: &O, exact: f64) {
        for case in Case::all(ops) {
            self.0.on(&case, exact);
        }
    }
}

#[test]
fn reading_h_and_adding_nothing_to_it_change_nothing() {
    struct Here;
    impl OfCase for Here {
        fn on<O: Derivatives + Clone + 'static>(&self, case: &Case<O>, _: f64) {
            let ops = &case.ops;
            let whole = case.predict(&case.keys[0]);
            let middle = case.descend(ops, &case.x, &case.keys[0]);
            let read = ops.numbers(&middle.h).unwrap();
            assert!(read.iter().any(|x| *x != 0.0));
            let halves = case.ascend(ops, middle, &case.keys[0]);
            assert!(ops.numbers(&halves).unwrap() == whole, "{}", case.what);
            let (along, _) = case.direction();
            assert!(case.moved(0.0, &along) == whole, "{}", case.what);
            assert!(case.moved(1.0, &along) != whole, "{}", case.what);
        }
    }
    everywhere(All(Here), 2e-2);
}

#[test]
fn a_move_of_h_goes_where_its_derivative_says_and_the_gradient_is_its_transpose() {
    struct Here;
    impl OfCase for Here {
        fn on<O: Derivatives + Clone + 'static>(&self, case: &Case<O>, exact: f64) {
            let (ops, what) = (&case.ops, &case.what);
            let (along, numbers) = case.direction();

            let dual = Dual::new(ops);
            let text = case.fixed(&dual);
            let mut middle = case.descend(&dual, &dual.constant(case.x.clone()), &text);
            middle.h = dual.moving(middle.h.value, along.clone()).unwrap();
            let y = case.ascend(&dual, middle, &text);
            let tangent = ops.numbers(y.tangent.as_ref().unwrap()).unwrap();

            if exact < 1e-3 {
                // Differences drown in bf16.
                let small = 0.1;
                let pairs = case.moved(small, &along).into_iter();
                let pairs = pairs.zip(case.moved(-small, &along));
                let slope: Vec<f32> = pairs.map(|(a, b)| (a - b) / (2.0 * small)).collect();
                near(what, &slope, &tangent, 2e-2);
            }

            let tape = Tape::new(ops, Memory::Checkpoints);
            let text = case.fixed(&tape);
            let mut middle = case.descend(&tape, &tape.constant(case.x.clone()), &text);
            middle.h = tape.watch(tape.plain(&middle.h).clone()).unwrap();
            let h = middle.h.clone();
            let y = case.ascend(&tape, middle, &text);
            let shape = tape.shape(&y).unwrap();
            let g = noise(shape.len(), 11);
            let cotangent = ops.value(g.clone(), shape).unwrap();
            let pulled = tape.backward(&[(&y, &cotangent)], &[&h], &Cancel::new());
            let pulled = ops.numbers(&pulled.unwrap()[0]).unwrap();
            let (pushed, size) = (dot(&g, &tangent), norm(&g) * norm(&tangent));
            let apart = (pushed - dot(&pulled, &numbers)).abs();
            assert!(apart <= 2.0 * exact * size, "{what}: {apart} of {size}");
        }
    }
    everywhere(All(Here), 2e-2);
}

#[test]
fn a_mix_of_keys_and_values_is_that_of_the_mixed_text_within_rounding() {
    struct Here;
    impl OfCase for Here {
        fn on<O: Derivatives + Clone + 'static>(&self, case: &Case<O>, exact: f64) {
            let ops = &case.ops;
            for by in [0.3, 1.0, -0.5, 1.7] {
                let mix = [(1.0 - by, &case.texts[0]), (by, &case.texts[1])];
                let text = ops.combine(&mix).unwrap();
                let direct = case.net().text_keys(ops, &text).unwrap();
                let mix = [(1.0 - by, &case.keys[0]), (by, &case.keys[1])];
                let mixed = TextKeys::mix(ops, &mix).unwrap();
                assert_eq!(mixed.0.len(), direct.0.len());
                for (a, b) in mixed.0.iter().zip(&direct.0) {
                    for (a, b) in [(&a.key, &b.key), (&a.value, &b.value)] {
                        let (a, b) = (ops.numbers(a).unwrap(), ops.numbers(b).unwrap());
                        near(&case.what, &a, &b, exact);
                    }
                }
            }
            // One text as it is comes back as it is.
            let one = TextKeys::mix(ops, &[(1.0, &case.keys[1])]).unwrap();
            assert!(case.predict(&one) == case.predict(&case.keys[1]));
        }
    }
    everywhere(All(Here), 2e-2);
}

#[test]
fn keys_and_values_may_be_replaced_layer_by_layer_and_must_all_be_there() {
    let ops = Native::new(Cpu::new(CpuPath::Portable).unwrap());
    for case in Case::all(&ops) {
        let [one, two] = &case.keys;
        let (first, second) = (case.predict(one), case.predict(two));
        let mut mixed = one.clone();
        let mut seen = Vec::new();
        for (layer, other) in two.0.iter().enumerate() {
            mixed.0[layer] = other.clone();
            let now = case.predict(&mixed);
            assert!(
                now != first && !seen.contains(&now),
                "{} {layer}",
                case.what
            );
            seen.push(now);
        }
        assert!(seen.last() == Some(&second), "{}", case.what);
        mixed.0.pop();
        let net = case.net();
        let short = net.forward(&ops, &case.x, &TIMES, &mixed, &Cancel::new());
        assert_eq!(short.err().unwrap().code(), Code::Internal);
        assert!(TextKeys::mix(&ops, &[(0.5, one), (0.5, &mixed)]).is_err());
        assert!(TextKeys::mix(&ops, &[]).is_err());
    }
}
