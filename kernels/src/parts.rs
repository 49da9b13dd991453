//! Packed layers taken apart into numbers and put together again, so that they can be kept in a file.
//!
//! For: starting without packing. Parts say nothing of themselves: what is put together from those of
//! another layer, path or version of this crate is refused only where their lengths tell. Not for: files.

use crate::conv::{Conv, Window};
use crate::halves::Storage;
use crate::isa::{Cpu, Precision};
use crate::pack::Weights;
use crate::packed::Packed;
use crate::winograd::Tiling;

impl Weights {
    /// The packed numbers, for [`Weights::linear_of`] or [`Weights::gated_of`]; nothing is copied.
    pub fn parts(&self) -> Vec<Packed> {
        // Every field, so that whoever adds numbers to a layer is made to keep them too.
        let Weights {
            data,
            bias,
            cpu: _,
            precision: _,
            storage,
            taps: _,
            inputs: _,
            padded: _,
            outputs: _,
            gated: _,
            panels: _,
        } = self;
        let code = vec![storage.code()].into_boxed_slice();
        vec![data.clone(), bias.clone(), code.into()]
    }

    /// The linear layer of `inputs` and `outputs` that had these parts on the path of `cpu`; `None`
    /// where their number or lengths are not those of such a layer.
    pub fn linear_of(
        cpu: Cpu,
        inputs: usize,
        outputs: usize,
        parts: Vec<Packed>,
    ) -> Option<Weights> {
        Self::laid_out(cpu, 1, inputs, outputs, false).with(parts)
    }

    /// As [`Weights::linear_of`], for a layer made by [`Weights::gated`].
    pub fn gated_of(
        cpu: Cpu,
        inputs: usize,
        outputs: usize,
        parts: Vec<Packed>,
    ) -> Option<Weights> {
        Self::laid_out(cpu, 1, inputs, outputs, true).with(parts)
    }

    /// A layout with its numbers.
    fn with(self, parts: Vec<Packed>) -> Option<Weights> {
        let [data, bias, code] = <[Packed; 3]>::try_from(parts).ok()?;
        let columns = self.panels.columns();
        let storage = Storage::coded(*code.first()?)?;
        let numbers = self.column().checked_mul(columns)?;
        let places = match (storage.is_half(), self.precision) {
            (false, _) => numbers,
            (true, Precision::F32) => numbers.div_ceil(2),
            (true, Precision::Bf16) => return None,
        };
        let fits = data.len() == places && bias.len() == columns && code.len() == 1;
        fits.then_some(Weights {
            data,
            bias,
            storage,
            ..self
        })
    }
}

impl Conv {
    /// The packed numbers, for [`Conv::of`]; nothing is copied.
    pub fn parts(&self) -> Vec<Packed> {
        let Conv {
            weights,
            inputs: _,
            window: _,
            gathers: _,
            tiling: _,
            zeros: _,
        } = self;
        weights.parts()
    }

    /// The convolution of `inputs` and `outputs`, computed as `tiling` says, that had these parts on the
    /// path of `cpu`; `None` where their number or lengths are not those of such a layer.
    pub fn of(
        cpu: Cpu,
        (inputs, outputs): (usize, usize),
        window: Window,
        tiling: Tiling,
        parts: Vec<Packed>,
    ) -> Option<Conv> {
        if !tiling.fits(window) {
            return None;
        }
        let area = window.size.checked_mul(window.size)?;
        let (taps, inputs_of_one) = match (tiling, Conv::gathers(inputs, window)) {
            (Tiling::Direct, true) => (1, inputs.checked_mul(area)?),
            (Tiling::Direct, false) => (area, inputs),
            _ => (tiling.products(), inputs),
        };
        let layout = Weights::laid_out(cpu, taps, inputs_of_one, outputs, false);
        let weights = layout.with(parts)?;
        // Tiles take them as they lie.
        let fits = tiling == Tiling::Direct || !weights.storage.is_half();
        fits.then(|| Conv::over(weights, inputs, window, tiling).ok())?
    }
}
