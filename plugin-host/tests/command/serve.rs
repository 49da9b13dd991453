//! `serve --stdio`: what it answers, and that its pixels are the command's.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use semblance_host::document::Kind;
use semblance_host::{Alpha, Order, Samples};
use serde_json::{Value, json};

use crate::support::{COMMAND, edit, picture, read, succeeded, tiny, write};

struct Server {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Server {
    fn start() -> Server {
        let mut child = Command::new(COMMAND)
            .env_remove("SEMBLANCE_LIBRARY")
            .args(["serve", "--stdio", "--model"])
            .arg(tiny())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut server = Server {
            requests: child.stdin.take(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        assert_eq!(server.line()["serve"], 1);
        server
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn send(&mut self, line: &str) {
        writeln!(self.requests.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The answer to a request, after whatever is told of its progress.
    fn ask(&mut self, request: &Value) -> Value {
        self.send(&request.to_string());
        self.answer()
    }

    fn answer(&mut self) -> Value {
        loop {
            let line = self.line();
            if line.get("ok").is_some() {
                return line;
            }
            assert!(line["fraction"].is_number(), "{line}");
        }
    }

    fn end(mut self) {
        self.requests = None;
        assert!(self.child.wait().unwrap().success());
    }
}

/// A file that only its owner reaches.
fn shared(folder: &Path, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join("shared");
    std::fs::write(&path, bytes).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    path
}

fn recipe(steps: u32) -> Value {
    json!({"semblance": 1, "steps": steps,
           "text": {"from": "a photo", "to": "a photo at night"}})
}

#[test]
fn an_edit_through_the_shared_file_gives_the_bytes_of_the_edit_command() {
    let folder = tempfile::tempdir().unwrap();
    let before = picture(Kind::Png, Samples::U16);
    write(&before, &folder.path().join("a.png"));
    let mut mask = vec![0u8; 40 * 30];
    mask[40 * 10..].fill(255);
    let sheet = image_of_mask(&mask);
    std::fs::write(folder.path().join("mask.png"), sheet).unwrap();
    let line = ["a.png", "--mask", "mask.png", "-o", "b.png"];
    succeeded(&edit(folder.path(), &line));

    let layer = before.pixels.bytes.len();
    let path = shared(folder.path(), &[&before.pixels.bytes[..], &mask].concat());
    let mut server = Server::start();
    let answer = server.ask(&json!({
        "id": "x", "do": "edit", "file": path, "recipe": recipe(4),
        "layer": {"offset": 0, "width": 40, "height": 30, "samples": "u16", "order": "rgba"},
        "mask": {"offset": layer, "width": 40, "height": 30},
    }));
    assert_eq!(answer["ok"], true, "{answer}");
    assert_eq!(answer["id"], "x");
    assert!(
        answer["answer"]["changed"].as_u64().unwrap() > 100,
        "{answer}"
    );
    assert_eq!(answer["answer"]["recipe"]["steps"], 4);
    let after = std::fs::read(&path).unwrap();
    assert!(after[..layer] == read(&folder.path().join("b.png")).pixels.bytes);
    assert!(after[layer..] == mask);
    server.end();
}

/// A grey PNG of 40 by 30 pixels.
fn image_of_mask(mask: &[u8]) -> Vec<u8> {
    let mut picture = picture(Kind::Png, Samples::U8);
    picture.pixels.bytes = mask.iter().flat_map(|&v| [v, v, v, 255]).collect();
    picture.encode(Kind::Png, Default::default()).unwrap().0
}

#[test]
fn the_example_gives_the_bytes_of_the_edit_command() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = picture(Kind::Png, Samples::U8);
    let pixels = &mut before.pixels;
    (pixels.order, pixels.alpha) = (Order::Rgb, Alpha::None);
    pixels.bytes = pixels
        .bytes
        .chunks(4)
        .flat_map(|p| p[..3].to_vec())
        .collect();
    let head = b"P6\n40 30\n255\n";
    let ppm = [&head[..], &pixels.bytes].concat();
    std::fs::write(folder.path().join("a.ppm"), ppm).unwrap();
    write(&before, &folder.path().join("a.png"));
    succeeded(&edit(folder.path(), &["a.png", "-o", "b.png"]));
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python/serve.py");
    for more in [&[][..], &["--preview", "small.ppm"]] {
        let output = Command::new("python3")
            .arg("-B")
            .arg(&example)
            .args(["a.ppm", "b.ppm", &recipe(4).to_string()])
            .arg(tiny())
            .args(["--semblance", COMMAND])
            .args(more)
            .current_dir(folder.path())
            .output()
            .unwrap();
        succeeded(&output);
        let after = std::fs::read(folder.path().join("b.ppm")).unwrap();
        assert!(after[head.len()..] == read(&folder.path().join("b.png")).pixels.bytes);
    }
    let small = std::fs::read(folder.path().join("small.ppm")).unwrap();
    assert!(small.starts_with(b"P6\n10 8\n255\n"));
    assert_eq!(small.len(), b"P6\n10 8\n255\n".len() + 10 * 8 * 3);
}

#[test]
fn a_cancel_is_heard_while_an_edit_runs_and_leaves_the_file_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let before = picture(Kind::Png, Samples::U8).pixels.bytes;
    let path = shared(folder.path(), &before);
    let mut server = Server::start();
    let request = json!({
        "id": 1, "do": "edit", "file": path, "recipe": recipe(1000),
        "layer": {"width": 40, "height": 30},
    });
    server.send(&request.to_string());
    server.send("{\"id\": 2, \"do\": \"cancel\", \"of\": 1}");
    let (first, second) = (server.answer(), server.answer());
    assert_eq!((&first["id"], &first["ok"]), (&json!(2), &json!(true)));
    assert_eq!(second["error"]["name"], "cancelled", "{second}");
    assert!(std::fs::read(&path).unwrap() == before);
    let answer = server.ask(&json!({"id": 3, "do": "describe"}));
    assert_eq!(answer["ok"], true, "{answer}");
    server.end();
}

/// The pixels, each of `size` bytes a sample, with red and blue exchanged.
fn blue_first(bytes: &[u8], size: usize) -> Vec<u8> {
    let pixels = bytes.chunks(4 * size);
    pixels
        .flat_map(|p| {
            let [r, g, b, a] = [0, 1, 2, 3].map(|at| &p[at * size..(at + 1) * size]);
            [b, g, r, a].concat()
        })
        .collect()
}

#[test]
fn a_preview_rendered_onto_a_bgra_layer_gives_the_bytes_of_the_edit_command() {
    let folder = tempfile::tempdir().unwrap();
    for samples in [Samples::U8, Samples::U16] {
        let before = picture(Kind::Png, samples);
        write(&before, &folder.path().join("a.png"));
        succeeded(&edit(folder.path(), &["a.png", "-o", "b.png", "--force"]));
        let wanted = read(&folder.path().join("b.png")).pixels.bytes;
        let bytes = blue_first(&before.pixels.bytes, samples.size());
        let path = shared(folder.path(), &bytes);
        let name = if samples == Samples::U8 { "u8" } else { "u16" };
        let layer = json!({"width": 40, "height": 30, "samples": name, "order": "bgra"});
        let mut server = Server::start();
        let answer = server.ask(&json!({
            "id": 1, "do": "preview", "file": path, "layer": layer, "recipe": recipe(4),
        }));
        assert_eq!(answer["answer"]["recipe"]["steps"], 4, "{answer}");
        assert!(std::fs::read(&path).unwrap() == bytes, "a preview wrote");
        let whole = json!({"x": 0, "y": 0, "width": 40, "height": 30});
        for part in [Value::Null, whole] {
            std::fs::write(&path, &bytes).unwrap();
            let answer = server.ask(&json!({
                "id": 2, "do": "render", "of": 1, "file": path, "layer": layer, "part": part,
            }));
            assert!(
                answer["answer"]["changed"].as_u64().unwrap() > 100,
                "{answer}"
            );
            let after = std::fs::read(&path).unwrap();
            assert!(
                blue_first(&after, samples.size()) == wanted,
                "{name} {part}"
            );
        }
        server.end();
    }
}

#[test]
fn a_part_of_a_preview_is_rendered_at_the_size_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    // Deep, for the random model changes little; larger than what the model sees, so that the change
    // is smooth.
    let before: Vec<u8> = (0..320u32 * 240)
        .flat_map(|at| {
            let (x, y) = (at % 320, at / 320);
            [x % 200, y % 200, (x + y) % 250, 55 + x % 200].map(|v| (v * 257 + 13) as u16)
        })
        .flat_map(u16::to_ne_bytes)
        .collect();
    let path = shared(folder.path(), &before);
    let mut server = Server::start();
    let layer =
        |width: u32, height: u32| json!({"width": width, "height": height, "samples": "u16"});
    let request = json!({"id": 1, "do": "preview", "file": path, "recipe": recipe(4),
                         "layer": layer(320, 240)});
    assert_eq!(server.ask(&request)["ok"], true);
    let whole = json!({"id": 2, "do": "render", "of": 1, "file": path, "layer": layer(320, 240)});
    assert_eq!(server.ask(&whole)["ok"], true);
    let edited = std::fs::read(&path).unwrap();
    // 240 by 160 pixels at 80, 40: means of squares of so many.
    let part = |whole: &[u8], step: usize| -> Vec<u16> {
        let level = |at: usize| u32::from(u16::from_ne_bytes([whole[2 * at], whole[2 * at + 1]]));
        let mut levels = Vec::new();
        for y in (40..200).step_by(step) {
            for x in (80..320).step_by(step) {
                for channel in 0..4 {
                    let square = (0..step * step).map(|i| (y + i / step) * 320 + x + i % step);
                    let sum: u32 = square.map(|pixel| level(pixel * 4 + channel)).sum();
                    levels.push((sum / (step * step) as u32) as u16);
                }
            }
        }
        levels
    };
    let apart = |a: &[u16], b: &[u16]| -> u32 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| u32::from(a.abs_diff(*b))).sum()
    };
    for (width, height, step) in [(240, 160, 1), (120, 80, 2)] {
        let (old, wanted) = (part(&before, step), part(&edited, step));
        let bytes: Vec<u8> = old.iter().flat_map(|level| level.to_ne_bytes()).collect();
        std::fs::write(&path, &bytes).unwrap();
        let answer = server.ask(&json!({
            "id": 3, "do": "render", "of": 1, "file": path, "layer": layer(width, height),
            "part": {"x": 80, "y": 40, "width": 240, "height": 160},
        }));
        assert_eq!(answer["ok"], true, "{answer}");
        let bytes = std::fs::read(&path).unwrap();
        let shown: Vec<u16> = bytes
            .chunks(2)
            .map(|pair| u16::from_ne_bytes([pair[0], pair[1]]))
            .collect();
        assert_eq!(shown.len(), old.len());
        let (error, change) = (apart(&shown, &wanted), apart(&old, &wanted));
        assert!(
            change > 1000 && error * 5 < change,
            "{width}: {error} of {change}"
        );
    }
    let answer =
        server.ask(&json!({"do": "render", "of": 1, "file": path, "layer": layer(120, 80)}));
    let text = answer["error"]["message"].as_str().unwrap();
    assert!(
        text.contains("120×80") && text.contains("320×240"),
        "{answer}"
    );
    server.end();
}

#[test]
fn a_newer_preview_supersedes_those_that_run_or_wait() {
    let folder = tempfile::tempdir().unwrap();
    let path = shared(folder.path(), &picture(Kind::Png, Samples::U8).pixels.bytes);
    let mut server = Server::start();
    for (id, steps) in [(1, 1000), (2, 1000), (3, 4)] {
        let request = json!({"id": id, "do": "preview", "file": path, "recipe": recipe(steps),
                             "layer": {"width": 40, "height": 30}});
        server.send(&request.to_string());
    }
    let mut answers = [server.answer(), server.answer(), server.answer()];
    answers.sort_by_key(|answer| answer["id"].as_u64());
    assert_eq!(answers[0]["error"]["name"], "superseded", "{}", answers[0]);
    assert_eq!(answers[1]["error"]["name"], "superseded", "{}", answers[1]);
    assert_eq!(answers[2]["ok"], true, "{}", answers[2]);
    server.end();
}

#[test]
fn while_an_edit_runs_questions_are_answered_and_what_waits_can_be_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let before = picture(Kind::Png, Samples::U8).pixels.bytes;
    let path = shared(folder.path(), &before);
    let mut server = Server::start();
    let edit = |id: u32, steps: u32| {
        json!({"id": id, "do": "edit", "file": path, "recipe": recipe(steps),
               "layer": {"width": 40, "height": 30}})
    };
    for request in [
        edit(1, 1000),
        edit(2, 4),
        json!({"id": 3, "do": "describe"}),
        json!({"id": 4, "do": "cancel", "of": 2}),
        json!({"id": 5, "do": "cancel", "of": 1}),
    ] {
        server.send(&request.to_string());
    }
    let answers: Vec<Value> = (0..5).map(|_| server.answer()).collect();
    let ids: Vec<&Value> = answers.iter().map(|answer| &answer["id"]).collect();
    assert_eq!(ids, [3, 4, 2, 5, 1]);
    assert!(answers[0]["answer"]["model"].is_object(), "{}", answers[0]);
    assert_eq!(answers[1]["answer"]["cancelled"], true);
    assert_eq!(answers[2]["error"]["name"], "cancelled");
    assert_eq!(answers[4]["error"]["name"], "cancelled");
    assert!(std::fs::read(&path).unwrap() == before);
    server.end();
}

#[test]
fn what_cannot_be_done_is_said_and_the_next_request_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = shared(folder.path(), &[0; 100]);
    let open = folder.path().join("open");
    std::fs::write(&open, [0; 4800]).unwrap();
    let layer = json!({"width": 40, "height": 30});
    let mut server = Server::start();
    for (request, wanted) in [
        (json!({"do": "edit", "layer": layer}), "file: missing"),
        (
            json!({"do": "edit", "file": "/no/file", "layer": layer}),
            "/no/file",
        ),
        (
            json!({"do": "edit", "file": open, "layer": layer}),
            "must be private",
        ),
        (
            json!({"do": "edit", "file": path, "layer": layer}),
            "has 100 bytes",
        ),
        (
            json!({"do": "edit", "file": path, "layer": {"width": 40}}),
            "height: null",
        ),
        (
            json!({"do": "edit", "file": path, "layer": {"width": -1, "height": 1}}),
            "width: -1",
        ),
        (
            json!({"do": "edit", "file": path,
                   "layer": {"width": 4_000_000_000u32, "height": 4_000_000_000u32}}),
            "too large",
        ),
        (
            json!({"do": "edit", "file": path, "layer": {"width": 5, "height": 5, "order": "cmyk"}}),
            "gray_alpha",
        ),
        (
            json!({"do": "edit", "file": path, "layer": {"width": 5, "height": 5}}),
            "recipe",
        ),
        (
            json!({"do": "render", "of": 7, "file": path, "layer": layer}),
            "of: 7: must be the id of the newest preview",
        ),
        (json!({"do": "sing"}), "\"sing\""),
    ] {
        let answer = server.ask(&request);
        assert_eq!(answer["ok"], false, "{request}: {answer}");
        let text = answer["error"]["message"].as_str().unwrap();
        // Private files are a notion of Unix.
        let elsewhere = cfg!(not(unix)) && wanted == "must be private";
        assert!(text.contains(wanted) || elsewhere, "{request}: {answer}");
    }
    for line in ["{", "7", "[".repeat(3 << 20).as_str()] {
        server.send(line);
        let answer = server.answer();
        assert_eq!(answer["error"]["name"], "usage", "{answer}");
    }
    server.send("{\"id\": 9, \"do\": \"parameters\"}");
    let answer = server.answer();
    assert!(answer["answer"]["parameters"].is_array(), "{answer}");
    server.send("{\"do\": \"quit\"}");
    assert_eq!(server.answer()["ok"], true);
    server.end();
}
