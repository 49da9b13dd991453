//! `attributes`, `doctor`, `recipe` and `--version`: what there is, in plain words.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::args::{Attributes, Doctor, Editor, Speech};
use super::editors;
use super::sandbox;
use super::say;
use super::session::Session;
use crate::document;
use crate::failure::{Exit, Failure, Result};
use crate::library::{self, Library};
use crate::pixels::{Alpha, Color, Order, Pixels, Samples};

/// `semblance --version`; a missing library is told, not an error.
pub(super) fn version() {
    say(&format!("semblance {}", env!("CARGO_PKG_VERSION")));
    match Library::find() {
        Ok(library) => say(&format!(
            "libsemblance {} ({})",
            library.version(),
            library.path().display()
        )),
        Err(failure) => say(&format!("libsemblance: {}", failure.message)),
    }
}

/// `semblance attributes`.
pub(super) fn attributes(args: &Attributes) -> Result<()> {
    let session = Session::open(&args.machine, &Speech::default())?;
    let attributes = session.engine.attributes()?;
    if args.json {
        say(&attributes.to_string());
        return Ok(());
    }
    let list = listed(&attributes);
    if list.is_empty() {
        say("no attributes; an edit in words needs none: --from TEXT --to TEXT");
    }
    let width = list
        .iter()
        .map(|one| text(one, "name").chars().count())
        .max();
    for one in list {
        let served = one.get("served").and_then(Value::as_bool).unwrap_or(true);
        let models: Vec<&str> = one
            .get("models")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let note = if served {
            String::new()
        } else {
            format!(" (not for this model: for {})", models.join(", "))
        };
        say(&format!(
            "{:width$}  {}{note}",
            text(one, "name"),
            text(one, "description"),
            width = width.unwrap_or_default()
        ));
    }
    Ok(())
}

/// `semblance recipe FILE`.
pub(super) fn recipe(file: &Path) -> Result<()> {
    let recipe = document::recipe_of(file)?;
    let pretty = serde_json::to_string_pretty(&recipe)
        .map_err(|error| Failure::invalid_file(file, error))?;
    say(&pretty);
    Ok(())
}

/// One thing that doctor looked at.
struct Finding {
    /// What, in a word.
    what: &'static str,
    /// What was found.
    found: String,
    /// The failure, where it is not as it should be.
    failure: Option<Failure>,
}

/// `semblance doctor`: goes on after a failure as far as it can; the exit is that of the first one.
pub(super) fn doctor(args: &Doctor) -> std::result::Result<(), Exit> {
    let mut findings = Vec::new();
    let mut facts = json!({"program": env!("CARGO_PKG_VERSION")});
    examine(args, &mut findings, &mut facts);
    let failed = findings.iter().find_map(|finding| finding.failure.clone());
    if args.json {
        let list: Vec<Value> = findings
            .iter()
            .map(|finding| {
                json!({
                    "what": finding.what,
                    "ok": finding.failure.is_none(),
                    "found": finding.found,
                    "error": finding.failure.as_ref().map(Failure::json),
                })
            })
            .collect();
        if let Some(facts) = facts.as_object_mut() {
            facts.insert("ok".into(), json!(failed.is_none()));
            facts.insert("findings".into(), json!(list));
        }
        say(&facts.to_string());
    } else {
        for finding in &findings {
            match &finding.failure {
                None => say(&format!("ok       {:10} {}", finding.what, finding.found)),
                Some(failure) => {
                    say(&format!("MISSING  {:10} {}", finding.what, failure.message));
                    if !failure.hint.is_empty() {
                        say(&format!("         {:10} what to do: {}", "", failure.hint));
                    }
                }
            }
        }
        say(match failed {
            None => "Everything is in place.",
            Some(_) => "Something is missing; see above.",
        });
    }
    match failed {
        None => Ok(()),
        Some(failure) => Err(failure.exit),
    }
}

fn examine(args: &Doctor, findings: &mut Vec<Finding>, facts: &mut Value) {
    let mut note = |what, result: Result<String>| {
        let (found, failure) = match result {
            Ok(found) => (found, None),
            Err(failure) => (String::new(), Some(failure)),
        };
        findings.push(Finding {
            what,
            found,
            failure,
        });
    };
    let places: Vec<String> = library::places()
        .iter()
        .map(|place| place.display().to_string())
        .collect();
    let library = Library::find();
    let found = library.as_ref().map(|library| {
        format!(
            "{}, version {}",
            library.path().display(),
            library.version()
        )
    });
    note("library", found.map_err(Clone::clone));
    let editors: Vec<String> = editors::found().iter().map(editors::Place::told).collect();
    facts["editors"] = json!(editors);
    for editor in editors {
        note("editor", Ok(editor));
    }
    let (lines, list) = sandboxes(args.machine.model.as_deref());
    facts["sandboxes"] = list;
    for line in lines {
        note("sandbox", Ok(line));
    }
    facts["library"] = match &library {
        Ok(library) => {
            json!({"path": library.path().to_string_lossy(), "version": library.version()})
        }
        Err(_) => json!({"looked_at": places}),
    };
    if library.is_err() {
        return;
    }
    let session = match Session::open(&args.machine, &Speech::default()) {
        Ok(session) => session,
        Err(failure) => return note("engine", Err(failure)),
    };
    let load = session.engine.load().and_then(|job| session.finish(job));
    let described = load.and_then(|_| session.engine.describe());
    match &described {
        Ok(engine) => {
            note("model", Ok(model_in_words(engine)));
            note("processor", Ok(processor(engine)));
            note("memory", memory(engine));
            note("packed", Ok(packed(engine)));
        }
        Err(failure) => note("model", Err(failure.clone())),
    }
    let Ok(engine) = described else { return };
    facts["engine"] = engine;
    let attributes = session.engine.attributes();
    let names: Vec<String> = attributes
        .as_ref()
        .map(listed)
        .unwrap_or_default()
        .iter()
        .filter(|one| one.get("served").and_then(Value::as_bool).unwrap_or(true))
        .map(|one| text(one, "name").to_owned())
        .collect();
    note(
        "attributes",
        attributes.map(|_| match names.len() {
            0 => "none for this model; edits in words work: --from TEXT --to TEXT".to_owned(),
            _ => names.join(", "),
        }),
    );
    facts["attributes"] = json!(names);
    note("trial", trial(&session, names.first().map(String::as_str)));
}

/// What editors in sandboxes see, and which folders of models they do not: in words and as facts.
fn sandboxes(model: Option<&Path>) -> (Vec<String>, Value) {
    let folders = sandbox::model_folders(model);
    let (mut lines, mut list) = (Vec::new(), Vec::new());
    for one in [Editor::Gimp, Editor::Krita]
        .into_iter()
        .flat_map(sandbox::found)
    {
        lines.push(one.told());
        let mut unseen = Vec::new();
        for (folder, hint) in one.unseen(&folders) {
            let name = one.name();
            let folder = folder.display().to_string();
            lines.push(format!("{name} cannot see the models in {folder}: {hint}"));
            unseen.push(json!({"folder": folder, "hint": hint}));
        }
        list.push(json!({"editor": one.name(), "sees": one.told(), "cannot_see": unseen}));
    }
    (lines, Value::Array(list))
}

fn model_in_words(engine: &Value) -> String {
    let Some(model) = engine.get("model") else {
        return "unknown".to_owned();
    };
    let megabytes = model
        .get("weight_bytes")
        .and_then(Value::as_f64)
        .unwrap_or(0.0)
        / 1e6;
    let hash: String = text(model, "hash").chars().take(12).collect();
    format!("{}, {megabytes:.1} MB, hash {hash}", text(model, "name"))
}

/// What computes, and what could.
fn processor(engine: &Value) -> String {
    let (path, best) = (text(engine, "cpu_path"), text(engine, "cpu_best"));
    let faster = match best {
        "amx" => path != "native-amx",
        // Slower than f32 on an Intel CPU.
        "avx512bf16" => path == "native-avx512",
        _ => false,
    };
    let hint = match faster {
        true => format!("; faster, rounded to bf16: --cpu {best} (SEMBLANCE_CPU={best})"),
        false => String::new(),
    };
    let threads = engine.get("threads").unwrap_or(&Value::Null);
    format!("{path} kernels, {threads} threads{hint}")
}

/// Where weights are kept packed, how much of them there is, and what became of this model's.
fn packed(engine: &Value) -> String {
    let packed = engine.get("packed").unwrap_or(&Value::Null);
    let Some(folder) = packed.get("folder").and_then(Value::as_str) else {
        return "weights are packed at every start (SEMBLANCE_PACKED names a folder)".to_owned();
    };
    let gigabytes = packed.get("bytes").and_then(Value::as_f64).unwrap_or(0.0) / 1e9;
    let file = text(packed, "file");
    format!("{folder}, {gigabytes:.1} GB; this model's weights: {file}")
}

fn memory(engine: &Value) -> Result<String> {
    let bytes = |key: &str| {
        let memory = engine.get("memory");
        memory
            .and_then(|memory| memory.get(key))
            .and_then(Value::as_f64)
    };
    let gib = |value: f64| value / f64::from(1u32 << 30);
    let (Some(available), Some(needed)) = (bytes("available"), bytes("needed")) else {
        return Ok("unknown".to_owned());
    };
    let limit = bytes("limit").unwrap_or(available);
    let words = format!(
        "{:.1} GiB free, an edit needs about {:.2}",
        gib(available),
        gib(needed)
    );
    if needed > limit {
        let mut failure =
            Failure::library(words).hint("close other programs, or use a smaller model");
        failure.exit = Exit::Memory;
        return Err(failure);
    }
    Ok(words)
}

/// A small edit, and that strength 0 changes nothing.
fn trial(session: &Session, attribute: Option<&str>) -> Result<String> {
    let start = Instant::now();
    let layer = gradient();
    let recipe = |strength: f64| match attribute {
        Some(name) => json!({"semblance": 1, "attributes": [{"name": name, "strength": strength}]}),
        None => {
            json!({"semblance": 1, "text": {"from": "a photo", "to": "a photo at night", "strength": strength}})
        }
    };
    let outcome = session.edit(&layer, None, &recipe(1.0))?;
    let tally = outcome.render(&mut layer.clone(), None)?;
    let seconds = start.elapsed().as_secs_f64();
    let outcome = session.edit(&layer, None, &recipe(0.0))?;
    let mut same = layer.clone();
    outcome.render(&mut same, None)?;
    if same != layer {
        return Err(
            Failure::library("the trial edit at strength 0 changed the picture")
                .hint("the library is damaged: build it again"),
        );
    }
    Ok(format!(
        "an edit of 64×64 pixels took {seconds:.1} s and changed {} of them; strength 0 changed none",
        tally.changed
    ))
}

/// A sky over a ground, of a sort.
fn gradient() -> Pixels {
    let bytes = (0..64u32 * 64)
        .flat_map(|at| {
            let (x, y) = ((at % 64) as u8, (at / 64) as u8);
            if y < 40 {
                [90 + y, 140 + y, 210 + x / 4]
            } else {
                [60 + x / 2, 110 - y, 40 + x / 3]
            }
        })
        .collect();
    Pixels {
        width: 64,
        height: 64,
        samples: Samples::U8,
        order: Order::Rgb,
        alpha: Alpha::None,
        color: Color::Srgb,
        bytes,
    }
}

/// The list in the library's answer.
fn listed(attributes: &Value) -> &[Value] {
    let list = attributes.get("attributes").and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

/// A string of an object, or nothing.
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}
