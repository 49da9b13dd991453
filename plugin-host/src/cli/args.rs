//! The command line: what can be asked for.
//!
//! For: names, ranges, help. Not for: doing it. The texts here are what `--help` prints and what
//! shell completions are made from.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    an edit failed (or several files failed for different reasons)
  2    the command line makes no sense
  3    an input or output file cannot be read or written
  4    the model (or the library) is missing or damaged
  5    not enough memory
  130  cancelled (Ctrl-C); no half file is left

Errors are one line on stderr, `semblance: error: ...`, and often a second, `hint: ...`.
The library is found at SEMBLANCE_LIBRARY, else beside the executable, else in ../lib.";

const EDIT_EXAMPLES: &str = "\
Examples:
  semblance edit lake.png -a sunset=0.8 -o dusk.png
  semblance edit lake.png -a sunset=0.8 -a fog=0.3 --mask sky.png -o dusk.png
  semblance edit lake.tif -a snow=-1 -o bare.tif
  semblance edit lake.ora --layer background -a night=1 -o night.ora
  semblance edit lake.ora --source visible -a night=1 -o night.ora
  semblance edit *.jpg -a fog=0.5 -o 'out/{stem}-fog.{ext}'
  semblance edit lake.png --from 'a photo of hills' --to 'a photo of hills, at night' -o night.png
  semblance edit other.png --recipe dusk.png -o other-dusk.png

Formats (the input's kind is found from its contents, the output's from its name):
  PNG         8 and 16 bits, grey or RGB, alpha; profile, EXIF, texts kept; carries the recipe
  JPEG        8 bits; profile, EXIF kept; carries the recipe; copied as it is if nothing changed
  TIFF        8 and 16 bits, half and float; profile, EXIF, resolution kept; carries the recipe
  WebP        8 bits; profile, EXIF kept; without loss unless --quality; carries the recipe
  OpenRaster  the result is a new layer above the edited one; the other layers are kept as they are

Output names with several inputs: {stem}, {ext}, {name} (both), {dir}, {number} (1, 2, 3 ...).
A file of the output's name is replaced, as by cp; an input, the mask or the recipe only with
--force, and never an input whose turn is yet to come.";

const PROTOCOL: &str = "\
Protocol 1. One JSON object a line; every answer has the request's \"id\". The first line is
  {\"serve\": 1, \"version\": \"0.1.0\"}
Requests:
  {\"id\": 1, \"do\": \"attributes\"}                     or \"parameters\", \"describe\"
  {\"id\": 2, \"do\": \"edit\", \"file\": \"/dev/shm/mine\",
   \"layer\": {\"offset\": 0, \"width\": 640, \"height\": 480, \"samples\": \"u8\", \"order\": \"rgba\"},
   \"mask\": {\"offset\": 1228800, \"width\": 640, \"height\": 480},
   \"recipe\": {\"semblance\": 1, \"attributes\": [{\"name\": \"sunset\", \"strength\": 0.8}]}}
  {\"id\": 3, \"do\": \"preview\", \"file\": ..., \"layer\": ..., \"mask\": ..., \"recipe\": ...}
  {\"id\": 4, \"do\": \"render\", \"of\": 3, \"file\": ..., \"layer\": ..., \"mask\": ...,
   \"part\": {\"x\": 0, \"y\": 0, \"width\": 640, \"height\": 480}}
  {\"id\": 5, \"do\": \"cancel\", \"of\": 2}
  {\"id\": 6, \"do\": \"quit\"}                           or the end of stdin
Answers:
  {\"id\": 2, \"phase\": \"invert\", \"fraction\": 0.4}     while it runs
  {\"id\": 2, \"ok\": true, \"answer\": {\"recipe\": ..., \"report\": ..., \"changed\": 300000}}
  {\"id\": 2, \"ok\": false, \"error\": {\"name\": ..., \"message\": ..., \"hint\": ...}}

The file is yours: make it (mode 600), put the layer into it (rows from the top without padding, the
machine's byte order), read the edited layer from the same place after the answer, remove it. What
fails or is cancelled leaves it as it was. Further keys of a layer: samples u8, u16, f16, f32; order
rgb, rgba, bgra, gray, gray_alpha; alpha straight, premultiplied; color srgb, linear_srgb, icc (then
\"icc\": {\"offset\": ..., \"size\": ...} in the same file); of a mask: x, y in the layer, samples u8, f32.

A preview is an edit that writes nothing: its result is kept until the next preview's takes its place. A
render puts it onto the file's pixels: with \"part\" onto a copy, of any size, of that rectangle of the
layer (the mask is then one of the copy), without it onto the layer itself, which gives the bytes of an
edit. So a window renders what it shows, at the size that it shows, and its OK costs one render.

Edits and previews run one after the other. A newer preview supersedes those that run or wait: they end
with the error \"superseded\". All else is answered at once.";

/// Change one attribute of a picture, keep its likeness.
#[derive(Parser, Debug)]
#[command(
    name = "semblance",
    disable_version_flag = true,
    after_help = EXIT_CODES,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Print the versions of this program and of the library, and where the library is.
    #[arg(short = 'V', long, exclusive = true)]
    pub version: bool,

    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Edit pictures: set attributes by name and strength, or say it in words.
    #[command(after_help = EDIT_EXAMPLES)]
    Edit(Box<Edit>),
    /// One picture at several strengths, side by side, labelled.
    #[command(after_help = "\
Example:
  semblance sheet lake.png -a sunset --from -1 --to 1 --steps 7 -o sheet.png")]
    Sheet(Box<Sheet>),
    /// List the attributes that -a takes, and whether the model serves them.
    Attributes(Attributes),
    /// Say what is installed, what is missing and what to do about it; tries a small edit.
    Doctor(Doctor),
    /// Print the recipe that a picture (PNG, TIFF, JPEG, WebP, OpenRaster) or a JSON file carries.
    Recipe(RecipeOf),
    /// Put the plug-in into an editor of this user, or take it away.
    #[command(after_help = "\
Examples:
  semblance install gimp
  semblance install gimp --user-dir ~/.config/GIMP/3.0
  semblance install gimp --user-dir ~/.config/GIMP/2.10
  semblance install gimp --uninstall
  semblance install krita")]
    Install(Install),
    /// Edit for another program: requests and answers as JSON lines, pixels through a file.
    #[command(after_help = PROTOCOL)]
    Serve(Serve),
    /// Print completions for a shell.
    #[command(after_help = "\
Example:
  semblance completions bash > ~/.local/share/bash-completion/completions/semblance")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Which model, and what it may use.
#[derive(Args, Debug, Default, Clone)]
#[command(next_help_heading = "Model and machine")]
pub struct Machine {
    /// A model in diffusers layout; the one inside the library where this is left out.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,

    /// A folder with further attribute files (*.toml); may be repeated.
    #[arg(long = "attributes", value_name = "DIR")]
    pub attribute_folders: Vec<PathBuf>,

    /// Worker threads; all cores where this is left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: Option<u32>,

    /// CPU path that computes (portable, avx2, avx512, avx512bf16, amx, auto), or several with commas between them:
    /// the first that this CPU has; SEMBLANCE_CPU, or auto, where this is left out.
    #[arg(long, value_name = "PATH")]
    pub cpu: Option<String>,

    /// Memory that an edit may use, GiB; the machine's free memory where this is left out.
    #[arg(long, value_name = "GiB", value_parser = gibibytes)]
    pub memory: Option<f64>,
}

/// How the edit is made.
#[derive(Args, Debug, Default, Clone)]
#[command(next_help_heading = "How it is made")]
pub struct Making {
    /// What the picture shows, in words, if the model's neutral text does not fit.
    #[arg(long, value_name = "TEXT")]
    pub scene: Option<String>,

    /// Seed of all noise; the embedded model adds none unless --noise says so.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Classifier-free guidance scale, 1 to 20.
    #[arg(long, value_name = "G", allow_negative_numbers = true)]
    pub guidance: Option<f64>,

    /// Share of the noise that the picture is shown under to the model, 0 to 1.
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub noise: Option<f64>,

    /// How the change reaches the picture's own pixels.
    #[arg(long, value_name = "HOW")]
    pub compositor: Option<Compositor>,

    /// Neighbourhood of the compositor's fit, 1 to 64 model pixels.
    #[arg(long, value_name = "N")]
    pub radius: Option<u32>,

    /// Ridge of the compositor's fit towards no change, 1e-8 to 1e3.
    #[arg(long, value_name = "E", allow_negative_numbers = true)]
    pub epsilon: Option<f64>,

    /// Share of what the compositor `change` cannot explain as a local change, 0 to 1.
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub rest: Option<f64>,

    /// Where the edit acts: an image of the layer's size (in an OpenRaster also of the canvas'),
    /// white = edit, black = keep. Colour counts by its lightness; transparent counts as black.
    #[arg(long, value_name = "FILE")]
    pub mask: Option<PathBuf>,

    /// The layer of an OpenRaster, by its name, or by its number counted from the top (1).
    #[arg(long, value_name = "NAME|NUMBER")]
    pub layer: Option<String>,

    /// What of an OpenRaster is edited: one layer, or what is visible of all of them together (its
    /// edit then becomes the uppermost layer).
    #[arg(long, value_name = "WHAT", default_value = "layer")]
    pub source: Source,

    /// What float samples without a profile mean.
    #[arg(long, value_name = "SPACE")]
    pub assume: Option<Space>,

    /// Start from the recipe in this JSON, PNG, TIFF, JPEG or OpenRaster file; other options
    /// replace its parts.
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
}

/// How a command speaks.
#[derive(Args, Debug, Default, Clone)]
#[command(next_help_heading = "Output")]
pub struct Speech {
    /// Print one JSON object a line and file on stdout, errors too.
    #[arg(long)]
    pub json: bool,

    /// Progress on stderr: a bar (auto: on a terminal only), JSON lines, or none.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub progress: Progress,
}

/// `semblance edit`.
#[derive(Args, Debug)]
pub struct Edit {
    /// The pictures.
    #[arg(required = true, value_name = "IN")]
    pub inputs: Vec<PathBuf>,

    /// Where to write; a pattern like 'out/{stem}-dusk.{ext}' for several pictures.
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,

    /// An attribute and its strength, -2 to 2; 1 is its full effect, 0 changes nothing. May be
    /// repeated. The name is a catalogue name (`semblance attributes`) or the path of a .toml.
    #[arg(short, long, value_name = "NAME=S", value_parser = slider)]
    pub attribute: Vec<Slider>,

    /// What the picture shows, for an edit in words.
    #[arg(long, value_name = "TEXT", requires = "to")]
    pub from: Option<String>,

    /// What it should show.
    #[arg(long, value_name = "TEXT", requires = "from")]
    pub to: Option<String>,

    /// Strength of the edit in words, -2 to 2.
    #[arg(long, value_name = "S", allow_negative_numbers = true, value_parser = finite)]
    pub strength: Option<f64>,

    /// Sampling steps, 1 to 1000; the model's default where this is left out.
    #[arg(long, value_name = "N", help_heading = "How it is made")]
    pub steps: Option<u32>,

    #[command(flatten)]
    pub making: Making,

    #[command(flatten)]
    pub machine: Machine,

    #[command(flatten)]
    pub speech: Speech,

    /// Quality of a JPEG or a WebP, 1 to 100; without it a JPEG gets 95, a WebP loses nothing.
    #[arg(long, value_name = "Q", help_heading = "Output",
          value_parser = clap::value_parser!(u8).range(1..=100))]
    pub quality: Option<u8>,

    /// Leave pictures alone whose output is there already.
    #[arg(long, help_heading = "Output")]
    pub skip_existing: bool,

    /// Allow an output to replace an input (none that is yet to be read), the mask or the recipe.
    #[arg(long, help_heading = "Output")]
    pub force: bool,
}

/// `semblance sheet`.
#[derive(Args, Debug)]
pub struct Sheet {
    /// The picture.
    #[arg(value_name = "IN")]
    pub input: PathBuf,

    /// The attribute, by name or path. May be repeated: each gets its own rows.
    #[arg(short, long = "attribute", value_name = "NAME", required = true)]
    pub attributes: Vec<String>,

    /// The first strength.
    #[arg(long, value_name = "S", default_value_t = -1.0, allow_negative_numbers = true, value_parser = finite)]
    pub from: f64,

    /// The last strength.
    #[arg(long, value_name = "S", default_value_t = 1.0, allow_negative_numbers = true, value_parser = finite)]
    pub to: f64,

    /// How many strengths, 1 to 64.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub steps: u32,

    /// Pictures a row; all strengths of an attribute where this is left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub columns: Option<u32>,

    /// Longer side of each picture, pixels.
    #[arg(long, value_name = "PX", default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=4096))]
    pub size: u32,

    /// Sampling steps of each edit, 1 to 1000.
    #[arg(long, value_name = "N", help_heading = "How it is made")]
    pub sampling_steps: Option<u32>,

    /// Where to write.
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,

    /// Allow an output to replace an input (none that is yet to be read), the mask or the recipe.
    #[arg(long, help_heading = "Output")]
    pub force: bool,

    #[command(flatten)]
    pub making: Making,

    #[command(flatten)]
    pub machine: Machine,

    #[command(flatten)]
    pub speech: Speech,
}

/// `semblance attributes`.
#[derive(Args, Debug)]
pub struct Attributes {
    /// Print the library's JSON.
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub machine: Machine,
}

/// `semblance doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub machine: Machine,
}

/// `semblance recipe`.
#[derive(Args, Debug)]
pub struct RecipeOf {
    /// A picture or a JSON file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// `semblance install`.
#[derive(Args, Debug)]
pub struct Install {
    /// Which editor.
    #[arg(value_name = "EDITOR")]
    pub editor: Editor,

    /// The editor's folder of this user; every one that is found where this is left out.
    #[arg(long, value_name = "DIR")]
    pub user_dir: Option<PathBuf>,

    /// Take the plug-in away.
    #[arg(long)]
    pub uninstall: bool,
}

/// `semblance serve`.
#[derive(Args, Debug)]
pub struct Serve {
    /// Speak over stdin and stdout; there is no other way.
    #[arg(long, required = true)]
    pub stdio: bool,

    #[command(flatten)]
    pub machine: Machine,
}

/// An editor that has a plug-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Editor {
    /// GIMP 3, and 2.10, whose plug-in is compiled on this machine.
    Gimp,
    /// Krita 5.
    Krita,
}

/// An attribute and its strength.
#[derive(Clone, Debug, PartialEq)]
pub struct Slider {
    /// A catalogue name or a path.
    pub name: String,
    /// Signed strength.
    pub strength: f64,
}

/// What of a document with layers is edited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// One layer.
    #[default]
    Layer,
    /// The merged picture of all layers that show.
    Visible,
}

/// How the change reaches full size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compositor {
    /// A local model of the change, applied to the picture's own pixels.
    Change,
    /// The same, with the edited picture itself, enlarged, where content moves or appears.
    Direct,
    /// The enlarged difference.
    Difference,
}

impl Compositor {
    /// Its name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Compositor::Change => "change",
            Compositor::Direct => "direct",
            Compositor::Difference => "difference",
        }
    }
}

/// What float samples mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Space {
    /// sRGB, encoded.
    Srgb,
    /// sRGB primaries, linear light.
    Linear,
}

/// How progress is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// A bar if stderr is a terminal.
    #[default]
    Auto,
    /// A bar.
    Bar,
    /// JSON lines on stderr.
    Json,
    /// Nothing.
    None,
}

/// `NAME=S`, split at the last `=`, so that a path may have one.
fn slider(text: &str) -> Result<Slider, String> {
    let Some((name, strength)) = text.rsplit_once('=') else {
        return Err(format!("no strength: try {text}=1"));
    };
    if name.is_empty() {
        return Err("no name before the =: try sunset=1".to_owned());
    }
    Ok(Slider {
        name: name.to_owned(),
        strength: finite(strength)?,
    })
}

/// A number that is one.
fn finite(text: &str) -> Result<f64, String> {
    text.trim()
        .parse::<f64>()
        .ok()
        .filter(|value| value.is_finite())
        .ok_or_else(|| format!("strength = {text:?}: must be a number, -2 to 2 (try 1)"))
}

fn gibibytes(text: &str) -> Result<f64, String> {
    text.trim()
        .parse::<f64>()
        .ok()
        .filter(|value| *value > 0.0 && *value <= 1_048_576.0)
        .ok_or_else(|| format!("memory = {text:?}: must be a positive number of GiB (try 4)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn edit(line: &str) -> Result<Edit, clap::Error> {
        let cli = Cli::try_parse_from(line.split_whitespace())?;
        match cli.command {
            Some(Command::Edit(edit)) => Ok(*edit),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_slider_is_split_at_its_last_equals_sign() {
        let edit =
            edit("semblance edit in.png -a ./a=b.toml=-0.5 -a sunset=1e-1 -o o.png").unwrap();
        assert_eq!(edit.attribute[0].name, "./a=b.toml");
        assert_eq!(edit.attribute[0].strength, -0.5);
        assert_eq!(edit.attribute[1].strength, 0.1);
    }

    #[test]
    fn bad_lines_are_refused() {
        for line in [
            "semblance edit -o o.png",
            "semblance edit in.png",
            "semblance edit in.png -a sunset -o o.png",
            "semblance edit in.png -a =1 -o o.png",
            "semblance edit in.png -a sunset=NaN -o o.png",
            "semblance edit in.png -a sunset=inf -o o.png",
            "semblance edit in.png --from a -o o.png",
            "semblance edit in.png -a s=1 --quality 0 -o o.png",
            "semblance edit in.png -a s=1 --quality 101 -o o.png",
            "semblance edit in.png -a s=1 --threads 0 -o o.png",
            "semblance edit in.png -a s=1 --threads 257 -o o.png",
            "semblance edit in.png -a s=1 --memory -1 -o o.png",
            "semblance edit in.png -a s=1 --memory nan -o o.png",
            "semblance edit in.png -a s=1 --compositor magic -o o.png",
            "semblance sheet in.png -o o.png",
            "semblance sheet in.png -a s --steps 0 -o o.png",
            "semblance sheet in.png -a s --columns 0 -o o.png",
            "semblance completions",
            "semblance install",
            "semblance install emacs",
            "semblance dance",
        ] {
            assert!(
                Cli::try_parse_from(line.split_whitespace()).is_err(),
                "{line}"
            );
        }
    }

    #[test]
    fn negative_strengths_need_no_quoting() {
        let edit = edit("semblance edit in.png --from a --to b --strength -1 -o o.png").unwrap();
        assert_eq!(edit.strength, Some(-1.0));
        assert!(
            Cli::try_parse_from(
                "semblance sheet in.png -a s --from -1 --to 1 --steps 7 -o o.png"
                    .split_whitespace()
            )
            .is_ok()
        );
    }

    #[test]
    fn help_tells_the_exit_codes_and_examples() {
        let mut command = Cli::command();
        assert!(command.render_long_help().to_string().contains("130"));
        let edit = command.find_subcommand_mut("edit").unwrap();
        assert!(edit.render_long_help().to_string().contains("{stem}"));
    }
}
