//! One answer for all who ask the same thing at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

type Flight<V> = Shared<BoxFuture<'static, Option<V>>>;

/// Work under way, by what it is for.
pub(super) struct Flights<K: Eq + Hash, V>(Mutex<HashMap<K, Flight<V>>>);

impl<K: Eq + Hash, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// What comes of `work`, or of the same work that is under way already. It is carried through when those who wait for
    /// it leave. Nothing if it panics, or the program stops.
    pub async fn join(self: &Arc<Self>, key: K, work: impl Future<Output = V> + Send + 'static) -> Option<V> {
        let flight = {
            let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match table.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let landing = Landing { flights: Arc::clone(self), key: key.clone() };
                    let task = tokio::spawn(async move {
                        let _landing = landing;
                        work.await
                    });
                    let flight = async move { task.await.ok() }.boxed().shared();
                    table.insert(key, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }
}

/// Takes work off the table when it is over, however it ends.
struct Landing<K: Eq + Hash, V> {
    flights: Arc<Flights<K, V>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.flights.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn the_same_work_is_done_once_at_a_time() {
        let (flights, count) = (Arc::new(Flights::<u8, u32>::default()), Arc::new(AtomicU32::new(0)));
        let work = || {
            let count = Arc::clone(&count);
            async move {
                tokio::task::yield_now().await;
                count.fetch_add(1, Ordering::Relaxed) + 1
            }
        };
        let both = futures_util::future::join(flights.join(1, work()), flights.join(1, work())).await;
        assert_eq!(both, (Some(1), Some(1)));
        assert_eq!(flights.join(1, work()).await, Some(2), "what is over is not remembered");
    }

    #[tokio::test]
    async fn it_is_carried_through_when_nobody_waits() {
        let flights = Arc::new(Flights::<u8, ()>::default());
        let (done, told) = tokio::sync::oneshot::channel();
        let waiting = flights.join(1, async move {
            tokio::task::yield_now().await;
            let _ = done.send(());
        });
        // Polled once, then dropped.
        let _ = waiting.now_or_never();
        told.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_leaves_nothing_behind() {
        let flights = Arc::new(Flights::<u8, u8>::default());
        assert_eq!(flights.join(1, async { panic!("expected by this test") }).await, None);
        assert_eq!(flights.join(1, async { 5 }).await, Some(5));
    }
}
