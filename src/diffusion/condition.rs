//! What the network reads beside the noisy latent: a text embedding as plain numbers.

use crate::error::{Code, Error, Result};

/// A text embedding: `tokens × width` numbers, row-major. Mixing is arithmetic on these numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    data: Vec<f32>,
    tokens: usize,
    width: usize,
}

impl Condition {
    /// The last hidden state of a text encoder: `tokens × width` finite numbers.
    ///
    /// Fails with [`Code::InvalidModel`] when the length is another or a number is not finite.
    pub fn new(data: Vec<f32>, tokens: usize, width: usize) -> Result<Self> {
        if tokens.checked_mul(width) != Some(data.len()) || data.is_empty() {
            return Err(Error::new(
                Code::InvalidModel,
                format!(
                    "a text embedding of {} numbers: must be {tokens}×{width} and not empty",
                    data.len()
                ),
            ));
        }
        if data.iter().any(|v| !v.is_finite()) {
            return Err(Error::new(
                Code::InvalidModel,
                "a text embedding has a number that is not finite",
            )
            .with_hint("the weights of the text encoder are damaged: fetch the model again"));
        }
        Ok(Condition {
            data,
            tokens,
            width,
        })
    }

    /// The numbers, token by token.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// How many tokens (32 for the mini model, 77 for Stable Diffusion).
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Numbers per token.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Fails when `other` cannot be mixed with this one.
    pub fn check_same_shape(&self, other: &Condition) -> Result<()> {
        if (self.tokens, self.width) == (other.tokens, other.width) {
            return Ok(());
        }
        Err(Error::new(
            Code::AttributeNotForModel,
            format!(
                "a text embedding of {}×{} numbers: must be {}×{} as the neutral text's",
                other.tokens, other.width, self.tokens, self.width
            ),
        )
        .with_hint("encode both texts with the same model"))
    }

    /// Other numbers in this embedding's shape.
    pub(crate) fn with_data(&self, data: Vec<f32>) -> Condition {
        debug_assert_eq!(data.len(), self.data.len());
        Condition { data, ..*self }
    }
}
