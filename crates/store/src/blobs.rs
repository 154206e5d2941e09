//! Blobs: content by its digest, as files or as objects of a bucket.
//!
//! A blob is hashed as it is written and becomes visible whole, synced and under its digest, or not at all. Until a
//! manifest refers to it, its lease keeps it from collection.

mod bucket;
mod error;
mod files;
mod gather;
mod lease;
mod outlet;
mod partial;
mod reader;
mod staged;
mod uploads;
mod writer;

/// Writing for threads that may block.
pub mod blocking {
    pub use super::files::Writer;
}

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use model::{Algorithm, Digest, Timestamp};

use bucket::Bucket;
pub use bucket::BucketOptions;
pub use error::BlobError;
use files::{Files, Place};
pub use lease::BlobLease;
use lease::Leaving;
pub use outlet::{Outlet, Piece};
pub use partial::{Following, FollowingReader, PartialBlob};
pub use reader::BlobReader;
use staged::Staged;
pub use uploads::{UploadId, UploadWriter, Uploads};
pub use writer::BlobWriter;

use crate::records::Records;

/// A blob that is durable and held by the lease it was written under. Only this room makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlob {
    digest: Digest,
    size: u64,
}

impl StoredBlob {
    const fn new(digest: Digest, size: u64) -> Self {
        Self { digest, size }
    }

    /// Its digest.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Its length in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }
}

/// What [`Blobs::delete`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Yes,
    /// There was none.
    Absent,
    /// A lease holds it; the purpose of that lease.
    Held(String),
}

/// A blob as [`Blobs::list`] finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedBlob {
    /// Its digest, as its name says; nobody has looked at the content.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last written.
    pub written: Timestamp,
}

/// The removal of a blob, begun: whoever decides on it asks once more whether anything needs the blob, between
/// [`Blobs::removal`] and [`Removal::carry_out`], and nobody is kept waiting meanwhile.
#[derive(Debug)]
pub struct Removal {
    files: Arc<Files>,
    leaving: Leaving,
}

impl Removal {
    /// What is to be removed.
    pub const fn digest(&self) -> &Digest {
        self.leaving.digest()
    }

    /// Removes the blob, unless a lease came for it since the removal began; that may be over again.
    ///
    /// # Errors
    /// When the file system fails.
    pub async fn carry_out(self) -> Result<Removed, BlobError> {
        blocking_io(move || self.files.remove(&self.leaving)).await
    }
}

/// The blobs of a data directory, or of a bucket. Clones share leases.
#[derive(Clone, Debug)]
pub struct Blobs {
    files: Arc<Files>,
    /// Where uploads to a bucket are recorded.
    records: Option<Records>,
}

impl Blobs {
    /// Opens the blobs in `dir`, creating it if it is not there, and removes what writers of dead processes left behind.
    ///
    /// # Errors
    /// When the directory cannot be made or written to.
    pub async fn open(dir: &Path) -> Result<Self, BlobError> {
        Self::open_at(dir, Place::Directory).await
    }

    /// Opens the blobs of a bucket. Those who write to it below its prefix share `records` too: these say how far uploads
    /// are, and whoever removes blobs must ask there whether anybody wants them, for leases are of one process. What is
    /// being written is in `dir` until it is complete.
    ///
    /// # Errors
    /// When the directory cannot be made or written to, the bucket cannot be looked into, or the tables cannot be made.
    pub async fn open_bucket(dir: &Path, options: &BucketOptions, records: &Records) -> Result<Self, BlobError> {
        staged::install(records).await?;
        let bucket = Bucket::connect(options).await?;
        let blobs = Self::open_at(dir, Place::Bucket(Arc::new(bucket))).await?;
        Ok(Self { records: Some(records.clone()), ..blobs })
    }

    async fn open_at(dir: &Path, place: Place) -> Result<Self, BlobError> {
        let dir = dir.to_owned();
        let files = blocking_io(move || Files::open(&dir, place)).await?;
        Ok(Self { files: Arc::new(files), records: None })
    }

    /// Whether blobs are files of this machine, which have a [path](Blobs::local_path).
    pub fn is_local(&self) -> bool {
        self.files.is_local()
    }

    /// A lease: what is written under it, or [held](BlobLease::hold) by it, is not deleted until it is dropped. `purpose`
    /// says to people what it is for.
    pub fn lease(&self, purpose: &str) -> BlobLease {
        BlobLease::new(Arc::clone(&self.files.held), purpose)
    }

    /// Begins a blob.
    ///
    /// # Errors
    /// When a temporary file cannot be made.
    pub async fn writer(&self, lease: &BlobLease, algorithm: Algorithm) -> Result<BlobWriter, BlobError> {
        let (blobs, lease) = (self.clone(), lease.clone());
        let writer = blocking_io(move || blobs.blocking_writer(&lease, algorithm)).await?;
        Ok(BlobWriter::new(writer))
    }

    /// Begins a blob that others read along while it is written.
    ///
    /// # Errors
    /// When a temporary file cannot be made.
    pub async fn partial(&self, lease: &BlobLease, algorithm: Algorithm) -> Result<PartialBlob, BlobError> {
        let (blobs, lease) = (self.clone(), lease.clone());
        blocking_io(move || PartialBlob::new(blobs.blocking_writer(&lease, algorithm)?)).await
    }

    /// Begins a blob from a thread that may block.
    ///
    /// # Errors
    /// When a temporary file cannot be made.
    pub fn blocking_writer(&self, lease: &BlobLease, algorithm: Algorithm) -> Result<blocking::Writer, BlobError> {
        files::Writer::create(Arc::clone(&self.files), lease.clone(), algorithm)
    }

    /// Stores bytes that are at hand.
    ///
    /// # Errors
    /// As [`BlobWriter::finish`].
    pub async fn put(&self, lease: &BlobLease, bytes: Bytes) -> Result<StoredBlob, BlobError> {
        let mut writer = self.writer(lease, Algorithm::Sha256).await?;
        writer.write(bytes).await?;
        writer.finish().await
    }

    /// The length of a blob in bytes, if there is one.
    ///
    /// # Errors
    /// When the file system fails.
    pub async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let (files, digest) = (Arc::clone(&self.files), *digest);
        blocking_io(move || files.size(&digest)).await
    }

    /// Opens a blob for reading, if there is one. A file stays readable when it is deleted meanwhile.
    ///
    /// # Errors
    /// When the file system fails.
    pub async fn read(&self, digest: &Digest) -> Result<Option<BlobReader>, BlobError> {
        let (files, digest) = (Arc::clone(&self.files), *digest);
        let opened = blocking_io(move || files.source(&digest)).await?;
        Ok(opened.map(|(source, size)| BlobReader::new(source, digest, size)))
    }

    /// The whole of a small blob, checked against its digest.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] when it has more than `limit` bytes, [`BlobError::Corrupt`] when the disk gives something
    /// else than was written.
    pub async fn bytes(&self, digest: &Digest, limit: u64) -> Result<Option<Bytes>, BlobError> {
        let (files, digest) = (Arc::clone(&self.files), *digest);
        blocking_io(move || files.bytes(&digest, limit)).await
    }

    /// Removes a blob unless a lease holds it.
    ///
    /// # Errors
    /// When the file system fails.
    pub async fn delete(&self, digest: &Digest) -> Result<Removed, BlobError> {
        let (files, digest) = (Arc::clone(&self.files), *digest);
        blocking_io(move || files.delete(&digest)).await
    }

    /// Begins to remove a blob.
    ///
    /// # Errors
    /// With the purpose of the lease that holds it, or if it is being removed already.
    pub fn removal(&self, digest: &Digest) -> Result<Removal, String> {
        let leaving = Leaving::begin(&self.files.held, digest)?;
        Ok(Removal { files: Arc::clone(&self.files), leaving })
    }

    /// At most `limit` blobs that come after `after` in the order of their digests' text. Blobs that come or go meanwhile
    /// may be missing or listed.
    ///
    /// # Errors
    /// When the file system fails.
    pub async fn list(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<ListedBlob>, BlobError> {
        let (files, after) = (Arc::clone(&self.files), after.copied());
        blocking_io(move || files.list(after.as_ref(), limit)).await
    }

    /// The file of a blob, if there is one, for readers that want a path. It must not be written to. Nothing for the blobs
    /// of a bucket.
    pub fn local_path(&self, digest: &Digest) -> Option<PathBuf> {
        self.files.local_path(digest)
    }

    /// The uploads that clients send in parts.
    pub fn uploads(&self) -> Uploads {
        let staged = self.records.as_ref().and_then(|records| Staged::new(&self.files, records));
        Uploads::new(Arc::clone(&self.files), staged)
    }
}

/// Runs what waits for a disk on a thread that may.
async fn blocking_io<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    tokio::task::spawn_blocking(f).await.unwrap_or(Err(BlobError::Interrupted))
}

/// `range` cut to what a blob of `size` bytes has.
fn clamp(range: Range<u64>, size: u64) -> Range<u64> {
    let end = range.end.min(size);
    range.start.min(end)..end
}
