//! Runs of the command, pictures and files for these tests. Not for: what one of them alone needs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use semblance_host::document::{self, Document, Encoding, Kind, Metadata, Picture};
use semblance_host::{Alpha, Color, Order, Pixels, Samples};

pub const COMMAND: &str = env!("CARGO_BIN_EXE_semblance");

pub fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny")
}

/// Runs the command without the library.
pub fn bare(folder: &Path, line: &[&str]) -> Output {
    Command::new(COMMAND)
        .current_dir(folder)
        .env("SEMBLANCE_LIBRARY", folder.join("no-library.so"))
        .args(line)
        .output()
        .unwrap()
}

/// Runs the command with the built library.
pub fn semblance(folder: &Path, line: &[&str]) -> Output {
    with_library()
        .current_dir(folder)
        .args(line)
        .output()
        .unwrap()
}

/// Runs the command with the built library as a user whose home is `home` and whose machine has its
/// Flatpaks in `home/flatpak` and no pkg-config, and so no headers of GIMP 2.10.
pub fn at_home(home: &Path, line: &[&str]) -> Output {
    let mut command = with_library();
    for name in [
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_CACHE_HOME",
        "GIMP3_DIRECTORY",
        "APPDATA",
        "FLATPAK_USER_DIR",
        "HF_HOME",
        "HF_HUB_CACHE",
    ] {
        command.env_remove(name);
    }
    command
        .current_dir(home)
        .env("HOME", home)
        .env("FLATPAK_SYSTEM_DIR", home.join("flatpak"))
        .env("PKG_CONFIG", "no-such-pkg-config")
        .args(line)
        .output()
        .unwrap()
}

fn with_library() -> Command {
    let library = Path::new(COMMAND).with_file_name(semblance_host::library::file_name());
    assert!(
        library.is_file(),
        "{} is missing: run `cargo build --release` (or ./test) first",
        library.display()
    );
    let mut command = Command::new(COMMAND);
    command.env_remove("SEMBLANCE_LIBRARY");
    command
}

/// Runs an edit in words on the tiny model.
pub fn edit(folder: &Path, line: &[&str]) -> Output {
    let tiny = tiny();
    let mut all = vec!["edit", "--model", tiny.to_str().unwrap(), "--steps", "4"];
    all.extend(["--from", "a photo", "--to", "a photo at night"]);
    all.extend(line);
    semblance(folder, &all)
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
pub fn succeeded(output: &Output) {
    assert_eq!(code(output), 0, "{}{}", stdout(output), stderr(output));
}

pub fn picture(kind: Kind, samples: Samples) -> Picture {
    let (width, height) = (40u32, 30u32);
    let bytes = (0..width * height)
        .flat_map(|at| {
            let (x, y) = (at % width, at / width);
            [6 * x, 8 * y, 3 * x + 4 * y, 55 + 5 * x]
        })
        .flat_map(|value| match samples {
            Samples::U8 => vec![value.min(255) as u8],
            Samples::F32 => (value as f32 / 200.0).to_ne_bytes().to_vec(),
            _ => ((value * 257 + 13).min(65_535) as u16)
                .to_ne_bytes()
                .to_vec(),
        })
        .collect();
    Picture {
        kind,
        pixels: Pixels {
            width,
            height,
            samples,
            order: Order::Rgba,
            alpha: Alpha::Straight,
            color: Color::Srgb,
            bytes,
        },
        metadata: Metadata::default(),
        warnings: Vec::new(),
    }
}

pub fn write(picture: &Picture, path: &Path) {
    let kind = Kind::of_path(path).unwrap();
    std::fs::write(path, picture.encode(kind, Encoding::default()).unwrap().0).unwrap();
}

pub fn read(path: &Path) -> Picture {
    match document::open(path).unwrap() {
        Document::Picture(picture) => *picture,
        Document::Layers(_) => panic!("layers"),
    }
}

pub fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
