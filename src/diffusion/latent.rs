//! A latent as plain numbers, so that samplers need no tensor library.

use crate::error::{Code, Error, Result};

/// One latent: `channels × height × width` numbers, row-major (CHW), scaled to about unit variance.
#[derive(Clone, Debug, PartialEq)]
pub struct Latent {
    /// The numbers, CHW.
    pub data: Vec<f32>,
    /// Channels (4 for Stable Diffusion).
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Latent {
    /// A latent of `shape` (channels, height, width).
    ///
    /// Fails with [`Code::Internal`] when `data` has another length than the shape says.
    pub fn new(data: Vec<f32>, shape: [usize; 3]) -> Result<Self> {
        let [channels, height, width] = shape;
        let wanted = channels
            .checked_mul(height)
            .and_then(|n| n.checked_mul(width));
        if wanted != Some(data.len()) || data.is_empty() {
            return Err(Error::new(
                Code::Internal,
                format!(
                    "a latent of {} numbers: must be {channels}×{height}×{width} and not empty",
                    data.len()
                ),
            ));
        }
        Ok(Latent {
            data,
            channels,
            height,
            width,
        })
    }

    /// Channels, height, width.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// Standard deviation of each channel over its area, in f64 sums, so that the order of the work
    /// elsewhere cannot change it.
    pub fn deviations(&self) -> Vec<f32> {
        let area = (self.height * self.width).max(1);
        self.data
            .chunks(area)
            .map(|plane| {
                let n = plane.len() as f64;
                let mean = plane.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
                let square = plane.iter().map(|&v| (f64::from(v) - mean).powi(2));
                (square.sum::<f64>() / n).sqrt() as f32
            })
            .collect()
    }

    /// `f` of the numbers of two latents of one shape, pair by pair.
    pub(crate) fn zip(&self, other: &Latent, f: impl Fn(f32, f32) -> f32) -> Latent {
        debug_assert_eq!(self.shape(), other.shape());
        Latent {
            data: (self.data.iter().zip(&other.data))
                .map(|(&a, &b)| f(a, b))
                .collect(),
            ..*self
        }
    }
}
