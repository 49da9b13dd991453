//! What the bytes of a host's pixel mean.
//!
//! For: naming formats. Not for: conversion (`format`, `color`).

use crate::error::{Code, Error, Result};

/// The type of one sample. Multi-byte samples are in the machine's byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum SampleType {
    /// 8 bits, 0..=255.
    U8 = 1,
    /// 16 bits, 0..=65535.
    U16 = 2,
    /// IEEE half, 0.0..=1.0 nominal.
    F16 = 3,
    /// IEEE single, 0.0..=1.0 nominal.
    F32 = 4,
}

impl SampleType {
    /// Bytes of one sample.
    pub fn bytes(self) -> usize {
        match self {
            SampleType::U8 => 1,
            SampleType::U16 | SampleType::F16 => 2,
            SampleType::F32 => 4,
        }
    }
}

/// Which channels a pixel has, in memory order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum ChannelOrder {
    /// Red, green, blue.
    Rgb = 1,
    /// Red, green, blue, alpha.
    Rgba = 2,
    /// Blue, green, red, alpha.
    Bgra = 3,
    /// Alpha, red, green, blue.
    Argb = 4,
    /// One grey channel.
    Gray = 5,
    /// Grey, alpha.
    GrayAlpha = 6,
}

impl ChannelOrder {
    /// Samples of one pixel.
    pub fn channels(self) -> usize {
        match self {
            ChannelOrder::Gray => 1,
            ChannelOrder::GrayAlpha => 2,
            ChannelOrder::Rgb => 3,
            ChannelOrder::Rgba | ChannelOrder::Bgra | ChannelOrder::Argb => 4,
        }
    }

    /// Whether one of them is alpha.
    pub fn has_alpha(self) -> bool {
        !matches!(self, ChannelOrder::Rgb | ChannelOrder::Gray)
    }

    /// Whether colour is one grey channel.
    pub fn is_gray(self) -> bool {
        matches!(self, ChannelOrder::Gray | ChannelOrder::GrayAlpha)
    }
}

/// Whether colour samples are multiplied by alpha.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum AlphaState {
    /// The order has no alpha channel.
    None = 0,
    /// Colour is stored as it is.
    Straight = 1,
    /// Colour is stored times alpha.
    Premultiplied = 2,
}

/// What the numbers of a pixel mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Format {
    /// Type of each sample.
    pub samples: SampleType,
    /// Channels in memory order.
    pub order: ChannelOrder,
    /// State of the alpha channel; must be [`AlphaState::None`] exactly when `order` has none.
    pub alpha: AlphaState,
}

impl Format {
    /// Bytes of one pixel.
    pub fn pixel_bytes(&self) -> usize {
        self.samples.bytes() * self.order.channels()
    }

    pub(crate) fn check(&self) -> Result<()> {
        let none = self.alpha == AlphaState::None;
        if none != self.order.has_alpha() {
            return Ok(());
        }
        let (is, must, hint) = if none {
            (
                "None",
                "Straight or Premultiplied",
                "most layers are straight",
            )
        } else {
            ("set", "None", "this channel order has no alpha")
        };
        Err(Error::new(
            Code::InvalidLayer,
            format!("alpha = {is} with order {:?}: must be {must}", self.order),
        )
        .with_hint(hint)
        .with_parameter("alpha"))
    }
}

/// How numbers become colours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ColorSpace<'a> {
    /// sRGB primaries and transfer curve (grey: the same curve).
    Srgb,
    /// sRGB primaries, linear light (grey: linear).
    LinearSrgb,
    /// An ICC profile's bytes; RGB or grey, matrix or LUT.
    Icc(&'a [u8]),
}

/// The samples of a mask, one channel, 0 = keep, full = edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum MaskSamples {
    /// 8 bits, 0..=255.
    U8 = 1,
    /// IEEE single, 0.0..=1.0; other values are clamped, NaN counts as 0.
    F32 = 4,
}

impl MaskSamples {
    /// Bytes of one sample.
    pub fn bytes(self) -> usize {
        match self {
            MaskSamples::U8 => 1,
            MaskSamples::F32 => 4,
        }
    }
}
