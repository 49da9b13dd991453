//! What an edit looks like at 100 % on a large layer, and what it does to grain: crops of a skyline, the
//! sky and detail.

use std::path::Path;

use image::RgbImage;
use semblance::job::Control;
use semblance::{Engine, EngineOptions, Recipe};
use semblance_atelier::{Attribute, Attributes, Frame, Scene};

use crate::{view, view_mut};

/// Pixels a side of a crop, and of the gap between two.
const CROP: u32 = 200;
const GAP: u32 = 4;

/// A scene of `size` pixels under `grain` (deviation in 8-bit steps), edited at +1; `out` gets a row of
/// crops of the layer and one of each attribute's result.
pub fn run(seed: u64, size: (u32, u32), grain: f64, attributes: &[Attribute], out: &Path) {
    let (width, height) = size;
    let scene = Scene::from_seed(seed);
    let frame = Frame::new(&scene, width as usize, height as usize);
    let mut rgb = frame.render(&Attributes::default()).to_u8();
    drop(frame);
    roughen(&mut rgb, grain);
    let engine = Engine::new(EngineOptions::default()).unwrap();
    let places = places(&rgb, width, height);
    let mut rows = vec![row(&rgb, width, &places)];
    for attribute in attributes {
        let recipe = Recipe::of(attribute.name(), 1.0);
        let request = engine.read(&view(&rgb, width, height), None, &recipe);
        let edit = engine.run(&request.unwrap(), &Control::default()).unwrap();
        let mut edited = rgb.clone();
        let mut layer = view_mut(&mut edited, width, height);
        edit.render_in_place(&mut layer, None).unwrap();
        rows.push(row(&edited, width, &places));
    }
    for (name, row) in attributes.iter().zip(&rows[1..]) {
        let gains = row
            .iter()
            .zip(&rows[0])
            .map(|(e, l)| coarseness(e) / coarseness(l));
        let gains: Vec<String> = gains.map(|g| format!("{g:.2}")).collect();
        println!(
            "{name:9} grain of the layer's, crop by crop: {}",
            gains.join(" ")
        );
    }
    let step = i64::from(CROP + GAP);
    let mut sheet = RgbImage::new(
        (CROP + GAP) * places.len() as u32 - GAP,
        (CROP + GAP) * rows.len() as u32 - GAP,
    );
    for (y, row) in rows.iter().enumerate() {
        for (x, crop) in row.iter().enumerate() {
            image::imageops::replace(&mut sheet, crop, step * x as i64, step * y as i64);
        }
    }
    sheet.save(out).unwrap();
    let names: Vec<&str> = attributes.iter().map(|a| a.name()).collect();
    println!(
        "{}: crops at 100 % of seed {seed} at {width}×{height}, grain {grain}; rows: the layer, {}",
        out.display(),
        names.join(", ")
    );
}

/// Normal noise, the sum of four even ones, independent in every sample.
fn roughen(rgb: &mut [u8], grain: f64) {
    for (i, v) in rgb.iter_mut().enumerate() {
        let mut h = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        h = (h ^ (h >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        h ^= h >> 32;
        let sum: f64 = (0..4).map(|k| ((h >> (16 * k)) & 0xffff) as f64).sum();
        let noise = (sum / 65_536.0 - 2.0) * 3.0f64.sqrt();
        *v = (f64::from(*v) + grain * noise).round() as u8;
    }
}

/// Corners of the crops: the strongest horizon, the evenest sky, the most and the middlest detail.
fn places(rgb: &[u8], width: u32, height: u32) -> [(u32, u32); 4] {
    struct Tile {
        at: (u32, u32),
        mean: f64,
        detail: f64,
        horizon: f64,
    }
    let luma = |x: u32, y: u32| {
        let i = 3 * (y as usize * width as usize + x as usize);
        rgb[i..i + 3].iter().map(|v| f64::from(*v)).sum::<f64>() / 3.0
    };
    let mut tiles = Vec::new();
    for ty in 0..height / CROP {
        for tx in 0..width / CROP {
            let (x0, y0) = (tx * CROP, ty * CROP);
            let (mut halves, mut square) = ([0.0; 2], 0.0);
            for y in (0..CROP).step_by(4) {
                for x in (0..CROP).step_by(4) {
                    // Means of 4 × 4, so that grain does not count as detail.
                    let cell: f64 = (0..16).map(|k| luma(x0 + x + k % 4, y0 + y + k / 4)).sum();
                    halves[usize::from(y >= CROP / 2)] += cell / 16.0;
                    square += (cell / 16.0).powi(2);
                }
            }
            let n = f64::from((CROP / 4).pow(2));
            let mean = (halves[0] + halves[1]) / n;
            let horizon = 2.0 * (halves[0] - halves[1]).abs() / n;
            tiles.push(Tile {
                at: (x0, y0),
                mean,
                detail: square / n - mean * mean,
                horizon,
            });
        }
    }
    let best = |score: &dyn Fn(&Tile) -> f64| {
        let tile = tiles.iter().max_by(|a, b| score(a).total_cmp(&score(b)));
        tile.expect("a layer of at least one crop").at
    };
    let (mid, third) = (width / 2, height / 3);
    [
        best(&|t| t.horizon),
        best(&|t| {
            if t.at.1 < third && t.mean < 245.0 {
                -t.detail
            } else {
                -1e9
            }
        }),
        best(&|t| t.detail - 2.0 * t.horizon.powi(2)),
        best(&|t| -f64::from(t.at.0.abs_diff(mid)) - f64::from(t.at.1.abs_diff(2 * third))),
    ]
}

/// Root mean square of mixed second differences: of grain more than of anything a crop shows.
fn coarseness(crop: &RgbImage) -> f64 {
    let at = |x: u32, y: u32, c: usize| f64::from(crop.get_pixel(x, y).0[c]);
    let mut sum = 0.0;
    for y in 1..CROP {
        for x in 1..CROP {
            for c in 0..3 {
                let d = at(x, y, c) - at(x - 1, y, c) - at(x, y - 1, c) + at(x - 1, y - 1, c);
                sum += d * d;
            }
        }
    }
    sum.sqrt()
}

fn row(rgb: &[u8], width: u32, places: &[(u32, u32)]) -> Vec<RgbImage> {
    let crop = |&(x0, y0): &(u32, u32)| {
        RgbImage::from_fn(CROP, CROP, |x, y| {
            let i = 3 * ((y0 + y) as usize * width as usize + (x0 + x) as usize);
            image::Rgb([rgb[i], rgb[i + 1], rgb[i + 2]])
        })
    };
    places.iter().map(crop).collect()
}
