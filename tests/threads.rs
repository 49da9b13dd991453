//! The same bytes at any number of threads, on every backend of the CPU: each number in a process of its own,
//! because the pool and candle's matrix product read `RAYON_NUM_THREADS` once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use semblance::Latent;
use semblance::job::Cancel;
use semblance::model::Pipeline;
use semblance::nn::candle::{Candle, OnDevice};
use semblance::nn::native::Native;
use semblance::nn::{Act, ConvSpec, LinearSpec, Mask, Ops, Plus, Shape};
use semblance::weights::ModelSource;
use semblance_kernels::Workers;

fn noise(count: usize, seed: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * 31 + seed * 17) as f32 * 12.9898).sin())
        .collect()
}

/// A digest of values large enough for every operation and the matrix product to share them out.
fn digest<O: Ops + Clone + 'static>(ops: O) -> String {
    let mut hash = blake3::Hasher::new();
    let mut eat = |numbers: &[f32]| {
        for x in numbers {
            hash.update(&x.to_le_bytes());
        }
    };
    for (n, side, inputs, outputs) in [
        (1, 16, 64, 64),
        (2, 8, 192, 128),
        (1, 96, 32, 32),
        (2, 4, 192, 192),
    ] {
        let s = Shape::map(n, side, side, inputs);
        let x = ops.value(noise(s.len(), inputs), s).unwrap();
        let conv = ops
            .make_conv(ConvSpec {
                kernel: &noise(9 * inputs * outputs, 1),
                bias: &noise(outputs, 2),
                inputs,
                outputs,
                size: 3,
                stride: 1,
                padding: (1, 1),
                map: Some((side, side)),
            })
            .unwrap();
        let linear = ops
            .make_gate(LinearSpec {
                weight: &noise(inputs * outputs * 2, 3),
                bias: None,
                inputs,
                outputs: outputs * 2,
            })
            .unwrap();
        let norm = ops
            .make_norm(&noise(inputs, 4), &noise(inputs, 5), 1e-5)
            .unwrap();
        let normed = ops.group_norm(&x, &norm, 16, Act::Silu).unwrap();
        eat(&ops
            .numbers(&ops.conv(&normed, &conv, Plus::Nothing).unwrap())
            .unwrap());
        let rows = ops.layer_norm(&x, &norm).unwrap();
        eat(&ops.numbers(&ops.geglu(&rows, &linear).unwrap()).unwrap());
        if side <= 32 {
            let y = ops.attention(&rows, &x, &normed, 4, Mask::None).unwrap();
            eat(&ops.numbers(&y).unwrap());
        }
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny");
    let run = Cancel::new();
    let p = Pipeline::load_on(ops, &ModelSource::Directory(folder.into()), &run).unwrap();
    let context = p
        .context(&p.encode_text("a photo of the lake", &run).unwrap())
        .unwrap();
    let x = Latent {
        data: noise(4 * 48 * 40, 9),
        channels: 4,
        height: 48,
        width: 40,
    };
    eat(&p
        .unet(&[(&x, 700.0, &context), (&x, 20.0, &context)], &run)
        .unwrap()[1]
        .data);
    let rgb = p.vae_decode(&x, &run).unwrap();
    eat(&rgb);
    eat(&p.vae_encode(&rgb, 384, 320, &run).unwrap().data);
    hash.finalize().to_hex().to_string()
}

#[test]
fn results_are_the_same_bytes_at_any_number_of_threads() {
    if std::env::var_os("SEMBLANCE_TEST_DIGEST").is_some() {
        let threads = std::env::var("RAYON_NUM_THREADS").unwrap();
        let workers = Workers::new("digest", threads.parse().unwrap()).unwrap();
        // Shares in a pool's queues, and among threads that look for them.
        let native = Native::detect().unwrap();
        let queued = digest(native.clone());
        let handed = workers.run(|| native.awake(|| digest(native.clone())));
        assert_eq!(queued, handed, "{threads} threads");
        println!(
            "digest={}{}{handed}",
            digest(Candle),
            digest(OnDevice::cpu()),
        );
        return;
    }
    let digests: Vec<String> = ["1", "2", "3", "7", "10"]
        .iter()
        .map(|threads| {
            let child = std::process::Command::new(std::env::current_exe().unwrap())
                .args([
                    "--nocapture",
                    "--exact",
                    "results_are_the_same_bytes_at_any_number_of_threads",
                ])
                .env("SEMBLANCE_TEST_DIGEST", "1")
                .env("RAYON_NUM_THREADS", threads)
                .output()
                .unwrap();
            let text = String::from_utf8(child.stdout).unwrap();
            let errors = String::from_utf8_lossy(&child.stderr);
            let start = text
                .find("digest=")
                .unwrap_or_else(|| panic!("no digest: {text}{errors}"));
            let start = start + "digest=".len();
            text[start..start + 192].to_owned()
        })
        .collect();
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
}
