//! The library, an engine and the jobs of one run of the command.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::args::{Machine, Speech};
use super::progress::Reporter;
use crate::failure::{Failure, Result};
use crate::library::{Engine, Job, Library, Mask, Outcome};
use crate::pixels::Pixels;

/// How often a job is asked how far it is, and Ctrl-C is looked at.
const TICK: Duration = Duration::from_millis(50);

/// A warm engine and somebody who tells how far it is.
pub(super) struct Session {
    /// The engine; it keeps weights and inversions between jobs.
    pub engine: Engine,
    /// Where progress goes.
    pub reporter: Reporter,
}

impl Session {
    /// Finds the library and makes an engine; reads no weights yet.
    pub fn open(machine: &Machine, speech: &Speech) -> Result<Session> {
        let library = Library::find()?;
        let engine = library.engine(&options(machine)?)?;
        Ok(Session {
            engine,
            reporter: Reporter::new(speech.progress),
        })
    }

    /// Runs an edit to its end, telling how far it is; Ctrl-C cancels it.
    pub fn edit(&self, layer: &Pixels, mask: Option<&Mask>, recipe: &Value) -> Result<Outcome> {
        let job = self.engine.start(layer, mask, recipe)?;
        self.finish(job)?
            .ok_or_else(|| Failure::library("an edit gave no result"))
    }

    /// Waits for a job.
    pub fn finish(&self, job: Job) -> Result<Option<Outcome>> {
        while let Some(progress) = job.wait(TICK)? {
            self.reporter.tell(progress);
            if super::stopped() {
                job.cancel();
            }
        }
        job.take()
    }
}

/// The options of an engine, in the header's JSON.
fn options(machine: &Machine) -> Result<Value> {
    let mut options = Map::new();
    options.insert("semblance".into(), json!(1));
    if let Some(model) = &machine.model {
        options.insert("model_folder".into(), json!(super::utf8(model)?));
    }
    if let Some(threads) = machine.threads {
        options.insert("threads".into(), json!(threads));
    }
    if let Some(cpu) = &machine.cpu {
        options.insert("cpu".into(), json!(cpu));
    }
    if let Some(memory) = machine.memory {
        let bytes = (memory * (1u64 << 30) as f64) as u64;
        options.insert("memory_limit".into(), json!(bytes));
    }
    if !machine.attribute_folders.is_empty() {
        let folders: Result<Vec<&str>> = machine
            .attribute_folders
            .iter()
            .map(|path| super::utf8(path))
            .collect();
        options.insert("attribute_folders".into(), json!(folders?));
    }
    Ok(Value::Object(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_left_out_are_left_to_the_library() {
        assert_eq!(
            options(&Machine::default()).unwrap(),
            json!({"semblance": 1})
        );
    }

    #[test]
    fn what_was_given_arrives_memory_in_bytes() {
        let machine = Machine {
            memory: Some(1.5),
            threads: Some(2),
            cpu: Some("amx,auto".into()),
            ..Machine::default()
        };
        assert_eq!(
            options(&machine).unwrap(),
            json!({"semblance": 1, "threads": 2, "cpu": "amx,auto", "memory_limit": 1_610_612_736u64})
        );
    }
}
