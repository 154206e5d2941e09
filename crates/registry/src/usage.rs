//! How much the registry holds.

use crate::{Registry, RegistryError};

/// How much the registry holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Images.
    pub images: u64,
    /// Tags of all images.
    pub tags: u64,
    /// Manifests of all images.
    pub manifests: u64,
    /// Different blobs; what several images share counts once.
    pub blobs: u64,
    /// Bytes of these blobs.
    pub bytes: u64,
    /// Uploads that were begun and not ended.
    pub uploads: u64,
}

/// Reads all of what it counts.
const COUNT: &str = "SELECT (SELECT COUNT(*) FROM registry_images), (SELECT COUNT(*) FROM registry_tags),
    (SELECT COUNT(*) FROM registry_manifests), (SELECT COUNT(*) FROM registry_uploads),
    COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT)
    FROM (SELECT digest, MAX(size) AS size FROM registry_blobs GROUP BY digest) AS different";

impl Registry {
    /// Counts what there is. This reads all records of the registry: not for the path of a request.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn usage(&self) -> Result<Usage, RegistryError> {
        let rows = self.records.read(|tx| tx.query(COUNT, &[])).await?;
        let Some(row) = rows.first() else { return Ok(Usage::default()) };
        let count = |column| row.get::<i64>(column).map(|count| u64::try_from(count).unwrap_or_default());
        Ok(Usage {
            images: count(0)?,
            tags: count(1)?,
            manifests: count(2)?,
            uploads: count(3)?,
            blobs: count(4)?,
            bytes: count(5)?,
        })
    }
}
