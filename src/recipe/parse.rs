//! The JSON form of a recipe, read strictly.

use serde_json::Value;

use super::{
    Compositor, Form, FreeText, IdentityShortcut, MAX_SLIDERS, RECIPE_VERSION, Recipe, Slider,
    Stamp,
};
use crate::error::{Code, Error, Result};
use crate::fields::Fields;
use crate::params::{self, Parameter};

/// Bytes of JSON that are looked at: 16 sliders with the longest paths fit, a bomb does not.
const MAX_BYTES: usize = 256 * 1024;

const KEYS: [&str; 15] = [
    "semblance",
    "attributes",
    "text",
    "scene",
    "seed",
    "steps",
    "guidance",
    "noise",
    "compositor",
    "radius",
    "epsilon",
    "rest",
    "form",
    "identity_shortcut",
    "stamp",
];

/// Reads `text`; ranges that do not depend on the type are checked by [`Recipe::check`].
pub(super) fn recipe(text: &str) -> Result<Recipe> {
    let invalid = |error: String| Error::new(Code::InvalidRecipe, error);
    if text.len() > MAX_BYTES {
        return Err(invalid(format!(
            "recipe: {} bytes, must be at most {MAX_BYTES}",
            text.len()
        )));
    }
    let value: Value = serde_json::from_str(text).map_err(|e| {
        invalid(format!("recipe: is not JSON: {e}"))
            .with_hint("the least is {\"semblance\": 1, \"attributes\": [{\"name\": \"sunset\", \"strength\": 1}]}")
    })?;
    let fields = Fields::of_document("recipe", Code::InvalidRecipe, &value)?;
    // The version first: what a later version adds must not be reported as a misspelt key.
    match fields.integer("semblance")? {
        Some(v) if v == u64::from(RECIPE_VERSION) => {}
        Some(v) => return Err(other_version(v)),
        None => {
            return Err(fields
                .missing("semblance")
                .with_hint("begin with \"semblance\": 1"));
        }
    }
    fields.only(&KEYS)?;
    let defaults = Recipe::default();
    Ok(Recipe {
        semblance: RECIPE_VERSION,
        attributes: sliders(&fields)?,
        text: fields.object("text")?.map(|t| free_text(&t)).transpose()?,
        scene: fields.text("scene")?.map(str::to_owned),
        seed: integer(&fields, &params::SEED)?.unwrap_or(defaults.seed),
        steps: small(&fields, &params::STEPS)?,
        guidance: number(&fields, &params::GUIDANCE)?,
        noise: number(&fields, &params::NOISE)?,
        compositor: choice(&fields, &params::COMPOSITOR, |word| match word {
            "change" => Some(Compositor::Change),
            "direct" => Some(Compositor::Direct),
            "difference" => Some(Compositor::Difference),
            _ => None,
        })?,
        radius: small(&fields, &params::RADIUS)?,
        epsilon: number(&fields, &params::EPSILON)?,
        rest: number(&fields, &params::REST)?,
        form: choice(&fields, &params::FORM, |word| match word {
            "corrected" => Some(Form::Corrected),
            "published" => Some(Form::Published),
            _ => None,
        })?,
        identity_shortcut: choice(&fields, &params::IDENTITY_SHORTCUT, |word| match word {
            "on" => Some(IdentityShortcut::On),
            "off" => Some(IdentityShortcut::Off),
            _ => None,
        })?,
        stamp: fields.object("stamp")?.map(|s| stamp(&s)).transpose()?,
    })
}

/// The error for a recipe of version `v`.
pub(super) fn other_version(v: u64) -> Error {
    let error = format!("semblance = {v}: this library reads recipes of version {RECIPE_VERSION}");
    Error::new(Code::InvalidRecipe, error)
        .with_hint(if v > u64::from(RECIPE_VERSION) {
            "a later Semblance wrote it: update"
        } else {
            "write 1"
        })
        .with_parameter("semblance")
}

fn sliders(fields: &Fields<'_>) -> Result<Vec<Slider>> {
    let list = fields.list("attributes")?.unwrap_or_default();
    let read = |(i, value): (usize, &Value)| {
        let slider = fields.inner(&format!("attributes[{i}]"), value)?;
        slider.only(&["name", "strength"])?;
        Ok(Slider {
            name: slider.needed_text("name")?.to_owned(),
            strength: strength(&slider)?,
        })
    };
    if list.len() > MAX_SLIDERS {
        let error = format!(
            "attributes: {} sliders, must be at most {MAX_SLIDERS}",
            list.len()
        );
        return Err(Error::new(Code::InvalidParameter, error)
            .with_hint("apply the rest in a second edit")
            .with_parameter("attributes"));
    }
    list.iter().enumerate().map(read).collect()
}

fn free_text(text: &Fields<'_>) -> Result<FreeText> {
    text.only(&["from", "to", "strength"])?;
    Ok(FreeText {
        from: text.needed_text("from")?.to_owned(),
        to: text.needed_text("to")?.to_owned(),
        strength: strength(text)?,
    })
}

fn stamp(stamp: &Fields<'_>) -> Result<Stamp> {
    stamp.only(&["version", "model", "model_hash", "cpu_path", "attributes"])?;
    let text = |key| stamp.text(key).map(|t| t.unwrap_or_default().to_owned());
    let list = stamp.list("attributes")?.unwrap_or_default();
    let hashes = list.iter().map(|value| match value.as_str() {
        Some(hash) => Ok(hash.to_owned()),
        None => Err(stamp.wrong("attributes", value, "a list of hashes")),
    });
    Ok(Stamp {
        version: text("version")?,
        model: text("model")?,
        model_hash: text("model_hash")?,
        cpu_path: text("cpu_path")?,
        attributes: hashes.collect::<Result<_>>()?,
    })
}

/// The strength of a slider; 1 when absent.
fn strength(fields: &Fields<'_>) -> Result<f32> {
    Ok(number(fields, &params::STRENGTH)?.unwrap_or(1.0))
}

/// A number, range-checked before it is narrowed: 1e300 must not become infinity on the way.
fn number(fields: &Fields<'_>, parameter: &Parameter) -> Result<Option<f32>> {
    let Some(value) = fields.get(parameter.id) else {
        return Ok(None);
    };
    let Some(number) = value.as_f64() else {
        return Err(fields.wrong(parameter.id, value, &parameter.range()));
    };
    parameter.check_number(&fields.at(parameter.id), number)?;
    Ok(Some(number as f32))
}

fn integer(fields: &Fields<'_>, parameter: &Parameter) -> Result<Option<u64>> {
    let Some(value) = fields.get(parameter.id) else {
        return Ok(None);
    };
    match (value.as_u64(), value.is_number()) {
        (Some(number), _) => {
            parameter.check_integer(&fields.at(parameter.id), number)?;
            Ok(Some(number))
        }
        (None, true) => Err(parameter.refuse(&fields.at(parameter.id), &value.to_string())),
        (None, false) => Err(fields.wrong(parameter.id, value, &parameter.range())),
    }
}

fn small(fields: &Fields<'_>, parameter: &Parameter) -> Result<Option<u32>> {
    let value = integer(fields, parameter)?;
    value
        .map(|v| {
            u32::try_from(v).map_err(|_| parameter.refuse(&fields.at(parameter.id), &v.to_string()))
        })
        .transpose()
}

fn choice<T: Default>(
    fields: &Fields<'_>,
    parameter: &Parameter,
    meaning: impl Fn(&str) -> Option<T>,
) -> Result<T> {
    let Some(value) = fields.get(parameter.id) else {
        return Ok(T::default());
    };
    match value.as_str() {
        Some(word) => meaning(word).ok_or_else(|| {
            parameter.refuse(
                &fields.at(parameter.id),
                &format!("\"{}\"", crate::fields::shorten(word)),
            )
        }),
        None => Err(fields.wrong(parameter.id, value, &parameter.range())),
    }
}
