//! A full disk: a real one, small, in a mount namespace of its own.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use model::{Algorithm, Timestamp};
use sha2::Digest as _;
use store::log::{NewEvent, append};
use store::{Blobs, DataDir, DataDirError, Location, Records};

const DISK: &str = "TOWPATH_TEST_SMALL_DISK";

/// Runs the test `name` of this file again with a disk of 8 MiB, and returns that disk inside of it.
fn small_disk(name: &str) -> Option<PathBuf> {
    disk_of(8, name)
}

/// The same with a disk of so many MiB.
fn disk_of(size: u32, name: &str) -> Option<PathBuf> {
    if let Some(disk) = std::env::var_os(DISK) {
        return Some(disk.into());
    }
    let directory = tempfile::tempdir().unwrap();
    let root = std::fs::metadata("/proc/self").map(|me| std::os::unix::fs::MetadataExt::uid(&me)).unwrap() == 0;
    let namespaces = if root { "-m" } else { "-Urm" };
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args([namespaces, "sh", "-c", script, "sh"]).arg(directory.path());
        command
    };
    let mount = format!("mount -t tmpfs -o size={size}m none \"$1\"");
    if !unshare(&mount).stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success()) {
        let _ = writeln!(std::io::stderr(), "skipped: a mount namespace for a small disk");
        return None;
    }
    let script = format!("{mount} && exec \"$2\" --exact \"$3\" --nocapture");
    let output =
        unshare(&script).arg(std::env::current_exe().unwrap()).arg(name).env(DISK, directory.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
    None
}

/// Fills what is left of the disk.
fn fill(disk: &Path) {
    let mut file = std::fs::File::create(disk.join("ballast")).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in dir.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn is_ours(path: &Path) -> bool {
    !path.ends_with("lock") && !path.ends_with("tmp.lock")
}

#[tokio::test]
async fn a_blob_on_a_full_disk_leaves_nothing() {
    let Some(disk) = small_disk("a_blob_on_a_full_disk_leaves_nothing") else { return };
    let blobs = Blobs::open(&disk.join("blobs")).await.unwrap();
    let lease = blobs.lease("test");
    let mut writer = blobs.writer(&lease, Algorithm::Sha256).await.unwrap();
    let mut error = None;
    for _ in 0..64 {
        if let Err(failure) = writer.write(Bytes::from(vec![7; 512 * 1024])).await {
            error = Some(failure);
            break;
        }
    }
    let error = error.expect("32 MiB do not fit on 8");
    assert!(error.is_no_space(), "{error}");
    assert!(writer.finish().await.is_err());
    let left: Vec<_> = files(&disk).into_iter().filter(|path| is_ours(path)).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
    // There is room again.
    blobs.put(&lease, Bytes::from(vec![7; 1024 * 1024])).await.unwrap();
}

#[tokio::test]
async fn an_upload_on_a_full_disk_keeps_what_it_had() {
    let Some(disk) = small_disk("an_upload_on_a_full_disk_keeps_what_it_had") else { return };
    let blobs = Blobs::open(&disk.join("blobs")).await.unwrap();
    let uploads = blobs.uploads();
    let id = uploads.create(Algorithm::Sha256).await.unwrap();
    let mut writer = uploads.append(&id, Some(0)).await.unwrap();
    writer.write(Bytes::from(vec![7; 1024 * 1024])).await.unwrap();
    let error = writer.write(Bytes::from(vec![8; 16 * 1024 * 1024])).await.unwrap_err();
    assert!(error.is_no_space(), "{error}");
    drop(writer);
    // What fitted stays, and nothing of what is counted is missing.
    let kept = usize::try_from(uploads.offset(&id).await.unwrap()).unwrap();
    assert!((1024 * 1024..=8 * 1024 * 1024).contains(&kept), "{kept}");
    let mut bytes = vec![7; 1024 * 1024];
    bytes.resize(kept, 8);
    let expected = model::Digest::sha256(sha2::Sha256::digest(&bytes).into());
    uploads.finish(&blobs.lease("test"), &id, &expected).await.unwrap();
}

#[tokio::test]
async fn records_on_a_full_disk_say_so_and_go_on_when_there_is_room() {
    let Some(disk) = small_disk("records_on_a_full_disk_say_so_and_go_on_when_there_is_room") else { return };
    let records = Records::open(Location::Sqlite(disk.join("towpath.db"))).await.unwrap();
    store::log::install(&records).await.unwrap();
    fill(&disk);
    let write = |size: usize| {
        let event = NewEvent { stream: 1, kind: "Happened".into(), version: 1, body: "x".repeat(size) };
        records.write(move |tx| append(tx, Timestamp(1), &[event]))
    };
    let error = write(1024 * 1024).await.unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert_eq!(records.read(store::log::last).await.unwrap(), 0);
    std::fs::remove_file(disk.join("ballast")).unwrap();
    assert_eq!(write(1024 * 1024).await.unwrap(), [1]);
}

#[tokio::test]
async fn a_data_directory_on_a_full_disk_is_one_clear_line() {
    let Some(disk) = small_disk("a_data_directory_on_a_full_disk_is_one_clear_line") else { return };
    fill(&disk);
    let error = DataDir::open(disk.join("data")).unwrap_err();
    assert!(matches!(error, DataDirError::NoSpace { .. }), "{error}");
    assert!(!disk.join("data/format").exists());
    std::fs::remove_file(disk.join("ballast")).unwrap();
    DataDir::open(disk.join("data")).unwrap();
}

#[tokio::test]
async fn a_full_disk_has_room_for_what_frees_it() {
    let Some(disk) = disk_of(64, "a_full_disk_has_room_for_what_frees_it") else { return };
    let dir = disk.join("data");
    let write = async |data: &DataDir, kind: &str| {
        let records = Records::open(data.records()).await?;
        store::log::install(&records).await?;
        let event = NewEvent { stream: 1, kind: kind.into(), version: 1, body: "x".repeat(100_000) };
        records.write(move |tx| append(tx, Timestamp(1), &[event])).await.map(drop)
    };
    let data = DataDir::open(&dir).unwrap();
    write(&data, "Pushed").await.unwrap();
    assert!(data.reserve().set_aside().unwrap());
    fill(&disk);
    assert!(write(&data, "Pushed").await.unwrap_err().is_no_space());
    assert!(!data.reserve().is_out());
    data.reserve().give_way();
    assert!(data.reserve().is_out());
    write(&data, "Deleted").await.unwrap();
    assert!(!data.reserve().set_aside().unwrap(), "there is no room for it yet");
    std::fs::remove_file(disk.join("ballast")).unwrap();
    assert!(data.reserve().set_aside().unwrap() && !data.reserve().is_out());
    // A start makes the same room for itself.
    fill(&disk);
    drop(data);
    let data = DataDir::open(&dir).unwrap();
    assert!(data.reserve().is_out());
    Blobs::open(&data.blobs()).await.unwrap();
    write(&data, "Deleted").await.unwrap();
}
