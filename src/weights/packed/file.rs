//! The file of packed weights.
//!
//! ```text
//! 16 bytes   "semblance packed"
//!  8 + 8     where the index begins and how long it is (little endian); it ends the file
//! 32         BLAKE3 of the index
//! …          numbers as this machine has them, every part from a multiple of 64 bytes on
//! …          the index: JSON with the key, a CRC-32 of every MiB of the numbers, and where each part is
//! ```
//!
//! It is written beside its place, may be written to by nobody from then on, and then takes its name. It is
//! mapped where that is safe ([`Mapped`]), or else read whole into memory of our own; both on all threads, and
//! every byte is checked either way, when it is mapped only once in a run of the system (`seen`). A file that
//! another program changes or cuts is a damaged one.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Error, Result, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use semblance_kernels::{Buffer, LINE, Mapped, Packed};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::folder;
use super::seen::State;
use crate::job::Cancel;

const MAGIC: [u8; 16] = *b"semblance packed";
const HEADER: usize = 64;
/// Bytes that are had and checked at a time: they lie in the second cache meanwhile.
const CHUNK: usize = 1 << 20;
/// Bytes that are written at a time, from a multiple of as many on: a file system that has large pages takes them
/// as such, and a product that comes to weights in small ones waits for the page table.
const WRITE: usize = 4 << 20;
/// Longest index. Stops: a file whose index fills the memory; that of Stable Diffusion 1.5 has 0.2 MB.
const MAX_INDEX: u64 = 64 << 20;

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    key: String,
    /// CRC-32 of every chunk of the numbers.
    chunks: Vec<u32>,
    /// By name: first number and count of every part.
    layers: BTreeMap<String, Vec<(usize, usize)>>,
}

/// What was found at a path.
pub(super) enum Found {
    Nothing,
    Damaged,
    Layers(HashMap<String, Vec<Packed>>),
}

/// Why reading stopped.
enum Stop {
    Cancelled(crate::Error),
    Damaged,
    /// No memory for it, or no leave to read it.
    Unreadable,
}

/// Reads and checks the file at `path`, whose key must be `key`. Errors when cancelled.
pub(super) fn read(path: &Path, key: &str, cancel: &Cancel) -> crate::Result<Found> {
    // Looked at before it is opened: opening a pipe would wait for its writer.
    let Ok(true) = std::fs::metadata(path).map(|kind| kind.is_file()) else {
        return Ok(Found::Nothing);
    };
    let Ok(file) = File::open(path) else {
        return Ok(Found::Nothing);
    };
    match contents(&file, path, key, cancel) {
        Ok(layers) => Ok(Found::Layers(layers)),
        Err(Stop::Damaged) => Ok(Found::Damaged),
        Err(Stop::Unreadable) => Ok(Found::Nothing),
        Err(Stop::Cancelled(e)) => Err(e),
    }
}

fn contents(
    file: &File,
    path: &Path,
    key: &str,
    cancel: &Cancel,
) -> std::result::Result<HashMap<String, Vec<Packed>>, Stop> {
    let damaged = |_: Error| Stop::Damaged;
    let length = file.metadata().map_err(damaged)?.len();
    let mut header = [0; HEADER];
    read_at(file, &mut header, 0).map_err(damaged)?;
    let (at, index_length, sum) = fields(&header).ok_or(Stop::Damaged)?;
    let numbers = at.checked_sub(HEADER as u64).ok_or(Stop::Damaged)?;
    let whole = at.checked_add(index_length) == Some(length);
    if !whole || index_length > MAX_INDEX || !numbers.is_multiple_of(4) {
        return Err(Stop::Damaged);
    }
    let mut json = vec![0; index_length as usize];
    read_at(file, &mut json, at).map_err(damaged)?;
    if blake3::hash(&json) != sum {
        return Err(Stop::Damaged);
    }
    let index: Index = serde_json::from_slice(&json).map_err(|_| Stop::Damaged)?;
    let count = usize::try_from(numbers / 4).map_err(|_| Stop::Unreadable)?;
    if index.key != key || index.chunks.len() != (4 * count).div_ceil(CHUNK) {
        return Err(Stop::Damaged);
    }
    let state = State::of(file, key);
    let known = state.as_ref().is_some_and(|state| state.was_checked(path));
    let mapped = mapped(file, count, &index.chunks, known, cancel)?;
    let state = state.filter(|_| mapped.is_some());
    let whole = match mapped {
        Some(whole) => whole,
        None => read_whole(file, count, &index.chunks, cancel)?,
    };
    // Either says when the file was last used.
    if !known && state.is_none_or(|state| state.note(path).is_err()) {
        folder::touch(path);
    }
    let layer = |(name, parts): (String, Vec<(usize, usize)>)| {
        let parts = parts.into_iter();
        let parts = parts.map(|(from, len)| whole.piece(from, len));
        Some((name, parts.collect::<Option<Vec<_>>>()?))
    };
    let layers = index.layers.into_iter().map(layer);
    layers.collect::<Option<_>>().ok_or(Stop::Damaged)
}

/// The `count` numbers of `file`, mapped, and checked unless they are `known`; `None` where they are to be read.
fn mapped(
    file: &File,
    count: usize,
    sums: &[u32],
    known: bool,
    cancel: &Cancel,
) -> std::result::Result<Option<Packed>, Stop> {
    let Some(whole) = Mapped::of(file, HEADER as u64, count) else {
        return Ok(None);
    };
    let checked = sums.par_iter().enumerate().try_for_each(|(i, sum)| {
        cancel.check().map_err(Stop::Cancelled)?;
        let chunk = whole.load(i * CHUNK, CHUNK).ok_or(Stop::Unreadable)?;
        match known {
            true => Ok(()),
            false => check(chunk, *sum),
        }
    });
    match checked {
        Ok(()) => Ok(Some(whole.into())),
        Err(Stop::Unreadable) => Ok(None),
        Err(stop) => Err(stop),
    }
}

/// The `count` numbers of `file`, read into memory and checked.
fn read_whole(
    file: &File,
    count: usize,
    sums: &[u32],
    cancel: &Cancel,
) -> std::result::Result<Packed, Stop> {
    let mut buffer = Buffer::zeros(count).map_err(|_| Stop::Unreadable)?;
    (buffer.bytes_mut().par_chunks_mut(CHUNK))
        .zip(sums.par_iter())
        .enumerate()
        .try_for_each(|(i, (chunk, sum))| {
            cancel.check().map_err(Stop::Cancelled)?;
            read_at(file, chunk, (HEADER + i * CHUNK) as u64).map_err(|_| Stop::Damaged)?;
            check(chunk, *sum)
        })?;
    Ok(buffer.into())
}

fn check(chunk: &[u8], sum: u32) -> std::result::Result<(), Stop> {
    match crc32fast::hash(chunk) == sum {
        true => Ok(()),
        false => Err(Stop::Damaged),
    }
}

/// Where the index is, how long it is, and its BLAKE3.
fn fields(header: &[u8; HEADER]) -> Option<(u64, u64, blake3::Hash)> {
    let (magic, rest) = header.split_first_chunk::<16>()?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let sum = blake3::Hash::from_bytes(*rest.first_chunk()?);
    (*magic == MAGIC).then(|| (u64::from_le_bytes(*at), u64::from_le_bytes(*length), sum))
}

/// Reads exactly `to.len()` bytes from `at` on; any number of threads may.
#[cfg(unix)]
fn read_at(file: &File, to: &mut [u8], at: u64) -> Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, to, at)
}

#[cfg(windows)]
fn read_at(file: &File, mut to: &mut [u8], mut at: u64) -> Result<()> {
    while !to.is_empty() {
        let count = match std::os::windows::fs::FileExt::seek_read(file, to, at) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => 0,
            count => count?,
        };
        to = to.get_mut(count..).unwrap_or_default();
        at += count as u64;
    }
    Ok(())
}

#[cfg(not(any(unix, windows)))]
fn read_at(_: &File, _: &mut [u8], _: u64) -> Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// A file being written.
pub(super) struct Writer {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
    index: Index,
    /// Numbers written.
    count: usize,
    /// The chunk at hand and its bytes so far.
    sum: crc32fast::Hasher,
    filled: usize,
}

impl Writer {
    /// A file in `folder` that will become `path`.
    pub fn new(folder: &Path, path: &Path, key: &str) -> Result<Writer> {
        let temporary = folder::temporary(folder)?;
        let mut file = BufWriter::with_capacity(WRITE, temporary);
        // Without its magic it is no file of ours yet.
        file.write_all(&[0; HEADER])?;
        Ok(Writer {
            file,
            path: path.to_owned(),
            index: Index {
                key: key.to_owned(),
                ..Index::default()
            },
            count: 0,
            sum: crc32fast::Hasher::new(),
            filled: 0,
        })
    }

    /// Writes the parts of one layer.
    pub fn put(&mut self, name: &str, parts: &[Packed]) -> Result<()> {
        let mut places = Vec::with_capacity(parts.len());
        for part in parts {
            places.push((self.count, part.len()));
            self.write(part.bytes())?;
            let rest = part.len().next_multiple_of(LINE) - part.len();
            self.write([0; 4 * LINE].get(..4 * rest).unwrap_or_default())?;
            self.count += part.len() + rest;
        }
        self.index.layers.insert(name.to_owned(), places);
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = WRITE - self.file.buffer().len().min(WRITE);
            if room == 0 {
                self.file.flush()?;
                continue;
            }
            let now = bytes.len().min(CHUNK - self.filled).min(room);
            let (now, later) = bytes.split_at(now);
            self.file.write_all(now)?;
            self.sum.update(now);
            self.filled += now.len();
            if self.filled == CHUNK {
                self.end_chunk();
            }
            bytes = later;
        }
        Ok(())
    }

    fn end_chunk(&mut self) {
        let sum = std::mem::take(&mut self.sum);
        self.index.chunks.push(sum.finalize());
        self.filled = 0;
    }

    /// Writes the index and gives the file its name, which it returns.
    pub fn finish(mut self) -> Result<PathBuf> {
        if self.filled > 0 {
            self.end_chunk();
        }
        let json = serde_json::to_vec(&self.index)?;
        self.file.write_all(&json)?;
        let mut header = Vec::with_capacity(HEADER);
        header.extend(MAGIC);
        header.extend(((HEADER + 4 * self.count) as u64).to_le_bytes());
        header.extend((json.len() as u64).to_le_bytes());
        header.extend(blake3::hash(&json).as_bytes());
        let mut file = self.file.into_inner().map_err(|e| e.into_error())?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header)?;
        let mut access = file.as_file().metadata()?.permissions();
        if cfg!(unix) {
            // Elsewhere such a file could not be removed, and none is mapped.
            access.set_readonly(true);
        }
        file.as_file().set_permissions(access)?;
        file.persist(&self.path).map_err(|e| e.error)?;
        Ok(self.path)
    }
}
