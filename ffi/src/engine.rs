//! The handles behind the header's opaque pointers, and what each call does with the engine.
//!
//! For: the glue between jobs, log, buffers and `semblance::Engine`. Not for: pointers and panics,
//! which the bridge and the guard have dealt with.

use std::sync::Arc;
use std::time::Instant;

use semblance::job::Phase;
use semblance::layer::Rect;
use semblance::{Code, Edit, Engine, Recipe, Result, Tally};

use crate::buffers::{Layer, Mask, Placement};
use crate::jobs::{IfBusy, Job, Kind, Line};
use crate::log::{Entry, Level, Log};
use crate::{guard, options};

/// What a job makes: an edit, or nothing when it only loads.
type Made = Option<Edit>;

/// Behind `semblance_engine`.
pub struct EngineHandle {
    engine: Engine,
    line: Arc<Line<Made>>,
    log: Arc<Log>,
}

/// Behind `semblance_job`.
pub struct JobHandle(pub Job<Made>);

/// Behind `semblance_result`.
pub struct ResultHandle(Edit);

impl EngineHandle {
    /// An engine as `json` wishes.
    pub fn new(json: &str) -> Result<Self> {
        let (options, level) = options::parse(json)?;
        let log = Arc::new(Log::new(level));
        log.add(Level::Debug, format!("engine: {options:?}"));
        let engine = Engine::new(options)?;
        guard::settle();
        Ok(EngineHandle {
            engine,
            line: Line::new(),
            log,
        })
    }

    /// The engine itself, for queries.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The log's oldest entry.
    pub fn poll_log(&self) -> Option<Entry> {
        self.log.poll()
    }

    /// Reads the weights, as a job.
    pub fn start_load(&self) -> Result<JobHandle> {
        let (engine, log) = (self.engine.clone(), self.log.clone());
        let job = self.line.start(Kind::Final, IfBusy::Wait, move |control| {
            log.time("load", || engine.load(control))?;
            Ok(None)
        })?;
        Ok(JobHandle(job))
    }

    /// Starts an edit of what `layer` shows now.
    pub fn start(
        &self,
        (layer, mask): (&Layer<'_>, Option<&Mask>),
        recipe: &str,
        kind: Kind,
        if_busy: IfBusy,
    ) -> Result<JobHandle> {
        let recipe = Recipe::from_json(recipe)?;
        self.line.admit(kind, if_busy)?;
        // SAFETY: the header asks the host to leave layer and mask alone during the call, and the
        // views end with it.
        let (layer, mask) = unsafe { (layer.view()?, mask.map(|m| m.view()).transpose()?) };
        let request = self.engine.read(&layer, mask.as_ref(), &recipe)?;
        let (engine, log) = (self.engine.clone(), self.log.clone());
        let job = self.line.start(kind, if_busy, move |control| {
            log.time("edit", || engine.run(&request, control)).map(Some)
        })?;
        Ok(JobHandle(job))
    }

    /// Starts a final edit that reads its layer itself, when its turn comes.
    ///
    /// # Safety
    /// The pixels, the mask and the profile are there and stay as they are until the job has ended.
    pub unsafe fn start_edit(
        &self,
        layer: Layer<'static>,
        mask: Option<Mask>,
        recipe: &str,
    ) -> Result<JobHandle> {
        let recipe = Recipe::from_json(recipe)?;
        let (engine, log) = (self.engine.clone(), self.log.clone());
        let job = self.line.start(Kind::Final, IfBusy::Wait, move |control| {
            control.tell(Phase::Read, 0.0)?;
            // SAFETY: the caller's promise; the views end with this closure, before the job does.
            let views = unsafe { (layer.view()?, mask.map(|m| m.view()).transpose()?) };
            let request = log.time("read", || {
                engine.read_until(&views.0, views.1.as_ref(), &recipe, control.cancel())
            })?;
            log.time("edit", || engine.run(&request, control)).map(Some)
        })?;
        Ok(JobHandle(job))
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        self.line.close();
    }
}

impl JobHandle {
    /// What the job made; `None` from a job that only loads.
    pub fn take(&self) -> Result<Option<ResultHandle>> {
        Ok(self.0.take()?.map(ResultHandle))
    }
}

impl ResultHandle {
    /// Outside it nothing changes.
    pub fn extent(&self) -> Rect {
        self.0.extent()
    }

    /// What must be given to render `rect`.
    pub fn input_needed(&self, rect: Rect) -> Rect {
        self.0.input_needed(rect)
    }

    /// Renders `dst`; `part` is what `src` shows of the layer where it shows it at another size.
    pub fn render(
        &self,
        part: Option<Rect>,
        src: &Layer<'_>,
        mask: Option<&Mask>,
        dst: &Layer<'_>,
    ) -> Result<Tally> {
        let placement = src.placement(mask, dst)?;
        // SAFETY: the header asks the host to leave all three alone during the call; `placement`
        // says that what is written shares no byte with what is read, and the views end here.
        unsafe {
            let mask = mask.map(|m| m.view()).transpose()?;
            let (edit, mask, mut out) = (&self.0, mask.as_ref(), dst.view_mut()?);
            match (placement, part) {
                (Placement::Same, None) => edit.render_in_place(&mut out, mask),
                (Placement::Same, Some(part)) => edit.render_reduced_in_place(part, &mut out, mask),
                (Placement::Apart, None) => edit.render(&src.view()?, mask, &mut out),
                (Placement::Apart, Some(part)) => {
                    edit.render_reduced(part, &src.view()?, mask, &mut out)
                }
            }
        }
    }

    /// The complete recipe as JSON.
    pub fn recipe(&self) -> Result<String> {
        self.0.recipe().to_json()
    }

    /// The report as JSON.
    pub fn report(&self) -> String {
        self.0.report()
    }
}

impl Log {
    /// Notes how long `work` took and how it ended.
    fn time<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.add(Level::Debug, format!("{what}: begins"));
        let begin = Instant::now();
        let result = work();
        let ms = begin.elapsed().as_millis();
        match &result {
            Ok(_) => self.add(Level::Info, format!("{what}: done in {ms} ms")),
            Err(e) if matches!(e.code(), Code::Cancelled | Code::Superseded) => {
                self.add(
                    Level::Info,
                    format!("{what}: {} after {ms} ms", e.code().name()),
                );
            }
            Err(e) => self.add(Level::Error, format!("{what}: {e}")),
        }
        result
    }
}
