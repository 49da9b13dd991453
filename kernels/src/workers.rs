//! The threads that kernels share their work out among.
//!
//! For: a rayon pool that people wait for in turn ([`Workers`]), and keeping its threads awake while a
//! network of many small operations runs ([`awake`]). Not for: the sharing out itself, which is rayon's.
//!
//! A thread of a pool that finds nothing to do for some ten microseconds goes to sleep, and waking it takes
//! longer than most operations of a small network: two shares of 20 µs are then done in 58 instead of 21
//! (two cores in a virtual machine). Threads that stay awake ask for shares until the network is
//! done, but leave at once when somebody else waits for the pool: a run that they took up between two shares
//! would keep the network waiting to its end.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder, Yield};

/// Threads that are kept awake at most: small networks have no work for more, and all of them look for it
/// at the same place.
const AWAKE: usize = 7;
/// For so long a thread looks for shares in vain before it may sleep: longer than anything in a network that
/// one thread does alone.
const PATIENCE: Duration = Duration::from_millis(2);
/// Pauses between two looks.
const PAUSES: usize = 8;

thread_local! {
    /// Who waits for the pool that this thread belongs to.
    static WAITING: RefCell<Option<Arc<AtomicUsize>>> = const { RefCell::new(None) };
}

/// Threads of our own.
#[derive(Debug)]
pub struct Workers {
    pool: ThreadPool,
    /// Calls of [`Workers::run`] that have not begun.
    waiting: Arc<AtomicUsize>,
}

impl Workers {
    /// `threads` threads, named `name` and a number.
    ///
    /// Errors when the system gives no more threads.
    pub fn new(name: &'static str, threads: usize) -> Result<Workers, ThreadPoolBuildError> {
        let waiting = Arc::new(AtomicUsize::new(0));
        let theirs = Arc::clone(&waiting);
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(move |i| format!("{name}-{i}"))
            .start_handler(move |_| WAITING.set(Some(Arc::clone(&theirs))))
            .build()?;
        Ok(Workers { pool, waiting })
    }

    /// Runs `f` in one of the threads, whose shares the others take, and waits for it.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        let turn = Turn::take(&self.waiting);
        self.pool.install(move || {
            drop(turn);
            f()
        })
    }
}

/// Counted from when it is taken until it is dropped.
struct Turn<'a>(&'a AtomicUsize);

impl Turn<'_> {
    fn take(count: &AtomicUsize) -> Turn<'_> {
        count.fetch_add(1, Ordering::SeqCst);
        Turn(count)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs `f` on this thread, and keeps the other threads of its [`Workers`] awake for its shares until it
/// returns. Anywhere else it only runs `f`.
pub fn awake<R>(f: impl FnOnce() -> R) -> R {
    let waiting = WAITING.with_borrow(Clone::clone);
    let (Some(waiting), Some(here)) = (waiting, rayon::current_thread_index()) else {
        return f();
    };
    let done = AtomicBool::new(false);
    rayon::in_place_scope(|scope| {
        let (done, waiting) = (&done, &*waiting);
        for _ in 0..rayon::current_num_threads().min(AWAKE + 1) - 1 {
            scope.spawn(move |_| {
                // The thread that runs `f` finds this when it waits for a share and nobody took it up.
                if rayon::current_thread_index() != Some(here) {
                    look(|| done.load(Ordering::Acquire) || waiting.load(Ordering::Acquire) > 0);
                }
            });
        }
        let _done = Done(done);
        f()
    })
}

/// Set when it is dropped, by a panic too.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Does shares of others until `enough` says so, or there are none for long.
fn look(enough: impl Fn() -> bool) {
    let mut since = Instant::now();
    while !enough() {
        match rayon::yield_now() {
            Some(Yield::Executed) => since = Instant::now(),
            _ if since.elapsed() > PATIENCE => return,
            _ => (0..PAUSES).for_each(|_| std::hint::spin_loop()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    use rayon::prelude::*;

    use super::*;

    fn workers(threads: usize) -> Workers {
        Workers::new("test", threads).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn threads_that_stay_awake_take_shares_and_results_are_those_of_any_pool() {
        for threads in [1, 2, 5, 12] {
            let sums: Vec<u64> = workers(threads).run(|| {
                awake(|| {
                    let shares = |i: u64| (0..4_u64).into_par_iter().map(|j| i * j).sum();
                    (0..200).map(shares).collect()
                })
            });
            assert!((0..200).zip(sums).all(|(i, sum)| sum == 6 * i));
        }
        assert_eq!(awake(|| 5), 5);
    }

    /// Waits for `flag`; false when it does not come.
    fn until(flag: &AtomicBool) -> bool {
        let since = Instant::now();
        while !flag.load(Ordering::Acquire) && since.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_micros(50));
        }
        flag.load(Ordering::Acquire)
    }

    fn set(flag: &AtomicBool) -> bool {
        flag.store(true, Ordering::Release);
        true
    }

    #[test]
    fn two_threads_do_two_shares_at_once() {
        let flags = [AtomicBool::new(false), AtomicBool::new(false)];
        let [a, b] = &flags;
        // Each waits for the other.
        let both = workers(2).run(|| {
            let shares = || rayon::join(|| set(a) && until(b), || set(b) && until(a));
            awake(|| {
                thread::sleep(PATIENCE / 4);
                shares()
            })
        });
        assert_eq!(both, (true, true));
    }

    #[test]
    fn a_panic_comes_through_and_the_threads_go_on() {
        let workers = workers(3);
        let failed = catch_unwind(AssertUnwindSafe(|| {
            workers.run(|| awake(|| panic!("of a network")))
        }));
        assert!(failed.is_err());
        assert_eq!(workers.run(|| awake(|| 7)), 7);
    }

    #[test]
    fn a_run_that_comes_later_keeps_nobody_waiting() {
        let workers = workers(2);
        let (first_begun, last_begun) = (AtomicBool::new(false), AtomicBool::new(false));
        let first_ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let first = || workers.run(|| awake(|| set(&first_begun) && until(&last_begun)));
            let first = scope.spawn(first);
            assert!(until(&first_begun));
            let last = || workers.run(|| set(&last_begun) && until(&first_ended));
            let last = scope.spawn(last);
            assert!(first.join().is_ok_and(|seen| seen));
            set(&first_ended);
            assert!(last.join().is_ok_and(|seen| seen));
        });
    }
}
