//! Checked, borrowed views of host buffers.
//!
//! For: saying exactly what a buffer holds. Not for: conversion.

use std::ops::Deref;

use rayon::prelude::*;

use super::pixel::{ColorSpace, Format, MaskSamples};
use super::rect::Rect;
use crate::error::{Code, Error, Result};
use crate::job::Cancel;
use crate::limits::{MAX_COORDINATE, MAX_PIXELS, MAX_SIDE};

/// A host's layer, or a part of it: `D` is the borrowed buffer, see [`LayerView`] and
/// [`LayerViewMut`].
///
/// Row `r` (0 = top) begins at byte `first_row + r * row_stride` of `data`; the bytes between rows
/// are never touched.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, D> {
    data: D,
    first_row: usize,
    row_stride: i64,
    rect: Rect,
    format: Format,
    color: ColorSpace<'a>,
}

/// Pixels to read.
pub type LayerView<'a> = View<'a, &'a [u8]>;

/// Pixels that may be changed.
pub type LayerViewMut<'a> = View<'a, &'a mut [u8]>;

/// A selection: where the edit acts and how much. Outside its rectangle it is 0.
#[derive(Clone, Copy, Debug)]
pub struct MaskView<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) first_row: usize,
    pub(crate) row_stride: i64,
    pub(crate) rect: Rect,
    pub(crate) samples: MaskSamples,
}

/// Checks that `rect.height` rows of `rect.width * pixel_bytes` bytes, `row_stride` apart, lie
/// inside `len` bytes and do not overlap.
fn check_rows(
    code: Code,
    len: usize,
    first_row: usize,
    row_stride: i64,
    rect: Rect,
    pixel_bytes: usize,
) -> Result<()> {
    let fail = |parameter: &str, message: String, hint: &str| {
        Err(Error::new(code, message)
            .with_hint(hint)
            .with_parameter(parameter))
    };
    for (name, side) in [("width", rect.width), ("height", rect.height)] {
        if side == 0 || side > MAX_SIDE {
            return fail(
                name,
                format!("{name} = {side}: must be 1..={MAX_SIDE}"),
                "give a part of the layer at a time",
            );
        }
    }
    let pixels = u64::from(rect.width) * u64::from(rect.height);
    if pixels > MAX_PIXELS {
        return fail(
            "width",
            format!(
                "width × height = {} × {} = {pixels} pixels: must be at most {MAX_PIXELS}",
                rect.width, rect.height
            ),
            "give a part of the layer at a time",
        );
    }
    for (name, place) in [("x", rect.x), ("y", rect.y)] {
        if !(-MAX_COORDINATE..=MAX_COORDINATE).contains(&place) {
            return fail(
                name,
                format!("{name} = {place}: must be −{MAX_COORDINATE}..={MAX_COORDINATE}"),
                "coordinates are pixels of the layer, usually 0",
            );
        }
    }
    let row_bytes = rect.width as usize * pixel_bytes;
    let steps = i128::from(rect.height) - 1;
    if steps > 0 && row_stride.unsigned_abs() < row_bytes as u64 {
        return fail(
            "row_stride",
            format!(
                "row_stride = {row_stride}: its size must be at least {row_bytes}, the bytes of a row"
            ),
            "strides are in bytes",
        );
    }
    let top = first_row as i128;
    let last = top + steps * i128::from(row_stride);
    let (low, high) = (top.min(last), top.max(last) + row_bytes as i128);
    if low < 0 || high > len as i128 {
        return fail(
            "row_stride",
            format!(
                "rows lie at bytes {low}..{high} of the buffer: must be within 0..{len} \
                 (first_row = {first_row}, row_stride = {row_stride})"
            ),
            "with a negative stride first_row is the offset of the top row",
        );
    }
    Ok(())
}

/// The bytes of row `r`; empty when there is no such row.
fn row(data: &[u8], first_row: usize, row_stride: i64, height: u32, bytes: usize, r: u32) -> &[u8] {
    if r >= height {
        return &[];
    }
    let start = first_row as i64 + i64::from(r) * row_stride;
    usize::try_from(start)
        .ok()
        .and_then(|start| data.get(start..start + bytes))
        .unwrap_or(&[])
}

impl<'a, D: Deref<Target = [u8]>> View<'a, D> {
    /// Describes `data` as the pixels of `rect` (in the layer's own coordinates: a whole layer has
    /// its origin at 0, 0; a tile has its place in the layer).
    ///
    /// `row_stride` is in bytes and may be negative (then `first_row` is the offset of the top row).
    /// Errors with [`crate::Code::InvalidLayer`] when a row would lie outside `data`, rows overlap,
    /// the size is zero or too large, or `format` contradicts itself.
    pub fn new(
        data: D,
        first_row: usize,
        row_stride: i64,
        rect: Rect,
        format: Format,
        color: ColorSpace<'a>,
    ) -> Result<Self> {
        format.check()?;
        check_rows(
            Code::InvalidLayer,
            data.len(),
            first_row,
            row_stride,
            rect,
            format.pixel_bytes(),
        )?;
        Ok(View {
            data,
            first_row,
            row_stride,
            rect,
            format,
            color,
        })
    }

    /// Where these pixels lie in the layer.
    pub fn rect(&self) -> Rect {
        self.rect
    }

    /// What the numbers of a pixel mean.
    pub fn format(&self) -> Format {
        self.format
    }

    /// How numbers become colours.
    pub fn color(&self) -> ColorSpace<'a> {
        self.color
    }

    /// The bytes of row `r` (0 = top), `width × pixel_bytes` of them; empty beyond the last row.
    pub(crate) fn row(&self, r: u32) -> &[u8] {
        let bytes = self.rect.width as usize * self.format.pixel_bytes();
        row(
            &self.data,
            self.first_row,
            self.row_stride,
            self.rect.height,
            bytes,
            r,
        )
    }
}

impl LayerViewMut<'_> {
    /// The same pixels, to read.
    pub fn as_view(&self) -> LayerView<'_> {
        View {
            data: &*self.data,
            first_row: self.first_row,
            row_stride: self.row_stride,
            rect: self.rect,
            format: self.format,
            color: self.color,
        }
    }

    /// All rows, top first, each `width × pixel_bytes` bytes; padding is not in them.
    pub(crate) fn rows_mut(&mut self) -> Vec<&mut [u8]> {
        let bytes = self.rect.width as usize * self.format.pixel_bytes();
        let height = self.rect.height as usize;
        // A single row may come with any stride; several are at least a row apart (checked).
        let stride = if height == 1 {
            bytes
        } else {
            self.row_stride.unsigned_abs() as usize
        };
        let upward = height > 1 && self.row_stride < 0;
        let start = if upward {
            self.first_row - (height - 1) * stride
        } else {
            self.first_row
        };
        let area = self.data.get_mut(start..).unwrap_or_default();
        let mut rows: Vec<_> = area
            .chunks_mut(stride)
            .take(height)
            .filter_map(|chunk| chunk.get_mut(..bytes))
            .collect();
        if upward {
            rows.reverse();
        }
        rows
    }
}

impl<'a> MaskView<'a> {
    /// Describes `data` as the mask of `rect`, in the layer's coordinates; it may reach beyond the
    /// layer or cover a part of it. Strides and errors as for [`LayerView::new`], with
    /// [`crate::Code::InvalidMask`].
    pub fn new(
        data: &'a [u8],
        first_row: usize,
        row_stride: i64,
        rect: Rect,
        samples: MaskSamples,
    ) -> Result<Self> {
        check_rows(
            Code::InvalidMask,
            data.len(),
            first_row,
            row_stride,
            rect,
            samples.bytes(),
        )?;
        Ok(MaskView {
            data,
            first_row,
            row_stride,
            rect,
            samples,
        })
    }

    /// Where the mask lies in the layer.
    pub fn rect(&self) -> Rect {
        self.rect
    }

    /// Type of each sample.
    pub fn samples(&self) -> MaskSamples {
        self.samples
    }

    /// The mask at layer row `y` from column `x`, 0..=1, into `out`; 0 outside its rectangle.
    pub(crate) fn read(&self, x: i64, y: i64, out: &mut [f32]) {
        out.fill(0.0);
        let width = u32::try_from(out.len()).unwrap_or(u32::MAX);
        let wanted = Rect {
            x,
            y,
            width,
            height: 1,
        };
        let both = wanted.intersect(&self.rect);
        if both.is_empty() {
            return;
        }
        let size = self.samples.bytes();
        let bytes = self.rect.width as usize * size;
        let r = (y - self.rect.y) as u32;
        let line = row(
            self.data,
            self.first_row,
            self.row_stride,
            self.rect.height,
            bytes,
            r,
        );
        let from = (both.x - self.rect.x) as usize * size;
        let line = line.get(from..).unwrap_or_default();
        let out = out.get_mut((both.x - x) as usize..).unwrap_or_default();
        let out = out.iter_mut().take(both.width as usize);
        match self.samples {
            MaskSamples::U8 => {
                for (o, &v) in out.zip(line) {
                    *o = f32::from(v) / 255.0;
                }
            }
            MaskSamples::F32 => {
                for (o, v) in out.zip(line.as_chunks::<4>().0) {
                    let v = f32::from_ne_bytes(*v);
                    *o = if v > 0.0 { v.min(1.0) } else { 0.0 };
                }
            }
        }
    }

    /// The smallest rectangle that holds every sample above 0 inside `within`; `None` when all are 0.
    /// Polls `cancel` at every row.
    pub(crate) fn bounds(&self, within: &Rect, cancel: &Cancel) -> Result<Option<Rect>> {
        let area = self.rect.intersect(within);
        let line = || vec![0.0; area.width as usize];
        let rows = (0..i64::from(area.height)).into_par_iter();
        // Of the rows with a sample above 0: first and last column, first and last row.
        let found = rows
            .map_init(line, |line, r| {
                cancel.check()?;
                self.read(area.x, area.y + r, line);
                let first = line.iter().position(|&v| v > 0.0);
                let last = line.iter().rposition(|&v| v > 0.0);
                let row = first.zip(last).map(|(l, h)| [l as i64, h as i64, r, r]);
                Ok::<_, Error>(row)
            })
            .try_reduce(
                || None,
                |a, b| {
                    Ok(match (a, b) {
                        (Some([l, h, t, u]), Some([m, i, v, w])) => {
                            Some([l.min(m), h.max(i), t.min(v), u.max(w)])
                        }
                        (a, b) => a.or(b),
                    })
                },
            )?;
        Ok(found.map(|[left, right, top, bottom]| Rect {
            x: area.x + left,
            y: area.y + top,
            width: (right - left + 1) as u32,
            height: (bottom - top + 1) as u32,
        }))
    }
}
