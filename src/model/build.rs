//! Weights by name into a backend's handles, every shape checked.

use crate::error::Result;
use crate::job::Cancel;
use crate::nn::{ConvSpec, LinearSpec, Ops, Packed, transpose};
use crate::weights::{Pack, Tensors};

/// A place in a model's tree of weights, from which layers are made.
pub struct Builder<'a, O: Ops> {
    ops: &'a O,
    tensors: &'a dyn Tensors,
    cancel: &'a Cancel,
    path: String,
    map: Option<(usize, usize)>,
    /// Where packed layers are kept, and the part of the model that this is.
    pack: Option<(&'a Pack, &'static str)>,
}

impl<'a, O: Ops> Builder<'a, O> {
    /// The root of `tensors`. `cancel` is polled at every layer.
    pub fn new(ops: &'a O, tensors: &'a dyn Tensors, cancel: &'a Cancel) -> Self {
        Builder {
            ops,
            tensors,
            cancel,
            path: String::new(),
            map: None,
            pack: None,
        }
    }

    /// The same, its layers taken out of `pack` or kept in it as those of `part`.
    pub(crate) fn kept_in(self, pack: &'a Pack, part: &'static str) -> Self {
        Builder {
            pack: Some((pack, part)),
            ..self
        }
    }

    /// The place `name` under this one.
    pub fn at(&self, name: &str) -> Self {
        Builder {
            path: self.name(name),
            ..*self
        }
    }

    /// The backend that layers are made for.
    pub fn ops(&self) -> &'a O {
        self.ops
    }

    /// This place, whose convolutions will mostly give maps of `rows` × `columns`: what the model was
    /// trained at. Others are as right, and may be slower.
    pub fn on(&self, rows: usize, columns: usize) -> Self {
        Builder {
            path: self.path.clone(),
            map: Some((rows, columns)),
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
        let shape = ConvSpec {
            kernel: &[],
            bias: &[],
            inputs,
            outputs,
            size,
            stride,
            padding,
            map: self.map,
        };
        at.kept(
            |parts| self.ops.conv_of(shape, parts),
            || {
                self.ops.make_conv(ConvSpec {
                    kernel: &at.numbers("weight", &[outputs, inputs, size, size])?,
                    bias: &at.numbers("bias", &[outputs])?,
                    ..shape
                })
            },
            |conv| self.ops.conv_parts(conv),
        )
    }

    /// What `of` puts together from the parts kept here, or else what `make` makes, kept as `parts`.
    fn kept<T>(
        &self,
        of: impl FnOnce(Vec<Packed>) -> Option<T>,
        make: impl FnOnce() -> Result<T>,
        parts: impl FnOnce(&T) -> Vec<Packed>,
    ) -> Result<T> {
        self.cancel.check()?;
        let Some((pack, part)) = self.pack else {
            return make();
        };
        let name = format!("{part}/{}", self.path);
        if let Some(whole) = pack.take(&name, of) {
            return Ok(whole);
        }
        let made = make()?;
        pack.keep(&name, || parts(&made));
        Ok(made)
    }

    /// The numbers of a tensor that is large and used as it is.
    pub fn table(&self, name: &str, shape: &[usize]) -> Result<Packed> {
        let count: usize = shape.iter().product();
        self.at(name).kept(
            |parts| parts.into_iter().next().filter(|x| x.len() == count),
            || Ok(Packed::copy(&self.numbers(name, shape)?)?),
            |table| vec![table.clone()],
        )
    }

    /// A linear layer with bias.
    pub fn linear(&self, name: &str, inputs: usize, outputs: usize) -> Result<O::Linear> {
        self.make_linear(name, (inputs, outputs), &[outputs, inputs], true)
    }

    /// A linear layer without bias.
    pub fn linear_no_bias(&self, name: &str, inputs: usize, outputs: usize) -> Result<O::Linear> {
        self.make_linear(name, (inputs, outputs), &[outputs, inputs], false)
    }

    /// A linear layer with bias whose weights are written as those of a 1 × 1 convolution.
    pub fn linear_from_point(
        &self,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<O::Linear> {
        self.make_linear(name, (inputs, outputs), &[outputs, inputs, 1, 1], true)
    }

    /// A linear layer without bias for what [`Ops::patches`] makes of `inputs` channels, `size` a side,
    /// whose weights are written as those of a convolution.
    pub fn linear_over_patches(
        &self,
        name: &str,
        (inputs, size): (usize, usize),
        outputs: usize,
    ) -> Result<O::Linear> {
        let shape = [outputs, inputs, size, size];
        let kernel = self.at(name).numbers("weight", &shape)?;
        let mut weight = vec![0.0; kernel.len()];
        let area = size * size;
        let rows = kernel.chunks(inputs * area);
        for (to, from) in weight.chunks_mut(inputs * area).zip(rows) {
            transpose(from, to, inputs, area);
        }
        self.ops.make_linear(LinearSpec {
            weight: &weight,
            bias: None,
            inputs: inputs * area,
            outputs,
        })
    }

    /// A linear layer with bias that gives values and, after them, as many gates.
    pub fn gate(&self, name: &str, inputs: usize, outputs: usize) -> Result<O::Linear> {
        let at = self.at(name);
        let shape = LinearSpec {
            weight: &[],
            bias: None,
            inputs,
            outputs,
        };
        at.kept(
            |parts| self.ops.gate_of(shape, parts),
            || {
                self.ops.make_gate(LinearSpec {
                    weight: &at.numbers("weight", &[outputs, inputs])?,
                    bias: Some(&at.numbers("bias", &[outputs])?),
                    ..shape
                })
            },
            |gate| self.ops.linear_parts(gate),
        )
    }

    fn make_linear(
        &self,
        name: &str,
        (inputs, outputs): (usize, usize),
        written: &[usize],
        biased: bool,
    ) -> Result<O::Linear> {
        let at = self.at(name);
        let shape = LinearSpec {
            weight: &[],
            bias: None,
            inputs,
            outputs,
        };
        let make = || {
            let bias = biased.then(|| at.numbers("bias", &[outputs]));
            self.ops.make_linear(LinearSpec {
                weight: &at.numbers("weight", written)?,
                bias: bias.transpose()?.as_deref(),
                ..shape
            })
        };
        at.kept(
            |parts| self.ops.linear_of(shape, parts),
            make,
            |linear| self.ops.linear_parts(linear),
        )
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
