//! The shares of one operation, side by side.
//!
//! For: everything in this crate that is worth more than one thread. While a network runs ([`crate::awake`]) its
//! [`Team`](crate::team) does them, anywhere else the rayon pool of the calling thread. Not for: whether
//! it is worth it, and how it is cut up, which no result may depend on.

use std::marker::PhantomData;
use std::sync::OnceLock;

use rayon::prelude::*;

use crate::error::{KernelError, Result};
use crate::workers::{has_team, in_team};

/// Numbers from which what is done to each is worth a second thread that looks for shares, or one that may sleep.
const WORTH: [usize; 2] = [1 << 12, 1 << 15];

/// Whether so many numbers are worth another thread.
pub(crate) fn pays(numbers: usize) -> bool {
    let [looks, may_sleep] = WORTH;
    numbers >= may_sleep || numbers >= looks && has_team()
}

/// Calls `f` for each of `0..count`.
pub(crate) fn each(count: usize, f: impl Fn(usize) + Sync) {
    if count <= 1 {
        return (0..count).for_each(f);
    }
    if !in_team(count, &f) {
        (0..count).into_par_iter().with_max_len(1).for_each(&f);
    }
}

/// As [`each`]: an error that one of them had, if any; then some may not have been called.
pub(crate) fn try_each(count: usize, f: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let failed: OnceLock<KernelError> = OnceLock::new();
    each(count, |i| {
        if failed.get().is_some() {
            return;
        }
        if let Err(e) = f(i) {
            // Another one came first.
            let _ = failed.set(e);
        }
    });
    failed.into_inner().map_or(Ok(()), Err)
}

/// Numbers that are written side by side, so many by one share.
struct Parts<'a> {
    at: *mut f32,
    count: usize,
    len: usize,
    numbers: PhantomData<&'a mut [f32]>,
}

// SAFETY: every share has numbers of its own.
unsafe impl Sync for Parts<'_> {}

impl<'a> Parts<'a> {
    fn new(all: &'a mut [f32], len: usize) -> Parts<'a> {
        Parts {
            at: all.as_mut_ptr(),
            count: all.len(),
            len: len.max(1),
            numbers: PhantomData,
        }
    }

    fn shares(&self) -> usize {
        self.count.div_ceil(self.len)
    }

    /// Those of share `i`, the last one's maybe fewer.
    ///
    /// # Safety
    /// `i` is below [`Parts::shares`], and nobody else has its numbers.
    #[allow(clippy::mut_from_ref)]
    unsafe fn of(&self, i: usize) -> &mut [f32] {
        let first = i * self.len;
        // SAFETY: inside of what was borrowed; the caller's promise.
        unsafe {
            std::slice::from_raw_parts_mut(self.at.add(first), self.len.min(self.count - first))
        }
    }
}

/// Calls `f` with every `len` numbers of `all`, the last maybe fewer, and which they are.
pub(crate) fn chunks(all: &mut [f32], len: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let all = Parts::new(all, len);
    // SAFETY: a share of its own.
    each(all.shares(), |i| f(i, unsafe { all.of(i) }));
}

/// As [`chunks`] of two, as long as the shorter one has some.
pub(crate) fn both(
    (one, one_len): (&mut [f32], usize),
    (two, two_len): (&mut [f32], usize),
    f: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) {
    let (one, two) = (Parts::new(one, one_len), Parts::new(two, two_len));
    // SAFETY: a share of its own in both.
    each(one.shares().min(two.shares()), |i| unsafe {
        f(i, one.of(i), two.of(i));
    });
}

/// As [`chunks`] and [`try_each`].
pub(crate) fn try_chunks(
    all: &mut [f32],
    len: usize,
    f: impl Fn(usize, &mut [f32]) -> Result<()> + Sync,
) -> Result<()> {
    let failed: OnceLock<KernelError> = OnceLock::new();
    chunks(all, len, |i, own| {
        if let Err(e) = f(i, own) {
            let _ = failed.set(e);
        }
    });
    failed.into_inner().map_or(Ok(()), Err)
}
