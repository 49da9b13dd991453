//! Light and air under given attributes: sun or moon, sky, clouds, haze and fog.
//! All colours are linear; 1 is about the white of the finished picture.

use crate::maths::{V3, add, dot, exp, gmix, gmix3, luma, mix, mix3, mul, pow, scale, step};
use crate::{Attributes, Scene};

/// What a ray into the sky meets, as far as attributes do not matter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SkyPoint {
    pub dir: V3,
    /// Density field of the low clouds, about -1..1.
    pub cloud: f32,
    /// How much brighter than its surroundings the cloud is on this side.
    pub relief: f32,
    /// Slow structure of a closed deck.
    pub deck: f32,
    pub cirrus: f32,
    pub star: f32,
    pub moon: f32,
}

/// Everything that shading needs to know about light.
#[derive(Clone, Debug)]
pub(crate) struct Light {
    pub sun: V3,
    pub sun_rgb: V3,
    pub above: V3,
    pub below: V3,
    pub zenith: V3,
    pub horizon: V3,
    pub glow: V3,
    pub cloud_lit: V3,
    pub cloud_dark: V3,
    pub cover: f32,
    pub softness: f32,
    pub cirrus: f32,
    pub deck: f32,
    pub deck_rgb: V3,
    pub stars: f32,
    pub moon: f32,
    pub disc: f32,
    pub haze: V3,
    pub fog: f32,
    pub fog_sky: f32,
    pub fog_rgb: V3,
    pub snow: f32,
    pub autumn: f32,
    pub rain: f32,
    pub lamps: f32,
    /// How low the sun stands: the sky's gradient is steeper then.
    pub low: f32,
}

impl Light {
    pub(crate) fn new(scene: &Scene, attributes: &Attributes) -> Self {
        let a = attributes.clamped();
        let k = &scene.sky;
        let (s, n) = (a.sunset, a.night);
        let grey = 1.0 - (1.0 - a.overcast) * (1.0 - 0.85 * a.rain);
        // Daylight to low sun.
        let sun = crate::maths::norm(mix3(k.sun, k.low_sun, s));
        let mut sun_rgb = gmix3(
            [2.55, 2.36, 2.02],
            mul(mix3(k.warm, [1.0, 0.62, 0.40], 0.45), [2.0, 1.95, 1.9]),
            s,
        );
        let mut above = gmix3(
            add(scale(k.zenith, 0.75), [0.20, 0.23, 0.25]),
            [0.25, 0.22, 0.28],
            s,
        );
        let mut below = gmix3([0.16, 0.16, 0.13], [0.12, 0.09, 0.07], s);
        let mut zenith = gmix3(k.zenith, mix3([0.10, 0.15, 0.31], k.warm, 0.05), s);
        let mut horizon = gmix3(k.horizon, mix3([0.52, 0.36, 0.34], k.warm, 0.35), s);
        let mut glow = scale(k.warm, s);
        let mut cloud_lit = gmix3([1.12, 1.11, 1.10], mul(k.warm, [1.0, 0.95, 1.25]), s);
        let mut cloud_dark = gmix3([0.55, 0.60, 0.68], [0.20, 0.145, 0.185], s);
        // A closed deck takes the sun and the colour.
        let flat = mix3([0.60, 0.635, 0.67], [0.30, 0.25, 0.26], s);
        let deck_rgb = flat;
        sun_rgb = scale(sun_rgb, exp(-4.6 * grey));
        above = gmix3(above, scale(flat, 1.55), grey);
        below = gmix3(below, scale(flat, 0.45), grey);
        glow = scale(glow, 1.0 - 0.8 * grey);
        // Night: a moon in place of the sun.
        let moonlight = scale([0.150, 0.190, 0.270], 1.0 - 0.7 * grey);
        let sun = crate::maths::norm(mix3(
            sun,
            add(scale(k.moon, 0.6), [k.moon[0] * 0.5, 0.55, -0.1]),
            n,
        ));
        sun_rgb = gmix3(sun_rgb, moonlight, n);
        above = gmix3(above, [0.066, 0.092, 0.150], n);
        below = gmix3(below, [0.020, 0.026, 0.038], n);
        zenith = gmix3(zenith, [0.007, 0.014, 0.040], n);
        horizon = gmix3(horizon, [0.030, 0.046, 0.088], n);
        glow = scale(glow, (1.0 - n) * (1.0 - n));
        cloud_lit = gmix3(cloud_lit, [0.060, 0.074, 0.110], n);
        cloud_dark = gmix3(cloud_dark, [0.018, 0.025, 0.046], n);
        let deck_rgb = gmix3(deck_rgb, [0.024, 0.033, 0.056], n);
        let clear = 1.0 - grey;
        // Air. Fog grows in the logarithm of its density, from nothing.
        let thick = (exp(3.6 * a.fog) - 1.0) / (exp(3.6) - 1.0);
        let mist = 0.035 * a.rain * a.rain;
        let fog = (thick * 4.2 + mist * 6.0) / scene.land.reach;
        let fog_sky = thick * 1.5 + mist * 1.2;
        let mean_sky = mix3(mix3(horizon, zenith, 0.25), deck_rgb, grey);
        let milk = mix3(mean_sky, scale([1.0, 1.02, 1.04], luma(mean_sky)), 0.65);
        let fog_rgb = scale(milk, mix(1.0, 1.12, a.fog));
        let thin = 1.0 / k.visibility;
        let moist = gmix(1.0, 3.0, grey);
        Self {
            sun,
            sun_rgb,
            above,
            below,
            zenith,
            horizon,
            glow,
            cloud_lit,
            cloud_dark,
            cover: k.cover + 1.1 * grey,
            softness: k.softness,
            cirrus: k.cirrus,
            deck: step(0.0, 1.0, grey * 1.02),
            deck_rgb,
            stars: n * n * clear,
            moon: n * n * (1.0 - 0.9 * grey),
            disc: (1.0 - n) * (1.0 - n) * clear * clear,
            haze: [
                thin * 0.6 * moist,
                thin * moist,
                thin * mix(1.6, 1.0, grey) * moist,
            ],
            fog,
            fog_sky,
            fog_rgb,
            snow: a.snow,
            autumn: a.autumn,
            rain: a.rain,
            lamps: n,
            low: s * (1.0 - n),
        }
    }

    /// The sky without clouds; `y` of `dir` below 0 counts as the horizon.
    fn clear_sky(&self, dir: V3) -> V3 {
        let e = dir[1].max(0.0);
        let low = exp(-mix(4.2, 6.5, self.low) * e);
        let mut c = mix3(self.zenith, self.horizon, low);
        let near = (0.5 + 0.5 * dot(dir, self.sun)).clamp(0.0, 1.0);
        let wide = near * near;
        let band = exp(-7.0 * e);
        c = add(
            c,
            scale(
                self.glow,
                band * (0.10 + 0.55 * wide * wide) + 0.30 * pow(near, 14.0),
            ),
        );
        c = add(
            c,
            scale(
                self.sun_rgb,
                self.disc * (0.035 * pow(near, 9.0) + 0.10 * pow(near, 90.0)),
            ),
        );
        c
    }

    /// Light of the sky from a point of it, clouds, sun and fog included.
    pub(crate) fn sky(&self, p: &SkyPoint) -> V3 {
        let mut c = self.clear_sky(p.dir);
        let cos_sun = dot(p.dir, self.sun).clamp(-1.0, 1.0);
        let disc = step(0.99955, 0.99985, cos_sun) + 0.25 * pow(cos_sun.max(0.0), 900.0);
        c = add(c, scale(self.sun_rgb, self.disc * disc * 2.2));
        c = add(c, scale([0.48, 0.53, 0.62], self.stars * p.star));
        c = add(c, scale([0.95, 0.93, 0.84], self.moon * p.moon));
        let e = p.dir[1].max(0.0);
        let near = (0.5 + 0.5 * cos_sun).clamp(0.0, 1.0);
        let cirrus = self.cirrus * step(-0.1, 0.9, p.cirrus) * step(0.0, 0.15, e) * 0.6;
        c = mix3(c, mix3(self.cloud_lit, self.horizon, 0.25), cirrus);
        // Cumulus: lit where it faces the sun, thin edges bright against it.
        let density = step(0.12, 0.12 + self.softness, p.cloud + self.cover);
        let lit = (0.55 + 1.5 * p.relief + 0.25 * (1.0 - density) + 0.15 * e).clamp(0.0, 1.15);
        let silver = scale(self.glow, 0.5 * (1.0 - density) * pow(near, 6.0));
        let cloud = add(mix3(self.cloud_dark, self.cloud_lit, lit), silver);
        let far = step(0.0, 0.10, e);
        c = mix3(
            c,
            mix3(self.horizon, cloud, 0.35 + 0.65 * far),
            density * (0.45 + 0.5 * far),
        );
        // Deck.
        let k = 1.0 + 0.30 * p.deck + 0.16 * p.cloud - 0.25 * e + 0.16 * (1.0 - e);
        let ring = add(
            scale(self.deck_rgb, k),
            scale(self.glow, 0.35 * exp(-6.0 * e) * near),
        );
        c = mix3(c, ring, self.deck);
        let veil = 1.0 - exp(-self.fog_sky * (0.35 / (e + 0.10)));
        mix3(c, self.fog_toward(p.dir), veil)
    }

    fn fog_toward(&self, dir: V3) -> V3 {
        let near = (0.5 + 0.5 * dot(dir, self.sun)).clamp(0.0, 1.0);
        add(self.fog_rgb, scale(self.glow, 0.35 * pow(near, 6.0)))
    }

    /// Colour `c` seen through the air between: `dist` metres along `dir`.
    pub(crate) fn air(&self, c: V3, dist: f32, dir: V3) -> V3 {
        let flat = crate::maths::norm([dir[0], 0.02, dir[2]]);
        let veil = mix3(self.clear_sky(flat), scale(self.deck_rgb, 1.12), self.deck);
        let veil = scale(veil, 0.92);
        let mut out = [0.0; 3];
        for i in 0..3 {
            let t = exp(-dist * self.haze[i]);
            out[i] = c[i] * t + veil[i] * (1.0 - t);
        }
        if self.fog > 0.0 {
            out = mix3(out, self.fog_toward(flat), 1.0 - exp(-dist * self.fog));
        }
        out
    }
}
