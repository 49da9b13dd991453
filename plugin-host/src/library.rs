//! The built library, made safe: the only unsafe code of this crate.
//!
//! For: finding libsemblance, and [`Engine`], [`Job`] and [`Outcome`] that give their handles back.
//! Not for: deciding anything. Every handle here is used from the thread that made it, jobs are
//! polled, and no callback is given to the library.
//!
//! What every SAFETY comment relies on: the table came from `semblance_get_api(1)` of a library
//! whose table is at least as long as ours ([`Library::open`] checks), its functions keep the
//! header's contract, and the library is never unloaded.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::time::Duration;

use serde_json::Value;

use crate::abi;
use crate::failure::{Exit, Failure, Result};
use crate::pixels::{Color, Pixels};

/// `semblance_rect`: a rectangle in layer coordinates, pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Rect {
    /// Left edge.
    pub x: i64,
    /// Upper edge.
    pub y: i64,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// Where an edit acts: 0 = keep, 1 = edit, one sample a pixel, rows from the top.
#[derive(Clone, Debug, PartialEq)]
pub struct Mask {
    /// Where it lies in the layer's coordinates; 0 outside.
    pub rect: Rect,
    /// `rect.width * rect.height` samples.
    pub samples: Vec<f32>,
}

/// What a render changed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Pixels whose bytes changed.
    pub changed: u64,
    /// Pixels written with their old bytes.
    pub kept: u64,
    /// Mean over changed pixels of the largest change of a sample, 0..=1.
    pub mean_change: f64,
    /// Largest change of a sample, 0..=1.
    pub largest_change: f32,
    /// Pixels that the edit might change: above 0 in the mask.
    pub selected: u64,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// The phase's stable name.
    pub phase: &'static str,
    /// Of the whole job, 0..=1.
    pub fraction: f32,
}

/// The file name of the library on this system.
pub fn file_name() -> String {
    format!(
        "{}semblance{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    )
}

/// Where the library is looked for, in order: `SEMBLANCE_LIBRARY` alone where it is set, else
/// beside the executable and in `../lib`. Never the working directory, where a stranger's archive
/// may have put one.
pub fn places() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("SEMBLANCE_LIBRARY").filter(|path| !path.is_empty()) {
        return vec![PathBuf::from(path)];
    }
    let Ok(executable) = std::env::current_exe().and_then(|path| path.canonicalize()) else {
        return Vec::new();
    };
    let Some(folder) = executable.parent() else {
        return Vec::new();
    };
    let mut places = vec![folder.join(file_name())];
    if let Some(prefix) = folder.parent() {
        places.push(prefix.join("lib").join(file_name()));
    }
    places
}

/// The loaded library; copies refer to the same one, which stays until the process ends.
#[derive(Clone, Copy)]
pub struct Library {
    api: &'static abi::Api,
    path: &'static Path,
}

impl Library {
    /// Finds and loads the library; see [`places`].
    pub fn find() -> Result<Library> {
        let places = places();
        match places.iter().find(|place| place.is_file()) {
            Some(place) => Library::open(place),
            None => {
                let list: Vec<String> = places
                    .iter()
                    .map(|place| place.display().to_string())
                    .collect();
                Err(Failure::library(format!(
                    "{} not found at {}",
                    file_name(),
                    list.join(" or ")
                ))
                .hint(
                    "build it with `cargo build --release`, or set SEMBLANCE_LIBRARY to its path",
                ))
            }
        }
    }

    /// Loads the library at `path`, which must be absolute (a bare name would be searched for).
    pub fn open(path: &Path) -> Result<Library> {
        if !path.is_absolute() {
            return Err(Failure::library(format!(
                "SEMBLANCE_LIBRARY = {}: must be an absolute path",
                path.display()
            ))
            .hint(format!("try $PWD/{}", path.display())));
        }
        let refused = |what: String| {
            Failure::library(format!("{}: {what}", path.display())).hint(format!(
                "it must be {} of major version {}",
                file_name(),
                abi::MAJOR
            ))
        };
        // SAFETY: loading runs the file's initialisers; the user chose the file (or installed it
        // beside this program), which is the trust that running this program takes.
        let library = unsafe { libloading::Library::new(path) }
            .map_err(|error| refused(format!("cannot be loaded: {error}")))?;
        // SAFETY: the header declares the symbol with exactly this type.
        let get_api = unsafe { library.get::<abi::GetApi>(b"semblance_get_api\0") }
            .map(|symbol| *symbol)
            .map_err(|_| refused("has no symbol semblance_get_api".to_owned()))?;
        // It is linked to stay mapped; forgetting our handle says so on this side too.
        std::mem::forget(library);
        // SAFETY: any number may be asked for; NULL says that it is not served.
        let table = unsafe { get_api(abi::MAJOR) };
        if table.is_null() {
            return Err(refused(format!("does not serve version {}", abi::MAJOR)));
        }
        // SAFETY: a table that is not NULL lives until the process ends and begins with its size.
        let size = unsafe { (*table).struct_size } as usize;
        if size < size_of::<abi::Api>() {
            return Err(refused(format!(
                "its table of functions has {size} bytes, {} are needed",
                size_of::<abi::Api>()
            )));
        }
        Ok(Library {
            // SAFETY: as above, and it is as long as our type.
            api: unsafe { &*table },
            path: Box::leak(path.to_owned().into_boxed_path()),
        })
    }

    /// The file that was loaded.
    pub fn path(&self) -> &Path {
        self.path
    }

    /// The library's version.
    pub fn version(&self) -> &'static str {
        // SAFETY: module.
        text(unsafe { (self.api.version)() })
    }

    /// Makes an engine from options in the header's JSON; reads no weights.
    pub fn engine(&self, options: &Value) -> Result<Engine> {
        let options = c_string(&options.to_string())?;
        let mut handle = null_mut();
        // SAFETY: module; a NUL-terminated string and places for the outputs.
        self.call(|error| unsafe {
            (self.api.engine_create)(options.as_ptr(), &mut handle, error)
        })?;
        Ok(Engine {
            library: *self,
            handle,
        })
    }

    /// Calls `f` with an error to fill and turns what it returns into a result.
    fn call(&self, f: impl FnOnce(*mut abi::Error) -> i32) -> Result<()> {
        let mut error = abi::Error {
            struct_size: size_of::<abi::Error>() as u32,
            code: 0,
            message: [0; 512],
            hint: [0; 256],
            parameter: [0; 64],
        };
        let code = f(&mut error);
        if code == abi::OK {
            return Ok(());
        }
        // SAFETY: module; any number may be asked for.
        let name = text(unsafe { (self.api.code_name)(code) });
        Err(Failure {
            exit: match name {
                "invalid_parameter"
                | "invalid_recipe"
                | "unknown_attribute"
                | "attribute_not_for_model" => Exit::Usage,
                "model_not_found" | "invalid_model" | "unsupported_model" => Exit::Model,
                "out_of_memory" => Exit::Memory,
                "cancelled" => Exit::Cancelled,
                "io" => Exit::File,
                _ => Exit::Edit,
            },
            code,
            name: name.to_owned(),
            message: field(&error.message),
            hint: field(&error.hint),
            parameter: field(&error.parameter),
        })
    }

    /// Takes a JSON string from `f`, parses it and gives it back.
    fn json(&self, f: impl FnOnce(*mut *mut c_char, *mut abi::Error) -> i32) -> Result<Value> {
        let mut string = null_mut();
        self.call(|error| f(&mut string, error))?;
        let copy = if string.is_null() {
            Vec::new()
        } else {
            // SAFETY: module; on success the string is ours, NUL-terminated, until string_free.
            unsafe { CStr::from_ptr(string) }.to_bytes().to_vec()
        };
        // SAFETY: module; given back once.
        unsafe { (self.api.string_free)(string) };
        serde_json::from_slice(&copy)
            .map_err(|error| Failure::library(format!("its JSON cannot be read: {error}")))
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A model, its attributes and its line of jobs.
#[derive(Debug)]
pub struct Engine {
    library: Library,
    handle: *mut abi::Engine,
}

impl Engine {
    /// Model, CPU path, memory and versions.
    pub fn describe(&self) -> Result<Value> {
        // SAFETY: module; the handle is ours until drop.
        self.library.json(|json, error| unsafe {
            (self.library.api.engine_describe)(self.handle, json, error)
        })
    }

    /// What can be named in a recipe.
    pub fn attributes(&self) -> Result<Value> {
        // SAFETY: as above.
        self.library.json(|json, error| unsafe {
            (self.library.api.engine_attributes)(self.handle, json, error)
        })
    }

    /// The recipe's parameters.
    pub fn parameters(&self) -> Result<Value> {
        // SAFETY: as above.
        self.library.json(|json, error| unsafe {
            (self.library.api.engine_parameters)(self.handle, json, error)
        })
    }

    /// Starts reading the weights.
    pub fn load(&self) -> Result<Job> {
        let mut handle = null_mut();
        // SAFETY: as above.
        self.library.call(|error| unsafe {
            (self.library.api.engine_load_start)(self.handle, &mut handle, error)
        })?;
        Ok(Job {
            library: self.library,
            handle,
        })
    }

    /// Starts an edit of a whole layer.
    pub fn start(&self, layer: &Pixels, mask: Option<&Mask>, recipe: &Value) -> Result<Job> {
        let recipe = c_string(&recipe.to_string())?;
        let layer = described(layer, layer.bytes.as_ptr().cast_mut().cast());
        let mask = mask.map(described_mask);
        let mut handle = null_mut();
        // SAFETY: module; the structs describe buffers that are borrowed during the call, and the
        // library only reads them.
        self.library.call(|error| unsafe {
            (self.library.api.job_start)(
                self.handle,
                &layer,
                mask.as_ref().map_or(null(), std::ptr::from_ref),
                recipe.as_ptr(),
                abi::JOB_FINAL,
                abi::IF_BUSY_WAIT,
                &mut handle,
                error,
            )
        })?;
        Ok(Job {
            library: self.library,
            handle,
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: module; given back once.
        unsafe { (self.library.api.engine_destroy)(self.handle) }
    }
}

/// Work under way.
#[derive(Debug)]
pub struct Job {
    library: Library,
    handle: *mut abi::Job,
}

impl Job {
    /// Waits for at most `time`; says how far the job is, or `None` when it has ended.
    pub fn wait(&self, time: Duration) -> Result<Option<Progress>> {
        let mut state = abi::JobState {
            struct_size: size_of::<abi::JobState>() as u32,
            state: 0,
            phase: 0,
            fraction: 0.0,
        };
        let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        // SAFETY: module; the handle is ours until drop.
        self.library.call(|error| unsafe {
            (self.library.api.job_wait)(self.handle, time, &mut state, error)
        })?;
        if state.state >= abi::STATE_DONE {
            return Ok(None);
        }
        Ok(Some(Progress {
            // SAFETY: module; any number may be asked for.
            phase: text(unsafe { (self.library.api.phase_name)(state.phase) }),
            fraction: state.fraction,
        }))
    }

    /// Asks the job to stop.
    pub fn cancel(&self) {
        // SAFETY: module.
        unsafe { (self.library.api.job_cancel)(self.handle) }
    }

    /// What the job made, or why it failed; `None` from a job that only loads.
    pub fn take(self) -> Result<Option<Outcome>> {
        let mut handle = null_mut();
        // SAFETY: module.
        self.library.call(|error| unsafe {
            (self.library.api.job_take)(self.handle, &mut handle, error)
        })?;
        Ok((!handle.is_null()).then(|| Outcome {
            library: self.library,
            handle,
        }))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // SAFETY: module; given back once.
        unsafe { (self.library.api.job_free)(self.handle) }
    }
}

/// A finished edit, rendered on demand.
#[derive(Debug)]
pub struct Outcome {
    library: Library,
    handle: *mut abi::Outcome,
}

impl Outcome {
    /// Applies the edit to the layer itself, and says what that changed.
    pub fn render(&self, layer: &mut Pixels, mask: Option<&Mask>) -> Result<Tally> {
        // SAFETY: module; `rendered` hands over what this function takes.
        self.rendered(layer, mask, |pixels, mask, tally, error| unsafe {
            (self.library.api.result_render)(self.handle, pixels, mask, pixels, tally, error)
        })
    }

    /// As [`Outcome::render`], on a copy that shows the layer's rectangle `part` at another size;
    /// `mask` is one of the copy.
    pub fn render_reduced(
        &self,
        part: Rect,
        copy: &mut Pixels,
        mask: Option<&Mask>,
    ) -> Result<Tally> {
        let api = self.library.api;
        // SAFETY: as above.
        self.rendered(copy, mask, |pixels, mask, tally, error| unsafe {
            (api.result_render_reduced)(self.handle, &part, pixels, mask, pixels, tally, error)
        })
    }

    /// Calls `f` with pixels that are source and target at once, as the header allows, borrowed by
    /// nobody else during the call; a mask or NULL; and places for tally and error.
    fn rendered(
        &self,
        layer: &mut Pixels,
        mask: Option<&Mask>,
        f: impl FnOnce(*const abi::Pixels, *const abi::Mask, *mut abi::Tally, *mut abi::Error) -> i32,
    ) -> Result<Tally> {
        let mut tally = abi::Tally {
            struct_size: size_of::<abi::Tally>() as u32,
            largest_change: 0.0,
            changed: 0,
            kept: 0,
            sum_of_change: 0.0,
            selected: 0,
        };
        let data = layer.bytes.as_mut_ptr().cast();
        let pixels = described(layer, data);
        let mask = mask.map(described_mask);
        let mask = mask.as_ref().map_or(null(), std::ptr::from_ref);
        self.library
            .call(|error| f(&pixels, mask, &mut tally, error))?;
        Ok(Tally {
            changed: tally.changed,
            kept: tally.kept,
            mean_change: tally.sum_of_change / tally.changed.max(1) as f64,
            largest_change: tally.largest_change,
            selected: tally.selected,
        })
    }

    /// The smallest rectangle outside which nothing changes.
    pub fn extent(&self) -> Result<Rect> {
        let mut extent = Rect::default();
        // SAFETY: module.
        self.library.call(|error| unsafe {
            (self.library.api.result_extent)(self.handle, &mut extent, error)
        })?;
        Ok(extent)
    }

    /// The complete recipe.
    pub fn recipe(&self) -> Result<Value> {
        // SAFETY: module.
        self.library.json(|json, error| unsafe {
            (self.library.api.result_recipe)(self.handle, json, error)
        })
    }

    /// What was done and how long it took.
    pub fn report(&self) -> Result<Value> {
        // SAFETY: module.
        self.library.json(|json, error| unsafe {
            (self.library.api.result_report)(self.handle, json, error)
        })
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        // SAFETY: module; given back once.
        unsafe { (self.library.api.result_free)(self.handle) }
    }
}

/// A description of `pixels` at `data`, valid as long as both.
fn described(pixels: &Pixels, data: *mut c_void) -> abi::Pixels {
    let (color, icc): (i32, &[u8]) = match &pixels.color {
        Color::Unknown => (0, &[]),
        Color::Srgb => (1, &[]),
        Color::LinearSrgb => (2, &[]),
        Color::Icc(profile) => (3, profile),
    };
    abi::Pixels {
        struct_size: size_of::<abi::Pixels>() as u32,
        samples: pixels.samples as i32,
        order: pixels.order as i32,
        alpha: pixels.alpha as i32,
        data,
        data_size: pixels.bytes.len() as u64,
        row_stride: pixels.row_size() as i64,
        rect: Rect {
            x: 0,
            y: 0,
            width: pixels.width,
            height: pixels.height,
        },
        color,
        reserved: 0,
        icc: if icc.is_empty() {
            null()
        } else {
            icc.as_ptr().cast()
        },
        icc_size: icc.len() as u64,
    }
}

/// As [`described`], for a mask.
fn described_mask(mask: &Mask) -> abi::Mask {
    abi::Mask {
        struct_size: size_of::<abi::Mask>() as u32,
        samples: 4,
        data: mask.samples.as_ptr().cast(),
        data_size: (mask.samples.len() * 4) as u64,
        row_stride: i64::from(mask.rect.width) * 4,
        rect: mask.rect,
    }
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Failure::usage("a text has a NUL character in it"))
}

/// A string that the library keeps for ever.
fn text(string: *const c_char) -> &'static str {
    if string.is_null() {
        return "unknown";
    }
    // SAFETY: module; callers pass only strings that the header says are valid for ever.
    unsafe { CStr::from_ptr(string) }
        .to_str()
        .unwrap_or("unknown")
}

/// A field of an error: UTF-8 up to its NUL, or its end.
fn field(bytes: &[c_char]) -> String {
    let bytes: Vec<u8> = bytes
        .iter()
        .map(|byte| *byte as u8)
        .take_while(|byte| *byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_library_path_is_refused() {
        let failure = Library::open(Path::new("libsemblance.so")).unwrap_err();
        assert!(failure.message.contains("absolute"), "{failure}");
        assert_eq!(failure.exit, Exit::Model);
    }

    #[test]
    fn a_library_that_is_not_ours_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libsemblance.so");
        std::fs::write(&path, b"not a library").unwrap();
        let failure = Library::open(&path).unwrap_err();
        assert!(failure.message.contains("cannot be loaded"), "{failure}");
    }

    #[test]
    fn an_error_field_without_its_nul_is_read_to_its_end() {
        assert_eq!(field(&[b'a' as c_char; 4]), "aaaa");
        assert_eq!(field(&[b'a' as c_char, 0, b'b' as c_char]), "a");
    }
}
