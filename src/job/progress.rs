//! Progress with phases, and the pair of cancel and progress that long work is given.

use std::fmt;

use super::Cancel;
use crate::error::Result;

/// What the work is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum Phase {
    /// Reading and checking the model's weights.
    Load = 1,
    /// Reducing the layer to the model's size.
    Read = 2,
    /// Encoding the text prompts.
    Text = 3,
    /// Encoding the picture to a latent.
    Encode = 4,
    /// Finding the noise and residuals that reproduce the picture.
    Invert = 5,
    /// Sampling with the edited text.
    Edit = 6,
    /// Decoding the latents.
    Decode = 7,
    /// Fitting the change that is applied to the layer's own pixels.
    Fit = 8,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Phase; 8] = [
        Phase::Load,
        Phase::Read,
        Phase::Text,
        Phase::Encode,
        Phase::Invert,
        Phase::Edit,
        Phase::Decode,
        Phase::Fit,
    ];

    /// The phase's stable name, as in `--progress json`.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Load => "load",
            Phase::Read => "read",
            Phase::Text => "text",
            Phase::Encode => "encode",
            Phase::Invert => "invert",
            Phase::Edit => "edit",
            Phase::Decode => "decode",
            Phase::Fit => "fit",
        }
    }
}

/// How far the work is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// How much of the WHOLE job is done, 0..=1, never falling.
    pub fraction: f32,
}

type Listener = Box<dyn Fn(Progress) + Send + Sync>;

/// What long work is given: a flag to poll and somebody to tell.
#[derive(Default)]
pub struct Control {
    cancel: Cancel,
    listener: Option<Listener>,
}

impl Control {
    /// Polls `cancel` and tells `listener`, which is called from the thread that does the work.
    pub fn new(cancel: Cancel, listener: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Control {
            cancel,
            listener: Some(Box::new(listener)),
        }
    }

    /// The flag that stops the work.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Fails when the work should stop.
    pub fn check(&self) -> Result<()> {
        self.cancel.check()
    }

    /// Tells how far the whole job is (`fraction` 0..=1) and polls the flag.
    pub fn tell(&self, phase: Phase, fraction: f32) -> Result<()> {
        if let Some(listener) = &self.listener {
            listener(Progress { phase, fraction });
        }
        self.check()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("cancel", &self.cancel)
            .finish_non_exhaustive()
    }
}
