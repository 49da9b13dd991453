//! Weights by name into a backend's handles, every shape checked.

use crate::error::Result;
use crate::job::Cancel;
use crate::nn::{ConvSpec, LinearSpec, Ops};
use crate::weights::Tensors;

/// A place in a model's tree of weights, from which layers are made.
pub struct Builder<'a, O: Ops> {
    ops: &'a O,
    tensors: &'a dyn Tensors,
    cancel: &'a Cancel,
    path: String,
}

impl<'a, O: Ops> Builder<'a, O> {
    /// The root of `tensors`. `cancel` is polled at every layer.
    pub fn new(ops: &'a O, tensors: &'a dyn Tensors, cancel: &'a Cancel) -> Self {
        Builder {
            ops,
            tensors,
            cancel,
            path: String::new(),
        }
    }

    /// The place `name` under this one.
    pub fn at(&self, name: &str) -> Self {
        Builder {
            path: self.name(name),
            ..*self
        }
    }

    fn name(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    /// Whether there is a tensor `name` here.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.has(&self.name(name))
    }

    /// The numbers of the tensor `name`.
    pub fn numbers(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.cancel.check()?;
        self.tensors.get(&self.name(name), shape)
    }

    /// A square convolution with bias.
    pub fn conv(&self, name: &str, inputs: usize, outputs: usize, kind: Kind) -> Result<O::Conv> {
        let (size, stride, padding) = match kind {
            Kind::Same3 => (3, 1, (1, 1)),
            Kind::Point => (1, 1, (0, 0)),
            Kind::Down => (3, 2, (1, 1)),
            Kind::DownAfter => (3, 2, (0, 1)),
        };
        let at = self.at(name);
        self.ops.make_conv(ConvSpec {
            kernel: &at.numbers("weight", &[outputs, inputs, size, size])?,
            bias: &at.numbers("bias", &[outputs])?,
            inputs,
            outputs,
            size,
            stride,
            padding,
        })
    }

    /// A linear layer with bias.
    pub fn linear(&self, name: &str, inputs: usize, outputs: usize) -> Result<O::Linear> {
        let at = self.at(name);
        let bias = at.numbers("bias", &[outputs])?;
        at.make_linear(inputs, outputs, &[outputs, inputs], Some(&bias))
    }

    /// A linear layer without bias.
    pub fn linear_no_bias(&self, name: &str, inputs: usize, outputs: usize) -> Result<O::Linear> {
        self.at(name)
            .make_linear(inputs, outputs, &[outputs, inputs], None)
    }

    /// A linear layer with bias whose weights are written as those of a 1 × 1 convolution.
    pub fn linear_from_point(
        &self,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<O::Linear> {
        let at = self.at(name);
        let bias = at.numbers("bias", &[outputs])?;
        at.make_linear(inputs, outputs, &[outputs, inputs, 1, 1], Some(&bias))
    }

    /// A linear layer with bias that gives values and, after them, as many gates.
    pub fn gate(&self, name: &str, inputs: usize, outputs: usize) -> Result<O::Linear> {
        let at = self.at(name);
        self.ops.make_gate(LinearSpec {
            weight: &at.numbers("weight", &[outputs, inputs])?,
            bias: Some(&at.numbers("bias", &[outputs])?),
            inputs,
            outputs,
        })
    }

    fn make_linear(
        &self,
        inputs: usize,
        outputs: usize,
        shape: &[usize],
        bias: Option<&[f32]>,
    ) -> Result<O::Linear> {
        self.ops.make_linear(LinearSpec {
            weight: &self.numbers("weight", shape)?,
            bias,
            inputs,
            outputs,
        })
    }

    /// A group or layer normalisation.
    pub fn norm(&self, name: &str, channels: usize, eps: f64) -> Result<O::Norm> {
        let at = self.at(name);
        let scale = at.numbers("weight", &[channels])?;
        let shift = at.numbers("bias", &[channels])?;
        self.ops.make_norm(&scale, &shift, eps as f32)
    }
}

/// The convolutions that these networks have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 3 × 3, same size.
    Same3,
    /// 1 × 1.
    Point,
    /// 3 × 3, half the size, padded on all sides.
    Down,
    /// 3 × 3, half the size, padded at the bottom and at the right only.
    DownAfter,
}
