//! The seven attributes of weather, light and season, each a number in 0..=1.
//! Not what they do to a picture: that is `light` (sun, sky, veil) and `shade` (surfaces).

use std::fmt;
use std::ops::{Index, IndexMut};
use std::str::FromStr;

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// Low warm sun, coloured sky.
    Sunset,
    /// Moon, stars, lit windows.
    Night,
    /// Snow on ground and plants.
    Snow,
    /// A veil that thickens with distance.
    Fog,
    /// Yellow to red foliage, straw grass.
    Autumn,
    /// Closed grey clouds, flat light.
    Overcast,
    /// Wet ground, falling rain, closed clouds.
    Rain,
}

impl Attribute {
    /// All, in the order of every array of attribute values.
    pub const ALL: [Attribute; 7] = [
        Attribute::Sunset,
        Attribute::Night,
        Attribute::Snow,
        Attribute::Fog,
        Attribute::Autumn,
        Attribute::Overcast,
        Attribute::Rain,
    ];

    /// The lower-case name, as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Attribute::Sunset => "sunset",
            Attribute::Night => "night",
            Attribute::Snow => "snow",
            Attribute::Fog => "fog",
            Attribute::Autumn => "autumn",
            Attribute::Overcast => "overcast",
            Attribute::Rain => "rain",
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Attribute {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|a| a.name() == s)
            .ok_or_else(|| {
                let names = Self::ALL.map(Attribute::name).join(", ");
                format!("attribute = {s}: must be one of {names} (try sunset)")
            })
    }
}

/// A value in 0..=1 for every attribute; the default is plain daylight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Attributes {
    /// See [`Attribute::Sunset`].
    pub sunset: f32,
    /// See [`Attribute::Night`].
    pub night: f32,
    /// See [`Attribute::Snow`].
    pub snow: f32,
    /// See [`Attribute::Fog`].
    pub fog: f32,
    /// See [`Attribute::Autumn`].
    pub autumn: f32,
    /// See [`Attribute::Overcast`].
    pub overcast: f32,
    /// See [`Attribute::Rain`].
    pub rain: f32,
}

impl Attributes {
    /// All zero but `attribute`.
    pub fn only(attribute: Attribute, value: f32) -> Self {
        Self::default().with(attribute, value)
    }

    /// The same with one attribute changed.
    pub fn with(mut self, attribute: Attribute, value: f32) -> Self {
        self[attribute] = value;
        self
    }

    /// The values in the order of [`Attribute::ALL`].
    pub fn values(&self) -> [f32; 7] {
        Attribute::ALL.map(|a| self[a])
    }

    /// Every value brought into 0..=1; NaN becomes 0.
    pub fn clamped(&self) -> Self {
        let mut out = Self::default();
        for a in Attribute::ALL {
            out[a] = if self[a].is_nan() {
                0.0
            } else {
                self[a].clamp(0.0, 1.0)
            };
        }
        out
    }
}

impl Index<Attribute> for Attributes {
    type Output = f32;
    fn index(&self, a: Attribute) -> &f32 {
        match a {
            Attribute::Sunset => &self.sunset,
            Attribute::Night => &self.night,
            Attribute::Snow => &self.snow,
            Attribute::Fog => &self.fog,
            Attribute::Autumn => &self.autumn,
            Attribute::Overcast => &self.overcast,
            Attribute::Rain => &self.rain,
        }
    }
}

impl IndexMut<Attribute> for Attributes {
    fn index_mut(&mut self, a: Attribute) -> &mut f32 {
        match a {
            Attribute::Sunset => &mut self.sunset,
            Attribute::Night => &mut self.night,
            Attribute::Snow => &mut self.snow,
            Attribute::Fog => &mut self.fog,
            Attribute::Autumn => &mut self.autumn,
            Attribute::Overcast => &mut self.overcast,
            Attribute::Rain => &mut self.rain,
        }
    }
}
