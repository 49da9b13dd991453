//! Convolutions by tiles on every path that this CPU has, against the plainest loop.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/conv.rs"]
mod conv;
mod support;

use conv::{as_plus, plain_conv, plus};
use proptest::prelude::*;
use semblance_kernels::*;
use support::{allowed, close, near, noise, paths};

const SAME: Window = Window {
    size: 3,
    stride: 1,
    padding: (1, 1),
};

fn check(s: Size, outputs: usize, padding: (usize, usize), kind: u8, act: Act) {
    let win = Window { padding, ..SAME };
    if win.output(s.h).is_none() || win.output(s.w).is_none() {
        return;
    }
    let x = noise(s.len().unwrap(), 4);
    let (kernel, bias) = (noise(outputs * s.c * 9, 5), noise(outputs, 6));
    let mut want = plain_conv(&x, s, &kernel, &bias, win);
    let data = plus(kind, s.n, outputs, &mut want);
    if act == Act::Silu {
        want.iter_mut().for_each(|x| *x /= 1.0 + (-*x).exp());
    }
    let finish = Finish {
        plus: as_plus(kind, &data),
        act,
    };
    for cpu in paths() {
        for tiling in Tiling::ALL {
            let w = Conv::tiled(cpu, &kernel, &bias, (s.c, outputs), win, tiling).unwrap();
            assert_eq!(w.tiling(), tiling);
            let mut out = vec![f32::NAN; want.len()];
            w.run(&x, s, finish, &mut out).unwrap();
            let what = format!("{tiling:?}: {s:?} to {outputs}");
            // Sums of nine products a channel.
            let usual = s.c as f64;
            near(cpu, &what, &out, &want, usual, allowed(cpu, tiling));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_convolution_by_tiles_is_its_sums_at_any_size_and_padding(
        n in 1..3_usize, h in 1..15_usize, w in 1..19_usize, c in 1..40_usize, outputs in 1..70_usize,
        before in 0..4_usize, after in 0..4_usize, kind in 0..3_u8, silu in any::<bool>(),
    ) {
        let act = if silu { Act::Silu } else { Act::Identity };
        check(Size { n, h, w, c }, outputs, (before, after), kind, act);
    }
}

#[test]
fn tiles_of_more_chunks_panels_and_channels_than_a_task_has_are_the_same_sums() {
    let size = |h, w, c| Size { n: 1, h, w, c };
    check(size(57, 61, 20), 24, (1, 1), 0, Act::Identity);
    check(size(9, 9, 700), 33, (1, 1), 2, Act::Identity);
    check(size(6, 5, 3000), 20, (1, 1), 1, Act::Identity);
    check(size(8, 8, 24), 200, (1, 1), 2, Act::Silu);
}

/// Inputs of so many channels that they are transformed in several goes.
#[test]
fn a_map_that_is_transformed_in_parts_gives_what_it_gives_directly() {
    let s = Size {
        n: 1,
        h: 40,
        w: 40,
        c: 2600,
    };
    let x = noise(s.len().unwrap(), 7);
    let (kernel, bias) = (noise(s.c * 9 * 5, 8), noise(5, 9));
    for cpu in paths() {
        if cpu.path() == CpuPath::Portable || cpu == Cpu::emulated_amx() {
            continue; // slow, and no different here
        }
        let run = |tiling| {
            let w = Conv::tiled(cpu, &kernel, &bias, (s.c, 5), SAME, tiling).unwrap();
            let mut out = vec![f32::NAN; 40 * 40 * 5];
            w.run(&x, s, Finish::default(), &mut out).unwrap();
            out
        };
        let want: Vec<f64> = run(Tiling::Direct).into_iter().map(f64::from).collect();
        let tiling = Tiling::FourByFour;
        let (found, allowed) = (run(tiling), allowed(cpu, tiling));
        near(cpu, "tiles", &found, &want, s.c as f64, allowed);
        if cpu.precision() == Precision::F32 {
            // Sums of 23 400 products are about fifty.
            close(cpu, "tiles", &found, &want, 100.0 * allowed);
        }
    }
}

#[test]
fn the_weights_behind_the_factors_are_found_again_for_gradients() {
    let (h, w, c, outputs) = (9, 11, 6, 7);
    let s = Size { n: 1, h, w, c };
    let to = Size { c: outputs, ..s };
    let (x, g) = (noise(h * w * c, 10), noise(h * w * outputs, 11));
    let kernel = noise(outputs * c * 9, 12);
    // Turned by half a turn, inputs and outputs exchanged.
    let mut turned = vec![0.0; kernel.len()];
    for (i, x) in kernel.iter().enumerate() {
        let (o, i, tap) = (i / 9 / c, i / 9 % c, i % 9);
        turned[(i * outputs + o) * 9 + 8 - tap] = *x;
    }
    let want = plain_conv(&g, to, &turned, &vec![0.0; c], SAME);
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    for cpu in paths() {
        for tiling in Tiling::ALL {
            let forth = Conv::tiled(cpu, &kernel, &[0.0; 7], (c, outputs), SAME, tiling).unwrap();
            let back = forth.transposed(None).unwrap();
            let (mut y, mut gx) = (vec![0.0; g.len()], vec![0.0; x.len()]);
            forth.run(&x, s, Finish::default(), &mut y).unwrap();
            back.run(&g, to, s, &mut gx).unwrap();
            let what = format!("transposed, {tiling:?}");
            let usual = outputs as f64;
            near(cpu, &what, &gx, &want, usual, allowed(cpu, tiling));
            let apart = (dot(&y, &g) - dot(&x, &gx)).abs();
            let size = (dot(&y, &y) * dot(&g, &g)).sqrt();
            let allowed = allowed(cpu, tiling) * size;
            assert!(apart <= allowed, "{tiling:?} on {}: {apart}", cpu.path());
        }
    }
}

#[test]
fn no_bit_of_tiles_depends_on_the_number_of_threads() {
    let s = Size {
        n: 2,
        h: 30,
        w: 31,
        c: 48,
    };
    let x = noise(s.len().unwrap(), 30);
    let (kernel, bias) = (noise(9 * 48 * 80, 31), noise(80, 32));
    for cpu in paths() {
        for tiling in Tiling::ALL {
            let w = Conv::tiled(cpu, &kernel, &bias, (48, 80), SAME, tiling).unwrap();
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                let mut y = vec![0.0; 2 * 30 * 31 * 80];
                (pool.unwrap()).install(|| w.run(&x, s, Finish::default(), &mut y).unwrap());
                y.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
            };
            let one = run(1);
            assert!([2, 3, 7].into_iter().all(|threads| run(threads) == one));
        }
    }
}

#[test]
fn only_three_by_three_at_stride_one_goes_by_tiles() {
    let cpu = Cpu::new(CpuPath::Portable).unwrap();
    for (size, stride) in [(1, 1), (5, 1), (3, 2)] {
        let win = Window {
            size,
            stride,
            ..SAME
        };
        let kernel = vec![0.0; size * size * 16 * 16];
        let made = Conv::tiled(cpu, &kernel, &[0.0; 16], (16, 16), win, Tiling::TwoByTwo);
        assert!(made.is_err(), "{size} at {stride}");
        let chosen = Tiling::choose(cpu, (320, 320), win, (64, 64));
        assert_eq!(chosen, Tiling::Direct);
    }
    let chosen = Tiling::choose(cpu, (320, 320), SAME, (64, 64));
    assert_eq!(chosen, Tiling::FourByFour);
}
