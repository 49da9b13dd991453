//! Group and layer normalisation, values and derivatives: a layer norm is a group norm of one group over
//! maps of one position.
//!
//! A mean is taken over channels and columns first, then over rows, and once more over what is left after
//! the first was taken away: f32 then serves maps of a million numbers a group far from zero.

use candle_core::{Device, Tensor};

use super::{act, shape};
use crate::error::Result;
use crate::nn::derivatives::Way;
use crate::nn::{Act, Shape, mismatch};

/// A normalisation's scale and shift per channel.
#[derive(Debug)]
pub struct Norm {
    scale: Tensor,
    shift: Tensor,
    eps: f64,
}

/// A value as `n × h × w × groups × channels`, whose means are over all but `n` and `groups`.
struct Grouped<'a> {
    norm: &'a Norm,
    dims: (usize, usize, usize, usize, usize),
}

fn mean(x: &Tensor) -> Result<Tensor> {
    let (_, h, w, _, _) = x.dims5()?;
    let x = match w {
        1 => x.mean_keepdim(4)?,
        _ => x.mean_keepdim((2, 4))?,
    };
    match h {
        1 => Ok(x),
        _ => Ok(x.mean_keepdim(1)?),
    }
}

/// What is left without the mean.
fn centred(x: &Tensor) -> Result<Tensor> {
    let x = x.broadcast_sub(&mean(x)?)?;
    Ok(x.broadcast_sub(&mean(&x)?)?)
}

impl Norm {
    pub(super) fn new(device: &Device, scale: &[f32], shift: &[f32], eps: f32) -> Result<Self> {
        if scale.len() != shift.len() || scale.is_empty() {
            let what = format!("{} scales, {} shifts", scale.len(), shift.len());
            return Err(mismatch("norm", what));
        }
        Ok(Norm {
            scale: Tensor::new(scale, device)?,
            shift: Tensor::new(shift, device)?,
            eps: f64::from(eps),
        })
    }

    fn grouped(&self, s: Shape, groups: usize) -> Result<Grouped<'_>> {
        let channels = self.scale.dim(0)?;
        if s.c != channels || s.is_empty() || groups == 0 || !channels.is_multiple_of(groups) {
            let what = format!("{s:?} in {groups} groups over {channels} channels");
            return Err(mismatch("group_norm", what));
        }
        Ok(Grouped {
            norm: self,
            dims: (s.n, s.h, s.w, groups, channels / groups),
        })
    }

    /// Every position by itself.
    fn positions(&self, s: Shape) -> Result<Grouped<'_>> {
        self.grouped(Shape::map(s.rows(), 1, 1, s.c), 1)
    }

    pub(super) fn group(&self, x: &Tensor, groups: usize) -> Result<Tensor> {
        self.grouped(shape(x)?, groups)?.value(x)
    }

    pub(super) fn layer(&self, x: &Tensor) -> Result<Tensor> {
        self.positions(shape(x)?)?.value(x)
    }

    /// `t` through the derivative at `x` of the group norm, then `act`.
    pub(super) fn group_derivative(
        &self,
        x: &Tensor,
        t: &Tensor,
        (groups, act): (usize, Act),
        way: Way,
    ) -> Result<Tensor> {
        let grouped = self.grouped(shape(x)?, groups)?;
        grouped.derivative(x, t, act, way)
    }

    /// `t` through the derivative at `x` of the layer norm.
    pub(super) fn layer_derivative(&self, x: &Tensor, t: &Tensor, way: Way) -> Result<Tensor> {
        let positions = self.positions(shape(x)?)?;
        positions.derivative(x, t, Act::Identity, way)
    }
}

impl Grouped<'_> {
    fn channels(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.reshape((1, 1, 1, self.dims.3, self.dims.4))?)
    }

    /// x̂ = (x − mean) / √(variance + eps), and the factor.
    fn hat(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let x = centred(&x.reshape(self.dims)?)?;
        let variance = mean(&x.sqr()?)?;
        let factor = (variance + self.norm.eps)?.sqrt()?.recip()?;
        Ok((x.broadcast_mul(&factor)?, factor))
    }

    /// scale · x̂ + shift.
    fn scaled(&self, hat: &Tensor) -> Result<Tensor> {
        let y = hat.broadcast_mul(&self.channels(&self.norm.scale)?)?;
        Ok(y.broadcast_add(&self.channels(&self.norm.shift)?)?)
    }

    fn value(&self, x: &Tensor) -> Result<Tensor> {
        let (hat, _) = self.hat(x)?;
        Ok(self.scaled(&hat)?.reshape(x.shape())?)
    }

    fn derivative(&self, x: &Tensor, t: &Tensor, act: Act, way: Way) -> Result<Tensor> {
        let (hat, factor) = self.hat(x)?;
        let y = self.scaled(&hat)?;
        let scale = self.channels(&self.norm.scale)?;
        let t = t.reshape(self.dims)?;
        let inner = match way {
            Way::Forward => t,
            Way::Back => act::slope(&y, &t, act)?.broadcast_mul(&scale)?,
        };
        let along = hat.broadcast_mul(&mean(&(&inner * &hat)?)?)?;
        let moved = (inner.broadcast_sub(&mean(&inner)?)? - along)?.broadcast_mul(&factor)?;
        let moved = match way {
            Way::Forward => act::slope(&y, &moved.broadcast_mul(&scale)?, act)?,
            Way::Back => moved,
        };
        Ok(moved.reshape(x.shape())?)
    }
}
