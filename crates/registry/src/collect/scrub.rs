//! Content that no record names: what a process that was killed had stored and not yet recorded.

use model::Digest;
use store::{ListedBlob, RecordsError, Tx};

use crate::RegistryError;
use crate::collect::{Run, doom};

/// Blobs that are looked at in one read.
const PAGE: usize = 500;

impl Run<'_> {
    /// Puts content without a record that is older than the grace on the list of what is removed.
    pub(super) async fn scrub(&mut self) -> Result<(), RegistryError> {
        let before = self.registry.policy().graced(self.now);
        let mut after = None;
        loop {
            let begun = std::time::Instant::now();
            let page = self.registry.blobs.list(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.digest);
            let old = page.into_iter().filter(|blob| blob.written < before).collect();
            let orphans = self.registry.records.read(move |tx| unknown(tx, old)).await?;
            self.rest(begun.elapsed()).await?;
            let needed = self.registry.needed(orphans.clone()).await?;
            let orphans: Vec<Digest> = orphans.into_iter().filter(|digest| !needed.contains(digest)).collect();
            if !orphans.is_empty() {
                self.collected.orphans += orphans.len() as u64;
                self.step(move |tx| orphans.iter().try_for_each(|digest| doom(tx, digest))).await?;
            }
        }
    }
}

/// Those of the blobs that are in no table.
fn unknown(tx: &mut Tx<'_>, blobs: Vec<ListedBlob>) -> Result<Vec<Digest>, RecordsError> {
    let sql = "SELECT 1 WHERE EXISTS (SELECT 1 FROM registry_blobs WHERE digest = $1)
               OR EXISTS (SELECT 1 FROM registry_trash_blobs WHERE digest = $1)
               OR EXISTS (SELECT 1 FROM registry_removals WHERE digest = $1)";
    let mut unknown = Vec::new();
    for blob in blobs {
        if tx.query_first(sql, &[(&blob.digest).into()])?.is_none() {
            unknown.push(blob.digest);
        }
    }
    Ok(unknown)
}
