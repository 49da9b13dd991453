//! Which part of a layer the model sees, and how that part maps onto the model's picture.
//!
//! For: geometry, at the layer's own size and at that of a reduced copy. Not for: pixels.

use std::sync::Arc;

use super::color::Converter;
use super::rect::Rect;
use crate::error::{Code, Error, Result};
use crate::limits::MAX_GRID_SIDE;

/// How much the content may be squashed along one axis before the picture is padded instead.
const MAX_SQUASH: f64 = 1.3;

/// A part of a layer and the model's picture of it.
///
/// Model pixel `(i, j)` covers the layer's rectangle of `window.width / grid.0` ×
/// `window.height / grid.1` pixels at `window.x + i · …`, `window.y + j · …`.
#[derive(Clone, Debug)]
pub struct Placement {
    pub(super) window: Rect,
    pub(super) region: Rect,
    pub(super) extent: Rect,
    pub(super) grid: (u32, u32),
    pub(super) converter: Arc<Converter>,
}

impl Placement {
    /// The layer's pixels that the model sees, in layer coordinates.
    pub fn region(&self) -> Rect {
        self.region
    }

    /// What an edit may change, inside the region: the box of the mask that it was made under, or the
    /// whole region. It holds whatever mask is rendered with.
    pub fn extent(&self) -> Rect {
        self.extent
    }

    /// What the model's picture covers: the region, plus its mirror image where its shape is far
    /// from the model's.
    pub fn window(&self) -> Rect {
        self.window
    }

    /// Width and height of the model's picture, pixels.
    pub fn grid(&self) -> (u32, u32) {
        self.grid
    }

    /// Layer pixels per model pixel, along a side (the geometric mean of both axes).
    pub fn scale(&self) -> f32 {
        let (x, y) = self.steps();
        (x * y).sqrt() as f32
    }

    /// Layer pixels per model pixel, horizontally and vertically.
    pub(super) fn steps(&self) -> (f64, f64) {
        (
            f64::from(self.window.width) / f64::from(self.grid.0),
            f64::from(self.window.height) / f64::from(self.grid.1),
        )
    }

    /// Where the model's picture lies on the layer itself.
    pub(super) fn geometry(&self) -> Geometry {
        let (x, y) = self.steps();
        Geometry {
            origin: (self.window.x as f64, self.window.y as f64),
            step: (x, y),
            extent: self.extent,
        }
    }

    /// Where it lies on a copy of the layer in which `small` stands for the layer's `part`; neither
    /// may be empty.
    pub(super) fn geometry_on(&self, part: Rect, small: Rect) -> Geometry {
        let whole = self.geometry();
        let x = Axis::new((part.x, part.width), (small.x, small.width));
        let y = Axis::new((part.y, part.height), (small.y, small.height));
        let (left, right) = x.range(self.extent.x, self.extent.right());
        let (top, bottom) = y.range(self.extent.y, self.extent.bottom());
        Geometry {
            origin: (x.at(whole.origin.0), y.at(whole.origin.1)),
            step: (whole.step.0 / x.scale, whole.step.1 / y.scale),
            extent: Rect {
                x: left,
                y: top,
                width: (right - left).clamp(0, i64::from(u32::MAX)) as u32,
                height: (bottom - top).clamp(0, i64::from(u32::MAX)) as u32,
            },
        }
    }

    /// Chooses region, grid and window for an edit of `wanted` (inside `layer`, not empty).
    pub(super) fn choose(
        layer: Rect,
        wanted: Option<Rect>,
        grids: &[(u32, u32)],
        converter: Arc<Converter>,
    ) -> Result<Placement> {
        let region = match wanted {
            None => layer,
            Some(part) => region(layer, part, grids)?,
        };
        let grid = nearest(f64::from(region.width) / f64::from(region.height), grids)?;
        let squash = f64::from(region.width)
            / f64::from(grid.0)
            / (f64::from(region.height) / f64::from(grid.1));
        let mut window = region;
        if squash > MAX_SQUASH {
            window.height = (f64::from(region.height) * squash / MAX_SQUASH).round() as u32;
            window.y -= i64::from((window.height - region.height) / 2);
        } else if squash < 1.0 / MAX_SQUASH {
            window.width = (f64::from(region.width) / (squash * MAX_SQUASH)).round() as u32;
            window.x -= i64::from((window.width - region.width) / 2);
        }
        Ok(Placement {
            window,
            region,
            extent: wanted.unwrap_or(region),
            grid,
            converter,
        })
    }
}

/// How the model's picture lies on the pixels that a render is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Geometry {
    /// The picture's left and upper edge.
    pub origin: (f64, f64),
    /// Pixels per model pixel.
    pub step: (f64, f64),
    /// Outside it nothing changes.
    pub extent: Rect,
}

/// One axis of a reduced copy.
struct Axis {
    /// Layer pixels per pixel of the copy.
    scale: f64,
    part: f64,
    small: f64,
}

impl Axis {
    fn new((part, of): (i64, u32), (small, to): (i64, u32)) -> Axis {
        Axis {
            scale: f64::from(of) / f64::from(to),
            part: part as f64,
            small: small as f64,
        }
    }

    /// A place of the layer on the copy.
    fn at(&self, place: f64) -> f64 {
        self.small + (place - self.part) / self.scale
    }

    /// The pixels of the copy that `from..to` of the layer touches.
    fn range(&self, from: i64, to: i64) -> (i64, i64) {
        // A hair's breadth, so that rounding adds no pixel where both edges meet.
        let (from, to) = (self.at(from as f64) + 1e-6, self.at(to as f64) - 1e-6);
        (from.floor() as i64, to.ceil() as i64)
    }
}

/// The grid whose aspect (width over height) is nearest, by ratio; the first of equals.
fn nearest(aspect: f64, grids: &[(u32, u32)]) -> Result<(u32, u32)> {
    let mut best = None;
    for &(w, h) in grids {
        if !(1..=MAX_GRID_SIDE).contains(&w) || !(1..=MAX_GRID_SIDE).contains(&h) {
            return Err(Error::new(
                Code::InvalidModel,
                format!("picture size {w} × {h}: each side must be 1..={MAX_GRID_SIDE}"),
            ));
        }
        let off = (f64::from(w) / f64::from(h) / aspect).ln().abs();
        if best.is_none_or(|(least, _)| off < least) {
            best = Some((off, (w, h)));
        }
    }
    best.map(|(_, grid)| grid)
        .ok_or_else(|| Error::new(Code::InvalidModel, "the model serves no picture size"))
}

/// `part` with a margin of half its size, at least the model's size, of the model's shape, in `layer`.
fn region(layer: Rect, part: Rect, grids: &[(u32, u32)]) -> Result<Rect> {
    let most = (f64::from(layer.width), f64::from(layer.height));
    let width = (f64::from(part.width) * 1.5).min(most.0);
    let height = (f64::from(part.height) * 1.5).min(most.1);
    let grid = nearest(width / height, grids)?;
    let (gw, gh) = (f64::from(grid.0), f64::from(grid.1));
    let step = (width / gw).max(height / gh).max(1.0);
    let side = |model: f64, most: f64| (model * step).ceil().min(most) as u32;
    let (width, height) = (side(gw, most.0), side(gh, most.1));
    let start = |from: i64, size: u32, part: u32, low: i64, room: u32| {
        let centred = from - (i64::from(size) - i64::from(part)) / 2;
        centred.clamp(low, low + i64::from(room - size))
    };
    Ok(Rect {
        x: start(part.x, width, part.width, layer.x, layer.width),
        y: start(part.y, height, part.height, layer.y, layer.height),
        width,
        height,
    })
}
