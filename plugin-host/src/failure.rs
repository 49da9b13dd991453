//! What went wrong, for people (two lines on stderr), for programs (JSON) and for shells (exit code).

use std::fmt;
use std::path::Path;

use serde_json::{Value, json};

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Failure>;

/// The exit codes of `semblance`, as its help lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// An edit failed, or several files failed for different reasons.
    Edit = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// An input or output file.
    File = 3,
    /// The model, or the library itself.
    Model = 4,
    /// Not enough memory.
    Memory = 5,
    /// Cancelled (Ctrl-C).
    Cancelled = 130,
}

/// A failure. Its code is the library's, or one of the host's own from 101 up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which exit code it leads to.
    pub exit: Exit,
    /// The library's code, or 101 `unreadable`, 102 `unwritable`, 103 `invalid_file`, 104 `usage`,
    /// 105 `library`.
    pub code: i32,
    /// The code's stable name.
    pub name: String,
    /// What failed, with the value and the allowed range.
    pub message: String,
    /// One thing to try; may be empty.
    pub hint: String,
    /// The offending parameter's id; may be empty.
    pub parameter: String,
}

impl Failure {
    fn host(exit: Exit, code: i32, name: &str, message: String) -> Self {
        Failure {
            exit,
            code,
            name: name.to_owned(),
            message,
            hint: String::new(),
            parameter: String::new(),
        }
    }

    /// The operating system refused to read `path`.
    pub fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let failure = Self::host(
            Exit::File,
            101,
            "unreadable",
            format!("{}: cannot be read: {}", path.display(), plain(error)),
        );
        match error.kind() {
            std::io::ErrorKind::NotFound => failure.hint("check the path"),
            std::io::ErrorKind::PermissionDenied => failure.hint("check the file's permissions"),
            _ => failure,
        }
    }

    /// The operating system refused to write `path`.
    pub fn unwritable(path: &Path, error: &std::io::Error) -> Self {
        let failure = Self::host(
            Exit::File,
            102,
            "unwritable",
            format!("{}: cannot be written: {}", path.display(), plain(error)),
        );
        match error.kind() {
            std::io::ErrorKind::StorageFull => failure.hint("make room on the disk"),
            std::io::ErrorKind::PermissionDenied => failure.hint("check the folder's permissions"),
            _ => failure,
        }
    }

    /// A file's contents are not what they should be.
    pub fn invalid_file(path: &Path, what: impl fmt::Display) -> Self {
        Self::host(
            Exit::File,
            103,
            "invalid_file",
            format!("{}: {what}", path.display()),
        )
    }

    /// The command line makes no sense in a way that clap cannot know.
    pub fn usage(what: impl fmt::Display) -> Self {
        Self::host(Exit::Usage, 104, "usage", what.to_string())
    }

    /// The library is missing, damaged or of another kind.
    pub fn library(what: impl fmt::Display) -> Self {
        Self::host(Exit::Model, 105, "library", what.to_string())
    }

    /// The user pressed Ctrl-C.
    pub fn cancelled() -> Self {
        Self::host(Exit::Cancelled, 13, "cancelled", "cancelled".to_owned())
    }

    /// A newer preview came, in the library's words.
    pub fn superseded() -> Self {
        let text = "a newer preview took this one's place";
        Self::host(Exit::Cancelled, 14, "superseded", text.to_owned())
    }

    /// The same failure with one thing to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The object that `--json` prints.
    pub fn json(&self) -> Value {
        json!({
            "code": self.code,
            "name": self.name,
            "message": self.message,
            "hint": self.hint,
            "parameter": self.parameter,
        })
    }
}

/// An operating system's text without the number that Rust appends.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = match text.find(" (os error") {
        Some(end) => text.get(..end).unwrap_or(&text),
        None => &text,
    };
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, "\nhint: {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
