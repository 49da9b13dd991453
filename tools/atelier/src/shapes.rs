//! Things that stand up, each a soft-edged shape in its own frame: x in heights from the middle, y from 0 at the foot
//! to 1 at the top. Where they stand is `plants`.

use crate::maths::{V3, mix, mix3, norm, pow, scale, sin, step};
use crate::noise::{fbm, noise, unit};
use crate::shade::Surface;

/// What stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Broadleaf,
    Conifer,
    Bush,
    Tuft,
    Rock,
    House,
    Church,
    Person,
    Fence,
    Trunk,
    /// A branch that hangs in from the upper corner of the picture.
    Branch,
}

/// One standing thing.
#[derive(Clone, Debug)]
pub(crate) struct Sprite {
    pub kind: Kind,
    pub x: f32,
    pub z: f32,
    /// Height of its foot.
    pub y: f32,
    pub height: f32,
    /// Half its width in heights.
    pub half: f32,
    pub seed: u32,
    pub day: V3,
    pub turned: V3,
    /// Side of the picture (−1, 1) that a framing sprite hangs from, 0 for what stands in the world.
    pub side: f32,
}

/// What a sprite shows at a point.
pub(crate) struct Hit {
    pub alpha: f32,
    pub surface: Surface,
}

impl Sprite {
    fn cut(d: f32, fp: f32) -> f32 {
        let e = 0.012 + fp * 0.9;
        step(-e, e, d)
    }

    /// The sprite at (x, y), `fp` a pixel's footprint in heights.
    pub(crate) fn at(&self, x: f32, y: f32, fp: f32) -> Option<Hit> {
        let s = self.seed;
        let base = Surface {
            snow_at: 0.5,
            snow_shade: 1.0,
            soft: 0.35,
            ao: 1.0,
            wet: 0.1,
            n: [0.0, 0.3, -0.95],
            ..Surface::default()
        };
        match self.kind {
            Kind::Broadleaf | Kind::Bush => self.crown(x, y, fp, base),
            Kind::Conifer => {
                let wob = 0.10 * fbm(x * 5.0, y * 7.0, s, 3, 0.6, fp * 6.0);
                let rank = y * (9.0 + (s & 3) as f32) + 1.1 * x.abs() + wob;
                let tiers = 1.08 - 0.5 * (rank - rank.floor());
                let w = self.half * pow((1.02 - y).max(0.0), 0.85) * tiers;
                let leaf = fbm(x * 24.0, y * 17.0, s ^ 1, 5, 0.75, fp * 24.0);
                let d = w - x.abs() + 0.25 * wob * w + 0.030 * leaf - 0.2 * step(0.14, 0.06, y);
                let alpha = Self::cut(d, fp);
                let trunk = Self::cut(0.012 * (1.2 - y) - x.abs(), fp) * step(0.5, 0.2, y);
                let a = alpha.max(trunk);
                if a <= 0.002 {
                    return None;
                }
                let side = (x / w.max(0.02)).clamp(-1.0, 1.0);
                let shade = 0.8 + 0.32 * leaf + 0.5 * (tiers - 0.8);
                let t = if alpha < trunk { 1.0 } else { 0.0 };
                let day = mix3(scale(self.day, shade.max(0.25)), [0.07, 0.05, 0.035], t);
                Some(Hit {
                    alpha: a,
                    surface: Surface {
                        day,
                        turned: mix3(day, self.turned, 0.10),
                        veg: 0.3 * (1.0 - t),
                        n: norm([side * 0.9, 0.45 + 0.5 * leaf, -0.6]),
                        snow_at: (0.92 - 0.40 * leaf - 0.5 * (tiers - 0.8) + 0.12 * (1.0 - y))
                            .clamp(0.3, 1.2),
                        ao: (0.7 + 0.35 * y + 0.3 * leaf).clamp(0.3, 1.1),
                        ..base
                    },
                })
            }
            Kind::Tuft => {
                let i = ((x + 2.0) * 22.0 + 1.6 * noise(x * 3.0, y, s)).floor();
                let lean = 0.22 * (unit(i as i32, 3, s) - 0.5) * y;
                let cell =
                    (x + 2.0) * 22.0 + 1.6 * noise(x * 3.0, y, s) - i - 0.5 + lean * 22.0 * 0.3;
                let top = (0.35 + 0.65 * unit(i as i32, 1, s))
                    * (1.0 - (x / self.half) * (x / self.half));
                let blade = 0.36 * (1.0 - y / top.max(0.01)) - cell.abs();
                let a = Self::cut(blade / 22.0, fp) * step(0.0, 0.03, top - y);
                // Too far to tell blades apart: a soft clump.
                let clump = 0.30
                    * step(
                        0.0,
                        0.4,
                        0.8 * (1.0 - (x / self.half) * (x / self.half)) - y,
                    );
                let a = mix(a, clump, step(0.01, 0.03, fp));
                if a <= 0.002 {
                    return None;
                }
                let k = 0.6 + 0.6 * y + 0.3 * unit(i as i32, 2, s);
                Some(Hit {
                    alpha: a,
                    surface: Surface {
                        day: scale(self.day, k),
                        turned: scale(self.turned, k),
                        veg: 1.0,
                        snow_at: (0.75 - 0.3 * y).max(0.22),
                        n: norm([0.0, 0.8, -0.5]),
                        ..base
                    },
                })
            }
            Kind::Rock => {
                let r = 1.0 + 0.35 * fbm(x * 1.6 + 9.0, y * 1.6, s, 4, 0.5, fp * 1.6);
                let q = (x / self.half) * (x / self.half) + y * y;
                let d = (r - q.sqrt()) * 0.5 - 0.06;
                let a = Self::cut(d, fp) * step(-0.03, 0.02, y);
                if a <= 0.002 {
                    return None;
                }
                let bump = fbm(x * 3.0, y * 3.0, s ^ 2, 6, 0.6, fp * 3.0);
                let bx = fbm((x + 0.04) * 3.0, y * 3.0, s ^ 2, 6, 0.6, fp * 3.0) - bump;
                let by = fbm(x * 3.0, (y + 0.04) * 3.0, s ^ 2, 6, 0.6, fp * 3.0) - bump;
                let n = norm([
                    x / self.half * 0.8 - 4.0 * bx,
                    y * 0.9 + 0.15 - 4.0 * by,
                    -0.7,
                ]);
                let day = scale(self.day, 0.85 + 0.35 * bump);
                Some(Hit {
                    alpha: a,
                    surface: Surface {
                        day,
                        turned: day,
                        n,
                        soft: 0.1,
                        wet: 0.4,
                        snow_at: (0.95 - 0.75 * n[1] - 0.15 * bump).clamp(0.22, 1.3),
                        ao: mix(0.5, 1.0, step(0.0, 0.3, y)),
                        ..base
                    },
                })
            }
            Kind::House => self.house(x, y, fp, base),
            Kind::Church => self.church(x, y, fp, base),
            Kind::Person => {
                let head = 0.065 - ((x * x) + (y - 0.93) * (y - 0.93)).sqrt();
                let w = 0.10 + 0.045 * step(0.45, 0.78, y) - 0.02 * step(0.40, 0.1, y);
                let gap = 0.02 * step(0.42, 0.2, y);
                let body = (w * step(0.89, 0.80, y) - x.abs())
                    .min(x.abs() - gap)
                    .min(0.87 - y);
                let a = Self::cut(head.max(body), fp) * step(-0.01, 0.01, y);
                if a <= 0.002 {
                    return None;
                }
                let day = if y > 0.87 {
                    [0.16, 0.10, 0.07]
                } else if y > 0.45 {
                    self.day
                } else {
                    self.turned
                };
                Some(Hit {
                    alpha: a,
                    surface: Surface {
                        day,
                        turned: day,
                        n: norm([x * 6.0, 0.3, -0.8]),
                        soft: 0.2,
                        snow_at: 1.5,
                        ..base
                    },
                })
            }
            Kind::Fence => {
                let span = 1.15;
                let i = (x / span).round();
                let lean = 0.04 * (unit(i as i32, 5, s) - 0.5);
                let post = (0.045 - (x - i * span + lean * y).abs())
                    .min(0.9 + 0.1 * unit(i as i32, 6, s) - y);
                let sag = 0.03 * noise(x * 0.8, 0.0, s);
                let rail = (0.032 - (y - 0.78 - sag).abs()).max(0.032 - (y - 0.42 + sag).abs());
                let d = post.max(rail).min(self.half - x.abs());
                let a = Self::cut(d, fp) * step(-0.01, 0.01, y);
                if a <= 0.002 {
                    return None;
                }
                let grain = fbm(x * 4.0, y * 18.0, s, 4, 0.6, fp * 10.0);
                let day = scale(self.day, 1.0 + 0.4 * grain);
                let edge = if d == rail.min(self.half - x.abs()) {
                    0.55
                } else {
                    0.85
                };
                Some(Hit {
                    alpha: a,
                    surface: Surface {
                        day,
                        turned: day,
                        n: norm([0.3, 0.4, -0.8]),
                        soft: 0.1,
                        wet: 0.3,
                        snow_at: edge,
                        ..base
                    },
                })
            }
            Kind::Trunk => {
                let bend = 0.02 * noise(y * 2.0, 0.3, s);
                let w = self.half * (0.75 + 0.5 * step(0.08, 0.0, y) - 0.25 * y);
                let d =
                    w - (x + bend).abs() + 0.004 * fbm(x * 20.0, y * 12.0, s, 3, 0.6, fp * 20.0);
                let a = Self::cut(d, fp) * step(-0.01, 0.005, y);
                if a <= 0.002 {
                    return None;
                }
                let bark = fbm(x / self.half * 1.5, y * 22.0, s ^ 3, 5, 0.62, fp * 22.0);
                let day = scale(self.day, 1.0 + 0.5 * bark);
                let side = ((x + bend) / w).clamp(-1.0, 1.0);
                Some(Hit {
                    alpha: a,
                    surface: Surface {
                        day,
                        turned: day,
                        n: norm([side, 0.12, -(1.05 - side * side)]),
                        soft: 0.1,
                        wet: 0.15,
                        snow_at: (1.05
                            - 0.3 * side * if s & 1 == 0 { 1.0 } else { -1.0 }
                            - 0.3 * bark)
                            .clamp(0.6, 1.3),
                        ..base
                    },
                })
            }
            Kind::Branch => self.branch(x, y, fp, base),
        }
    }

    fn crown(&self, x: f32, y: f32, fp: f32, base: Surface) -> Option<Hit> {
        let s = self.seed;
        let bush = self.kind == Kind::Bush;
        let (cy, ry) = if bush { (0.42, 0.56) } else { (0.60, 0.40) };
        let rx = self.half * 0.88;
        let lean = 0.08 * noise(y * 1.5, 1.0, s);
        let (px, py) = ((x + lean) / rx, (y - cy) / ry);
        let lobes = 0.34 * fbm(px * 1.25 + 5.0, py * 1.25, s, 3, 0.55, fp * 2.0);
        let leaf = 0.8 * fbm(x * 13.0, y * 13.0, s ^ 1, 6, 0.80, fp * 13.0);
        let q = (px * px + py * py * (if py < 0.0 { 1.35 } else { 1.0 })).sqrt();
        let d = (1.0 - q + lobes + 0.15 * leaf) * ry * 0.8;
        // Sky shows through where the crown is thin.
        let gaps = step(-0.62, -0.38, leaf + 1.6 * (0.75 - q));
        let crown = Self::cut(d, fp) * gaps;
        let wood = if bush {
            0.0
        } else {
            Self::cut(
                0.028 * (1.25 - y) + 0.02 * step(0.06, 0.0, y) - (x + lean).abs(),
                fp,
            ) * step(0.62, 0.5, y)
                * step(-0.01, 0.01, y)
        };
        let alpha = crown.max(wood) * step(-0.02, 0.02, y);
        if alpha <= 0.002 {
            return None;
        }
        let t = if crown < wood * 0.7 { 1.0 } else { 0.0 };
        let clump = fbm(px * 2.1 + 3.0, py * 2.1, s ^ 2, 3, 0.55, fp * 3.0);
        let cx = fbm(px * 2.1 + 3.12, py * 2.1, s ^ 2, 3, 0.55, fp * 3.0) - clump;
        let cyy = fbm(px * 2.1 + 3.0, py * 2.1 + 0.12, s ^ 2, 3, 0.55, fp * 3.0) - clump;
        let k = (0.92 + 0.42 * leaf + 0.22 * clump).max(0.25);
        let bark = [0.085, 0.065, 0.048];
        let hue = (0.5 + 0.9 * clump + 0.3 * leaf).clamp(0.0, 1.0);
        let fall = scale(mix3(self.turned, [0.27, 0.18, 0.06], 0.5 * hue), 0.88 * k);
        let day = scale(mix3(self.day, scale(self.day, 1.35), hue), k);
        Some(Hit {
            alpha,
            surface: Surface {
                day: mix3(day, bark, t),
                turned: mix3(fall, bark, t),
                veg: 1.0 - t,
                n: norm([px * 0.75 - 1.6 * cx, py * 0.75 + 0.25 - 1.6 * cyy, -0.65]),
                soft: 0.4,
                snow_at: (0.90 - 0.25 * py - 0.40 * leaf - 0.30 * clump).clamp(0.3, 1.3),
                ao: (0.78 + 0.24 * py + 0.32 * clump + 0.2 * leaf).clamp(0.40, 1.1),
                ..base
            },
        })
    }

    fn house(&self, x: f32, y: f32, fp: f32, base: Surface) -> Option<Hit> {
        let s = self.seed;
        // A gable end of width g beside a long wall; the roof runs over the wall.
        let mirror = if s & 1 == 0 { 1.0 } else { -1.0 };
        let u = x * mirror / self.half;
        let split = -0.30 - 0.25 * unit(1, 1, s);
        let eave = 0.52;
        let gable_mid = (split - 1.0) * 0.5 + 0.0;
        let gable_top =
            eave + (1.0 - eave) * (1.0 - ((u - gable_mid) / ((split + 1.0) * 0.5)).abs());
        let slope_x = (y - eave) / (1.0 - eave);
        let shift = slope_x * (split - gable_mid);
        let unitw = self.half;
        let gable = (gable_top - y)
            .min((u + 1.0) * unitw)
            .min((split - u) * unitw + 1.0 * 0.0);
        let wall = (eave - y)
            .min((u - split) * unitw)
            .min((1.0 - u) * unitw - 0.02);
        let roof = (1.0 - y)
            .min(y - eave + 0.03)
            .min((u - split + shift) * unitw)
            .min((1.0 - u - shift * 0.15) * unitw);
        let chim = (0.035 - (u - 0.35).abs() * unitw)
            .min(1.10 - y)
            .min(y - 0.9);
        let a = Self::cut(gable.max(wall).max(roof).max(chim), fp) * step(-0.02, 0.0, y);
        if a <= 0.002 {
            return None;
        }
        let grain = fbm(x * 7.0, y * 7.0, s ^ 5, 5, 0.6, fp * 7.0);
        let on_roof = roof > 0.0 && roof >= wall && roof >= gable * 0.2 && y > eave - 0.03;
        let (mut day, n, snow_at) = if on_roof {
            let tiles = 1.0 + 0.10 * sin(y * 130.0) * step(0.02, 0.006, fp) + 0.22 * grain;
            (
                scale(self.turned, tiles),
                norm([0.25 * mirror, 0.75, -0.6]),
                0.42 + 0.25 * grain,
            )
        } else if u < split {
            (
                scale(self.day, 1.0 + 0.10 * grain),
                norm([-0.75 * mirror, 0.05, -0.65]),
                1.3,
            )
        } else {
            (
                scale(self.day, 1.0 + 0.10 * grain),
                norm([0.45 * mirror, 0.05, -0.9]),
                1.3,
            )
        };
        let mut glow = 0.0;
        if !on_roof && y < 0.50 {
            let (cx, cy) = (u * 4.2 + 0.5, y / 0.26);
            let (ix, iy) = (cx.floor(), cy.floor());
            let (fx, fy) = ((cx - ix - 0.5).abs(), (cy - iy - 0.55).abs());
            let d = (0.22 - fx).min(0.28 - fy) * 0.25;
            let pane =
                Self::cut(d, fp) * step(0.06, 0.02, -((u - split) * unitw).abs() + 0.06 - 0.02);
            day = mix3(day, [0.045, 0.055, 0.07], pane * 0.85);
            if unit(ix as i32, iy as i32, s ^ 6) < 0.62 {
                glow = pane * (0.6 + 0.5 * unit(ix as i32, iy as i32, s ^ 7));
            }
        }
        let eaves = if !on_roof {
            mix(0.62, 1.0, step(0.0, 0.10, (eave - y).abs()))
        } else {
            1.0
        };
        Some(Hit {
            alpha: a,
            surface: Surface {
                day,
                turned: day,
                n,
                glow,
                soft: 0.05,
                wet: if on_roof { 0.35 } else { 0.1 },
                snow_at: snow_at.clamp(0.22, 1.5),
                ao: eaves,
                ..base
            },
        })
    }

    fn church(&self, x: f32, y: f32, fp: f32, base: Surface) -> Option<Hit> {
        let s = self.seed;
        let tower = (0.075 - x.abs()).min(0.62 - y);
        let spire = (0.085 * (1.0 - (y - 0.60) / 0.40) - x.abs()).min(y - 0.60);
        let nx = if s & 1 == 0 { x } else { -x };
        let nave = (0.27 - y).min(nx - 0.05).min(0.36 - nx);
        let roof = (0.40 - y)
            .min(y - 0.26)
            .min(nx - 0.05)
            .min(0.37 - nx - (y - 0.26) * 0.25);
        let a = Self::cut(tower.max(spire).max(nave).max(roof), fp) * step(-0.01, 0.0, y);
        if a <= 0.002 {
            return None;
        }
        let grain = fbm(x * 16.0, y * 16.0, s ^ 5, 5, 0.6, fp * 16.0);
        let top = spire > tower || (roof > 0.0 && roof > tower && roof > nave);
        let mut day = scale(if top { self.turned } else { self.day }, 1.0 + 0.15 * grain);
        let w = Self::cut((0.016 - x.abs()).min(0.045 - (y - 0.52).abs()), fp).max(
            Self::cut(
                (0.012 - ((nx * 12.0).fract() - 0.5).abs() / 12.0).min(0.06 - (y - 0.14).abs()),
                fp,
            ) * if nave > 0.02 { 1.0 } else { 0.0 },
        );
        let w = if top { 0.0 } else { w };
        day = mix3(day, [0.04, 0.05, 0.06], 0.8 * w);
        let side = if spire > tower {
            (x / 0.06).clamp(-1.0, 1.0)
        } else {
            0.35
        };
        Some(Hit {
            alpha: a,
            surface: Surface {
                day,
                turned: day,
                n: norm([side * 0.7, if top { 0.5 } else { 0.05 }, -0.75]),
                glow: 0.7 * w,
                soft: 0.05,
                snow_at: if top { 0.55 + 0.2 * grain } else { 1.3 },
                ..base
            },
        })
    }

    fn branch(&self, x: f32, y: f32, fp: f32, base: Surface) -> Option<Hit> {
        let s = self.seed;
        // x grows into the picture; the branch sags and carries leaves about itself.
        let reach = self.half;
        let t = (x / reach).clamp(0.0, 1.0);
        let axis = 0.80 - 0.28 * t * t + 0.05 * noise(x * 3.0, 0.5, s);
        let twig = 0.20 * noise(x * 5.0, 7.0, s);
        let off = (y - axis).abs().min((y - axis - twig * t).abs());
        let wood = Self::cut(0.018 * (1.1 - t) - off, fp) * step(1.0, 0.95, x / reach);
        let leafy = fbm(x * 6.0, y * 6.0, s ^ 1, 4, 0.7, fp * 6.0);
        let fine = fbm(x * 22.0, y * 22.0, s ^ 2, 3, 0.6, fp * 22.0);
        let d = 0.17 * (1.05 - x / reach) + 0.04 - (y - axis).abs() + 0.22 * leafy - 0.05;
        let crown = Self::cut(d.min(0.16 * (fine + 0.25 + 1.5 * d.max(0.0))), fp)
            * step(1.08, 0.95, x / reach);
        let alpha = wood.max(crown);
        if alpha <= 0.002 {
            return None;
        }
        let bark = [0.06, 0.045, 0.035];
        let k = (0.85 + 0.5 * fine + 0.3 * leafy).max(0.25);
        let m = if crown > 0.3 * wood { 1.0 } else { 0.0 };
        let fall = mix3(
            self.turned,
            [0.38, 0.26, 0.05],
            (0.5 + leafy).clamp(0.0, 1.0),
        );
        Some(Hit {
            alpha,
            surface: Surface {
                day: mix3(bark, scale(self.day, k), m),
                turned: mix3(bark, scale(fall, k), m),
                veg: m,
                n: norm([fine, 0.35 + 0.5 * leafy, -0.8]),
                soft: 0.5,
                snow_at: (0.9 - 0.5 * fine).clamp(0.3, 1.2),
                ao: 0.75,
                ..base
            },
        })
    }
}
