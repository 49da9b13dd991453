//! Memory that lasts, side by side in large pages.
//!
//! For: weights ([`crate::Buffer::lasting`]). A layer's take a few megabytes or less, so that in memory of
//! their own a good part lies in small pages; and a product that comes to weights that no cache has waits for
//! the page table again and again: three tenths of its time at 256 positions of 1280 inputs. Not for: values,
//! which come and go: a slab is given back as a whole, when its last piece is.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::pages;

/// Bytes of a slab, a multiple of a large page.
const SLAB: usize = 32 * pages::LARGE;
/// Most bytes of a piece: what is longer has large pages enough of its own.
const LONGEST: usize = SLAB / 4;
/// What a piece begins at a multiple of: a cache line.
const LINE: usize = 64;

/// Memory that pieces lie in.
#[derive(Debug)]
pub(crate) struct Slab(NonNull<u8>);

// SAFETY: a slab is only given back; its pieces belong to one buffer each.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: taken from there with this size; no piece is left, for each holds the slab.
        unsafe { pages::free(self.0, SLAB) };
    }
}

/// The slab that the next piece is taken from, and how much of it is.
static CURRENT: Mutex<(Weak<Slab>, usize)> = Mutex::new((Weak::new(), 0));

/// `bytes` zeros at the beginning of a cache line, which are the caller's while it holds the slab; `None` where
/// other memory serves better.
pub(crate) fn piece(bytes: usize) -> Option<(NonNull<u8>, Arc<Slab>)> {
    if !(1..=LONGEST).contains(&bytes) {
        return None;
    }
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let held = current.0.upgrade();
    let (slab, from) = match held.filter(|_| current.1 + bytes <= SLAB) {
        Some(slab) => (slab, current.1),
        None => {
            let slab = Arc::new(Slab(pages::zeros(SLAB)?));
            current.0 = Arc::downgrade(&slab);
            (slab, 0)
        }
    };
    current.1 = (from + bytes).next_multiple_of(LINE);
    // SAFETY: `from + bytes` is no more than the slab has.
    Some((unsafe { slab.0.add(from) }, slab))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_in_lines_of_their_own_and_are_zeros_until_their_owner_writes() {
        let pieces: Vec<_> = (1..300_usize)
            .filter_map(|i| Some((piece(i * 1021)?, i * 1021)))
            .collect();
        for ((at, _slab), bytes) in &pieces {
            assert_eq!(at.addr().get() % LINE, 0);
            // SAFETY: a piece's bytes, which are this test's alone.
            let own = unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), *bytes) };
            assert!(own.iter().all(|x| *x == 0));
            own.fill(1);
        }
        assert!(piece(0).is_none() && piece(LONGEST + 1).is_none());
    }
}
