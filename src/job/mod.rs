//! Watching and stopping long work.
//!
//! For: cancel, progress with phases, the memory forecast. Not for: threads and queues, which the
//! C ABI's jobs add on top.

mod cancel;
mod forecast;
mod progress;

pub use cancel::Cancel;
pub use forecast::{Forecast, Limit, available};
pub use progress::{Control, Phase, Progress};
