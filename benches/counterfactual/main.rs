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
use semblance_atelier::{Attribute, Attributes, Frame, Scene};
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
    /// A folder with attribute files (NAME.toml) that stand in for the catalogue's, to tune them.
    #[arg(long)]
    attributes: Option<PathBuf>,
    /// Only the scores against the truth: no sliders, identity, round trips and times.
    #[arg(long)]
    scores: bool,
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
    let subject = Subject::new(&options);
    let mut table = Table::default();

    for &size in sizes {
        let maps = fit(&attributes, size);
        let seeds: Vec<u64> = options.seeds.clone().collect();
        let mut done = 0;
        for chunk in seeds.chunks(8) {
            let scenes: Vec<_> = chunk
                .par_iter()
                .map(|&seed| Truth::render(seed, &attributes, size))
                .collect();
            for scene in scenes {
                let mut row = vec![scene.source.clone()];
                for (k, &attribute) in attributes.iter().enumerate() {
                    let edit = subject.edit(&scene.source, attribute, options.strength);
                    compare(
                        &mut table,
                        attribute,
                        &scene,
                        k,
                        &apply(&maps[k], &scene.source),
                        &edit,
                    );
                    row.extend([edit, scene.truths[k].0.clone()]);
                }
                if let (Some(path), true) = (&options.sheet, done < 6) {
                    report::add_to_sheet(path, &row, done);
                }
                done += 1;
                report::tick(done, seeds.len(), size.0);
            }
        }
    }
    if !options.scores {
        sliders(&mut table, &subject, &attributes, options.seeds.clone());
        identity(&mut table, &subject, &attributes, options.seeds.clone());
        round_trips(&mut table, &subject, &options);
        // Engines of one process share their weights: the last one must go before a load can be timed.
        drop(subject);
        times(&mut table, &options);
    }
    table.print(&attributes, sizes);
    if let Some(path) = &options.json {
        table.write_json(path);
    }
}

/// One scene: daylight, and what each attribute truly makes of it, with the attribute's mask.
struct Truth {
    source: Picture,
    truths: Vec<(Picture, Vec<f32>)>,
}

impl Truth {
    fn render(seed: u64, attributes: &[Attribute], (width, height): (u32, u32)) -> Truth {
        let scene = Scene::from_seed(seed);
        let frame = Frame::new(&scene, width as usize, height as usize);
        let picture = |attributes: &Attributes| Picture {
            width,
            height,
            rgb: frame.render(attributes).to_u8(),
        };
        Truth {
            source: picture(&Attributes::default()),
            truths: attributes
                .iter()
                .map(|&a| (picture(&Attributes::only(a, 1.0)), frame.mask(a)))
                .collect(),
        }
    }
}

fn daylight(seed: u64, size: (u32, u32)) -> Picture {
    Truth::render(seed, &[], size).source
}

/// One colour map per attribute. It has no detail to gain from more than 192 × 144 pixels.
fn fit(attributes: &[Attribute], (width, height): (u32, u32)) -> Vec<AffineMap> {
    let size = if width > 192 {
        (192, 192 * height / width)
    } else {
        (width, height)
    };
    let scenes: Vec<_> = LUT_SEEDS
        .into_par_iter()
        .map(|seed| Truth::render(seed, attributes, size))
        .collect();
    (0..attributes.len())
        .map(|k| {
            let mut fit = AffineFit::default();
            for scene in &scenes {
                fit.add(&scene.source, &scene.truths[k].0);
            }
            fit.solve()
        })
        .collect()
}

fn compare(
    table: &mut Table,
    attribute: Attribute,
    scene: &Truth,
    k: usize,
    lut: &Picture,
    edit: &Picture,
) {
    let source = &scene.source;
    let (truth, mask) = &scene.truths[k];
    let size = (source.width, source.height);
    let inside = |i: usize| mask[i] > INSIDE;
    let outside = |i: usize| mask[i] < OUTSIDE;
    let regions = [
        ("inside", &inside as &dyn Fn(usize) -> bool),
        ("outside", &outside),
    ];
    for (place, keep) in regions {
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
    let step = (mask.len() / 16384).max(1);
    let mut add = |place, measure, picture, keep: &dyn Fn(usize) -> bool| {
        table.add(
            attribute.name(),
            size,
            place,
            measure,
            delta_e(source, picture, step, keep),
        );
    };
    add("inside", "ΔE2000 edit", edit, &inside);
    add("inside", "ΔE2000 truth", truth, &inside);
    add("outside", "ΔE2000 edit", edit, &outside);
}

/// Seven strengths from 0 to 1: each must lie further from the picture than the one before.
fn sliders(table: &mut Table, subject: &Subject, attributes: &[Attribute], seeds: Range<u64>) {
    for seed in seeds.take(12) {
        let source = daylight(seed, SIZES[0]);
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
        let source = daylight(seed, size);
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
        let source = daylight(seed, SIZES[0]);
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
    let source = daylight(options.seeds.start, size);
    for _ in 0..3 {
        let begin = Instant::now();
        let subject = Subject::new(options);
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
    } // What a host waits for before the first job: the command line loads the library and asks its version.
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release");
    for _ in 0..5 {
        let begin = Instant::now();
        if std::process::Command::new(folder.join("semblance"))
            .arg("--version")
            .output()
            .is_ok()
        {
            table.add(
                "time",
                (0, 0),
                "whole",
                "start and load of the library (s)",
                begin.elapsed().as_secs_f64(),
            );
        }
    }
    if let Ok(library) = std::fs::metadata(folder.join("libsemblance.so")) {
        table.add(
            "size",
            (0, 0),
            "whole",
            "libsemblance.so (MB)",
            library.len() as f64 / 1e6,
        );
    }
}
