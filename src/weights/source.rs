//! The place a model is read from.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::error::{Code, Error, Result};
use crate::job::Cancel;

/// Bytes that are read between two looks at the cancel flag.
const CHUNK: usize = 1 << 20;

/// Where a model's files are.
#[derive(Clone)]
pub enum ModelSource {
    /// Files inside this library: path relative to the model's folder (with `/`), contents.
    Embedded(&'static [(&'static str, &'static [u8])]),
    /// A folder in diffusers layout.
    Directory(PathBuf),
}

impl fmt::Debug for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelSource::Embedded(files) => write!(f, "Embedded({} files)", files.len()),
            ModelSource::Directory(path) => write!(f, "Directory({})", path.display()),
        }
    }
}

/// What tells one state of a source from another without reading it: a file's size and time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stamp(String, u64, Option<SystemTime>);

impl Stamp {
    /// The same in words, for a key; `None` where the file's time is not known.
    pub(super) fn text(&self) -> Option<String> {
        let since = self.2?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(format!("{} {} {}", self.0, self.1, since.as_nanos()))
    }

    /// Whether the file was last written longer ago than `age`.
    pub(super) fn older_than(&self, age: Duration) -> bool {
        let passed = self.2.and_then(|then| then.elapsed().ok());
        passed.is_some_and(|passed| passed > age)
    }
}

/// An open file of a source, read in pieces.
pub(super) enum Reader {
    Bytes(&'static [u8]),
    File { file: Mutex<File>, length: u64 },
}

impl Reader {
    pub(super) fn length(&self) -> u64 {
        match self {
            Reader::Bytes(bytes) => bytes.len() as u64,
            Reader::File { length, .. } => *length,
        }
    }

    /// Reads exactly `out.len()` bytes from `at` on.
    pub(super) fn read_at(&self, at: u64, out: &mut [u8]) -> std::io::Result<()> {
        match self {
            Reader::Bytes(bytes) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX);
                let bytes = from
                    .checked_add(out.len())
                    .and_then(|to| bytes.get(from..to))
                    .ok_or(ErrorKind::UnexpectedEof)?;
                out.copy_from_slice(bytes);
                Ok(())
            }
            Reader::File { file, .. } => {
                let mut file = file.lock();
                file.seek(SeekFrom::Start(at))?;
                file.read_exact(out)
            }
        }
    }
}

impl ModelSource {
    /// The source's name for people: the folder's, or `mini` for what the library carries.
    pub fn name(&self) -> String {
        match self {
            ModelSource::Embedded(_) => "mini".into(),
            ModelSource::Directory(path) => path.file_name().map_or_else(
                || path.display().to_string(),
                |n| n.to_string_lossy().into(),
            ),
        }
    }

    /// Whether the files are inside this library.
    pub(super) fn is_embedded(&self) -> bool {
        matches!(self, ModelSource::Embedded(_))
    }

    /// `path` inside the source, for messages.
    pub fn describe(&self, path: &str) -> String {
        match self {
            ModelSource::Embedded(_) => format!("embedded model: {path}"),
            ModelSource::Directory(folder) => folder.join(path).display().to_string(),
        }
    }

    /// Fails with [`Code::ModelNotFound`] when there is no such place.
    pub fn check(&self) -> Result<()> {
        match self {
            ModelSource::Directory(path) if path.is_file() => Err(Error::new(
                Code::ModelNotFound,
                format!(
                    "{}: is a file; a model is a folder in diffusers layout",
                    path.display()
                ),
            )
            .with_hint("convert single-file checkpoints with diffusers' save_pretrained")),
            ModelSource::Directory(path) if !path.is_dir() => Err(Error::new(
                Code::ModelNotFound,
                format!("{}: no such folder", path.display()),
            )
            .with_hint("give the folder that holds model_index.json")),
            _ => Ok(()),
        }
    }

    /// Whether there is a file `path`.
    pub fn has(&self, path: &str) -> bool {
        match self {
            ModelSource::Embedded(files) => files.iter().any(|(name, _)| *name == path),
            ModelSource::Directory(folder) => folder.join(path).is_file(),
        }
    }

    /// Names in the folder `path`, sorted; none where it cannot be read.
    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let mut names: Vec<_> = match self {
            ModelSource::Embedded(files) => (files.iter())
                .filter_map(|(name, _)| name.strip_prefix(path)?.strip_prefix('/'))
                .map(str::to_owned)
                .collect(),
            ModelSource::Directory(folder) => {
                let entries = std::fs::read_dir(folder.join(path));
                (entries.into_iter().flatten().flatten())
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .collect()
            }
        };
        names.sort();
        names
    }

    pub(super) fn open(&self, path: &str) -> Result<Reader> {
        match self {
            ModelSource::Embedded(files) => files
                .iter()
                .find(|(name, _)| *name == path)
                .map(|(_, bytes)| Reader::Bytes(bytes))
                .ok_or_else(|| self.missing(path)),
            ModelSource::Directory(folder) => {
                let full = folder.join(path);
                // Looked at before it is opened: opening a pipe would wait for its writer.
                let kind = std::fs::metadata(&full).map_err(|e| self.io(path, &e))?;
                if !kind.is_file() {
                    return Err(Error::new(
                        Code::InvalidModel,
                        format!("{}: not a regular file", full.display()),
                    ));
                }
                let file = File::open(&full).map_err(|e| self.io(path, &e))?;
                let length = file.metadata().map_err(|e| self.io(path, &e))?.len();
                Ok(Reader::File {
                    file: Mutex::new(file),
                    length,
                })
            }
        }
    }

    /// A whole file of at most `limit` bytes.
    pub fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>> {
        let reader = self.open(path)?;
        let length = reader.length();
        if length > limit {
            return Err(Error::new(
                Code::InvalidModel,
                format!(
                    "{}: {length} bytes, at most {limit} are read",
                    self.describe(path)
                ),
            ));
        }
        let mut out = vec![0; length as usize];
        reader.read_at(0, &mut out).map_err(|e| self.io(path, &e))?;
        Ok(out)
    }

    /// Feeds a whole file to `hasher`.
    pub(super) fn hash(
        &self,
        path: &str,
        hasher: &mut blake3::Hasher,
        cancel: &Cancel,
    ) -> Result<()> {
        let reader = self.open(path)?;
        let length = reader.length();
        let mut buffer = vec![0; CHUNK.min(length as usize)];
        let mut at = 0;
        while at < length {
            cancel.check()?;
            let count = (length - at).min(CHUNK as u64) as usize;
            let part = buffer.get_mut(..count).unwrap_or_default();
            reader.read_at(at, part).map_err(|e| self.io(path, &e))?;
            hasher.update(part);
            at += count as u64;
        }
        Ok(())
    }

    /// What tells this state of `path` from another.
    pub fn stamp(&self, path: &str) -> Result<Stamp> {
        match self {
            ModelSource::Embedded(files) => {
                Ok(Stamp(path.into(), files.as_ptr() as usize as u64, None))
            }
            ModelSource::Directory(folder) => {
                let full = folder.join(path);
                let place = canonical(&full);
                let meta = std::fs::metadata(&full).map_err(|e| self.io(path, &e))?;
                Ok(Stamp(place, meta.len(), meta.modified().ok()))
            }
        }
    }

    pub(super) fn missing(&self, path: &str) -> Error {
        let code = if path == "model_index.json" {
            Code::ModelNotFound
        } else {
            Code::InvalidModel
        };
        Error::new(code, format!("{}: no such file", self.describe(path))).with_hint(
            "a model is a folder in diffusers layout, with model_index.json and safetensors",
        )
    }

    pub(super) fn io(&self, path: &str, e: &std::io::Error) -> Error {
        match e.kind() {
            ErrorKind::NotFound => self.missing(path),
            ErrorKind::UnexpectedEof => Error::new(
                Code::InvalidModel,
                format!("{}: ends too early", self.describe(path)),
            )
            .with_hint("it may be an unfinished download"),
            _ => Error::new(Code::Io, format!("{}: {e}", self.describe(path))),
        }
    }
}

fn canonical(path: &Path) -> String {
    std::fs::canonicalize(path)
        .unwrap_or_else(|_| path.to_path_buf())
        .display()
        .to_string()
}
