//! How much memory a job will take, and how much there is.
//!
//! For: refusing with numbers before the first allocation instead of dying in the middle. Not for:
//! exact accounting: the estimate is from above.

use std::fmt::Write as _;
use std::path::Path;

use crate::error::{Code, Error, Result};

/// What a job will need, by purpose, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Weights: all of them under a wish, else those that are not loaded yet.
    pub weights: u64,
    /// The networks' buffers at their peak.
    pub work: u64,
    /// What is kept for the next edit of this picture.
    pub kept: u64,
}

impl Forecast {
    /// All together.
    pub fn total(&self) -> u64 {
        self.weights
            .saturating_add(self.work)
            .saturating_add(self.kept)
    }

    /// Fails with [`Code::OutOfMemory`] when `limit` bytes (by a wish, or else what the machine has
    /// free) are not enough; an unknown limit is no limit.
    pub fn check(&self, limit: Limit) -> Result<()> {
        let (most, whose) = match limit {
            Limit::Wish(bytes) => (bytes, "allowed"),
            Limit::Free(bytes) => (bytes, "free"),
            Limit::Unknown => return Ok(()),
        };
        if self.total() <= most {
            return Ok(());
        }
        let mut error = format!("needs {}, {} {whose}", show(self.total()), show(most));
        let _ = write!(
            error,
            " (weights {}, networks {}, kept {})",
            show(self.weights),
            show(self.work),
            show(self.kept)
        );
        Err(Error::new(Code::OutOfMemory, error)
            .with_parameter("memory_limit")
            .with_hint(match limit {
                Limit::Wish(_) => "allow more, take fewer steps, or choose a smaller model",
                _ => "close other programs, take fewer steps, or choose a smaller model",
            }))
    }
}

/// How much memory a job may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// As many bytes as the host wished.
    Wish(u64),
    /// As many bytes as the machine has free.
    Free(u64),
    /// Nobody knows.
    Unknown,
}

impl Limit {
    /// The host's wish, or else what is free now.
    pub fn of(wish: Option<u64>) -> Limit {
        match (wish, available()) {
            (Some(bytes), _) => Limit::Wish(bytes),
            (None, Some(bytes)) => Limit::Free(bytes),
            (None, None) => Limit::Unknown,
        }
    }
}

/// Bytes that this process can still take without swapping, in its container if it is in one.
/// Known on Linux only: elsewhere there is no safe call for it, and hosts set the limit themselves.
pub fn available() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let free = field(&meminfo, "MemAvailable:")?.checked_mul(1024)?;
    Some(free.min(container().unwrap_or(u64::MAX)))
}

/// Bytes left in the control groups (version 2) of this process.
fn container() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|l| l.strip_prefix("0::/"))?;
    least_left(Path::new("/sys/fs/cgroup"), path)
}

/// The least that the group `path` under `root` and the groups above it have left: each is bound by
/// the limits of all above.
fn least_left(root: &Path, path: &str) -> Option<u64> {
    let own = root.join(path);
    let groups = own.ancestors().take_while(|group| group.starts_with(root));
    groups.filter_map(left).min()
}

/// Bytes left in one control group, if it has a limit; what it caches can be taken back.
fn left(folder: &Path) -> Option<u64> {
    let number = |file: &str| {
        std::fs::read_to_string(folder.join(file))
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let stat = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let cached = field(&stat, "inactive_file").unwrap_or(0);
    Some(number("memory.max")?.saturating_sub(number("memory.current")?.saturating_sub(cached)))
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes for people: `640 KiB`, `9.1 GiB`.
fn show(bytes: u64) -> String {
    let b = bytes as f64;
    match bytes {
        0 => "none".to_owned(),
        1..0x10_0000 => format!("{} KiB", bytes.div_ceil(1024)),
        0x10_0000..0x4000_0000 => format!("{:.0} MiB", b / f64::from(1 << 20)),
        _ => format!("{:.1} GiB", b / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_is_refused_with_both_numbers_and_a_hint() {
        let forecast = Forecast {
            weights: 9 << 30,
            work: 100 << 20,
            kept: 1 << 20,
        };
        let error = forecast.check(Limit::Free(6 << 30)).unwrap_err();
        assert_eq!(error.code(), Code::OutOfMemory);
        assert!(
            error.message().starts_with("needs 9.1 GiB, 6.0 GiB free"),
            "{error}"
        );
        assert!(!error.hint().is_empty());
        assert!(forecast.check(Limit::Free(10 << 30)).is_ok());
        assert!(forecast.check(Limit::Unknown).is_ok());
    }

    #[test]
    fn a_forecast_beyond_all_numbers_does_not_wrap_around() {
        let forecast = Forecast {
            weights: u64::MAX,
            work: u64::MAX,
            kept: 1,
        };
        assert!(forecast.check(Limit::Wish(u64::MAX - 1)).is_err());
    }

    #[test]
    fn a_group_has_no_more_left_than_the_tightest_group_above_it() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("slice/app");
        std::fs::create_dir_all(&inner).unwrap();
        let write = |folder: &Path, limit: &str, used: &str| {
            std::fs::write(folder.join("memory.max"), limit).unwrap();
            std::fs::write(folder.join("memory.current"), used).unwrap();
        };
        assert_eq!(least_left(root.path(), "slice/app"), None);
        write(&inner, "max\n", "10\n");
        assert_eq!(least_left(root.path(), "slice/app"), None);
        write(&root.path().join("slice"), "1000\n", "400\n");
        assert_eq!(least_left(root.path(), "slice/app"), Some(600));
        std::fs::write(root.path().join("slice/memory.stat"), "inactive_file 100\n").unwrap();
        assert_eq!(least_left(root.path(), "slice/app"), Some(700));
        write(&inner, "50\n", "10\n");
        assert_eq!(least_left(root.path(), "slice/app"), Some(40));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_some_memory_free() {
        assert!(available().unwrap() > 1 << 20);
    }
}
