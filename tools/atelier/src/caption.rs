//! What a picture is called: a small vocabulary, place first, then what is strong enough to see.
//! The same tables serve the training captions and the attribute catalogue.

use crate::{Attribute, Attributes, Draw, Place};

/// How a caption may begin.
pub const PREFIXES: [&str; 3] = ["a photo of ", "a picture of ", ""];
/// The place phrase that fits every scene.
pub const GENERIC_PLACE: &str = "a landscape";
/// The caption of a scene of which nothing is said.
pub const NEUTRAL: &str = "a photo of a landscape";
/// What may be said of a scene with no attribute at work.
pub const CLEAR: [&str; 3] = ["on a clear day", "in summer", "in daylight"];
/// Below this an attribute is not named.
pub const VISIBLE: f32 = 0.5;
/// The phrases of each attribute, in the order of [`Attribute::ALL`]; the first is the usual one.
pub const PHRASES: [(Attribute, &[&str]); 7] = [
    (Attribute::Sunset, &["at sunset", "with a sunset sky"]),
    (Attribute::Night, &["at night", "at night, under the stars"]),
    (
        Attribute::Snow,
        &["covered in snow", "in winter, with snow"],
    ),
    (Attribute::Fog, &["in fog", "in thick fog"]),
    (Attribute::Autumn, &["in autumn", "with autumn colors"]),
    (
        Attribute::Overcast,
        &["under an overcast sky", "on a cloudy day"],
    ),
    (Attribute::Rain, &["in the rain", "on a rainy day"]),
];

/// The phrase of a place.
pub const fn place_phrase(place: Place) -> &'static str {
    match place {
        Place::MountainLake => "a mountain lake",
        Place::Hills => "rolling hills",
        Place::Coast => "a sea coast",
        Place::Fields => "fields",
        Place::Desert => "desert dunes",
        Place::Forest => "a forest",
        Place::Town => "a small town",
    }
}

/// Every caption part: prefixes, places, phrases, in that order.
pub fn vocabulary() -> Vec<&'static str> {
    let mut all: Vec<&str> = PREFIXES
        .iter()
        .map(|p| p.trim_end())
        .filter(|p| !p.is_empty())
        .collect();
    all.push(GENERIC_PLACE);
    all.extend(Place::ALL.map(place_phrase));
    all.extend(PHRASES.iter().flat_map(|(_, p)| p.iter().copied()));
    all.extend(CLEAR);
    all
}

/// A caption of `place` under `attributes`; the wording is drawn from `seed`.
///
/// Attributes at or below [`VISIBLE`] go unnamed; overcast goes unnamed beside rain, which implies it.
pub fn caption_of(place: Place, attributes: &Attributes, seed: u64) -> String {
    let mut d = Draw::new(seed, 0xca97);
    let mut text = String::new();
    text.push_str(PREFIXES[[0, 0, 0, 1, 2][d.below(5)]]);
    text.push_str(if d.chance(0.35) {
        GENERIC_PLACE
    } else {
        place_phrase(place)
    });
    let mut named = false;
    for (attribute, phrases) in PHRASES {
        let pick = phrases[if d.chance(0.65) {
            0
        } else {
            d.below(phrases.len())
        }];
        let implied = attribute == Attribute::Overcast && attributes.rain > VISIBLE;
        if attributes[attribute] > VISIBLE && !implied {
            text.push_str(", ");
            text.push_str(pick);
            named = true;
        }
    }
    let quiet = Attribute::ALL.iter().all(|&a| attributes[a] < 0.15);
    if !named && quiet && d.chance(0.4) {
        text.push_str(", ");
        text.push_str(CLEAR[d.below(CLEAR.len())]);
    }
    text
}
