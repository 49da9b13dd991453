//! An engine's log: a bounded queue that the host polls.
//!
//! For: telling a host what happened without a thread of ours ever running its code. Not for: errors,
//! which every call returns itself, and progress.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Deserialize;

/// Entries kept for a host that does not poll. A line is some hundred bytes.
pub const CAPACITY: usize = 256;

/// Weight of an entry; the numbers are the header's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(i32)]
pub enum Level {
    /// Something failed.
    Error = 1,
    /// Something may not be as the user expects.
    Warning = 2,
    /// Milestones.
    #[default]
    Info = 3,
    /// Everything.
    Debug = 4,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Weight.
    pub level: Level,
    /// Microseconds since 1970.
    pub time_us: u64,
    /// Entries dropped just before this one.
    pub lost: u64,
    /// What happened.
    pub text: String,
}

/// The queue.
#[derive(Debug)]
pub struct Log {
    level: Level,
    queue: Mutex<VecDeque<Entry>>,
}

impl Log {
    /// Keeps entries of `level` and heavier.
    pub fn new(level: Level) -> Self {
        Log {
            level,
            queue: Mutex::default(),
        }
    }

    /// Adds an entry; the oldest makes room when the queue is full.
    pub fn add(&self, level: Level, text: impl Into<String>) {
        if level > self.level {
            return;
        }
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let entry = Entry {
            level,
            time_us: u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
            lost: 0,
            text: text.into(),
        };
        let mut queue = self.queue.lock();
        queue.push_back(entry);
        if queue.len() > CAPACITY {
            let lost = queue.pop_front().map_or(0, |e| e.lost) + 1;
            if let Some(oldest) = queue.front_mut() {
                oldest.lost += lost;
            }
        }
    }

    /// Takes the oldest entry.
    pub fn poll(&self) -> Option<Entry> {
        self.queue.lock().pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_nobody_polls_keeps_the_newest_and_counts_the_lost() {
        let log = Log::new(Level::Info);
        for i in 0..CAPACITY + 10 {
            log.add(Level::Info, format!("{i}"));
        }
        let first = log.poll();
        assert_eq!(
            first.as_ref().map(|e| (e.lost, e.text.as_str())),
            Some((10, "10"))
        );
        assert_eq!(log.poll().map(|e| e.lost), Some(0));
    }

    #[test]
    fn lighter_entries_than_the_host_wants_are_not_kept() {
        let log = Log::new(Level::Warning);
        log.add(Level::Info, "chatter");
        log.add(Level::Error, "trouble");
        assert_eq!(log.poll().map(|e| e.text).as_deref(), Some("trouble"));
        assert!(log.poll().is_none());
    }
}
