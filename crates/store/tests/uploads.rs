//! The contract of uploads: in a directory, to a bucket, and to a bucket that several processes share.
#![allow(clippy::unwrap_used)]

#[path = "support/bucket.rs"]
mod bucket;
#[path = "support/place.rs"]
mod place;
#[path = "support/postgresql.rs"]
mod postgresql;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use model::Algorithm;
use place::{Place, files, hello, on_both};
use store::{BlobError, Blobs, Location, Records, StoredBlob, UploadId};

on_both! {
    an_upload_goes_on_after_a_restart,
    an_upload_has_one_writer,
    a_wrong_or_abandoned_upload_leaves_nothing,
    old_uploads_expire_but_not_the_one_in_use,
    a_search_for_old_uploads_sends_no_client_away,
    an_upload_in_many_parts_is_whole_under_either_algorithm,
}

/// What whoever finished an upload does when its blob is part of something.
async fn done(place: &Place, blobs: &Blobs, id: &UploadId) {
    forget(&place.records().await, blobs, id).await;
}

async fn forget(records: &Records, blobs: &Blobs, id: &UploadId) {
    let (uploads, forgotten) = (blobs.uploads(), id.clone());
    records.write(move |tx| uploads.forget(tx, &forgotten)).await.unwrap();
    blobs.uploads().clear(id).await;
}

/// Sends a part from `at` on; how far the upload is then.
async fn send(blobs: &Blobs, id: &UploadId, at: u64, bytes: &'static [u8]) -> Result<u64, BlobError> {
    let mut part = blobs.uploads().append(id, Some(at)).await?;
    part.write(Bytes::from_static(bytes)).await?;
    part.close().await
}

async fn an_upload_goes_on_after_a_restart(place: Place) {
    let blobs = place.open().await;
    let id = blobs.uploads().create(Algorithm::Sha256).await.unwrap();
    let mut part = blobs.uploads().append(&id, None).await.unwrap();
    part.write(Bytes::from_static(b"hel")).await.unwrap();
    assert_eq!(part.close().await.unwrap(), 3);
    drop(blobs);

    let blobs = place.open().await;
    let uploads = blobs.uploads();
    let id: UploadId = id.to_string().parse().unwrap();
    assert_eq!(uploads.offset(&id).await.unwrap(), 3);
    let wrong = uploads.append(&id, Some(2)).await.err().unwrap();
    assert!(matches!(wrong, BlobError::Offset { at: 3, given: 2, .. }), "{wrong}");
    let mut part = uploads.append(&id, Some(3)).await.unwrap();
    part.write(Bytes::from_static(b"lo")).await.unwrap();
    part.close().await.unwrap();
    let stored = uploads.finish(&blobs.lease("test"), &id, &hello()).await.unwrap();
    assert_eq!(stored.size(), 5);
    assert_eq!(blobs.bytes(&hello(), 5).await.unwrap().unwrap(), "hello");
    done(&place, &blobs, &id).await;
    assert!(matches!(uploads.offset(&id).await, Err(BlobError::NoUpload(_))));
}

async fn an_upload_has_one_writer(place: Place) {
    let blobs = place.open().await;
    let id = blobs.uploads().create(Algorithm::Sha256).await.unwrap();
    let part = blobs.uploads().append(&id, None).await.unwrap();
    assert!(matches!(blobs.uploads().append(&id, None).await.err(), Some(BlobError::UploadBusy(_))));
    let lease = blobs.lease("test");
    assert!(matches!(blobs.uploads().finish(&lease, &id, &hello()).await, Err(BlobError::UploadBusy(_))));
    assert!(matches!(blobs.uploads().abandon(&id).await, Err(BlobError::UploadBusy(_))));
    drop(part);
    let mut part = blobs.uploads().append(&id, None).await.unwrap();
    part.write(Bytes::from_static(b"hello")).await.unwrap();
    part.close().await.unwrap();
    blobs.uploads().finish(&lease, &id, &hello()).await.unwrap();
}

async fn a_wrong_or_abandoned_upload_leaves_nothing(place: Place) {
    let blobs = place.open().await;
    let uploads = blobs.uploads();
    let id = uploads.create(Algorithm::Sha256).await.unwrap();
    let error = uploads.finish(&blobs.lease("test"), &id, &hello()).await.unwrap_err();
    assert!(matches!(error, BlobError::Mismatch { .. }), "{error}");
    let id = uploads.create(Algorithm::Sha256).await.unwrap();
    uploads.abandon(&id).await.unwrap();
    assert!(matches!(uploads.abandon(&id).await, Err(BlobError::NoUpload(_))));
    assert_eq!(place.left(), Vec::<PathBuf>::new());
}

async fn old_uploads_expire_but_not_the_one_in_use(place: Place) {
    let blobs = place.open().await;
    let uploads = blobs.uploads();
    let (old, used) =
        (uploads.create(Algorithm::Sha256).await.unwrap(), uploads.create(Algorithm::Sha256).await.unwrap());
    let part = uploads.append(&used, None).await.unwrap();
    assert_eq!(uploads.expire(Duration::from_secs(3600)).await.unwrap(), 0);
    assert_eq!(uploads.expire(Duration::ZERO).await.unwrap(), 1);
    assert!(uploads.offset(&old).await.is_err());
    part.close().await.unwrap();
    assert_eq!(uploads.offset(&used).await.unwrap(), 0);
}

async fn a_search_for_old_uploads_sends_no_client_away(place: Place) {
    let blobs = place.open().await;
    let uploads = blobs.uploads();
    let used = uploads.create(Algorithm::Sha256).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let searcher = tokio::spawn({
        let uploads = uploads.clone();
        async move {
            while !*stopped.borrow() {
                assert_eq!(uploads.expire(Duration::from_secs(3600)).await.unwrap(), 0);
            }
        }
    });
    for _ in 0..300 {
        uploads.append(&used, None).await.unwrap().close().await.unwrap();
    }
    stop.send_replace(true);
    searcher.await.unwrap();
}

#[test]
fn an_upload_id_is_never_a_path() {
    for bad in ["", "..", "../../../etc/passwd0000000000000", "ABCDEF00000000000000000000000000", "a/b"] {
        assert!(bad.parse::<UploadId>().is_err(), "{bad}");
    }
}

async fn an_upload_in_many_parts_is_whole_under_either_algorithm(place: Place) {
    let blobs = place.open().await;
    let uploads = blobs.uploads();
    let content: Vec<u8> = (0..20_000_000_u32).map(|number| (number >> 3) as u8 ^ (number >> 17) as u8).collect();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let mut writer = blobs.writer(&blobs.lease("test"), algorithm).await.unwrap();
        writer.write(content.clone().into()).await.unwrap();
        let expected = writer.finish().await.unwrap().digest();
        blobs.delete(&expected).await.unwrap();
        let id = uploads.create(Algorithm::Sha256).await.unwrap();
        for (range, last) in [(0..11_000_000, false), (11_000_000..11_000_001, false), (11_000_001..20_000_000, true)] {
            let mut part = uploads.append(&id, Some(range.start as u64)).await.unwrap();
            for chunk in content[range].chunks(1 << 20) {
                part.write(Bytes::copy_from_slice(chunk)).await.unwrap();
            }
            if last {
                part.close_last().await.unwrap()
            } else {
                part.close().await.unwrap()
            };
        }
        let stored = uploads.finish(&blobs.lease("test"), &id, &expected).await.unwrap();
        assert_eq!(stored.size(), 20_000_000);
        done(&place, &blobs, &id).await;
        assert!(blobs.bytes(&expected, 1 << 30).await.unwrap().unwrap() == content, "checked against its digest");
        assert_eq!(place.left(), [place.file(&expected)]);
        blobs.delete(&expected).await.unwrap();
    }
}

/// Two processes that share a bucket and records: what each has in memory and on disk is its own.
struct Two {
    bucket: bucket::Server,
    database: String,
}

impl Two {
    /// Nothing after saying what is missing.
    async fn start() -> Option<Self> {
        Some(Self { database: postgresql::database()?, bucket: bucket::Server::start().await })
    }

    async fn open(&self) -> (tempfile::TempDir, Records, Blobs) {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(Location::Postgres(self.database.clone())).await.unwrap();
        let blobs = Blobs::open_bucket(dir.path(), &self.bucket.options(), &records).await.unwrap();
        (dir, records, blobs)
    }

    /// What is in the bucket below `uploads/`.
    fn staged(&self) -> usize {
        let dir = self.bucket.objects().join("uploads");
        if dir.exists() { files(&dir).len() } else { 0 }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_goes_on_with_what_was_acknowledged() {
    let Some(two) = Two::start().await else { return };
    let ((first_dir, _records, first), (_second_dir, records, second)) = (two.open().await, two.open().await);
    let id = first.uploads().create(Algorithm::Sha256).await.unwrap();
    assert_eq!(second.uploads().offset(&id).await.unwrap(), 0);
    assert_eq!(send(&first, &id, 0, b"h").await.unwrap(), 1);
    assert_eq!(send(&second, &id, 1, b"el").await.unwrap(), 3);
    assert_eq!(send(&first, &id, 3, b"l").await.unwrap(), 4);
    // It dies in the middle of a part, and its disk is lost.
    let mut part = first.uploads().append(&id, Some(4)).await.unwrap();
    part.write(Bytes::from_static(b"o, this never arrives")).await.unwrap();
    std::fs::remove_dir_all(first_dir.path()).unwrap();
    assert_eq!(second.uploads().offset(&id).await.unwrap(), 4);
    assert_eq!(send(&second, &id, 4, b"o").await.unwrap(), 5);
    let stored: StoredBlob = second.uploads().finish(&second.lease("test"), &id, &hello()).await.unwrap();
    assert_eq!((stored.digest(), stored.size()), (hello(), 5));
    // Whoever asks again before it is forgotten gets the same.
    second.uploads().finish(&second.lease("test"), &id, &hello()).await.unwrap();
    forget(&records, &second, &id).await;
    assert_eq!(second.bytes(&hello(), 5).await.unwrap().unwrap(), "hello");
    assert!(matches!(first.uploads().offset(&id).await, Err(BlobError::NoUpload(_))));
    assert!(matches!(part.close().await, Err(BlobError::NoUpload(_))));
    assert_eq!(two.staged(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_at_once_one_is_told_where_the_upload_is() {
    let Some(two) = Two::start().await else { return };
    let ((_one, records, first), (_other, _, second)) = (two.open().await, two.open().await);
    for round in 0..10 {
        let id = first.uploads().create(Algorithm::Sha256).await.unwrap();
        let (a, b) = tokio::join!(send(&first, &id, 0, b"hel"), send(&second, &id, 0, b"hell"));
        let at = first.uploads().offset(&id).await.unwrap();
        assert_eq!(second.uploads().offset(&id).await.unwrap(), at);
        let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
        assert_eq!(won.unwrap(), at, "round {round}");
        assert!(matches!(lost, Err(BlobError::Offset { at: found, given: 0, .. }) if found == at), "{lost:?}");
        assert_eq!(two.staged(), 1, "the other's part is gone");
        // The end comes by the one that lost: it has to fetch what it does not have, over what it has wrongly.
        let loser = if at == 3 { &second } else { &first };
        let rest: &[u8] = if at == 3 { b"lo" } else { b"o" };
        let mut part = loser.uploads().append(&id, None).await.unwrap();
        part.write(Bytes::from_static(rest)).await.unwrap();
        part.close_last().await.unwrap();
        assert_eq!(two.staged(), 1, "the end is not sent twice");
        loser.uploads().finish(&loser.lease("test"), &id, &hello()).await.unwrap();
        forget(&records, loser, &id).await;
        assert_eq!(first.bytes(&hello(), 5).await.unwrap().unwrap(), "hello");
        first.delete(&hello()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_part_becomes_a_blob_without_being_sent_again() {
    let Some(two) = Two::start().await else { return };
    let ((_one, _records, first), (other, records, second)) = (two.open().await, two.open().await);
    let id = first.uploads().create(Algorithm::Sha256).await.unwrap();
    send(&first, &id, 0, b"hello").await.unwrap();
    second.uploads().finish(&second.lease("test"), &id, &hello()).await.unwrap();
    let gathered = files(other.path()).into_iter().filter(|file| file.ends_with(id.as_str())).count();
    assert_eq!(gathered, 0, "nothing was fetched to be sent");
    assert_eq!(second.bytes(&hello(), 5).await.unwrap().unwrap(), "hello");
    forget(&records, &second, &id).await;
    // What the one that took the part kept of it goes when uploads expire.
    first.uploads().expire(Duration::from_secs(3600)).await.unwrap();
    assert_eq!(two.staged(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_dead_left_in_the_bucket_goes_with_time() {
    let Some(two) = Two::start().await else { return };
    let ((_one, records, first), (_other, _, second)) = (two.open().await, two.open().await);
    let (id, kept) = (
        first.uploads().create(Algorithm::Sha256).await.unwrap(),
        first.uploads().create(Algorithm::Sha256).await.unwrap(),
    );
    send(&first, &id, 0, b"hel").await.unwrap();
    send(&first, &kept, 0, b"hel").await.unwrap();
    // Its record goes; whoever did that died before the objects went.
    let (uploads, forgotten) = (first.uploads(), id.clone());
    records.write(move |tx| uploads.forget(tx, &forgotten)).await.unwrap();
    assert_eq!(second.uploads().expire(Duration::from_secs(3600)).await.unwrap(), 0);
    assert_eq!(two.staged(), 2, "too young to be nobody's");
    let keep = second.uploads().append(&kept, Some(3)).await.unwrap();
    assert_eq!(second.uploads().expire(Duration::ZERO).await.unwrap(), 0, "one is being written to here");
    assert_eq!(two.staged(), 1);
    drop(keep);
    assert_eq!(second.uploads().expire(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(two.staged(), 0);
    assert!(matches!(send(&first, &kept, 3, b"lo").await, Err(BlobError::NoUpload(_))));
}
