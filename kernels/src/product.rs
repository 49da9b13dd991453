//! The matrix product that linear layers and convolutions share.
//!
//! For: rows gathered by pointer times packed weights, with what is added and applied to the sums
//! while they are in the first cache. Not for: what a row is (`linear`, `conv`).
//!
//! A row of the product is computed from `taps` runs of inputs, each at a pointer of its own, so a
//! convolution needs neither gathered rows nor a padded copy. Every sum is added up in one fixed
//! order, whoever computes it: inputs in blocks of a fixed size, each block in order.

use smallvec::SmallVec;

use crate::amx;
use crate::error::Result;
use crate::finish::{Ending, Finish, Place, Plus};
use crate::isa::{self, Chunk, Micro, Precision, Task, Tile};
use crate::memory::with_scratch;
use crate::pack::Weights;
use crate::share::{chunks, try_each};
use crate::values::{Input, Output};

/// Bytes of columns that stay in the second cache beside the rows of two tasks.
const AHEAD: usize = 1 << 20;
/// Bytes of columns that every thread reads for itself, where there are rows for all: the embedded model's U-Net then takes
/// 0.97 of its time at batch 1 and 0.91 at 2 (AMX, two cores; f32 0.97 and 0.96).
const READ: usize = 640 << 10;
/// Bytes of columns, once they are f32, of a block that is kept in halves: they stay in the first cache.
const HALVES: usize = 16 << 10;
/// Shares that are worth a thread of which there are no more than threads: every one reads rows or columns again, and
/// the last is not waited for long.
const SHORT: usize = 128;
/// Layers of a product for which nothing is allocated.
const TOGETHER: usize = 24;
/// Bytes of a cache line.
const LINE: usize = 64;

/// The tasks that so many multiplications should be: more than threads, so that none waits long for the last,
/// unless they are not worth another thread.
pub(crate) fn tasks(work: usize, chunk: Chunk) -> usize {
    (work / chunk.worth).clamp(1, 8 * rayon::current_num_threads())
}

/// Where the rows of a product come from.
pub(crate) trait Rows: Sync {
    /// Scratch numbers that `find` fills for so many rows.
    fn scratch(&self, rows: usize) -> usize {
        let _ = rows;
        0
    }

    /// Whether `find` makes much of what its pointers lead to: then there are no more tasks than threads.
    fn makes(&self) -> bool {
        false
    }

    /// Whether the pointers that `find` gives for one tap lie at equal distances.
    fn even(&self) -> bool {
        false
    }

    /// Where row `first` begins, if all rows lie one after the other.
    fn line(&self, first: usize) -> Option<*const u8> {
        let _ = first;
        None
    }

    /// Tells `put(row − first, tap, pointer)` for every row of `first..first + count`, in order; where rows lie
    /// evenly ([`Rows::even`]) and the path takes only such ([`Micro::EVEN`]), the first two of 16 are enough.
    /// Every pointer may be read for [`Weights::padded`] numbers of the weights' precision while
    /// `self` and `scratch` live.
    fn find<M: Micro>(
        &self,
        first: usize,
        count: usize,
        scratch: &mut [f32],
        put: &mut impl FnMut(usize, usize, *const u8),
    );
}

/// `rows` times `w`, finished, into `out` (`count × w.outputs()`, checked by the caller, as are the
/// lengths in `finish`; `per_sample` rows make a sample).
pub(crate) fn product(
    rows: &impl Rows,
    count: usize,
    w: &Weights,
    finish: Finish<'_>,
    per_sample: usize,
    out: Output<'_>,
) -> Result<()> {
    products(rows, count, &mut [(w, out)], finish, per_sample)
}

/// As [`product`] for each of `layers`, which take the same rows, at once; more than one add nothing.
pub(crate) fn products(
    rows: &impl Rows,
    count: usize,
    layers: &mut [(&Weights, Output<'_>)],
    finish: Finish<'_>,
    per_sample: usize,
) -> Result<()> {
    let Some((w, _)) = layers.first() else {
        return Ok(());
    };
    let threads = rayon::current_num_threads();
    let geometry = w.cpu.geometry(w.precision);
    let run = w.padded * w.precision.bytes();
    // Columns that stay in the second cache leave the way to it to the rows of the next task.
    let held: usize = layers.iter().map(|(w, _)| w.bytes()).sum();
    let ahead = geometry.even && rows.line(0).is_some() && held <= AHEAD;
    let bytes = match ahead {
        true => geometry.chunk.bytes / 4,
        false => geometry.chunk.bytes,
    };
    let chunk = (bytes / run.max(1)).clamp(2 * geometry.rows, geometry.chunk.rows);
    // Chunks as equal as can be, or the last would be a few rows for as many weights.
    let chunks = count.div_ceil(chunk / geometry.rows * geometry.rows);
    let chunk = count.div_ceil(chunks.max(1));
    let chunk = chunk.next_multiple_of(geometry.rows).min(count.max(1));
    let chunks = count.div_ceil(chunk);
    // No sum depends on their number. Few rows take as long as reading the columns does, from the third cache as long as
    // half a tile's.
    let columns: usize = layers.iter().map(|(w, _)| w.panels.columns()).sum();
    let work = count.max(geometry.rows / 2) * w.taps * w.padded * columns;
    let wanted = tasks(work, geometry.chunk);
    let wanted = match rows.makes() || work / geometry.chunk.worth < SHORT {
        true => wanted.min(threads),
        false => wanted,
    };
    // Columns that take no longer than rows which another core made are read by every thread.
    let by_rows = chunks == 1 && wanted > 1 && held <= READ && count >= threads * geometry.rows;
    let chunk = match by_rows {
        true => count.div_ceil(threads).next_multiple_of(geometry.rows),
        false => chunk,
    };
    let chunks = count.div_ceil(chunk);
    let ahead = ahead && chunks >= 2 * threads;
    let wanted = if ahead { wanted.min(chunks) } else { wanted };
    let mut strips = wanted.div_ceil(chunks * layers.len()).max(1);
    // Three shares are one and a half for each of two threads.
    let even = threads.min(wanted);
    let uneven = |shares: usize| !shares.is_multiple_of(even) && shares < 2 * threads;
    while layers.len() > 1 && uneven(chunks * layers.len() * strips) {
        strips += 1;
    }
    // One after the other in a chunk where all columns stay, else in a thread's share of the chunks.
    let bands = if ahead { chunks } else { threads };
    let band = chunks.div_ceil(bands.max(1)).max(1);
    let last = layers.len() - 1;
    let layers = layers.iter_mut().enumerate().map(|(i, (w, out))| {
        debug_assert_eq!(out.len(), count * w.outputs());
        let (at, rounded) = match out {
            Output::Plain(out) => (out.as_mut_ptr(), false),
            Output::Rounded(out) => (out.as_mut_ptr(), true),
        };
        let width = w.outputs();
        let strip = w.panels.count.div_ceil(strips.min(w.panels.count).max(1));
        Layer {
            w,
            output: Place { at, width, rounded },
            ahead: ahead && i == last,
            strip,
            strips: w.panels.count.div_ceil(strip.max(1)),
        }
    });
    let layers: SmallVec<[Layer<'_>; TOGETHER]> = layers.collect();
    let all: usize = layers.iter().map(|layer| layer.strips).sum();
    let task = |i: usize| {
        // Band by band, in each layer by layer, in each chunk by chunk.
        let (first, rest) = (i / (band * all) * band, i % (band * all));
        let own = band.min(chunks - first);
        let mut rest = rest;
        for layer in &layers {
            let here = own * layer.strips;
            if rest >= here {
                rest -= here;
                continue;
            }
            let (c, s) = (first + rest / layer.strips, rest % layer.strips);
            let w = layer.w;
            let piece = Piece {
                rows,
                w,
                finish,
                per_sample,
                output: &layer.output,
                tile_rows: geometry.rows,
                step: geometry.step,
                even: geometry.even,
                ahead: layer.ahead,
                first: c * chunk,
                count: chunk.min(count - c * chunk),
                panels: (s * layer.strip, ((s + 1) * layer.strip).min(w.panels.count)),
            };
            return piece.start();
        }
        Ok(())
    };
    match chunks * all {
        0 => Ok(()),
        1 => task(0),
        n if wanted == 1 => (0..n).try_for_each(task),
        n => try_each(n, task),
    }
}

/// One of the layers that take the same rows.
struct Layer<'a> {
    w: &'a Weights,
    output: Place,
    /// See [`Piece::ahead`].
    ahead: bool,
    /// Panels in a strip, and strips.
    strip: usize,
    strips: usize,
}

/// A task's share of a product.
struct Piece<'a, R> {
    rows: &'a R,
    w: &'a Weights,
    finish: Finish<'a>,
    per_sample: usize,
    output: &'a Place,
    tile_rows: usize,
    step: usize,
    even: bool,
    /// Whether the rows of the next task are asked for, and not columns.
    ahead: bool,
    first: usize,
    count: usize,
    panels: (usize, usize),
}

impl<R: Rows> Piece<'_, R> {
    fn start(self) -> Result<()> {
        let pointers = self.w.taps * self.count * size_of::<*const u8>() / 4;
        let own = self.rows.scratch(self.count).next_multiple_of(16);
        // Of all rows, or of two tiles by turns.
        let sums = self.count.max(2 * self.tile_rows) * self.w.panels.wide;
        let sums = sums.next_multiple_of(16);
        let (cpu, precision) = (self.w.cpu, self.w.precision);
        let widened = match self.w.storage.is_half() {
            true => (HALVES / size_of::<f32>()).max(self.w.panels.wide),
            false => 0,
        };
        // Copies of rows, in the worst case of all; a multiple of 16 where there are any.
        let copies = match self.even && !self.rows.even() {
            true => self.w.taps * self.count * self.w.padded * precision.bytes() / 4,
            false => 0,
        };
        with_scratch(own + sums + widened + copies + pointers, |scratch| {
            let (own, rest) = scratch.split_at_mut(own);
            let (sums, rest) = rest.split_at_mut(sums);
            let (widened, rest) = rest.split_at_mut(widened);
            let (copies, pointers) = rest.split_at_mut(copies);
            let work = Working {
                piece: self,
                own,
                sums,
                widened,
                copies,
                pointers,
            };
            cpu.run_at(precision, work);
        })
    }

    /// First row and number of rows of tile `i` of `tiles`.
    #[inline(always)]
    fn tile<M: Micro>(&self, i: usize, tiles: usize) -> (usize, usize) {
        let border = |i: usize| isa::border::<M>(i, tiles, self.count);
        (border(i), border(i + 1) - border(i))
    }
}

struct Working<'a, R> {
    piece: Piece<'a, R>,
    own: &'a mut [f32],
    sums: &'a mut [f32],
    /// Room for a block of columns that are kept in halves.
    widened: &'a mut [f32],
    /// Room for rows that do not lie evenly.
    copies: &'a mut [f32],
    /// Room for `taps · rows` pointers, tile by tile, tap by tap.
    pointers: &'a mut [f32],
}

impl<R: Rows> Task for Working<'_, R> {
    type Out = ();

    #[inline(always)]
    fn run<M: Micro>(self) {
        let p = &self.piece;
        let w = p.w;
        let taps = w.taps;
        let tiles = p.count.div_ceil(p.tile_rows);
        let table = self.pointers.as_mut_ptr().cast::<*const u8>();
        // The tile that the last row given was in: rows come in order.
        let (mut tile, mut from, mut rows) = (0, 0, p.tile::<M>(0, tiles).1);
        let mut put = |row: usize, tap: usize, at: *const u8| {
            while row >= from + rows && tile + 1 < tiles {
                tile += 1;
                (from, rows) = p.tile::<M>(tile, tiles);
            }
            debug_assert!(tap < taps && (from..from + rows).contains(&row));
            // SAFETY: the table has `taps · count` places, and this one is below that: tiles before
            // take `taps · from`, this one `taps · rows`. Scratch is aligned to 64 bytes and `sums`
            // is a multiple of that.
            unsafe { table.add(taps * from + tap * rows + row - from).write(at) };
        };
        p.rows.find::<M>(p.first, p.count, self.own, &mut put);

        let padded = w.padded;
        let steps = padded / p.step;
        let bytes = w.precision.bytes();
        if M::EVEN && !p.rows.even() {
            let mut to = self.copies.as_mut_ptr().cast::<u8>();
            for tile in 0..tiles {
                let (from, rows) = p.tile::<M>(tile, tiles);
                // SAFETY: `find` filled the table, whose pointers reach `padded` numbers each; there is
                // room for as many numbers for every one.
                to = unsafe {
                    let at = table.add(taps * from);
                    let table = std::slice::from_raw_parts_mut(at, taps * rows);
                    amx::straighten(table, rows, padded * bytes, to)
                };
            }
        }
        // Bytes of a number in a packed column.
        let kept = w.storage.bytes(w.precision);
        let (halves, widened) = (w.storage.is_half(), self.widened.as_mut_ptr());
        let mut unit = M::Unit::default();
        // What is asked for ahead of the next task, in as many steps as this one has.
        let mut next = p.next();
        let all = (p.panels.1 - p.panels.0) * tiles * steps * taps;
        let (sums, room) = (self.sums.as_mut_ptr(), self.sums.len());
        // The last tile's sums, which are written while the next ones are made.
        let mut ending = p.ending::<M>(p.panels.0, (0, 0), sums);
        for panel in p.panels.0..p.panels.1 {
            let width = w.panels.width(panel);
            // Whole taps to a block, or a tap in pieces.
            let column_bytes = taps * padded * bytes;
            let block = match taps {
                _ if halves => HALVES,
                1 => M::CHUNK.dense,
                _ if width * column_bytes <= M::CHUNK.panel => M::CHUNK.panel,
                _ => M::CHUNK.block,
            };
            let block_steps = (block / (width * bytes * p.step)).max(1);
            let block_taps = (block_steps / steps).clamp(1, taps);
            let pieces = steps.div_ceil(block_steps);
            let piece_steps = steps.div_ceil(pieces);
            let panel_at = w.data.as_ptr().cast::<u8>();
            // SAFETY: panels before are all wide, and the buffer holds all panels.
            let panel_at = unsafe { panel_at.add(panel * w.panels.wide * taps * padded * kept) };
            let single = block_taps == taps && pieces == 1;
            let mut tap = 0;
            while tap < taps {
                let now = block_taps.min(taps - tap);
                let mut step = 0;
                while step < steps {
                    let count = piece_steps.min(steps - step);
                    let last = tap + now == taps && step + count == steps;
                    // SAFETY: the packed panel holds `taps · padded` rows of `width`.
                    let kept_at =
                        unsafe { panel_at.add((tap * padded + step * p.step) * width * kept) };
                    let numbers = now * count * p.step * width;
                    debug_assert!(!halves || numbers <= self.widened.len());
                    for tile in 0..tiles {
                        let (from, rows) = p.tile::<M>(tile, tiles);
                        let at = match single || tiles == 1 {
                            true => (panel * tiles + tile) % 2 * p.tile_rows * w.panels.wide,
                            false => from * width,
                        };
                        debug_assert!(at + rows * width <= room);
                        // SAFETY: there is room for the sums of all rows, and for those of two tiles.
                        let sums = unsafe { sums.add(at) };
                        if last && !M::BESIDE {
                            p.fetch::<M>(panel, (from, rows));
                        }
                        // The columns of the next block, which follow this one's, a share with each tile. One tile
                        // alone goes through them as fast as they come.
                        let lines = (p.step * width * kept / LINE).div_ceil(tiles);
                        let block = numbers * kept;
                        let share = tile * now * count * lines * LINE;
                        let after = block + share;
                        if p.ahead {
                            // By turns: of each twice as much.
                            next.reverse();
                            let [(at, bytes), _] = &mut next;
                            let lines = (2 * *bytes / LINE).div_ceil(all.max(1));
                            M::ahead(&mut unit, *at, lines);
                            *at = at.wrapping_add(now * count * lines * LINE);
                        } else if tiles > 1 {
                            M::ahead(&mut unit, kept_at.wrapping_add(after), lines);
                        }
                        if halves {
                            let lines = (numbers * kept / LINE).div_ceil(tiles);
                            let from = kept_at.wrapping_add(numbers * kept + tile * lines * LINE);
                            (0..lines).for_each(|i| isa::fetch_line(from.wrapping_add(i * LINE)));
                        }
                        // SAFETY: `table` was filled for all rows and taps by `find`, whose pointers
                        // reach `padded` numbers; the packed panel holds `taps · padded` rows of
                        // `width`; `sums` has `rows · width` places. None is among those of `ending`: of the
                        // other one of two, or of a panel's last tile, which begins behind two tiles or behind the
                        // one that is made, where all but the last have as many rows. A block of halves has no more
                        // numbers than there is room for.
                        unsafe {
                            let columns = match halves && tile > 0 {
                                true => widened.cast_const().cast(),
                                false => kept_at,
                            };
                            let t = Tile {
                                rows: table.add(taps * from + tap * rows),
                                taps: now,
                                skip: step * p.step * bytes,
                                steps: count,
                                b: columns,
                                out: sums,
                                stride: width,
                                fresh: tap == 0 && step == 0,
                            };
                            ending.share = ending.rows.div_ceil(now * count);
                            match halves && tile == 0 {
                                true => {
                                    M::tile_of_halves(&mut unit, rows, width, t, w.storage, widened)
                                }
                                false => M::tile_beside(&mut unit, rows, width, t, &mut ending),
                            }
                            ending.rest::<M>();
                        }
                        if last {
                            ending = p.ending::<M>(panel, (from, rows), sums);
                        }
                        if !M::BESIDE {
                            // SAFETY: as above.
                            unsafe { ending.rest::<M>() };
                        }
                    }
                    step += count;
                }
                tap += now;
            }
        }
        // SAFETY: as above.
        unsafe { ending.rest::<M>() };
    }
}

impl<R: Rows> Piece<'_, R> {
    /// The first column of the result that panel `panel` gives, and how many.
    #[inline(always)]
    fn columns<M: Micro>(&self, panel: usize) -> (usize, usize) {
        let (first, most) = match self.w.gated {
            true => (panel * M::LANES, M::LANES),
            false => (panel * self.w.panels.wide, self.w.panels.width(panel)),
        };
        (first, most.min(self.output.width.saturating_sub(first)))
    }

    /// The next task's rows, and what is added to them: where they begin, and how many bytes.
    fn next(&self) -> [(*const u8, usize); 2] {
        let first = self.first + self.count;
        let run = self.w.padded * self.w.precision.bytes();
        let rows =
            (self.rows.line(first)).map_or((std::ptr::null(), 0), |at| (at, self.count * run));
        let width = self.output.width;
        let added = match self.finish.plus {
            Plus::Residual(Input::Plain(x)) => {
                let at = x.as_ptr().wrapping_add(first * width);
                (at.cast(), 4 * self.count * width)
            }
            Plus::Residual(Input::Rounded(x)) => {
                let at = x.as_ptr().wrapping_add(first * width / 2);
                (at.cast(), 2 * self.count * width)
            }
            _ => (std::ptr::null(), 0),
        };
        [rows, added]
    }

    /// Asks the memory for the places of these rows in panel `panel`, and for what is added to them,
    /// while the product is on its way: they lie a row apart, which no CPU foresees.
    #[inline(always)]
    fn fetch<M: Micro>(&self, panel: usize, (from, rows): (usize, usize)) {
        let (column, count) = self.columns::<M>(panel);
        for row in 0..rows {
            let at = (self.first + from + row) * self.output.width + column;
            match self.output.rounded {
                false => isa::fetch(self.output.at.wrapping_add(at), count),
                true => isa::fetch(self.output.at.wrapping_add(at / 2), count / 2),
            }
            match self.finish.plus {
                Plus::Residual(Input::Plain(x)) => isa::fetch(x.as_ptr().wrapping_add(at), count),
                Plus::Residual(Input::Rounded(x)) => {
                    isa::fetch(x.as_ptr().wrapping_add(at / 2), count / 2);
                }
                _ => {}
            }
        }
    }

    /// How the sums of `rows` rows from `from` on in panel `panel` are written: rows `first..first + count` and the
    /// columns that are kept lie inside the result and in what is added, which was checked, and no other task writes
    /// them. Whole steps make a rounded row, and these are an even number of columns in it.
    #[inline(always)]
    fn ending<M: Micro>(
        &self,
        panel: usize,
        (from, rows): (usize, usize),
        sums: *mut f32,
    ) -> Ending<'_> {
        let w = self.w;
        let width = w.panels.width(panel);
        let bias = panel * w.panels.wide;
        let (column, kept) = self.columns::<M>(panel);
        Ending {
            finish: self.finish,
            to: *self.output,
            per_sample: self.per_sample,
            gates: w.gated.then_some(M::LANES),
            coarse: w.precision == Precision::Bf16,
            row: self.first + from,
            rows,
            column,
            kept,
            sums,
            share: rows,
            bias: w.bias.get(bias..bias + width).unwrap_or_default(),
        }
    }
}

/// Rows of numbers rounded to bf16, each padded with zeros to `padded` numbers. Rounded ones are rows that
/// need no padding.
pub(crate) fn rounded<R>(
    cpu: crate::isa::Cpu,
    x: Input<'_>,
    width: usize,
    padded: usize,
    f: impl FnOnce(*const u8) -> Result<R>,
) -> Result<R> {
    struct Round<'a> {
        from: &'a [f32],
        to: &'a mut [f32],
        width: usize,
        padded: usize,
    }
    impl Task for Round<'_> {
        type Out = ();
        #[inline(always)]
        fn run<M: Micro>(self) {
            let rows = self.from.chunks_exact(self.width);
            for (from, to) in rows.zip(self.to.chunks_exact_mut(self.padded / 2)) {
                M::round(from, to);
            }
        }
    }
    let x = match x {
        Input::Plain(x) => x,
        Input::Rounded(x) => {
            debug_assert_eq!(width, padded);
            return f(x.as_ptr().cast());
        }
    };
    let rows = x.len() / width.max(1);
    let half = padded / 2;
    with_scratch(rows * half, |scratch| {
        let round = |from: &[f32], to: &mut [f32]| {
            cpu.run_at(
                Precision::Bf16,
                Round {
                    from,
                    to,
                    width,
                    padded,
                },
            );
        };
        const ROWS: usize = 64;
        if x.len() < 1 << 15 {
            round(x, scratch);
        } else {
            let from = |i: usize| x.chunks(ROWS * width).nth(i).unwrap_or_default();
            chunks(scratch, ROWS * half, |i, to| round(from(i), to));
        }
        f(scratch.as_ptr().cast())
    })?
}
