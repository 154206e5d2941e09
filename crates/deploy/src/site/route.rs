//! Which instance a request goes to, and how many are on their way.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;

/// One instance of a service.
#[derive(Debug)]
pub(crate) struct Backend {
    pub dir: PathBuf,
    pub port: u16,
    in_flight: AtomicUsize,
    idle: Notify,
}

impl Backend {
    pub fn new(dir: PathBuf, port: u16) -> Arc<Self> {
        Arc::new(Self { dir, port, in_flight: AtomicUsize::new(0), idle: Notify::new() })
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Waits until no request is on its way, at most for `limit`. Says how many are left.
    pub async fn drained(&self, limit: Duration) -> usize {
        let empty = async {
            loop {
                let idle = self.idle.notified();
                if self.in_flight() == 0 {
                    return;
                }
                idle.await;
            }
        };
        let _ = tokio::time::timeout(limit, empty).await;
        self.in_flight()
    }
}

/// A request on its way to a backend; over when it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub backend: Arc<Backend>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.backend.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.backend.idle.notify_waiters();
        }
    }
}

/// The service behind a listener. Its backend can be replaced at any time; a request keeps the one it began with.
#[derive(Debug)]
pub(crate) struct Slot {
    pub service: String,
    current: RwLock<Arc<Backend>>,
}

impl Slot {
    pub fn new(service: String, backend: Arc<Backend>) -> Arc<Self> {
        Arc::new(Self { service, current: RwLock::new(backend) })
    }

    /// Begins a request to the current backend.
    pub fn enter(&self) -> InFlight {
        // Counted under the lock: whoever replaces the backend finds every request that still chose it.
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight { backend: current.clone() }
    }

    pub fn replace(&self, backend: Arc<Backend>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = backend;
    }
}

/// Every backend that has requests or may get some, by instance.
#[derive(Debug, Default)]
pub(crate) struct Backends(Mutex<HashMap<String, Arc<Backend>>>);

impl Backends {
    /// The backend of an instance, made if it is not known.
    pub fn get_or_make(&self, instance: &str, make: impl FnOnce() -> Arc<Backend>) -> Arc<Backend> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is replaced and idle will not be asked for again.
        known.retain(|_, backend| Arc::strong_count(backend) > 1);
        known.entry(instance.to_owned()).or_insert_with(make).clone()
    }

    pub fn get(&self, instance: &str) -> Option<Arc<Backend>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(instance).cloned()
    }

    /// All requests that are on their way.
    pub fn in_flight(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(|backend| backend.in_flight()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_keeps_its_backend_and_draining_waits_for_it() {
        let backends = Backends::default();
        let make = |name: &str| backends.get_or_make(name, || Backend::new(name.into(), 80));
        let slot = Slot::new("web".into(), make("old"));
        let first = slot.enter();
        slot.replace(make("new"));
        assert!(slot.enter().backend.dir.ends_with("new") && first.backend.dir.ends_with("old"));
        let old = backends.get("old").unwrap();
        assert_eq!(old.drained(Duration::from_millis(20)).await, 1);
        let waiting = tokio::spawn(async move { old.drained(Duration::from_secs(5)).await });
        tokio::task::yield_now().await;
        drop(first);
        assert_eq!(waiting.await.unwrap(), 0);
        make("third");
        assert!(backends.get("old").is_none() && backends.get("new").is_some());
    }
}
