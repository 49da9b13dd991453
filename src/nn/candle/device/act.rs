//! Non-linearities and their slopes.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use candle_core::Tensor;

use crate::error::Result;
use crate::nn::Act;

/// The factor in [`Act::QuickGelu`].
const QUICK: f64 = 1.702;

/// `act` at every number.
pub(super) fn apply(x: &Tensor, act: Act) -> Result<Tensor> {
    Ok(match act {
        Act::Identity => x.clone(),
        Act::Silu => x.silu()?,
        Act::Gelu => x.gelu_erf()?,
        Act::QuickGelu => x.affine(QUICK, 0.0)?.silu()?.affine(1.0 / QUICK, 0.0)?,
        // Not candle's own, which hides what is not a number.
        Act::Relu => x.lt(0.0)?.where_cond(&x.zeros_like()?, x)?,
    })
}

/// `t` times the derivative of `act` at `x`.
pub(super) fn slope(x: &Tensor, t: &Tensor, act: Act) -> Result<Tensor> {
    let logistic = |k: f64| -> Result<Tensor> {
        let s = (x.affine(-k, 0.0)?.exp()? + 1.0)?.recip()?;
        let curve = (x.affine(k, 0.0)? * &s)?;
        Ok((&s + (curve * s.affine(-1.0, 1.0)?)?)?)
    };
    let slope = match act {
        Act::Identity => return Ok(t.clone()),
        Act::Silu => logistic(1.0)?,
        Act::QuickGelu => logistic(QUICK)?,
        Act::Gelu => {
            let below = x.affine(FRAC_1_SQRT_2, 0.0)?.erf()?.affine(0.5, 0.5)?;
            let density = x.sqr()?.affine(-0.5, 0.0)?.exp()?;
            let density = density.affine(1.0 / (2.0 * PI).sqrt(), 0.0)?;
            (below + (x * density)?)?
        }
        Act::Relu => return Ok(x.gt(0.0)?.where_cond(t, &t.zeros_like()?)?),
    };
    Ok((t * slope)?)
}
