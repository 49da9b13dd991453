//! The command `semblance`: from the command line to an exit code.
//!
//! Not for: the edits themselves ([`crate::library`]) and the files ([`crate::document`]).

mod args;
mod edit;
mod editors;
mod explain;
mod gimp2;
mod info;
mod install;
mod mask;
mod pattern;
mod progress;
mod recipe;
mod sandbox;
mod serve;
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
        Err(error) => return refuse(&error),
    };
    // Signals that the parent had ignored (nohup) stay so: then none is caught, Ctrl-C ends the
    // process, and at worst a .part file stays.
    let _ = ctrlc::try_set_handler(|| {
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

/// Help, or what clap has against the line, in the shape of all other errors.
fn refuse(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() {
            Exit::Usage as u8
        } else {
            0
        });
    }
    let json = std::env::args_os().any(|argument| argument == "--json");
    ExitCode::from(fail(&in_our_words(&error.render().to_string()), json).0 as u8)
}

/// Clap's paragraphs ("error: ...", tips, usage) as one failure.
fn in_our_words(text: &str) -> Failure {
    let one = |paragraph: &str| {
        let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
        lines.join(" ")
    };
    let mut paragraphs = text.split("\n\n").map(one);
    let what = paragraphs.next().unwrap_or_default();
    let failure = Failure::usage(what.strip_prefix("error: ").unwrap_or(&what));
    let mut hint = String::new();
    for paragraph in paragraphs {
        if let Some(tip) = paragraph.strip_prefix("tip: ") {
            return failure.hint(tip);
        }
        if paragraph.starts_with("Usage:") && hint.is_empty() {
            hint = paragraph;
        }
    }
    failure.hint(match hint.as_str() {
        "" => "see `semblance --help`",
        usage => usage,
    })
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
        Some(Command::Install(args)) => (false, install::run(&args)),
        Some(Command::Serve(args)) => (true, serve::run(&args)),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> Failure {
        let error = Cli::try_parse_from(line.split_whitespace()).unwrap_err();
        in_our_words(&error.render().to_string())
    }

    #[test]
    fn what_clap_says_becomes_one_line_and_a_hint() {
        let failure = refusal("semblance edit in.png --forse -o o.png");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(
            failure.message.starts_with("unexpected argument"),
            "{failure}"
        );
        assert!(failure.hint.contains("--force"), "{failure}");
        let failure = refusal("semblance edit in.png");
        assert!(failure.message.contains("--output <OUT>"), "{failure}");
        assert!(
            failure.hint.starts_with("Usage: semblance edit"),
            "{failure}"
        );
        assert!(!failure.message.contains('\n'), "{failure}");
        let failure = refusal("semblance edit in.png -a s=1 --threads 0 -o o.png");
        assert!(failure.message.contains("1..=256"), "{failure}");
    }
}
