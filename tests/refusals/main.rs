//! Bad recipes (`recipes`) and attribute files (`attributes`): each is refused with its own code and
//! text. Not for: layers and masks (`tests/layer_views.rs`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attributes;
mod recipes;

use std::collections::HashSet;

use semblance::{Code, Error};

/// The error is of this code, says this text and nothing that was said before, and has a hint.
fn check(error: &Error, code: Code, text: &str, what: &str, seen: &mut HashSet<String>) {
    assert_eq!(error.code(), code, "{what}: {error}");
    assert!(
        error.message().contains(text),
        "{what}: {error}, must say {text}"
    );
    assert!(!error.hint().is_empty(), "{what}: {error}: no hint");
    assert!(
        seen.insert(error.message().to_owned()),
        "{what}: said before: {error}"
    );
}
