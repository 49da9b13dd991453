//! The engine from layer to layer, on the tiny random pipeline: what an edit promises whatever the
//! model's quality.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use semblance::job::{Cancel, Control, Phase, Progress};
use semblance::layer::{
    AlphaState, ChannelOrder, ColorSpace, Format, LayerView, LayerViewMut, MaskSamples, MaskView,
    Rect, SampleType,
};
use semblance::{
    Code, Edit, Engine, EngineOptions, Form, FreeText, IdentityShortcut, ModelChoice, Recipe,
    Result, Slider, Tally,
};

const RGBA8: Format = Format {
    samples: SampleType::U8,
    order: ChannelOrder::Rgba,
    alpha: AlphaState::Straight,
};

fn tiny() -> ModelChoice {
    ModelChoice::Folder(PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/tiny"
    )))
}

fn engine() -> Engine {
    engine_with(EngineOptions {
        model: tiny(),
        threads: NonZeroUsize::new(2),
        ..EngineOptions::default()
    })
}

fn engine_with(options: EngineOptions) -> Engine {
    Engine::new(options).unwrap()
}

/// A layer's bytes, which a failing test does not print.
#[derive(Clone, PartialEq)]
struct Bytes(Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} bytes, sum {}",
            self.0.len(),
            self.0.iter().map(|b| u64::from(*b)).sum::<u64>()
        )
    }
}

/// A layer's bytes and what they mean.
#[derive(Clone)]
struct Picture {
    data: Bytes,
    width: u32,
    height: u32,
    format: Format,
}

fn sample_bytes(samples: SampleType) -> usize {
    match samples {
        SampleType::U8 => 1,
        SampleType::U16 | SampleType::F16 => 2,
        SampleType::F32 => 4,
    }
}

fn channels(order: ChannelOrder) -> usize {
    match order {
        ChannelOrder::Gray => 1,
        ChannelOrder::GrayAlpha => 2,
        ChannelOrder::Rgb => 3,
        _ => 4,
    }
}

impl Picture {
    /// Waves of colour, with alpha from 0 to full where there is alpha.
    fn new(width: u32, height: u32, format: Format) -> Self {
        let n = channels(format.order);
        let mut data = Vec::new();
        for y in 0..height {
            for x in 0..width {
                for c in 0..n {
                    let wave = (x as f32 * 0.07 + y as f32 * 0.11 + c as f32 * 1.3).sin();
                    let v = 0.5 + 0.45 * wave;
                    match format.samples {
                        SampleType::U8 => data.push((v * 255.0) as u8),
                        SampleType::U16 => {
                            data.extend(((v * 65535.0) as u16).to_ne_bytes());
                        }
                        SampleType::F16 => data.extend(half::f16::from_f32(v).to_ne_bytes()),
                        SampleType::F32 => data.extend(v.to_ne_bytes()),
                    }
                }
            }
        }
        Picture {
            data: Bytes(data),
            width,
            height,
            format,
        }
    }

    fn stride(&self) -> i64 {
        let pixel = channels(self.format.order) * sample_bytes(self.format.samples);
        i64::from(self.width) * pixel as i64
    }

    fn rect(&self) -> Rect {
        Rect {
            x: 0,
            y: 0,
            width: self.width,
            height: self.height,
        }
    }

    fn view(&self) -> LayerView<'_> {
        let color = ColorSpace::Srgb;
        LayerView::new(
            &self.data.0,
            0,
            self.stride(),
            self.rect(),
            self.format,
            color,
        )
        .unwrap()
    }

    fn rendered(&self, edit: &Edit) -> (Bytes, Tally) {
        let mut out = vec![0; self.data.0.len()];
        let (stride, rect, format) = (self.stride(), self.rect(), self.format);
        let mut dst =
            LayerViewMut::new(&mut out, 0, stride, rect, format, ColorSpace::Srgb).unwrap();
        let tally = edit.render(&self.view(), None, &mut dst).unwrap();
        (Bytes(out), tally)
    }
}

fn edit(engine: &Engine, picture: &Picture, recipe: &Recipe) -> Result<Edit> {
    let request = engine.read(&picture.view(), None, recipe)?;
    engine.run(&request, &Control::default())
}

/// Few steps: quick, and nothing here depends on their number.
fn recipe(sliders: &[(&str, f32)]) -> Recipe {
    let attributes = sliders.iter().map(|(name, strength)| Slider {
        name: (*name).into(),
        strength: *strength,
    });
    Recipe {
        attributes: attributes.collect(),
        steps: Some(4),
        ..Recipe::default()
    }
}

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

fn report(edit: &Edit) -> serde_json::Value {
    serde_json::from_str(&edit.report()).unwrap()
}

fn bytes(engine: &Engine, picture: &Picture, recipe: &Recipe) -> Bytes {
    picture.rendered(&edit(engine, picture, recipe).unwrap()).0
}

/// An attribute file for any model of the mini family.
fn attribute(folder: &Path, name: &str, extra: &str) -> PathBuf {
    let path = folder.join(format!("{name}.toml"));
    let text = format!(
        "schema = 1\nname = \"{name}\"\nmodels = [\"mini\"]\nlicence = \"CC0-1.0\"\n\
         [text]\nneutral = \"a photo of {{scene}}\"\nstyled = \"a photo of {{scene}}, at night\"\n{extra}\n"
    );
    std::fs::write(&path, text).unwrap();
    path
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
fn the_same_bytes_come_from_one_thread_and_from_two() {
    let picture = Picture::new(130, 90, RGBA8);
    let mut recipe = recipe(&[("sunset", 0.8), ("fog", -0.5)]);
    recipe.guidance = Some(2.0);
    let with = |threads| {
        let options = EngineOptions {
            model: tiny(),
            threads: NonZeroUsize::new(threads),
            ..EngineOptions::default()
        };
        bytes(&engine_with(options), &picture, &recipe)
    };
    let one = with(1);
    assert_ne!(one, picture.data);
    assert_eq!(one, with(2));
    assert_eq!(one, with(3));
}

#[test]
fn cached_equals_computed_byte_for_byte_and_is_reported() {
    let picture = Picture::new(130, 90, RGBA8);
    let warm = engine();
    let first = edit(&warm, &picture, &recipe(&[("sunset", 0.3)])).unwrap();
    assert_eq!(report(&first)["cached"], serde_json::json!([]));
    let second = edit(&warm, &picture, &recipe(&[("sunset", 0.8)])).unwrap();
    assert_eq!(
        report(&second)["cached"],
        serde_json::json!(["text", "encode", "invert"])
    );
    assert_eq!(report(&second)["predictions"], 4);
    let cold = bytes(&engine(), &picture, &recipe(&[("sunset", 0.8)]));
    assert_eq!(picture.rendered(&second).0, cold);
    warm.purge();
    let third = edit(&warm, &picture, &recipe(&[("sunset", 0.8)])).unwrap();
    assert_eq!(report(&third)["cached"], serde_json::json!([]));
    assert_eq!(picture.rendered(&third).0, cold);
}

#[test]
fn another_seed_picture_scene_or_number_of_steps_is_not_taken_from_the_cache() {
    let (picture, other) = (Picture::new(130, 90, RGBA8), Picture::new(131, 90, RGBA8));
    let warm = engine();
    let plain = recipe(&[("sunset", 0.8)]);
    let before = bytes(&warm, &picture, &plain);
    let seed = Recipe {
        seed: 7,
        ..plain.clone()
    };
    let steps = Recipe {
        steps: Some(5),
        ..plain.clone()
    };
    let scene = Recipe {
        scene: Some("the lake".into()),
        ..plain.clone()
    };
    for changed in [&seed, &steps, &scene] {
        let out = bytes(&warm, &picture, changed);
        assert_ne!(out, before);
        assert_eq!(out, bytes(&engine(), &picture, changed));
    }
    assert_eq!(
        bytes(&warm, &other, &plain),
        bytes(&engine(), &other, &plain)
    );
}

#[test]
fn an_inversion_that_began_late_is_completed_when_an_earlier_change_asks() {
    let folder = tempfile::tempdir().unwrap();
    attribute(folder.path(), "late", "[edit]\nt_star = 0.5");
    attribute(folder.path(), "early", "");
    let make = || {
        engine_with(EngineOptions {
            model: tiny(),
            attribute_folders: vec![folder.path().to_owned()],
            ..EngineOptions::default()
        })
    };
    let picture = Picture::new(70, 50, RGBA8);
    let warm = make();
    let late = edit(&warm, &picture, &recipe(&[("late", 1.0)])).unwrap();
    assert!(
        report(&late)["predictions"].as_u64().unwrap() < 8,
        "{}",
        late.report()
    );
    let early = bytes(&warm, &picture, &recipe(&[("early", 1.0)]));
    assert_eq!(early, bytes(&make(), &picture, &recipe(&[("early", 1.0)])));
    assert_ne!(early, picture.rendered(&late).0);
}

#[test]
fn the_order_of_the_sliders_changes_no_byte() {
    let picture = Picture::new(130, 90, RGBA8);
    let engine = engine();
    let forward = bytes(
        &engine,
        &picture,
        &recipe(&[("sunset", 0.8), ("snow", 0.4), ("fog", -0.3)]),
    );
    let backward = bytes(
        &engine,
        &picture,
        &recipe(&[("fog", -0.3), ("snow", 0.4), ("sunset", 0.8)]),
    );
    assert_eq!(forward, backward);
    assert_ne!(
        forward,
        bytes(&engine, &picture, &recipe(&[("sunset", 0.8)]))
    );
}

#[test]
fn a_slider_at_0_beside_others_changes_no_byte() {
    let picture = Picture::new(130, 90, RGBA8);
    let engine = engine();
    let one = bytes(&engine, &picture, &recipe(&[("sunset", 0.8)]));
    assert_eq!(
        one,
        bytes(&engine, &picture, &recipe(&[("sunset", 0.8), ("fog", 0.0)]))
    );
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
fn the_complete_recipe_gives_the_same_bytes_again() {
    let picture = Picture::new(130, 90, RGBA8);
    let first = edit(&engine(), &picture, &recipe(&[("sunset", 0.8)])).unwrap();
    let json = first.recipe().to_json().unwrap();
    let again = Recipe::from_json(&json).unwrap();
    assert_eq!(&again, first.recipe());
    assert_eq!(
        bytes(&engine(), &picture, &again),
        picture.rendered(&first).0
    );
    assert!(!json.contains("null"), "{json}");
}

#[test]
fn free_text_edits_and_names_the_words_that_the_model_never_learned() {
    let picture = Picture::new(130, 90, RGBA8);
    let text = FreeText {
        from: "a photo of the hills".into(),
        to: "a photo of the hills with a xylophone".into(),
        strength: 1.0,
    };
    let recipe = Recipe {
        text: Some(text),
        ..recipe(&[])
    };
    let edit = edit(&engine(), &picture, &recipe).unwrap();
    assert!(picture.rendered(&edit).1.changed > 0);
    let warnings = report(&edit)["warnings"].to_string();
    assert!(warnings.contains("never learned: xylophone"), "{warnings}");
}

#[test]
fn a_picture_that_the_model_does_not_know_is_warned_of() {
    let picture = Picture::new(130, 90, RGBA8);
    let edit = edit(&engine(), &picture, &recipe(&[("fog", 1.0)])).unwrap();
    let report = report(&edit);
    assert!(report["known_db"].as_f64().unwrap() < 20.0, "{report}");
    assert!(
        report["warnings"]
            .to_string()
            .contains("it knows few like it"),
        "{report}"
    );
}

#[test]
fn a_recipe_made_with_other_weights_is_warned_of() {
    let picture = Picture::new(70, 50, RGBA8);
    let mut recipe = recipe(&[("fog", 1.0)]);
    recipe.stamp = Some(semblance::Stamp {
        version: semblance::VERSION.into(),
        model: "tiny".into(),
        model_hash: "0".repeat(64),
        cpu_path: String::new(),
    });
    let edit = edit(&engine(), &picture, &recipe).unwrap();
    let warnings = report(&edit)["warnings"].to_string();
    assert!(warnings.contains("other weights"), "{warnings}");
}

fn fixture(name: &str) -> Engine {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/parity/");
    engine_with(EngineOptions {
        model: ModelChoice::Folder(format!("{folder}{name}").into()),
        ..EngineOptions::default()
    })
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

/// Runs on a fresh engine, notes what is told and raises the flag when `stop` says so.
fn watched(
    stop: impl Fn(Progress) -> bool + Send + Sync + 'static,
) -> (Result<Edit>, Vec<Progress>, Duration) {
    let picture = Picture::new(130, 90, RGBA8);
    let engine = engine();
    let request = engine
        .read(&picture.view(), None, &recipe(&[("sunset", 1.0)]))
        .unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let cancel = Cancel::new();
    let control = Control::new(cancel.clone(), {
        let told = Arc::clone(&told);
        move |progress| {
            told.lock().unwrap().push(progress);
            if stop(progress) {
                cancel.cancel();
            }
        }
    });
    let begun = Instant::now();
    let result = engine.run(&request, &control);
    let time = begun.elapsed();
    let told = told.lock().unwrap().clone();
    (result, told, time)
}

#[test]
fn progress_never_falls_names_each_phase_once_and_ends_at_1() {
    let (result, told, _) = watched(|_| false);
    result.unwrap();
    assert!(
        told.windows(2).all(|w| w[0].fraction <= w[1].fraction),
        "{told:?}"
    );
    assert_eq!(told.first().unwrap().fraction, 0.0);
    assert_eq!(told.last().unwrap().fraction, 1.0);
    let mut phases: Vec<Phase> = told.iter().map(|p| p.phase).collect();
    phases.dedup();
    assert_eq!(
        phases,
        [
            Phase::Load,
            Phase::Text,
            Phase::Encode,
            Phase::Invert,
            Phase::Edit,
            Phase::Decode,
            Phase::Fit
        ]
    );
}

#[test]
fn a_cancel_in_any_phase_ends_the_run_at_once() {
    for phase in [
        Phase::Load,
        Phase::Text,
        Phase::Encode,
        Phase::Invert,
        Phase::Edit,
        Phase::Decode,
        Phase::Fit,
    ] {
        let (result, told, time) = watched(move |p| p.phase == phase);
        assert_eq!(result.unwrap_err().code(), Code::Cancelled, "{phase:?}");
        assert_eq!(
            told.last().unwrap().phase,
            phase,
            "nothing is told after a cancel"
        );
        assert_eq!(told.iter().filter(|p| p.phase == phase).count(), 1);
        assert!(time < Duration::from_secs(5), "{phase:?}: {time:?}");
    }
}

#[test]
fn a_cancelled_run_leaves_the_engine_fit_for_the_next() {
    let picture = Picture::new(130, 90, RGBA8);
    let (engine, recipe) = (engine(), recipe(&[("sunset", 0.8)]));
    let request = engine.read(&picture.view(), None, &recipe).unwrap();
    let cancel = Cancel::new();
    let control = Control::new(cancel.clone(), move |p| {
        // In the middle of the inversion: what was computed stays in the cache.
        if p.phase == Phase::Invert && p.fraction > 0.4 {
            cancel.cancel();
        }
    });
    assert_eq!(
        engine.run(&request, &control).unwrap_err().code(),
        Code::Cancelled
    );
    assert_eq!(
        bytes(&engine, &picture, &recipe),
        bytes(&self::engine(), &picture, &recipe)
    );
}

#[test]
fn a_newer_preview_takes_the_place_of_a_running_one() {
    let picture = Picture::new(70, 50, RGBA8);
    let engine = engine();
    let request = engine
        .read(&picture.view(), None, &recipe(&[("sunset", 1.0)]))
        .unwrap();
    let cancel = Cancel::new();
    let control = Control::new(cancel.clone(), move |_| cancel.supersede());
    assert_eq!(
        engine.run(&request, &control).unwrap_err().code(),
        Code::Superseded
    );
}

#[test]
fn too_little_memory_is_refused_with_numbers_before_anything_is_read() {
    let engine = engine_with(EngineOptions {
        model: tiny(),
        memory_limit: Some(1 << 20),
        ..EngineOptions::default()
    });
    let picture = Picture::new(70, 50, RGBA8);
    let error = edit(&engine, &picture, &recipe(&[("sunset", 1.0)])).unwrap_err();
    assert_eq!(error.code(), Code::OutOfMemory);
    assert!(error.message().contains("1 MiB allowed"), "{error}");
    assert!(!error.hint().is_empty());
    // What needs no model needs no memory either.
    assert!(edit(&engine, &picture, &recipe(&[("sunset", 0.0)])).is_ok());
}

#[test]
fn an_unknown_attribute_is_answered_with_the_nearest_names() {
    let picture = Picture::new(70, 50, RGBA8);
    let error = edit(&engine(), &picture, &recipe(&[("sunest", 1.0)])).unwrap_err();
    assert_eq!(error.code(), Code::UnknownAttribute);
    assert!(error.hint().contains("sunset"), "{error}");
}

#[test]
fn an_attribute_may_serve_a_model_by_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    let picture = Picture::new(70, 50, RGBA8);
    let hash =
        report(&edit(&engine(), &picture, &recipe(&[("fog", 1.0)])).unwrap())["model"]["hash"]
            .as_str()
            .unwrap()
            .to_owned();
    let path = attribute(folder.path(), "mine", "");
    let text = std::fs::read_to_string(&path).unwrap();
    for (models, served) in [(&hash[..16], true), ("0123456789abcdef", false)] {
        std::fs::write(&path, text.replace("\"mini\"", &format!("\"{models}\""))).unwrap();
        let name = path.to_str().unwrap();
        // On an engine that has not loaded its model yet.
        let result = edit(&engine(), &picture, &recipe(&[(name, 1.0)]));
        match served {
            true => assert!(result.is_ok(), "{:?}", result.err()),
            false => assert_eq!(result.unwrap_err().code(), Code::AttributeNotForModel),
        }
    }
}

#[test]
fn a_path_names_an_attribute_file_and_its_range_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = attribute(folder.path(), "mine", "[edit]\nrange = [0, 1]");
    let name = path.to_str().unwrap();
    let picture = Picture::new(70, 50, RGBA8);
    let engine = engine();
    assert!(edit(&engine, &picture, &recipe(&[(name, 1.0)])).is_ok());
    let error = edit(&engine, &picture, &recipe(&[(name, -1.0)])).unwrap_err();
    assert!(
        error.message().contains("must be 0..=1 for mine"),
        "{error}"
    );
    let error = edit(&engine, &picture, &recipe(&[("no/such.toml", 1.0)])).unwrap_err();
    assert_eq!(error.code(), Code::Io);
}

#[test]
fn the_engine_describes_itself_and_lists_attributes_and_parameters() {
    let engine = engine();
    let describe: serde_json::Value = serde_json::from_str(&engine.describe().unwrap()).unwrap();
    assert_eq!(describe["model"]["name"], "tiny");
    assert_eq!(describe["model"]["loaded"], false);
    assert_eq!(describe["threads"], 2);
    engine.load(&Control::default()).unwrap();
    let describe: serde_json::Value = serde_json::from_str(&engine.describe().unwrap()).unwrap();
    assert_eq!(describe["model"]["loaded"], true);
    let attributes: serde_json::Value =
        serde_json::from_str(&engine.attributes().unwrap()).unwrap();
    let names: Vec<&str> = attributes
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "sunset", "night", "snow", "fog", "autumn", "overcast", "rain"
        ]
    );
    assert!(attributes[0]["served"].as_bool().unwrap());
    let parameters: serde_json::Value =
        serde_json::from_str(&Engine::parameters().unwrap()).unwrap();
    assert!(
        parameters
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["id"] == "strength" && p["max"] == 2.0)
    );
}

#[test]
fn options_that_cannot_be_are_refused() {
    let options = EngineOptions {
        model: tiny(),
        threads: NonZeroUsize::new(100_000),
        ..EngineOptions::default()
    };
    assert_eq!(
        Engine::new(options).unwrap_err().code(),
        Code::InvalidParameter
    );
    let options = EngineOptions {
        model: ModelChoice::Folder("no/such/folder".into()),
        ..EngineOptions::default()
    };
    assert_eq!(
        Engine::new(options).unwrap_err().code(),
        Code::ModelNotFound
    );
    let options = EngineOptions {
        model: tiny(),
        attribute_folders: vec!["no/such/folder".into()],
        ..EngineOptions::default()
    };
    assert_eq!(Engine::new(options).unwrap_err().code(), Code::Io);
}

#[test]
fn many_threads_share_one_engine() {
    let picture = Picture::new(70, 50, RGBA8);
    let engine = engine();
    let recipes: Vec<Recipe> = (0..4)
        .map(|i| recipe(&[("sunset", (i % 2 + 1) as f32)]))
        .collect();
    let outs: Vec<Bytes> = std::thread::scope(|scope| {
        let runs: Vec<_> = recipes
            .iter()
            .map(|r| scope.spawn(|| bytes(&engine, &picture, r)))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert_eq!(outs[0], outs[2]);
    assert_eq!(outs[1], outs[3]);
    assert_ne!(outs[0], outs[1]);
}
