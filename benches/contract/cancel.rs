//! How soon a cancel is obeyed.

use std::time::{Duration, Instant};

use semblance::job::{Cancel, Control};
use semblance::{Code, Engine, EngineOptions, Recipe};
use semblance_atelier::{Attributes, Frame, Scene};

use crate::view;

/// Prints the distribution; every fifth edit begins with encoding the picture anew.
pub fn run(seconds: f64) {
    let (width, height) = (640, 480);
    let scene = Scene::from_seed(1_000_000);
    let frame = Frame::new(&scene, width as usize, height as usize);
    let rgb = frame.render(&Attributes::default()).to_u8();
    let recipe = |seed| Recipe {
        seed,
        ..Recipe::of("sunset", 1.0)
    };
    let request = |engine: &Engine, seed| {
        let layer = view(&rgb, width, height);
        engine.read(&layer, None, &recipe(seed)).unwrap()
    };
    let warm = Engine::new(EngineOptions::default()).unwrap();
    // How long an edit takes that finds its encoding and not its inversion.
    warm.run(&request(&warm, 0), &Control::default()).unwrap();
    let begun = Instant::now();
    warm.run(&request(&warm, 1), &Control::default()).unwrap();
    let whole = begun.elapsed();
    let (begun, mut found) = (Instant::now(), Vec::new());
    let mut trial = 0u64;
    while begun.elapsed().as_secs_f64() < seconds {
        trial += 1;
        // Golden ratio: moments spread evenly over the edit, however many there are.
        let share = (trial as f64 * 0.618_033_988_75).fract();
        let engine = warm.clone();
        if trial.is_multiple_of(5) {
            engine.purge();
        }
        let request = request(&engine, trial + 1);
        let cancel = Cancel::new();
        let control = Control::new(cancel.clone(), |_| {});
        let run = std::thread::spawn(move || {
            let code = engine
                .run(&request, &control)
                .map(|_| ())
                .map_err(|e| e.code());
            (code, Instant::now())
        });
        std::thread::sleep(whole.mul_f64(share));
        let asked = Instant::now();
        cancel.cancel();
        if let (Err(Code::Cancelled), ended) = run.join().unwrap() {
            found.push(ended.saturating_duration_since(asked));
        }
    }
    found.sort();
    let at = |share: f64| {
        let index = (share * (found.len().max(1) - 1) as f64).round() as usize;
        found
            .get(index)
            .copied()
            .unwrap_or(Duration::ZERO)
            .as_secs_f64()
            * 1e3
    };
    println!(
        "{} cancels of {trial}, an edit takes {:.0} ms: median {:.1} ms, p90 {:.1}, p99 {:.1}, worst {:.1}",
        found.len(),
        whole.as_secs_f64() * 1e3,
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}
