//! What every call from outside passes through.
//!
//! For: no panic crosses the boundary, the host's floating-point mode is kept, a forked child gets
//! an answer instead of a hang. Not for: what the call does.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use semblance::{Code, Error, Result};
use semblance_kernels::FpScope;

use crate::bridge::ffi::Outcome;

/// The process that made the first engine; 0 while there is none.
static HOME: AtomicU32 = AtomicU32::new(0);

/// What a panic on a thread outside [`contain`] said: a worker's, which its caller gets again.
static ELSEWHERE: Mutex<Option<String>> = Mutex::new(None);

thread_local! {
    /// While this thread is inside [`contain`]: what its panic said.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static DEPTH: RefCell<u32> = const { RefCell::new(0) };
}

/// Runs a fallible call and puts what became of it into `outcome`; `None` on failure.
pub fn call<T>(outcome: &mut Outcome, f: impl FnOnce() -> Result<T>) -> Option<T> {
    let _mode = FpScope::enter();
    let result = if forked() {
        Err(Error::new(
            Code::Forked,
            "the process was forked after the engine was made",
        )
        .with_hint("start the child with spawn or exec, or make the first engine in it"))
    } else {
        contain(f)
    };
    match result {
        Ok(value) => {
            outcome.code = 0;
            Some(value)
        }
        Err(error) => {
            outcome.code = error.code() as i32;
            outcome.message = error.message().to_owned();
            outcome.hint = error.hint().to_owned();
            outcome.parameter = error.parameter().to_owned();
            None
        }
    }
}

/// Runs a call that cannot fail, such as giving back a handle; a panic gives `fallback`.
pub fn quiet<T>(fallback: T, f: impl FnOnce() -> T) -> T {
    let _mode = FpScope::enter();
    contain(|| Ok(f())).unwrap_or(fallback)
}

/// Runs `f`; a panic becomes [`Code::Internal`] with its message and place.
pub fn contain<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(install_hook);
    DEPTH.with_borrow_mut(|d| *d += 1);
    // Whatever a panic leaves half-done stays behind locks that do not poison or is dropped here.
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    DEPTH.with_borrow_mut(|d| *d -= 1);
    result.unwrap_or_else(|payload| {
        let text = text_of(&*payload);
        // One that came from a worker was noted by that worker, and others may have panicked since.
        let said = PANIC
            .take()
            .or_else(|| {
                ELSEWHERE
                    .lock()
                    .take()
                    .filter(|said| said.starts_with(&text))
            })
            .unwrap_or(text);
        // A payload's own drop may panic; it is some bytes, once.
        std::mem::forget(payload);
        Err(
            Error::new(Code::Internal, format!("a defect in semblance: {said}"))
                .with_hint("please report this text"),
        )
    })
}

/// Remembers this process as the one that engines live in.
pub fn settle() {
    let _ = HOME.compare_exchange(0, std::process::id(), Ordering::Relaxed, Ordering::Relaxed);
}

/// Whether this is the child of a process that made an engine. Our threads, and those of rayon,
/// exist in the parent only: to wait for one would be for ever.
pub fn forked() -> bool {
    let home = HOME.load(Ordering::Relaxed);
    home != 0 && home != std::process::id()
}

/// Panics are returned, not printed: stderr is the host's. In the shared library the hook is ours
/// alone, since it has its own copy of the standard library; in this crate's own tests it is not.
fn install_hook() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let outside = DEPTH.with_borrow(|d| *d == 0);
        if outside && cfg!(test) {
            return before(info);
        }
        let text = text_of(info.payload());
        let place = info
            .location()
            .map(|l| format!("{}:{}", l.file(), l.line()));
        let said = Some(format!("{text} ({})", place.unwrap_or_default()));
        if outside {
            *ELSEWHERE.lock() = said;
        } else {
            PANIC.set(said);
        }
    }));
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no text".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_panic_becomes_an_internal_error_with_its_text_and_place() {
        let mut outcome = Outcome::default();
        let value: Option<()> = call(&mut outcome, || panic!("index {} out of range", 7));
        assert!(value.is_none());
        assert_eq!(outcome.code, Code::Internal as i32);
        assert!(
            outcome.message.contains("index 7 out of range"),
            "{}",
            outcome.message
        );
        assert!(outcome.message.contains("guard.rs"), "{}", outcome.message);
    }

    #[test]
    fn a_call_after_a_panic_works_as_before() {
        let mut outcome = Outcome::default();
        let _: Option<()> = call(&mut outcome, || panic!("once"));
        assert_eq!(call(&mut outcome, || Ok(5)), Some(5));
        assert_eq!(outcome.code, 0);
    }

    #[test]
    fn a_quiet_call_that_panics_gives_its_fallback() {
        assert_eq!(quiet(3, || panic!("never mind")), 3);
    }
}
