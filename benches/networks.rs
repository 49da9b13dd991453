//! Seconds of each network of a model, ours beside candle's, in one run:
//! `cargo bench --bench networks -- [FOLDER] [--sd15 | --sd15-64] [--gradients] [--shares] [--error] [--start]
//! [--outputs FROM TO] [--alone] [--turns] [--device NAME] [--json FILE]`.
//!
//! Medians on this machine, the backends by turns, at the model's own size. FOLDER is a model in
//! diffusers layout, the embedded one by default; `--sd15` takes a U-Net of Stable Diffusion 1.5's
//! shape with random weights instead, on latents of 32 × 32, `--sd15-64` of 64 × 64 (8 GB of memory). `--gradients` times the U-Net's readings instead,
//! beside its plain values, and says how much memory each takes over the weights at its peak. `--start
//! FOLDER` takes the seconds from nothing loaded to the first prediction instead, from the model's files
//! and from packed weights; `--shares` says which operations our time goes to, `--error` how far that
//! U-Net's prediction is from candle's. `--outputs` writes what each network gives for the inputs in FROM to TO
//! (`outputs::write`), for benches/peers. `--alone` leaves candle out. `--turns` does so too, and times what standard input names,
//! line by line, for benches/peers. `--device NAME` (cpu, or cuda or metal in a bench built with that feature) puts
//! candle's operations there in candle's place, `--error` too. FILE gets a row for each measure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "networks/outputs.rs"]
mod outputs;
#[path = "networks/timed.rs"]
mod timed;
#[path = "networks/turns.rs"]
mod turns;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use semblance::job::Cancel;
use semblance::model::unet::{UNet, UNetConfig};
use semblance::model::{Builder, Outline, Pipeline};
use semblance::nn::candle::device::Place;
use semblance::nn::candle::{Candle, OnDevice};
use semblance::nn::dual::Dual;
use semblance::nn::native::Native;
use semblance::nn::tape::{Memory, Tape};
use semblance::nn::{Ops, Shape};
use semblance::weights::{ModelSource, Packs, Tensors};
use semblance::{Latent, Result};
use semblance_kernels::Workers;

use timed::Timed;

type Measure = (String, Box<dyn FnMut()>);

fn noise(count: usize, seed: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * 7 + seed) as f32 * 12.9898).sin() * 1.4)
        .collect()
}

/// What a loaded model does, as closures to be timed.
fn measures<O: Ops + Clone + 'static>(ops: O, source: &ModelSource) -> Vec<Measure> {
    let run = Cancel::new;
    let p = Pipeline::load_on(ops, source, &run()).unwrap();
    let side = p.outline().native_size() / p.vae_factor();
    let latent = |seed| Latent {
        data: noise(side * side * p.latent_channels(), seed),
        channels: p.latent_channels(),
        height: side,
        width: side,
    };
    let (x, y) = (latent(1), latent(2));
    let text = p.encode_text("a photo of the lake", &run()).unwrap();
    let c = p.context(&text).unwrap();
    let size = p.outline().native_size();
    let rgb = p.vae_decode(&x, &run()).unwrap();
    let mut all: Vec<Measure> = Vec::new();
    let mut add = |name: &str, f: Box<dyn FnMut()>| all.push((name.to_owned(), f));
    let m = p.clone();
    add(
        "text",
        Box::new(move || drop(m.encode_text("a photo", &run()).unwrap())),
    );
    let m = p.clone();
    add(
        "keys and values of a text",
        Box::new(move || drop(m.context(&text).unwrap())),
    );
    let (m, x1, c1) = (p.clone(), x.clone(), c.clone());
    add(
        "U-Net, batch 1",
        Box::new(move || drop(m.unet(&[(&x1, 500.0, &c1)], &run()).unwrap())),
    );
    let (m, x1) = (p.clone(), x.clone());
    let two = move || {
        drop(
            m.unet(&[(&x1, 500.0, &c), (&y, 300.0, &c)], &run())
                .unwrap(),
        )
    };
    add("U-Net, batch 2", Box::new(two));
    let m = p.clone();
    add(
        "encode",
        Box::new(move || drop(m.vae_encode(&rgb, size, size, &run()).unwrap())),
    );
    add(
        "decode",
        Box::new(move || drop(p.vae_decode(&x, &run()).unwrap())),
    );
    all
}

/// Random weights of any name: about what keeps the variance of a layer's inputs, rounded to f16, as the files of
/// large models have them.
struct Random;

impl Tensors for Random {
    fn has(&self, _: &str) -> bool {
        true
    }

    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let count: usize = shape.iter().product();
        let inputs: usize = shape.iter().skip(1).product();
        Ok(match (shape.len(), name.ends_with("bias")) {
            (1, true) => vec![0.0; count],
            (1, false) => vec![1.0; count],
            _ => {
                let mut state = 1_u32;
                let scale = 1.7 / (inputs as f32).sqrt();
                let mut next = || {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let x = ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * scale;
                    half::f16::from_f32(x).to_f32()
                };
                (0..count).map(|_| next()).collect()
            }
        })
    }
}

/// One prediction of a U-Net of Stable Diffusion 1.5's shape.
fn predict<O: Ops + 'static>(ops: O, side: usize) -> impl FnMut() -> Vec<f32> {
    let run = Cancel::new();
    let config = UNetConfig::stable_diffusion_1();
    let net = UNet::new(&Builder::new(&ops, &Random, &run), config).unwrap();
    let text = Shape::tokens(1, 77, 768);
    let text = ops.value(noise(text.len(), 3), text).unwrap();
    let keys = net.text_keys(&ops, &text).unwrap();
    let x = Shape::map(1, side, side, 4);
    let x = ops.value(noise(x.len(), 4), x).unwrap();
    move || {
        let forward = || net.forward(&ops, &x, &[500.0], &keys, &run);
        let y = ops.awake(forward).unwrap();
        ops.numbers(&y.out).unwrap()
    }
}

fn sd15<O: Ops + 'static>(ops: O, side: usize) -> Vec<Measure> {
    let mut f = predict(ops, side);
    let name = format!("SD 1.5 U-Net, batch 1, {side}×{side}");
    vec![(name, Box::new(move || drop(f())))]
}

/// ‖ours − candle's‖ / ‖candle's‖.
fn error(native: Native, candle: impl Ops + 'static, side: usize) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let ours = predict(native, side)();
    let theirs = predict(candle, side)();
    let apart: f64 = (ours.iter().zip(&theirs)).map(|(a, b)| square(a - b)).sum();
    (apart / theirs.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

/// A U-Net, by itself or in its model.
#[derive(Clone)]
enum Net {
    Alone(Rc<UNet<Native>>),
    Within(Arc<Pipeline>),
}

impl Net {
    fn get(&self) -> &UNet<Native> {
        match self {
            Net::Alone(net) => net,
            Net::Within(model) => model.unet_network(),
        }
    }
}

/// The readings of a U-Net on latents of `side` × `side`, and as often its plain values: gradients to
/// latents and text, and a tangent. Without a `source` it has Stable Diffusion 1.5's shape.
fn readings(
    ops: Native,
    source: Option<&ModelSource>,
    side: usize,
) -> (Vec<Measure>, Vec<Measure>) {
    let run = Cancel::new();
    let (net, name, side, tokens, width) = match source {
        None => {
            let config = UNetConfig::stable_diffusion_1();
            let net = UNet::new(&Builder::new(&ops, &Random, &run), config).unwrap();
            (Net::Alone(Rc::new(net)), "SD 1.5 U-Net", side, 77, 768)
        }
        Some(source) => {
            let model = Pipeline::load_on(ops.clone(), source, &run).unwrap();
            let side = model.outline().native_size() / model.vae_factor();
            let width = model.unet_config().text_width;
            (Net::Within(model), "U-Net", side, 32, width)
        }
    };
    let channels = net.get().config().in_channels;
    let text = Shape::tokens(1, tokens, width);
    let text = ops.value(noise(text.len(), 3), text).unwrap();
    let latent = Shape::map(1, side, side, channels);
    let x = ops.value(noise(latent.len(), 4), latent).unwrap();
    let mut both: (Vec<Measure>, Vec<Measure>) = Default::default();
    let mut add = |reading: &str, f: Box<dyn FnMut()>| {
        let name = format!("{name}, {reading}, {side}×{side}");
        both.0.push((name.clone(), f));
        let (net, ops, x, text) = (net.clone(), ops.clone(), x.clone(), text.clone());
        let values = move || {
            let keys = net.get().text_keys(&ops, &text).unwrap();
            let cancel = Cancel::new();
            let forward = || net.get().forward(&ops, &x, &[500.0], &keys, &cancel);
            ops.awake(forward).unwrap();
        };
        both.1.push((name, Box::new(values)));
    };
    for memory in [Memory::Checkpoints, Memory::All] {
        let (net, ops, x, text) = (net.clone(), ops.clone(), x.clone(), text.clone());
        let gradient = move || {
            let tape = Tape::new(&ops, memory);
            let x = tape.watch(x.clone()).unwrap();
            let text = tape.watch(text.clone()).unwrap();
            let keys = net.get().text_keys(&tape, &text).unwrap();
            let cancel = Cancel::new();
            let forward = || net.get().forward(&tape, &x, &[500.0], &keys, &cancel);
            let y = tape.awake(forward).unwrap().out;
            let g = ops.value(noise(latent.len(), 5), latent).unwrap();
            tape.backward(&[(&y, &g)], &[&x, &text], &cancel).unwrap();
        };
        add(&format!("gradients, {memory:?}"), Box::new(gradient));
    }
    let (net, ops, x, text) = (net.clone(), ops.clone(), x.clone(), text.clone());
    let tangent = move || {
        let dual = Dual::new(&ops);
        let x = dual.moving(x.clone(), x.clone()).unwrap();
        let text = dual.moving(text.clone(), text.clone()).unwrap();
        let keys = net.get().text_keys(&dual, &text).unwrap();
        let cancel = Cancel::new();
        let forward = || net.get().forward(&dual, &x, &[500.0], &keys, &cancel);
        dual.awake(forward).unwrap();
    };
    add("tangent", Box::new(tangent));
    both
}

/// GiB that the process has in memory (`VmRSS`) or had at most (`VmHWM`), where the system says.
fn resident(field: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(field))?;
    let kib = line.trim_start_matches(':').split_whitespace().next()?;
    Some(kib.parse::<f64>().ok()? / f64::from(1 << 20))
}

/// GiB that the process has at most while `f` runs.
fn peak(f: &mut dyn FnMut()) -> Option<f64> {
    // Linux's word for "forget the highest so far".
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    f();
    resident("VmHWM")
}

/// Medians of both, run by turns for about a second and at least three times.
fn time(ours: &mut dyn FnMut(), mut peer: Option<&mut dyn FnMut()>) -> (f64, Option<f64>) {
    let once = |f: &mut dyn FnMut()| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    let mut times = (Vec::new(), Vec::new());
    ours();
    if let Some(peer) = &mut peer {
        peer();
    }
    let start = Instant::now();
    while times.0.len() < 3 || (start.elapsed().as_secs_f64() < 1.0 && times.0.len() < 101) {
        times.0.push(once(ours));
        times.1.extend(peer.as_mut().map(|peer| once(peer)));
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    (median(times.0), peer.map(|_| median(times.1)))
}

/// Seconds from nothing loaded to the end of the first prediction: from the files alone, packing them for
/// the next time, and from packed weights, at the first time in this run of the system and later.
fn starts(native: &Native, source: &ModelSource) -> serde_json::Value {
    let folder = tempfile::tempdir().unwrap();
    let packs = Packs::at(folder.path()).bounded(0, u64::MAX);
    let run = Cancel::new();
    let seconds = |since: Instant| since.elapsed().as_secs_f64();
    let start = |packs: &Packs| {
        let begin = Instant::now();
        let p = Pipeline::load_kept(native.clone(), source, packs, &run).unwrap();
        let loaded = seconds(begin);
        let text = p.encode_text("a photo of the lake", &run).unwrap();
        let c = p.context(&text).unwrap();
        let told = seconds(begin);
        let side = p.outline().native_size() / p.vae_factor();
        let x = Latent {
            data: noise(side * side * p.latent_channels(), 1),
            channels: p.latent_channels(),
            height: side,
            width: side,
        };
        let step = || drop(p.unet(&[(&x, 500.0, &c)], &run).unwrap());
        step();
        let first = seconds(begin);
        let mut steps: Vec<f64> = (0..3)
            .map(|_| {
                let begin = Instant::now();
                step();
                seconds(begin)
            })
            .collect();
        steps.sort_by(f64::total_cmp);
        (p.kept().clone(), [loaded, told - loaded, first, steps[1]])
    };
    println!(
        "{:<24}{:>12}{:>12}{:>12}{:>12}{:>16}",
        "seconds", "load", "text", "first step", "a step", "more than that"
    );
    let mut rows = Vec::new();
    for (name, packs) in [
        ("from the files", &Packs::off()),
        ("packing them", &packs),
        ("packed, checked", &packs),
        ("packed", &packs),
        ("packed, again", &packs),
    ] {
        let (kept, [load, text, first, step]) = start(packs);
        let more = first - step;
        println!("{name:<24}{load:>12.3}{text:>12.3}{first:>12.3}{step:>12.3}{more:>16.3}");
        rows.push(serde_json::json!({
            "measure": format!("start to first step, {name}"), "kept": kept.words(), "ours_s": first,
            "load_s": load, "text_s": text, "step_s": step, "cpu_path": native.name(),
        }));
    }
    let forecast = Outline::read(source).unwrap().weight_bytes(native);
    println!(
        "packed weights: {:.2} GB, forecast {:.2} GB",
        packs.bytes() as f64 * 1e-9,
        forecast as f64 * 1e-9
    );
    rows.into()
}

fn main() {
    // In a pool's thread, as the engine runs them: from outside every operation would wait for another.
    let threads = std::thread::available_parallelism().unwrap();
    Workers::new("bench", threads.get()).unwrap().run(run);
}

fn run() {
    // cargo passes --bench.
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    let (mut folder, mut json, mut large, mut device) = (None, None, None, None);
    let (mut gradients, mut parts, mut errors, mut start) = (false, false, false, false);
    let (mut alone, mut turns, mut outputs) = (false, false, None);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" => json = args.next(),
            "--device" => device = Some(args.next().expect("--device takes a name")),
            "--sd15" => large = Some(32),
            "--sd15-64" => large = Some(64),
            "--gradients" => gradients = true,
            "--start" => start = true,
            "--outputs" => {
                outputs = Some([(); 2].map(|()| args.next().expect("--outputs takes two files")))
            }
            "--shares" => parts = true,
            "--error" => errors = true,
            "--alone" => alone = true,
            "--turns" => turns = true,
            option if option.starts_with('-') => panic!("no option {option}"),
            _ => folder = Some(arg),
        }
    }
    let native = Native::detect().unwrap();
    let path = native.name();
    let device = device.map(|name| OnDevice::at(Place::named(&name).unwrap()).unwrap());
    if start {
        let folder = folder.expect("--start takes a model's folder");
        let rows = starts(&native, &ModelSource::Directory(folder.into()));
        if let Some(file) = json {
            std::fs::write(file, serde_json::to_string_pretty(&rows).unwrap()).unwrap();
        }
        return;
    }
    let source = match folder {
        Some(folder) => ModelSource::Directory(folder.into()),
        None => ModelSource::Embedded(semblance_model_mini::FILES),
    };
    if let Some([from, to]) = outputs {
        return outputs::write(native, &source, from.as_ref(), to.as_ref());
    }
    if errors {
        let side = large.unwrap_or(32);
        let error = match device {
            Some(device) => error(native, device, side),
            None => error(native, Candle, side),
        };
        return println!("{path}: relative error {error:.2e}");
    }
    if parts {
        let timed = Timed::new(native);
        println!("{path}");
        let measures = match large {
            Some(side) => sd15(timed.clone(), side),
            None => measures(timed.clone(), &source),
        };
        return (measures.into_iter()).for_each(|(name, mut f)| timed.print(&name, &mut f));
    }
    let peer = match &device {
        _ if gradients => "plain values".to_owned(),
        Some(device) => device.name(),
        None => Candle.name(),
    };
    alone |= turns;
    let (ours, theirs) = match large {
        Some(side) if gradients => readings(native, None, side),
        None if gradients => readings(native, Some(&source), 0),
        Some(side) if alone => (sd15(native, side), Vec::new()),
        None if alone => (measures(native, &source), Vec::new()),
        Some(side) => (
            sd15(native, side),
            match device {
                Some(device) => sd15(device, side),
                None => sd15(Candle, side),
            },
        ),
        None => (
            measures(native, &source),
            match device {
                Some(device) => measures(device, &source),
                None => measures(Candle, &source),
            },
        ),
    };
    if turns {
        return turns::take(ours, &path);
    }
    let weights = resident("VmRSS").unwrap_or_default();
    match alone {
        true => println!("{:<48}{path:>18}", "milliseconds"),
        false => println!("{:<48}{path:>18}{peer:>18}{:>8}", "milliseconds", "ratio"),
    }
    let mut rows = Vec::new();
    let theirs = theirs.into_iter().map(|(_, f)| Some(f));
    let theirs = theirs.chain(std::iter::repeat_with(|| None));
    for ((measure, mut ours), mut theirs) in ours.into_iter().zip(theirs) {
        let most = gradients.then(|| peak(&mut ours)).flatten();
        let over = most.map(|most| most - weights);
        let (ours_s, peer_s) = time(&mut ours, theirs.as_deref_mut().map(|f| f as _));
        let ratio = peer_s.map(|peer_s| ours_s / peer_s);
        let peers = peer_s
            .zip(ratio)
            .map_or_else(String::new, |(peer_s, ratio)| {
                format!("{:>18.2}{ratio:>8.2}", 1e3 * peer_s)
            });
        let memory = over.map_or_else(String::new, |x| format!("{x:>8.2} GiB over the weights"));
        println!("{measure:<48}{:>18.2}{peers}{memory}", 1e3 * ours_s);
        rows.push(serde_json::json!({
            "measure": measure,
            "ours_s": ours_s,
            "peer": peer_s.map(|_| &peer),
            "peer_s": peer_s,
            "ratio": ratio,
            "cpu_path": path,
            "over_weights_gib": over,
        }));
    }
    if let Some(file) = json {
        std::fs::write(file, serde_json::to_string_pretty(&rows).unwrap()).unwrap();
    }
}
