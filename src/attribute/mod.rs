//! Attributes: edits that have a name.
//!
//! For: the file format ([`file`]), and finding an attribute by name among those in the library and
//! in the user's folders ([`Catalogue`]). Not for: what the model does with one, which is `method`.
//!
//! An attribute is data: two prompts (three, when the opposite has one of its own), how strength
//! becomes the weight λ of the styled prompt, and the models for which that was tuned.

mod catalogue;
mod file;

pub(crate) use catalogue::Catalogue;

use serde::Serialize;

/// What identifies the model that an attribute is asked of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ModelId {
    /// The model's name: `mini`, or the folder's.
    pub name: String,
    /// Its family: `mini`, `sd1`, `sd2` …
    pub family: String,
    /// BLAKE3 of its files, hexadecimal; empty while they have not been read.
    pub hash: String,
}

/// One attribute, as its file says. All ranges have been checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attribute {
    /// Name in recipes: lower-case letters, digits, `_` and `-`.
    pub name: String,
    /// Name for people.
    pub title: String,
    /// One sentence for people.
    pub description: String,
    /// The models that it serves: names, families, or beginnings of a hash (12 digits at least).
    pub models: Vec<String>,
    /// Licence of the file.
    pub licence: String,
    /// Where it comes from.
    pub source: String,
    /// The prompts.
    pub wording: Wording,
    /// How strength becomes λ, and how to sample.
    pub tuning: Tuning,
    /// Least strength that was looked at.
    pub least: f32,
    /// Greatest strength that was looked at.
    pub most: f32,
    /// What suits it at compositing.
    pub composite: Composite,
    /// λ learned over time, in place of the step function.
    pub learned: Option<Learned>,
    /// BLAKE3 of the file's text, hexadecimal.
    pub hash: String,
    /// The file's path, or nothing for one of the library's own.
    pub path: Option<String>,
}

/// The prompts of an attribute; `{scene}` in them stands for what the picture shows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wording {
    /// The picture as it is.
    pub neutral: String,
    /// The picture with the attribute. It says the attribute last, so that the tokens before coincide.
    pub styled: String,
    /// The picture with the opposite, for negative strengths; they extrapolate when there is none.
    pub opposite: Option<String>,
    /// The scene when the recipe names none.
    pub scene: String,
}

/// How strength becomes λ, and how to sample. Absent values are the recipe's or the model's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tuning {
    /// The share of the noise range, from pure noise down, that keeps the neutral prompt (0..=0.95).
    /// A noise level and not a number of steps: the same on every grid.
    pub t_star: f32,
    /// Extrapolation: λ is 1 − d after t* (−1..=1; Wu et al. use 0 to −0.2).
    pub d: f32,
    /// λ at strength 1, before d: calibrates the slider.
    pub scale: f32,
    /// Sampling steps.
    pub steps: Option<u32>,
    /// Guidance scale.
    pub guidance: Option<f32>,
    /// Share of the noise in the inversion's samples.
    pub noise: Option<f32>,
    /// What happens to the residuals of the inversion.
    pub residuals: Residuals,
}

/// What an edit does to the residuals of the inversion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Residuals {
    /// Adds them as they are.
    #[default]
    Exact,
    /// Scales each down by the edit's loss of contrast, which keeps daylight's contrast out of night.
    Scaled,
}

/// What suits an attribute at compositing; a recipe may say otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Composite {
    /// Neighbourhood of the fit, model pixels.
    pub radius: Option<u32>,
    /// Ridge of the fit.
    pub epsilon: Option<f32>,
    /// Share of what the fit does not explain.
    pub rest: Option<f32>,
}

/// λ at shares of the training schedule that are left, (t + 1)/T in 0..=1, falling; interpolated.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Learned {
    /// Times, falling.
    pub times: Vec<f32>,
    /// λ of the styled prompt at each (released weights of Wu et al. store 1 − λ).
    pub lambda: Vec<f32>,
}

impl Attribute {
    /// Whether it serves `model`.
    pub fn serves(&self, model: &ModelId) -> bool {
        self.models.iter().any(|m| {
            m.eq_ignore_ascii_case(&model.name)
                || m.eq_ignore_ascii_case(&model.family)
                || (may_be_hash(m) && model.hash.starts_with(&m.to_ascii_lowercase()))
        })
    }

    /// Whether one of the models that it serves may be named by a hash.
    pub fn names_a_hash(&self) -> bool {
        self.models.iter().any(|m| may_be_hash(m))
    }
}

/// Whether `model` may be the beginning of a hash.
fn may_be_hash(model: &str) -> bool {
    model.len() >= file::LEAST_HASH && model.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Wording {
    /// `template` with `scene` (or the attribute's own, when `None`) in the place of `{scene}`.
    ///
    /// A scene that already begins like the neutral prompt ("a photo of hills") is not told twice.
    pub fn fill(&self, template: &str, scene: Option<&str>) -> String {
        let scene = scene.unwrap_or(&self.scene).trim();
        let lead = self.neutral.split("{scene}").next().unwrap_or_default();
        template.replace("{scene}", scene.strip_prefix(lead).unwrap_or(scene))
    }
}
