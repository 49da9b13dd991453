//! Parity with diffusers (fixtures of tests/fixtures/make_schedules.py) and the refusals.

use std::cell::Cell;

use serde::Deserialize;

use super::ddim::{self, Sampling, Update};
use super::noise::{self, Purpose};
use super::plms::{self, History};
use super::*;
use crate::error::{Code, Result};
use crate::job::{Cancel, Control, Phase};
use crate::method::published::PublishedInversion;
use crate::method::{Blend, Lambda};

#[derive(Deserialize)]
struct Fixtures {
    levels: Vec<Levels>,
    grids: Vec<Timesteps>,
    ddim: Vec<Trajectory>,
    plms: Vec<Trajectory>,
    noise: Vec<Noise>,
    published: Published,
}

#[derive(Deserialize)]
struct Levels {
    name: String,
    config: ScheduleConfig,
    picked: Vec<usize>,
    values: Vec<f64>,
}

#[derive(Deserialize)]
struct Timesteps {
    name: String,
    steps: usize,
    first: Vec<usize>,
    last: Vec<usize>,
    sum: usize,
}

#[derive(Deserialize)]
struct Trajectory {
    config: ScheduleConfig,
    steps: usize,
    eta: f64,
    states: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Noise {
    seed: u64,
    purpose: u64,
    step: u64,
    values: Vec<f32>,
}

#[derive(Deserialize)]
struct Published {
    config: ScheduleConfig,
    seed: u64,
    t_star: u32,
    scale: f32,
    empty: f32,
    base: f32,
    styled: f32,
    start: Vec<f32>,
    edited: Vec<f32>,
}

fn fixtures() -> Fixtures {
    let text = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/schedules.json"
    ));
    serde_json::from_str(text).unwrap()
}

/// The analytic network of the fixtures; knows no condition but adds its first number.
#[derive(Default)]
struct Analytic {
    batches: Cell<usize>,
    latents: Cell<usize>,
}

impl Denoiser for Analytic {
    fn predict(
        &self,
        x: &[&Latent],
        t: usize,
        conditions: &[&Condition],
        control: &Control,
    ) -> Result<Vec<Latent>> {
        control.check()?;
        self.batches.set(self.batches.get() + 1);
        self.latents.set(self.latents.get() + x.len());
        let one = |(x, c): (&&Latent, &&Condition)| {
            let data = (x.data.iter().enumerate()).map(|(j, x)| {
                let drift = (j % 5) as f32 - 2.0;
                x / (1.0 + x * x) + drift * (0.25 * (1.0 - t as f32 / 1000.0)) + c.data()[0]
            });
            Latent::new(data.collect(), x.shape())
        };
        x.iter().zip(conditions).map(one).collect()
    }
}

fn start() -> Latent {
    let number = |j: i32| ((j * 7 + 3) % 23 - 11) as f32 / 8.0;
    Latent::new((0..24).map(number).collect(), [2, 3, 4]).unwrap()
}

fn extra(step: usize) -> Latent {
    let number = |j: usize| ((j * 5 + step) % 13) as f32 / 4.0 - 1.5;
    Latent::new((0..24).map(number).collect(), [2, 3, 4]).unwrap()
}

fn text(first: f32) -> Condition {
    Condition::new(vec![first, 0.0], 1, 2).unwrap()
}

/// The largest difference, relative to numbers above 1: diffusers rounds to f32 at every operation.
fn off(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let off = |(a, b): (&f32, &f32)| (a - b).abs() / b.abs().max(1.0);
    a.iter().zip(b).map(off).fold(0.0, f32::max)
}

fn mini() -> ScheduleConfig {
    ScheduleConfig {
        class_name: "DDIMScheduler".into(),
        beta_start: Some(0.00085),
        beta_end: Some(0.012),
        beta_schedule: Some(Betas::ScaledLinear),
        prediction_type: Prediction::V,
        timestep_spacing: Spacing::Trailing,
        rescale_betas_zero_snr: true,
        clip_sample: Some(false),
        ..ScheduleConfig::default()
    }
}

#[test]
fn noise_levels_are_those_of_diffusers() {
    for fixture in fixtures().levels {
        let schedule = Schedule::new(&fixture.config).unwrap();
        for (&t, &wanted) in fixture.picked.iter().zip(&fixture.values) {
            let got = schedule.levels()[t];
            assert!(
                (got - wanted).abs() < 1e-6,
                "{} at {t}: {got}, diffusers {wanted}",
                fixture.name
            );
        }
    }
}

#[test]
fn timesteps_are_those_of_diffusers() {
    let fixtures = fixtures();
    for fixture in &fixtures.grids {
        let of = |levels: &&Levels| levels.name == fixture.name;
        let mut config = fixtures.levels.iter().find(of).unwrap().config.clone();
        // Only the times are looked at here; ε at ᾱ = 0 is refused elsewhere.
        config.prediction_type = Prediction::V;
        let grid = Schedule::new(&config).unwrap().grid(fixture.steps).unwrap();
        let times: Vec<usize> = grid.steps().iter().map(|step| step.t).collect();
        let what = format!("{} with {} steps", fixture.name, fixture.steps);
        assert_eq!(times[..fixture.first.len()], fixture.first, "{what}");
        assert!(times.ends_with(&fixture.last), "{what}");
        assert_eq!(times.iter().sum::<usize>(), fixture.sum, "{what}");
    }
}

#[test]
fn ddim_follows_diffusers_at_every_step() {
    let (net, control) = (Analytic::default(), Control::default());
    for fixture in fixtures().ddim {
        let schedule = Schedule::new(&fixture.config).unwrap();
        let grid = schedule.grid(fixture.steps).unwrap();
        let mut x = start();
        for (i, step) in grid.steps().iter().enumerate() {
            let p = Guidance::OFF
                .predict(&net, &x, step.t, &text(0.0), &control)
                .unwrap();
            let update = Update::new(step, grid.prediction(), fixture.eta);
            x = update
                .mean(&x, &p)
                .zip(&extra(i), |x, z| x + update.sigma * z);
            let off = off(&x.data, &fixture.states[i]);
            assert!(off < 1e-5, "step {i} of {}: off by {off}", fixture.steps);
        }
        if fixture.eta == 0.0 {
            let run = Sampling {
                grid: &grid,
                guidance: &Guidance::OFF,
                noise: Stochastic::new(0.0, 0).unwrap(),
                span: Span::new(&control, Phase::Edit, 0.0, 1.0),
            };
            let sampled = ddim::sample(&net, start(), &text(0.0), &run).unwrap();
            assert_eq!(sampled, x);
        }
    }
}

#[test]
fn plms_follows_diffusers_at_every_step() {
    let (net, control) = (Analytic::default(), Control::default());
    for fixture in fixtures().plms {
        let schedule = Schedule::new(&fixture.config).unwrap();
        let grid = schedule.grid(fixture.steps).unwrap();
        let look = |x: &Latent, t: usize| Guidance::OFF.predict(&net, x, t, &text(0.0), &control);
        let mut history = History::new();
        let mut x = start();
        for (i, step) in grid.steps().iter().enumerate() {
            x = history
                .advance(step, plms::after(&grid, i), &x, look, |x| x)
                .unwrap();
            // diffusers lists the first Euler step apart.
            let off = off(&x.data, &fixture.states[i + 1]);
            assert!(off < 1e-5, "step {i} of {}: off by {off}", fixture.steps);
        }
        net.batches.set(0);
        let span = Span::new(&control, Phase::Edit, 0.0, 1.0);
        let sampled = plms::sample(&net, &grid, start(), &text(0.0), &Guidance::OFF, span).unwrap();
        assert_eq!(sampled, x);
        assert_eq!(net.batches.get(), fixture.steps + 1);
    }
}

#[test]
fn the_published_form_follows_an_independent_f64_reference() {
    let (net, control, fixture) = (
        Analytic::default(),
        Control::default(),
        fixtures().published,
    );
    let span = Span::new(&control, Phase::Edit, 0.0, 1.0);
    let grid = Schedule::new(&fixture.config).unwrap().grid(50).unwrap();
    let guidance = Guidance::new(fixture.scale, text(fixture.empty)).unwrap();
    let (base, styled) = (text(fixture.base), text(fixture.styled));
    let inversion = PublishedInversion::new(
        &net,
        grid,
        &start(),
        base.clone(),
        guidance,
        fixture.seed,
        span,
    )
    .unwrap();
    assert!(off(&inversion.start().data, &fixture.start) < 1e-4);
    let lambda = Lambda::published(fixture.t_star, 0.0).unwrap();
    let blends = [Blend::new(&base, &styled, lambda, 1.0).unwrap()];
    let edited = inversion.edit(&net, &blends, span).unwrap();
    let off = off(&edited.data, &fixture.edited);
    assert!(off < 1e-3, "off by {off}");
}

#[test]
fn noise_is_the_known_answer_of_an_independent_chacha8() {
    for fixture in fixtures().noise {
        let purpose = [Purpose::Start, Purpose::Step, Purpose::Invert]
            .into_iter()
            .find(|p| *p as u64 == fixture.purpose)
            .unwrap();
        let got = noise::normal(fixture.seed, purpose, fixture.step, fixture.values.len());
        assert!(off(&got, &fixture.values) < 1e-6, "{got:?}");
    }
}

#[test]
fn noise_depends_on_seed_purpose_step_and_index_alone() {
    let all = noise::normal(7, Purpose::Invert, 3, 4096);
    for len in [0, 1, 2, 17, 1000] {
        assert_eq!(noise::normal(7, Purpose::Invert, 3, len), all[..len]);
    }
    for other in [
        noise::normal(8, Purpose::Invert, 3, 4096),
        noise::normal(7, Purpose::Start, 3, 4096),
        noise::normal(7, Purpose::Invert, 4, 4096),
    ] {
        let product: f32 = all.iter().zip(&other).map(|(a, b)| a * b).sum();
        assert!((product / 4096.0).abs() < 0.06, "correlated: {product}");
    }
    let mean = all.iter().sum::<f32>() / 4096.0;
    let square = all.iter().map(|v| v * v).sum::<f32>() / 4096.0;
    assert!(
        mean.abs() < 0.06 && (square - 1.0).abs() < 0.08,
        "{mean} {square}"
    );
}

#[test]
fn a_step_from_zero_signal_is_finite_with_v() {
    let grid = Schedule::new(&mini()).unwrap().grid(20).unwrap();
    let first = &grid.steps()[0];
    assert_eq!((first.t, first.level, first.time), (999, 0.0, 1.0));
    for eta in [0.0, 1.0] {
        let update = Update::new(first, Prediction::V, eta);
        assert_eq!(update.clean, [0.0, -1.0]);
        let numbers = [update.mean[0], update.mean[1], update.sigma];
        assert!(numbers.iter().all(|v| v.is_finite()), "{update:?}");
    }
}

#[test]
fn zero_signal_with_epsilon_is_refused_in_words() {
    let config = ScheduleConfig {
        prediction_type: Prediction::Epsilon,
        ..mini()
    };
    let error = Schedule::new(&config).unwrap().grid(20).unwrap_err();
    assert_eq!(error.code(), Code::UnsupportedModel);
    assert!(error.to_string().contains("ᾱ = 0"), "{error}");
}

#[test]
fn step_counts_out_of_range_are_refused_with_the_range() {
    let schedule = Schedule::new(&mini()).unwrap();
    for steps in [0, 1001, usize::MAX] {
        let error = schedule.grid(steps).unwrap_err();
        let wanted = format!("steps = {steps}: must be 1..=1000 (try 20)");
        assert_eq!(error.to_string(), wanted);
        assert_eq!(error.parameter(), "steps");
    }
    assert_eq!(schedule.grid(1000).unwrap().steps().len(), 1000);
    let beyond = ScheduleConfig {
        timestep_spacing: Spacing::Leading,
        steps_offset: 1,
        ..mini()
    };
    let error = Schedule::new(&beyond).unwrap().grid(1000).unwrap_err();
    assert!(
        error.message().contains("first timestep is 1000"),
        "{error}"
    );
}

#[test]
fn guidance_and_eta_out_of_range_are_refused() {
    for scale in [0.0, 0.99, 20.01, f32::NAN, f32::INFINITY, -3.0] {
        let error = Guidance::new(scale, text(0.0)).unwrap_err();
        let wanted = format!("guidance = {scale}: must be 1..=20 (try 1.5)");
        assert_eq!(error.to_string(), wanted);
    }
    for eta in [-0.1, 1.1, f64::NAN] {
        assert!(Stochastic::new(eta, 0).is_err());
    }
}

#[test]
fn schedules_out_of_range_are_refused() {
    let bad = |change: fn(&mut ScheduleConfig)| {
        let mut config = mini();
        change(&mut config);
        Schedule::new(&config).unwrap_err().code()
    };
    assert_eq!(bad(|c| c.num_train_timesteps = 0), Code::InvalidModel);
    assert_eq!(bad(|c| c.num_train_timesteps = 1 << 40), Code::InvalidModel);
    assert_eq!(bad(|c| c.beta_start = Some(f64::NAN)), Code::InvalidModel);
    assert_eq!(bad(|c| c.beta_end = Some(1.0)), Code::InvalidModel);
    assert_eq!(
        bad(|c| c.trained_betas = Some(vec![0.1])),
        Code::InvalidModel
    );
    assert_eq!(bad(|c| c.clip_sample = None), Code::UnsupportedModel);
    assert_eq!(bad(|c| c.thresholding = true), Code::UnsupportedModel);
}

#[test]
fn guidance_is_the_empty_answer_plus_scale_times_the_difference() {
    let (net, control, x) = (Analytic::default(), Control::default(), start());
    let ask =
        |guidance: &Guidance, c: f32| guidance.predict(&net, &x, 500, &text(c), &control).unwrap();
    let (empty, full) = (ask(&Guidance::OFF, -0.5), ask(&Guidance::OFF, 1.0));
    let three = Guidance::new(3.0, text(-0.5)).unwrap();
    let wanted = empty.zip(&full, |u, c| u + 3.0 * (c - u));
    assert_eq!(ask(&three, 1.0), wanted);
    assert_eq!(ask(&three, -0.5), empty);
    assert_eq!(Guidance::new(1.0, text(-0.5)).unwrap(), Guidance::OFF);

    net.batches.set(0);
    net.latents.set(0);
    ask(&Guidance::OFF, 0.0);
    assert_eq!((net.batches.get(), net.latents.get()), (1, 1));
    ask(&three, 0.0);
    assert_eq!((net.batches.get(), net.latents.get()), (2, 3));
}

#[test]
fn an_answer_that_is_not_finite_or_of_another_shape_is_refused() {
    struct Bad(f32, usize);
    impl Denoiser for Bad {
        fn predict(
            &self,
            x: &[&Latent],
            _: usize,
            _: &[&Condition],
            _: &Control,
        ) -> Result<Vec<Latent>> {
            let shape = [1, 1, self.1];
            let one = |_: &&Latent| Latent::new(vec![self.0; self.1], shape);
            x.iter().map(one).collect()
        }
    }
    let control = Control::default();
    let x = Latent::new(vec![0.0; 4], [1, 1, 4]).unwrap();
    let ask = |net: Bad| Guidance::OFF.predict(&net, &x, 3, &text(0.0), &control);
    assert!(ask(Bad(0.5, 4)).is_ok());
    let error = ask(Bad(f32::NAN, 4)).unwrap_err();
    assert_eq!(error.code(), Code::InvalidModel);
    assert!(error.message().contains("timestep 3"), "{error}");
    assert_eq!(ask(Bad(0.5, 5)).unwrap_err().code(), Code::Internal);
}

#[test]
fn embeddings_and_latents_of_a_wrong_length_are_refused() {
    assert!(Condition::new(vec![0.0; 5], 2, 3).is_err());
    assert!(Condition::new(vec![], 0, 3).is_err());
    assert!(Condition::new(vec![f32::NAN; 6], 2, 3).is_err());
    assert!(Condition::new(vec![], usize::MAX, 2).is_err());
    assert!(Latent::new(vec![0.0; 5], [1, 2, 3]).is_err());
    assert!(Latent::new(vec![], [usize::MAX, 2, 2]).is_err());
}

#[test]
fn an_inversion_starts_at_pure_noise_and_ends_at_its_latent() {
    let grid = Schedule::new(&mini()).unwrap().grid(20).unwrap();
    let noise = Stochastic::new(1.0, 5).unwrap();
    let inversion = Inversion::new(grid, start(), text(0.0), Guidance::OFF, noise).unwrap();
    let pure = noise::latent(5, Purpose::Invert, 999, [2, 3, 4]).unwrap();
    assert_eq!(inversion.states().first(), Some(&pure));
    assert_eq!(inversion.states().last(), Some(&start()));
}

#[test]
fn an_inversion_with_no_share_of_the_noise_is_the_latent_at_every_level() {
    let grid = Schedule::new(&mini()).unwrap().grid(20).unwrap();
    let trajectory = |seed, share| {
        let noise = Stochastic::new(1.0, seed).unwrap().with_share(share);
        let noise = noise.unwrap();
        Inversion::new(grid.clone(), start(), text(0.0), Guidance::OFF, noise).unwrap()
    };
    let (plain, other) = (trajectory(5, 0.0), trajectory(6, 0.0));
    assert_eq!(plain.states(), other.states());
    for (x, step) in plain.states().iter().zip(grid.steps()) {
        let signal = step.level.sqrt() as f32;
        assert_eq!(*x, start().zip(&start(), |z, _| signal * z));
    }
    assert_ne!(trajectory(5, 0.5).states(), plain.states());
    assert_ne!(trajectory(5, 0.5).states(), trajectory(6, 0.5).states());
    for share in [-0.1, 1.1, f32::NAN] {
        assert!(Stochastic::new(1.0, 0).unwrap().with_share(share).is_err());
    }
}

#[test]
fn an_inversion_is_completed_from_where_an_edit_starts_and_then_further() {
    let (net, control) = (Analytic::default(), Control::default());
    let span = Span::new(&control, Phase::Invert, 0.0, 1.0);
    let grid = Schedule::new(&mini()).unwrap().grid(20).unwrap();
    let noise = Stochastic::new(1.0, 5).unwrap();
    let mut inversion = Inversion::new(grid, start(), text(0.0), Guidance::OFF, noise).unwrap();
    inversion.complete(&net, 12, span).unwrap();
    assert_eq!(net.batches.get(), 8);
    assert!(inversion.is_complete_from(12) && !inversion.is_complete_from(11));
    let x = inversion.states()[3].clone();
    let early = inversion.replay(&net, 3, &x, &text(0.0), 0.0, span);
    assert_eq!(early.unwrap_err().code(), Code::Internal);
    net.batches.set(0);
    inversion.complete(&net, 0, span).unwrap();
    assert_eq!(net.batches.get(), 12);
    assert!(inversion.is_complete_from(0));
}

#[test]
fn what_a_cancelled_inversion_has_done_is_kept() {
    let cancel = Cancel::new();
    let (raised, net) = (cancel.clone(), Analytic::default());
    let control = Control::new(cancel, move |progress| {
        if progress.fraction >= 0.5 {
            raised.cancel();
        }
    });
    let grid = Schedule::new(&mini()).unwrap().grid(20).unwrap();
    let noise = Stochastic::new(1.0, 5).unwrap();
    let mut inversion = Inversion::new(grid, start(), text(0.0), Guidance::OFF, noise).unwrap();
    let stopped = inversion.complete(&net, 0, Span::new(&control, Phase::Invert, 0.0, 1.0));
    assert_eq!(stopped.unwrap_err().code(), Code::Cancelled);
    assert_eq!(net.batches.get(), 10);
    let control = Control::default();
    inversion
        .complete(&net, 0, Span::new(&control, Phase::Invert, 0.0, 1.0))
        .unwrap();
    assert_eq!(net.batches.get(), 20);
}
