//! Uploads in parts, as the distribution protocol has them. They survive a restart: an upload is a file below `uploads/`
//! until it is finished. Those to a bucket survive the loss of the process and its disk: see [`staged`](super::staged).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use model::{Algorithm, Digest};

use crate::blobs::files::{Files, Hasher, found, hash_file, random_name};
use crate::blobs::gather::{Append, Gather};
use crate::blobs::lease::BlobLease;
use crate::blobs::staged::Staged;
use crate::blobs::{BlobError, StoredBlob, blocking_io};
use crate::fault;
use crate::records::{RecordsError, Tx};

/// The name of an upload: 32 random hexadecimal digits. Who knows it may write to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(String);

impl UploadId {
    pub(super) fn random() -> Self {
        Self(random_name())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for UploadId {
    type Err = BlobError;

    fn from_str(text: &str) -> Result<Self, BlobError> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 32 && text.bytes().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BlobError::NoUpload(text.chars().take(80).collect()))
        }
    }
}

/// What is known of an upload without reading its file: who writes to it, and the hash of what it has.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub busy: bool,
    pub hash: Option<(Hasher, u64)>,
    /// The staged objects whose bytes are in the file here too.
    pub here: HashSet<String>,
    /// What is in the file after the last staged object: the end of an upload that is about to be finished.
    pub tail: Option<Range<u64>>,
}

impl Known {
    /// Whether there is nothing to remember.
    fn is_nothing(&self) -> bool {
        self.hash.is_none() && self.here.is_empty() && self.tail.is_none()
    }
}

/// All uploads of which something is known.
pub(super) type Table = Arc<Mutex<HashMap<UploadId, Known>>>;

/// The uploads of a data directory, or of a bucket.
#[derive(Clone, Debug)]
pub struct Uploads {
    files: Arc<Files>,
    staged: Option<Staged>,
}

impl Uploads {
    pub(super) fn new(files: Arc<Files>, staged: Option<Staged>) -> Self {
        Self { files, staged }
    }

    /// Begins an upload. What arrives in a directory is hashed on its way with `algorithm`: a digest of another kind costs
    /// one more reading of the whole at the end.
    ///
    /// # Errors
    /// When its file cannot be made.
    pub async fn create(&self, algorithm: Algorithm) -> Result<UploadId, BlobError> {
        if let Some(staged) = &self.staged {
            return staged.create().await;
        }
        let id = UploadId::random();
        let path = self.path(&id);
        blocking_io(move || {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            file.map(drop).map_err(|error| BlobError::io(&path, error))
        })
        .await?;
        let known = Known { hash: Some((Hasher::new(algorithm), 0)), ..Known::default() };
        self.files.known_uploads.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), known);
        Ok(id)
    }

    /// How many bytes an upload has.
    ///
    /// # Errors
    /// [`BlobError::NoUpload`] when there is none.
    pub async fn offset(&self, id: &UploadId) -> Result<u64, BlobError> {
        if let Some(staged) = &self.staged {
            return staged.offset(id).await;
        }
        let (path, id) = (self.path(id), id.clone());
        blocking_io(move || length(&path, &id)).await
    }

    /// Opens an upload to write at its end. `offset`, if the client says one, must be where it is.
    ///
    /// # Errors
    /// [`BlobError::NoUpload`], [`BlobError::Offset`], and [`BlobError::UploadBusy`] while another request of this process
    /// writes.
    pub async fn append(&self, id: &UploadId, offset: Option<u64>) -> Result<UploadWriter, BlobError> {
        let turn = Turn::take(&self.files.known_uploads, id)?;
        if let Some(staged) = &self.staged {
            return staged.append(turn, offset).await;
        }
        let path = self.path(id);
        let id = id.clone();
        blocking_io(move || {
            let at = length(&path, &id)?;
            if let Some(given) = offset.filter(|given| *given != at) {
                return Err(BlobError::Offset { id: id.0, at, given });
            }
            let file = OpenOptions::new().append(true).open(&path).map_err(|error| BlobError::io(&path, error))?;
            let hasher = turn.hasher_at(at);
            Ok(UploadWriter::new(Part { path, file, hasher, from: at, at, turn, staged: None }))
        })
        .await
    }

    /// Makes a blob of an upload if it has the digest `expected`. A mismatch ends the upload. Of one to a bucket, what was
    /// staged stays until it is [forgotten](Uploads::forget), so that another process can finish it too.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`], [`BlobError::NoUpload`], [`BlobError::UploadBusy`], or when the file system fails.
    pub async fn finish(&self, lease: &BlobLease, id: &UploadId, expected: &Digest) -> Result<StoredBlob, BlobError> {
        let turn = Turn::take(&self.files.known_uploads, id)?;
        if let Some(staged) = &self.staged {
            return staged.finish(turn, lease, expected).await;
        }
        let (files, path, id) = (Arc::clone(&self.files), self.path(id), id.clone());
        let (lease, expected) = (lease.clone(), *expected);
        blocking_io(move || {
            let size = length(&path, &id)?;
            let hash = turn.hasher().filter(|(_, hashed)| *hashed == size);
            let found = match hash {
                Some((hasher, _)) if expected.algorithm() == hasher.algorithm() => hasher.finish(),
                // After a restart, or with an algorithm that was not announced, it is read once more.
                _ => hash_file(&path, expected.algorithm())?,
            };
            if found != expected {
                remove(&path)?;
                turn.forget();
                return Err(BlobError::Mismatch { expected, found: Box::new(found) });
            }
            fault::point(fault::BEFORE_BLOB_SYNC);
            let sync = File::open(&path).and_then(|file| file.sync_all());
            sync.map_err(|error| BlobError::io(&path, error))?;
            lease.hold(&expected);
            files.publish(&path, &expected)?;
            fault::point(fault::AFTER_BLOB_SYNC);
            turn.forget();
            Ok(StoredBlob { digest: expected, size })
        })
        .await
    }

    /// Forgets a finished upload in the transaction that makes something of its blob. [`Uploads::clear`] comes after it.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub fn forget(&self, tx: &mut Tx<'_>, id: &UploadId) -> Result<(), RecordsError> {
        if self.staged.is_some() { Staged::forget(tx, id) } else { Ok(()) }
    }

    /// Removes what a finished and forgotten upload left. What cannot be removed now goes when uploads
    /// [expire](Uploads::expire).
    pub async fn clear(&self, id: &UploadId) {
        if let Some(staged) = &self.staged {
            staged.clear(id).await;
        }
    }

    /// Ends an upload and removes what came of it.
    ///
    /// # Errors
    /// [`BlobError::NoUpload`], [`BlobError::UploadBusy`], or when the file system fails.
    pub async fn abandon(&self, id: &UploadId) -> Result<(), BlobError> {
        let turn = Turn::take(&self.files.known_uploads, id)?;
        if let Some(staged) = &self.staged {
            return staged.abandon(turn).await;
        }
        let (path, id) = (self.path(id), id.clone());
        blocking_io(move || {
            length(&path, &id)?;
            remove(&path)?;
            turn.forget();
            Ok(())
        })
        .await
    }

    /// Abandons uploads that nobody wrote to for `age`, and removes what processes that died left of others. Returns how
    /// many were abandoned.
    ///
    /// # Errors
    /// When the file system, the bucket or the records fail.
    pub async fn expire(&self, age: Duration) -> Result<usize, BlobError> {
        if let Some(staged) = &self.staged {
            return staged.expire(age).await;
        }
        let (dir, known) = (self.files.uploads(), Arc::clone(&self.files.known_uploads));
        blocking_io(move || {
            let before = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
            let mut count = 0;
            for entry in dir.read_dir().map_err(|error| BlobError::io(&dir, error))? {
                let path = entry.map_err(|error| BlobError::io(&dir, error))?.path();
                let Some(Ok(id)) = path.file_name().and_then(|name| name.to_str()).map(UploadId::from_str) else {
                    continue;
                };
                let is_old = || -> Result<bool, BlobError> {
                    let written = found(path.metadata().and_then(|metadata| metadata.modified()), &path)?;
                    Ok(written.is_some_and(|written| written <= before))
                };
                // Asked before as well: the turn of one that is in use is not taken, or its client would be sent away.
                if !is_old()? {
                    continue;
                }
                let Ok(turn) = Turn::take(&known, &id) else { continue };
                if is_old()? {
                    remove(&path)?;
                    turn.forget();
                    count += 1;
                }
            }
            Ok(count)
        })
        .await
    }

    fn path(&self, id: &UploadId) -> PathBuf {
        self.files.uploads().join(&id.0)
    }
}

fn length(path: &Path, id: &UploadId) -> Result<u64, BlobError> {
    let metadata = found(path.metadata(), path)?;
    metadata.map(|metadata| metadata.len()).ok_or_else(|| BlobError::NoUpload(id.0.clone()))
}

fn remove(path: &Path) -> Result<(), BlobError> {
    found(std::fs::remove_file(path), path).map(drop)
}

/// The right of one request to write to an upload, given back when it is dropped.
pub(super) struct Turn {
    known: Table,
    pub id: UploadId,
}

impl Turn {
    pub(super) fn take(known: &Table, id: &UploadId) -> Result<Self, BlobError> {
        let mut table = known.lock().unwrap_or_else(PoisonError::into_inner);
        let upload = table.entry(id.clone()).or_default();
        if std::mem::replace(&mut upload.busy, true) {
            return Err(BlobError::UploadBusy(id.0.clone()));
        }
        Ok(Self { known: Arc::clone(known), id: id.clone() })
    }

    /// What is known of the upload.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Known) -> T) -> T {
        f(self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(self.id.clone()).or_default())
    }

    fn hasher(&self) -> Option<(Hasher, u64)> {
        self.with(|upload| upload.hash.clone())
    }

    /// The hash of the first `at` bytes, if it is known.
    pub(super) fn hasher_at(&self, at: u64) -> Option<Hasher> {
        self.hasher().filter(|(_, hashed)| *hashed == at).map(|(hasher, _)| hasher)
    }

    fn keep(&self, hash: Option<(Hasher, u64)>) {
        self.with(|upload| upload.hash = hash);
    }

    /// Forgets all that is known, at the end of the upload.
    pub(super) fn forget(&self) {
        self.with(|upload| *upload = Known { busy: true, ..Known::default() });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut table = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upload) = table.get_mut(&self.id) {
            upload.busy = false;
            // An id that nothing is known of need not be remembered.
            if upload.is_nothing() {
                table.remove(&self.id);
            }
        }
    }
}

/// What a thread needs to write to an upload.
pub(super) struct Part {
    pub path: PathBuf,
    pub file: File,
    pub hasher: Option<Hasher>,
    /// Where the part begins.
    pub from: u64,
    /// Where the next byte goes.
    pub at: u64,
    pub turn: Turn,
    /// Where it goes when it is complete, if it goes anywhere.
    pub staged: Option<Staged>,
}

impl Append for Part {
    fn append(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        if self.staged.is_none() {
            self.turn.keep(None);
        }
        if let Err(error) = self.file.write_all_at(bytes, self.at) {
            // What was written of a failed batch is not counted: the client sends it again from here.
            let _ = self.file.set_len(self.at);
            return Err(BlobError::io(&self.path, error));
        }
        self.at += bytes.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // What goes to a bucket counts once it is there.
        if self.staged.is_none() {
            self.turn.keep(self.hasher.take().map(|hasher| (hasher, self.at)));
        }
    }
}

/// Writes to the end of an upload. Dropped early, an upload in a directory keeps what arrived on disk, one to a bucket
/// forgets it; the client may go on from its [`Uploads::offset`].
pub struct UploadWriter {
    part: Gather<Part>,
    at: u64,
}

impl UploadWriter {
    pub(super) fn new(part: Part) -> Self {
        let at = part.at;
        Self { part: Gather::new(part), at }
    }

    /// How many bytes the upload has, with what was given to [`UploadWriter::write`].
    pub const fn offset(&self) -> u64 {
        self.at
    }

    /// Writes a chunk. An error may be that of an earlier one.
    ///
    /// # Errors
    /// When the file system fails ([`BlobError::NoSpace`] for a full disk).
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), BlobError> {
        self.at += chunk.len() as u64;
        self.part.write(chunk).await
    }

    /// Writes what is left and lets the next request write. Returns how many bytes the upload has. What was written to an
    /// upload to a bucket is there, and in the records, when this returns.
    ///
    /// # Errors
    /// As [`UploadWriter::write`]; [`BlobError::Offset`] and [`BlobError::NoUpload`] when another process has written to
    /// the upload or ended it meanwhile, and nothing of this part counts.
    pub async fn close(self) -> Result<u64, BlobError> {
        let part = self.part.end(Ok).await?;
        if let Some(staged) = part.staged.clone() {
            staged.stage(part).await?;
        }
        fault::point(fault::AFTER_UPLOAD_PART);
        Ok(self.at)
    }

    /// As [`UploadWriter::close`] for the end of an upload that [`Uploads::finish`] follows at once: what was written goes
    /// to a bucket with the whole, and not before.
    ///
    /// # Errors
    /// As [`UploadWriter::write`].
    pub async fn close_last(self) -> Result<u64, BlobError> {
        let mut part = self.part.end(Ok).await?;
        if part.staged.is_some() {
            let (hash, tail) = (part.hasher.take().map(|hasher| (hasher, part.at)), part.from..part.at);
            part.turn.with(|upload| (upload.hash, upload.tail) = (hash, Some(tail)));
        }
        fault::point(fault::AFTER_UPLOAD_PART);
        Ok(self.at)
    }
}
