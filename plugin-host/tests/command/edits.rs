//! One picture in, one edited picture out. Not for: layers (`layers`) and many files (`many`).

use std::io::{BufRead, BufReader};
use std::process::Command;

use semblance_host::document::Kind;
use semblance_host::{Alpha, Color, Order, Pixels, Samples};
use serde_json::Value;

use crate::support::{
    COMMAND, code, edit, files, picture, read, semblance, stderr, stdout, succeeded, tiny, write,
};

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

#[test]
fn float_tiffs_stay_floats_and_must_say_what_their_numbers_mean() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = picture(Kind::Tiff, Samples::F32);
    write(&before, &folder.path().join("a.tif"));
    let silent = edit(folder.path(), &["a.tif", "-o", "b.tif"]);
    assert_ne!(code(&silent), 0);
    let text = stderr(&silent);
    assert!(
        text.contains("float") && text.contains("\nhint: "),
        "{text}"
    );
    assert_eq!(files(folder.path()), ["a.tif"]);
    for (space, strength) in [
        ("linear", "0"),
        ("srgb", "0"),
        ("linear", "1"),
        ("srgb", "2"),
    ] {
        let line = [
            "a.tif",
            "--assume",
            space,
            "--strength",
            strength,
            "-o",
            "b.tif",
        ];
        succeeded(&edit(folder.path(), &line));
        let after = read(&folder.path().join("b.tif")).pixels;
        assert_eq!(after.samples, Samples::F32);
        assert_eq!(
            after.bytes == before.pixels.bytes,
            strength == "0",
            "{space} {strength}"
        );
        let alphas = |pixels: &Pixels| {
            let pixels = pixels.bytes.chunks(16);
            pixels.flat_map(|p| p[12..].to_vec()).collect::<Vec<u8>>()
        };
        assert!(alphas(&after) == alphas(&before.pixels), "alpha");
    }
    // What a profile says needs no assumption.
    before.pixels.color = Color::Icc(moxcms::ColorProfile::new_display_p3().encode().unwrap());
    write(&before, &folder.path().join("p3.tif"));
    succeeded(&edit(folder.path(), &["p3.tif", "-o", "c.tif"]));
    assert_eq!(
        read(&folder.path().join("c.tif")).pixels.color,
        before.pixels.color
    );
}

#[test]
fn what_changed_is_told_on_both_sides_of_the_mask() {
    let folder = tempfile::tempdir().unwrap();
    let mut mask = picture(Kind::Png, Samples::U8);
    write(&mask, &folder.path().join("a.png"));
    for (at, pixel) in mask.pixels.bytes.chunks_mut(4).enumerate() {
        pixel.copy_from_slice(if at % 40 < 10 {
            &[255; 4]
        } else {
            &[0, 0, 0, 255]
        });
    }
    write(&mask, &folder.path().join("m.png"));
    let line = [
        "a.png",
        "--mask",
        "m.png",
        "--strength",
        "2",
        "--json",
        "-o",
        "b.png",
    ];
    let output = edit(folder.path(), &line);
    succeeded(&output);
    let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(told["inside"]["pixels"], 300, "{told}");
    assert_eq!(told["outside"]["pixels"], 900, "{told}");
    assert_eq!(told["outside"]["changed"], 0, "{told}");
    assert_eq!(told["inside"]["changed"], told["changed"], "{told}");
    assert!(told["changed"].as_u64().unwrap() > 0, "{told}");
    assert!(told["report"]["scale"].is_number() && told["report"]["cpu_path"].is_string());
    let words = edit(folder.path(), &["a.png", "--mask", "m.png", "-o", "b.png"]);
    assert!(
        stdout(&words).contains("0 of 900 outside"),
        "{}",
        stdout(&words)
    );
}

#[test]
fn the_quality_of_a_jpeg_is_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &picture(Kind::Png, Samples::U8),
        &folder.path().join("a.png"),
    );
    let size = |quality: &str| {
        succeeded(&edit(
            folder.path(),
            &["a.png", "--quality", quality, "-o", "b.jpg"],
        ));
        std::fs::metadata(folder.path().join("b.jpg"))
            .unwrap()
            .len()
    };
    assert!(size("10") < size("95"));
}
