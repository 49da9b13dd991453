//! Convolutions of 3 × 3 weights and stride 1 with fewer products (Winograd 1980; Lavin and Gray 2016,
//! arXiv 1509.09308).
//!
//! For: large maps. The map is cut into tiles; inputs and weights are transformed so that a tile's
//! results come from one product a place instead of nine a result, and those are matrix products with
//! the prepacked weights as any others: 36 products (a matrix each) for 16 results, 24 for 8 or 16 for
//! 4. Not for: other kernels and strides, and maps so small that reading more weights costs more than
//! is saved.
//!
//! Sums are added up in one fixed order and transforms see one tile, so no bit depends on how the work
//! is shared out.

mod side;
mod transform;

use self::side::{Four, Side, Two};
use self::transform::{Input, Planes, Results};
use crate::conv::{Size, Window};
use crate::cpu::{CpuFamily, CpuPath};
use crate::error::Result;
use crate::finish::Finish;
use crate::isa::{self, Cpu, Micro, Precision, Task, Tile};
use crate::math::Act;
use crate::memory::with_scratch;
use crate::pack::{Plain, Weights};
use crate::product::tasks;
use crate::share;
use crate::slices::activate;

/// How a convolution is computed: directly, or by tiles of so many rows and columns of its result.
///
/// In f32 every tile is as exact as f32 is (1e-6). Operands that are rounded to bf16 lose more, the
/// larger the tile: relative errors of one layer are 0.24 % directly, 0.40 % in tiles of 2 × 2, 0.7 % of
/// 4 × 2 and 1.1 % of 4 × 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tiling {
    /// Nine products a result.
    #[default]
    Direct,
    /// Four.
    TwoByTwo,
    /// Three.
    FourByTwo,
    /// 2.25.
    FourByFour,
}

impl Tiling {
    /// Every way.
    pub const ALL: [Tiling; 4] = [
        Tiling::Direct,
        Tiling::TwoByTwo,
        Tiling::FourByTwo,
        Tiling::FourByFour,
    ];

    /// The way to compute a convolution whose results are maps of `map` (rows, columns) on `cpu`.
    ///
    /// By what was measured: GFLOP/s of nine products a result, of one core of an AMD Zen 4
    /// (`cargo bench -p semblance-kernels -- --tiles`, November 2026), direct / 2 × 2 / 4 × 2 / 4 × 4:
    ///
    /// | map, channels | avx512 | avx512bf16 |
    /// |---|---|---|
    /// | 128², 16 → 16 | 57 / 70 / 95 / 140 | 60 / 101 / 109 / 219 |
    /// | 32², 64 → 64 | 98 / 172 / 231 / 294 | 165 / 298 / 351 / 463 |
    /// | 16², 4 → 64 | 29 / 32 / 34 / 41 | 24 / 31 / 44 / 43 |
    /// | 16², 128 → 128 | 101 / 196 / 252 / 341 | 182 / 336 / 449 / 566 |
    /// | 4², 192 → 192 | 92 / 164 / 149 / 116 | 163 / 261 / 238 / 188 |
    /// | 64², 320 → 320 | 100 / 186 / 236 / 298 | 218 / 340 / 420 / 545 |
    /// | 32², 640 → 640 | 111 / 210 / 261 / 351 | 202 / 391 / 508 / 632 |
    /// | 16², 1280 → 1280 | 100 / 213 / 280 / 350 | 218 / 436 / 607 / 675 |
    /// | 8², 1280 → 1280 | 109 / 200 / 245 / 181 | 210 / 346 / 367 / 417 |
    ///
    /// So few channels stay direct, and the largest tile is taken where there are some dozens of its
    /// places: in bf16 too, whose error through a whole U-Net of Stable Diffusion 1.5's shape is then 1.5 %
    /// (1.1 % by the middle one; PyTorch's in bf16 is 1.7 %). Weights grow with the tile, to 1.8, 2.7 and
    /// 4 times as many: where few places share many, the middle one is taken, or they stay as they are.
    ///
    /// Those weights lay in a cache. In a network they come from far away, and an Intel core with AVX-512
    /// multiplies some 20 places on vectors in the time that a weight takes it. There 4² stays direct and 8²
    /// is 2 × 2: milliseconds of those convolutions in the embedded model's U-Net, direct / 2 × 2 / 4 × 2 /
    /// 4 × 4 (`cargo bench --bench networks -- --alone --shares` with this rule changed; avx512, two cores):
    ///
    /// | map | |
    /// |---|---|
    /// | 4² | 1.1 / 2.1 / 2.7 / – |
    /// | 8² | 1.0 / 0.9 / 1.1 / 1.3 |
    /// | 16² | 1.0 / 0.9 / 0.8 / 0.8 |
    ///
    /// In f32 4² stays direct on a Zen 4 too: the embedded model's U-Net then takes 0.95 of its time at batch 1 and as
    /// long at 2, and its weights stay halves.
    ///
    /// AMX itself is direct: its products cost a tenth, and the transforms what they do elsewhere. In a U-Net of
    /// Stable Diffusion 1.5's shape its convolutions at 64² take 64 ms, 4 × 2 at those of 640 channels and more 67
    /// to 70, 4 × 2 at all 84, 2 × 2 at all 90; those at 32² 61 to 74 ms, 4 × 2 79, 4 × 4 76 (two cores).
    pub fn choose(
        cpu: Cpu,
        (inputs, outputs): (usize, usize),
        window: Window,
        map: (usize, usize),
    ) -> Tiling {
        let places = map.0.saturating_mul(map.1);
        // Weights of one place of the kernel for every place of the map.
        let weights = inputs.saturating_mul(outputs) / places.max(1);
        let suits = window.size == 3
            && window.stride == 1
            && inputs >= 16
            && map.0.min(map.1) >= 4
            && weights <= 16 << 10;
        if !suits || cpu.path() == CpuPath::Amx {
            return Tiling::Direct;
        }
        let waits = cpu.family() == CpuFamily::Intel;
        let stays = waits || cpu.precision() == Precision::F32;
        match (waits, places) {
            (_, ..64) if stays => Tiling::Direct,
            (true, ..256) => Tiling::TwoByTwo,
            (false, 64..) | (true, _) if weights <= 1 << 10 => Tiling::FourByFour,
            _ => Tiling::FourByTwo,
        }
    }

    /// Whether it can be done for such a window.
    pub(crate) fn fits(self, window: Window) -> bool {
        self == Tiling::Direct || (window.size, window.stride) == (3, 1)
    }

    /// Rows and columns of results in a tile.
    fn results(self) -> (usize, usize) {
        match self {
            Tiling::Direct => (1, 1),
            Tiling::TwoByTwo => (Two::OUT, Two::OUT),
            Tiling::FourByTwo => (Four::OUT, Two::OUT),
            Tiling::FourByFour => (Four::OUT, Four::OUT),
        }
    }

    /// Products for a tile.
    pub fn products(self) -> usize {
        match self {
            Tiling::Direct => 9,
            Tiling::TwoByTwo => Two::IN * Two::IN,
            Tiling::FourByTwo => Four::IN * Two::IN,
            Tiling::FourByFour => Four::IN * Four::IN,
        }
    }

    /// Weights given by (output, place in the kernel, input), transformed and packed.
    pub(crate) fn pack(
        self,
        cpu: Cpu,
        number: impl Fn(usize, usize, usize) -> f32 + Sync,
        bias: Option<&[f32]>,
        (inputs, outputs): (usize, usize),
    ) -> Result<Weights> {
        let plain = Plain {
            taps: self.products(),
            inputs,
            outputs,
            gated: false,
            numbers: |o: usize, i: usize, to: &mut [f32]| {
                let weight = |row: usize| std::array::from_fn(|x| number(o, 3 * row + x, i));
                transform::factors(self, &[weight(0), weight(1), weight(2)], |k, factor| {
                    if let Some(to) = to.get_mut(k) {
                        *to = factor;
                    }
                });
            },
        };
        Weights::pack(cpu, &plain, bias)
    }

    /// Of the weights of a kernel turned by 180°, the group `tap` of `taps`: so much times that group of
    /// the kernel's.
    pub(crate) fn turned(self, taps: usize, tap: usize) -> (f32, usize) {
        match self {
            Tiling::Direct => (1.0, taps - 1 - tap),
            _ => transform::turned(self, tap),
        }
    }
}

/// How maps are cut into tiles.
#[derive(Clone, Copy, Debug)]
struct Grid {
    tiling: Tiling,
    from: Size,
    to: Size,
    /// Zeros before a map's first row and column.
    before: usize,
    /// Tiles of a sample, down and across.
    down: usize,
    across: usize,
}

impl Grid {
    fn new(tiling: Tiling, from: Size, to: Size, before: usize) -> Grid {
        let (rows, columns) = tiling.results();
        Grid {
            tiling,
            from,
            to,
            before,
            down: to.h.div_ceil(rows),
            across: to.w.div_ceil(columns),
        }
    }

    fn tiles(&self) -> usize {
        self.to.n * self.down * self.across
    }

    /// Sample, row and column of tile `i`'s first result, which are those of its first input too, the
    /// zeros before the map counted.
    #[inline(always)]
    fn place(&self, i: usize) -> (usize, usize, usize) {
        let (rows, columns) = self.tiling.results();
        let sample = self.down * self.across;
        let (n, rest) = (i / sample, i % sample);
        (n, rest / self.across * rows, rest % self.across * columns)
    }
}

/// Bytes of transformed inputs at a time: half of a usual third cache.
const INPUTS: usize = 16 << 20;
/// Bytes of sums that a task keeps: half of a second cache.
const SUMS: usize = 448 << 10;
/// Most tiles in a chunk.
const MOST_TILES: usize = 96;
/// Columns whose sums are kept at a time.
const COLUMNS: usize = 64;
/// Numbers that one task transforms, about.
const TRANSFORM: usize = 1 << 14;

/// What a tiled convolution is made of.
pub(crate) struct Tiled<'a> {
    pub tiling: Tiling,
    pub w: &'a Weights,
    /// A position outside the map: at least as many zeros as it has channels.
    pub zeros: &'a [f32],
    /// Zeros before a map's first row and column.
    pub before: usize,
}

impl Tiled<'_> {
    /// Convolves `x` of size `from` into `out` of size `to`, all lengths checked by the caller.
    pub fn run(
        &self,
        (x, from): (&[f32], Size),
        finish: Finish<'_>,
        (out, to): (&mut [f32], Size),
    ) -> Result<()> {
        let w = self.w;
        let grid = Grid::new(self.tiling, from, to, self.before);
        let (all, products) = (grid.tiles(), w.taps);
        let group = (COLUMNS / w.panels.wide).max(1);
        let most = SUMS / (products * group * w.panels.wide * 4);
        let chunks = all.div_ceil(most.clamp(1, MOST_TILES));
        let tiles = all.div_ceil(chunks.max(1));
        let row = w.padded * w.precision.bytes();
        // Planes begin a line apart, or those of many channels would lie in the same places of a cache.
        let plane = (tiles * row).next_multiple_of(64) + 64;
        let chunk = products * plane;
        let at_once = (INPUTS / chunk).clamp(1, chunks.max(1));
        let output = Output(out.as_mut_ptr());
        with_scratch(at_once * chunk / 4, |scratch| -> Result<()> {
            let planes = Planes {
                at: scratch.as_mut_ptr().cast(),
                row,
                plane,
                chunk,
                tiles,
            };
            for base in (0..all).step_by(at_once * tiles) {
                let now = (at_once * tiles).min(all - base);
                self.transform(x, grid, planes, (base, now));
                self.multiply(grid, planes, (base, now), (group, finish), &output)?;
            }
            Ok(())
        })??;
        // After all is added; the networks' tiled convolutions have none.
        if finish.act != Act::Identity {
            activate(w.cpu, finish.act, out);
        }
        Ok(())
    }

    /// Transforms the inputs of `count` tiles from `base` on.
    fn transform(&self, x: &[f32], grid: Grid, planes: Planes, (base, count): (usize, usize)) {
        let w = self.w;
        let numbers = w.taps * w.padded;
        let step = (TRANSFORM / numbers.max(1)).max(1);
        let some = |first: usize| {
            w.cpu.wide(Input {
                x,
                zeros: self.zeros,
                grid,
                precision: w.precision,
                padded: w.padded,
                planes,
                base,
                tiles: first..(first + step).min(count),
            });
        };
        match share::pays(count * numbers) {
            true => share::each(count.div_ceil(step), |i| some(i * step)),
            false => (0..count).step_by(step).for_each(some),
        }
    }

    /// Multiplies the transformed inputs of `count` tiles from `base` on and writes their results.
    fn multiply(
        &self,
        grid: Grid,
        planes: Planes,
        (base, count): (usize, usize),
        (group, finish): (usize, Finish<'_>),
        output: &Output,
    ) -> Result<()> {
        let w = self.w;
        let geometry = w.cpu.geometry(w.precision);
        let tiles = planes.tiles;
        let chunks = count.div_ceil(tiles);
        let work = count * w.taps * w.padded * w.panels.columns();
        let wanted = tasks(work, geometry.chunk);
        let strips = wanted.div_ceil(chunks).clamp(1, w.panels.count.max(1));
        let strip = w.panels.count.div_ceil(strips);
        let strips = w.panels.count.div_ceil(strip);
        let panel = (tiles * w.panels.wide).next_multiple_of(16);
        let product = group * panel + 16;
        let task = |i: usize| {
            let (c, s) = (i / strips, i % strips);
            let first = c * tiles;
            let own = first..(first + tiles).min(count);
            let end = ((s + 1) * strip).min(w.panels.count);
            with_scratch(w.taps * product, |sums| {
                for start in (s * strip..end).step_by(group) {
                    let panels = start..(start + group).min(end);
                    w.cpu.run_at(
                        w.precision,
                        Multiply {
                            w,
                            // SAFETY: the planes have so many chunks.
                            at: unsafe { planes.at.add(c * planes.chunk) },
                            planes,
                            tiles: own.len(),
                            tile_rows: geometry.rows,
                            step: geometry.step,
                            panels: (panels.start, panels.end),
                            sums: &mut *sums,
                            panel,
                            product,
                        },
                    );
                    w.cpu.wide(Results {
                        sums,
                        panel,
                        product,
                        grid,
                        w,
                        panels,
                        plus: finish.plus,
                        tiles: base + own.start..base + own.end,
                        out: output.at(),
                    });
                }
            })
        };
        match chunks * strips {
            n if wanted == 1 => (0..n).try_for_each(task),
            n => share::try_each(n, task),
        }
    }
}

/// The result; each task writes the positions of its tiles in its panels' columns.
struct Output(*mut f32);

// SAFETY: tasks write disjoint places.
unsafe impl Sync for Output {}

impl Output {
    fn at(&self) -> *mut f32 {
        self.0
    }
}

/// Every product of a chunk's tiles with the weights of some panels.
struct Multiply<'a> {
    w: &'a Weights,
    /// The chunk's planes.
    at: *const u8,
    planes: Planes,
    tiles: usize,
    tile_rows: usize,
    step: usize,
    panels: (usize, usize),
    sums: &'a mut [f32],
    /// Numbers from a panel's sums to the next one's, and from a product's to the next one's.
    panel: usize,
    product: usize,
}

impl Task for Multiply<'_> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let w = self.w;
        let bytes = w.precision.bytes();
        let steps = w.padded / self.step;
        let parts = self.tiles.div_ceil(self.tile_rows);
        let border = |i: usize| isa::border::<M>(i, parts, self.tiles);
        let mut unit = M::Unit::default();
        let mut table = [std::ptr::null::<u8>(); MOST_TILES];
        for (i, at) in table.iter_mut().enumerate().take(self.tiles) {
            *at = self.at.wrapping_add(i * self.planes.row);
        }
        for product in 0..w.taps {
            for panel in self.panels.0..self.panels.1 {
                let width = w.panels.width(panel);
                let rows = panel * w.panels.wide * w.taps + product * width;
                let packed = w.data.as_ptr().cast::<u8>();
                // SAFETY: panels before are all wide and have `padded` rows for every product.
                let packed = unsafe { packed.add(rows * w.padded * bytes) };
                let sums = product * self.product + (panel - self.panels.0) * self.panel;
                // Weights in blocks that stay in the second cache, as in every product.
                let block = (M::CHUNK.block / (width * bytes * self.step)).max(64);
                let block = steps.div_ceil(steps.div_ceil(block).max(1)).max(1);
                for step in (0..steps).step_by(block) {
                    for part in 0..parts {
                        let (from, rows) = (border(part), border(part + 1) - border(part));
                        let sums = sums + from * width;
                        let sums = self.sums.get_mut(sums..sums + rows * width);
                        let sums = sums.unwrap_or_default();
                        let skip = step * self.step * bytes;
                        // SAFETY: the table's pointers lead to rows of `padded` numbers, as they do a
                        // plane further for every product; the packed panel holds `padded` rows of
                        // `width` for each; `sums` has `rows · width` places.
                        unsafe {
                            let t = Tile {
                                rows: table.as_ptr().add(from),
                                taps: 1,
                                skip: product * self.planes.plane + skip,
                                steps: block.min(steps - step),
                                b: packed.add(skip * width),
                                out: sums.as_mut_ptr(),
                                stride: width,
                                fresh: step == 0,
                            };
                            M::tile(&mut unit, rows, width, t);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_differ_where_they_were_measured_and_are_named() {
        let window = Window {
            size: 3,
            stride: 1,
            padding: (1, 1),
        };
        let chosen =
            |cpu, channels, side| Tiling::choose(cpu, (channels, channels), window, (side, side));
        let of = |path| Cpu::of(path, path);
        for path in [CpuPath::Avx512, CpuPath::Avx512Bf16] {
            let (amd, intel) = (of(path), of(path).as_of(CpuFamily::Intel));
            assert_eq!(intel.to_string(), format!("{path}-intel"));
            assert_eq!(chosen(amd, 192, 8), Tiling::FourByFour);
            assert_eq!(chosen(intel, 192, 8), Tiling::TwoByTwo);
            assert_eq!(chosen(intel, 192, 4), Tiling::Direct);
            assert_eq!(chosen(amd, 64, 32), chosen(intel, 64, 32));
        }
        for path in [CpuPath::Portable, CpuPath::Avx2, CpuPath::Amx] {
            assert_eq!(of(path).as_of(CpuFamily::Intel), of(path));
            assert_eq!(of(path).to_string(), path.name());
        }
        assert_eq!(chosen(of(CpuPath::Amx), 64, 32), Tiling::Direct);
    }
}
