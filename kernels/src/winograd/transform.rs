//! The transforms of a tile's two sides: of inputs, of sums into results, of weights.

use std::ops::Range;

use super::side::{Four, MOST_IN, MOST_OUT, Side, Two};
use super::{Grid, Tiling};
use crate::finish::Plus;
use crate::isa::Precision;
use crate::pack::Weights;
use crate::values;
use crate::vector::{MOST_LANES, Vector, Wide, load_part};

/// Calls `$self.$f::<V, rows' side, columns' side>()`.
macro_rules! by_sides {
    ($self:ident . $f:ident, $tiling:expr) => {
        match $tiling {
            Tiling::FourByFour => $self.$f::<V, Four, Four>(),
            Tiling::FourByTwo => $self.$f::<V, Four, Two>(),
            Tiling::TwoByTwo => $self.$f::<V, Two, Two>(),
            Tiling::Direct => debug_assert!(false, "a direct convolution has no tiles"),
        }
    };
}

/// Where transformed inputs lie: chunks of tiles, in each a plane for every product, in each a row for
/// every tile.
#[derive(Clone, Copy)]
pub(super) struct Planes {
    pub at: *mut u8,
    /// Bytes from row to row, plane to plane and chunk to chunk.
    pub row: usize,
    pub plane: usize,
    pub chunk: usize,
    /// Tiles in a chunk.
    pub tiles: usize,
}

// SAFETY: tasks write disjoint rows, and read only when all are written.
unsafe impl Sync for Planes {}

impl Planes {
    /// The row of tile `i` in the first plane of its chunk.
    ///
    /// # Safety
    /// There are so many tiles.
    #[inline(always)]
    unsafe fn tile(&self, i: usize) -> *mut u8 {
        let at = i / self.tiles * self.chunk + i % self.tiles * self.row;
        // SAFETY: the caller's promise.
        unsafe { self.at.add(at) }
    }
}

/// Transforms some tiles of a map.
pub(super) struct Input<'a> {
    pub x: &'a [f32],
    /// A position outside the map.
    pub zeros: &'a [f32],
    pub grid: Grid,
    pub precision: Precision,
    /// Numbers in a row of a plane: the channels, then zeros.
    pub padded: usize,
    pub planes: Planes,
    /// The tile that the planes begin with.
    pub base: usize,
    /// Tiles from there on.
    pub tiles: Range<usize>,
}

impl Wide for Input<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        match self.precision {
            Precision::F32 => by_sides!(self.plain, self.grid.tiling),
            Precision::Bf16 => by_sides!(self.rounded, self.grid.tiling),
        }
    }
}

impl Input<'_> {
    #[inline(always)]
    fn plain<V: Vector, Y: Side, X: Side>(&self) {
        self.go::<V, Y, X, false>();
    }

    #[inline(always)]
    fn rounded<V: Vector, Y: Side, X: Side>(&self) {
        self.go::<V, Y, X, true>();
    }

    #[inline(always)]
    fn go<V: Vector, Y: Side, X: Side, const BF16: bool>(&self) {
        let c = self.grid.from.c;
        for i in self.tiles.clone() {
            let at = self.corners::<Y, X>(self.base + i);
            // SAFETY: the planes have room for every tile of `tiles`.
            let to = unsafe { self.planes.tile(i) };
            let plane = self.planes.plane;
            let mut channel = 0;
            while channel + V::LANES <= c {
                // SAFETY: `at` leads to positions of `c` channels; a plane's row has room for `padded`
                // of them.
                unsafe {
                    let get = |k: usize| V::load(at[k].add(channel));
                    transform::<V, Y, X>(get, |k, v: V| match BF16 {
                        true => v.store_bf16(to.add(k * plane).cast::<u16>().add(channel)),
                        false => v.store(to.add(k * plane).cast::<f32>().add(channel)),
                    });
                }
                channel += V::LANES;
            }
            // The channels that fill no vector, and the zeros that a row ends with.
            for channel in (channel..self.padded).step_by(V::LANES) {
                let rest = c.saturating_sub(channel);
                let room = (self.padded - channel).min(V::LANES);
                // SAFETY: as above, `rest` < LANES channels read and `room` numbers written.
                unsafe {
                    let get = |k: usize| load_part::<V>(at[k].add(channel.min(c)), rest);
                    transform::<V, Y, X>(get, |k, v: V| {
                        let to = to.add(k * plane);
                        if BF16 {
                            let mut part = [0_u16; MOST_LANES];
                            v.store_bf16(part.as_mut_ptr());
                            let to = to.cast::<u16>().add(channel);
                            std::ptr::copy_nonoverlapping(part.as_ptr(), to, room);
                        } else {
                            let mut part = [0.0_f32; MOST_LANES];
                            v.store(part.as_mut_ptr());
                            let to = to.cast::<f32>().add(channel);
                            std::ptr::copy_nonoverlapping(part.as_ptr(), to, room);
                        }
                    });
                }
            }
        }
    }

    /// The positions under tile `i`, row by row of it.
    #[inline(always)]
    fn corners<Y: Side, X: Side>(&self, i: usize) -> [*const f32; MOST_IN * MOST_IN] {
        let from = self.grid.from;
        let (n, y, x) = self.grid.place(i);
        let before = self.grid.before;
        let mut at = [self.zeros.as_ptr(); MOST_IN * MOST_IN];
        for dy in 0..Y::IN {
            let Some(line) = (y + dy).checked_sub(before).filter(|l| *l < from.h) else {
                continue;
            };
            let line = (n * from.h + line) * from.w;
            for dx in 0..X::IN {
                let Some(column) = (x + dx).checked_sub(before).filter(|c| *c < from.w) else {
                    continue;
                };
                // SAFETY: a position inside the map, whose length was checked.
                at[dy * X::IN + dx] = unsafe { self.x.as_ptr().add((line + column) * from.c) };
            }
        }
        at
    }
}

/// `$do` for every `$i` below `$count`, written out: what is indexed by it stays in registers.
macro_rules! each {
    ($i:ident < $count:expr, $do:expr) => {
        each!(@ $i, $count, $do; 0 1 2 3 4 5);
    };
    (@ $i:ident, $count:expr, $do:expr; $($n:literal)*) => {
        $(
            if $n < $count {
                const $i: usize = $n;
                $do;
            }
        )*
    };
}

/// Both sides' transform of `get(row · columns + column)`, to `put` in the same order.
#[inline(always)]
fn transform<V: Vector, Y: Side, X: Side>(get: impl Fn(usize) -> V, mut put: impl FnMut(usize, V)) {
    let mut columns = [[V::splat(0.0); MOST_IN]; MOST_IN];
    each!(COLUMN < X::IN, {
        let mut column = [V::splat(0.0); MOST_IN];
        each!(ROW < Y::IN, column[ROW] = get(ROW * X::IN + COLUMN));
        columns[COLUMN] = Y::input(column);
    });
    each!(ROW < Y::IN, {
        let mut row = [V::splat(0.0); MOST_IN];
        each!(COLUMN < X::IN, row[COLUMN] = columns[COLUMN][ROW]);
        let row = X::input(row);
        each!(COLUMN < X::IN, put(ROW * X::IN + COLUMN, row[COLUMN]));
    });
}

/// Both sides' results of the products that `get` gives, row by row; what is past the tile's means nothing.
#[inline(always)]
fn results<V: Vector, Y: Side, X: Side>(get: impl Fn(usize) -> V) -> [[V; MOST_OUT]; MOST_OUT] {
    let mut columns = [[V::splat(0.0); MOST_OUT]; MOST_IN];
    each!(COLUMN < X::IN, {
        let mut column = [V::splat(0.0); MOST_IN];
        each!(ROW < Y::IN, column[ROW] = get(ROW * X::IN + COLUMN));
        columns[COLUMN] = Y::output(column);
    });
    let mut all = [[V::splat(0.0); MOST_OUT]; MOST_OUT];
    each!(ROW < Y::OUT, {
        let mut row = [V::splat(0.0); MOST_IN];
        each!(
            COLUMN < X::IN,
            row[COLUMN] = columns[COLUMN][ROW % MOST_OUT]
        );
        all[ROW % MOST_OUT] = X::output(row);
    });
    all
}

/// The sums of a chunk in some panels, and where its results go.
pub(super) struct Results<'a> {
    pub sums: &'a [f32],
    /// Numbers from a panel's sums to the next one's, and from a product's to the next one's.
    pub panel: usize,
    pub product: usize,
    pub grid: Grid,
    pub w: &'a Weights,
    pub panels: Range<usize>,
    pub plus: Plus<'a>,
    /// Tiles of the whole convolution.
    pub tiles: Range<usize>,
    pub out: *mut f32,
}

impl Wide for Results<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        by_sides!(self.go, self.grid.tiling);
    }
}

impl Results<'_> {
    #[inline(always)]
    fn go<V: Vector, Y: Side, X: Side>(&self) {
        let to = self.grid.to;
        for (row, tile) in self.tiles.clone().enumerate() {
            let (n, y, x) = self.grid.place(tile);
            for panel in self.panels.clone() {
                let width = self.w.panels.width(panel);
                let first = (panel - self.panels.start) * self.panel + row * width;
                for lane in (0..width).step_by(V::LANES) {
                    let column = panel * self.w.panels.wide + lane;
                    let kept = to.c.saturating_sub(column).min(V::LANES);
                    if kept == 0 {
                        continue;
                    }
                    // SAFETY: there is a bias for every packed column, and every product has the sums
                    // of `tiles` rows in each panel.
                    let (bias, sums) = unsafe {
                        let bias = V::load(self.w.bias.as_ptr().add(column));
                        (bias, self.sums.as_ptr().add(first + lane))
                    };
                    // SAFETY: as above.
                    let get = |k: usize| unsafe { V::load(sums.add(k * self.product)) };
                    let all = results::<V, Y, X>(get);
                    let (rows, columns) = (Y::OUT.min(to.h - y), X::OUT.min(to.w - x));
                    for (dy, row) in all.iter().enumerate().take(rows) {
                        for (dx, sum) in row.iter().enumerate().take(columns) {
                            let position = (n * to.h + y + dy) * to.w + x + dx;
                            // SAFETY: a position of the result, `kept` of its columns.
                            unsafe { self.write(sum.add(bias), n, position, column, kept) };
                        }
                    }
                }
            }
        }
    }

    /// Writes the first `kept` numbers of `sum` to a position's columns from `column` on, what is to be
    /// added added.
    ///
    /// # Safety
    /// There is such a position, and no other task writes these columns of it.
    #[inline(always)]
    unsafe fn write<V: Vector>(
        &self,
        sum: V,
        sample: usize,
        position: usize,
        column: usize,
        kept: usize,
    ) {
        let width = self.grid.to.c;
        let at = position * width + column;
        let plus = match self.plus {
            Plus::Nothing => None,
            Plus::PerSample(rows) => Some(rows.as_ptr().wrapping_add(sample * width + column)),
            // Rounded ones are refused before ([`crate::Conv::run`]).
            Plus::Residual(values::Input::Plain(rows)) => Some(rows.as_ptr().wrapping_add(at)),
            Plus::Residual(values::Input::Rounded(_)) => None,
        };
        // SAFETY: the caller's promise; the lengths of what is added were checked.
        unsafe {
            let out = self.out.add(at);
            if kept == V::LANES {
                let sum = match plus {
                    Some(plus) => sum.add(V::load(plus)),
                    None => sum,
                };
                sum.store(out);
            } else {
                let sum = match plus {
                    Some(plus) => sum.add(load_part(plus, kept)),
                    None => sum,
                };
                let mut part = [0.0_f32; MOST_LANES];
                sum.store(part.as_mut_ptr());
                std::ptr::copy_nonoverlapping(part.as_ptr(), out, kept);
            }
        }
    }
}

/// The factors of nine weights' products, `factor(row · columns + column, value)`.
pub(super) fn factors(tiling: Tiling, weights: &[[f32; 3]; 3], put: impl FnMut(usize, f32)) {
    fn go<Y: Side, X: Side>(g: &[[f32; 3]; 3], mut put: impl FnMut(usize, f32)) {
        for (y, by) in Y::WEIGHTS.iter().enumerate().take(Y::IN) {
            let line: [f32; 3] =
                std::array::from_fn(|x| by[0] * g[0][x] + by[1] * g[1][x] + by[2] * g[2][x]);
            for (x, by) in X::WEIGHTS.iter().enumerate().take(X::IN) {
                let factor = by[0] * line[0] + by[1] * line[1] + by[2] * line[2];
                put(y * X::IN + x, factor);
            }
        }
    }
    match tiling {
        Tiling::FourByFour => go::<Four, Four>(weights, put),
        Tiling::FourByTwo => go::<Four, Two>(weights, put),
        Tiling::TwoByTwo => go::<Two, Two>(weights, put),
        Tiling::Direct => {}
    }
}

/// Of a kernel turned by 180°, the factor of product `k`: so much times that factor of the kernel.
pub(super) fn turned(tiling: Tiling, k: usize) -> (f32, usize) {
    fn go<Y: Side, X: Side>(k: usize) -> (f32, usize) {
        let (a, y) = Y::TURNED[k / X::IN];
        let (b, x) = X::TURNED[k % X::IN];
        (a * b, y * X::IN + x)
    }
    match tiling {
        Tiling::FourByFour => go::<Four, Four>(k),
        Tiling::FourByTwo => go::<Four, Two>(k),
        Tiling::TwoByTwo => go::<Two, Two>(k),
        Tiling::Direct => (1.0, k),
    }
}
