//! One text of a kernel, compiled for several sets of instructions.
//!
//! For: [`Cpu`], the proof that a path can be taken here, and [`Task`], work that is compiled once a
//! path. Plain loops inside a task are vectorised by the compiler for that path; only the tile of a
//! matrix product ([`Micro`]) is spelled out. Not for: which paths there are ([`crate::cpu`]), or the
//! tiles of AMX ([`crate::amx`]).

use std::fmt;

use crate::amx;
use crate::bf16;
use crate::cpu::{self, CpuError, CpuFamily, CpuPath};
use crate::halves::Storage;
use crate::vector::{self, Vector};

/// A path that this CPU has: what every kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cpu {
    path: CpuPath,
    /// The path of all but AMX's tiles: another one only where those are emulated.
    vectors: CpuPath,
    /// Whose figures count.
    family: CpuFamily,
}

impl Cpu {
    /// The path `path`. [`CpuPath::Amx`] asks the operating system for the tile registers, once for
    /// the process and to its end: no other function does, and no other path needs them.
    ///
    /// Errors when this CPU lacks the path, or the operating system refuses.
    pub fn new(path: CpuPath) -> Result<Cpu, CpuError> {
        path.check()?;
        if path == CpuPath::Amx {
            amx::ask().map_err(|refusal| CpuError::refused(path, refusal))?;
        }
        Ok(Cpu::of(path, path).as_of(CpuFamily::here()))
    }

    /// A path that nobody looked for: for work that [`Cpu::new`] allows, or for none.
    pub(crate) fn of(path: CpuPath, vectors: CpuPath) -> Cpu {
        let family = CpuFamily::Other;
        Cpu {
            path,
            vectors,
            family,
        }
    }

    /// The same instructions by the figures of `family`, where they make a difference: on other paths there is
    /// only one way.
    pub fn as_of(self, family: CpuFamily) -> Cpu {
        match self.path {
            CpuPath::Avx512 | CpuPath::Avx512Bf16 => Cpu { family, ..self },
            _ => self,
        }
    }

    /// By whose figures it computes.
    pub fn family(self) -> CpuFamily {
        self.family
    }

    /// The first of `paths` that can be taken: what is wished for, and what to fall back to. The
    /// recommended path where `paths` has none.
    ///
    /// Errors, as [`Cpu::new`] for the first of them, when none can be taken.
    pub fn first(paths: &[CpuPath]) -> Result<Cpu, CpuError> {
        let mut failed = None;
        for path in paths {
            match Cpu::new(*path) {
                Ok(cpu) => return Ok(cpu),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or_else(|| Cpu::new(CpuPath::recommended()), Err)
    }

    /// The recommended path of this CPU, or the first of those that the environment asks for
    /// ([`crate::cpu::VARIABLE`]).
    ///
    /// Errors when the variable names something else than paths, or none that can be taken.
    pub fn detect() -> Result<Cpu, CpuError> {
        Cpu::first(&cpu::wished()?)
    }

    /// The first that can be taken of the paths that `asked` names, with commas between them; `by` is what errors
    /// call the wish.
    ///
    /// Errors when it names something else than paths, or none that can be taken.
    pub fn asked(by: &'static str, asked: &str) -> Result<Cpu, CpuError> {
        let paths = cpu::named(asked).map_err(|e| e.by(by))?;
        Cpu::first(&paths).map_err(|e| e.by(by))
    }

    /// [`CpuPath::Amx`] with its tile instructions in software, on any CPU: what tests take where there
    /// is no AMX. Some thousand times slower than tiles.
    pub fn emulated_amx() -> Cpu {
        Cpu::of(CpuPath::Amx, CpuPath::recommended())
    }

    /// The path.
    pub fn path(self) -> CpuPath {
        self.path
    }

    /// The path of all but AMX's tiles.
    pub(crate) fn vectors(self) -> CpuPath {
        self.vectors
    }

    /// Runs `task` with f32 operands.
    pub(crate) fn run<T: Task>(self, task: T) -> T::Out {
        match self.vectors {
            #[cfg(target_arch = "x86_64")]
            CpuPath::Avx512 | CpuPath::Avx512Bf16 | CpuPath::Amx => {
                // SAFETY: `Cpu` is made only of a path that this CPU has.
                unsafe { x86::with_avx512(task) }
            }
            #[cfg(target_arch = "x86_64")]
            CpuPath::Avx2 => {
                // SAFETY: as above.
                unsafe { x86::with_avx2(task) }
            }
            _ => task.run::<Portable>(),
        }
    }

    /// Runs `task` with operands of the given precision; bf16 exists where [`Cpu::precision`] is it.
    pub(crate) fn run_at<T: Task>(self, precision: Precision, task: T) -> T::Out {
        match (self.path, self.vectors, precision) {
            #[cfg(target_arch = "x86_64")]
            (CpuPath::Avx512Bf16, _, Precision::Bf16) => {
                // SAFETY: `Cpu` is made only of a path that this CPU has.
                unsafe { x86::with_bf16(task) }
            }
            #[cfg(target_arch = "x86_64")]
            (CpuPath::Amx, CpuPath::Amx, Precision::Bf16) => {
                // SAFETY: as above, and of this one only after leave was given.
                unsafe { x86::with_amx(task) }
            }
            (CpuPath::Amx, _, Precision::Bf16) => task.run::<amx::Tiles<amx::Emulated>>(),
            _ => self.run(task),
        }
    }

    /// The precision of the operands of matrix products on this path; sums are f32 everywhere.
    pub fn precision(self) -> Precision {
        match self.path {
            CpuPath::Avx512Bf16 | CpuPath::Amx => Precision::Bf16,
            _ => Precision::F32,
        }
    }

    /// Numbers in one vector, rows in one tile and inputs taken at once at `precision`.
    pub(crate) fn geometry(self, precision: Precision) -> Geometry {
        struct Ask;
        impl Task for Ask {
            type Out = Geometry;
            #[inline(always)]
            fn run<M: Micro>(self) -> Geometry {
                Geometry {
                    lanes: M::LANES,
                    narrow: M::NARROW,
                    rows: M::ROWS,
                    step: M::STEP,
                    even: M::EVEN,
                    chunk: M::CHUNK,
                    attention: M::ATTENTION,
                }
            }
        }
        self.run_at(precision, Ask)
    }
}

/// All that results depend on: a path's name, then what it is besides.
impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = match (self.path == self.vectors, self.family) {
            (false, _) => "-in-software",
            (true, CpuFamily::Intel) => "-intel",
            (true, CpuFamily::Other) => "",
        };
        write!(f, "{}{more}", self.path)
    }
}

/// What the operands of a matrix product are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Not at all.
    F32,
    /// To bfloat16: 8 bits of mantissa.
    Bf16,
}

impl Precision {
    /// Bytes of one number.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Precision::F32 => 4,
            Precision::Bf16 => 2,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub lanes: usize,
    pub narrow: usize,
    pub rows: usize,
    pub step: usize,
    pub even: bool,
    pub chunk: Chunk,
    pub attention: Block,
}

/// What a task of an attention takes at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Keys: a multiple of every panel's columns, and so many that they and their values stay in a cache.
    pub keys: usize,
    /// Queries: a multiple of every tile's rows.
    pub queries: usize,
    /// Keys below which operands stay f32: rounding has to pay.
    pub few: usize,
}

/// What a product takes at a time, so that it stays in the second cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    /// Bytes of inputs of a task, about: all columns pass over them.
    pub bytes: usize,
    /// Most rows of a task: a multiple of every tile's.
    pub rows: usize,
    /// Most bytes of a panel of columns that is taken as a whole.
    pub panel: usize,
    /// Bytes of a block of inputs' columns, of a panel that is not.
    pub block: usize,
    /// The same of linear layers, which find none of a row's inputs in the first cache.
    pub dense: usize,
    /// Multiplications below which a task is not worth another thread.
    pub worth: usize,
}

/// Work that is compiled once for each path. `run` must be `#[inline(always)]`, and so must what it
/// calls on its hot way, or it is compiled for the plainest CPU.
pub(crate) trait Task {
    type Out;
    fn run<M: Micro>(self) -> Self::Out;
}

/// The operands of one tile: `rows` pointers a tap, to `steps` numbers each.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// `taps` times as many pointers as the tile has rows.
    pub rows: *const *const u8,
    pub taps: usize,
    /// Bytes to skip at each pointer.
    pub skip: usize,
    /// Steps at each pointer, [`Micro::STEP`] numbers each.
    pub steps: usize,
    /// `taps · steps` vectors-of-columns, packed.
    pub b: *const u8,
    /// The sums, a row every `stride` numbers.
    pub out: *mut f32,
    pub stride: usize,
    /// Begin at zero rather than with what `out` holds.
    pub fresh: bool,
}

/// Work for vectors while tiles are busy. What does it must be `#[inline(always)]`, as in a [`Task`]; a closure
/// could not be.
pub(crate) trait Beside {
    /// Does some of it, if any is left.
    ///
    /// # Safety
    /// As the implementation says.
    unsafe fn some<M: Micro>(&mut self);
}

/// Nothing to do.
impl Beside for () {
    #[inline(always)]
    unsafe fn some<M: Micro>(&mut self) {}
}

/// What differs between the paths.
pub(crate) trait Micro {
    /// f32 numbers in a vector.
    const LANES: usize;
    /// Fewest columns of a tile: a vector, or half of one.
    const NARROW: usize;
    /// Most rows in a tile.
    const ROWS: usize;
    /// Numbers of an input row taken at once.
    const STEP: usize;
    /// Whether the rows of a tile must lie at equal distances, in groups of 16 of a tap, and all tiles
    /// but the last have [`Micro::ROWS`].
    const EVEN: bool;
    /// Whether vectors idle while a tile is made.
    const BESIDE: bool = false;
    /// Rows of a task: for second caches of a MiB or less.
    const CHUNK: Chunk = Chunk {
        bytes: 320 << 10,
        rows: 240,
        panel: 192 << 10,
        block: 192 << 10,
        dense: 192 << 10,
        // Of rounded operands twice as many take as long.
        worth: if Self::STEP == 1 { 1 << 18 } else { 1 << 19 },
    };

    /// Keys and queries of an attention. On Zen 4 rounding costs a fifth at 77 keys, and saves a third at
    /// 1024 and 4096.
    const ATTENTION: Block = Block {
        keys: 256,
        queries: 48,
        few: 512,
    };

    /// What a thread holds from its first tile to its last.
    type Unit: Default;
    /// A vector of the path, for what the compiler does not vectorise by itself.
    type Vector: Vector;

    /// a · b + c, in one rounding where the path can.
    fn fma(a: f32, b: f32, c: f32) -> f32;

    /// [`bf16::round`], by an instruction where the path has one (it takes denormals for zeros, as do
    /// those that multiply).
    #[inline(always)]
    fn round(from: &[f32], to: &mut [f32]) {
        bf16::round(from, to);
    }

    /// `rows` rows (1..=ROWS) by `width` columns (two vectors, one, or [`Micro::NARROW`]) of a product, the
    /// inputs added in an order that is always the same.
    ///
    /// # Safety
    /// The CPU has the path; every pointer of `t` may be read (`out`: written) as [`Tile`] says.
    unsafe fn tile(unit: &mut Self::Unit, rows: usize, width: usize, t: Tile);

    /// As [`Micro::tile`], of columns that are kept in halves, as `storage` says; to `widened` goes what they are, for the
    /// next tile.
    ///
    /// # Safety
    /// As [`Micro::tile`]; `t` has half of each number, and as many as it has may be written at `widened`.
    #[inline(always)]
    unsafe fn tile_of_halves(
        unit: &mut Self::Unit,
        rows: usize,
        width: usize,
        t: Tile,
        storage: Storage,
        widened: *mut f32,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let count = t.taps * t.steps * Self::STEP * width;
            storage.widen::<Self::Vector>(t.b.cast(), widened, count);
            let b = widened.cast_const().cast();
            Self::tile(unit, rows, width, Tile { b, ..t });
        }
    }

    /// As [`Micro::tile`]. A path whose vectors idle meanwhile ([`Micro::BESIDE`]) does some of `beside` at each step.
    ///
    /// # Safety
    /// As [`Micro::tile`] and [`Beside::some`]; `beside` writes nothing that `t` names.
    #[inline(always)]
    unsafe fn tile_beside(
        unit: &mut Self::Unit,
        rows: usize,
        width: usize,
        t: Tile,
        beside: &mut impl Beside,
    ) {
        let _ = beside;
        // SAFETY: the caller's promise.
        unsafe { Self::tile(unit, rows, width, t) };
    }

    /// Columns that are wanted soon, anywhere: the next tile fetches so many lines of them at each step, on
    /// a path that would wait for them.
    #[inline(always)]
    fn ahead(unit: &mut Self::Unit, from: *const u8, lines: usize) {
        let _ = (unit, from, lines);
    }
}

/// The first of the rows of tile `i`, where `tiles` tiles share out `count` rows: full ones and a rest
/// where rows must lie evenly, else as equal as can be.
#[inline(always)]
pub(crate) fn border<M: Micro>(i: usize, tiles: usize, count: usize) -> usize {
    match M::EVEN {
        true => (i * M::ROWS).min(count),
        false => i * count / tiles,
    }
}

/// Asks the memory for the line at `at`, anywhere, to be brought into the second cache.
#[inline(always)]
pub(crate) fn fetch_line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has the instruction, which takes any address and never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks the memory for the lines of `count` numbers at `at`, anywhere, which are soon read or written.
#[inline(always)]
pub(crate) fn fetch(at: *const f32, count: usize) {
    const LINE: usize = 64 / size_of::<f32>();
    for i in (0..count).step_by(LINE) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 CPU has the instruction, which takes any address and never faults.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(i).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (at, i);
    }
}

/// `$tile::<R, V>($t)` by numbers known at run time, V vectors of `$lanes` columns; or `$half::<R, 1>($t)`
/// for half a vector.
macro_rules! by_rows {
    ($tile:ident $(or $half:ident)?, $lanes:literal, $rows:ident, $width:ident, $t:ident: $r:tt) => {
        if $width == 2 * $lanes {
            by_rows!(@ $tile 2, $rows, $t: $r);
        } else if $width == $lanes {
            by_rows!(@ $tile 1, $rows, $t: $r);
        } $(else if 2 * $width == $lanes {
            by_rows!(@ $half 1, $rows, $t: $r);
        })? else {
            debug_assert!(false, "a tile of {} × {}", $rows, $width);
        }
    };
    (@ $tile:ident $vectors:literal, $rows:ident, $t:ident: [$($r:literal)*]) => {
        match $rows {
            // SAFETY: the promise of [`Micro::tile`], which alone does this.
            $( $r => unsafe { $tile::<$r, $vectors>($t) }, )*
            _ => debug_assert!(false, "a tile of {} rows", $rows),
        }
    };
}

/// The body of a tile; `$a` loads a vector for one row, `$b` one of the packed columns, which are `$column`s; `$many`
/// steps at a time, where the registers do.
macro_rules! tile_body {
    ($t:ident, $r:ident, $v:ident, ($elem:ty, $column:ty), $lanes:literal, $step:literal, $many:literal,
     $zero:expr, $load:expr, $store:expr, $a:expr, $b:expr, $fma:expr) => {{
        let mut c = [[$zero; $v]; $r];
        if !$t.fresh {
            for (r, c) in c.iter_mut().enumerate() {
                for (v, c) in c.iter_mut().enumerate() {
                    *c = $load($t.out.add(r * $t.stride + v * $lanes));
                }
            }
        }
        let mut b = $t.b.cast::<$column>();
        for tap in 0..$t.taps {
            let mut p = [std::ptr::null::<$elem>(); $r];
            for (r, p) in p.iter_mut().enumerate() {
                *p = (*$t.rows.add(tap * $r + r)).add($t.skip).cast();
            }
            let mut k = 0;
            macro_rules! step {
                ($at:expr) => {
                    let mut w = [$b(b); $v];
                    for (v, w) in w.iter_mut().enumerate().skip(1) {
                        *w = $b(b.add(v * $lanes * $step));
                    }
                    b = b.add($v * $lanes * $step);
                    for (r, c) in c.iter_mut().enumerate() {
                        let a = $a(p[r].add($at * $step));
                        for (v, c) in c.iter_mut().enumerate() {
                            *c = $fma(a, w[v], *c);
                        }
                    }
                };
            }
            while $many && k + 4 <= $t.steps {
                step!(k);
                step!((k + 1));
                step!((k + 2));
                step!((k + 3));
                k += 4;
            }
            while k < $t.steps {
                step!(k);
                k += 1;
            }
        }
        for (r, c) in c.iter().enumerate() {
            for (v, c) in c.iter().enumerate() {
                $store($t.out.add(r * $t.stride + v * $lanes), *c);
            }
        }
    }};
}

/// Any CPU: what the compiler makes of plain arrays.
pub(crate) struct Portable;

impl Micro for Portable {
    const LANES: usize = 4;
    const NARROW: usize = 4;
    const ROWS: usize = 4;
    const STEP: usize = 1;
    const EVEN: bool = false;

    type Unit = ();
    type Vector = vector::Four;

    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        // Without the instruction a fused product is a slow library call.
        match cfg!(target_arch = "aarch64") {
            true => a.mul_add(b, c),
            false => a * b + c,
        }
    }

    #[inline(always)]
    unsafe fn tile(_: &mut (), rows: usize, width: usize, t: Tile) {
        by_rows!(tile4, 4, rows, width, t: [1 2 3 4]);
    }
}

unsafe fn tile4<const R: usize, const V: usize>(t: Tile) {
    type Four = [f32; 4];
    let fma = |a: f32, b: Four, c: Four| -> Four {
        std::array::from_fn(|i| Portable::fma(a, b[i], c[i]))
    };
    // SAFETY: the promise of [`Micro::tile`], which alone calls this.
    unsafe {
        tile_body!(
            t,
            R,
            V,
            (f32, f32),
            4,
            1,
            true,
            [0.0_f32; 4],
            |p: *mut f32| p.cast::<Four>().read_unaligned(),
            |p: *mut f32, x: Four| p.cast::<Four>().write_unaligned(x),
            |p: *const f32| p.read(),
            |p: *const f32| p.cast::<Four>().read_unaligned(),
            fma
        );
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;
