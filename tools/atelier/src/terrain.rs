//! The height of the land and what lies on it, in metres: x to the right, z away from the camera, water at 0.
//! Not plants that stand up (those are `shapes`), nor light.

use crate::maths::{V3, add, mix, mix3, scale, sin, step};
use crate::noise::{fbm, noise, ridged, unit, upright};
use crate::shade::Surface;
use crate::{Place, Scene};

impl Scene {
    /// Height at (x, z); detail smaller than about `fp` metres is left out.
    pub(crate) fn height(&self, x: f32, z: f32, fp: f32) -> f32 {
        let l = &self.land;
        let s = l.seed;
        let swell = |wave: f32, oct: u32| fbm(x / wave, z / wave, s, oct, 0.42, fp / wave);
        let bumps = 0.16 * fbm(x / 5.0, z / 5.0, s ^ 9, 4, 0.42, fp / 5.0);
        let mut h = match self.place() {
            Place::MountainLake => {
                let edge = l.near * (1.0 + 0.5 * noise(x / 37.0, 0.7, s ^ 1)) + l.slant * x * 0.3;
                let bank = ((edge - z) * 0.10).clamp(-3.0, 0.9) + bumps;
                bank.max(self.mountains(x, z, fp))
            }
            Place::Hills => {
                let rise = z / (z + 220.0);
                let h = l.amp * (0.3 + rise) * swell(l.wave, 6)
                    + bumps
                    + 0.02 * z * step(50.0, 900.0, z);
                if l.has_water {
                    h + 2.0 - 6.0 * step(60.0, 120.0, z) * step(420.0, 200.0, z)
                } else {
                    h + 40.0
                }
            }
            Place::Coast => self.coast(x, z, fp),
            Place::Fields => {
                let h = l.amp * swell(l.wave, 4) + bumps * 0.5;
                if l.has_water {
                    h + 3.0 - 5.5 * step(70.0, 110.0, z) * step(240.0, 170.0, z)
                } else {
                    h + 20.0
                }
            }
            Place::Desert => 30.0 + self.dunes(x, z, fp) + bumps * 0.25,
            Place::Forest => {
                20.0 + l.amp * swell(l.wave, 4) + bumps + 0.06 * l.rugged * (z - 40.0).max(0.0)
            }
            Place::Town => {
                30.0 + l.amp * swell(l.wave, 4)
                    + bumps * 0.4
                    + 0.03 * l.rugged * (z - l.near).max(0.0)
            }
        };
        let ridge = step(l.ridge_z * 0.7, l.ridge_z * 1.9, z);
        if ridge > 0.0 && (self.place() != Place::Coast || h > -1.5) {
            let w = l.ridge_wave;
            let soft = 0.5 + 0.5 * fbm(x / w, z / w, s ^ 5, 7, 0.42, fp / w);
            let hard = 1.25 * ridged(x / w, z / w, s ^ 6, 7, fp / w);
            h += ridge * l.ridge_amp * mix(soft, hard, l.rugged);
        }
        h + self.canopy(x, z, h, fp)
    }

    fn mountains(&self, x: f32, z: f32, fp: f32) -> f32 {
        let l = &self.land;
        let shore = l.far * (1.0 + 0.22 * fbm(x / (l.far * 0.5), 2.2, l.seed ^ 2, 3, 0.5, 0.0));
        let t = (z - shore) / l.far;
        if t <= 0.0 {
            return (t * l.far * 0.1).max(-3.0);
        }
        let across = x / z - l.valley;
        let valley = 0.35 + 1.9 * across * across / (0.06 + across * across);
        let w = l.wave;
        let rock = ridged(x / w, z / w, l.seed ^ 3, 8, fp / w);
        let base = 0.35 + 0.35 * fbm(x / w * 0.6, z / w * 0.6, l.seed ^ 4, 3, 0.5, fp / w);
        t * l.far * 0.04 + l.amp * (t / (t + 2.6)) * valley * (0.7 * base + rock)
    }

    /// Signed distance into the land from the coastline.
    fn inland(&self, x: f32, z: f32) -> f32 {
        let l = &self.land;
        let line = 0.55 * z * l.slant - 0.12 * z
            + 30.0 * noise(z / 90.0, 4.2, l.seed ^ 7) * (z / (z + 60.0))
            + 26.0 * noise(z / 310.0, 1.2, l.seed ^ 8);
        l.side * x - line * 0.8 + l.near * 0.1 - 0.10 * z
            + 6.0 * noise(x / 15.0, z / 15.0, l.seed ^ 2)
    }

    fn coast(&self, x: f32, z: f32, fp: f32) -> f32 {
        let l = &self.land;
        let d = self.inland(x, z);
        let beach = (d * 0.08).clamp(-3.0, 2.0);
        let cliff = l.amp
            * step(25.0, 70.0, d)
            * (0.55 + 0.6 * fbm(x / l.wave, z / l.wave, l.seed, 6, 0.5, fp / l.wave));
        let crag = 0.25
            * l.amp
            * step(18.0, 45.0, d)
            * step(120.0, 60.0, d)
            * fbm(x / 25.0, z / 25.0, l.seed ^ 3, 5, 0.55, fp / 25.0);
        // Headlands and islands stand far out.
        let w = l.far * 0.5;
        let isle = fbm(x / w, z / w, l.seed ^ 11, 6, 0.45, fp / w) - 0.28;
        let isle = mix(
            -3.0,
            isle.max(-0.05) * l.amp * 6.0,
            step(l.far * 0.5, l.far, z),
        );
        let dune = 0.35 * step(4.0, 20.0, d) * fbm(x / 9.0, z / 9.0, l.seed ^ 5, 4, 0.5, fp / 9.0);
        (beach + cliff + crag + dune).max(isle)
    }

    fn dunes(&self, x: f32, z: f32, fp: f32) -> f32 {
        let l = &self.land;
        let w = l.wave;
        let (c, t) = (0.9, l.turn);
        let (p, q) = (c * x + t * z, c * z - t * x);
        let warp = 0.5 * noise(p / w * 0.7, q / w * 0.7, l.seed ^ 1);
        let n = noise(p / w * 0.6 + warp, q / w * 1.2 + warp, l.seed);
        let crest = 1.0 - (n * n + 0.0016).sqrt() * 1.5;
        let small = fbm(
            p / w * 2.3 + warp,
            q / w * 4.0,
            l.seed ^ 2,
            3,
            0.4,
            fp / w * 4.0,
        );
        l.amp
            * (0.10 + 2.3 * z / (z + 320.0))
            * (crest * crest.abs() * 1.3
                + 0.13 * small
                + 0.4 * noise(x / w / 4.0, z / w / 4.0, l.seed ^ 3))
    }

    /// How wooded the slope is, 0..1.
    pub(crate) fn woodedness(&self, x: f32, z: f32, h: f32) -> f32 {
        let l = &self.land;
        let patch = 0.8 * fbm(x / 260.0, z / 260.0, l.seed ^ 21, 4, 0.55, 6.0 / 260.0) + l.woods;
        match self.place() {
            Place::MountainLake => {
                let line =
                    l.treeline * l.amp * (1.0 + 0.35 * noise(x / 210.0, z / 210.0, l.seed ^ 22));
                step(0.5, 3.0, h)
                    * step(line * 1.15, line * 0.75, h)
                    * step(-0.55, -0.25, patch)
                    * step(60.0, 160.0, z)
            }
            Place::Desert => 0.0,
            Place::Coast => step(0.05, 0.3, patch) * step(3.0, 8.0, h) * 0.9,
            Place::Forest => step(l.far * 0.9, l.far * 1.3, z),
            _ => step(0.0, 0.22, patch) * step(180.0, 420.0, z),
        }
    }

    fn canopy(&self, x: f32, z: f32, h: f32, fp: f32) -> f32 {
        if fp > 14.0 || z > 4500.0 || h < 0.4 {
            return 0.0;
        }
        let w = self.woodedness(x, z, h);
        if w <= 0.0 {
            0.0
        } else {
            w * (5.0 + 6.0 * fbm(x / 13.0, z / 13.0, self.land.seed ^ 23, 3, 0.6, fp / 13.0))
        }
    }

    /// What lies at (x, z) of height `y`: `dist` its depth, `unit_px` the picture's mean side in pixels.
    pub(crate) fn ground(&self, x: f32, z: f32, y: f32, dist: f32, unit_px: f32) -> Surface {
        let (l, p) = (&self.land, &self.palette);
        let s = l.seed;
        // A slope over less than two pixels would be noise in the light.
        let across = dist / (self.camera.focal * unit_px);
        let e =
            (across * 1.6 * (dist / self.camera.rise.max(1.0)).clamp(1.0, 7.0).sqrt()).max(0.15);
        let h0 = self.height(x, z, e);
        let (hx, hz) = (self.height(x + e, z, e), self.height(x, z + e, e));
        let n = crate::maths::norm([h0 - hx, e, h0 - hz]);
        // Metres a pixel spans: between its width and its length on the slope.
        let view = crate::maths::norm([x, y - self.camera.eye, z]);
        let fp = across / (-crate::maths::dot(n, view)).clamp(0.03, 1.0).sqrt();
        let patch = fbm(x / 45.0, z / 45.0, s ^ 31, 6, 0.6, fp / 45.0);
        // Blades stand up: their texture is as fine upwards in the picture as sideways, at any distance.
        let fine = {
            let f = self.camera.focal;
            upright(
                f * x / z,
                f * (y - self.camera.eye) / z,
                s ^ 32,
                1.0 * f / z,
                0.82,
                0.85 / unit_px,
            )
        };
        let coarse = fbm(x / 9.0, z / 9.0, s ^ 33, 5, 0.6, fp / 9.0);
        let grass_mix = (0.42 + 0.55 * patch + 0.25 * fine).clamp(0.0, 1.0);
        let mut day = scale(
            mix3(p.grass, p.dry, grass_mix),
            1.0 + 0.38 * fine + 0.15 * coarse,
        );
        let straw = scale(
            mix3(
                [0.24, 0.165, 0.055],
                [0.20, 0.105, 0.035],
                (0.5 + patch).clamp(0.0, 1.0),
            ),
            1.0 + 0.38 * fine + 0.15 * coarse,
        );
        let mut turned = mix3(day, straw, 0.8);
        let mut veg = 1.0f32;
        let mut wet = 0.35 + 0.4 * step(0.1, 0.45, coarse + 0.3 * patch);
        let mut ao = 1.0 + 0.12 * coarse;
        let mut soft = 0.25;
        let cover = |m: f32, c: V3, day: &mut V3, turned: &mut V3| {
            *day = mix3(*day, c, m);
            *turned = mix3(*turned, c, m);
        };
        let place = self.place();
        match place {
            Place::Fields => {
                let (c, t) = self.parcel(x, z, fp, fine);
                day = c;
                turned = t;
            }
            Place::Desert => {
                let ripple = sin((x * 0.8 + z * 0.6 + 0.8 * coarse) * 12.0 + 4.0 * patch)
                    * (0.10 * step(0.5, 0.1, fp));
                let sand = scale(p.sand, 1.0 + 0.09 * coarse + 0.07 * fine + ripple);
                let tufts = step(
                    -0.22,
                    0.30,
                    coarse + 0.8 * patch + 0.45 * fine + 0.25 * l.woods,
                ) * 0.85
                    * step(0.78, 0.93, n[1]);
                let scrub = scale(
                    mix3([0.115, 0.135, 0.055], p.dry, (0.3 + patch).clamp(0.0, 0.7)),
                    1.0 + 0.5 * fine,
                );
                day = mix3(sand, scrub, tufts);
                turned = mix3(sand, scale([0.26, 0.11, 0.03], 1.0 + 0.5 * fine), tufts);
                veg = tufts;
                wet = 0.3;
            }
            Place::Coast => {
                let d = self.inland(x, z);
                let sand = step(1.35 + 0.9 * coarse, 0.75 + 0.9 * coarse, y)
                    * step(26.0, 12.0, d + 9.0 * patch);
                let damp = step(0.5, 0.05, y + 0.1 * coarse);
                let c = scale(
                    p.sand,
                    (1.0 + 0.08 * coarse + 0.12 * fine) * (1.0 - 0.45 * damp),
                );
                cover(sand, c, &mut day, &mut turned);
                veg *= 1.0 - sand;
                wet = mix(wet, 0.35 + 0.5 * damp, sand);
            }
            Place::Forest => {
                let litter = step(-0.15, 0.35, coarse + 0.6 * patch + l.woods);
                let floor = scale([0.085, 0.062, 0.038], 1.0 + 0.5 * fine + 0.2 * coarse);
                let leaves = scale(
                    mix3(
                        p.leaf_turn,
                        [0.30, 0.17, 0.04],
                        (0.5 + 0.8 * fine).clamp(0.0, 1.0),
                    ),
                    0.62 + 0.35 * fine,
                );
                day = mix3(day, floor, litter);
                turned = mix3(straw, leaves, 0.35 + 0.6 * litter);
            }
            _ => {}
        }
        if l.path > 0.0
            && matches!(
                place,
                Place::Hills | Place::Fields | Place::Forest | Place::Town
            )
        {
            let centre = l.turn * 9.0
                + 0.05 * l.turn * z
                + 7.0 * noise(z / 45.0, 8.8, s ^ 41) * (z / (z + 20.0));
            let off = (x - centre).abs() + 0.35 * coarse;
            let m = step(l.path, l.path * 0.6, off) * step(160.0, 90.0, z);
            let c = scale(
                mix3([0.26, 0.21, 0.15], p.rock, 0.4),
                1.0 + 0.2 * fine + 0.1 * coarse,
            );
            cover(m, c, &mut day, &mut turned);
            veg *= 1.0 - m;
            wet = mix(wet, 0.9, m);
        }
        let wood = self.woodedness(x, z, y);
        if wood > 0.0 {
            let tree = fbm(x / 11.0, z / 11.0, s ^ 23, 5, 0.65, fp / 11.0);
            let kind = fbm(x / 90.0, z / 90.0, s ^ 24, 4, 0.6, fp / 90.0);
            let green = scale(
                mix3(p.wood, scale(p.grass, 0.55), (0.4 + kind).clamp(0.0, 1.0)),
                1.0 + 0.55 * tree,
            );
            let conifer = step(-0.1, 0.35, -kind + 0.3 * tree - 0.1);
            let leaf = scale(
                mix3(
                    p.leaf_turn,
                    [0.32, 0.24, 0.04],
                    (0.5 + 1.2 * tree).clamp(0.0, 1.0),
                ),
                0.6 + 0.35 * tree,
            );
            day = mix3(day, green, wood);
            turned = mix3(turned, mix3(leaf, green, 0.55 * conifer), wood);
            ao *= 1.0 - wood * (0.22 - 0.25 * tree).clamp(0.0, 0.6);
            soft = mix(soft, 0.4, wood);
            veg = mix(veg, 1.0, wood);
            wet *= 1.0 - wood;
        }
        let steep = 1.0 - n[1];
        let strata = fbm(x / 60.0 + y / 35.0, y / 14.0, s ^ 51, 6, 0.6, fp / 14.0);
        let high = if place == Place::MountainLake {
            step(
                l.treeline * l.amp * 0.9,
                l.treeline * l.amp * 1.6,
                y + 60.0 * coarse + 90.0 * patch,
            )
        } else {
            0.0
        };
        let rock = step(0.22, 0.42, steep + 0.09 * strata + 0.05 * coarse)
            .max(high * (0.75 + 0.25 * step(-0.2, 0.2, strata)))
            * (1.0 - 0.85 * wood * (1.0 - step(0.45, 0.65, steep)));
        let rock = if place == Place::Desert { 0.0 } else { rock };
        if rock > 0.0 {
            cover(
                rock,
                scale(p.rock, 1.0 + 0.30 * strata + 0.15 * coarse),
                &mut day,
                &mut turned,
            );
            veg *= 1.0 - 0.9 * rock;
            ao *= 1.0 + 0.15 * strata * rock;
            wet *= 1.0 - 0.5 * rock;
        }
        if l.has_water {
            let rim = step(0.45, 0.05, y + 0.12 * coarse) * step(900.0, 300.0, dist);
            let c = scale(mix3(p.rock, p.sand, 0.4), 0.55 + 0.2 * fine);
            cover(rim, c, &mut day, &mut turned);
            veg *= 1.0 - rim;
        }
        let snow_at =
            0.50 + 0.30 * coarse + 0.14 * fine + 0.25 * wood + 0.75 * (steep - 0.18).max(0.0)
                - 0.06 * patch;
        Surface {
            dist,
            pos: [x, y, z],
            n,
            day,
            turned,
            veg: veg.clamp(0.0, 1.0),
            snow_at: snow_at.clamp(0.22, 1.3),
            snow_shade: 1.0 + 0.06 * fine + 0.14 * coarse + 0.12 * patch,
            wet,
            glow: 0.0,
            soft,
            ao: ao.clamp(0.3, 1.3),
        }
    }

    fn parcel(&self, x: f32, z: f32, fp: f32, fine: f32) -> (V3, V3) {
        let (l, p) = (&self.land, &self.palette);
        let warp = 7.0 * noise(x / 120.0, z / 120.0, l.seed ^ 61);
        let (a, b) = (x + l.turn * z + warp, z - l.turn * x + warp);
        let (ca, cb) = ((a / 85.0).floor() as i32, (b / 140.0).floor() as i32);
        let pick = unit(ca, cb, l.seed ^ 62);
        let level = 0.85 + 0.3 * unit(ca, cb, l.seed ^ 63);
        let rows =
            sin(if pick < 0.5 { a } else { a * 0.7 + b * 0.7 } * 4.2) * 0.09 * step(1.6, 0.5, fp);
        let blotch = fbm(x / 14.0, z / 14.0, l.seed ^ 64, 6, 0.62, fp / 14.0);
        let (day, fall): (V3, V3) = if pick < 0.30 {
            ([0.34, 0.25, 0.085], [0.20, 0.14, 0.07])
        } else if pick < 0.55 {
            (p.grass, [0.25, 0.17, 0.055])
        } else if pick < 0.75 {
            (scale(p.grass, 0.72), [0.22, 0.13, 0.04])
        } else if pick < 0.88 {
            ([0.15, 0.105, 0.068], [0.12, 0.085, 0.055])
        } else {
            ([0.31, 0.27, 0.075], [0.24, 0.18, 0.06])
        };
        let k = level * (1.0 + rows + 0.22 * blotch + 0.25 * fine);
        let edge = ((a / 85.0 - ca as f32).min(1.0 - (a / 85.0 - ca as f32)) * 85.0)
            .min((b / 140.0 - cb as f32).min(1.0 - (b / 140.0 - cb as f32)) * 140.0);
        let hedge = step(2.2, 0.9, edge + 1.2 * blotch)
            * step(25.0, 70.0, z)
            * if unit(ca, cb, l.seed ^ 65) < 0.7 {
                0.9
            } else {
                0.3
            };
        let dark = scale(p.wood, 1.0 + 0.5 * fine);
        let rust = scale(p.leaf_turn, 0.6 + 0.3 * fine);
        (
            add(scale(day, k * (1.0 - hedge)), scale(dark, hedge)),
            add(scale(fall, k * (1.0 - hedge)), scale(rust, hedge)),
        )
    }
}
