//! What upstreams said of tags and digests whose manifest is not here: a client that has it from elsewhere asks what a tag
//! points to, and then for nothing more.
//!
//! An entry holds until the manifest comes, the upstream says something else, the tag is deleted, or it is too old to be
//! served. Where there is one for a tag that the image has as well, it is the younger of the two.

use std::time::Duration;

use model::{Digest, ImageName, Tag, Timestamp};
use oci::Reference;
use oci::client::ManifestHead;
use store::{RecordsError, Row, Tx};

use crate::blobs::{Place, image_id};
use crate::commit::{Candidate, insert};
use crate::policy::{Policy, millis};
use crate::upstream::records::{CachedTag, check_tag, ensure_cached};
use crate::{Registry, RegistryError, now};

/// The most entries of an upstream. The oldest go: forgetting costs a question.
const MOST: i64 = 10_000;

/// What an upstream said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// The answer.
    pub head: ManifestHead,
    /// When it was given.
    pub checked: Timestamp,
}

/// What is known of a tag.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// What it points to here.
    pub tag: Option<CachedTag>,
    /// What the upstream said since, of a manifest that is not here.
    pub said: Option<Said>,
}

/// An image of an upstream, by its name here.
#[derive(Clone, Debug)]
struct Named {
    name: ImageName,
    upstream: String,
    policy: Policy,
}

/// What was said of a reference.
fn find(
    tx: &mut Tx<'_>,
    name: &ImageName,
    upstream: &str,
    reference: &Reference,
) -> Result<Option<Said>, RecordsError> {
    let sql = "SELECT digest, media_type, size, checked FROM registry_heads
               WHERE image = $1 AND reference = $2 AND upstream = $3";
    let row = tx.query_first(sql, &[bytes(name), text(reference), upstream.into()])?;
    row.map(|row| said(&row)).transpose()
}

fn said(row: &Row) -> Result<Said, RecordsError> {
    let size = row.get::<Option<i64>>(2)?.map(i64::unsigned_abs);
    let head = ManifestHead { digest: row.parse(0)?, media_type: row.get(1)?, size };
    Ok(Said { head, checked: row.get(3)? })
}

/// Whether the upstream said since `oldest` that the image has this manifest.
fn is_vouched_for(tx: &mut Tx<'_>, image: &Named, digest: &Digest, oldest: Timestamp) -> Result<bool, RecordsError> {
    let sql = "SELECT 1 FROM registry_heads
               WHERE image = $1 AND upstream = $2 AND digest = $3 AND checked >= $4 LIMIT 1";
    let values = [bytes(&image.name), image.upstream.as_str().into(), digest.into(), oldest.into()];
    Ok(tx.query_first(sql, &values)?.is_some())
}

/// The time before which what was said is of no use any more.
fn oldest(at: Timestamp, kept_for: Duration) -> Timestamp {
    Timestamp(at.0.saturating_sub(millis(kept_for)))
}

/// Writes down what an upstream says of a manifest that is not here, and forgets what nobody would be told any more.
fn write(
    tx: &mut Tx<'_>,
    image: &Named,
    reference: &Reference,
    head: &ManifestHead,
    (at, oldest): (Timestamp, Timestamp),
) -> Result<(), RecordsError> {
    let sql = "INSERT INTO registry_heads (image, reference, upstream, digest, media_type, size, checked)
               VALUES ($1, $2, $3, $4, $5, $6, $7)
               ON CONFLICT (image, reference) DO UPDATE SET upstream = excluded.upstream, digest = excluded.digest,
               media_type = excluded.media_type, size = excluded.size, checked = excluded.checked";
    let size = head.size.map(|size| i64::try_from(size).unwrap_or(i64::MAX));
    let values = [
        bytes(&image.name),
        text(reference),
        image.upstream.as_str().into(),
        (&head.digest).into(),
        // Texts of records cannot hold the character NUL.
        head.media_type.replace('\0', "").into(),
        size.into(),
        at.into(),
    ];
    tx.execute(sql, &values)?;
    let sql = "DELETE FROM registry_heads WHERE upstream = $1 AND checked < $2";
    tx.execute(sql, &[image.upstream.as_str().into(), oldest.into()])?;
    let sql = "DELETE FROM registry_heads WHERE upstream = $1 AND checked < (
                   SELECT checked FROM registry_heads WHERE upstream = $1 ORDER BY checked DESC LIMIT 1 OFFSET $2)";
    tx.execute(sql, &[image.upstream.as_str().into(), (MOST - 1).into()]).map(drop)
}

/// Forgets what was said of a reference.
pub(crate) fn forget(tx: &mut Tx<'_>, name: &ImageName, reference: &Reference) -> Result<(), RecordsError> {
    let sql = "DELETE FROM registry_heads WHERE image = $1 AND reference = $2";
    tx.execute(sql, &[bytes(name), text(reference)]).map(drop)
}

/// A manifest has come: tags that the upstream said point to it do so from now on, as of when it said so.
pub(super) fn settle(tx: &mut Tx<'_>, place: &Place<'_>, upstream: &str, digest: &Digest) -> Result<(), RecordsError> {
    let sql = "SELECT reference, checked FROM registry_heads WHERE image = $1 AND upstream = $2 AND digest = $3";
    for row in tx.query(sql, &[bytes(place.name), upstream.into(), digest.into()])? {
        let reference: Vec<u8> = row.get(0)?;
        // A digest has a colon, which no tag has.
        if let Ok(tag) = String::from_utf8_lossy(&reference).parse::<Tag>() {
            check_tag(tx, place, &tag, digest, row.get(1)?)?;
        }
    }
    let sql = "DELETE FROM registry_heads WHERE image = $1 AND upstream = $2 AND digest = $3";
    tx.execute(sql, &[bytes(place.name), upstream.into(), digest.into()]).map(drop)
}

/// The id of the image if the manifest is in it.
fn has(tx: &mut Tx<'_>, name: &ImageName, digest: &Digest) -> Result<Option<i64>, RecordsError> {
    let Some(image) = image_id(tx, name)? else { return Ok(None) };
    let sql = "SELECT size FROM registry_manifests WHERE image = $1 AND digest = $2";
    Ok(tx.query_first(sql, &[image.into(), digest.into()])?.map(|_| image))
}

/// A manifest that another image of the same upstream has brought. No other image counts: whoever controls an upstream
/// could else read private manifests whose digest they know.
fn elsewhere(tx: &mut Tx<'_>, upstream: &str, digest: &Digest) -> Result<Option<(String, Vec<u8>)>, RecordsError> {
    let sql = "SELECT m.media_type, m.content FROM registry_manifests m JOIN registry_images i ON i.id = m.image
               WHERE m.digest = $1 AND i.upstream = $2 LIMIT 1";
    let row = tx.query_first(sql, &[digest.into(), upstream.into()])?;
    row.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}

/// Makes a manifest part of an image if another image of the same upstream has brought it. The image's id then.
fn adopt(tx: &mut Tx<'_>, image: &Named, digest: &Digest, at: Timestamp) -> Result<Option<i64>, RecordsError> {
    let Some((media_type, content)) = elsewhere(tx, &image.upstream, digest)? else { return Ok(None) };
    let candidate = Candidate::read(content.into(), &media_type, digest.algorithm())?;
    let id = ensure_cached(tx, &image.name, &image.upstream, at)?;
    let place = Place { id, name: &image.name, policy: &image.policy, at };
    insert(tx, &place, &candidate)?;
    settle(tx, &place, &image.upstream, digest)?;
    Ok(Some(id))
}

fn bytes(name: &ImageName) -> store::Value {
    name.as_str().as_bytes().into()
}

fn text(reference: &Reference) -> store::Value {
    reference.to_string().into_bytes().into()
}

impl Registry {
    fn named(&self, name: &ImageName, upstream: &str) -> Named {
        Named { name: name.clone(), upstream: upstream.to_owned(), policy: self.policy().of_others() }
    }

    /// What is known of a tag.
    pub(super) async fn known_tag(&self, name: &ImageName, upstream: &str, tag: &Tag) -> Result<Known, RegistryError> {
        let (name, upstream, tag) = (name.clone(), upstream.to_owned(), tag.clone());
        let known = self.records.read(move |tx| {
            let found = CachedTag::find(tx, &name, &tag)?;
            Ok(Known { tag: found, said: find(tx, &name, &upstream, &Reference::Tag(tag))? })
        });
        Ok(known.await?)
    }

    /// What an upstream last said of a digest whose manifest is not here.
    pub(super) async fn said_of(
        &self,
        name: &ImageName,
        upstream: &str,
        digest: &Digest,
    ) -> Result<Option<Said>, RegistryError> {
        let (name, upstream, reference) = (name.clone(), upstream.to_owned(), Reference::Digest(*digest));
        Ok(self.records.read(move |tx| find(tx, &name, &upstream, &reference)).await?)
    }

    /// Notes what an upstream says of a reference now: with the tag if the manifest is here, or else for as long as it may
    /// be of use, which is `kept_for`.
    pub(super) async fn note_head(
        &self,
        (name, upstream): (&ImageName, &str),
        reference: &Reference,
        head: &ManifestHead,
        kept_for: Duration,
    ) -> Result<(), RegistryError> {
        let (image, reference, head, at) = (self.named(name, upstream), reference.clone(), head.clone(), now());
        let oldest = oldest(at, kept_for);
        // A power cut may take it: that costs a question.
        let noted = self.records.write_later(move |tx| {
            let found = match has(tx, &image.name, &head.digest)? {
                Some(id) => Some(id),
                None => adopt(tx, &image, &head.digest, at)?,
            };
            let Some(id) = found else { return write(tx, &image, &reference, &head, (at, oldest)) };
            if let Reference::Tag(tag) = &reference {
                let place = Place { id, name: &image.name, policy: &image.policy, at };
                CachedTag::confirm(tx, &place, tag, &head.digest)?;
            }
            forget(tx, &image.name, &reference)
        });
        Ok(noted.await?)
    }

    /// Makes a manifest part of an image without asking the upstream, if that said within `kept_for` that the image has it,
    /// and another image of the same upstream has brought it here.
    pub(super) async fn adopt_manifest(
        &self,
        (name, upstream): (&ImageName, &str),
        digest: &Digest,
        kept_for: Duration,
    ) -> Result<bool, RegistryError> {
        let (image, digest, oldest) = (self.named(name, upstream), *digest, oldest(now(), kept_for));
        let known = self.records.read({
            let image = image.clone();
            move |tx| {
                Ok(is_vouched_for(tx, &image, &digest, oldest)? && elsewhere(tx, &image.upstream, &digest)?.is_some())
            }
        });
        if !known.await? {
            return Ok(false);
        }
        let adopted = self.records.write(move |tx| match is_vouched_for(tx, &image, &digest, oldest)? {
            true => Ok(adopt(tx, &image, &digest, now())?.is_some()),
            false => Ok(false),
        });
        Ok(adopted.await?)
    }
}
