//! What method A promises: identity, continuity, exact extremes, bounded cancel.

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::mix::{condition_at, edit, first_change, generate};
use super::published::PublishedInversion;
use super::*;
use crate::diffusion::ddim::{self, Sampling};
use crate::diffusion::noise::{self, Purpose};
use crate::diffusion::*;
use crate::error::{Code, Error, Result};
use crate::job::{Cancel, Control, Phase};

const SHAPE: [usize; 3] = [3, 4, 5];

/// A smooth network with random weights: every number of the answer depends on three of the latent,
/// on all of the condition and on the time.
struct Random {
    weights: Vec<f32>,
    calls: Cell<usize>,
    /// Raised when this many calls have begun.
    stop: Option<(usize, Cancel)>,
}

impl Random {
    fn new(seed: u64) -> Self {
        Random {
            weights: noise::normal(seed, Purpose::Start, 77, 97),
            calls: Cell::new(0),
            stop: None,
        }
    }

    fn weight(&self, i: usize) -> f32 {
        self.weights[i % self.weights.len()]
    }
}

impl Denoiser for Random {
    fn predict(
        &self,
        x: &[&Latent],
        t: usize,
        conditions: &[&Condition],
        control: &Control,
    ) -> Result<Vec<Latent>> {
        self.calls.set(self.calls.get() + 1);
        if let Some((at, cancel)) = &self.stop
            && self.calls.get() >= *at
        {
            cancel.cancel();
        }
        control.check()?;
        let one = |(x, c): (&&Latent, &&Condition)| {
            let text: f32 = (c.data().iter().enumerate())
                .map(|(i, v)| v * self.weight(3 * i))
                .sum();
            let n = x.data.len();
            let data = (0..n).map(|j| {
                let near = self.weight(j) * x.data[j]
                    + self.weight(j + 1) * x.data[(j + 1) % n]
                    + 0.3 * x.data[(j + 7) % n];
                let sum = near + 0.4 * text * self.weight(5 * j) + t as f32 / 1000.0;
                1.3 * sum / (1.0 + sum.abs())
            });
            Latent::new(data.collect(), x.shape())
        };
        x.iter().zip(conditions).map(one).collect()
    }
}

fn schedule(prediction: Prediction) -> Schedule {
    let zero = prediction == Prediction::V;
    Schedule::new(&ScheduleConfig {
        class_name: "DDIMScheduler".into(),
        beta_start: Some(0.00085),
        beta_end: Some(0.012),
        beta_schedule: Some(Betas::ScaledLinear),
        prediction_type: prediction,
        timestep_spacing: if zero {
            Spacing::Trailing
        } else {
            Spacing::Leading
        },
        steps_offset: 1,
        rescale_betas_zero_snr: zero,
        set_alpha_to_one: Some(zero),
        clip_sample: Some(false),
        ..ScheduleConfig::default()
    })
    .unwrap()
}

fn text(seed: u64) -> Condition {
    Condition::new(noise::normal(seed, Purpose::Start, 1, 24), 4, 6).unwrap()
}

fn picture(seed: u64) -> Latent {
    noise::latent(seed, Purpose::Start, 2, SHAPE).unwrap()
}

fn step(onset: f64) -> Lambda {
    Lambda::step(onset, 0.0).unwrap()
}

fn span(control: &Control) -> Span<'_> {
    Span::new(control, Phase::Edit, 0.0, 1.0)
}

fn guidance(scale: f32) -> Guidance {
    Guidance::new(scale, text(900)).unwrap()
}

fn invert(net: &Random, prediction: Prediction, steps: usize, scale: f32, eta: f64) -> Inversion {
    let grid = schedule(prediction).grid(steps).unwrap();
    let noise = Stochastic::new(eta, 11).unwrap();
    let mut inversion =
        Inversion::new(grid, picture(1), text(100), guidance(scale), noise).unwrap();
    inversion
        .complete(net, 0, span(&Control::default()))
        .unwrap();
    inversion
}

fn bits(latent: &Latent) -> Vec<u32> {
    latent.data.iter().map(|v| v.to_bits()).collect()
}

fn distance(a: &Latent, b: &Latent) -> f32 {
    (a.data.iter().zip(&b.data)).fold(0.0, |most, (a, b)| most.max((a - b).abs()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn strength_zero_gives_the_latent_back_bit_for_bit_without_the_shortcut(
        seed in 0u64..1000,
        steps in 1usize..24,
        scale in 1.0f32..6.0,
        eta in 0.0f64..=1.0,
        onset in 0.0f64..0.99,
        damping in 0.0f32..=1.0,
        v in any::<bool>(),
    ) {
        let (net, control) = (Random::new(seed), Control::default());
        let kind = if v { Prediction::V } else { Prediction::Epsilon };
        let inversion = invert(&net, kind, steps, scale, eta);
        let styled = text(101);
        let blend = Blend::new(inversion.base(), &styled, step(onset), 0.0).unwrap();
        let blends = [blend.with_damping(damping).unwrap()];
        net.calls.set(0);
        let out = edit(&net, &inversion, &blends, Start::Beginning, span(&control)).unwrap();
        prop_assert_eq!(net.calls.get(), steps);
        prop_assert_eq!(bits(&out), bits(&picture(1)));
    }

    #[test]
    fn the_shortcut_changes_no_bit_and_saves_the_steps_before_the_first_change(
        seed in 0u64..1000,
        steps in 2usize..24,
        onset in 0.0f64..0.99,
        strength in -2.0f32..2.0,
    ) {
        let (net, control) = (Random::new(seed), Control::default());
        let inversion = invert(&net, Prediction::V, steps, 1.5, 1.0);
        let styled = text(101);
        let blends = [Blend::new(inversion.base(), &styled, step(onset), strength).unwrap()];
        let long = edit(&net, &inversion, &blends, Start::Beginning, span(&control)).unwrap();
        net.calls.set(0);
        let short = edit(&net, &inversion, &blends, Start::FirstChange, span(&control)).unwrap();
        prop_assert_eq!(net.calls.get(), steps - first_change(inversion.grid(), &blends));
        prop_assert_eq!(bits(&long), bits(&short));
    }
}

#[test]
fn an_edit_tends_to_nothing_with_its_strength() {
    let (net, control) = (Random::new(3), Control::default());
    for damping in [0.0, 1.0] {
        let inversion = invert(&net, Prediction::V, 20, 3.0, 1.0);
        let styled = text(101);
        let moved = |s: f32| {
            let blend = Blend::new(inversion.base(), &styled, step(0.1), s).unwrap();
            let blends = [blend.with_damping(damping).unwrap()];
            let out = edit(
                &net,
                &inversion,
                &blends,
                Start::FirstChange,
                span(&control),
            );
            distance(&out.unwrap(), &picture(1))
        };
        let moves = [1.0, 1e-1, 1e-2, 1e-3, 1e-4].map(moved);
        assert!(moves[0] > 0.1, "{moves:?}");
        for pair in moves[2..].windows(2) {
            assert!(pair[1] < pair[0] / 5.0, "{moves:?}");
        }
        assert!(moves[4] < 1e-2, "{moves:?}");
    }
}

#[test]
fn weight_one_from_noise_is_plain_styled_sampling_bit_for_bit() {
    let (net, control) = (Random::new(4), Control::default());
    for (kind, scale, eta) in [
        (Prediction::V, 1.0, 0.0),
        (Prediction::V, 3.0, 1.0),
        (Prediction::Epsilon, 7.5, 0.5),
    ] {
        let grid = schedule(kind).grid(20).unwrap();
        let run = Sampling {
            grid: &grid,
            guidance: &guidance(scale),
            noise: Stochastic::new(eta, 9).unwrap(),
            span: span(&control),
        };
        let (base, styled) = (text(100), text(101));
        let blends = [Blend::new(&base, &styled, step(0.0), 1.0).unwrap()];
        let mixed = generate(&net, picture(5), &base, &blends, &run).unwrap();
        let plain = ddim::sample(&net, picture(5), &styled, &run).unwrap();
        assert_eq!(bits(&mixed), bits(&plain));
        let untouched = generate(&net, picture(5), &base, &[], &run).unwrap();
        assert_ne!(bits(&untouched), bits(&plain));
    }
}

#[test]
fn the_order_of_attributes_changes_no_bit() {
    let (net, control) = (Random::new(5), Control::default());
    let inversion = invert(&net, Prediction::V, 12, 1.5, 1.0);
    let texts: Vec<Condition> = (200..206).map(text).collect();
    let blend = |i: usize, onset: f64, s: f32| {
        let blend = Blend::new(&texts[2 * i], &texts[2 * i + 1], step(onset), s);
        blend.unwrap().with_damping(0.3 * i as f32).unwrap()
    };
    let all = [blend(0, 0.0, 0.7), blend(1, 0.3, -0.4), blend(2, 0.1, 0.3)];
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    let out = orders.map(|order| {
        let blends = order.map(|i| all[i].clone());
        bits(
            &edit(
                &net,
                &inversion,
                &blends,
                Start::FirstChange,
                span(&control),
            )
            .unwrap(),
        )
    });
    assert!(out.iter().all(|o| *o == out[0]));
}

#[test]
fn several_attributes_add_their_differences() {
    let grid = schedule(Prediction::V).grid(10).unwrap();
    let (base, a0, a1, b1) = (text(1), text(2), text(3), text(4));
    let blends = [
        Blend::new(&a0, &a1, step(0.0), 0.5).unwrap(),
        Blend::new(&base, &b1, step(0.55), -1.0).unwrap(),
    ];
    let late = condition_at(&base, &blends, &grid.steps()[9]);
    let early = condition_at(&base, &blends, &grid.steps()[0]);
    for i in 0..base.data().len() {
        let [c, a0, a1, b1] = [&base, &a0, &a1, &b1].map(|c| c.data()[i]);
        assert!((early.data()[i] - (c + 0.5 * (a1 - a0))).abs() < 1e-6);
        assert!((late.data()[i] - (c + 0.5 * (a1 - a0) - (b1 - c))).abs() < 1e-6);
    }
}

#[test]
fn the_replayed_form_is_the_papers_residual_form() {
    let (net, control) = (Random::new(6), Control::default());
    let inversion = invert(&net, Prediction::V, 20, 1.5, 1.0);
    let styled = text(101);
    let (grid, states) = (inversion.grid(), inversion.states());
    let mut x = states[0].clone();
    for (i, s) in grid.steps().iter().enumerate() {
        let update = ddim::Update::new(s, grid.prediction(), 1.0);
        let mean = |x: &Latent, c: &Condition| {
            let p = inversion.guidance().predict(&net, x, s.t, c, &control);
            update.mean(x, &p.unwrap())
        };
        let residual = states[i + 1].zip(&mean(&states[i], inversion.base()), |x, m| x - m);
        x = mean(&x, &styled).zip(&residual, |m, u| m + u);
    }
    let blends = [Blend::new(inversion.base(), &styled, step(0.0), 1.0).unwrap()];
    let out = edit(
        &net,
        &inversion,
        &blends,
        Start::FirstChange,
        span(&control),
    )
    .unwrap();
    assert!(distance(&out, &x) < 1e-4, "{}", distance(&out, &x));
    assert!(distance(&out, &picture(1)) > 0.1);
}

#[test]
fn damping_changes_an_edit_that_flattens_and_nothing_else() {
    /// Predicts a clean latent that is the condition's first number times the source's.
    struct Flatten;
    impl Denoiser for Flatten {
        fn predict(
            &self,
            x: &[&Latent],
            t: usize,
            conditions: &[&Condition],
            _: &Control,
        ) -> Result<Vec<Latent>> {
            let schedule = schedule(Prediction::V);
            let a = schedule.levels()[t];
            let one = |(x, c): (&&Latent, &&Condition)| {
                let z = picture(1);
                // x̂_0 = √ᾱ x − √(1−ᾱ) v
                let v = |x: f32, z: f32| {
                    (a.sqrt() as f32 * x - c.data()[0] * z) / (1.0 - a).sqrt() as f32
                };
                Ok(x.zip(&z, v))
            };
            x.iter().zip(conditions).map(one).collect()
        }
    }
    let control = Control::default();
    let words = |contrast: f32| Condition::new(vec![contrast], 1, 1).unwrap();
    let grid = schedule(Prediction::V).grid(20).unwrap();
    let noise = Stochastic::new(1.0, 3).unwrap();
    let mut inversion = Inversion::new(grid, picture(1), words(1.0), Guidance::OFF, noise).unwrap();
    inversion.complete(&Flatten, 0, span(&control)).unwrap();
    let i = 10;
    let (x, next) = (&inversion.states()[i], &inversion.states()[i + 1]);
    let out = |contrast: f32, damping: f32| {
        let styled = words(contrast);
        inversion
            .replay(&Flatten, i, x, &styled, damping, span(&control))
            .unwrap()
    };
    assert_eq!(out(1.5, 0.0), out(1.5, 1.0));
    // Half damping to a quarter of the contrast takes 3/8 of the residual away.
    let update = ddim::Update::new(&inversion.grid().steps()[i], Prediction::V, 1.0);
    let p = Flatten.predict(
        &[x],
        inversion.grid().steps()[i].t,
        &[&words(1.0)],
        &control,
    );
    let residual = next.zip(&update.mean(x, &p.unwrap()[0]), |x, m| x - m);
    let taken = out(0.25, 0.0).zip(&out(0.25, 0.5), |a, b| a - b);
    let wanted = residual.zip(&residual, |u, _| 0.375 * u);
    assert!(distance(&taken, &wanted) < 1e-4);
    assert!(distance(&taken, &x.zip(x, |_, _| 0.0)) > 0.01);
}

#[test]
fn published_presets_start_at_the_same_noise_level_on_every_grid() {
    let (sd, mini) = (schedule(Prediction::Epsilon), schedule(Prediction::V));
    let first = |schedule: &Schedule, steps: usize, lambda: &Lambda| {
        let grid = schedule.grid(steps).unwrap();
        let on = (grid.steps().iter()).position(|step| lambda.at(step.time) != 0.0);
        on.unwrap()
    };
    for (t_star, d) in [(20, 0.0), (12, -0.1), (10, -0.2), (10, -0.15), (0, 0.0)] {
        let lambda = Lambda::published(t_star, d).unwrap();
        assert_eq!(lambda.at(0.01), 1.0 - d);
        let t_star = t_star as usize;
        assert_eq!(first(&sd, 50, &lambda), t_star, "its own grid");
        assert_eq!(first(&sd, 100, &lambda), 2 * t_star, "twice as fine");
        assert_eq!(first(&mini, 50, &lambda), t_star, "trailing");
        assert_eq!(
            first(&mini, 20, &lambda),
            (2 * t_star).div_ceil(5),
            "coarser"
        );
    }
}

#[test]
fn a_learned_lambda_is_exact_at_its_times_and_linear_between() {
    let grid = schedule(Prediction::V).grid(50).unwrap();
    let times: Vec<f64> = grid.steps().iter().map(|step| step.time).collect();
    let values: Vec<f32> = (0..50).map(|i| (i as f32 * 0.37).sin()).collect();
    let lambda = Lambda::learned(&times, &values).unwrap();
    for (time, value) in times.iter().zip(&values) {
        assert_eq!(lambda.at(*time), *value);
    }
    let between = lambda.at((times[3] + times[4]) / 2.0);
    assert!((between - (values[3] + values[4]) / 2.0).abs() < 1e-6);
    assert_eq!(lambda.at(1.0), values[0]);
    assert_eq!(lambda.at(0.001), values[49]);
}

#[test]
fn bad_values_are_refused_with_their_range() {
    let (a, b) = (text(1), text(2));
    for s in [2.01, -3.0, f32::NAN, f32::INFINITY] {
        let error = Blend::new(&a, &b, step(0.0), s).unwrap_err();
        let wanted = format!("strength = {s}: must be -2..=2 (1 is the full effect)");
        assert_eq!(error.to_string(), wanted);
    }
    let other = Condition::new(vec![0.0; 24], 6, 4).unwrap();
    let error = Blend::new(&a, &other, step(0.0), 1.0).unwrap_err();
    assert_eq!(error.code(), Code::AttributeNotForModel);
    for damping in [-0.1, 1.1, f32::NAN] {
        let blend = Blend::new(&a, &b, step(0.0), 1.0).unwrap();
        assert!(blend.with_damping(damping).is_err());
    }
    for onset in [-0.01, 1.0, f64::NAN] {
        assert!(Lambda::step(onset, 0.0).is_err());
    }
    assert!(Lambda::published(50, 0.0).is_err());
    for d in [f32::NAN, -4.0, f32::INFINITY] {
        assert!(Lambda::step(0.0, d).is_err());
    }
    for (times, values) in [
        (vec![], vec![]),
        (vec![1.0], vec![1.0, 1.0]),
        (vec![0.5, 0.5], vec![1.0, 1.0]),
        (vec![0.4, 0.5], vec![1.0, 1.0]),
        (vec![1.5], vec![1.0]),
        (vec![f64::NAN], vec![1.0]),
        (vec![0.5], vec![f32::NAN]),
        (vec![0.5], vec![9.0]),
    ] {
        let error = Lambda::learned(&times, &values).unwrap_err();
        assert_eq!(error.code(), Code::InvalidAttribute);
    }
}

#[test]
fn cancel_stops_every_loop_within_one_call() {
    let grid = schedule(Prediction::Epsilon).grid(50).unwrap();
    let calm = Random::new(8);
    let inversion = invert(&calm, Prediction::Epsilon, 50, 1.0, 1.0);
    let (base, styled) = (text(100), text(101));
    let blends = [Blend::new(&base, &styled, step(0.0), 1.0).unwrap()];
    let noise = Stochastic::new(1.0, 1).unwrap();
    let quiet = Control::default();
    let released = || {
        PublishedInversion::new(
            &calm,
            grid.clone(),
            &picture(1),
            base.clone(),
            Guidance::OFF,
            1,
            span(&quiet),
        )
        .unwrap()
    };
    let released = released();
    type Loop<'a> = Box<dyn Fn(&Random, Span<'_>) -> Option<Error> + 'a>;
    let loops: [(&str, Loop<'_>); 5] = [
        (
            "sample",
            Box::new(|net, span| {
                let run = Sampling {
                    grid: &grid,
                    guidance: &Guidance::OFF,
                    noise,
                    span,
                };
                ddim::sample(net, picture(1), &base, &run).err()
            }),
        ),
        (
            "invert",
            Box::new(|net, span| {
                let g = (grid.clone(), Guidance::OFF);
                let mut new = Inversion::new(g.0, picture(1), base.clone(), g.1, noise).unwrap();
                new.complete(net, 0, span).err()
            }),
        ),
        (
            "edit",
            Box::new(|net, span| edit(net, &inversion, &blends, Start::Beginning, span).err()),
        ),
        (
            "released inversion",
            Box::new(|net, span| {
                let (grid, base) = (grid.clone(), base.clone());
                let off = Guidance::OFF;
                PublishedInversion::new(net, grid, &picture(1), base, off, 1, span).err()
            }),
        ),
        (
            "released edit",
            Box::new(|net, span| released.edit(net, &blends, span).err()),
        ),
    ];
    for (name, run) in loops {
        for at in [1, 2, 30] {
            let cancel = Cancel::new();
            let mut net = Random::new(8);
            net.stop = Some((at, cancel.clone()));
            let control = Control::new(cancel, |_| {});
            let error = run(&net, span(&control)).unwrap();
            assert_eq!(error.code(), Code::Cancelled, "{name}");
            assert_eq!(net.calls.get(), at, "{name}");
        }
    }
}

#[test]
fn progress_rises_within_its_span() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let control = Control::new(Cancel::new(), move |progress| {
        assert_eq!(progress.phase, Phase::Edit);
        sink.lock().unwrap().push(progress.fraction);
    });
    let net = Random::new(9);
    let inversion = invert(&net, Prediction::V, 20, 1.0, 1.0);
    let styled = text(101);
    let blends = [Blend::new(inversion.base(), &styled, step(0.4), 1.0).unwrap()];
    let share = Span::new(&control, Phase::Edit, 0.25, 0.75);
    edit(&net, &inversion, &blends, Start::FirstChange, share).unwrap();
    let told = told.lock().unwrap();
    assert_eq!((told.first(), told.last()), (Some(&0.25), Some(&0.75)));
    assert!(told.windows(2).all(|pair| pair[0] <= pair[1]));
}

#[test]
fn the_released_form_looks_as_often_as_the_release_and_is_no_identity() {
    let (net, control) = (Random::new(10), Control::default());
    let grid = schedule(Prediction::Epsilon).grid(50).unwrap();
    let released = PublishedInversion::new(
        &net,
        grid,
        &picture(1),
        text(100),
        guidance(7.5),
        1,
        span(&control),
    )
    .unwrap();
    assert_eq!(net.calls.get(), 49 + 51);
    net.calls.set(0);
    let out = released.edit(&net, &[], span(&control)).unwrap();
    assert_eq!(net.calls.get(), 51);
    assert!(out.data.iter().all(|v| v.is_finite()));
    assert!(distance(&out, &picture(1)) > 1e-3);

    let grid = schedule(Prediction::V).grid(50).unwrap();
    let error = PublishedInversion::new(
        &net,
        grid,
        &picture(1),
        text(100),
        Guidance::OFF,
        1,
        span(&control),
    )
    .unwrap_err();
    assert!(error.message().contains("predicts ε"), "{error}");
}
