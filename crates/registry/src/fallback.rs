//! The referrers tag schema: an index under the tag `sha256-<hex>` that clients keep by themselves where a registry cannot
//! list referrers. Images come here with such tags when they are copied from there.
//!
//! What such an index lists is in the image, so its entries with a subject are among the referrers already. Clients that
//! find those listed leave the tag alone from then on; so it is kept here, where it would stand in the way.

use model::{Digest, ImageName, Tag};
use oci::{Index, ManifestKind};

use crate::blobs::image_id;
use crate::{ManifestRecord, Reference, Registry, RegistryError};

/// The digits of a digest that its tag has at most.
const DIGITS: usize = 64;

/// The tag of the index of what refers to `subject`.
fn referrers_tag(subject: &Digest) -> Option<Tag> {
    let hex = subject.hex();
    format!("{}-{}", subject.algorithm().name(), &hex[..DIGITS.min(hex.len())]).parse().ok()
}

impl Registry {
    /// As [`Registry::delete_manifest`], but a referrer is not held by the index that a client listed it in: its entry
    /// goes first, and with the last entry the index.
    ///
    /// # Errors
    /// As [`Registry::delete_manifest`].
    pub async fn delete_referrer(&self, name: &ImageName, digest: &Digest) -> Result<(), RegistryError> {
        match self.delete_manifest(name, digest).await {
            Err(RegistryError::InUse { by, .. }) if self.leave_index(name, digest, &by).await? => {
                self.delete_manifest(name, digest).await
            }
            done => done,
        }
    }

    /// Takes the entry of a referrer out of `index`, if that is what the referrers tag of its subject points to and
    /// nothing else does. Each step leaves whole what is visible.
    async fn leave_index(&self, name: &ImageName, digest: &Digest, index: &Digest) -> Result<bool, RegistryError> {
        let Some(record) = self.manifest(name, &Reference::Digest(*digest)).await? else { return Ok(false) };
        let kind = record.parse()?;
        let Some(tag) = kind.subject().and_then(|subject| referrers_tag(&subject.digest)) else { return Ok(false) };
        let listed = self.manifest(name, &Reference::Tag(tag.clone())).await?;
        let Some(listed) = listed.filter(|listed| listed.digest == *index) else { return Ok(false) };
        if self.tags_of(name, index).await? != [tag.clone()] {
            return Ok(false);
        }
        match without(&listed, digest)? {
            Some(rest) => {
                self.push(name, rest.into(), &listed.media_type, &[tag], None).await?;
            }
            None => self.delete_tag(name, &tag).await?,
        }
        self.delete_manifest(name, index).await.map(|()| true)
    }

    /// The first two tags that point to a manifest: whether there is another than a known one.
    async fn tags_of(&self, name: &ImageName, digest: &Digest) -> Result<Vec<Tag>, RegistryError> {
        let (name, digest) = (name.clone(), *digest);
        let found = self.records.read(move |tx| {
            let Some(image) = image_id(tx, &name)? else { return Ok(Vec::new()) };
            let sql = "SELECT tag FROM registry_tags WHERE image = $1 AND digest = $2 LIMIT 2";
            let rows = tx.query(sql, &[image.into(), (&digest).into()])?;
            rows.iter().map(|row| crate::listing::tag(row, 0)).collect()
        });
        Ok(found.await?)
    }
}

/// An index without one of its entries; nothing if that was the last.
fn without(record: &ManifestRecord, digest: &Digest) -> Result<Option<Vec<u8>>, RegistryError> {
    let ManifestKind::Index(index) = record.parse()? else { return Ok(None) };
    let manifests: Vec<_> = index.manifests.iter().filter(|entry| entry.digest != *digest).cloned().collect();
    if manifests.is_empty() {
        return Ok(None);
    }
    Ok(serde_json::to_vec(&Index { manifests, ..*index }).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_cut_as_the_specification_cuts_them() {
        let tag = |digest: String| referrers_tag(&digest.parse().unwrap()).unwrap().to_string();
        assert_eq!(tag(format!("sha256:{}", "a".repeat(64))), format!("sha256-{}", "a".repeat(64)));
        assert_eq!(tag(format!("sha512:{}", "b".repeat(128))), format!("sha512-{}", "b".repeat(64)));
    }
}
