//! PNG: 8 and 16 bits, grey and RGB, with and without alpha; texts, resolution, profile, EXIF and
//! XMP are kept. Palettes and depths under 8 bits are widened to 8, which loses nothing.

use std::borrow::Cow;
use std::io::Cursor;

use ::png::text_metadata::{ITXtChunk, TEXtChunk, ZTXtChunk};
use ::png::{
    BitDepth, ColorType, Decoder, Encoder, Info, Limits, PixelDimensions, ScaledFloat,
    SourceChromaticities, SrgbRenderingIntent, Transformations,
};

use super::{Kind, Metadata, Picture};
use crate::limits;
use crate::pixels::{Alpha, Color, Order, Pixels, Samples};

const XMP_KEYWORD: &str = "XML:com.adobe.xmp";

/// Chunks that travel from a PNG to a PNG.
#[derive(Clone, Debug)]
pub(super) struct Extras {
    pixel_dims: Option<PixelDimensions>,
    srgb: Option<SrgbRenderingIntent>,
    gamma: Option<ScaledFloat>,
    chromaticities: Option<SourceChromaticities>,
    latin1: Vec<TEXtChunk>,
    packed: Vec<ZTXtChunk>,
    utf8: Vec<ITXtChunk>,
}

pub(super) fn decode(bytes: &[u8]) -> Result<Picture, String> {
    let text = |error: ::png::DecodingError| error.to_string();
    let mut warnings = Vec::new();
    let bounds = Limits {
        bytes: usize::try_from(limits::PICTURE_BYTES).unwrap_or(usize::MAX),
    };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), bounds);
    decoder.set_transformations(Transformations::EXPAND);
    // Before anything is allocated for the claimed size.
    let header = decoder.read_header_info().map_err(text)?;
    crate::pixels::checked_size(header.width, header.height, 1)?;
    let mut reader = decoder.read_info().map_err(text)?;
    let (width, height) = (reader.info().width, reader.info().height);
    let (color, depth) = reader.output_color_type();
    let order = match color {
        ColorType::Grayscale => Order::Gray,
        ColorType::GrayscaleAlpha => Order::GrayAlpha,
        ColorType::Rgb | ColorType::Indexed => Order::Rgb,
        ColorType::Rgba => Order::Rgba,
    };
    let samples = match depth {
        BitDepth::Sixteen => Samples::U16,
        _ => Samples::U8,
    };
    let size = crate::pixels::checked_size(width, height, samples.size() * order.channels())?;
    if reader.output_buffer_size() != Some(size) {
        return Err("its size contradicts itself".to_owned());
    }
    let mut bytes = super::zeroed(size)?;
    reader.next_frame(&mut bytes).map_err(text)?;
    if samples == Samples::U16 {
        swap_to_or_from_big_endian(&mut bytes);
    }
    if reader.info().animation_control.is_some() {
        warnings.push("an animation: only its still picture is used".to_owned());
    } else if let Err(error) = reader.finish() {
        warnings.push(format!(
            "damaged after its pixels ({error}): later texts are lost"
        ));
    }
    let info = reader.info();
    let linear = info.gama_chunk == Some(ScaledFloat::from_scaled(100_000));
    let color = match &info.icc_profile {
        Some(profile) => Color::Icc(profile.to_vec()),
        None if info.srgb.is_none() && linear => Color::LinearSrgb,
        None => Color::Srgb,
    };
    let xmp = info
        .utf8_text
        .iter()
        .find(|chunk| chunk.keyword == XMP_KEYWORD)
        .and_then(|chunk| chunk.get_text().ok());
    let extras = Extras {
        pixel_dims: info.pixel_dims,
        srgb: info.srgb,
        gamma: info.gama_chunk,
        chromaticities: info.chrm_chunk,
        latin1: info.uncompressed_latin1_text.clone(),
        packed: info.compressed_latin1_text.clone(),
        utf8: info
            .utf8_text
            .iter()
            .filter(|chunk| chunk.keyword != XMP_KEYWORD)
            .cloned()
            .collect(),
    };
    Ok(Picture {
        kind: Kind::Png,
        pixels: Pixels {
            width,
            height,
            samples,
            order,
            alpha: if order.has_alpha() {
                Alpha::Straight
            } else {
                Alpha::None
            },
            color,
            bytes,
        },
        metadata: Metadata {
            exif: info.exif_metadata.as_ref().map(|exif| exif.to_vec()),
            xmp,
            png: Some(Box::new(extras)),
            ..Metadata::default()
        },
        warnings,
    })
}

pub(super) fn encode(pixels: &Pixels, metadata: &Metadata) -> Result<Vec<u8>, String> {
    let text = |error: ::png::EncodingError| error.to_string();
    let mut info = Info::with_size(pixels.width, pixels.height);
    info.color_type = match pixels.order {
        Order::Gray => ColorType::Grayscale,
        Order::GrayAlpha => ColorType::GrayscaleAlpha,
        Order::Rgb => ColorType::Rgb,
        Order::Rgba => ColorType::Rgba,
    };
    info.bit_depth = match pixels.samples {
        Samples::U8 => BitDepth::Eight,
        Samples::U16 => BitDepth::Sixteen,
        Samples::F16 | Samples::F32 => return Err("float samples".to_owned()),
    };
    match &pixels.color {
        Color::Icc(profile) => info.icc_profile = Some(Cow::Borrowed(profile)),
        Color::LinearSrgb => info.source_gamma = Some(ScaledFloat::from_scaled(100_000)),
        Color::Srgb | Color::Unknown => {}
    }
    if let Some(exif) = &metadata.exif {
        info.exif_metadata = Some(Cow::Borrowed(exif));
    }
    if let Some(extras) = &metadata.png {
        info.pixel_dims = extras.pixel_dims;
        if info.icc_profile.is_none() {
            info.srgb = extras.srgb;
            info.source_gamma = extras.gamma.or(info.source_gamma);
            info.source_chromaticities = extras.chromaticities;
        }
        info.uncompressed_latin1_text = extras.latin1.clone();
        info.compressed_latin1_text = extras.packed.clone();
        info.utf8_text = extras.utf8.clone();
    }
    if let Some(xmp) = &metadata.xmp {
        info.utf8_text
            .push(ITXtChunk::new(XMP_KEYWORD, xmp.as_str()));
    }
    let mut swapped;
    let mut data = pixels.bytes.as_slice();
    if pixels.samples == Samples::U16 {
        swapped = pixels.bytes.clone();
        swap_to_or_from_big_endian(&mut swapped);
        data = &swapped;
    }
    let mut bytes = Vec::new();
    let encoder = Encoder::with_info(&mut bytes, info).map_err(text)?;
    let mut writer = encoder.write_header().map_err(text)?;
    writer.write_image_data(data).map_err(text)?;
    writer.finish().map_err(text)?;
    Ok(bytes)
}

/// Native 16-bit samples to the order of the file, or back.
fn swap_to_or_from_big_endian(bytes: &mut [u8]) {
    if cfg!(target_endian = "little") {
        for pair in bytes.chunks_exact_mut(2) {
            pair.reverse();
        }
    }
}
