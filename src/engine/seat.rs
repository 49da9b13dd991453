//! What an engine computes on: a backend, the model once it is loaded there, and what is kept from one edit
//! to the next.
//!
//! For: choosing the backend in one place, so that the engine is one text for all of them. Not for: pixels,
//! which are the CPU's everywhere.

use std::sync::Arc;

use once_cell::sync::OnceCell;

use super::cache::Cache;
use super::{Edit, Request, Shared, run};
use crate::error::Result;
use crate::job::Control;
use crate::model::{Outline, Pipeline};
use crate::nn::Ops;
use crate::nn::candle::device::Place;
use crate::nn::native::Native;
use crate::weights::Kept;

/// A backend, whichever it is.
pub(super) trait Seat: Send + Sync {
    /// The backend's name, as in reports.
    fn name(&self) -> String;
    /// Bytes of the weights of the model that `outline` is of, once they are loaded.
    fn weight_bytes(&self, outline: &Outline) -> u64;
    /// Reads the weights, if nobody did.
    fn load(&self, shared: &Shared, control: &Control) -> Result<()>;
    /// The loaded model's hash, and what became of its packed weights.
    fn loaded(&self) -> Option<(&str, &Kept)>;
    /// Does an edit.
    fn run(&self, shared: &Shared, request: &Request, control: &Control) -> Result<Edit>;
    /// Bytes that are kept between edits.
    fn cached(&self) -> u64;
    /// Forgets them.
    fn purge(&self);
}

/// The backend `O` with what is loaded and kept.
pub(super) struct On<O: Ops> {
    ops: O,
    model: OnceCell<Arc<Pipeline<O>>>,
    pub cache: Cache<O>,
}

/// The backend that the environment asks for, on the CPU the path that `cpu` asks for, to keep at most `cache` bytes
/// between edits.
///
/// Errors with [`crate::Code::InvalidParameter`] for a device or a CPU path that is not served.
pub(super) fn chosen(cpu: Option<&str>, cache: u64) -> Result<Box<dyn Seat>> {
    match Place::chosen()? {
        None | Some(Place::Cpu) => Ok(Box::new(On::new(Native::chosen(cpu)?, cache))),
        Some(place) => on_device(place, cache),
    }
}

#[cfg(any(feature = "cuda", feature = "metal"))]
fn on_device(place: Place, cache: u64) -> Result<Box<dyn Seat>> {
    let ops = crate::nn::candle::OnDevice::at(place)?;
    Ok(Box::new(On::new(ops, cache)))
}

/// A library without cards carries nothing for them.
#[cfg(not(any(feature = "cuda", feature = "metal")))]
fn on_device(place: Place, _: u64) -> Result<Box<dyn Seat>> {
    Err(place.unserved())
}

impl<O: Ops + Clone + 'static> On<O> {
    /// `ops`, with nothing loaded yet.
    pub fn new(ops: O, cache: u64) -> Self {
        On {
            ops,
            model: OnceCell::new(),
            cache: Cache::new(cache),
        }
    }

    /// The model, if it is loaded.
    pub fn model(&self) -> Option<&Arc<Pipeline<O>>> {
        self.model.get()
    }

    /// The model, loaded when it is first needed. Two runs that load at once share one load, and each
    /// can be cancelled.
    pub fn loaded_model(&self, shared: &Shared, control: &Control) -> Result<Arc<Pipeline<O>>> {
        if let Some(model) = self.model.get() {
            return Ok(Arc::clone(model));
        }
        let (ops, cancel) = (self.ops.clone(), control.cancel());
        let model = Pipeline::load_kept(ops, &shared.source, &shared.packs, cancel)?;
        Ok(Arc::clone(self.model.get_or_init(|| model)))
    }
}

impl<O: Ops + Clone + 'static> Seat for On<O> {
    fn name(&self) -> String {
        self.ops.name()
    }

    fn weight_bytes(&self, outline: &Outline) -> u64 {
        outline.weight_bytes(&self.ops)
    }

    fn load(&self, shared: &Shared, control: &Control) -> Result<()> {
        self.loaded_model(shared, control).map(drop)
    }

    fn loaded(&self) -> Option<(&str, &Kept)> {
        self.model.get().map(|m| (m.model_hash(), m.kept()))
    }

    fn run(&self, shared: &Shared, request: &Request, control: &Control) -> Result<Edit> {
        run::run(shared, self, request, control)
    }

    fn cached(&self) -> u64 {
        self.cache.bytes()
    }

    fn purge(&self) {
        self.cache.purge();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use semblance_kernels::{Cpu, CpuPath};

    use super::*;
    use crate::engine::{Engine, EngineOptions, ModelChoice};
    use crate::layer::{
        AlphaState, ChannelOrder, ColorSpace, Format, LayerView, LayerViewMut, Rect, SampleType,
    };
    use crate::nn::candle::OnDevice;
    use crate::recipe::Recipe;

    const RECT: Rect = Rect {
        x: 0,
        y: 0,
        width: 40,
        height: 32,
    };
    const RGB: Format = Format {
        samples: SampleType::F32,
        order: ChannelOrder::Rgb,
        alpha: AlphaState::None,
    };
    const STRIDE: i64 = 12 * RECT.width as i64;

    /// The tiny model on the backend `ops`.
    fn engine<O: Ops + Clone + 'static>(ops: O) -> Engine {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
        let options = EngineOptions {
            model: ModelChoice::Folder(folder),
            ..EngineOptions::default()
        };
        Engine::on(options, |cache| Ok(Box::new(On::new(ops, cache)))).unwrap()
    }

    fn picture() -> Vec<u8> {
        let count = 3 * RECT.width * RECT.height;
        let number = |i: u32| 0.5 + 0.4 * (i as f32 * 0.031).sin();
        (0..count).flat_map(|i| number(i).to_ne_bytes()).collect()
    }

    fn numbers(picture: &[u8]) -> Vec<f32> {
        let (words, _) = picture.as_chunks::<4>();
        words.iter().map(|word| f32::from_ne_bytes(*word)).collect()
    }

    /// The largest difference.
    fn apart(a: &[f32], b: &[f32]) -> f32 {
        let pairs = a.iter().zip(b);
        pairs.fold(0.0, |most, (a, b)| most.max((a - b).abs()))
    }

    /// The edited picture, and the report.
    fn edit(engine: &Engine) -> (Vec<u8>, serde_json::Value) {
        let (data, mut out) = (picture(), picture());
        let recipe = Recipe {
            steps: Some(4),
            ..Recipe::of("fog", 1.0)
        };
        let view = LayerView::new(&data, 0, STRIDE, RECT, RGB, ColorSpace::Srgb).unwrap();
        let request = engine.read(&view, None, &recipe).unwrap();
        let edit = engine.run(&request, &Control::default()).unwrap();
        let mut to = LayerViewMut::new(&mut out, 0, STRIDE, RECT, RGB, ColorSpace::Srgb).unwrap();
        edit.render(&view, None, &mut to).unwrap();
        (out, serde_json::from_str(&edit.report()).unwrap())
    }

    #[test]
    fn an_edit_on_another_backend_is_the_same_edit_and_says_where_it_was_done() {
        let portable = Cpu::new(CpuPath::Portable).unwrap();
        let (ours, _) = edit(&engine(Native::new(portable)));
        let other = engine(OnDevice::cpu());
        let (first, report) = edit(&other);
        let changed = apart(&numbers(&ours), &numbers(&picture()));
        let error = apart(&numbers(&ours), &numbers(&first));
        assert!(
            changed > 0.0 && error < 1e-2 * changed,
            "{error} of {changed}"
        );
        assert_eq!(report["cpu_path"], "candle-device-cpu");

        let (second, report) = edit(&other);
        assert!(second == first, "not the same bytes");
        assert_eq!(
            report["cached"].to_string(),
            r#"["text","encode","invert"]"#
        );
        let described: serde_json::Value =
            serde_json::from_str(&other.describe().unwrap()).unwrap();
        assert_eq!(described["model"]["loaded"], true);
        assert!(described["memory"]["cached"].as_u64().unwrap() > 0);
        other.purge();
        let described: serde_json::Value =
            serde_json::from_str(&other.describe().unwrap()).unwrap();
        assert_eq!(described["memory"]["cached"], 0);
    }
}
