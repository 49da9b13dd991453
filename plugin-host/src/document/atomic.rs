//! Writing a file whole or not at all.
//!
//! The bytes go into a temporary file in the same folder, which then takes the name: an error, a
//! full disk or Ctrl-C leaves what was there before. Not for: streams and devices.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::failure::{Failure, Result};

/// The temporary file that a second Ctrl-C, which ends the process at once, must remove.
static PENDING: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Writes `bytes` to `path`, making its folder where that is missing. `stop` is asked last, just
/// before the file takes its name.
pub fn write(path: &Path, bytes: &[u8], stop: impl Fn() -> bool) -> Result<()> {
    let unwritable = |error: std::io::Error| Failure::unwritable(path, &error);
    if path.is_dir() {
        return Err(Failure::invalid_file(path, "is a folder")
            .hint(format!("try -o '{}/{{stem}}.{{ext}}'", path.display())));
    }
    // A link is followed, so that it still points where it did afterwards.
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder).map_err(unwritable)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".semblance-").suffix(".part");
    // What a plain file would get, or what the file that is replaced has.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder).map_err(unwritable)?;
    let _guard = Pending::new(file.path());
    if let Ok(old) = std::fs::metadata(&target) {
        file.as_file()
            .set_permissions(old.permissions())
            .map_err(unwritable)?;
    }
    file.write_all(bytes).map_err(unwritable)?;
    file.as_file().sync_all().map_err(unwritable)?;
    if stop() {
        return Err(Failure::cancelled());
    }
    file.persist(&target)
        .map_err(|error| unwritable(error.error))?;
    Ok(())
}

/// Removes the temporary file that is being written, if any: for a process about to end.
pub fn remove_pending() {
    let pending = PENDING
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(path) = pending {
        let _ = std::fs::remove_file(path);
    }
}

struct Pending;

impl Pending {
    fn new(path: &Path) -> Pending {
        *PENDING.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.to_owned());
        Pending
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        *PENDING.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_stopped_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        std::fs::write(&path, b"old").unwrap();
        let failure = write(&path, b"new", || true).unwrap_err();
        assert_eq!(failure.name, "cancelled");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(files(folder.path()), ["a.png"]);
    }

    #[test]
    fn a_write_makes_the_folder_and_leaves_no_part() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out").join("a.png");
        write(&path, b"new", || false).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(files(path.parent().unwrap()), ["a.png"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_and_permissions_are_kept() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a.png"), folder.path().join("link.png"));
        std::fs::write(&path, b"old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&path, &link).unwrap();
        write(&link, b"new", || false).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert!(link.is_symlink());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn a_folder_that_is_a_file_is_an_error_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let failure = write(&file.join("a.png"), b"", || false).unwrap_err();
        assert!(failure.message.contains("a.png"), "{failure}");
    }
}
