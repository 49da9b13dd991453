//! Memory for numbers: aligned, allocated fallibly, recycled.
//!
//! For: values between kernels ([`Arena`], [`Pooled`]) and what a kernel needs while it runs
//! ([`with_scratch`]). Not for: memory that outlives its engine, or a limit on it (the engine
//! forecasts).

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{KernelError, Result};
use crate::pages;
use crate::slab::{self, Slab};

/// A cache line, and the widest vector.
const ALIGN: usize = 64;

/// `f32` numbers at an address that vectors like.
#[derive(Debug)]
pub struct Buffer {
    at: NonNull<f32>,
    len: usize,
    home: Home,
    /// The system may have taken the numbers back.
    offered: bool,
}

/// Where a buffer's memory is from.
#[derive(Clone, Debug)]
enum Home {
    Allocator,
    Pages,
    Slab {
        /// Gives the memory back.
        _slab: Arc<Slab>,
    },
}

// SAFETY: a buffer owns its memory alone and holds plain numbers.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zeros; [`KernelError::OutOfMemory`] when there is no memory for them.
    pub fn zeros(len: usize) -> Result<Buffer> {
        let fail = || KernelError::OutOfMemory {
            bytes: len.saturating_mul(4),
        };
        let layout = layout(len).ok_or_else(fail)?;
        if layout.size() == 0 {
            return Ok(Buffer::default());
        }
        if layout.size() >= pages::LARGE
            && let Some(at) = pages::zeros(layout.size())
        {
            return Ok(Buffer {
                at: at.cast(),
                len,
                home: Home::Pages,
                offered: false,
            });
        }
        // SAFETY: the layout's size is not zero.
        let at = unsafe { alloc_zeroed(layout) };
        let at = NonNull::new(at.cast::<f32>()).ok_or_else(fail)?;
        Ok(Buffer {
            at,
            len,
            home: Home::Allocator,
            offered: false,
        })
    }

    /// As [`Buffer::zeros`], for numbers that last, like a model's weights: side by side in large pages.
    pub fn lasting(len: usize) -> Result<Buffer> {
        match layout(len).and_then(|layout| slab::piece(layout.size())) {
            Some((at, _slab)) => Ok(Buffer {
                at: at.cast(),
                len,
                home: Home::Slab { _slab },
                offered: false,
            }),
            None => Buffer::zeros(len),
        }
    }

    /// Lets the system take the memory back while nobody needs the numbers, which are lost or not.
    fn offer(&mut self) {
        if let (Home::Pages, false, Some(layout)) = (&self.home, self.offered, layout(self.len)) {
            // SAFETY: taken by `zeros` from there with this size, and borrowed alone.
            unsafe { pages::offer(self.at.cast(), layout.size()) };
            self.offered = true;
        }
    }

    /// The same as bytes, as this machine orders them: to be read into.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the same memory, borrowed alone for as long; any bytes are some numbers.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr().cast(), 4 * self.len) }
    }
}

impl Default for Buffer {
    /// No numbers.
    fn default() -> Self {
        Buffer {
            at: NonNull::dangling(),
            len: 0,
            home: Home::Allocator,
            offered: false,
        }
    }
}

/// The layout of `len` numbers, if there is one.
fn layout(len: usize) -> Option<Layout> {
    Layout::from_size_align(len.checked_mul(4)?, ALIGN).ok()
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let (Some(layout), 1..) = (layout(self.len), self.len) else {
            return;
        };
        match &self.home {
            Home::Slab { .. } => {}
            // SAFETY: taken by `zeros` from there with this size, and given back once.
            Home::Pages => unsafe { pages::free(self.at.cast(), layout.size()) },
            // SAFETY: allocated by `zeros` with this layout, and freed once.
            Home::Allocator => unsafe { dealloc(self.at.as_ptr().cast(), layout) },
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: `len` numbers, set to zero when allocated (or none, at an aligned address).
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

/// Buffers that are free to be used again. With those that are lent they never take much more than what was
/// lent at once, and when an operation has ended the system may take their memory back, as far as it is
/// [`pages`].
#[derive(Debug)]
pub struct Arena {
    state: Mutex<State>,
    keep: usize,
    /// A buffer is lent for no less than one in so many of its numbers.
    least: usize,
}

/// Everything in bytes.
#[derive(Debug, Default)]
struct State {
    /// The oldest first.
    free: Vec<Buffer>,
    lent: usize,
    /// Most that was ever lent at once.
    most: usize,
    /// Most that was lent at once since an operation began.
    high: usize,
}

/// An operation has ended when no more than one in so many of its bytes are lent still.
const ENDED: usize = 8;

impl State {
    /// Frees the oldest until no more than `bytes` are kept, or those that the system may take back anyway
    /// are all that is.
    fn shrink(&mut self, bytes: usize, but_offered: bool) {
        let counts = |b: &Buffer| !(but_offered && b.offered);
        let mut kept: usize = (self.free.iter().filter(|b| counts(b)))
            .map(|b| 4 * b.len())
            .sum();
        self.free.retain(|b| {
            let goes = kept > bytes && counts(b);
            kept -= if goes { 4 * b.len() } else { 0 };
            !goes
        });
    }
}

/// A buffer on loan from an [`Arena`], to which it returns; holds old numbers at first.
#[derive(Debug)]
pub struct Pooled {
    buffer: Option<Buffer>,
    len: usize,
    home: Arc<Arena>,
}

impl Arena {
    /// An arena for values of many lengths at once, which keeps at most `keep` bytes for later, or as many as
    /// are lent.
    pub fn new(keep: usize) -> Arc<Arena> {
        Self::lending(keep, 2)
    }

    /// An arena that keeps at most `keep` bytes for later, for one value after the other: a long buffer
    /// serves the short ones too.
    pub fn of_one(keep: usize) -> Arc<Arena> {
        Self::lending(keep, usize::MAX)
    }

    fn lending(keep: usize, least: usize) -> Arc<Arena> {
        Arc::new(Arena {
            state: Mutex::default(),
            keep,
            least,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of `len` numbers with any content.
    pub fn take(self: &Arc<Arena>, len: usize) -> Result<Pooled> {
        let mut state = self.state();
        let fits = |b: &Buffer| b.len() >= len && b.len() / self.least <= len.max(1024);
        let best = (state.free.iter().enumerate())
            .filter(|(_, b)| fits(b))
            .min_by_key(|(_, b)| b.len())
            .map(|(i, _)| i);
        let mut buffer = match best {
            Some(i) => state.free.swap_remove(i),
            None => {
                let bytes = state.lent.saturating_add(len.saturating_mul(4));
                let most = state.most.max(bytes);
                state.shrink(most.saturating_add(most / 8) - bytes, true);
                Buffer::zeros(len)?
            }
        };
        buffer.offered = false;
        state.lent += 4 * buffer.len();
        state.high = state.high.max(state.lent);
        state.most = state.most.max(state.lent);
        drop(state);
        Ok(Pooled {
            buffer: Some(buffer),
            len,
            home: Arc::clone(self),
        })
    }

    /// Frees what is kept for later.
    pub fn trim(&self) {
        self.state().free.clear();
    }

    fn give(&self, buffer: Buffer) {
        let mut state = self.state();
        state.lent -= 4 * buffer.len();
        // What was given just now is the likeliest to be asked for.
        state.free.push(buffer);
        let most = self.keep.max(state.lent);
        state.shrink(most, false);
        if state.lent < state.high / ENDED {
            state.high = state.lent;
            state.free.iter_mut().for_each(Buffer::offer);
        }
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.home.give(buffer);
        }
    }
}

impl Deref for Pooled {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        let all: &[f32] = self.buffer.as_deref().unwrap_or_default();
        all.get(..self.len).unwrap_or_default()
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut [f32] {
        let all: &mut [f32] = self.buffer.as_deref_mut().unwrap_or_default();
        all.get_mut(..self.len).unwrap_or_default()
    }
}

/// What a thread keeps of its scratch when a kernel is done, in numbers: what the inputs of a tiled
/// convolution take at most. Larger pieces are freed.
const KEEP_SCRATCH: usize = 1 << 22;
/// Pieces of scratch that a thread keeps.
const PIECES: usize = 4;

thread_local! {
    static SCRATCH: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` numbers of scratch that hold anything, kept by the thread for the next call.
/// May be nested: a thread that waits for others may be given their work.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
    let kept = SCRATCH.with_borrow_mut(|kept| {
        let fits = kept.iter().enumerate().filter(|(_, b)| b.len() >= len);
        let best = fits.min_by_key(|(_, b)| b.len()).map(|(i, _)| i);
        best.map(|i| kept.swap_remove(i))
    });
    let mut buffer = match kept {
        Some(buffer) => buffer,
        None => Buffer::zeros(len.next_power_of_two().max(1024))?,
    };
    let out = f(buffer.get_mut(..len).unwrap_or_default());
    if buffer.len() <= KEEP_SCRATCH {
        SCRATCH.with_borrow_mut(|kept| {
            kept.push(buffer);
            if kept.len() > PIECES {
                let least = kept.iter().enumerate().min_by_key(|(_, b)| b.len());
                let least = least.map(|(i, _)| i);
                least.map(|i| kept.swap_remove(i));
            }
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_given_back_is_lent_again_and_at_most_so_many_bytes_are_kept() {
        let arena = Arena::new(4 * 3000);
        let first = arena.take(2000).map(|b| b.as_ptr());
        let again = arena.take(1900).map(|b| (b.as_ptr(), b.len()));
        assert_eq!(again, first.map(|p| (p, 1900)));
        drop(arena.take(5000));
        assert!(arena.state().free.is_empty());
    }

    #[test]
    fn a_long_buffer_serves_short_values_where_there_is_one_at_a_time() {
        for (arena, again) in [(Arena::new(1 << 20), false), (Arena::of_one(1 << 20), true)] {
            drop([arena.take(10_000), arena.take(100_000)]);
            let long = arena.take(10_000).map(|b| b.as_ptr());
            assert_eq!(arena.take(2000).map(|b| b.as_ptr()) == long, again);
        }
    }

    #[test]
    fn with_what_is_lent_no_more_is_kept_than_an_eighth_over_the_most_that_was() {
        let arena = Arena::new(1 << 30);
        let held = arena.take(8000);
        for len in [1000, 2100, 4300, 8700, 1000] {
            drop(arena.take(len));
            let state = arena.state();
            let kept: usize = state.free.iter().map(|b| 4 * b.len()).sum();
            assert!(state.lent + kept <= state.most + state.most / 8);
        }
        drop(held);
        assert_eq!(arena.state().lent, 0);
    }

    #[test]
    fn what_an_operation_leaves_is_offered_to_the_system_and_lent_again() {
        let arena = Arena::new(64 << 20);
        let large = pages::LARGE / 4;
        drop([arena.take(large), arena.take(3 * large)]);
        assert!(
            arena
                .state()
                .free
                .iter()
                .all(|b| b.offered == matches!(b.home, Home::Pages))
        );
        assert_eq!(arena.state().free.len(), 2);
        let mut again = arena.take(3 * large).unwrap_or_else(|e| panic!("{e}"));
        assert!(again.buffer.as_ref().is_some_and(|b| !b.offered));
        again.fill(2.0);
        assert!(again.iter().all(|x| *x == 2.0));
        assert_eq!(arena.state().free.len(), 1);
    }

    #[test]
    fn large_buffers_are_zeros_to_their_last_number_and_can_be_written() {
        for len in [(2 << 20) / 4, (2 << 20) / 4 + 1, (5 << 20) / 4 - 3] {
            let mut buffer = Buffer::zeros(len).unwrap_or_default();
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr().addr() % ALIGN, 0);
            assert!(buffer.iter().all(|x| *x == 0.0));
            buffer.fill(1.0);
            buffer.bytes_mut().fill(0);
            assert!(buffer.iter().all(|x| *x == 0.0));
        }
    }

    #[test]
    fn memory_that_nobody_has_is_an_error() {
        for len in [usize::MAX, usize::MAX / 8, 1 << 58] {
            assert!(matches!(
                Buffer::zeros(len),
                Err(KernelError::OutOfMemory { .. })
            ));
        }
        assert_eq!(Buffer::zeros(0).map(|b| b.len()), Ok(0));
    }
}
