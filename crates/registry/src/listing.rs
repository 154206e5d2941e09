//! Tags, images and referrers, page by page, in the order of their bytes.

use std::collections::BTreeMap;

use model::{Digest, ImageName, Tag, TagPattern};
use store::{RecordsError, Row};

use crate::blobs::image_id;
use crate::{Registry, RegistryError};

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// Whether more come after the last of them.
    pub more: bool,
}

impl<T> Page<T> {
    /// From one entry more than was asked for, if there are so many.
    fn of(mut entries: Vec<T>, limit: usize) -> Self {
        let more = entries.len() > limit;
        entries.truncate(limit);
        Self { entries, more }
    }
}

/// A manifest that is about another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// What kind of artifact it is.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: Option<BTreeMap<String, String>>,
}

fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX - 1).saturating_add(1)
}

fn text(row: &Row, column: usize) -> Result<String, RecordsError> {
    let bytes: Vec<u8> = row.get(column)?;
    String::from_utf8(bytes).map_err(|error| RecordsError::Unreadable { column, why: error.to_string() })
}

pub(crate) fn tag(row: &Row, column: usize) -> Result<Tag, RecordsError> {
    text(row, column)?.parse().map_err(|why| RecordsError::Unreadable { column, why: format!("{why}") })
}

pub(crate) fn image_name(row: &Row, column: usize) -> Result<ImageName, RecordsError> {
    text(row, column)?.parse().map_err(|why| RecordsError::Unreadable { column, why: format!("{why}") })
}

impl Registry {
    /// The tag of an image that was pushed or moved last, of those that `tags` matches, with what it points to.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn newest(&self, name: &ImageName, tags: &TagPattern) -> Result<Option<(Tag, Digest)>, RegistryError> {
        let (name, tags) = (name.clone(), tags.clone());
        let found = self.records.read(move |tx| {
            let Some(image) = image_id(tx, &name)? else { return Ok(None) };
            let mut before = (i64::MAX, vec![0xff]);
            loop {
                let sql = "SELECT updated, tag, digest FROM registry_tags
                           WHERE image = $1 AND (updated < $2 OR (updated = $2 AND tag < $3))
                           ORDER BY updated DESC, tag DESC LIMIT 100";
                let rows = tx.query(sql, &[image.into(), before.0.into(), before.1.as_slice().into()])?;
                let Some(last) = rows.last() else { return Ok(None) };
                before = (last.get(0)?, last.get(1)?);
                for row in &rows {
                    let tag: Tag = text(row, 1)?.parse().map_err(|error: model::NameError| {
                        RecordsError::Unreadable { column: 1, why: error.to_string() }
                    })?;
                    if tags.matches(&tag) {
                        return Ok(Some((tag, row.parse(2)?)));
                    }
                }
            }
        });
        Ok(found.await?)
    }

    /// At most `limit` tags of an image that come after `after`, with what they point to; nothing if there is no such
    /// image.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn tags(
        &self,
        name: &ImageName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<Page<(Tag, Digest)>>, RegistryError> {
        let (name, after) = (name.clone(), after.unwrap_or_default().as_bytes().to_vec());
        let found = self.records.read(move |tx| {
            let Some(image) = image_id(tx, &name)? else { return Ok(None) };
            let sql = "SELECT tag, digest FROM registry_tags WHERE image = $1 AND tag > $2 ORDER BY tag LIMIT $3";
            let rows = tx.query(sql, &[image.into(), after.into(), one_more(limit).into()])?;
            let tags = rows.iter().map(|row| Ok((tag(row, 0)?, row.parse(1)?)));
            let tags = tags.collect::<Result<_, RecordsError>>()?;
            Ok(Some(Page::of(tags, limit)))
        });
        Ok(found.await?)
    }

    /// At most `limit` images that come after `after`.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn images(&self, after: Option<&str>, limit: usize) -> Result<Page<ImageName>, RegistryError> {
        let after = after.unwrap_or_default().as_bytes().to_vec();
        let found = self.records.read(move |tx| {
            let sql = "SELECT name FROM registry_images WHERE name > $1 ORDER BY name LIMIT $2";
            let rows = tx.query(sql, &[after.into(), one_more(limit).into()])?;
            Ok(Page::of(rows.iter().map(|row| image_name(row, 0)).collect::<Result<_, RecordsError>>()?, limit))
        });
        Ok(found.await?)
    }

    /// At most `limit` manifests of an image that are about `subject`, of one artifact type if one is given, in the order
    /// of their digests and after `after`. An image or subject that is not there has none.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn referrers(
        &self,
        name: &ImageName,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Referrer>, RegistryError> {
        let (name, subject) = (name.clone(), *subject);
        let wanted = artifact_type.map(|text| text.replace('\0', ""));
        let after = after.filter(|text| !text.contains('\0')).unwrap_or_default().to_owned();
        let found = self.records.read(move |tx| {
            let Some(image) = image_id(tx, &name)? else { return Ok(Page { entries: Vec::new(), more: false }) };
            let any = i64::from(wanted.is_none());
            let sql = "SELECT digest, media_type, size, artifact_type, annotations FROM registry_manifests
                       WHERE image = $1 AND subject = $2 AND digest > $3 AND ($4 = 1 OR artifact_type = $5)
                       ORDER BY digest LIMIT $6";
            let filter = wanted.unwrap_or_default();
            let values =
                [image.into(), (&subject).into(), after.into(), any.into(), filter.into(), one_more(limit).into()];
            let rows = tx.query(sql, &values)?;
            Ok(Page::of(rows.iter().map(referrer).collect::<Result<_, RecordsError>>()?, limit))
        });
        Ok(found.await?)
    }
}

fn referrer(row: &Row) -> Result<Referrer, RecordsError> {
    let annotations: Option<String> = row.get(4)?;
    let annotations = annotations.map(|text| serde_json::from_str(&text)).transpose();
    Ok(Referrer {
        digest: row.parse(0)?,
        media_type: row.get(1)?,
        size: row.get::<i64>(2)?.unsigned_abs(),
        artifact_type: row.get(3)?,
        annotations: annotations.map_err(|why| RecordsError::Unreadable { column: 4, why: why.to_string() })?,
    })
}
