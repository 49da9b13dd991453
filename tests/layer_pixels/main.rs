//! What a render may touch and what it writes: every pixel format, stride, alpha state, offset and
//! mask. Not for: descriptors that are refused (`tests/layer_views.rs`).
//!
//! - `kept`: over random layers, the bytes that no render may touch.
//! - `values`: on flat layers, the numbers that a patch reads and a render writes.
//! - `support`: a host's layer with its buffer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kept;
mod support;
mod values;
