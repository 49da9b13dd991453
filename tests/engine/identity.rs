//! What an edit changes, and what it leaves as it was to the byte. Not for: the same bytes from two
//! runs (`reproducible`).

use semblance::job::Control;
use semblance::layer::{
    AlphaState, ChannelOrder, ColorSpace, Format, LayerViewMut, MaskSamples, MaskView, Rect,
    SampleType,
};
use semblance::{Form, IdentityShortcut, Recipe};

use crate::support::{Picture, RGBA8, bytes, edit, engine, fixture, recipe, report};

#[test]
fn an_edit_changes_the_picture_and_reports_what_it_did() {
    let picture = Picture::new(200, 150, RGBA8);
    let edit = edit(&engine(), &picture, &recipe(&[("sunset", 1.0)])).unwrap();
    let (out, tally) = picture.rendered(&edit);
    assert!(tally.changed > 0, "{tally:?}");
    assert_ne!(out, picture.data);
    let report: serde_json::Value = serde_json::from_str(&edit.report()).unwrap();
    assert_eq!(report["steps"], 4, "{report}");
    assert_eq!(report["predictions"], 8, "{report}");
    assert!(report["known_db"].is_number(), "{report}");
    assert_eq!(report["model"]["hash"].as_str().unwrap().len(), 64);
    let stamp = edit.recipe().stamp.as_ref().unwrap();
    assert_eq!(stamp.model_hash, report["model"]["hash"]);
}

#[test]
fn strength_0_gives_back_the_bytes_of_every_format_without_the_shortcut() {
    let engine = engine();
    for samples in [
        SampleType::U8,
        SampleType::U16,
        SampleType::F16,
        SampleType::F32,
    ] {
        for (order, alpha) in [
            (ChannelOrder::Rgb, AlphaState::None),
            (ChannelOrder::Bgra, AlphaState::Straight),
            (ChannelOrder::GrayAlpha, AlphaState::Straight),
        ] {
            let picture = Picture::new(
                70,
                50,
                Format {
                    samples,
                    order,
                    alpha,
                },
            );
            let mut zero = recipe(&[("sunset", 0.0), ("fog", 0.0)]);
            zero.identity_shortcut = IdentityShortcut::Off;
            let edit = edit(&engine, &picture, &zero).unwrap();
            let report = report(&edit);
            assert_eq!(report["skipped"], false, "{report}");
            assert!(report["predictions"].as_u64().unwrap() >= 4, "{report}");
            let (out, tally) = picture.rendered(&edit);
            assert_eq!(out, picture.data, "{samples:?} {order:?}");
            assert_eq!((tally.changed, tally.kept), (0, 70 * 50));
        }
    }
}

#[test]
fn strength_0_with_the_shortcut_asks_the_model_nothing() {
    let picture = Picture::new(70, 50, RGBA8);
    for zero in [recipe(&[("sunset", 0.0)]), recipe(&[])] {
        let edit = edit(&engine(), &picture, &zero).unwrap();
        assert_eq!(report(&edit)["predictions"], 0);
        assert_eq!(picture.rendered(&edit).0, picture.data);
    }
}

#[test]
fn identity_holds_at_any_guidance() {
    let picture = Picture::new(70, 50, RGBA8);
    let mut zero = recipe(&[("sunset", 0.0)]);
    zero.identity_shortcut = IdentityShortcut::Off;
    zero.guidance = Some(3.0);
    assert_eq!(bytes(&engine(), &picture, &zero), picture.data);
}

#[test]
fn the_output_tends_to_the_input_as_the_strength_tends_to_0() {
    let format = Format {
        samples: SampleType::F32,
        order: ChannelOrder::Rgb,
        alpha: AlphaState::None,
    };
    let picture = Picture::new(70, 50, format);
    let engine = engine();
    let change = |s: f32| {
        let edit = edit(&engine, &picture, &recipe(&[("night", s)])).unwrap();
        picture.rendered(&edit).1.largest_change
    };
    let sizes = [1.0, 0.1, 0.01, 0.001].map(change);
    assert!(sizes[0] > 0.0, "{sizes:?}");
    assert!(sizes.windows(2).all(|w| w[1] < w[0]), "{sizes:?}");
    assert!(sizes[3] < 0.05 * sizes[0], "{sizes:?}");
    assert!(change(-0.001) < 0.05 * change(-1.0));
}

#[test]
fn pixels_outside_the_mask_are_untouched_and_the_extent_holds_all_that_changed() {
    let picture = Picture::new(130, 90, RGBA8);
    let samples = vec![255; 40 * 30];
    let place = Rect {
        x: 50,
        y: 20,
        width: 40,
        height: 30,
    };
    let mask = MaskView::new(&samples, 0, 40, place, MaskSamples::U8).unwrap();
    let engine = engine();
    let request = engine
        .read(&picture.view(), Some(&mask), &recipe(&[("sunset", 2.0)]))
        .unwrap();
    let edit = engine.run(&request, &Control::default()).unwrap();
    let mut out = picture.clone();
    let (stride, rect) = (picture.stride(), picture.rect());
    let mut layer =
        LayerViewMut::new(&mut out.data.0, 0, stride, rect, RGBA8, ColorSpace::Srgb).unwrap();
    let tally = edit.render_in_place(&mut layer, Some(&mask)).unwrap();
    assert!(tally.changed > 0 && tally.changed <= 40 * 30, "{tally:?}");
    let extent = edit.extent();
    let pixels = out
        .data
        .0
        .chunks(4)
        .zip(picture.data.0.chunks(4))
        .enumerate();
    for (i, (new, old)) in pixels {
        let (x, y) = (i as i64 % 130, i as i64 / 130);
        assert_eq!(new[3], old[3], "alpha at {x}, {y}");
        if new != old {
            assert!((50..90).contains(&x) && (20..50).contains(&y), "{x}, {y}");
            assert!(
                x >= extent.x && x < extent.x + i64::from(extent.width),
                "{extent:?}"
            );
            assert!(
                y >= extent.y && y < extent.y + i64::from(extent.height),
                "{extent:?}"
            );
        }
    }
}

#[test]
fn models_shaped_like_stable_diffusion_1_and_2_edit_and_keep_the_identity() {
    let picture = Picture::new(70, 50, RGBA8);
    for name in ["sd1", "sd2"] {
        let engine = fixture(name);
        let mut full = recipe(&[("fog", 1.0)]);
        full.guidance = Some(2.0);
        assert_ne!(bytes(&engine, &picture, &full), picture.data, "{name}");
        full.attributes[0].strength = 0.0;
        full.identity_shortcut = IdentityShortcut::Off;
        assert_eq!(bytes(&engine, &picture, &full), picture.data, "{name}");
    }
}

#[test]
fn the_published_form_edits_and_is_refused_where_its_sampler_cannot_run() {
    let picture = Picture::new(70, 50, RGBA8);
    let published = Recipe {
        form: Form::Published,
        steps: Some(10),
        ..recipe(&[("fog", 1.0)])
    };
    let edited = edit(&fixture("sd1"), &picture, &published).unwrap();
    assert!(picture.rendered(&edited).1.changed > 0);
    let error = edit(&engine(), &picture, &published).unwrap_err();
    assert!(error.message().contains("predicts v"), "{error}");
}
