//! Why a kernel did not run.

use std::fmt;

/// A kernel's refusal; nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelError {
    /// Shapes or lengths that do not belong together: a defect of the caller.
    Mismatch {
        /// The operation.
        operation: &'static str,
        /// What it was given.
        what: String,
    },
    /// No memory.
    OutOfMemory {
        /// How much was asked for.
        bytes: usize,
    },
}

/// What kernels return.
pub type Result<T> = std::result::Result<T, KernelError>;

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelError::Mismatch { operation, what } => write!(f, "{operation}: {what}"),
            KernelError::OutOfMemory { bytes } => write!(f, "no memory for {bytes} bytes"),
        }
    }
}

impl std::error::Error for KernelError {}

pub(crate) fn mismatch(operation: &'static str, what: impl Into<String>) -> KernelError {
    KernelError::Mismatch {
        operation,
        what: what.into(),
    }
}
