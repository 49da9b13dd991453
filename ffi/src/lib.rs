//! Semblance.
