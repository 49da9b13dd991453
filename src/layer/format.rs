//! Rows of host bytes ↔ straight RGBA in f32, for every pixel format.
//!
//! For: reading pixels, and adding a change to the stored numbers so that what does not change keeps
//! its bytes. Not for: colour spaces (`color`).

use half::f16;

use super::Tally;
use super::pixel::{AlphaState, ChannelOrder, Format, SampleType};

/// Red, green, blue, alpha; straight, 0..=1 nominal. A pixel that must be left alone (no alpha, or a
/// float that is not finite) is all zeros.
pub(crate) type Pixel = [f32; 4];

/// No alpha channel, as an index.
const NONE: usize = usize::MAX;

/// One stored sample.
trait Sample: Copy + PartialEq {
    const BYTES: usize;
    /// The stored number that means 1.0.
    const FULL: f32;
    /// Whether stored numbers are integers in 0..=FULL.
    const INTEGER: bool;
    fn load(bytes: &[u8]) -> Self;
    fn store(self, bytes: &mut [u8]);
    fn number(self) -> f32;
    /// Rounds; the caller has clamped integers to 0..=FULL.
    fn from_number(number: f32) -> Self;
}

macro_rules! sample {
    ($type:ty, $bytes:literal, $full:expr, $integer:literal, $number:expr, $from:expr) => {
        impl Sample for $type {
            const BYTES: usize = $bytes;
            const FULL: f32 = $full;
            const INTEGER: bool = $integer;
            #[inline(always)]
            fn load(bytes: &[u8]) -> Self {
                let mut b = [0; $bytes];
                b.copy_from_slice(bytes);
                <$type>::from_ne_bytes(b)
            }
            #[inline(always)]
            fn store(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_ne_bytes());
            }
            #[inline(always)]
            fn number(self) -> f32 {
                ($number)(self)
            }
            #[inline(always)]
            fn from_number(number: f32) -> Self {
                ($from)(number)
            }
        }
    };
}
sample!(u8, 1, 255.0, true, f32::from, |v: f32| v as u8);
sample!(u16, 2, 65535.0, true, f32::from, |v: f32| v as u16);
sample!(f16, 2, 1.0, false, f16::to_f32, f16::from_f32);
sample!(f32, 4, 1.0, false, |v: f32| v, |v: f32| v);

/// Calls a function that is generic over sample type and channel places, for a format.
macro_rules! dispatch {
    ($format:expr, $function:ident, $($argument:expr),*) => {
        match $format.samples {
            SampleType::U8 => dispatch!(@ u8, $format, $function, $($argument),*),
            SampleType::U16 => dispatch!(@ u16, $format, $function, $($argument),*),
            SampleType::F16 => dispatch!(@ f16, $format, $function, $($argument),*),
            SampleType::F32 => dispatch!(@ f32, $format, $function, $($argument),*),
        }
    };
    (@ $type:ty, $format:expr, $function:ident, $($argument:expr),*) => {
        match $format.order {
            ChannelOrder::Rgb => $function::<$type, 3, 0, 1, 2, NONE>($($argument),*),
            ChannelOrder::Rgba => $function::<$type, 4, 0, 1, 2, 3>($($argument),*),
            ChannelOrder::Bgra => $function::<$type, 4, 2, 1, 0, 3>($($argument),*),
            ChannelOrder::Argb => $function::<$type, 4, 1, 2, 3, 0>($($argument),*),
            ChannelOrder::Gray => $function::<$type, 1, 0, 0, 0, NONE>($($argument),*),
            ChannelOrder::GrayAlpha => $function::<$type, 2, 0, 0, 0, 1>($($argument),*),
        }
    };
}

/// Reads `out.len()` pixels from the bytes of a row; grey is spread to the three colours.
pub(crate) fn decode(format: Format, bytes: &[u8], out: &mut [Pixel]) {
    let premultiplied = format.alpha == AlphaState::Premultiplied;
    dispatch!(format, decode_as, bytes, out, premultiplied);
}

fn decode_as<
    S: Sample,
    const N: usize,
    const R: usize,
    const G: usize,
    const B: usize,
    const A: usize,
>(
    bytes: &[u8],
    out: &mut [Pixel],
    premultiplied: bool,
) {
    let scale = 1.0 / S::FULL;
    for (p, o) in bytes.chunks_exact(N * S::BYTES).zip(out) {
        let get = |c: usize| S::load(&p[c * S::BYTES..(c + 1) * S::BYTES]).number() * scale;
        let a = if A == NONE { 1.0 } else { get(A) };
        let mut px = [get(R), get(G), get(B), a];
        if A != NONE && premultiplied && a != 0.0 {
            let by = 1.0 / a;
            px = [px[0] * by, px[1] * by, px[2] * by, a];
        }
        let alive = a > 0.0 && (S::INTEGER || px.iter().all(|v| v.is_finite()));
        *o = if alive { px } else { [0.0; 4] };
    }
}

/// Adds `change` (straight colour, in the layer's own space; grey in each of the three) to the
/// stored samples of the pixels that begin at column `x` of row `y`.
///
/// `pixels` is what [`decode`] read there. Alpha keeps its bytes. Integers change where a pixel's
/// change reaches half a quantum, and are then dithered by a pattern fixed to the layer.
pub(crate) fn add(
    format: Format,
    bytes: &mut [u8],
    pixels: &[Pixel],
    change: &[Pixel],
    (x, y): (i64, i64),
    tally: &mut Tally,
) {
    let premultiplied = format.alpha == AlphaState::Premultiplied;
    dispatch!(
        format,
        add_as,
        bytes,
        pixels,
        change,
        (x, y),
        premultiplied,
        tally
    );
}

fn add_as<
    S: Sample,
    const N: usize,
    const R: usize,
    const G: usize,
    const B: usize,
    const A: usize,
>(
    bytes: &mut [u8],
    pixels: &[Pixel],
    change: &[Pixel],
    (x, y): (i64, i64),
    premultiplied: bool,
    tally: &mut Tally,
) {
    let places = [R, G, B];
    let colours = if R == G { 1 } else { 3 };
    let all = bytes.chunks_exact_mut(N * S::BYTES).zip(pixels).zip(change);
    for (i, ((p, px), change)) in all.enumerate() {
        let by = if premultiplied {
            px[3] * S::FULL
        } else {
            S::FULL
        };
        let step: [f32; 3] = std::array::from_fn(|c| {
            let v = change[c] * by;
            if v.is_finite() { v } else { 0.0 }
        });
        let size = step.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let least = if S::INTEGER { 0.5 } else { f32::MIN_POSITIVE };
        if px[3] == 0.0 || size < least {
            continue;
        }
        let mut moved = 0.0f32;
        let alpha = if A == NONE {
            S::FULL
        } else {
            S::load(&p[A * S::BYTES..(A + 1) * S::BYTES]).number()
        };
        for c in 0..colours {
            let sample = &mut p[places[c] * S::BYTES..(places[c] + 1) * S::BYTES];
            let old = S::load(sample);
            let number = old.number();
            let new = if S::INTEGER {
                // A premultiplied colour above its alpha would be brighter than white.
                let top = if premultiplied {
                    alpha.max(number)
                } else {
                    S::FULL
                };
                (number + (step[c] + threshold(x + i as i64, y, c)).floor()).clamp(0.0, top)
            } else {
                number + step[c]
            };
            let new = S::from_number(new);
            if new != old && new.number().is_finite() {
                new.store(sample);
                moved = moved.max((new.number() - number).abs());
            }
        }
        if moved > 0.0 {
            tally.add(moved / S::FULL);
        }
    }
}

/// What to add before rounding down, 0..1: the R2 sequence (Roberts 2018), which spreads its values
/// nearly as evenly as blue noise and costs two multiplications; each colour has its own phase.
#[inline(always)]
fn threshold(x: i64, y: i64, colour: usize) -> f32 {
    let phase = (x as u32)
        .wrapping_mul(0xC13F_A9A9)
        .wrapping_add((y as u32).wrapping_mul(0x91E1_0DA5))
        .wrapping_add((colour as u32).wrapping_mul(0x5555_5555));
    (phase >> 8) as f32 * (1.0 / (1 << 24) as f32)
}
