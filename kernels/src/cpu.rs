//! Which instructions this machine has, and which path was asked for.
//!
//! For: choosing a path once, from the CPU and a recorded wish, never by timing, so that a recipe
//! gives the same bytes tomorrow. Not for: asking the operating system's leave to use AMX tiles, which
//! lasts for the process: [`crate::Cpu::new`] does for who asks for [`CpuPath::Amx`], and nobody else.

use std::fmt;
use std::sync::OnceLock;

use crate::amx::Refusal;

/// The environment variable that asks for a path: a name of [`CpuPath::name`], or `auto`; or several,
/// with commas between them, of which the first that can be taken is (`amx,avx512bf16,auto`).
pub const VARIABLE: &str = "SEMBLANCE_CPU";

/// A set of instructions that kernels are written for; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CpuPath {
    /// Plain code, any CPU.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// The above, bf16 dot products and tables of bytes (AVX512-BF16, VBMI).
    Avx512Bf16,
    /// The above and tiles (AMX-TILE, AMX-BF16).
    Amx,
}

/// A kind of CPU by whose figures it is chosen how something is computed ([`crate::Tiling::choose`]): by its
/// maker, for a virtual machine may hide what else tells one from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CpuFamily {
    /// Intel's with AVX-512.
    Intel,
    /// AMD's, and all others.
    Other,
}

impl CpuFamily {
    /// This CPU's.
    pub fn here() -> CpuFamily {
        static HERE: OnceLock<CpuFamily> = OnceLock::new();
        *HERE.get_or_init(family)
    }
}

/// Why a path cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuError {
    /// Who asked: an environment variable or an option.
    by: &'static str,
    asked: String,
    best: CpuPath,
    /// The CPU has what was asked for; the operating system keeps it.
    refused: Option<Refusal>,
}

impl CpuPath {
    /// Every path, weakest first.
    pub const ALL: [CpuPath; 5] = [
        CpuPath::Portable,
        CpuPath::Avx2,
        CpuPath::Avx512,
        CpuPath::Avx512Bf16,
        CpuPath::Amx,
    ];

    /// The path's stable name, as in reports, recipes and [`VARIABLE`].
    pub fn name(self) -> &'static str {
        match self {
            CpuPath::Portable => "portable",
            CpuPath::Avx2 => "avx2",
            CpuPath::Avx512 => "avx512",
            CpuPath::Avx512Bf16 => "avx512bf16",
            CpuPath::Amx => "amx",
        }
    }

    /// The strongest path that this CPU and its operating system can take.
    pub fn best() -> CpuPath {
        best()
    }

    /// The path to take where nobody asks for one: exact f32 on the widest vectors.
    ///
    /// bf16 operands round, so they are taken only when asked for. What they are worth, as measured
    /// (`cargo bench -p semblance-kernels`; a 3 × 3 convolution of 64 × 64, 320 → 320 channels, in
    /// GFLOP/s of one core at 3.6 GHz or so, limit in brackets, November 2026):
    ///
    /// | CPU | avx2 | avx512 | avx512bf16 | amx |
    /// |---|---|---|---|---|
    /// | AMD Zen 4 (family 25, model 17) | 101 (116) | 105 (116) | 210 (232) | has none |
    /// | Intel with AMX (family 6, 3.1 GHz) | 102 | 160 (213) | 100 (104): slower than f32, never take it | 1300 (3200 on zeros; other numbers cost a fifth to a quarter) |
    ///
    /// Tiles round as the dot products do, so they too wait to be asked for, eight times as fast or not.
    pub fn recommended() -> CpuPath {
        best().min(CpuPath::Avx512)
    }

    /// Itself, where this CPU and its operating system have it.
    pub fn check(self) -> Result<CpuPath, CpuError> {
        choose(self.name(), best()).map(|_| self)
    }
}

impl CpuError {
    /// The same, where `name` asked.
    pub(crate) fn by(self, name: &'static str) -> CpuError {
        CpuError { by: name, ..self }
    }

    /// `path`, which this CPU has, was refused.
    pub(crate) fn refused(path: CpuPath, refusal: Refusal) -> CpuError {
        CpuError {
            by: VARIABLE,
            asked: path.name().to_owned(),
            best: CpuPath::Avx512Bf16,
            refused: Some(refusal),
        }
    }
}

/// The paths that [`VARIABLE`] asks for and this CPU has, the most wished for first; the recommended
/// one where it is not set.
///
/// Errors when the variable holds something else than paths, or none that this CPU has.
pub(crate) fn wished() -> Result<Vec<CpuPath>, CpuError> {
    match std::env::var_os(VARIABLE) {
        None => Ok(vec![CpuPath::recommended()]),
        Some(asked) => named(&asked.to_string_lossy()),
    }
}

/// The paths that `asked`, written as [`VARIABLE`] is, names and this CPU has.
///
/// Errors when it holds something else than paths, or none that this CPU has.
pub(crate) fn named(asked: &str) -> Result<Vec<CpuPath>, CpuError> {
    choose(asked, best())
}

/// The paths that `asked` names and a CPU with `best` has, at least one.
fn choose(asked: &str, best: CpuPath) -> Result<Vec<CpuPath>, CpuError> {
    let named = |name: &str| match name {
        "" | "auto" => Some(best.min(CpuPath::recommended())),
        _ => CpuPath::ALL.into_iter().find(|path| path.name() == name),
    };
    let names = asked.split(',').map(|name| named(name.trim()));
    let paths = names.collect::<Option<Vec<_>>>().unwrap_or_default();
    let paths: Vec<_> = paths.into_iter().filter(|path| *path <= best).collect();
    match paths.is_empty() {
        false => Ok(paths),
        true => Err(CpuError {
            by: VARIABLE,
            asked: asked.chars().take(40).collect(),
            best,
            refused: None,
        }),
    }
}

#[cfg(target_arch = "x86_64")]
fn best() -> CpuPath {
    use std::arch::is_x86_feature_detected as has;
    let avx2 = has!("avx2") && has!("fma") && has!("f16c");
    let avx512 =
        avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
    let bf16 = avx512 && has!("avx512bf16") && has!("avx512vbmi");
    match (avx2, avx512, bf16, bf16 && has_amx()) {
        (_, _, _, true) => CpuPath::Amx,
        (_, _, true, _) => CpuPath::Avx512Bf16,
        (_, true, _, _) => CpuPath::Avx512,
        (true, _, _, _) => CpuPath::Avx2,
        _ => CpuPath::Portable,
    }
}

/// CPUID leaf 7 names AMX-BF16 (bit 22) and AMX-TILE (bit 24); the kernel says through XCR0 bits 17
/// and 18 that it saves tile state. The standard library's names for them are not stable yet.
#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    use std::arch::x86_64::{__cpuid_count, _xgetbv};

    #[target_feature(enable = "xsave")]
    fn xcr0() -> u64 {
        // SAFETY: register 0 exists wherever the operating system has turned xsave on.
        unsafe { _xgetbv(0) }
    }

    const TILE_STATE: u64 = 0b11 << 17;
    let features = __cpuid_count(7, 0).edx;
    let cpu = features & (1 << 22) != 0 && features & (1 << 24) != 0;
    // SAFETY: the standard library reports xsave only where the CPU has it and the system uses it.
    cpu && std::arch::is_x86_feature_detected!("xsave")
        && unsafe { xcr0() } & TILE_STATE == TILE_STATE
}

#[cfg(target_arch = "x86_64")]
fn family() -> CpuFamily {
    let maker = std::arch::x86_64::__cpuid(0);
    let maker = [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes);
    match maker.as_flattened() == b"GenuineIntel" && best() >= CpuPath::Avx512 {
        true => CpuFamily::Intel,
        false => CpuFamily::Other,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn best() -> CpuPath {
    CpuPath::Portable
}

#[cfg(not(target_arch = "x86_64"))]
fn family() -> CpuFamily {
    CpuFamily::Other
}

impl fmt::Display for CpuPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for CpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = CpuPath::ALL
            .iter()
            .filter(|p| **p <= self.best)
            .map(|p| p.name())
            .collect();
        write!(f, "{} = {}: ", self.by, self.asked.escape_debug())?;
        match self.refused {
            None => write!(f, "this CPU can take {}", names.join(", ")),
            Some(refusal) => write!(
                f,
                "this CPU has it, but {refusal}; take {}",
                names.join(", ")
            ),
        }?;
        write!(f, " (unset it for {})", self.best.min(CpuPath::Avx512))
    }
}

impl std::error::Error for CpuError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_the_cpu_lacks_is_refused_with_those_that_it_has() {
        let error = choose("amx", CpuPath::Avx2).map_err(|e| e.to_string());
        let text = "SEMBLANCE_CPU = amx: this CPU can take portable, avx2 (unset it for avx2)";
        assert_eq!(error, Err(text.to_owned()));
        assert!(choose("sse9", CpuPath::Amx).is_err());
    }

    #[test]
    fn a_weaker_path_may_be_asked_for_by_name() {
        for path in CpuPath::ALL {
            assert_eq!(choose(path.name(), CpuPath::Amx), Ok(vec![path]));
        }
        for nothing in ["auto", "", " "] {
            let recommended = vec![CpuPath::recommended()];
            assert_eq!(choose(nothing, CpuPath::best()), Ok(recommended));
        }
    }

    #[test]
    fn of_several_paths_those_that_the_cpu_has_are_left_in_order() {
        use CpuPath::{Avx2, Avx512Bf16, Portable};
        let asked = "amx, avx512bf16,avx2,portable";
        assert_eq!(
            choose(asked, Avx512Bf16),
            Ok(vec![Avx512Bf16, Avx2, Portable])
        );
        let error = choose("amx,avx512", Avx2).map_err(|e| e.to_string());
        assert!(error.is_err_and(|e| e.starts_with("SEMBLANCE_CPU = amx,avx512: this CPU can")));
        // A typing error is one on every CPU.
        assert!(choose("avx2,sse9", Avx512Bf16).is_err());
    }

    #[test]
    fn tiles_are_never_taken_unless_asked_for() {
        assert!(CpuPath::recommended() < CpuPath::Avx512Bf16);
        assert_eq!(
            choose("auto", CpuPath::Amx),
            choose("auto", CpuPath::best())
        );
    }

    #[test]
    fn paths_that_this_cpu_lacks_are_refused() {
        for path in CpuPath::ALL.into_iter().filter(|p| *p > best()) {
            // `./test` shows it: what is tried on every path leaves this one out.
            println!("skipped: no {path} here");
            assert!(crate::Cpu::new(path).is_err(), "{path}");
        }
    }

    #[test]
    fn the_best_path_is_one_that_may_be_chosen() {
        assert_eq!(CpuPath::best().check(), Ok(CpuPath::best()));
    }
}
