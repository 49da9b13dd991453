//! Checked, borrowed views of host buffers.
//!
//! For: saying exactly what a buffer holds. Not for: conversion.

use crate::error::Result;

/// An axis-aligned rectangle in layer coordinates; x to the right, y down, pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rect {
    /// Left edge.
    pub x: i64,
    /// Upper edge.
    pub y: i64,
    /// Width, pixels.
    pub width: u32,
    /// Height, pixels.
    pub height: u32,
}

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

/// A read-only view of a host's layer, or of a part of it.
///
/// Row `r` (0 = top) begins at byte `first_row + r * row_stride` of `data`; the bytes between rows
/// are never read.
#[derive(Clone, Copy, Debug)]
pub struct LayerView<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) first_row: usize,
    pub(crate) row_stride: i64,
    pub(crate) rect: Rect,
    pub(crate) format: Format,
    pub(crate) color: ColorSpace<'a>,
}

/// A writable view of a host's layer, or of a part of it; laid out as [`LayerView`].
#[derive(Debug)]
pub struct LayerViewMut<'a> {
    pub(crate) data: &'a mut [u8],
    pub(crate) first_row: usize,
    pub(crate) row_stride: i64,
    pub(crate) rect: Rect,
    pub(crate) format: Format,
    pub(crate) color: ColorSpace<'a>,
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

/// A selection: where the edit acts and how much. Outside its rectangle it is 0.
#[derive(Clone, Copy, Debug)]
pub struct MaskView<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) first_row: usize,
    pub(crate) row_stride: i64,
    pub(crate) rect: Rect,
    pub(crate) samples: MaskSamples,
}

impl<'a> LayerView<'a> {
    /// Describes `data` as the pixels of `rect` (in the layer's own coordinates: a whole layer has
    /// its origin at 0, 0; a tile has its place in the layer).
    ///
    /// `row_stride` is in bytes and may be negative (then `first_row` is the offset of the top row).
    /// Errors with [`crate::Code::InvalidLayer`] when a row would lie outside `data`, rows overlap,
    /// the size is zero or too large, or `format` contradicts itself.
    pub fn new(
        _data: &'a [u8],
        _first_row: usize,
        _row_stride: i64,
        _rect: Rect,
        _format: Format,
        _color: ColorSpace<'a>,
    ) -> Result<Self> {
        Err(crate::Error::new(crate::Code::Unsupported, "not yet"))
    }
}
