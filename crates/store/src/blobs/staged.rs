//! Uploads to a bucket: each part is an object of its own, `PREFIX/uploads/<id>/<random>`, before its client hears that it
//! was taken, and the records say which objects an upload is made of.
//!
//! So any process that shares bucket and records goes on with an upload, finishes or ends it, whatever became of the one
//! that took its parts. Two that write to one upload at the same time send two objects; the transaction that comes second
//! finds that the upload is further than its part begins, and the part does not count.
//!
//! A process keeps what it sent in a file as well, to make the whole of it without fetching it back.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use model::{Algorithm, Digest, Timestamp};

use crate::blobs::bucket::Bucket;
use crate::blobs::files::{Files, Hasher, found, hash_file, random_name};
use crate::blobs::lease::BlobLease;
use crate::blobs::uploads::{Part, Turn, UploadWriter};
use crate::blobs::{BlobError, StoredBlob, UploadId, blocking_io};
use crate::fault;
use crate::records::{Records, RecordsError, Tx};

const STEPS: &[&str] = &["
CREATE TABLE blob_uploads (
    id TEXT NOT NULL PRIMARY KEY,
    written BIGINT NOT NULL
);
CREATE TABLE blob_upload_parts (
    upload TEXT NOT NULL,
    at BIGINT NOT NULL,
    size BIGINT NOT NULL,
    object TEXT NOT NULL,
    -- The SHA-256 of the upload to the end of this part, if whoever took it knew all of that.
    digest TEXT,
    PRIMARY KEY (upload, at)
);
"];

/// The largest object that S3 copies in one request, in bytes.
const MOST_COPIED: u64 = 5 << 30;

/// Makes the tables.
pub(super) async fn install(records: &Records) -> Result<(), RecordsError> {
    records.migrate("blobs", STEPS).await
}

/// The uploads of a bucket.
#[derive(Clone, Debug)]
pub(super) struct Staged {
    files: Arc<Files>,
    bucket: Arc<Bucket>,
    records: Records,
}

/// An object that is a part of an upload.
#[derive(Clone, Debug)]
struct Piece {
    at: u64,
    size: u64,
    object: String,
    digest: Option<Digest>,
}

/// What became of a part.
enum Noted {
    Yes,
    /// There is no such upload any more.
    NoUpload,
    /// Another came first, and the upload has so many bytes now.
    At(u64),
}

impl Staged {
    /// Those of `files`, if they are in a bucket.
    pub(super) fn new(files: &Arc<Files>, records: &Records) -> Option<Self> {
        let bucket = Arc::clone(files.bucket()?);
        Some(Self { files: Arc::clone(files), bucket, records: records.clone() })
    }

    /// Begins an upload.
    pub(super) async fn create(&self) -> Result<UploadId, BlobError> {
        let id = UploadId::random();
        let (key, at) = (id.to_string(), now());
        // No promise is lost with it: the transaction of the first part is durable, and this one with it.
        let begun = self.records.write_later(move |tx| {
            let sql = "INSERT INTO blob_uploads (id, written) VALUES ($1, $2)";
            tx.execute(sql, &[key.into(), at.into()]).map(drop)
        });
        begun.await?;
        Ok(id)
    }

    pub(super) async fn offset(&self, id: &UploadId) -> Result<u64, BlobError> {
        Ok(end(&self.pieces(id).await?))
    }

    /// The parts in their order.
    async fn pieces(&self, id: &UploadId) -> Result<Vec<Piece>, BlobError> {
        let key = id.to_string();
        let read = self.records.read(move |tx| {
            let known = tx.query_first("SELECT id FROM blob_uploads WHERE id = $1", &[key.as_str().into()])?;
            if known.is_none() {
                return Ok(None);
            }
            let sql = "SELECT at, size, object, digest FROM blob_upload_parts WHERE upload = $1 ORDER BY at";
            let mut pieces = Vec::new();
            for row in tx.query(sql, &[key.into()])? {
                let digest: Option<String> = row.get(3)?;
                let digest = digest.and_then(|digest| digest.parse().ok());
                let (at, size) = (row.get::<i64>(0)?.unsigned_abs(), row.get::<i64>(1)?.unsigned_abs());
                pieces.push(Piece { at, size, object: row.get(2)?, digest });
            }
            Ok(Some(pieces))
        });
        read.await?.ok_or_else(|| BlobError::NoUpload(id.to_string()))
    }

    /// Opens an upload to write at its end.
    pub(super) async fn append(&self, turn: Turn, offset: Option<u64>) -> Result<UploadWriter, BlobError> {
        let at = end(&self.pieces(&turn.id).await?);
        if let Some(given) = offset.filter(|given| *given != at) {
            return Err(BlobError::Offset { id: turn.id.to_string(), at, given });
        }
        let (path, staged) = (self.path(&turn.id), Some(self.clone()));
        blocking_io(move || {
            // What was to be its end is not, if somebody sends more.
            turn.with(|upload| upload.tail = None);
            let file = open(&path)?;
            let hasher = if at == 0 { Some(Hasher::new(Algorithm::Sha256)) } else { turn.hasher_at(at) };
            Ok(UploadWriter::new(Part { path, file, hasher, from: at, at, turn, staged }))
        })
        .await
    }

    /// Sends a part and records it.
    pub(super) async fn stage(&self, mut part: Part) -> Result<(), BlobError> {
        let (from, at, id) = (part.from, part.at, part.turn.id.clone());
        if from == at {
            return Ok(());
        }
        let object = random_name();
        let (bucket, name) = (Arc::clone(&self.bucket), object.clone());
        let part_sent = move || {
            bucket.stage((&part.path, &part.file), from..at, &part.turn.id, &name)?;
            Ok(part)
        };
        part = blocking_io(part_sent).await?;
        fault::point(fault::AFTER_UPLOAD_STAGED);
        let digest = part.hasher.clone().map(|hasher| hasher.finish().to_string());
        let (key, name) = (id.to_string(), object.clone());
        let noted = self.records.write(move |tx| note(tx, &key, from..at, &name, digest)).await?;
        let refused = match noted {
            Noted::Yes => {
                let hash = part.hasher.take().map(|hasher| (hasher, at));
                part.turn.with(|upload| {
                    upload.hash = hash;
                    upload.here.insert(object);
                });
                return Ok(());
            }
            Noted::NoUpload => BlobError::NoUpload(id.to_string()),
            Noted::At(at) => BlobError::Offset { id: id.to_string(), at, given: from },
        };
        let bucket = Arc::clone(&self.bucket);
        // If it stays, it goes when uploads expire.
        let _ = blocking_io(move || bucket.remove_staged(&id, &object)).await;
        Err(refused)
    }

    /// Makes a blob of an upload, which stays as it is.
    pub(super) async fn finish(
        &self,
        turn: Turn,
        lease: &BlobLease,
        expected: &Digest,
    ) -> Result<StoredBlob, BlobError> {
        let pieces = self.pieces(&turn.id).await?;
        let (staged, lease, digest) = (self.clone(), lease.clone(), *expected);
        let (turn, finished) = blocking_io(move || {
            let finished = staged.make(&turn, &pieces, &lease, &digest);
            Ok((turn, finished))
        })
        .await?;
        if let Err(BlobError::Mismatch { .. }) = &finished {
            self.abandon(turn).await?;
        }
        finished
    }

    fn make(
        &self,
        turn: &Turn,
        pieces: &[Piece],
        lease: &BlobLease,
        expected: &Digest,
    ) -> Result<StoredBlob, BlobError> {
        let staged = end(pieces);
        let tail = turn.with(|upload| upload.tail.clone()).filter(|tail| tail.start == staged);
        let size = tail.as_ref().map_or(staged, |tail| tail.end);
        if let ([only], None) = (pieces, &tail)
            && only.digest == Some(*expected)
            && size <= MOST_COPIED
        {
            lease.hold(expected);
            fault::point(fault::BEFORE_BLOB_SYNC);
            self.bucket.copy_staged(&turn.id, &only.object, expected)?;
        } else {
            let path = self.path(&turn.id);
            self.gather(turn, pieces, size, &path)?;
            let found = match turn.hasher_at(size) {
                Some(hasher) if expected.algorithm() == Algorithm::Sha256 => hasher.finish(),
                _ => hash_file(&path, expected.algorithm())?,
            };
            if found != *expected {
                return Err(BlobError::Mismatch { expected: *expected, found: Box::new(found) });
            }
            lease.hold(expected);
            fault::point(fault::BEFORE_BLOB_SYNC);
            self.bucket.send(&path, expected)?;
        }
        fault::point(fault::AFTER_BLOB_SYNC);
        Ok(StoredBlob::new(*expected, size))
    }

    /// Has the file hold the whole upload: fetches the parts that others took.
    fn gather(&self, turn: &Turn, pieces: &[Piece], size: u64, path: &Path) -> Result<(), BlobError> {
        let file = open(path)?;
        for piece in pieces {
            if turn.with(|upload| upload.here.contains(&piece.object)) {
                continue;
            }
            let got = self.bucket.fetch_staged(&turn.id, &piece.object, (path, &file), piece.at)?;
            if got != piece.size {
                let message = format!("a part of upload {} has {got} bytes, not {}", turn.id, piece.size);
                return Err(self.bucket.failed(message));
            }
            turn.with(|upload| upload.here.insert(piece.object.clone()));
        }
        file.set_len(size).map_err(|error| BlobError::io(path, error))
    }

    /// Forgets an upload in a transaction of somebody else.
    pub(super) fn forget(tx: &mut Tx<'_>, id: &UploadId) -> Result<(), RecordsError> {
        tx.execute("DELETE FROM blob_upload_parts WHERE upload = $1", &[id.as_str().into()])?;
        tx.execute("DELETE FROM blob_uploads WHERE id = $1", &[id.as_str().into()]).map(drop)
    }

    /// Removes what a forgotten upload left.
    pub(super) async fn clear(&self, id: &UploadId) {
        if let Ok(turn) = Turn::take(&self.files.known_uploads, id)
            && let Err(error) = self.remove(turn).await
        {
            tracing::warn!(upload = %id, %error, "what is left of an upload stays for a while");
        }
    }

    /// Removes the objects of an upload, and what is here of it.
    async fn remove(&self, turn: Turn) -> Result<(), BlobError> {
        let staged = self.clone();
        blocking_io(move || {
            turn.forget();
            remove_file(&staged.path(&turn.id))?;
            let objects = staged.bucket.list_upload(&turn.id)?;
            objects.iter().try_for_each(|object| staged.bucket.remove_staged(&turn.id, object))
        })
        .await
    }

    /// Ends an upload.
    pub(super) async fn abandon(&self, turn: Turn) -> Result<(), BlobError> {
        let id = turn.id.clone();
        let ended = self.records.write(move |tx| {
            tx.execute("DELETE FROM blob_upload_parts WHERE upload = $1", &[id.as_str().into()])?;
            tx.execute("DELETE FROM blob_uploads WHERE id = $1", &[id.as_str().into()])
        });
        if ended.await? == 0 {
            return Err(BlobError::NoUpload(turn.id.to_string()));
        }
        self.remove(turn).await
    }

    /// Ends uploads that nobody wrote to for `age`, and removes what is as old and of no upload.
    pub(super) async fn expire(&self, age: Duration) -> Result<usize, BlobError> {
        let before = Timestamp::from(SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH));
        let idle = self.records.read(move |tx| {
            let rows = tx.query("SELECT id FROM blob_uploads WHERE written <= $1", &[before.into()])?;
            rows.iter().map(|row| row.get::<String>(0)).collect::<Result<Vec<_>, _>>()
        });
        let mut ended = 0;
        for id in idle.await?.iter().filter_map(|id| id.parse().ok()) {
            let Ok(turn) = Turn::take(&self.files.known_uploads, &id) else { continue };
            let gone = self.records.write(move |tx| expire(tx, &id, before)).await?;
            if gone {
                self.remove(turn).await?;
                ended += 1;
            }
        }
        let bucket = Arc::clone(&self.bucket);
        for (id, object) in blocking_io(move || bucket.list_staged(before)).await? {
            if let Err(BlobError::NoUpload(_)) = self.pieces(&id).await {
                let bucket = Arc::clone(&self.bucket);
                blocking_io(move || bucket.remove_staged(&id, &object)).await?;
            }
        }
        self.forget_those_of_others().await?;
        Ok(ended)
    }

    /// Removes the files here of uploads that were ended elsewhere.
    async fn forget_those_of_others(&self) -> Result<(), BlobError> {
        let known: Vec<UploadId> = {
            let table = self.files.known_uploads.lock().unwrap_or_else(PoisonError::into_inner);
            table.keys().cloned().collect()
        };
        for id in known {
            // The turn of one that is in use is not taken, or its client would be sent away.
            if let Err(BlobError::NoUpload(_)) = self.pieces(&id).await
                && let Ok(turn) = Turn::take(&self.files.known_uploads, &id)
            {
                turn.forget();
                remove_file(&self.path(&id))?;
            }
        }
        Ok(())
    }

    /// Where this process gathers an upload.
    fn path(&self, id: &UploadId) -> PathBuf {
        self.files.scratch(id.as_str())
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

fn end(pieces: &[Piece]) -> u64 {
    pieces.last().map_or(0, |last| last.at + last.size)
}

/// The file that an upload is gathered in; what is in it is known elsewhere.
fn open(path: &Path) -> Result<File, BlobError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|error| BlobError::io(path, error))
}

fn remove_file(path: &Path) -> Result<(), BlobError> {
    found(std::fs::remove_file(path), path).map(drop)
}

/// Records a part, if it begins where its upload ends.
fn note(
    tx: &mut Tx<'_>,
    upload: &str,
    range: std::ops::Range<u64>,
    object: &str,
    digest: Option<String>,
) -> Result<Noted, RecordsError> {
    let sql = "UPDATE blob_uploads SET written = $2 WHERE id = $1";
    if tx.execute(sql, &[upload.into(), now().into()])? == 0 {
        return Ok(Noted::NoUpload);
    }
    let sql = "SELECT at + size FROM blob_upload_parts WHERE upload = $1 ORDER BY at DESC LIMIT 1";
    let row = tx.query_first(sql, &[upload.into()])?;
    let at = row.map_or(Ok(0), |row| row.get::<i64>(0))?.unsigned_abs();
    if at != range.start {
        return Ok(Noted::At(at));
    }
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let sql = "INSERT INTO blob_upload_parts (upload, at, size, object, digest) VALUES ($1, $2, $3, $4, $5)";
    let (at, size) = (number(range.start), number(range.end - range.start));
    tx.execute(sql, &[upload.into(), at.into(), size.into(), object.into(), digest.into()])?;
    Ok(Noted::Yes)
}

/// Ends an upload that still nobody wrote to.
fn expire(tx: &mut Tx<'_>, id: &UploadId, before: Timestamp) -> Result<bool, RecordsError> {
    let sql = "DELETE FROM blob_uploads WHERE id = $1 AND written <= $2";
    let gone = tx.execute(sql, &[id.as_str().into(), before.into()])? > 0;
    if gone {
        tx.execute("DELETE FROM blob_upload_parts WHERE upload = $1", &[id.as_str().into()])?;
    }
    Ok(gone)
}
