//! What is to be replicated, in records.

use model::{ImageName, Tag, Timestamp};
use oci::Reference;
use store::{RecordsError, Row, Tx};

use crate::blobs::image_id;
use crate::events::{ImageAction, ImageEvent};
use crate::listing::{image_name, tag};
use crate::replication::{ReplicationRule, records};

/// The longest pauses between two attempts: when the other side has trouble, and when it refuses.
const LONGEST_MS: (i64, i64) = (60_000, 3_600_000);

/// Something to be replicated.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub image: ImageName,
    /// A tag, or a manifest that is about another.
    pub what: Reference,
    /// Changes with every new cause.
    seq: i64,
    attempts: i64,
}

/// Whether a tag is one by which clients keep signatures, attestations and bills of material of a manifest.
pub(super) fn subject_of(tag: &Tag) -> Option<model::Digest> {
    let rest = tag.as_str().strip_prefix("sha256-")?;
    let (hex, kind) = rest.split_once('.')?;
    matches!(kind, "sig" | "att" | "sbom").then(|| format!("sha256:{hex}").parse().ok())?
}

/// Queues what an event makes necessary.
pub(crate) fn enqueue(tx: &mut Tx<'_>, rule: &ReplicationRule, event: &ImageEvent) -> Result<(), RecordsError> {
    let image = &event.image;
    if !rule.wants_image(image) {
        return Ok(());
    }
    match (event.action, &event.tag, &event.digest) {
        (ImageAction::Push, Some(tag), _) if rule.wants(image, tag) || subject_of(tag).is_some() => {
            put(tx, rule, image, tag.as_str(), event.at)
        }
        (ImageAction::Push, _, Some(digest)) => {
            let Some(id) = image_id(tx, image)? else { return Ok(()) };
            let sql = "SELECT 1 FROM registry_manifests WHERE image = $1 AND digest = $2 AND subject IS NOT NULL";
            match tx.query_first(sql, &[id.into(), digest.into()])? {
                Some(_) => put(tx, rule, image, &digest.to_string(), event.at),
                None => Ok(()),
            }
        }
        (ImageAction::Delete, Some(tag), _) if rule.deletes => put(tx, rule, image, tag.as_str(), event.at),
        (ImageAction::Delete, None, Some(digest)) if rule.deletes => {
            for tag in records::tags_of(tx, &rule.name, image, digest)? {
                put(tx, rule, image, tag.as_str(), event.at)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn put(
    tx: &mut Tx<'_>,
    rule: &ReplicationRule,
    image: &ImageName,
    what: &str,
    at: Timestamp,
) -> Result<(), RecordsError> {
    let seq = tx.next_id("registry_replication")?;
    let sql = "INSERT INTO registry_replication_queue (rule, image, what, seq, since, due, attempts)
               VALUES ($1, $2, $3, $4, $5, $5, 0)
               ON CONFLICT (rule, image, what)
               DO UPDATE SET seq = excluded.seq, due = excluded.due, attempts = 0";
    let (image, what) = (image.as_str().as_bytes().into(), what.as_bytes().into());
    tx.execute(sql, &[(&rule.name).into(), image, what, seq.into(), at.into()]).map(drop)
}

/// Queues all tags that a rule is about, the one that was set last first. How many there are.
pub(crate) fn everything(tx: &mut Tx<'_>, rule: &ReplicationRule, at: Timestamp) -> Result<u64, RecordsError> {
    let sql = "SELECT i.name, t.tag FROM registry_tags t JOIN registry_images i ON i.id = t.image
               WHERE i.upstream IS NULL ORDER BY t.updated DESC, t.tag";
    let mut queued = 0;
    for row in tx.query(sql, &[])? {
        let (image, tag) = (image_name(&row, 0)?, tag(&row, 1)?);
        if rule.wants(&image, &tag) {
            put(tx, rule, &image, tag.as_str(), at)?;
            queued += 1;
        }
    }
    Ok(queued)
}

/// Makes the records fit the rules: forgets rules that are gone, queues everything for those that are new or changed,
/// and lets what waits be tried at once.
pub(super) fn begin(
    tx: &mut Tx<'_>,
    rules: &[std::sync::Arc<ReplicationRule>],
    shared: bool,
    at: Timestamp,
) -> Result<(), RecordsError> {
    for row in tx.query("SELECT name FROM registry_replication_rules", &[])? {
        let name: String = row.get(0)?;
        if !rules.iter().any(|rule| rule.name == name) {
            records::forget_rule(tx, &name)?;
        }
    }
    for rule in rules {
        if !shared {
            // Nobody else can hold it: the process that did is gone.
            tx.execute("DELETE FROM leases WHERE name = $1", &[lease(&rule.name).into()])?;
        }
        let sql = "SELECT place, selection FROM registry_replication_rules WHERE name = $1";
        let known = tx.query_first(sql, &[(&rule.name).into()])?;
        let known =
            known.map(|row| Ok::<_, RecordsError>((row.get::<String>(0)?, row.get::<String>(1)?))).transpose()?;
        let wanted = (rule.place(), rule.selection());
        if known.as_ref().is_some_and(|(place, _)| *place != wanted.0) {
            records::forget_rule(tx, &rule.name)?;
        }
        if known.as_ref() != Some(&wanted) {
            let sql = "INSERT INTO registry_replication_rules (name, place, selection, failures, paused)
                       VALUES ($1, $2, $3, 0, 0)
                       ON CONFLICT (name) DO UPDATE SET place = excluded.place, selection = excluded.selection";
            tx.execute(sql, &[(&rule.name).into(), wanted.0.into(), wanted.1.into()])?;
            everything(tx, rule, at)?;
        }
        tx.execute("UPDATE registry_replication_rules SET paused = 0 WHERE name = $1", &[(&rule.name).into()])?;
        let sql = "UPDATE registry_replication_queue SET due = $2 WHERE rule = $1 AND due > $2";
        tx.execute(sql, &[(&rule.name).into(), at.into()])?;
    }
    Ok(())
}

/// The lease under which one process at a time works for a rule.
pub(super) fn lease(rule: &str) -> String {
    format!("registry-replication/{rule}")
}

/// What is due and waits longest, of other images than those that are being worked on.
pub(super) fn next(
    tx: &mut Tx<'_>,
    rule: &str,
    now: Timestamp,
    busy: &[ImageName],
) -> Result<Option<Entry>, RecordsError> {
    let sql = "SELECT image, what, seq, attempts FROM registry_replication_queue
               WHERE rule = $1 AND due <= $2 AND image NOT IN ($3, $4, $5, $6) ORDER BY due, seq LIMIT 1";
    // No image has an empty name.
    let image = |at: usize| busy.get(at).map_or(&b""[..], |image| image.as_str().as_bytes()).into();
    let row = tx.query_first(sql, &[rule.into(), now.into(), image(0), image(1), image(2), image(3)])?;
    row.map(|row| entry(&row)).transpose()
}

fn entry(row: &Row) -> Result<Entry, RecordsError> {
    let what: Vec<u8> = row.get(1)?;
    let what = String::from_utf8_lossy(&what).parse();
    let what = what.map_err(|why: model::NameError| RecordsError::Unreadable { column: 1, why: why.to_string() })?;
    Ok(Entry { image: image_name(row, 0)?, what, seq: row.get(2)?, attempts: row.get(3)? })
}

/// When the next entry falls due, and until when the rule pauses.
pub(super) fn next_due(tx: &mut Tx<'_>, rule: &str) -> Result<(Option<Timestamp>, Timestamp), RecordsError> {
    let sql = "SELECT MIN(due) FROM registry_replication_queue WHERE rule = $1";
    let due = tx.query_first(sql, &[rule.into()])?.map_or(Ok(None), |row| row.get(0))?;
    let sql = "SELECT paused FROM registry_replication_rules WHERE name = $1";
    let paused = tx.query_first(sql, &[rule.into()])?.map_or(Ok(Timestamp(0)), |row| row.get(0))?;
    Ok((due, paused))
}

/// It was done. It stays queued if there is a new cause by now.
pub(super) fn done(tx: &mut Tx<'_>, rule: &str, entry: &Entry, now: Timestamp) -> Result<(), RecordsError> {
    let sql = "DELETE FROM registry_replication_queue WHERE rule = $1 AND image = $2 AND what = $3 AND seq = $4";
    tx.execute(sql, &key(rule, entry))?;
    let sql = "UPDATE registry_replication_rules SET success = $2, failures = 0, paused = 0 WHERE name = $1";
    tx.execute(sql, &[rule.into(), now.into()]).map(drop)
}

/// It was not done: it is due again after a pause that doubles each time, and if the other side has trouble, all else of
/// the rule is due no sooner than after another.
pub(super) fn failed(
    tx: &mut Tx<'_>,
    rule: &str,
    entry: &Entry,
    (now, temporary): (Timestamp, bool),
    error: &str,
) -> Result<(), RecordsError> {
    let longest = if temporary { LONGEST_MS.0 } else { LONGEST_MS.1 };
    let sql = "UPDATE registry_replication_queue SET attempts = attempts + 1, due = $5
               WHERE rule = $1 AND image = $2 AND what = $3 AND seq = $4";
    let due = now.0.saturating_add(pause(entry.attempts, longest));
    let mut values = key(rule, entry).to_vec();
    values.push(due.into());
    tx.execute(sql, &values)?;
    trouble(tx, rule, now, error)?;
    if temporary {
        let sql = "SELECT failures FROM registry_replication_rules WHERE name = $1";
        let failures: i64 = tx.query_first(sql, &[rule.into()])?.map_or(Ok(0), |row| row.get(0))?;
        let until = now.0.saturating_add(pause(failures, LONGEST_MS.0));
        let sql = "UPDATE registry_replication_rules SET failures = failures + 1, paused = $2 WHERE name = $1";
        tx.execute(sql, &[rule.into(), until.into()])?;
    }
    Ok(())
}

/// Notes for people what went wrong last.
pub(super) fn trouble(tx: &mut Tx<'_>, rule: &str, now: Timestamp, error: &str) -> Result<(), RecordsError> {
    let sql = "UPDATE registry_replication_rules SET error = $2, error_at = $3 WHERE name = $1";
    tx.execute(sql, &[rule.into(), error.replace('\0', "").into(), now.into()]).map(drop)
}

fn key(rule: &str, entry: &Entry) -> [store::Value; 4] {
    let what = entry.what.to_string().into_bytes();
    [rule.into(), entry.image.as_str().as_bytes().into(), what.into(), entry.seq.into()]
}

/// Milliseconds before the next attempt.
fn pause(before: i64, longest: i64) -> i64 {
    let doublings = u32::try_from(before).unwrap_or(0).min(30);
    1000_i64.saturating_mul(1 << doublings).min(longest)
}
