//! Reading the fields of a document (recipe, attribute file) strictly and saying what is wrong.
//!
//! For: one wording for every error of every format that we read. Not for: what the fields mean.

use serde_json::{Map, Value};

use crate::error::{Code, Error, Result};

/// One object of a document and where it stands.
pub(crate) struct Fields<'a> {
    /// The document's name in error texts: `recipe`, or a file's path.
    origin: &'a str,
    /// Where the object stands in it: empty, or `text.`, `attributes[2].`.
    prefix: String,
    code: Code,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The document's outermost object, refused with `code` when it is none.
    pub fn of_document(origin: &'a str, code: Code, value: &'a Value) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Fields {
                origin,
                prefix: String::new(),
                code,
                map,
            }),
            other => Err(Error::new(
                code,
                format!("{origin}: is {}, must be an object", kind(other)),
            )),
        }
    }

    /// The object `value` that stands at `key` of this one.
    pub fn inner(&self, key: &str, value: &'a Value) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Fields {
                origin: self.origin,
                prefix: format!("{}{key}.", self.prefix),
                code: self.code,
                map,
            }),
            other => Err(self.wrong(key, other, "an object")),
        }
    }

    /// Fails on a key that is not in `known`, naming the nearest.
    pub fn only(&self, known: &[&str]) -> Result<()> {
        let Some(key) = self.map.keys().find(|k| !known.contains(&k.as_str())) else {
            return Ok(());
        };
        let hint = match nearest(key, known.iter().copied()).first() {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", known.join(", ")),
        };
        let error = format!(
            "{}: key `{}{}` is unknown",
            self.origin,
            self.prefix,
            shorten(key)
        );
        Err(Error::new(self.code, error)
            .with_hint(hint)
            .with_parameter(shorten(key)))
    }

    /// The value of `key` when it is there and not null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// Whether `key` is there, null or not.
    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// A text, if there.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key)
            .map(|v| v.as_str().ok_or_else(|| self.wrong(key, v, "text")))
            .transpose()
    }

    /// A text that must be there.
    pub fn needed_text(&self, key: &str) -> Result<&'a str> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    /// A whole number from 0, if there.
    pub fn integer(&self, key: &str) -> Result<Option<u64>> {
        self.get(key)
            .map(|v| {
                v.as_u64()
                    .ok_or_else(|| self.wrong(key, v, "a whole number from 0"))
            })
            .transpose()
    }

    /// A number, if there. A float that is not finite is refused here: JSON has none, TOML does.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        if self.has(key) && self.get(key).is_none() {
            return Err(self.wrong(key, &Value::Null, "a finite number"));
        }
        self.get(key)
            .map(|v| v.as_f64().ok_or_else(|| self.wrong(key, v, "a number")))
            .transpose()
    }

    /// A list, if there.
    pub fn list(&self, key: &str) -> Result<Option<&'a [Value]>> {
        self.get(key)
            .map(|v| {
                v.as_array()
                    .map(Vec::as_slice)
                    .ok_or_else(|| self.wrong(key, v, "a list"))
            })
            .transpose()
    }

    /// An object, if there.
    pub fn object(&self, key: &str) -> Result<Option<Fields<'a>>> {
        self.get(key).map(|v| self.inner(key, v)).transpose()
    }

    /// The place of `key` in the document, for error texts.
    pub fn at(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The error for a value of the wrong type.
    pub fn wrong(&self, key: &str, value: &Value, must: &str) -> Error {
        let error = format!(
            "{}: {}{key} = {}: must be {must}",
            self.origin,
            self.prefix,
            show(value)
        );
        Error::new(self.code, error).with_parameter(key)
    }

    /// The error for a key that must be there.
    pub fn missing(&self, key: &str) -> Error {
        let error = format!("{}: key `{}{key}` is missing", self.origin, self.prefix);
        Error::new(self.code, error).with_parameter(key)
    }
}

/// The names of `known` that look like `name`, best first, at most three.
pub(crate) fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Vec<&'n str> {
    // Only the beginning: the measure is quadratic, and a name may be as long as a hostile host likes.
    let name: String = name.chars().take(64).flat_map(char::to_lowercase).collect();
    let mut found: Vec<(f64, &str)> = known
        .into_iter()
        .map(|k| (strsim::jaro_winkler(&name, &k.to_lowercase()), k))
        .filter(|(likeness, _)| *likeness > 0.7)
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    found.into_iter().take(3).map(|(_, k)| k).collect()
}

/// Text from outside as it may stand in an error: at most 80 characters, none of them control.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        short.push('…');
    }
    short
}

fn show(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) | Value::Null => kind(value).to_owned(),
        Value::String(text) => format!("\"{}\"", shorten(text)),
        other => shorten(&other.to_string()),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
