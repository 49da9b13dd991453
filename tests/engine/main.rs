//! The engine from layer to layer, on the tiny random pipeline: what an edit promises whatever the
//! model's quality. Not for: the quality itself (`tests/mini.rs`).
//!
//! - `identity`: what an edit changes, and what it leaves as it was.
//! - `reproducible`: the same recipe gives the same bytes, by every way there.
//! - `control`: progress, cancelling, giving way to a newer preview, the memory's bound.
//! - `naming`: what texts, attributes and options are called, and what is said of them.
//! - `support`: pictures, engines and recipes for all of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod control;
mod identity;
mod naming;
mod reproducible;
mod support;
