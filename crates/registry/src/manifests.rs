//! Reading and deleting manifests and tags.

use std::sync::Arc;

use bytes::Bytes;
use model::{Digest, ImageName, Tag};
use oci::ManifestKind;
use store::{RecordsError, Tx};

use crate::blobs::{image_id, refuse_if_used};
use crate::events::{ImageAction, ImageEvent};
use crate::{Reference, Registry, RegistryError};

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

    /// Takes a tag away. The manifest stays.
    ///
    /// # Errors
    /// When there is no such tag.
    pub async fn delete_tag(&self, name: &ImageName, tag: &Tag) -> Result<(), RegistryError> {
        let event = ImageEvent { tag: Some(tag.clone()), ..self.event(ImageAction::Delete, name, None) };
        let announcement = self.announce(vec![event]);
        let told = Arc::clone(&announcement);
        let (name, tag) = (name.clone(), tag.clone());
        let deleted = self.records.write(move |tx| {
            let unknown = || RegistryError::ManifestUnknown {
                image: name.clone(),
                reference: Box::new(Reference::Tag(tag.clone())),
            };
            let image = image_id(tx, &name)?.ok_or_else(unknown)?;
            let sql = "DELETE FROM registry_tags WHERE image = $1 AND tag = $2";
            if tx.execute(sql, &[image.into(), tag.as_str().as_bytes().into()])? == 0 {
                return Err(unknown().into());
            }
            told.write(tx)
        });
        deleted.await?;
        self.announced(&announcement);
        Ok(())
    }

    /// Takes a manifest and all tags that point to it away. Its blobs stay until they are collected.
    ///
    /// # Errors
    /// When the image does not have it, or an index of the image refers to it.
    pub async fn delete_manifest(&self, name: &ImageName, digest: &Digest) -> Result<(), RegistryError> {
        let announcement = self.announce(vec![self.event(ImageAction::Delete, name, Some(*digest))]);
        let told = Arc::clone(&announcement);
        let (name, digest) = (name.clone(), *digest);
        let deleted = self.records.write(move |tx| {
            let unknown = || RegistryError::ManifestUnknown {
                image: name.clone(),
                reference: Box::new(Reference::Digest(digest)),
            };
            let image = image_id(tx, &name)?.ok_or_else(unknown)?;
            refuse_if_used(tx, image, &name, &digest)?;
            let key = [image.into(), (&digest).into()];
            if tx.execute("DELETE FROM registry_manifests WHERE image = $1 AND digest = $2", &key)? == 0 {
                return Err(unknown().into());
            }
            tx.execute("DELETE FROM registry_references WHERE image = $1 AND manifest = $2", &key)?;
            tx.execute("DELETE FROM registry_tags WHERE image = $1 AND digest = $2", &key)?;
            told.write(tx)
        });
        deleted.await?;
        self.announced(&announcement);
        Ok(())
    }
}
