//! Every bound of this crate, each with the attack that it stops.
//!
//! For: sizes and counts that come from outside. Not for: defaults and tuning.

/// Widest and highest layer or mask, pixels. Stops: a single row of hundreds of megapixels, which
/// would ask for gigabytes of row buffers per thread.
pub(crate) const MAX_SIDE: u32 = 300_000;

/// Most pixels of a layer or mask. Stops: sizes whose byte counts overflow, and renders of hours.
pub(crate) const MAX_PIXELS: u64 = 400_000_000;

/// Farthest coordinate of a rectangle's edge from the origin. Stops: offsets near `i64::MAX`, whose
/// sums overflow.
pub(crate) const MAX_COORDINATE: i64 = 1 << 40;

/// Longest ICC profile, bytes. Stops: profiles whose tables alone exhaust the memory.
pub(crate) const MAX_ICC_BYTES: usize = 8 << 20;

/// Longest side of a model's picture, pixels. Stops: model files that claim absurd sizes.
pub(crate) const MAX_GRID_SIDE: u32 = 4096;
