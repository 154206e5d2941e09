//! A blob on its way from an upstream: fetched once, read along by whoever wants it.
//!
//! A fetch that nobody reads any more is carried through if little is left; otherwise it pauses, keeps what it has for a
//! while, and the next client goes on from there.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{Digest, ImageName};
use oci::client::{BlobStream, ClientError};
use store::{BlobLease, Following, PartialBlob};
use tokio::sync::watch;

use crate::upstream::health::Purpose;
use crate::upstream::{Place, Upstream, UpstreamError};
use crate::{Registry, RegistryError};

/// A fetch that nobody reads goes on if no more than this is left, in bytes, or a quarter of the whole.
const NEARLY_DONE: u64 = 16 << 20;

/// How long what came of a fetch is kept for the next client.
const KEPT_FOR: Duration = Duration::from_secs(10 * 60);

/// The most fetches of one upstream that are kept for the next client.
const MOST_KEPT: usize = 64;

/// How often a fetch is tried in a row without a byte coming: at first, while clients still wait for an answer, and later.
const FIRST_TRIES: u32 = 2;
const LATER_TRIES: u32 = 5;

/// The pause before the second try; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// How long bytes are gathered before clients see them.
const GATHER_FOR: Duration = Duration::from_millis(20);

/// A blob of an image.
type Key = (ImageName, Digest);

/// The fetches of an upstream.
#[derive(Default)]
pub(super) struct Fetches(Mutex<HashMap<Key, Slot>>);

enum Slot {
    Running(Run),
    Kept(Box<Kept>),
}

#[derive(Clone)]
struct Run {
    state: watch::Receiver<State>,
    /// How many read.
    readers: Arc<watch::Sender<usize>>,
}

/// What came of a fetch that did not end.
struct Kept {
    blob: PartialBlob,
    lease: BlobLease,
    total: Option<u64>,
    until: Instant,
}

#[derive(Clone, Debug)]
enum State {
    /// The upstream has not answered.
    Asking,
    /// Bytes come.
    Flowing(Following),
    /// It is over.
    Failed(UpstreamError),
}

/// A client that reads along; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Reader(Arc<watch::Sender<usize>>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Run {
    fn join(&self) -> (Self, Reader) {
        self.readers.send_modify(|count| *count += 1);
        (self.clone(), Reader(Arc::clone(&self.readers)))
    }
}

impl Fetches {
    fn table(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.table().values().filter(|slot| matches!(slot, Slot::Running(_))).count()
    }
}

impl Upstream {
    /// A blob that is not here, to be read while it comes. Everybody who asks for it meanwhile gets the same fetch.
    pub(super) async fn follow(
        self: &Arc<Self>,
        registry: &Registry,
        place: &Place,
        digest: &Digest,
    ) -> Result<(Following, Reader), UpstreamError> {
        let (run, reader) = self.join(registry, place, digest);
        let mut state = run.state;
        let settled = state.wait_for(|state| !matches!(state, State::Asking)).await;
        match settled.as_deref() {
            Ok(State::Flowing(following)) => Ok((following.clone(), reader)),
            Ok(State::Failed(error)) => Err(error.clone()),
            Ok(State::Asking) | Err(_) => Err(self.bad("the fetch was given up")),
        }
    }

    fn join(self: &Arc<Self>, registry: &Registry, place: &Place, digest: &Digest) -> (Run, Reader) {
        let key = (place.name.clone(), *digest);
        let mut table = self.fetches.table();
        let kept = match table.remove(&key) {
            Some(Slot::Running(run)) => {
                let joined = run.join();
                table.insert(key, Slot::Running(run));
                return joined;
            }
            Some(Slot::Kept(kept)) => Some(kept),
            None => None,
        };
        let (state, seen) = watch::channel(State::Asking);
        let run = Run { state: seen, readers: Arc::default() };
        let joined = run.join();
        let fetch = Fetch {
            upstream: Arc::clone(self),
            registry: registry.clone(),
            remote: self.remote(&place.remote),
            key: key.clone(),
            state,
            readers: run.readers.subscribe(),
        };
        table.insert(key, Slot::Running(run));
        tokio::spawn(fetch.run(kept));
        joined
    }

    /// Forgets what was kept for too long.
    fn sweep(&self) {
        let now = Instant::now();
        self.fetches.table().retain(|_, slot| !matches!(slot, Slot::Kept(kept) if kept.until <= now));
    }
}

/// One fetch.
struct Fetch {
    upstream: Arc<Upstream>,
    registry: Registry,
    remote: oci::client::Remote,
    key: Key,
    state: watch::Sender<State>,
    readers: watch::Receiver<usize>,
}

/// Why a fetch stopped.
enum Stop {
    /// Nobody reads any more.
    Unread,
    /// It cannot go on now; another time it may.
    Failed(UpstreamError),
    /// What came is worthless.
    Worthless(UpstreamError),
}

impl From<UpstreamError> for Stop {
    fn from(error: UpstreamError) -> Self {
        Self::Failed(error)
    }
}

impl Fetch {
    async fn run(mut self, kept: Option<Box<Kept>>) {
        let mut kept = match self.begin(kept).await {
            Ok(kept) => kept,
            Err(error) => return self.over(error, None),
        };
        match self.pump(&mut kept).await {
            Ok(()) => {
                let finished = self.finish(*kept).await;
                finished.unwrap_or_else(|error| self.over(error, None));
            }
            Err(Stop::Unread) => self.pause(kept),
            Err(Stop::Failed(error)) => self.over(error, Some(kept)),
            Err(Stop::Worthless(error)) => self.over(error, None),
        }
    }

    async fn begin(&self, kept: Option<Box<Kept>>) -> Result<Box<Kept>, UpstreamError> {
        self.registry.refuse_full().await?;
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let (name, digest) = &self.key;
        let lease = self.registry.blobs().lease(&format!("fetch for {name}"));
        let blob = self.registry.blobs().partial(&lease, digest.algorithm()).await?;
        Ok(Box::new(Kept { blob, lease, total: None, until: Instant::now() }))
    }

    /// Brings the bytes, over as many connections as it takes.
    async fn pump(&mut self, kept: &mut Kept) -> Result<(), Stop> {
        let mut tries = 0;
        loop {
            let before = kept.blob.received();
            self.upstream.admit(Purpose::Fetch)?;
            let broken = match self.open(kept).await {
                Ok(stream) => match self.drain(stream, kept).await? {
                    None => return Ok(()),
                    Some(broken) => broken,
                },
                Err(error) => error,
            };
            tries = if kept.blob.received() > before { 1 } else { tries + 1 };
            let error = self.upstream.judged(&broken, &self.what());
            let most = if kept.total.is_some() { LATER_TRIES } else { FIRST_TRIES };
            if tries >= most || !super::error::is_trouble(&broken) {
                return Err(error.into());
            }
            tracing::debug!(upstream = %self.upstream.name(), blob = %self.key.1, %error, "a fetch goes on");
            tokio::time::sleep(FIRST_PAUSE.saturating_mul(1 << tries.min(6))).await;
        }
    }

    fn what(&self) -> String {
        format!("blob {}", self.key.1)
    }

    /// Asks the upstream for what is missing.
    async fn open(&mut self, kept: &mut Kept) -> Result<BlobStream, ClientError> {
        self.upstream.counters.fetches.fetch_add(1, Ordering::Relaxed);
        let stream = self.remote.blob(&self.key.1, kept.blob.received()).await?;
        self.upstream.answered();
        // What is written is hashed there.
        Ok(stream.without_hash())
    }

    /// Writes what comes. What broke, if something did.
    async fn drain(&mut self, mut stream: BlobStream, kept: &mut Kept) -> Result<Option<ClientError>, Stop> {
        let total = self.checked_total(&stream, kept)?;
        kept.total = Some(total);
        self.state.send_replace(State::Flowing(kept.blob.follow(total)));
        while kept.blob.received() < total {
            let chunk = tokio::select! {
                chunk = next(&mut stream, &mut kept.blob) => chunk?,
                () = unread(&mut self.readers), if !nearly_done(kept.blob.received(), total) => return Err(Stop::Unread),
            };
            let bytes = match chunk {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break,
                Err(error) => return Ok(Some(error)),
            };
            self.upstream.counters.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            kept.blob.write(bytes).await.map_err(|error| Stop::Worthless(error.into()))?;
        }
        match kept.blob.received() {
            received if received == total => Ok(None),
            received => {
                let why = format!("the blob has {received} bytes where {total} were announced");
                Err(Stop::Worthless(self.upstream.bad(why)))
            }
        }
    }

    fn checked_total(&self, stream: &BlobStream, kept: &Kept) -> Result<u64, Stop> {
        let upstream = &self.upstream;
        let total = stream.size().ok_or_else(|| upstream.bad("it does not say how long the blob is"))?;
        if kept.total.is_some_and(|known| known != total) {
            return Err(Stop::Worthless(upstream.bad("the blob has another length than before")));
        }
        let limit = upstream.options.max_blob;
        if total > limit {
            return Err(Stop::Worthless(UpstreamError::TooLong { upstream: upstream.name(), size: total, limit }));
        }
        Ok(total)
    }

    /// Makes the whole a blob of the image, if it is what it should be. Only then do clients get its last byte.
    async fn finish(&self, kept: Kept) -> Result<(), UpstreamError> {
        let (name, digest) = &self.key;
        let Kept { blob, lease, .. } = kept;
        let (stored, hold) = match self.registry.storing(digest, blob.finish_as(digest)).await {
            Ok(stored) => stored,
            Err(RegistryError::Blobs(error)) if matches!(*error, store::BlobError::Mismatch { .. }) => {
                tracing::warn!(upstream = %self.upstream.name(), image = %name, %error, "an upstream sent another blob");
                return Err(self.upstream.bad(error));
            }
            Err(error) => return Err(error.into()),
        };
        self.registry.keep_blob(name, &self.upstream.name(), (&stored, &hold)).await?;
        drop(lease);
        self.upstream.fetches.table().remove(&self.key);
        Ok(())
    }

    /// Ends with an error for all who read, and keeps what came for those who come later.
    fn over(&self, error: UpstreamError, kept: Option<Box<Kept>>) {
        tracing::debug!(upstream = %self.upstream.name(), blob = %self.key.1, %error, "a fetch ended");
        let mut table = self.upstream.fetches.table();
        self.state.send_replace(State::Failed(error));
        table.remove(&self.key);
        drop(table);
        if let Some(mut kept) = kept.filter(|kept| kept.blob.received() > 0) {
            kept.blob.interrupt();
            self.keep(kept);
        }
    }

    /// Pauses, unless somebody came meanwhile.
    fn pause(self, kept: Box<Kept>) {
        let mut table = self.upstream.fetches.table();
        if *self.readers.borrow() > 0 {
            drop(table);
            tokio::spawn(self.run(Some(kept)));
            return;
        }
        table.remove(&self.key);
        drop(table);
        self.keep(kept);
    }

    fn keep(&self, mut kept: Box<Kept>) {
        kept.until = Instant::now() + KEPT_FOR;
        let mut table = self.upstream.fetches.table();
        let count = table.values().filter(|slot| matches!(slot, Slot::Kept(_))).count();
        if count >= MOST_KEPT || table.contains_key(&self.key) {
            return;
        }
        table.insert(self.key.clone(), Slot::Kept(kept));
        drop(table);
        let upstream = Arc::downgrade(&self.upstream);
        tokio::spawn(async move {
            tokio::time::sleep(KEPT_FOR).await;
            if let Some(upstream) = upstream.upgrade() {
                upstream.sweep();
            }
        });
    }
}

/// The next bytes of the upstream. If they do not come at once, clients are shown what came before.
async fn next(
    stream: &mut BlobStream,
    blob: &mut PartialBlob,
) -> Result<Result<Option<bytes::Bytes>, ClientError>, UpstreamError> {
    let mut chunk = std::pin::pin!(stream.chunk());
    if let Ok(chunk) = tokio::time::timeout(GATHER_FOR, &mut chunk).await {
        return Ok(chunk);
    }
    blob.flush().await?;
    Ok(chunk.await)
}

const fn nearly_done(received: u64, total: u64) -> bool {
    let left = total.saturating_sub(received);
    left <= NEARLY_DONE || left <= total / 4
}

async fn unread(readers: &mut watch::Receiver<usize>) {
    // The table holds the sender while the fetch runs.
    let _ = readers.wait_for(|count| *count == 0).await;
}
