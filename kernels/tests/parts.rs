//! A layer put together from another one's packed numbers computes the same bits, on every path that
//! this CPU has; numbers that do not fit are refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use semblance_kernels::*;
use support::{noise, paths};

/// The parts as they come back from a file: pieces of one buffer.
fn through_a_file(parts: &[Packed]) -> Vec<Packed> {
    let lines = |part: &Packed| part.len().next_multiple_of(LINE);
    let mut whole = Buffer::zeros(parts.iter().map(lines).sum()).unwrap();
    let mut places = Vec::new();
    let mut at = 0;
    for part in parts {
        whole[at..at + part.len()].copy_from_slice(part);
        places.push((at, part.len()));
        at += lines(part);
    }
    let whole = Packed::from(whole);
    let piece = |(from, len)| whole.piece(from, len).unwrap();
    places.into_iter().map(piece).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_convolution_from_its_parts_gives_the_same_bits() {
    for cpu in paths() {
        for (inputs, outputs, size, stride, side) in [
            (3, 5, 3, 1, 9),
            (4, 40, 3, 1, 16),
            (7, 33, 1, 1, 5),
            (64, 64, 3, 1, 32),
            (64, 96, 3, 2, 16),
            (130, 100, 3, 1, 12),
            (256, 256, 3, 1, 8),
            (9, 17, 5, 3, 11),
        ] {
            let window = Window {
                size,
                stride,
                padding: (size / 2, size / 2),
            };
            let kernel = noise(inputs * outputs * size * size, 1);
            let bias = noise(outputs, 2);
            let io = (inputs, outputs);
            for tiling in Tiling::ALL {
                let Ok(conv) = Conv::tiled(cpu, &kernel, &bias, io, window, tiling) else {
                    assert!((size, stride) != (3, 1), "{tiling:?}");
                    continue;
                };
                let parts = through_a_file(&conv.parts());
                let again = Conv::of(cpu, io, window, tiling, parts.clone()).unwrap();
                let from = Size {
                    n: 1,
                    h: side,
                    w: side,
                    c: inputs,
                };
                let x = noise(from.len().unwrap(), 3);
                let run = |conv: &Conv| {
                    let mut out = vec![0.0; conv.output(from).unwrap().len().unwrap()];
                    conv.run(&x, from, Finish::default(), &mut out).unwrap();
                    bits(&out)
                };
                let what = format!("{inputs} → {outputs}, kernel {size}, on {}", cpu.path());
                assert!(run(&conv) == run(&again), "{what}");
                assert_eq!(conv.bytes(), again.bytes(), "{what}");

                let fewer = parts[1..].to_vec();
                assert!(Conv::of(cpu, io, window, tiling, fewer).is_none());
                let more = Conv::of(cpu, (inputs, outputs + 64), window, tiling, parts.clone());
                assert!(more.is_none(), "{what}");
                let other = Conv::of(cpu, (inputs + 64, outputs), window, tiling, parts);
                assert!(other.is_none(), "{what}");
            }
        }
    }
}

#[test]
fn a_linear_layer_from_its_parts_gives_the_same_bits() {
    for cpu in paths() {
        for (inputs, outputs) in [(1, 2), (33, 16), (70, 100), (320, 1280)] {
            let (weight, bias) = (noise(inputs * outputs, 1), noise(outputs, 2));
            let bias = Some(&*bias);
            let x = noise(3 * inputs, 3);
            let run = |w: &Weights| {
                let mut out = vec![0.0; 3 * w.outputs()];
                linear(&x, 1, w, Finish::default(), &mut out).unwrap();
                bits(&out)
            };
            let what = format!("{inputs} → {outputs} on {}", cpu.path());

            let w = Weights::linear(cpu, &weight, bias, inputs, outputs).unwrap();
            let parts = through_a_file(&w.parts());
            let again = Weights::linear_of(cpu, inputs, outputs, parts.clone()).unwrap();
            assert!(run(&w) == run(&again), "{what}");
            let wider = Weights::linear_of(cpu, inputs, outputs + 64, parts);
            assert!(wider.is_none(), "{what}");

            let w = Weights::gated(cpu, &weight, bias, inputs, outputs).unwrap();
            let parts = through_a_file(&w.parts());
            let again = Weights::gated_of(cpu, inputs, outputs, parts.clone()).unwrap();
            assert!(run(&w) == run(&again), "gated {what}");
            assert!(Weights::gated_of(cpu, inputs, outputs, vec![]).is_none());
            let deeper = Weights::gated_of(cpu, inputs + 64, outputs, parts);
            assert!(deeper.is_none(), "gated {what}");
        }
    }
}
