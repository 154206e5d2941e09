//! What is remembered for a short time: what an upstream does not have.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The most entries.
const MOST: usize = 10_000;

/// A table whose entries are forgotten after a while.
#[derive(Debug)]
pub(super) struct Memory<K, V> {
    entries: Mutex<HashMap<K, (V, Instant)>>,
    lasts: Duration,
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    pub fn new(lasts: Duration) -> Self {
        Self { entries: Mutex::default(), lasts }
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<K, (V, Instant)>) -> T) -> T {
        f(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was remembered under `key`.
    pub fn get(&self, key: &K, now: Instant) -> Option<V> {
        self.with(|entries| entries.get(key).filter(|(_, until)| *until > now).map(|(value, _)| value.clone()))
    }

    pub fn put(&self, key: K, value: V, now: Instant) {
        self.with(|entries| {
            if entries.len() >= MOST {
                entries.retain(|_, (_, until)| *until > now);
            }
            // Still full: a client asks for many things that are not there. Forgetting costs a question.
            if entries.len() >= MOST {
                entries.clear();
            }
            entries.insert(key, (value, now + self.lasts));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_in_time_and_never_grows_without_end() {
        let (memory, start) = (Memory::new(Duration::from_secs(5)), Instant::now());
        memory.put(0, 'a', start);
        assert_eq!(memory.get(&0, start), Some('a'));
        assert_eq!(memory.get(&0, start + Duration::from_secs(5)), None);
        (1..3 * MOST).for_each(|key| memory.put(key, 'b', start));
        assert!(memory.with(|entries| entries.len()) <= MOST);
        assert_eq!(memory.get(&(3 * MOST - 1), start), Some('b'));
    }
}
