//! Weights that 16 bits hold take half the memory on paths of f32, and change no bit of a result: the same layer with
//! one more output, whose weights no half holds, is kept in f32.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use half::{bf16, f16};
use proptest::prelude::*;
use semblance_kernels::*;
use support::{noise, paths};

/// How weights are rounded: to f16, to ones that are not normal among them, to bf16.
const KINDS: [fn(f32) -> f32; 3] = [
    |x| f16::from_f32(x).to_f32(),
    |x| f16::from_f32(x * 1e-6).to_f32(),
    |x| bf16::from_f32(x).to_f32(),
];

/// The last of [`KINDS`].
const BF16: usize = 2;

fn halves(count: usize, kind: usize) -> Vec<f32> {
    noise(count, 1).into_iter().map(KINDS[kind]).collect()
}

/// Whether `cpu` keeps weights of that kind in halves.
fn keeps(cpu: Cpu, kind: usize) -> bool {
    let by_instruction = cpu.path() != CpuPath::Portable;
    cpu.precision() == Precision::F32 && (by_instruction || kind == BF16)
}

/// Asserts that the first `width` of every `width + 1` numbers of `more` are those of `found`.
fn same(what: &str, found: &[f32], more: &[f32], width: usize) {
    let more: Vec<f32> = (more.chunks_exact(width + 1))
        .flat_map(|row| &row[..width])
        .copied()
        .collect();
    assert!(
        found
            .iter()
            .map(|x| x.to_bits())
            .eq(more.iter().map(|x| x.to_bits())),
        "{what}"
    );
}

/// A row of zero after every `width` numbers.
fn with_zeros(x: &[f32], width: usize) -> Vec<f32> {
    let rows = x.chunks_exact(width);
    rows.flat_map(|row| row.iter().copied().chain([0.0]))
        .collect()
}

fn check_linear(rows: usize, inputs: usize, outputs: usize, kind: usize) {
    let x = noise(rows * inputs, 2);
    let weight = halves(inputs * outputs, kind);
    let bias = noise(outputs + 1, 3);
    let mut whole = weight.clone();
    whole.extend(noise(inputs, 4));
    // The mode of an engine's threads, which keeps denormal numbers.
    let _scope = FpScope::enter();
    for cpu in paths() {
        let what = format!("{rows} rows, {inputs} → {outputs} on {cpu}");
        let w = Weights::linear(cpu, &weight, bias.get(..outputs), inputs, outputs).unwrap();
        let more = Weights::linear(cpu, &whole, Some(&bias), inputs, outputs + 1).unwrap();
        let run = |w: &Weights, x: &[f32]| {
            let mut out = vec![0.0; rows * w.outputs()];
            linear(x, 1, w, Finish::default(), &mut out).unwrap();
            out
        };
        same(&what, &run(&w, &x), &run(&more, &x), outputs);
        let parts = w.parts();
        let again = Weights::linear_of(cpu, inputs, outputs, parts.clone()).unwrap();
        assert!(run(&w, &x) == run(&again, &x), "{what}");
        assert_eq!(w.bytes(), again.bytes());
        if keeps(cpu, kind) {
            let columns = parts[1].len();
            assert_eq!(parts[0].len(), (inputs * columns).div_ceil(2), "{what}");
        }
        // What goes back: an output of which nothing comes adds nothing.
        let g = noise(rows * outputs, 5);
        let back = run(&w.transposed(None).unwrap(), &g);
        let from_more = more.transposed(None).unwrap();
        assert!(back == run(&from_more, &with_zeros(&g, outputs)), "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn linear_layers_are_the_same(
        rows in 1_usize..60, inputs in 1_usize..600, outputs in 1_usize..70, kind in 0_usize..3,
    ) {
        check_linear(rows, inputs, outputs, kind);
    }
}

#[test]
fn many_rows_and_blocks_are_the_same() {
    for kind in 0..KINDS.len() {
        check_linear(700, 1300, 40, kind);
        check_linear(1, 2000, 130, kind);
    }
}

#[test]
fn gated_layers_are_the_same() {
    let (rows, inputs, half) = (37, 300, 43);
    for kind in 0..KINDS.len() {
        let weight = halves(inputs * 2 * half, kind);
        let (values, gates) = weight.split_at(inputs * half);
        let odd = noise(inputs, 4);
        let whole = [values, &odd, gates, &odd].concat();
        let x = noise(rows * inputs, 2);
        for cpu in paths() {
            let run = |weight: &[f32], half: usize| {
                let w = Weights::gated(cpu, weight, None, inputs, 2 * half).unwrap();
                let mut out = vec![0.0; rows * half];
                linear(&x, 1, &w, Finish::default(), &mut out).unwrap();
                (out, w.bytes())
            };
            let ((found, bytes), (more, most)) = (run(&weight, half), run(&whole, half + 1));
            same(&format!("gated on {cpu}"), &found, &more, half);
            assert!(
                !keeps(cpu, kind) || 10 * bytes < 6 * most,
                "{bytes}, {most}"
            );
        }
    }
}

#[test]
fn convolutions_are_the_same() {
    for (inputs, outputs, size, stride, side) in [
        (3, 21, 3, 1, 9),
        (40, 33, 3, 1, 7),
        (300, 24, 3, 1, 4),
        (64, 50, 3, 2, 16),
        (70, 20, 1, 1, 6),
        (9, 17, 5, 3, 11),
    ] {
        let window = Window {
            size,
            stride,
            padding: (size / 2, size / 2),
        };
        let from = Size {
            n: 2,
            h: side,
            w: side,
            c: inputs,
        };
        let x = noise(from.len().unwrap(), 2);
        for kind in 0..KINDS.len() {
            let kernel = halves(inputs * outputs * size * size, kind);
            let bias = noise(outputs + 1, 3);
            let mut whole = kernel.clone();
            whole.extend(noise(inputs * size * size, 4));
            for cpu in paths() {
                let what = format!("{inputs} → {outputs}, kernel {size} on {cpu}");
                let conv = Conv::new(cpu, &kernel, &bias[..outputs], inputs, outputs, window);
                let more = Conv::new(cpu, &whole, &bias, inputs, outputs + 1, window);
                let (conv, more) = (conv.unwrap(), more.unwrap());
                let run = |conv: &Conv| {
                    let to = conv.output(from).unwrap();
                    let mut out = vec![0.0; to.len().unwrap()];
                    conv.run(&x, from, Finish::default(), &mut out).unwrap();
                    (out, to)
                };
                let ((found, to), (want, _)) = (run(&conv), run(&more));
                same(&what, &found, &want, outputs);
                let g = noise(found.len(), 5);
                let back = |conv: &Conv, g: &[f32], c: usize| {
                    let mut out = vec![0.0; x.len()];
                    let transposed = conv.transposed(None).unwrap();
                    transposed.run(g, Size { c, ..to }, from, &mut out).unwrap();
                    out
                };
                let found = back(&conv, &g, outputs);
                let want = back(&more, &with_zeros(&g, outputs), outputs + 1);
                assert!(found == want, "transpose of {what}");
            }
        }
    }
}

#[test]
fn parts_of_another_kind_are_refused() {
    for cpu in paths() {
        let weight = halves(40 * 30, 0);
        let parts = Weights::linear(cpu, &weight, None, 40, 30).unwrap().parts();
        let of = |code: f32| {
            let code = Packed::copy(&[code]).unwrap();
            Weights::linear_of(cpu, 40, 30, vec![parts[0].clone(), parts[1].clone(), code])
        };
        for code in [3.0, -1.0, f32::NAN] {
            assert!(of(code).is_none(), "{cpu}");
        }
        // A convolution by tiles takes no halves, though they be as many.
        let window = Window {
            size: 3,
            stride: 1,
            padding: (1, 1),
        };
        let kernel = noise(32 * 16 * 9, 1);
        let conv = Conv::tiled(cpu, &kernel, &[0.0; 16], (32, 16), window, Tiling::TwoByTwo);
        let mut tiled = conv.unwrap().parts();
        tiled[0] = tiled[0].piece(0, tiled[0].len() / 2).unwrap();
        tiled[2] = Packed::copy(&[1.0]).unwrap();
        let again = Conv::of(cpu, (32, 16), window, Tiling::TwoByTwo, tiled);
        assert!(again.is_none(), "{cpu}");
        // As long as halves are, or as numbers are, and not as the other.
        let kept = keeps(cpu, 0);
        assert_eq!(
            (of(0.0).is_some(), of(1.0).is_some()),
            (!kept, kept),
            "{cpu}"
        );
    }
}
