//! The floating-point control word of the calling thread.
//!
//! For: the same bytes in every host. Audio and video hosts switch a thread to flush denormals or to
//! another rounding; our results must not depend on it, and the host must find its setting again.
//! Not for: making denormals fast. The word that we set is IEEE 754's default — round to nearest,
//! denormals kept, no trap — because that is what the compiler assumes, and what every test runs in.
//!
//! Threads inherit the word of the thread that starts them, so a scope around the start of a thread
//! pool covers its threads.

use std::marker::PhantomData;

/// From [`FpScope::enter`] to its drop the thread computes in IEEE 754's default mode.
#[must_use = "the mode lasts as long as the scope"]
#[derive(Debug)]
pub struct FpScope {
    saved: imp::Word,
    // A control word belongs to a thread: neither Send nor Sync.
    _thread: PhantomData<*const ()>,
}

impl FpScope {
    /// Saves the thread's control word and sets the default. Costs some nanoseconds.
    pub fn enter() -> Self {
        let saved = imp::read();
        imp::write(imp::DEFAULT);
        FpScope {
            saved,
            _thread: PhantomData,
        }
    }
}

impl Drop for FpScope {
    fn drop(&mut self) {
        imp::write(self.saved);
    }
}

#[cfg(target_arch = "x86_64")]
mod imp {
    use std::arch::asm;

    pub type Word = u32;

    /// MXCSR: all exceptions masked, round to nearest, FTZ and DAZ off.
    pub const DEFAULT: Word = 0x1F80;

    pub fn read() -> Word {
        let mut word: Word = 0;
        // SAFETY: stmxcsr writes four bytes to the place given, which is ours and aligned.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack, preserves_flags)) };
        word
    }

    pub fn write(word: Word) {
        // SAFETY: ldmxcsr reads four bytes from the place given. `word` is the default, or was read
        // by stmxcsr on this thread, so no reserved bit is set (that would fault).
        unsafe {
            asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack, preserves_flags, readonly))
        };
    }
}

#[cfg(target_arch = "aarch64")]
mod imp {
    use std::arch::asm;

    pub type Word = u64;

    /// FPCR: round to nearest, FZ off, no trap.
    pub const DEFAULT: Word = 0;

    pub fn read() -> Word {
        let word: Word;
        // SAFETY: reads a control register of the thread, allowed in user mode.
        unsafe { asm!("mrs {}, fpcr", out(reg) word, options(nomem, nostack, preserves_flags)) };
        word
    }

    pub fn write(word: Word) {
        // SAFETY: sets a control register of the thread to its reset value or to what it held.
        unsafe { asm!("msr fpcr, {}", in(reg) word, options(nostack, preserves_flags)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod imp {
    pub type Word = ();
    pub const DEFAULT: Word = ();
    pub fn read() -> Word {}
    pub fn write(_: Word) {}
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use std::hint::black_box;

    const FTZ_AND_DAZ: u32 = 0x8040;

    #[test]
    fn a_host_that_flushes_denormals_finds_its_setting_again_and_we_keep_ours() {
        let before = imp::read();
        imp::write(before | FTZ_AND_DAZ);
        let inside = {
            let _scope = FpScope::enter();
            black_box(f32::MIN_POSITIVE) / black_box(2.0)
        };
        let after = imp::read();
        imp::write(before);
        assert!(inside > 0.0, "a denormal was flushed inside the scope");
        assert_eq!(after & FTZ_AND_DAZ, FTZ_AND_DAZ);
    }

    #[test]
    fn a_thread_started_inside_a_scope_inherits_its_word() {
        let before = imp::read();
        imp::write(before | FTZ_AND_DAZ);
        let word = {
            let _scope = FpScope::enter();
            std::thread::spawn(imp::read).join()
        };
        imp::write(before);
        assert_eq!(word.map(|w| w & FTZ_AND_DAZ).ok(), Some(0));
    }
}
