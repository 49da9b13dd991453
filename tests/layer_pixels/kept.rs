//! Over random layers: the bytes that no render may touch, and tiles that equal the whole. Not for:
//! what is written where a render may (`values`).

use half::f16;
use proptest::prelude::*;
use semblance::Code;
use semblance::layer::{
    AlphaState, Change, ChannelOrder, Format, LayerViewMut, MaskSamples, MaskView, Patch, Rect,
    SampleType, render, render_in_place,
};

use crate::support::{GRID, Host, Numbers, SPACES};

pub fn formats() -> Vec<Format> {
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
pub fn change(seed: u64) -> Change {
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

/// A change of the left quarter alone.
fn half_a_change() -> Change {
    let (w, h) = (GRID.0 as usize, GRID.1 as usize);
    let recon: Vec<f32> = (0..3 * w * h).map(|i| (i % 97) as f32 / 96.0).collect();
    let mut edit = recon.clone();
    for (i, v) in edit.iter_mut().enumerate().filter(|(i, _)| i % w < w / 4) {
        *v = 1.0 - *v + (i % 7) as f32 * 0.01;
    }
    Change::fit(&recon, &edit, w, h, 1, 1e-3).unwrap()
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
        0..SPACES.len(),
        any::<u64>(),
    )
        .prop_map(|(f, width, height, x, y, gap, upward, space, seed)| {
            let rect = Rect {
                x,
                y,
                width,
                height,
            };
            Host::new(formats()[f], rect, gap, upward, SPACES[space], seed)
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
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_change_that_is_nothing_on_one_side_gives_back_every_byte_there(mut host in host()) {
        // Not the same as no change: here every pixel is computed, and must come out as it was.
        let patch = Patch::read(&host.view(), None, &[GRID]).unwrap();
        let before = host.clone();
        render_in_place(&half_a_change(), patch.placement(), &mut host.view_mut(), None).unwrap();
        prop_assert_eq!(before.padding(), host.padding());
        // The changed cells are 0..4, a fit reaches 2 further, its rest 1, and what reads a cell 2.
        let window = patch.placement().window();
        let cell = |x: u32| {
            let at = (host.rect.x + i64::from(x) - window.x) as f64 + 0.5;
            at * 16.0 / f64::from(window.width) - 0.5
        };
        let still = (0..host.rect.width).filter(|x| cell(*x) >= 9.0);
        for (x, y) in still.flat_map(|x| (0..host.rect.height).map(move |y| (x, y))) {
            prop_assert_eq!(before.pixel(x, y), host.pixel(x, y), "{} {}", x, y);
        }
    }

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
        let (mut changed, mut selected) = (0, 0);
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
                selected += u64::from(masked);
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
        prop_assert_eq!(selected, tally.selected);
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
