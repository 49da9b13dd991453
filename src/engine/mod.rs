//! The engine: a model, its attributes, and edits of layers with them.
//!
//! For: everything a host asks of Semblance. Not for: threads that outlive a call (the C ABI's jobs
//! add those) and files.
//!
//! A host hands a layer to [`Engine::read`], which keeps only a small patch of it; [`Engine::run`]
//! does the slow work on that patch; [`Edit::render`] then applies the change to any rectangle of
//! the host's own pixels, in any order, from several threads.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::error::{Code, Error, Result};
use crate::job::Control;
use crate::layer::{LayerView, LayerViewMut, MaskView, Rect, Tally};
use crate::recipe::Recipe;

/// Where the weights are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ModelChoice {
    /// The mini model inside the library.
    #[default]
    Embedded,
    /// A folder in diffusers layout.
    Folder(PathBuf),
}

/// How an engine is made. `Default` suits a host that has no wishes.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Which model.
    pub model: ModelChoice,
    /// Worker threads; all cores when absent.
    pub threads: Option<NonZeroUsize>,
    /// Bytes that a job may use; the machine's free memory when absent.
    pub memory_limit: Option<u64>,
    /// Folders with further attribute files (`*.toml`).
    pub attribute_folders: Vec<PathBuf>,
}

/// A model with its attributes; shared freely between threads.
#[derive(Clone, Debug)]
pub struct Engine {}

/// A layer's patch at the model's size and what to do to it; holds nothing of the host's buffer.
#[derive(Debug)]
pub struct Request {}

/// A finished edit, kept at the model's size and rendered onto host pixels on demand.
#[derive(Debug)]
pub struct Edit {}

impl Engine {
    /// Checks the options; reads no weights yet.
    pub fn new(_options: EngineOptions) -> Result<Self> {
        Err(Error::new(Code::Unsupported, "not yet"))
    }

    /// Reads the weights now instead of at the first edit.
    pub fn load(&self, _control: &Control) -> Result<()> {
        Err(Error::new(Code::Unsupported, "not yet"))
    }

    /// Model, CPU path, memory and versions, for people and programs (JSON object, UTF-8).
    pub fn describe(&self) -> Result<String> {
        Err(Error::new(Code::Unsupported, "not yet"))
    }

    /// The attributes that can be named in a recipe, and which models serve them (JSON array).
    pub fn attributes(&self) -> Result<String> {
        Err(Error::new(Code::Unsupported, "not yet"))
    }

    /// Checks layer, mask and recipe, forecasts the memory and copies what the model will see.
    pub fn read(
        &self,
        _layer: &LayerView<'_>,
        _mask: Option<&MaskView<'_>>,
        _recipe: &Recipe,
    ) -> Result<Request> {
        Err(Error::new(Code::Unsupported, "not yet"))
    }

    /// Does the edit: encode, invert (or take both from the cache), sample, decode, fit the change.
    pub fn run(&self, _request: &Request, _control: &Control) -> Result<Edit> {
        Err(Error::new(Code::Unsupported, "not yet"))
    }

    /// Forgets cached encodings and inversions.
    pub fn purge(&self) {}
}

impl Edit {
    /// The rectangle of the layer that must be given to render `rect`.
    pub fn input_needed(&self, rect: Rect) -> Rect {
        rect
    }

    /// The smallest rectangle outside which nothing changes.
    pub fn extent(&self) -> Rect {
        Rect::default()
    }

    /// Renders `dst`'s rectangle: the pixels of `src` (same format and colour) with the edit applied.
    pub fn render(
        &self,
        _src: &LayerView<'_>,
        _mask: Option<&MaskView<'_>>,
        _dst: &mut LayerViewMut<'_>,
    ) -> Result<Tally> {
        Err(Error::new(Code::Unsupported, "not yet"))
    }

    /// As [`Edit::render`], over the layer's own buffer.
    pub fn render_in_place(
        &self,
        _layer: &mut LayerViewMut<'_>,
        _mask: Option<&MaskView<'_>>,
    ) -> Result<Tally> {
        Err(Error::new(Code::Unsupported, "not yet"))
    }

    /// The complete recipe: every default filled in, model hash, version and CPU path.
    pub fn recipe(&self) -> &Recipe {
        unimplemented!()
    }

    /// What was done and how long each phase took, warnings included (JSON object, UTF-8).
    pub fn report(&self) -> String {
        String::new()
    }
}
