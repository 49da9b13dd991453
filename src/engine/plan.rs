//! From a recipe to what is to be done: texts, weights over time, and every default filled in.
//!
//! For: deciding everything before the first allocation. Not for: doing it (`run`).
//!
//! Where attributes disagree (steps, guidance, compositing), the first one named decides: it keeps
//! deciding while sliders move, so that the inversion stays valid.

use std::sync::Arc;

use crate::attribute::{Attribute, Catalogue, Learned, ModelId, Residuals, Tuning};
use crate::error::{Code, Error, Result};
use crate::layer::Change;
use crate::method::Lambda;
use crate::recipe::{Form, Recipe, Slider};

/// What an edit does unless recipe or attribute say otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Defaults {
    pub steps: u32,
    pub guidance: f32,
    /// Share of the noise in the inversion's samples.
    pub noise: f32,
    /// For an edit in words: share of the noise range that keeps the neutral text.
    pub t_star: f64,
    /// For an edit in words: damping of residuals, 0..=1.
    pub damping: f32,
    pub radius: u32,
    pub epsilon: f32,
    pub rest: f32,
}

impl Defaults {
    /// The defaults of a model's family. The embedded model is trained for linear mixes of texts at
    /// guidance 1, and to make the whole change in one late prediction, from the picture as it is: nearer
    /// to the truth than many predictions, and than one through noise. Its errors are fine-grained, so its changes are
    /// fitted over wide windows and most of the rest is left out (all by `benches/counterfactual`);
    /// a smaller ridge is as near to the truth and makes a sky's grain half as coarse again.
    /// Stable Diffusion needs guidance to follow a text at all.
    pub fn of(model: &ModelId) -> Self {
        let plain = Defaults {
            steps: 20,
            guidance: 3.5,
            noise: 1.0,
            t_star: 0.0,
            damping: 0.0,
            radius: Change::RADIUS as u32,
            epsilon: Change::EPSILON as f32,
            rest: 1.0,
        };
        match (model.family.as_str(), model.name.as_str()) {
            ("mini", "mini") => Defaults {
                steps: 5,
                guidance: 1.0,
                noise: 0.0,
                t_star: 0.8,
                damping: 1.0,
                radius: 12,
                epsilon: 1e-4,
                rest: 0.2,
            },
            ("mini", _) => Defaults {
                steps: 10,
                guidance: 1.0,
                ..plain
            },
            _ => plain,
        }
    }
}

/// One direction of the edit: from a neutral text to a styled one.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub neutral: String,
    pub styled: String,
    pub lambda: Lambda,
    /// Signed where it extrapolates, else a magnitude.
    pub strength: f32,
    /// Damping of residuals, 0..=1.
    pub damping: f32,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The recipe with every default filled in but the stamp.
    pub recipe: Recipe,
    /// The text that the picture is inverted with.
    pub base: String,
    pub parts: Vec<Part>,
    pub steps: u32,
    pub guidance: f32,
    pub noise: f32,
    pub radius: u32,
    pub epsilon: f32,
    pub rest: f32,
    /// The hashes of the attributes' files, in the order of the sliders.
    pub attributes: Vec<String>,
    pub warnings: Vec<String>,
}

impl Plan {
    /// Checks `recipe` and resolves it for `model`.
    pub fn new(recipe: &Recipe, catalogue: &Catalogue, model: &ModelId) -> Result<Plan> {
        recipe.check()?;
        let found: Vec<(&Slider, Arc<Attribute>)> = (recipe.attributes.iter())
            .map(|slider| Ok((slider, catalogue.find(slider, model)?)))
            .collect::<Result<_>>()?;
        for (i, (slider, attribute)) in found.iter().enumerate() {
            check_range(i, slider, attribute)?;
        }
        let first = found.first().map(|(_, a)| a.as_ref());
        let tuning = first.map(|a| &a.tuning);
        let defaults = Defaults::of(model);
        let scene = recipe.scene.as_deref();

        let steps = recipe
            .steps
            .or(tuning.and_then(|t| t.steps))
            .unwrap_or(defaults.steps);
        // With few steps, all of them may lie before t*: the last one always edits.
        let latest = 1.0 - 1.0 / f64::from(steps.max(1)) - 1e-6;
        let latest = latest.max(0.0);

        let mut parts = Vec::new();
        for (slider, attribute) in &found {
            parts.push(part(attribute, slider.strength, scene, latest)?);
        }
        if let Some(text) = &recipe.text {
            parts.push(Part {
                neutral: text.from.clone(),
                styled: text.to.clone(),
                lambda: Lambda::step(defaults.t_star.min(latest), 0.0)?,
                strength: text.strength,
                damping: defaults.damping,
            });
        }

        let base = match (&recipe.text, first) {
            // Whoever says what the picture shows is believed over a default scene.
            (Some(text), _) if scene.is_none() => text.from.clone(),
            (_, Some(attribute)) => attribute.wording.fill(&attribute.wording.neutral, scene),
            (Some(text), None) => text.from.clone(),
            (None, None) => NEUTRAL.to_owned(),
        };

        let mut complete = recipe.clone();
        let guidance = recipe
            .guidance
            .or(tuning.and_then(|t| t.guidance))
            .unwrap_or(defaults.guidance);
        let noise = match recipe.form {
            Form::Published => 1.0,
            Form::Corrected => recipe
                .noise
                .or(tuning.and_then(|t| t.noise))
                .unwrap_or(defaults.noise),
        };
        let composite = first.map(|a| &a.composite);
        let radius = recipe
            .radius
            .or(composite.and_then(|c| c.radius))
            .unwrap_or(defaults.radius);
        let epsilon = recipe
            .epsilon
            .or(composite.and_then(|c| c.epsilon))
            .unwrap_or(defaults.epsilon);
        let rest = recipe
            .rest
            .or(composite.and_then(|c| c.rest))
            .unwrap_or(defaults.rest);
        complete.steps = Some(steps);
        complete.guidance = Some(guidance);
        complete.noise = Some(noise);
        complete.radius = Some(radius);
        complete.epsilon = Some(epsilon);
        complete.rest = Some(rest);
        complete.stamp = None;
        Ok(Plan {
            warnings: warnings(recipe, model, &found),
            attributes: found.iter().map(|(_, a)| a.hash.clone()).collect(),
            recipe: complete,
            base,
            parts,
            steps,
            guidance,
            noise,
            radius,
            epsilon,
            rest,
        })
    }

    /// Every text that must be encoded, the base first, none twice.
    pub fn texts(&self) -> Vec<&str> {
        let mut texts = vec![self.base.as_str()];
        for part in &self.parts {
            for text in [part.neutral.as_str(), part.styled.as_str()] {
                if !texts.contains(&text) {
                    texts.push(text);
                }
            }
        }
        if self.guidance != 1.0 && !texts.contains(&"") {
            texts.push("");
        }
        texts
    }
}

/// What a picture is taken for when a recipe says nothing at all.
const NEUTRAL: &str = "a photo of a landscape";

fn check_range(index: usize, slider: &Slider, attribute: &Attribute) -> Result<()> {
    let (least, most) = (attribute.least, attribute.most);
    if (least..=most).contains(&slider.strength) {
        return Ok(());
    }
    let error = format!(
        "attributes[{index}].strength = {}: must be {least}..={most} for {}",
        slider.strength, attribute.name
    );
    Err(Error::new(Code::InvalidParameter, error)
        .with_hint(format!(
            "the attribute's file gives its range; try {}",
            most.min(1.0)
        ))
        .with_parameter("strength"))
}

fn part(attribute: &Attribute, strength: f32, scene: Option<&str>, latest: f64) -> Result<Part> {
    let wording = &attribute.wording;
    let neutral = wording.fill(&wording.neutral, scene);
    let (styled, strength) = match &wording.opposite {
        Some(opposite) if strength < 0.0 => (wording.fill(opposite, scene), -strength),
        _ => (wording.fill(&wording.styled, scene), strength),
    };
    Ok(Part {
        neutral,
        styled,
        lambda: lambda(&attribute.tuning, attribute.learned.as_ref(), latest)?,
        strength,
        damping: match attribute.tuning.residuals {
            Residuals::Exact => 0.0,
            Residuals::Scaled => 1.0,
        },
    })
}

/// λ at strength 1 over time; a step's t* is at most `latest`.
fn lambda(tuning: &Tuning, learned: Option<&Learned>, latest: f64) -> Result<Lambda> {
    match learned {
        Some(learned) => {
            // Files give the fraction of the schedule that is left, as λ takes it.
            let times: Vec<f64> = learned.times.iter().map(|&t| f64::from(t)).collect();
            let values: Vec<f32> = learned.lambda.iter().map(|l| l * tuning.scale).collect();
            Lambda::learned(&times, &values)
        }
        None => Lambda::step(
            f64::from(tuning.t_star).min(latest),
            1.0 - tuning.scale * (1.0 - tuning.d),
        ),
    }
}

fn warnings(recipe: &Recipe, model: &ModelId, found: &[(&Slider, Arc<Attribute>)]) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(text) = &recipe.text
        && text.from == text.to
    {
        warnings.push("text.from and text.to are the same: the text changes nothing".to_owned());
    }
    if let Some(stamp) = &recipe.stamp {
        let now = crate::VERSION;
        if !stamp.version.is_empty() && stamp.version != now {
            let made = crate::fields::shorten(&stamp.version);
            warnings.push(format!(
                "the recipe was made with version {made}, this is {now}: the bytes may differ"
            ));
        }
        if !stamp.model.is_empty() && stamp.model != model.name {
            let made = crate::fields::shorten(&stamp.model);
            warnings.push(format!(
                "the recipe was made with the model {made}, this is {}: the edit will differ",
                model.name
            ));
        }
        // Looked for at any place: whoever reorders or removes sliders has changed no attribute.
        if !stamp.attributes.is_empty() {
            for (_, attribute) in found {
                if !stamp.attributes.contains(&attribute.hash) {
                    warnings.push(format!(
                        "the attribute {} is new or has changed since the recipe was made: the edit will differ",
                        attribute.name
                    ));
                }
            }
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::FreeText;

    fn model() -> ModelId {
        ModelId {
            name: "mini".into(),
            family: "mini".into(),
            hash: String::new(),
        }
    }

    fn plan(recipe: &Recipe) -> Plan {
        Plan::new(recipe, &Catalogue::open(&[]).unwrap(), &model()).unwrap()
    }

    #[test]
    fn a_negative_strength_goes_towards_the_opposite_text() {
        let plan = plan(&Recipe::of("snow", -0.5));
        let part = &plan.parts[0];
        assert_eq!(
            (part.styled.as_str(), part.strength),
            ("a photo of a landscape, in summer", 0.5)
        );
    }

    #[test]
    fn the_scene_stands_in_every_text_and_is_not_told_twice() {
        for scene in ["rolling hills", "a photo of rolling hills"] {
            let plan = plan(&Recipe {
                scene: Some(scene.into()),
                ..Recipe::of("fog", 1.0)
            });
            assert_eq!(plan.base, "a photo of rolling hills");
            assert_eq!(plan.parts[0].neutral, plan.base);
            assert_eq!(plan.parts[0].styled, "a photo of rolling hills, in fog");
        }
    }

    #[test]
    fn a_learned_lambda_is_read_at_the_fractions_that_its_file_gives() {
        let tuning = Tuning {
            t_star: 0.0,
            d: 0.0,
            scale: 0.5,
            steps: None,
            guidance: None,
            noise: None,
            residuals: Residuals::Exact,
        };
        let learned = Learned {
            times: vec![1.0, 0.5],
            lambda: vec![0.0, 1.0],
        };
        let lambda = lambda(&tuning, Some(&learned), 1.0).unwrap();
        assert_eq!(
            [1.0, 0.75, 0.5, 0.1].map(|t| lambda.at(t)),
            [0.0, 0.25, 0.5, 0.5]
        );
    }

    #[test]
    fn the_last_of_few_steps_edits_however_late_an_attribute_starts() {
        for steps in [1, 2, 4, 5, 6, 50] {
            let plan = plan(&Recipe {
                steps: Some(steps),
                ..Recipe::of("sunset", 1.0)
            });
            let left = 1.0 / f64::from(steps);
            assert_eq!(plan.parts[0].lambda.at(left), 1.0, "{steps} steps");
        }
    }

    #[test]
    fn free_text_alone_is_inverted_with_what_it_says_the_picture_shows() {
        let text = FreeText {
            from: "a photo of hills".into(),
            to: "a photo of hills, at night".into(),
            strength: 1.0,
        };
        let plan = plan(&Recipe {
            text: Some(text),
            ..Recipe::default()
        });
        assert_eq!(plan.base, "a photo of hills");
        assert_eq!(
            plan.texts(),
            ["a photo of hills", "a photo of hills, at night"]
        );
    }

    #[test]
    fn the_complete_recipe_is_the_same_plan_again() {
        let once = plan(&Recipe::of("sunset", 0.8));
        let again = plan(&once.recipe);
        assert_eq!(once.recipe, again.recipe);
        assert_eq!(
            (
                once.steps,
                once.guidance,
                once.noise,
                once.radius,
                once.epsilon,
                once.rest
            ),
            (
                again.steps,
                again.guidance,
                again.noise,
                again.radius,
                again.epsilon,
                again.rest
            )
        );
    }

    #[test]
    fn a_recipe_of_another_model_or_version_is_warned_of() {
        let stamp = crate::Stamp {
            version: "0.0.1".into(),
            model: "other".into(),
            ..Default::default()
        };
        let plan = plan(&Recipe {
            stamp: Some(stamp),
            ..Recipe::of("fog", 1.0)
        });
        assert_eq!(plan.warnings.len(), 2, "{:?}", plan.warnings);
    }
}
