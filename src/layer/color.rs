//! Between a layer's colour space and sRGB-encoded, extended-range f32 (T and T⁻¹ of the design).
//!
//! For: seeing every layer as the models do. Not for: pixel formats (`format`) and clamping: values
//! outside 0..=1 pass through.

use std::sync::Arc;

use moxcms::{ColorProfile, DataColorSpace, Layout, TransformF32Executor, TransformOptions};

use super::format::Pixel;
use super::pixel::ColorSpace;
use crate::error::{Code, Error, Result};
use crate::limits::MAX_ICC_BYTES;

/// Weights of encoded red, green and blue in grey (Rec. 709 luma).
const LUMA: [f32; 3] = [0.2126, 0.7152, 0.0722];

/// Pixels that go through a profile at a time. Always a whole block: the transform's vector part and
/// its remainder may round differently, and a pixel's bytes must not depend on its neighbours.
const BLOCK: usize = 64;

/// T and T⁻¹ of one layer.
#[derive(Clone)]
pub(crate) struct Converter {
    space: Space,
    gray: bool,
    key: Key,
}

#[derive(Clone)]
enum Space {
    Srgb,
    Linear(Arc<Curves>),
    Icc {
        to_srgb: Arc<TransformF32Executor>,
        from_srgb: Arc<TransformF32Executor>,
    },
}

/// What a converter was made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Srgb,
    Linear,
    Icc([u8; 32]),
}

impl Key {
    fn of(color: &ColorSpace<'_>) -> Key {
        match color {
            ColorSpace::Srgb => Key::Srgb,
            ColorSpace::LinearSrgb => Key::Linear,
            ColorSpace::Icc(bytes) => Key::Icc(*blake3::hash(bytes).as_bytes()),
        }
    }
}

impl std::fmt::Debug for Converter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Converter")
            .field("key", &self.key)
            .field("gray", &self.gray)
            .finish_non_exhaustive()
    }
}

impl Converter {
    /// For a layer in `color` whose pixels are grey or not. Errors with [`Code::InvalidLayer`] when
    /// the profile is damaged, or of another kind than the pixels.
    pub(crate) fn new(color: &ColorSpace<'_>, gray: bool) -> Result<Converter> {
        let key = Key::of(color);
        let space = match color {
            ColorSpace::Srgb => Space::Srgb,
            ColorSpace::LinearSrgb => Space::Linear(Arc::new(Curves::new())),
            ColorSpace::Icc(bytes) => profile(bytes, gray)?,
        };
        let mut converter = Converter { space, gray, key };
        if !gray && converter.is_nearly_identity() {
            converter.space = Space::Srgb;
        }
        Ok(converter)
    }

    /// Whether it was made for this space.
    pub(crate) fn serves(&self, color: &ColorSpace<'_>, gray: bool) -> bool {
        self.gray == gray && self.key == Key::of(color)
    }

    /// Whether T changes nothing, so that a change is its own picture under T⁻¹.
    pub(crate) fn is_identity(&self) -> bool {
        matches!(self.space, Space::Srgb)
    }

    /// T, in place; alpha is left alone. Grey comes spread to the three colours.
    pub(crate) fn to_srgb(&self, pixels: &mut [Pixel]) {
        match &self.space {
            Space::Srgb => {}
            Space::Linear(curves) => each(pixels, |v| curves.encode(v)),
            Space::Icc { to_srgb, .. } => {
                for block in pixels.chunks_mut(BLOCK) {
                    let mut out = [0.0; BLOCK * 3];
                    // The lengths always fit, so that the transform cannot fail.
                    let _ = if self.gray {
                        let mut from = [0.0; BLOCK];
                        for (f, p) in from.iter_mut().zip(&*block) {
                            *f = p[0];
                        }
                        to_srgb.transform(&from, &mut out)
                    } else {
                        to_srgb.transform(&flat(block), &mut out)
                    };
                    for (p, o) in block.iter_mut().zip(out.as_chunks::<3>().0) {
                        p[..3].copy_from_slice(o);
                    }
                }
            }
        }
    }

    /// T⁻¹, in place; alpha is left alone. For a grey layer the grey is in each of the three.
    pub(crate) fn to_native(&self, pixels: &mut [Pixel]) {
        match &self.space {
            Space::Srgb => {}
            Space::Linear(curves) => each(pixels, |v| curves.decode(v)),
            Space::Icc { from_srgb, .. } => {
                for block in pixels.chunks_mut(BLOCK) {
                    if self.gray {
                        let mut out = [0.0; BLOCK];
                        let _ = from_srgb.transform(&flat(block), &mut out);
                        for (p, o) in block.iter_mut().zip(out) {
                            p[..3].fill(o);
                        }
                    } else {
                        let mut out = [0.0; BLOCK * 3];
                        let _ = from_srgb.transform(&flat(block), &mut out);
                        for (p, o) in block.iter_mut().zip(out.as_chunks::<3>().0) {
                            p[..3].copy_from_slice(o);
                        }
                    }
                }
                return;
            }
        }
        if self.gray {
            for p in pixels {
                let luma = p[0] * LUMA[0] + p[1] * LUMA[1] + p[2] * LUMA[2];
                p[..3].fill(luma);
            }
        }
    }

    /// Many files carry sRGB as a profile; converting them would cost time and change nothing.
    fn is_nearly_identity(&self) -> bool {
        let level = |i: usize| (i % 5) as f32 / 4.0;
        let mut pixels: Vec<Pixel> = (0..125)
            .map(|i| [level(i), level(i / 5), level(i / 25), 1.0])
            .collect();
        let before = pixels.clone();
        self.to_srgb(&mut pixels);
        pixels
            .iter()
            .zip(&before)
            .all(|(a, b)| (0..3).all(|c| (a[c] - b[c]).abs() < 2e-3))
    }
}

fn flat(block: &[Pixel]) -> [f32; BLOCK * 3] {
    let mut out = [0.0; BLOCK * 3];
    for (o, p) in out.as_chunks_mut::<3>().0.iter_mut().zip(block) {
        o.copy_from_slice(&p[..3]);
    }
    out
}

fn each(pixels: &mut [Pixel], curve: impl Fn(f32) -> f32) {
    for p in pixels {
        for v in &mut p[..3] {
            *v = curve(*v);
        }
    }
}

/// Steps of the curves' tables.
const STEPS: usize = 4096;

/// Both curves as tables over 0..=1, read linearly: off by at most 2 · 10⁻⁶ (at the
/// knee between line and power), and many times faster than powers. Encoding is tabulated over the square root, which is smooth enough for that near 0.
struct Curves {
    encode: Vec<f32>,
    decode: Vec<f32>,
}

impl Curves {
    fn new() -> Curves {
        let table =
            |f: &dyn Fn(f32) -> f32| (0..STEPS + 2).map(|i| f(i as f32 / STEPS as f32)).collect();
        Curves {
            encode: table(&|root| encode(root * root)),
            decode: table(&decode),
        }
    }

    #[inline(always)]
    fn encode(&self, v: f32) -> f32 {
        let m = v.abs();
        if m <= 1.0 {
            read(&self.encode, m.sqrt()).copysign(v)
        } else {
            encode(v)
        }
    }

    #[inline(always)]
    fn decode(&self, v: f32) -> f32 {
        let m = v.abs();
        if m <= 1.0 {
            read(&self.decode, m).copysign(v)
        } else {
            decode(v)
        }
    }
}

#[inline(always)]
fn read(table: &[f32], at: f32) -> f32 {
    let x = at * STEPS as f32;
    let i = x as usize;
    match table.get(i..i + 2) {
        Some([a, b]) => a + (x - i as f32) * (b - a),
        _ => 0.0,
    }
}

/// Linear light → sRGB-encoded (IEC 61966-2-1), odd beyond 0 and continued beyond 1.
fn encode(v: f32) -> f32 {
    let m = v.abs();
    let e = if m <= 0.003_130_8 {
        12.92 * m
    } else {
        1.055 * libm::powf(m, 1.0 / 2.4) - 0.055
    };
    e.copysign(v)
}

/// sRGB-encoded → linear light; the inverse of [`encode`].
fn decode(v: f32) -> f32 {
    let m = v.abs();
    let d = if m <= 0.040_45 {
        m / 12.92
    } else {
        libm::powf((m + 0.055) / 1.055, 2.4)
    };
    d.copysign(v)
}

fn profile(bytes: &[u8], gray: bool) -> Result<Space> {
    let fail = |message: String, hint: &str| {
        Error::new(Code::InvalidLayer, message)
            .with_hint(hint)
            .with_parameter("icc")
    };
    if bytes.len() > MAX_ICC_BYTES {
        return Err(fail(
            format!(
                "ICC profile of {} bytes: must be at most {MAX_ICC_BYTES}",
                bytes.len()
            ),
            "convert the layer to a smaller profile",
        ));
    }
    let bad = |what: &dyn std::fmt::Display| {
        fail(
            format!("ICC profile of {} bytes: {what}", bytes.len()),
            "convert the layer to sRGB, or give no profile",
        )
    };
    let profile = ColorProfile::new_from_slice(bytes).map_err(|e| bad(&e))?;
    let (wanted, layout, name) = if gray {
        (DataColorSpace::Gray, Layout::Gray, "grey")
    } else {
        (DataColorSpace::Rgb, Layout::Rgb, "RGB")
    };
    if profile.color_space != wanted {
        return Err(fail(
            format!(
                "ICC profile for {:?}: the layer's pixels are {name}",
                profile.color_space
            ),
            "give the profile of these pixels, or none",
        ));
    }
    let srgb = ColorProfile::new_srgb();
    let options = TransformOptions {
        prefer_fixed_point: false,
        allow_use_cicp_transfer: false,
        allow_extended_range_rgb_xyz: true,
        ..TransformOptions::default()
    };
    let to_srgb = profile
        .create_transform_f32(layout, &srgb, Layout::Rgb, options)
        .map_err(|e| bad(&e))?;
    let from_srgb = srgb
        .create_transform_f32(Layout::Rgb, &profile, layout, options)
        .map_err(|e| bad(&e))?;
    Ok(Space::Icc { to_srgb, from_srgb })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tabulated_curves_equal_the_exact_ones_and_each_other_backwards() {
        let curves = Curves::new();
        for i in -40_000..40_000 {
            let v = i as f32 / 20_000.0;
            assert!(
                (curves.encode(v) - encode(v)).abs() < 2e-6 * v.abs().max(1.0),
                "{v}"
            );
            assert!(
                (curves.decode(v) - decode(v)).abs() < 2e-6 * v.abs().max(1.0),
                "{v}"
            );
            assert!(
                (curves.decode(curves.encode(v)) - v).abs() < 4e-6 * v.abs().max(1.0),
                "{v}"
            );
        }
    }

    #[test]
    fn a_matrix_profile_comes_back_and_srgb_is_recognised() {
        let p3 = ColorProfile::new_display_p3().encode().unwrap();
        let converter = Converter::new(&ColorSpace::Icc(&p3), false).unwrap();
        assert!(!converter.is_identity());
        let before: Vec<Pixel> = (0..200)
            .map(|i| [i as f32 / 199.0, 0.3, 0.8, 1.0])
            .collect();
        let mut pixels = before.clone();
        converter.to_srgb(&mut pixels);
        assert!(
            pixels.iter().any(|p| p[0] > 1.0),
            "P3 red lies outside sRGB"
        );
        converter.to_native(&mut pixels);
        for (a, b) in pixels.iter().zip(&before) {
            assert!((0..3).all(|c| (a[c] - b[c]).abs() < 2e-3), "{a:?} {b:?}");
        }
        let srgb = ColorProfile::new_srgb().encode().unwrap();
        assert!(
            Converter::new(&ColorSpace::Icc(&srgb), false)
                .unwrap()
                .is_identity()
        );
    }

    #[test]
    fn a_pixel_through_a_profile_does_not_depend_on_its_neighbours() {
        let p3 = ColorProfile::new_display_p3().encode().unwrap();
        let converter = Converter::new(&ColorSpace::Icc(&p3), false).unwrap();
        let all: Vec<Pixel> = (0..150)
            .map(|i| [0.1, i as f32 / 149.0, 0.8, 1.0])
            .collect();
        let mut together = all.clone();
        converter.to_srgb(&mut together);
        for (one, expected) in all.iter().zip(&together) {
            let mut one = [*one];
            converter.to_srgb(&mut one);
            assert_eq!(&one[0], expected);
        }
    }

    #[test]
    fn a_gray_profile_comes_back() {
        let gray = ColorProfile::new_gray_with_gamma(2.2).encode().unwrap();
        let converter = Converter::new(&ColorSpace::Icc(&gray), true).unwrap();
        let before: Vec<Pixel> = (0..100)
            .map(|i| [i as f32 / 99.0, i as f32 / 99.0, i as f32 / 99.0, 1.0])
            .collect();
        let mut pixels = before.clone();
        converter.to_srgb(&mut pixels);
        converter.to_native(&mut pixels);
        for (a, b) in pixels.iter().zip(&before) {
            assert!((a[0] - b[0]).abs() < 4e-3, "{a:?} {b:?}");
        }
    }
}
