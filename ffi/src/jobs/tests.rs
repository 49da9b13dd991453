#![allow(clippy::unwrap_used, clippy::panic)]
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use super::*;

/// Works until cancelled, or until `go` is up.
fn patient(go: &Arc<AtomicBool>) -> impl FnOnce(&Control) -> Result<u32> + Send + use<> {
    let go = go.clone();
    move |control| {
        while !go.load(SeqCst) {
            control.tell(Phase::Edit, 0.5)?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(7)
    }
}

fn code<T>(result: Result<T>) -> Code {
    result.map(|_| ()).unwrap_err().code()
}

fn until_running<T>(job: &Job<T>) {
    while job.look().state == State::Waiting {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_job_runs_and_its_result_is_taken_once() {
    let line = Line::new();
    let job = line.start(Kind::Final, IfBusy::Wait, |_| Ok(5)).unwrap();
    let look = job.wait(None);
    assert_eq!((look.state, look.fraction), (State::Done, 1.0));
    assert_eq!(job.take(), Ok(5));
    assert_eq!(code(job.take()), Code::Unsupported);
}

#[test]
fn a_result_before_the_end_is_refused_and_not_lost() {
    let (line, go) = (Line::new(), Arc::default());
    let job = line.start(Kind::Final, IfBusy::Wait, patient(&go)).unwrap();
    assert_eq!(code(job.take()), Code::Unsupported);
    assert_ne!(job.wait(Some(Duration::from_millis(5))).state, State::Done);
    go.store(true, SeqCst);
    job.wait(None);
    assert_eq!(job.take(), Ok(7));
}

#[test]
fn a_newer_preview_supersedes_the_older_ones_running_and_waiting() {
    let (line, never, go) = (Line::new(), Arc::default(), Arc::default());
    let first = line
        .start(Kind::Preview, IfBusy::Wait, patient(&never))
        .unwrap();
    until_running(&first);
    let second = line
        .start(Kind::Preview, IfBusy::Refuse, patient(&never))
        .unwrap();
    let third = line
        .start(Kind::Preview, IfBusy::Refuse, patient(&go))
        .unwrap();
    for old in [&first, &second] {
        assert_eq!(old.wait(None).state, State::Failed);
        assert_eq!(code(old.take()), Code::Superseded);
    }
    go.store(true, SeqCst);
    third.wait(None);
    assert_eq!(third.take(), Ok(7));
}

#[test]
fn a_preview_does_not_supersede_a_final_job_but_waits_for_it() {
    let (line, go) = (Line::new(), Arc::default());
    let job = line.start(Kind::Final, IfBusy::Wait, patient(&go)).unwrap();
    let refused = line.start(Kind::Preview, IfBusy::Refuse, |_| Ok(1));
    assert_eq!(code(refused), Code::Busy);
    let preview = line.start(Kind::Preview, IfBusy::Wait, |_| Ok(1)).unwrap();
    go.store(true, SeqCst);
    preview.wait(None);
    assert_eq!((job.take(), preview.take()), (Ok(7), Ok(1)));
}

#[test]
fn a_second_final_job_is_refused_or_waits_as_the_host_asks() {
    let (line, go) = (Line::new(), Arc::default());
    let first = line.start(Kind::Final, IfBusy::Wait, patient(&go)).unwrap();
    assert_eq!(code(line.admit(Kind::Final, IfBusy::Refuse)), Code::Busy);
    assert_eq!(
        code(line.start(Kind::Final, IfBusy::Refuse, |_| Ok(1))),
        Code::Busy
    );
    let second = line.start(Kind::Final, IfBusy::Wait, |_| Ok(2)).unwrap();
    thread::sleep(Duration::from_millis(5));
    assert_eq!(second.look().state, State::Waiting);
    go.store(true, SeqCst);
    assert_eq!(first.wait(None).state, State::Done);
    assert_eq!(second.wait(None).state, State::Done);
}

#[test]
fn a_waiting_job_can_be_cancelled_while_another_runs() {
    let (line, never) = (Line::new(), Arc::default());
    let first = line
        .start(Kind::Final, IfBusy::Wait, patient(&never))
        .unwrap();
    let second = line.start(Kind::Final, IfBusy::Wait, |_| Ok(2)).unwrap();
    second.cancel();
    second.wait(None);
    assert_eq!(code(second.take()), Code::Cancelled);
    assert_ne!(first.look().state, State::Failed);
}

#[test]
fn closing_a_busy_line_cancels_joins_and_leaves_the_jobs_readable() {
    let (line, never) = (Line::new(), Arc::default());
    let jobs: Vec<_> = (0..4)
        .map(|_| {
            line.start(Kind::Final, IfBusy::Wait, patient(&never))
                .unwrap()
        })
        .collect();
    line.close();
    for job in &jobs {
        assert!(job.core.thread.lock().is_none(), "not joined");
        assert_eq!(code(job.take()), Code::Cancelled);
    }
    assert_eq!(
        code(line.start(Kind::Final, IfBusy::Wait, |_| Ok(1))),
        Code::Unsupported
    );
}

#[test]
fn dropping_a_running_job_cancels_and_joins_it() {
    let (line, never) = (Line::new(), Arc::default());
    let job = line
        .start(Kind::Final, IfBusy::Wait, patient(&never))
        .unwrap();
    until_running(&job);
    drop(job);
    assert!(line.queue.lock().line.is_empty());
    assert_eq!(
        Arc::strong_count(&never),
        1,
        "the thread still holds its work"
    );
}

#[test]
fn a_panic_in_a_job_fails_that_job_only() {
    let line = Line::new();
    let bad = line
        .start(Kind::Final, IfBusy::Wait, |_| panic!("boom"))
        .unwrap();
    let good = line.start(Kind::Final, IfBusy::Wait, |_| Ok(3)).unwrap();
    bad.wait(None);
    good.wait(None);
    assert_eq!(code(bad.take()), Code::Internal);
    assert_eq!(good.take(), Ok(3));
}

#[test]
fn progress_never_falls_and_never_leaves_its_range() {
    let line = Line::new();
    let job = line
        .start(Kind::Final, IfBusy::Wait, |control| {
            for fraction in [0.5, 0.2, f32::NAN, 9.0, -1.0] {
                control.tell(Phase::Invert, fraction)?;
            }
            Err::<(), _>(Error::new(Code::Io, "full"))
        })
        .unwrap();
    let look = job.wait(None);
    assert_eq!((look.phase, look.fraction), (Some(Phase::Invert), 1.0));
    assert_eq!(code(job.take()), Code::Io);
    assert_eq!(code(job.take()), Code::Io, "the error is there each time");
}

#[test]
fn never_do_two_jobs_of_a_line_run_at_once() {
    let (line, inside) = (Line::new(), Arc::new(AtomicU32::new(0)));
    let jobs: Vec<_> = (0..20)
        .map(|_| {
            let inside = inside.clone();
            line.start(Kind::Final, IfBusy::Wait, move |_| {
                let others = inside.fetch_add(1, SeqCst);
                thread::sleep(Duration::from_micros(200));
                inside.fetch_sub(1, SeqCst);
                Ok(others)
            })
            .unwrap()
        })
        .collect();
    for job in jobs {
        job.wait(None);
        assert_eq!(job.take(), Ok(0));
    }
}

#[test]
fn the_line_has_an_end() {
    let (line, never) = (Line::new(), Arc::default());
    let _jobs: Vec<_> = (0..MAX_WAITING)
        .map(|_| {
            line.start(Kind::Final, IfBusy::Wait, patient(&never))
                .unwrap()
        })
        .collect();
    assert_eq!(
        code(line.start(Kind::Final, IfBusy::Wait, |_| Ok(1))),
        Code::Busy
    );
}
