//! WebP: 8 bits, with profile, EXIF and XMP; any still picture is read, and written without loss or,
//! where a quality is asked for, by libwebp's lossy coder.

use std::borrow::Cow;
use std::io::Cursor;

use image::codecs::webp::WebPDecoder;
use image_webp::{ColorType, WebPEncoder};
use img_parts::riff::{RiffChunk, RiffContent};
use img_parts::webp::{CHUNK_VP8X, CHUNK_XMP, WebP};
use img_parts::{Bytes, ImageEXIF, ImageICC};
use webp::{Encoder, PixelLayout, WebPConfig, WebPEncodingError};

/// Pixels a side that a WebP holds.
const LIMIT: u32 = 16_383;

use super::{Kind, Metadata, Picture};
use crate::pixels::{Color, Order, Pixels};

pub(super) fn decode(bytes: &[u8]) -> Result<Picture, String> {
    let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    if decoder.has_animation() {
        return Err("an animation".to_owned());
    }
    super::from_image_decoder(decoder, Kind::Webp)
}

/// `quality` 1..=100, or `None` for a file without loss.
pub(super) fn encode(
    pixels: &Pixels,
    metadata: &Metadata,
    quality: Option<u8>,
) -> Result<Vec<u8>, String> {
    if pixels.width > LIMIT || pixels.height > LIMIT {
        return Err(format!(
            "{}×{} pixels: at most {LIMIT} a side",
            pixels.width, pixels.height
        ));
    }
    // WebP profiles are for RGB; a grey one would be wrong on the RGB that decoders make.
    let profile = match &pixels.color {
        Color::Icc(profile) if !pixels.order.is_gray() => Some(profile),
        _ => None,
    };
    match quality {
        Some(quality) => lossy(pixels, profile, metadata, quality),
        None => lossless(pixels, profile, metadata),
    }
}

fn lossless(
    pixels: &Pixels,
    profile: Option<&Vec<u8>>,
    metadata: &Metadata,
) -> Result<Vec<u8>, String> {
    let color = match pixels.order {
        Order::Gray => ColorType::L8,
        Order::GrayAlpha => ColorType::La8,
        Order::Rgb => ColorType::Rgb8,
        Order::Rgba => ColorType::Rgba8,
    };
    let mut bytes = Vec::new();
    let mut encoder = WebPEncoder::new(&mut bytes);
    if let Some(profile) = profile {
        encoder.set_icc_profile(profile.clone());
    }
    if let Some(exif) = &metadata.exif {
        encoder.set_exif_metadata(exif.clone());
    }
    if let Some(xmp) = &metadata.xmp {
        encoder.set_xmp_metadata(xmp.clone().into_bytes());
    }
    encoder
        .encode(&pixels.bytes, pixels.width, pixels.height, color)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Colour by libwebp at `quality`, alpha without loss.
fn lossy(
    pixels: &Pixels,
    profile: Option<&Vec<u8>>,
    metadata: &Metadata,
    quality: u8,
) -> Result<Vec<u8>, String> {
    let (samples, layout) = match pixels.order {
        Order::Rgb => (Cow::Borrowed(&pixels.bytes), PixelLayout::Rgb),
        Order::Rgba => (Cow::Borrowed(&pixels.bytes), PixelLayout::Rgba),
        Order::Gray => {
            let rgb = pixels.bytes.iter().flat_map(|&y| [y; 3]).collect();
            (Cow::Owned(rgb), PixelLayout::Rgb)
        }
        Order::GrayAlpha => {
            let (pairs, _) = pixels.bytes.as_chunks::<2>();
            let rgba = pairs.iter().flat_map(|&[y, a]| [y, y, y, a]).collect();
            (Cow::Owned(rgba), PixelLayout::Rgba)
        }
    };
    let mut config = WebPConfig::new().map_err(|()| "libwebp has no defaults".to_owned())?;
    config.quality = f32::from(quality.clamp(1, 100));
    // Colour under alpha 0 is kept as well as any other.
    config.exact = 1;
    let coded = Encoder::new(&samples, layout, pixels.width, pixels.height)
        .encode_advanced(&config)
        .map_err(|error| match error {
            WebPEncodingError::VP8_ENC_ERROR_OUT_OF_MEMORY => "no memory is left".to_owned(),
            WebPEncodingError::VP8_ENC_ERROR_PARTITION0_OVERFLOW
            | WebPEncodingError::VP8_ENC_ERROR_PARTITION_OVERFLOW => {
                "the picture has too much detail for this quality".to_owned()
            }
            other => format!("{other:?}"),
        })?;
    let mut file =
        WebP::from_bytes(Bytes::copy_from_slice(&coded)).map_err(|error| error.to_string())?;
    // Made anew by the setters below, so that its flags name every chunk.
    file.remove_chunks_by_id(CHUNK_VP8X);
    if let Some(xmp) = &metadata.xmp {
        let content = RiffContent::Data(Bytes::from(xmp.clone().into_bytes()));
        file.chunks_mut().push(RiffChunk::new(CHUNK_XMP, content));
    }
    file.set_exif(metadata.exif.clone().map(Bytes::from));
    file.set_icc_profile(profile.cloned().map(Bytes::from));
    Ok(file.encoder().bytes().to_vec())
}
