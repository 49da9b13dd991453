//! What each compositor makes of an ideal edit, its own ceiling, and of the engine's.

use std::ops::Range;

use semblance::job::Control;
use semblance::layer::{Change, Patch, render_in_place};
use semblance::{Compositor, Engine, EngineOptions, Recipe, Result};
use semblance_atelier::{Attribute, Attributes, Frame, Scene};

use crate::metrics::{Picture, psnr};
use crate::{model, round_trip, view, view_mut};

type Fit = fn(&[f32], &[f32], usize, usize) -> Result<Change>;

const COMPOSITORS: [(&str, Fit); 5] = [
    ("enlarged", Change::replacement),
    ("difference", Change::difference),
    ("change r4", |r, e, w, h| {
        Change::fit(r, e, w, h, 4, Change::EPSILON)
    }),
    ("change r8", |r, e, w, h| {
        Change::fit(r, e, w, h, 8, Change::EPSILON)
    }),
    ("direct r8", |r, e, w, h| {
        Change::direct(r, e, w, h, 8, Change::EPSILON)
    }),
];

/// The engine's, each as its attribute tunes it.
const EDITS: [(&str, Compositor); 3] = [
    ("edit: change", Compositor::Change),
    ("edit: difference", Compositor::Difference),
    ("edit: direct", Compositor::Direct),
];

/// Prints one table a size.
pub fn run(seeds: Range<u64>, attributes: Vec<Attribute>, sizes: &[(u32, u32)]) {
    let attributes = match attributes.is_empty() {
        true => Attribute::ALL.to_vec(),
        false => attributes,
    };
    let (pipeline, grids) = model();
    let engine = Engine::new(EngineOptions::default()).unwrap();
    let count = (seeds.end - seeds.start).max(1) as f64;
    for &(width, height) in sizes {
        // Unedited, then the oracle, then the oracle through the autoencoder, then real edits.
        let mut rows = vec![vec![0.0; attributes.len()]; 1 + 2 * COMPOSITORS.len() + EDITS.len()];
        for seed in seeds.clone() {
            let scene = Scene::from_seed(seed);
            let frame = Frame::new(&scene, width as usize, height as usize);
            let picture = |attributes: &Attributes| Picture {
                width,
                height,
                rgb: frame.render(attributes).to_u8(),
            };
            let read = |picture: &Picture| {
                Patch::read(&view(&picture.rgb, width, height), None, &grids).unwrap()
            };
            let source = picture(&Attributes::default());
            let patch = read(&source);
            let decoded = round_trip(&pipeline, &patch);
            for (a, &attribute) in attributes.iter().enumerate() {
                let truth = picture(&Attributes::only(attribute, 1.0));
                let mask = frame.mask(attribute);
                let edit = read(&truth);
                let through = round_trip(&pipeline, &edit);
                let score = |made: &Picture| psnr(made, &truth, |i| mask[i] > 0.5).unwrap_or(99.0);
                rows[0][a] += score(&source) / count;
                let pairs = [(patch.pixels(), edit.pixels()), (&decoded, &through)];
                let mut row = 1;
                for (recon, edit) in pairs {
                    for (_, fit) in COMPOSITORS {
                        let change = fit(recon, edit, patch.width(), patch.height()).unwrap();
                        let mut made = source.clone();
                        let mut layer = view_mut(&mut made.rgb, width, height);
                        render_in_place(&change, patch.placement(), &mut layer, None).unwrap();
                        rows[row][a] += score(&made) / count;
                        row += 1;
                    }
                }
                for (_, compositor) in EDITS {
                    let mut recipe = Recipe::of(attribute.name(), 1.0);
                    recipe.compositor = compositor;
                    let request = engine.read(&view(&source.rgb, width, height), None, &recipe);
                    let edit = engine.run(&request.unwrap(), &Control::default()).unwrap();
                    let mut made = source.clone();
                    let mut layer = view_mut(&mut made.rgb, width, height);
                    edit.render_in_place(&mut layer, None).unwrap();
                    rows[row][a] += score(&made) / count;
                    row += 1;
                }
            }
            eprint!(
                "\r{width}×{height}: scene {} of {count} ",
                seed - seeds.start + 1
            );
        }
        eprintln!();
        print(&attributes, &rows, (width, height), count);
    }
}

fn print(attributes: &[Attribute], rows: &[Vec<f64>], (width, height): (u32, u32), count: f64) {
    println!("\n{width}×{height}, {count} scenes: dB against the truth, inside the mask");
    print!("{:20}", "");
    attributes.iter().for_each(|a| print!("{:>9}", a.name()));
    println!("{:>9}", "mean");
    let names = ["oracle", "VAE"].into_iter();
    let names = names.flat_map(|of| COMPOSITORS.map(|(how, _)| format!("{of}: {how}")));
    let names = std::iter::once("unedited".to_owned()).chain(names);
    let names = names.chain(EDITS.map(|(name, _)| name.to_owned()));
    for (name, row) in names.zip(rows) {
        print!("{name:20}");
        row.iter().for_each(|v| print!("{v:9.1}"));
        println!("{:9.1}", row.iter().sum::<f64>() / row.len().max(1) as f64);
    }
}
