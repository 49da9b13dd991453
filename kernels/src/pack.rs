//! Weights in the order in which a tile reads them.
//!
//! For: laying out a matrix once, when a model is loaded. Not for: multiplying (`product`).
//!
//! Columns (outputs) lie in panels of two vectors, the last panel in one vector where that is
//! enough. A panel holds all inputs one after the other, and for each the panel's columns; bf16
//! inputs lie in pairs, because the instruction takes two at once. Missing inputs and columns are
//! zeros.

use std::sync::Arc;

use rayon::prelude::*;

use crate::arena::{Arena, lasting};
use crate::error::{Result, mismatch};
use crate::halves::Storage;
use crate::isa::{Cpu, Geometry, Precision};
use crate::packed::Packed;
use crate::winograd::Tiling;

/// A matrix of frozen weights, packed for one path.
#[derive(Debug)]
pub struct Weights {
    pub(crate) data: Packed,
    /// One per packed column.
    pub(crate) bias: Packed,
    pub(crate) cpu: Cpu,
    pub(crate) precision: Precision,
    pub(crate) storage: Storage,
    /// Groups of inputs that a tile reads at a pointer each.
    pub(crate) taps: usize,
    /// Inputs in one group, as given and rounded up to whole steps.
    pub(crate) inputs: usize,
    pub(crate) padded: usize,
    /// Columns as given.
    pub(crate) outputs: usize,
    pub(crate) gated: bool,
    pub(crate) panels: Panels,
}

/// How columns are shared out among panels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panels {
    /// Packed columns in all panels but the last.
    pub wide: usize,
    /// Packed columns in the last: as many, a vector, or half of one.
    pub last: usize,
    pub count: usize,
}

impl Panels {
    pub fn new(columns: usize, lanes: usize) -> Self {
        let wide = 2 * lanes;
        let rest = columns % wide;
        Panels {
            wide,
            last: if (1..=lanes).contains(&rest) {
                lanes
            } else {
                wide
            },
            count: columns.div_ceil(wide),
        }
    }

    /// The last panel in `narrow` columns where those are enough.
    pub fn narrowed(self, columns: usize, narrow: usize) -> Self {
        match (1..=narrow).contains(&(columns % self.wide)) {
            true => Panels {
                last: narrow,
                ..self
            },
            false => self,
        }
    }

    /// Packed columns of panel `p`.
    #[inline(always)]
    pub fn width(&self, p: usize) -> usize {
        if p + 1 == self.count {
            self.last
        } else {
            self.wide
        }
    }

    /// Packed columns in all panels.
    pub fn columns(&self) -> usize {
        match self.count {
            0 => 0,
            n => (n - 1) * self.wide + self.last,
        }
    }
}

/// `f32` to the nearest bf16, ties to even; a NaN stays one.
#[inline(always)]
pub(crate) fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
    let nan = (bits >> 16) | 0x40;
    (if x.is_nan() { nan } else { rounded }) as u16
}

/// A matrix to pack: `outputs × (taps · inputs)` numbers.
pub(crate) struct Plain<F: Fn(usize, usize, &mut [f32]) + Sync> {
    pub taps: usize,
    pub inputs: usize,
    pub outputs: usize,
    /// The first half of the outputs are values, the second their gates.
    pub gated: bool,
    /// Puts down the numbers of (output, input), one for every tap.
    pub numbers: F,
}

impl Weights {
    /// A linear layer: `weight` is `outputs × inputs`, `bias` one per output or none.
    pub fn linear(
        cpu: Cpu,
        weight: &[f32],
        bias: Option<&[f32]>,
        inputs: usize,
        outputs: usize,
    ) -> Result<Weights> {
        Self::checked(cpu, weight, bias, inputs, outputs, false)
    }

    /// A linear layer whose outputs are `outputs / 2` values and then as many gates, for
    /// [`crate::linear`] to give value · gelu(gate).
    pub fn gated(
        cpu: Cpu,
        weight: &[f32],
        bias: Option<&[f32]>,
        inputs: usize,
        outputs: usize,
    ) -> Result<Weights> {
        Self::checked(cpu, weight, bias, inputs, outputs, true)
    }

    fn checked(
        cpu: Cpu,
        weight: &[f32],
        bias: Option<&[f32]>,
        inputs: usize,
        outputs: usize,
        gated: bool,
    ) -> Result<Weights> {
        let fits = inputs.checked_mul(outputs) == Some(weight.len())
            && !weight.is_empty()
            && bias.is_none_or(|b| b.len() == outputs)
            && !(gated && outputs % 2 == 1);
        if !fits {
            let what = format!("{} weights for {inputs} → {outputs}", weight.len());
            return Err(mismatch("linear", what));
        }
        let plain = Plain {
            taps: 1,
            inputs,
            outputs,
            gated,
            numbers: |o: usize, i: usize, to: &mut [f32]| {
                to.fill(weight.get(o * inputs + i).copied().unwrap_or_default());
            },
        };
        Self::pack(cpu, &plain, bias)?.halved()
    }

    pub(crate) fn pack<F: Fn(usize, usize, &mut [f32]) + Sync>(
        cpu: Cpu,
        plain: &Plain<F>,
        bias: Option<&[f32]>,
    ) -> Result<Weights> {
        let layout = Self::laid_out(cpu, plain.taps, plain.inputs, plain.outputs, plain.gated);
        let Weights {
            precision,
            padded,
            panels,
            ..
        } = layout;
        let lanes = cpu.geometry(precision).lanes;
        // A packed place holds one f32, or two bf16.
        let together = 4 / precision.bytes();
        let (outputs, gated) = (plain.outputs, plain.gated);
        // The output that packed column j of panel p holds.
        let output = |p: usize, j: usize| {
            if !gated {
                let o = p * panels.wide + j;
                return (o < outputs).then_some(o);
            }
            let half = outputs / 2;
            let o = p * lanes + j % lanes;
            (o < half).then_some(if j < lanes { o } else { half + o })
        };
        let column = layout.column();
        let mut data = lasting(column * panels.columns())?;
        let fill = |(p, panel): (usize, &mut [f32])| {
            let width = panels.width(p);
            let outputs: Vec<_> = (0..width).map(|j| output(p, j)).collect();
            let mut numbers = vec![0.0; plain.taps];
            for i in 0..plain.inputs {
                for (j, o) in outputs.iter().enumerate() {
                    let Some(o) = *o else { continue };
                    (plain.numbers)(o, i, &mut numbers);
                    for (tap, x) in numbers.iter().enumerate() {
                        let at = (tap * padded + i) / together * width + j;
                        let Some(to) = panel.get_mut(at) else {
                            continue;
                        };
                        match (precision, i % 2) {
                            (Precision::F32, _) => *to = *x,
                            (Precision::Bf16, 0) => *to = f32::from_bits(u32::from(to_bf16(*x))),
                            (Precision::Bf16, _) => {
                                *to = f32::from_bits(to.to_bits() | u32::from(to_bf16(*x)) << 16);
                            }
                        }
                    }
                }
            }
        };
        // All panels but the last are equal, so the pieces are the panels.
        data.par_chunks_mut((column * panels.wide).max(1))
            .enumerate()
            .for_each(fill);
        let mut packed = lasting(panels.columns())?;
        for (i, to) in packed.iter_mut().enumerate() {
            if let Some(o) = output(i / panels.wide, i % panels.wide) {
                *to = bias.and_then(|b| b.get(o)).copied().unwrap_or_default();
            }
        }
        Ok(Weights {
            data: data.into(),
            bias: packed.into(),
            ..layout
        })
    }

    /// Weights of this shape on the path of `cpu`, without their numbers.
    pub(crate) fn laid_out(
        cpu: Cpu,
        taps: usize,
        inputs: usize,
        outputs: usize,
        gated: bool,
    ) -> Weights {
        let precision = cpu.precision();
        let Geometry { lanes, step, .. } = cpu.geometry(precision);
        Weights {
            data: Packed::default(),
            bias: Packed::default(),
            cpu,
            precision,
            storage: Storage::Ready,
            taps,
            inputs,
            padded: inputs.next_multiple_of(step),
            outputs,
            gated,
            panels: match gated {
                // A vector of values, then the vector of their gates: always both.
                true => Panels::new((outputs / 2).div_ceil(lanes) * 2 * lanes, lanes),
                false => Panels::new(outputs, lanes),
            },
        }
    }

    /// Numbers of `f32` that a packed column takes: bf16 is packed two to one.
    pub(crate) fn column(&self) -> usize {
        self.taps * self.padded * self.precision.bytes() / 4
    }

    /// The same weights without bias, which is what a tangent goes through; the packed numbers are
    /// shared.
    pub fn without_bias(&self) -> Result<Weights> {
        Ok(Weights {
            bias: lasting(self.bias.len())?.into(),
            ..self.share()
        })
    }

    /// Gated weights as a plain layer: a vector of values and a vector of their gates by turns, zeros
    /// where there is no output. For [`crate::gate_tangent`] and [`crate::geglu_cotangent`]; the packed
    /// numbers are shared.
    ///
    /// Errors when the layer has no gates.
    pub fn opened(&self) -> Result<Weights> {
        match self.gated {
            true => Ok(Weights {
                outputs: self.panels.columns(),
                gated: false,
                ..self.share()
            }),
            false => Err(mismatch("opened", "a layer without gates")),
        }
    }

    /// The transposed weights of a linear layer, without bias: what a cotangent goes back through. They
    /// lie in a buffer of `room`, or of their own.
    ///
    /// Errors for a convolution's weights and for gated ones, which are [`Weights::opened`] first.
    pub fn transposed(&self, room: Option<&Arc<Arena>>) -> Result<Weights> {
        if self.taps != 1 || self.gated {
            return Err(mismatch("transposed", "a convolution or a gated layer"));
        }
        self.exchanged(Tiling::Direct, room)
    }

    fn share(&self) -> Weights {
        Weights {
            data: self.data.clone(),
            bias: self.bias.clone(),
            ..*self
        }
    }

    /// The number, as rounded, that packed column `column` has for input `input` of group `tap`.
    pub(crate) fn number(&self, column: usize, tap: usize, input: usize) -> f32 {
        let step = match self.precision {
            Precision::F32 => 1,
            Precision::Bf16 => 2,
        };
        let wide = self.panels.wide;
        let (panel, j) = (column / wide, column % wide);
        let row = (tap * self.padded + input) / step;
        let at =
            panel * wide * (self.taps * self.padded / step) + row * self.panels.width(panel) + j;
        if self.storage.is_half() {
            return self.half(at);
        }
        let x = self.data.get(at).copied().unwrap_or_default();
        match (self.precision, input % 2) {
            (Precision::F32, _) => x,
            (Precision::Bf16, 0) => f32::from_bits(x.to_bits() << 16),
            (Precision::Bf16, _) => f32::from_bits(x.to_bits() & 0xFFFF_0000),
        }
    }

    /// Inputs per position.
    pub fn inputs(&self) -> usize {
        self.taps * self.inputs
    }

    /// Numbers per position of the result; half the given outputs for a gated layer.
    pub fn outputs(&self) -> usize {
        match self.gated {
            true => self.outputs / 2,
            false => self.outputs,
        }
    }

    /// Whether it gives values times the gelu of their gates.
    pub fn is_gated(&self) -> bool {
        self.gated
    }

    /// Bytes of packed weights.
    pub fn bytes(&self) -> usize {
        4 * (self.data.len() + self.bias.len())
    }
}
