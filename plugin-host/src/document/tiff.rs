//! TIFF: 8 and 16 bits and half and single floats; grey and RGB, with straight or premultiplied
//! alpha. The profile, XMP, EXIF, resolution and descriptive tags are kept; further pages are not,
//! and that is said. Written without compression loss (LZW).

use std::fmt;
use std::io::Cursor;
use std::sync::Arc;

use ::tiff::decoder::{Decoder, DecodingResult, Limits};
use ::tiff::encoder::colortype::ColorType as Layout;
use ::tiff::encoder::{Compression, TiffEncoder, TiffValue};
use ::tiff::tags::{ExtraSamples, PhotometricInterpretation, SampleFormat, Tag, Type, ValueBuffer};
use ::tiff::{ColorType, TiffError};

use super::exif::Exif;
use super::{Kind, Metadata, Picture};
use crate::limits;
use crate::pixels::{Alpha, Color, Order, Pixels, Samples};

const ICC: Tag = Tag::Unknown(34_675);
const XMP: Tag = Tag::Unknown(700);
const IPTC: Tag = Tag::Unknown(33_723);
const KEPT: [Tag; 12] = [
    Tag::ImageDescription,
    Tag::Make,
    Tag::Model,
    Tag::Software,
    Tag::DateTime,
    Tag::Artist,
    Tag::HostComputer,
    Tag::Copyright,
    Tag::XResolution,
    Tag::YResolution,
    Tag::ResolutionUnit,
    IPTC,
];

/// Tags that travel from a TIFF to a TIFF.
#[derive(Clone, Default)]
pub(super) struct Extras(Arc<Vec<(Tag, ValueBuffer)>>);

impl fmt::Debug for Extras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(tag, _)| tag))
            .finish()
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Picture, String> {
    let text = |error: TiffError| error.to_string();
    let mut warnings = Vec::new();
    let most = usize::try_from(limits::PICTURE_BYTES).unwrap_or(usize::MAX);
    let mut bounds = Limits::default();
    bounds.decoding_buffer_size = most;
    bounds.intermediate_buffer_size = most;
    bounds.ifd_value_size = limits::XMP_BYTES;
    let mut decoder = Decoder::new(Cursor::new(bytes))
        .map_err(text)?
        .with_limits(bounds);
    let (width, height) = decoder.dimensions().map_err(text)?;
    crate::pixels::checked_size(width, height, 4)?;
    let colortype = decoder.colortype().map_err(text)?;
    let photometric = decoder
        .find_tag_unsigned::<u16>(Tag::PhotometricInterpretation)
        .map_err(text)?;
    // The first extra sample is alpha if it says so: 1 premultiplied, 2 straight.
    let extra = decoder
        .find_tag_unsigned_vec::<u16>(Tag::ExtraSamples)
        .map_err(text)?
        .and_then(|extra| extra.first().copied());
    if !matches!(colortype.bit_depth(), 8 | 16 | 32) {
        return Err(format!(
            "{} bits a sample are not supported (8, 16, half, float are): save it with 8 bits first",
            colortype.bit_depth()
        ));
    }
    let order = match colortype {
        ColorType::Gray(_) => Order::Gray,
        ColorType::GrayA(_) => Order::GrayAlpha,
        ColorType::RGB(_) => Order::Rgb,
        ColorType::RGBA(_) => Order::Rgba,
        // Grey with one more sample, which older versions of writers leave unlabelled.
        ColorType::Multiband { num_samples: 2, .. } if photometric == Some(1) => Order::GrayAlpha,
        other => return Err(format!("{other:?} samples are not supported")),
    };
    let orientation = decoder
        .find_tag_unsigned::<u16>(Tag::Orientation)
        .map_err(text)?
        .unwrap_or(1);
    let icc = decoder.find_tag(ICC).map_err(text)?;
    let icc = icc.and_then(|value| value.into_u8_vec().ok());
    let xmp = decoder.find_tag(XMP).map_err(text)?;
    let xmp = xmp
        .and_then(|value| value.into_u8_vec().ok())
        .and_then(|xmp| String::from_utf8(xmp).ok());
    let mut kept = || {
        let mut found = Vec::new();
        for tag in KEPT {
            let mut buffer = ValueBuffer::empty(Type::BYTE);
            if let Ok(Some(_)) = decoder.image_ifd().find_tag_buf(tag, &mut buffer) {
                buffer.set_byte_order(::tiff::tags::ByteOrder::native());
                found.push((tag, buffer));
            }
        }
        found
    };
    let (extras, described) = (kept(), kept());
    let exif = Exif::of_tiff(&mut decoder, described).block();
    let (samples, bytes) = match decoder.read_image().map_err(text)? {
        DecodingResult::U8(data) => (Samples::U8, data),
        DecodingResult::U16(data) => (
            Samples::U16,
            data.iter().flat_map(|v| v.to_ne_bytes()).collect(),
        ),
        DecodingResult::F16(data) => (
            Samples::F16,
            data.iter()
                .flat_map(|v| v.to_bits().to_ne_bytes())
                .collect(),
        ),
        DecodingResult::F32(data) => (
            Samples::F32,
            data.iter().flat_map(|v| v.to_ne_bytes()).collect(),
        ),
        _ => return Err("samples of this type are not supported (8, 16, half, float are)".into()),
    };
    let size = crate::pixels::checked_size(width, height, samples.size() * order.channels())?;
    if bytes.len() != size {
        return Err("its size contradicts itself (planes apart?)".to_owned());
    }
    if decoder.more_images() {
        warnings.push("only the first of its pages is used".to_owned());
    }
    let color = match icc {
        Some(profile) => Color::Icc(profile),
        None if samples.is_float() => Color::Unknown,
        None => Color::Srgb,
    };
    let alpha = match (order.has_alpha(), extra) {
        (false, _) => Alpha::None,
        (true, Some(1)) => Alpha::Premultiplied,
        (true, _) => Alpha::Straight,
    };
    let pixels = Pixels {
        width,
        height,
        samples,
        order,
        alpha,
        color,
        bytes,
    };
    Ok(Picture {
        kind: Kind::Tiff,
        pixels: pixels.oriented(u8::try_from(orientation).unwrap_or(1)),
        metadata: Metadata {
            exif,
            xmp,
            tiff: Extras(Arc::new(extras)),
            ..Metadata::default()
        },
        warnings,
    })
}

/// A TIFF pixel of `$n` samples of `$inner`, `$bits` each.
macro_rules! layout {
    ($name:ident, $inner:ty, $bits:literal, $n:literal, $photo:ident, $format:ident) => {
        struct $name;
        impl Layout for $name {
            type Inner = $inner;
            const TIFF_VALUE: PhotometricInterpretation = PhotometricInterpretation::$photo;
            const BITS_PER_SAMPLE: &'static [u16] = &[$bits; $n];
            const SAMPLE_FORMAT: &'static [SampleFormat] = &[SampleFormat::$format; $n];
            fn horizontal_predict(row: &[Self::Inner], result: &mut Vec<Self::Inner>) {
                result.extend_from_slice(row);
            }
        }
    };
}

layout!(Gray8, u8, 8, 1, BlackIsZero, Uint);
layout!(Gray16, u16, 16, 1, BlackIsZero, Uint);
layout!(GrayHalf, u16, 16, 1, BlackIsZero, IEEEFP);
layout!(GrayFloat, f32, 32, 1, BlackIsZero, IEEEFP);
layout!(GrayA8, u8, 8, 2, BlackIsZero, Uint);
layout!(GrayA16, u16, 16, 2, BlackIsZero, Uint);
layout!(GrayAHalf, u16, 16, 2, BlackIsZero, IEEEFP);
layout!(GrayAFloat, f32, 32, 2, BlackIsZero, IEEEFP);
layout!(Rgb8, u8, 8, 3, RGB, Uint);
layout!(Rgb16, u16, 16, 3, RGB, Uint);
layout!(RgbHalf, u16, 16, 3, RGB, IEEEFP);
layout!(RgbFloat, f32, 32, 3, RGB, IEEEFP);
layout!(Rgba8, u8, 8, 4, RGB, Uint);
layout!(Rgba16, u16, 16, 4, RGB, Uint);
layout!(RgbaHalf, u16, 16, 4, RGB, IEEEFP);
layout!(RgbaFloat, f32, 32, 4, RGB, IEEEFP);

pub(super) fn encode(pixels: &Pixels, metadata: &Metadata) -> Result<Vec<u8>, String> {
    let bytes = &pixels.bytes;
    match pixels.samples {
        Samples::U8 => match pixels.order {
            Order::Gray => write::<Gray8>(pixels, metadata, bytes),
            Order::GrayAlpha => write::<GrayA8>(pixels, metadata, bytes),
            Order::Rgb => write::<Rgb8>(pixels, metadata, bytes),
            Order::Rgba => write::<Rgba8>(pixels, metadata, bytes),
        },
        Samples::U16 | Samples::F16 => {
            let half = pixels.samples == Samples::F16;
            let data: Vec<u16> = bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|pair| u16::from_ne_bytes(*pair))
                .collect();
            match (pixels.order, half) {
                (Order::Gray, false) => write::<Gray16>(pixels, metadata, &data),
                (Order::GrayAlpha, false) => write::<GrayA16>(pixels, metadata, &data),
                (Order::Rgb, false) => write::<Rgb16>(pixels, metadata, &data),
                (Order::Rgba, false) => write::<Rgba16>(pixels, metadata, &data),
                (Order::Gray, true) => write::<GrayHalf>(pixels, metadata, &data),
                (Order::GrayAlpha, true) => write::<GrayAHalf>(pixels, metadata, &data),
                (Order::Rgb, true) => write::<RgbHalf>(pixels, metadata, &data),
                (Order::Rgba, true) => write::<RgbaHalf>(pixels, metadata, &data),
            }
        }
        Samples::F32 => {
            let data: Vec<f32> = bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|four| f32::from_ne_bytes(*four))
                .collect();
            match pixels.order {
                Order::Gray => write::<GrayFloat>(pixels, metadata, &data),
                Order::GrayAlpha => write::<GrayAFloat>(pixels, metadata, &data),
                Order::Rgb => write::<RgbFloat>(pixels, metadata, &data),
                Order::Rgba => write::<RgbaFloat>(pixels, metadata, &data),
            }
        }
    }
}

fn write<L: Layout>(
    pixels: &Pixels,
    metadata: &Metadata,
    data: &[L::Inner],
) -> Result<Vec<u8>, String>
where
    [L::Inner]: TiffValue,
{
    let text = |error: TiffError| error.to_string();
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes)
        .map_err(text)?
        .with_compression(Compression::Lzw);
    // The picture's own tags are already there where it comes from a TIFF.
    let known = |tag: Tag| metadata.tiff.0.iter().any(|(kept, _)| *kept == tag);
    let exif = (metadata.exif.as_deref())
        .and_then(|block| Exif::of_block(block, |tag| KEPT.contains(&tag) && !known(tag)))
        .unwrap_or_default();
    let pointers = exif.write(&mut encoder).map_err(text)?;
    let mut image = encoder
        .new_image::<L>(pixels.width, pixels.height)
        .map_err(text)?;
    let tags = image.encoder();
    let alpha = match pixels.alpha {
        Alpha::None => None,
        Alpha::Straight => Some(ExtraSamples::UnassociatedAlpha),
        Alpha::Premultiplied => Some(ExtraSamples::AssociatedAlpha),
    };
    if let Some(alpha) = alpha {
        tags.write_tag(Tag::ExtraSamples, alpha.to_u16())
            .map_err(text)?;
    }
    if let Color::Icc(profile) = &pixels.color {
        tags.write_tag(ICC, profile.as_slice()).map_err(text)?;
    }
    if let Some(xmp) = &metadata.xmp {
        tags.write_tag(XMP, xmp.as_bytes()).map_err(text)?;
    }
    for (tag, value) in metadata.tiff.0.iter().chain(&exif.first) {
        tags.write_tag_buf(*tag, value).map_err(text)?;
    }
    for (tag, at) in pointers {
        tags.write_tag(tag, at).map_err(text)?;
    }
    image.write_data(data).map_err(text)?;
    Ok(bytes.into_inner())
}
