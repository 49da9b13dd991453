//! What the network reads beside the noisy latent: texts as plain numbers, or a mix of some.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use crate::error::{Code, Error, Result};

/// A text as its encoder gives it: `tokens × width` numbers, row-major. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Embedding(Arc<Numbers>);

#[derive(Debug, PartialEq)]
struct Numbers {
    data: Vec<f32>,
    tokens: usize,
    width: usize,
}

impl PartialEq for Embedding {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Embedding {
    /// The numbers, token by token.
    pub fn data(&self) -> &[f32] {
        &self.0.data
    }

    /// How many tokens (32 for the mini model, 77 for Stable Diffusion).
    pub fn tokens(&self) -> usize {
        self.0.tokens
    }

    /// Numbers per token.
    pub fn width(&self) -> usize {
        self.0.width
    }

    /// An order that depends on the numbers alone.
    fn order(&self, other: &Self) -> Ordering {
        let bits = |x: &f32| x.to_bits();
        let (own, others) = (self.data().iter(), other.data().iter());
        own.map(bits).cmp(others.map(bits))
    }
}

/// A text, or a mix of texts: Σ weight · embedding. Which texts and how much of each stays known, so
/// that whatever is linear in a text is computed once for each, not for each mix.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition(Vec<(f32, Embedding)>);

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
        let numbers = Numbers {
            data,
            tokens,
            width,
        };
        Ok(Condition(vec![(1.0, Embedding(Arc::new(numbers)))]))
    }

    /// The weights and texts, at least one; a text by itself is one of weight 1.
    pub fn terms(&self) -> &[(f32, Embedding)] {
        &self.0
    }

    /// This one + Σ weight · part, each text once and none of weight 0. The order of `parts` changes no
    /// bit.
    pub fn plus(&self, parts: &[(f32, &Condition)]) -> Condition {
        let mut found: Vec<(Vec<f32>, &Embedding)> = Vec::new();
        for (weight, part) in [(1.0, self)].iter().chain(parts) {
            for (own, text) in &part.0 {
                match found.iter_mut().find(|(_, known)| *known == text) {
                    Some((weights, _)) => weights.push(weight * own),
                    None => found.push((vec![weight * own], text)),
                }
            }
        }
        // Own texts stay in front.
        let added = found.get_mut(self.0.len()..).unwrap_or_default();
        added.sort_by(|(_, a), (_, b)| a.order(b));
        let sum = |(mut weights, text): (Vec<f32>, &Embedding)| {
            weights.sort_unstable_by(f32::total_cmp);
            (weights.into_iter().sum::<f32>(), text.clone())
        };
        let terms = found.into_iter().map(sum);
        let mut terms: Vec<_> = terms.filter(|(weight, _)| *weight != 0.0).collect();
        if terms.is_empty() {
            terms.extend(self.0.first().map(|(_, text)| (0.0, text.clone())));
        }
        Condition(terms)
    }

    /// The numbers, token by token.
    pub fn data(&self) -> Cow<'_, [f32]> {
        if let [(weight, text)] = self.0.as_slice()
            && *weight == 1.0
        {
            return Cow::Borrowed(text.data());
        }
        let mut sums = vec![0.0_f64; self.tokens() * self.width()];
        for (weight, text) in &self.0 {
            for (sum, x) in sums.iter_mut().zip(text.data()) {
                *sum += f64::from(*weight) * f64::from(*x);
            }
        }
        Cow::Owned(sums.into_iter().map(|x| x as f32).collect())
    }

    /// How many tokens.
    pub fn tokens(&self) -> usize {
        self.0.first().map_or(0, |(_, text)| text.tokens())
    }

    /// Numbers per token.
    pub fn width(&self) -> usize {
        self.0.first().map_or(0, |(_, text)| text.width())
    }

    /// Fails when `other` cannot be mixed with this one.
    pub fn check_same_shape(&self, other: &Condition) -> Result<()> {
        if (self.tokens(), self.width()) == (other.tokens(), other.width()) {
            return Ok(());
        }
        Err(Error::new(
            Code::AttributeNotForModel,
            format!(
                "a text embedding of {}×{} numbers: must be {}×{} as the neutral text's",
                other.tokens(),
                other.width(),
                self.tokens(),
                self.width()
            ),
        )
        .with_hint("encode both texts with the same model"))
    }
}
