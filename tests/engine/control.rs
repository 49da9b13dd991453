//! A host's hold on a run: progress, cancelling, giving way to a newer preview, the memory's bound.
//! Not for: the library's own queue of jobs (`ffi/plugin/tests/abi.rs`).

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use semblance::job::{Cancel, Control, Phase, Progress};
use semblance::{Code, Edit, EngineOptions, Result};

use crate::support::{self, Picture, RGBA8, bytes, edit, engine, engine_with, recipe, tiny};

/// Runs on a fresh engine, notes what is told and raises the flag when `stop` says so.
fn watched(
    stop: impl Fn(Progress) -> bool + Send + Sync + 'static,
) -> (Result<Edit>, Vec<Progress>, Duration) {
    let picture = Picture::new(130, 90, RGBA8);
    let engine = engine();
    let request = engine
        .read(&picture.view(), None, &recipe(&[("sunset", 1.0)]))
        .unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let cancel = Cancel::new();
    let control = Control::new(cancel.clone(), {
        let told = Arc::clone(&told);
        move |progress| {
            told.lock().unwrap().push(progress);
            if stop(progress) {
                cancel.cancel();
            }
        }
    });
    let begun = Instant::now();
    let result = engine.run(&request, &control);
    let time = begun.elapsed();
    let told = told.lock().unwrap().clone();
    (result, told, time)
}

#[test]
fn progress_never_falls_names_each_phase_once_and_ends_at_1() {
    let (result, told, _) = watched(|_| false);
    result.unwrap();
    assert!(
        told.windows(2).all(|w| w[0].fraction <= w[1].fraction),
        "{told:?}"
    );
    assert_eq!(told.first().unwrap().fraction, 0.0);
    assert_eq!(told.last().unwrap().fraction, 1.0);
    let mut phases: Vec<Phase> = told.iter().map(|p| p.phase).collect();
    phases.dedup();
    assert_eq!(
        phases,
        [
            Phase::Load,
            Phase::Text,
            Phase::Encode,
            Phase::Invert,
            Phase::Edit,
            Phase::Decode,
            Phase::Fit
        ]
    );
}

#[test]
fn a_cancel_in_any_phase_ends_the_run_at_once() {
    for phase in [
        Phase::Load,
        Phase::Text,
        Phase::Encode,
        Phase::Invert,
        Phase::Edit,
        Phase::Decode,
        Phase::Fit,
    ] {
        let (result, told, time) = watched(move |p| p.phase == phase);
        assert_eq!(result.unwrap_err().code(), Code::Cancelled, "{phase:?}");
        assert_eq!(
            told.last().unwrap().phase,
            phase,
            "nothing is told after a cancel"
        );
        assert_eq!(told.iter().filter(|p| p.phase == phase).count(), 1);
        assert!(time < Duration::from_secs(5), "{phase:?}: {time:?}");
    }
}

#[test]
fn a_cancelled_run_leaves_the_engine_fit_for_the_next() {
    let picture = Picture::new(130, 90, RGBA8);
    let (engine, recipe) = (engine(), recipe(&[("sunset", 0.8)]));
    let request = engine.read(&picture.view(), None, &recipe).unwrap();
    let cancel = Cancel::new();
    let control = Control::new(cancel.clone(), move |p| {
        // In the middle of the inversion: what was computed stays in the cache.
        if p.phase == Phase::Invert && p.fraction > 0.4 {
            cancel.cancel();
        }
    });
    assert_eq!(
        engine.run(&request, &control).unwrap_err().code(),
        Code::Cancelled
    );
    assert_eq!(
        bytes(&engine, &picture, &recipe),
        bytes(&support::engine(), &picture, &recipe)
    );
}

#[test]
fn a_newer_preview_takes_the_place_of_a_running_one() {
    let picture = Picture::new(70, 50, RGBA8);
    let engine = engine();
    let request = engine
        .read(&picture.view(), None, &recipe(&[("sunset", 1.0)]))
        .unwrap();
    let cancel = Cancel::new();
    let control = Control::new(cancel.clone(), move |_| cancel.supersede());
    assert_eq!(
        engine.run(&request, &control).unwrap_err().code(),
        Code::Superseded
    );
}

#[test]
fn too_little_memory_is_refused_with_numbers_before_anything_is_read() {
    let engine = engine_with(EngineOptions {
        model: tiny(),
        memory_limit: Some(1 << 20),
        ..EngineOptions::default()
    });
    let picture = Picture::new(70, 50, RGBA8);
    let error = edit(&engine, &picture, &recipe(&[("sunset", 1.0)])).unwrap_err();
    assert_eq!(error.code(), Code::OutOfMemory);
    assert!(error.message().contains("1 MiB allowed"), "{error}");
    assert!(!error.hint().is_empty());
    // What needs no model needs no memory either.
    assert!(edit(&engine, &picture, &recipe(&[("sunset", 0.0)])).is_ok());
}
