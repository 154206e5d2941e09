//! What was deleted: out of sight, and brought back on demand until its time is over.
//!
//! A tag or manifest moves to tables of its own with everything that is needed to bring it back. The blobs of a deleted
//! manifest stay what its image has; a blob that was deleted by itself is kept for manifests that may come back.

use std::sync::Arc;

use model::{Digest, ImageName, ImagePattern, Tag, TagPattern, Timestamp};
use store::{RecordsError, Tx};

use crate::blobs::Place;
use crate::events::{Announcement, ImageAction, ImageEvent};
use crate::retention::text;
use crate::upstream::heads;
use crate::{Reference, Registry, RegistryError, freeze, now, quota};

mod restore;

/// Something that was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Its image.
    pub image: ImageName,
    /// The tag; nothing for a manifest.
    pub tag: Option<Tag>,
    /// The manifest, or what the tag pointed to.
    pub digest: Digest,
    /// When.
    pub at: Timestamp,
    /// By whom or what.
    pub why: String,
}

/// What is to be brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo {
    /// Of these images.
    pub images: ImagePattern,
    /// Only these tags, with what they point to; without it manifests too.
    pub tags: Option<TagPattern>,
    /// Only what was deleted at that time or later.
    pub since: Option<Timestamp>,
}

/// What became of one thing that was to be brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undone {
    /// What it is.
    pub deleted: Deleted,
    /// Why it could not be brought back.
    pub refused: Option<String>,
}

/// Moves a tag here. False if there is none.
pub(crate) fn tag(tx: &mut Tx<'_>, place: &Place<'_>, tag: &Tag, why: &str) -> Result<bool, RecordsError> {
    let sql = "INSERT INTO registry_trash_tags (image, tag, digest, updated, deleted, why)
               SELECT image, tag, digest, updated, CAST($3 AS BIGINT), CAST($4 AS TEXT)
               FROM registry_tags WHERE image = $1 AND tag = $2
               ON CONFLICT (image, tag, deleted) DO UPDATE SET digest = excluded.digest, updated = excluded.updated";
    let (image, name) = (place.id.into(), tag.as_str().as_bytes().into());
    tx.execute(sql, &[image, name, place.at.into(), why.into()])?;
    // What an upstream said of it meanwhile is no way around that.
    heads::forget(tx, place.name, &Reference::Tag(tag.clone()))?;
    let key = [place.id.into(), tag.as_str().as_bytes().into()];
    Ok(tx.execute("DELETE FROM registry_tags WHERE image = $1 AND tag = $2", &key)? > 0)
}

/// The columns of a manifest, in both of its tables.
const COLUMNS: &str = "image, digest, media_type, size, pushed, subject, artifact_type, annotations, content";

/// Moves a manifest here, with the tags that point to it. False if there is none.
pub(crate) fn manifest(tx: &mut Tx<'_>, place: &Place<'_>, digest: &Digest, why: &str) -> Result<bool, RecordsError> {
    let key = [place.id.into(), digest.into()];
    let row = tx.query_first("SELECT size FROM registry_manifests WHERE image = $1 AND digest = $2", &key)?;
    let Some(size) = row.map(|row| row.get::<i64>(0)).transpose()? else { return Ok(false) };
    for row in tx.query("SELECT tag FROM registry_tags WHERE image = $1 AND digest = $2", &key)? {
        tag(tx, place, &text(&row, 0)?, why)?;
    }
    let sql = format!(
        "INSERT INTO registry_trash_manifests ({COLUMNS}, deleted, why)
         SELECT {COLUMNS}, CAST($3 AS BIGINT), CAST($4 AS TEXT)
         FROM registry_manifests WHERE image = $1 AND digest = $2
         ON CONFLICT (image, digest) DO UPDATE SET deleted = excluded.deleted, why = excluded.why"
    );
    tx.execute(&sql, &[place.id.into(), digest.into(), place.at.into(), why.into()])?;
    let sql = "INSERT INTO registry_trash_references (image, manifest, digest, kind)
               SELECT image, manifest, digest, kind FROM registry_references WHERE image = $1 AND manifest = $2
               ON CONFLICT (image, manifest, digest) DO NOTHING";
    tx.execute(sql, &key)?;
    tx.execute("DELETE FROM registry_references WHERE image = $1 AND manifest = $2", &key)?;
    tx.execute("DELETE FROM registry_manifests WHERE image = $1 AND digest = $2", &key)?;
    quota::adjust(tx, place.policy, place.name, size.saturating_neg())?;
    Ok(true)
}

/// Moves a blob here. False if the image does not have it.
pub(crate) fn blob(tx: &mut Tx<'_>, place: &Place<'_>, digest: &Digest) -> Result<bool, RecordsError> {
    let key = [place.id.into(), digest.into()];
    let row = tx.query_first("SELECT size FROM registry_blobs WHERE image = $1 AND digest = $2", &key)?;
    let Some(size) = row.map(|row| row.get::<i64>(0)).transpose()? else { return Ok(false) };
    let sql = "INSERT INTO registry_trash_blobs (image, digest, size, deleted) VALUES ($1, $2, $3, $4)
               ON CONFLICT (image, digest) DO UPDATE SET deleted = excluded.deleted";
    tx.execute(sql, &[place.id.into(), digest.into(), size.into(), place.at.into()])?;
    tx.execute("DELETE FROM registry_blobs WHERE image = $1 AND digest = $2", &key)?;
    quota::adjust(tx, place.policy, place.name, size.saturating_neg())?;
    Ok(true)
}

impl Registry {
    /// What can be brought back, the last deleted first; at most `limit`.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn deleted(&self, undo: &Undo, limit: usize) -> Result<Vec<Deleted>, RegistryError> {
        let undo = undo.clone();
        let mut found = self.records.read(move |tx| list(tx, &undo)).await?;
        found.truncate(limit);
        Ok(found)
    }

    /// Brings deleted tags and manifests back, with what they stand on and what is about them. A tag that was set again
    /// since stays as it is.
    ///
    /// # Errors
    /// When the records fail, or an image is frozen. What was brought back until then is back.
    pub async fn undo(&self, undo: &Undo) -> Result<Vec<Undone>, RegistryError> {
        let all = self.deleted(undo, usize::MAX).await?;
        let mut undone = Vec::new();
        for batch in all.chunks(20) {
            let (batch, registry) = (batch.to_vec(), self.clone());
            let restored = self.records.write(move |tx| registry.restore(tx, batch));
            let (restored, announcement) = restored.await?;
            self.announced(&announcement);
            undone.extend(restored);
        }
        Ok(undone)
    }

    /// Brings some things back, and tells of them as of things that were pushed.
    fn restore(&self, tx: &mut Tx<'_>, batch: Vec<Deleted>) -> Result<(Vec<Undone>, Arc<Announcement>), RecordsError> {
        let (policy, at) = (self.policy(), now());
        let (mut undone, mut events) = (Vec::new(), Vec::new());
        for deleted in batch {
            freeze::refuse(tx, &deleted.image)?;
            let refused = restore::one(tx, &policy, &deleted, at)?;
            if refused.is_none() {
                let event = self.event(ImageAction::Push, &deleted.image, Some(deleted.digest));
                events.push(ImageEvent { tag: deleted.tag.clone(), ..event });
            }
            undone.push(Undone { deleted, refused });
        }
        let announcement = self.announce(events);
        announcement.write(tx)?;
        Ok((undone, announcement))
    }
}

fn list(tx: &mut Tx<'_>, undo: &Undo) -> Result<Vec<Deleted>, RecordsError> {
    let since = undo.since.unwrap_or(Timestamp(i64::MIN));
    let mut found = Vec::new();
    let sql = "SELECT i.name, t.tag, t.digest, t.deleted, t.why FROM registry_trash_tags t
               JOIN registry_images i ON i.id = t.image WHERE t.deleted >= $1";
    for row in tx.query(sql, &[since.into()])? {
        let tag: Tag = text(&row, 1)?;
        if undo.tags.as_ref().is_none_or(|wanted| wanted.matches(&tag)) {
            let (image, digest) = (text(&row, 0)?, row.parse(2)?);
            found.push(Deleted { image, tag: Some(tag), digest, at: row.get(3)?, why: row.get(4)? });
        }
    }
    if undo.tags.is_none() {
        let sql = "SELECT i.name, t.digest, t.deleted, t.why FROM registry_trash_manifests t
                   JOIN registry_images i ON i.id = t.image WHERE t.deleted >= $1";
        for row in tx.query(sql, &[since.into()])? {
            let (image, digest) = (text(&row, 0)?, row.parse(1)?);
            found.push(Deleted { image, tag: None, digest, at: row.get(2)?, why: row.get(3)? });
        }
    }
    found.retain(|deleted| undo.images.matches(&deleted.image));
    // The last deletion of a tag first: it is the one that comes back.
    found.sort_by(|one, other| (other.at, &one.image, &one.tag).cmp(&(one.at, &other.image, &other.tag)));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use oci::media_type::OCI_INDEX;
    use store::{Blobs, Location, Records};

    use super::*;
    use crate::Policy;

    /// A collection may come between the list of what was deleted and the transaction that brings it back.
    #[tokio::test]
    async fn what_was_forgotten_meanwhile_is_not_said_to_be_back() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(Location::Sqlite(dir.path().join("towpath.db"))).await.unwrap();
        let blobs = Blobs::open(&dir.path().join("blobs")).await.unwrap();
        let registry = Registry::open(records.clone(), blobs).await.unwrap();
        registry.configure(Policy { undo_window: Duration::ZERO, ..Policy::default() }).await.unwrap();
        let (image, tag): (ImageName, Tag) = ("demo/site".parse().unwrap(), "v1".parse().unwrap());
        let index = serde_json::to_vec(&oci::Index::new(Vec::new())).unwrap();
        let tags = [tag.clone()];
        registry.commit(&registry.blobs().lease("test"), &image, index.into(), OCI_INDEX, &tags).await.unwrap();
        registry.delete_tag(&image, &tag).await.unwrap();
        let all = Undo { images: ImagePattern::all(), tags: None, since: None };
        let listed = registry.deleted(&all, 10).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(registry.collect(Timestamp(i64::MAX), false).await.unwrap().forgotten, 1);
        let restoring = registry.clone();
        let (undone, _) = records.write(move |tx| restoring.restore(tx, listed)).await.unwrap();
        assert_eq!(undone[0].refused.as_deref(), Some("its window has ended"));
        assert_eq!(registry.manifest(&image, &crate::Reference::Tag(tag)).await.unwrap(), None);
    }
}
