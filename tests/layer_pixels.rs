//! What a render may touch: every pixel format, stride, alpha state, offset and mask.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use half::f16;
use proptest::prelude::*;
use semblance::Code;
use semblance::layer::{
    AlphaState, Change, ChannelOrder, ColorSpace, Format, LayerView, LayerViewMut, MaskSamples,
    MaskView, Patch, Rect, SampleType, render, render_in_place,
};

const GRID: (u32, u32) = (16, 16);
const PADDING: u8 = 0xA5;

/// Deterministic numbers in 0..1 (SplitMix64).
struct Numbers(u64);
impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// A host's layer with its buffer.
#[derive(Clone, Debug)]
struct Host {
    data: Vec<u8>,
    first_row: usize,
    stride: i64,
    rect: Rect,
    format: Format,
    linear: bool,
}

impl Host {
    fn new(format: Format, rect: Rect, gap: usize, upward: bool, linear: bool, seed: u64) -> Host {
        let row = rect.width as usize * format.pixel_bytes();
        let pitch = row + gap;
        let height = rect.height as usize;
        let mut data = vec![PADDING; 3 + pitch * height];
        let (first_row, stride) = if upward {
            (3 + pitch * (height - 1), -(pitch as i64))
        } else {
            (3, pitch as i64)
        };
        let mut numbers = Numbers(seed);
        for r in 0..height {
            let start = (first_row as i64 + r as i64 * stride) as usize;
            for pixel in data[start..start + row].chunks_mut(format.pixel_bytes()) {
                fill_pixel(format, pixel, &mut numbers);
            }
        }
        Host {
            data,
            first_row,
            stride,
            rect,
            format,
            linear,
        }
    }

    fn color(&self) -> ColorSpace<'static> {
        if self.linear {
            ColorSpace::LinearSrgb
        } else {
            ColorSpace::Srgb
        }
    }

    fn view(&self) -> LayerView<'_> {
        let color = self.color();
        LayerView::new(
            &self.data,
            self.first_row,
            self.stride,
            self.rect,
            self.format,
            color,
        )
        .unwrap()
    }

    fn view_mut(&mut self) -> LayerViewMut<'_> {
        let color = self.color();
        LayerViewMut::new(
            &mut self.data,
            self.first_row,
            self.stride,
            self.rect,
            self.format,
            color,
        )
        .unwrap()
    }

    fn start(&self, x: u32, y: u32) -> usize {
        (self.first_row as i64 + i64::from(y) * self.stride) as usize
            + x as usize * self.format.pixel_bytes()
    }

    fn pixel(&self, x: u32, y: u32) -> &[u8] {
        let start = self.start(x, y);
        &self.data[start..start + self.format.pixel_bytes()]
    }

    fn padding(&self) -> Vec<u8> {
        let row = self.rect.width as usize * self.format.pixel_bytes();
        let mut rest = self.data.clone();
        for y in 0..self.rect.height {
            let start = self.start(0, y);
            rest[start..start + row].fill(PADDING);
        }
        rest
    }

    fn alpha_place(&self) -> Option<std::ops::Range<usize>> {
        let size = self.format.samples.bytes();
        let at = match self.format.order {
            ChannelOrder::Rgba | ChannelOrder::Bgra => 3,
            ChannelOrder::Argb => 0,
            ChannelOrder::GrayAlpha => 1,
            _ => return None,
        };
        Some(at * size..(at + 1) * size)
    }
}

fn put(samples: SampleType, v: f32, out: &mut [u8]) {
    match samples {
        SampleType::U8 => out[0] = (v * 255.0).round() as u8,
        SampleType::U16 => out.copy_from_slice(&((v * 65535.0).round() as u16).to_ne_bytes()),
        SampleType::F16 => out.copy_from_slice(&f16::from_f32(v).to_ne_bytes()),
        SampleType::F32 => out.copy_from_slice(&v.to_ne_bytes()),
    }
}

fn fill_pixel(format: Format, pixel: &mut [u8], numbers: &mut Numbers) {
    let float = matches!(format.samples, SampleType::F16 | SampleType::F32);
    let alpha = match (numbers.next() * 4.0) as u32 {
        0 => 0.0,
        1 => numbers.next(),
        _ => 1.0,
    };
    let odd = if float && numbers.next() < 0.05 {
        f32::NAN
    } else {
        1.0
    };
    let range = if float { 1.5 } else { 1.0 };
    for (c, sample) in pixel.chunks_mut(format.samples.bytes()).enumerate() {
        let is_alpha = match format.order {
            ChannelOrder::Rgba | ChannelOrder::Bgra => c == 3,
            ChannelOrder::Argb => c == 0,
            ChannelOrder::GrayAlpha => c == 1,
            _ => false,
        };
        let colour = numbers.next() * range * odd;
        let v = match (is_alpha, format.alpha) {
            (true, _) => alpha,
            (false, AlphaState::Premultiplied) => colour * alpha,
            (false, _) => colour,
        };
        put(format.samples, v, sample);
    }
}

fn formats() -> Vec<Format> {
    use {AlphaState as A, ChannelOrder as C, SampleType as S};
    let mut all = Vec::new();
    for samples in [S::U8, S::U16, S::F16, S::F32] {
        for order in [C::Rgb, C::Rgba, C::Bgra, C::Argb, C::Gray, C::GrayAlpha] {
            if order.has_alpha() {
                all.push(Format {
                    samples,
                    order,
                    alpha: A::Straight,
                });
                all.push(Format {
                    samples,
                    order,
                    alpha: A::Premultiplied,
                });
            } else {
                all.push(Format {
                    samples,
                    order,
                    alpha: A::None,
                });
            }
        }
    }
    all
}

/// An edit of random size and sign at the model's size.
fn change(seed: u64) -> Change {
    let mut numbers = Numbers(seed);
    let count = (GRID.0 * GRID.1 * 3) as usize;
    let recon: Vec<f32> = (0..count).map(|_| numbers.next()).collect();
    let edit: Vec<f32> = recon
        .iter()
        .map(|v| v * 0.5 + 0.5 * numbers.next())
        .collect();
    Change::fit(&recon, &edit, GRID.0 as usize, GRID.1 as usize, 2, 1e-3).unwrap()
}

fn no_change() -> Change {
    let picture: Vec<f32> = (0..GRID.0 * GRID.1 * 3)
        .map(|i| (i % 97) as f32 / 96.0)
        .collect();
    Change::fit(
        &picture,
        &picture,
        GRID.0 as usize,
        GRID.1 as usize,
        2,
        1e-3,
    )
    .unwrap()
}

fn host() -> impl Strategy<Value = Host> {
    (
        0..formats().len(),
        1u32..40,
        1u32..30,
        -50i64..50,
        -50i64..50,
        0usize..9,
        any::<bool>(),
        any::<bool>(),
        any::<u64>(),
    )
        .prop_map(|(f, width, height, x, y, gap, upward, linear, seed)| {
            let rect = Rect {
                x,
                y,
                width,
                height,
            };
            Host::new(formats()[f], rect, gap, upward, linear, seed)
        })
}

/// A mask over a part of the layer, possibly reaching beyond it.
fn mask_for(host: &Host, seed: u64, samples: MaskSamples) -> (Vec<u8>, Rect) {
    let mut numbers = Numbers(seed);
    let rect = Rect {
        x: host.rect.x + (numbers.next() * 10.0) as i64 - 5,
        y: host.rect.y + (numbers.next() * 10.0) as i64 - 5,
        width: 1 + (numbers.next() * host.rect.width as f32) as u32,
        height: 1 + (numbers.next() * host.rect.height as f32) as u32,
    };
    let mut data = Vec::new();
    for _ in 0..rect.width * rect.height {
        let v = match (numbers.next() * 3.0) as u32 {
            0 => 0.0,
            1 => numbers.next(),
            _ => 1.0,
        };
        match samples {
            MaskSamples::U8 => data.push((v * 255.0) as u8),
            MaskSamples::F32 => data.extend((if v == 0.0 { f32::NAN } else { v }).to_ne_bytes()),
        }
    }
    (data, rect)
}

fn mask_view<'a>(data: &'a [u8], rect: Rect, samples: MaskSamples) -> MaskView<'a> {
    let stride = i64::from(rect.width) * samples.bytes() as i64;
    MaskView::new(data, 0, stride, rect, samples).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_change_of_nothing_gives_back_every_byte(mut host in host()) {
        let patch = Patch::read(&host.view(), None, &[GRID]).unwrap();
        let before = host.data.clone();
        let tally = render_in_place(&no_change(), patch.placement(), &mut host.view_mut(), None).unwrap();
        prop_assert_eq!(&before, &host.data);
        prop_assert_eq!(tally.changed, 0);
        prop_assert_eq!(tally.kept, u64::from(host.rect.width) * u64::from(host.rect.height));
    }

    #[test]
    fn alpha_padding_dead_and_unmasked_pixels_keep_their_bytes(
        mut host in host(), seed in any::<u64>(), float_mask in any::<bool>()
    ) {
        let samples = if float_mask { MaskSamples::F32 } else { MaskSamples::U8 };
        let (data, rect) = mask_for(&host, seed, samples);
        let mask = mask_view(&data, rect, samples);
        let patch = match Patch::read(&host.view(), Some(&mask), &[GRID]) {
            Ok(patch) => patch,
            Err(e) => {
                prop_assert_eq!(e.code(), Code::InvalidMask);
                return Ok(());
            }
        };
        prop_assert!(patch.pixels().iter().all(|v| (0.0..=1.0).contains(v)));
        let before = host.clone();
        let tally = render_in_place(&change(seed), patch.placement(), &mut host.view_mut(), Some(&mask)).unwrap();
        prop_assert_eq!(before.padding(), host.padding());
        let mut changed = 0;
        for y in 0..host.rect.height {
            for x in 0..host.rect.width {
                let (old, new) = (before.pixel(x, y), host.pixel(x, y));
                changed += u64::from(old != new);
                let (mx, my) = (host.rect.x + i64::from(x) - rect.x, host.rect.y + i64::from(y) - rect.y);
                let inside = mx >= 0 && my >= 0 && mx < i64::from(rect.width) && my < i64::from(rect.height);
                let at = if inside { my as usize * rect.width as usize + mx as usize } else { 0 };
                let masked = inside && match samples {
                    MaskSamples::U8 => data[at] > 0,
                    MaskSamples::F32 => f32::from_ne_bytes(data[at * 4..at * 4 + 4].try_into().unwrap()) > 0.0,
                };
                let mut keep = !masked;
                if let Some(alpha) = host.alpha_place() {
                    prop_assert_eq!(&old[alpha.clone()], &new[alpha.clone()], "alpha");
                    keep |= old[alpha].iter().all(|&b| b == 0);
                }
                let numbers: Vec<f32> = match host.format.samples {
                    SampleType::F32 => old.chunks(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect(),
                    SampleType::F16 => old.chunks(2).map(|b| f16::from_ne_bytes(b.try_into().unwrap()).to_f32()).collect(),
                    _ => Vec::new(),
                };
                keep |= numbers.iter().any(|v| !v.is_finite());
                if keep {
                    prop_assert_eq!(old, new, "kept pixel {} {}", x, y);
                }
            }
        }
        prop_assert_eq!(changed, tally.changed);
    }

    #[test]
    fn tiles_equal_the_whole_byte_for_byte_at_any_thread_count(
        mut host in host(), seed in any::<u64>(), tile in 1u32..20, threads in 1usize..5
    ) {
        let patch = Patch::read(&host.view(), None, &[GRID, (24, 12), (12, 24)]).unwrap();
        let (gw, gh) = patch.placement().grid();
        let mut numbers = Numbers(seed);
        let recon: Vec<f32> = (0..gw * gh * 3).map(|_| numbers.next()).collect();
        let edit: Vec<f32> = (0..gw * gh * 3).map(|_| numbers.next()).collect();
        let change = Change::fit(&recon, &edit, gw as usize, gh as usize, 2, 1e-3).unwrap();
        let source = host.clone();
        let whole = render_in_place(&change, patch.placement(), &mut host.view_mut(), None).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut changed = 0;
        let size = host.format.pixel_bytes();
        for y in (0..host.rect.height).step_by(tile as usize) {
            for x in (0..host.rect.width).step_by(tile as usize) {
                let width = tile.min(host.rect.width - x);
                let height = tile.min(host.rect.height - y);
                let rect = Rect { x: host.rect.x + i64::from(x), y: host.rect.y + i64::from(y), width, height };
                let mut out = vec![0; (width * height) as usize * size];
                let stride = width as usize * size;
                let mut view = LayerViewMut::new(&mut out, 0, stride as i64, rect, host.format, host.color()).unwrap();
                let tally = pool.install(|| render(&change, patch.placement(), &source.view(), None, &mut view)).unwrap();
                changed += tally.changed;
                for (r, row) in out.chunks(stride).enumerate() {
                    let at = host.start(x, y + r as u32);
                    prop_assert_eq!(row, &host.data[at..at + stride]);
                }
            }
        }
        prop_assert_eq!(changed, whole.changed);
    }
}

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
    let mut host = Host::new(format, rect, 0, false, linear, 1);
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
    let host = Host::new(format, rect, 5, true, false, 9);
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
