//! How close an edit comes to the truth: rendered scenes that training never saw, each attribute
//! set to 1 by Semblance and by the renderer.
//!
//! `cargo bench --bench counterfactual -- [--seeds FIRST..LAST] [--attribute NAME] [--json FILE]`
//!
//! The rivals are the unedited picture and the best constant affine colour map (fitted per attribute
//! on other scenes): what a LUT could do. PSNR is the mean over scenes of dB, inside and outside the
//! attribute's mask; a region without any difference counts 99 dB.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod metrics;
mod report;
mod subject;

use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use metrics::{AffineFit, AffineMap, Picture, apply, delta_e, psnr};
use rayon::prelude::*;
use report::Table;
use semblance_atelier::{Attribute, Attributes, Scene};
use subject::Subject;

/// The model's own size and a full size, pixels.
const SIZES: [(u32, u32); 2] = [(128, 128), (1024, 768)];
/// Scenes that the affine colour maps are fitted on.
const LUT_SEEDS: Range<u64> = 2_000_000..2_000_048;
/// A pixel is inside an attribute's mask above the one and outside it below the other.
const INSIDE: f32 = 0.5;
const OUTSIDE: f32 = 0.02;

#[derive(Parser)]
struct Options {
    /// Scenes, FIRST..LAST without the last; training used seeds below 900000 only.
    #[arg(long, default_value = "1000000..1000100", value_parser = seeds)]
    seeds: Range<u64>,
    /// Only these attributes.
    #[arg(long)]
    attribute: Vec<Attribute>,
    /// Rows {attribute, size, where, measure, value} as a JSON array.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Another model than the embedded one (a folder in diffusers layout).
    #[arg(long)]
    model: Option<PathBuf>,
    /// Sampling steps instead of the model's default.
    #[arg(long)]
    steps: Option<u32>,
    /// Strength that stands for +1, to look for a better calibration.
    #[arg(long, default_value_t = 1.0)]
    strength: f32,
    /// Further recipe fields as JSON, for experiments: '{"guidance": 1.5}'.
    #[arg(long)]
    recipe: Option<String>,
    /// Only the model's own size.
    #[arg(long)]
    small: bool,
    /// Photographs for the VAE's round trip.
    #[arg(long, num_args = 1.., default_values = ["examples/aitzgorri.jpg", "examples/picosdeeuropa.jpg"])]
    photos: Vec<PathBuf>,
    /// Writes unedited, edited and true pictures of the first scenes as one sheet.
    #[arg(long)]
    sheet: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (first, last) = text.split_once("..").ok_or("must be FIRST..LAST")?;
    let number = |s: &str| {
        s.trim_start_matches('=')
            .parse::<u64>()
            .map_err(|e| format!("{s}: {e}"))
    };
    let range = number(first)?..number(last)?;
    if range.is_empty() {
        Err(format!("{text} holds no seed"))
    } else {
        Ok(range)
    }
}

fn main() {
    let options = Options::parse();
    let attributes = if options.attribute.is_empty() {
        Attribute::ALL.to_vec()
    } else {
        options.attribute.clone()
    };
    let sizes = if options.small {
        &SIZES[..1]
    } else {
        &SIZES[..]
    };
    let subject = Subject::new(
        options.model.clone(),
        options.steps,
        options.recipe.as_deref(),
    );
    let mut table = Table::default();

    for &(width, height) in sizes {
        let maps: Vec<AffineMap> = attributes.iter().map(|&a| fit(a, width, height)).collect();
        for (k, seed) in options.seeds.clone().enumerate() {
            let scene = Scene::from_seed(seed);
            let source = render(&scene, &Attributes::default(), width, height);
            let mut row = vec![source.clone()];
            for (&attribute, map) in attributes.iter().zip(&maps) {
                let truth = render(&scene, &Attributes::only(attribute, 1.0), width, height);
                let edit = subject.edit(&source, attribute, options.strength);
                let mask = scene.mask(attribute, width, height);
                compare(
                    &mut table,
                    attribute,
                    (width, height),
                    &source,
                    &truth,
                    &apply(map, &source),
                    &edit,
                    &mask,
                );
                if k < 4 {
                    row.extend([edit, truth]);
                }
            }
            if let (Some(path), true) = (&options.sheet, k < 4) {
                report::add_to_sheet(path, &row, k);
            }
            report::tick(k + 1, options.seeds.clone().count(), width);
        }
    }
    sliders(&mut table, &subject, &attributes, options.seeds.clone());
    identity(&mut table, &subject, &attributes, options.seeds.clone());
    round_trips(&mut table, &subject, &options);
    times(&mut table, &options);
    table.print(&attributes, sizes);
    if let Some(path) = &options.json {
        table.write_json(path);
    }
}

fn render(scene: &Scene, attributes: &Attributes, width: u32, height: u32) -> Picture {
    Picture {
        width,
        height,
        rgb: scene.render(attributes, width, height).rgb,
    }
}

fn fit(attribute: Attribute, width: u32, height: u32) -> AffineMap {
    // A colour map has no detail to gain from more pixels than these.
    let (w, h) = if width > 320 {
        (width / 4, height / 4)
    } else {
        (width, height)
    };
    let pairs: Vec<_> = LUT_SEEDS
        .into_par_iter()
        .map(|seed| {
            let scene = Scene::from_seed(seed);
            (
                render(&scene, &Attributes::default(), w, h),
                render(&scene, &Attributes::only(attribute, 1.0), w, h),
            )
        })
        .collect();
    let mut fit = AffineFit::default();
    for (source, target) in &pairs {
        fit.add(source, target);
    }
    fit.solve()
}

#[allow(clippy::too_many_arguments)] // four pictures of one scene, compared under one mask
fn compare(
    table: &mut Table,
    attribute: Attribute,
    size: (u32, u32),
    source: &Picture,
    truth: &Picture,
    lut: &Picture,
    edit: &Picture,
    mask: &[f32],
) {
    let inside = |i: usize| mask[i] > INSIDE;
    let outside = |i: usize| mask[i] < OUTSIDE;
    for (place, keep) in [
        ("inside", &inside as &dyn Fn(usize) -> bool),
        ("outside", &outside),
    ] {
        for (measure, picture) in [
            ("psnr unedited", source),
            ("psnr lut", lut),
            ("psnr edit", edit),
        ] {
            if let Some(value) = psnr(picture, truth, keep) {
                table.add(attribute.name(), size, place, measure, value);
            }
        }
    }
    let step = (size.0 as usize * size.1 as usize / 16384).max(1);
    table.add(
        attribute.name(),
        size,
        "inside",
        "ΔE2000 edit",
        delta_e(source, edit, step, inside),
    );
    table.add(
        attribute.name(),
        size,
        "inside",
        "ΔE2000 truth",
        delta_e(source, truth, step, inside),
    );
    table.add(
        attribute.name(),
        size,
        "outside",
        "ΔE2000 edit",
        delta_e(source, edit, step, outside),
    );
}

/// Seven strengths from 0 to 1: each must lie further from the picture than the one before.
fn sliders(table: &mut Table, subject: &Subject, attributes: &[Attribute], seeds: Range<u64>) {
    let (width, height) = SIZES[0];
    for seed in seeds.take(12) {
        let source = render(
            &Scene::from_seed(seed),
            &Attributes::default(),
            width,
            height,
        );
        for &attribute in attributes {
            let distances: Vec<f64> = (0..7)
                .map(|k| {
                    delta_e(
                        &source,
                        &subject.edit(&source, attribute, k as f32 / 6.0),
                        1,
                        |_| true,
                    )
                })
                .collect();
            let grows = distances.windows(2).all(|w| w[1] > w[0]);
            table.add(
                attribute.name(),
                SIZES[0],
                "whole",
                "monotone over 7 strengths (share)",
                f64::from(u8::from(grows)),
            );
        }
    }
}

/// Strength 0 with the shortcut switched off must give back the input's bytes.
fn identity(table: &mut Table, subject: &Subject, attributes: &[Attribute], seeds: Range<u64>) {
    for (seed, &size) in seeds.take(4).zip(SIZES.iter().cycle()) {
        let source = render(
            &Scene::from_seed(seed),
            &Attributes::default(),
            size.0,
            size.1,
        );
        for &attribute in attributes {
            let exact = subject.edit_without_shortcut(&source, attribute, 0.0).rgb == source.rgb;
            table.add(
                attribute.name(),
                size,
                "whole",
                "identity at 0, shortcut off (share)",
                f64::from(u8::from(exact)),
            );
        }
    }
}

fn round_trips(table: &mut Table, subject: &Subject, options: &Options) {
    for seed in options.seeds.clone().take(50) {
        let source = render(
            &Scene::from_seed(seed),
            &Attributes::default(),
            SIZES[0].0,
            SIZES[0].1,
        );
        table.add(
            "vae",
            SIZES[0],
            "whole",
            "round trip of renders (dB)",
            subject.round_trip(&source),
        );
    }
    for path in &options.photos {
        match image::open(path) {
            Ok(photo) => {
                let rgb = photo.to_rgb8();
                let (width, height) = rgb.dimensions();
                let value = subject.round_trip(&Picture {
                    width,
                    height,
                    rgb: rgb.into_raw(),
                });
                table.add(
                    "vae",
                    SIZES[0],
                    "whole",
                    "round trip of photographs (dB)",
                    value,
                );
            }
            Err(error) => eprintln!("{}: {error}", path.display()),
        }
    }
}

fn times(table: &mut Table, options: &Options) {
    let size = SIZES[1];
    let source = render(
        &Scene::from_seed(options.seeds.start),
        &Attributes::default(),
        size.0,
        size.1,
    );
    for _ in 0..3 {
        let begin = Instant::now();
        let subject = Subject::new(
            options.model.clone(),
            options.steps,
            options.recipe.as_deref(),
        );
        subject.edit(&source, Attribute::Sunset, 0.8);
        table.add(
            "time",
            size,
            "whole",
            "first edit, model load included (s)",
            begin.elapsed().as_secs_f64(),
        );
        let begin = Instant::now();
        subject.edit(&source, Attribute::Sunset, 0.5);
        table.add(
            "time",
            size,
            "whole",
            "second strength (s)",
            begin.elapsed().as_secs_f64(),
        );
    }
}
