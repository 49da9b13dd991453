//! Numbers rounded to bf16, in pairs, as the instructions that multiply them take them.
//!
//! For: activations, which are rounded at every call. Not for: weights (`pack`), or rounding one number
//! ([`to_bf16`]).

use crate::pack::to_bf16;

/// Two numbers as bf16 in one place.
#[inline(always)]
pub(crate) fn pair(a: f32, b: f32) -> f32 {
    f32::from_bits(u32::from(to_bf16(a)) | u32::from(to_bf16(b)) << 16)
}

/// Rounds `from` to bf16, two to a place of `to`, the rest of which is filled with zeros.
#[inline(always)]
pub(crate) fn round(from: &[f32], to: &mut [f32]) {
    let (pairs, last) = from.as_chunks::<2>();
    let (to, padding) = to.split_at_mut(pairs.len().min(to.len()));
    for (to, [a, b]) in to.iter_mut().zip(pairs) {
        *to = pair(*a, *b);
    }
    padding.fill(0.0);
    if let (Some(to), [last]) = (padding.first_mut(), last) {
        *to = pair(*last, 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Micro, Precision, Task};
    use crate::{Cpu, CpuPath};

    struct Round<'a>(&'a [f32], &'a mut [f32]);

    impl Task for Round<'_> {
        type Out = ();
        fn run<M: Micro>(self) {
            M::round(self.0, self.1);
        }
    }

    #[test]
    fn every_path_rounds_to_the_nearest_and_fills_up_with_zeros() {
        let bits = |i: u32| i.wrapping_mul(2_654_435_761) >> 5 | i << 31 | 0x3000_0000;
        let x: Vec<f32> = (0..75)
            .map(|i| f32::from_bits(bits(i) & 0xBFFF_FFFF))
            .collect();
        let cpus = CpuPath::ALL.into_iter().filter_map(|p| Cpu::new(p).ok());
        for cpu in cpus.chain([Cpu::emulated_amx()]) {
            for len in [0, 1, 31, 32, 33, 64, 75] {
                let mut to = vec![f32::NAN; 40];
                cpu.run_at(Precision::Bf16, Round(&x[..len], &mut to));
                for (i, to) in to.iter().enumerate() {
                    let want = |i: usize| match i < len {
                        true => u32::from(to_bf16(x[i])),
                        false => 0,
                    };
                    assert_eq!(
                        to.to_bits(),
                        want(2 * i) | want(2 * i + 1) << 16,
                        "{cpu}: {i}"
                    );
                }
            }
        }
    }
}
