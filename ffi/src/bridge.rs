//! The cxx bridge: what `cpp/table.cpp` may call, and the structs that cross.
//!
//! For: shapes and hand-over of handles. Not for: work. Every function goes through [`guard`]; cxx
//! would abort the host on a panic. Handles are raw pointers from `Box::into_raw`, because C holds
//! them; the header says when one may still be used.

use std::ffi::{CString, c_char, c_void};
use std::sync::OnceLock;
use std::time::Duration;

use semblance::job::Phase;
use semblance::{Code, Engine, Error, Result};

use crate::buffers::{self, Layer, Mask};
use crate::engine::{EngineHandle, JobHandle, ResultHandle};
use crate::guard::{self, call, quiet};
use crate::jobs::{IfBusy, Kind, Look};
use ffi::Outcome;

/// Texts from outside: longer ones are refused unread.
const MAX_TEXT: usize = 1 << 20;

#[cxx::bridge(namespace = "semblance::ffi")]
pub mod ffi {
    /// What became of a call; code 0 is success.
    #[derive(Default)]
    struct Outcome {
        code: i32,
        message: String,
        hint: String,
        parameter: String,
    }

    #[derive(Clone, Copy, Default)]
    struct Rect {
        x: i64,
        y: i64,
        width: u32,
        height: u32,
    }

    /// semblance_pixels, with addresses as numbers.
    struct Pixels {
        samples: i32,
        order: i32,
        alpha: i32,
        data: usize,
        data_size: u64,
        row_stride: i64,
        rect: Rect,
        color: i32,
        reserved: u32,
        icc: usize,
        icc_size: u64,
    }

    /// semblance_mask, with the address as a number.
    struct Mask {
        samples: i32,
        data: usize,
        data_size: u64,
        row_stride: i64,
        rect: Rect,
    }

    #[derive(Default)]
    struct JobState {
        state: i32,
        phase: i32,
        fraction: f32,
    }

    #[derive(Default)]
    struct Tally {
        largest_change: f32,
        changed: u64,
        kept: u64,
        sum_of_change: f64,
        selected: u64,
    }

    /// An entry of the log; level 0 when there is none.
    #[derive(Default)]
    struct LogEntry {
        level: i32,
        time_us: u64,
        lost: u64,
        text: String,
    }

    extern "Rust" {
        type EngineHandle;
        type JobHandle;
        type ResultHandle;

        fn version() -> *const c_char;
        fn code_name(code: i32) -> *const c_char;
        fn phase_name(phase: i32) -> *const c_char;
        unsafe fn string_free(string: *mut c_char);

        fn engine_create(options: &[u8], outcome: &mut Outcome) -> *mut EngineHandle;
        unsafe fn engine_destroy(engine: *mut EngineHandle);
        fn engine_load_start(engine: &EngineHandle, outcome: &mut Outcome) -> *mut JobHandle;
        fn engine_describe(engine: &EngineHandle, outcome: &mut Outcome) -> *mut c_char;
        fn engine_attributes(engine: &EngineHandle, outcome: &mut Outcome) -> *mut c_char;
        fn engine_parameters(engine: &EngineHandle, outcome: &mut Outcome) -> *mut c_char;
        fn engine_purge(engine: &EngineHandle);
        fn log_poll(engine: &EngineHandle) -> LogEntry;

        unsafe fn job_start(
            engine: &EngineHandle,
            layer: &Pixels,
            mask: *const Mask,
            recipe: &[u8],
            kind: i32,
            if_busy: i32,
            outcome: &mut Outcome,
        ) -> *mut JobHandle;
        unsafe fn edit_start(
            engine: &EngineHandle,
            layer: &Pixels,
            mask: *const Mask,
            recipe: &[u8],
            outcome: &mut Outcome,
        ) -> *mut JobHandle;
        fn job_poll(job: &JobHandle, outcome: &mut Outcome) -> JobState;
        fn job_wait(job: &JobHandle, timeout_ms: i64, outcome: &mut Outcome) -> JobState;
        fn job_cancel(job: &JobHandle);
        fn job_take(job: &JobHandle, outcome: &mut Outcome) -> *mut ResultHandle;
        unsafe fn job_free(job: *mut JobHandle);

        fn result_extent(result: &ResultHandle, outcome: &mut Outcome) -> Rect;
        fn result_input_needed(result: &ResultHandle, rect: &Rect, outcome: &mut Outcome) -> Rect;
        unsafe fn check_render(
            src: &Pixels,
            mask: *const Mask,
            dst: &Pixels,
            outcome: &mut Outcome,
        ) -> bool;
        unsafe fn result_render(
            result: &ResultHandle,
            part: *const Rect,
            src: &Pixels,
            mask: *const Mask,
            dst: &Pixels,
            outcome: &mut Outcome,
        ) -> Tally;
        fn result_recipe(result: &ResultHandle, outcome: &mut Outcome) -> *mut c_char;
        fn result_report(result: &ResultHandle, outcome: &mut Outcome) -> *mut c_char;
        unsafe fn result_free(result: *mut ResultHandle);
    }

    unsafe extern "C++" {
        include!("semblance-ffi/cpp/table.h");

        /// The table for a major version, or null.
        fn table(major: u32) -> *const c_char;
    }
}

/// The function table for `major` (`const semblance_api *` of the header), or null if this library
/// does not serve it.
pub fn api(major: u32) -> *const c_void {
    ffi::table(major).cast()
}

// ------------------------------------------------------------------------------------ texts ----

fn version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

fn code_name(code: i32) -> *const c_char {
    static NAMES: OnceLock<Vec<CString>> = OnceLock::new();
    name(&NAMES, code, || {
        let codes = Code::ALL.map(|c| (c as i32, c.name()));
        [(0, "ok")].into_iter().chain(codes).collect()
    })
}

fn phase_name(phase: i32) -> *const c_char {
    static NAMES: OnceLock<Vec<CString>> = OnceLock::new();
    name(&NAMES, phase, || {
        let phases = Phase::ALL.map(|p| (p as i32, p.name()));
        [(0, "none")].into_iter().chain(phases).collect()
    })
}

/// The name with number `n`, kept for ever in `names`.
fn name(
    names: &'static OnceLock<Vec<CString>>,
    n: i32,
    all: impl FnOnce() -> Vec<(i32, &'static str)>,
) -> *const c_char {
    let unknown = c"unknown".as_ptr();
    quiet(unknown as usize, || {
        let names = names.get_or_init(|| {
            let mut all = all();
            all.sort();
            all.into_iter()
                .map(|(_, name)| CString::new(name).unwrap_or_default())
                .collect()
        });
        let found = usize::try_from(n).ok().and_then(|n| names.get(n));
        found.map_or(unknown as usize, |name| name.as_ptr() as usize)
    }) as *const c_char
}

/// Text of a host as UTF-8.
fn text<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a str> {
    let wrong = |text: String| Error::new(Code::InvalidParameter, text).with_parameter(what);
    if bytes.len() > MAX_TEXT {
        return Err(wrong(format!(
            "{what}: must be at most {MAX_TEXT} bytes of text"
        )));
    }
    std::str::from_utf8(bytes).map_err(|e| {
        wrong(format!(
            "{what}: must be UTF-8, byte {} is not",
            e.valid_up_to()
        ))
    })
}

/// Text for a host; freed by [`string_free`].
fn give(json: String) -> Result<*mut c_char> {
    CString::new(json)
        .map(CString::into_raw)
        .map_err(|_| Error::new(Code::Internal, "a NUL in our own JSON"))
}

/// A JSON object of ours that says the interface's version, as the header promises of all JSON.
fn versioned(object: String) -> String {
    match object.strip_prefix('{') {
        Some("}") => r#"{"semblance":1}"#.to_owned(),
        Some(rest) if !rest.starts_with(r#""semblance":"#) => format!(r#"{{"semblance":1,{rest}"#),
        _ => object,
    }
}

/// A JSON array of ours, `name`, in such an object.
fn listed(name: &str, array: &str) -> String {
    format!(r#"{{"semblance":1,"{name}":{array}}}"#)
}

/// # Safety
/// `string` is null or from [`give`] and not given back before.
unsafe fn string_free(string: *mut c_char) {
    if !string.is_null() {
        // SAFETY: the caller's promise.
        quiet((), || drop(unsafe { CString::from_raw(string) }));
    }
}

// ----------------------------------------------------------------------------------- handles ----

fn hand_over<T>(handle: T) -> *mut T {
    Box::into_raw(Box::new(handle))
}

/// Takes back what [`hand_over`] gave. In a forked child it is leaked: its threads are not here.
///
/// # Safety
/// `handle` is null or from [`hand_over`] and not given back before.
unsafe fn take_back<T>(handle: *mut T) {
    if !handle.is_null() && !guard::forked() {
        // SAFETY: the caller's promise.
        quiet((), || drop(unsafe { Box::from_raw(handle) }));
    }
}

fn null_on_failure<T>(handle: Option<*mut T>) -> *mut T {
    handle.unwrap_or(std::ptr::null_mut())
}

fn engine_create(options: &[u8], outcome: &mut Outcome) -> *mut EngineHandle {
    null_on_failure(call(outcome, || {
        EngineHandle::new(text("options_json", options)?).map(hand_over)
    }))
}

/// # Safety
/// As [`take_back`].
unsafe fn engine_destroy(engine: *mut EngineHandle) {
    // SAFETY: the caller's promise.
    unsafe { take_back(engine) }
}

fn engine_load_start(engine: &EngineHandle, outcome: &mut Outcome) -> *mut JobHandle {
    null_on_failure(call(outcome, || engine.start_load().map(hand_over)))
}

fn engine_describe(engine: &EngineHandle, outcome: &mut Outcome) -> *mut c_char {
    null_on_failure(call(outcome, || {
        give(versioned(engine.engine().describe()?))
    }))
}

fn engine_attributes(engine: &EngineHandle, outcome: &mut Outcome) -> *mut c_char {
    null_on_failure(call(outcome, || {
        give(listed("attributes", &engine.engine().attributes()?))
    }))
}

fn engine_parameters(_: &EngineHandle, outcome: &mut Outcome) -> *mut c_char {
    null_on_failure(call(outcome, || {
        give(listed("parameters", &Engine::parameters()?))
    }))
}

fn engine_purge(engine: &EngineHandle) {
    if !guard::forked() {
        quiet((), || engine.engine().purge());
    }
}

fn log_poll(engine: &EngineHandle) -> ffi::LogEntry {
    if guard::forked() {
        return ffi::LogEntry::default();
    }
    let entry = quiet(None, || engine.poll_log());
    entry.map_or_else(Default::default, |e| ffi::LogEntry {
        level: e.level as i32,
        time_us: e.time_us,
        lost: e.lost,
        text: e.text,
    })
}

// -------------------------------------------------------------------------------------- jobs ----

/// # Safety
/// `mask` is null or points to a mask; the buffers of both are as the header says.
unsafe fn job_start(
    engine: &EngineHandle,
    layer: &ffi::Pixels,
    mask: *const ffi::Mask,
    recipe: &[u8],
    kind: i32,
    if_busy: i32,
    outcome: &mut Outcome,
) -> *mut JobHandle {
    null_on_failure(call(outcome, || {
        let wrong =
            |what: &str, text| Error::new(Code::InvalidParameter, text).with_parameter(what);
        let kind = match kind {
            1 => Kind::Preview,
            2 => Kind::Final,
            n => {
                return Err(wrong(
                    "kind",
                    format!("kind = {n}: must be 1 (preview) or 2 (final)"),
                ));
            }
        };
        let if_busy = match if_busy {
            1 => IfBusy::Wait,
            2 => IfBusy::Refuse,
            n => {
                return Err(wrong(
                    "if_busy",
                    format!("if_busy = {n}: must be 1 (wait) or 2 (refuse)"),
                ));
            }
        };
        let recipe = text("recipe_json", recipe)?;
        // SAFETY: the caller's promise.
        let (layer, mask) = unsafe { (Layer::new(layer)?, read_mask(mask)?) };
        engine
            .start((&layer, mask.as_ref()), recipe, kind, if_busy)
            .map(hand_over)
    }))
}

/// As [`job_start`] for a final job that waits in line, for a caller that keeps the buffers until
/// the job has ended: the layer is read on the job's thread, where it can be cancelled.
///
/// # Safety
/// `mask` is null or points to a mask; the buffers of both, and the profile's, stay as they are until
/// the job has ended.
unsafe fn edit_start(
    engine: &EngineHandle,
    layer: &ffi::Pixels,
    mask: *const ffi::Mask,
    recipe: &[u8],
    outcome: &mut Outcome,
) -> *mut JobHandle {
    null_on_failure(call(outcome, || {
        let recipe = text("recipe_json", recipe)?;
        // SAFETY: the caller's promise, for as long as the job lasts, which is all that reads them.
        let handle = unsafe { engine.start_edit(Layer::new(layer)?, read_mask(mask)?, recipe) };
        handle.map(hand_over)
    }))
}

fn state(look: Look) -> ffi::JobState {
    ffi::JobState {
        state: look.state as i32,
        phase: look.phase.map_or(0, |p| p as i32),
        fraction: look.fraction,
    }
}

fn job_poll(job: &JobHandle, outcome: &mut Outcome) -> ffi::JobState {
    call(outcome, || Ok(state(job.0.look()))).unwrap_or_default()
}

fn job_wait(job: &JobHandle, timeout_ms: i64, outcome: &mut Outcome) -> ffi::JobState {
    let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
    call(outcome, || Ok(state(job.0.wait(timeout)))).unwrap_or_default()
}

fn job_cancel(job: &JobHandle) {
    if !guard::forked() {
        quiet((), || job.0.cancel());
    }
}

fn job_take(job: &JobHandle, outcome: &mut Outcome) -> *mut ResultHandle {
    null_on_failure(call(outcome, || {
        Ok(job.take()?.map_or(std::ptr::null_mut(), hand_over))
    }))
}

/// # Safety
/// As [`take_back`].
unsafe fn job_free(job: *mut JobHandle) {
    // SAFETY: the caller's promise.
    unsafe { take_back(job) }
}

// ----------------------------------------------------------------------------------- results ----

fn result_extent(result: &ResultHandle, outcome: &mut Outcome) -> ffi::Rect {
    call(outcome, || Ok(buffers::rect_out(result.extent()))).unwrap_or_default()
}

fn result_input_needed(
    result: &ResultHandle,
    rect: &ffi::Rect,
    outcome: &mut Outcome,
) -> ffi::Rect {
    call(outcome, || {
        let rect = buffers::checked_rect(rect)?;
        Ok(buffers::rect_out(result.input_needed(rect)))
    })
    .unwrap_or_default()
}

/// Whether [`result_render`] would take these buffers; asked before the long work.
///
/// # Safety
/// As [`job_start`].
unsafe fn check_render(
    src: &ffi::Pixels,
    mask: *const ffi::Mask,
    dst: &ffi::Pixels,
    outcome: &mut Outcome,
) -> bool {
    call(outcome, || {
        // SAFETY: the caller's promise.
        let (src, mask, dst) = unsafe { (Layer::new(src)?, read_mask(mask)?, Layer::new(dst)?) };
        src.placement(mask.as_ref(), &dst)?;
        // What only a view finds out, strides that overlap and the like, before the work too.
        // SAFETY: the caller's promise; the views are dropped unread.
        unsafe {
            src.view()?;
            dst.view()?;
            mask.map(|mask| mask.view()).transpose()?;
        }
        Ok(())
    })
    .is_some()
}

/// # Safety
/// As [`job_start`].
unsafe fn result_render(
    result: &ResultHandle,
    part: *const ffi::Rect,
    src: &ffi::Pixels,
    mask: *const ffi::Mask,
    dst: &ffi::Pixels,
    outcome: &mut Outcome,
) -> ffi::Tally {
    let tally = call(outcome, || {
        // SAFETY: the caller's promise.
        let (src, mask, dst) = unsafe { (Layer::new(src)?, read_mask(mask)?, Layer::new(dst)?) };
        // SAFETY: as above; null where the layer itself is rendered.
        let part = unsafe { part.as_ref() }.map(buffers::rect);
        result.render(part, &src, mask.as_ref(), &dst)
    });
    tally.map_or_else(Default::default, |t| ffi::Tally {
        largest_change: t.largest_change,
        changed: t.changed,
        kept: t.kept,
        sum_of_change: t.sum_of_change,
        selected: t.selected,
    })
}

/// # Safety
/// `mask` is null or points to a mask.
unsafe fn read_mask(mask: *const ffi::Mask) -> Result<Option<Mask>> {
    // SAFETY: the caller's promise.
    unsafe { mask.as_ref() }.map(Mask::new).transpose()
}

fn result_recipe(result: &ResultHandle, outcome: &mut Outcome) -> *mut c_char {
    null_on_failure(call(outcome, || give(result.recipe()?)))
}

fn result_report(result: &ResultHandle, outcome: &mut Outcome) -> *mut c_char {
    null_on_failure(call(outcome, || give(versioned(result.report()))))
}

/// # Safety
/// As [`take_back`].
unsafe fn result_free(result: *mut ResultHandle) {
    // SAFETY: the caller's promise.
    unsafe { take_back(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_out_is_an_object_that_says_its_version_once() {
        assert_eq!(versioned("{}".into()), r#"{"semblance":1}"#);
        let once = versioned(r#"{"a":2}"#.into());
        assert_eq!(once, r#"{"semblance":1,"a":2}"#);
        assert_eq!(versioned(once.clone()), once);
        assert_eq!(listed("x", "[]"), r#"{"semblance":1,"x":[]}"#);
    }
}
