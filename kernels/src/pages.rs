//! Large memory straight from the system, in large pages where it has them.
//!
//! For: [`crate::Buffer`]. A product walks through gigabytes of weights; in pages of 4 KiB it waits for
//! the page tables, and filling them costs a fault each. Not for: memory of another kind or size.

use std::ptr::NonNull;

/// Bytes from which memory is taken here: a large page.
pub(crate) const LARGE: usize = 2 << 20;

/// What a mapping's length is rounded to: a multiple of every usual page.
#[cfg(all(target_os = "linux", not(semblance_asan)))]
const PAGE: usize = 64 << 10;

/// `bytes` zeros, at least [`LARGE`], aligned to a large page; `None` where the system has none to give.
#[cfg(all(target_os = "linux", not(semblance_asan)))]
pub(crate) fn zeros(bytes: usize) -> Option<NonNull<u8>> {
    let kept = bytes.checked_next_multiple_of(PAGE)?;
    let all = kept.checked_add(LARGE)?;
    let (access, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a new mapping of no file, wherever the system likes.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), all, access, kind, -1, 0) };
    if at == libc::MAP_FAILED {
        return None;
    }
    let at = at.cast::<u8>();
    // To the next large page; there is one, for `all` is a large page longer.
    let skip = at.addr().wrapping_neg() % LARGE;
    // SAFETY: what is cut off before and after lies in the new mapping, which nobody else knows, and
    // begins and ends with pages. Advice changes no content, and where it is refused nothing is lost.
    unsafe {
        let begin = at.add(skip);
        if skip > 0 {
            libc::munmap(at.cast(), skip);
        }
        libc::munmap(begin.add(kept).cast(), LARGE - skip);
        libc::madvise(begin.cast(), kept, libc::MADV_HUGEPAGE);
        NonNull::new(begin)
    }
}

/// Gives back what [`zeros`] gave.
///
/// # Safety
/// `at` came from `zeros(bytes)` and is not used any more.
#[cfg(all(target_os = "linux", not(semblance_asan)))]
pub(crate) unsafe fn free(at: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise; a mapping is freed as a whole.
    unsafe { libc::munmap(at.as_ptr().cast(), bytes.next_multiple_of(PAGE)) };
}

/// Lets the system take the memory at `at` back when it is short of it, until something is written there;
/// what is read before that are the old bytes or zeros. Costs nothing where the system does not.
///
/// # Safety
/// `at` came from `zeros(bytes)`, and nobody else uses it meanwhile.
#[cfg(all(target_os = "linux", not(semblance_asan)))]
pub(crate) unsafe fn offer(at: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise. A refusal (Linux before 4.5) leaves all as it is.
    unsafe {
        let kept = bytes.next_multiple_of(PAGE);
        libc::madvise(at.as_ptr().cast(), kept, libc::MADV_FREE);
    }
}

/// Elsewhere, and where the sanitizer is to watch every buffer, the allocator serves.
#[cfg(not(all(target_os = "linux", not(semblance_asan))))]
pub(crate) fn zeros(_: usize) -> Option<NonNull<u8>> {
    None
}

/// Never called: [`zeros`] gives nothing here.
///
/// # Safety
/// None is needed.
#[cfg(not(all(target_os = "linux", not(semblance_asan))))]
pub(crate) unsafe fn free(_: NonNull<u8>, _: usize) {}

/// Never called, as [`free`].
///
/// # Safety
/// None is needed.
#[cfg(not(all(target_os = "linux", not(semblance_asan))))]
pub(crate) unsafe fn offer(_: NonNull<u8>, _: usize) {}
