//! One operation's shares among the threads that stay awake for a network.
//!
//! For: handing them out in a fraction of a microsecond to threads that look for them ([`Helper::help`]), where
//! rayon's queues and its waiting for what was stolen take some two: as long as many an operation of a small
//! network. Not for: which threads look, and until when (`workers`).
//!
//! Who runs the network takes shares from the first on, the others from the last on, so that rows which
//! one operation wrote are mostly read by the same core in the next.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What an operation does for each share.
type Work<'a> = &'a (dyn Fn(usize) + Sync);

/// Looks for shares between two looks for anything else: about a microsecond.
const LOOKS: usize = 128;
/// Looks for the end of others' shares before the system may give the core to somebody else.
const PATIENCE: usize = 1 << 14;
/// Of the shares that are left a thread takes one in so many for each thread: few at the end, so that none waits long
/// for the last.
const PARTS: usize = 4;

/// A line of its own, whose neighbour is fetched with it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// A thread that runs a network, and those that help it.
#[derive(Debug, Default)]
pub(crate) struct Team {
    /// Which shares nobody has taken ([`Open`]), and what is to be done for each: a pointer to a [`Work`].
    open: Apart<(AtomicU64, AtomicPtr<()>)>,
    /// Shares that helpers are done with.
    done: Apart<AtomicUsize>,
    /// Threads that look for shares.
    helpers: Apart<AtomicUsize>,
    /// Threads that were called to help and have not left.
    called: AtomicUsize,
    /// Of a share.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Shares `first..end` of operation `number` are open.
#[derive(Clone, Copy)]
struct Open {
    number: u32,
    first: u16,
    end: u16,
}

impl Open {
    fn from(bits: u64) -> Open {
        Open {
            number: (bits >> 32) as u32,
            first: (bits >> 16) as u16,
            end: bits as u16,
        }
    }

    fn bits(self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.first) << 16 | u64::from(self.end)
    }

    /// How many of them a thread of `threads` takes; none when none are left.
    fn some(self, threads: usize) -> u16 {
        let left = self.end.saturating_sub(self.first);
        let some = usize::from(left) / (PARTS * threads.max(1));
        (some as u16).max(1).min(left)
    }
}

/// Where shares are taken from.
#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

/// A thread that was called to help a team, and will have left when this is dropped.
pub(crate) struct Called(Arc<Team>);

impl Called {
    /// Whether it was called by `team`.
    pub fn is_of(&self, team: &Arc<Team>) -> bool {
        Arc::ptr_eq(&self.0, team)
    }

    /// From now on it looks for shares.
    pub fn join(&self) -> Helper<'_> {
        self.0.helpers.0.fetch_add(1, Ordering::SeqCst);
        Helper(&self.0)
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        self.0.called.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A thread that looks for shares, until it is dropped.
pub(crate) struct Helper<'a>(&'a Team);

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        self.0.helpers.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Helper<'_> {
    /// Looks for shares for about a microsecond, or does some; whether it did.
    pub fn help(&self) -> bool {
        let team = self.0;
        let (_, at) = &team.open.0;
        let mut did = false;
        for _ in 0..LOOKS {
            let own = team.take(End::Last);
            if own.is_empty() {
                std::hint::spin_loop();
                continue;
            }
            // SAFETY: what was put there before these shares were opened. It lives, and is not changed for the next
            // operation, until they are done.
            let work: Work<'_> = unsafe { *at.load(Ordering::Relaxed).cast::<Work<'_>>() };
            let count = own.len();
            team.share(work, own);
            team.done.0.fetch_add(count, Ordering::Release);
            did = true;
        }
        did
    }
}

impl Team {
    /// Most shares of an operation.
    pub const MOST: usize = u16::MAX as usize;

    /// Threads that look for shares.
    pub fn helpers(&self) -> usize {
        self.helpers.0.load(Ordering::Relaxed)
    }

    /// One more thread to help, unless `threads` were called and have not left.
    pub fn call(self: &Arc<Team>, threads: usize) -> Option<Called> {
        // Only the thread that it belongs to adds to them.
        if self.called.load(Ordering::Relaxed) >= threads {
            return None;
        }
        self.called.fetch_add(1, Ordering::SeqCst);
        Some(Called(Arc::clone(self)))
    }

    /// Calls `work` for each of `0..count`, at most [`Team::MOST`], on this thread and those that help it; one thread
    /// at a time may. Panics as a share did, once none is running.
    pub fn run(&self, count: usize, work: Work<'_>) {
        debug_assert!(count <= Self::MOST);
        let (open, at) = &self.open.0;
        let all = Open {
            number: Open::from(open.load(Ordering::Relaxed))
                .number
                .wrapping_add(1),
            first: 0,
            end: count.min(Self::MOST) as u16,
        };
        // The first shares are this thread's, who else is waiting.
        let mut own = 0..all.some(1 + self.helpers());
        self.done.0.store(0, Ordering::Relaxed);
        at.store((&raw const work).cast_mut().cast(), Ordering::Relaxed);
        let rest = Open {
            first: own.end,
            ..all
        };
        open.store(rest.bits(), Ordering::Release);
        let mut mine = 0;
        while !own.is_empty() {
            mine += own.len();
            self.share(work, own);
            own = self.take(End::First);
        }
        let mut looks = 0;
        while self.done.0.load(Ordering::Acquire) + mine < count {
            looks += 1;
            match looks < PATIENCE {
                true => std::hint::spin_loop(),
                false => std::thread::yield_now(),
            }
        }
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(panic) = { panic }.take() {
            resume_unwind(panic);
        }
    }

    /// Takes some of the open shares from that end; none when there are none.
    fn take(&self, end: End) -> Range<u16> {
        let (open, _) = &self.open.0;
        let mut bits = open.load(Ordering::Acquire);
        loop {
            let now = Open::from(bits);
            if now.first >= now.end {
                return 0..0;
            }
            let some = now.some(1 + self.helpers());
            let (first, last) = (now.first + some, now.end - some);
            let (own, rest) = match end {
                End::First => (now.first..first, Open { first, ..now }),
                End::Last => (last..now.end, Open { end: last, ..now }),
            };
            let taken =
                open.compare_exchange_weak(bits, rest.bits(), Ordering::AcqRel, Ordering::Acquire);
            match taken {
                Ok(_) => return own,
                Err(found) => bits = found,
            }
        }
    }

    /// Does `shares`, whose panic is kept for [`Team::run`].
    fn share(&self, work: Work<'_>, shares: Range<u16>) {
        let all = || shares.for_each(|i| work(i.into()));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(all)) {
            let mut kept = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
            kept.get_or_insert(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    /// Calls `f` with a team that `helpers` threads help.
    fn helped<R>(helpers: usize, f: impl FnOnce(&Team) -> R) -> R {
        let (team, done) = (Arc::new(Team::default()), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..helpers {
                let (called, done) = (team.call(helpers).unwrap(), &done);
                scope.spawn(move || {
                    let helper = called.join();
                    while !done.load(Ordering::Acquire) {
                        helper.help();
                        thread::yield_now();
                    }
                });
            }
            assert!(team.call(helpers).is_none());
            while team.helpers() < helpers {
                thread::yield_now();
            }
            let out = catch_unwind(AssertUnwindSafe(|| f(&team)));
            done.store(true, Ordering::Release);
            out.unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    #[test]
    fn every_share_is_done_once_however_many_there_are_and_help() {
        for helpers in [0, 1, 2, 5] {
            helped(helpers, |team| {
                for count in (0..400).chain([Team::MOST - 1, Team::MOST]) {
                    let times: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                    team.run(count, &|i| {
                        times.get(i).unwrap().fetch_add(1, Ordering::Relaxed);
                    });
                    let once = times.iter().all(|n| n.load(Ordering::Relaxed) == 1);
                    assert!(once, "{count} shares, {helpers} helpers");
                }
            });
        }
    }

    #[test]
    fn what_a_share_wrote_is_there_when_all_are_done() {
        helped(2, |team| {
            for round in 0..2000 {
                let mut numbers = [0_usize; 40];
                let places: Vec<Mutex<&mut usize>> = numbers.iter_mut().map(Mutex::new).collect();
                team.run(40, &|i| {
                    **places.get(i).unwrap().lock().unwrap() = round + i
                });
                assert!((numbers.iter().enumerate()).all(|(i, n)| *n == round + i));
            }
        });
    }

    #[test]
    fn a_share_of_somebody_else_panics_here_when_all_are_done() {
        helped(1, |team| {
            let here = thread::current().id();
            let ended = AtomicUsize::new(0);
            let work = |_: usize| {
                // This thread waits until the other one has a share.
                let mut theirs = thread::current().id() != here;
                if theirs {
                    ended.fetch_add(1, Ordering::SeqCst);
                    resume_unwind(Box::new("of a share"));
                }
                while !theirs {
                    theirs = ended.load(Ordering::SeqCst) > 0;
                    std::hint::spin_loop();
                }
            };
            let failed = catch_unwind(AssertUnwindSafe(|| team.run(2, &work)));
            let panic = failed.unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&"of a share"));
            // And the team goes on.
            team.run(8, &|_| {
                ended.fetch_add(1, Ordering::SeqCst);
            });
            assert_eq!(ended.load(Ordering::SeqCst), 9);
        });
    }
}
