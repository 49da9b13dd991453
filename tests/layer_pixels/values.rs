//! On flat layers: the numbers that a patch reads and that a render writes. Not for: what it must
//! not touch (`kept`).

use half::f16;
use semblance::layer::{
    AlphaState, Change, ChannelOrder, Format, Patch, Rect, SampleType, render_in_place,
};

use crate::support::{GRID, Host, Space, put};

fn flat_host(
    samples: SampleType,
    order: ChannelOrder,
    alpha: AlphaState,
    linear: bool,
    pixel: &[f32],
) -> Host {
    let format = Format {
        samples,
        order,
        alpha,
    };
    let rect = Rect {
        x: 0,
        y: 0,
        width: 64,
        height: 48,
    };
    let space = if linear { Space::Linear } else { Space::Srgb };
    let mut host = Host::new(format, rect, 0, false, space, 1);
    let size = samples.bytes();
    for p in host.data[3..].chunks_mut(size * order.channels()) {
        for (s, v) in p.chunks_mut(size).zip(pixel) {
            put(samples, *v, s);
        }
    }
    host
}

fn offset(by: f32) -> Change {
    let count = (GRID.0 * GRID.1 * 3) as usize;
    let recon = vec![0.5; count];
    let edit = vec![0.5 + by; count];
    Change::difference(&recon, &edit, GRID.0 as usize, GRID.1 as usize).unwrap()
}

fn numbers(host: &Host) -> Vec<f32> {
    host.data[3..]
        .chunks(host.format.samples.bytes())
        .map(|b| match host.format.samples {
            SampleType::U8 => f32::from(b[0]) / 255.0,
            SampleType::U16 => f32::from(u16::from_ne_bytes(b.try_into().unwrap())) / 65535.0,
            SampleType::F16 => f16::from_ne_bytes(b.try_into().unwrap()).to_f32(),
            SampleType::F32 => f32::from_ne_bytes(b.try_into().unwrap()),
        })
        .collect()
}

fn apply(host: &mut Host, change: &Change) {
    let patch = Patch::read(&host.view(), None, &[GRID]).unwrap();
    render_in_place(change, patch.placement(), &mut host.view_mut(), None).unwrap();
}

#[test]
fn a_flat_offset_arrives_exactly_in_srgb_floats() {
    let mut host = flat_host(
        SampleType::F32,
        ChannelOrder::Rgb,
        AlphaState::None,
        false,
        &[0.2, 0.4, 0.6],
    );
    apply(&mut host, &offset(0.1));
    for p in numbers(&host).chunks(3) {
        for (v, want) in p.iter().zip([0.3, 0.5, 0.7]) {
            assert!((v - want).abs() < 1e-5, "{v} {want}");
        }
    }
}

#[test]
fn a_linear_layer_is_edited_in_encoded_values() {
    let linear = |v: f32| ((v + 0.055) / 1.055).powf(2.4);
    let pixel = [linear(0.2), linear(0.4), linear(0.6)];
    let mut host = flat_host(
        SampleType::F32,
        ChannelOrder::Rgb,
        AlphaState::None,
        true,
        &pixel,
    );
    apply(&mut host, &offset(0.1));
    for p in numbers(&host).chunks(3) {
        for (v, want) in p.iter().zip([0.3, 0.5, 0.7]) {
            assert!((v - linear(want)).abs() < 1e-5, "{v} {want}");
        }
    }
}

#[test]
fn premultiplied_colour_moves_by_alpha_times_the_change() {
    let (a, p) = (0.5, AlphaState::Premultiplied);
    let mut host = flat_host(
        SampleType::F32,
        ChannelOrder::Rgba,
        p,
        false,
        &[0.2 * a, 0.4 * a, 0.6 * a, a],
    );
    apply(&mut host, &offset(0.1));
    for p in numbers(&host).chunks(4) {
        for (v, want) in p.iter().zip([0.15, 0.25, 0.35, 0.5]) {
            assert!((v - want).abs() < 1e-5, "{v} {want}");
        }
    }
}

#[test]
fn dither_keeps_the_mean_of_a_change_between_two_levels() {
    for quanta in [0.5, 0.75, 1.3, 10.9] {
        let by = quanta / 255.0;
        let mut host = flat_host(
            SampleType::U8,
            ChannelOrder::Rgb,
            AlphaState::None,
            false,
            &[0.4, 0.4, 0.4],
        );
        let before = numbers(&host);
        apply(&mut host, &offset(by + 1e-6));
        let after = numbers(&host);
        let mean = after
            .iter()
            .zip(&before)
            .map(|(a, b)| f64::from(a - b))
            .sum::<f64>()
            / after.len() as f64;
        assert!(
            (mean - f64::from(by)).abs() < 0.02 / 255.0,
            "{quanta}: {}",
            mean * 255.0
        );
    }
}

#[test]
fn a_slow_ramp_of_change_shows_no_bands() {
    // Four quanta over the width of a flat sky: rounding alone would paint steps of a whole quantum.
    let count = (GRID.0 * GRID.1) as usize;
    let recon = vec![0.5; 3 * count];
    let ramp = |i: usize| (i % GRID.0 as usize) as f32 / 15.0;
    let edit: Vec<f32> = (0..3 * count)
        .map(|i| 0.5 + (2.0 + 4.0 * ramp(i)) / 255.0)
        .collect();
    let change = Change::difference(&recon, &edit, 16, 16).unwrap();
    let sky = [0.6, 0.6, 0.6];
    let paint = |samples| {
        let mut host = flat_host(samples, ChannelOrder::Rgb, AlphaState::None, false, &sky);
        apply(&mut host, &change);
        numbers(&host)
    };
    let (bytes, exact) = (paint(SampleType::U8), paint(SampleType::F32));
    for x in (0..64).step_by(4) {
        let mean = |numbers: &[f32]| {
            let block = (0..48 * 4).map(|i| numbers[(i / 4 * 64 + x + i % 4) * 3]);
            block.map(f64::from).sum::<f64>() / 192.0
        };
        let off = (mean(&bytes) - mean(&exact)) * 255.0;
        assert!(off.abs() < 0.06, "columns from {x}: off by {off} quanta");
    }
}

#[test]
fn less_than_half_a_quantum_changes_no_byte() {
    for (samples, full) in [(SampleType::U8, 255.0), (SampleType::U16, 65535.0)] {
        let mut host = flat_host(
            samples,
            ChannelOrder::Rgb,
            AlphaState::None,
            false,
            &[0.4, 0.4, 0.4],
        );
        let before = host.data.clone();
        apply(&mut host, &offset(0.45 / full));
        assert_eq!(before, host.data);
    }
}

#[test]
fn a_change_never_pushes_a_float_colour_below_zero() {
    let mut host = flat_host(
        SampleType::F32,
        ChannelOrder::Rgb,
        AlphaState::None,
        false,
        &[0.05, -0.02, 0.4],
    );
    apply(&mut host, &offset(-0.2));
    for p in numbers(&host).chunks(3) {
        assert_eq!(p[0], 0.0);
        assert_eq!(p[1], -0.02, "what was below stays there");
        assert!((p[2] - 0.2).abs() < 1e-5);
    }
}

#[test]
fn highlights_beyond_white_scale_with_the_change() {
    let mut host = flat_host(
        SampleType::F32,
        ChannelOrder::Rgb,
        AlphaState::None,
        false,
        &[4.0, 4.0, 4.0],
    );
    apply(&mut host, &offset(-0.25));
    assert!(numbers(&host).iter().all(|v| (v - 3.0).abs() < 1e-4));
}

#[test]
fn integers_clamp_at_black_and_white() {
    for (by, want) in [(0.5, 1.0), (-0.5, 0.0)] {
        let mut host = flat_host(
            SampleType::U8,
            ChannelOrder::Rgb,
            AlphaState::None,
            false,
            &[0.8, 0.3, 0.6],
        );
        apply(&mut host, &offset(by));
        let after = numbers(&host);
        assert!(after.contains(&want) && after.iter().all(|v| (0.0..=1.0).contains(v)));
    }
}

#[test]
fn pixels_without_alpha_do_not_colour_the_patch() {
    let mut host = flat_host(
        SampleType::U8,
        ChannelOrder::Rgba,
        AlphaState::Straight,
        false,
        &[0.2, 0.4, 0.6, 1.0],
    );
    for (i, p) in host.data[3..].chunks_mut(4).enumerate() {
        if i % 64 > 20 {
            p.copy_from_slice(&[255, 0, 255, 0]);
        }
    }
    let patch = Patch::read(&host.view(), None, &[GRID]).unwrap();
    let count = patch.width() * patch.height();
    for (c, want) in [0.2, 0.4, 0.6].into_iter().enumerate() {
        for v in &patch.pixels()[c * count..(c + 1) * count] {
            assert!((v - want).abs() < 1e-5, "{v} {want}");
        }
    }
}

#[test]
fn a_patch_is_the_area_mean_of_the_layer() {
    let format = Format {
        samples: SampleType::U16,
        order: ChannelOrder::Rgb,
        alpha: AlphaState::None,
    };
    let rect = Rect {
        x: 0,
        y: 0,
        width: 64,
        height: 64,
    };
    let host = Host::new(format, rect, 5, true, Space::Srgb, 9);
    let patch = Patch::read(&host.view(), None, &[GRID]).unwrap();
    let mut sum = 0.0;
    for y in 20..24 {
        for x in 8..12 {
            let p = host.pixel(x, y);
            sum += f32::from(u16::from_ne_bytes([p[2], p[3]])) / 65535.0;
        }
    }
    let got = patch.pixels()[16 * 16 + 5 * 16 + 2];
    assert!((got - sum / 16.0).abs() < 1e-5, "{got} {}", sum / 16.0);
}

#[test]
fn equal_pictures_have_equal_hashes_in_any_format() {
    let rgb = flat_host(
        SampleType::U8,
        ChannelOrder::Rgb,
        AlphaState::None,
        false,
        &[0.2, 0.4, 0.6],
    );
    let bgra = flat_host(
        SampleType::U8,
        ChannelOrder::Bgra,
        AlphaState::Straight,
        false,
        &[0.6, 0.4, 0.2, 1.0],
    );
    let other = flat_host(
        SampleType::U8,
        ChannelOrder::Rgb,
        AlphaState::None,
        false,
        &[0.2, 0.4, 0.7],
    );
    let hash = |host: &Host| *Patch::read(&host.view(), None, &[GRID]).unwrap().hash();
    assert_eq!(hash(&rgb), hash(&bgra));
    assert_ne!(hash(&rgb), hash(&other));
}
