//! A preview is the same edit on a reduced copy of the layer. Not for: jobs that supersede each other
//! (`ffi/plugin/tests`).

use semblance::layer::{
    AlphaState, Change, ChannelOrder, ColorSpace, Format, LayerView, LayerViewMut, MaskSamples,
    MaskView, Patch, Rect, SampleType, copy_pixels, render_in_place, render_reduced,
};

const RGB: Format = Format {
    samples: SampleType::F32,
    order: ChannelOrder::Rgb,
    alpha: AlphaState::None,
};

fn rect(x: i64, y: i64, width: u32, height: u32) -> Rect {
    Rect {
        x,
        y,
        width,
        height,
    }
}

/// Waves, and grain that a reduction averages out; bright, because what would go below black is cut at
/// every pixel, and that is no mean.
fn layer(width: u32, height: u32) -> Vec<f32> {
    let pixel = |i: u32| {
        let (x, y, c) = (i / 3 % width, i / 3 / width, i % 3);
        let wave = (x as f32 * 0.021 + y as f32 * 0.034 + c as f32).sin();
        0.65 + 0.2 * wave + 0.05 * (((x * 7 + y * 13) % 5) as f32 / 2.0 - 1.0)
    };
    (0..3 * width * height).map(pixel).collect()
}

/// Means over squares of `by` pixels.
fn reduced(picture: &[f32], width: usize, by: usize) -> Vec<f32> {
    let (w, h) = (width / by, picture.len() / 3 / width / by);
    let mean = |i: usize| {
        let (x, y, c) = (i / 3 % w, i / 3 / w, i % 3);
        let square = (0..by * by).map(|k| {
            let (x, y) = (x * by + k % by, y * by + k / by);
            picture[(y * width + x) * 3 + c]
        });
        square.sum::<f32>() / (by * by) as f32
    };
    (0..3 * w * h).map(mean).collect()
}

fn bytes(picture: &[f32]) -> Vec<u8> {
    picture.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    let all = bytes.as_chunks::<4>().0.iter();
    all.map(|b| f32::from_ne_bytes(*b)).collect()
}

fn change() -> Change {
    let wave = |i: usize| 0.5 + 0.3 * ((i % 16) as f32 * 0.5 + (i / 16 % 16) as f32 * 0.8).sin();
    let recon: Vec<f32> = (0..768).map(wave).collect();
    let edit: Vec<f32> = (0..768)
        .map(|i| recon[i] * [0.9, 0.7, 0.5][i / 256] + 0.05 * (i % 16) as f32 / 16.0)
        .collect();
    Change::fit(&recon, &edit, 16, 16, 3, 1e-3).unwrap()
}

/// The pixels of `part` of the copy `small` (at `whole`), which shows `of` the layer.
fn preview(
    patch: &Patch,
    of: Rect,
    (small, whole): (&[u8], Rect),
    part: Rect,
    mask: Option<&MaskView<'_>>,
) -> Vec<u8> {
    let stride = i64::from(whole.width) * 12;
    let src = LayerView::new(small, 0, stride, whole, RGB, ColorSpace::Srgb).unwrap();
    let mut out = vec![0; part.width as usize * part.height as usize * 12];
    let stride = i64::from(part.width) * 12;
    let mut dst = LayerViewMut::new(&mut out, 0, stride, part, RGB, ColorSpace::Srgb).unwrap();
    copy_pixels(&src, &mut dst).unwrap();
    render_reduced(&change(), patch.placement(), (of, whole), &mut dst, mask).unwrap();
    out
}

fn read(data: &[u8], whole: Rect) -> Patch {
    let stride = i64::from(whole.width) * 12;
    let view = LayerView::new(data, 0, stride, whole, RGB, ColorSpace::Srgb).unwrap();
    Patch::read(&view, None, &[(16, 16)]).unwrap()
}

#[test]
fn a_preview_is_what_the_rendered_layer_looks_like_reduced() {
    let (picture, whole) = (layer(512, 384), rect(40, -9, 512, 384));
    let mut data = bytes(&picture);
    let patch = read(&data, whole);
    let small = bytes(&reduced(&picture, 512, 4));
    let place = rect(0, 0, 128, 96);
    let shown = numbers(&preview(&patch, whole, (&small, place), place, None));
    let mut view = LayerViewMut::new(&mut data, 0, 512 * 12, whole, RGB, ColorSpace::Srgb).unwrap();
    render_in_place(&change(), patch.placement(), &mut view, None).unwrap();
    let truth = reduced(&numbers(&data), 512, 4);
    let worst = |a: &[f32], b: &[f32]| {
        let off = a.iter().zip(b).map(|(a, b)| (a - b).abs()).enumerate();
        off.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
    };
    assert!(worst(&truth, &numbers(&small)).1 > 0.1, "the edit is none");
    let (at, off) = worst(&shown, &truth);
    let place = (at / 3 % 128, at / 3 / 128, at % 3);
    assert!(
        off < 1e-4,
        "off by {off} at {place:?}: {} {}",
        shown[at],
        truth[at]
    );
}

#[test]
fn a_preview_at_the_layers_own_size_is_the_render_byte_for_byte() {
    let (picture, whole) = (layer(200, 120), rect(-5, 3, 200, 120));
    let mut data = bytes(&picture);
    let patch = read(&data, whole);
    let shown = preview(&patch, whole, (&data, whole), whole, None);
    let mut view = LayerViewMut::new(&mut data, 0, 200 * 12, whole, RGB, ColorSpace::Srgb).unwrap();
    render_in_place(&change(), patch.placement(), &mut view, None).unwrap();
    assert!(shown == data);
}

#[test]
fn tiles_of_a_preview_equal_the_whole_preview() {
    let (picture, whole) = (layer(400, 300), rect(0, 0, 400, 300));
    let patch = read(&bytes(&picture), whole);
    let small = bytes(&reduced(&picture, 400, 4));
    // A window of the layer on a canvas of its own, far from the origin.
    let place = rect(1000, 500, 100, 75);
    let all = preview(&patch, whole, (&small, place), place, None);
    for tile in [rect(1000, 500, 40, 75), rect(1033, 520, 67, 9)] {
        let part = preview(&patch, whole, (&small, place), tile, None);
        for (r, row) in part.chunks(tile.width as usize * 12).enumerate() {
            let at = ((tile.y - 500) as usize + r) * 1200 + (tile.x - 1000) as usize * 12;
            assert!(row == &all[at..at + row.len()], "{tile:?} row {r}");
        }
    }
}

#[test]
fn a_masked_preview_changes_nothing_outside_its_own_mask() {
    let (picture, whole) = (layer(400, 300), rect(0, 0, 400, 300));
    let patch = read(&bytes(&picture), whole);
    let small = bytes(&reduced(&picture, 400, 4));
    let place = rect(0, 0, 100, 75);
    let ones = vec![255; 30 * 20];
    let mask = MaskView::new(&ones, 0, 30, rect(10, 20, 30, 20), MaskSamples::U8).unwrap();
    let shown = preview(&patch, whole, (&small, place), place, Some(&mask));
    let mut changed = 0;
    for (i, (new, old)) in shown.chunks(12).zip(small.chunks(12)).enumerate() {
        let inside = (10..40).contains(&(i % 100)) && (20..40).contains(&(i / 100));
        assert!(inside || new == old, "{i}");
        changed += u32::from(new != old);
    }
    assert!(changed > 500, "{changed}");
}

#[test]
fn an_empty_or_far_part_is_refused() {
    let (picture, whole) = (layer(40, 30), rect(0, 0, 40, 30));
    let mut data = bytes(&picture);
    let patch = read(&data, whole);
    for part in [
        rect(0, 0, 0, 5),
        rect(0, 0, 5, 0),
        rect(i64::MAX, 0, 5, 5),
        rect(0, i64::MIN, 5, 5),
    ] {
        let mut view = LayerViewMut::new(&mut data, 0, 480, whole, RGB, ColorSpace::Srgb).unwrap();
        let error = render_reduced(&change(), patch.placement(), (part, whole), &mut view, None);
        assert_eq!(error.unwrap_err().parameter(), "part", "{part:?}");
    }
    assert!(data == bytes(&picture));
}
