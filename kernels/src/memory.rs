//! Memory for numbers: aligned, allocated fallibly, in large pages where it is large.
//!
//! For: [`Buffer`], and what a kernel needs while it runs ([`with_scratch`]). Not for: values and weights
//! ([`crate::arena`]), or a limit on memory (the engine forecasts).

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::error::{KernelError, Result};
use crate::pages;

/// A cache line, and the widest vector.
const ALIGN: usize = 64;

/// `f32` numbers at an address that vectors like.
#[derive(Debug)]
pub struct Buffer {
    at: NonNull<f32>,
    len: usize,
    /// From [`pages`], not from the allocator.
    paged: bool,
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
                paged: true,
            });
        }
        // SAFETY: the layout's size is not zero.
        let at = unsafe { alloc_zeroed(layout) };
        let at = NonNull::new(at.cast::<f32>()).ok_or_else(fail)?;
        Ok(Buffer {
            at,
            len,
            paged: false,
        })
    }

    /// Where the numbers begin.
    pub(crate) fn at(&self) -> NonNull<f32> {
        self.at
    }

    /// Lets the system take the memory back while nobody needs the numbers, which are lost or not.
    pub(crate) fn offer(&mut self) {
        if let (true, Some(layout)) = (self.paged, layout(self.len)) {
            // SAFETY: taken by `zeros` from there with this size, and borrowed alone.
            unsafe { pages::offer(self.at.cast(), layout.size()) };
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
            paged: false,
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
        match self.paged {
            // SAFETY: taken by `zeros` from there with this size, and given back once.
            true => unsafe { pages::free(self.at.cast(), layout.size()) },
            // SAFETY: allocated by `zeros` with this layout, and freed once.
            false => unsafe { dealloc(self.at.as_ptr().cast(), layout) },
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

/// What a thread keeps of its scratch when a kernel is done, in numbers: what the inputs of a tiled
/// convolution take at most. Larger pieces are freed.
const KEEP_SCRATCH: usize = 1 << 22;
/// Pieces of scratch that a thread keeps.
const PIECES: usize = 4;

thread_local! {
    static SCRATCH: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// Numbers of a piece of scratch for `len`: a power of two, and a large page if it is more than a few small
/// ones.
fn scratch(len: usize) -> usize {
    match 4 * len > pages::LARGE / 8 {
        true => len.next_power_of_two().max(pages::LARGE / 4),
        false => len.next_power_of_two().max(1024),
    }
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
        None => Buffer::zeros(scratch(len))?,
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

/// Lets the system take back what this thread keeps of its scratch, until a kernel needs it.
pub(crate) fn offer_scratch() {
    SCRATCH.with_borrow_mut(|kept| {
        // Small pieces are the allocator's, and no memory to speak of.
        kept.retain(|b| b.paged || 4 * b.len() < pages::LARGE);
        kept.iter_mut().for_each(Buffer::offer);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// Fills scratch of the first of `lens` with its place in them, takes the others inside of it, and adds, from
    /// the innermost out, where each lay and whether its numbers were the same before: what an earlier call left.
    fn nested(lens: &[usize], found: &mut Vec<(usize, bool)>) {
        let Some((&len, rest)) = lens.split_first() else {
            return;
        };
        let own = rest.len() as f32 + 1.0;
        let done = with_scratch(len, |room| {
            assert_eq!(room.len(), len);
            let kept = room.iter().all(|x| *x == own);
            room.fill(own);
            nested(rest, found);
            assert!(room.iter().all(|x| *x == own), "{len} numbers of scratch");
            found.push((room.as_ptr().addr(), kept));
        });
        assert_eq!(done, Ok(()));
    }

    #[test]
    fn scratch_inside_of_scratch_is_apart_as_long_as_asked_and_kept_for_the_next_call() {
        // A thread of its own has kept nothing yet.
        let thread = std::thread::spawn(|| {
            let lens = [70_000, 300, 5000];
            let (mut first, mut again) = (Vec::new(), Vec::new());
            nested(&lens, &mut first);
            let mut ends: Vec<_> = (first.iter().zip(lens.iter().rev()))
                .map(|((at, _), len)| (*at, at + 4 * len))
                .collect();
            ends.sort_unstable();
            assert!(ends.windows(2).all(|two| two[0].1 <= two[1].0), "{ends:?}");
            // The same buffers, which hold what they held: none was freed, none is new.
            nested(&lens, &mut again);
            let (before, after): (Vec<_>, Vec<_>) = (first.iter().zip(&again))
                .map(|(one, two)| (one.0, two.0))
                .unzip();
            assert_eq!(before, after);
            assert!(again.iter().all(|(_, kept)| *kept));
            // More than a thread keeps, and none, are still what they are.
            nested(&[1, 0, 4096, 1, 1025, 1024, 2], &mut Vec::new());
        });
        assert!(thread.join().is_ok());
    }
}
