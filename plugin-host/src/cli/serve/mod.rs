//! `semblance serve --stdio`: edits for a program that keeps the model out of its own process.
//!
//! For: an editor's child process, scripts. One JSON object a line: requests on stdin, answers on
//! stdout; pixels lie in a file that both can reach ([`shared`]). Not for: networks; no port is
//! opened, and only who started this process can speak to it.
//!
//! One edit or preview runs at a time, the others wait in line; what needs no turn (questions, renders
//! of the newest preview) is answered at once. A preview is an edit that is not written: its result is
//! kept and rendered on demand, on copies of the layer at any size and at last on the layer itself.

mod shared;

use std::collections::VecDeque;
use std::io::{BufRead, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::args::{Serve, Speech};
use super::session::Session;
use crate::failure::{Failure, Result};
use crate::library::{Engine, Job, Mask, Outcome, Tally};
use crate::limits;
use crate::pixels::Pixels;
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
    go_first();
    let session = Session::open(&args.machine, &Speech::default())?;
    let (sender, lines) = channel();
    // Ends with the process: a blocked read cannot be waited for.
    std::thread::spawn(move || listen(&sender));
    let mut server = Server {
        engine: session.engine,
        lines,
        waiting: VecDeque::new(),
        shown: None,
        over: false,
    };
    server.put(&json!({"serve": PROTOCOL, "version": env!("CARGO_PKG_VERSION")}));
    while let Some(request) = server.request() {
        server.obey(&request);
    }
    Ok(())
}

/// Asks the system to end this process first when memory runs out: its parent holds unsaved work.
fn go_first() {
    // Where it cannot be had (other systems, a sandbox) nothing is lost but the order.
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
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

/// The newest preview that ended well.
struct Shown {
    /// Its request's id.
    id: Value,
    /// Width and height of its layer.
    size: (u32, u32),
    outcome: Outcome,
}

struct Server {
    engine: Engine,
    lines: Receiver<Line>,
    /// What came in while an edit ran, and waits for its turn.
    waiting: VecDeque<Value>,
    shown: Option<Shown>,
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
        let answer = self.at_once(request, &Value::Null).unwrap_or_else(|| {
            match text(request, "do") {
                "edit" => self.edit(request),
                "preview" => self.preview(request),
                "render" => self.render(request),
                // What it meant has ended already.
                "cancel" => Ok(json!({"cancelled": false})),
                "quit" => {
                    self.over = true;
                    Ok(json!({}))
                }
                other => Err(Failure::usage(format!(
                    "do: {other:?}: must be describe, attributes, parameters, edit, preview, render, \
                     cancel or quit"
                ))
                .hint("see `semblance help serve`")),
            }
        });
        self.answer(request, answer);
    }

    /// The answer to what needs no turn: questions, and renders but of what is to come.
    fn at_once(&self, request: &Value, running: &Value) -> Option<Result<Value>> {
        let of = request.get("of");
        let meant = |other: &Value| of.is_some() && other.get("id") == of;
        match text(request, "do") {
            "describe" => Some(self.engine.describe()),
            "attributes" => Some(self.engine.attributes()),
            "parameters" => Some(self.engine.parameters()),
            "render" if !meant(running) && !self.waiting.iter().any(meant) => {
                Some(self.render(request))
            }
            _ => None,
        }
    }

    /// A whole edit: the layer is read from the shared file and written back to its place.
    fn edit(&mut self, request: &Value) -> Result<Value> {
        let mut shared = Shared::open(request)?;
        let mut layer = shared.layer()?;
        let mask = shared.mask()?;
        let outcome = self.finish(request, &layer, mask.as_ref())?;
        let tally = outcome.render(&mut layer, mask.as_ref())?;
        let answer = told(&tally, Some(&outcome))?;
        // Last: an edit that fails leaves the file as it was.
        shared.put(layer)?;
        Ok(answer)
    }

    /// An edit that is kept and not written.
    fn preview(&mut self, request: &Value) -> Result<Value> {
        // The file is closed before the work: who asked may remove it when it no longer cares.
        let (layer, mask) = {
            let mut shared = Shared::open(request)?;
            (shared.layer()?, shared.mask()?)
        };
        let outcome = self.finish(request, &layer, mask.as_ref())?;
        let answer = json!({"recipe": outcome.recipe()?, "report": outcome.report()?});
        self.shown = Some(Shown {
            id: request.get("id").cloned().unwrap_or_default(),
            size: (layer.width, layer.height),
            outcome,
        });
        Ok(answer)
    }

    /// The kept preview on the layer itself, or on a copy that shows a part of it at another size.
    fn render(&self, request: &Value) -> Result<Value> {
        let of = request.get("of").unwrap_or(&Value::Null);
        let shown = self.shown.as_ref().filter(|shown| shown.id == *of);
        let shown = shown.ok_or_else(|| {
            Failure::usage(format!(
                "of: {of}: must be the id of the newest preview that ended well"
            ))
            .hint("only one is kept: ask for it again")
        })?;
        let mut shared = Shared::open(request)?;
        let part = shared.part()?;
        let mut layer = shared.layer()?;
        let mask = shared.mask()?;
        let tally = match part {
            Some(part) => shown
                .outcome
                .render_reduced(part, &mut layer, mask.as_ref())?,
            None if (layer.width, layer.height) == shown.size => {
                shown.outcome.render(&mut layer, mask.as_ref())?
            }
            None => {
                return Err(Failure::usage(format!(
                    "layer: {}×{} pixels: must be the preview's {}×{}",
                    layer.width, layer.height, shown.size.0, shown.size.1
                ))
                .hint("say which \"part\" of the layer a copy of another size shows"));
            }
        };
        let answer = told(&tally, None)?;
        shared.put(layer)?;
        Ok(answer)
    }

    /// Runs the recipe of `request` to its end, telling how far it is and hearing what comes in.
    fn finish(&mut self, request: &Value, layer: &Pixels, mask: Option<&Mask>) -> Result<Outcome> {
        let recipe = request.get("recipe").cloned().unwrap_or_default();
        let id = request.get("id").cloned().unwrap_or_default();
        let job = self.engine.start(layer, mask, &recipe)?;
        let mut last = Value::Null;
        let mut superseded = false;
        while let Some(progress) = job.wait(TICK)? {
            let fraction = (f64::from(progress.fraction) * 100.0).floor() / 100.0;
            let now = json!({"id": id, "phase": progress.phase, "fraction": fraction});
            if now != last {
                self.put(&now);
                last = now;
            }
            while let Ok(line) = self.lines.try_recv() {
                if let Some(other) = self.parse(line)
                    && self.meanwhile(other, request, &job)
                {
                    superseded = true;
                    job.cancel();
                }
            }
            if self.over || super::stopped() {
                job.cancel();
            }
        }
        match job.take() {
            Err(failure) if superseded && failure.name == "cancelled" => Err(Failure::superseded()),
            made => made?.ok_or_else(|| Failure::library("an edit gave no result")),
        }
    }

    /// What comes in while the job of `running` does: what can be is done now, the rest waits. Says
    /// whether it supersedes that job.
    fn meanwhile(&mut self, request: Value, running: &Value, job: &Job) -> bool {
        if let Some(answer) = self.at_once(&request, running) {
            self.answer(&request, answer);
            return false;
        }
        let preview = text(&request, "do") == "preview";
        match text(&request, "do") {
            "cancel" => {
                let of = request.get("of").cloned().unwrap_or_default();
                let meant = |other: &Value| !of.is_null() && other.get("id") == Some(&of);
                let out = self.take_out(meant);
                let hit = meant(running);
                if hit {
                    job.cancel();
                }
                let answer = json!({"cancelled": hit || !out.is_empty()});
                self.answer(&request, Ok(answer));
                for other in out {
                    self.answer(&other, Err(Failure::cancelled()));
                }
            }
            "quit" => {
                self.over = true;
                self.waiting.clear();
                self.answer(&request, Ok(json!({})));
            }
            _ => {
                if preview {
                    for other in self.take_out(|other| text(other, "do") == "preview") {
                        self.answer(&other, Err(Failure::superseded()));
                    }
                }
                if self.waiting.len() < limits::REQUESTS {
                    self.waiting.push_back(request);
                    return preview && text(running, "do") == "preview";
                }
                let what = format!(
                    "{} requests are waiting: no more are taken",
                    limits::REQUESTS
                );
                self.answer(&request, Err(Failure::usage(what).hint("wait for answers")));
            }
        }
        false
    }

    /// Those that wait and are `meant`, out of the line.
    fn take_out(&mut self, meant: impl Fn(&Value) -> bool) -> Vec<Value> {
        let waiting = std::mem::take(&mut self.waiting);
        let (out, kept): (Vec<Value>, Vec<Value>) = waiting.into_iter().partition(meant);
        self.waiting = kept.into();
        out
    }

    fn answer(&mut self, request: &Value, answer: Result<Value>) {
        let id = request.get("id").unwrap_or(&Value::Null);
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

/// What a render changed and, of a whole edit, what made it.
fn told(tally: &Tally, outcome: Option<&Outcome>) -> Result<Value> {
    let mut told = json!({
        "changed": tally.changed,
        "kept": tally.kept,
        "selected": tally.selected,
        "mean_change": tally.mean_change,
        "largest_change": tally.largest_change,
    });
    if let (Some(outcome), Some(told)) = (outcome, told.as_object_mut()) {
        told.insert("recipe".into(), outcome.recipe()?);
        told.insert("report".into(), outcome.report()?);
    }
    Ok(told)
}

fn text<'a>(request: &'a Value, key: &str) -> &'a str {
    request.get(key).and_then(Value::as_str).unwrap_or_default()
}
