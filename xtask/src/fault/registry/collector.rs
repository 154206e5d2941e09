//! An administrator who collects, and applies the rules of retention, all the time.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use super::http::{Ask, Client};
use super::worker::Shared;
use super::{Finding, Wrong};
use crate::fault::plan::Random;

/// What collections freed in all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Freed {
    collections: u64,
    uploads: u64,
    forgotten: u64,
    unlinked: u64,
    orphans: u64,
    removed: u64,
    /// Tags and manifests that retention deleted.
    retained: u64,
}

impl Freed {
    pub(super) fn add(&mut self, other: Self) {
        self.collections += other.collections;
        self.uploads += other.uploads;
        self.forgotten += other.forgotten;
        self.unlinked += other.unlinked;
        self.orphans += other.orphans;
        self.removed += other.removed;
        self.retained += other.retained;
    }

    /// Adds what a collection answered.
    pub(super) fn count(&mut self, answer: &Value) {
        let number = |field: &str| answer[field].as_u64().unwrap_or(0);
        self.add(Self {
            collections: 1,
            uploads: number("uploads"),
            forgotten: number("forgotten"),
            unlinked: number("unlinked"),
            orphans: number("orphans"),
            removed: number("removed"),
            retained: 0,
        });
    }

    pub(super) fn line(&self) -> String {
        let Self { collections, uploads, forgotten, unlinked, orphans, removed, retained } = self;
        format!(
            "{collections} collections: {uploads} uploads ended, {forgotten} deleted things forgotten, {unlinked} blobs \
             unlinked, {orphans} without a record, {removed} removed; {retained} things deleted by retention"
        )
    }
}

/// Collects until the server is dead or all clients are done.
pub(super) fn collect(address: SocketAddr, token: &str, mut random: Random, shared: &Shared) -> (Freed, Vec<Finding>) {
    let mut client = Client::new(address, token);
    let (mut freed, mut findings) = (Freed::default(), Vec::new());
    while !shared.dead.load(Ordering::Acquire) && shared.running.load(Ordering::Acquire) > 0 {
        let retains = random.below(3) == 0;
        let asked = match retains {
            true => r#"{"images":"fault/retained-*"}"#,
            false if random.below(4) == 0 => r#"{"scrub":true}"#,
            false => r#"{"scrub":false}"#,
        };
        let path = if retains { "/towpath/v1/registry/retention" } else { "/towpath/v1/registry/gc" };
        let headers = [("Content-Type", "application/json")];
        // Without an answer the server is dead, or a client will say that it is not.
        let sent = client.send(&Ask { method: "POST", path, headers: &headers, body: Some(asked.as_bytes()) });
        let Ok(answer) = sent else { break };
        if answer.status != 200 {
            findings.push(Finding { wrong: Wrong::Answer, text: format!("POST {path}: {}", answer.said()) });
        } else if retains {
            let summary = answer.body.split(|byte| *byte == b'\n').rev().find(|line| !line.is_empty());
            let summary: Value = summary.and_then(|line| serde_json::from_slice(line).ok()).unwrap_or_default();
            freed.retained += summary["summary"]["deleted"].as_u64().unwrap_or(0);
        } else {
            freed.count(&serde_json::from_slice(&answer.body).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(random.below(30)));
    }
    (freed, findings)
}
