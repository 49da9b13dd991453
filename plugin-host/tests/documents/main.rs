//! Files come back as they were: samples, depth, alpha, profile, texts (`pictures`), layers (`layers`);
//! what is no such file is refused (`damaged`). Not for: the command line (`tests/command`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod damaged;
mod layers;
mod pictures;
mod support;
