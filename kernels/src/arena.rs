//! Memory that is lent and given back, side by side in large pages.
//!
//! For: values between kernels ([`Arena`]) and weights ([`lasting`]). Most take a few megabytes or less, and
//! would lie in small pages at least in part, where products wait for the page table: on AMX a fifth of the
//! time of Stable Diffusion's U-Net. Not for: what a kernel needs while it runs ([`crate::memory`]), or a limit
//! on memory (the engine forecasts).

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use offset_allocator::{Allocation, Allocator};

use crate::error::{KernelError, Result};
use crate::memory::Buffer;

/// Numbers in a cache line, in which everything that is lent begins.
const LINE: usize = 16;
/// Lines of a block. None under the sanitizer: what is lent has a block of its own there, whose ends it watches.
const BLOCK: u32 = if cfg!(semblance_asan) { 0 } else { 1 << 20 };
/// Ranges of a block, lent and free ones.
const RANGES: u32 = 1 << 13;
/// An operation has ended when no more than one in so many of its bytes are lent still.
const ENDED: usize = 8;

/// Memory for values of many lengths. With those that are lent, what is free takes little more than what was
/// lent at once; and when an operation has ended, the system may take the memory of what is free back, until
/// it is lent again.
#[derive(Debug)]
pub struct Arena {
    state: Mutex<State>,
    keep: usize,
}

/// Everything in bytes.
#[derive(Debug, Default)]
struct State {
    /// The oldest first.
    blocks: Vec<Block>,
    /// The next block's name.
    next: u64,
    lent: usize,
    /// Most that was ever lent at once.
    most: usize,
    /// Most that was lent at once since an operation began.
    high: usize,
}

struct Block {
    name: u64,
    memory: Buffer,
    /// Of its lines.
    ranges: Allocator,
    lines: u32,
    lent: usize,
    /// The system may have taken it back.
    offered: bool,
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} lines lent", self.lent, self.lines)
    }
}

/// Numbers on loan from an [`Arena`], to which they return; old ones at first.
pub struct Pooled {
    at: NonNull<f32>,
    len: usize,
    range: Allocation,
    block: u64,
    bytes: usize,
    home: Arc<Arena>,
}

// SAFETY: it alone has its range, of plain numbers.
unsafe impl Send for Pooled {}
// SAFETY: shared access only reads.
unsafe impl Sync for Pooled {}

impl fmt::Debug for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} numbers on loan", self.len)
    }
}

/// Lines that `len` numbers are lent: with no more than four binary digits that count, as the allocator sorts
/// free ranges, so that what was given back serves its like.
fn lines(len: usize) -> Option<u32> {
    let lines = u32::try_from(len.div_ceil(LINE).max(1)).ok()?;
    let digits = u32::BITS - lines.leading_zeros();
    lines.checked_next_multiple_of(1 << digits.saturating_sub(4))
}

fn bytes(lines: u32) -> usize {
    (lines as usize).saturating_mul(4 * LINE)
}

impl Block {
    /// A block of `lines`; errors when there is no memory for them.
    fn new(name: u64, lines: u32) -> Result<Block> {
        Ok(Block {
            name,
            memory: Buffer::zeros((lines as usize).saturating_mul(LINE))?,
            ranges: Allocator::with_max_allocs(lines, RANGES),
            lines,
            lent: 0,
            offered: false,
        })
    }

    /// Where `lines` are lent, if they are here: a block of more than the usual lines serves no range of less than
    /// half of them, which would keep it from the next long one.
    fn lend(&mut self, lines: u32) -> Option<(NonNull<f32>, Allocation)> {
        let fits = lines <= self.lines && (self.lines <= BLOCK || lines >= self.lines / 2);
        let range = fits.then(|| self.ranges.allocate(lines)).flatten()?;
        self.lent += bytes(lines);
        self.offered = false;
        // SAFETY: a range of the block's lines.
        let at = unsafe { self.memory.at().add(range.offset as usize * LINE) };
        Some((at, range))
    }
}

impl State {
    /// Frees the oldest of the blocks that are free until they have no more than `kept` bytes, or are all such
    /// as the system may take back anyway if those do not count.
    fn shrink(&mut self, kept: usize, but_offered: bool) {
        let counts = |b: &Block| b.lent == 0 && !(but_offered && b.offered);
        let free = self.blocks.iter().filter(|b| counts(b));
        let mut free: usize = free.map(|b| bytes(b.lines)).sum();
        self.blocks.retain(|b| {
            let goes = free > kept && counts(b);
            free -= if goes { bytes(b.lines) } else { 0 };
            !goes
        });
    }

    fn lend(&mut self, lines: u32) -> Result<(NonNull<f32>, Allocation, u64)> {
        for block in &mut self.blocks {
            if let Some((at, range)) = block.lend(lines) {
                return Ok((at, range, block.name));
            }
        }
        let all = self.lent.saturating_add(bytes(lines));
        let most = self.most.max(all);
        self.shrink(most.saturating_add(most / 8) - all, true);
        self.next += 1;
        let block = match lines <= BLOCK / 2 {
            true => Block::new(self.next, BLOCK).or_else(|_| Block::new(self.next, lines)),
            false => Block::new(self.next, lines),
        };
        let mut block = block?;
        let (name, lent) = (block.name, block.lend(lines));
        self.blocks.push(block);
        let (at, range) = lent.ok_or(KernelError::OutOfMemory {
            bytes: bytes(lines),
        })?;
        Ok((at, range, name))
    }
}

impl Arena {
    /// An arena that keeps at most `keep` bytes for later, or as many as are lent; nothing if it is 0.
    pub fn new(keep: usize) -> Arc<Arena> {
        Arc::new(Arena {
            state: Mutex::default(),
            keep,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `len` numbers with any content, at the beginning of a cache line; [`KernelError::OutOfMemory`] when there
    /// is no memory for them.
    pub fn take(self: &Arc<Arena>, len: usize) -> Result<Pooled> {
        let lines = lines(len).ok_or(KernelError::OutOfMemory {
            bytes: len.saturating_mul(4),
        })?;
        let mut state = self.state();
        let (at, range, block) = state.lend(lines)?;
        state.lent += bytes(lines);
        state.high = state.high.max(state.lent);
        state.most = state.most.max(state.lent);
        drop(state);
        Ok(Pooled {
            at,
            len,
            range,
            block,
            bytes: bytes(lines),
            home: Arc::clone(self),
        })
    }

    fn give(&self, (block, range, bytes): (u64, Allocation, usize)) {
        let mut state = self.state();
        state.lent -= bytes;
        if let Some(block) = state.blocks.iter_mut().find(|b| b.name == block) {
            block.ranges.free(range);
            block.lent -= bytes;
        }
        let most = match self.keep {
            0 => 0,
            keep => keep.max(state.lent),
        };
        state.shrink(most, false);
        if state.lent < state.high / ENDED {
            state.high = state.lent;
            let free = (state.blocks.iter_mut()).filter(|b| b.lent == 0 && !b.offered);
            free.for_each(|block| {
                block.memory.offer();
                block.offered = true;
            });
        }
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.home.give((self.block, self.range, self.bytes));
    }
}

impl Deref for Pooled {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: a range of that many numbers of a block that stays while any of it is lent; written zeros or
        // other numbers since it was allocated.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

/// `len` zeros for as long as a model is loaded.
///
/// Errors when there is no memory for them.
pub(crate) fn lasting(len: usize) -> Result<Pooled> {
    static WEIGHTS: LazyLock<Arc<Arena>> = LazyLock::new(|| Arena::new(0));
    let mut numbers = WEIGHTS.take(len)?;
    numbers.fill(0.0);
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::pages;

    #[test]
    fn what_is_given_back_is_lent_again() {
        let arena = Arena::new(1 << 30);
        let held = arena.take(2000).unwrap();
        for len in [2000, 300_000, 700_001, (64 << 20) / 4, 40 << 20] {
            let first = arena.take(len).map(|x| x.as_ptr());
            assert_eq!(arena.take(len).map(|x| x.as_ptr()), first, "{len}");
        }
        drop(held);
        assert_eq!(arena.state().lent, 0);
    }

    #[test]
    fn what_is_lent_at_once_lies_apart_in_lines_of_its_own() {
        let arena = Arena::new(0);
        let mut all: Vec<Pooled> = (0..400)
            .map(|i| arena.take(i * i * 7 % 30_011).unwrap())
            .collect();
        for (i, x) in all.iter_mut().enumerate() {
            assert_eq!(x.as_ptr().addr() % 64, 0);
            x.fill(i as f32);
        }
        all.retain(|x| x.len() % 3 != 0);
        all.extend((0..100).map(|i| arena.take(i * 13).unwrap()));
        for (i, x) in all.iter_mut().enumerate() {
            x.fill(i as f32);
        }
        for (i, x) in all.iter().enumerate() {
            assert!(x.iter().all(|x| *x == i as f32));
        }
        drop(all);
        assert!(arena.state().blocks.is_empty());
    }

    #[test]
    fn at_most_so_many_bytes_are_kept() {
        let arena = Arena::new(100 << 20);
        drop([arena.take(20 << 20), arena.take(15 << 20), arena.take(1)]);
        let kept: usize = arena.state().blocks.iter().map(|b| bytes(b.lines)).sum();
        assert!(kept <= 100 << 20, "{kept}");
        assert!(!arena.state().blocks.is_empty());
    }

    #[test]
    fn nothing_is_kept_where_nothing_is_to_be() {
        let arena = Arena::new(0);
        let held = [arena.take(60 << 20), arena.take(1)];
        drop(arena.take(50 << 20));
        assert!(arena.state().blocks.iter().all(|b| b.lent > 0));
        drop(held);
        assert!(arena.state().blocks.is_empty());
    }

    #[test]
    fn values_of_new_lengths_take_the_place_of_others() {
        let arena = Arena::new(1 << 40);
        let _held = arena.take(64 << 20);
        for len in [17 << 20, 36 << 20, 20 << 20, 40 << 20, 64 << 20] {
            drop(arena.take(len));
        }
        let state = arena.state();
        let all: usize = state.blocks.iter().map(|b| bytes(b.lines)).sum();
        assert!(all <= state.most + state.most / 8, "{all}");
    }

    #[test]
    fn what_an_operation_leaves_is_offered_to_the_system_and_lent_again() {
        let arena = Arena::new(1 << 30);
        let held = arena.take(5);
        drop([arena.take(100), arena.take(30 << 20)]);
        // Whether all that is free is offered, and nothing that is lent.
        let offered = |arena: &Arena| {
            let state = arena.state();
            !state.blocks.is_empty() && state.blocks.iter().all(|b| b.offered == (b.lent == 0))
        };
        assert!(offered(&arena));
        let mut again = arena.take(30 << 20).unwrap();
        assert!(offered(&arena));
        again.fill(2.0);
        assert!(again.iter().all(|x| *x == 2.0));
        drop(again);
        drop(held);
        assert!(offered(&arena));
    }

    #[test]
    fn weights_are_zeros_where_others_lay_before() {
        for len in [1000, 3000, pages::LARGE] {
            let mut first = lasting(len).unwrap();
            first.fill(f32::NAN);
            drop(first);
            assert!(lasting(len).unwrap().iter().all(|x| *x == 0.0));
        }
    }

    #[test]
    fn memory_that_nobody_has_is_an_error() {
        let arena = Arena::new(1 << 20);
        for len in [usize::MAX, usize::MAX / 8, 1 << 58] {
            let error = arena.take(len).map(|x| x.len());
            assert!(matches!(error, Err(KernelError::OutOfMemory { .. })));
        }
        assert_eq!(arena.take(0).map(|x| x.len()), Ok(0));
    }
}
