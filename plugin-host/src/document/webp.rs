//! WebP: 8 bits; any still picture is read, and written without loss (`image` has no lossy coder).

use std::io::Cursor;

use image::ImageEncoder;
use image::codecs::webp::{WebPDecoder, WebPEncoder};

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
        Order::Gray => image::ExtendedColorType::L8,
        Order::GrayAlpha => image::ExtendedColorType::La8,
        Order::Rgb => image::ExtendedColorType::Rgb8,
        Order::Rgba => image::ExtendedColorType::Rgba8,
    };
    if pixels.width > 16_384 || pixels.height > 16_384 {
        return Err(format!(
            "{}×{} pixels: at most 16384 a side",
            pixels.width, pixels.height
        ));
    }
    let mut bytes = Vec::new();
    let mut encoder = WebPEncoder::new_lossless(&mut bytes);
    // WebP profiles are for RGB; a grey one would be wrong on the RGB that decoders make.
    if let Color::Icc(profile) = &pixels.color
        && !pixels.order.is_gray()
    {
        encoder
            .set_icc_profile(profile.clone())
            .map_err(|error| error.to_string())?;
    }
    if let Some(exif) = &metadata.exif {
        encoder
            .set_exif_metadata(exif.clone())
            .map_err(|error| error.to_string())?;
    }
    encoder
        .write_image(&pixels.bytes, pixels.width, pixels.height, color)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}
