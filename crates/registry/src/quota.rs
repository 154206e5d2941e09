//! Quotas: what the images of a pattern hold, counted as it changes, in the transaction that changes it.

use std::collections::HashMap;

use model::ImageName;
use store::{RecordsError, Tx};

use crate::policy::Policy;
use crate::retention::text;
use crate::{Registry, RegistryError};

/// How much of a quota is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaUsage {
    /// The images it is for.
    pub images: String,
    /// Bytes that they may hold.
    pub limit: u64,
    /// Bytes that they hold.
    pub used: u64,
}

/// Counts from the beginning what the images of each quota hold.
pub(crate) fn count(tx: &mut Tx<'_>, policy: &Policy) -> Result<(), RecordsError> {
    tx.execute("DELETE FROM registry_quota_usage", &[])?;
    if policy.quotas.is_empty() {
        return Ok(());
    }
    let mut held: HashMap<i64, i64> = HashMap::new();
    for table in ["registry_blobs", "registry_manifests"] {
        let sql = format!("SELECT image, CAST(SUM(size) AS BIGINT) FROM {table} GROUP BY image");
        for row in tx.query(&sql, &[])? {
            *held.entry(row.get(0)?).or_default() += row.get::<i64>(1)?;
        }
    }
    let mut used = vec![0_i64; policy.quotas.len()];
    for row in tx.query("SELECT id, name FROM registry_images", &[])? {
        let (bytes, name) = (held.get(&row.get(0)?).copied().unwrap_or(0), text::<ImageName>(&row, 1)?);
        for (used, quota) in used.iter_mut().zip(&policy.quotas) {
            *used += if quota.images.matches(&name) { bytes } else { 0 };
        }
    }
    for (quota, used) in policy.quotas.iter().zip(used) {
        let sql = "INSERT INTO registry_quota_usage (images, bytes) VALUES ($1, $2)
                   ON CONFLICT (images) DO UPDATE SET bytes = excluded.bytes";
        tx.execute(sql, &[quota.images.as_str().into(), used.into()])?;
    }
    Ok(())
}

/// Counts bytes that an image got, and fails if that is more than it may hold.
pub(crate) fn charge(tx: &mut Tx<'_>, policy: &Policy, name: &ImageName, size: u64) -> Result<(), RecordsError> {
    for quota in policy.quotas.iter().filter(|quota| quota.images.matches(name)) {
        let used = change(tx, quota.images.as_str(), i64::try_from(size).unwrap_or(i64::MAX))?;
        if used > quota.bytes {
            let used = used.saturating_sub(size);
            return Err(exceeded(quota.images.as_str(), quota.bytes, used, size).into());
        }
    }
    Ok(())
}

/// Counts bytes that an image has no more, or has back, whatever it may hold.
pub(crate) fn adjust(tx: &mut Tx<'_>, policy: &Policy, name: &ImageName, bytes: i64) -> Result<(), RecordsError> {
    let mut concerned = policy.quotas.iter().filter(|quota| quota.images.matches(name));
    concerned.try_for_each(|quota| change(tx, quota.images.as_str(), bytes).map(drop))
}

fn change(tx: &mut Tx<'_>, images: &str, bytes: i64) -> Result<u64, RecordsError> {
    let sql = "UPDATE registry_quota_usage SET bytes = bytes + $2 WHERE images = $1 RETURNING bytes";
    let row = tx.query_first(sql, &[images.into(), bytes.into()])?;
    row.map_or(Ok(0), |row| row.get::<i64>(0).map(|used| u64::try_from(used).unwrap_or(0)))
}

fn exceeded(images: &str, limit: u64, used: u64, wanted: u64) -> RegistryError {
    RegistryError::QuotaExceeded { images: images.to_owned(), limit, used, wanted }
}

impl Registry {
    /// Fails if an image may not take `size` more bytes. Asked before a client sends them; what counts is asked again
    /// when they have come.
    pub(crate) async fn check_room(&self, name: &ImageName, size: u64) -> Result<(), RegistryError> {
        let policy = self.policy();
        if !policy.quotas.iter().any(|quota| quota.images.matches(name)) {
            return Ok(());
        }
        let name = name.clone();
        for usage in self.quotas().await? {
            let concerned =
                policy.quotas.iter().any(|it| it.images.as_str() == usage.images && it.images.matches(&name));
            if concerned && usage.used.saturating_add(size) > usage.limit {
                return Err(exceeded(&usage.images, usage.limit, usage.used, size));
            }
        }
        Ok(())
    }

    /// What is used of each quota.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn quotas(&self) -> Result<Vec<QuotaUsage>, RegistryError> {
        let policy = self.policy();
        let read = self.records.read(move |tx| {
            let sql = "SELECT bytes FROM registry_quota_usage WHERE images = $1";
            let usage = |quota: &crate::Quota| {
                let row = tx.query_first(sql, &[quota.images.as_str().into()])?;
                let used = row.map_or(Ok(0), |row| row.get::<i64>(0))?;
                let used = u64::try_from(used).unwrap_or(0);
                Ok(QuotaUsage { images: quota.images.to_string(), limit: quota.bytes, used })
            };
            policy.quotas.iter().map(usage).collect()
        });
        Ok(read.await?)
    }
}
