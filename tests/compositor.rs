//! How close each compositor brings an ideal edit at the model's size to the truth at full size, on
//! rendered scenes; and how long a large layer takes.
//!
//! `cargo test --release -p semblance --test compositor -- --nocapture` prints the table, `--ignored`
//! times 24 megapixels.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Instant;

use semblance::layer::{
    AlphaState, Change, ChannelOrder, ColorSpace, Format, LayerView, LayerViewMut, Patch, Rect,
    SampleType, render, render_in_place,
};
use semblance_atelier::{Attribute, Attributes, Frame, Place, Scene};

const MODEL: usize = 128;
const FULL: usize = 512;
const RGB: Format = Format {
    samples: SampleType::F32,
    order: ChannelOrder::Rgb,
    alpha: AlphaState::None,
};

fn rect(width: u32, height: u32) -> Rect {
    Rect {
        x: 0,
        y: 0,
        width,
        height,
    }
}

fn bytes(picture: &[f32]) -> Vec<u8> {
    picture.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

fn view(data: &[u8]) -> LayerView<'_> {
    let size = rect(FULL as u32, FULL as u32);
    LayerView::new(data, 0, FULL as i64 * 12, size, RGB, ColorSpace::Srgb).unwrap()
}

/// The picture that `change` makes of `data`, full size.
fn composite(change: &Change, patch: &Patch, data: &[u8]) -> Vec<f32> {
    let mut out = data.to_vec();
    let size = rect(FULL as u32, FULL as u32);
    let stride = FULL as i64 * 12;
    let mut layer = LayerViewMut::new(&mut out, 0, stride, size, RGB, ColorSpace::Srgb).unwrap();
    render_in_place(change, patch.placement(), &mut layer, None).unwrap();
    let numbers = out.chunks_exact(4);
    numbers
        .map(|b| f32::from_ne_bytes(b.try_into().unwrap()))
        .collect()
}

fn psnr(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| f64::from(a.clamp(0.0, 1.0) - b).powi(2))
        .sum();
    -10.0 * (sum / a.len() as f64).log10()
}

#[test]
fn change_comes_nearer_to_the_truth_than_the_difference_and_the_enlarged_edit() {
    use Attribute::{Autumn, Fog, Night, Snow, Sunset};
    let attributes = [Sunset, Night, Snow, Fog, Autumn];
    let places = [Place::MountainLake, Place::Hills, Place::Coast];
    let names = [
        "unedited",
        "enlarged",
        "difference",
        "change r4",
        "change r8",
        "direct r8",
    ];
    let mut sums = vec![[0.0; 5]; names.len()];
    for (seed, place) in (900_100..).zip(places) {
        let scene = Scene::new(seed, place);
        let frame = Frame::new(&scene, FULL, FULL);
        let input = frame.render(&Attributes::default()).rgb;
        let data = bytes(&input);
        let grid = [(MODEL as u32, MODEL as u32)];
        let patch = Patch::read(&view(&data), None, &grid).unwrap();
        for (a, attribute) in attributes.into_iter().enumerate() {
            let truth = frame.render(&Attributes::only(attribute, 1.0)).rgb;
            let edit = Patch::read(&view(&bytes(&truth)), None, &grid).unwrap();
            let (recon, edit) = (patch.pixels(), edit.pixels());
            let fit = |radius| Change::fit(recon, edit, MODEL, MODEL, radius, Change::EPSILON);
            let results = [
                input.clone(),
                composite(
                    &Change::replacement(recon, edit, MODEL, MODEL).unwrap(),
                    &patch,
                    &data,
                ),
                composite(
                    &Change::difference(recon, edit, MODEL, MODEL).unwrap(),
                    &patch,
                    &data,
                ),
                composite(&fit(4).unwrap(), &patch, &data),
                composite(&fit(8).unwrap(), &patch, &data),
                composite(
                    &Change::direct(recon, edit, MODEL, MODEL, 8, Change::EPSILON).unwrap(),
                    &patch,
                    &data,
                ),
            ];
            for (sums, result) in sums.iter_mut().zip(&results) {
                sums[a] += psnr(result, &truth) / places.len() as f64;
            }
        }
    }
    print!("{:12}", "dB");
    attributes.iter().for_each(|a| print!("{:>9}", a.name()));
    println!("{:>9}", "mean");
    let means: Vec<f64> = sums
        .iter()
        .map(|row| row.iter().sum::<f64>() / row.len() as f64)
        .collect();
    for ((name, row), mean) in names.iter().zip(&sums).zip(&means) {
        print!("{name:12}");
        row.iter().for_each(|v| print!("{v:9.1}"));
        println!("{mean:9.1}");
    }
    assert!(means[3] > means[1] + 1.0 && means[3] > means[2] + 1.0);
    assert!(means[4] > means[1] + 1.0 && means[4] > means[2] + 1.0);
    assert!(
        means[5] > means[1] + 1.0,
        "confidence spares what only tints"
    );
}

/// A checked disc on fine grain: what an edit moves.
fn disc(centre: f32) -> Vec<f32> {
    let mut picture = vec![0.0; 3 * FULL * FULL];
    for y in 0..FULL {
        for x in 0..FULL {
            let inside = (x as f32 - centre).hypot(y as f32 - 256.0) < 60.0;
            let squares = (x / 20 + y / 20) % 2;
            let grain = (x * 7 + y * 13) % 5;
            for (c, base) in [0.35, 0.5, 0.6].into_iter().enumerate() {
                let v = match inside {
                    true => 0.15 + 0.6 * squares as f32,
                    false => base + 0.02 * (grain as f32 - 2.0),
                };
                picture[(y * FULL + x) * 3 + c] = v;
            }
        }
    }
    picture
}

/// Mean absolute difference of two pictures over the heart of the disc around `centre`, 256.
fn off(a: &[f32], b: &[f32], centre: usize) -> f64 {
    let square = (0..80 * 80).map(|i| (216 + i / 80) * FULL + centre - 40 + i % 80);
    let samples = square.flat_map(|i| 3 * i..3 * i + 3);
    samples.map(|i| f64::from((a[i] - b[i]).abs())).sum::<f64>() / (3.0 * 80.0 * 80.0)
}

#[test]
fn direct_leaves_no_ghost_where_content_moves_and_keeps_every_byte_where_nothing_does() {
    let (input, truth) = (disc(130.0), disc(380.0));
    let data = bytes(&input);
    let grid = [(MODEL as u32, MODEL as u32)];
    let patch = Patch::read(&view(&data), None, &grid).unwrap();
    let edit = Patch::read(&view(&bytes(&truth)), None, &grid).unwrap();
    let (recon, edit) = (patch.pixels(), edit.pixels());
    let made = |change: semblance::Result<Change>| composite(&change.unwrap(), &patch, &data);
    let direct = made(Change::direct(
        recon,
        edit,
        MODEL,
        MODEL,
        8,
        Change::EPSILON,
    ));
    let change = made(Change::fit(recon, edit, MODEL, MODEL, 8, Change::EPSILON));
    let enlarged = made(Change::replacement(recon, edit, MODEL, MODEL));
    // Where the disc appears, `change` leaves the ground's grain on it.
    let (ghost, none) = (off(&change, &enlarged, 380), off(&direct, &enlarged, 380));
    println!("grain on the disc that appears: change {ghost:.4}, direct {none:.4}");
    assert!(ghost > 0.015 && none < 0.25 * ghost, "{none} {ghost}");
    // Where it vanishes, the change is an affine one, which takes away its squares.
    assert!(off(&direct, &truth, 130) < 0.05);
    // Rows that neither disc, nor any window over one, reaches.
    let above = ..3 * FULL * 110;
    assert!(direct[above] == input[above]);
}

type Fit = fn(&[f32], &[f32], usize, usize, usize, f64) -> semblance::Result<Change>;

#[test]
fn direct_is_change_where_an_edit_only_tints() {
    let input = disc(256.0);
    let data = bytes(&input);
    let grid = [(MODEL as u32, MODEL as u32)];
    let patch = Patch::read(&view(&data), None, &grid).unwrap();
    let tinted: Vec<f32> = patch.pixels().iter().map(|v| 0.8 * v + 0.1).collect();
    let fit = |f: Fit| {
        let change = f(patch.pixels(), &tinted, MODEL, MODEL, 8, Change::EPSILON).unwrap();
        composite(&change, &patch, &data)
    };
    assert!(fit(Change::direct) == fit(Change::fit));
    assert!(fit(Change::fit) != input);
}

#[test]
#[ignore = "a measurement, not a check: needs an idle machine"]
fn time_of_24_megapixels() {
    let size = rect(6000, 4000);
    let count = MODEL * MODEL * 3;
    let recon: Vec<f32> = (0..count).map(|i| (i % 251) as f32 / 250.0).collect();
    let edit: Vec<f32> = (0..count).map(|i| (i % 241) as f32 / 260.0).collect();
    for (name, samples, color) in [
        ("u8 sRGB", SampleType::U8, ColorSpace::Srgb),
        ("u16 sRGB", SampleType::U16, ColorSpace::Srgb),
        ("f32 sRGB", SampleType::F32, ColorSpace::Srgb),
        ("f32 linear", SampleType::F32, ColorSpace::LinearSrgb),
    ] {
        let format = Format { samples, ..RGB };
        let stride = 6000 * format.pixel_bytes();
        let value = |i: usize| ((i * 31 + i / 977) % 256) as u8;
        let data: Vec<u8> = match samples {
            SampleType::F32 => (0..stride * 1000)
                .flat_map(|i| (f32::from(value(i)) / 255.0).to_ne_bytes())
                .collect(),
            _ => (0..stride * 4000).map(value).collect(),
        };
        let source = LayerView::new(&data, 0, stride as i64, size, format, color).unwrap();
        let start = Instant::now();
        let patch = Patch::read(&source, None, &[(MODEL as u32, MODEL as u32)]).unwrap();
        let read = start.elapsed();
        let start = Instant::now();
        let (w, h) = (patch.width(), patch.height());
        let change = Change::fit(&recon, &edit, w, h, Change::RADIUS, Change::EPSILON).unwrap();
        let fit = start.elapsed();
        let mut out = vec![0; data.len()];
        let mut target =
            LayerViewMut::new(&mut out, 0, stride as i64, size, format, color).unwrap();
        let start = Instant::now();
        let tally = render(&change, patch.placement(), &source, None, &mut target).unwrap();
        println!(
            "{name:12} read {read:6.2?}  fit {fit:6.2?}  render {:6.2?}  changed {} %",
            start.elapsed(),
            tally.changed * 100 / 24_000_000
        );
    }
}
