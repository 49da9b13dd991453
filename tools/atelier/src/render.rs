//! Paints a frame: every fragment lit, laid over what is behind it, then developed like a photograph.
//! The same passes paint the mask of what an attribute may touch.

use crate::frame::Frame;
use crate::light::Light;
use crate::maths::{V3, mix3, scale};
use crate::{Attribute, Attributes, Scene, photo, shade};

/// What stands nearer than this, in metres, stands before the water and is not mirrored in it.
const NEAR_BANK: f32 = 25.0;

/// A finished picture, sRGB-encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height × width × 3` values in 0..=1, row by row from the top, R G B.
    pub rgb: Vec<f32>,
}

impl Picture {
    /// The picture in 8 bits, `height × width × 3`, rounded to nearest.
    pub fn to_u8(&self) -> Vec<u8> {
        self.rgb.iter().map(|v| (v * 255.0 + 0.5) as u8).collect()
    }
}

/// Renders `scene` under `attributes` (values outside 0..=1 are brought in) at `width × height` pixels.
///
/// To light one scene in many ways, keep a [`Frame`] and call [`Frame::render`].
pub fn render(scene: &Scene, attributes: &Attributes, width: usize, height: usize) -> Picture {
    Frame::new(scene, width, height).render(attributes)
}

/// What `attribute` may touch in any picture of `scene`: `height × width` values in 0..=1, 0 where it changes nothing.
pub fn mask(scene: &Scene, attribute: Attribute, width: usize, height: usize) -> Vec<f32> {
    Frame::new(scene, width, height).mask(attribute)
}

impl Frame<'_> {
    /// Lights this geometry; sizes and ranges as for [`render`].
    pub fn render(&self, attributes: &Attributes) -> Picture {
        let light = Light::new(self.scene, attributes);
        let view = self.view;
        let ray = |pixel: u32| {
            let u = view.u((pixel as usize % self.width) as f32 + 0.5);
            view.ray(u, view.v(u, (pixel as usize / self.width) as f32 + 0.5))
        };
        let things: Vec<V3> = self
            .things
            .iter()
            .map(|f| shade::land(&f.what, &light, ray(f.pixel)))
            .collect();
        let mut out = vec![[0.0f32; 3]; self.width * self.height];
        for f in &self.sky {
            out[f.pixel as usize] = light.sky(&f.what);
        }
        for f in &self.land {
            let p = &mut out[f.pixel as usize];
            *p = mix3(*p, shade::land(&f.what, &light, ray(f.pixel)), f.alpha);
        }
        let direct = crate::maths::luma(light.sun_rgb)
            / (crate::maths::luma(light.sun_rgb) + crate::maths::luma(light.above));
        for f in &self.shadows {
            let p = &mut out[f.pixel as usize];
            let air = crate::maths::exp(-f.what * (light.fog + light.haze[1]));
            *p = scale(*p, 1.0 - f.alpha * (0.25 + 0.75 * direct) * air);
        }
        if !self.water.is_empty() {
            let mut above = out.clone();
            for (f, c) in self
                .things
                .iter()
                .zip(&things)
                .filter(|(f, _)| f.what.dist > NEAR_BANK)
            {
                let p = &mut above[f.pixel as usize];
                *p = mix3(*p, *c, f.alpha);
            }
            let body = self.scene.palette.water;
            for f in &self.water {
                let seen = f.what.source.map(|(x, y)| self.sample(&above, x, y));
                let p = &mut out[f.pixel as usize];
                *p = mix3(*p, shade::water(&f.what, &light, body, seen), f.alpha);
            }
        }
        for (f, c) in self.things.iter().zip(&things) {
            let p = &mut out[f.pixel as usize];
            *p = mix3(*p, *c, f.alpha);
        }
        photo::develop(self, &light, out)
    }

    /// What `attribute` may touch; see [`mask`].
    pub fn mask(&self, attribute: Attribute) -> Vec<f32> {
        if !matches!(attribute, Attribute::Snow | Attribute::Autumn) {
            return vec![1.0; self.width * self.height];
        }
        let mut out = vec![[0.0f32; 3]; self.width * self.height];
        let lay = |out: &mut Vec<V3>, pixel: u32, value: f32, alpha: f32| {
            let p = &mut out[pixel as usize];
            *p = mix3(*p, [value; 3], alpha);
        };
        for f in &self.land {
            lay(&mut out, f.pixel, shade::touch(&f.what, attribute), f.alpha);
        }
        let mut above = out.clone();
        for f in self.things.iter().filter(|f| f.what.dist > NEAR_BANK) {
            lay(
                &mut above,
                f.pixel,
                shade::touch(&f.what, attribute),
                f.alpha,
            );
        }
        for f in &self.water {
            let seen = f
                .what
                .source
                .map_or(0.0, |(x, y)| self.sample(&above, x, y)[0]);
            lay(&mut out, f.pixel, (2.0 * seen).min(1.0), f.alpha);
        }
        for f in &self.things {
            lay(&mut out, f.pixel, shade::touch(&f.what, attribute), f.alpha);
        }
        photo::soften(self, &mut out);
        // A pixel of which a thirtieth may change shows it.
        out.iter()
            .map(|p| crate::maths::step(0.0, 0.25, p[0]).max((p[0] * 30.0).min(0.5)))
            .collect()
    }

    fn sample(&self, image: &[V3], x: f32, y: f32) -> V3 {
        let (w, h) = (self.width, self.height);
        let inside = |t: f32, n: usize| (t - 0.5).min(n as f32 - 1.001).max(0.0);
        let (x, y) = (inside(x, w), inside(y, h));
        let (ix, iy) = (x as usize, y as usize);
        let (jx, jy) = ((ix + 1).min(w - 1), (iy + 1).min(h - 1));
        let (fx, fy) = (x - ix as f32, y - iy as f32);
        let top = mix3(image[iy * w + ix], image[iy * w + jx], fx);
        mix3(top, mix3(image[jy * w + ix], image[jy * w + jx], fx), fy)
    }
}
