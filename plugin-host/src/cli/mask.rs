//! Masks from pictures: white = edit, black = keep.

use std::path::Path;

use crate::document::{self, Document};
use crate::failure::{Failure, Result};
use crate::library::{Mask, Rect};
use crate::pixels::Pixels;

/// Reads the picture of a mask.
pub(super) fn open(path: &Path) -> Result<Pixels> {
    match document::open(path)? {
        Document::Picture(picture) => Ok(picture.pixels),
        Document::Layers(_) => {
            Err(Failure::invalid_file(path, "has layers: not a mask")
                .hint("export the mask as a PNG"))
        }
    }
}

/// The mask for a layer of `size` that lies at `offset` on a canvas: as large as the layer, or as
/// the canvas.
pub(super) fn fit(
    path: &Path,
    picture: &Pixels,
    size: (u32, u32),
    canvas: (u32, u32),
    offset: (i64, i64),
) -> Result<Mask> {
    let is = (picture.width, picture.height);
    let origin = if is == size {
        (0, 0)
    } else if is == canvas {
        (-offset.0, -offset.1)
    } else {
        let what = format!(
            "{}×{} pixels: a mask must have the layer's {}×{}",
            is.0, is.1, size.0, size.1
        );
        return Err(Failure::invalid_file(path, what).hint("scale or crop the mask"));
    };
    let count = picture.width as usize * picture.height as usize;
    Ok(Mask {
        rect: Rect {
            x: origin.0,
            y: origin.1,
            width: picture.width,
            height: picture.height,
        },
        samples: (0..count).map(|at| coverage(picture.rgba(at))).collect(),
    })
}

/// Lightness (Rec. 709 luma of the encoded samples, exact for greys) times alpha.
fn coverage([r, g, b, a]: [f32; 4]) -> f32 {
    let luma = if r == g && g == b {
        r
    } else {
        0.2126 * r + 0.7152 * g + 0.0722 * b
    };
    (luma * a).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::{Alpha, Color, Order, Samples};

    fn picture(width: u32, height: u32, order: Order, bytes: &[u8]) -> Pixels {
        Pixels {
            width,
            height,
            samples: Samples::U8,
            order,
            alpha: if order.has_alpha() {
                Alpha::Straight
            } else {
                Alpha::None
            },
            color: Color::Srgb,
            bytes: bytes.to_vec(),
        }
    }

    #[test]
    fn white_edits_and_black_and_transparent_keep() {
        let mask = picture(3, 1, Order::GrayAlpha, &[255, 255, 0, 255, 255, 0]);
        let mask = fit(Path::new("m.png"), &mask, (3, 1), (3, 1), (0, 0)).unwrap();
        assert_eq!(mask.samples, [1.0, 0.0, 0.0]);
    }

    #[test]
    fn a_mask_of_the_canvas_is_moved_to_the_layer() {
        let mask = picture(4, 1, Order::Gray, &[0, 0, 255, 0]);
        let mask = fit(Path::new("m.png"), &mask, (2, 1), (4, 1), (1, 0)).unwrap();
        assert_eq!((mask.rect.x, mask.rect.width), (-1, 4));
    }

    #[test]
    fn a_mask_of_another_size_is_refused_with_both_sizes() {
        let mask = picture(3, 1, Order::Gray, &[0; 3]);
        let failure = fit(Path::new("m.png"), &mask, (2, 2), (2, 2), (0, 0)).unwrap_err();
        assert!(failure.message.contains("3×1") && failure.message.contains("2×2"));
    }
}
