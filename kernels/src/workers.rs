//! The threads that kernels share their work out among.
//!
//! For: a rayon pool that people wait for in turn ([`Workers`]), and keeping its threads awake while
//! networks of many small operations run ([`awake`]). Not for: the sharing out itself (`share`, `team`).
//!
//! A thread of a pool that finds nothing to do for some ten microseconds goes to sleep, and waking it takes
//! longer than most operations of a small network: two shares of 20 µs are then done in 58 instead of 21
//! (two cores in a virtual machine). Threads that stay awake ask for shares until there have been none for a while, so
//! they are there for the next step too, but leave at once when somebody else waits for the pool: a run that
//! they took up between two shares would keep the network waiting to its end. So it is handed in only when none
//! of them is asking.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder, Yield};

use crate::memory;
use crate::team::{Called, Team};

/// Threads that are kept awake at most: small networks have no work for more, and all of them look for it
/// at the same place.
const AWAKE: usize = 7;
/// For so long a thread looks for shares in vain before it may sleep: longer than anything in a network that
/// one thread does alone, and than what lies between two steps.
const PATIENCE: Duration = Duration::from_millis(2);
/// Who comes waits awake for so long until nobody asks.
const HASTE: Duration = Duration::from_micros(50);

thread_local! {
    /// Of the pool that this thread belongs to.
    static HERE: RefCell<Option<Arc<Traffic>>> = const { RefCell::new(None) };
    /// Whether this thread runs a network or stays awake for one: it stays awake for no other, whose end its own
    /// would wait for.
    static TAKEN: Cell<bool> = const { Cell::new(false) };
    /// That does the shares of the network which this thread runs, unless it is doing some.
    static TEAM: RefCell<Option<Arc<Team>>> = const { RefCell::new(None) };
    /// For this thread's networks.
    static OWN: Arc<Team> = Arc::default();
}

/// Threads of our own.
#[derive(Debug)]
pub struct Workers {
    pool: ThreadPool,
    traffic: Arc<Traffic>,
}

/// What threads of a pool and those who come to it know of each other.
#[derive(Debug, Default)]
struct Traffic {
    /// Calls of [`Workers::run`] that have not begun.
    waiting: AtomicUsize,
    /// Threads that ask for shares.
    asking: AtomicUsize,
}

impl Workers {
    /// `threads` threads, named `name` and a number.
    ///
    /// Errors when the system gives no more threads.
    pub fn new(name: &'static str, threads: usize) -> Result<Workers, ThreadPoolBuildError> {
        let traffic = Arc::new(Traffic::default());
        let theirs = Arc::clone(&traffic);
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(move |i| format!("{name}-{i}"))
            .start_handler(move |_| HERE.set(Some(Arc::clone(&theirs))))
            .build()?;
        Ok(Workers { pool, traffic })
    }

    /// Runs `f` in one of the threads, whose shares the others take, and waits for it.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        let same = |here: &Arc<Traffic>| Arc::ptr_eq(here, &self.traffic);
        if HERE.with_borrow(|here| here.as_ref().is_some_and(same)) {
            return f();
        }
        let turn = Counted::new(&self.traffic.waiting);
        let since = Instant::now();
        while self.traffic.asking.load(Ordering::SeqCst) > 0 {
            match since.elapsed() < HASTE {
                true => std::hint::spin_loop(),
                // It does a share.
                false => std::thread::sleep(HASTE),
            }
        }
        self.pool.install(move || {
            drop(turn);
            f()
        })
    }

    /// Lets the system take back what the threads keep for their kernels: for the end of a long run. Does not wait
    /// until they have.
    pub fn rest(&self) {
        self.pool.spawn_broadcast(|_| memory::offer_scratch());
    }
}

/// One more until it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl Counted<'_> {
    fn new(count: &AtomicUsize) -> Counted<'_> {
        count.fetch_add(1, Ordering::SeqCst);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs `f` on this thread, and keeps the other threads of its [`Workers`] awake for its shares until it
/// returns, and for what comes soon after. Anywhere else it only runs `f`.
pub fn awake<R>(f: impl FnOnce() -> R) -> R {
    // Within a network's, this one's shares are that one's.
    if TEAM.with_borrow(Option::is_some) || !HERE.with_borrow(Option::is_some) {
        return f();
    }
    let team = OWN.with(Arc::clone);
    call_for(&team, others());
    let (_lent, _taken) = (Lent::new(Some(team)), Taken::new());
    f()
}

/// Threads that help one that runs a network, at most.
fn others() -> usize {
    rayon::current_num_threads().min(AWAKE + 1) - 1
}

/// Calls for so many threads to help `team`, less those that were called for before and have not left.
fn call_for(team: &Arc<Team>, threads: usize) {
    while let Some(called) = team.call(threads) {
        rayon::spawn(move || {
            // Also found by a thread that runs a network, when it waits for a share; and, when all is done, by this one.
            let own = OWN.with(|own| called.is_of(own));
            let traffic = HERE.with_borrow(Clone::clone);
            if let Some(traffic) = traffic.filter(|_| !own && !TAKEN.get()) {
                let _taken = Taken::new();
                traffic.ask(&called);
            }
        });
    }
}

/// Whether this thread runs a network whose shares others look for.
pub(crate) fn has_team() -> bool {
    TEAM.with_borrow(|team| team.as_ref().is_some_and(|team| team.helpers() > 0))
}

/// Whether the team of the network that this thread runs, if it runs one, calls `f` for each of `0..count`: no others
/// of the pool's threads could help.
pub(crate) fn in_team(count: usize, f: &(impl Fn(usize) + Sync)) -> bool {
    // Shares that have shares find none.
    let lent = Lent::new(None);
    let Some(team) = &lent.0 else {
        return false;
    };
    let wanted = rayon::current_num_threads().min(count) - 1;
    if count > Team::MOST || team.helpers() < wanted {
        // For the next one.
        call_for(team, others());
        return false;
    }
    team.run(count, f);
    true
}

/// Another [`TEAM`] until it is dropped.
struct Lent(Option<Arc<Team>>);

impl Lent {
    fn new(team: Option<Arc<Team>>) -> Lent {
        Lent(TEAM.replace(team))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        TEAM.set(self.0.take());
    }
}

/// [`TAKEN`] until it is dropped.
struct Taken(bool);

impl Taken {
    fn new() -> Taken {
        Taken(TAKEN.replace(true))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        TAKEN.set(self.0);
    }
}

impl Traffic {
    /// Does shares of others, those of the team that it was `called` for before all, until somebody waits, or there have
    /// been none for long.
    fn ask(&self, called: &Called) {
        let team = called.join();
        let mut since = Instant::now();
        loop {
            let asking = Counted::new(&self.asking);
            if self.waiting.load(Ordering::SeqCst) > 0 {
                return;
            }
            let found = rayon::yield_now();
            drop(asking);
            match team.help() || found == Some(Yield::Executed) {
                true => since = Instant::now(),
                false if since.elapsed() > PATIENCE => return,
                false => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use rayon::prelude::*;

    use super::*;

    fn workers(threads: usize) -> Workers {
        Workers::new("test", threads).unwrap()
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
            workers.run(|| awake(|| resume_unwind(Box::new("of a network"))))
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
