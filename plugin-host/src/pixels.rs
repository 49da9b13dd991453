//! A picture in memory, in the format its file had.
//!
//! For: carrying samples between files and the library without loss. Not for: colour management:
//! the library edits in the picture's own profile; conversions here are those between file formats
//! that cannot hold each other's samples.

use crate::limits;

/// The type of one sample, in the machine's byte order. Numbers as in the C ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Samples {
    /// 8 bits.
    U8 = 1,
    /// 16 bits.
    U16 = 2,
    /// IEEE half.
    F16 = 3,
    /// IEEE single.
    F32 = 4,
}

impl Samples {
    /// Bytes of one sample.
    pub fn size(self) -> usize {
        match self {
            Samples::U8 => 1,
            Samples::U16 | Samples::F16 => 2,
            Samples::F32 => 4,
        }
    }

    /// Whether samples are floating point.
    pub fn is_float(self) -> bool {
        matches!(self, Samples::F16 | Samples::F32)
    }
}

/// The channels of a pixel in memory order. Numbers as in the C ABI; files need no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Order {
    /// Red, green, blue.
    Rgb = 1,
    /// Red, green, blue, alpha.
    Rgba = 2,
    /// Grey.
    Gray = 5,
    /// Grey, alpha.
    GrayAlpha = 6,
}

impl Order {
    /// Samples of one pixel.
    pub fn channels(self) -> usize {
        match self {
            Order::Gray => 1,
            Order::GrayAlpha => 2,
            Order::Rgb => 3,
            Order::Rgba => 4,
        }
    }

    /// Whether the last channel is alpha.
    pub fn has_alpha(self) -> bool {
        matches!(self, Order::Rgba | Order::GrayAlpha)
    }

    /// Whether colour is one grey channel.
    pub fn is_gray(self) -> bool {
        matches!(self, Order::Gray | Order::GrayAlpha)
    }

    /// The same colour channels without alpha.
    pub fn opaque(self) -> Order {
        match self {
            Order::Rgb | Order::Rgba => Order::Rgb,
            Order::Gray | Order::GrayAlpha => Order::Gray,
        }
    }
}

/// Whether colour is multiplied by alpha. Numbers as in the C ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Alpha {
    /// No alpha channel.
    None = 0,
    /// Colour as it is.
    Straight = 1,
    /// Colour times alpha.
    Premultiplied = 2,
}

/// How samples become colours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Color {
    /// sRGB, also assumed of integer samples that say nothing.
    Srgb,
    /// sRGB primaries, linear light.
    LinearSrgb,
    /// A profile, kept byte for byte.
    Icc(Vec<u8>),
    /// Float samples that say nothing: the user must.
    Unknown,
}

/// A picture: `height` rows of `width` pixels, no padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Type of each sample.
    pub samples: Samples,
    /// Channels.
    pub order: Order,
    /// State of the alpha channel.
    pub alpha: Alpha,
    /// Meaning of the samples.
    pub color: Color,
    /// The samples, rows from the top.
    pub bytes: Vec<u8>,
}

/// Checks a picture's claimed size before anything of it is allocated; returns its bytes.
pub fn checked_size(width: u32, height: u32, pixel: usize) -> std::result::Result<usize, String> {
    let count = u64::from(width) * u64::from(height);
    let bytes = count.checked_mul(pixel as u64);
    match bytes {
        _ if count == 0 => Err(format!("{width}×{height} pixels: an empty picture")),
        Some(bytes) if count <= limits::PIXELS && bytes <= limits::PICTURE_BYTES => {
            usize::try_from(bytes).map_err(|_| format!("{width}×{height} pixels: too large"))
        }
        _ => Err(format!(
            "{width}×{height} pixels: too large, at most {} megapixels",
            limits::PIXELS >> 20
        )),
    }
}

impl Pixels {
    /// Bytes of one pixel.
    pub fn pixel_size(&self) -> usize {
        self.samples.size() * self.order.channels()
    }

    /// Bytes of one row.
    pub fn row_size(&self) -> usize {
        self.pixel_size() * self.width as usize
    }

    /// One sample as a fraction of full scale; integers divide by their maximum.
    fn sample(&self, index: usize) -> f32 {
        let size = self.samples.size();
        let at = index * size;
        let bytes = self.bytes.get(at..at + size).unwrap_or(&[0; 4]);
        match (self.samples, bytes) {
            (Samples::U8, [a, ..]) => f32::from(*a) / 255.0,
            (Samples::U16, [a, b, ..]) => f32::from(u16::from_ne_bytes([*a, *b])) / 65535.0,
            (Samples::F16, [a, b, ..]) => half_to_f32(u16::from_ne_bytes([*a, *b])),
            (Samples::F32, [a, b, c, d]) => f32::from_ne_bytes([*a, *b, *c, *d]),
            _ => 0.0,
        }
    }

    /// Whether every alpha sample is full (or there is none).
    pub fn is_opaque(&self) -> bool {
        if !self.order.has_alpha() {
            return true;
        }
        let channels = self.order.channels();
        let count = self.width as usize * self.height as usize;
        (0..count).all(|i| self.sample(i * channels + channels - 1) >= 1.0)
    }

    /// The largest change of a sample of pixel `index` in `other`, a picture of the same size and
    /// format, as a fraction of full scale; `None` where its bytes are the same.
    pub fn difference(&self, other: &Pixels, index: usize) -> Option<f32> {
        let size = self.pixel_size();
        let bytes = index * size..(index + 1) * size;
        if self.bytes.get(bytes.clone()) == other.bytes.get(bytes) {
            return None;
        }
        let channels = self.order.channels();
        let samples = index * channels..(index + 1) * channels;
        Some(samples.fold(0.0, |most, at| {
            (self.sample(at) - other.sample(at)).abs().max(most)
        }))
    }

    /// Straight RGBA as fractions of full scale, row by row: for merged pictures and sheets.
    pub fn to_rgba_f32(&self) -> Vec<[f32; 4]> {
        let count = self.width as usize * self.height as usize;
        (0..count).map(|i| self.rgba(i)).collect()
    }

    /// Pixel `index` (row major) as straight RGBA fractions of full scale.
    pub fn rgba(&self, index: usize) -> [f32; 4] {
        let at = index * self.order.channels();
        // The usual case, worth its own line: megapixels pass here.
        if self.samples == Samples::U8 && self.alpha != Alpha::Premultiplied {
            let level = |value: u8| f32::from(value) / 255.0;
            match (self.order, self.bytes.get(at..)) {
                (Order::Rgb, Some([r, g, b, ..])) => return [level(*r), level(*g), level(*b), 1.0],
                (Order::Rgba, Some([r, g, b, a, ..])) => {
                    return [level(*r), level(*g), level(*b), level(*a)];
                }
                _ => {}
            }
        }
        let mut rgba = match self.order {
            Order::Gray => [self.sample(at), self.sample(at), self.sample(at), 1.0],
            Order::GrayAlpha => {
                let grey = self.sample(at);
                [grey, grey, grey, self.sample(at + 1)]
            }
            Order::Rgb => [
                self.sample(at),
                self.sample(at + 1),
                self.sample(at + 2),
                1.0,
            ],
            Order::Rgba => [
                self.sample(at),
                self.sample(at + 1),
                self.sample(at + 2),
                self.sample(at + 3),
            ],
        };
        if self.alpha == Alpha::Premultiplied && rgba[3] > 0.0 {
            let alpha = rgba[3];
            for value in &mut rgba[..3] {
                *value /= alpha;
            }
        }
        rgba
    }

    /// The same picture with 8-bit straight samples, colour laid over white where `order` has no
    /// alpha and this picture has one. Loses depth; the caller warns.
    pub fn to_u8(&self, order: Order) -> Pixels {
        self.to_integer(order, Samples::U8)
    }

    /// As [`Pixels::to_u8`] for 8- or 16-bit samples.
    pub fn to_integer(&self, order: Order, samples: Samples) -> Pixels {
        if self.samples == samples && self.order == order && self.alpha != Alpha::Premultiplied {
            return self.clone();
        }
        let count = self.width as usize * self.height as usize;
        let mut bytes = Vec::with_capacity(count * order.channels() * samples.size());
        for index in 0..count {
            let mut rgba = self.rgba(index);
            if !order.has_alpha() && self.order.has_alpha() {
                let alpha = rgba[3].clamp(0.0, 1.0);
                for value in &mut rgba[..3] {
                    *value = *value * alpha + (1.0 - alpha);
                }
            }
            let channels: &[f32] = match order {
                Order::Gray => &rgba[..1],
                Order::GrayAlpha => &[rgba[0], rgba[3]],
                Order::Rgb => &rgba[..3],
                Order::Rgba => &rgba,
            };
            for value in channels {
                let value = value.clamp(0.0, 1.0);
                match samples {
                    Samples::U16 => {
                        let level = (value * 65535.0).round() as u16;
                        bytes.extend_from_slice(&level.to_ne_bytes());
                    }
                    _ => bytes.push((value * 255.0).round() as u8),
                }
            }
        }
        Pixels {
            width: self.width,
            height: self.height,
            samples,
            order,
            alpha: if order.has_alpha() {
                Alpha::Straight
            } else {
                Alpha::None
            },
            color: self.color.clone(),
            bytes,
        }
    }

    /// Straight integers of linear light with the transfer function of sRGB (IEC 61966-2-1) applied;
    /// alpha stays.
    pub fn srgb_encoded(&self) -> Pixels {
        let mut encoded = self.clone();
        encoded.color = Color::Srgb;
        let (channels, alpha) = (self.order.channels(), self.order.has_alpha());
        let is_color = |at: usize| !alpha || at % channels != channels - 1;
        match self.samples {
            Samples::U8 => {
                let levels: Vec<u8> = (0..=255u8)
                    .map(|level| (srgb_transfer(f32::from(level) / 255.0) * 255.0).round() as u8)
                    .collect();
                for (at, value) in encoded.bytes.iter_mut().enumerate() {
                    if is_color(at) {
                        *value = levels.get(usize::from(*value)).copied().unwrap_or(*value);
                    }
                }
            }
            Samples::U16 => {
                let (pairs, _) = encoded.bytes.as_chunks_mut::<2>();
                for (at, pair) in pairs.iter_mut().enumerate() {
                    if is_color(at) {
                        let level = f32::from(u16::from_ne_bytes(*pair)) / 65535.0;
                        *pair = ((srgb_transfer(level) * 65535.0).round() as u16).to_ne_bytes();
                    }
                }
            }
            Samples::F16 | Samples::F32 => return self.clone(),
        }
        encoded
    }

    /// The picture turned as EXIF orientation `value` (1..=8) says; others leave it as it is.
    pub fn oriented(self, value: u8) -> Pixels {
        if !(2..=8).contains(&value) {
            return self;
        }
        let (w, h) = (self.width as usize, self.height as usize);
        let (out_w, out_h) = if value >= 5 { (h, w) } else { (w, h) };
        let size = self.pixel_size();
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for y in 0..out_h {
            for x in 0..out_w {
                // Where the shown pixel (x, y) is stored (TIFF 6.0, tag 274).
                let (sx, sy) = match value {
                    2 => (w - 1 - x, y),
                    3 => (w - 1 - x, h - 1 - y),
                    4 => (x, h - 1 - y),
                    5 => (y, x),
                    6 => (y, h - 1 - x),
                    7 => (w - 1 - y, h - 1 - x),
                    _ => (w - 1 - y, x),
                };
                let at = (sy * w + sx) * size;
                bytes.extend_from_slice(self.bytes.get(at..at + size).unwrap_or_default());
            }
        }
        Pixels {
            width: out_w as u32,
            height: out_h as u32,
            bytes,
            ..self
        }
    }

    /// Drops a profile for another kind of colour than the picture's (a CMYK profile left on a
    /// picture that its decoder turned to RGB, say), and says so.
    pub fn check_profile(&mut self) -> Option<String> {
        let Color::Icc(profile) = &self.color else {
            return None;
        };
        let kind = profile.get(16..20).unwrap_or(b"none");
        let wanted: &[u8] = if self.order.is_gray() {
            b"GRAY"
        } else {
            b"RGB "
        };
        if kind == wanted {
            return None;
        }
        let kind = String::from_utf8_lossy(kind).trim().to_owned();
        self.color = if self.samples.is_float() {
            Color::Unknown
        } else {
            Color::Srgb
        };
        Some(format!(
            "its colour profile is for {kind} and the picture is {}: left out",
            if self.order.is_gray() { "grey" } else { "RGB" }
        ))
    }
}

/// Linear light, 0..=1, as an sRGB value, 0..=1.
pub fn srgb_transfer(value: f32) -> f32 {
    if value <= 0.003_130_8 {
        12.92 * value
    } else {
        1.055 * value.powf(1.0 / 2.4) - 0.055
    }
}

/// An IEEE half as a single.
fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0f32 } else { 1.0 };
    let exponent = i32::from((bits >> 10) & 31);
    let fraction = f32::from(bits & 1023);
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: u32, height: u32, bytes: &[u8]) -> Pixels {
        Pixels {
            width,
            height,
            samples: Samples::U8,
            order: Order::Gray,
            alpha: Alpha::None,
            color: Color::Srgb,
            bytes: bytes.to_vec(),
        }
    }

    #[test]
    fn orientation_six_turns_the_picture_clockwise() {
        let turned = grey(3, 2, &[1, 2, 3, 4, 5, 6]).oriented(6);
        assert_eq!((turned.width, turned.height), (2, 3));
        assert_eq!(turned.bytes, [4, 1, 5, 2, 6, 3]);
    }

    #[test]
    fn orientation_eight_undoes_orientation_six() {
        let picture = grey(3, 2, &[1, 2, 3, 4, 5, 6]);
        assert_eq!(picture.clone().oriented(6).oriented(8), picture);
    }

    #[test]
    fn orientations_agree_with_the_image_crate() {
        use image::metadata::Orientation;
        let picture = grey(3, 2, &[1, 2, 3, 4, 5, 6]);
        for value in 1..=8 {
            let mut other = image::DynamicImage::from(
                image::GrayImage::from_raw(3, 2, picture.bytes.clone()).unwrap(),
            );
            other.apply_orientation(Orientation::from_exif(value).unwrap());
            assert_eq!(
                picture.clone().oriented(value).bytes,
                other.as_bytes(),
                "{value}"
            );
        }
    }

    #[test]
    fn a_claim_of_a_million_by_a_million_pixels_is_refused() {
        assert!(checked_size(1_000_000, 1_000_000, 4).is_err());
        assert!(checked_size(u32::MAX, u32::MAX, 16).is_err());
        assert!(checked_size(0, 4, 4).is_err());
        assert_eq!(checked_size(3, 4, 4), Ok(48));
    }

    #[test]
    fn linear_integers_become_srgb_and_alpha_stays() {
        // 0.2140 of the light is 0.5 encoded.
        let mut picture = grey(2, 1, &[55, 55, 255, 0]);
        (picture.order, picture.alpha) = (Order::GrayAlpha, Alpha::Straight);
        picture.color = Color::LinearSrgb;
        let encoded = picture.srgb_encoded();
        assert_eq!(encoded.bytes, [128, 55, 255, 0]);
        assert_eq!(encoded.color, Color::Srgb);
        picture.samples = Samples::U16;
        picture.width = 1;
        picture.bytes = [14_027u16, 9].map(u16::to_ne_bytes).concat();
        let half = u16::from_ne_bytes([
            picture.srgb_encoded().bytes[0],
            picture.srgb_encoded().bytes[1],
        ]);
        assert!(half.abs_diff(32_768) < 16, "{half}");
        assert_eq!(picture.srgb_encoded().bytes[2..], picture.bytes[2..]);
    }

    #[test]
    fn half_floats_are_read_exactly() {
        assert_eq!(half_to_f32(0x3c00), 1.0);
        assert_eq!(half_to_f32(0xc000), -2.0);
        assert_eq!(half_to_f32(0x0001), 2f32.powi(-24));
        assert!(half_to_f32(0x7e00).is_nan());
    }

    #[test]
    fn a_cmyk_profile_is_dropped_with_a_word() {
        let mut picture = grey(1, 1, &[0]);
        let mut profile = vec![0; 128];
        profile[16..20].copy_from_slice(b"CMYK");
        picture.color = Color::Icc(profile);
        assert!(picture.check_profile().unwrap().contains("CMYK"));
        assert_eq!(picture.color, Color::Srgb);
    }
}
