//! From the command line to a recipe, and from a recipe to a layer's name.
//!
//! Not for: checking values, which the library does, with better texts.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::args::{Edit, Making, Sheet, Slider};
use crate::document;
use crate::failure::{Failure, Result};

/// The recipe of `semblance edit`: that of `--recipe`, with what the line says in its place.
pub(super) fn of_edit(edit: &Edit) -> Result<Value> {
    let mut recipe = start(&edit.making)?;
    set_sliders(&mut recipe, &edit.attribute);
    if edit.from.is_some() || edit.strength.is_some() {
        let mut text = match recipe.remove("text") {
            Some(Value::Object(text)) => text,
            _ => Map::new(),
        };
        if edit.from.is_none() && text.is_empty() {
            return Err(
                Failure::usage("--strength without words to be strong about")
                    .hint("it goes with --from and --to; a slider has its own: -a sunset=0.8"),
            );
        }
        if let (Some(from), Some(to)) = (&edit.from, &edit.to) {
            text.insert("from".into(), json!(from));
            text.insert("to".into(), json!(to));
        }
        let strength = edit.strength.map(|strength| json!(strength));
        if let Some(strength) =
            strength.or_else(|| (!text.contains_key("strength")).then(|| json!(1.0)))
        {
            text.insert("strength".into(), strength);
        }
        recipe.insert("text".into(), Value::Object(text));
    }
    if let Some(steps) = edit.steps {
        recipe.insert("steps".into(), json!(steps));
    }
    if !recipe.contains_key("attributes") && !recipe.contains_key("text") {
        return Err(Failure::usage("nothing to change")
            .hint("say -a NAME=STRENGTH, --from TEXT --to TEXT, or --recipe FILE"));
    }
    Ok(Value::Object(recipe))
}

/// The recipes of `semblance sheet`: for each attribute in turn, one a strength.
pub(super) fn of_sheet(sheet: &Sheet) -> Result<Vec<(Slider, Value)>> {
    let mut recipe = start(&sheet.making)?;
    if let Some(steps) = sheet.sampling_steps {
        recipe.insert("steps".into(), json!(steps));
    }
    let last = f64::from(sheet.steps.saturating_sub(1)).max(1.0);
    let strength = |step: u32| {
        let at = f64::from(step) / last;
        let strength = sheet.from + (sheet.to - sheet.from) * at;
        // Thirds and the like, short enough for a label and the same in the recipe.
        (strength * 1000.0).round() / 1000.0 + 0.0
    };
    let sliders = sheet.attributes.iter().flat_map(|name| {
        (0..sheet.steps).map(move |step| Slider {
            name: name.clone(),
            strength: strength(step),
        })
    });
    Ok(sliders
        .map(|slider| {
            let mut recipe = recipe.clone();
            set_sliders(&mut recipe, std::slice::from_ref(&slider));
            (slider, Value::Object(recipe))
        })
        .collect())
}

/// The recipe of `--recipe`, or an empty one, with the options that all commands share.
fn start(making: &Making) -> Result<Map<String, Value>> {
    let mut recipe = match &making.recipe {
        None => Map::from_iter([("semblance".to_owned(), json!(1))]),
        Some(path) => match document::recipe_of(path)? {
            Value::Object(recipe) => recipe,
            _ => return Err(Failure::invalid_file(path, "its recipe is no object")),
        },
    };
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            recipe.insert(key.to_owned(), value);
        }
    };
    set("scene", making.scene.as_ref().map(|scene| json!(scene)));
    set("seed", making.seed.map(|seed| json!(seed)));
    set("guidance", making.guidance.map(|guidance| json!(guidance)));
    set("noise", making.noise.map(|noise| json!(noise)));
    set("radius", making.radius.map(|radius| json!(radius)));
    set("epsilon", making.epsilon.map(|epsilon| json!(epsilon)));
    set("rest", making.rest.map(|rest| json!(rest)));
    set("compositor", making.compositor.map(|how| json!(how.name())));
    Ok(recipe)
}

/// Sets sliders by name; others stay.
fn set_sliders(recipe: &mut Map<String, Value>, sliders: &[Slider]) {
    if sliders.is_empty() {
        return;
    }
    let mut list = match recipe.remove("attributes") {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    for slider in sliders {
        let new = json!({"name": slider.name, "strength": slider.strength});
        match list
            .iter_mut()
            .find(|old| old.get("name").and_then(Value::as_str) == Some(slider.name.as_str()))
        {
            Some(old) => *old = new,
            None => list.push(new),
        }
    }
    recipe.insert("attributes".to_owned(), Value::Array(list));
}

/// The edit in a few words, for a layer's name: `sunset 0.8, fog 0.3`.
pub(super) fn title(recipe: &Value) -> String {
    let mut parts = Vec::new();
    let sliders = recipe.get("attributes").and_then(Value::as_array);
    for slider in sliders.into_iter().flatten() {
        let name = slider.get("name").and_then(Value::as_str).unwrap_or("edit");
        let name = match Path::new(name).file_stem() {
            Some(stem) if name.contains('/') || name.ends_with(".toml") => stem.to_string_lossy(),
            _ => name.into(),
        };
        parts.push(format!("{name} {}", number(slider.get("strength"))));
    }
    if let Some(text) = recipe.get("text") {
        let to = text.get("to").and_then(Value::as_str).unwrap_or("edit");
        let to: String = to.chars().take(60).collect();
        parts.push(match number(text.get("strength")).as_str() {
            "1" => to,
            strength => format!("{to} {strength}"),
        });
    }
    parts.join(", ")
}

/// A strength with three decimals at most.
fn number(value: Option<&Value>) -> String {
    let value = value.and_then(Value::as_f64).unwrap_or(1.0);
    format!("{}", (value * 1000.0).round() / 1000.0 + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;

    fn recipe(line: &[&str]) -> Result<Value> {
        let head = ["semblance", "edit", "in.png", "-o", "o.png"];
        let line = head.iter().chain(line);
        match Cli::try_parse_from(line).unwrap().command {
            Some(Command::Edit(edit)) => of_edit(&edit),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_line_becomes_a_recipe_without_defaults() {
        assert_eq!(
            recipe(&["-a", "sunset=0.8", "--seed", "7"]).unwrap(),
            json!({"semblance": 1, "attributes": [{"name": "sunset", "strength": 0.8}], "seed": 7})
        );
        assert_eq!(
            recipe(&["--from", "a", "--to", "b"]).unwrap(),
            json!({"semblance": 1, "text": {"from": "a", "to": "b", "strength": 1.0}})
        );
    }

    #[test]
    fn a_line_that_changes_nothing_is_refused() {
        assert!(recipe(&[]).is_err());
        assert!(recipe(&["--strength", "1"]).is_err());
    }

    #[test]
    fn the_line_replaces_parts_of_the_recipe_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.json");
        let old = json!({
            "semblance": 1,
            "attributes": [{"name": "sunset", "strength": 1}, {"name": "fog", "strength": 0.3}],
            "text": {"from": "a", "to": "b", "strength": 1.0},
            "seed": 3,
        });
        std::fs::write(&path, old.to_string()).unwrap();
        let path = path.to_str().unwrap();
        let new = recipe(&["--recipe", path, "-a", "fog=0.5", "--strength", "0.5"]).unwrap();
        assert_eq!(
            new,
            json!({
                "semblance": 1,
                "attributes": [{"name": "sunset", "strength": 1}, {"name": "fog", "strength": 0.5}],
                "text": {"from": "a", "to": "b", "strength": 0.5},
                "seed": 3,
            })
        );
    }

    #[test]
    fn layers_are_named_after_the_edit() {
        let recipe = json!({
            "attributes": [{"name": "sunset", "strength": 0.8}, {"name": "a/fog.toml", "strength": -1.0}],
            "text": {"from": "a", "to": "night", "strength": 1.0},
        });
        assert_eq!(title(&recipe), "sunset 0.8, fog -1, night");
    }

    #[test]
    fn a_sheet_goes_through_zero_without_a_minus_sign() {
        let line = "semblance sheet in.png -a sunset -o o.png";
        let Some(Command::Sheet(sheet)) = Cli::try_parse_from(line.split_whitespace())
            .unwrap()
            .command
        else {
            panic!()
        };
        let strengths: Vec<String> = of_sheet(&sheet)
            .unwrap()
            .iter()
            .map(|(slider, _)| slider.strength.to_string())
            .collect();
        assert_eq!(
            strengths,
            ["-1", "-0.667", "-0.333", "0", "0.333", "0.667", "1"]
        );
    }
}
