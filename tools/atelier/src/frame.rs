//! The geometry of a scene at one size, found once and lit as often as attributes change: which land, sky, water or
//! standing thing each pixel sees, and how much of it.
//!
//! A column of the picture is marched from the camera outwards through fixed depths, so that the outline of the land
//! is the same at every size; each pixel looks at 2 × 2 points and shades one point for each thing it sees.

use crate::Scene;
use crate::light::SkyPoint;
use crate::maths::{V3, exp, ln, norm, step};
use crate::noise::{fbm, noise, unit};
use crate::plants::contact_shadow;
use crate::shade::{Surface, Water};
use crate::shapes::{Kind, Sprite};

const DEPTHS: usize = 176;

/// One thing seen by one pixel; the list order is the order of painting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment<T> {
    pub pixel: u32,
    pub alpha: f32,
    pub what: T,
}

/// The geometry of a scene at one size. See [`crate::render`] for the short way.
pub struct Frame<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) view: View,
    pub(crate) sky: Vec<Fragment<SkyPoint>>,
    pub(crate) land: Vec<Fragment<Surface>>,
    pub(crate) water: Vec<Fragment<Water>>,
    /// Direct light taken from the ground by what stands on it.
    pub(crate) shadows: Vec<Fragment<f32>>,
    pub(crate) things: Vec<Fragment<Surface>>,
}

/// The map between pixels and directions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub unit: f32,
    pub half_w: f32,
    pub horizon: f32,
    pub roll: f32,
    pub focal: f32,
    pub eye: f32,
    pub rise: f32,
}

impl View {
    fn new(scene: &Scene, width: usize, height: usize) -> Self {
        let c = &scene.camera;
        Self {
            unit: ((width * height) as f32).sqrt(),
            half_w: width as f32 * 0.5,
            horizon: c.horizon * height as f32,
            roll: c.roll,
            focal: c.focal,
            eye: c.eye,
            rise: c.rise,
        }
    }
    pub(crate) fn u(&self, px: f32) -> f32 {
        (px - self.half_w) / self.unit
    }
    pub(crate) fn v(&self, u: f32, py: f32) -> f32 {
        (self.horizon - py) / self.unit - self.roll * u
    }
    pub(crate) fn px(&self, u: f32) -> f32 {
        u * self.unit + self.half_w
    }
    pub(crate) fn py(&self, u: f32, v: f32) -> f32 {
        self.horizon - (v + self.roll * u) * self.unit
    }
    pub(crate) fn ray(&self, u: f32, v: f32) -> V3 {
        [u / self.focal, v / self.focal, 1.0]
    }
}

fn depths(scene: &Scene) -> Vec<f32> {
    let near = 1.2f32;
    let far = (scene.land.ridge_z * 2.6).max(9000.0);
    (0..DEPTHS)
        .map(|i| near * exp(ln(far / near) * i as f32 / (DEPTHS - 1) as f32))
        .collect()
}

/// The heights along one column.
struct Profile {
    heights: Vec<f32>,
}

impl Profile {
    fn new(scene: &Scene, tan: f32, depths: &[f32]) -> Self {
        let wet = scene.land.has_water;
        let heights = depths
            .iter()
            .map(|&z| {
                let h = scene.height(tan * z, z, z * 0.004);
                if wet { h.max(0.0) } else { h }
            })
            .collect();
        Self { heights }
    }

    /// Depths seen by rows of rising `v`; infinity where the sky is.
    fn trace(
        &self,
        view: &View,
        depths: &[f32],
        rows: impl Iterator<Item = f32>,
        out: &mut Vec<f32>,
    ) {
        let at = |k: usize| view.focal * (self.heights[k] - view.eye) / depths[k];
        let mut k = 0;
        out.clear();
        for v in rows {
            while k < depths.len() && at(k) < v {
                k += 1;
            }
            out.push(if k == depths.len() {
                f32::INFINITY
            } else if k == 0 {
                (view.focal * (view.eye - self.heights[0]) / (-v).max(1e-3)).clamp(0.3, depths[0])
            } else {
                let (z0, z1, h0, h1) = (
                    depths[k - 1],
                    depths[k],
                    self.heights[k - 1],
                    self.heights[k],
                );
                let t = (view.focal * (h0 - view.eye) - v * z0)
                    / (v * (z1 - z0) - view.focal * (h1 - h0));
                z0 + (z1 - z0)
                    * if t.is_finite() {
                        t.clamp(0.0, 1.0)
                    } else {
                        1.0
                    }
            });
        }
    }
}

impl<'a> Frame<'a> {
    /// Finds what every pixel of a `width` × `height` picture sees. Sides are brought into 1..=16384.
    pub fn new(scene: &'a Scene, width: usize, height: usize) -> Self {
        let (width, height) = (width.clamp(1, 16384), height.clamp(1, 16384));
        let view = View::new(scene, width, height);
        let mut f = Frame {
            scene,
            width,
            height,
            view,
            sky: Vec::new(),
            land: Vec::new(),
            water: Vec::new(),
            shadows: Vec::new(),
            things: Vec::new(),
        };
        let depths = depths(scene);
        // Depth at 2 x 2 points of each pixel: [row * 2 + sub][column * 2 + sub].
        let mut depth4 = vec![[0.0f32; 4]; width * height];
        let mut hits = Vec::new();
        let mut middle = Vec::with_capacity(width);
        for px in 0..width {
            for sub in 0..2 {
                let u = view.u(px as f32 + 0.25 + 0.5 * sub as f32);
                let p = Profile::new(scene, u / view.focal, &depths);
                p.trace(
                    &view,
                    &depths,
                    (0..2 * height)
                        .rev()
                        .map(|r| view.v(u, 0.25 + 0.5 * r as f32)),
                    &mut hits,
                );
                for (i, &z) in hits.iter().enumerate() {
                    let r = 2 * height - 1 - i;
                    depth4[(r / 2) * width + px][(r % 2) * 2 + sub] = z;
                }
                if sub == 0 {
                    middle.push(p);
                }
            }
        }
        for py in 0..height {
            for px in 0..width {
                f.pixel(px, py, &depth4[py * width + px], &depths, &middle);
            }
        }
        f.stand(&depth4);
        f
    }

    fn pixel(
        &mut self,
        px: usize,
        py: usize,
        depth: &[f32; 4],
        depths: &[f32],
        profiles: &[Profile],
    ) {
        let view = self.view;
        let pixel = (py * self.width + px) as u32;
        let (u, v) = (
            view.u(px as f32 + 0.5),
            view.v(view.u(px as f32 + 0.5), py as f32 + 0.5),
        );
        let mut d = *depth;
        d.sort_by(|a, b| b.total_cmp(a));
        let sky = d.iter().filter(|z| z.is_infinite()).count();
        if sky > 0 {
            let what = self.sky_point(norm(view.ray(u, v.max(0.0))), u, v, true);
            self.sky.push(Fragment {
                pixel,
                alpha: 1.0,
                what,
            });
        }
        let mut i = sky;
        let mut painted = sky;
        let mut wet: Vec<(f32, f32)> = Vec::new();
        while i < 4 {
            let mut n = 1;
            while i + n < 4 && d[i + n] > d[i] * 0.87 {
                n += 1;
            }
            let z = n as f32 / d[i..i + n].iter().map(|z| 1.0 / z).sum::<f32>();
            painted += n;
            let alpha = n as f32 / painted as f32;
            i += n;
            let x = u / view.focal * z;
            let fp = footprint(&view, z);
            // The height on the ray, which between two marched depths is not the height of the land.
            let ray = view.eye + v / view.focal * z;
            if self.scene.land.has_water && ray < 0.6 + 0.001 * z && v < -1e-4 {
                // On the water's own plane the shore is exact.
                let flat = view.focal * view.eye / -v;
                let h = self.scene.height(u / view.focal * flat, flat, fp.max(0.05));
                let soft = 0.012 + 0.05 * footprint(&view, flat).min(4.0);
                let part = step(soft, -soft, h) * step(1.5, 1.2, flat / z);
                if part > 0.0 {
                    wet.push((flat, part * n as f32 / 4.0));
                }
            }
            // Under water it is painted over later; its order among the rest stays.
            let what = self.scene.ground(x, z, ray, z, view.unit);
            self.land.push(Fragment { pixel, alpha, what });
        }
        for (z, part) in wet {
            let what = self.water_point(u, v, z, px, depths, &profiles[px]);
            self.water.push(Fragment {
                pixel,
                alpha: part,
                what,
            });
        }
    }

    fn sky_point(&self, dir: V3, u: f32, v: f32, lights: bool) -> SkyPoint {
        let k = &self.scene.sky;
        let e = dir[1].max(0.0);
        let down = 1.0 / (e + 0.11);
        let (x, y) = (
            dir[0] * down * k.cloud_scale,
            dir[2] * down * k.cloud_scale * k.stretch,
        );
        let grain = 1.0 / (self.view.unit * self.view.focal);
        let fp = grain * k.cloud_scale * k.stretch.max(1.0) * down * down.sqrt();
        let cloud = fbm(x, y, k.seed, 8, 0.54, fp);
        let (sx, sy) = (k.sun[0] * 0.22, k.sun[2] * 0.22 - 0.08);
        let relief = cloud - fbm(x + sx, y + sy, k.seed, 6, 0.54, fp.max(0.02));
        let deck = fbm(x * 0.7 + 40.0, y * 0.9, k.seed ^ 1, 5, 0.5, fp);
        let cirrus = if k.cirrus > 0.0 {
            let w = 0.5 * noise(x * 0.6, y * 0.6, k.seed ^ 2);
            fbm(x * 0.5 + w, y * 1.9 + 1.5 * w, k.seed ^ 3, 6, 0.6, fp * 2.0)
        } else {
            0.0
        };
        let mut p = SkyPoint {
            dir,
            cloud,
            relief,
            deck,
            cirrus,
            star: 0.0,
            moon: 0.0,
        };
        if lights && v > 0.0 {
            let cell = 30.0;
            let (cx, cy) = ((u * cell).floor(), (v * cell).floor());
            let h = |n: u32| unit(cx as i32, cy as i32, k.seed ^ 0x57a5 ^ n);
            if h(1) < 0.42 {
                let (sx, sy) = (
                    (cx + 0.25 + 0.5 * h(2)) / cell,
                    (cy + 0.25 + 0.5 * h(3)) / cell,
                );
                let r = 0.0011 + 0.0016 * h(4) * h(4);
                let spread = (r * r + 0.16 / (self.view.unit * self.view.unit)).sqrt();
                let q = ((u - sx) * (u - sx) + (v - sy) * (v - sy)) / (spread * spread);
                p.star = exp(-q)
                    * (0.15 + 1.0 * h(5) * h(5) * h(5))
                    * (r * r / (spread * spread)).sqrt()
                    * step(0.0, 0.12, v);
            }
            let far = 1.0 - crate::maths::dot(dir, k.moon).min(1.0);
            let angle = (2.0 * far).max(0.0).sqrt();
            p.moon = step(0.021 + grain, 0.021 - grain, angle)
                + 0.16 * exp(-angle * 28.0)
                + 0.06 * exp(-angle * 7.0);
        }
        p
    }

    fn water_point(
        &self,
        u: f32,
        v: f32,
        z: f32,
        px: usize,
        depths: &[f32],
        profile: &Profile,
    ) -> Water {
        let scene = self.scene;
        let (view, l) = (self.view, &scene.land);
        let sea = scene.place() == crate::Place::Coast;
        let x = u / view.focal * z;
        let fp = footprint(&view, z);
        let wave = if sea { 5.0 } else { 1.8 };
        // Waves lie across the line of sight; what a pixel cannot resolve blurs the mirror instead.
        let swell = fbm(x / wave * 0.45, z / wave, l.seed ^ 71, 6, 0.58, fp / wave);
        let cross = fbm(
            x / wave + 50.0,
            z / wave * 0.7,
            l.seed ^ 72,
            5,
            0.58,
            fp / wave,
        );
        let wind = 0.5 + 0.6 * fbm(x / 160.0, z / 160.0, l.seed ^ 73, 4, 0.5, fp / 160.0);
        let rough = l.ripple * wind.clamp(0.1, 1.2) * if sea { 1.4 } else { 0.55 };
        let slope = view.eye / z;
        let up = (slope * (1.0 + 0.5 * rough * swell) + 0.06 * rough * (0.35 + swell.abs() * 0.5))
            .max(0.002);
        let shift = 0.05 * rough * cross;
        let mut source = None;
        let first = depths.iter().position(|&d| d > z).unwrap_or(depths.len());
        for (&d, &h) in depths.iter().zip(&profile.heights).skip(first) {
            let ray = up * (d - z);
            if h > ray {
                let vv = view.focal * (ray - view.eye) / d;
                source = Some((px as f32 + 0.5 + shift * view.unit, view.py(u, vv)));
                break;
            }
        }
        if source.is_none() {
            // Past all land: sky, or what stands before it.
            let y = view.py(u, view.focal * up);
            if y > 1.0 {
                source = Some((px as f32 + 0.5 + shift * view.unit, y));
            }
        }
        let dir = view.ray(u, v);
        let cos =
            (slope / (1.0 + slope * slope).sqrt() + 0.10 * rough * (0.6 + swell)).clamp(0.0, 1.0);
        let fresnel = 0.02 + 0.98 * crate::maths::pow(1.0 - cos, 5.0);
        let depth = -scene.height(x, z, fp.max(0.3));
        let mut foam = 0.0;
        if sea {
            let run = step(1.1, 0.1, depth);
            let lace = fbm(x / 2.2, z / 2.2, l.seed ^ 74, 5, 0.6, fp / 2.2);
            let band =
                crate::maths::sin(depth * 9.0 + 2.0 * noise(x / 12.0, z / 12.0, l.seed ^ 75));
            foam = run * step(0.1, 0.8, 0.5 * band + lace + 0.8 * (0.45 - depth).max(0.0));
            foam = foam.max(
                0.5 * step(0.55, 0.95, swell + 0.5 * cross)
                    * l.ripple
                    * step(20.0, 60.0, z)
                    * step(900.0, 200.0, z),
            );
        }
        let mirror = norm([u / view.focal + shift, up, 1.0]);
        Water {
            dist: z,
            dir,
            n: [0.4 * rough * cross, 1.0, 0.4 * rough * swell],
            source,
            sky: self.sky_point(mirror, u, v, false),
            fresnel: fresnel.clamp(0.02, 0.96),
            foam: foam.clamp(0.0, 1.0),
            shallow: 0.8 * step(0.8, 0.0, depth),
            bed: scene.palette.sand,
        }
    }

    fn stand(&mut self, depth4: &[[f32; 4]]) {
        let scene = self.scene;
        for s in &scene.sprites {
            self.shadow(s, depth4);
            self.thing(s, depth4);
        }
    }

    /// The pixel box about a sprite: (u, v of its foot, size in units, x and y ranges).
    fn place_of(&self, s: &Sprite) -> (f32, f32, f32) {
        let w = &self.view;
        if s.kind == Kind::Branch {
            let u = s.side * w.half_w / w.unit;
            let top = w.v(u, 0.0);
            return (u, top - s.height * (0.92 - s.y), s.height);
        }
        (
            w.focal * s.x / s.z,
            w.focal * (s.y - w.eye) / s.z,
            w.focal * s.height / s.z,
        )
    }

    fn thing(&mut self, s: &Sprite, depth4: &[[f32; 4]]) {
        let w = self.view;
        let (u0, v0, size) = self.place_of(s);
        let fp = 1.0 / (size * w.unit);
        if fp > 1.5 {
            return;
        }
        let reach = if s.kind == Kind::Branch {
            s.half * 1.15
        } else {
            s.half * 1.35 + 2.0 * fp
        };
        let (x0, x1) = (
            w.px(u0 - reach * size).floor().max(0.0),
            w.px(u0 + reach * size).ceil().min(self.width as f32),
        );
        let tilt = w.roll.abs() * reach * size;
        let (y0, y1) = (
            w.py(u0, v0 + 1.16 * size + tilt).floor().max(0.0),
            w.py(u0, v0 - 0.06 * size - tilt)
                .ceil()
                .min(self.height as f32),
        );
        if x0 >= x1 || y0 >= y1 {
            return;
        }
        for py in y0 as usize..y1 as usize {
            for px in x0 as usize..x1 as usize {
                let u = w.u(px as f32 + 0.5);
                let v = w.v(u, py as f32 + 0.5);
                let lx = (u - u0) / size * if s.kind == Kind::Branch { -s.side } else { 1.0 };
                let ly = (v - v0) / size;
                let pixel = py * self.width + px;
                let seen = depth4[pixel]
                    .iter()
                    .filter(|&&z| s.z < z * 1.06 + 0.5)
                    .count();
                if seen == 0 {
                    continue;
                }
                if let Some(hit) = s.at(lx, ly, fp) {
                    let mut what = hit.surface;
                    what.dist = s.z;
                    what.pos = [s.x, s.y + ly * s.height, s.z];
                    self.things.push(Fragment {
                        pixel: pixel as u32,
                        alpha: hit.alpha * seen as f32 / 4.0,
                        what,
                    });
                }
            }
        }
    }

    fn shadow(&mut self, s: &Sprite, depth4: &[[f32; 4]]) {
        let w = self.view;
        let (u0, v0, size) = self.place_of(s);
        if s.kind == Kind::Branch || size * w.unit < 1.0 {
            return;
        }
        let reach = 1.3 * s.half.max(0.3) * size;
        let flat = (w.eye - s.y).max(0.5) / s.z;
        let (x0, x1) = (
            w.px(u0 - reach).floor().max(0.0),
            w.px(u0 + reach).ceil().min(self.width as f32),
        );
        let (y0, y1) = (
            w.py(u0, v0 + reach * flat * 1.5 + 0.02 * size)
                .floor()
                .max(0.0),
            w.py(u0, v0 - reach * flat * 2.0 - 0.03 * size)
                .ceil()
                .min(self.height as f32),
        );
        if x0 >= x1 || y0 >= y1 {
            return;
        }
        for py in y0 as usize..y1 as usize {
            for px in x0 as usize..x1 as usize {
                let pixel = py * self.width + px;
                let z = depth4[pixel].iter().sum::<f32>() * 0.25;
                if !z.is_finite() {
                    continue;
                }
                let x = w.u(px as f32 + 0.5) / w.focal * z;
                let k = contact_shadow(s, (x - s.x) / s.height, (z - s.z) / s.height);
                if k > 0.004 {
                    self.shadows.push(Fragment {
                        pixel: pixel as u32,
                        alpha: k,
                        what: s.z,
                    });
                }
            }
        }
    }
}

/// Metres that a pixel spans on the ground at depth `z`: between its width and its grazing length.
fn footprint(view: &View, z: f32) -> f32 {
    let across = z / (view.focal * view.unit);
    let height = view.rise.clamp(1.0, 60.0);
    across * (z / height).clamp(1.0, 25.0).sqrt()
}
