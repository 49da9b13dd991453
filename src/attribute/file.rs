//! The attribute file: TOML, `schema = 1`, unknown keys refused.
//!
//! ```toml
//! schema = 1
//! name = "sunset"                  # a-z, 0-9, _ and -
//! title = "Sunset"
//! description = "Low warm sun and a coloured sky."
//! models = ["mini"]                # names, families, or 12 and more digits of a model's hash
//! licence = "MIT OR Apache-2.0"
//! source = "https://…"             # optional
//!
//! [text]
//! scene = "a landscape"            # what {scene} is when the recipe does not say
//! neutral = "a photo of {scene}"
//! styled = "a photo of {scene}, at sunset"
//! opposite = "a photo of {scene}, in daylight"   # optional, for negative strengths
//!
//! [edit]                           # all optional
//! t_star = 0.0                     # share of the noise range that keeps the neutral text
//! d = 0.0                          # λ is 1 − d after it
//! scale = 1.0                      # λ at strength 1
//! steps = 12
//! guidance = 1.0
//! noise = 1.0                      # share of the noise in the inversion's samples
//! residuals = "exact"              # or "scaled"
//! range = [-2, 2]                  # strengths that were looked at
//!
//! [composite]                      # optional
//! radius = 8
//! epsilon = 0.00025
//! rest = 1.0                       # share of what the local change does not explain
//!
//! [learned]                        # optional, instead of t_star and d
//! times = [0.98, 0.5, 0.02]       # shares of the noise range that are left, falling
//! lambda = [0.0, 0.4, 1.1]
//! ```

use serde_json::Value;

use super::{Attribute, Composite, Learned, Residuals, Tuning, Wording};
use crate::error::{Code, Error, Result};
use crate::fields::{Fields, shorten};
use crate::params;

/// Bytes of an attribute file: a thousand learned weights fit, a device file or a bomb does not.
pub(super) const MAX_BYTES: usize = 64 * 1024;
/// Digits of a hash that say enough.
pub(super) const LEAST_HASH: usize = 12;
/// Learned weights: one for each time of the longest schedule.
const MAX_LEARNED: usize = 1000;

/// Reads the text of an attribute file; `origin` names it in errors.
///
/// Errors with [`Code::InvalidAttribute`], naming file, key, value and range.
pub(super) fn parse(origin: &str, text: &str) -> Result<Attribute> {
    let invalid = |error: String| Error::new(Code::InvalidAttribute, error);
    if text.len() > MAX_BYTES {
        return Err(invalid(format!(
            "{origin}: {} bytes, must be at most {MAX_BYTES}",
            text.len()
        )));
    }
    let table: toml::Table = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |s| {
            1 + text.bytes().take(s.start).filter(|b| *b == b'\n').count()
        });
        invalid(format!(
            "{origin}: line {line}: is not TOML: {}",
            shorten(e.message())
        ))
    })?;
    // A TOML float that is not finite becomes null here, and null is refused as a number.
    let value = serde_json::to_value(&table).map_err(|e| invalid(format!("{origin}: {e}")))?;
    let fields = Fields::of_document(origin, Code::InvalidAttribute, &value)?;
    match fields.integer("schema")? {
        Some(1) => {}
        Some(v) => {
            return Err(invalid(format!(
                "{origin}: schema = {v}: this library reads schema 1"
            ))
            .with_hint(if v > 1 {
                "made for a later Semblance: update"
            } else {
                "write schema = 1"
            })
            .with_parameter("schema"));
        }
        None => return Err(fields.missing("schema").with_hint("begin with schema = 1")),
    }
    fields.only(&[
        "schema",
        "name",
        "title",
        "description",
        "models",
        "licence",
        "source",
        "text",
        "edit",
        "composite",
        "learned",
    ])?;
    let name = name(origin, &fields)?;
    let wording = wording(origin, &fields)?;
    let (tuning, least, most) = tuning(origin, &fields)?;
    Ok(Attribute {
        title: line(origin, &fields, "title", 80)?.unwrap_or_else(|| name.clone()),
        description: line(origin, &fields, "description", 400)?.unwrap_or_default(),
        models: models(origin, &fields)?,
        licence: line(origin, &fields, "licence", 200)?.ok_or_else(|| {
            fields
                .missing("licence")
                .with_hint("say under which terms it may be passed on, as in licence = \"CC0-1.0\"")
        })?,
        source: line(origin, &fields, "source", 400)?.unwrap_or_default(),
        name,
        wording,
        tuning,
        least,
        most,
        composite: composite(origin, &fields)?,
        learned: learned(origin, &fields)?,
        hash: blake3::hash(text.as_bytes()).to_hex().to_string(),
        path: None,
    })
}

fn refuse(origin: &str, at: &str, value: &str, must: &str) -> Error {
    let parameter = at.rsplit('.').next().unwrap_or(at).to_owned();
    Error::new(
        Code::InvalidAttribute,
        format!("{origin}: {at} = {value}: must be {must}"),
    )
    .with_parameter(parameter)
}

fn name(origin: &str, fields: &Fields<'_>) -> Result<String> {
    let name = fields.needed_text("name")?;
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
        let shown = format!("\"{}\"", shorten(name));
        return Err(refuse(
            origin,
            "name",
            &shown,
            "1 to 64 of a-z, 0-9, _ and -",
        ));
    }
    Ok(name.to_owned())
}

/// One line of text, at most `max` bytes.
fn line(origin: &str, fields: &Fields<'_>, key: &str, max: usize) -> Result<Option<String>> {
    let Some(text) = fields.text(key)? else {
        return Ok(None);
    };
    if text.trim().is_empty() || text.len() > max || text.chars().any(char::is_control) {
        let shown = format!("\"{}\"", shorten(text));
        return Err(refuse(
            origin,
            &fields.at(key),
            &shown,
            &format!("one line of 1 to {max} bytes"),
        ));
    }
    Ok(Some(text.to_owned()))
}

fn models(origin: &str, fields: &Fields<'_>) -> Result<Vec<String>> {
    let list = fields.list("models")?.ok_or_else(|| {
        fields
            .missing("models")
            .with_hint("name the models for which it was tuned, as in models = [\"mini\"]")
    })?;
    if list.is_empty() || list.len() > 32 {
        return Err(refuse(
            origin,
            "models",
            &format!("{} entries", list.len()),
            "a list of 1 to 32 names",
        ));
    }
    let model = |value: &Value| match value.as_str() {
        Some(m) if !m.trim().is_empty() && m.len() <= 128 && !m.chars().any(char::is_control) => {
            Ok(m.to_owned())
        }
        _ => Err(fields.wrong("models", value, "a list of names, each 1 to 128 bytes")),
    };
    list.iter().map(model).collect()
}

fn wording(origin: &str, fields: &Fields<'_>) -> Result<Wording> {
    let text = fields
        .object("text")?
        .ok_or_else(|| fields.missing("text").with_hint("add a [text] table"))?;
    text.only(&["scene", "neutral", "styled", "opposite"])?;
    let template = |key: &str| -> Result<Option<String>> {
        let Some(template) = line(origin, &text, key, 400)? else {
            return Ok(None);
        };
        let rest = template.replace("{scene}", "");
        if rest.contains(['{', '}']) {
            let shown = format!("\"{}\"", shorten(&template));
            return Err(refuse(
                origin,
                &text.at(key),
                &shown,
                "text whose only braces are {scene}",
            ));
        }
        Ok(Some(template))
    };
    let needed = |key: &str| template(key)?.ok_or_else(|| text.missing(key));
    let wording = Wording {
        neutral: needed("neutral")?,
        styled: needed("styled")?,
        opposite: template("opposite")?,
        scene: line(origin, &text, "scene", 200)?.unwrap_or_else(|| "a landscape".to_owned()),
    };
    if wording.scene.contains(['{', '}']) {
        return Err(refuse(
            origin,
            "text.scene",
            &format!("\"{}\"", shorten(&wording.scene)),
            "text without braces",
        ));
    }
    if wording.neutral == wording.styled {
        let shown = format!("\"{}\"", shorten(&wording.styled));
        return Err(refuse(
            origin,
            "text.styled",
            &shown,
            "different from text.neutral",
        ));
    }
    Ok(wording)
}

/// A number in `least..=most`, or `default`.
fn number(
    origin: &str,
    fields: &Fields<'_>,
    key: &str,
    least: f64,
    most: f64,
    default: f64,
) -> Result<f32> {
    let value = fields.number(key)?.unwrap_or(default);
    if !(least..=most).contains(&value) {
        return Err(refuse(
            origin,
            &fields.at(key),
            &format!("{value}"),
            &format!("{least}..={most}"),
        ));
    }
    Ok(value as f32)
}

/// The error of a recipe's parameter, as one of this file.
fn in_file(origin: &str, error: Error) -> Error {
    Error::new(
        Code::InvalidAttribute,
        format!("{origin}: {}", error.message()),
    )
    .with_hint(error.hint())
    .with_parameter(error.parameter())
}

fn small(origin: &str, fields: &Fields<'_>, parameter: &params::Parameter) -> Result<Option<u32>> {
    let Some(value) = fields.integer(parameter.id)? else {
        return Ok(None);
    };
    let at = fields.at(parameter.id);
    parameter
        .check_integer(&at, value)
        .map_err(|e| in_file(origin, e))?;
    u32::try_from(value)
        .map(Some)
        .map_err(|_| in_file(origin, parameter.refuse(&at, &value.to_string())))
}

fn float(origin: &str, fields: &Fields<'_>, parameter: &params::Parameter) -> Result<Option<f32>> {
    let Some(value) = fields.number(parameter.id)? else {
        return Ok(None);
    };
    parameter
        .check_number(&fields.at(parameter.id), value)
        .map_err(|e| in_file(origin, e))?;
    Ok(Some(value as f32))
}

fn tuning(origin: &str, fields: &Fields<'_>) -> Result<(Tuning, f32, f32)> {
    let empty = Value::Object(serde_json::Map::new());
    let edit = match fields.object("edit")? {
        Some(edit) => edit,
        None => fields.inner("edit", &empty)?,
    };
    edit.only(&[
        "t_star",
        "d",
        "scale",
        "steps",
        "guidance",
        "noise",
        "residuals",
        "range",
    ])?;
    let residuals = match edit.text("residuals")? {
        None | Some("exact") => Residuals::Exact,
        Some("scaled") => Residuals::Scaled,
        Some(other) => {
            let shown = format!("\"{}\"", shorten(other));
            return Err(refuse(
                origin,
                "edit.residuals",
                &shown,
                "\"exact\" or \"scaled\"",
            ));
        }
    };
    let (least, most) = range(origin, &edit)?;
    let tuning = Tuning {
        t_star: number(origin, &edit, "t_star", 0.0, 0.95, 0.0)?,
        d: number(origin, &edit, "d", -1.0, 1.0, 0.0)?,
        scale: number(origin, &edit, "scale", 0.05, 2.0, 1.0)?,
        steps: small(origin, &edit, &params::STEPS)?,
        guidance: float(origin, &edit, &params::GUIDANCE)?,
        noise: float(origin, &edit, &params::NOISE)?,
        residuals,
    };
    Ok((tuning, least, most))
}

fn range(origin: &str, edit: &Fields<'_>) -> Result<(f32, f32)> {
    let Some(list) = edit.list("range")? else {
        return Ok((-2.0, 2.0));
    };
    let shown = Value::from(list).to_string();
    match (
        list.len(),
        list.first().and_then(Value::as_f64),
        list.get(1).and_then(Value::as_f64),
    ) {
        (2, Some(least), Some(most))
            if (-2.0..=0.0).contains(&least) && most > 0.0 && most <= 2.0 =>
        {
            Ok((least as f32, most as f32))
        }
        _ => {
            let must = "two numbers, the first -2..=0, the second above 0 and at most 2";
            Err(refuse(origin, "edit.range", &shorten(&shown), must))
        }
    }
}

fn composite(origin: &str, fields: &Fields<'_>) -> Result<Composite> {
    let Some(composite) = fields.object("composite")? else {
        return Ok(Composite::default());
    };
    composite.only(&["radius", "epsilon", "rest"])?;
    Ok(Composite {
        radius: small(origin, &composite, &params::RADIUS)?,
        epsilon: float(origin, &composite, &params::EPSILON)?,
        rest: float(origin, &composite, &params::REST)?,
    })
}

fn learned(origin: &str, fields: &Fields<'_>) -> Result<Option<Learned>> {
    let Some(learned) = fields.object("learned")? else {
        return Ok(None);
    };
    learned.only(&["times", "lambda"])?;
    let numbers = |key: &str, least: f64, most: f64| -> Result<Vec<f32>> {
        let list = learned.list(key)?.ok_or_else(|| learned.missing(key))?;
        if list.is_empty() || list.len() > MAX_LEARNED {
            let shown = format!("{} numbers", list.len());
            return Err(refuse(
                origin,
                &learned.at(key),
                &shown,
                &format!("a list of 1 to {MAX_LEARNED}"),
            ));
        }
        let one = |value: &Value| match value.as_f64() {
            Some(x) if (least..=most).contains(&x) => Ok(x as f32),
            _ => Err(learned.wrong(key, value, &format!("a list of numbers {least}..={most}"))),
        };
        list.iter().map(one).collect()
    };
    let (times, lambda) = (numbers("times", 1e-4, 1.0)?, numbers("lambda", -2.0, 2.0)?);
    if times.len() != lambda.len() {
        let shown = format!("{} numbers", lambda.len());
        return Err(refuse(
            origin,
            "learned.lambda",
            &shown,
            &format!("as many as times ({})", times.len()),
        ));
    }
    if let Some(pair) = times.windows(2).find(|w| w.first() <= w.last()) {
        return Err(refuse(
            origin,
            "learned.times",
            &format!("{pair:?}"),
            "falling",
        ));
    }
    Ok(Some(Learned { times, lambda }))
}
