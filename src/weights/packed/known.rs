//! Hashes of models, remembered by the names, lengths and times of their files.
//!
//! For: not reading gigabytes to learn what is known. Not for: detecting a file that was changed and
//! given its old length and time back; who does that must remove the folder.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::folder;
use crate::error::Result;
use crate::job::Cancel;
use crate::weights::{Layout, Stamp};

/// Age of a file from which a change must show in its time.
const SETTLED: Duration = Duration::from_secs(2);
/// Digits of a hash.
const DIGITS: usize = 64;

/// The hash of `layout`: remembered in `folder`, or computed and remembered.
pub(super) fn hash(folder: &Path, layout: &Layout, cancel: &Cancel) -> Result<String> {
    let stamps = layout.stamps()?;
    let Some(name) = name(&stamps) else {
        return layout.hash(cancel);
    };
    let path = folder.join(format!("{name}.{}", folder::KNOWN));
    if let Some(hash) = recall(&path, &name) {
        folder::touch(&path);
        return Ok(hash);
    }
    let hash = layout.hash(cancel)?;
    if stamps.iter().all(|s| s.older_than(SETTLED)) && layout.stamps()? == stamps {
        // Of no weight: it is computed again the next time.
        let _ = remember(folder, &path, &name, &hash);
    }
    Ok(hash)
}

/// A name for this state of the files; `None` where one has no time.
fn name(stamps: &[Stamp]) -> Option<String> {
    let mut all = blake3::Hasher::new();
    for stamp in stamps {
        let text = stamp.text()?;
        all.update(&(text.len() as u64).to_le_bytes());
        all.update(text.as_bytes());
    }
    Some(all.finalize().to_hex().to_string())
}

/// What is written after a hash, so that a damaged or foreign file is none.
fn proof(name: &str, hash: &str) -> String {
    let text = format!("{name} {hash}");
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

fn recall(path: &Path, name: &str) -> Option<String> {
    let meta = fs::metadata(path).ok()?;
    if !meta.is_file() || meta.len() != 2 * DIGITS as u64 {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    let (hash, rest) = text.split_at_checked(DIGITS)?;
    (rest == proof(name, hash)).then(|| hash.to_owned())
}

fn remember(folder: &Path, path: &Path, name: &str, hash: &str) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut file = folder::temporary(folder)?;
    write!(file, "{hash}{}", proof(name, hash))?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}
