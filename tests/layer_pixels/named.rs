//! Sixty descriptors that went wrong somewhere, by name, through the whole engine: strength 0 with the
//! shortcut off gives back every byte, and at strength 2 nothing changes where nothing may.
//! Not for: random ones (`kept`).

use std::num::NonZeroUsize;

use semblance::job::Control;
use semblance::layer::{
    AlphaState as A, ChannelOrder as C, Format, MaskSamples, MaskView, Rect, SampleType as S,
};
use semblance::{Engine, EngineOptions, IdentityShortcut, ModelChoice, Recipe};

use crate::support::{Host, Space};

/// What the mask is.
#[derive(Clone, Copy)]
enum M {
    /// There is none.
    No,
    /// 8 bits, full over the rectangle x, y, width, height of the layer.
    Full(i64, i64, u32, u32),
    /// 8 bits, rising from 0 at its left edge.
    Soft(i64, i64, u32, u32),
    /// Floats with NaN, negative, tiny and too large ones among them.
    Odd(i64, i64, u32, u32),
}
use M::{Full, No, Odd, Soft};
use Space::{Linear, Lut, Srgb, Wide, WideLinear};

struct Case(
    &'static str,
    S,
    C,
    A,
    /// x, y, width, height.
    (i64, i64, u32, u32),
    /// Bytes between rows, and whether the buffer is bottom-up.
    (usize, bool),
    Space,
    M,
);

#[rustfmt::skip]
const CASES: [Case; 60] = [
    Case("one grey byte", S::U8, C::Gray, A::None, (0, 0, 1, 1), (0, false), Srgb, No),
    Case("one pixel of RGBA", S::U8, C::Rgba, A::Straight, (0, 0, 1, 1), (0, false), Srgb, No),
    Case("one pixel of half floats", S::F16, C::Rgb, A::None, (0, 0, 1, 1), (0, false), Linear, No),
    Case("one row", S::U8, C::Rgb, A::None, (0, 0, 97, 1), (0, false), Srgb, No),
    Case("one row, bottom-up", S::U8, C::Rgb, A::None, (0, 0, 97, 1), (5, true), Srgb, No),
    Case("one column", S::U8, C::Rgb, A::None, (0, 0, 1, 97), (0, false), Srgb, No),
    Case("one column with padding", S::U16, C::Rgba, A::Straight, (0, 0, 1, 97), (13, false), Srgb, No),
    Case("one column, bottom-up", S::F32, C::Gray, A::None, (0, 0, 1, 50), (3, true), Srgb, No),
    Case("two by two", S::U16, C::GrayAlpha, A::Premultiplied, (0, 0, 2, 2), (0, false), Srgb, No),
    Case("a panorama of 40 to 1", S::U8, C::Rgb, A::None, (0, 0, 400, 10), (0, false), Srgb, No),
    Case("a tower of 1 to 40", S::U8, C::Rgb, A::None, (0, 0, 10, 400), (0, false), Srgb, No),
    Case("odd rows of three bytes", S::U8, C::Rgb, A::None, (0, 0, 33, 17), (1, false), Srgb, No),
    Case("rows that start unaligned", S::F32, C::Rgba, A::Straight, (0, 0, 21, 15), (7, false), Srgb, No),
    Case("unaligned sixteen bits", S::U16, C::Rgb, A::None, (0, 0, 21, 15), (1, false), Srgb, No),
    Case("unaligned half floats, bottom-up", S::F16, C::Rgba, A::Premultiplied, (0, 0, 21, 15), (3, true), Linear, No),
    Case("Qt's premultiplied BGRA", S::U8, C::Bgra, A::Premultiplied, (0, 0, 40, 30), (0, false), Srgb, No),
    Case("Cairo's BGRA with padded rows", S::U8, C::Bgra, A::Premultiplied, (0, 0, 41, 30), (12, false), Srgb, No),
    Case("Krita's BGRA at 16 bits", S::U16, C::Bgra, A::Straight, (0, 0, 40, 30), (0, false), Srgb, No),
    Case("macOS's ARGB", S::U8, C::Argb, A::Premultiplied, (0, 0, 40, 30), (24, false), Wide, No),
    Case("After Effects' ARGB in floats", S::F32, C::Argb, A::Straight, (0, 0, 40, 30), (0, false), Linear, No),
    Case("OpenFX, bottom-up and premultiplied", S::F32, C::Rgba, A::Premultiplied, (0, 0, 40, 30), (0, true), Linear, No),
    Case("OpenFX, an odd window", S::F32, C::Rgba, A::Premultiplied, (-17, 9, 31, 23), (16, true), Linear, No),
    Case("GIMP's linear half floats", S::F16, C::Rgba, A::Straight, (0, 0, 40, 30), (0, false), Linear, No),
    Case("GIMP's perceptual floats", S::F32, C::Rgba, A::Straight, (0, 0, 40, 30), (0, false), Srgb, No),
    Case("GEGL's premultiplied linear floats", S::F32, C::Rgba, A::Premultiplied, (0, 0, 40, 30), (0, false), Linear, No),
    Case("a grey layer", S::U8, C::Gray, A::None, (0, 0, 40, 30), (0, false), Srgb, No),
    Case("a grey layer at 16 bits", S::U16, C::Gray, A::None, (0, 0, 40, 30), (2, false), Srgb, No),
    Case("a grey layer in linear floats", S::F32, C::Gray, A::None, (0, 0, 40, 30), (0, false), Linear, No),
    Case("a grey layer with a gamma of its own", S::U8, C::Gray, A::None, (0, 0, 40, 30), (0, false), Wide, No),
    Case("grey and alpha", S::U8, C::GrayAlpha, A::Straight, (0, 0, 40, 30), (0, false), Srgb, No),
    Case("grey and premultiplied alpha", S::U8, C::GrayAlpha, A::Premultiplied, (0, 0, 40, 30), (0, false), Srgb, No),
    Case("grey and alpha with a profile", S::U16, C::GrayAlpha, A::Straight, (0, 0, 40, 30), (6, true), Wide, No),
    Case("half-float grey and alpha", S::F16, C::GrayAlpha, A::Premultiplied, (0, 0, 40, 30), (0, false), Linear, No),
    Case("wide gamut at 8 bits", S::U8, C::Rgb, A::None, (0, 0, 40, 30), (0, false), Wide, No),
    Case("wide gamut at 16 bits with alpha", S::U16, C::Rgba, A::Straight, (0, 0, 40, 30), (0, false), Wide, No),
    Case("wide gamut in floats beyond 1", S::F32, C::Rgb, A::None, (0, 0, 40, 30), (0, false), Wide, No),
    Case("scene-linear floats of a renderer", S::F32, C::Rgba, A::Premultiplied, (0, 0, 40, 30), (0, false), WideLinear, No),
    Case("scene-linear half floats", S::F16, C::Rgb, A::None, (0, 0, 40, 30), (0, false), WideLinear, No),
    Case("a scanner's look-up table", S::U8, C::Rgb, A::None, (0, 0, 40, 30), (0, false), Lut, No),
    Case("a look-up table at 16 bits", S::U16, C::Rgba, A::Straight, (0, 0, 40, 30), (4, false), Lut, No),
    Case("a look-up table on floats beyond 1", S::F32, C::Rgb, A::None, (0, 0, 40, 30), (0, false), Lut, No),
    Case("a layer left of and above the canvas", S::U8, C::Rgba, A::Straight, (-300, -200, 40, 30), (0, false), Srgb, No),
    Case("a layer far outside the canvas", S::U8, C::Rgb, A::None, (1 << 39, -(1 << 39), 40, 30), (0, false), Srgb, No),
    Case("a selection in the middle", S::U8, C::Rgba, A::Straight, (0, 0, 60, 50), (0, false), Srgb, Full(20, 15, 25, 20)),
    Case("a soft selection", S::U16, C::Rgb, A::None, (0, 0, 60, 50), (0, false), Srgb, Soft(5, 5, 50, 40)),
    Case("a selection of one pixel", S::U8, C::Rgb, A::None, (0, 0, 60, 50), (0, false), Srgb, Full(31, 7, 1, 1)),
    Case("a selection of the last pixel", S::U8, C::Bgra, A::Straight, (0, 0, 60, 50), (3, true), Srgb, Full(59, 49, 1, 1)),
    Case("a selection of one column", S::F32, C::Rgb, A::None, (0, 0, 60, 50), (0, false), Srgb, Full(12, 0, 1, 50)),
    Case("a selection larger than the layer", S::U8, C::Rgb, A::None, (0, 0, 40, 30), (0, false), Srgb, Full(-50, -50, 200, 200)),
    Case("a selection half beside the layer", S::U8, C::Rgb, A::None, (0, 0, 40, 30), (0, false), Srgb, Soft(-20, 10, 40, 40)),
    Case("a selection that meets a corner", S::U16, C::Rgba, A::Premultiplied, (10, 10, 40, 30), (0, false), Srgb, Full(0, 0, 12, 12)),
    Case("a selection on a moved layer", S::U8, C::Argb, A::Straight, (-25, 70, 60, 50), (5, false), Srgb, Soft(-10, 80, 30, 20)),
    Case("a float selection with NaN", S::U8, C::Rgba, A::Straight, (0, 0, 60, 50), (0, false), Srgb, Odd(3, 4, 50, 40)),
    Case("a float selection on linear floats", S::F32, C::Rgba, A::Premultiplied, (0, 0, 60, 50), (0, true), Linear, Odd(3, 4, 50, 40)),
    Case("a float selection under a profile", S::U16, C::Rgb, A::None, (0, 0, 60, 50), (0, false), Wide, Odd(0, 0, 60, 50)),
    Case("a selection under a look-up table", S::U8, C::Rgba, A::Straight, (0, 0, 60, 50), (0, false), Lut, Soft(10, 10, 30, 30)),
    Case("a selection on grey", S::U8, C::Gray, A::None, (0, 0, 60, 50), (0, false), Srgb, Soft(10, 10, 30, 30)),
    Case("a selection of a panorama's end", S::U8, C::Rgb, A::None, (0, 0, 500, 20), (0, false), Srgb, Full(480, 0, 20, 20)),
    Case("a selection of a tower's foot", S::U8, C::Rgb, A::None, (0, 0, 20, 500), (0, false), Srgb, Full(0, 480, 20, 20)),
    Case("half floats under a soft selection", S::F16, C::Bgra, A::Premultiplied, (7, -7, 60, 50), (2, false), Linear, Soft(0, 0, 40, 30)),
];

impl M {
    /// Its rectangle and samples, where there is one.
    fn data(self) -> Option<(Rect, MaskSamples, Vec<u8>)> {
        let place = |x, y, width, height| Rect {
            x,
            y,
            width,
            height,
        };
        match self {
            No => None,
            Full(x, y, w, h) => {
                let ones = vec![255; (w * h) as usize];
                Some((place(x, y, w, h), MaskSamples::U8, ones))
            }
            Soft(x, y, w, h) => {
                let rising = (0..w * h).map(|i| (i % w * 255 / w) as u8);
                Some((place(x, y, w, h), MaskSamples::U8, rising.collect()))
            }
            Odd(x, y, w, h) => {
                let odd = [f32::NAN, -3.0, 1e-30, 0.0, 0.5, 1.0, 7.0, f32::INFINITY];
                let samples = (0..w * h).flat_map(|i| odd[(i % 8) as usize].to_ne_bytes());
                Some((place(x, y, w, h), MaskSamples::F32, samples.collect()))
            }
        }
    }
}

fn engine() -> Engine {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny");
    Engine::new(EngineOptions {
        model: ModelChoice::Folder(folder.into()),
        threads: NonZeroUsize::new(2),
        ..EngineOptions::default()
    })
    .unwrap()
}

/// The layer after an edit of this strength.
fn edited(engine: &Engine, host: &Host, mask: Option<&MaskView<'_>>, strength: f32) -> Host {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/attributes/");
    let recipe = Recipe {
        steps: Some(2),
        identity_shortcut: IdentityShortcut::Off,
        ..Recipe::of(format!("{folder}sunset.toml"), strength)
    };
    let request = engine.read(&host.view(), mask, &recipe).unwrap();
    let edit = engine.run(&request, &Control::default()).unwrap();
    let mut out = host.clone();
    let tally = edit.render_in_place(&mut out.view_mut(), mask).unwrap();
    assert!(tally.changed <= tally.selected);
    assert_eq!(
        tally.changed + tally.kept,
        u64::from(host.rect.width) * u64::from(host.rect.height)
    );
    out
}

#[test]
fn sixty_hard_descriptors_keep_every_byte_that_an_edit_may_not_touch() {
    let engine = engine();
    let mut changed_somewhere = 0;
    for (i, Case(name, samples, order, alpha, place, (gap, upward), space, mask)) in
        CASES.into_iter().enumerate()
    {
        assert!(CASES[..i].iter().all(|case| case.0 != name), "{name} twice");
        let format = Format {
            samples,
            order,
            alpha,
        };
        let rect = Rect {
            x: place.0,
            y: place.1,
            width: place.2,
            height: place.3,
        };
        let host = Host::new(format, rect, gap, upward, space, i as u64);
        let data = mask.data();
        let mask = data.as_ref().map(|(rect, samples, data)| {
            let stride = i64::from(rect.width) * samples.bytes() as i64;
            MaskView::new(data, 0, stride, *rect, *samples).unwrap()
        });
        let same = edited(&engine, &host, mask.as_ref(), 0.0);
        assert!(same.data == host.data, "{name}: strength 0 changed a byte");

        let strong = edited(&engine, &host, mask.as_ref(), 2.0);
        assert!(strong.padding() == host.padding(), "{name}: padding");
        let mut changed = 0;
        for (x, y) in (0..rect.width).flat_map(|x| (0..rect.height).map(move |y| (x, y))) {
            let (old, new) = (host.pixel(x, y), strong.pixel(x, y));
            changed += u32::from(old != new);
            if let Some(alpha) = host.alpha_place() {
                assert_eq!(old[alpha.clone()], new[alpha.clone()], "{name}: alpha");
                let clear = old[alpha].iter().all(|b| *b == 0);
                assert!(!clear || old == new, "{name}: ({x}, {y}) is clear");
            }
            let at = (rect.x + i64::from(x), rect.y + i64::from(y));
            let selected = data.as_ref().is_none_or(|mask| selects(mask, at));
            assert!(selected || old == new, "{name}: ({x}, {y}) is not selected");
        }
        changed_somewhere += u32::from(changed > 0);
    }
    // A random model changes little, and a pixel without alpha not at all.
    assert!(changed_somewhere >= 50, "{changed_somewhere} of 60 changed");
}

/// Whether the mask is above 0 at a place of the layer.
fn selects((rect, samples, data): &(Rect, MaskSamples, Vec<u8>), (x, y): (i64, i64)) -> bool {
    let (x, y) = (x - rect.x, y - rect.y);
    if x < 0 || y < 0 || x >= i64::from(rect.width) || y >= i64::from(rect.height) {
        return false;
    }
    let at = y as usize * rect.width as usize + x as usize;
    match samples {
        MaskSamples::U8 => data[at] > 0,
        MaskSamples::F32 => data
            .as_chunks::<4>()
            .0
            .get(at)
            .is_some_and(|b| f32::from_ne_bytes(*b) > 0.0),
    }
}
