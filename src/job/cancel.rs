//! A flag that any thread may raise and every long loop polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::{Code, Error, Result};

/// A shared flag: clones see the same state. Polled at least once per network block.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicU8>);

const RUNNING: u8 = 0;
const CANCELLED: u8 = 1;
const SUPERSEDED: u8 = 2;

impl Cancel {
    /// A flag that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the work to stop; it fails with [`Code::Cancelled`].
    pub fn cancel(&self) {
        self.0.store(CANCELLED, Ordering::Relaxed);
    }

    /// Asks the work to make room for a newer one; it fails with [`Code::Superseded`].
    pub fn supersede(&self) {
        let _ = self
            .0
            .compare_exchange(RUNNING, SUPERSEDED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether the work should stop.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed) != RUNNING
    }

    /// Fails when the work should stop, so that loops can say `cancel.check()?`.
    pub fn check(&self) -> Result<()> {
        match self.0.load(Ordering::Relaxed) {
            RUNNING => Ok(()),
            SUPERSEDED => Err(Error::new(
                Code::Superseded,
                "a newer preview took this one's place",
            )),
            _ => Err(Error::new(Code::Cancelled, "cancelled")),
        }
    }
}
