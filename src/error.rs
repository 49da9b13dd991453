//! What can go wrong, sorted by who can mend it.
//!
//! For: every fallible function of the public API. Not for: host-side file errors, which have their
//! own type in the host. A [`Error`] says what failed with the offending value and the allowed range
//! in `message`, and what to do about it in `hint`.

use std::fmt;

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure's kind. The numbers are part of the C ABI and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum Code {
    /// A parameter of a recipe or of the engine is outside its range.
    InvalidParameter = 1,
    /// The layer's description contradicts itself or its buffer.
    InvalidLayer = 2,
    /// The mask's description contradicts itself or its buffer.
    InvalidMask = 3,
    /// A recipe is not well-formed, has an unknown key or is of a future version.
    InvalidRecipe = 4,
    /// No attribute of this name.
    UnknownAttribute = 5,
    /// The attribute exists and does not serve this model.
    AttributeNotForModel = 6,
    /// An attribute file is not well-formed.
    InvalidAttribute = 7,
    /// No model at the place given.
    ModelNotFound = 8,
    /// A model's files are damaged, incomplete or hostile.
    InvalidModel = 9,
    /// A model of a kind that this version does not run.
    UnsupportedModel = 10,
    /// The operating system refused a read or a write.
    Io = 11,
    /// The forecast, or an allocation, exceeds the memory to be had.
    OutOfMemory = 12,
    /// The host asked to stop.
    Cancelled = 13,
    /// A newer preview took this job's place.
    Superseded = 14,
    /// Another job is running and the host asked not to wait.
    Busy = 15,
    /// The call makes no sense in this state, or is not served by this build.
    Unsupported = 16,
    /// The process was forked after the engine was made.
    Forked = 17,
    /// A defect of ours, contained at the boundary.
    Internal = 18,
}

impl Code {
    /// What to do where nothing better is known; empty where there is nothing to mend.
    fn advice(self) -> &'static str {
        match self {
            Code::InvalidParameter => "engine_parameters and `semblance help edit` give the ranges",
            Code::InvalidLayer => "semblance.h describes semblance_pixels field by field",
            Code::InvalidMask => "semblance.h describes semblance_mask field by field",
            Code::InvalidRecipe => "leave the key out for its default",
            Code::UnknownAttribute => "`semblance attributes` lists the names",
            Code::AttributeNotForModel => "choose another attribute, or another model",
            Code::InvalidAttribute => "compare it with the files in attributes/",
            Code::ModelNotFound => "name a folder in diffusers layout, or none",
            Code::InvalidModel => "a file of the model is damaged: fetch it again",
            Code::UnsupportedModel => "models shaped like Stable Diffusion 1 and 2 are run",
            Code::Io => "check that the file is there and may be read",
            Code::OutOfMemory => "close other programs, or allow more memory",
            Code::Busy => "wait for the other jobs, or cancel them",
            Code::Unsupported => "semblance.h says in which state the call is served",
            Code::Forked => "use spawn, or make the first engine in the child",
            Code::Internal => "this is a defect of Semblance: please report it",
            Code::Cancelled | Code::Superseded => "",
        }
    }

    /// Every code, for tables in hosts and tests.
    pub const ALL: [Code; 18] = [
        Code::InvalidParameter,
        Code::InvalidLayer,
        Code::InvalidMask,
        Code::InvalidRecipe,
        Code::UnknownAttribute,
        Code::AttributeNotForModel,
        Code::InvalidAttribute,
        Code::ModelNotFound,
        Code::InvalidModel,
        Code::UnsupportedModel,
        Code::Io,
        Code::OutOfMemory,
        Code::Cancelled,
        Code::Superseded,
        Code::Busy,
        Code::Unsupported,
        Code::Forked,
        Code::Internal,
    ];

    /// The code's stable name, as in JSON reports: `invalid_parameter`, `out_of_memory` …
    pub fn name(self) -> &'static str {
        match self {
            Code::InvalidParameter => "invalid_parameter",
            Code::InvalidLayer => "invalid_layer",
            Code::InvalidMask => "invalid_mask",
            Code::InvalidRecipe => "invalid_recipe",
            Code::UnknownAttribute => "unknown_attribute",
            Code::AttributeNotForModel => "attribute_not_for_model",
            Code::InvalidAttribute => "invalid_attribute",
            Code::ModelNotFound => "model_not_found",
            Code::InvalidModel => "invalid_model",
            Code::UnsupportedModel => "unsupported_model",
            Code::Io => "io",
            Code::OutOfMemory => "out_of_memory",
            Code::Cancelled => "cancelled",
            Code::Superseded => "superseded",
            Code::Busy => "busy",
            Code::Unsupported => "unsupported",
            Code::Forked => "forked",
            Code::Internal => "internal",
        }
    }
}

/// A failure: its kind, what happened (with the value and the allowed range) and one hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Code,
    message: String,
    hint: String,
    parameter: String,
}

impl Error {
    /// An error whose `message` names what failed, the value and the allowed range.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error {
            code,
            message: message.into(),
            hint: String::new(),
            parameter: String::new(),
        }
    }

    /// The same error with one thing to try.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same error with the id of the offending parameter, field or tensor.
    #[must_use]
    pub fn with_parameter(mut self, parameter: impl Into<String>) -> Self {
        self.parameter = parameter.into();
        self
    }

    /// The kind of failure.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What failed, with the value and the allowed range.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// One thing to try; empty only where there is nothing to mend (a cancel).
    pub fn hint(&self) -> &str {
        match self.hint.as_str() {
            "" => self.code.advice(),
            hint => hint,
        }
    }

    /// The offending parameter's id; may be empty.
    pub fn parameter(&self) -> &str {
        &self.parameter
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.hint() {
            "" => Ok(()),
            hint => write!(f, " ({hint})"),
        }
    }
}

impl std::error::Error for Error {}
