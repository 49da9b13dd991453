//! What to do to a layer, as data.
//!
//! For: storing an edit beside its result and running it again to the same bytes. Not for: pixels.
//! JSON, `"semblance": 1`, unknown keys refused; every field but the version may be left out and
//! then takes its default.

use serde::{Deserialize, Serialize};

/// One slider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slider {
    /// A catalogue name, or the path of an attribute file (it contains `/` or ends in `.toml`).
    pub name: String,
    /// Signed strength, −2..=2; 1 is the attribute's calibrated full effect.
    pub strength: f32,
}

/// An edit in free text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreeText {
    /// What the picture shows.
    pub from: String,
    /// What it should show.
    pub to: String,
    /// Signed strength, −2..=2.
    pub strength: f32,
}

/// How the edit at the model's size is brought to the layer's own pixels (design: contract 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compositor {
    /// A local affine model of the change, plus the upsampled rest.
    #[default]
    Change,
    /// The decoded edit itself, upsampled.
    Direct,
    /// The upsampled difference of decoded edit and decoded reconstruction.
    Difference,
}

/// What to do, complete enough to be run again. See the module for the JSON form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Version of this format: 1.
    pub semblance: u32,
    /// Sliders, applied together.
    #[serde(default)]
    pub attributes: Vec<Slider>,
    /// Free text, applied with the sliders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<FreeText>,
    /// What the picture shows, in the model's words; the model's neutral text when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scene: Option<String>,
    /// Seed of all noise.
    #[serde(default)]
    pub seed: u64,
    /// Sampling steps, 1..=1000; the model's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Classifier-free guidance scale, 1..=20; the model's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f32>,
    /// How the change reaches full size.
    #[serde(default)]
    pub compositor: Compositor,
}
