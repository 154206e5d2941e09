//! Bringing back.

use model::{Digest, Timestamp};
use store::{RecordsError, Tx};

use crate::blobs::{Place, image_id};
use crate::policy::Policy;
use crate::quota;
use crate::trash::{COLUMNS, Deleted};

/// Indexes within indexes that are followed.
const DEEPEST: usize = 16;

/// Brings one thing back, or says why that cannot be.
pub(super) fn one(
    tx: &mut Tx<'_>,
    policy: &Policy,
    deleted: &Deleted,
    at: Timestamp,
) -> Result<Option<String>, RecordsError> {
    let Some(id) = image_id(tx, &deleted.image)? else { return Ok(Some("its image is gone".to_owned())) };
    let place = Place { id, name: &deleted.image, policy, at };
    let Some(tag) = &deleted.tag else {
        return manifest(tx, &place, &deleted.digest, DEEPEST);
    };
    let key = [id.into(), tag.as_str().as_bytes().into()];
    let sql = "SELECT digest FROM registry_tags WHERE image = $1 AND tag = $2";
    if tx.query_first(sql, &key)?.is_some() {
        return Ok(Some("the tag was set again since".to_owned()));
    }
    // Asked here: a collection may have come in between.
    let sql = "SELECT digest FROM registry_trash_tags WHERE image = $1 AND tag = $2 AND deleted = $3";
    let row = tx.query_first(sql, &[id.into(), tag.as_str().as_bytes().into(), deleted.at.into()])?;
    let Some(digest) = row.map(|row| row.parse(0)).transpose()? else {
        return Ok(Some("its window has ended".to_owned()));
    };
    if let Some(refused) = manifest(tx, &place, &digest, DEEPEST)? {
        return Ok(Some(refused));
    }
    let sql = "INSERT INTO registry_tags (image, tag, digest, updated)
               SELECT image, tag, digest, updated FROM registry_trash_tags
               WHERE image = $1 AND tag = $2 AND deleted = $3
               ON CONFLICT (image, tag) DO NOTHING";
    tx.execute(sql, &[id.into(), tag.as_str().as_bytes().into(), deleted.at.into()])?;
    tx.execute("DELETE FROM registry_trash_tags WHERE image = $1 AND tag = $2", &key)?;
    Ok(None)
}

/// Brings a manifest back with everything it stands on, and everything that is about it.
fn manifest(
    tx: &mut Tx<'_>,
    place: &Place<'_>,
    digest: &Digest,
    deeper: usize,
) -> Result<Option<String>, RecordsError> {
    let key = [place.id.into(), digest.into()];
    if tx.query_first("SELECT size FROM registry_manifests WHERE image = $1 AND digest = $2", &key)?.is_some() {
        return Ok(None);
    }
    let row = tx.query_first("SELECT size FROM registry_trash_manifests WHERE image = $1 AND digest = $2", &key)?;
    let Some(size) = row.map(|row| row.get::<i64>(0)).transpose()? else {
        return Ok(Some(format!("manifest {digest} is gone")));
    };
    if deeper == 0 {
        return Ok(Some(format!("{digest} is too deep in indexes")));
    }
    let sql = "SELECT digest, kind FROM registry_trash_references WHERE image = $1 AND manifest = $2";
    for row in tx.query(sql, &key)? {
        let (on, kind): (Digest, String) = (row.parse(0)?, row.get(1)?);
        let refused = if kind == "manifest" { manifest(tx, place, &on, deeper - 1)? } else { blob(tx, place, &on)? };
        if refused.is_some() {
            return Ok(refused);
        }
    }
    back(tx, place, digest, size)?;
    let sql = "SELECT digest FROM registry_trash_manifests WHERE image = $1 AND subject = $2";
    for row in tx.query(sql, &key)? {
        // One that cannot come back keeps no other from it.
        manifest(tx, place, &row.parse(0)?, deeper - 1)?;
    }
    Ok(None)
}

fn back(tx: &mut Tx<'_>, place: &Place<'_>, digest: &Digest, size: i64) -> Result<(), RecordsError> {
    let key = [place.id.into(), digest.into()];
    // Marked as if it had just been pushed, so that the next collection gives it time.
    let sql = format!(
        "INSERT INTO registry_manifests ({COLUMNS}, renewed) SELECT {COLUMNS}, CAST($3 AS BIGINT)
         FROM registry_trash_manifests WHERE image = $1 AND digest = $2
         ON CONFLICT (image, digest) DO NOTHING"
    );
    tx.execute(&sql, &[place.id.into(), digest.into(), place.at.into()])?;
    let sql = "INSERT INTO registry_references (image, manifest, digest, kind)
               SELECT image, manifest, digest, kind FROM registry_trash_references WHERE image = $1 AND manifest = $2
               ON CONFLICT (image, manifest, digest) DO NOTHING";
    tx.execute(sql, &key)?;
    forget(tx, place.id, digest)?;
    quota::adjust(tx, place.policy, place.name, size)
}

/// Takes a manifest out of the trash.
pub(in crate::trash) fn forget(tx: &mut Tx<'_>, image: i64, digest: &Digest) -> Result<(), RecordsError> {
    let key = [image.into(), digest.into()];
    tx.execute("DELETE FROM registry_trash_references WHERE image = $1 AND manifest = $2", &key)?;
    tx.execute("DELETE FROM registry_trash_manifests WHERE image = $1 AND digest = $2", &key).map(drop)
}

fn blob(tx: &mut Tx<'_>, place: &Place<'_>, digest: &Digest) -> Result<Option<String>, RecordsError> {
    let key = [place.id.into(), digest.into()];
    if tx.query_first("SELECT size FROM registry_blobs WHERE image = $1 AND digest = $2", &key)?.is_some() {
        return Ok(None);
    }
    let row = tx.query_first("SELECT size FROM registry_trash_blobs WHERE image = $1 AND digest = $2", &key)?;
    let Some(size) = row.map(|row| row.get::<i64>(0)).transpose()? else {
        return Ok(Some(format!("blob {digest} is gone")));
    };
    let sql = "INSERT INTO registry_blobs (image, digest, size, linked) VALUES ($1, $2, $3, $4)";
    tx.execute(sql, &[place.id.into(), digest.into(), size.into(), place.at.into()])?;
    tx.execute("DELETE FROM registry_trash_blobs WHERE image = $1 AND digest = $2", &key)?;
    quota::adjust(tx, place.policy, place.name, size)?;
    Ok(None)
}
