//! CLIP's towers and VGG-16, values and gradients, on both backends, against what transformers and
//! torchvision compute with the same weights (`tests/fixtures/make_towers.py`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/backends.rs"]
mod backends;

use std::path::PathBuf;

use safetensors::SafeTensors;
use semblance::Code;
use semblance::job::Cancel;
use semblance::model::vision::clip::ClipVision;
use semblance::model::vision::vgg::{Vgg16, WIDTHS};
use semblance::model::{Builder, Pipeline};
use semblance::nn::derivatives::Derivatives;
use semblance::nn::dual::Dual;
use semblance::nn::native::Native;
use semblance::nn::tape::{Memory, Tape};
use semblance::nn::{Ops, Shape};
use semblance::weights::{ModelSource, TensorFile, Tensors};
use semblance_kernels::{Cpu, CpuPath};

use backends::{Check, everywhere, near};

fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What the fixture has under a name: sizes as torch gives them, and numbers.
fn get(name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(root("tests/fixtures/parity/towers.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    let (words, _) = tensor.data().as_chunks::<4>();
    let numbers = words.iter().map(|w| match tensor.dtype() {
        safetensors::Dtype::I32 => i32::from_le_bytes(*w) as f32,
        _ => f32::from_le_bytes(*w),
    });
    (tensor.shape().to_vec(), numbers.collect())
}

/// A map of the fixture, which has channels first.
fn map<O: Ops>(ops: &O, name: &str) -> O::Tensor {
    let (s, data) = get(name);
    let shape = Shape::map(s[0], s[2], s[3], s[1]);
    ops.value_nchw(&data, shape).unwrap()
}

/// A sequence of vectors of the fixture, or one vector for each sample.
fn tokens<O: Ops>(ops: &O, name: &str) -> O::Tensor {
    let (s, data) = get(name);
    let length = if s.len() == 3 { s[1] } else { 1 };
    let shape = Shape::tokens(s[0], length, *s.last().unwrap());
    ops.value(data, shape).unwrap()
}

fn load<O: Ops + Clone + 'static>(ops: &O, folder: &str) -> std::sync::Arc<ClipVision<O>> {
    let source = ModelSource::Directory(root(folder));
    ClipVision::load_on(ops, &source, &Cancel::new()).unwrap()
}

#[test]
fn pictures_have_the_places_and_the_gradients_that_transformers_gives() {
    struct Here;
    impl Check for Here {
        fn on<O: Derivatives + Clone + 'static>(&self, ops: &O, exact: f64) {
            for name in ["l", "h"] {
                let at = |what: &str| format!("{name}.{what}");
                let tower = load(ops, &format!("tests/fixtures/parity/vision-{name}"));
                for memory in [Memory::All, Memory::Checkpoints] {
                    let tape = Tape::new(ops, memory);
                    let x = tape.watch(map(ops, &at("x"))).unwrap();
                    let y = tower.forward(&tape, &x, &Cancel::new()).unwrap();
                    let what = format!("{} {name}", ops.name());
                    near(
                        &what,
                        &tape.numbers(&y).unwrap(),
                        &get(&at("embeds")).1,
                        exact,
                    );
                    let g = tokens(ops, &at("g"));
                    let gx = tape.backward(&[(&y, &g)], &[&x], &Cancel::new()).unwrap();
                    let gx = ops.numbers_nchw(&gx[0]).unwrap();
                    near(&what, &gx, &get(&at("x.g")).1, 3.0 * exact);
                }
            }
        }
    }
    everywhere(Here, 2e-2);
}

#[test]
fn the_embedded_models_image_encoder_sees_what_transformers_sees() {
    struct Here;
    impl Check for Here {
        fn on<O: Derivatives + Clone + 'static>(&self, ops: &O, exact: f64) {
            let tower = load(ops, "models/mini");
            let side = tower.config().image;
            let wave = |i: usize| (0.37 * i as f64).sin() as f32;
            let x: Vec<f32> = (0..3 * side * side).map(wave).collect();
            let x = ops.value_nchw(&x, Shape::map(1, side, side, 3)).unwrap();
            let y = tower.forward(ops, &x, &Cancel::new()).unwrap();
            let what = format!("{} mini", ops.name());
            near(
                &what,
                &ops.numbers(&y).unwrap(),
                &get("mini.embeds").1,
                exact,
            );
        }
    }
    let (shape, key) = get("mini.key");
    let source = ModelSource::Directory(root("models/mini"));
    let file = TensorFile::open(&source, "image_encoder/model.safetensors").unwrap();
    let found = file.get("vision_model.embeddings.class_embedding", &shape);
    let hint = "the weights changed: run tests/fixtures/make_towers.py";
    assert_eq!(found.unwrap(), key, "{hint}");
    everywhere(Here, 2e-2);
}

#[test]
fn the_text_tower_has_the_gradient_to_its_embedded_tokens_that_transformers_gives() {
    struct Here;
    impl Check for Here {
        fn on<O: Derivatives + Clone + 'static>(&self, ops: &O, exact: f64) {
            let source = ModelSource::Directory(root("tests/fixtures/tiny"));
            let pipeline = Pipeline::load_on(ops.clone(), &source, &Cancel::new()).unwrap();
            let tower = pipeline.text_network();
            let (shape, ids) = get("t.ids");
            let ids: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
            let texts: Vec<&[u32]> = ids.chunks_exact(shape[1]).collect();
            let embedded = tower.embed(ops, &texts).unwrap();
            let numbers = ops.numbers(&embedded).unwrap();
            near("embedded", &numbers, &get("t.x").1, 1e-6);
            let tape = Tape::new(ops, Memory::Checkpoints);
            let x = tape.watch(embedded).unwrap();
            let y = tower.encode(&tape, x.clone(), &Cancel::new()).unwrap();
            let what = format!("{} text", ops.name());
            near(&what, &tape.numbers(&y).unwrap(), &get("t.hidden").1, exact);
            let g = tokens(ops, "t.g");
            let gx = tape.backward(&[(&y, &g)], &[&x], &Cancel::new()).unwrap();
            let gx = ops.numbers(&gx[0]).unwrap();
            near(&what, &gx, &get("t.x.g").1, 3.0 * exact);
        }
    }
    everywhere(Here, 2e-2);
}

const NARROW: [usize; 5] = [4, 6, 8, 8, 10];

fn vgg<O: Ops>(ops: &O, widths: &[usize]) -> semblance::Result<Vgg16<O>> {
    let source = ModelSource::Directory(root("tests/fixtures/parity"));
    let file = TensorFile::open(&source, "vgg.safetensors")?;
    Vgg16::new(&Builder::new(ops, &file, &Cancel::new()), widths)
}

#[test]
fn vgg_has_the_activations_and_the_gradient_that_torchvision_gives() {
    struct Here;
    impl Check for Here {
        fn on<O: Derivatives + Clone + 'static>(&self, ops: &O, exact: f64) {
            let net = vgg(ops, &NARROW).unwrap();
            let tape = Tape::new(ops, Memory::Checkpoints);
            let x = tape.watch(map(ops, "vgg.x")).unwrap();
            let taps = net.forward(&tape, &x, &Cancel::new()).unwrap();
            assert_eq!(taps.len(), 5);
            let mut cotangents = Vec::new();
            for (i, tap) in taps.iter().enumerate() {
                let found = tape.numbers_nchw(tap).unwrap();
                let what = format!("{} vgg {i}", ops.name());
                near(&what, &found, &get(&format!("vgg.{i}")).1, exact);
                cotangents.push(map(ops, &format!("vgg.{i}.g")));
            }
            let results: Vec<_> = taps.iter().zip(&cotangents).collect();
            let gx = tape.backward(&results, &[&x], &Cancel::new()).unwrap();
            let gx = ops.numbers_nchw(&gx[0]).unwrap();
            if exact < 1e-3 {
                near(ops.name().as_str(), &gx, &get("vgg.x.g").1, 10.0 * exact);
            } else {
                // Where operands are rounded, a number near 0 may fall on its other side, and the
                // gradient is then that of another region: it is only as long and shows the same way.
                near(ops.name().as_str(), &gx, &get("vgg.x.g").1, 0.2);
            }
        }
    }
    everywhere(Here, 2e-2);
}

#[test]
fn the_first_stages_alone_are_the_same_and_tangents_go_through_them() {
    let ops = Native::new(Cpu::new(CpuPath::Portable).unwrap());
    let x = map(&ops, "vgg.x");
    let first = vgg(&ops, &NARROW[..3]).unwrap();
    let taps = first.forward(&ops, &x, &Cancel::new()).unwrap();
    assert_eq!(taps.len(), 3);
    for (i, tap) in taps.iter().enumerate() {
        let found = ops.numbers_nchw(tap).unwrap();
        near("stage", &found, &get(&format!("vgg.{i}")).1, 1e-5);
    }
    // A tangent is to the gradient that torchvision gives what it is to be: its transpose.
    let net = vgg(&ops, &NARROW).unwrap();
    let dual = Dual::new(&ops);
    let moving = dual.moving(x.clone(), x).unwrap();
    let taps = net.forward(&dual, &moving, &Cancel::new()).unwrap();
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let (mut pushed, mut size) = (0.0, 0.0);
    for (i, tap) in taps.iter().enumerate() {
        let tangent = ops.numbers_nchw(tap.tangent.as_ref().unwrap()).unwrap();
        let (_, g) = get(&format!("vgg.{i}.g"));
        pushed += dot(&g, &tangent);
        size += (dot(&g, &g) * dot(&tangent, &tangent)).sqrt();
    }
    let apart = (pushed - dot(&get("vgg.x.g").1, &get("vgg.x").1)).abs();
    assert!(apart <= 1e-4 * size, "{apart} of {size}");
}

#[test]
fn what_does_not_fit_is_an_error_and_a_raised_flag_stops_every_tower() {
    let ops = Native::new(Cpu::new(CpuPath::Portable).unwrap());
    let tower = load(&ops, "tests/fixtures/parity/vision-l");
    let raised = Cancel::new();
    raised.cancel();
    let x = map(&ops, "l.x");
    let stopped = tower.forward(&ops, &x, &raised).err().unwrap();
    assert_eq!(stopped.code(), Code::Cancelled);
    let other = tower.forward(&ops, &map(&ops, "h.x"), &Cancel::new());
    let error = other.err().unwrap();
    assert_eq!(error.code(), Code::InvalidParameter);
    assert!(error.to_string().contains("32"), "{error}");

    let net = vgg(&ops, &NARROW).unwrap();
    let picture = map(&ops, "vgg.x");
    let stopped = net.forward(&ops, &picture, &raised).err().unwrap();
    assert_eq!(stopped.code(), Code::Cancelled);
    let small = ops.value(vec![0.5; 8 * 8 * 3], Shape::map(1, 8, 8, 3));
    assert!(net.forward(&ops, &small.unwrap(), &Cancel::new()).is_err());
    let of = |widths: &[usize]| vgg(&ops, widths).err().unwrap().code();
    assert_eq!(of(&[]), Code::InvalidParameter);
    assert_eq!(of(&[4; 6]), Code::InvalidParameter);
    assert_eq!(of(&WIDTHS), Code::InvalidModel);

    let none = ModelSource::Directory(root("tests/fixtures/parity/sd1"));
    let error = ClipVision::load_on(&ops, &none, &Cancel::new()).err();
    assert_eq!(error.unwrap().code(), Code::InvalidModel);
}
