//! From linear light to a photograph: lens blur, rain in the air, vignette, white balance, filmic tone curve, sRGB, grain.
//! Everything acts on a pixel alone but the blur, whose reach is a small part of the picture.

use crate::frame::Frame;
use crate::light::Light;
use crate::maths::{V3, exp, luma, mix, mix3, pow, scale, step};
use crate::noise::{fbm, noise};
use crate::render::Picture;

/// Gaussian blur of the scene's lens, in place.
pub(crate) fn soften(frame: &Frame<'_>, image: &mut [V3]) {
    let sigma = frame.scene.photo.blur * frame.view.unit;
    if sigma < 0.25 {
        return;
    }
    let reach = ((sigma * 2.6).ceil() as usize).max(1);
    let mut kernel: Vec<f32> = (0..=reach)
        .map(|i| exp(-0.5 * (i as f32 / sigma) * (i as f32 / sigma)))
        .collect();
    let sum = kernel[0] + 2.0 * kernel[1..].iter().sum::<f32>();
    kernel.iter_mut().for_each(|k| *k /= sum);
    let (w, h) = (frame.width, frame.height);
    let pass = |line: &mut [V3], n: usize, get: &dyn Fn(usize) -> V3| {
        for (i, out) in line.iter_mut().enumerate().take(n) {
            let mut acc = scale(get(i), kernel[0]);
            for (r, k) in kernel.iter().enumerate().skip(1) {
                let (a, b) = (get(i.saturating_sub(r)), get((i + r).min(n - 1)));
                acc = [0, 1, 2].map(|c| acc[c] + k * (a[c] + b[c]));
            }
            *out = acc;
        }
    };
    let mut line = vec![[0.0f32; 3]; w.max(h)];
    for y in 0..h {
        let row = &mut image[y * w..(y + 1) * w];
        pass(&mut line, w, &|i| row[i]);
        row.copy_from_slice(&line[..w]);
    }
    for x in 0..w {
        pass(&mut line, h, &|i| image[i * w + x]);
        for (y, v) in line[..h].iter().enumerate() {
            image[y * w + x] = *v;
        }
    }
}

/// The curve of a negative: a long shoulder, shadows left open.
fn film(x: f32) -> f32 {
    1.0 - exp(-1.38 * x.max(0.0))
}

const TABLE: usize = 2048;
/// Light that the film takes as white.
const WHITE: f32 = 8.0;

fn srgb(x: f32) -> f32 {
    if x <= 0.003_130_8 {
        12.92 * x
    } else {
        1.055 * pow(x, 1.0 / 2.4) - 0.055
    }
}

pub(crate) fn develop(frame: &Frame<'_>, light: &Light, mut image: Vec<V3>) -> Picture {
    let p = &frame.scene.photo;
    soften(frame, &mut image);
    let view = frame.view;
    let fp = 1.0 / view.unit;
    let (w, h) = (frame.width, frame.height);
    // Tone curve and sRGB in one table over the square root of light; straight lines between.
    let table: Vec<f32> = (0..=TABLE)
        .map(|i| (i as f32 / TABLE as f32) * (i as f32 / TABLE as f32) * WHITE)
        .map(|x| srgb(film(x)))
        .collect();
    let tone = |x: f32| {
        let t = (x.clamp(0.0, WHITE) / WHITE).sqrt() * (TABLE as f32 - 0.01);
        let i = t as usize;
        mix(table[i], table[i + 1], t - i as f32)
    };
    let mut rgb = Vec::with_capacity(w * h * 3);
    for (i, c) in image.into_iter().enumerate() {
        let (x, y) = ((i % w) as f32 + 0.5, (i / w) as f32 + 0.5);
        let u = view.u(x);
        let t = y / view.unit;
        let mut c = c;
        if light.rain > 0.0 {
            let fall = fbm(u * 95.0 + t * 13.0, t * 6.5, p.seed ^ 1, 2, 0.8, fp * 95.0)
                + 0.4 * noise(u * 37.0 + t * 6.0, t * 3.0, p.seed ^ 2);
            let streak = light.rain * step(0.15, 0.9, fall) * 0.22;
            c = mix3(c, scale(light.deck_rgb, 1.1), streak);
        }
        // The corner of the picture, whatever its shape, is at distance 1.
        let (cx, cy) = (2.0 * x / w as f32 - 1.0, 2.0 * y / h as f32 - 1.0);
        let dark =
            1.0 - p.vignette * (0.5 * (cx * cx + cy * cy)) * (0.5 * (cx * cx + cy * cy)).sqrt();
        let grain = if p.grain > 0.0 {
            p.grain * fbm(u * 320.0, t * 320.0, p.seed, 2, 0.9, fp * 320.0)
        } else {
            0.0
        };
        let c = [0, 1, 2].map(|k| tone(c[k] * p.exposure * p.balance[k] * dark));
        let grey = luma(c);
        for v in c {
            let v = mix(grey, v, p.saturation).clamp(0.0, 1.0);
            let v = 0.45 + (v - 0.45) * p.contrast;
            let v = p.lift + v * (1.0 - p.lift) + grain;
            rgb.push(v.clamp(0.0, 1.0));
        }
    }
    Picture {
        width: w,
        height: h,
        rgb,
    }
}
