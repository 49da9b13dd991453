//! From the raw pointers of a host to checked views.
//!
//! For: the one place where a host's pointer becomes a slice. Not for: what the view itself checks
//! (sizes, strides, formats); here stand only the checks without which no slice may be made.

use std::ops::Range;
use std::slice;

use semblance::layer::{
    AlphaState, ChannelOrder, ColorSpace, Format, LayerView, LayerViewMut, MaskSamples, MaskView,
    Rect, SampleType,
};
use semblance::{Code, Error, Result};

use crate::bridge::ffi;

/// The bytes that a view touches or skips: from its lowest row's first to its highest row's last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    start: usize,
    len: usize,
    /// Offset of the top row.
    first_row: usize,
}

impl Span {
    /// `data` is the top row's first byte; `size` counts from the lowest row's.
    fn new(
        code: Code,
        (data, size): (usize, u64),
        row_stride: i64,
        rect: Rect,
        pixel_bytes: usize,
    ) -> Result<Self> {
        let fail =
            |parameter: &str, text: String| Err(Error::new(code, text).with_parameter(parameter));
        if data == 0 {
            return fail("data", "data = NULL: must point to the top row".to_owned());
        }
        for (name, side) in [("width", rect.width), ("height", rect.height)] {
            if side == 0 {
                return fail(name, format!("{name} = 0: must be at least 1"));
            }
        }
        let row = u128::from(rect.width) * pixel_bytes as u128;
        let above = u128::from(rect.height - 1) * u128::from(row_stride.unsigned_abs());
        let need = above + row;
        if u128::from(size) < need {
            return fail(
                "data_size",
                format!(
                    "data_size = {size}: must be at least {need} for {} × {} pixels in rows of {row_stride} bytes",
                    rect.width, rect.height
                ),
            );
        }
        let first_row = if row_stride < 0 { above } else { 0 };
        let start = (data as u128).checked_sub(first_row);
        let bounds = start
            .filter(|s| *s > 0 && s + need <= usize::MAX as u128 && need <= isize::MAX as u128);
        match bounds {
            // Each fits: `start + need` fits in a usize.
            Some(start) => Ok(Span {
                start: start as usize,
                len: need as usize,
                first_row: first_row as usize,
            }),
            None => fail(
                "row_stride",
                format!("row_stride = {row_stride}: the buffer leaves the address space"),
            ),
        }
    }

    fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }

    fn meets(&self, other: &Range<usize>) -> bool {
        let own = self.range();
        own.start < other.end && other.start < own.end
    }

    /// # Safety
    /// The bytes must be there and not be written by anybody while `'a` lasts.
    unsafe fn read<'a>(&self) -> &'a [u8] {
        // SAFETY: not NULL, no wrap, at most isize::MAX (all checked by `new`); the rest is the
        // caller's promise. u8 has no alignment and no invalid value.
        unsafe { slice::from_raw_parts(self.start as *const u8, self.len) }
    }

    /// # Safety
    /// The bytes must be there and not be read or written by anybody else while `'a` lasts.
    unsafe fn write<'a>(&self) -> &'a mut [u8] {
        // SAFETY: as in `read`.
        unsafe { slice::from_raw_parts_mut(self.start as *mut u8, self.len) }
    }
}

/// What the header calls semblance_pixels, checked as far as a slice needs it.
pub struct Layer<'a> {
    span: Span,
    row_stride: i64,
    rect: Rect,
    format: Format,
    color: ColorSpace<'a>,
    icc: Range<usize>,
}

/// What the header calls semblance_mask, checked as far as a slice needs it.
pub struct Mask {
    span: Span,
    row_stride: i64,
    rect: Rect,
    samples: MaskSamples,
}

/// How the destination of a render lies to its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The very same pixels.
    Same,
    /// No byte in common.
    Apart,
}

impl<'a> Layer<'a> {
    /// # Safety
    /// The profile's bytes must be there and stay as they are while `'a` lasts.
    pub unsafe fn new(pixels: &ffi::Pixels) -> Result<Self> {
        let samples = sample_type(pixels.samples)?;
        let format = Format {
            samples,
            order: channel_order(pixels.order)?,
            alpha: alpha_state(pixels.alpha)?,
        };
        let rect = rect(&pixels.rect);
        let at = (pixels.data, pixels.data_size);
        let span = Span::new(
            Code::InvalidLayer,
            at,
            pixels.row_stride,
            rect,
            format.pixel_bytes(),
        )?;
        if pixels.reserved != 0 {
            let text = format!("reserved = {}: must be 0", pixels.reserved);
            return Err(wrong("reserved", text));
        }
        // SAFETY: the caller's promise.
        let color = unsafe { color_space(pixels, samples) }?;
        let icc = match color {
            ColorSpace::Icc(profile) => pixels.icc..pixels.icc + profile.len(),
            _ => 0..0,
        };
        Ok(Layer {
            span,
            row_stride: pixels.row_stride,
            rect,
            format,
            color,
            icc,
        })
    }

    /// # Safety
    /// The pixels must be there and not be written by anybody while `'a` lasts.
    pub unsafe fn view(&self) -> Result<LayerView<'a>> {
        // SAFETY: the caller's promise.
        let data = unsafe { self.span.read() };
        let first = self.span.first_row;
        LayerView::new(
            data,
            first,
            self.row_stride,
            self.rect,
            self.format,
            self.color,
        )
    }

    /// # Safety
    /// The pixels must be there and not be read or written by anybody else while `'a` lasts.
    pub unsafe fn view_mut(&self) -> Result<LayerViewMut<'a>> {
        // SAFETY: the caller's promise.
        let data = unsafe { self.span.write() };
        let first = self.span.first_row;
        LayerViewMut::new(
            data,
            first,
            self.row_stride,
            self.rect,
            self.format,
            self.color,
        )
    }

    /// How `dst` lies to this source; fails unless it is the same or shares no byte, and when it
    /// would overwrite `mask` or a profile.
    pub fn placement(&self, mask: Option<&Mask>, dst: &Layer<'_>) -> Result<Placement> {
        if self.format != dst.format {
            return Err(wrong(
                "dst",
                "dst: must have the samples, order and alpha of src".to_owned(),
            ));
        }
        if self.color != dst.color {
            return Err(wrong(
                "dst",
                "dst: must have the color (and profile) of src".to_owned(),
            ));
        }
        if !self.rect.contains(&dst.rect) {
            let (to, from) = (in_words(dst.rect), in_words(self.rect));
            return Err(
                wrong("dst", format!("dst: {to}: must lie within src, {from}"))
                    .with_hint("give the rectangle of src or a part of it"),
            );
        }
        let profiles = [&self.icc, &dst.icc];
        if profiles
            .into_iter()
            .any(|p| !p.is_empty() && dst.span.meets(p))
        {
            return Err(wrong("dst", "dst: overlaps a colour profile".to_owned()));
        }
        if mask.is_some_and(|m| dst.span.meets(&m.span.range())) {
            let text = "mask: overlaps dst; must share no byte with it";
            return Err(Error::new(Code::InvalidMask, text).with_parameter("mask"));
        }
        if !dst.span.meets(&self.span.range()) {
            return Ok(Placement::Apart);
        }
        if self.span == dst.span && self.row_stride == dst.row_stride && self.rect == dst.rect {
            return Ok(Placement::Same);
        }
        Err(wrong(
            "dst",
            "dst: overlaps src without being the same pixels".to_owned(),
        )
        .with_hint("give src itself (same data, row_stride and rect) or another buffer"))
    }
}

impl Mask {
    /// Checks what a slice needs.
    pub fn new(mask: &ffi::Mask) -> Result<Self> {
        let samples = match mask.samples {
            1 => MaskSamples::U8,
            4 => MaskSamples::F32,
            other => {
                let text = format!("samples = {other}: must be 1 (u8) or 4 (f32) in a mask");
                return Err(Error::new(Code::InvalidMask, text).with_parameter("samples"));
            }
        };
        let rect = rect(&mask.rect);
        let at = (mask.data, mask.data_size);
        Ok(Mask {
            span: Span::new(
                Code::InvalidMask,
                at,
                mask.row_stride,
                rect,
                samples.bytes(),
            )?,
            row_stride: mask.row_stride,
            rect,
            samples,
        })
    }

    /// # Safety
    /// The samples must be there and not be written by anybody while `'a` lasts.
    pub unsafe fn view<'a>(&self) -> Result<MaskView<'a>> {
        // SAFETY: the caller's promise.
        let data = unsafe { self.span.read() };
        MaskView::new(
            data,
            self.span.first_row,
            self.row_stride,
            self.rect,
            self.samples,
        )
    }
}

/// A rectangle for people.
fn in_words(r: Rect) -> String {
    format!("{} × {} pixels at {}, {}", r.width, r.height, r.x, r.y)
}

/// The header's rectangle as ours.
pub fn rect(r: &ffi::Rect) -> Rect {
    Rect {
        x: r.x,
        y: r.y,
        width: r.width,
        height: r.height,
    }
}

/// As [`rect`], refused when an edge would leave the range of coordinates.
pub fn checked_rect(r: &ffi::Rect) -> Result<Rect> {
    const FAR: i64 = 1 << 40;
    for (name, place) in [("x", r.x), ("y", r.y)] {
        if !(-FAR..=FAR).contains(&place) {
            let text = format!("{name} = {place}: must be −{FAR}..={FAR}");
            return Err(Error::new(Code::InvalidParameter, text).with_parameter(name));
        }
    }
    Ok(rect(r))
}

/// Our rectangle as the header's.
pub fn rect_out(r: Rect) -> ffi::Rect {
    ffi::Rect {
        x: r.x,
        y: r.y,
        width: r.width,
        height: r.height,
    }
}

fn wrong(parameter: &str, text: String) -> Error {
    Error::new(Code::InvalidLayer, text).with_parameter(parameter)
}

fn sample_type(n: i32) -> Result<SampleType> {
    match n {
        1 => Ok(SampleType::U8),
        2 => Ok(SampleType::U16),
        3 => Ok(SampleType::F16),
        4 => Ok(SampleType::F32),
        _ => Err(wrong(
            "samples",
            format!("samples = {n}: must be 1 (u8), 2 (u16), 3 (f16) or 4 (f32)"),
        )),
    }
}

fn channel_order(n: i32) -> Result<ChannelOrder> {
    match n {
        1 => Ok(ChannelOrder::Rgb),
        2 => Ok(ChannelOrder::Rgba),
        3 => Ok(ChannelOrder::Bgra),
        4 => Ok(ChannelOrder::Argb),
        5 => Ok(ChannelOrder::Gray),
        6 => Ok(ChannelOrder::GrayAlpha),
        _ => Err(wrong(
            "order",
            format!(
                "order = {n}: must be 1..=6 (1 RGB, 2 RGBA, 3 BGRA, 4 ARGB, 5 grey, 6 grey + alpha)"
            ),
        )),
    }
}

fn alpha_state(n: i32) -> Result<AlphaState> {
    match n {
        0 => Ok(AlphaState::None),
        1 => Ok(AlphaState::Straight),
        2 => Ok(AlphaState::Premultiplied),
        _ => Err(wrong(
            "alpha",
            format!("alpha = {n}: must be 0 (none), 1 (straight) or 2 (premultiplied)"),
        )),
    }
}

/// # Safety
/// The profile's bytes must be there and stay as they are while `'a` lasts.
unsafe fn color_space<'a>(pixels: &ffi::Pixels, samples: SampleType) -> Result<ColorSpace<'a>> {
    const ICC: i32 = 3;
    if pixels.color != ICC && (pixels.icc != 0 || pixels.icc_size != 0) {
        return Err(wrong(
            "icc",
            format!("color = {}: a profile is given and not used", pixels.color),
        )
        .with_hint("set color to SEMBLANCE_COLOR_ICC, or icc to NULL and icc_size to 0"));
    }
    match pixels.color {
        0 if matches!(samples, SampleType::U8 | SampleType::U16) => Ok(ColorSpace::Srgb),
        0 => Err(wrong(
            "color",
            "color = 0: float pixels must say what their numbers mean".to_owned(),
        )
        .with_hint("set 1 (sRGB), 2 (linear sRGB) or 3 (a profile)")),
        1 => Ok(ColorSpace::Srgb),
        2 => Ok(ColorSpace::LinearSrgb),
        ICC if pixels.icc == 0 => Err(wrong(
            "icc",
            "icc = NULL: must point to a profile".to_owned(),
        )),
        // An ICC header has 128 bytes; the engine knows what else to ask of a profile.
        ICC if !(128..=MAX_ICC).contains(&pixels.icc_size) => Err(wrong(
            "icc_size",
            format!("icc_size = {}: must be 128..={MAX_ICC}", pixels.icc_size),
        )),
        ICC => {
            // SAFETY: not NULL, of a sane size; that the bytes are there is the caller's promise.
            let profile =
                unsafe { slice::from_raw_parts(pixels.icc as *const u8, pixels.icc_size as usize) };
            Ok(ColorSpace::Icc(profile))
        }
        n => Err(wrong(
            "color",
            format!("color = {n}: must be 0..=3 (1 sRGB, 2 linear sRGB, 3 a profile)"),
        )),
    }
}

/// Longest profile. Stops: sizes that wrap the address space.
const MAX_ICC: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pixels(data: &mut [u8], width: u32, height: u32) -> ffi::Pixels {
        ffi::Pixels {
            samples: 1,
            order: 2,
            alpha: 1,
            data: data.as_mut_ptr() as usize,
            data_size: data.len() as u64,
            row_stride: i64::from(width) * 4,
            rect: ffi::Rect {
                x: 0,
                y: 0,
                width,
                height,
            },
            color: 1,
            reserved: 0,
            icc: 0,
            icc_size: 0,
        }
    }

    fn layer(p: &ffi::Pixels) -> Result<Layer<'static>> {
        // SAFETY: the tests give no profile, but where it is refused before it is read.
        unsafe { Layer::new(p) }
    }

    #[test]
    fn a_bottom_up_buffer_begins_below_its_top_row() {
        let mut data = vec![0; 4 * 4 * 3];
        let mut p = pixels(&mut data, 4, 3);
        let base = p.data;
        p.data += 32;
        p.row_stride = -16;
        let span = layer(&p).unwrap().span;
        assert_eq!(
            span,
            Span {
                start: base,
                len: 48,
                first_row: 32
            }
        );
    }

    #[test]
    fn dst_may_be_src_itself_or_apart_and_nothing_between() {
        let mut data = vec![0; 4 * 8 * 8];
        let whole = pixels(&mut data, 8, 8);
        let src = layer(&whole).unwrap();
        assert_eq!(
            src.placement(None, &layer(&whole).unwrap()).unwrap(),
            Placement::Same
        );
        let mut shifted = pixels(&mut data, 8, 7);
        shifted.data += 32;
        let mut part = pixels(&mut data, 4, 8);
        part.row_stride = 32;
        let mut moved = pixels(&mut data, 8, 8);
        moved.rect.x = 1;
        for (what, dst) in [("shifted", shifted), ("part", part), ("moved", moved)] {
            let error = src.placement(None, &layer(&dst).unwrap()).unwrap_err();
            assert_eq!(error.code(), Code::InvalidLayer, "{what}");
        }
        let mut linear = pixels(&mut data, 8, 8);
        linear.color = 2;
        let error = src.placement(None, &layer(&linear).unwrap()).unwrap_err();
        assert!(error.message().contains("color"), "{error}");
        let mut far = pixels(&mut data, 8, 8);
        far.rect.x = 1;
        let error = src.placement(None, &layer(&far).unwrap()).unwrap_err();
        assert!(error.message().contains("8 × 8 pixels at 1, 0"), "{error}");
        let mut other = vec![0; 4 * 8 * 8];
        let apart = pixels(&mut other, 8, 8);
        assert_eq!(
            src.placement(None, &layer(&apart).unwrap()).unwrap(),
            Placement::Apart
        );
    }

    #[test]
    fn a_mask_inside_the_destination_is_refused() {
        let mut data = vec![0; 4 * 8 * 8];
        let p = pixels(&mut data, 8, 8);
        let mask = Mask::new(&ffi::Mask {
            samples: 1,
            data: p.data + 3,
            data_size: 64,
            row_stride: 8,
            rect: ffi::Rect {
                x: 0,
                y: 0,
                width: 8,
                height: 8,
            },
        })
        .unwrap();
        let src = layer(&p).unwrap();
        let error = src.placement(Some(&mask), &layer(&p).unwrap()).unwrap_err();
        assert_eq!(error.code(), Code::InvalidMask);
    }

    #[test]
    fn descriptions_that_no_slice_can_be_made_of_are_refused_by_field() {
        type Spoil = fn(&mut ffi::Pixels);
        let bad: [(&str, Spoil); 17] = [
            ("data", |p| p.data = 0),
            ("data_size", |p| p.data_size -= 1),
            ("data_size", |p| p.data_size = 0),
            ("width", |p| p.rect.width = 0),
            ("height", |p| p.rect.height = 0),
            ("data_size", |p| p.rect.width = u32::MAX),
            ("data_size", |p| p.row_stride = i64::MIN),
            ("data_size", |p| p.row_stride = i64::MAX),
            ("row_stride", |p| {
                (p.row_stride, p.data_size) = (i64::MIN / 2, u64::MAX)
            }),
            ("samples", |p| p.samples = 5),
            ("order", |p| p.order = 0),
            ("alpha", |p| p.alpha = -1),
            ("color", |p| p.color = 9),
            ("color", |p| {
                (p.color, p.samples, p.order, p.alpha, p.rect.width) = (0, 4, 5, 0, 1)
            }),
            ("icc", |p| p.color = 3),
            ("icc_size", |p| {
                (p.color, p.icc, p.icc_size) = (3, 8, u64::MAX)
            }),
            ("reserved", |p| p.reserved = 1),
        ];
        for (i, (field, spoil)) in bad.into_iter().enumerate() {
            let mut data = vec![0; 4 * 4 * 4];
            let mut p = pixels(&mut data, 4, 4);
            spoil(&mut p);
            let error = layer(&p).err().unwrap();
            assert_eq!(
                (error.code(), error.parameter()),
                (Code::InvalidLayer, field),
                "case {i}: {error}"
            );
        }
    }
}
