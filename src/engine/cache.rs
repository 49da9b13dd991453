//! What one edit leaves for the next: text embeddings, encodings, inversions.
//!
//! For: moving a slider without inverting again. In memory only: these are the user's pixels. Bounded
//! by bytes, the least recently used goes first. Not for: weights (`weights::shared`).
//!
//! A key names everything that the value depends on, so cached equals computed byte for byte.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::diffusion::{Condition, Inversion, Latent};
use crate::model::Context;
use crate::nn::Ops;

/// Bytes kept at most: some tens of pictures of the embedded model, a few of Stable Diffusion.
pub(super) const MAX_BYTES: u64 = 256 << 20;

/// What a value depends on, hashed: BLAKE3 of the parts, each with its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// The key of `kind` with what it depends on.
    pub fn of(kind: &str, parts: &[&[u8]]) -> Key {
        let mut hasher = blake3::Hasher::new();
        for part in std::iter::once(&kind.as_bytes()).chain(parts) {
            hasher
                .update(&(part.len() as u64).to_le_bytes())
                .update(part);
        }
        Key(*hasher.finalize().as_bytes())
    }
}

/// A text as the network reads it, and what it could not read.
pub(super) struct Text<O: Ops> {
    pub condition: Condition,
    /// Its keys and values, and how many bytes they have.
    pub context: Context<O>,
    pub context_bytes: u64,
    /// Tokens that were cut off.
    pub dropped: usize,
    /// Words that the model never learned.
    pub unknown: Vec<String>,
}

/// A patch as the model encodes and decodes it.
#[derive(Clone, Debug)]
pub(super) struct Encoding {
    pub latent: Latent,
    /// The decoded latent: red, green and blue planes, 0..=1 nominal.
    pub decoded: Vec<f32>,
}

/// One thing that is kept.
pub(super) enum Value<O: Ops> {
    Text(Arc<Text<O>>),
    Encoding(Arc<Encoding>),
    Inversion(Arc<Inversion>),
}

impl<O: Ops> Clone for Value<O> {
    fn clone(&self) -> Self {
        match self {
            Value::Text(text) => Value::Text(Arc::clone(text)),
            Value::Encoding(encoding) => Value::Encoding(Arc::clone(encoding)),
            Value::Inversion(inversion) => Value::Inversion(Arc::clone(inversion)),
        }
    }
}

impl<O: Ops> Value<O> {
    fn bytes(&self) -> u64 {
        let embedding = |c: &Condition| c.tokens() * c.width();
        let numbers = match self {
            Value::Text(text) => {
                embedding(&text.condition) + text.context_bytes.div_ceil(4) as usize
            }
            Value::Encoding(e) => e.latent.data.len() + e.decoded.len(),
            // States, and means where they were computed.
            Value::Inversion(inversion) => {
                let each = inversion.states().first().map_or(0, |s| s.data.len());
                each * (2 * inversion.states().len()) + embedding(inversion.base())
            }
        };
        4 * numbers as u64 + 256
    }
}

/// A cache of at most [`MAX_BYTES`] (or another bound), shared by the clones of an engine.
pub(super) struct Cache<O: Ops> {
    most: u64,
    state: Mutex<State<O>>,
}

struct State<O: Ops> {
    kept: HashMap<Key, (u64, Value<O>)>,
    bytes: u64,
    clock: u64,
}

impl<O: Ops> Default for State<O> {
    fn default() -> Self {
        State {
            kept: HashMap::new(),
            bytes: 0,
            clock: 0,
        }
    }
}

impl<O: Ops> Cache<O> {
    /// An empty cache of at most `most` bytes.
    pub fn new(most: u64) -> Self {
        Cache {
            most,
            state: Mutex::default(),
        }
    }

    /// The value of `key`, which becomes the most recently used.
    pub fn get(&self, key: &Key) -> Option<Value<O>> {
        let mut state = self.state.lock();
        state.clock += 1;
        let now = state.clock;
        let (used, value) = state.kept.get_mut(key)?;
        *used = now;
        Some(value.clone())
    }

    /// Keeps `value`, and drops what was longest unused until all fit.
    pub fn put(&self, key: Key, value: Value<O>) {
        let mut state = self.state.lock();
        state.clock += 1;
        let now = state.clock;
        let bytes = value.bytes();
        if let Some((_, old)) = state.kept.remove(&key) {
            state.bytes -= old.bytes();
        }
        if bytes > self.most {
            return;
        }
        while state.bytes + bytes > self.most {
            let oldest = state
                .kept
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(key, _)| *key);
            let Some((_, old)) = oldest.and_then(|key| state.kept.remove(&key)) else {
                break;
            };
            state.bytes -= old.bytes();
        }
        state.bytes += bytes;
        state.kept.insert(key, (now, value));
    }

    /// Forgets everything.
    pub fn purge(&self) {
        *self.state.lock() = State::default();
    }

    /// Bytes in use.
    pub fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::native::Native;

    fn encoding(numbers: usize) -> Value<Native> {
        let latent = Latent {
            data: vec![0.0; numbers],
            channels: 1,
            height: 1,
            width: numbers,
        };
        Value::Encoding(Arc::new(Encoding {
            latent,
            decoded: Vec::new(),
        }))
    }

    fn key(i: u8) -> Key {
        Key::of("test", &[&[i]])
    }

    #[test]
    fn the_longest_unused_goes_first_and_the_bound_holds() {
        let cache = Cache::new(3 * (4 * 1000 + 256));
        for i in 0..3 {
            cache.put(key(i), encoding(1000));
        }
        assert!(cache.get(&key(0)).is_some());
        cache.put(key(3), encoding(1000));
        assert!(cache.get(&key(1)).is_none());
        assert!(cache.get(&key(0)).is_some() && cache.get(&key(3)).is_some());
        assert!(cache.bytes() <= 3 * (4 * 1000 + 256));
    }

    #[test]
    fn what_is_larger_than_the_cache_is_not_kept_and_drops_nothing() {
        let cache = Cache::new(8000);
        cache.put(key(0), encoding(1000));
        cache.put(key(1), encoding(100_000));
        assert!(cache.get(&key(0)).is_some() && cache.get(&key(1)).is_none());
    }

    #[test]
    fn a_value_that_is_put_again_counts_once_and_purge_leaves_nothing() {
        let cache = Cache::new(1 << 20);
        cache.put(key(0), encoding(1000));
        let once = cache.bytes();
        cache.put(key(0), encoding(1000));
        assert_eq!(cache.bytes(), once);
        cache.purge();
        assert_eq!(cache.bytes(), 0);
        assert!(cache.get(&key(0)).is_none());
    }

    #[test]
    fn keys_tell_parts_from_their_concatenation() {
        assert_ne!(Key::of("t", &[b"ab", b"c"]), Key::of("t", &[b"a", b"bc"]));
        assert_ne!(Key::of("t", &[b"a"]), Key::of("u", &[b"a"]));
    }
}
