//! The derivatives of gated layers on every path that this CPU has, against the plainest sums that say what they are,
//! over odd shapes, and over so many rows that they are taken block by block.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use proptest::prelude::*;
use semblance_kernels::*;
use support::{allowed_of, both, difference, near_or_close, nearest, noise, paths, plain_act};

/// Largest error of a number that is a sum of `terms` products in f32, of a layer of `inputs`, beside the number or 1.
fn exact(inputs: usize, terms: usize) -> f64 {
    let root = |n: usize| (n as f64).sqrt();
    8e-6 * (1.0 + root(inputs)) * (4.0 + root(terms))
}

/// What a layer of `inputs` and `2 · half` outputs gives and takes back: value · gelu(gate), its tangent and its
/// cotangent, in f64.
struct Plain {
    rows: usize,
    inputs: usize,
    half: usize,
    w: Vec<f32>,
    bias: Vec<f32>,
    x: Vec<f32>,
    dx: Vec<f32>,
    g: Vec<f32>,
    /// `x` and `g` once more, two bf16 numbers in a place, which is all that they are made of.
    places: (Vec<f32>, Vec<f32>),
    push: Vec<f64>,
    pull: Vec<f64>,
}

impl Plain {
    fn new(rows: usize, inputs: usize, half: usize) -> Plain {
        // Gates stay where the plain erf has digits enough for differences.
        let w: Vec<f32> = noise(2 * half * inputs, 2)
            .iter()
            .map(|w| 0.4 * w)
            .collect();
        let bias = noise(2 * half, 3);
        let ((x, x_places), dx) = (both(rows * inputs, 1), noise(rows * inputs, 5));
        let (g, g_places) = both(rows * half, 4);
        let layer = |x: &[f32], bias: Option<&[f32]>, r: usize, o: usize| -> f64 {
            let row = &x[r * inputs..][..inputs];
            let sum: f64 = (row.iter().zip(&w[o * inputs..]))
                .map(|(x, w)| f64::from(*x) * f64::from(*w))
                .sum();
            sum + bias.map_or(0.0, |b| f64::from(b[o]))
        };
        let gelu = |x: f64| plain_act(Act::Gelu, x);
        let mut push = vec![0.0; rows * half];
        let mut pull = vec![0.0; rows * inputs];
        for r in 0..rows {
            let pull = &mut pull[r * inputs..][..inputs];
            for o in 0..half {
                let (a, b) = (
                    layer(&x, Some(&bias), r, o),
                    layer(&x, Some(&bias), r, half + o),
                );
                let slope = difference(gelu, b);
                let (da, db) = (layer(&dx, None, r, o), layer(&dx, None, r, half + o));
                push[r * half + o] = da * gelu(b) + a * slope * db;
                let g = f64::from(g[r * half + o]);
                let (of_value, of_gate) = (g * gelu(b), g * a * slope);
                let (value, gate) = (&w[o * inputs..], &w[(half + o) * inputs..]);
                for (pull, (v, w)) in pull.iter_mut().zip(value.iter().zip(gate)) {
                    *pull += of_value * f64::from(*v) + of_gate * f64::from(*w);
                }
            }
        }
        Plain {
            rows,
            inputs,
            half,
            w,
            bias,
            x,
            dx,
            g,
            places: (x_places, g_places),
            push,
            pull,
        }
    }

    /// The mean squares of a tangent and of a cotangent when none is small by chance.
    fn usual(&self) -> (f64, f64) {
        let change = 0.16 * self.inputs as f64 / 9.0;
        let value = change + 1.0 / 3.0;
        let weight = 0.16 / 3.0;
        // gelu(b) is half of b or more, in the mean of squares, and its slope about a half.
        let push = change * value / 2.0;
        let pull = self.half as f64 * (value / 2.0) * weight / 3.0;
        (push, pull)
    }

    /// The cotangent that `cpu` gives, of plain numbers or of rounded ones.
    fn pulled(&self, cpu: Cpu, (x, g, out): (bool, bool, bool)) -> Vec<f32> {
        let (layer, open) = self.layers(cpu);
        let back = open.transposed(None).unwrap();
        let input = |rounded: bool, plain, places| match rounded {
            true => Input::Rounded(places),
            false => Input::Plain(plain),
        };
        let x = input(x, &self.x, &self.places.0);
        let g = input(g, &self.g, &self.places.1);
        let mut found = vec![f32::NAN; self.pull.len()];
        match out {
            false => geglu_cotangent(x, &layer, &back, g, Output::Plain(&mut found)).unwrap(),
            true => {
                let mut places = vec![f32::NAN; found.len() / 2];
                let to = Output::Rounded(&mut places);
                geglu_cotangent(x, &layer, &back, g, to).unwrap();
                widen(cpu, &places, &mut found).unwrap();
            }
        }
        found
    }

    /// The layer, packed, and without its gates.
    fn layers(&self, cpu: Cpu) -> (Weights, Weights) {
        let layer = Weights::gated(cpu, &self.w, Some(&self.bias), self.inputs, 2 * self.half);
        let layer = layer.unwrap();
        let open = layer.opened().unwrap();
        (layer, open)
    }

    fn check_tangent(&self, cpu: Cpu) {
        let (layer, open) = self.layers(cpu);
        let wide = self.rows * open.outputs();
        let (mut z, mut dz) = (vec![f32::NAN; wide], vec![f32::NAN; wide]);
        linear(&self.x, 1, &open, Finish::default(), &mut z).unwrap();
        let plain = open.without_bias().unwrap();
        linear(&self.dx, 1, &plain, Finish::default(), &mut dz).unwrap();
        let mut out = vec![f32::NAN; self.push.len()];
        gate_tangent(&layer, &z, &dz, &mut out).unwrap();
        let exact = exact(self.inputs, self.inputs);
        let limits = (self.usual().0, limit(cpu, self.inputs), exact);
        near_or_close(cpu, "gate tangent", &out, &self.push, limits);
    }

    fn check_cotangent(&self, cpu: Cpu) {
        let exact = exact(self.inputs, 2 * self.half);
        let limits = (self.usual().1, limit(cpu, 2 * self.half), exact);
        let plain = self.pulled(cpu, (false, false, false));
        near_or_close(cpu, "geglu cotangent", &plain, &self.pull, limits);
        // Rounded values, wherever they are taken, give the same bits: these numbers are bf16's.
        let (inputs, outputs) = (cpu.rounds(self.inputs), cpu.rounds(self.half));
        for (x, g) in [(true, false), (false, true), (true, true)] {
            if x && !inputs || g && !outputs {
                continue;
            }
            let found = self.pulled(cpu, (x, g, false));
            assert!(found == plain, "geglu cotangent of rounded values on {cpu}");
        }
        if inputs {
            let found = self.pulled(cpu, (true, outputs, true));
            for (i, (found, want)) in found.iter().zip(&plain).enumerate() {
                let want = f32::from_bits(nearest(*want) << 16);
                assert_eq!(*found, want, "geglu cotangent, rounded, on {cpu}: {i}");
            }
        }
    }

    fn check_refusals(&self, cpu: Cpu) {
        let (layer, open) = self.layers(cpu);
        assert!(layer.transposed(None).is_err());
        let back = open.transposed(None).unwrap();
        let mut out = vec![0.0; self.pull.len()];
        let mut pull_back = |layer: &Weights, g: &[f32]| {
            geglu_cotangent((&self.x).into(), layer, &back, g.into(), (&mut out).into())
        };
        assert!(pull_back(&open, &self.g).is_err());
        assert!(pull_back(&layer, &self.g[1..]).is_err());
    }
}

/// The largest relative error of sums of `terms` terms: both factors of a product are off, as is what goes back.
fn limit(cpu: Cpu, terms: usize) -> f64 {
    1.5 * allowed_of(cpu, Tiling::Direct, terms)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_gated_layer_has_its_derivatives_both_ways(
        rows in 1..30_usize, inputs in 1..60_usize, half in 1..70_usize,
    ) {
        let plain = Plain::new(rows, inputs, half);
        for cpu in paths() {
            plain.check_tangent(cpu);
            plain.check_cotangent(cpu);
            plain.check_refusals(cpu);
        }
    }
}

/// Rows of 6144 values and gates and more are taken 128 at a time, those of 4200 are 192 at a time.
#[test]
fn rows_that_are_taken_block_by_block_have_the_same_cotangent() {
    for (rows, inputs, half) in [
        // Two blocks and a part of one; a single row in the last; widths that are no whole vectors.
        (300, 32, 3104),
        (129, 64, 3072),
        (257, 7, 3203),
        (400, 5, 2101),
    ] {
        let plain = Plain::new(rows, inputs, half);
        for cpu in paths() {
            plain.check_cotangent(cpu);
        }
    }
}
