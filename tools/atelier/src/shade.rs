//! From what a pixel sees to its light. One function a kind of thing: land and plants, water, shadow.

use crate::Attribute;
use crate::light::{Light, SkyPoint};
use crate::maths::{V3, add, dot, mix, mix3, mul, norm, pow, scale, step};

/// A bit of land or of something that stands on it, as far as attributes do not matter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Surface {
    /// Metres from the eye, along z.
    pub dist: f32,
    pub pos: V3,
    pub n: V3,
    /// Albedo in summer.
    pub day: V3,
    /// Albedo in autumn; counts only where `veg` is above 0.
    pub turned: V3,
    pub veg: f32,
    /// Amount of snow that half covers this bit; 0.22 at least, so that no snow is none.
    pub snow_at: f32,
    pub snow_shade: f32,
    /// How much of a mirror rain makes of it.
    pub wet: f32,
    /// A window's light by night.
    pub glow: f32,
    /// Wrap of the sunlight, for things with many small leaves.
    pub soft: f32,
    pub ao: f32,
}

/// A bit of water.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Water {
    pub dist: f32,
    pub dir: V3,
    pub n: V3,
    /// Where in the picture the mirrored ray ends (x, y in pixels), if it does.
    pub source: Option<(f32, f32)>,
    pub sky: SkyPoint,
    pub fresnel: f32,
    pub foam: f32,
    pub shallow: f32,
    pub bed: V3,
}

const WINDOW: V3 = [0.95, 0.56, 0.20];

pub(crate) fn snow_cover(at: f32, amount: f32) -> f32 {
    if amount <= 0.0 {
        0.0
    } else {
        step(at - 0.22, at + 0.22, amount * 1.2)
    }
}

/// Light from a surface before the air between, and after it.
pub(crate) fn land(s: &Surface, l: &Light, dir: V3) -> V3 {
    let turn = l.autumn * (s.veg * 8.0).min(1.0);
    let mut albedo = mix3(s.day, s.turned, turn);
    let snow = snow_cover(s.snow_at, l.snow);
    let wet = l.rain * (1.0 - snow);
    albedo = scale(albedo, 1.0 - 0.42 * wet);
    albedo = mix3(
        albedo,
        scale([0.535, 0.57, 0.62], s.snow_shade),
        0.95 * snow,
    );
    let n = norm(mix3(s.n, [0.0, 1.0, 0.0], 0.15 * snow));
    let soft = mix(s.soft, 0.12, snow);
    let facing = ((dot(n, l.sun) + soft) / (1.0 + soft)).max(0.0);
    // Leaves let light through when the sun stands behind them.
    let through = 0.35 * s.soft * s.veg * (1.0 - snow) * dot(norm(dir), l.sun).max(0.0);
    let sun = scale(l.sun_rgb, (facing + through) * s.ao.min(1.1));
    let up = 0.5 + 0.5 * n[1];
    let ambient = scale(add(scale(l.above, up), scale(l.below, 1.0 - up)), s.ao);
    let mut c = mul(albedo, add(sun, ambient));
    if wet > 0.0 && s.wet > 0.0 {
        let cos = -dot(n, norm(dir));
        let fresnel = 0.03 + 0.97 * pow(1.0 - cos.clamp(0.0, 1.0), 5.0);
        let mirror = mix3(l.deck_rgb, l.above, 0.3);
        c = mix3(c, mirror, (wet * s.wet * (0.05 + 0.6 * fresnel)).min(0.5));
    }
    c = add(c, scale(WINDOW, s.glow * l.lamps * 0.9));
    l.air(c, s.dist, dir)
}

/// Light from water; `mirrored` is what its mirrored ray sees where that is in the picture.
pub(crate) fn water(w: &Water, l: &Light, body: V3, mirrored: Option<V3>) -> V3 {
    let sky = l.sky(&w.sky);
    let sky = mirrored.unwrap_or(sky);
    let depth = mul(
        body,
        add(
            scale(l.above, 1.6),
            scale(l.sun_rgb, 0.55 * l.sun[1].max(0.0)),
        ),
    );
    let bed = mul(
        scale(w.bed, 0.5),
        add(l.above, scale(l.sun_rgb, 0.7 * l.sun[1].max(0.0))),
    );
    let inner = mix3(depth, bed, w.shallow);
    let mut c = mix3(inner, sky, w.fresnel);
    // Glitter of the sun or moon on the ripples.
    let half = norm(add(l.sun, scale(norm(w.dir), -1.0)));
    let tilt = norm([w.n[0] * 6.0, 1.0, w.n[2] * 3.0]);
    let spark = pow(dot(half, tilt).max(0.0), 180.0) * l.disc
        + 0.25 * pow(dot(half, tilt).max(0.0), 90.0) * l.moon;
    c = add(c, scale(l.sun_rgb, 1.6 * spark));
    let foam = mul(
        [0.80, 0.82, 0.84],
        add(scale(l.sun_rgb, 0.45 * l.sun[1].max(0.15)), l.above),
    );
    c = mix3(c, foam, w.foam);
    let ruffled = mix3(c, scale(l.deck_rgb, 0.62), 0.30 * l.rain * w.fresnel);
    l.air(ruffled, w.dist, w.dir)
}

/// How much `attribute` may touch a surface.
pub(crate) fn touch(s: &Surface, attribute: Attribute) -> f32 {
    match attribute {
        Attribute::Autumn => (s.veg * 8.0).min(1.0),
        Attribute::Snow => step(1.45, 1.2, s.snow_at),
        _ => 1.0,
    }
}
