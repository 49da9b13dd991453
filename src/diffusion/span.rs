//! A stretch of the whole job's progress, lent to one loop.

use crate::error::Result;
use crate::job::{Control, Phase};

/// One phase's share of the job: fractions `from..=to` of the whole.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    control: &'a Control,
    phase: Phase,
    from: f32,
    to: f32,
}

impl<'a> Span<'a> {
    /// The share `from..=to` (0..=1) of the whole job, reported as `phase`.
    pub fn new(control: &'a Control, phase: Phase, from: f32, to: f32) -> Self {
        Span {
            control,
            phase,
            from,
            to,
        }
    }

    /// The whole job's flag and listener, for what polls more finely than steps.
    pub fn control(&self) -> &'a Control {
        self.control
    }

    /// Tells that `done` of `all` steps are done; fails when the work should stop.
    pub fn tell(&self, done: usize, all: usize) -> Result<()> {
        let share = done as f32 / all.max(1) as f32;
        self.control
            .tell(self.phase, self.from + (self.to - self.from) * share)
    }
}
