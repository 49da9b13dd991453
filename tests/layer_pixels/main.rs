//! What a render may touch and what it writes: every pixel format, stride, alpha state, offset and
//! mask. Not for: descriptors that are refused (`tests/layer_views.rs`).
//!
//! - `kept`: over random layers, the bytes that no render may touch.
//! - `values`: on flat layers, the numbers that a patch reads and a render writes.
//! - `equal`: the same edit through another depth or profile, within one quantum.
//! - `named`: hard descriptors by name, through the engine.
//! - `preview`: the same edit on a reduced copy.
//! - `profiles`, `support`: a host's profiles, and its layer with its buffer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod equal;
mod kept;
mod named;
mod preview;
mod profiles;
mod support;
mod values;
