//! The contract of blobs that are read while they are written.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use model::{Algorithm, Digest};
use store::{BlobError, Blobs, Following};

const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn hello() -> Digest {
    HELLO.parse().unwrap()
}

async fn all(following: Following) -> Result<Vec<u8>, BlobError> {
    let mut reader = following.read(0..u64::MAX);
    let mut all = Vec::new();
    while let Some(chunk) = reader.chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

#[tokio::test]
async fn followers_read_what_is_there_and_get_the_last_byte_when_all_is_well() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).await.unwrap();
    let mut partial = blobs.partial(&blobs.lease("test"), Algorithm::Sha256).await.unwrap();
    let early = tokio::spawn(all(partial.follow(5)));
    let mut stepwise = partial.follow(5).read(1..5);
    partial.write(Bytes::from_static(b"hel")).await.unwrap();
    partial.flush().await.unwrap();
    assert_eq!(stepwise.chunk().await.unwrap().unwrap(), &b"el"[..]);
    partial.write(Bytes::from_static(b"lo")).await.unwrap();
    partial.flush().await.unwrap();
    assert_eq!(stepwise.chunk().await.unwrap().unwrap(), &b"l"[..], "the last byte is held back");
    let (late, part) = (partial.follow(5), partial.follow(5));
    let stored = partial.finish_as(&hello()).await.unwrap();
    assert_eq!((stored.digest(), stored.size()), (hello(), 5));
    assert_eq!(stepwise.chunk().await.unwrap().unwrap(), &b"o"[..]);
    assert_eq!(stepwise.chunk().await.unwrap(), None);
    assert_eq!(early.await.unwrap().unwrap(), b"hello");
    // What is open stays readable when the blob is gone again.
    blobs.delete(&hello()).await.unwrap();
    assert_eq!(all(late).await.unwrap(), b"hello");
    let mut middle = part.read(1..3);
    assert_eq!(middle.chunk().await.unwrap().unwrap(), &b"el"[..]);
    assert_eq!(middle.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn what_is_not_what_it_should_be_is_never_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).await.unwrap();
    let mut partial = blobs.partial(&blobs.lease("test"), Algorithm::Sha256).await.unwrap();
    let follower = tokio::spawn(all(partial.follow(5)));
    partial.write(Bytes::from_static(b"jello")).await.unwrap();
    assert!(matches!(partial.finish_as(&hello()).await, Err(BlobError::Mismatch { .. })));
    assert!(matches!(follower.await.unwrap(), Err(BlobError::Interrupted)));
    assert_eq!(blobs.stat(&hello()).await.unwrap(), None);
}

#[tokio::test]
async fn after_an_interruption_only_new_followers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).await.unwrap();
    let mut partial = blobs.partial(&blobs.lease("test"), Algorithm::Sha256).await.unwrap();
    let first = tokio::spawn(all(partial.follow(5)));
    partial.write(Bytes::from_static(b"hel")).await.unwrap();
    partial.flush().await.unwrap();
    partial.interrupt();
    assert!(matches!(first.await.unwrap(), Err(BlobError::Interrupted)));
    let second = tokio::spawn(all(partial.follow(5)));
    assert_eq!(partial.received(), 3);
    partial.write(Bytes::from_static(b"lo")).await.unwrap();
    partial.finish_as(&hello()).await.unwrap();
    assert_eq!(second.await.unwrap().unwrap(), b"hello");
}

#[tokio::test]
async fn a_writer_that_is_dropped_fails_its_followers() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).await.unwrap();
    let partial = blobs.partial(&blobs.lease("test"), Algorithm::Sha512).await.unwrap();
    let follower = tokio::spawn(all(partial.follow(5)));
    drop(partial);
    assert!(matches!(follower.await.unwrap(), Err(BlobError::Interrupted)));
}
