//! How a manifest becomes visible: everything it stands on is there, or nothing happens.

use std::sync::Arc;

use bytes::Bytes;
use model::{Algorithm, Digest, ImageName, Tag, Timestamp};
use oci::{Descriptor, ManifestKind};
use store::{BlobLease, RecordsError, Tx};

use crate::blobs::{Place, ensure_image, image_id, link, linked_size};
use crate::events::{ImageAction, ImageEvent};
use crate::{Registry, RegistryError, freeze, now, quota};

/// Whose blobs a manifest may refer to.
enum Standing {
    /// Only what the image has: the manifest came from outside.
    Linked,
    /// Whatever is stored and held by the caller's lease, with the lengths found; it becomes part of the image.
    Held(Vec<(Digest, u64)>),
}

/// A manifest that was read and found whole.
pub(crate) struct Candidate {
    pub digest: Digest,
    media_type: String,
    content: Bytes,
    kind: ManifestKind,
}

impl Candidate {
    pub fn read(content: Bytes, media_type: &str, algorithm: Algorithm) -> Result<Self, RegistryError> {
        let kind = oci::parse_manifest(&content, media_type)?;
        let digest = oci::digest_of(algorithm, &content);
        Ok(Self { digest, media_type: oci::media_type::essence(media_type).to_owned(), content, kind })
    }
}

impl Registry {
    /// Makes `manifest` visible in the image `name` under its digest and `tags`, in one transaction. Doing it again
    /// changes nothing.
    ///
    /// Every blob it refers to must be stored; `lease` holds those from here on, so that they cannot go meanwhile, and
    /// they become part of the image. Manifests that an index refers to must be in the image already. The caller answers
    /// for its right to use those blobs: this is for the program's own parts, HTTP clients go another way.
    ///
    /// # Errors
    /// When the manifest is malformed, or refers to what is not there or has another length.
    pub async fn commit(
        &self,
        lease: &BlobLease,
        name: &ImageName,
        manifest: Bytes,
        media_type: &str,
        tags: &[Tag],
    ) -> Result<Digest, RegistryError> {
        let candidate = Candidate::read(manifest, media_type, Algorithm::Sha256)?;
        let mut held = Vec::new();
        for blob in candidate.kind.blobs() {
            lease.hold(&blob.digest);
            let size = self.blobs.stat(&blob.digest).await?.ok_or(RegistryError::MissingBlob(blob.digest))?;
            check_size(blob, size)?;
            held.push((blob.digest, size));
        }
        self.publish(name, candidate, tags, Standing::Held(held)).await
    }

    /// What a client pushes: as [`Registry::commit`], but only blobs that the image has count. `expected` is the digest
    /// that it was pushed by.
    pub(crate) async fn push(
        &self,
        name: &ImageName,
        manifest: Bytes,
        media_type: &str,
        tags: &[Tag],
        expected: Option<&Digest>,
    ) -> Result<(Digest, Option<Digest>), RegistryError> {
        self.refuse_full().await?;
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        let candidate = Candidate::read(manifest, media_type, algorithm)?;
        if let Some(expected) = expected.filter(|expected| **expected != candidate.digest) {
            let (expected, found) = (Box::new(*expected), Box::new(candidate.digest));
            return Err(RegistryError::WrongDigest { expected, found });
        }
        let subject = candidate.kind.subject().map(|subject| subject.digest);
        Ok((self.publish(name, candidate, tags, Standing::Linked).await?, subject))
    }

    async fn publish(
        &self,
        name: &ImageName,
        candidate: Candidate,
        tags: &[Tag],
        standing: Standing,
    ) -> Result<Digest, RegistryError> {
        let announcement = self.announce(self.pushes(name, &candidate, tags));
        let told = Arc::clone(&announcement);
        let (name, tags, policy) = (name.clone(), tags.to_vec(), self.policy());
        let published = self.write_beside_removals(move |tx| {
            freeze::refuse(tx, &name)?;
            let at = now();
            let place = |id| Place { id, name: &name, policy: &policy, at };
            let place = match &standing {
                Standing::Linked => place(existing_image(tx, &name, &candidate, at)?),
                Standing::Held(blobs) => {
                    let place = place(ensure_image(tx, &name, at)?);
                    blobs.iter().try_for_each(|(digest, size)| link(tx, &place, digest, *size))?;
                    place
                }
            };
            check(tx, place.id, &candidate)?;
            insert(tx, &place, &candidate)?;
            tags.iter().try_for_each(|tag| point(tx, &place, tag, &candidate.digest))?;
            told.write(tx)?;
            Ok(candidate.digest)
        });
        let digest = published.await?;
        self.announced(&announcement);
        Ok(digest)
    }

    /// One event for each tag, or one for a manifest without any.
    fn pushes(&self, name: &ImageName, candidate: &Candidate, tags: &[Tag]) -> Vec<ImageEvent> {
        let event = |tag: Option<&Tag>| ImageEvent {
            tag: tag.cloned(),
            media_type: Some(candidate.media_type.clone()),
            size: Some(candidate.content.len() as u64),
            ..self.event(ImageAction::Push, name, Some(candidate.digest))
        };
        if tags.is_empty() { vec![event(None)] } else { tags.iter().map(|tag| event(Some(tag))).collect() }
    }
}

/// A pushed manifest without blobs and children may be the first thing of an image; any other comes after its blobs.
fn existing_image(
    tx: &mut Tx<'_>,
    name: &ImageName,
    candidate: &Candidate,
    at: Timestamp,
) -> Result<i64, RecordsError> {
    if let Some(image) = image_id(tx, name)? {
        return Ok(image);
    }
    if let Some(blob) = candidate.kind.blobs().first() {
        return Err(RegistryError::MissingBlob(blob.digest).into());
    }
    ensure_image(tx, name, at)
}

fn check(tx: &mut Tx<'_>, image: i64, candidate: &Candidate) -> Result<(), RecordsError> {
    for blob in candidate.kind.blobs() {
        let found = linked_size(tx, image, &blob.digest)?.ok_or(RegistryError::MissingBlob(blob.digest))?;
        check_size(blob, found)?;
    }
    for child in candidate.kind.children() {
        let sql = "SELECT size FROM registry_manifests WHERE image = $1 AND digest = $2";
        let row = tx.query_first(sql, &[image.into(), (&child.digest).into()])?;
        let row = row.ok_or(RegistryError::MissingManifest(child.digest))?;
        check_size(child, row.get::<i64>(0)?.unsigned_abs())?;
    }
    Ok(())
}

fn check_size(descriptor: &Descriptor, found: u64) -> Result<(), RegistryError> {
    if descriptor.size == found {
        Ok(())
    } else {
        Err(RegistryError::WrongSize { digest: descriptor.digest, said: descriptor.size, found })
    }
}

pub(crate) fn insert(tx: &mut Tx<'_>, place: &Place<'_>, candidate: &Candidate) -> Result<(), RecordsError> {
    let sql = "UPDATE registry_manifests SET pushed = $3 WHERE image = $1 AND digest = $2";
    if tx.execute(sql, &[place.id.into(), (&candidate.digest).into(), place.at.into()])? > 0 {
        return Ok(());
    }
    let kind = &candidate.kind;
    let annotations = kind.annotations().filter(|_| kind.subject().is_some());
    let annotations = annotations.and_then(|annotations| serde_json::to_string(annotations).ok());
    let sql = "INSERT INTO registry_manifests
                   (image, digest, media_type, size, pushed, subject, artifact_type, annotations, content)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let values = [
        place.id.into(),
        (&candidate.digest).into(),
        candidate.media_type.as_str().into(),
        i64::try_from(candidate.content.len()).unwrap_or(i64::MAX).into(),
        place.at.into(),
        kind.subject().map(|subject| subject.digest.to_string()).into(),
        // Texts of records cannot hold the character NUL.
        kind.artifact_type().map(|text| text.replace('\0', "")).into(),
        annotations.into(),
        candidate.content.as_ref().into(),
    ];
    tx.execute(sql, &values)?;
    let sql = "INSERT INTO registry_references (image, manifest, digest, kind) VALUES ($1, $2, $3, $4)
               ON CONFLICT (image, manifest, digest) DO NOTHING";
    let blobs = kind.blobs().into_iter().map(|blob| (blob, "blob"));
    for (descriptor, kind) in blobs.chain(kind.children().iter().map(|child| (child, "manifest"))) {
        let reference = [place.id.into(), (&candidate.digest).into(), (&descriptor.digest).into(), kind.into()];
        tx.execute(sql, &reference)?;
    }
    quota::charge(tx, place.policy, place.name, candidate.content.len() as u64)
}

pub(crate) fn point(tx: &mut Tx<'_>, place: &Place<'_>, tag: &Tag, digest: &Digest) -> Result<(), RecordsError> {
    if place.policy.immutable(place.name, tag).is_some() {
        refuse_immutable(tx, place, tag, Some(digest))?;
    }
    let sql = "INSERT INTO registry_tags (image, tag, digest, updated) VALUES ($1, $2, $3, $4)
               ON CONFLICT (image, tag) DO UPDATE SET digest = excluded.digest, updated = excluded.updated";
    tx.execute(sql, &[place.id.into(), tag.as_str().as_bytes().into(), digest.into(), place.at.into()]).map(drop)
}

/// Fails if a tag is set, immutable, and does not point to `digest` already.
pub(crate) fn refuse_immutable(
    tx: &mut Tx<'_>,
    place: &Place<'_>,
    tag: &Tag,
    digest: Option<&Digest>,
) -> Result<(), RecordsError> {
    let Some(rule) = place.policy.immutable(place.name, tag) else { return Ok(()) };
    let sql = "SELECT digest FROM registry_tags WHERE image = $1 AND tag = $2";
    let row = tx.query_first(sql, &[place.id.into(), tag.as_str().as_bytes().into()])?;
    match row.map(|row| row.parse::<Digest>(0)).transpose()? {
        Some(found) if digest != Some(&found) => Err(RegistryError::Immutable {
            image: place.name.clone(),
            tag: Box::new(tag.clone()),
            rule: rule.to_string(),
            digest: Box::new(found),
        }
        .into()),
        _ => Ok(()),
    }
}
