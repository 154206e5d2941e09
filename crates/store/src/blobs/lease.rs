//! Leases on blobs: what keeps content that no manifest refers to yet.
//!
//! They live in the memory of the one process that has the data directory. After a restart nobody is in the middle of
//! anything: what no manifest refers to may go.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::Digest;

/// For each digest the leases that hold it: their number and purpose.
type Table = HashMap<Digest, Vec<(u64, Arc<str>)>>;

/// The digests that are held, each with the purposes it is held for.
#[derive(Debug, Default)]
pub(super) struct Held {
    table: Mutex<Table>,
    /// The digests that are about to be removed, with whether a lease has come for them since.
    leaving: Mutex<HashMap<Digest, bool>>,
    next: std::sync::atomic::AtomicU64,
}

impl Held {
    /// Runs `f`, which removes the blob, unless it is held; nobody can begin to hold it meanwhile.
    pub(super) fn unless_held<T>(&self, digest: &Digest, f: impl FnOnce() -> T) -> Result<T, String> {
        let table = self.lock();
        match table.get(digest).and_then(|holders| holders.first()) {
            Some((_, purpose)) => Err(purpose.as_ref().to_owned()),
            None => Ok(f()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locked after the table, wherever both are.
    fn leaving(&self) -> MutexGuard<'_, HashMap<Digest, bool>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A blob that its remover looks at once more before it goes. Whoever leases it from here on keeps it, even if that
/// lease is over before the removal is carried out.
#[derive(Debug)]
pub(super) struct Leaving {
    held: Arc<Held>,
    digest: Digest,
}

impl Leaving {
    /// Fails with the purpose of the lease that holds the blob, or if somebody else is removing it.
    pub(super) fn begin(held: &Arc<Held>, digest: &Digest) -> Result<Self, String> {
        let table = held.lock();
        if let Some((_, purpose)) = table.get(digest).and_then(|holders| holders.first()) {
            return Err(purpose.as_ref().to_owned());
        }
        match held.leaving().entry(*digest) {
            Entry::Occupied(_) => Err("another removal".to_owned()),
            Entry::Vacant(entry) => {
                entry.insert(false);
                Ok(Self { held: Arc::clone(held), digest: *digest })
            }
        }
    }

    pub(super) const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Runs `f`, which removes the blob, unless somebody leased it since [`Leaving::begin`].
    pub(super) fn unless_wanted<T>(&self, f: impl FnOnce() -> T) -> Result<T, String> {
        let _table = self.held.lock();
        let wanted = self.held.leaving().get(&self.digest).copied().unwrap_or(true);
        if wanted { Err("a lease that was taken meanwhile".to_owned()) } else { Ok(f()) }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.held.leaving().remove(&self.digest);
    }
}

/// Keeps blobs from being deleted until the last clone, and the last writer under it, is dropped.
#[derive(Clone, Debug)]
pub struct BlobLease {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    held: Arc<Held>,
    id: u64,
    purpose: Arc<str>,
    digests: Mutex<HashSet<Digest>>,
}

impl BlobLease {
    pub(super) fn new(held: Arc<Held>, purpose: &str) -> Self {
        let id = held.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self { inner: Arc::new(Inner { held, id, purpose: purpose.into(), digests: Mutex::default() }) }
    }

    /// What it is for.
    pub fn purpose(&self) -> &str {
        &self.inner.purpose
    }

    /// Holds a blob that may exist already: a layer that is mounted or reused. Ask whether it exists after this, not
    /// before.
    pub fn hold(&self, digest: &Digest) {
        let mut digests = self.inner.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if digests.insert(*digest) {
            let mut table = self.inner.held.lock();
            table.entry(*digest).or_default().push((self.inner.id, Arc::clone(&self.inner.purpose)));
            if let Some(wanted) = self.inner.held.leaving().get_mut(digest) {
                *wanted = true;
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut table = self.held.lock();
        for digest in self.digests.get_mut().unwrap_or_else(PoisonError::into_inner).drain() {
            if let Some(holders) = table.get_mut(&digest) {
                holders.retain(|(id, _)| *id != self.id);
                if holders.is_empty() {
                    table.remove(&digest);
                }
            }
        }
    }
}
