//! The embedded model against diffusers, which runs the same folder as it stands
//! (`tests/fixtures/make_mini.py`): text, every step of a trajectory, the picture.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(feature = "embedded-model")]

#[path = "support/noise.rs"]
mod noise;
#[path = "support/paths.rs"]
mod paths;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use safetensors::SafeTensors;
use semblance::diffusion::{Condition, Denoiser, Guidance, Schedule, Span, ddim};
use semblance::job::{Cancel, Control, Phase};
use semblance::model::{Pipeline, TextEmbedding};
use semblance::nn::native::Native;
use semblance::nn::tape::{Memory, Tape};
use semblance::nn::{Ops, Shape};
use semblance::weights::ModelSource;
use semblance::{Latent, Result};
use semblance_kernels::{Cpu, CpuPath, Precision};

use noise::noise;

/// What the contract of the embedded model allows between the two programs.
const TOLERANCE: f32 = 1e-3;
const PROMPT: &str = "a photo of a mountain lake, at sunset";
const STEPS: usize = 20;

struct Recorder {
    pipeline: Arc<Pipeline>,
    seen: Mutex<Vec<Latent>>,
}

impl Denoiser for Recorder {
    fn predict(
        &self,
        x: &[&Latent],
        t: usize,
        conditions: &[&Condition],
        control: &Control,
    ) -> Result<Vec<Latent>> {
        self.seen.lock().unwrap().push(x[0].clone());
        let contexts: Vec<_> = conditions
            .iter()
            .map(|c| {
                self.pipeline.context(&TextEmbedding {
                    data: c.data().to_vec(),
                    length: c.tokens(),
                    width: c.width(),
                    dropped: 0,
                })
            })
            .collect::<Result<_>>()?;
        let batch: Vec<_> = x
            .iter()
            .zip(&contexts)
            .map(|(x, c)| (*x, t as f32, c))
            .collect();
        self.pipeline.unet(&batch, control.cancel())
    }
}

fn reference(name: &str) -> Vec<f32> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mini.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (words, _) = file.tensor(name).unwrap().data().as_chunks::<4>();
    words.iter().map(|w| f32::from_le_bytes(*w)).collect()
}

fn largest_error(found: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(found.len(), wanted.len());
    found
        .iter()
        .zip(wanted)
        .fold(0.0, |m, (a, b)| m.max((a - b).abs()))
}

/// The model, after a look whether the reference was made with these very weights.
fn pipeline() -> Arc<Pipeline> {
    let unet = semblance_model_mini::file("unet/diffusion_pytorch_model.safetensors").unwrap();
    let unet = SafeTensors::deserialize(unet).unwrap();
    let (halves, _) = unet
        .tensor("conv_out.bias")
        .unwrap()
        .data()
        .as_chunks::<2>();
    let key: Vec<f32> = halves
        .iter()
        .map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16))
        .collect();
    let hint = "the weights changed: run tests/fixtures/make_mini.py";
    assert_eq!(key, reference("key"), "{hint}");
    Pipeline::load(
        &ModelSource::Embedded(semblance_model_mini::FILES),
        &Cancel::new(),
    )
    .unwrap()
}

fn condition(pipeline: &Pipeline, text: &str) -> Condition {
    let text = pipeline.encode_text(text, &Cancel::new()).unwrap();
    Condition::new(text.data, text.length, text.width).unwrap()
}

#[test]
fn the_embedded_model_reads_text_as_transformers_does() {
    let pipeline = pipeline();
    for (name, text) in [("text", PROMPT), ("empty", "")] {
        let error = largest_error(&condition(&pipeline, text).data(), &reference(name));
        println!("{name}: {error:.1e}");
        assert!(error <= TOLERANCE, "{name}: off by {error}");
    }
}

#[test]
fn the_embedded_model_takes_every_step_as_diffusers_does() {
    let pipeline = pipeline();
    let grid = Schedule::new(pipeline.outline().schedule())
        .unwrap()
        .grid(STEPS)
        .unwrap();
    for (name, scale) in [("g1", 1.0), ("g3", 3.0)] {
        let wanted = reference(name);
        let states: Vec<&[f32]> = wanted.chunks(4 * 16 * 16).collect();
        assert_eq!(states.len(), STEPS + 1);
        let start = Latent {
            data: states[0].to_vec(),
            channels: 4,
            height: 16,
            width: 16,
        };
        let net = Recorder {
            pipeline: Arc::clone(&pipeline),
            seen: Mutex::default(),
        };
        let control = Control::default();
        let guidance = Guidance::new(scale, condition(&pipeline, "")).unwrap();
        let run = ddim::Sampling {
            grid: &grid,
            guidance: &guidance,
            noise: ddim::Stochastic::new(0.0, 0).unwrap(),
            span: Span::new(&control, Phase::Edit, 0.0, 1.0),
        };
        let end = ddim::sample(&net, start, &condition(&pipeline, PROMPT), &run).unwrap();
        let mut seen = net.seen.into_inner().unwrap();
        seen.push(end.clone());
        assert_eq!(seen.len(), STEPS + 1);
        for (i, (found, wanted)) in seen.iter().zip(&states).enumerate() {
            let error = largest_error(&found.data, wanted);
            println!("{name} step {i}: {error:.1e}");
            assert!(error <= TOLERANCE, "{name} step {i}: off by {error}");
        }
        let picture = pipeline.vae_decode(&end, &Cancel::new()).unwrap();
        let picture: Vec<f32> = picture
            .iter()
            .map(|v| (0.5 * v + 0.5).clamp(0.0, 1.0))
            .collect();
        let error = largest_error(&picture, &reference(&format!("picture{scale:.0}")));
        println!("{name} picture: {error:.1e}");
        assert!(error <= TOLERANCE, "{name} picture: off by {error}");
    }
}

/// What the embedded model's networks give on `ops`: a text, two predictions at once, a picture, its encoding, and the
/// gradients of a prediction to latents and text.
fn everything(ops: &Native) -> Vec<(&'static str, Vec<f32>)> {
    let run = Cancel::new();
    let source = ModelSource::Embedded(semblance_model_mini::FILES);
    let p = Pipeline::load_on(ops.clone(), &source, &run).unwrap();
    let latent = |seed| Latent {
        data: noise(4 * 16 * 16, seed),
        channels: 4,
        height: 16,
        width: 16,
    };
    let (x, y) = (latent(1), latent(2));
    let text = p.encode_text(PROMPT, &run).unwrap();
    let context = p.context(&text).unwrap();
    let two = p.unet(&[(&x, 500.0, &context), (&y, 300.0, &context)], &run);
    let picture = p.vae_decode(&x, &run).unwrap();
    let encoded = p.vae_encode(&picture, 128, 128, &run).unwrap();

    let net = p.unet_network();
    let tape = Tape::new(ops, Memory::Checkpoints);
    let map = Shape::map(1, 16, 16, 4);
    let tokens = Shape::tokens(1, text.length, text.width);
    let watch = |x: &[f32], s| tape.watch(ops.value(x.to_vec(), s).unwrap()).unwrap();
    let (latents, words) = (watch(&x.data, map), watch(&text.data, tokens));
    let keys = net.text_keys(&tape, &words).unwrap();
    let out = net.forward(&tape, &latents, &[500.0], &keys, &run).unwrap();
    let g = ops.value(noise(map.len(), 5), map).unwrap();
    let back = tape.backward(&[(&out.out, &g)], &[&latents, &words], &run);
    let back = back.unwrap();
    let gradient = |i: usize| ops.numbers(&back[i]).unwrap();
    vec![
        ("gradient to latents", gradient(0)),
        ("gradient to text", gradient(1)),
        ("text", text.data),
        (
            "predictions",
            two.unwrap().into_iter().flat_map(|l| l.data).collect(),
        ),
        ("picture", picture),
        ("encoding", encoded.data),
    ]
}

#[test]
fn the_embedded_model_is_the_same_to_rounding_on_every_path() {
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let reference = everything(&Native::new(Cpu::new(CpuPath::Portable).unwrap()));
    for ops in paths::paths() {
        let allowed = match ops.cpu().precision() {
            Precision::F32 => 2e-4,
            Precision::Bf16 => 3e-2,
        };
        for ((name, found), (_, wanted)) in everything(&ops).iter().zip(&reference) {
            assert_eq!(found.len(), wanted.len(), "{name}");
            let apart = norm(&mut found.iter().zip(wanted).map(|(a, b)| a - b));
            let error = (apart / norm(&mut wanted.iter().copied())).sqrt();
            println!("{}: {name}: {error:.1e}", ops.name());
            assert!(error <= allowed, "{}: {name}: off by {error}", ops.name());
        }
    }
}
