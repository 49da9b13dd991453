//! Which packed weights were checked since this machine was started.
//!
//! For: not reading gigabytes at every start to learn what is known. Not for: a file that is read rather than
//! mapped, one that was changed at most two seconds ago, and a system that has no name for its start (all but
//! Linux): those are checked every time.
//!
//! What is checked is what the disk gave when the file came to memory, and what the disk holds shows no change
//! without a change of the file's status time, which no program can set. So beside the file stands a hash of
//! its key, its place on the disk, its length and that time, and of the system's name for its start.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::folder;

/// Age of a file's status from which a change must show in its time.
#[cfg(unix)]
const SETTLED: std::time::Duration = std::time::Duration::from_secs(2);

/// A state of the file with some key, in this run of the system.
pub(super) struct State(String);

impl State {
    /// That of `file`; `None` where a change might not show in it.
    #[cfg(unix)]
    pub fn of(file: &File, key: &str) -> Option<State> {
        use std::os::unix::fs::MetadataExt;
        use std::time::{Duration, UNIX_EPOCH};

        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let meta = file.metadata().ok()?;
        let (seconds, rest) = (meta.ctime(), meta.ctime_nsec());
        let since = Duration::new(seconds.try_into().ok()?, rest.try_into().ok()?);
        // An error where it lies ahead.
        let age = UNIX_EPOCH.checked_add(since)?.elapsed().ok()?;
        let place = (meta.dev(), meta.ino(), meta.len());
        let text = format!("{} {key} {place:?} {seconds} {rest}", boot.trim());
        let digest = blake3::hash(text.as_bytes()).to_hex().to_string();
        (age >= SETTLED).then_some(State(digest))
    }

    /// That of `file`; `None` where a change might not show in it.
    #[cfg(not(unix))]
    pub fn of(_: &File, _: &str) -> Option<State> {
        None
    }

    /// Whether the packed weights at `path` were checked in this state. Counts as a use of them.
    pub fn was_checked(&self, path: &Path) -> bool {
        let note = note(path);
        let ours = fs::metadata(&note).is_ok_and(|m| m.is_file() && m.len() == self.0.len() as u64);
        let same = ours && fs::read_to_string(&note).is_ok_and(|text| text == self.0);
        if same {
            folder::touch(&note);
        }
        same
    }

    /// Notes that the packed weights at `path` were checked in this state.
    pub fn note(&self, path: &Path) -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = folder::temporary(folder)?;
        file.write_all(self.0.as_bytes())?;
        file.persist(note(path)).map_err(|e| e.error)?;
        Ok(())
    }
}

/// Where the note on the packed weights at `path` is.
pub(super) fn note(path: &Path) -> PathBuf {
    path.with_extension(folder::SEEN)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::{FileExt, PermissionsExt};
    use std::time::Duration;

    use semblance_kernels::{Buffer, Packed};

    use super::super::file::{Found, Writer, read};
    use super::*;
    use crate::job::Cancel;

    #[test]
    fn what_was_checked_is_not_checked_again_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let key = "5".repeat(64);
        let path = folder.path().join(&key).with_extension(folder::PACK);
        let mut writer = Writer::new(folder.path(), &path, &key).unwrap();
        let parts = [Packed::from(Buffer::zeros(5000).unwrap())];
        writer.put("layer", &parts).unwrap();
        assert_eq!(writer.finish().unwrap(), path);
        let found = || read(&path, &key, &Cancel::new()).unwrap();
        let change = |byte: u8| {
            let access =
                |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            access(0o600);
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[byte], 9000).unwrap();
            access(0o400);
        };
        let state = || State::of(&File::open(&path).unwrap(), &key);
        // Too young for a note.
        assert!(state().is_none());
        assert!(matches!(found(), Found::Layers(_)));
        assert!(!note(&path).exists());
        change(1);
        std::thread::sleep(SETTLED + Duration::from_millis(50));
        assert!(matches!(found(), Found::Damaged));
        assert!(!note(&path).exists());
        // A note that lies shows that it is believed.
        state().unwrap().note(&path).unwrap();
        assert!(matches!(found(), Found::Layers(_)));
        assert!(
            State::of(&File::open(&path).unwrap(), "another")
                .is_some_and(|s| !s.was_checked(&path))
        );
        fs::write(note(&path), "6".repeat(64)).unwrap();
        assert!(matches!(found(), Found::Damaged));
        state().unwrap().note(&path).unwrap();
        change(2);
        assert!(matches!(found(), Found::Damaged));
        std::thread::sleep(SETTLED + Duration::from_millis(50));
        assert!(matches!(found(), Found::Damaged));
        change(0);
        std::thread::sleep(SETTLED + Duration::from_millis(50));
        assert!(matches!(found(), Found::Layers(_)));
        assert!(state().unwrap().was_checked(&path));
    }
}
