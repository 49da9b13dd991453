//! `semblance edit`: many files through one warm engine.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::args::{Edit, Source};
use super::explain::Explained;
use super::session::Session;
use super::sheet::assume;
use super::{Ended, complain, mask, pattern, recipe, say, stopped, warn};
use crate::document::ora::OpenRaster;
use crate::document::{self, Document, Encoding, Kind, Picture, atomic};
use crate::failure::{Exit, Failure, Result};
use crate::library::{Outcome, Tally};
use crate::pixels::Pixels;

/// Edits every input; goes on after a failure. Has told everything when it returns.
pub(super) fn run(edit: &Edit) -> std::result::Result<(), Ended> {
    let json = edit.speech.json;
    let prepared = Prepared::new(edit).map_err(|failure| super::fail(&failure, json))?;
    let mut session = None;
    let (mut done, mut skipped) = (0, 0);
    let mut failures: Vec<Failure> = Vec::new();
    for (at, (input, output)) in edit.inputs.iter().zip(&prepared.outputs).enumerate() {
        if edit.skip_existing && output.exists() {
            skipped += 1;
            let line =
                json!({"ok": true, "skipped": true, "input": name(input), "output": name(output)});
            if json {
                say(&line.to_string());
            }
            continue;
        }
        let result = open_session(&mut session, edit).and_then(|session| {
            session
                .reporter
                .begin(&name(input), at + 1, edit.inputs.len());
            let result = one(session, edit, &prepared, input, output);
            session.reporter.end();
            result
        });
        match result {
            Ok(report) => {
                done += 1;
                report.tell(json);
            }
            Err(failure) => {
                if json {
                    say(
                        &json!({"ok": false, "input": name(input), "output": name(output),
                                "error": failure.json()})
                        .to_string(),
                    );
                }
                complain(&failure);
                // Nobody presses Ctrl-C for each of a thousand files; a model that is missing or a
                // recipe that is wrong for one is so for all.
                let common = [Exit::Cancelled, Exit::Model, Exit::Usage];
                let over = session.is_none() || common.contains(&failure.exit);
                failures.push(failure);
                if over {
                    break;
                }
            }
        }
    }
    if edit.inputs.len() > 1 && !json {
        let mut stderr = std::io::stderr();
        let _ = std::io::Write::write_fmt(
            &mut stderr,
            format_args!(
                "semblance: {done} edited, {skipped} skipped, {} failed of {}\n",
                failures.len(),
                edit.inputs.len()
            ),
        );
    }
    match exit_of(&failures) {
        None => Ok(()),
        Some(exit) => Err(Ended(exit)),
    }
}

/// The exit code: that of all failures where they agree.
fn exit_of(failures: &[Failure]) -> Option<Exit> {
    let first = failures.first()?.exit;
    if failures
        .iter()
        .any(|failure| failure.exit == Exit::Cancelled)
    {
        return Some(Exit::Cancelled);
    }
    Some(if failures.iter().all(|failure| failure.exit == first) {
        first
    } else {
        Exit::Edit
    })
}

/// What is known before the first file.
struct Prepared {
    recipe: Value,
    outputs: Vec<PathBuf>,
    mask: Option<Pixels>,
}

impl Prepared {
    fn new(edit: &Edit) -> Result<Prepared> {
        let recipe = recipe::of_edit(edit)?;
        let outputs = pattern::outputs(&edit.inputs, &edit.output)?;
        for output in &outputs {
            output_kind(output)?;
        }
        let making = &edit.making;
        let others = [making.mask.as_deref(), making.recipe.as_deref()];
        pattern::protect(&edit.inputs, &outputs, &others, edit.force)?;
        let mask = edit.making.mask.as_deref().map(mask::open).transpose()?;
        Ok(Prepared {
            recipe,
            outputs,
            mask,
        })
    }
}

/// The kind of an output, by its name.
pub(super) fn output_kind(output: &Path) -> Result<Kind> {
    Kind::of_path(output).ok_or_else(|| {
        Failure::invalid_file(output, "its name says no known kind")
            .hint("end it in .png, .jpg, .tif, .webp or .ora")
    })
}

/// `--layer` for a picture that has none.
pub(super) fn no_layers(input: &Path, layer: &str, kind: Kind) -> Failure {
    let what = format!("--layer {layer}: a {} has no layers", kind.name());
    Failure::invalid_file(input, what).hint("leave --layer out")
}

/// The warnings of the library's report.
pub(super) fn warnings_in(report: &Value) -> Vec<String> {
    let said = report.get("warnings").and_then(Value::as_array);
    said.into_iter()
        .flatten()
        .filter_map(|warning| warning.as_str().map(str::to_owned))
        .collect()
}

fn open_session<'a>(session: &'a mut Option<Session>, edit: &Edit) -> Result<&'a Session> {
    if session.is_none() {
        *session = Some(Session::open(&edit.machine, &edit.speech)?);
    }
    session
        .as_ref()
        .ok_or_else(|| Failure::library("no engine"))
}

/// A file that was edited.
struct Report {
    input: String,
    output: String,
    layer: Option<String>,
    title: String,
    tally: Tally,
    explained: Explained,
    seconds: f64,
    warnings: Vec<String>,
    recipe: Value,
    report: Value,
}

impl Report {
    fn tell(&self, json: bool) {
        for warning in &self.warnings {
            warn(&format!("{}: {warning}", self.input));
        }
        let Explained { inside, outside } = &self.explained;
        let share = |part: u64, of: u64| 100.0 * part as f64 / of.max(1) as f64;
        if json {
            let line = json!({
                "ok": true,
                "input": self.input,
                "output": self.output,
                "layer": self.layer,
                "title": self.title,
                "seconds": self.seconds,
                "changed": self.tally.changed,
                "kept": self.tally.kept,
                "mean_change": self.tally.mean_change,
                "largest_change": self.tally.largest_change,
                "inside": self.explained.inside.json(),
                "outside": self.explained.outside.json(),
                "warnings": self.warnings,
                "recipe": self.recipe,
                "report": self.report,
            });
            say(&line.to_string());
        } else {
            let changed = match outside.pixels {
                0 => format!(
                    "{:.1} % of the pixels changed",
                    share(inside.changed, inside.pixels)
                ),
                pixels => format!(
                    "{:.1} % of the pixels inside the mask changed, {} of {pixels} outside",
                    share(inside.changed, inside.pixels),
                    outside.changed
                ),
            };
            say(&format!(
                "{}: {}; {changed}, {:.1} s",
                self.output, self.title, self.seconds
            ));
        }
    }
}

/// Edits one file.
fn one(
    session: &Session,
    edit: &Edit,
    prepared: &Prepared,
    input: &Path,
    output: &Path,
) -> Result<Report> {
    if stopped() {
        return Err(Failure::cancelled());
    }
    let start = Instant::now();
    let kind = output_kind(output)?;
    let encoding = Encoding {
        quality: edit.quality,
    };
    let refused = |what: String| Failure::invalid_file(input, what);
    let title = recipe::title(&prepared.recipe);
    let mut warnings = Vec::new();
    let (done, layer, bytes) = match document::open(input)? {
        Document::Picture(picture) => {
            if let Some(layer) = &edit.making.layer {
                return Err(no_layers(input, layer, picture.kind));
            }
            let canvas = (picture.pixels.width, picture.pixels.height);
            let (done, edited) = Done::new(session, edit, prepared, &picture, canvas, (0, 0))?;
            let bytes = if kind == Kind::Ora {
                let mut layers = OpenRaster::of_picture(&picture, "background").map_err(refused)?;
                let below = layers
                    .layer(None)
                    .map_err(|(what, _)| refused(what))?
                    .clone();
                layers
                    .insert_above(&below, &edited, &title, &done.recipe)
                    .map_err(refused)?;
                warnings.append(&mut layers.warnings);
                layers.encode().map_err(refused)?
            } else if kind == Kind::Jpeg && picture.kind == Kind::Jpeg && done.tally.changed == 0 {
                // Packing it again would change what the edit did not.
                document::read_file(input)?
            } else {
                encoded(&edited, kind, encoding, output, &mut warnings)?
            };
            (done, None, bytes)
        }
        Document::Layers(mut layers) if edit.making.source == Source::Visible => {
            let picture = layers.visible().map_err(refused)?;
            let (done, edited) =
                Done::new(session, edit, prepared, &picture, layers.size(), (0, 0))?;
            layers
                .insert_on_top(&edited, &title, &done.recipe)
                .map_err(refused)?;
            let bytes = match kind {
                Kind::Ora => layers.encode().map_err(refused)?,
                _ => encoded(&edited, kind, encoding, output, &mut warnings)?,
            };
            warnings.append(&mut layers.warnings);
            (done, None, bytes)
        }
        Document::Layers(mut layers) => {
            let below = layers
                .layer(edit.making.layer.as_deref())
                .map_err(|(what, hint)| refused(what).hint(hint))?
                .clone();
            let picture = layers.picture(&below).map_err(refused)?;
            let offset = (below.x, below.y);
            let (done, edited) =
                Done::new(session, edit, prepared, &picture, layers.size(), offset)?;
            layers
                .insert_above(&below, &edited, &title, &done.recipe)
                .map_err(refused)?;
            warnings.append(&mut layers.warnings);
            let bytes = if kind == Kind::Ora {
                layers.encode().map_err(refused)?
            } else {
                let mut merged = layers.merged().map_err(refused)?;
                merged.set_recipe(&done.recipe);
                warnings.push(format!("a {} has no layers: they were merged", kind.name()));
                encoded(&merged, kind, encoding, output, &mut warnings)?
            };
            (done, Some(below.name), bytes)
        }
    };
    atomic::write(output, &bytes, stopped)?;
    warnings.splice(0..0, done.warnings);
    Ok(Report {
        input: name(input),
        output: name(output),
        layer,
        title,
        tally: done.tally,
        explained: done.explained,
        seconds: start.elapsed().as_secs_f64(),
        warnings,
        recipe: done.recipe,
        report: done.report,
    })
}

fn encoded(
    picture: &Picture,
    kind: Kind,
    encoding: Encoding,
    output: &Path,
    warnings: &mut Vec<String>,
) -> Result<Vec<u8>> {
    let (bytes, said) = picture
        .encode(kind, encoding)
        .map_err(|(what, hint)| Failure::invalid_file(output, what).hint(hint))?;
    warnings.extend(said);
    Ok(bytes)
}

/// What an edit of one layer gave.
struct Done {
    tally: Tally,
    explained: Explained,
    recipe: Value,
    report: Value,
    warnings: Vec<String>,
}

impl Done {
    /// Edits `picture`, which lies at `offset` on the canvas.
    fn new(
        session: &Session,
        edit: &Edit,
        prepared: &Prepared,
        picture: &Picture,
        canvas: (u32, u32),
        offset: (i64, i64),
    ) -> Result<(Done, Picture)> {
        // The only copy: the edit is made in it, and compared with the picture afterwards.
        let mut layer = picture.pixels.clone();
        assume(&mut layer, edit.making.assume);
        let size = (layer.width, layer.height);
        let mask = match (&edit.making.mask, &prepared.mask) {
            (Some(path), Some(pixels)) => Some(mask::fit(path, pixels, size, canvas, offset)?),
            _ => None,
        };
        let outcome: Outcome = session.edit(&layer, mask.as_ref(), &prepared.recipe)?;
        let tally = outcome.render(&mut layer, mask.as_ref())?;
        let explained = Explained::new(&picture.pixels, &layer, mask.as_ref());
        explained.check()?;
        let (recipe, report) = (outcome.recipe()?, outcome.report()?);
        let mut warnings = picture.warnings.clone();
        warnings.extend(warnings_in(&report));
        let mut edited = Picture {
            kind: picture.kind,
            pixels: layer,
            metadata: picture.metadata.clone(),
            warnings: picture.warnings.clone(),
        };
        edited.set_recipe(&recipe);
        Ok((
            Done {
                tally,
                explained,
                recipe,
                report,
                warnings,
            },
            edited,
        ))
    }
}

fn name(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_differ_exit_with_one() {
        let file = Failure::invalid_file(Path::new("a"), "b");
        let model = Failure::library("c");
        assert_eq!(exit_of(&[]), None);
        assert_eq!(exit_of(&[file.clone(), file.clone()]), Some(Exit::File));
        assert_eq!(exit_of(&[file.clone(), model]), Some(Exit::Edit));
        assert_eq!(
            exit_of(&[file, Failure::cancelled()]),
            Some(Exit::Cancelled)
        );
    }
}
