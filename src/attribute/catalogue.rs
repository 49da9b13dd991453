//! The attributes that can be named: the library's own, then those in the user's folders.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::{Attribute, ModelId, file};
use crate::error::{Code, Error, Result};
use crate::fields::{nearest, shorten};
use crate::recipe::Slider;

/// The library's own, in the order of dialogs.
const OWN: [(&str, &str); 7] = [
    ("sunset.toml", include_str!("../../attributes/sunset.toml")),
    ("night.toml", include_str!("../../attributes/night.toml")),
    ("snow.toml", include_str!("../../attributes/snow.toml")),
    ("fog.toml", include_str!("../../attributes/fog.toml")),
    ("autumn.toml", include_str!("../../attributes/autumn.toml")),
    (
        "overcast.toml",
        include_str!("../../attributes/overcast.toml"),
    ),
    ("rain.toml", include_str!("../../attributes/rain.toml")),
];

/// Files that are read of one folder: a mistaken `/usr` must not take minutes.
const MAX_FILES: usize = 1000;

/// Every attribute that has a name here. Of two with one name and model, the one found last holds.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    all: Vec<Arc<Attribute>>,
    /// Files of the user's folders that could not be read, by stem: they fail only who asks for them.
    broken: Vec<(String, Error)>,
}

impl Catalogue {
    /// The library's own and every `*.toml` of `folders`, by file name.
    ///
    /// A broken file is kept as its error. Errors with [`Code::Io`] when a folder cannot be read.
    pub fn open(folders: &[PathBuf]) -> Result<Self> {
        let mut catalogue = Catalogue::default();
        for (name, text) in OWN {
            catalogue.all.push(Arc::new(file::parse(name, text)?));
        }
        for folder in folders {
            for path in toml_files(folder)? {
                match read(&path) {
                    Ok(attribute) => catalogue.all.push(Arc::new(attribute)),
                    Err(error) => {
                        let stem = path
                            .file_stem()
                            .unwrap_or_default()
                            .to_string_lossy()
                            .into_owned();
                        catalogue.broken.push((stem, error));
                    }
                }
            }
        }
        Ok(catalogue)
    }

    /// The attribute that `slider` names, for `model`.
    ///
    /// Errors with [`Code::UnknownAttribute`] (and the nearest names), with
    /// [`Code::AttributeNotForModel`] (and the models that it serves), with
    /// [`Code::InvalidAttribute`] or [`Code::Io`] for a file.
    pub fn find(&self, slider: &Slider, model: &ModelId) -> Result<Arc<Attribute>> {
        if slider.is_path() {
            let attribute = read(Path::new(&slider.name))?;
            return match attribute.serves(model) {
                true => Ok(Arc::new(attribute)),
                false => Err(not_for(&attribute.name, &attribute.models, model)),
            };
        }
        let named: Vec<&Arc<Attribute>> =
            self.all.iter().filter(|a| a.name == slider.name).collect();
        if let Some(found) = named.iter().rev().find(|a| a.serves(model)) {
            return Ok(Arc::clone(found));
        }
        if let Some((_, error)) = self.broken.iter().find(|(stem, _)| *stem == slider.name) {
            return Err(error.clone());
        }
        if named.is_empty() {
            return Err(self.unknown(&slider.name, model));
        }
        let models: Vec<String> = named
            .iter()
            .flat_map(|a| a.models.iter().cloned())
            .collect();
        Err(not_for(&slider.name, &models, model))
    }

    /// Whether an attribute that one of `sliders` names lists what may be a model's hash. A file that
    /// cannot be read lists none.
    pub fn may_serve_by_hash(&self, sliders: &[Slider]) -> bool {
        sliders.iter().any(|slider| match slider.is_path() {
            true => read(Path::new(&slider.name)).is_ok_and(|a| a.names_a_hash()),
            false => (self.all.iter()).any(|a| a.name == slider.name && a.names_a_hash()),
        })
    }

    /// What a host may list: a JSON array, one object an attribute.
    pub fn to_json(&self, model: &ModelId) -> serde_json::Value {
        let one = |a: &Arc<Attribute>| {
            json!({
                "name": a.name,
                "title": a.title,
                "description": a.description,
                "range": [a.least, a.most],
                "default": 1.0,
                "models": a.models,
                "served": a.serves(model),
                "opposite": a.wording.opposite.is_some(),
                "text": a.wording.fill(&a.wording.styled, None),
                "licence": a.licence,
                "source": a.source,
                "file": a.path,
                "hash": a.hash,
            })
        };
        self.all.iter().map(one).collect()
    }

    /// What is wrong with files of the user's folders.
    pub fn problems(&self) -> impl Iterator<Item = &Error> {
        self.broken.iter().map(|(_, error)| error)
    }

    fn unknown(&self, name: &str, model: &ModelId) -> Error {
        // Names that this model serves come first among equals: the others would only be refused next.
        let served: Vec<&str> = self
            .all
            .iter()
            .filter(|a| a.serves(model))
            .map(|a| a.name.as_str())
            .collect();
        let mut near = nearest(name, served.iter().copied());
        if near.is_empty() {
            near = nearest(name, self.all.iter().map(|a| a.name.as_str()));
        }
        near.dedup();
        let hint = match near.as_slice() {
            [] if served.is_empty() => format!("none serves the model {}", model.name),
            [] => format!("there are {}", served.join(", ")),
            near => format!("did you mean {}?", near.join(", ")),
        };
        Error::new(
            Code::UnknownAttribute,
            format!("no attribute is called \"{}\"", shorten(name)),
        )
        .with_hint(hint)
        .with_parameter("attributes")
    }
}

fn not_for(name: &str, models: &[String], model: &ModelId) -> Error {
    let mut models: Vec<String> = models.iter().map(|m| shorten(m)).collect();
    models.sort();
    models.dedup();
    let error = format!(
        "the attribute \"{name}\" is not made for the model {}",
        shorten(&model.name)
    );
    Error::new(Code::AttributeNotForModel, error)
        .with_hint(format!(
            "it serves {}; say it in free text instead",
            models.join(", ")
        ))
        .with_parameter("attributes")
}

fn toml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let fail = |e: std::io::Error| {
        Error::new(
            Code::Io,
            format!("attribute folder {}: {e}", folder.display()),
        )
        .with_parameter("attribute_folders")
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            let error = format!(
                "attribute folder {}: more than {MAX_FILES} files",
                folder.display()
            );
            return Err(
                Error::new(Code::Io, error).with_hint("name the folder that holds your attributes")
            );
        }
    }
    files.sort();
    Ok(files)
}

/// Reads one attribute file of the user's.
fn read(path: &Path) -> Result<Attribute> {
    let origin = path.display().to_string();
    let fail = |e: std::io::Error| {
        Error::new(Code::Io, format!("attribute file {origin}: {e}"))
            .with_hint("a name with / in it or ending in .toml is the path of a file")
            .with_parameter("attributes")
    };
    // Asked before it is opened: to open a pipe is to wait for its writer.
    if !fs::metadata(path).map_err(fail)?.is_file() {
        return Err(Error::new(
            Code::Io,
            format!("attribute file {origin}: is not a plain file"),
        ));
    }
    let mut text = String::new();
    let limit = file::MAX_BYTES as u64 + 1;
    fs::File::open(path)
        .and_then(|f| f.take(limit).read_to_string(&mut text))
        .map_err(fail)?;
    let mut attribute = file::parse(&origin, &text)?;
    attribute.path = Some(origin);
    Ok(attribute)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mini() -> ModelId {
        ModelId {
            name: "mini".into(),
            family: "mini".into(),
            hash: String::new(),
        }
    }

    fn slider(name: &str) -> Slider {
        Slider {
            name: name.into(),
            strength: 1.0,
        }
    }

    #[test]
    fn every_file_of_the_catalogue_is_well_formed_and_serves_the_embedded_model() {
        let catalogue = Catalogue::open(&[]).unwrap();
        for (file, _) in OWN {
            let name = file.trim_end_matches(".toml");
            let found = catalogue.find(&slider(name), &mini()).unwrap();
            assert_eq!(found.name, name);
            assert!(found.description.ends_with('.'), "{name}");
            assert!(
                found.wording.styled.starts_with(&found.wording.neutral),
                "{name}: the attribute comes last"
            );
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let error = Catalogue::open(&[])
            .unwrap()
            .find(&slider("sunsett"), &mini())
            .unwrap_err();
        assert_eq!(error.code(), Code::UnknownAttribute);
        assert!(error.hint().contains("sunset"), "{error}");
        let error = Catalogue::open(&[])
            .unwrap()
            .find(&slider("zzz"), &mini())
            .unwrap_err();
        assert!(
            error.hint().contains("fog") && error.hint().contains("rain"),
            "{error}"
        );
    }

    #[test]
    fn an_attribute_of_another_model_is_refused_with_the_models_that_it_serves() {
        let model = ModelId {
            name: "stable-diffusion-v1-4".into(),
            family: "sd1".into(),
            hash: String::new(),
        };
        let error = Catalogue::open(&[])
            .unwrap()
            .find(&slider("fog"), &model)
            .unwrap_err();
        assert_eq!(error.code(), Code::AttributeNotForModel);
        assert!(error.hint().contains("mini"), "{error}");
    }

    #[test]
    fn a_broken_file_of_a_folder_fails_only_who_asks_for_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("broken.toml"),
            "schema = 1\nname = \"broken\"",
        )
        .unwrap();
        let catalogue = Catalogue::open(&[folder.path().to_owned()]).unwrap();
        assert_eq!(catalogue.problems().count(), 1);
        assert!(catalogue.find(&slider("fog"), &mini()).is_ok());
        let error = catalogue.find(&slider("broken"), &mini()).unwrap_err();
        assert_eq!(error.code(), Code::InvalidAttribute);
    }
}
