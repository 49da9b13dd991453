//! A scene: everything drawn once from a seed, none of it depending on picture size or attributes.

use std::fmt;
use std::str::FromStr;

use crate::maths::{V3, cos, mix3, norm, sin};
use crate::plants;
use crate::shapes::Sprite;
use crate::{Attributes, Draw, caption};

/// A kind of landscape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Water before steep, wooded mountains.
    MountainLake,
    /// Rolling meadows with groves.
    Hills,
    /// Sea, beach or cliffs.
    Coast,
    /// Parcels of crops, hedges, a road.
    Fields,
    /// Sand dunes with shrubs.
    Desert,
    /// A clearing or path among trees.
    Forest,
    /// Houses and a church.
    Town,
}

impl Place {
    /// All places.
    pub const ALL: [Place; 7] = [
        Place::MountainLake,
        Place::Hills,
        Place::Coast,
        Place::Fields,
        Place::Desert,
        Place::Forest,
        Place::Town,
    ];

    /// The name on the command line and in stream headers.
    pub const fn name(self) -> &'static str {
        match self {
            Place::MountainLake => "lake",
            Place::Hills => "hills",
            Place::Coast => "coast",
            Place::Fields => "fields",
            Place::Desert => "desert",
            Place::Forest => "forest",
            Place::Town => "town",
        }
    }

    /// The place that `seed` stands for where none is asked for.
    pub fn from_seed(seed: u64) -> Self {
        Self::ALL[Draw::new(seed, 0x91ace).below(Self::ALL.len())]
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Place {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|p| p.name() == s)
            .ok_or_else(|| {
                let names = Self::ALL.map(Place::name).join(", ");
                format!("place = {s}: must be one of {names} (try lake)")
            })
    }
}

/// Where the picture is taken from: metres, and units of the picture's geometric mean side.
#[derive(Clone, Debug)]
pub(crate) struct Camera {
    /// Horizon, as a fraction of the height from the top.
    pub horizon: f32,
    pub focal: f32,
    /// Rise of the horizon per unit to the right.
    pub roll: f32,
    /// Height of the eye in world coordinates, and above the ground.
    pub eye: f32,
    pub rise: f32,
}

/// The shape of the land; read by `terrain`.
#[derive(Clone, Debug)]
pub(crate) struct Land {
    pub seed: u32,
    pub near: f32,
    pub far: f32,
    pub amp: f32,
    pub wave: f32,
    pub side: f32,
    pub slant: f32,
    pub valley: f32,
    pub ridge_z: f32,
    pub ridge_amp: f32,
    pub ridge_wave: f32,
    /// How rugged the far ridge is: 0 soft hills, 1 rock.
    pub rugged: f32,
    pub woods: f32,
    pub treeline: f32,
    pub path: f32,
    pub turn: f32,
    pub has_water: bool,
    pub ripple: f32,
    pub reach: f32,
}

/// Albedos.
#[derive(Clone, Debug)]
pub(crate) struct Palette {
    pub grass: V3,
    pub dry: V3,
    pub wood: V3,
    pub rock: V3,
    pub sand: V3,
    pub water: V3,
    pub leaf_turn: V3,
}

/// The neutral sky and where its lights stand.
#[derive(Clone, Debug)]
pub(crate) struct SkySeed {
    pub seed: u32,
    pub cover: f32,
    pub cloud_scale: f32,
    pub stretch: f32,
    pub cirrus: f32,
    pub zenith: V3,
    pub horizon: V3,
    pub sun: V3,
    pub low_sun: V3,
    pub warm: V3,
    pub moon: V3,
    pub visibility: f32,
    pub softness: f32,
}

/// How the photograph was taken and developed.
#[derive(Clone, Debug)]
pub(crate) struct Photo {
    pub seed: u32,
    pub exposure: f32,
    pub balance: V3,
    pub contrast: f32,
    pub saturation: f32,
    pub vignette: f32,
    pub grain: f32,
    pub blur: f32,
    pub lift: f32,
}

/// One landscape; [`crate::Frame`] is its geometry at one size, [`crate::render`] a picture of it.
#[derive(Clone, Debug)]
pub struct Scene {
    seed: u64,
    place: Place,
    pub(crate) camera: Camera,
    pub(crate) land: Land,
    pub(crate) palette: Palette,
    pub(crate) sky: SkySeed,
    pub(crate) photo: Photo,
    pub(crate) sprites: Vec<Sprite>,
}

fn toward(azimuth_degrees: f32, elevation_degrees: f32) -> V3 {
    let (a, e) = (azimuth_degrees.to_radians(), elevation_degrees.to_radians());
    [sin(a) * cos(e), sin(e), cos(a) * cos(e)]
}

impl Scene {
    /// The scene of `seed` at `place`.
    pub fn new(seed: u64, place: Place) -> Self {
        let mut d = Draw::new(seed, 1);
        let camera = camera(&mut d, place);
        let land = land(&mut d, place, camera.rise);
        let palette = palette(&mut Draw::new(seed, 2), place);
        let sky = sky(&mut Draw::new(seed, 3));
        let photo = photo(&mut Draw::new(seed, 4));
        let mut scene = Self {
            seed,
            place,
            camera,
            land,
            palette,
            sky,
            photo,
            sprites: Vec::new(),
        };
        // Stand on the ground, clear of every hump close by.
        let ground = (0..24)
            .map(|i| {
                scene
                    .height((i % 3 - 1) as f32 * 3.0, i as f32 * 1.2, 1.0)
                    .max(0.0)
                    - i as f32 * 0.06
            })
            .fold(f32::MIN, f32::max);
        scene.camera.eye = scene.camera.rise + ground;
        scene.sprites = plants::place(&scene);
        scene
    }

    /// The scene of `seed` at the place that the seed stands for.
    pub fn from_seed(seed: u64) -> Self {
        Self::new(seed, Place::from_seed(seed))
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The kind of landscape.
    pub fn place(&self) -> Place {
        self.place
    }

    /// A caption of this scene under `attributes`; see [`caption::caption_of`].
    pub fn caption(&self, attributes: &Attributes, rng_seed: u64) -> String {
        caption::caption_of(self.place, attributes, rng_seed)
    }
}

fn camera(d: &mut Draw, place: Place) -> Camera {
    let (lo, hi) = match place {
        Place::MountainLake => (2.0, 14.0),
        Place::Hills => (2.0, 12.0),
        Place::Coast => (2.0, 25.0),
        Place::Fields => (2.0, 9.0),
        Place::Desert => (2.0, 10.0),
        Place::Forest => (1.5, 2.6),
        Place::Town => (4.0, 22.0),
    };
    let rise = d.log_range(lo, hi);
    Camera {
        horizon: 0.48 + 0.115 * d.bell(),
        focal: d.log_range(0.85, 1.6),
        roll: 0.02 * d.bell(),
        eye: rise,
        rise,
    }
}

fn land(d: &mut Draw, place: Place, rise: f32) -> Land {
    use Place::*;
    let pick = |d: &mut Draw, v: [(f32, f32); 7]| {
        let (lo, hi) = v[place as usize];
        d.log_range(lo, hi)
    };
    Land {
        seed: d.bits(),
        near: pick(
            d,
            [
                (6.0, 40.0),
                (1.0, 2.0),
                (8.0, 40.0),
                (1.0, 2.0),
                (1.0, 2.0),
                (10.0, 45.0),
                (45.0, 110.0),
            ],
        ),
        far: pick(
            d,
            [
                (250.0, 1400.0),
                (1.0, 2.0),
                (300.0, 2500.0),
                (1.0, 2.0),
                (1.0, 2.0),
                (60.0, 160.0),
                (200.0, 500.0),
            ],
        ),
        amp: pick(
            d,
            [
                (350.0, 1300.0),
                (9.0, 34.0),
                (6.0, 60.0),
                (1.5, 6.0),
                (12.0, 48.0),
                (0.6, 3.0),
                (2.0, 14.0),
            ],
        ),
        wave: pick(
            d,
            [
                (700.0, 1800.0),
                (120.0, 330.0),
                (120.0, 400.0),
                (200.0, 400.0),
                (90.0, 320.0),
                (40.0, 90.0),
                (150.0, 300.0),
            ],
        ),
        side: if d.chance(0.5) { 1.0 } else { -1.0 },
        slant: d.range(-0.5, 0.5),
        valley: d.bell() * 0.25,
        ridge_z: pick(
            d,
            [
                (9e3, 1.2e4),
                (1500.0, 5000.0),
                (2500.0, 6000.0),
                (1500.0, 6000.0),
                (2500.0, 9000.0),
                (300.0, 1500.0),
                (900.0, 3500.0),
            ],
        ),
        ridge_amp: pick(
            d,
            [
                (900.0, 2200.0),
                (80.0, 700.0),
                (40.0, 500.0),
                (40.0, 500.0),
                (20.0, 500.0),
                (30.0, 400.0),
                (80.0, 700.0),
            ],
        ),
        ridge_wave: d.log_range(900.0, 2600.0),
        rugged: d.unit(),
        woods: d.range(-0.35, 0.35),
        treeline: d.range(0.35, 0.8),
        path: if d.chance(0.55) {
            d.log_range(0.8, 3.0)
        } else {
            0.0
        },
        turn: d.range(-0.6, 0.6),
        has_water: match place {
            MountainLake | Coast => true,
            Hills | Fields => d.chance(0.25),
            _ => d.chance(0.0),
        },
        ripple: d.log_range(0.12, 1.0),
        reach: pick(
            d,
            [
                (700.0, 1400.0),
                (250.0, 450.0),
                (160.0, 330.0),
                (200.0, 350.0),
                (110.0, 200.0),
                (45.0, 75.0),
                (200.0, 330.0),
            ],
        ) * (1.0 + 0.03 * rise),
    }
}

fn tint(d: &mut Draw, base: V3, spread: f32) -> V3 {
    let level = 1.0 + spread * d.bell();
    [0, 1, 2].map(|i| base[i] * level * (1.0 + 0.4 * spread * d.bell()))
}

fn palette(d: &mut Draw, place: Place) -> Palette {
    let lush = d.unit();
    let grass = mix3([0.125, 0.155, 0.048], [0.062, 0.118, 0.030], lush);
    let sand = match place {
        Place::Desert => mix3([0.38, 0.27, 0.15], [0.41, 0.22, 0.11], d.unit()),
        _ => mix3([0.38, 0.32, 0.23], [0.29, 0.25, 0.19], d.unit()),
    };
    let wood = mix3([0.045, 0.065, 0.022], [0.022, 0.042, 0.020], d.unit());
    let rock = mix3([0.17, 0.16, 0.15], [0.25, 0.21, 0.17], d.unit());
    let water = mix3([0.010, 0.040, 0.050], [0.014, 0.028, 0.022], d.unit());
    let leaf = mix3([0.36, 0.19, 0.030], [0.30, 0.075, 0.020], d.unit());
    Palette {
        grass: tint(d, grass, 0.18),
        dry: tint(d, [0.20, 0.175, 0.075], 0.18),
        wood: tint(d, wood, 0.2),
        rock: tint(d, rock, 0.25),
        sand: tint(d, sand, 0.12),
        water: tint(d, water, 0.3),
        leaf_turn: tint(d, leaf, 0.15),
    }
}

fn sky(d: &mut Draw) -> SkySeed {
    let deep = d.unit();
    let hazy = d.unit();
    // The day's sun stands mostly behind the camera or to a side; the low one mostly in view.
    let day_az = if d.chance(0.8) {
        d.range(65.0, 160.0)
    } else {
        d.range(20.0, 65.0)
    };
    let day_az = if d.chance(0.5) { day_az } else { -day_az };
    let low_az = if d.chance(0.75) {
        d.range(-24.0, 24.0)
    } else {
        d.range(30.0, 70.0) * day_az.signum()
    };
    SkySeed {
        seed: d.bits(),
        cover: d.range(-0.45, 0.30),
        cloud_scale: d.log_range(0.45, 1.6),
        stretch: d.log_range(0.65, 1.25),
        cirrus: if d.chance(0.5) {
            d.range(0.1, 0.7)
        } else {
            0.0
        },
        zenith: mix3([0.09, 0.21, 0.50], [0.20, 0.36, 0.62], deep),
        horizon: mix3([0.46, 0.62, 0.80], [0.74, 0.80, 0.85], hazy),
        sun: norm(toward(day_az, d.range(28.0, 62.0))),
        low_sun: norm(toward(low_az, d.range(1.5, 9.0))),
        warm: mix3([1.15, 0.46, 0.13], [1.0, 0.34, 0.20], d.unit()),
        moon: norm(toward(d.range(-26.0, 26.0), d.range(9.0, 26.0))),
        visibility: d.log_range(9e3, 4.5e4),
        softness: d.range(0.25, 0.6),
    }
}

fn photo(d: &mut Draw) -> Photo {
    let warm = 0.055 * d.bell();
    Photo {
        seed: d.bits(),
        exposure: 1.02 + 0.17 * d.bell(),
        balance: [1.0 + warm, 1.0 + 0.015 * d.bell(), 1.0 - warm],
        contrast: 1.06 + 0.09 * d.bell(),
        saturation: 1.02 + 0.14 * d.bell(),
        vignette: d.range(0.0, 0.30),
        grain: d.range(0.0, 0.014),
        blur: 0.0003 + 0.0014 * d.unit() * d.unit(),
        lift: d.range(0.0, 0.012),
    }
}
