//! A network in its stride allocates nothing: every value takes memory that an earlier one gave back.
//!
//! In a test of its own, which nothing else may allocate beside.
#![allow(clippy::unwrap_used)]

use std::alloc::System;

use semblance::Latent;
use semblance::job::Cancel;
use semblance::model::Pipeline;
use semblance::nn::native::Native;
use semblance::nn::{Ops, Shape};
use semblance::weights::ModelSource;
use semblance_kernels::{Cpu, CpuPath, Workers};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations of `f`, in whatever thread, when it has been called before.
fn allocations(mut f: impl FnMut()) -> usize {
    // The least of some: threads that had left are called for again.
    let count = || {
        let region = Region::new(ALLOCATOR);
        f();
        let change = region.change();
        change.allocations + change.reallocations
    };
    std::iter::repeat_with(count).take(20).min().unwrap()
}

fn check(cpu: Cpu) {
    let (ops, run) = (Native::new(cpu), Cancel::new());
    let source = ModelSource::Embedded(semblance_model_mini::FILES);
    let model = Pipeline::load_on(ops.clone(), &source, &run).unwrap();
    let side = model.outline().native_size() / model.vae_factor();
    let channels = model.latent_channels();
    let data: Vec<f32> = (0..side * side * channels)
        .map(|i| (i as f32 * 0.7).sin())
        .collect();

    let text = Shape::tokens(1, 32, model.unet_config().text_width);
    let text = ops.value(vec![0.5; text.len()], text).unwrap();
    let net = model.unet_network();
    let keys = net.text_keys(&ops, &text).unwrap();
    for n in [1, 2, 3] {
        let shape = Shape::map(n, side, side, channels);
        let x = ops.value(data.repeat(n), shape).unwrap();
        let keys = semblance::model::unet::TextKeys::stack(&ops, &vec![&keys; n]).unwrap();
        let times = vec![500.0; n];
        let forward = || net.forward(&ops, &x, &times, &keys, &run).unwrap();
        let count = allocations(|| drop(ops.awake(forward)));
        assert_eq!(count, 0, "U-Net, {n} samples, {}", ops.name());
    }

    // With what goes in and what comes out.
    let text = model.encode_text("a photo of the lake", &run).unwrap();
    let context = model.context(&text).unwrap();
    let latent = Latent {
        data,
        channels,
        height: side,
        width: side,
    };
    let predict = || drop(model.unet(&[(&latent, 500.0, &context)], &run).unwrap());
    let count = allocations(predict);
    println!("a prediction on {}: {count} allocations", ops.name());
    assert!(count <= 10, "{count} allocations for a prediction");
}

#[test]
fn a_prediction_allocates_nothing_but_what_goes_in_and_comes_out() {
    for path in CpuPath::ALL {
        match Cpu::new(path) {
            Ok(cpu) => Workers::new("allocations", 2).unwrap().run(|| check(cpu)),
            Err(_) => println!("skipped: no {path} here"),
        }
    }
}
