//! Models that are loaded once per process and shared by everybody who holds one.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use once_cell::sync::Lazy;
use parking_lot::Mutex;

use super::Stamp;
use crate::error::Result;
use crate::job::Cancel;

/// The backend's name and the files.
type Key = (String, Vec<Stamp>);
type Slot = Arc<Mutex<Option<Weak<dyn Any + Send + Sync>>>>;

static MODELS: Lazy<Mutex<HashMap<Key, Slot>>> = Lazy::new(Mutex::default);

/// How long a thread sleeps that waits for another one's load, before it looks at its cancel flag.
const LOOK: Duration = Duration::from_millis(20);

/// The model of the files `key` on the backend of this name: the living one, or what `load` makes. Two threads that ask at once load once;
/// the one that waits can be cancelled. Nothing is kept alive here.
pub fn shared<T: Any + Send + Sync>(
    backend: &str,
    key: Vec<Stamp>,
    cancel: &Cancel,
    load: impl FnOnce() -> Result<Arc<T>>,
) -> Result<Arc<T>> {
    let slot = slot((backend.to_owned(), key));
    let mut model = loop {
        cancel.check()?;
        if let Some(model) = slot.try_lock_for(LOOK) {
            break model;
        }
    };
    if let Some(alive) = model.as_ref().and_then(Weak::upgrade)
        && let Ok(alive) = alive.downcast::<T>()
    {
        return Ok(alive);
    }
    let loaded = load()?;
    let weak: Weak<T> = Arc::downgrade(&loaded);
    *model = Some(weak);
    Ok(loaded)
}

/// The slot of `key`; those of models that nobody holds any more are forgotten.
fn slot(key: Key) -> Slot {
    let mut models = MODELS.lock();
    // A slot that somebody else holds is being filled, or soon will be.
    models.retain(|_, slot| match Arc::get_mut(slot) {
        Some(slot) => (slot.get_mut().as_ref()).is_some_and(|weak| weak.strong_count() > 0),
        None => true,
    });
    models.entry(key).or_default().clone()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::weights::ModelSource;

    #[test]
    fn a_slot_that_is_not_filled_yet_is_not_forgotten() {
        let stamp = ModelSource::Embedded(&[]).stamp("b").unwrap();
        let key = (String::new(), vec![stamp]);
        let first = slot(key.clone());
        assert!(Arc::ptr_eq(&first, &slot(key)));
    }

    #[test]
    fn threads_that_ask_at_once_load_once() {
        const THREADS: usize = 4;
        let stamp = ModelSource::Embedded(&[]).stamp("a").unwrap();
        for round in 1..100 {
            let key = vec![stamp.clone(); round];
            let (begin, loads) = (Barrier::new(THREADS), AtomicUsize::new(0));
            let ask = || {
                begin.wait();
                shared("", key.clone(), &Cancel::new(), || {
                    Ok(Arc::new(loads.fetch_add(1, Ordering::SeqCst)))
                })
                .unwrap()
            };
            let models: Vec<Arc<usize>> = std::thread::scope(|scope| {
                let asking: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
                asking.into_iter().map(|t| t.join().unwrap()).collect()
            });
            assert_eq!(loads.load(Ordering::SeqCst), 1, "round {round}");
            assert!(models.iter().all(|m| Arc::ptr_eq(m, &models[0])));
        }
    }
}
