//! Weights of f32 that 16 bits hold as well.
//!
//! For: packed weights on paths of f32 whose every number is one of f16 or of bf16, as those of a model that was saved
//! so: they are kept as such, which takes half the memory and half the time to read, and made f32 again a block at a
//! time, where products want them. No bit of a result depends on it. Not for: rounding ([`crate::bf16`]).

use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::arena::lasting;
use crate::cpu::CpuPath;
use crate::error::Result;
use crate::isa::{Cpu, Precision};
use crate::pack::Weights;
use crate::packed::Packed;
use crate::vector::{Vector, Wide};

/// How packed numbers lie in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Storage {
    /// As products take them.
    #[default]
    Ready,
    /// As f16, two to a place.
    F16,
    /// As bf16, two to a place.
    Bf16,
}

/// Numbers that are looked at, or changed, at a time.
const SOME: usize = 1 << 10;

impl Storage {
    const ALL: [Storage; 3] = [Storage::Ready, Storage::F16, Storage::Bf16];

    /// The one that loses nothing of `numbers`, which are f32, and that `cpu` reads fast.
    fn of(cpu: Cpu, numbers: &[f32]) -> Storage {
        let all = |fits: fn(&[f32]) -> bool| numbers.par_chunks(SOME).all(fits);
        // Without an instruction it would take as long as multiplying.
        let reads = cpu.vectors() != CpuPath::Portable;
        match () {
            () if all(fits_bf16) => Storage::Bf16,
            () if reads && all(fits_f16) => Storage::F16,
            () => Storage::Ready,
        }
    }

    /// A number that says which it is, for a file.
    pub fn code(self) -> f32 {
        match self {
            Storage::Ready => 0.0,
            Storage::F16 => 1.0,
            Storage::Bf16 => 2.0,
        }
    }

    /// Which one has this [`Storage::code`].
    pub fn coded(code: f32) -> Option<Storage> {
        Storage::ALL.into_iter().find(|s| s.code() == code)
    }

    /// Whether products cannot take them as they lie.
    pub fn is_half(self) -> bool {
        self != Storage::Ready
    }

    /// Bytes of a number that products take at `precision`.
    pub fn bytes(self, precision: Precision) -> usize {
        match self {
            Storage::Ready => precision.bytes(),
            Storage::F16 | Storage::Bf16 => size_of::<u16>(),
        }
    }

    /// The number whose bits are `half`.
    pub fn number(self, half: u16) -> f32 {
        match self {
            Storage::F16 => f16::from_bits(half).to_f32(),
            Storage::Ready | Storage::Bf16 => bf16::from_bits(half).to_f32(),
        }
    }

    /// `count` numbers of those kept at `from` as f32 to `to`: whole vectors.
    ///
    /// # Safety
    /// `from` may be read, and `to` written, for so many.
    #[inline(always)]
    pub unsafe fn widen<V: Vector>(self, from: *const u16, to: *mut f32, count: usize) {
        debug_assert!(count.is_multiple_of(V::LANES) && self.is_half());
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Storage::F16 => {
                    for at in (0..count).step_by(V::LANES) {
                        V::load_f16(from.add(at)).store(to.add(at));
                    }
                }
                Storage::Ready | Storage::Bf16 => {
                    for at in (0..count).step_by(V::LANES) {
                        V::load_bf16(from.add(at)).store(to.add(at));
                    }
                }
            }
        }
    }
}

/// Widens as many numbers as there is room for.
struct Widen<'a> {
    storage: Storage,
    from: *const u16,
    to: &'a mut [f32],
}

impl Wide for Widen<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        // SAFETY: there are as many where `from` leads to ([`Weights::widened`]).
        unsafe {
            self.storage
                .widen::<V>(self.from, self.to.as_mut_ptr(), self.to.len());
        }
    }
}

fn fits_bf16(numbers: &[f32]) -> bool {
    numbers.iter().all(|x| x.to_bits() & 0xFFFF == 0)
}

fn fits_f16(numbers: &[f32]) -> bool {
    let (mut halves, mut back) = ([f16::ZERO; SOME], [0.0; SOME]);
    let (halves, back) = (
        halves.get_mut(..numbers.len()),
        back.get_mut(..numbers.len()),
    );
    let (Some(halves), Some(back)) = (halves, back) else {
        return false;
    };
    halves.convert_from_f32_slice(numbers);
    halves.convert_to_f32_slice(back);
    let mut both = numbers.iter().zip(back.iter());
    both.all(|(x, back)| x.to_bits() == back.to_bits())
}

impl Weights {
    /// The same, in half the memory where that loses nothing.
    pub(crate) fn halved(self) -> Result<Weights> {
        if self.precision != Precision::F32 || self.storage.is_half() {
            return Ok(self);
        }
        let storage = Storage::of(self.cpu, &self.data);
        if !storage.is_half() {
            return Ok(self);
        }
        let mut places = lasting(self.data.len().div_ceil(2))?;
        let from = self.data.par_chunks(SOME);
        (places.par_chunks_mut(SOME / 2).zip(from)).for_each(|(to, from)| {
            let mut halves = [0; SOME];
            for (half, x) in halves.iter_mut().zip(from) {
                *half = match storage {
                    Storage::F16 => f16::from_f32(*x).to_bits(),
                    Storage::Ready | Storage::Bf16 => bf16::from_f32(*x).to_bits(),
                };
            }
            // As they lie in memory.
            for (to, pair) in to.iter_mut().zip(halves.as_chunks().0) {
                let [a, b]: [u16; 2] = *pair;
                let ([a, b], [c, d]) = (a.to_ne_bytes(), b.to_ne_bytes());
                *to = f32::from_ne_bytes([a, b, c, d]);
            }
        });
        Ok(Weights {
            data: Packed::from(places),
            storage,
            ..self
        })
    }

    /// The numbers kept at `at`, of those that are kept in halves, in `room`; whole vectors of them.
    pub(crate) fn widened<'a>(&self, at: Range<usize>, room: &'a mut [f32]) -> Option<&'a [f32]> {
        let to = room.get_mut(..at.len())?;
        if at.end > 2 * self.data.len() {
            return None;
        }
        // SAFETY: two of them lie in a place.
        let from = unsafe { self.data.as_ptr().cast::<u16>().add(at.start) };
        self.cpu.wide(Widen {
            storage: self.storage,
            from,
            to: &mut *to,
        });
        Some(to)
    }

    /// The number kept at `at`, of those that are kept in halves.
    pub(crate) fn half(&self, at: usize) -> f32 {
        let place = self.data.get(at / 2).copied().unwrap_or_default();
        let [a, b, c, d] = place.to_ne_bytes();
        let half = if at.is_multiple_of(2) { [a, b] } else { [c, d] };
        self.storage.number(u16::from_ne_bytes(half))
    }
}
