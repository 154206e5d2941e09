//! What is kept of an upstream's images. They are images like others, but for this: a manifest is visible before what it
//! refers to has come, because the upstream has that.

use bytes::Bytes;
use model::{Digest, ImageName, Tag, Timestamp};
use oci::Reference;
use store::{BlobLease, RecordsError, StoredBlob, Tx};

use crate::blobs::{Place, ensure_image, image_id, link, linked_size};
use crate::commit::{Candidate, insert, point};
use crate::holds::Hold;
use crate::upstream::heads;
use crate::{Registry, RegistryError, now};

/// A tag of an upstream's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CachedTag {
    /// What it pointed to.
    pub digest: Digest,
    /// When the upstream last said so.
    pub checked: Timestamp,
}

/// The id of an image of an upstream, which begins to exist with this.
pub(super) fn ensure_cached(
    tx: &mut Tx<'_>,
    name: &ImageName,
    upstream: &str,
    at: Timestamp,
) -> Result<i64, RecordsError> {
    let image = ensure_image(tx, name, at)?;
    tx.execute("UPDATE registry_images SET upstream = $2 WHERE id = $1", &[image.into(), upstream.into()])?;
    Ok(image)
}

/// Sets a tag that the upstream confirmed at `checked`.
pub(super) fn check_tag(
    tx: &mut Tx<'_>,
    place: &Place<'_>,
    tag: &Tag,
    digest: &Digest,
    checked: Timestamp,
) -> Result<(), RecordsError> {
    point(tx, place, tag, digest)?;
    let sql = "UPDATE registry_tags SET checked = $3 WHERE image = $1 AND tag = $2";
    tx.execute(sql, &[place.id.into(), tag.as_str().as_bytes().into(), checked.into()]).map(drop)
}

impl CachedTag {
    /// What a tag points to here.
    pub(super) fn find(tx: &mut Tx<'_>, name: &ImageName, tag: &Tag) -> Result<Option<Self>, RecordsError> {
        let Some(image) = image_id(tx, name)? else { return Ok(None) };
        let sql = "SELECT digest, checked FROM registry_tags WHERE image = $1 AND tag = $2";
        let row = tx.query_first(sql, &[image.into(), tag.as_str().as_bytes().into()])?;
        let read = |row: store::Row| {
            let checked: Option<i64> = row.get(1)?;
            Ok(Self { digest: row.parse(0)?, checked: Timestamp(checked.unwrap_or(0)) })
        };
        row.map(read).transpose()
    }

    /// Notes that the upstream says that a tag points to `digest` now, which is here.
    pub(super) fn confirm(tx: &mut Tx<'_>, place: &Place<'_>, tag: &Tag, digest: &Digest) -> Result<(), RecordsError> {
        let same = "UPDATE registry_tags SET checked = $4 WHERE image = $1 AND tag = $2 AND digest = $3";
        let values = [place.id.into(), tag.as_str().as_bytes().into(), digest.into(), place.at.into()];
        match tx.execute(same, &values)? {
            0 => check_tag(tx, place, tag, digest, place.at),
            _ => Ok(()),
        }
    }
}

impl Registry {
    /// Keeps a manifest that an upstream sent, and that `tag` points to it there.
    pub(super) async fn keep_manifest(
        &self,
        name: &ImageName,
        upstream: &str,
        manifest: Bytes,
        media_type: &str,
        digest: &Digest,
        tag: Option<Tag>,
    ) -> Result<(), RegistryError> {
        let candidate = Candidate::read(manifest, media_type, digest.algorithm())?;
        let (name, upstream, at) = (name.clone(), upstream.to_owned(), now());
        let policy = self.policy().of_others();
        let kept = self.records.write(move |tx| {
            let id = ensure_cached(tx, &name, &upstream, at)?;
            let place = Place { id, name: &name, policy: &policy, at };
            insert(tx, &place, &candidate)?;
            heads::settle(tx, &place, &upstream, &candidate.digest)?;
            let Some(tag) = tag else { return Ok(()) };
            check_tag(tx, &place, &tag, &candidate.digest, at)?;
            heads::forget(tx, &name, &Reference::Tag(tag))
        });
        Ok(kept.await?)
    }

    /// Forgets what the upstream said of a reference that it does not have any more, and takes the tag away if it is one.
    /// What that pointed to stays, for those who know its digest.
    pub(super) async fn drop_reference(&self, name: &ImageName, reference: &Reference) -> Result<(), RegistryError> {
        let (name, reference) = (name.clone(), reference.clone());
        // A power cut may undo it: that costs a question.
        let dropped = self.records.write_later(move |tx| {
            heads::forget(tx, &name, &reference)?;
            let Reference::Tag(tag) = reference else { return Ok(()) };
            let Some(image) = image_id(tx, &name)? else { return Ok(()) };
            let sql = "DELETE FROM registry_tags WHERE image = $1 AND tag = $2";
            tx.execute(sql, &[image.into(), tag.as_str().as_bytes().into()]).map(drop)
        });
        Ok(dropped.await?)
    }

    /// Makes a blob that came from an upstream part of its image. The lease that it was written under is still held.
    pub(super) async fn keep_blob(
        &self,
        name: &ImageName,
        upstream: &str,
        (blob, hold): (&StoredBlob, &Hold),
    ) -> Result<(), RegistryError> {
        let (name, upstream, policy) = (name.clone(), upstream.to_owned(), self.policy().of_others());
        let (digest, size, held) = (blob.digest(), blob.size(), hold.clone());
        let linked = self.write_beside_removals(move |tx| {
            let at = now();
            let id = ensure_cached(tx, &name, &upstream, at)?;
            link(tx, &Place { id, name: &name, policy: &policy, at }, &digest, size)?;
            held.release(tx)
        });
        let linked = linked.await;
        if linked.is_err() {
            self.let_go(hold).await;
        }
        linked
    }

    /// Makes a blob part of an image without asking the upstream, if a manifest that the upstream sent says that the image
    /// has it, and another image of the same upstream has brought it here. No other image counts: whoever controls an
    /// upstream could else read private blobs whose digest they know.
    pub(super) async fn adopt_blob(
        &self,
        name: &ImageName,
        upstream: &str,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        let (name, upstream, wanted) = (name.clone(), upstream.to_owned(), *digest);
        let known = self.records.read({
            let (name, upstream) = (name.clone(), upstream.clone());
            move |tx| Ok(adoptable(tx, &name, &upstream, &wanted)?.is_some())
        });
        if !known.await? {
            return Ok(false);
        }
        let lease: BlobLease = self.blobs.lease(&format!("shared with {name}"));
        lease.hold(digest);
        if self.blobs.stat(digest).await?.is_none() {
            return Ok(false);
        }
        let policy = self.policy().of_others();
        self.write_beside_removals(move |tx| match adoptable(tx, &name, &upstream, &wanted)? {
            Some((id, size)) => {
                link(tx, &Place { id, name: &name, policy: &policy, at: now() }, &wanted, size).map(|()| true)
            }
            None => Ok(false),
        })
        .await
    }
}

/// The image that may have a blob of another image of the same upstream, and the blob's length.
fn adoptable(
    tx: &mut Tx<'_>,
    name: &ImageName,
    upstream: &str,
    digest: &Digest,
) -> Result<Option<(i64, u64)>, RecordsError> {
    let Some(image) = image_id(tx, name)? else { return Ok(None) };
    let sql = "SELECT manifest FROM registry_references WHERE image = $1 AND digest = $2 AND kind = 'blob' LIMIT 1";
    if tx.query_first(sql, &[image.into(), digest.into()])?.is_none() {
        return Ok(None);
    }
    let sql = "SELECT b.image FROM registry_blobs b JOIN registry_images i ON i.id = b.image
               WHERE b.digest = $1 AND i.upstream = $2 LIMIT 1";
    let Some(row) = tx.query_first(sql, &[digest.into(), upstream.into()])? else { return Ok(None) };
    let size = linked_size(tx, row.get(0)?, digest)?;
    Ok(size.map(|size| (image, size)))
}
