//! `include/semblance/semblance.h`, major 1, as Rust sees it.
//!
//! For: [`crate::library`] only. Not for: behaviour. Sizes and offsets are asserted below with the
//! numbers that the header's own test asserts, so that the two cannot drift apart unseen.

use std::ffi::{c_char, c_void};
use std::mem::{offset_of, size_of};

use crate::library::Rect;

/// `SEMBLANCE_MAJOR`.
pub const MAJOR: u32 = 1;
/// `SEMBLANCE_OK`.
pub const OK: i32 = 0;
/// `SEMBLANCE_JOB_FINAL`.
pub const JOB_FINAL: i32 = 2;
/// `SEMBLANCE_IF_BUSY_WAIT`.
pub const IF_BUSY_WAIT: i32 = 1;
/// `SEMBLANCE_STATE_DONE`; greater states have failed.
pub const STATE_DONE: i32 = 3;

/// `semblance_error`.
#[repr(C)]
pub struct Error {
    pub struct_size: u32,
    pub code: i32,
    pub message: [c_char; 512],
    pub hint: [c_char; 256],
    pub parameter: [c_char; 64],
}

/// `semblance_pixels`.
#[repr(C)]
pub struct Pixels {
    pub struct_size: u32,
    pub samples: i32,
    pub order: i32,
    pub alpha: i32,
    pub data: *mut c_void,
    pub data_size: u64,
    pub row_stride: i64,
    pub rect: Rect,
    pub color: i32,
    pub reserved: u32,
    pub icc: *const c_void,
    pub icc_size: u64,
}

/// `semblance_mask`.
#[repr(C)]
pub struct Mask {
    pub struct_size: u32,
    pub samples: i32,
    pub data: *const c_void,
    pub data_size: u64,
    pub row_stride: i64,
    pub rect: Rect,
}

/// `semblance_job_state`.
#[repr(C)]
pub struct JobState {
    pub struct_size: u32,
    pub state: i32,
    pub phase: i32,
    pub fraction: f32,
}

/// `semblance_tally`.
#[repr(C)]
pub struct Tally {
    pub struct_size: u32,
    pub largest_change: f32,
    pub changed: u64,
    pub kept: u64,
    pub sum_of_change: f64,
    pub selected: u64,
}

/// `semblance_engine`.
#[repr(C)]
pub struct Engine {
    opaque: [u8; 0],
}

/// `semblance_job`.
#[repr(C)]
pub struct Job {
    opaque: [u8; 0],
}

/// `semblance_result`.
#[repr(C)]
pub struct Outcome {
    opaque: [u8; 0],
}

/// A function that this host does not call.
type Uncalled = *const c_void;
type Json<H> = unsafe extern "C" fn(*const H, *mut *mut c_char, *mut Error) -> i32;

/// `semblance_get_api`.
pub type GetApi = unsafe extern "C" fn(u32) -> *const Api;

/// `semblance_api`.
#[repr(C)]
pub struct Api {
    pub struct_size: u32,
    pub major: u32,
    pub version: unsafe extern "C" fn() -> *const c_char,
    pub code_name: unsafe extern "C" fn(i32) -> *const c_char,
    pub phase_name: unsafe extern "C" fn(i32) -> *const c_char,
    pub get_extension: Uncalled,
    pub string_free: unsafe extern "C" fn(*mut c_char),
    pub engine_create: unsafe extern "C" fn(*const c_char, *mut *mut Engine, *mut Error) -> i32,
    pub engine_destroy: unsafe extern "C" fn(*mut Engine),
    pub engine_load: Uncalled,
    pub engine_load_start: unsafe extern "C" fn(*mut Engine, *mut *mut Job, *mut Error) -> i32,
    pub engine_describe: Json<Engine>,
    pub engine_attributes: Json<Engine>,
    pub engine_parameters: Json<Engine>,
    pub engine_purge: Uncalled,
    pub log_poll: Uncalled,
    pub job_start: unsafe extern "C" fn(
        *mut Engine,
        *const Pixels,
        *const Mask,
        *const c_char,
        i32,
        i32,
        *mut *mut Job,
        *mut Error,
    ) -> i32,
    pub job_poll: Uncalled,
    pub job_wait: unsafe extern "C" fn(*const Job, i64, *mut JobState, *mut Error) -> i32,
    pub job_cancel: unsafe extern "C" fn(*mut Job),
    pub job_take: unsafe extern "C" fn(*mut Job, *mut *mut Outcome, *mut Error) -> i32,
    pub job_free: unsafe extern "C" fn(*mut Job),
    pub result_extent: unsafe extern "C" fn(*const Outcome, *mut Rect, *mut Error) -> i32,
    pub result_input_needed: Uncalled,
    pub result_render: unsafe extern "C" fn(
        *const Outcome,
        *const Pixels,
        *const Mask,
        *const Pixels,
        *mut Tally,
        *mut Error,
    ) -> i32,
    pub result_recipe: Json<Outcome>,
    pub result_report: Json<Outcome>,
    pub result_free: unsafe extern "C" fn(*mut Outcome),
    pub edit: Uncalled,
    pub result_render_reduced: unsafe extern "C" fn(
        *const Outcome,
        *const Rect,
        *const Pixels,
        *const Mask,
        *const Pixels,
        *mut Tally,
        *mut Error,
    ) -> i32,
}

const _: () = {
    assert!(size_of::<Error>() == 840);
    assert!(size_of::<Rect>() == 24);
    assert!(size_of::<Pixels>() == 88);
    assert!(offset_of!(Pixels, rect) == 40 && offset_of!(Pixels, icc) == 72);
    assert!(size_of::<Mask>() == 56);
    assert!(size_of::<JobState>() == 16);
    assert!(size_of::<Tally>() == 40);
    assert!(offset_of!(Api, job_start) == 8 + 14 * 8);
    assert!(size_of::<Api>() == 8 + 28 * 8);
};
