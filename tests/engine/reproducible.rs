//! The same recipe gives the same bytes: whatever the threads, the cache and the order of the
//! sliders. Not for: what an edit leaves as it was (`identity`).

use std::num::NonZeroUsize;

use semblance::{EngineOptions, Recipe};

use crate::support::{
    Bytes, Picture, RGBA8, attribute, bytes, edit, engine, engine_with, recipe, report, tiny,
};

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
fn texts_kept_from_earlier_edits_mix_to_the_same_bytes_with_guidance_at_any_thread_count() {
    let picture = Picture::new(130, 90, RGBA8);
    let guided = |sliders: &[(&str, f32)]| Recipe {
        guidance: Some(2.0),
        ..recipe(sliders)
    };
    let both = guided(&[("sunset", 0.8), ("fog", 0.5)]);
    let warm = engine();
    edit(&warm, &picture, &guided(&[("fog", 0.3)])).unwrap();
    edit(&warm, &picture, &guided(&[("sunset", 0.4)])).unwrap();
    let kept = edit(&warm, &picture, &both).unwrap();
    let cached = report(&kept)["cached"].clone();
    assert!(
        cached.as_array().unwrap().contains(&"text".into()),
        "{cached}"
    );
    for threads in [1, 3] {
        let cold = engine_with(EngineOptions {
            model: tiny(),
            threads: NonZeroUsize::new(threads),
            ..EngineOptions::default()
        });
        assert_eq!(picture.rendered(&kept).0, bytes(&cold, &picture, &both));
    }
}

#[test]
fn another_seed_picture_scene_noise_or_number_of_steps_is_not_taken_from_the_cache() {
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
    let noise = Recipe {
        noise: Some(0.5),
        ..plain.clone()
    };
    for changed in [&seed, &steps, &scene, &noise] {
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
