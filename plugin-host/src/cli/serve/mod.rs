//! `semblance serve --stdio`: edits for a program that keeps the model out of its own process.
//!
//! For: an editor's child process, scripts. One JSON object a line: requests on stdin, answers on
//! stdout; pixels lie in a file that both can reach ([`shared`]). Not for: networks; no port is
//! opened, and only who started this process can speak to it.

mod shared;

use std::collections::VecDeque;
use std::io::{BufRead, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::args::{Serve, Speech};
use super::session::Session;
use crate::failure::{Failure, Result};
use crate::library::{Engine, Job};
use crate::limits;
use shared::Shared;

/// The protocol's number; it grows when an old program would misunderstand.
const PROTOCOL: u32 = 1;

/// How often a job is asked how far it is, and Ctrl-C is looked at.
const TICK: Duration = Duration::from_millis(20);

const EXAMPLE: &str = "try {\"id\": 1, \"do\": \"attributes\"}";

/// What stdin brought.
enum Line {
    /// A line without its end.
    Text(String),
    /// A line longer than a request may be.
    Long,
    /// No more.
    End,
}

/// `semblance serve`: until "quit", the end of stdin, Ctrl-C, or until nobody reads our answers.
pub(super) fn run(args: &Serve) -> Result<()> {
    let session = Session::open(&args.machine, &Speech::default())?;
    let (sender, lines) = channel();
    // Ends with the process: a blocked read cannot be waited for.
    std::thread::spawn(move || listen(&sender));
    let mut server = Server {
        engine: session.engine,
        lines,
        waiting: VecDeque::new(),
        over: false,
    };
    server.put(&json!({"serve": PROTOCOL, "version": env!("CARGO_PKG_VERSION")}));
    while let Some(request) = server.request() {
        server.obey(&request);
    }
    Ok(())
}

fn listen(sender: &Sender<Line>) {
    let mut stdin = std::io::stdin().lock();
    loop {
        let mut line = Vec::new();
        let read = stdin
            .by_ref()
            .take(limits::REQUEST_BYTES)
            .read_until(b'\n', &mut line);
        let what = match read {
            Ok(0) | Err(_) => Line::End,
            Ok(_) if line.last() == Some(&b'\n') || !full(&line) => {
                Line::Text(String::from_utf8_lossy(&line).trim().to_owned())
            }
            Ok(_) => {
                // The rest of it is thrown away, a buffer at a time.
                while full(&line) && line.last() != Some(&b'\n') {
                    line.clear();
                    let mut more = stdin.by_ref().take(limits::REQUEST_BYTES);
                    if more.read_until(b'\n', &mut line).is_err() {
                        break;
                    }
                }
                Line::Long
            }
        };
        let end = matches!(what, Line::End);
        if sender.send(what).is_err() || end {
            return;
        }
    }
}

/// Whether a line is cut off rather than ended.
fn full(line: &[u8]) -> bool {
    line.len() as u64 == limits::REQUEST_BYTES
}

struct Server {
    engine: Engine,
    lines: Receiver<Line>,
    /// What came in while an edit ran.
    waiting: VecDeque<Value>,
    over: bool,
}

impl Server {
    /// The next request, waited for; `None` at the end.
    fn request(&mut self) -> Option<Value> {
        loop {
            if self.over || super::stopped() {
                return None;
            }
            if let Some(request) = self.waiting.pop_front() {
                return Some(request);
            }
            match self.lines.recv_timeout(TICK) {
                Ok(line) => {
                    let request = self.parse(line);
                    if request.is_some() {
                        return request;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.over = true,
            }
        }
    }

    /// A request; what is none is answered here.
    fn parse(&mut self, line: Line) -> Option<Value> {
        let refused = match line {
            Line::End => {
                self.over = true;
                return None;
            }
            Line::Text(text) if text.is_empty() => return None,
            Line::Text(text) => match serde_json::from_str::<Value>(&text) {
                Ok(request) if request.is_object() => return Some(request),
                Ok(_) => Failure::usage("a request must be a JSON object").hint(EXAMPLE),
                Err(error) => {
                    Failure::usage(format!("a request is not JSON: {error}")).hint(EXAMPLE)
                }
            },
            Line::Long => Failure::usage(format!(
                "a request is longer than {} bytes",
                limits::REQUEST_BYTES
            ))
            .hint("pixels go through a file, not through requests"),
        };
        self.answer(&Value::Null, Err(refused));
        None
    }

    fn obey(&mut self, request: &Value) {
        let id = request.get("id").cloned().unwrap_or_default();
        let answer = match text(request, "do") {
            "describe" => self.engine.describe(),
            "attributes" => self.engine.attributes(),
            "parameters" => self.engine.parameters(),
            "edit" => self.edit(&id, request),
            // What it meant has ended already.
            "cancel" => Ok(json!({"cancelled": false})),
            "quit" => {
                self.over = true;
                Ok(json!({}))
            }
            other => Err(Failure::usage(format!(
                "do: {other:?}: must be describe, attributes, parameters, edit, cancel or quit"
            ))
            .hint("see `semblance help serve`")),
        };
        self.answer(&id, answer);
    }

    /// A whole edit: the layer is read from the shared file and written back to its place.
    fn edit(&mut self, id: &Value, request: &Value) -> Result<Value> {
        let mut shared = Shared::open(request)?;
        let mut layer = shared.layer()?;
        let mask = shared.mask()?;
        let recipe = request.get("recipe").cloned().unwrap_or_default();
        let job = self.engine.start(&layer, mask.as_ref(), &recipe)?;
        let mut last = Value::Null;
        while let Some(progress) = job.wait(TICK)? {
            let fraction = (f64::from(progress.fraction) * 100.0).floor() / 100.0;
            let told = json!({"id": id, "phase": progress.phase, "fraction": fraction});
            if told != last {
                self.put(&told);
                last = told;
            }
            while let Ok(line) = self.lines.try_recv() {
                self.meanwhile(line, id, &job);
            }
            if self.over || super::stopped() {
                job.cancel();
            }
        }
        let outcome = job
            .take()?
            .ok_or_else(|| Failure::library("an edit gave no result"))?;
        let tally = outcome.render(&mut layer, mask.as_ref())?;
        let answer = json!({
            "recipe": outcome.recipe()?,
            "report": outcome.report()?,
            "changed": tally.changed,
            "kept": tally.kept,
            "mean_change": tally.mean_change,
            "largest_change": tally.largest_change,
        });
        // Last: an edit that fails leaves the file as it was.
        shared.put(&layer)?;
        Ok(answer)
    }

    /// What comes in while the edit `id` runs: its cancelling is heard, all else waits.
    fn meanwhile(&mut self, line: Line, id: &Value, job: &Job) {
        let Some(request) = self.parse(line) else {
            return;
        };
        match text(&request, "do") {
            "cancel" if request.get("of") == Some(id) => {
                job.cancel();
                let id = request.get("id").cloned().unwrap_or_default();
                self.answer(&id, Ok(json!({"cancelled": true})));
            }
            "quit" => {
                self.over = true;
                self.waiting.clear();
                let id = request.get("id").cloned().unwrap_or_default();
                self.answer(&id, Ok(json!({})));
            }
            _ if self.waiting.len() < limits::REQUESTS => self.waiting.push_back(request),
            _ => {
                let id = request.get("id").cloned().unwrap_or_default();
                let what = format!(
                    "{} requests are waiting: no more are taken",
                    limits::REQUESTS
                );
                self.answer(&id, Err(Failure::usage(what).hint("wait for answers")));
            }
        }
    }

    fn answer(&mut self, id: &Value, answer: Result<Value>) {
        let line = match answer {
            Ok(answer) => json!({"id": id, "ok": true, "answer": answer}),
            Err(failure) => json!({"id": id, "ok": false, "error": failure.json()}),
        };
        self.put(&line);
    }

    /// A line on stdout; when nobody reads it any more, there is nobody to work for.
    fn put(&mut self, line: &Value) {
        let mut stdout = std::io::stdout().lock();
        if writeln!(stdout, "{line}")
            .and_then(|()| stdout.flush())
            .is_err()
        {
            self.over = true;
        }
    }
}

fn text<'a>(request: &'a Value, key: &str) -> &'a str {
    request.get(key).and_then(Value::as_str).unwrap_or_default()
}
