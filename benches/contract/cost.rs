//! Seconds and memory of one edit by the layer's size.

use std::process::Command;
use std::time::Instant;

use semblance::job::Control;
use semblance::{Engine, EngineOptions, Recipe};

use crate::{view, view_mut};

/// One process a size, because a peak is a process's.
pub fn run(megapixels: &[u32]) {
    println!("seconds, and the peak of memory in MB beyond the host's own buffer");
    println!("    MP |   load   read   edit  again render | memory");
    for n in megapixels {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["cost", "--child", &n.to_string()])
            .status();
        assert!(status.unwrap().success());
    }
}

/// An edit of 8-bit RGB in place, as an editor would ask for it.
pub fn one(megapixels: u32) {
    let height = (f64::from(megapixels) * 1e6 / 1.5).sqrt().round() as u32;
    let width = (f64::from(megapixels) * 1e6 / f64::from(height)).round() as u32;
    let (w, h) = (width as usize, height as usize);
    // Sky over land, with grain.
    let mut rgb: Vec<u8> = (0..w * h * 3)
        .map(|i| {
            let (y, c) = (i / 3 / w, i % 3);
            let base = if y < h / 2 {
                [120, 160, 220]
            } else {
                [80, 110, 60]
            };
            base[c] + ((i / 3).wrapping_mul(2_654_435_761) >> 27) as u8 % 16
        })
        .collect();
    let engine = Engine::new(EngineOptions::default()).unwrap();
    let before = status("VmRSS:");
    let begun = Instant::now();
    engine.load(&Control::default()).unwrap();
    let load = begun.elapsed();
    let begun = Instant::now();
    let ask = |strength| {
        let recipe = Recipe::of("sunset", strength);
        engine
            .read(&view(&rgb, width, height), None, &recipe)
            .unwrap()
    };
    let (first, second) = (ask(1.0), ask(0.5));
    let read = begun.elapsed() / 2;
    let begun = Instant::now();
    let edit = engine.run(&first, &Control::default()).unwrap();
    let model = begun.elapsed();
    let begun = Instant::now();
    engine.run(&second, &Control::default()).unwrap();
    let again = begun.elapsed();
    let begun = Instant::now();
    let mut layer = view_mut(&mut rgb, width, height);
    edit.render_in_place(&mut layer, None).unwrap();
    let render = begun.elapsed();
    let seconds = [load, read, model, again, render].map(|t| t.as_secs_f64());
    println!(
        "{megapixels:6} | {:6.2} {:6.2} {:6.2} {:6.2} {:6.2} | {:6.0}",
        seconds[0],
        seconds[1],
        seconds[2],
        seconds[3],
        seconds[4],
        (status("VmHWM:") - before) / 1000.0,
    );
}

/// A kB figure of this process, 0 where there is none.
fn status(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|n| n.parse().ok()).unwrap_or(0.0)
}
