//! Forward mode: a value and its tangent side by side.
//!
//! For: the exact derivative of a model along a direction (a Jacobian-vector product), at about twice the
//! cost of the value and with nothing kept. Not for: gradients ([`super::tape`]).

use super::derivatives::Derivatives;
use super::mismatch;
use super::step::{Reading, Step};
use crate::error::Result;

/// The reading, over a backend.
#[derive(Clone, Copy, Debug)]
pub struct Dual<'a, O> {
    ops: &'a O,
}

/// A value and its tangent.
#[derive(Clone, Debug)]
pub struct Moving<T> {
    /// The value.
    pub value: T,
    /// Where it moves; `None` where it does not.
    pub tangent: Option<T>,
}

impl<'a, O: Derivatives> Dual<'a, O> {
    /// The reading over `ops`.
    pub fn new(ops: &'a O) -> Self {
        Dual { ops }
    }

    /// `value`, moving along `tangent`.
    ///
    /// Errors when their shapes differ.
    pub fn moving(&self, value: O::Tensor, tangent: O::Tensor) -> Result<Moving<O::Tensor>> {
        let (x, dx) = (self.ops.shape(&value)?, self.ops.shape(&tangent)?);
        match x == dx {
            true => Ok(Moving {
                value,
                tangent: Some(tangent),
            }),
            false => Err(mismatch("moving", format!("{x:?} along {dx:?}"))),
        }
    }
}

impl<O: Derivatives> Reading for Dual<'_, O> {
    type Over = O;
    type Value = Moving<O::Tensor>;

    fn label(&self) -> &'static str {
        "dual"
    }

    fn over(&self) -> &O {
        self.ops
    }

    fn constant(&self, value: O::Tensor) -> Self::Value {
        Moving {
            value,
            tangent: None,
        }
    }

    fn plain<'x>(&self, x: &'x Self::Value) -> &'x O::Tensor {
        &x.value
    }

    fn step(&self, step: Step<O>, x: &[&Self::Value]) -> Result<Self::Value> {
        let values: Vec<_> = x.iter().map(|x| &x.value).collect();
        let tangents: Vec<_> = x.iter().map(|x| x.tangent.as_ref()).collect();
        let value = step.run(self.ops, &values)?;
        let tangent = match tangents.iter().any(Option::is_some) {
            true => Some(step.tangent(self.ops, &values, &tangents)?),
            false => None,
        };
        Ok(Moving { value, tangent })
    }
}
