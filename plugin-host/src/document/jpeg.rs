//! JPEG: 8 bits, grey or RGB, with profile, EXIF and XMP.

use std::io::Cursor;

use image::ImageEncoder;
use image::codecs::jpeg::{JpegDecoder, JpegEncoder};

use super::{Kind, Metadata, Picture};
use crate::pixels::{Color, Order, Pixels};

const XMP_HEADER: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

pub(super) fn decode(bytes: &[u8]) -> Result<Picture, String> {
    // The decoder fills in what is missing with grey; an editor must not.
    if is_cut_off(bytes) {
        return Err("it has no end marker: the file was cut off".to_owned());
    }
    let decoder = JpegDecoder::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    super::from_image_decoder(decoder, Kind::Jpeg)
}

/// Whether no end marker (EOI) follows the first scan (SOS). Segments before it are stepped over,
/// because an embedded thumbnail has markers of its own; within a scan a byte 0xff is stuffed. Stray
/// bytes between segments are passed over, as decoders do.
fn is_cut_off(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(four) = bytes.get(at..at + 4) {
        at += match four {
            [0xff, 0xda, ..] => {
                let scan = bytes.get(at..).unwrap_or_default();
                return !scan.windows(2).any(|pair| pair == [0xff, 0xd9]);
            }
            // An end without a scan is for the decoder to refuse.
            [0xff, 0xd9, ..] => return false,
            [0xff, 0x02..=0xcf | 0xdb..=0xfe, high, low] => {
                2 + usize::from(u16::from_be_bytes([*high, *low]))
            }
            _ => 1,
        };
    }
    true
}

pub(super) fn encode(pixels: &Pixels, metadata: &Metadata, quality: u8) -> Result<Vec<u8>, String> {
    let color = match pixels.order {
        Order::Gray => image::ExtendedColorType::L8,
        _ => image::ExtendedColorType::Rgb8,
    };
    let (Ok(_), Ok(_)) = (u16::try_from(pixels.width), u16::try_from(pixels.height)) else {
        return Err(format!(
            "{}×{} pixels: at most 65535 a side",
            pixels.width, pixels.height
        ));
    };
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100));
    if let Color::Icc(profile) = &pixels.color {
        encoder
            .set_icc_profile(profile.clone())
            .map_err(|error| error.to_string())?;
    }
    // A segment holds 65,533 bytes with its header; larger EXIF is only ever embedded thumbnails.
    if let Some(exif) = metadata.exif.as_ref().filter(|exif| exif.len() < 65_000) {
        encoder
            .set_exif_metadata(exif.clone())
            .map_err(|error| error.to_string())?;
    }
    encoder
        .write_image(&pixels.bytes, pixels.width, pixels.height, color)
        .map_err(|error| error.to_string())?;
    if let Some(xmp) = &metadata.xmp {
        insert_xmp(&mut bytes, xmp);
    }
    Ok(bytes)
}

/// Puts the packet into an APP1 segment after SOI and APP0; one too long for a segment is left out.
fn insert_xmp(bytes: &mut Vec<u8>, xmp: &str) {
    let Ok(length) = u16::try_from(2 + XMP_HEADER.len() + xmp.len()) else {
        return;
    };
    let at = match bytes.get(2..6) {
        Some([0xff, 0xe0, high, low]) => 4 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => 2,
    };
    if at > bytes.len() {
        return;
    }
    let mut segment = vec![0xff, 0xe1];
    segment.extend_from_slice(&length.to_be_bytes());
    segment.extend_from_slice(XMP_HEADER);
    segment.extend_from_slice(xmp.as_bytes());
    bytes.splice(at..at, segment);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stray_bytes_between_segments_are_no_cut() {
        // SOI, APP0 of 4 bytes, strays, SOS, a scan, EOI.
        let whole = [
            0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 7, 7, 0xff, 0xff, 0xda, 0, 2, 9, 9, 0xff, 0xd9,
        ];
        assert!(!is_cut_off(&whole));
        for end in 2..whole.len() {
            assert!(is_cut_off(&whole[..end]), "{end}");
        }
    }
}
