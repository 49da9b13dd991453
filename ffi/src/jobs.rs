//! An engine's line of jobs: one runs at a time, each on a thread of its own, all of them joined.
//!
//! For: waiting in line, superseding previews, cancel, and an end to every thread. Not for: what a
//! job does; it is a closure here, and the tests bring their own.
//!
//! A thread per job rather than one worker: a waiting job costs a parked thread, and in exchange
//! nothing outlives the jobs. Lock order: line, then status; a job's thread handle alone.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use semblance::job::{Cancel, Control, Phase, Progress};
use semblance::{Code, Error, Result};
use semblance_kernels::FpScope;

use crate::guard;

/// Jobs that may wait in one engine's line; each holds a patch and a thread.
pub const MAX_WAITING: usize = 64;

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A newer preview takes its place.
    Preview,
    /// Runs to its end unless cancelled.
    Final,
}

/// What to do when the engine is busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfBusy {
    /// Wait in line.
    Wait,
    /// Fail with [`Code::Busy`].
    Refuse,
}

/// Where a job is; the numbers are the header's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum State {
    /// In line.
    Waiting = 1,
    /// On its thread.
    Running = 2,
    /// Ended well.
    Done = 3,
    /// Ended otherwise.
    Failed = 4,
}

/// A look at a job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Where it is.
    pub state: State,
    /// What it does, once it runs.
    pub phase: Option<Phase>,
    /// Of the whole job, 0..=1, never falling.
    pub fraction: f32,
}

/// What became of a job.
enum Outcome<T> {
    Pending,
    Done(T),
    Taken,
    Failed(Error),
}

struct Status<T> {
    look: Look,
    outcome: Outcome<T>,
}

/// What a job's thread and its handle share.
struct Core<T> {
    kind: Kind,
    cancel: Cancel,
    status: Mutex<Status<T>>,
    ended: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Queue<T> {
    /// In order; the first is the one that runs.
    line: VecDeque<Arc<Core<T>>>,
    /// All whose thread may still have to be joined.
    started: Vec<Weak<Core<T>>>,
    closed: bool,
}

/// The line of one engine.
pub struct Line<T> {
    queue: Mutex<Queue<T>>,
    moved: Condvar,
}

/// A job under way or ended. Dropping it cancels and joins.
pub struct Job<T> {
    core: Arc<Core<T>>,
    line: Arc<Line<T>>,
}

impl<T: Send + 'static> Line<T> {
    /// An empty line.
    pub fn new() -> Arc<Self> {
        Arc::new(Line {
            queue: Mutex::new(Queue {
                line: VecDeque::new(),
                started: Vec::new(),
                closed: false,
            }),
            moved: Condvar::new(),
        })
    }

    /// Whether a job of this kind would be refused now; asked before the layer is read, which costs.
    pub fn admit(&self, kind: Kind, if_busy: IfBusy) -> Result<()> {
        self.queue.lock().admit(kind, if_busy)
    }

    /// Puts `work` in line and starts its thread. A preview supersedes the previews before it.
    ///
    /// Errors with [`Code::Busy`] when refused, and [`Code::OutOfMemory`] without a thread.
    pub fn start(
        self: &Arc<Self>,
        kind: Kind,
        if_busy: IfBusy,
        work: impl FnOnce(&Control) -> Result<T> + Send + 'static,
    ) -> Result<Job<T>> {
        let core = Arc::new(Core {
            kind,
            cancel: Cancel::new(),
            status: Mutex::new(Status {
                look: Look {
                    state: State::Waiting,
                    phase: None,
                    fraction: 0.0,
                },
                outcome: Outcome::Pending,
            }),
            ended: Condvar::new(),
            thread: Mutex::new(None),
        });
        let mut queue = self.queue.lock();
        queue.admit(kind, if_busy)?;
        let (line, job) = (self.clone(), core.clone());
        // The new thread waits for the line's lock, so it finds its handle and place in order.
        let thread = thread::Builder::new()
            .name("semblance-job".to_owned())
            .spawn(move || line.work(&job, work))
            .map_err(|e| Error::new(Code::OutOfMemory, format!("no thread for the job: {e}")))?;
        *core.thread.lock() = Some(thread);
        if kind == Kind::Preview {
            for older in queue.line.iter().filter(|j| j.kind == Kind::Preview) {
                older.cancel.supersede();
            }
        }
        queue.started.retain(|job| job.strong_count() > 0);
        queue.started.push(Arc::downgrade(&core));
        queue.line.push_back(core.clone());
        self.moved.notify_all();
        drop(queue);
        Ok(Job {
            core,
            line: self.clone(),
        })
    }

    /// Cancels all jobs, joins their threads, and refuses new ones.
    pub fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        for job in &queue.line {
            job.cancel.cancel();
        }
        self.moved.notify_all();
        let started: Vec<_> = queue
            .started
            .drain(..)
            .filter_map(|w| w.upgrade())
            .collect();
        drop(queue);
        started.iter().for_each(|job| job.join());
    }

    /// A job's thread.
    fn work(self: Arc<Self>, job: &Arc<Core<T>>, work: impl FnOnce(&Control) -> Result<T>) {
        let _mode = FpScope::enter();
        let result = self.await_turn(job).and_then(|()| {
            job.status.lock().look.state = State::Running;
            let watched = job.clone();
            let control = Control::new(job.cancel.clone(), move |p| watched.tell(p));
            guard::contain(|| work(&control))
        });
        // Both under the line's lock: who sees the end finds the line free, and who is next in line
        // finds the end.
        let mut queue = self.queue.lock();
        queue.line.retain(|other| !Arc::ptr_eq(other, job));
        job.finish(result);
        self.moved.notify_all();
    }

    fn await_turn(&self, job: &Arc<Core<T>>) -> Result<()> {
        let mut queue = self.queue.lock();
        loop {
            job.cancel.check()?;
            if queue
                .line
                .front()
                .is_some_and(|first| Arc::ptr_eq(first, job))
            {
                return Ok(());
            }
            self.moved.wait(&mut queue);
        }
    }
}

impl<T> Queue<T> {
    fn admit(&self, kind: Kind, if_busy: IfBusy) -> Result<()> {
        if self.closed {
            let text = "the engine is being destroyed";
            return Err(Error::new(Code::Unsupported, text));
        }
        let in_the_way = |job: &&Arc<Core<T>>| kind == Kind::Final || job.kind == Kind::Final;
        let ahead = self.line.iter().filter(in_the_way).count();
        if ahead > 0 && if_busy == IfBusy::Refuse {
            let text = format!("{ahead} other jobs on this engine run or wait");
            return Err(Error::new(Code::Busy, text)
                .with_hint("wait for them, cancel them, or ask to wait in line"));
        }
        if self.line.len() >= MAX_WAITING {
            let text = format!(
                "{} jobs in line: must be at most {MAX_WAITING}",
                self.line.len()
            );
            return Err(Error::new(Code::Busy, text).with_hint("free or cancel some first"));
        }
        Ok(())
    }
}

impl<T> Core<T> {
    fn tell(&self, progress: Progress) {
        let look = &mut self.status.lock().look;
        look.phase = Some(progress.phase);
        // `max` also keeps a NaN out.
        look.fraction = look.fraction.max(progress.fraction.min(1.0));
    }

    fn finish(&self, result: Result<T>) {
        let mut status = self.status.lock();
        match result {
            Ok(value) => {
                status.look.state = State::Done;
                status.look.fraction = 1.0;
                status.outcome = Outcome::Done(value);
            }
            Err(error) => {
                status.look.state = State::Failed;
                status.outcome = Outcome::Failed(error);
            }
        }
        self.ended.notify_all();
    }

    fn join(&self) {
        let thread = self.thread.lock().take();
        match thread {
            // The thread contains its panics, so there is nothing in the result.
            Some(thread) => drop(thread.join()),
            // Somebody else joins it; wait with them.
            None => self.wait(None),
        }
    }

    fn wait(&self, timeout: Option<Duration>) {
        let until = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut status = self.status.lock();
        while matches!(status.look.state, State::Waiting | State::Running) {
            match until {
                None => self.ended.wait(&mut status),
                Some(until) => {
                    if self.ended.wait_until(&mut status, until).timed_out() {
                        return;
                    }
                }
            }
        }
    }
}

impl<T> Job<T> {
    /// Where the job is.
    pub fn look(&self) -> Look {
        self.core.status.lock().look
    }

    /// Waits for the job's end, `timeout` at most (`None`: for ever).
    pub fn wait(&self, timeout: Option<Duration>) -> Look {
        self.core.wait(timeout);
        self.look()
    }

    /// Asks the job to stop.
    pub fn cancel(&self) {
        self.core.cancel.cancel();
        // Under the lock, or a job about to wait for its turn would miss the call.
        let _queue = self.line.queue.lock();
        self.line.moved.notify_all();
    }

    /// What the job made, once; or its error, each time.
    pub fn take(&self) -> Result<T> {
        let mut status = self.core.status.lock();
        match std::mem::replace(&mut status.outcome, Outcome::Taken) {
            Outcome::Done(value) => Ok(value),
            Outcome::Failed(error) => {
                status.outcome = Outcome::Failed(error.clone());
                Err(error)
            }
            Outcome::Taken => Err(Error::new(
                Code::Unsupported,
                "the job's result was taken before",
            )
            .with_hint("keep the first one")),
            Outcome::Pending => {
                status.outcome = Outcome::Pending;
                Err(Error::new(Code::Unsupported, "the job has not ended")
                    .with_hint("poll or wait until its state is done"))
            }
        }
    }
}

impl<T> Drop for Job<T> {
    fn drop(&mut self) {
        self.cancel();
        self.core.join();
    }
}

impl<T> fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("look", &self.look())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
