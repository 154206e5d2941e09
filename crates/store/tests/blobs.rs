//! The contract of blobs, on files and on a bucket.
#![allow(clippy::unwrap_used)]

#[path = "support/bucket.rs"]
mod bucket;
#[path = "support/place.rs"]
mod place;

use std::io::Write;
use std::path::PathBuf;

use bytes::Bytes;
use model::{Algorithm, Digest};
use place::{Place, hello, on_both};
use store::{BlobError, Blobs, Removed};

on_both! {
    a_blob_is_found_under_its_digest_also_after_opening_again,
    a_large_blob_comes_back_in_parts_and_ranges,
    a_mismatch_leaves_nothing,
    an_unfinished_blob_leaves_nothing,
    only_the_temporary_files_of_the_dead_are_swept,
    a_lease_keeps_a_blob_until_it_is_dropped,
    a_collector_never_takes_what_was_just_written,
    small_blobs_are_checked_as_they_are_read,
    a_blocking_thread_writes_the_same_blobs,
    a_listing_goes_on_where_it_ended,
    a_removal_gives_way_to_whoever_leased_the_blob_meanwhile,
}

async fn read_all(blobs: &Blobs, digest: &Digest) -> Vec<u8> {
    let mut reader = blobs.read(digest).await.unwrap().unwrap();
    let mut all = Vec::new();
    while let Some(chunk) = reader.chunk().await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    all
}

async fn a_blob_is_found_under_its_digest_also_after_opening_again(place: Place) {
    let blobs = place.open().await;
    assert_eq!(blobs.stat(&hello()).await.unwrap(), None);
    assert!(blobs.read(&hello()).await.unwrap().is_none());
    assert_eq!(blobs.local_path(&hello()), None);
    let mut writer = blobs.writer(&blobs.lease("test"), Algorithm::Sha256).await.unwrap();
    writer.write(Bytes::from_static(b"hel")).await.unwrap();
    writer.write(Bytes::from_static(b"lo")).await.unwrap();
    assert_eq!(writer.written(), 5);
    let stored = writer.finish_as(&hello()).await.unwrap();
    assert_eq!((stored.digest(), stored.size()), (hello(), 5));
    drop(blobs);
    let blobs = place.open().await;
    assert_eq!(blobs.stat(&hello()).await.unwrap(), Some(5));
    assert_eq!(read_all(&blobs, &hello()).await, b"hello");
    let file = blobs.local_path(&hello()).map(|path| std::fs::read(path).unwrap());
    assert_eq!(file, blobs.is_local().then(|| b"hello".to_vec()));
}

async fn a_large_blob_comes_back_in_parts_and_ranges(place: Place) {
    let blobs = place.open().await;
    let content: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut writer = blobs.writer(&blobs.lease("test"), Algorithm::Sha512).await.unwrap();
    for part in content.chunks(70_001) {
        writer.write(Bytes::copy_from_slice(part)).await.unwrap();
    }
    let stored = writer.finish().await.unwrap();
    assert_eq!(stored.digest().algorithm(), Algorithm::Sha512);
    assert_eq!(read_all(&blobs, &stored.digest()).await, content);
    let mut reader = blobs.read(&stored.digest()).await.unwrap().unwrap();
    assert_eq!(reader.seek(19_999_990..90_000_000), 19_999_990..20_000_000);
    assert_eq!(reader.chunk().await.unwrap().unwrap(), &content[19_999_990..]);
    assert_eq!(reader.chunk().await.unwrap(), None);
    assert_eq!(reader.seek(50_000_000..60_000_000), 20_000_000..20_000_000);
    assert_eq!(reader.chunk().await.unwrap(), None);
}

async fn a_mismatch_leaves_nothing(place: Place) {
    let blobs = place.open().await;
    for wrong in [hello(), Digest::sha512([7; 64])] {
        let mut writer = blobs.writer(&blobs.lease("test"), Algorithm::Sha256).await.unwrap();
        writer.write(Bytes::from_static(b"goodbye")).await.unwrap();
        let error = writer.finish_as(&wrong).await.unwrap_err();
        assert!(matches!(error, BlobError::Mismatch { expected, .. } if expected == wrong), "{error}");
        assert_eq!(place.left(), Vec::<PathBuf>::new());
    }
}

async fn an_unfinished_blob_leaves_nothing(place: Place) {
    let blobs = place.open().await;
    let mut writer = blobs.writer(&blobs.lease("test"), Algorithm::Sha256).await.unwrap();
    writer.write(Bytes::from(vec![1; 1_000_000])).await.unwrap();
    assert_eq!(place.left().len(), 1);
    drop(writer);
    assert_eq!(place.left(), Vec::<PathBuf>::new());
}

#[test]
fn a_write_given_up_halfway_cannot_be_finished() {
    // One thread for what blocks, and it is busy: the write cannot be done when it is given up.
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).await.unwrap();
        let mut writer = blobs.writer(&blobs.lease("test"), Algorithm::Sha256).await.unwrap();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || wait.recv());
        tokio::select! {
            biased;
            _ = writer.write(Bytes::from(vec![1; 4_000_000])) => panic!("the thread was not busy"),
            () = std::future::ready(()) => {}
        }
        go_on.send(()).unwrap();
        busy.await.unwrap().unwrap();
        assert!(matches!(writer.finish().await, Err(BlobError::Interrupted)));
    });
}

async fn only_the_temporary_files_of_the_dead_are_swept(place: Place) {
    let alive = place.open().await;
    let lease = alive.lease("test");
    let mut writer = alive.writer(&lease, Algorithm::Sha256).await.unwrap();
    writer.write(Bytes::from_static(b"hello")).await.unwrap();
    let dead = place.dir().join("tmp/dead");
    std::fs::create_dir(&dead).unwrap();
    std::fs::write(dead.join("lock"), "").unwrap();
    std::fs::write(dead.join("0"), "half a bl").unwrap();
    let second = place.open().await;
    assert!(!dead.exists());
    writer.finish_as(&hello()).await.unwrap();
    assert_eq!(second.stat(&hello()).await.unwrap(), Some(5));
}

async fn a_lease_keeps_a_blob_until_it_is_dropped(place: Place) {
    let blobs = place.open().await;
    let lease = blobs.lease("push of demo/site");
    blobs.put(&lease, Bytes::from_static(b"hello")).await.unwrap();
    let second = blobs.lease("build");
    second.hold(&hello());
    second.hold(&hello());
    assert_eq!(blobs.delete(&hello()).await.unwrap(), Removed::Held("push of demo/site".to_owned()));
    drop(lease);
    assert_eq!(blobs.delete(&hello()).await.unwrap(), Removed::Held("build".to_owned()));
    drop(second);
    assert_eq!(blobs.delete(&hello()).await.unwrap(), Removed::Yes);
    assert_eq!(blobs.delete(&hello()).await.unwrap(), Removed::Absent);
    assert_eq!(blobs.stat(&hello()).await.unwrap(), None);
}

async fn a_collector_never_takes_what_was_just_written(place: Place) {
    let blobs = place.open().await;
    let collector = tokio::spawn({
        let blobs = blobs.clone();
        async move {
            loop {
                blobs.delete(&hello()).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    for _ in 0..100 {
        let lease = blobs.lease("test");
        blobs.put(&lease, Bytes::from_static(b"hello")).await.unwrap();
        assert_eq!(blobs.stat(&hello()).await.unwrap(), Some(5));
    }
    collector.abort();
}

async fn small_blobs_are_checked_as_they_are_read(place: Place) {
    let blobs = place.open().await;
    let lease = blobs.lease("test");
    blobs.put(&lease, Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(blobs.bytes(&hello(), 5).await.unwrap().unwrap(), "hello");
    assert!(matches!(blobs.bytes(&hello(), 4).await, Err(BlobError::TooLarge { size: 5, limit: 4, .. })));
    std::fs::write(place.file(&hello()), "jello").unwrap();
    assert!(matches!(blobs.bytes(&hello(), 5).await, Err(BlobError::Corrupt { .. })));
    // Written again, it heals.
    blobs.put(&lease, Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(blobs.bytes(&hello(), 5).await.unwrap().unwrap(), "hello");
}

async fn a_blocking_thread_writes_the_same_blobs(place: Place) {
    let blobs = place.open().await;
    let lease = blobs.lease("build");
    let writer = {
        let (blobs, lease) = (blobs.clone(), lease.clone());
        std::thread::spawn(move || {
            let mut writer = blobs.blocking_writer(&lease, Algorithm::Sha256).unwrap();
            writer.write_all(b"hel").unwrap();
            write!(writer, "lo").unwrap();
            assert_eq!(writer.written(), 5);
            writer.finish().unwrap()
        })
    };
    assert_eq!(writer.join().unwrap().digest(), hello());
    assert_eq!(read_all(&blobs, &hello()).await, b"hello");
}

async fn a_listing_goes_on_where_it_ended(place: Place) {
    let blobs = place.open().await;
    let lease = blobs.lease("test");
    let mut stored = Vec::new();
    for number in 0..40 {
        let algorithm = if number % 4 == 0 { Algorithm::Sha512 } else { Algorithm::Sha256 };
        let mut writer = blobs.writer(&lease, algorithm).await.unwrap();
        writer.write(format!("blob {number}").into()).await.unwrap();
        let blob = writer.finish().await.unwrap();
        stored.push((blob.digest().to_string(), blob.size()));
    }
    place.write("sha256/00/notes.txt", "somebody's");
    stored.sort();
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = blobs.list(after.as_ref(), 7).await.unwrap();
        assert!(page.iter().all(|blob| blob.written > model::Timestamp(0)));
        listed.extend(page.iter().map(|blob| (blob.digest.to_string(), blob.size)));
        after = match page.last() {
            Some(last) => Some(last.digest),
            None => break,
        };
    }
    assert_eq!(listed, stored);
}

async fn a_removal_gives_way_to_whoever_leased_the_blob_meanwhile(place: Place) {
    let blobs = place.open().await;
    let first = blobs.lease("push");
    blobs.put(&first, Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(blobs.removal(&hello()).unwrap_err(), "push");
    drop(first);
    let removal = blobs.removal(&hello()).unwrap();
    assert!(blobs.removal(&hello()).is_err(), "one at a time");
    // Taken and given back: whoever had it may have made something of it.
    blobs.lease("mount").hold(&hello());
    assert!(matches!(removal.carry_out().await.unwrap(), Removed::Held(_)));
    assert_eq!(blobs.stat(&hello()).await.unwrap(), Some(5));
    let mut reader = blobs.read(&hello()).await.unwrap().unwrap();
    assert_eq!(blobs.removal(&hello()).unwrap().carry_out().await.unwrap(), Removed::Yes);
    if blobs.is_local() {
        assert_eq!(reader.chunk().await.unwrap().unwrap(), "hello", "whoever reads goes on");
    }
    assert_eq!(blobs.stat(&hello()).await.unwrap(), None);
    assert_eq!(blobs.removal(&hello()).unwrap().carry_out().await.unwrap(), Removed::Absent);
    assert_eq!(place.left(), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_cannot_be_used_is_named_without_its_key() {
    let place = Place::bucket().await;
    let options = place.options();
    for wrong in [
        store::BucketOptions { secret_key: "hunter2".into(), ..options.clone() },
        store::BucketOptions { bucket: "absent".into(), ..options },
    ] {
        let name = wrong.bucket.clone();
        let error = Blobs::open_bucket(place.dir(), &wrong, &place.records().await).await.unwrap_err().to_string();
        assert!(error.contains(&name) && !error.contains("hunter2"), "{error}");
        assert!(!format!("{wrong:?}").contains("hunter2"));
    }
}
