//! What the training and the benchmark rely on: exact, continuous, size-independent counterfactuals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use semblance_atelier::{
    Attribute, Attributes, Frame, Place, Scene, caption, mask, render, stream,
};

fn scenes() -> impl Iterator<Item = Scene> {
    Place::ALL
        .into_iter()
        .enumerate()
        .map(|(i, p)| Scene::new(900 + i as u64, p))
}

fn psnr(a: &[f32], b: &[f32]) -> f64 {
    let mse = a
        .iter()
        .zip(b)
        .map(|(x, y)| f64::from(x - y).powi(2))
        .sum::<f64>()
        / a.len() as f64;
    -10.0 * mse.max(1e-12).log10()
}

/// Reduces by whole factor `k` in encoded values.
fn reduce(rgb: &[f32], width: usize, height: usize, k: usize) -> Vec<f32> {
    let (w, h) = (width / k, height / k);
    let mut out = vec![0.0; w * h * 3];
    for y in 0..h * k {
        for x in 0..w * k {
            for c in 0..3 {
                out[((y / k) * w + x / k) * 3 + c] += rgb[(y * width + x) * 3 + c] / (k * k) as f32;
            }
        }
    }
    out
}

#[test]
fn the_same_scene_gives_the_same_bytes() {
    for place in Place::ALL {
        let a = Attributes::only(Attribute::Rain, 0.7).with(Attribute::Autumn, 0.3);
        let one = render(&Scene::new(3, place), &a, 48, 40);
        assert_eq!(one, render(&Scene::new(3, place), &a, 48, 40), "{place}");
        assert_ne!(one, render(&Scene::new(4, place), &a, 48, 40), "{place}");
    }
}

#[test]
fn a_larger_picture_shows_the_same_content() {
    for scene in scenes() {
        let large = render(&scene, &Attributes::default(), 512, 512);
        let small = render(&scene, &Attributes::default(), 128, 128);
        let db = psnr(&reduce(&large.rgb, 512, 512, 4), &small.rgb);
        assert!(db > 28.0, "{}: {db:.1} dB", scene.place());
    }
}

#[test]
fn values_out_of_range_count_as_the_nearest_in_range() {
    let scene = Scene::new(5, Place::Hills);
    let wild = Attributes {
        snow: f32::NAN,
        fog: -3.0,
        night: 7.0,
        ..Attributes::default()
    };
    assert_eq!(
        render(&scene, &wild, 32, 32),
        render(&scene, &Attributes::only(Attribute::Night, 1.0), 32, 32)
    );
}

#[test]
fn every_attribute_changes_every_place_and_zero_changes_none() {
    for scene in scenes() {
        let frame = Frame::new(&scene, 64, 48);
        let plain = frame.render(&Attributes::default());
        for a in Attribute::ALL {
            assert_eq!(plain, frame.render(&Attributes::only(a, 0.0)), "{a}");
            let db = psnr(&plain.rgb, &frame.render(&Attributes::only(a, 1.0)).rgb);
            assert!(db < 32.0, "{a} in {}: {db:.1} dB", scene.place());
        }
    }
}

#[test]
fn attributes_act_smoothly_from_the_first_hundredth_on() {
    for scene in scenes() {
        let frame = Frame::new(&scene, 64, 48);
        for a in Attribute::ALL {
            for at in [0.0, 0.25, 0.5, 0.75, 0.99] {
                let (p, q) = (
                    frame.render(&Attributes::only(a, at)),
                    frame.render(&Attributes::only(a, at + 0.01)),
                );
                let db = psnr(&p.rgb, &q.rgb);
                assert!(db > 34.0, "{a} {at} in {}: {db:.1} dB", scene.place());
            }
        }
    }
}

#[test]
fn nothing_changes_outside_the_mask() {
    for scene in scenes() {
        let frame = Frame::new(&scene, 96, 72);
        let plain = frame.render(&Attributes::only(Attribute::Fog, 0.2)).to_u8();
        for a in [Attribute::Snow, Attribute::Autumn] {
            let mask = frame.mask(a);
            let full = frame
                .render(&Attributes::only(Attribute::Fog, 0.2).with(a, 1.0))
                .to_u8();
            for (i, m) in mask.iter().enumerate().filter(|(_, m)| **m == 0.0) {
                assert_eq!(
                    plain[i * 3..i * 3 + 3],
                    full[i * 3..i * 3 + 3],
                    "{a} in {} at {i}, mask {m}",
                    scene.place()
                );
            }
            assert!(mask.iter().all(|m| (0.0..=1.0).contains(m)));
            assert!(
                mask.iter().any(|m| *m > 0.5),
                "{a} has something to touch in {}",
                scene.place()
            );
        }
    }
}

#[test]
fn light_and_weather_may_touch_every_pixel() {
    let m = mask(&Scene::new(1, Place::Town), Attribute::Night, 9, 7);
    assert_eq!(m, vec![1.0; 63]);
}

#[test]
fn a_night_picture_stays_visible() {
    for scene in scenes() {
        let p = render(&scene, &Attributes::only(Attribute::Night, 1.0), 64, 64);
        let mean = p.rgb.iter().sum::<f32>() / p.rgb.len() as f32;
        assert!(mean > 0.07, "{}: {mean}", scene.place());
    }
}

#[test]
fn one_pixel_and_a_ribbon_render() {
    for scene in scenes() {
        for (w, h) in [(1, 1), (1, 40), (90, 2), (33, 17)] {
            assert_eq!(
                render(&scene, &Attributes::default(), w, h).rgb.len(),
                w * h * 3
            );
            assert_eq!(mask(&scene, Attribute::Snow, w, h).len(), w * h);
        }
    }
}

#[test]
fn captions_use_only_the_vocabulary() {
    let words = caption::vocabulary();
    for seed in 0..500 {
        for a in stream::plan(seed, stream::Plan::Group) {
            let text = caption::caption_of(Place::from_seed(seed), &a, seed);
            let body = caption::PREFIXES
                .iter()
                .filter(|p| !p.is_empty())
                .find_map(|p| text.strip_prefix(p))
                .unwrap_or(&text);
            let mut rest = body;
            while !rest.is_empty() {
                let part = words
                    .iter()
                    .filter(|w| rest.starts_with(**w))
                    .max_by_key(|w| w.len());
                let part = part.unwrap_or_else(|| panic!("{text}: {rest}"));
                rest = rest[part.len()..].trim_start_matches(", ");
            }
            for (attribute, phrases) in caption::PHRASES {
                let named = phrases.iter().any(|p| text.contains(p));
                assert!(
                    !named || a[attribute] > caption::VISIBLE,
                    "{text}: {attribute} = {}",
                    a[attribute]
                );
            }
        }
    }
}

#[test]
fn a_stream_reads_back_as_the_pictures_it_was_made_of() {
    let request = stream::Request {
        first_seed: 40,
        count: 2,
        width: 24,
        height: 16,
        plan: stream::Plan::Group,
    };
    let mut bytes = Vec::new();
    stream::write(&request, &mut bytes).unwrap();
    let mut rest = &bytes[..];
    for seed in 40..42u64 {
        let end = rest.iter().position(|b| *b == b'\n').unwrap();
        let header: serde_json::Value = serde_json::from_slice(&rest[..end]).unwrap();
        rest = &rest[end + 1..];
        assert_eq!(header["seed"], seed);
        assert_eq!(
            (
                header["n"].as_u64(),
                header["w"].as_u64(),
                header["h"].as_u64()
            ),
            (Some(16), Some(24), Some(16))
        );
        assert_eq!(header["captions"].as_array().unwrap().len(), 16);
        let scene = Scene::from_seed(seed);
        assert_eq!(header["place"], scene.place().name());
        for i in 0..16 {
            let mut a = Attributes::default();
            for (j, which) in Attribute::ALL.into_iter().enumerate() {
                a[which] = header["attrs"][i][j].as_f64().unwrap() as f32;
            }
            let size = 24 * 16 * 3;
            assert_eq!(
                &rest[..size],
                &render(&scene, &a, 24, 16).to_u8()[..],
                "picture {i} of scene {seed}"
            );
            rest = &rest[size..];
        }
    }
    assert!(rest.is_empty());
}

#[test]
fn group_plans_set_each_attribute_alone() {
    for seed in 0..200 {
        let all = stream::plan(seed, stream::Plan::Group);
        assert_eq!(all.len(), 16);
        for (i, a) in Attribute::ALL.into_iter().enumerate() {
            assert_eq!(all[1 + 2 * i], all[0].with(a, 1.0));
            let part = all[2 + 2 * i][a];
            assert!((0.1..0.9).contains(&part));
            assert_eq!(all[2 + 2 * i], all[0].with(a, part));
        }
        assert!(all[0].sunset <= 0.4 || all[0].night <= 0.4);
    }
}
