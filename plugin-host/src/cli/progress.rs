//! How far the work is: a bar for people, JSON lines for programs. Always on stderr.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::args;
use crate::library::Progress;

/// Somebody who tells.
pub(super) enum Reporter {
    /// A bar.
    Bar(ProgressBar),
    /// A line for each change of a percent or of the phase; holds the file and the last line.
    Json(RefCell<(String, String)>),
    /// Nobody.
    Silent,
}

impl Reporter {
    /// The one asked for; a bar only where there is a terminal.
    pub fn new(how: args::Progress) -> Reporter {
        match how {
            args::Progress::None => Reporter::Silent,
            args::Progress::Json => Reporter::Json(RefCell::default()),
            args::Progress::Auto if !std::io::stderr().is_terminal() => Reporter::Silent,
            args::Progress::Auto | args::Progress::Bar => {
                let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
                if let Ok(style) =
                    ProgressStyle::with_template("{prefix} {bar:32} {percent:>3} % {msg}")
                {
                    bar.set_style(style);
                }
                Reporter::Bar(bar)
            }
        }
    }

    /// Begins with a file, the `number`th of `count`.
    pub fn begin(&self, file: &str, number: usize, count: usize) {
        match self {
            Reporter::Bar(bar) => {
                bar.reset();
                bar.set_prefix(if count > 1 {
                    format!("[{number}/{count}] {file}")
                } else {
                    file.to_owned()
                });
            }
            Reporter::Json(state) => *state.borrow_mut() = (file.to_owned(), String::new()),
            Reporter::Silent => {}
        }
    }

    /// Tells how far the job is.
    pub fn tell(&self, progress: Progress) {
        match self {
            Reporter::Bar(bar) => {
                bar.set_message(progress.phase);
                bar.set_position((f64::from(progress.fraction) * 1000.0) as u64);
            }
            Reporter::Json(state) => {
                let mut state = state.borrow_mut();
                let fraction = (f64::from(progress.fraction) * 100.0).floor() / 100.0;
                let line = json!({
                    "file": state.0,
                    "phase": progress.phase,
                    "fraction": fraction,
                })
                .to_string();
                if line != state.1 {
                    let _ = writeln!(std::io::stderr(), "{line}");
                    state.1 = line;
                }
            }
            Reporter::Silent => {}
        }
    }

    /// Takes the bar away, before anything else is written.
    pub fn end(&self) {
        if let Reporter::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// A failure leaves no bar behind.
impl Drop for Reporter {
    fn drop(&mut self) {
        self.end();
    }
}
