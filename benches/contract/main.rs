//! Figures of the layer contract: what each compositor loses, what a large layer costs and looks like
//! close up, how soon a cancel is obeyed, and how well the model knows a picture. Not for: how close
//! edits come to the truth (`counterfactual`).
//!
//! `cargo bench --bench contract -- compositors|cost|cancel|known|crops [--help]`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cancel;
mod compositors;
mod cost;
mod crops;
mod known;
#[path = "../counterfactual/metrics.rs"]
#[allow(dead_code)]
mod metrics;

use std::ops::Range;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use semblance::job::Cancel;
use semblance::layer::{
    AlphaState, ChannelOrder, ColorSpace, Format, LayerView, LayerViewMut, Patch, Rect, SampleType,
};
use semblance::model::Pipeline;
use semblance::weights::ModelSource;
use semblance_atelier::Attribute;

#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    what: What,
    /// Given by `cargo bench`.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// dB against full-size truth, inside the attribute's mask, of each compositor on the true edit at
    /// the model's size (the oracle), as it is and through the autoencoder, and on the engine's edit.
    Compositors {
        /// Scenes, FIRST..LAST without the last.
        #[arg(long, default_value = "1000000..1000004", value_parser = seeds)]
        seeds: Range<u64>,
        /// Only these attributes.
        #[arg(long)]
        attribute: Vec<Attribute>,
        /// Layer sizes, WIDTHxHEIGHT.
        #[arg(long, num_args = 1.., default_values = ["1024x768", "4096x3072"], value_parser = size)]
        sizes: Vec<(u32, u32)>,
    },
    /// Seconds and peak memory of one edit, beyond the host's own buffer, each in its own process.
    Cost {
        /// Megapixels.
        #[arg(long, num_args = 1.., default_values_t = [1, 24, 100])]
        megapixels: Vec<u32>,
        /// One size, in this process.
        #[arg(long, hide = true)]
        child: Option<u32>,
    },
    /// Time from a cancel, at moments spread over an edit, to its end.
    Cancel {
        /// How long to go on, seconds.
        #[arg(long, default_value_t = 15.0)]
        seconds: f64,
    },
    /// The autoencoder's round trip of renders, photographs and pictures that the model cannot know.
    Known {
        /// dB below which the engine warns.
        #[arg(long, default_value_t = 20.0)]
        threshold: f64,
        /// Photographs.
        #[arg(long, num_args = 1.., default_values = ["examples/aitzgorri.jpg", "examples/picosdeeuropa.jpg"])]
        photos: Vec<PathBuf>,
    },
    /// A sheet of crops at 100 % of a large grainy scene, before and after edits at strength 1.
    Crops {
        /// The scene.
        #[arg(long, default_value_t = 1_000_002)]
        seed: u64,
        /// The layer, WIDTHxHEIGHT.
        #[arg(long, default_value = "6000x4000", value_parser = size)]
        size: (u32, u32),
        /// Deviation of the grain, in steps of 8 bits.
        #[arg(long, default_value_t = 4.0)]
        grain: f64,
        /// The edits.
        #[arg(long, num_args = 1.., default_values = ["sunset", "night", "snow", "fog", "autumn"])]
        attribute: Vec<Attribute>,
        /// The sheet, .png or .jpg.
        #[arg(long, default_value = "crops.png")]
        out: PathBuf,
    },
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (first, last) = text.split_once("..").ok_or("must be FIRST..LAST")?;
    let number = |s: &str| s.parse::<u64>().map_err(|e| format!("{s}: {e}"));
    Ok(number(first)?..number(last)?)
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let (width, height) = text.split_once('x').ok_or("must be WIDTHxHEIGHT")?;
    let number = |s: &str| s.parse::<u32>().map_err(|e| format!("{s}: {e}"));
    Ok((number(width)?, number(height)?))
}

fn main() {
    match Options::parse().what {
        What::Compositors {
            seeds,
            attribute,
            sizes,
        } => compositors::run(seeds, attribute, &sizes),
        What::Cost { child: Some(n), .. } => cost::one(n),
        What::Cost { megapixels, .. } => cost::run(&megapixels),
        What::Cancel { seconds } => cancel::run(seconds),
        What::Known { threshold, photos } => known::run(threshold, &photos),
        What::Crops {
            seed,
            size,
            grain,
            attribute,
            out,
        } => crops::run(seed, size, grain, &attribute, &out),
    }
}

/// 8-bit RGB.
const RGB8: Format = Format {
    samples: SampleType::U8,
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

/// Pixels of an 8-bit RGB picture to read.
fn view(rgb: &[u8], width: u32, height: u32) -> LayerView<'_> {
    let stride = i64::from(width) * 3;
    LayerView::new(rgb, 0, stride, rect(width, height), RGB8, ColorSpace::Srgb).unwrap()
}

/// Pixels of an 8-bit RGB picture to change.
fn view_mut(rgb: &mut [u8], width: u32, height: u32) -> LayerViewMut<'_> {
    let stride = i64::from(width) * 3;
    LayerViewMut::new(rgb, 0, stride, rect(width, height), RGB8, ColorSpace::Srgb).unwrap()
}

/// The embedded model and the picture sizes that it takes.
fn model() -> (std::sync::Arc<Pipeline>, Vec<(u32, u32)>) {
    let source = ModelSource::Embedded(semblance_model_mini::FILES);
    let pipeline = Pipeline::load(&source, &Cancel::new()).unwrap();
    let grids = pipeline.outline().grids();
    let grids = grids.iter().map(|g| (g.width as u32, g.height as u32));
    let grids = grids.collect();
    (pipeline, grids)
}

/// A patch's picture through the autoencoder.
fn round_trip(pipeline: &Pipeline, patch: &Patch) -> Vec<f32> {
    let run = Cancel::new();
    let rgb: Vec<f32> = patch.pixels().iter().map(|v| 2.0 * v - 1.0).collect();
    let latent = pipeline.vae_encode(&rgb, patch.height(), patch.width(), &run);
    let decoded = pipeline.vae_decode(&latent.unwrap(), &run).unwrap();
    decoded.iter().map(|v| 0.5 * v + 0.5).collect()
}
