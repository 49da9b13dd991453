//! Every parameter of an edit, declared once.
//!
//! For: checking recipes, and telling hosts what there is, so that dialogs, command-line help and
//! documentation are made from one list. Not for: attributes, which are files.

use serde::Serialize;

use crate::error::{Code, Error, Result};

/// One parameter of a recipe: a stable id, its range, its default and what it is for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Parameter {
    /// Stable name; also the recipe's key.
    pub id: &'static str,
    /// Type, range and default.
    #[serde(flatten)]
    pub kind: Kind,
    /// Unit for people, or empty.
    pub unit: &'static str,
    /// Which part of a dialog it belongs to.
    pub group: Group,
    /// Whether a dialog should hide it at first.
    pub advanced: bool,
    /// One sentence for people.
    pub help: &'static str,
    /// A value that works, for hints.
    #[serde(rename = "try")]
    pub suggestion: &'static str,
}

/// What a parameter holds. A default of `None` means that attribute and model decide.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A whole number, both ends included.
    Integer {
        min: u64,
        max: u64,
        default: Option<u64>,
    },
    /// A finite number, both ends included.
    Number {
        min: f64,
        max: f64,
        default: Option<f64>,
    },
    /// One of a few words.
    Choice {
        options: &'static [&'static str],
        default: &'static str,
    },
    /// UTF-8 text.
    Text {
        max_bytes: usize,
        default: Option<&'static str>,
    },
}

/// The part of a dialog that a parameter belongs to.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Group {
    /// What changes and by how much.
    Edit,
    /// The edit in words.
    Text,
    /// The model's work.
    Sampling,
    /// The way back to full size.
    Compositing,
}

pub(crate) static STRENGTH: Parameter = Parameter {
    id: "strength",
    kind: Kind::Number {
        min: -2.0,
        max: 2.0,
        default: Some(1.0),
    },
    unit: "",
    group: Group::Edit,
    advanced: false,
    help: "How much: 0 changes nothing, 1 is the attribute's full effect, below 0 is its opposite.",
    suggestion: "1",
};

pub(crate) static SCENE: Parameter = Parameter {
    id: "scene",
    kind: Kind::Text {
        max_bytes: 1000,
        default: None,
    },
    unit: "",
    group: Group::Text,
    advanced: true,
    help: "What the picture shows, in the model's words; attributes are applied to it.",
    suggestion: "\"a landscape\"",
};

pub(crate) static FROM: Parameter = Parameter {
    id: "from",
    kind: Kind::Text {
        max_bytes: 1000,
        default: None,
    },
    unit: "",
    group: Group::Text,
    advanced: false,
    help: "Free text: what the picture shows.",
    suggestion: "\"a photo of hills\"",
};

pub(crate) static TO: Parameter = Parameter {
    id: "to",
    kind: Kind::Text {
        max_bytes: 1000,
        default: None,
    },
    unit: "",
    group: Group::Text,
    advanced: false,
    help: "Free text: what the picture should show.",
    suggestion: "\"a photo of hills, at night\"",
};

pub(crate) static SEED: Parameter = Parameter {
    id: "seed",
    kind: Kind::Integer {
        min: 0,
        max: u64::MAX,
        default: Some(0),
    },
    unit: "",
    group: Group::Sampling,
    advanced: true,
    help: "Seed of all noise; the same seed gives the same bytes. An edit without noise, as the embedded model makes it, is the same under every seed.",
    suggestion: "0",
};

pub(crate) static STEPS: Parameter = Parameter {
    id: "steps",
    kind: Kind::Integer {
        min: 1,
        max: 1000,
        default: None,
    },
    unit: "steps",
    group: Group::Sampling,
    advanced: true,
    help: "Sampling steps: more are slower and a little more faithful.",
    suggestion: "20",
};

pub(crate) static GUIDANCE: Parameter = Parameter {
    id: "guidance",
    kind: Kind::Number {
        min: 1.0,
        max: 20.0,
        default: None,
    },
    unit: "",
    group: Group::Sampling,
    advanced: true,
    help: "Classifier-free guidance: above 1 follows the text harder, at twice the time.",
    suggestion: "1",
};

pub(crate) static NOISE: Parameter = Parameter {
    id: "noise",
    kind: Kind::Number {
        min: 0.0,
        max: 1.0,
        default: None,
    },
    unit: "",
    group: Group::Sampling,
    advanced: true,
    help: "Share of the noise that the picture is shown under to the model: 1 is edit-friendly inversion, 0 shows it as it is, and the seed then does nothing.",
    suggestion: "1",
};

pub(crate) static FORM: Parameter = Parameter {
    id: "form",
    kind: Kind::Choice {
        options: &["corrected", "published"],
        default: "corrected",
    },
    unit: "",
    group: Group::Sampling,
    advanced: true,
    help: "The mixing method with the errors of its first release mended, or as it was published.",
    suggestion: "\"corrected\"",
};

pub(crate) static IDENTITY_SHORTCUT: Parameter = Parameter {
    id: "identity_shortcut",
    kind: Kind::Choice {
        options: &["on", "off"],
        default: "on",
    },
    unit: "",
    group: Group::Sampling,
    advanced: true,
    help: "Whether an edit of strength 0 skips the model. In the corrected form the result is the same either way; the published form changes the picture without it.",
    suggestion: "\"on\"",
};

pub(crate) static COMPOSITOR: Parameter = Parameter {
    id: "compositor",
    kind: Kind::Choice {
        options: &["change", "direct", "difference"],
        default: "change",
    },
    unit: "",
    group: Group::Compositing,
    advanced: true,
    help: "How the edit reaches full size: as a local change of the layer's own pixels, as that with the model's own picture where content moves or appears, or as the plain difference.",
    suggestion: "\"change\"",
};

pub(crate) static RADIUS: Parameter = Parameter {
    id: "radius",
    kind: Kind::Integer {
        min: 1,
        max: 64,
        default: None,
    },
    unit: "model pixels",
    group: Group::Compositing,
    advanced: true,
    help: "Neighbourhood over which the change is fitted.",
    suggestion: "8",
};

pub(crate) static EPSILON: Parameter = Parameter {
    id: "epsilon",
    kind: Kind::Number {
        min: 1e-8,
        max: 1e3,
        default: None,
    },
    unit: "squared colour, 0..=1",
    group: Group::Compositing,
    advanced: true,
    help: "Ridge of the fit towards no change: large gives the plain difference, small a local colour transfer.",
    suggestion: "0.00025",
};

pub(crate) static REST: Parameter = Parameter {
    id: "rest",
    kind: Kind::Number {
        min: 0.0,
        max: 1.0,
        default: None,
    },
    unit: "",
    group: Group::Compositing,
    advanced: true,
    help: "Share of what a local change cannot explain: structure that appears, and the model's own noise. For compositor change.",
    suggestion: "1",
};

/// All of them, in the order of a dialog.
pub(crate) static ALL: [&Parameter; 14] = [
    &STRENGTH,
    &FROM,
    &TO,
    &SCENE,
    &STEPS,
    &GUIDANCE,
    &SEED,
    &NOISE,
    &FORM,
    &IDENTITY_SHORTCUT,
    &COMPOSITOR,
    &RADIUS,
    &EPSILON,
    &REST,
];

/// The list as a JSON array: objects of `id, type, min, max, default, options, max_bytes, unit,
/// group, advanced, help, try`, each with the keys that its type has.
pub(crate) fn to_json() -> Result<String> {
    serde_json::to_string(&ALL).map_err(|e| Error::new(Code::Internal, format!("parameters: {e}")))
}

impl Parameter {
    /// Fails unless `value` is finite and in range; `at` is where it stood (`attributes[0].strength`).
    pub fn check_number(&self, at: &str, value: f64) -> Result<()> {
        match self.kind {
            Kind::Number { min, max, .. } if value >= min && value <= max => Ok(()),
            // Numbers are kept in single precision, so the ends themselves may arrive rounded.
            Kind::Number { min, max, .. }
                if value == f64::from(min as f32) || value == f64::from(max as f32) =>
            {
                Ok(())
            }
            _ => Err(self.refuse(at, &format!("{value}"))),
        }
    }

    /// Fails unless `value` is in range.
    pub fn check_integer(&self, at: &str, value: u64) -> Result<()> {
        match self.kind {
            Kind::Integer { min, max, .. } if (min..=max).contains(&value) => Ok(()),
            _ => Err(self.refuse(at, &format!("{value}"))),
        }
    }

    /// Fails when `value` is too long or has control characters, which no tokenizer expects.
    pub fn check_text(&self, at: &str, value: &str) -> Result<()> {
        let max = match self.kind {
            Kind::Text { max_bytes, .. } => max_bytes,
            _ => 0,
        };
        if value.len() > max {
            let error = format!("{at}: {} bytes of text, must be at most {max}", value.len());
            return Err(Error::new(Code::InvalidParameter, error)
                .with_hint("say it in one sentence")
                .with_parameter(self.id));
        }
        if let Some(c) = value.chars().find(|c| c.is_control()) {
            let error = format!("{at}: holds the control character U+{:04X}", u32::from(c));
            return Err(Error::new(Code::InvalidParameter, error)
                .with_hint("plain text on one line")
                .with_parameter(self.id));
        }
        Ok(())
    }

    /// The error for `value`, written as it was given.
    pub fn refuse(&self, at: &str, value: &str) -> Error {
        Error::new(
            Code::InvalidParameter,
            format!("{at} = {value}: must be {}", self.range()),
        )
        .with_hint(format!("try {}", self.suggestion))
        .with_parameter(self.id)
    }

    /// The allowed range in words.
    pub fn range(&self) -> String {
        match self.kind {
            Kind::Integer { min, max, .. } => format!("a whole number {min}..={max}"),
            Kind::Number { min, max, .. } => format!("a number {min}..={max}"),
            Kind::Choice { options, .. } => format!("one of {}", options.join(", ")),
            Kind::Text { max_bytes, .. } => format!("text of at most {max_bytes} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_its_own_id_help_and_a_suggestion_that_passes() {
        for (i, p) in ALL.iter().enumerate() {
            assert!(ALL[..i].iter().all(|q| q.id != p.id), "{}", p.id);
            assert!(p.help.ends_with('.'), "{}", p.id);
            match p.kind {
                Kind::Number { .. } => p.check_number(p.id, p.suggestion.parse().unwrap()).unwrap(),
                Kind::Integer { .. } => p
                    .check_integer(p.id, p.suggestion.parse().unwrap())
                    .unwrap(),
                Kind::Choice { options, default } => assert!(options.contains(&default)),
                Kind::Text { .. } => p.check_text(p.id, p.suggestion).unwrap(),
            }
        }
    }

    #[test]
    fn nan_and_infinity_are_in_no_range() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(STRENGTH.check_number("strength", bad).is_err());
        }
    }
}
