//! The folder layout of diffusers: model_index.json, a folder per part, config.json beside weights.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{MAX_CONFIG_BYTES, ModelSource, Stamp, TensorFile};
use crate::error::{Code, Error, Result};
use crate::fields;
use crate::job::Cancel;

/// A model's parts and where their files are.
#[derive(Clone, Debug)]
pub struct Layout {
    source: ModelSource,
    index: Config,
}

/// A configuration file: JSON with its place, for messages.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    value: Value,
    place: String,
}

impl Config {
    /// Reads `path`, which must be a JSON object.
    pub(crate) fn read(source: &ModelSource, path: &str) -> Result<Self> {
        let place = source.describe(path);
        let bytes = source.read(path, MAX_CONFIG_BYTES)?;
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|e| Error::new(Code::InvalidModel, format!("{place}: {e}")))?;
        if !value.is_object() {
            return Err(Error::new(
                Code::InvalidModel,
                format!("{place}: not a JSON object"),
            ));
        }
        Ok(Config { value, place })
    }

    /// The whole as `T`, whose defaults stand for what is left out or null.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        let mut value = self.value.clone();
        if let Some(object) = value.as_object_mut() {
            object.retain(|_, v| !v.is_null());
        }
        serde_path_to_error::deserialize(value).map_err(|e| {
            let key = e.path().iter().next().map(ToString::to_string);
            let key = key.unwrap_or_default();
            let found = self
                .get(&key)
                .map(|value| format!("{key} = {}: ", show(value)));
            let what = format!("{}: {}{}", self.place, found.unwrap_or_default(), e.inner());
            Error::new(Code::InvalidModel, what)
                .with_parameter(key)
                .with_hint("compare it with the same file of Stable Diffusion 1.5 or 2.1")
        })
    }

    /// Whether `key` is there and null.
    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.value.get(key).is_some_and(Value::is_null)
    }

    /// The value of `key`, if it is there and not null.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|v| !v.is_null())
    }

    /// An error about `key`.
    pub(crate) fn unsupported(&self, key: &str, why: &str) -> Error {
        let value = show(self.value.get(key).unwrap_or(&Value::Null));
        Error::new(
            Code::UnsupportedModel,
            format!("{}: {key} = {value}: {why}", self.place),
        )
        .with_parameter(key)
    }

    /// An error about `key` being outside `range`.
    pub(crate) fn outside(&self, key: &str, value: impl std::fmt::Display, range: &str) -> Error {
        Error::new(
            Code::InvalidModel,
            format!("{}: {key} = {value}: must be {range}", self.place),
        )
        .with_parameter(key)
    }

    /// Fails unless every `(key, value)` is as named, or left out: what this version does not run.
    pub(crate) fn require(&self, wanted: &[(&str, Value)]) -> Result<()> {
        for (key, want) in wanted {
            if self.get(key).is_some_and(|v| v != want) {
                return Err(self.unsupported(key, &format!("only {want} is supported")));
            }
        }
        Ok(())
    }
}

/// A value as it may stand in an error.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", fields::shorten(text)),
        other => fields::shorten(&other.to_string()).replace("\\\"", "\""),
    }
}

impl Layout {
    /// Reads model_index.json.
    pub fn open(source: &ModelSource) -> Result<Self> {
        source.check()?;
        let index = Config::read(source, "model_index.json")?;
        Ok(Layout {
            source: source.clone(),
            index,
        })
    }

    /// The place the files are read from.
    pub fn source(&self) -> &ModelSource {
        &self.source
    }

    /// The pipeline's class, for instance `StableDiffusionPipeline`.
    pub fn family(&self) -> &str {
        let class = self.index.get("_class_name").and_then(Value::as_str);
        class.unwrap_or("(none)")
    }

    /// Fails unless `part` is of one of `classes`.
    pub fn check_part(&self, part: &str, classes: &[&str]) -> Result<()> {
        let class = self.index.get(part).and_then(|v| v.get(1)?.as_str());
        match class {
            Some(class) if classes.contains(&class) => Ok(()),
            Some(class) => Err(self.index.unsupported(
                part,
                &format!(
                    "class {class} is not supported, only {}",
                    classes.join(", ")
                ),
            )),
            None => Err(Error::new(
                Code::InvalidModel,
                format!(
                    "{}: names no {part}",
                    self.source.describe("model_index.json")
                ),
            )),
        }
    }

    /// The configuration of `part`.
    pub(crate) fn config(&self, part: &str) -> Result<Config> {
        Config::read(&self.source, &format!("{part}/config.json"))
    }

    /// The scheduler's configuration, as `T` reads it.
    pub(crate) fn scheduler<T: DeserializeOwned>(&self) -> Result<T> {
        Config::read(&self.source, "scheduler/scheduler_config.json")?.parse()
    }

    /// The weights of `part`, relative to the source.
    pub fn weights_path(&self, part: &str) -> Result<String> {
        let stems = ["diffusion_pytorch_model", "model"];
        for stem in stems {
            for variant in ["", ".fp16"] {
                let path = format!("{part}/{stem}{variant}.safetensors");
                if self.source.has(&path) {
                    return Ok(path);
                }
            }
        }
        Err(self.no_weights(part))
    }

    /// What is there in the place of the weights of `part`, and what to do about it.
    fn no_weights(&self, part: &str) -> Error {
        let names = self.source.list(part);
        let is = |name: &&String, words: &str| name.contains(words);
        let found = |name: &String, code, what: &str, hint: &str| {
            let place = self.source.describe(&format!("{part}/{name}"));
            Error::new(code, format!("{place}: {what}")).with_hint(hint)
        };
        let again = "save the model again with diffusers: safe_serialization=True, max_shard_size=\"100GB\"";
        let split = |name: &&String| is(name, ".safetensors.index.") || is(name, "-of-");
        if let Some(name) = names.iter().find(split) {
            let what =
                "the weights are split over several files; one safetensors file a part is read";
            return found(name, Code::UnsupportedModel, what, again);
        }
        let weights = |name: &&String| {
            let stem = ["diffusion_pytorch_model", "model"];
            let names = stem.map(|stem| {
                [
                    format!("{stem}.safetensors"),
                    format!("{stem}.fp16.safetensors"),
                ]
            });
            names.as_flattened().contains(name)
        };
        if let Some(name) = names.iter().find(weights) {
            let what = "not a regular file, nor a link to one";
            let hint = "the model was not fetched whole: fetch it again";
            return found(name, Code::InvalidModel, what, hint);
        }
        if let Some(name) = names.iter().find(|name| name.ends_with(".safetensors")) {
            let what = "the weights have another name than diffusion_pytorch_model.safetensors or model.safetensors";
            let hint = "rename the file that is meant";
            return found(name, Code::UnsupportedModel, what, hint);
        }
        let pickle = |name: &&String| {
            [".bin", ".pt", ".pth", ".ckpt"]
                .iter()
                .any(|end| name.ends_with(end))
        };
        if let Some(name) = names.iter().find(pickle) {
            let what = "the weights are a pickle; one safetensors file a part is read";
            return found(name, Code::UnsupportedModel, what, again);
        }
        self.source
            .missing(&format!("{part}/diffusion_pytorch_model.safetensors"))
    }

    /// Opens the weights of `part`.
    pub fn tensors(&self, part: &str) -> Result<TensorFile> {
        TensorFile::open(&self.source, &self.weights_path(part)?)
    }

    /// Every file that the library reads of the model, sorted, relative to the source.
    fn files(&self) -> Result<Vec<String>> {
        let mut files = vec![
            "model_index.json".into(),
            "scheduler/scheduler_config.json".into(),
        ];
        for part in ["text_encoder", "unet", "vae"] {
            files.push(format!("{part}/config.json"));
            files.push(self.weights_path(part)?);
        }
        for name in [
            "tokenizer.json",
            "vocab.json",
            "merges.txt",
            "tokenizer_config.json",
            "special_tokens_map.json",
        ] {
            let path = format!("tokenizer/{name}");
            if self.source.has(&path) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// The model's identity: BLAKE3 over the names and the BLAKE3 of the contents of its files
    /// (configurations, weights, tokenizer), sorted by name.
    pub fn hash(&self, cancel: &Cancel) -> Result<String> {
        let mut all = blake3::Hasher::new();
        for path in self.files()? {
            let mut one = blake3::Hasher::new();
            self.source.hash(&path, &mut one, cancel)?;
            all.update(path.as_bytes());
            all.update(&[0]);
            all.update(one.finalize().as_bytes());
        }
        Ok(all.finalize().to_hex().to_string())
    }

    /// What tells this state of the model from another without reading it.
    pub fn stamps(&self) -> Result<Vec<Stamp>> {
        self.files()?
            .iter()
            .map(|path| self.source.stamp(path))
            .collect()
    }
}
