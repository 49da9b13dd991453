//! The engine's options as JSON.
//!
//! For: the header's `engine_create`. Not for: checking what the engine checks itself.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use semblance::{Code, EngineOptions, Error, ModelChoice, Result};
use serde::Deserialize;

use crate::log::Level;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    semblance: u32,
    model_folder: Option<PathBuf>,
    threads: Option<usize>,
    memory_limit: Option<u64>,
    cpu: Option<String>,
    #[serde(default)]
    attribute_folders: Vec<PathBuf>,
    packed_folder: Option<PathBuf>,
    #[serde(default)]
    log_level: Level,
}

/// Reads `json`; empty text means all defaults.
pub fn parse(json: &str) -> Result<(EngineOptions, Level)> {
    if json.is_empty() {
        return Ok((EngineOptions::default(), Level::default()));
    }
    let wrong = |text: String| Error::new(Code::InvalidParameter, text);
    let document: Document = serde_json::from_str(json).map_err(|e| {
        wrong(format!("engine options: {e}")).with_hint("try {\"semblance\": 1, \"threads\": 4}")
    })?;
    if document.semblance != 1 {
        let text = format!(
            "engine options: semblance = {}: must be 1",
            document.semblance
        );
        return Err(wrong(text).with_parameter("semblance"));
    }
    if document.threads == Some(0) {
        return Err(wrong("threads = 0: must be at least 1".to_owned())
            .with_hint("leave it out for all cores")
            .with_parameter("threads"));
    }
    let model = document
        .model_folder
        .map_or(ModelChoice::Embedded, ModelChoice::Folder);
    let options = EngineOptions {
        model,
        threads: document.threads.and_then(NonZeroUsize::new),
        memory_limit: document.memory_limit,
        cpu: document.cpu,
        attribute_folders: document.attribute_folders,
        packed_folder: document.packed_folder,
    };
    Ok((options, document.log_level))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_options_are_the_defaults() {
        let (options, level) = parse("").unwrap();
        assert_eq!(options.model, ModelChoice::Embedded);
        assert_eq!((options.threads, level), (None, Level::Info));
    }

    #[test]
    fn every_option_arrives() {
        let json = r#"{"semblance":1,"model_folder":"/m","threads":3,"memory_limit":7,"cpu":"avx2",
                       "attribute_folders":["/a"],"packed_folder":"","log_level":"debug"}"#;
        let (options, level) = parse(json).unwrap();
        assert_eq!(options.model, ModelChoice::Folder("/m".into()));
        assert_eq!(options.threads.map(NonZeroUsize::get), Some(3));
        assert_eq!(options.memory_limit, Some(7));
        assert_eq!(options.cpu.as_deref(), Some("avx2"));
        assert_eq!(options.attribute_folders, [PathBuf::from("/a")]);
        assert_eq!(options.packed_folder, Some(PathBuf::new()));
        assert_eq!(level, Level::Debug);
    }

    #[test]
    fn options_that_make_no_sense_are_refused_by_name() {
        for (json, said) in [
            ("{", "EOF"),
            ("[]", "engine options"),
            ("{}", "semblance"),
            (r#"{"semblance":2}"#, "semblance = 2: must be 1"),
            (r#"{"semblance":1,"thread":4}"#, "unknown field `thread`"),
            (
                r#"{"semblance":1,"threads":0}"#,
                "threads = 0: must be at least 1",
            ),
            (r#"{"semblance":1,"threads":-1}"#, "-1"),
            (r#"{"semblance":1,"log_level":"loud"}"#, "loud"),
        ] {
            let error = parse(json).unwrap_err();
            assert_eq!(error.code(), Code::InvalidParameter, "{json}");
            assert!(
                error.message().contains(said),
                "{json}: {}",
                error.message()
            );
        }
    }
}
