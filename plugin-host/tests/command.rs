//! The command itself, end to end: exit codes, files, streams.
//!
//! Tests that edit use the library that lies beside the command (`cargo build --release` puts both
//! into one folder) and the random model of tests/fixtures/tiny.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use semblance_host::document::ora::OpenRaster;
use semblance_host::document::{self, Document, Encoding, Kind, Metadata, Picture};
use semblance_host::{Alpha, Color, Order, Pixels, Samples};
use serde_json::{Value, json};

const COMMAND: &str = env!("CARGO_BIN_EXE_semblance");

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny")
}

/// Runs the command without the library.
fn bare(folder: &Path, line: &[&str]) -> Output {
    Command::new(COMMAND)
        .current_dir(folder)
        .env("SEMBLANCE_LIBRARY", folder.join("no-library.so"))
        .args(line)
        .output()
        .unwrap()
}

/// Runs the command with the built library.
fn semblance(folder: &Path, line: &[&str]) -> Output {
    let library = Path::new(COMMAND).with_file_name(semblance_host::library::file_name());
    assert!(
        library.is_file(),
        "{} is missing: run `cargo build --release` (or ./test) first",
        library.display()
    );
    Command::new(COMMAND)
        .current_dir(folder)
        .env_remove("SEMBLANCE_LIBRARY")
        .args(line)
        .output()
        .unwrap()
}

/// Runs an edit in words on the tiny model.
fn edit(folder: &Path, line: &[&str]) -> Output {
    let tiny = tiny();
    let mut all = vec!["edit", "--model", tiny.to_str().unwrap(), "--steps", "4"];
    all.extend(["--from", "a photo", "--to", "a photo at night"]);
    all.extend(line);
    semblance(folder, &all)
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn succeeded(output: &Output) {
    assert_eq!(code(output), 0, "{}{}", stdout(output), stderr(output));
}

fn picture(kind: Kind, samples: Samples) -> Picture {
    let (width, height) = (40u32, 30u32);
    let bytes = (0..width * height)
        .flat_map(|at| {
            let (x, y) = (at % width, at / width);
            [6 * x, 8 * y, 3 * x + 4 * y, 55 + 5 * x]
        })
        .flat_map(|value| match samples {
            Samples::U8 => vec![value.min(255) as u8],
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

fn write(picture: &Picture, path: &Path) {
    let kind = Kind::of_path(path).unwrap();
    std::fs::write(path, picture.encode(kind, Encoding::default()).unwrap().0).unwrap();
}

fn read(path: &Path) -> Picture {
    match document::open(path).unwrap() {
        Document::Picture(picture) => *picture,
        Document::Layers(_) => panic!("layers"),
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_missing_library_is_exit_four_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &picture(Kind::Png, Samples::U8),
        &folder.path().join("a.png"),
    );
    let output = bare(
        folder.path(),
        &["edit", "a.png", "-a", "sunset=1", "-o", "b.png"],
    );
    assert_eq!(code(&output), 4);
    let text = stderr(&output);
    assert!(text.starts_with("semblance: error: "), "{text}");
    assert!(
        text.contains("no-library.so") && text.contains("\nhint: "),
        "{text}"
    );
    assert_eq!(files(folder.path()), ["a.png"]);
}

#[test]
fn doctor_says_what_is_missing_in_words_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let output = bare(folder.path(), &["doctor"]);
    assert_eq!(code(&output), 4);
    assert!(
        stdout(&output).contains("what to do"),
        "{}",
        stdout(&output)
    );
    let output = bare(folder.path(), &["doctor", "--json"]);
    let facts: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(facts["ok"], false);
    assert_eq!(facts["findings"][0]["error"]["name"], "library");
}

#[test]
fn lines_that_make_no_sense_are_exit_two() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &picture(Kind::Png, Samples::U8),
        &folder.path().join("a.png"),
    );
    for line in [
        &[][..],
        &["edit"],
        &["edit", "a.png", "-o", "b.png"],
        &["edit", "a.png", "-a", "sunset", "-o", "b.png"],
        &["edit", "a.png", "-a", "sunset=1", "-o", "./a.png"],
        &["edit", "a.png", "-a", "sunset=1", "-o", "{what}.png"],
        &["edit", "a.png", "b.png", "-a", "sunset=1", "-o", "c.png"],
        &["sheet", "a.png", "-a", "sunset", "-o", "a.png"],
        &[
            "edit", "a.png", "-a", "sunset=1", "--mask", "m.png", "-o", "m.png",
        ],
        &[
            "sheet", "a.png", "-a", "sunset", "--recipe", "r.png", "-o", "./r.png",
        ],
    ] {
        let output = bare(folder.path(), line);
        assert_eq!(code(&output), 2, "{line:?}: {}", stderr(&output));
    }
}

#[test]
fn files_that_cannot_be_read_are_exit_three() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text.json"), "hello").unwrap();
    for line in [
        &["recipe", "missing.png"][..],
        &["recipe", "text.json"],
        &["edit", "a.png", "-a", "sunset=1", "-o", "b.gif"],
        &[
            "edit", "a.png", "-a", "sunset=1", "--recipe", "r.json", "-o", "b.png",
        ],
        &[
            "edit", "a.png", "-a", "sunset=1", "--mask", "m.png", "-o", "b.png",
        ],
    ] {
        let output = bare(folder.path(), line);
        assert_eq!(code(&output), 3, "{line:?}: {}", stderr(&output));
    }
}

#[test]
fn completions_and_versions_need_no_library() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = bare(folder.path(), &["completions", shell]);
        succeeded(&output);
        assert!(stdout(&output).contains("semblance"), "{shell}");
    }
    let output = bare(folder.path(), &["--version"]);
    succeeded(&output);
    assert!(stdout(&output).starts_with("semblance "));
}

#[test]
fn a_recipe_is_printed_from_json_and_from_a_png() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = json!({"semblance": 1, "seed": 9});
    let mut carrier = picture(Kind::Png, Samples::U8);
    carrier.set_recipe(&recipe);
    write(&carrier, &folder.path().join("r.png"));
    std::fs::write(folder.path().join("r.json"), recipe.to_string()).unwrap();
    for file in ["r.png", "r.json"] {
        let output = bare(folder.path(), &["recipe", file]);
        succeeded(&output);
        let printed: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(printed, recipe, "{file}");
    }
}

#[test]
fn strength_zero_gives_back_every_sample_at_eight_and_sixteen_bits() {
    let folder = tempfile::tempdir().unwrap();
    for (name, samples) in [
        ("a.png", Samples::U8),
        ("b.png", Samples::U16),
        ("c.tif", Samples::U16),
    ] {
        let before = folder.path().join(name);
        write(&picture(Kind::Png, samples), &before);
        let output = edit(
            folder.path(),
            &[name, "--strength", "0", "-o", "out/{name}"],
        );
        succeeded(&output);
        let after = folder.path().join("out").join(name);
        assert_eq!(read(&after).pixels, read(&before).pixels, "{name}");
    }
}

#[test]
fn an_unchanged_jpeg_is_copied_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &picture(Kind::Png, Samples::U8),
        &folder.path().join("a.jpg"),
    );
    succeeded(&edit(
        folder.path(),
        &["a.jpg", "--strength", "0", "-o", "b.jpg"],
    ));
    let bytes = |name| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(bytes("a.jpg"), bytes("b.jpg"));
}

#[test]
fn an_edit_carries_a_recipe_that_makes_the_same_bytes_again() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &picture(Kind::Png, Samples::U16),
        &folder.path().join("a.png"),
    );
    succeeded(&edit(
        folder.path(),
        &["a.png", "--seed", "3", "-o", "b.png"],
    ));
    let tiny = tiny();
    let model = tiny.to_str().unwrap();
    let line = [
        "edit", "a.png", "--model", model, "--recipe", "b.png", "-o", "c.png",
    ];
    succeeded(&semblance(folder.path(), &line));
    let (b, c) = (
        read(&folder.path().join("b.png")),
        read(&folder.path().join("c.png")),
    );
    assert_eq!(b.pixels, c.pixels);
    assert_ne!(b.pixels, read(&folder.path().join("a.png")).pixels);
}

#[test]
fn pixels_outside_the_mask_stay_and_alpha_too() {
    let folder = tempfile::tempdir().unwrap();
    let before = picture(Kind::Png, Samples::U16);
    write(&before, &folder.path().join("a.png"));
    let mut mask = before.clone();
    mask.pixels = Pixels {
        samples: Samples::U8,
        order: Order::Gray,
        alpha: Alpha::None,
        bytes: (0..40 * 30u32)
            .map(|at| if at % 40 < 20 { 255 } else { 0 })
            .collect(),
        ..mask.pixels
    };
    write(&mask, &folder.path().join("m.png"));
    succeeded(&edit(
        folder.path(),
        &["a.png", "--mask", "m.png", "-o", "b.png"],
    ));
    let after = read(&folder.path().join("b.png")).pixels;
    let pairs = before.pixels.bytes.chunks(8).zip(after.bytes.chunks(8));
    let mut changed = 0;
    for (at, (old, new)) in pairs.enumerate() {
        assert_eq!(old[6..], new[6..], "alpha at {at}");
        if at % 40 >= 20 {
            assert_eq!(old, new, "{at}");
        } else {
            changed += u32::from(old != new);
        }
    }
    assert!(changed > 0);
}

#[test]
fn an_openraster_gains_a_layer_named_after_the_edit() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &picture(Kind::Png, Samples::U8),
        &folder.path().join("a.ora"),
    );
    let line = [
        "a.ora",
        "--layer",
        "background",
        "--strength",
        "0.5",
        "-o",
        "b.ora",
    ];
    succeeded(&edit(folder.path(), &line));
    let bytes = std::fs::read(folder.path().join("b.ora")).unwrap();
    let document = OpenRaster::parse(bytes).unwrap();
    assert_eq!(
        document.layer(Some("1")).unwrap().name,
        "a photo at night 0.5"
    );
    assert_eq!(document.layer(Some("2")).unwrap().name, "background");
    succeeded(&semblance(folder.path(), &["recipe", "b.ora"]));
}

#[test]
fn many_files_go_on_after_a_bad_one_and_json_tells_each() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.png", "c.png"] {
        write(&picture(Kind::Png, Samples::U8), &folder.path().join(name));
    }
    std::fs::write(folder.path().join("b.png"), b"").unwrap();
    let line = [
        "a.png",
        "b.png",
        "c.png",
        "--json",
        "-o",
        "out/{stem}-x.{ext}",
    ];
    let output = edit(folder.path(), &line);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    let lines: Vec<Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let oks: Vec<&Value> = lines.iter().map(|line| &line["ok"]).collect();
    assert_eq!(oks, [true, false, true]);
    assert_eq!(lines[1]["error"]["name"], "invalid_file");
    assert_eq!(lines[0]["recipe"]["semblance"], 1);
    assert_eq!(files(&folder.path().join("out")), ["a-x.png", "c-x.png"]);

    let again = edit(
        folder.path(),
        &[
            "a.png",
            "--skip-existing",
            "--json",
            "-o",
            "out/{stem}-x.png",
        ],
    );
    succeeded(&again);
    assert!(stdout(&again).contains("\"skipped\":true"));
}

#[test]
fn no_output_replaces_another_input() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["i2.png", "i3.png"] {
        write(&picture(Kind::Png, Samples::U8), &folder.path().join(name));
    }
    let before = std::fs::read(folder.path().join("i2.png")).unwrap();
    let line = [
        "edit",
        "i2.png",
        "i3.png",
        "-a",
        "fog=1",
        "-o",
        "i{number}.png",
    ];
    let output = bare(folder.path(), &line);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("i2.png"), "{}", stderr(&output));
    assert_eq!(std::fs::read(folder.path().join("i2.png")).unwrap(), before);
    assert_eq!(files(folder.path()), ["i2.png", "i3.png"]);
}

#[test]
fn what_is_wrong_for_all_files_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.png", "b.png"] {
        write(&picture(Kind::Png, Samples::U8), &folder.path().join(name));
    }
    let tiny = tiny();
    let line = [
        "edit",
        "a.png",
        "b.png",
        "-a",
        "no-such=1",
        "-o",
        "o/{name}",
        "--model",
    ];
    let output = semblance(
        folder.path(),
        &[&line[..], &[tiny.to_str().unwrap()]].concat(),
    );
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert_eq!(stderr(&output).matches("semblance: error:").count(), 1);
}

#[test]
fn a_line_that_makes_no_sense_is_told_as_json_too() {
    let folder = tempfile::tempdir().unwrap();
    let output = bare(folder.path(), &["edit", "a.png", "--json", "--nonsense"]);
    assert_eq!(code(&output), 2);
    let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(told["error"]["name"], "usage");
    assert!(
        stderr(&output).starts_with("semblance: error: "),
        "{}",
        stderr(&output)
    );
}

#[test]
fn progress_json_is_lines_on_stderr_that_never_fall() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &picture(Kind::Png, Samples::U8),
        &folder.path().join("a.png"),
    );
    let output = edit(
        folder.path(),
        &["a.png", "--progress", "json", "-o", "b.png"],
    );
    succeeded(&output);
    let mut last = 0.0;
    for line in stderr(&output).lines().filter(|line| line.starts_with('{')) {
        let line: Value = serde_json::from_str(line).unwrap();
        let fraction = line["fraction"].as_f64().unwrap();
        assert!(fraction >= last, "{line}");
        last = fraction;
    }
}

#[test]
fn the_librarys_own_texts_come_through() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &picture(Kind::Png, Samples::U8),
        &folder.path().join("a.png"),
    );
    let tiny = tiny();
    let run = |model: &str, line: &[&str]| {
        let head = ["edit", "a.png", "-o", "b.png", "--json", "--model", model];
        semblance(folder.path(), &[&head[..], line].concat())
    };
    let model = tiny.to_str().unwrap();
    for (model, line, exit, name, text) in [
        (
            model,
            &["-a", "no-such=1"][..],
            2,
            "unknown_attribute",
            "no-such",
        ),
        (
            model,
            &["-a", "fog=9"],
            2,
            "invalid_parameter",
            "strength = 9",
        ),
        (
            model,
            &["-a", "fog=1", "--steps", "0"],
            2,
            "invalid_parameter",
            "steps = 0",
        ),
        ("nowhere", &["-a", "fog=1"], 4, "model_not_found", "nowhere"),
    ] {
        let output = run(model, line);
        assert_eq!(code(&output), exit, "{}", stderr(&output));
        let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(told["error"]["name"], name, "{told}");
        assert!(stderr(&output).contains(text), "{}", stderr(&output));
    }
    assert_eq!(files(folder.path()), ["a.png"]);
}

#[test]
fn a_sheet_shows_the_picture_itself_at_strength_zero() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = picture(Kind::Png, Samples::U8);
    before
        .pixels
        .bytes
        .chunks_exact_mut(4)
        .for_each(|pixel| pixel[3] = 255);
    write(&before, &folder.path().join("a.png"));
    let tiny = tiny();
    let line = [
        "sheet",
        "a.png",
        "-a",
        "fog",
        "--steps",
        "3",
        "--sampling-steps",
        "4",
    ];
    let rest = ["--model", tiny.to_str().unwrap(), "-o", "sheet.png"];
    succeeded(&semblance(folder.path(), &[&line[..], &rest].concat()));
    let sheet = read(&folder.path().join("sheet.png")).pixels;
    // Labels ("fog -1", 6 letters of 16 pixels) are wider than the pictures, which are centred.
    let (gap, cell) = (8, 6 * 16);
    let (left, top) = (gap + cell + gap + (cell - 40) / 2, gap);
    for y in 0..30 {
        for x in 0..40 {
            let old = before.pixels.rgba(y * 40 + x);
            let new = sheet.rgba((top + y) * sheet.width as usize + left + x);
            assert_eq!(old, new, "{x} {y}");
        }
    }
}

#[test]
fn doctor_is_content_with_a_whole_installation() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = tiny();
    let output = semblance(
        folder.path(),
        &["doctor", "--model", tiny.to_str().unwrap()],
    );
    succeeded(&output);
    assert!(
        stdout(&output).contains("Everything is in place"),
        "{}",
        stdout(&output)
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_with_130_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &picture(Kind::Png, Samples::U8),
        &folder.path().join("a.png"),
    );
    let tiny = tiny();
    // A test that runs in the background inherits ignored signals, which the command rightly respects.
    let mut child = Command::new("env")
        .args(["--default-signal=INT,TERM,HUP", COMMAND])
        .current_dir(folder.path())
        .env_remove("SEMBLANCE_LIBRARY")
        .args(["edit", "a.png", "--model", tiny.to_str().unwrap()])
        .args(["--from", "a", "--to", "b", "--steps", "1000", "-o", "b.png"])
        .args(["--progress", "json"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The first line says that the job runs.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.starts_with('{'), "{first}");
    let id = child.id().to_string();
    // The shell's own kill: the program is a package of its own.
    let line = format!("kill -INT {id}");
    let sent = Command::new("sh").args(["-c", &line]).status().unwrap();
    assert!(sent.success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert_eq!(files(folder.path()), ["a.png"]);
}
