//! The command itself, end to end: exit codes, files, streams.
//!
//! Tests that edit use the library that lies beside the command (`cargo build --release` puts both
//! into one folder) and the random model of tests/fixtures/tiny.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod edits;
mod install;
mod layers;
mod lines;
mod many;
mod recipes;
mod sandboxes;
mod serve;
mod support;
