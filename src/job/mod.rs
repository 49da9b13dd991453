//! Watching and stopping long work.
//!
//! For: cancel, progress with phases, the memory forecast. Not for: threads and queues, which the
//! C ABI's jobs add on top.

mod cancel;
mod progress;

pub use cancel::Cancel;
pub use progress::{Control, Phase, Progress};
