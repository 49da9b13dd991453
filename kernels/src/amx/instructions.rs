//! The tile instructions, one function each.
//!
//! For: what `super::block` is written over, and the real ones by inline assembly, whose names stable
//! Rust has no intrinsics for. Not for: leave to use them (`permission`).

use crate::vector::Vector;

/// The instructions that a product takes. A register holds at most 16 rows of 64 bytes; its shape is
/// set by a [`Config`].
pub(crate) trait Instructions: Default {
    /// The vectors beside the tiles.
    type Vector: Vector;

    /// a · b + c of the vectors beside the tiles.
    fn fma(a: f32, b: f32, c: f32) -> f32;

    /// [`crate::bf16::round`] beside the tiles.
    fn round(from: &[f32], to: &mut [f32]);

    /// LDTILECFG: gives every register its shape and zeros.
    ///
    /// # Safety
    /// The CPU has the instructions, and the operating system lets the process use them.
    unsafe fn configure(&mut self, config: &Config);

    /// TILERELEASE: frees the registers.
    ///
    /// # Safety
    /// As [`Self::configure`].
    unsafe fn release(&mut self);

    /// TILEZERO.
    ///
    /// # Safety
    /// Register `T` has a shape.
    unsafe fn zero<const T: usize>(&mut self);

    /// TILELOADD: every row of register `T`, `pitch` bytes apart (wrapping).
    ///
    /// # Safety
    /// As [`Self::zero`], and the rows may be read.
    unsafe fn load<const T: usize>(&mut self, from: *const u8, pitch: usize);

    /// TILESTORED: the reverse.
    ///
    /// # Safety
    /// As [`Self::zero`], and the rows may be written.
    unsafe fn store<const T: usize>(&mut self, to: *mut u8, pitch: usize);

    /// TDPBF16PS: adds to the f32 of `C` the product of the bf16 of `A` by those of `B`, whose rows
    /// hold pairs: inputs 2 k and 2 k + 1 of a column side by side.
    ///
    /// # Safety
    /// The shapes of the three fit.
    unsafe fn dot<const C: usize, const A: usize, const B: usize>(&mut self);
}

/// What LDTILECFG reads.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub palette: u8,
    pub start_row: u8,
    pub reserved: [u8; 14],
    /// Bytes in a row of each register.
    pub bytes: [u16; 16],
    pub rows: [u8; 16],
}

impl Config {
    /// Registers for a product of `rows` rows, 1 to 32: see `super::block`. Those of the lower 16
    /// rows have no shape where there are none.
    pub fn new(rows: usize) -> Config {
        let upper = rows.min(super::GROUP) as u8;
        let lower = rows.saturating_sub(super::GROUP).min(super::GROUP) as u8;
        let mut config = Config {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            bytes: [0; 16],
            rows: [0; 16],
        };
        let rows = [upper, upper, lower, lower, upper, lower, 16, 16];
        let places = config.rows.iter_mut().zip(&mut config.bytes);
        for ((place, bytes), rows) in places.zip(rows) {
            *place = rows;
            *bytes = if rows > 0 { super::LINE as u16 } else { 0 };
        }
        config
    }
}

/// The CPU's own.
#[cfg(target_arch = "x86_64")]
#[derive(Default)]
pub(crate) struct Real;

/// Assembly that may change tile registers. The compiler keeps nothing of its own there, since no
/// feature is turned on that would let it, so what one instruction leaves the next one finds. Naming
/// all of them as lost says only that.
#[cfg(target_arch = "x86_64")]
macro_rules! tile_asm {
    ($text:literal, [$($operands:tt)*] $(, $option:ident)*) => {
        std::arch::asm!(
            $text,
            $($operands)*
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags $(, $option)*)
        )
    };
}

#[cfg(target_arch = "x86_64")]
impl Instructions for Real {
    type Vector = crate::vector::x86::Bf16;

    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn round(from: &[f32], to: &mut [f32]) {
        // SAFETY: a CPU with tiles for bf16 has AVX512-BF16; `CpuPath` asks for both.
        unsafe { crate::isa::x86::round(from, to) };
    }

    #[inline(always)]
    unsafe fn configure(&mut self, config: &Config) {
        // SAFETY: it reads the 64 bytes of a valid configuration; the instruction may be used.
        unsafe { tile_asm!("ldtilecfg [{at}]", [at = in(reg) config,], readonly) };
    }

    #[inline(always)]
    unsafe fn release(&mut self) {
        // SAFETY: the instruction may be used.
        unsafe { tile_asm!("tilerelease", [], nomem) };
    }

    #[inline(always)]
    unsafe fn zero<const T: usize>(&mut self) {
        // SAFETY: the register has a shape.
        unsafe { tile_asm!("tilezero tmm{t}", [t = const T,], nomem) };
    }

    #[inline(always)]
    unsafe fn load<const T: usize>(&mut self, from: *const u8, pitch: usize) {
        // SAFETY: the register has a shape, and the caller lets its rows be read.
        unsafe {
            tile_asm!(
                "tileloadd tmm{t}, [{from} + {pitch}*1]",
                [t = const T, from = in(reg) from, pitch = in(reg) pitch,],
                readonly
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const T: usize>(&mut self, to: *mut u8, pitch: usize) {
        // SAFETY: the register has a shape, and the caller lets its rows be written.
        unsafe {
            tile_asm!(
                "tilestored [{to} + {pitch}*1], tmm{t}",
                [t = const T, to = in(reg) to, pitch = in(reg) pitch,]
            );
        }
    }

    #[inline(always)]
    unsafe fn dot<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: the three have shapes that fit.
        unsafe {
            tile_asm!(
                "tdpbf16ps tmm{c}, tmm{a}, tmm{b}",
                [c = const C, a = const A, b = const B,],
                nomem
            );
        }
    }
}
