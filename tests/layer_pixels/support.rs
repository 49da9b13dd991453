//! A host's layer with its buffer, filled at random. Not for: changes and masks.

use half::f16;
use semblance::layer::{
    AlphaState, ChannelOrder, ColorSpace, Format, LayerView, LayerViewMut, Rect, SampleType,
};

use crate::profiles;

pub const GRID: (u32, u32) = (16, 16);
const PADDING: u8 = 0xA5;

/// How a host's numbers become colours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Space {
    Srgb,
    Linear,
    /// A matrix profile wider than sRGB; grey with a gamma of its own.
    Wide,
    /// The same in linear light; grey as [`Space::Wide`].
    WideLinear,
    /// Look-up tables; grey as [`Space::Wide`].
    Lut,
}

pub const SPACES: [Space; 5] = [
    Space::Srgb,
    Space::Linear,
    Space::Wide,
    Space::WideLinear,
    Space::Lut,
];

/// Deterministic numbers in 0..1 (SplitMix64).
pub struct Numbers(pub u64);
impl Numbers {
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// A host's layer with its buffer.
#[derive(Clone, Debug)]
pub struct Host {
    pub data: Vec<u8>,
    pub first_row: usize,
    pub stride: i64,
    pub rect: Rect,
    pub format: Format,
    pub space: Space,
}

impl Host {
    pub fn new(
        format: Format,
        rect: Rect,
        gap: usize,
        upward: bool,
        space: Space,
        seed: u64,
    ) -> Host {
        let row = rect.width as usize * format.pixel_bytes();
        let pitch = row + gap;
        let height = rect.height as usize;
        let mut data = vec![PADDING; 3 + pitch * height];
        let (first_row, stride) = if upward {
            (3 + pitch * (height - 1), -(pitch as i64))
        } else {
            (3, pitch as i64)
        };
        let mut numbers = Numbers(seed);
        for r in 0..height {
            let start = (first_row as i64 + r as i64 * stride) as usize;
            for pixel in data[start..start + row].chunks_mut(format.pixel_bytes()) {
                fill_pixel(format, pixel, &mut numbers);
            }
        }
        Host {
            data,
            first_row,
            stride,
            rect,
            format,
            space,
        }
    }

    pub fn color(&self) -> ColorSpace<'static> {
        match self.space {
            Space::Srgb => ColorSpace::Srgb,
            Space::Linear => ColorSpace::LinearSrgb,
            _ if self.format.order.is_gray() => ColorSpace::Icc(&profiles::GRAY),
            Space::Wide => ColorSpace::Icc(&profiles::P3),
            Space::WideLinear => ColorSpace::Icc(&profiles::WIDE_LINEAR),
            Space::Lut => ColorSpace::Icc(&profiles::LUT),
        }
    }

    pub fn view(&self) -> LayerView<'_> {
        let color = self.color();
        LayerView::new(
            &self.data,
            self.first_row,
            self.stride,
            self.rect,
            self.format,
            color,
        )
        .unwrap()
    }

    pub fn view_mut(&mut self) -> LayerViewMut<'_> {
        let color = self.color();
        LayerViewMut::new(
            &mut self.data,
            self.first_row,
            self.stride,
            self.rect,
            self.format,
            color,
        )
        .unwrap()
    }

    pub fn start(&self, x: u32, y: u32) -> usize {
        (self.first_row as i64 + i64::from(y) * self.stride) as usize
            + x as usize * self.format.pixel_bytes()
    }

    pub fn pixel(&self, x: u32, y: u32) -> &[u8] {
        let start = self.start(x, y);
        &self.data[start..start + self.format.pixel_bytes()]
    }

    pub fn padding(&self) -> Vec<u8> {
        let row = self.rect.width as usize * self.format.pixel_bytes();
        let mut rest = self.data.clone();
        for y in 0..self.rect.height {
            let start = self.start(0, y);
            rest[start..start + row].fill(PADDING);
        }
        rest
    }

    pub fn alpha_place(&self) -> Option<std::ops::Range<usize>> {
        let size = self.format.samples.bytes();
        let at = match self.format.order {
            ChannelOrder::Rgba | ChannelOrder::Bgra => 3,
            ChannelOrder::Argb => 0,
            ChannelOrder::GrayAlpha => 1,
            _ => return None,
        };
        Some(at * size..(at + 1) * size)
    }
}

pub fn put(samples: SampleType, v: f32, out: &mut [u8]) {
    match samples {
        SampleType::U8 => out[0] = (v * 255.0).round() as u8,
        SampleType::U16 => out.copy_from_slice(&((v * 65535.0).round() as u16).to_ne_bytes()),
        SampleType::F16 => out.copy_from_slice(&f16::from_f32(v).to_ne_bytes()),
        SampleType::F32 => out.copy_from_slice(&v.to_ne_bytes()),
    }
}

fn fill_pixel(format: Format, pixel: &mut [u8], numbers: &mut Numbers) {
    let float = matches!(format.samples, SampleType::F16 | SampleType::F32);
    let alpha = match (numbers.next() * 4.0) as u32 {
        0 => 0.0,
        1 => numbers.next(),
        _ => 1.0,
    };
    let odd = if float && numbers.next() < 0.05 {
        f32::NAN
    } else {
        1.0
    };
    let range = if float { 1.5 } else { 1.0 };
    for (c, sample) in pixel.chunks_mut(format.samples.bytes()).enumerate() {
        let is_alpha = match format.order {
            ChannelOrder::Rgba | ChannelOrder::Bgra => c == 3,
            ChannelOrder::Argb => c == 0,
            ChannelOrder::GrayAlpha => c == 1,
            _ => false,
        };
        let colour = numbers.next() * range * odd;
        let v = match (is_alpha, format.alpha) {
            (true, _) => alpha,
            (false, AlphaState::Premultiplied) => colour * alpha,
            (false, _) => colour,
        };
        put(format.samples, v, sample);
    }
}
