//! Freeing what nothing needs.

use model::{Digest, Timestamp};
use store::{Removed, Row};

use crate::{Registry, RegistryError};

/// Blobs of images that are looked at in one transaction.
const BATCH: i64 = 500;

/// What a collection freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs that were taken away from an image, counted once for each image.
    pub unlinked: u64,
    /// Blobs whose bytes are gone.
    pub removed: u64,
    /// Those bytes.
    pub bytes: u64,
}

impl Registry {
    /// Takes blobs that no manifest of their image refers to away from images, if they were pushed before `before`, and
    /// frees those that no image has any more. May run while clients push: what is being pushed is newer, or leased.
    ///
    /// # Errors
    /// When records or blobs fail. What was freed until then stays freed.
    pub async fn collect(&self, before: Timestamp) -> Result<Collected, RegistryError> {
        let mut collected = Collected::default();
        loop {
            let gone = self.unlink_some(before).await?;
            if gone.is_empty() {
                return Ok(collected);
            }
            for (digest, size) in gone {
                collected.unlinked += 1;
                if self.remove_unlinked(&digest).await? {
                    collected.removed += 1;
                    collected.bytes += size;
                }
            }
        }
    }

    async fn unlink_some(&self, before: Timestamp) -> Result<Vec<(Digest, u64)>, RegistryError> {
        let unlinked = self.records.write(move |tx| {
            let sql = "SELECT b.image, b.digest, b.size FROM registry_blobs b
                       WHERE b.linked < $1 AND NOT EXISTS (
                           SELECT 1 FROM registry_references r WHERE r.image = b.image AND r.digest = b.digest)
                       LIMIT $2";
            let rows = tx.query(sql, &[before.into(), BATCH.into()])?;
            let mut gone = Vec::new();
            for row in rows {
                let (image, digest): (i64, Digest) = (row.get(0)?, row.parse(1)?);
                let sql = "DELETE FROM registry_blobs WHERE image = $1 AND digest = $2";
                tx.execute(sql, &[image.into(), (&digest).into()])?;
                gone.push((digest, row.get::<i64>(2)?.unsigned_abs()));
            }
            Ok(gone)
        });
        Ok(unlinked.await?)
    }

    /// Removes the bytes of a blob that no image has. False if one has it, or a lease holds it.
    pub(crate) async fn remove_unlinked(&self, digest: &Digest) -> Result<bool, RegistryError> {
        // Nobody makes it part of an image between the question and the removal.
        let _alone = self.shared.linking.write().await;
        let wanted = *digest;
        let linked = self.records.read(move |tx| {
            let sql = "SELECT image FROM registry_blobs WHERE digest = $1 LIMIT 1";
            tx.query_first(sql, &[(&wanted).into()]).map(|row: Option<Row>| row.is_some())
        });
        if linked.await? {
            return Ok(false);
        }
        Ok(self.blobs.delete(digest).await? == Removed::Yes)
    }
}
