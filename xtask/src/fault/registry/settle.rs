//! When nobody pushes and every grace is over, a collection leaves what is needed and nothing else.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::collector::Freed;
use super::http::{Ask, Client};
use super::{Finding, Wrong, records};

/// Tables that are empty then.
const EMPTY: [&str; 6] = [
    "registry_uploads",
    "registry_removals",
    "registry_trash_tags",
    "registry_trash_manifests",
    "registry_trash_blobs",
    "registry_trash_references",
];

/// Blobs that nothing in their image refers to.
const UNUSED: &str = "SELECT b.image || ' ' || b.digest FROM registry_blobs b WHERE NOT EXISTS (
    SELECT 1 FROM registry_references r WHERE r.image = b.image AND r.digest = b.digest)";

/// Collects, and looks for everything that should be gone, and for everything that is not as it should be. `wait` is
/// longer than any time that something is kept for.
pub(super) fn settle(client: &mut Client, data: &Path, wait: Duration) -> Result<(Freed, Vec<Finding>), String> {
    std::thread::sleep(wait);
    let mut findings = Vec::new();
    let mut freed = Freed::default();
    freed.count(&ask(client, "POST", "gc", Some(r#"{"scrub":true}"#), &mut findings).unwrap_or_default());
    left_files(&data.join("blobs"), &mut findings);
    left_records(data, &mut findings)?;
    findings.extend(records::check(data)?);
    findings.extend(records::used(data)?);
    let verified = ask(client, "GET", "verify", None, &mut findings);
    if let Some(verified) = verified.filter(|it| it["problems"] != 0 || it["blobs"].is_null()) {
        findings.push(Finding { wrong: Wrong::Torn, text: format!("verify: {verified}") });
    }
    Ok((freed, findings))
}

/// The answer, or the summary at the end of one in lines.
fn ask(
    client: &mut Client,
    method: &str,
    what: &str,
    body: Option<&str>,
    findings: &mut Vec<Finding>,
) -> Option<Value> {
    let path = format!("/towpath/v1/registry/{what}");
    let headers = [("Content-Type", "application/json")];
    let said = match client.send(&Ask { method, path: &path, headers: &headers, body: body.map(str::as_bytes) }) {
        Ok(answer) if answer.status == 200 => {
            let last = answer.body.split(|byte| *byte == b'\n').rev().find(|line| !line.is_empty());
            match last.and_then(|line| serde_json::from_slice::<Value>(line).ok()) {
                Some(value) => return Some(value.get("summary").cloned().unwrap_or(value)),
                None => answer.said(),
            }
        }
        Ok(answer) => answer.said(),
        Err(error) => error.to_string(),
    };
    findings.push(Finding { wrong: Wrong::Answer, text: format!("{method} {path}: {said}") });
    None
}

fn leak(text: String) -> Finding {
    Finding { wrong: Wrong::Leaked, text }
}

/// Parts of uploads, and what was being written.
fn left_files(blobs: &Path, findings: &mut Vec<Finding>) {
    for path in files(&blobs.join("uploads")) {
        findings.push(leak(format!("an upload after its time: {}", path.display())));
    }
    for path in files(&blobs.join("tmp")) {
        if !path.ends_with("lock") {
            findings.push(leak(format!("a temporary file: {}", path.display())));
        }
    }
}

fn left_records(data: &Path, findings: &mut Vec<Finding>) -> Result<(), String> {
    for table in EMPTY {
        let count = records::ask(data, &format!("SELECT CAST(COUNT(*) AS TEXT) FROM {table}"))?;
        if count != ["0"] {
            findings.push(leak(format!("{table} has {} entries after their time", count.join(" "))));
        }
    }
    for unused in records::ask(data, UNUSED)? {
        findings.push(leak(format!("a blob that nothing refers to: {unused}")));
    }
    let recorded: BTreeSet<String> =
        records::ask(data, "SELECT DISTINCT digest FROM registry_blobs")?.into_iter().collect();
    for algorithm in ["sha256", "sha512"] {
        for path in files(&data.join("blobs").join(algorithm)) {
            let hex = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if !recorded.contains(&format!("{algorithm}:{hex}")) {
                findings.push(leak(format!("content without a record: {}", path.display())));
            }
        }
    }
    Ok(())
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in dir.read_dir().into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}
