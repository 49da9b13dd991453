//! The same edit through another depth or profile: within one quantum of the edit in sRGB floats.
//! Not for: profiles that are refused (`tests/layer_views.rs`).

use semblance::layer::{
    AlphaState, Change, ChannelOrder, ColorSpace, Format, LayerView, LayerViewMut, Patch, Rect,
    SampleType, render_in_place,
};

use crate::profiles::{LUT, P3, WIDE_LINEAR, converted};

const RECT: Rect = Rect {
    x: 0,
    y: 0,
    width: 96,
    height: 64,
};
/// One quantum of 16 bits.
const QUANTUM: f32 = 1.0 / 65535.0;

/// Waves of colour within sRGB, away from its edges.
fn picture() -> Vec<f32> {
    let count = RECT.width * RECT.height;
    let wave = |i: u32, c: u32| {
        let (x, y) = (i % RECT.width, i / RECT.width);
        0.45 + 0.3 * (x as f32 * 0.09 + y as f32 * 0.13 + c as f32 * 1.7).sin()
    };
    (0..3 * count).map(|i| wave(i / 3, i % 3)).collect()
}

/// A warm, darkening change that varies over the picture; the same for every layer.
fn change() -> Change {
    let count = 16 * 16;
    let recon: Vec<f32> = (0..3 * count)
        .map(|i| 0.5 + 0.3 * ((i % 16) as f32 * 0.6 + (i / 16 % 16) as f32 * 0.4).sin())
        .collect();
    let edit: Vec<f32> = recon
        .iter()
        .enumerate()
        .map(|(i, v)| v * [0.95, 0.8, 0.65][i / count] + 0.04 * (i % 16) as f32 / 16.0)
        .collect();
    Change::fit(&recon, &edit, 16, 16, 4, 1e-3).unwrap()
}

/// The numbers of `layer` after the change.
fn edited(samples: SampleType, color: ColorSpace<'_>, layer: &[f32]) -> Vec<f32> {
    let format = Format {
        samples,
        order: ChannelOrder::Rgb,
        alpha: AlphaState::None,
    };
    let mut data: Vec<u8> = match samples {
        SampleType::U16 => {
            let numbers = layer.iter().map(|v| (v * 65535.0).round() as u16);
            numbers.flat_map(u16::to_ne_bytes).collect()
        }
        _ => layer.iter().flat_map(|v| v.to_ne_bytes()).collect(),
    };
    let stride = data.len() as i64 / i64::from(RECT.height);
    let view = LayerView::new(&data, 0, stride, RECT, format, color).unwrap();
    let patch = Patch::read(&view, None, &[(16, 16)]).unwrap();
    let mut view = LayerViewMut::new(&mut data, 0, stride, RECT, format, color).unwrap();
    render_in_place(&change(), patch.placement(), &mut view, None).unwrap();
    match samples {
        SampleType::U16 => {
            let numbers = data.as_chunks::<2>().0.iter();
            numbers
                .map(|b| f32::from(u16::from_ne_bytes(*b)) * QUANTUM)
                .collect()
        }
        _ => {
            let numbers = data.as_chunks::<4>().0.iter();
            numbers.map(|b| f32::from_ne_bytes(*b)).collect()
        }
    }
}

fn largest(a: &[f32], b: &[f32]) -> f32 {
    a.iter()
        .zip(b)
        .fold(0.0, |most, (a, b)| most.max((a - b).abs()))
}

/// What 16 bits hold of it.
fn rounded(numbers: &[f32]) -> Vec<f32> {
    numbers
        .iter()
        .map(|v| (v * 65535.0).round() * QUANTUM)
        .collect()
}

#[track_caller]
fn within(what: &str, quanta: f32, a: &[f32], b: &[f32]) {
    let off = largest(a, b) / QUANTUM;
    println!("{what}: off by {off:.2} quanta of 16 bits");
    assert!(off <= quanta, "{what}: {off} quanta of 16 bits");
}

#[test]
fn sixteen_bits_are_within_one_quantum_of_floats() {
    let layer = rounded(&picture());
    let floats = edited(SampleType::F32, ColorSpace::Srgb, &layer);
    assert!(largest(&floats, &layer) > 0.1, "the edit is none");
    let deep = edited(SampleType::U16, ColorSpace::Srgb, &layer);
    within("u16", 1.01, &deep, &floats);
}

#[test]
fn linear_floats_are_within_one_quantum_of_encoded_floats() {
    let encode = |v: &f32| match *v <= 0.003_130_8 {
        true => 12.92 * v,
        false => 1.055 * v.powf(1.0 / 2.4) - 0.055,
    };
    let decode = |v: &f32| match *v <= 0.040_45 {
        true => v / 12.92,
        false => ((v + 0.055) / 1.055).powf(2.4),
    };
    let layer = picture();
    let linear: Vec<f32> = layer.iter().map(decode).collect();
    let out = edited(SampleType::F32, ColorSpace::LinearSrgb, &linear);
    let back: Vec<f32> = out.iter().map(encode).collect();
    let floats = edited(SampleType::F32, ColorSpace::Srgb, &layer);
    within("linear f32", 1.0, &back, &floats);
}

#[test]
fn a_wide_gamut_profile_is_within_one_quantum_of_srgb() {
    let layer = picture();
    let floats = edited(SampleType::F32, ColorSpace::Srgb, &layer);
    for (name, profile) in [("P3", &*P3), ("linear ACEScg", &*WIDE_LINEAR)] {
        let wide = converted(profile, false, &layer);
        let out = edited(SampleType::F32, ColorSpace::Icc(profile), &wide);
        within(name, 1.0, &converted(profile, true, &out), &floats);
    }
    // In 16 bits: the same edit of the same rounded numbers, in the profile's own quanta.
    let wide = rounded(&converted(&P3, false, &layer));
    let floats = edited(SampleType::F32, ColorSpace::Icc(&P3), &wide);
    let deep = edited(SampleType::U16, ColorSpace::Icc(&P3), &wide);
    within("P3 u16", 1.01, &deep, &floats);
}

#[test]
fn a_look_up_table_profile_gives_the_edit_of_srgb_as_near_as_its_tables_are() {
    let layer = picture();
    let floats = edited(SampleType::F32, ColorSpace::Srgb, &layer);
    let native = converted(&LUT, false, &layer);
    // What the tables themselves lose on the way there and back.
    let own = largest(&converted(&LUT, true, &native), &layer);
    let out = edited(SampleType::F32, ColorSpace::Icc(&LUT), &native);
    let off = largest(&converted(&LUT, true, &out), &floats);
    println!("tables: {own:.5} there and back, edit off by {off:.5}");
    assert!(own < 0.08 && off < own + 0.01, "{own} {off}");
}

#[test]
fn beyond_white_a_profile_keeps_what_the_edit_does_not_touch() {
    for profile in [&*P3, &*WIDE_LINEAR, &*LUT] {
        let layer: Vec<f32> = picture().iter().map(|v| v * 6.0).collect();
        let out = edited(SampleType::F32, ColorSpace::Icc(profile), &layer);
        assert!(out.iter().all(|v| v.is_finite()));
    }
}
