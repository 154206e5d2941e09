//! What one process says to others before it stores a blob: do not remove it.
//!
//! Within a process leases do that ([`store::BlobLease`]). Where several share the records and a bucket, whoever is about
//! to store a blob first waits until nobody is removing it, and says in the records that it is coming. What is stored from
//! then on stays until it is part of an image, or the hold is over.

use std::future::Future;

use model::{Digest, Timestamp};
use store::{BlobError, RecordsError, StoredBlob, Tx};

use crate::collect::claim;
use crate::{Registry, RegistryError, now};

/// How long a hold lasts that is not given back, in milliseconds: longer than any blob takes to be sent.
const LASTS: i64 = 24 * 3600 * 1000;

/// A hold on a blob; nothing where no other process shares the records.
#[derive(Clone, Debug)]
pub(crate) struct Hold(Option<(Digest, String)>);

impl Hold {
    /// Gives it back, in the transaction that makes the blob part of an image.
    pub(crate) fn release(&self, tx: &mut Tx<'_>) -> Result<(), RecordsError> {
        let Some((digest, holder)) = &self.0 else { return Ok(()) };
        let sql = "DELETE FROM registry_holds WHERE digest = $1 AND holder = $2";
        tx.execute(sql, &[digest.into(), holder.as_str().into()]).map(drop)
    }
}

/// Whether somebody is about to store a blob.
pub(crate) fn is_held(tx: &mut Tx<'_>, digest: &Digest, at: Timestamp) -> Result<bool, RecordsError> {
    let sql = "SELECT holder FROM registry_holds WHERE digest = $1 AND until > $2 LIMIT 1";
    Ok(tx.query_first(sql, &[digest.into(), at.into()])?.is_some())
}

/// Forgets holds of those who died.
pub(crate) fn forget_old(tx: &mut Tx<'_>, at: Timestamp) -> Result<(), RecordsError> {
    tx.execute("DELETE FROM registry_holds WHERE until <= $1", &[at.into()]).map(drop)
}

impl Registry {
    /// Stores a blob under a hold, which whoever makes it part of an image gives back.
    pub(crate) async fn storing(
        &self,
        digest: &Digest,
        stored: impl Future<Output = Result<StoredBlob, BlobError>>,
    ) -> Result<(StoredBlob, Hold), RegistryError> {
        let hold = self.hold(digest).await?;
        match stored.await {
            Ok(blob) => Ok((blob, hold)),
            Err(error) => {
                self.let_go(&hold).await;
                Err(error.into())
            }
        }
    }

    async fn hold(&self, digest: &Digest) -> Result<Hold, RegistryError> {
        if !self.records.is_shared() {
            return Ok(Hold(None));
        }
        let (digest, holder) = (*digest, format!("{}-{:016x}", self.shared.holder, rand::random::<u64>()));
        let hold = Hold(Some((digest, holder.clone())));
        self.write_beside_removals(move |tx| {
            let at = now();
            claim(tx, &digest, at)?;
            let sql = "INSERT INTO registry_holds (digest, holder, until) VALUES ($1, $2, $3)";
            let until = Timestamp(at.0.saturating_add(LASTS));
            tx.execute(sql, &[(&digest).into(), holder.as_str().into(), until.into()]).map(drop)
        })
        .await?;
        Ok(hold)
    }

    /// Gives a hold back when nothing came of it. If that fails, it ends by itself.
    pub(crate) async fn let_go(&self, hold: &Hold) {
        if hold.0.is_some() {
            let hold = hold.clone();
            let _ = self.records.write_later(move |tx| hold.release(tx)).await;
        }
    }
}
