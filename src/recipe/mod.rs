//! What to do to a layer, as data.
//!
//! For: storing an edit beside its result and running it again to the same bytes. Not for: pixels.
//! JSON, `"semblance": 1`, unknown keys refused; every field but the version may be left out and
//! then takes its default. [`crate::Edit::recipe`] gives the complete form, with every default
//! filled in and a [`Stamp`] of what made it.

mod parse;

use serde::Serialize;

use crate::error::{Code, Error, Result};
use crate::fields::shorten;
use crate::params;

/// The version of the recipe format that this library reads and writes.
pub const RECIPE_VERSION: u32 = 1;

/// Sliders that one recipe may hold: each costs two text encodings and a share of the sum.
pub(crate) const MAX_SLIDERS: usize = 16;

/// One slider.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Slider {
    /// A catalogue name, or the path of an attribute file (it contains `/` or ends in `.toml`).
    pub name: String,
    /// Signed strength, −2..=2; 1 is the attribute's calibrated full effect.
    pub strength: f32,
}

/// An edit in free text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FreeText {
    /// What the picture shows.
    pub from: String,
    /// What it should show.
    pub to: String,
    /// Signed strength, −2..=2.
    pub strength: f32,
}

/// How the edit at the model's size is brought to the layer's own pixels (design: contract 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Compositor {
    /// A local affine model of the change, plus the upsampled rest.
    #[default]
    Change,
    /// The same, with the decoded edit itself in place of the layer's pixels where content moved or
    /// appeared.
    Direct,
    /// The upsampled difference of decoded edit and decoded reconstruction.
    Difference,
}

/// Which form of the mixing method samples (Wu et al., CVPR 2023, arXiv 2212.08698).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Residuals against the right noise level, DDIM updates, residuals kept to the end.
    #[default]
    Corrected,
    /// As released by the authors, for comparison.
    Published,
}

/// Whether an edit whose strengths are all 0 skips the model. In the corrected form the bytes are the
/// same either way; the published form gives back its input by the shortcut only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityShortcut {
    /// Skip it.
    #[default]
    On,
    /// Do all the work, as the contract's tests ask.
    Off,
}

/// What made an edit; in a recipe that is run again it is compared, never obeyed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stamp {
    /// Version of this library.
    pub version: String,
    /// The model's name.
    pub model: String,
    /// BLAKE3 of the model's files (weights, configurations, tokenizer), hexadecimal.
    pub model_hash: String,
    /// Which kernels computed: the same path gives the same bytes.
    pub cpu_path: String,
    /// BLAKE3 of each attribute's file, hexadecimal, in the order of the sliders.
    pub attributes: Vec<String>,
}

/// What to do, complete enough to be run again. See the module for the JSON form.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recipe {
    /// Version of this format: 1.
    pub semblance: u32,
    /// Sliders, applied together; at most 16, each name once.
    pub attributes: Vec<Slider>,
    /// Free text, applied with the sliders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<FreeText>,
    /// What the picture shows, in the model's words; the model's neutral text when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scene: Option<String>,
    /// Seed of all noise.
    pub seed: u64,
    /// Sampling steps, 1..=1000; the attribute's or the model's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Classifier-free guidance scale, 1..=20; the attribute's or the model's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f32>,
    /// Share of the noise in the inversion's samples, 0..=1; the attribute's or the model's default
    /// when absent. The published form has all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<f32>,
    /// How the change reaches full size.
    pub compositor: Compositor,
    /// Neighbourhood of the compositor's fit, 1..=64 model pixels; a default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub radius: Option<u32>,
    /// Ridge of the compositor's fit towards no change, 1e-8..=1e3; a default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f32>,
    /// Share of what the compositor `change` cannot explain as a local change, 0..=1; a default when
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rest: Option<f32>,
    /// Which form of the method.
    pub form: Form,
    /// Whether strength 0 skips the model.
    pub identity_shortcut: IdentityShortcut,
    /// What made the edit, in a complete recipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
}

impl Default for Recipe {
    /// No sliders and every default: an edit that changes nothing.
    fn default() -> Self {
        Recipe {
            semblance: RECIPE_VERSION,
            attributes: Vec::new(),
            text: None,
            scene: None,
            seed: 0,
            steps: None,
            guidance: None,
            noise: None,
            compositor: Compositor::default(),
            radius: None,
            epsilon: None,
            rest: None,
            form: Form::default(),
            identity_shortcut: IdentityShortcut::default(),
            stamp: None,
        }
    }
}

impl Recipe {
    /// A recipe of one slider.
    pub fn of(name: impl Into<String>, strength: f32) -> Self {
        let slider = Slider {
            name: name.into(),
            strength,
        };
        Recipe {
            attributes: vec![slider],
            ..Recipe::default()
        }
    }

    /// Reads and checks the JSON form.
    ///
    /// Errors with [`Code::InvalidRecipe`] when it is not well-formed, has an unknown key or is of a
    /// later version, and with [`Code::InvalidParameter`] when a value is out of its range.
    pub fn from_json(text: &str) -> Result<Self> {
        let recipe = parse::recipe(text)?;
        recipe.check()?;
        Ok(recipe)
    }

    /// The JSON form, on one line.
    pub fn to_json(&self) -> Result<String> {
        self.check()?;
        serde_json::to_string(self).map_err(|e| Error::new(Code::Internal, format!("recipe: {e}")))
    }

    /// Checks every value, so that nothing out of range reaches the model.
    ///
    /// Errors with [`Code::InvalidRecipe`] or [`Code::InvalidParameter`], naming the field.
    pub fn check(&self) -> Result<()> {
        if self.semblance != RECIPE_VERSION {
            return Err(parse::other_version(u64::from(self.semblance)));
        }
        if self.attributes.len() > MAX_SLIDERS {
            let error = format!(
                "attributes: {} sliders, must be at most {MAX_SLIDERS}",
                self.attributes.len()
            );
            return Err(Error::new(Code::InvalidParameter, error)
                .with_hint("apply the rest in a second edit")
                .with_parameter("attributes"));
        }
        for (i, slider) in self.attributes.iter().enumerate() {
            slider.check(i)?;
            if let Some(j) = self
                .attributes
                .iter()
                .take(i)
                .position(|s| s.name == slider.name)
            {
                let name = shorten(&slider.name);
                let error =
                    format!("attributes[{i}].name = \"{name}\": already named by attributes[{j}]");
                return Err(Error::new(Code::InvalidRecipe, error)
                    .with_hint("give one strength for each attribute")
                    .with_parameter("attributes"));
            }
        }
        if let Some(text) = &self.text {
            text.check()?;
        }
        if let Some(scene) = &self.scene {
            params::SCENE.check_text("scene", scene)?;
            if scene.trim().is_empty() {
                return Err(params::SCENE
                    .refuse("scene", "\"\"")
                    .with_hint("leave it out, or try \"a landscape\""));
            }
        }
        if let Some(steps) = self.steps {
            params::STEPS.check_integer("steps", u64::from(steps))?;
        }
        if let Some(guidance) = self.guidance {
            params::GUIDANCE.check_number("guidance", f64::from(guidance))?;
        }
        if let Some(noise) = self.noise {
            params::NOISE.check_number("noise", f64::from(noise))?;
            if self.form == Form::Published && noise != 1.0 {
                return Err(Error::new(
                    Code::InvalidParameter,
                    format!("noise = {noise}: must be 1 in the published form"),
                )
                .with_hint("leave noise out, or write \"form\": \"corrected\"")
                .with_parameter("noise"));
            }
        }
        if let Some(radius) = self.radius {
            params::RADIUS.check_integer("radius", u64::from(radius))?;
        }
        if let Some(epsilon) = self.epsilon {
            params::EPSILON.check_number("epsilon", f64::from(epsilon))?;
        }
        if let Some(rest) = self.rest {
            params::REST.check_number("rest", f64::from(rest))?;
        }
        Ok(())
    }

    /// Whether every strength is exactly 0 (also: there is none), so that nothing changes.
    pub fn is_identity(&self) -> bool {
        self.attributes.iter().all(|s| s.strength == 0.0)
            && self.text.as_ref().is_none_or(|t| t.strength == 0.0)
    }
}

impl Slider {
    fn check(&self, index: usize) -> Result<()> {
        let invalid = |error: String| {
            Error::new(Code::InvalidRecipe, error)
                .with_hint("`semblance attributes` lists the names")
                .with_parameter("attributes")
        };
        if self.name.trim().is_empty() {
            return Err(invalid(format!(
                "attributes[{index}].name: is empty, must be a name or the path of a file"
            )));
        }
        if self.name.len() > 4096 {
            let bytes = self.name.len();
            return Err(invalid(format!(
                "attributes[{index}].name: {bytes} bytes, must be at most 4096"
            )));
        }
        if let Some(c) = self.name.chars().find(|c| c.is_control()) {
            let point = u32::from(c);
            return Err(invalid(format!(
                "attributes[{index}].name: holds the control character U+{point:04X}"
            )));
        }
        params::STRENGTH.check_number(
            &format!("attributes[{index}].strength"),
            f64::from(self.strength),
        )
    }

    /// Whether the name is the path of a file: it contains `/` or ends in `.toml`.
    pub fn is_path(&self) -> bool {
        self.name.contains('/') || self.name.ends_with(".toml")
    }
}

impl FreeText {
    fn check(&self) -> Result<()> {
        params::FROM.check_text("text.from", &self.from)?;
        params::TO.check_text("text.to", &self.to)?;
        if self.to.trim().is_empty() {
            let error = "text.to: is empty, must say what the picture should show";
            return Err(Error::new(Code::InvalidParameter, error)
                .with_hint(format!("try {}", params::TO.suggestion))
                .with_parameter("to"));
        }
        params::STRENGTH.check_number("text.strength", f64::from(self.strength))
    }
}
