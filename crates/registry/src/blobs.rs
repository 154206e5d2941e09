//! Which image has which blobs. A blob that another image has is invisible until it is mounted or pushed again.

use std::sync::Arc;
use std::time::Duration;

use model::{Digest, ImageName, Timestamp};
use store::{BlobReader, RecordsError, StoredBlob, Tx, UploadId};

use crate::collect::claim;
use crate::holds::Hold;
use crate::policy::Policy;
use crate::uploads::forget;
use crate::{Registry, RegistryError, freeze, now, quota, trash};

/// How often a removal that is under way is waited for, and how long each time: longer than one takes, also one whose
/// process died.
const PATIENCE: (u32, Duration) = (1300, Duration::from_millis(100));

/// A blob as an image has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// An image in a transaction that changes what it has.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: &'a ImageName,
    /// The rules.
    pub policy: &'a Policy,
    /// When this happens.
    pub at: Timestamp,
}

/// The id of an image, if there is one.
pub(crate) fn image_id(tx: &mut Tx<'_>, name: &ImageName) -> Result<Option<i64>, RecordsError> {
    let sql = "SELECT id FROM registry_images WHERE name = $1";
    tx.query_first(sql, &[name.as_str().as_bytes().into()])?.map(|row| row.get(0)).transpose()
}

/// The id of an image, which begins to exist with this.
pub(crate) fn ensure_image(tx: &mut Tx<'_>, name: &ImageName, at: Timestamp) -> Result<i64, RecordsError> {
    if let Some(id) = image_id(tx, name)? {
        return Ok(id);
    }
    let id = tx.next_id("registry_images")?;
    let sql = "INSERT INTO registry_images (id, name, created) VALUES ($1, $2, $3)";
    tx.execute(sql, &[id.into(), name.as_str().as_bytes().into(), at.into()])?;
    Ok(id)
}

/// The length of a blob of an image.
pub(crate) fn linked_size(tx: &mut Tx<'_>, image: i64, digest: &Digest) -> Result<Option<u64>, RecordsError> {
    let sql = "SELECT size FROM registry_blobs WHERE image = $1 AND digest = $2";
    let row = tx.query_first(sql, &[image.into(), digest.into()])?;
    row.map(|row| row.get::<i64>(0).map(i64::unsigned_abs)).transpose()
}

/// Makes a blob part of an image; the time counts anew if it is already.
pub(crate) fn link(tx: &mut Tx<'_>, place: &Place<'_>, digest: &Digest, size: u64) -> Result<(), RecordsError> {
    claim(tx, digest, place.at)?;
    if renew(tx, place.id, digest, place.at)? {
        return Ok(());
    }
    let sql = "INSERT INTO registry_blobs (image, digest, size, linked) VALUES ($1, $2, $3, $4)";
    let bytes = i64::try_from(size).unwrap_or(i64::MAX);
    tx.execute(sql, &[place.id.into(), digest.into(), bytes.into(), place.at.into()])?;
    quota::charge(tx, place.policy, place.name, size)
}

/// Lets the time of a blob of an image count anew. False if the image does not have it.
fn renew(tx: &mut Tx<'_>, image: i64, digest: &Digest, at: Timestamp) -> Result<bool, RecordsError> {
    let sql = "UPDATE registry_blobs SET linked = $3 WHERE image = $1 AND digest = $2";
    Ok(tx.execute(sql, &[image.into(), digest.into(), at.into()])? > 0)
}

impl Registry {
    /// A blob of an image, if it has it.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn linked(&self, name: &ImageName, digest: &Digest) -> Result<Option<LinkedBlob>, RegistryError> {
        let (name, digest) = (name.clone(), *digest);
        let found = self.records.read(move |tx| match image_id(tx, &name)? {
            Some(image) => linked_size(tx, image, &digest),
            None => Ok(None),
        });
        Ok(found.await?.map(|size| LinkedBlob { digest, size }))
    }

    /// A blob of an image, open for reading; nothing if the image does not have it.
    ///
    /// # Errors
    /// When the records or the blob cannot be read.
    pub async fn blob(&self, name: &ImageName, digest: &Digest) -> Result<Option<BlobReader>, RegistryError> {
        match self.linked(name, digest).await? {
            Some(_) => Ok(self.blobs.read(digest).await?),
            None => Ok(None),
        }
    }

    /// A blob of an image that a client asks for to find out whether it must send it. If it has it, it stays for half of
    /// the grace at least, though nothing refers to it yet.
    pub(crate) async fn linked_for_push(
        &self,
        name: &ImageName,
        digest: &Digest,
    ) -> Result<Option<LinkedBlob>, RegistryError> {
        let (image, wanted) = (name.clone(), *digest);
        let found = self.records.read(move |tx| {
            let Some(image) = image_id(tx, &image)? else { return Ok(None) };
            let sql = "SELECT size, linked FROM registry_blobs WHERE image = $1 AND digest = $2";
            let row = tx.query_first(sql, &[image.into(), (&wanted).into()])?;
            row.map(|row| Ok((image, row.get::<i64>(0)?.unsigned_abs(), row.get(1)?))).transpose()
        });
        let Some((image, size, linked)) = found.await? else { return Ok(None) };
        let at = now();
        if self.policy().is_stale(linked, at) && !self.records.write(move |tx| renew(tx, image, &wanted, at)).await? {
            return Ok(None);
        }
        Ok(Some(LinkedBlob { digest: wanted, size }))
    }

    /// Makes a blob that was just stored part of an image, and ends the upload that it came by. The lease that it was
    /// written under must still be held.
    pub(crate) async fn link_stored(
        &self,
        name: &ImageName,
        (blob, hold): (&StoredBlob, &Hold),
        upload: Option<&UploadId>,
    ) -> Result<(), RegistryError> {
        let (image_name, digest, size) = (name.clone(), blob.digest(), blob.size());
        let (policy, upload) = (self.policy(), upload.cloned());
        let (held, uploads) = (hold.clone(), self.blobs.uploads());
        let linked = self.write_beside_removals(move |tx| {
            freeze::refuse(tx, &image_name)?;
            let at = now();
            let id = ensure_image(tx, &image_name, at)?;
            link(tx, &Place { id, name: &image_name, policy: &policy, at }, &digest, size)?;
            held.release(tx)?;
            let Some(upload) = &upload else { return Ok(()) };
            uploads.forget(tx, upload)?;
            forget(tx, upload.as_str())
        });
        let linked = linked.await;
        if linked.is_err() {
            self.let_go(hold).await;
        }
        linked
    }

    /// A transaction that makes blobs part of images. One that is just being removed is waited for: whoever leased it in
    /// this process keeps it, and the removal gives up.
    pub(crate) async fn write_beside_removals<T, F>(&self, f: F) -> Result<T, RegistryError>
    where
        F: Fn(&mut Tx<'_>) -> Result<T, RecordsError> + Send + Sync + 'static,
        T: Send + 'static,
    {
        let f = Arc::new(f);
        for _ in 0..PATIENCE.0 {
            let f = Arc::clone(&f);
            match self.records.write(move |tx| f(tx)).await.map_err(RegistryError::from) {
                Err(RegistryError::BeingRemoved(_)) => tokio::time::sleep(PATIENCE.1).await,
                done => return done,
            }
        }
        Ok(self.records.write(move |tx| f(tx)).await?)
    }

    /// At most `limit` images that have a blob. Whether the client may know of them is the caller's question.
    pub(crate) async fn images_with(&self, digest: &Digest, limit: usize) -> Result<Vec<ImageName>, RegistryError> {
        let (digest, limit) = (*digest, i64::try_from(limit).unwrap_or(i64::MAX));
        let found = self.records.read(move |tx| {
            let sql = "SELECT i.name FROM registry_blobs b JOIN registry_images i ON i.id = b.image
                       WHERE b.digest = $1 ORDER BY b.image LIMIT $2";
            let rows = tx.query(sql, &[(&digest).into(), limit.into()])?;
            rows.iter().map(|row| crate::listing::image_name(row, 0)).collect()
        });
        Ok(found.await?)
    }

    /// Makes a blob of `from` part of `name`, without sending it again. False if `from` does not have it. The caller has
    /// asked whether the client may read `from`.
    pub(crate) async fn mount(
        &self,
        name: &ImageName,
        digest: &Digest,
        from: &ImageName,
    ) -> Result<bool, RegistryError> {
        self.refuse_full().await?;
        let lease = self.blobs.lease(&format!("mount into {name}"));
        lease.hold(digest);
        let (name, from, digest) = (name.clone(), from.clone(), *digest);
        if self.blobs.stat(&digest).await?.is_none() {
            return Ok(false);
        }
        let policy = self.policy();
        self.write_beside_removals(move |tx| {
            freeze::refuse(tx, &name)?;
            let at = now();
            let Some(source) = image_id(tx, &from)? else { return Ok(false) };
            let Some(size) = linked_size(tx, source, &digest)? else { return Ok(false) };
            let id = ensure_image(tx, &name, at)?;
            link(tx, &Place { id, name: &name, policy: &policy, at }, &digest, size).map(|()| true)
        })
        .await
    }

    /// Takes a blob away from an image. Its bytes go when no image has it any more, and no manifest that may come back
    /// needs it.
    ///
    /// # Errors
    /// When the image does not have it or is frozen, or a manifest of the image refers to it.
    pub async fn delete_blob(&self, name: &ImageName, digest: &Digest) -> Result<(), RegistryError> {
        self.give_way();
        let (name, wanted, policy) = (name.clone(), *digest, self.policy());
        let unlinked = self.records.write(move |tx| {
            let unknown = || RegistryError::BlobUnknown { image: name.clone(), digest: Box::new(wanted) };
            let id = image_id(tx, &name)?.ok_or_else(unknown)?;
            freeze::refuse(tx, &name)?;
            refuse_if_used(tx, id, &name, &wanted)?;
            let place = Place { id, name: &name, policy: &policy, at: now() };
            if trash::blob(tx, &place, &wanted)? { Ok(()) } else { Err(unknown().into()) }
        });
        Ok(unlinked.await?)
    }
}

/// Fails if a manifest of the image refers to `digest`.
pub(crate) fn refuse_if_used(
    tx: &mut Tx<'_>,
    image: i64,
    name: &ImageName,
    digest: &Digest,
) -> Result<(), RecordsError> {
    let sql = "SELECT manifest FROM registry_references WHERE image = $1 AND digest = $2 LIMIT 1";
    match tx.query_first(sql, &[image.into(), digest.into()])? {
        Some(row) => {
            let by = Box::new(row.parse(0)?);
            Err(RegistryError::InUse { image: name.clone(), digest: Box::new(*digest), by }.into())
        }
        None => Ok(()),
    }
}
