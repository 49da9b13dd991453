//! libsemblance: the shared library that hosts load.
//!
//! For: the one exported symbol. Not for: anything else; the table behind it is `semblance-ffi`.
//! A crate of its own, because a library that holds a cxx bridge itself would export the bridge.

use std::ffi::c_void;

/// The function table for `major`, or null if this library does not serve it: `semblance_get_api`
/// of `semblance.h`, which says all there is to say.
// SAFETY: the name is ours by its prefix; no other crate in this library defines it.
#[unsafe(no_mangle)]
pub extern "C" fn semblance_get_api(major: u32) -> *const c_void {
    semblance_ffi::api(major)
}
