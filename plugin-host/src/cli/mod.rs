//! The command `semblance`: from the command line to an exit code.
//!
//! Not for: the edits themselves ([`crate::library`]) and the files ([`crate::document`]).

mod args;
mod edit;
mod info;
mod mask;
mod pattern;
mod progress;
mod recipe;
mod session;
mod sheet;
mod text;

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{CommandFactory, Parser};

use crate::document::atomic;
use crate::failure::{Exit, Failure, Result};
use args::{Cli, Command};

/// Raised by the first Ctrl-C; every job and every write asks.
static STOP: AtomicBool = AtomicBool::new(false);

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Clap's own text, which is help or an error in the same two-line shape.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() {
                Exit::Usage as u8
            } else {
                0
            });
        }
    };
    // Where signals cannot be caught, Ctrl-C ends the process, and at worst a .part file stays.
    let _ = ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            atomic::remove_pending();
            std::process::exit(i32::from(Exit::Cancelled as u8));
        }
    });
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended(exit)) => ExitCode::from(exit as u8),
    }
}

/// A command that failed and has said why.
struct Ended(Exit);

fn run(cli: Cli) -> std::result::Result<(), Ended> {
    if cli.version {
        info::version();
        return Ok(());
    }
    let (json, outcome) = match cli.command {
        // Several files fail each for itself.
        Some(Command::Edit(edit)) => return edit::run(&edit),
        Some(Command::Sheet(sheet)) => (sheet.speech.json, sheet::run(&sheet)),
        Some(Command::Attributes(attributes)) => (attributes.json, info::attributes(&attributes)),
        // Findings are its output.
        Some(Command::Doctor(doctor)) => return info::doctor(&doctor).map_err(Ended),
        Some(Command::Recipe(of)) => (false, info::recipe(&of.file)),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "semblance", &mut script);
            say(String::from_utf8_lossy(&script).trim_end());
            (false, Ok(()))
        }
        None => (
            false,
            Err(Failure::usage("nothing to do").hint("see `semblance --help`")),
        ),
    };
    outcome.map_err(|failure| fail(&failure, json))
}

/// Whether Ctrl-C was pressed.
fn stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// A line on stdout. A reader that went away is no error of ours.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Tells a failure on stderr, and on stdout as JSON where that is asked for.
fn fail(failure: &Failure, json: bool) -> Ended {
    if json {
        say(&serde_json::json!({"ok": false, "error": failure.json()}).to_string());
    }
    complain(failure);
    Ended(failure.exit)
}

/// Tells a failure on stderr: one line, and one for its hint.
fn complain(failure: &Failure) {
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "semblance: error: {}", one_line(&failure.message));
    if !failure.hint.is_empty() {
        let _ = writeln!(stderr, "hint: {}", one_line(&failure.hint));
    }
}

/// Tells something that the user should know and that stops nothing.
fn warn(warning: &str) {
    let _ = writeln!(
        std::io::stderr(),
        "semblance: warning: {}",
        one_line(warning)
    );
}

/// The text without line breaks and other control characters, which file names may carry.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// A path for people and for the library, which takes UTF-8.
fn utf8(path: &std::path::Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| Failure::usage(format!("{}: not UTF-8", path.display())).hint("rename it"))
}
