//! The C ABI of Semblance: what stands behind the function table of `include/semblance/semblance.h`.
//!
//! For: threads and queues for jobs, panics and forks at the boundary, raw buffers to checked views.
//! Not for: the engine, which this crate only calls, and never the other way round.
//!
//! A call goes: C host → `cpp/table.cpp` (noexcept; struct sizes, NULL, callbacks) → [`bridge`]
//! (cxx) → [`guard`] (fork, floating point, panics) → the engine. Two layers because each is good at
//! one thing: C++ lays out tables and structs that a C compiler checks, Rust owns everything else.
//! cxx would turn a panic into an abort and an error into bare text, so every bridged function goes
//! through [`guard`] and fills a shared `Outcome`.

mod bridge;
mod buffers;
mod engine;
mod guard;
mod jobs;
mod log;
mod options;

pub use bridge::api;
