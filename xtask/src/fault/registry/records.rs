//! What no client sees: whether records and files belong together.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{Finding, Wrong};

/// Questions whose answers are what is wrong.
const TORN: [(&str, &str); 4] = [
    (
        "an index without its child",
        "SELECT r.manifest || ' ' || r.digest FROM registry_references r WHERE r.kind = 'manifest' AND NOT EXISTS (
             SELECT 1 FROM registry_manifests m WHERE m.image = r.image AND m.digest = r.digest)",
    ),
    (
        "a manifest without its blob",
        "SELECT r.manifest || ' ' || r.digest FROM registry_references r WHERE r.kind = 'blob' AND NOT EXISTS (
             SELECT 1 FROM registry_blobs b WHERE b.image = r.image AND b.digest = r.digest)",
    ),
    (
        "references of no manifest",
        "SELECT r.manifest || ' ' || r.digest FROM registry_references r WHERE NOT EXISTS (
             SELECT 1 FROM registry_manifests m WHERE m.image = r.image AND m.digest = r.manifest)",
    ),
    (
        "a tag without its manifest",
        "SELECT CAST(t.tag AS TEXT) || ' ' || t.digest FROM registry_tags t WHERE NOT EXISTS (
             SELECT 1 FROM registry_manifests m WHERE m.image = t.image AND m.digest = t.digest)",
    ),
];

/// Everything that is wrong with the data of a registry that nobody changes.
pub(super) fn check(data: &Path) -> Result<Vec<Finding>, String> {
    let path = data.join("towpath.db");
    let failed = |error: rusqlite::Error| format!("{}: {error}", path.display());
    let records = open(&path).map_err(failed)?;
    let mut findings = Vec::new();
    for (what, sql) in TORN {
        for found in texts(&records, sql).map_err(failed)? {
            findings.push(Finding { wrong: Wrong::Torn, text: format!("{what}: {found}") });
        }
    }
    let sql = "SELECT DISTINCT digest || ' ' || size FROM registry_blobs";
    for line in texts(&records, sql).map_err(failed)? {
        let (digest, size) = line.split_once(' ').unwrap_or_default();
        let (algorithm, hex) = digest.split_once(':').unwrap_or_default();
        let file = data.join("blobs").join(algorithm).join(&hex[..2]).join(hex);
        let length =
            file.metadata().map(|metadata| metadata.len().to_string()).unwrap_or_else(|error| error.to_string());
        if length != size {
            let text = format!("blob {digest} of {size} bytes has a file of {length}");
            findings.push(Finding { wrong: Wrong::Lost, text });
        }
    }
    Ok(findings)
}

/// The quotas, and what their images hold by the records.
const USED: &str = "SELECT CAST(q.bytes AS TEXT) || ' ' || CAST((
        SELECT COALESCE(SUM(size), 0) FROM registry_blobs) + (SELECT COALESCE(SUM(size), 0) FROM registry_manifests)
    AS TEXT) FROM registry_quota_usage q WHERE q.images = '**'";

/// Whether what is counted of the quota for everything is what there is. May be asked of the records of a dead server:
/// a start counts anew.
pub(super) fn used(data: &Path) -> Result<Vec<Finding>, String> {
    let wrong = |line: &String| line.split_once(' ').is_none_or(|(counted, held)| counted != held);
    let found = ask(data, USED)?.into_iter().filter(wrong);
    let finding =
        |line| Finding { wrong: Wrong::Torn, text: format!("a quota counts other bytes than there are: {line}") };
    Ok(found.map(finding).collect())
}

/// The first column of an answer, as texts.
pub(super) fn ask(data: &Path, sql: &str) -> Result<Vec<String>, String> {
    let path = data.join("towpath.db");
    let failed = |error: rusqlite::Error| format!("{}: {error}", path.display());
    texts(&open(&path).map_err(failed)?, sql).map_err(failed)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    // Not read-only: a dead server leaves its log, and only who may write can read that. It stays for the next server.
    let records = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    records.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    records.busy_timeout(Duration::from_secs(10))?;
    Ok(records)
}

fn texts(records: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    records.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}
