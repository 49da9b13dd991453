//! Milliseconds of each network of a model: `cargo bench --bench networks -- [FOLDER]`.
//!
//! The median and the fastest of a number of runs on this machine, at the model's own size. FOLDER
//! is a model in diffusers layout; the random one of the tests by default.
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use semblance::Latent;
use semblance::job::Cancel;
use semblance::model::Pipeline;
use semblance::weights::ModelSource;

fn time(what: &str, runs: usize, mut f: impl FnMut()) {
    f();
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!(
        "{what:<28} {:>9.2} ms   fastest {:>9.2}",
        times[runs / 2],
        times[0]
    );
}

fn main() {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny");
    // cargo passes --bench.
    let folder = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    let source = ModelSource::Directory(folder.unwrap_or_else(|| tiny.into()).into());
    let run = Cancel::new();
    time("load", 5, || drop(Pipeline::load(&source, &run).unwrap()));
    let p = Pipeline::load(&source, &run).unwrap();
    let side = p.outline().native_size() / p.vae_factor();
    let latent = |seed: usize| Latent {
        data: (0..side * side * p.latent_channels())
            .map(|i| ((i * 7 + seed) as f32 * 12.9898).sin() * 1.4)
            .collect(),
        channels: p.latent_channels(),
        height: side,
        width: side,
    };
    let (x, y) = (latent(1), latent(2));
    let text = p.encode_text("a photo of the lake", &run).unwrap();
    let context = p.context(&text).unwrap();
    time("text", 20, || drop(p.encode_text("a photo", &run).unwrap()));
    time("keys and values of a text", 20, || {
        drop(p.context(&text).unwrap())
    });
    let one = [(&x, 500.0, &context)];
    let two = [(&x, 500.0, &context), (&y, 300.0, &context)];
    time("U-Net, batch 1", 40, || drop(p.unet(&one, &run).unwrap()));
    time("U-Net, batch 2", 40, || drop(p.unet(&two, &run).unwrap()));
    let rgb = p.vae_decode(&x, &run).unwrap();
    let size = p.outline().native_size();
    time("encode", 10, || {
        drop(p.vae_encode(&rgb, size, size, &run).unwrap())
    });
    time("decode", 10, || drop(p.vae_decode(&x, &run).unwrap()));
}
