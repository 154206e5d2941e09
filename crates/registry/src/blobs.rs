//! Which image has which blobs. A blob that another image has is invisible until it is mounted or pushed again.

use model::{Digest, ImageName, Timestamp};
use store::{BlobReader, RecordsError, StoredBlob, Tx, UploadId};

use crate::uploads::forget;
use crate::{Registry, RegistryError, now};

/// A blob as an image has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
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
pub(crate) fn link(tx: &mut Tx<'_>, image: i64, digest: &Digest, size: u64, at: Timestamp) -> Result<(), RecordsError> {
    let sql = "INSERT INTO registry_blobs (image, digest, size, linked) VALUES ($1, $2, $3, $4)
               ON CONFLICT (image, digest) DO UPDATE SET linked = excluded.linked";
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    tx.execute(sql, &[image.into(), digest.into(), size.into(), at.into()]).map(drop)
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

    /// Makes a blob that was just stored part of an image, and ends the upload that it came by. The lease that it was
    /// written under must still be held.
    pub(crate) async fn link_stored(
        &self,
        name: &ImageName,
        blob: &StoredBlob,
        upload: Option<&UploadId>,
    ) -> Result<(), RegistryError> {
        let _linking = self.shared.linking.read().await;
        let (name, digest, size) = (name.clone(), blob.digest(), blob.size());
        let (at, upload) = (now(), upload.map(ToString::to_string));
        let linked = self.records.write(move |tx| {
            let image = ensure_image(tx, &name, at)?;
            link(tx, image, &digest, size, at)?;
            upload.map_or(Ok(()), |id| forget(tx, &id))
        });
        Ok(linked.await?)
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
        let lease = self.blobs.lease(&format!("mount into {name}"));
        lease.hold(digest);
        let (name, from, digest) = (name.clone(), from.clone(), *digest);
        if self.blobs.stat(&digest).await?.is_none() {
            return Ok(false);
        }
        let at = now();
        let _linking = self.shared.linking.read().await;
        let mounted = self.records.write(move |tx| {
            let Some(source) = image_id(tx, &from)? else { return Ok(false) };
            let Some(size) = linked_size(tx, source, &digest)? else { return Ok(false) };
            let image = ensure_image(tx, &name, at)?;
            link(tx, image, &digest, size, at).map(|()| true)
        });
        Ok(mounted.await?)
    }

    /// Takes a blob away from an image. Its bytes go when no image has it any more.
    ///
    /// # Errors
    /// When the image does not have it, or a manifest of the image refers to it.
    pub async fn delete_blob(&self, name: &ImageName, digest: &Digest) -> Result<(), RegistryError> {
        let (image_name, wanted) = (name.clone(), *digest);
        let unlinked = self.records.write(move |tx| {
            let unknown = || RegistryError::BlobUnknown { image: image_name.clone(), digest: Box::new(wanted) };
            let image = image_id(tx, &image_name)?.ok_or_else(unknown)?;
            refuse_if_used(tx, image, &image_name, &wanted)?;
            let sql = "DELETE FROM registry_blobs WHERE image = $1 AND digest = $2";
            if tx.execute(sql, &[image.into(), (&wanted).into()])? == 0 {
                return Err(unknown().into());
            }
            Ok(())
        });
        unlinked.await?;
        self.remove_unlinked(digest).await.map(drop)
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
