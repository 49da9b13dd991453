//! Every network, on every backend, against what diffusers and transformers compute with the same
//! weights (`tests/fixtures/make_tiny.py`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/devices.rs"]
mod devices;
#[path = "support/paths.rs"]
mod paths;

use std::path::PathBuf;
use std::sync::Arc;

use safetensors::SafeTensors;
use semblance::job::Cancel;
use semblance::model::{Context, Pipeline, TextEmbedding};
use semblance::nn::Ops;
use semblance::nn::candle::Candle;
use semblance::nn::native::Native;
use semblance::weights::ModelSource;
use semblance::{Code, Latent};
use semblance_kernels::Precision;

/// Largest error allowed, as a part of the reference's own range.
const TOLERANCE: f32 = 1e-4;
/// The same where products round their operands to 8 bits.
const TOLERANCE_BF16: f32 = 2e-2;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

struct Case<O: Ops = Native> {
    name: &'static str,
    backend: String,
    tolerance: f32,
    pipeline: Arc<Pipeline<O>>,
    expected: Vec<u8>,
    texts: Vec<String>,
}

impl Case {
    fn all() -> Vec<Case> {
        Case::on(Native::detect().unwrap(), TOLERANCE)
    }
}

/// A comparison that every backend passes.
trait Check {
    fn case<O: Ops + Clone + 'static>(&self, case: &Case<O>);
}

/// Runs `check` on candle, on candle's devices and on every path of the native backend.
fn everywhere(check: impl Check) {
    Case::on(Candle, TOLERANCE)
        .iter()
        .for_each(|c| check.case(c));
    for device in devices::devices() {
        let cases = Case::on(device, TOLERANCE);
        cases.iter().for_each(|c| check.case(c));
    }
    for ops in paths::paths() {
        let tolerance = match ops.cpu().precision() {
            Precision::F32 => TOLERANCE,
            Precision::Bf16 => TOLERANCE_BF16,
        };
        let cases = Case::on(ops, tolerance);
        cases.iter().for_each(|c| check.case(c));
    }
}

impl<O: Ops + Clone + 'static> Case<O> {
    fn on(ops: O, tolerance: f32) -> Vec<Case<O>> {
        [
            ("tiny", "tiny"),
            ("sd1", "parity/sd1"),
            ("sd2", "parity/sd2"),
        ]
        .map(|(name, folder)| {
            let source = ModelSource::Directory(fixtures().join(folder));
            let parity = fixtures().join("parity");
            let texts = std::fs::read(parity.join(format!("{name}.json"))).unwrap();
            Case {
                name,
                backend: ops.name(),
                tolerance,
                pipeline: Pipeline::load_on(ops.clone(), &source, &Cancel::new()).unwrap(),
                expected: std::fs::read(parity.join(format!("{name}.safetensors"))).unwrap(),
                texts: serde_json::from_slice(&texts).unwrap(),
            }
        })
        .into()
    }

    fn get(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let file = SafeTensors::deserialize(&self.expected).unwrap();
        let tensor = file.tensor(name).unwrap();
        let (words, _) = tensor.data().as_chunks::<4>();
        let numbers = match tensor.dtype() {
            safetensors::Dtype::I32 => words
                .iter()
                .map(|w| i32::from_le_bytes(*w) as f32)
                .collect(),
            _ => words.iter().map(|w| f32::from_le_bytes(*w)).collect(),
        };
        (tensor.shape().to_vec(), numbers)
    }

    fn compare(&self, what: &str, found: &[f32]) {
        let (_, want) = self.get(what);
        assert_eq!(found.len(), want.len(), "{} {what}", self.name);
        let range = want.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        let error = found
            .iter()
            .zip(&want)
            .fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
        let (name, backend) = (self.name, &self.backend);
        println!(
            "{backend}: {name} {what}: {:.1e} of {range:.2}",
            error / range
        );
        assert!(
            error <= self.tolerance * range,
            "{backend}: {name} {what}: off by {error}"
        );
    }
}

fn latents(shape: &[usize], data: &[f32]) -> Vec<Latent> {
    data.chunks_exact(shape[1..].iter().product())
        .map(|data| Latent {
            data: data.to_vec(),
            channels: shape[1],
            height: shape[2],
            width: shape[3],
        })
        .collect()
}

#[test]
fn texts_become_the_ids_and_states_that_transformers_gives() {
    struct Here;
    impl Check for Here {
        fn case<O: Ops + Clone + 'static>(&self, case: &Case<O>) {
            let (mut ids, mut hidden, mut pooled) = (Vec::new(), Vec::new(), Vec::new());
            for text in &case.texts {
                let p = &case.pipeline;
                ids.extend(p.token_ids(text).unwrap().iter().map(|id| *id as f32));
                hidden.extend(p.encode_text(text, &Cancel::new()).unwrap().data);
                pooled.extend(
                    p.project_text(text, &Cancel::new())
                        .unwrap()
                        .unwrap_or_default(),
                );
            }
            let (_, want) = case.get("text.ids");
            assert_eq!(ids, want, "{}", case.name);
            case.compare("text.hidden", &hidden);
            if case.name == "tiny" {
                case.compare("text.pooled", &pooled);
            }
        }
    }
    everywhere(Here);
}

#[test]
fn pictures_become_the_latents_that_diffusers_gives_and_back() {
    struct Here;
    impl Check for Here {
        fn case<O: Ops + Clone + 'static>(&self, case: &Case<O>) {
            let p = &case.pipeline;
            let (shape, image) = case.get("vae.image");
            let latent = p
                .vae_encode(&image, shape[2], shape[3], &Cancel::new())
                .unwrap();
            let scale = p.vae_scaling_factor() as f32;
            let mean: Vec<f32> = latent.data.iter().map(|x| x / scale).collect();
            case.compare("vae.mean", &mean);

            let (shape, z) = case.get("vae.z");
            let mut decoded = Vec::new();
            for mut latent in latents(&shape, &z) {
                latent.data.iter_mut().for_each(|x| *x *= scale);
                decoded.extend(p.vae_decode(&latent, &Cancel::new()).unwrap());
            }
            case.compare("vae.decoded", &decoded);
        }
    }
    everywhere(Here);
}

#[test]
fn predictions_are_those_of_diffusers_at_any_size_time_and_batch() {
    struct Here;
    impl Check for Here {
        fn case<O: Ops + Clone + 'static>(&self, case: &Case<O>) {
            let p = &case.pipeline;
            for i in 0..4 {
                let (shape, x) = case.get(&format!("unet.{i}.x"));
                let (_, times) = case.get(&format!("unet.{i}.t"));
                let (text_shape, text) = case.get(&format!("unet.{i}.c"));
                let contexts: Vec<_> = text
                    .chunks_exact(text_shape[1] * text_shape[2])
                    .map(|data| {
                        p.context(&TextEmbedding {
                            data: data.to_vec(),
                            length: text_shape[1],
                            width: text_shape[2],
                            dropped: 0,
                        })
                        .unwrap()
                    })
                    .collect();
                let latents = latents(&shape, &x);
                let batch: Vec<_> = latents
                    .iter()
                    .zip(&times)
                    .zip(&contexts)
                    .map(|((x, t), c)| (x, *t, c))
                    .collect();
                let (out, middle) = p.unet_with_middle(&batch, &Cancel::new()).unwrap();
                let out: Vec<f32> = out.into_iter().flat_map(|l| l.data).collect();
                case.compare(&format!("unet.{i}.out"), &out);
                case.compare(&format!("unet.{i}.mid"), &middle);
            }
        }
    }
    everywhere(Here);
}

#[test]
fn a_mix_of_contexts_is_the_context_of_the_mix_and_exact_at_both_ends() {
    let case = &Case::all()[0];
    let p = &case.pipeline;
    let text = |t: &str| p.encode_text(t, &Cancel::new()).unwrap();
    let (a, b) = (
        text("a photo of the lake"),
        text("a photo of the lake at night"),
    );
    let x = Latent {
        data: (0..4 * 8 * 8).map(|i| (i as f32).sin()).collect(),
        channels: 4,
        height: 8,
        width: 8,
    };
    let predict = |c: &Context| {
        p.unet(&[(&x, 500.0, c)], &Cancel::new()).unwrap()[0]
            .data
            .clone()
    };
    let (ca, cb) = (p.context(&a).unwrap(), p.context(&b).unwrap());
    let mix = |w| predict(&p.mix(&[(1.0 - w, &ca), (w, &cb)]).unwrap());
    assert_eq!(mix(0.0), predict(&ca));
    assert_eq!(mix(1.0), predict(&cb));
    let mut half = a.clone();
    half.data
        .iter_mut()
        .zip(&b.data)
        .for_each(|(a, b)| *a += 0.3 * (b - *a));
    let (one, two) = (mix(0.3), predict(&p.context(&half).unwrap()));
    assert!(one.iter().zip(&two).all(|(a, b)| (a - b).abs() < 1e-5));
    assert_ne!(one, mix(0.0));
}

#[test]
fn a_model_is_loaded_once_and_shared() {
    let source = ModelSource::Directory(fixtures().join("tiny"));
    let load = || Pipeline::load(&source, &Cancel::new()).unwrap();
    let one = load();
    let others: Vec<_> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..4).map(|_| s.spawn(load)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(others.iter().all(|other| Arc::ptr_eq(&one, other)));
}

#[test]
fn a_raised_flag_stops_load_text_encoding_prediction_and_decoding() {
    let raised = Cancel::new();
    raised.cancel();
    let case = &Case::all()[0];
    let p = &case.pipeline;
    let x = Latent {
        data: vec![0.0; 4 * 4 * 4],
        channels: 4,
        height: 4,
        width: 4,
    };
    let c = p
        .context(&p.encode_text("", &Cancel::new()).unwrap())
        .unwrap();
    let stopped = [
        p.encode_text("", &raised).err(),
        p.unet(&[(&x, 1.0, &c)], &raised).err(),
        p.vae_decode(&x, &raised).err(),
        p.vae_encode(&[0.0; 3 * 8 * 8], 8, 8, &raised).err(),
        Pipeline::load(&ModelSource::Directory(fixtures().join("tiny")), &raised).err(),
    ];
    for (i, error) in stopped.into_iter().enumerate() {
        assert_eq!(error.expect("stopped").code(), Code::Cancelled, "{i}");
    }
}

#[test]
fn words_in_pieces_are_named_and_learned_ones_are_not() {
    let case = &Case::all()[0];
    let unknown = case
        .pipeline
        .unknown_words("A photo of the Zeppelin, at sunset; zeppelin & fjord");
    assert_eq!(unknown.unwrap(), ["zeppelin", "fjord"]);
}

#[test]
fn the_grids_are_near_the_native_area_and_at_most_two_to_one() {
    let mut grids: Vec<_> = Case::all()[0]
        .pipeline
        .outline()
        .grids()
        .iter()
        .map(|g| (g.width, g.height))
        .collect();
    grids.sort_unstable();
    let want = [
        (96, 160),
        (96, 192),
        (128, 128),
        (128, 160),
        (160, 96),
        (160, 128),
        (192, 96),
    ];
    assert_eq!(grids, want);
}
