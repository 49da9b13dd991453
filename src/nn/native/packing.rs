//! What the packed form of weights depends on, found out by packing.
//!
//! For: telling files of packed weights apart by path and by version of the kernels, without a number
//! that somebody must remember to raise. Not for: packing itself (`semblance_kernels`).

use semblance_kernels::{Conv, Cpu, CpuPath, Packed, Tiling, Weights, Window};

use crate::nn::Count;

/// A hash of small layers of every kind as they are packed for `cpu`: another one when anything about
/// their form changes.
pub(super) fn of(cpu: Cpu) -> Option<String> {
    let mut hash = blake3::Hasher::new();
    hash.update(cpu.to_string().as_bytes());
    let mut eat = |parts: Vec<Packed>| {
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.bytes());
        }
    };
    let numbers = |count: usize| -> Vec<f32> { (0..count).map(|i| i as f32 * 0.37).collect() };
    // Numbers of no half, of f16 and of bf16.
    let linear = [(70, 100, 0.37), (33, 16, 0.37), (33, 16, 1.0), (3, 16, 1.0)];
    for (inputs, outputs, by) in linear {
        let numbers = |count: usize| -> Vec<f32> { (0..count).map(|i| i as f32 * by).collect() };
        let (weight, bias) = (numbers(inputs * outputs), numbers(outputs));
        eat(Weights::linear(cpu, &weight, Some(&bias), inputs, outputs)
            .ok()?
            .parts());
        eat(Weights::gated(cpu, &weight, Some(&bias), inputs, outputs)
            .ok()?
            .parts());
    }
    // Few channels, some and many; the same size and half of it.
    for (inputs, outputs, size, stride) in [
        (4, 32, 3, 1),
        (48, 40, 1, 1),
        (64, 64, 3, 2),
        (128, 128, 3, 1),
    ] {
        let window = Window {
            size,
            stride,
            padding: (size / 2, size / 2),
        };
        let (kernel, bias) = (numbers(inputs * outputs * size * size), numbers(outputs));
        let conv = Conv::new(cpu, &kernel, &bias, inputs, outputs, window).ok()?;
        eat(conv.parts());
        for tiling in Tiling::ALL {
            let io = (inputs, outputs);
            if let Ok(conv) = Conv::tiled(cpu, &kernel, &bias, io, window, tiling) {
                eat(conv.parts());
            }
        }
    }
    // How a layer is packed goes by its size, and that rule may change.
    let window = Window {
        size: 3,
        stride: 1,
        padding: (1, 1),
    };
    for side in [4, 8, 16, 32, 64] {
        for channels in [4, 16, 64, 192, 640, 1280] {
            let tiling = Tiling::choose(cpu, (channels, channels), window, (side, side));
            hash.update(&[tiling.products() as u8]);
        }
    }
    Some(format!("{cpu} {}", hash.finalize().to_hex()))
}

/// Bytes that so many numbers take packed for `cpu`, from above in a model of Stable Diffusion 1.5's shape:
/// convolutions by tiles keep up to four times as many numbers as files do (`Tiling::choose`), and those are no
/// halves (`cargo bench --bench networks -- FOLDER --start` says what they are).
pub(super) fn bytes(cpu: Cpu, count: Count) -> u64 {
    // Hundredths of a byte a number, and what less a half takes.
    let (each, less) = match cpu.path() {
        CpuPath::Amx => (220, 0),
        CpuPath::Avx512Bf16 => (360, 0),
        CpuPath::Avx2 | CpuPath::Avx512 => (700, 140),
        // Plain code keeps f16 as f32.
        _ => (700, 0),
    };
    let all = u128::from(count.all) * each - u128::from(count.halves.min(count.all)) * less;
    u64::try_from(all / 100).unwrap_or(u64::MAX)
}
