//! What was deleted for good, and blobs that nothing in their image refers to.

use model::{Digest, ImageName, Timestamp};
use store::{RecordsError, Row, Tx, fault};

use crate::collect::{Run, doom};
use crate::freeze;
use crate::holds::forget_old;
use crate::policy::{Policy, millis};
use crate::quota;
use crate::retention::text;
use crate::{RegistryError, now};

/// Rows that are looked at in one read.
const PAGE: i64 = 2000;

/// Rows that are changed in one transaction.
const BATCH: usize = 50;

/// Something an image has, or had.
#[derive(Clone)]
struct Held {
    image: i64,
    digest: Digest,
}

/// Where a page ended.
type Cursor = (i64, String);

impl Run<'_> {
    /// Forgets what was deleted before the window.
    pub(super) async fn forget(&mut self) -> Result<(), RegistryError> {
        self.step(|tx| forget_old(tx, now())).await?;
        let window = millis(self.registry.policy().undo_window);
        let before = match self.thorough.purge {
            true => Timestamp(i64::MAX),
            false => Timestamp(self.now.0.saturating_sub(window)),
        };
        for table in ["registry_trash_manifests", "registry_trash_blobs", "registry_trash_tags"] {
            let mut after: Cursor = (i64::MIN, String::new());
            loop {
                let start = after.clone();
                let gone = self.step(move |tx| forget(tx, table, before, &start)).await?;
                let Some((last, count)) = gone else { break };
                self.collected.forgotten += count;
                after = last;
            }
        }
        Ok(())
    }

    /// Takes blobs that nothing refers to away from their images.
    pub(super) async fn unlink(&mut self) -> Result<(), RegistryError> {
        let before = self.registry.policy().graced(self.now);
        let mut after: Cursor = (i64::MIN, String::new());
        loop {
            let start = after.clone();
            let begun = std::time::Instant::now();
            let read = self.registry.records.read(move |tx| unused(tx, before, &start));
            let (last, unused) = read.await?;
            self.rest(begun.elapsed()).await?;
            for batch in unused.chunks(BATCH) {
                let (batch, policy) = (batch.to_vec(), self.registry.policy());
                fault::point(fault::BEFORE_UNLINK);
                self.collected.unlinked += self.step(move |tx| unlink(tx, &policy, before, &batch)).await?;
                fault::point(fault::AFTER_UNLINK);
            }
            match last {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }
}

fn cursor(row: &Row) -> Result<Cursor, RecordsError> {
    Ok((row.get(0)?, row.get(1)?))
}

/// Forgets some of what was deleted before `before`: what comes after `after` in a table of the trash. Answers where it
/// ended, and how many that were; nothing at the end of the table.
fn forget(
    tx: &mut Tx<'_>,
    table: &str,
    before: Timestamp,
    (image, digest): &Cursor,
) -> Result<Option<(Cursor, u64)>, RecordsError> {
    let sql = format!(
        "SELECT image, digest FROM {table} WHERE deleted < $1 AND (image, digest) > ($2, $3)
         ORDER BY image, digest LIMIT $4"
    );
    let limit = i64::try_from(BATCH).unwrap_or(i64::MAX);
    let rows = tx.query(&sql, &[before.into(), (*image).into(), digest.into(), limit.into()])?;
    let Some(last) = rows.last().map(cursor).transpose()? else { return Ok(None) };
    let mut count = 0;
    for row in rows {
        let (image, digest): (i64, Digest) = (row.get(0)?, row.parse(1)?);
        if is_frozen(tx, image)? {
            continue;
        }
        let sql = format!("DELETE FROM {table} WHERE image = $1 AND digest = $2 AND deleted < $3");
        let deleted = tx.execute(&sql, &[image.into(), (&digest).into(), before.into()])?;
        match table {
            "registry_trash_manifests" => {
                let sql = "DELETE FROM registry_trash_references WHERE image = $1 AND manifest = $2";
                tx.execute(sql, &[image.into(), (&digest).into()])?;
                // One that was pushed again since is pulled as before.
                let sql = "DELETE FROM registry_pulls WHERE image = $1 AND reference = $2 AND NOT EXISTS (
                               SELECT 1 FROM registry_manifests m WHERE m.image = $1 AND m.digest = $2)";
                tx.execute(sql, &[image.into(), (&digest).into()])?;
                count += deleted;
            }
            "registry_trash_blobs" => doom(tx, &digest)?,
            _ => count += deleted,
        }
    }
    Ok(Some((last, count)))
}

/// Those of the next blobs that nothing refers to. Answers where it ended too; nothing at the end.
fn unused(
    tx: &mut Tx<'_>,
    before: Timestamp,
    (image, digest): &Cursor,
) -> Result<(Option<Cursor>, Vec<Held>), RecordsError> {
    let sql = "SELECT image, digest, CASE WHEN linked < $3 AND NOT EXISTS (
                   SELECT 1 FROM registry_references r WHERE r.image = b.image AND r.digest = b.digest
               ) AND NOT EXISTS (
                   SELECT 1 FROM registry_trash_references t WHERE t.image = b.image AND t.digest = b.digest
               ) THEN 1 ELSE 0 END
               FROM registry_blobs b WHERE (image, digest) > ($1, $2) ORDER BY image, digest LIMIT $4";
    let rows = tx.query(sql, &[(*image).into(), digest.into(), before.into(), PAGE.into()])?;
    let last = rows.last().map(cursor).transpose()?;
    let mut unused = Vec::new();
    for row in rows {
        if row.get::<i64>(2)? == 1 {
            unused.push(Held { image: row.get(0)?, digest: row.parse(1)? });
        }
    }
    Ok((last, unused))
}

fn unlink(tx: &mut Tx<'_>, policy: &Policy, before: Timestamp, unused: &[Held]) -> Result<u64, RecordsError> {
    let mut count = 0;
    for Held { image, digest } in unused {
        let Some(name) = name_of(tx, *image)? else { continue };
        if freeze::all(tx)?.iter().any(|freeze| freeze.images.matches(&name)) {
            continue;
        }
        let sql = "DELETE FROM registry_blobs WHERE image = $1 AND digest = $2 AND linked < $3 AND NOT EXISTS (
                       SELECT 1 FROM registry_references r WHERE r.image = $1 AND r.digest = $2
                   ) AND NOT EXISTS (
                       SELECT 1 FROM registry_trash_references t WHERE t.image = $1 AND t.digest = $2
                   ) RETURNING size";
        let row = tx.query_first(sql, &[(*image).into(), digest.into(), before.into()])?;
        let Some(size) = row.map(|row| row.get::<i64>(0)).transpose()? else { continue };
        quota::adjust(tx, policy, &name, size.saturating_neg())?;
        doom(tx, digest)?;
        count += 1;
    }
    Ok(count)
}

fn name_of(tx: &mut Tx<'_>, image: i64) -> Result<Option<ImageName>, RecordsError> {
    let row = tx.query_first("SELECT name FROM registry_images WHERE id = $1", &[image.into()])?;
    row.map(|row| text(&row, 0)).transpose()
}

fn is_frozen(tx: &mut Tx<'_>, image: i64) -> Result<bool, RecordsError> {
    let Some(name) = name_of(tx, image)? else { return Ok(false) };
    Ok(freeze::all(tx)?.iter().any(|freeze| freeze.images.matches(&name)))
}
