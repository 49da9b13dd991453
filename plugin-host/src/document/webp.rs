//! WebP: 8 bits, with profile, EXIF and XMP; any still picture is read, and written without loss
//! (there is no lossy coder in Rust under a licence that fits).

use std::io::Cursor;

use image::codecs::webp::WebPDecoder;
use image_webp::{ColorType, WebPEncoder};

use super::{Kind, Metadata, Picture};
use crate::pixels::{Color, Order, Pixels};

pub(super) fn decode(bytes: &[u8]) -> Result<Picture, String> {
    let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    if decoder.has_animation() {
        return Err("an animation".to_owned());
    }
    super::from_image_decoder(decoder, Kind::Webp)
}

pub(super) fn encode(pixels: &Pixels, metadata: &Metadata) -> Result<Vec<u8>, String> {
    let color = match pixels.order {
        Order::Gray => ColorType::L8,
        Order::GrayAlpha => ColorType::La8,
        Order::Rgb => ColorType::Rgb8,
        Order::Rgba => ColorType::Rgba8,
    };
    if pixels.width > 16_384 || pixels.height > 16_384 {
        return Err(format!(
            "{}×{} pixels: at most 16384 a side",
            pixels.width, pixels.height
        ));
    }
    let mut bytes = Vec::new();
    let mut encoder = WebPEncoder::new(&mut bytes);
    // WebP profiles are for RGB; a grey one would be wrong on the RGB that decoders make.
    if let Color::Icc(profile) = &pixels.color
        && !pixels.order.is_gray()
    {
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
