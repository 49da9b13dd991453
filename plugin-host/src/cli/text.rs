//! Labels: an 8×8 bitmap font drawn twice its size. Not for: anything but a sheet's labels.

use font8x8::{BASIC_FONTS, LATIN_FONTS, UnicodeFonts};
use image::{Rgb, RgbImage};

/// Each dot of a glyph is a square of this many pixels.
const DOT: u32 = 2;
/// Height of a line, pixels.
pub(super) const HEIGHT: u32 = 8 * DOT;

/// Width of `text`, pixels.
pub(super) fn width(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX / 64) * 8 * DOT
}

/// Draws `text` with its upper left corner at (`x`, `y`); what lies outside is cut off.
pub(super) fn draw(canvas: &mut RgbImage, text: &str, x: u32, y: u32, ink: Rgb<u8>) {
    for (at, letter) in (0u32..).zip(text.chars()) {
        let glyph = BASIC_FONTS
            .get(letter)
            .or_else(|| LATIN_FONTS.get(letter))
            .or_else(|| BASIC_FONTS.get('?'))
            .unwrap_or_default();
        for (row, bits) in (0u32..).zip(glyph) {
            for column in (0..8u32).filter(|column| bits >> column & 1 == 1) {
                for dot in 0..DOT * DOT {
                    let px = x + (at * 8 + column) * DOT + dot % DOT;
                    let py = y + row * DOT + dot / DOT;
                    if px < canvas.width() && py < canvas.height() {
                        canvas.put_pixel(px, py, ink);
                    }
                }
            }
        }
    }
}
