//! What the warning's threshold separates: pictures that the autoencoder was trained for from others.

use std::path::PathBuf;

use semblance::layer::Patch;
use semblance_atelier::{Attributes, Frame, Scene};

use crate::{model, round_trip, view};

/// Prints each kind of picture with its worst, median and best round trip, and how many are warned of.
pub fn run(threshold: f64, photos: &[PathBuf]) {
    let (pipeline, grids) = model();
    let db = |rgb: &[u8], width, height| {
        let patch = Patch::read(&view(rgb, width, height), None, &grids).unwrap();
        let decoded = round_trip(&pipeline, &patch);
        let squares = patch.pixels().iter().zip(&decoded);
        let sum: f64 = squares
            .map(|(a, b)| f64::from(a - b.clamp(0.0, 1.0)).powi(2))
            .sum();
        -10.0 * (sum / decoded.len() as f64).log10()
    };
    let (w, h) = (512u32, 384u32);
    let drawn = |f: &dyn Fn(u32, u32, usize) -> u8| {
        let pixel = |i: u32| f(i / 3 % w, i / 3 / w, (i % 3) as usize);
        (0..3 * w * h).map(pixel).collect::<Vec<u8>>()
    };
    let hash = |x: u32, y: u32| (x.wrapping_mul(0x9E37_79B9) ^ y.wrapping_mul(0x85EB_CA6B)) >> 9;
    let strange = [
        ("noise", drawn(&|x, y, c| (hash(x / 4, y / 4) >> c) as u8)),
        (
            "text",
            drawn(&|x, y, _| match hash(x / 5, y / 9) % 3 {
                0 if y / 9 % 2 == 0 => 20,
                _ => 245,
            }),
        ),
        (
            "blocks",
            drawn(&|x, y, c| (hash(x / 40, y / 40) >> (3 * c)) as u8),
        ),
        (
            "stripes",
            drawn(&|x, y, c| {
                if (x + y) / 12 % 2 == 0 {
                    [230, 30, 200][c]
                } else {
                    [10, 220, 40][c]
                }
            }),
        ),
        (
            "neon",
            drawn(&|x, y, c| [x * 255 / w, 255 - y * 255 / h, (x * y) / 700 % 256][c] as u8),
        ),
    ];
    let renders = (1_000_000..1_000_040u64).map(|seed| {
        let scene = Scene::from_seed(seed);
        let frame = Frame::new(&scene, w as usize, h as usize);
        db(&frame.render(&Attributes::default()).to_u8(), w, h)
    });
    tell("renders", renders.collect(), threshold);
    for path in photos {
        match image::open(path) {
            Ok(photo) => {
                let rgb = photo.to_rgb8();
                let (width, height) = rgb.dimensions();
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                tell(&name, vec![db(&rgb.into_raw(), width, height)], threshold);
            }
            Err(error) => eprintln!("{}: {error}", path.display()),
        }
    }
    for (name, rgb) in &strange {
        tell(name, vec![db(rgb, w, h)], threshold);
    }
}

fn tell(name: &str, mut values: Vec<f64>, threshold: f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
    println!(
        "{name:14} {:3} pictures: worst {:5.1} dB, median {:5.1}, best {:5.1}; {} below {threshold}",
        values.len(),
        at(0.0),
        at(0.5),
        at(1.0),
        values.iter().filter(|v| **v < threshold).count()
    );
}
