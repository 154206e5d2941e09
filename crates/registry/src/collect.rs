//! Freeing what nothing needs, in small steps, while clients push and pull.
//!
//! Every step looks for work among what it may read without keeping anyone waiting, and carries it out in short
//! transactions that ask again. Between two of them it rests as long as the last one took. In this order:
//!
//! 1. Uploads that nobody goes on with are ended.
//! 2. What was deleted longer ago than it can be brought back is forgotten.
//! 3. Blobs that no manifest of their image refers to, and that nobody pushed or asked for within the grace, are taken
//!    away from it.
//! 4. Content that no record names, left by a process that was killed, is looked for. Not every time.
//! 5. Blobs that no image has any more are removed. They wait in a table until that is done, so that a process that is
//!    killed in between forgets none.
//!
//! A push that comes for a blob in the last step wins, or waits the moment until the blob is gone: see
//! [`store::Removal`] within this process, and `registry_removals` and [`holds`](crate::holds) for others that share the
//! records.

mod bytes;
mod scrub;
mod unlink;

use std::time::{Duration, Instant};

use model::Timestamp;
use store::{RecordsError, Tx, leases};

use crate::{Registry, RegistryError, now};

pub(crate) use bytes::{claim, doom};

/// The lease that one process at a time collects under, and its time in milliseconds.
const LEASE: (&str, i64) = ("registry-collection", 120_000);

/// The shortest and the longest rest between two transactions.
const REST: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(250));

/// What is done besides what is always done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thorough {
    /// Content without a record is looked for, which reads the names of everything that is stored.
    pub scrub: bool,
    /// What was deleted is forgotten at once, whatever its window: it cannot be brought back any more.
    pub purge: bool,
}

/// What a collection freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Uploads that were ended because nobody went on with them.
    pub uploads: u64,
    /// Deleted tags and manifests that cannot be brought back any more.
    pub forgotten: u64,
    /// Blobs that were taken away from an image, counted once for each image.
    pub unlinked: u64,
    /// Blobs that were found without a record.
    pub orphans: u64,
    /// Blobs whose bytes are gone.
    pub removed: u64,
    /// Those bytes.
    pub bytes: u64,
}

/// A collection under way.
struct Run<'a> {
    registry: &'a Registry,
    /// What counts as now for graces and windows.
    now: Timestamp,
    thorough: Thorough,
    collected: Collected,
    rested: Instant,
}

impl Registry {
    /// Frees what nothing needs, as of `now`. May run while clients push. `scrub` looks for content without a record too,
    /// which reads the names of everything that is stored.
    ///
    /// # Errors
    /// [`RegistryError::Collecting`] when a collection is under way already, [`RegistryError::Frozen`] when everything is
    /// frozen, or when records or blobs fail. What was freed until then stays freed.
    pub async fn collect(&self, now: Timestamp, scrub: bool) -> Result<Collected, RegistryError> {
        self.collect_thoroughly(now, Thorough { scrub, purge: false }).await
    }

    /// As [`Registry::collect`], with more to choose.
    ///
    /// # Errors
    /// As [`Registry::collect`].
    pub async fn collect_thoroughly(&self, now: Timestamp, thorough: Thorough) -> Result<Collected, RegistryError> {
        let _here = self.shared.collecting.try_lock().map_err(|_| RegistryError::Collecting)?;
        self.refuse_frozen_whole().await?;
        self.give_way();
        self.take_turn().await?;
        let collected = Collected::default();
        let mut run = Run { registry: self, now, thorough, collected, rested: Instant::now() };
        let outcome = run.all().await;
        let collected = run.collected;
        self.end_turn().await?;
        self.refill().await;
        tracing::info!(?collected, "collected the registry");
        outcome.map(|()| collected)
    }

    async fn refuse_frozen_whole(&self) -> Result<(), RegistryError> {
        let everything = model::ImagePattern::all();
        match self.freezes().await?.into_iter().find(|freeze| freeze.images == everything) {
            Some(freeze) => Err(RegistryError::FrozenWhole(Box::new(freeze))),
            None => Ok(()),
        }
    }

    /// Ends what a process before this one was doing when it died, unless others share the records: those wait until its
    /// turn and its removals are over by themselves. A blob that it was removing may be there or not; it stays on the list.
    pub(crate) async fn take_over(&self) -> Result<(), RegistryError> {
        if self.records.is_shared() {
            return Ok(());
        }
        let left = self.records.read(|tx| {
            let sql = "SELECT 1 WHERE EXISTS (SELECT 1 FROM registry_removals WHERE until > 0)
                       OR EXISTS (SELECT 1 FROM leases WHERE name = $1)";
            tx.query_first(sql, &[LEASE.0.into()])
        });
        if left.await?.is_none() {
            return Ok(());
        }
        let taken = self.records.write(|tx| {
            tx.execute("UPDATE registry_removals SET until = 0 WHERE until > 0", &[])?;
            tx.execute("DELETE FROM leases WHERE name = $1", &[LEASE.0.into()]).map(drop)
        });
        Ok(taken.await?)
    }

    /// Gives the turn to collect back, if this process has it.
    pub(crate) async fn end_turn(&self) -> Result<(), RegistryError> {
        let holder = self.shared.holder.clone();
        Ok(self.records.write(move |tx| leases::release(tx, LEASE.0, &holder)).await?)
    }

    /// Takes, or keeps, the turn to collect among all processes that share the records.
    pub(crate) async fn take_turn(&self) -> Result<(), RegistryError> {
        let holder = self.shared.holder.clone();
        let taken = self.records.write(move |tx| leases::acquire(tx, LEASE.0, &holder, now(), LEASE.1));
        if taken.await? { Ok(()) } else { Err(RegistryError::Collecting) }
    }
}

impl Run<'_> {
    async fn all(&mut self) -> Result<(), RegistryError> {
        self.collected.uploads = self.registry.expire_uploads().await? as u64;
        self.forget().await?;
        self.unlink().await?;
        if self.thorough.scrub {
            self.scrub().await?;
        }
        self.remove().await
    }

    /// A short transaction, with a rest after it.
    async fn step<T, F>(&mut self, f: F) -> Result<T, RegistryError>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, RecordsError> + Send + 'static,
        T: Send + 'static,
    {
        let begun = Instant::now();
        let done = self.registry.records.write(f).await?;
        self.rest(begun.elapsed()).await?;
        Ok(done)
    }

    /// Lets others work as long as this one did, and keeps the turn.
    async fn rest(&mut self, worked: Duration) -> Result<(), RegistryError> {
        tokio::time::sleep(worked.clamp(REST.0, REST.1)).await;
        if self.rested.elapsed() > Duration::from_secs(20) {
            self.rested = Instant::now();
            self.registry.take_turn().await?;
        }
        Ok(())
    }
}
