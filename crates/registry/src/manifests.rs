//! Reading and deleting manifests and tags.

use std::sync::Arc;

use bytes::Bytes;
use model::{Digest, ImageName, Tag, Timestamp};
use oci::ManifestKind;
use store::{RecordsError, Tx};

use crate::blobs::{Place, image_id, refuse_if_used};
use crate::commit::refuse_immutable;
use crate::events::{ImageAction, ImageEvent};
use crate::retention::text;
use crate::{Reference, Registry, RegistryError, freeze, now, trash};

/// A manifest as it was pushed, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestRecord {
    /// Its digest.
    pub digest: Digest,
    /// What it was pushed as.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
}

impl ManifestRecord {
    /// What the bytes say.
    ///
    /// # Errors
    /// Never for a manifest that this registry accepted, unless its rules have changed since.
    pub fn parse(&self) -> Result<ManifestKind, oci::ManifestError> {
        oci::parse_manifest(&self.bytes, &self.media_type)
    }
}

/// What a reference points to in an image.
fn resolve(tx: &mut Tx<'_>, image: i64, reference: &Reference) -> Result<Option<Digest>, RecordsError> {
    match reference {
        Reference::Digest(digest) => Ok(Some(*digest)),
        Reference::Tag(tag) => {
            let sql = "SELECT digest FROM registry_tags WHERE image = $1 AND tag = $2";
            let row = tx.query_first(sql, &[image.into(), tag.as_str().as_bytes().into()])?;
            row.map(|row| row.parse(0)).transpose()
        }
    }
}

impl Registry {
    /// A manifest of an image; nothing if the image or the manifest is not there.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn manifest(
        &self,
        name: &ImageName,
        reference: &Reference,
    ) -> Result<Option<ManifestRecord>, RegistryError> {
        if let Some(known) = self.shared.remembered.get(name, reference) {
            return Ok(Some(known));
        }
        let at = self.shared.remembered.now();
        let (image_name, wanted) = (name.clone(), reference.clone());
        let found = self.records.read(move |tx| {
            let Some(image) = image_id(tx, &image_name)? else { return Ok(None) };
            let Some(digest) = resolve(tx, image, &wanted)? else { return Ok(None) };
            let sql = "SELECT media_type, content FROM registry_manifests WHERE image = $1 AND digest = $2";
            let Some(row) = tx.query_first(sql, &[image.into(), (&digest).into()])? else { return Ok(None) };
            let bytes = row.get::<Vec<u8>>(1)?.into();
            Ok(Some(ManifestRecord { digest, media_type: row.get(0)?, bytes }))
        });
        let found = found.await?;
        if let Some(record) = &found {
            self.shared.remembered.put(at, name, reference, record);
        }
        Ok(found)
    }

    /// Whether the image has this manifest and everything that it stands on, down to the bytes of each blob.
    ///
    /// # Errors
    /// When the records or blobs cannot be read.
    pub async fn exists_with_children(&self, name: &ImageName, digest: &Digest) -> Result<bool, RegistryError> {
        let mut ahead = vec![*digest];
        let mut seen = std::collections::BTreeSet::new();
        while let Some(next) = ahead.pop() {
            if !seen.insert(next) {
                continue;
            }
            let Some(record) = self.manifest(name, &Reference::Digest(next)).await? else { return Ok(false) };
            let kind = record.parse()?;
            for blob in kind.blobs() {
                let linked = self.linked(name, &blob.digest).await?.is_some();
                if !linked || self.blobs.stat(&blob.digest).await? != Some(blob.size) {
                    return Ok(false);
                }
            }
            ahead.extend(kind.children().iter().map(|child| child.digest));
        }
        Ok(true)
    }

    /// As [`Registry::manifest`] for a client that asks to find out whether it must push it. If it is there, it stays for
    /// half of the grace at least, though no tag and no index names it yet.
    pub(crate) async fn manifest_for_push(
        &self,
        name: &ImageName,
        reference: &Reference,
    ) -> Result<Option<ManifestRecord>, RegistryError> {
        let Some(record) = self.manifest(name, reference).await? else { return Ok(None) };
        let (image, digest, policy, at) = (name.clone(), record.digest, self.policy(), now());
        let stale = self.records.read(move |tx| {
            let Some(image) = image_id(tx, &image)? else { return Ok(None) };
            let sql = "SELECT pushed, renewed FROM registry_manifests WHERE image = $1 AND digest = $2";
            let Some(row) = tx.query_first(sql, &[image.into(), (&digest).into()])? else { return Ok(None) };
            let (pushed, renewed): (Timestamp, Option<Timestamp>) = (row.get(0)?, row.get(1)?);
            let stale = policy.is_stale(renewed.unwrap_or_default().max(pushed), at);
            Ok(stale.then_some(image))
        });
        let Some(image) = stale.await? else { return Ok(Some(record)) };
        let renewed = self.records.write(move |tx| {
            let sql = "UPDATE registry_manifests SET renewed = $3 WHERE image = $1 AND digest = $2";
            tx.execute(sql, &[image.into(), (&digest).into(), at.into()])
        });
        Ok(if renewed.await? > 0 { Some(record) } else { None })
    }

    /// Takes a tag away. The manifest stays. It can be brought back until its window ends.
    ///
    /// # Errors
    /// When there is no such tag, it is immutable, or the image is frozen.
    pub async fn delete_tag(&self, name: &ImageName, tag: &Tag) -> Result<(), RegistryError> {
        self.give_way();
        let event = ImageEvent { tag: Some(tag.clone()), ..self.event(ImageAction::Delete, name, None) };
        let announcement = self.announce(vec![event]);
        let told = Arc::clone(&announcement);
        let (name, tag, policy, why) = (name.clone(), tag.clone(), self.policy(), format!("deleted by {}", self.actor));
        let deleted = self.records.write(move |tx| {
            let unknown = || RegistryError::ManifestUnknown {
                image: name.clone(),
                reference: Box::new(Reference::Tag(tag.clone())),
            };
            let id = image_id(tx, &name)?.ok_or_else(unknown)?;
            freeze::refuse(tx, &name)?;
            let place = Place { id, name: &name, policy: &policy, at: now() };
            refuse_immutable(tx, &place, &tag, None)?;
            if !trash::tag(tx, &place, &tag, &why)? {
                return Err(unknown().into());
            }
            told.write(tx)
        });
        deleted.await?;
        self.announced(&announcement);
        Ok(())
    }

    /// Takes a manifest and all tags that point to it away. Its blobs stay until they are collected, and it can be
    /// brought back until its window ends.
    ///
    /// # Errors
    /// When the image does not have it or is frozen, an index of the image refers to it, or one of its tags is immutable.
    pub async fn delete_manifest(&self, name: &ImageName, digest: &Digest) -> Result<(), RegistryError> {
        self.give_way();
        let announcement = self.announce(vec![self.event(ImageAction::Delete, name, Some(*digest))]);
        let told = Arc::clone(&announcement);
        let (name, digest, policy, why) = (name.clone(), *digest, self.policy(), format!("deleted by {}", self.actor));
        let deleted = self.records.write(move |tx| {
            let unknown = || RegistryError::ManifestUnknown {
                image: name.clone(),
                reference: Box::new(Reference::Digest(digest)),
            };
            let id = image_id(tx, &name)?.ok_or_else(unknown)?;
            freeze::refuse(tx, &name)?;
            refuse_if_used(tx, id, &name, &digest)?;
            let place = Place { id, name: &name, policy: &policy, at: now() };
            let sql = "SELECT tag FROM registry_tags WHERE image = $1 AND digest = $2";
            for row in tx.query(sql, &[id.into(), (&digest).into()])? {
                refuse_immutable(tx, &place, &text(&row, 0)?, None)?;
            }
            if !trash::manifest(tx, &place, &digest, &why)? {
                return Err(unknown().into());
            }
            told.write(tx)
        });
        deleted.await?;
        self.announced(&announcement);
        Ok(())
    }
}
