//! The engine: a model, its attributes, and edits of layers with them.
//!
//! For: everything a host asks of Semblance. Not for: threads that outlive a call (the C ABI's jobs
//! add those) and files.
//!
//! A host hands a layer to [`Engine::read`], which keeps only a small patch of it; [`Engine::run`]
//! does the slow work on that patch; [`Edit::render`] then applies the change to any rectangle of
//! the host's own pixels, in any order, from several threads.

mod cache;
mod net;
mod plan;
mod report;
mod run;
mod seat;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use once_cell::sync::OnceCell;
use semblance_kernels::{CpuPath, FpScope, Workers};
use serde_json::json;

use self::plan::Plan;
use self::report::Report;
use self::seat::Seat;
use crate::attribute::{Catalogue, ModelId};
use crate::diffusion::Schedule;
use crate::error::{Code, Error, Result};
use crate::job::{Cancel, Control, Forecast, Limit, Phase, available};
use crate::layer::{
    Change, LayerView, LayerViewMut, MaskView, Patch, Placement, Rect, Tally, copy_pixels, render,
    render_in_place, render_reduced,
};
use crate::model::Outline;
use crate::params;
use crate::recipe::{Recipe, Stamp};
use crate::weights::{Layout, ModelSource, Packs};

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
    /// Worker threads of the model's work, 1..=256, all cores when absent, and as many again for
    /// pixels, made when they are first needed. The number changes no byte.
    pub threads: Option<NonZeroUsize>,
    /// Bytes that the engine may use: weights, loaded ones too, and one job, a quarter of it for what
    /// is kept between jobs. The machine's free memory for what is still to be taken when absent.
    pub memory_limit: Option<u64>,
    /// The CPU path that computes, or several with commas between them, of which the first that this CPU has is
    /// taken: `portable`, `avx2`, `avx512`, `avx512bf16`, `amx` or `auto`. What `SEMBLANCE_CPU` in the environment
    /// says when absent, and `auto` without it: exact f32, never tiles.
    pub cpu: Option<String>,
    /// Folders with further attribute files (`*.toml`).
    pub attribute_folders: Vec<PathBuf>,
    /// Where the weights of large models are kept as they were packed, so that the next start only
    /// reads them; an empty path: nowhere. [`Packs::chosen`] when absent.
    pub packed_folder: Option<PathBuf>,
}

/// Most worker threads. Stops: an option that exhausts the process's threads.
const MAX_THREADS: usize = 256;

/// A model with its attributes; shared freely between threads: clones are one engine.
///
/// Makes no thread and reads no weights before it must. Any number of calls may run at once. The
/// engine has two thread pools, one for the model's work and one for pixels, so that reading a layer
/// and rendering tiles never wait for a run.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

/// What the clones of an engine share.
struct Shared {
    source: ModelSource,
    outline: Outline,
    schedule: Arc<Schedule>,
    catalogue: Catalogue,
    seat: Box<dyn Seat>,
    cpu_path: String,
    threads: NonZeroUsize,
    memory_limit: Option<u64>,
    pool: OnceCell<Arc<Workers>>,
    pixels: OnceCell<Arc<Workers>>,
    /// The model's hash, where it was needed before the model was.
    hash: OnceCell<String>,
    packs: Packs,
}

/// A layer's patch at the model's size and what to do to it; holds nothing of the host's buffer.
#[derive(Debug)]
pub struct Request {
    plan: Plan,
    patch: Patch,
    schedule: Arc<Schedule>,
    forecast: Forecast,
    made_by: Option<Stamp>,
}

/// A finished edit, kept at the model's size and rendered onto host pixels on demand.
#[derive(Debug)]
pub struct Edit {
    change: Change,
    placement: Placement,
    recipe: Recipe,
    report: Report,
    pool: Arc<Workers>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Checks the options and the model's configuration; reads no weights yet and starts no thread.
    ///
    /// Errors: [`Code::ModelNotFound`], [`Code::InvalidModel`], [`Code::UnsupportedModel`] for the
    /// model, [`Code::InvalidParameter`] for the options, for a `SEMBLANCE_CPU` in the environment that
    /// names no path of this CPU where no option does, and for a `SEMBLANCE_DEVICE` that this build does not serve,
    /// [`Code::Io`] for an attribute folder.
    pub fn new(options: EngineOptions) -> Result<Self> {
        let cpu = options.cpu.clone();
        Engine::on(options, |cache| seat::chosen(cpu.as_deref(), cache))
    }

    /// As [`Engine::new`], on the backend that `seat` makes to keep so many bytes between edits.
    fn on(options: EngineOptions, seat: impl FnOnce(u64) -> Result<Box<dyn Seat>>) -> Result<Self> {
        let threads = match options.threads {
            Some(threads) if threads.get() > MAX_THREADS => {
                return Err(Error::new(
                    Code::InvalidParameter,
                    format!("threads = {threads}: must be 1..={MAX_THREADS}"),
                )
                .with_hint("leave it out to use all cores")
                .with_parameter("threads"));
            }
            Some(threads) => threads,
            None => std::thread::available_parallelism()
                .unwrap_or(NonZeroUsize::MIN)
                .min(NonZeroUsize::new(MAX_THREADS).unwrap_or(NonZeroUsize::MIN)),
        };
        let seat = seat(match options.memory_limit {
            Some(limit) => cache::MAX_BYTES.min(limit / 4),
            None => cache::MAX_BYTES,
        })?;
        let source = source(&options.model)?;
        let outline = Outline::read(&source)?;
        let schedule = Arc::new(Schedule::new(outline.schedule())?);
        Ok(Engine(Arc::new(Shared {
            catalogue: Catalogue::open(&options.attribute_folders)?,
            cpu_path: seat.name(),
            seat,
            threads,
            memory_limit: options.memory_limit,
            pool: OnceCell::new(),
            pixels: OnceCell::new(),
            hash: OnceCell::new(),
            packs: Packs::chosen(options.packed_folder.as_deref()),
            source,
            outline,
            schedule,
        })))
    }

    /// Reads the weights now instead of at the first edit.
    pub fn load(&self, control: &Control) -> Result<()> {
        let shared = &self.0;
        control.tell(Phase::Load, 0.0)?;
        if shared.seat.loaded().is_none() {
            shared
                .forecast(None)
                .check(Limit::of(shared.memory_limit))?;
            let _mode = FpScope::enter();
            shared.pool()?.run(|| shared.seat.load(shared, control))?;
        }
        control.tell(Phase::Load, 1.0)
    }

    /// Model, CPU path, memory and versions, for people and programs (JSON object, UTF-8).
    pub fn describe(&self) -> Result<String> {
        let shared = &self.0;
        let model = shared.model_id();
        let outline = &shared.outline;
        let (work, weights) = (shared.most_work(2), shared.weight_bytes());
        let value = json!({
            "version": crate::VERSION,
            "recipe_version": crate::recipe::RECIPE_VERSION,
            "model": {
                "name": model.name,
                "family": model.family,
                "hash": (!model.hash.is_empty()).then_some(model.hash),
                "loaded": shared.seat.loaded().is_some(),
                "size": outline.native_size(),
                "weight_bytes": weights,
            },
            "cpu_path": shared.cpu_path,
            "cpu_best": CpuPath::best().name(),
            "threads": shared.threads,
            "memory": {
                "available": available(),
                "limit": shared.memory_limit,
                "needed": weights.saturating_add(work),
                "cached": shared.seat.cached(),
            },
            "packed": {
                "folder": shared.packs.folder().map(|folder| folder.display().to_string()),
                "bytes": shared.packs.bytes(),
                "file": shared.seat.loaded().map(|(_, kept)| kept.words()),
            },
            "attribute_problems": shared.catalogue.problems().map(Error::to_string).collect::<Vec<_>>(),
        });
        Ok(value.to_string())
    }

    /// The attributes that can be named in a recipe, and which models serve them (JSON array).
    pub fn attributes(&self) -> Result<String> {
        Ok(self.0.catalogue.to_json(&self.0.model_id()).to_string())
    }

    /// The parameters of a recipe with type, range, unit, default and help (JSON array): what
    /// dialogs, command-line help and documentation are made from.
    pub fn parameters() -> Result<String> {
        params::to_json()
    }

    /// Checks layer, mask and recipe, forecasts the memory and copies what the model will see.
    ///
    /// Errors: what [`Recipe::check`] says, [`Code::UnknownAttribute`],
    /// [`Code::AttributeNotForModel`], [`Code::InvalidAttribute`], [`Code::OutOfMemory`] when the
    /// forecast exceeds the limit, [`Code::InvalidLayer`] and [`Code::InvalidMask`].
    pub fn read(
        &self,
        layer: &LayerView<'_>,
        mask: Option<&MaskView<'_>>,
        recipe: &Recipe,
    ) -> Result<Request> {
        self.read_until(layer, mask, recipe, &Cancel::new())
    }

    /// As [`Engine::read`], given up with [`Code::Cancelled`] or [`Code::Superseded`] when `cancel`
    /// is raised: within a hundredth of the reading.
    pub fn read_until(
        &self,
        layer: &LayerView<'_>,
        mask: Option<&MaskView<'_>>,
        recipe: &Recipe,
        cancel: &Cancel,
    ) -> Result<Request> {
        let shared = &self.0;
        let plan = shared.plan(recipe)?;
        // Also finds out whether the schedule serves so many steps.
        shared.schedule.grid(plan.steps as usize)?;
        let mut forecast = Forecast::default();
        if !plan.skips() {
            forecast = shared.forecast(Some(&plan));
            forecast.check(Limit::of(shared.memory_limit))?;
        }
        let grids: Vec<(u32, u32)> = (shared.outline.grids().iter())
            .map(|g| (g.width as u32, g.height as u32))
            .collect();
        let _mode = FpScope::enter();
        let patch = shared
            .pixels()?
            .run(|| Patch::read_until(layer, mask, &grids, cancel))?;
        Ok(Request {
            plan,
            patch,
            forecast,
            schedule: Arc::clone(&shared.schedule),
            made_by: recipe.stamp.clone(),
        })
    }

    /// Does the edit: encode, invert (or take both from the cache), sample, decode, fit the change.
    ///
    /// Told of from a thread of the engine's pool. Errors: [`Code::Cancelled`] and
    /// [`Code::Superseded`] within one network block, what loading the model says,
    /// [`Code::InvalidModel`] when the model's numbers are not finite.
    pub fn run(&self, request: &Request, control: &Control) -> Result<Edit> {
        let _mode = FpScope::enter();
        let pool = self.0.pool()?;
        let edit = pool.run(|| self.0.seat.run(&self.0, request, control));
        pool.rest();
        edit
    }

    /// Forgets cached encodings and inversions.
    pub fn purge(&self) {
        self.0.seat.purge();
    }
}

impl Shared {
    /// The pool of the model's work, made when it is first needed.
    fn pool(&self) -> Result<Arc<Workers>> {
        let make = || pool("semblance", self.threads);
        self.pool.get_or_try_init(make).cloned()
    }

    /// The pool for pixels: none of its work is long, so nobody waits long for it.
    fn pixels(&self) -> Result<Arc<Workers>> {
        let make = || pool("semblance-pixels", self.threads);
        self.pixels.get_or_try_init(make).cloned()
    }

    fn weight_bytes(&self) -> u64 {
        self.seat.weight_bytes(&self.outline)
    }

    fn model_id(&self) -> ModelId {
        ModelId {
            name: self.source.name(),
            family: self.outline.family().to_owned(),
            hash: (self.seat.loaded().map(|(hash, _)| hash))
                .or(self.hash.get().map(String::as_str))
                .unwrap_or_default()
                .to_owned(),
        }
    }

    fn plan(&self, recipe: &Recipe) -> Result<Plan> {
        let model = self.model_id();
        match Plan::new(recipe, &self.catalogue, &model) {
            // An attribute may name the model by its hash, which is not known before all of it is
            // read: gigabytes, so only for an attribute that names one.
            Err(e)
                if e.code() == Code::AttributeNotForModel
                    && model.hash.is_empty()
                    && self.catalogue.may_serve_by_hash(&recipe.attributes) =>
            {
                let hash = || {
                    let layout = Layout::open(&self.source)?;
                    let size = self.weight_bytes();
                    self.packs.hash(&layout, size, &Cancel::new())
                };
                let hash = self.hash.get_or_try_init(hash)?.clone();
                Plan::new(recipe, &self.catalogue, &ModelId { hash, ..model })
            }
            plan => plan,
        }
    }

    /// What the largest picture that the model takes needs, `batch` latents at once.
    fn most_work(&self, batch: usize) -> u64 {
        let grids = self.outline.grids();
        grids
            .iter()
            .map(|g| self.outline.work_bytes(*g, batch))
            .max()
            .unwrap_or(0)
    }

    /// The forecast for loading alone, or for loading and `plan`.
    fn forecast(&self, plan: Option<&Plan>) -> Forecast {
        // Loaded weights are no longer free memory, but they are part of what a wish allows.
        let weights = match (self.seat.loaded(), self.memory_limit) {
            (Some(_), None) => 0,
            _ => self.weight_bytes(),
        };
        let Some(plan) = plan else {
            return Forecast {
                weights,
                ..Forecast::default()
            };
        };
        let batch = if plan.guidance == 1.0 { 1 } else { 2 };
        let area = self
            .outline
            .grids()
            .iter()
            .map(|g| (g.width * g.height) as u64)
            .max()
            .unwrap_or(0);
        let factor = self.outline.vae_factor().max(1) as u64;
        let latent = area / (factor * factor) * self.outline.latent_channels() as u64;
        // States and means of every step; patch, two decoded pictures; the fit's maps, in f64 on the way.
        let kept =
            4 * latent * (2 * u64::from(plan.steps) + 2) + area * (4 * 3 * 4 + 20 * 4 + 12 * 8 * 4);
        Forecast {
            weights,
            work: self.most_work(batch),
            kept,
        }
    }
}

impl Edit {
    /// The rectangle of the layer that must be given to render `rect`: the same, because a pixel
    /// depends on itself and on the model's picture alone.
    pub fn input_needed(&self, rect: Rect) -> Rect {
        rect
    }

    /// The smallest rectangle outside which nothing changes.
    pub fn extent(&self) -> Rect {
        self.placement.extent()
    }

    /// Renders `dst`'s rectangle: the pixels of `src` (same format and colour) with the edit applied.
    ///
    /// Errors with [`Code::InvalidLayer`] when `src` does not contain `dst` or differs in format.
    pub fn render(
        &self,
        src: &LayerView<'_>,
        mask: Option<&MaskView<'_>>,
        dst: &mut LayerViewMut<'_>,
    ) -> Result<Tally> {
        let _mode = FpScope::enter();
        self.pool
            .run(|| render(&self.change, &self.placement, src, mask, dst))
    }

    /// As [`Edit::render`], over the layer's own buffer.
    pub fn render_in_place(
        &self,
        layer: &mut LayerViewMut<'_>,
        mask: Option<&MaskView<'_>>,
    ) -> Result<Tally> {
        let _mode = FpScope::enter();
        self.pool
            .run(|| render_in_place(&self.change, &self.placement, layer, mask))
    }

    /// The same edit on a copy of the layer at another size, for a preview: `src` shows the layer's
    /// rectangle `part`, reduced (or enlarged) by the host; `mask` and `dst` are in the copy's
    /// coordinates. With `part` equal to `src`'s rectangle it is [`Edit::render`], byte for byte.
    ///
    /// Errors as [`Edit::render`], and with [`Code::InvalidLayer`] for an empty `part`.
    pub fn render_reduced(
        &self,
        part: Rect,
        src: &LayerView<'_>,
        mask: Option<&MaskView<'_>>,
        dst: &mut LayerViewMut<'_>,
    ) -> Result<Tally> {
        let _mode = FpScope::enter();
        self.pool.run(|| {
            let whole = src.rect();
            copy_pixels(src, dst)?;
            render_reduced(&self.change, &self.placement, (part, whole), dst, mask)
        })
    }

    /// As [`Edit::render_reduced`], over the copy's own buffer, which is the whole copy.
    pub fn render_reduced_in_place(
        &self,
        part: Rect,
        copy: &mut LayerViewMut<'_>,
        mask: Option<&MaskView<'_>>,
    ) -> Result<Tally> {
        let _mode = FpScope::enter();
        self.pool.run(|| {
            let whole = copy.rect();
            render_reduced(&self.change, &self.placement, (part, whole), copy, mask)
        })
    }

    /// The complete recipe: every default filled in, model hash, version and CPU path.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// What was done and how long each phase took, warnings included (JSON object, UTF-8).
    pub fn report(&self) -> String {
        serde_json::to_string(&self.report).unwrap_or_default()
    }
}

/// A pool whose threads compute in the default floating-point mode.
fn pool(name: &'static str, threads: NonZeroUsize) -> Result<Arc<Workers>> {
    let _mode = FpScope::enter();
    Workers::new(name, threads.get())
        .map(Arc::new)
        .map_err(|e| {
            Error::new(Code::OutOfMemory, format!("threads = {threads}: {e}"))
                .with_hint("ask for fewer threads")
                .with_parameter("threads")
        })
}

/// Where the weights of `choice` are.
fn source(choice: &ModelChoice) -> Result<ModelSource> {
    match choice {
        ModelChoice::Folder(path) => Ok(ModelSource::Directory(path.clone())),
        #[cfg(feature = "embedded-model")]
        ModelChoice::Embedded if !semblance_model_mini::FILES.is_empty() => {
            Ok(ModelSource::Embedded(semblance_model_mini::FILES))
        }
        ModelChoice::Embedded => Err(Error::new(
            Code::ModelNotFound,
            "this build of the library carries no model",
        )
        .with_hint("name a folder in diffusers layout")
        .with_parameter("model")),
    }
}
