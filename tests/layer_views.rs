//! Bad descriptions of layers and masks are refused with what, value, range and hint; and which part
//! of a layer the model sees.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use semblance::Code;
use semblance::layer::{
    AlphaState, ChannelOrder, ColorSpace, Format, LayerView, MaskSamples, MaskView, Patch, Rect,
    SampleType,
};

const RGBA: Format = Format {
    samples: SampleType::U8,
    order: ChannelOrder::Rgba,
    alpha: AlphaState::Straight,
};
const RGB: Format = Format {
    samples: SampleType::U8,
    order: ChannelOrder::Rgb,
    alpha: AlphaState::None,
};

fn rect(width: u32, height: u32) -> Rect {
    Rect {
        x: 0,
        y: 0,
        width,
        height,
    }
}

#[test]
fn bad_layers_are_refused_with_the_value_and_the_range() {
    let data = vec![0u8; 4096];
    let straight = |order| Format { order, ..RGBA };
    #[rustfmt::skip]
    let cases: [(&str, usize, i64, Rect, Format); 19] = [
        ("width = 0: must be 1..=300000", 0, 16, rect(0, 4), RGBA),
        ("height = 0: must be 1..=300000", 0, 16, rect(4, 0), RGBA),
        ("width = 300001: must be", 0, 16, rect(300_001, 1), RGBA),
        ("height = 4294967295: must be", 0, 16, rect(1, u32::MAX), RGBA),
        ("= 90000000000 pixels: must be at most", 0, 16, rect(300_000, 300_000), RGBA),
        ("x = 9223372036854775807: must be", 0, 16, Rect { x: i64::MAX, ..rect(4, 4) }, RGBA),
        ("y = -9223372036854775808: must be", 0, 16, Rect { y: i64::MIN, ..rect(4, 4) }, RGBA),
        ("row_stride = 15: its size must be at least 16", 0, 15, rect(4, 4), RGBA),
        ("row_stride = -15: its size", 64, -15, rect(4, 4), RGBA),
        ("row_stride = 0: its size", 0, 0, rect(4, 4), RGBA),
        ("must be within 0..4096", 0, 16, rect(4, 257), RGBA),
        ("must be within 0..4096", 1, 16, rect(4, 256), RGBA),
        ("must be within 0..4096", 4095, 16, rect(1, 1), RGBA),
        ("must be within 0..4096", usize::MAX, 16, rect(1, 1), RGBA),
        ("must be within 0..4096", 0, i64::MAX, rect(1, 3), RGBA),
        ("must be within 0..4096", 0, i64::MIN, rect(1, 3), RGBA),
        ("must be within 0..4096", 0, -16, rect(4, 2), RGBA),
        ("alpha = None with order Rgba: must be Straight or Premultiplied", 0, 16, rect(4, 4), Format { alpha: AlphaState::None, ..RGBA }),
        ("alpha = set with order Rgb: must be None", 0, 16, rect(4, 4), straight(ChannelOrder::Rgb)),
    ];
    for (text, first, stride, rect, format) in cases {
        let error =
            LayerView::new(&data, first, stride, rect, format, ColorSpace::Srgb).unwrap_err();
        assert_eq!(error.code(), Code::InvalidLayer);
        assert!(error.message().contains(text), "{error} / {text}");
        assert!(
            !error.hint().is_empty() && !error.parameter().is_empty(),
            "{error}"
        );
    }
    let mask = MaskView::new(&data, 0, 3, rect(4, 4), MaskSamples::U8).unwrap_err();
    assert_eq!(mask.code(), Code::InvalidMask);
}

#[test]
fn one_row_may_come_with_any_stride() {
    let data = vec![0u8; 16];
    for stride in [0, 1, -1, i64::MAX, i64::MIN] {
        LayerView::new(&data, 0, stride, rect(4, 1), RGBA, ColorSpace::Srgb).unwrap();
    }
}

#[test]
fn the_last_row_needs_no_padding() {
    let data = vec![0u8; 20 * 3 + 16];
    LayerView::new(&data, 0, 20, rect(4, 4), RGBA, ColorSpace::Srgb).unwrap();
    LayerView::new(&data, 60, -20, rect(4, 4), RGBA, ColorSpace::Srgb).unwrap();
}

#[test]
fn a_profile_of_another_kind_or_none_at_all_is_refused() {
    let data = vec![0u8; 16 * 4];
    let gray = moxcms::ColorProfile::new_gray_with_gamma(2.2)
        .encode()
        .unwrap();
    let mut cut = moxcms::ColorProfile::new_display_p3().encode().unwrap();
    cut.truncate(200);
    for (icc, text) in [
        (&gray[..], "the layer's pixels are RGB"),
        (&cut[..], "ICC profile of 200 bytes"),
        (&[][..], "ICC profile of 0 bytes"),
        (&vec![0; 9 << 20][..], "must be at most"),
    ] {
        let layer = LayerView::new(&data, 0, 16, rect(4, 4), RGBA, ColorSpace::Icc(icc)).unwrap();
        let error = Patch::read(&layer, None, &[(16, 16)]).unwrap_err();
        assert_eq!(error.code(), Code::InvalidLayer);
        assert!(error.message().contains(text), "{error}");
        assert!(!error.hint().is_empty());
    }
}

fn region(layer: Rect, part: Option<Rect>) -> (Rect, Rect, (u32, u32)) {
    let data = vec![9u8; layer.width as usize * layer.height as usize * 3];
    let stride = i64::from(layer.width) * 3;
    let view = LayerView::new(&data, 0, stride, layer, RGB, ColorSpace::Srgb).unwrap();
    let grids = [(128, 128), (184, 88), (88, 184)];
    let ones = part.map(|p| (vec![255u8; (p.width * p.height) as usize], p));
    let mask = ones
        .as_ref()
        .map(|(d, p)| MaskView::new(d, 0, i64::from(p.width), *p, MaskSamples::U8).unwrap());
    let patch = Patch::read(&view, mask.as_ref(), &grids).unwrap();
    let place = patch.placement();
    (place.region(), place.window(), place.grid())
}

#[test]
fn without_a_mask_the_model_sees_the_whole_layer() {
    let layer = Rect {
        x: 7,
        y: -3,
        width: 500,
        height: 400,
    };
    assert_eq!(region(layer, None), (layer, layer, (128, 128)));
    assert_eq!(
        region(rect(800, 400), None),
        (rect(800, 400), rect(800, 400), (184, 88))
    );
    assert_eq!(region(rect(1, 1), None).0, rect(1, 1));
}

#[test]
fn a_mask_gets_a_margin_and_the_models_shape_inside_the_layer() {
    let part = Rect {
        x: 500,
        y: 500,
        width: 200,
        height: 200,
    };
    let (region_, window, grid) = region(rect(1000, 1000), Some(part));
    assert_eq!(
        region_,
        Rect {
            x: 450,
            y: 450,
            width: 300,
            height: 300
        }
    );
    assert_eq!((window, grid), (region_, (128, 128)));
    let corner = Rect {
        x: 0,
        y: 990,
        width: 10,
        height: 10,
    };
    assert_eq!(
        region(rect(1000, 1000), Some(corner)).0,
        Rect {
            x: 0,
            y: 872,
            width: 128,
            height: 128
        }
    );
}

#[test]
fn a_panorama_is_mirrored_rather_than_squashed() {
    let (region, window, grid) = region(rect(4000, 500), None);
    assert_eq!((region, grid), (rect(4000, 500), (184, 88)));
    let squash = (f64::from(window.width) / 184.0) / (f64::from(window.height) / 88.0);
    assert!((squash - 1.3).abs() < 0.01, "{squash}");
    assert!(window.y < 0 && window.y + i64::from(window.height) > 500);
}
