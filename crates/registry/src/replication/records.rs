//! What a rule has pushed: all that it may ever take away there.

use model::{Digest, ImageName, Tag, Timestamp};
use store::{RecordsError, Row, Tx};

use crate::listing::{image_name, tag};

/// A tag as a rule left it there.
#[derive(Clone, Debug)]
pub(super) struct Pushed {
    pub tag: Tag,
    /// What it pointed to when it was last pushed to the end.
    pub digest: Option<Digest>,
    /// What was being pushed when this was written.
    pub intended: Option<Digest>,
    /// When it was set here.
    pub updated: Timestamp,
    /// Whether this rule set it there: what stood there before it came is not its own.
    pub own: bool,
    /// Retention took it away there.
    pub retired: bool,
}

impl Pushed {
    /// Whether that is something that the rule pushed under this tag.
    pub fn is(&self, digest: &Digest) -> bool {
        self.digest.as_ref() == Some(digest) || self.intended.as_ref() == Some(digest)
    }
}

const COLUMNS: &str = "tag, digest, intended, updated, own, retired";

fn pushed(row: &Row) -> Result<Pushed, RecordsError> {
    let digest = |column: usize| -> Result<Option<Digest>, RecordsError> {
        let text: Option<String> = row.get(column)?;
        let parsed = text.map(|text| text.parse()).transpose();
        parsed.map_err(|why: model::DigestError| RecordsError::Unreadable { column, why: why.to_string() })
    };
    Ok(Pushed {
        tag: tag(row, 0)?,
        digest: digest(1)?,
        intended: digest(2)?,
        updated: row.get(3)?,
        own: row.get(4)?,
        retired: row.get(5)?,
    })
}

/// What is known of one tag.
pub(super) fn find(tx: &mut Tx<'_>, rule: &str, image: &ImageName, tag: &Tag) -> Result<Option<Pushed>, RecordsError> {
    let sql = format!("SELECT {COLUMNS} FROM registry_replicated_tags WHERE rule = $1 AND image = $2 AND tag = $3");
    tx.query_first(&sql, &key(rule, image, tag))?.map(|row| pushed(&row)).transpose()
}

/// All tags of an image.
pub(super) fn tags(tx: &mut Tx<'_>, rule: &str, image: &ImageName) -> Result<Vec<Pushed>, RecordsError> {
    let sql = format!("SELECT {COLUMNS} FROM registry_replicated_tags WHERE rule = $1 AND image = $2 ORDER BY tag");
    tx.query(&sql, &[rule.into(), image.as_str().as_bytes().into()])?.iter().map(pushed).collect()
}

/// The images of which something was pushed, in pages.
pub(super) fn images(tx: &mut Tx<'_>, rule: &str, after: &str, limit: i64) -> Result<Vec<ImageName>, RecordsError> {
    let sql = "SELECT DISTINCT image FROM registry_replicated_tags WHERE rule = $1 AND image > $2
               ORDER BY image LIMIT $3";
    tx.query(sql, &[rule.into(), after.as_bytes().into(), limit.into()])?.iter().map(|row| image_name(row, 0)).collect()
}

/// Notes what is about to be pushed, so that it is known for ours if this process is killed.
pub(super) fn intend(tx: &mut Tx<'_>, rule: &str, image: &ImageName, pushed: &Pushed) -> Result<(), RecordsError> {
    let sql = "INSERT INTO registry_replicated_tags (rule, image, tag, digest, intended, updated, own, retired)
               VALUES ($1, $2, $3, NULL, $4, $5, $6, 0)
               ON CONFLICT (rule, image, tag) DO UPDATE SET intended = excluded.intended, updated = excluded.updated,
               own = excluded.own, retired = 0";
    let [rule, image, tag] = key(rule, image, &pushed.tag);
    let intended = pushed.intended.as_ref().map(ToString::to_string);
    tx.execute(sql, &[rule, image, tag, intended.into(), pushed.updated.into(), pushed.own.into()]).map(drop)
}

/// What was intended was done.
pub(super) fn finish(tx: &mut Tx<'_>, rule: &str, image: &ImageName, tag: &Tag) -> Result<(), RecordsError> {
    let sql = "UPDATE registry_replicated_tags SET digest = intended, intended = NULL
               WHERE rule = $1 AND image = $2 AND tag = $3 AND intended IS NOT NULL";
    tx.execute(sql, &key(rule, image, tag)).map(drop)
}

/// Retention has taken a tag away there.
pub(super) fn retire(tx: &mut Tx<'_>, rule: &str, image: &ImageName, tag: &Tag) -> Result<(), RecordsError> {
    let sql = "UPDATE registry_replicated_tags SET retired = 1, intended = NULL
               WHERE rule = $1 AND image = $2 AND tag = $3";
    tx.execute(sql, &key(rule, image, tag)).map(drop)
}

/// Forgets a tag: it is gone there, or another's.
pub(super) fn forget(tx: &mut Tx<'_>, rule: &str, image: &ImageName, tag: &Tag) -> Result<(), RecordsError> {
    let sql = "DELETE FROM registry_replicated_tags WHERE rule = $1 AND image = $2 AND tag = $3";
    tx.execute(sql, &key(rule, image, tag)).map(drop)
}

/// Forgets all of a rule.
pub(super) fn forget_rule(tx: &mut Tx<'_>, rule: &str) -> Result<(), RecordsError> {
    for sql in [
        "DELETE FROM registry_replicated_tags WHERE rule = $1",
        "DELETE FROM registry_replicated_manifests WHERE rule = $1",
        "DELETE FROM registry_replication_queue WHERE rule = $1",
        "DELETE FROM registry_replication_rules WHERE name = $1",
    ] {
        tx.execute(sql, &[rule.into()])?;
    }
    Ok(())
}

/// The tags that point to a manifest there.
pub(super) fn tags_of(
    tx: &mut Tx<'_>,
    rule: &str,
    image: &ImageName,
    digest: &Digest,
) -> Result<Vec<Tag>, RecordsError> {
    let sql = "SELECT tag FROM registry_replicated_tags
               WHERE rule = $1 AND image = $2 AND (digest = $3 OR intended = $3)";
    tx.query(sql, &[rule.into(), image.as_str().as_bytes().into(), digest.into()])?
        .iter()
        .map(|row| tag(row, 0))
        .collect()
}

/// Manifests that were pushed.
pub(super) fn add_manifests(
    tx: &mut Tx<'_>,
    rule: &str,
    image: &ImageName,
    digests: &[Digest],
) -> Result<(), RecordsError> {
    let sql = "INSERT INTO registry_replicated_manifests (rule, image, digest) VALUES ($1, $2, $3)
               ON CONFLICT (rule, image, digest) DO NOTHING";
    for digest in digests {
        tx.execute(sql, &[rule.into(), image.as_str().as_bytes().into(), digest.into()])?;
    }
    Ok(())
}

/// Whether a manifest was pushed.
pub(super) fn has_manifest(
    tx: &mut Tx<'_>,
    rule: &str,
    image: &ImageName,
    digest: &Digest,
) -> Result<bool, RecordsError> {
    let sql = "SELECT 1 FROM registry_replicated_manifests WHERE rule = $1 AND image = $2 AND digest = $3";
    Ok(tx.query_first(sql, &[rule.into(), image.as_str().as_bytes().into(), digest.into()])?.is_some())
}

/// A manifest is gone there.
pub(super) fn forget_manifest(
    tx: &mut Tx<'_>,
    rule: &str,
    image: &ImageName,
    digest: &Digest,
) -> Result<(), RecordsError> {
    let sql = "DELETE FROM registry_replicated_manifests WHERE rule = $1 AND image = $2 AND digest = $3";
    tx.execute(sql, &[rule.into(), image.as_str().as_bytes().into(), digest.into()]).map(drop)
}

/// Another image that has this blob and of which something was pushed.
pub(super) fn home(
    tx: &mut Tx<'_>,
    rule: &str,
    image: &ImageName,
    blob: &Digest,
) -> Result<Option<ImageName>, RecordsError> {
    let sql = "SELECT i.name FROM registry_blobs b JOIN registry_images i ON i.id = b.image
               WHERE b.digest = $1 AND i.name <> $2 AND EXISTS (
                   SELECT 1 FROM registry_replicated_manifests m
                   JOIN registry_references r ON r.image = b.image AND r.manifest = m.digest AND r.digest = $1
                   WHERE m.rule = $3 AND m.image = i.name) LIMIT 1";
    let row = tx.query_first(sql, &[blob.into(), image.as_str().as_bytes().into(), rule.into()])?;
    row.map(|row| image_name(&row, 0)).transpose()
}

fn key(rule: &str, image: &ImageName, tag: &Tag) -> [store::Value; 3] {
    [rule.into(), image.as_str().as_bytes().into(), tag.as_str().as_bytes().into()]
}
