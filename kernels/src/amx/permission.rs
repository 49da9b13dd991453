//! The operating system's leave to use tile registers.
//!
//! For: asking for it, once a process, when the AMX path is asked for and never else: it lasts, and
//! makes the process's signal frames 8 kB larger. Not for: whether there is AMX (`crate::cpu`).

use std::fmt;
use std::sync::OnceLock;

/// Why there is no leave: Linux's error, none where we do not know how to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(Option<i32>);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(error) => {
                let error = std::io::Error::from_raw_os_error(error);
                write!(
                    f,
                    "Linux keeps its tile registers from this process: {error}"
                )
            }
            None => f.write_str("its tile registers can be had on Linux only"),
        }
    }
}

/// Asks for the tile registers of a CPU that has them; the first answer is every later one.
pub(crate) fn ask() -> Result<(), Refusal> {
    static ANSWER: OnceLock<Result<(), Refusal>> = OnceLock::new();
    *ANSWER.get_or_init(request)
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn request() -> Result<(), Refusal> {
    const ARCH_PRCTL: isize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let answer: isize;
    // SAFETY: the call takes two numbers and touches none of our memory; the kernel keeps every
    // register but those named.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    match answer {
        0 => Ok(()),
        error => Err(Refusal(Some(error.unsigned_abs() as i32))),
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn request() -> Result<(), Refusal> {
    Err(Refusal(None))
}
