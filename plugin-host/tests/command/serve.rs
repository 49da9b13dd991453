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
    let output = Command::new("python3")
        .arg("-B")
        .arg(example)
        .args(["a.ppm", "b.ppm", &recipe(4).to_string()])
        .arg(tiny())
        .args(["--semblance", COMMAND])
        .current_dir(folder.path())
        .output()
        .unwrap();
    succeeded(&output);
    let after = std::fs::read(folder.path().join("b.ppm")).unwrap();
    assert!(after[head.len()..] == read(&folder.path().join("b.png")).pixels.bytes);
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
