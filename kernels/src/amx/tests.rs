//! Tiles in software against their definition, and the CPU's against those in software.

use super::*;
use crate::{Cpu, CpuPath};

/// bf16 numbers between 2⁻⁸ and 2⁸; `wild` ones have zeros, denormals and all but such among them.
fn operands(count: usize, seed: u32, wild: bool) -> Vec<u16> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let bits = (state >> 16) as u16;
            match (wild, bits & 15) {
                (true, 0) => bits & 0x80FF,
                (true, 1) => bits & 0x8000,
                (true, 2) => bits & 0x80FF | 0x0080,
                (true, 3) => 0x0100 | bits & 0x80FF,
                _ => bits & 0x807F | (0x3B80 + (bits >> 7 & 15) * 0x80),
            }
        })
        .collect()
}

fn f32_of(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// A product of `rows` rows at two taps of `steps` steps by `V` registers of columns.
struct Case {
    rows: usize,
    vectors: usize,
    steps: usize,
    a: Vec<u16>,
    b: Vec<u16>,
    before: Vec<f32>,
}

const TAPS: usize = 2;

impl Case {
    fn new(rows: usize, vectors: usize, steps: usize, wild: bool) -> Case {
        let seed = (rows * 64 + vectors * 16 + steps) as u32;
        Case {
            rows,
            vectors,
            steps,
            a: operands(rows * TAPS * steps * 32, seed, wild),
            b: operands(TAPS * steps * 32 * 16 * vectors, seed + 7, wild),
            before: (0..rows * vectors * 16).map(|i| i as f32 - 40.0).collect(),
        }
    }

    /// # Safety
    /// The instructions `I` may be used.
    unsafe fn run<I: Instructions>(&self, fresh: bool) -> Vec<f32> {
        let run = self.steps * 32;
        let mut pointers = Vec::new();
        for tap in 0..TAPS {
            for row in 0..self.rows {
                // Rows of one tap lie one after the other, in the second from the last to the first.
                let row = if tap == 0 { row } else { self.rows - 1 - row };
                let at = (tap * self.rows + row) * run;
                pointers.push(self.a.as_ptr().wrapping_add(at).cast::<u8>());
            }
        }
        let mut out = self.before.clone();
        let tile = Tile {
            rows: pointers.as_ptr(),
            taps: TAPS,
            skip: 0,
            steps: self.steps,
            b: self.b.as_ptr().cast(),
            out: out.as_mut_ptr(),
            stride: 16 * self.vectors,
            fresh,
        };
        let mut unit = Unit::<I>::default();
        // SAFETY: what the tile leads to is as long as it says.
        unsafe { Tiles::<I>::tile(&mut unit, self.rows, 16 * self.vectors, tile) };
        out
    }

    fn plain(&self, fresh: bool) -> Vec<f64> {
        let (run, width) = (self.steps * 32, 16 * self.vectors);
        let mut out = Vec::new();
        for row in 0..self.rows {
            for column in 0..width {
                let mut sum = match fresh {
                    true => 0.0,
                    false => f64::from(self.before[row * width + column]),
                };
                for k in 0..TAPS * run {
                    let (tap, i) = (k / run, k % run);
                    let from = if tap == 0 { row } else { self.rows - 1 - row };
                    let a = self.a[(tap * self.rows + from) * run + i];
                    let b = self.b[(k / 2 * width + column) * 2 + k % 2];
                    sum += f64::from(f32_of(a)) * f64::from(f32_of(b));
                }
                out.push(sum);
            }
        }
        out
    }
}

const SHAPES: [(usize, usize, usize); 7] = [
    (1, 1, 1),
    (2, 2, 3),
    (15, 1, 2),
    (16, 2, 1),
    (17, 2, 2),
    (31, 1, 4),
    (32, 2, 3),
];

#[test]
fn a_tile_in_software_is_its_sums_at_any_height_and_width() {
    for (rows, vectors, steps) in SHAPES {
        for fresh in [true, false] {
            let case = Case::new(rows, vectors, steps, false);
            // SAFETY: software runs anywhere.
            let found = unsafe { case.run::<Emulated>(fresh) };
            for (found, want) in found.iter().zip(case.plain(fresh)) {
                // Sums of 2⁸ · 2⁸ in f32 beside small ones.
                let error = (f64::from(*found) - want).abs();
                assert!(error < 0.5, "{rows} × {vectors}: {found} is not {want}");
            }
        }
    }
}

#[test]
fn the_tiles_of_this_cpu_give_the_bits_of_those_in_software() {
    #[cfg(target_arch = "x86_64")]
    match Cpu::new(CpuPath::Amx) {
        Ok(_) => {
            for (rows, vectors, steps) in SHAPES {
                let case = Case::new(rows, vectors, steps, true);
                // SAFETY: there is a `Cpu` of this path, so its instructions may be used.
                let (real, soft) = unsafe { (case.run::<Real>(true), case.run::<Emulated>(true)) };
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&real), bits(&soft), "{rows} × {vectors}");
            }
        }
        Err(why) => println!("skipped: no AMX here ({why})"),
    }
}

/// The dot product of one row of pairs and one column, added to `before`.
fn dot(a: &[[f32; 2]], b: &[[f32; 2]], before: f32) -> f32 {
    let mut tiles = Emulated::default();
    let words = |x: &[[f32; 2]]| -> [[u32; 16]; 16] {
        let mut words = [[0; 16]; 16];
        for (word, x) in words.iter_mut().zip(x) {
            word[0] = x[0].to_bits() >> 16 | x[1].to_bits() & 0xFFFF_0000;
        }
        words
    };
    let (across, down) = (words(a), words(b));
    let row: [u32; 16] = std::array::from_fn(|k| across[k][0]);
    let mut sums = [0.0_f32; 16];
    sums[0] = before;
    // SAFETY: a configuration for one row; the memory is as large as the registers' shapes.
    unsafe {
        tiles.configure(&Config::new(1));
        tiles.load::<0>(sums.as_ptr().cast(), 0);
        tiles.load::<4>(row.as_ptr().cast(), 0);
        tiles.load::<6>(down.as_ptr().cast(), LINE);
        tiles.dot::<0, 4, 6>();
        tiles.store::<0>(sums.as_mut_ptr().cast(), 0);
        tiles.release();
    }
    sums[0]
}

#[test]
fn firsts_and_seconds_of_pairs_are_added_up_apart_and_then_to_the_sum() {
    let big = 2.0_f32.powi(30);
    // One after the other, 1 would be lost in 2³⁰; apart, the firsts cancel before.
    assert_eq!(dot(&[[big, 1.0], [-big, 0.0]], &[[1.0; 2]; 2], 0.0), 1.0);
    assert_eq!(dot(&[[big, 1.0], [-big, 0.0]], &[[1.0; 2]; 2], big), big);
    // 1 + 2⁻²⁴ ties to even; 1 + 2⁻²³ + 2⁻²⁴ does too, upwards.
    let half = 2.0_f32.powi(-24);
    assert_eq!(dot(&[[half, 0.0]], &[[1.0; 2]], 1.0), 1.0);
    let next = 1.0 + 2.0 * half;
    assert_eq!(dot(&[[half, 0.0]], &[[1.0; 2]], next), next + 2.0 * half);
}

#[test]
fn denormals_are_zeros_on_the_way_in_and_out() {
    let least = f32::MIN_POSITIVE;
    let denormal = f32::from_bits(0x0040_0000);
    assert_eq!(dot(&[[denormal, 0.0]], &[[2.0; 2]], 0.0), 0.0);
    assert_eq!(dot(&[[0.0, 0.0]], &[[1.0; 2]], denormal), 0.0);
    assert_eq!(dot(&[[least, 0.0]], &[[0.5; 2]], 0.0), 0.0);
    assert_eq!(dot(&[[least, 0.0]], &[[1.0; 2]], 0.0), least);
    // 2⁻¹²⁶ less half a unit of 24 bits rounds to 2⁻¹²⁶, which is none; less a whole unit it is one.
    let less = |e: i32| {
        let (a, b) = (2.0_f32.powi(-70), -(2.0_f32.powi(e + 70)));
        dot(&[[least, 0.0], [a, 0.0]], &[[1.0, 0.0], [b, 0.0]], 0.0)
    };
    assert_eq!(less(-151), least);
    assert_eq!(less(-150), 0.0);
}
