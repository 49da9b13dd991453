//! The folder of packed weights: where it is, what may be removed from it, and how much fits.
//!
//! For: keeping to a bound without ever touching a file that is not ours, for a user may name any folder.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use super::seen;

/// How names of packed weights end.
pub(super) const PACK: &str = "pack";
/// How names of notes on checked packed weights end.
pub(super) const SEEN: &str = "seen";
/// How names of remembered hashes end.
pub(super) const KNOWN: &str = "known";
/// How names of unfinished files begin and end.
const UNFINISHED: (&str, &str) = ("making-", ".part");
/// Age from which an unfinished file is one that a killed process left.
const LEFT: Duration = Duration::from_secs(24 * 3600);
/// Remembered hashes: one a model and state of its files, 130 bytes each.
const MOST_KNOWN: usize = 256;
/// Bytes of disk that are left to others.
const SPARE: u64 = 1 << 30;

/// `semblance/packed` in the user's cache folder; `None` where the environment names none.
pub(super) fn usual() -> Option<PathBuf> {
    let absolute = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let home = || absolute("HOME");
    let cache = if cfg!(windows) {
        absolute("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library/Caches"))
    } else {
        absolute("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache")))
    };
    cache.map(|cache| cache.join("semblance").join("packed"))
}

/// A new file in `folder` that is removed unless it takes another name.
pub(super) fn temporary(folder: &Path) -> Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(UNFINISHED.0).suffix(UNFINISHED.1);
    builder.tempfile_in(folder)
}

/// Says that `path` was used now, so that it is not the oldest.
pub(super) fn touch(path: &Path) {
    if let Ok(file) = File::open(path) {
        // Of no weight: it may be somebody else's.
        let _ = file.set_modified(SystemTime::now());
    }
}

/// When the file `path` was last used: what is noted on it counts too.
fn used(path: &Path, meta: &Metadata) -> Option<SystemTime> {
    let note = std::fs::metadata(seen::note(path));
    let noted = note.ok().and_then(|note| note.modified().ok());
    noted.max(meta.modified().ok())
}

/// Removes packed weights and what is noted on them.
pub(super) fn remove(path: &Path) {
    // Of no weight: whoever may not remove a file goes on without.
    let _ = std::fs::remove_file(path);
    let _ = std::fs::remove_file(seen::note(path));
}

/// Files of ours in `folder`, whose names are 64 hexadecimal digits and end in `kind`: the last used
/// first.
fn ours(folder: &Path, kind: &str) -> Vec<(PathBuf, Metadata)> {
    let named = |path: &Path| {
        let stem = path.file_stem().and_then(OsStr::to_str);
        path.extension() == Some(OsStr::new(kind))
            && stem.is_some_and(|s| s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let mut files: Vec<_> = entries(folder)
        .filter(|(path, meta)| named(path) && meta.is_file())
        .collect();
    files.sort_by_cached_key(|(path, meta)| std::cmp::Reverse(used(path, meta)));
    files
}

fn entries(folder: &Path) -> impl Iterator<Item = (PathBuf, Metadata)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
}

/// Bytes of all packed weights in `folder`.
pub(super) fn bytes(folder: &Path) -> u64 {
    ours(folder, PACK).iter().map(|(_, meta)| meta.len()).sum()
}

/// Makes `folder` and room in it for about `bytes` more, of `most` in all: the oldest files go.
///
/// Errors when the folder cannot be made, or when `bytes` are more than `most` or than the disk has free.
pub(super) fn make_room(folder: &Path, bytes: u64, most: u64) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let full = |what: String| Err(Error::new(ErrorKind::StorageFull, what));
    let Some(others) = most.checked_sub(bytes) else {
        return full(format!("{bytes} bytes of weights, {most} may be kept"));
    };
    shrink(folder, None, others);
    match free(folder) {
        Some(free) if free < bytes.saturating_add(SPARE) => {
            let place = folder.display();
            full(format!(
                "{place}: {free} bytes free, {bytes} and some needed"
            ))
        }
        _ => Ok(()),
    }
}

/// Brings the folder of the new file `path` back to its bounds, and removes what killed processes left.
pub(super) fn tidy(path: &Path, most: u64) {
    let Some(folder) = path.parent() else { return };
    shrink(folder, Some(path), most);
    let alone = |path: &PathBuf| !path.with_extension(PACK).exists();
    let notes = ours(folder, SEEN).into_iter().map(|(path, _)| path);
    let known = ours(folder, KNOWN).into_iter().map(|(path, _)| path);
    for path in notes.filter(alone).chain(known.skip(MOST_KNOWN)) {
        let _ = std::fs::remove_file(path);
    }
    for (path, meta) in entries(folder) {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let unfinished = name.starts_with(UNFINISHED.0) && name.ends_with(UNFINISHED.1);
        let age = meta.modified().ok().and_then(|then| then.elapsed().ok());
        if unfinished && meta.is_file() && age.is_some_and(|age| age > LEFT) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes the oldest packed weights in `folder` until `most` bytes are left; `keep` stays.
fn shrink(folder: &Path, keep: Option<&Path>, most: u64) {
    let kept = keep.and_then(|path| std::fs::metadata(path).ok());
    let mut total = kept.map_or(0, |meta| meta.len());
    for (path, meta) in ours(folder, PACK) {
        if keep == Some(&*path) {
            continue;
        }
        total = total.saturating_add(meta.len());
        if total > most {
            remove(&path);
        }
    }
}

/// Bytes that the disk of `folder` has free for us, where that can be asked.
fn free(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(folder).ok()?;
        disk.f_bavail.checked_mul(disk.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}
