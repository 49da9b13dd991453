//! Where standing things stand in a scene: groves, framing trees, hedges, houses, people.

use crate::maths::{V3, mix3, scale, step};
use crate::noise::fbm;
use crate::shapes::{Kind, Sprite};
use crate::{Draw, Place, Scene};

struct Planter<'a> {
    scene: &'a Scene,
    d: Draw,
    out: Vec<Sprite>,
}

pub(crate) fn place(scene: &Scene) -> Vec<Sprite> {
    let mut p = Planter {
        scene,
        d: Draw::new(scene.seed(), 5),
        out: Vec::new(),
    };
    match scene.place() {
        Place::MountainLake => {
            p.grove(22, 26.0, 160.0, 0.8, (7.0, 17.0), 0.75);
            p.grove(8, 150.0, 900.0, 0.7, (10.0, 18.0), 0.8);
            p.rocks(9, 3.0, 40.0, 1.2);
            p.tufts(40, 2.5, 22.0);
        }
        Place::Hills => {
            p.grove(34, 45.0, 480.0, 0.8, (6.0, 15.0), 0.25);
            p.grove(6, 26.0, 90.0, 0.8, (5.0, 12.0), 0.2);
            p.bushes(14, 8.0, 160.0, 1.8);
            p.tufts(46, 2.5, 26.0);
        }
        Place::Coast => {
            p.grove(9, 45.0, 260.0, 0.8, (4.0, 9.0), 0.5);
            p.bushes(30, 6.0, 160.0, 1.5);
            p.rocks(26, 4.0, 90.0, 1.8);
            p.tufts(60, 2.5, 30.0);
        }
        Place::Fields => {
            p.grove(22, 60.0, 600.0, 0.8, (6.0, 14.0), 0.15);
            p.grove(3, 26.0, 90.0, 0.8, (7.0, 13.0), 0.1);
            p.bushes(18, 15.0, 200.0, 2.2);
            p.tufts(50, 2.5, 20.0);
        }
        Place::Desert => {
            p.bushes(60, 5.0, 200.0, 1.2);
            p.tufts(60, 2.5, 40.0);
            p.rocks(6, 4.0, 60.0, 0.8);
        }
        Place::Forest => {
            p.trunks();
            p.grove(64, 20.0, 110.0, 0.75, (9.0, 22.0), 0.45);
            p.bushes(18, 9.0, 70.0, 1.4);
            p.tufts(60, 2.2, 16.0);
        }
        Place::Town => {
            p.town();
            p.grove(34, 30.0, 520.0, 0.8, (5.0, 12.0), 0.25);
            p.bushes(22, 10.0, 160.0, 1.8);
            p.tufts(30, 2.5, 20.0);
        }
    }
    p.frame();
    let mut out = p.out;
    // Far ones first; a stable order for equal distances.
    out.sort_by(|a, b| b.z.total_cmp(&a.z));
    out
}

impl Planter<'_> {
    /// A point in view at a distance uniform in the logarithm.
    fn spot(&mut self, near: f32, far: f32, wide: f32) -> (f32, f32) {
        let z = self.d.log_range(near, far);
        (self.d.range(-wide, wide) * z / self.scene.camera.focal, z)
    }

    fn put(&mut self, kind: Kind, (x, z): (f32, f32), height: f32, half: f32, day: V3, turned: V3) {
        let y = self.scene.height(x, z, 2.0);
        let seed = self.d.bits();
        if self.scene.land.has_water && y < 0.25 {
            return;
        }
        self.out.push(Sprite {
            kind,
            x,
            z,
            y: y - 0.02 * height,
            height,
            half,
            seed,
            day,
            turned,
            side: 0.0,
        });
    }

    fn autumn_hue(&mut self) -> V3 {
        let t = self.d.unit();
        let warm = mix3(
            self.scene.palette.leaf_turn,
            [0.36, 0.26, 0.04],
            self.d.unit() * 0.7,
        );
        if t < 0.3 {
            mix3(warm, [0.26, 0.05, 0.02], 0.6)
        } else {
            warm
        }
    }

    fn green(&mut self) -> V3 {
        let p = &self.scene.palette;
        let (grass, wood) = (p.grass, p.wood);
        let k = 0.85 + 0.35 * self.d.unit();
        let t = self.d.unit();
        scale(mix3(scale(grass, 0.62), wood, 0.3 + 0.6 * t), k)
    }

    fn tree(&mut self, at: (f32, f32), height: f32, conifer: f32) {
        let fir = self.d.chance(conifer);
        let hue = self.autumn_hue();
        if fir {
            let day = scale(
                mix3(self.scene.palette.wood, [0.020, 0.040, 0.022], 0.5),
                0.8 + 0.5 * self.d.unit(),
            );
            let half = self.d.range(0.15, 0.25);
            self.put(Kind::Conifer, at, height * 1.15, half, day, hue);
        } else {
            let (day, half) = (self.green(), self.d.range(0.30, 0.52));
            self.put(Kind::Broadleaf, at, height, half, day, hue);
        }
    }

    fn grove(&mut self, n: usize, near: f32, far: f32, wide: f32, size: (f32, f32), conifer: f32) {
        let mut at = self.spot(near, far, wide);
        for _ in 0..n {
            if self.d.chance(0.35) {
                at = self.spot(near, far, wide);
            } else {
                let r = 5.0 + 0.08 * at.1;
                at = (
                    at.0 + r * self.d.bell(),
                    (at.1 + 1.2 * r * self.d.bell()).max(near),
                );
            }
            let lush = fbm(
                at.0 / 120.0,
                at.1 / 120.0,
                self.scene.land.seed ^ 77,
                2,
                0.5,
                0.0,
            );
            let height = self.d.range(size.0, size.1) * (1.0 + 0.25 * lush);
            self.tree(at, height, conifer);
        }
    }

    fn bushes(&mut self, n: usize, near: f32, far: f32, size: f32) {
        for _ in 0..n {
            let at = self.spot(near, far, 0.8);
            let height = size * self.d.range(0.45, 1.3);
            let desert = self.scene.place() == Place::Desert;
            let day = if desert {
                scale([0.085, 0.100, 0.048], 0.7 + 0.7 * self.d.unit())
            } else {
                self.green()
            };
            let (half, hue) = (self.d.range(0.6, 1.1), self.autumn_hue());
            self.put(Kind::Bush, at, height, half, day, hue);
        }
    }

    fn rocks(&mut self, n: usize, near: f32, far: f32, size: f32) {
        for _ in 0..n {
            let at = self.spot(near, far, 0.8);
            let height = size * self.d.range(0.2, 1.0) * self.d.range(0.3, 1.0);
            let day = scale(self.scene.palette.rock, self.d.range(0.75, 1.25));
            let half = self.d.range(0.8, 1.7);
            self.put(Kind::Rock, at, height, half, day, day);
        }
    }

    fn tufts(&mut self, n: usize, near: f32, far: f32) {
        let p = self.scene.palette.clone();
        let (sx, sz) = self.spot(near, far, 0.6);
        for i in 0..n {
            let mut at = self.spot(near, far, 0.8);
            if i % 3 == 0 {
                at = (sx + at.0 * 0.2, (sz + at.1 * 0.2).max(near));
            }
            let height = self.d.range(0.18, 0.55);
            let t = self.d.unit();
            let day = scale(mix3(p.grass, p.dry, t * t), self.d.range(0.65, 1.0));
            let half = self.d.range(0.6, 1.3);
            self.put(
                Kind::Tuft,
                at,
                height,
                half,
                day,
                scale([0.23, 0.145, 0.045], 0.7 + 0.5 * t),
            );
        }
    }

    fn trunks(&mut self) {
        let n = 5 + self.d.below(9);
        let bark = mix3(
            [0.085, 0.065, 0.05],
            [0.30, 0.28, 0.25],
            if self.d.chance(0.3) {
                self.d.unit()
            } else {
                0.0
            },
        );
        for _ in 0..n {
            let at = self.spot(4.5, 30.0, 0.75);
            if at.0.abs() < 0.07 * at.1 {
                continue;
            }
            let (height, day) = (
                self.d.range(12.0, 22.0),
                scale(bark, self.d.range(0.75, 1.2)),
            );
            let half = self.d.range(0.009, 0.022);
            self.put(Kind::Trunk, at, height, half, day, day);
        }
    }

    fn town(&mut self) {
        let near = self.scene.land.near;
        let far = self.scene.land.far + near;
        let roofs = mix3(
            [0.26, 0.085, 0.045],
            [0.10, 0.09, 0.09],
            if self.d.chance(0.35) {
                0.9
            } else {
                0.15 * self.d.unit()
            },
        );
        let n = 26 + self.d.below(26);
        for i in 0..n {
            let at = if i % 4 == 0 {
                self.spot(near, near * 1.6, 0.7)
            } else {
                self.spot(near, far, 0.62)
            };
            let height = self.d.range(5.5, 9.5);
            let walls = mix3([0.62, 0.58, 0.50], [0.48, 0.36, 0.24], self.d.unit());
            let walls = if self.d.chance(0.2) {
                [0.42, 0.20, 0.13]
            } else {
                walls
            };
            let (wall, roof) = (
                scale(walls, self.d.range(0.75, 1.05)),
                scale(roofs, self.d.range(0.7, 1.3)),
            );
            let half = self.d.range(0.6, 0.95);
            self.put(Kind::House, at, height, half, wall, roof);
        }
        if self.d.chance(0.75) {
            let at = self.spot(near * 1.5, far * 0.8, 0.35);
            let (height, half) = (self.d.range(22.0, 34.0), 0.40);
            let wall = scale([0.55, 0.52, 0.46], self.d.range(0.6, 1.0));
            self.put(Kind::Church, at, height, half, wall, scale(roofs, 0.6));
        }
    }

    /// What a photographer puts in front: a tree at the side, a branch, a fence, somebody.
    fn frame(&mut self) {
        let place = self.scene.place();
        let bare = matches!(place, Place::Desert);
        if !bare && self.d.chance(0.32) {
            let side = if self.d.chance(0.5) { 1.0 } else { -1.0 };
            let z = self.d.range(9.0, 22.0);
            let at = (
                side * z / self.scene.camera.focal * self.d.range(0.28, 0.52),
                z,
            );
            let height = self.d.range(7.0, 12.0);
            self.tree(
                at,
                height,
                if place == Place::MountainLake {
                    0.6
                } else {
                    0.25
                },
            );
        }
        if !bare && self.d.chance(0.22) {
            let side = if self.d.chance(0.5) { 1.0 } else { -1.0 };
            let (day, turned, seed) = (self.green(), self.autumn_hue(), self.d.bits());
            let (height, half) = (self.d.range(0.3, 0.5), self.d.range(0.7, 1.2));
            self.out.push(Sprite {
                kind: Kind::Branch,
                x: 0.0,
                z: 2.0,
                y: self.d.range(-0.08, 0.12),
                height,
                half,
                seed,
                day,
                turned,
                side,
            });
        }
        if matches!(
            place,
            Place::Hills | Place::Fields | Place::Town | Place::Coast
        ) && self.d.chance(0.3)
        {
            let z = self.d.range(5.0, 16.0);
            let x = self.d.range(-0.5, 0.5) * z;
            let day = scale(
                mix3([0.16, 0.13, 0.10], [0.30, 0.28, 0.25], self.d.unit()),
                1.0,
            );
            let half = self.d.range(3.0, 9.0);
            self.put(Kind::Fence, (x, z), 1.15, half, day, day);
        }
        if self.d.chance(0.22) {
            let n = 1 + self.d.below(3);
            let (x, z) = self.spot(7.0, 45.0, 0.4);
            for i in 0..n {
                let coat = [
                    [0.30, 0.05, 0.04],
                    [0.05, 0.08, 0.18],
                    [0.35, 0.33, 0.30],
                    [0.04, 0.04, 0.045],
                    [0.28, 0.20, 0.05],
                ][self.d.below(5)];
                let legs = scale([0.05, 0.055, 0.075], self.d.range(0.6, 1.8));
                let height = self.d.range(1.5, 1.85);
                let at = (
                    x + 0.9 * i as f32 + 0.3 * self.d.bell(),
                    z + 0.5 * self.d.bell(),
                );
                self.put(Kind::Person, at, height, 0.16, coat, legs);
            }
        }
    }
}

/// How far a sprite darkens the ground about its foot, 0..1, at (dx, dz) heights from it.
pub(crate) fn contact_shadow(s: &Sprite, dx: f32, dz: f32) -> f32 {
    let r = match s.kind {
        Kind::Broadleaf => s.half * 1.1,
        Kind::Conifer => s.half * 1.2,
        Kind::Bush | Kind::Rock => s.half * 1.15,
        Kind::House => s.half * 1.1,
        Kind::Church => 0.3,
        Kind::Trunk => 0.03,
        Kind::Person => 0.25,
        _ => return 0.0,
    };
    let q = (dx * dx + dz * dz).sqrt() / r;
    0.62 * step(1.1, 0.15, q)
}
