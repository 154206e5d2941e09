//! The bytes of blobs that no image has any more.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use model::{Digest, Timestamp};
use store::{RecordsError, Removal, Removed, Row, Tx, fault};

use crate::collect::Run;
use crate::holds::is_held;
use crate::{RegistryError, now};

/// Blobs that are removed at a time.
const BATCH: i64 = 32;

/// How long a push waits for a removal, in milliseconds: whoever removes is done by then, or dead. No removal is begun later
/// than [`BATCH_TIME`] after it was announced, and the store gives up one that takes long; the rest is for clocks that differ.
const REMOVING: i64 = 120_000;

/// How long a batch may take: well before those who wait for it lose their patience.
const BATCH_TIME: Duration = Duration::from_secs(20);

/// Puts a blob on the list of those to be removed. Whether anything needs it is asked when that is done.
pub(crate) fn doom(tx: &mut Tx<'_>, digest: &Digest) -> Result<(), RecordsError> {
    let sql = "INSERT INTO registry_removals (digest, until) VALUES ($1, 0) ON CONFLICT (digest) DO NOTHING";
    tx.execute(sql, &[digest.into()]).map(drop)
}

/// Takes a blob off that list, because it becomes part of an image.
///
/// # Errors
/// [`RegistryError::BeingRemoved`] when it is too late for that.
pub(crate) fn claim(tx: &mut Tx<'_>, digest: &Digest, at: Timestamp) -> Result<(), RecordsError> {
    let row = tx.query_first("SELECT until FROM registry_removals WHERE digest = $1", &[digest.into()])?;
    match row.map(|row| row.get::<Timestamp>(0)).transpose()? {
        None => Ok(()),
        Some(until) if until > at => Err(RegistryError::BeingRemoved(*digest).into()),
        Some(_) => tx.execute("DELETE FROM registry_removals WHERE digest = $1", &[digest.into()]).map(drop),
    }
}

/// Whether an image has this blob, a manifest that may come back needs it, or another process is storing it.
fn is_wanted(tx: &mut Tx<'_>, digest: &Digest) -> Result<bool, RecordsError> {
    if is_held(tx, digest, now())? {
        return Ok(true);
    }
    for table in ["registry_blobs", "registry_trash_blobs"] {
        let sql = format!("SELECT image FROM {table} WHERE digest = $1 LIMIT 1");
        if tx.query_first(&sql, &[digest.into()])?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes what somebody wants after all off the list, and marks the rest as being removed. Answers the rest.
fn mark(tx: &mut Tx<'_>, digests: &[Digest]) -> Result<HashSet<Digest>, RecordsError> {
    let until = Timestamp(now().0.saturating_add(REMOVING));
    let mut marked = HashSet::new();
    for digest in digests {
        if is_wanted(tx, digest)? {
            strike(tx, digest)?;
            continue;
        }
        let sql = "UPDATE registry_removals SET until = $2 WHERE digest = $1";
        if tx.execute(sql, &[digest.into(), until.into()])? > 0 {
            marked.insert(*digest);
        }
    }
    Ok(marked)
}

fn strike(tx: &mut Tx<'_>, digest: &Digest) -> Result<(), RecordsError> {
    tx.execute("DELETE FROM registry_removals WHERE digest = $1", &[digest.into()]).map(drop)
}

impl Run<'_> {
    /// Removes what is on the list.
    pub(super) async fn remove(&mut self) -> Result<(), RegistryError> {
        let mut after = String::new();
        loop {
            let start = after.clone();
            let page = self.registry.records.read(move |tx| {
                let sql = "SELECT digest FROM registry_removals WHERE digest > $1 ORDER BY digest LIMIT $2";
                tx.query(sql, &[start.into(), BATCH.into()])?.iter().map(|row: &Row| row.parse(0)).collect()
            });
            let page: Vec<Digest> = page.await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.to_string();
            self.remove_batch(page).await?;
        }
    }

    async fn remove_batch(&mut self, mut page: Vec<Digest>) -> Result<(), RegistryError> {
        let needed = self.registry.needed(page.clone()).await?;
        let (kept, left): (Vec<_>, Vec<_>) = page.drain(..).partition(|digest| needed.contains(digest));
        if !kept.is_empty() {
            self.step(move |tx| kept.iter().try_for_each(|digest| strike(tx, digest))).await?;
        }
        // Begun before the records are asked: whoever leases one from here on, and has it in the records by then or
        // later, keeps it.
        let begun = left.iter().filter_map(|digest| self.registry.blobs.removal(digest).ok());
        let removals: Vec<Removal> = begun.collect();
        let digests: Vec<Digest> = removals.iter().map(|removal| *removal.digest()).collect();
        if digests.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let marked = self.registry.records.write(move |tx| mark(tx, &digests)).await?;
        fault::point(fault::BEFORE_REMOVAL);
        let (mut done, mut spared) = (Vec::new(), Vec::new());
        for removal in removals.into_iter().filter(|removal| marked.contains(removal.digest())) {
            let digest = *removal.digest();
            let size = self.registry.blobs.stat(&digest).await?;
            if started.elapsed() > BATCH_TIME {
                spared.push(digest);
                continue;
            }
            match removal.carry_out().await? {
                Removed::Yes => {
                    self.collected.removed += 1;
                    self.collected.bytes += size.unwrap_or(0);
                    done.push(digest);
                }
                Removed::Absent => done.push(digest),
                Removed::Held(_) => spared.push(digest),
            }
        }
        fault::point(fault::AFTER_REMOVAL);
        let struck = self.registry.records.write(move |tx| {
            done.iter().try_for_each(|digest| strike(tx, digest))?;
            let sql = "UPDATE registry_removals SET until = 0 WHERE digest = $1";
            spared.iter().try_for_each(|digest| tx.execute(sql, &[digest.into()]).map(drop))
        });
        struck.await?;
        self.rest(started.elapsed()).await
    }
}
