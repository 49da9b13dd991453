//! `atelier`: renders scenes, contact sheets, masks and the training stream from the command line.

use std::error::Error;
use std::io::{self, BufWriter};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rayon::prelude::*;
use semblance_atelier::{Attribute, Attributes, Frame, Place, Scene, caption, stream};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Parser)]
#[command(
    name = "atelier",
    version,
    about = "Renders landscapes with exact attributes"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One picture as PNG.
    Render {
        #[command(flatten)]
        what: What,
        /// NAME=VALUE in 0..=1; may be repeated.
        #[arg(short = 's', long = "set", value_parser = setting)]
        set: Vec<(Attribute, f32)>,
        #[arg(short, long)]
        out: PathBuf,
    },
    /// The mask of what one attribute may touch, as grey PNG.
    Mask {
        #[command(flatten)]
        what: What,
        #[arg(short, long)]
        attribute: Attribute,
        #[arg(short, long)]
        out: PathBuf,
    },
    /// Scenes as rows; plain and each attribute at `--value` as columns.
    Sheet {
        /// FIRST..LAST, the last one excluded.
        #[arg(long, default_value = "0..6", value_parser = seeds)]
        seeds: (u64, u64),
        #[arg(long)]
        place: Option<Place>,
        #[arg(long, default_value = "192x144", value_parser = size)]
        size: (usize, usize),
        #[arg(long, default_value_t = 1.0)]
        value: f32,
        /// Only the plain pictures, this many a row.
        #[arg(long)]
        plain: Option<usize>,
        #[arg(short, long)]
        out: PathBuf,
    },
    /// Every part that captions are made of, one a line.
    Captions,
    /// Pictures and captions for training, to standard output (format: module `stream`).
    Stream {
        #[arg(long, default_value_t = 0)]
        first_seed: u64,
        #[arg(long, default_value_t = 1)]
        count: u64,
        #[arg(long, default_value_t = 128)]
        width: usize,
        #[arg(long, default_value_t = 128)]
        height: usize,
        /// Threads; 0 takes all.
        #[arg(long, default_value_t = 0)]
        threads: usize,
        #[arg(long, value_enum, default_value = "full")]
        group: Group,
    },
}

#[derive(Args)]
struct What {
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Drawn from the seed where not given.
    #[arg(long)]
    place: Option<Place>,
    /// WIDTHxHEIGHT in pixels.
    #[arg(long, default_value = "512x384", value_parser = size)]
    size: (usize, usize),
}

impl What {
    fn scene(&self) -> Scene {
        Scene::new(
            self.seed,
            self.place.unwrap_or_else(|| Place::from_seed(self.seed)),
        )
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Group {
    Full,
    Single,
}

fn setting(s: &str) -> std::result::Result<(Attribute, f32), String> {
    let (name, value) = s
        .split_once('=')
        .ok_or_else(|| format!("-s {s}: must be NAME=VALUE (try sunset=0.8)"))?;
    let value: f32 = value
        .parse()
        .map_err(|_| format!("{name} = {value}: must be a number in 0..=1 (try 0.8)"))?;
    if !(0.0..=1.0).contains(&value) {
        return Err(format!("{name} = {value}: must be in 0..=1 (try 0.8)"));
    }
    Ok((name.parse()?, value))
}

fn size(s: &str) -> std::result::Result<(usize, usize), String> {
    let wrong = || format!("size = {s}: must be WIDTHxHEIGHT, each 1..=16384 (try 512x384)");
    let (w, h) = s.split_once('x').ok_or_else(wrong)?;
    match (w.parse(), h.parse()) {
        (Ok(w), Ok(h)) if (1..=16384).contains(&w) && (1..=16384).contains(&h) => Ok((w, h)),
        _ => Err(wrong()),
    }
}

fn seeds(s: &str) -> std::result::Result<(u64, u64), String> {
    let wrong = || format!("seeds = {s}: must be FIRST..LAST with FIRST < LAST (try 0..6)");
    let (a, b) = s.split_once("..").ok_or_else(wrong)?;
    match (a.parse(), b.parse()) {
        (Ok(a), Ok(b)) if a < b => Ok((a, b)),
        _ => Err(wrong()),
    }
}

fn save(
    path: &PathBuf,
    bytes: &[u8],
    (w, h): (usize, usize),
    colour: image::ExtendedColorType,
) -> Result<()> {
    image::save_buffer(path, bytes, w as u32, h as u32, colour)
        .map_err(|e| format!("{}: {e}", path.display()).into())
}

/// Pictures side by side, `columns` a row, two pixels apart.
fn sheet(
    pictures: &[Vec<u8>],
    (w, h): (usize, usize),
    columns: usize,
) -> (Vec<u8>, (usize, usize)) {
    let rows = pictures.len().div_ceil(columns);
    let (sw, sh) = (columns * (w + 2) - 2, rows * (h + 2) - 2);
    let mut out = vec![255u8; sw * sh * 3];
    for (i, p) in pictures.iter().enumerate() {
        let (x, y) = ((i % columns) * (w + 2), (i / columns) * (h + 2));
        for (r, row) in p.chunks_exact(w * 3).enumerate() {
            let at = ((y + r) * sw + x) * 3;
            out[at..at + w * 3].copy_from_slice(row);
        }
    }
    (out, (sw, sh))
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Render { what, set, out } => {
            let mut a = Attributes::default();
            for (name, value) in set {
                a[name] = value;
            }
            let picture = semblance_atelier::render(&what.scene(), &a, what.size.0, what.size.1);
            save(
                &out,
                &picture.to_u8(),
                what.size,
                image::ExtendedColorType::Rgb8,
            )
        }
        Command::Mask {
            what,
            attribute,
            out,
        } => {
            let mask = semblance_atelier::mask(&what.scene(), attribute, what.size.0, what.size.1);
            let grey: Vec<u8> = mask.iter().map(|v| (v * 255.0 + 0.5) as u8).collect();
            save(&out, &grey, what.size, image::ExtendedColorType::L8)
        }
        Command::Sheet {
            seeds,
            place,
            size,
            value,
            plain,
            out,
        } => {
            let rows: Vec<Vec<Vec<u8>>> = (seeds.0..seeds.1)
                .into_par_iter()
                .map(|seed| {
                    let scene = Scene::new(seed, place.unwrap_or_else(|| Place::from_seed(seed)));
                    let frame = Frame::new(&scene, size.0, size.1);
                    let mut all = vec![Attributes::default()];
                    if plain.is_none() {
                        all.extend(Attribute::ALL.map(|a| Attributes::only(a, value)));
                    }
                    all.iter().map(|a| frame.render(a).to_u8()).collect()
                })
                .collect();
            let (bytes, whole) = sheet(&rows.concat(), size, plain.unwrap_or(8).max(1));
            save(&out, &bytes, whole, image::ExtendedColorType::Rgb8)
        }
        Command::Captions => {
            for part in caption::vocabulary() {
                println!("{part}");
            }
            Ok(())
        }
        Command::Stream {
            first_seed,
            count,
            width,
            height,
            threads,
            group,
        } => {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build_global()?;
            let plan = match group {
                Group::Full => stream::Plan::Group,
                Group::Single => stream::Plan::Single,
            };
            let request = stream::Request {
                first_seed,
                count,
                width,
                height,
                plan,
            };
            Ok(stream::write(
                &request,
                &mut BufWriter::with_capacity(1 << 20, io::stdout().lock()),
            )?)
        }
    }
}
