//! Cuts at the fault points: this file's own processes are killed, and what they left is looked at.
//! Run with `cargo test -p store --features fault`.
#![allow(clippy::unwrap_used)]

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use model::{Digest, Timestamp};
use store::log::{NewEvent, after, append, last};
use store::{Blobs, Location, Records};

const DIRECTORY: &str = "TOWPATH_TEST_VICTIM";

/// Runs the test `victim` of this file in a process that dies at `fault`.
fn cut(directory: &Path, victim: &str, fault: &str) {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", victim])
        .env(DIRECTORY, directory)
        .env("TOWPATH_FAULT", fault)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(9), "the process did not die at {fault}");
}

fn directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

async fn open(directory: &Path) -> Records {
    let records = Records::open(Location::Sqlite(directory.join("towpath.db"))).await.unwrap();
    store::log::install(&records).await.unwrap();
    records
}

/// Not a test of its own: appends pairs of events until it is killed.
#[tokio::test]
async fn victim_that_appends() {
    let Some(directory) = directory() else { return };
    let records = open(&directory).await;
    for number in 0..100_i64 {
        let event = NewEvent { stream: number, kind: "Happened".into(), version: 1, body: String::new() };
        records.write(move |tx| append(tx, Timestamp(0), &[event.clone(), event])).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_synced_is_there_and_nothing_else() {
    for (fault, expected) in [("before-sync:5", 8), ("after-sync:5", 10), ("before-sync:1", 0)] {
        let directory = tempfile::tempdir().unwrap();
        cut(directory.path(), "victim_that_appends", fault);
        let records = open(directory.path()).await;
        assert_eq!(records.read(last).await.unwrap(), expected, "{fault}");
        let events = records.read(|tx| after(tx, 0, usize::MAX)).await.unwrap();
        assert!(events.iter().map(|event| event.seq).eq(1..=expected), "{fault} left a gap");
    }
}

#[tokio::test]
async fn any_counts_every_point() {
    let directory = tempfile::tempdir().unwrap();
    cut(directory.path(), "victim_that_appends", "any:25");
    let records = open(directory.path()).await;
    assert!(records.read(last).await.unwrap() > 0);
}

const CONTENT: &[u8] = b"what is in the blob";

/// Not a test of its own: writes a blob and is killed.
#[tokio::test]
async fn victim_that_writes_a_blob() {
    let Some(directory) = directory() else { return };
    let blobs = Blobs::open(&directory.join("blobs")).await.unwrap();
    blobs.put(&blobs.lease("test"), Bytes::from_static(CONTENT)).await.unwrap();
}

#[tokio::test]
async fn a_blob_is_whole_or_absent() {
    let digest: Digest = {
        let other = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(other.path()).await.unwrap();
        blobs.put(&blobs.lease("test"), Bytes::from_static(CONTENT)).await.unwrap().digest()
    };
    for (fault, there) in [("before-blob-sync:1", false), ("after-blob-sync:1", true)] {
        let directory = tempfile::tempdir().unwrap();
        cut(directory.path(), "victim_that_writes_a_blob", fault);
        let tmp = directory.path().join("blobs/tmp");
        assert_eq!(tmp.read_dir().unwrap().count(), 1, "the dead process leaves its temporary files");
        let blobs = Blobs::open(&directory.path().join("blobs")).await.unwrap();
        let found = blobs.bytes(&digest, 1024).await.unwrap();
        assert_eq!(found.as_deref(), there.then_some(CONTENT), "{fault}");
        let own = tmp.read_dir().unwrap().next().unwrap().unwrap().path();
        assert_eq!(own.read_dir().unwrap().count(), 1, "only the lock of the living one is left");
    }
}
