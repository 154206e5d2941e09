//! A blob in the making that others read along.
//!
//! One writes, any number follow: each reads the growing file at its own pace, so a slow reader holds up nobody and takes
//! no memory. No reader gets the last byte before the whole was found to have its digest.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use model::Digest;
use tokio::sync::watch;

use crate::blobs::files::Writer;
use crate::blobs::{BlobError, StoredBlob, blocking_io, clamp};

/// Small chunks are gathered up to this size before they go to a thread that may block.
const GATHER: usize = 256 * 1024;

/// How much is read at a time.
const CHUNK: u64 = 256 * 1024;

/// How far the writer is.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Bytes that are in the file.
    written: u64,
    /// Whether they are all, and have the right digest.
    whole: bool,
}

/// Writes a blob that others read along. Dropped unfinished, it leaves nothing behind, and its followers fail.
pub struct PartialBlob {
    /// Away while a thread writes; lost if that write was given up.
    writer: Option<Writer>,
    file: Arc<File>,
    gathered: Vec<Bytes>,
    gathered_size: usize,
    received: u64,
    progress: watch::Sender<Progress>,
}

impl PartialBlob {
    pub(super) fn new(writer: Writer) -> Result<Self, BlobError> {
        let file = Arc::new(writer.reader()?);
        let progress = watch::Sender::default();
        Ok(Self { writer: Some(writer), file, gathered: Vec::new(), gathered_size: 0, received: 0, progress })
    }

    /// How many bytes came so far, with what was not yet given to the file.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Lets others read along what will have `total` bytes.
    pub fn follow(&self, total: u64) -> Following {
        Following { file: Arc::clone(&self.file), progress: self.progress.subscribe(), total }
    }

    /// Adds a chunk. Followers see it when enough has come together, or after [`PartialBlob::flush`].
    ///
    /// # Errors
    /// When the file system fails ([`BlobError::NoSpace`] for a full disk). The blob cannot be finished then.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), BlobError> {
        self.received += chunk.len() as u64;
        self.gathered_size += chunk.len();
        self.gathered.push(chunk);
        if self.gathered_size < GATHER && self.gathered.len() < 1024 { Ok(()) } else { self.flush().await }
    }

    /// Shows followers everything that came.
    ///
    /// # Errors
    /// As [`PartialBlob::write`].
    pub async fn flush(&mut self) -> Result<(), BlobError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let mut writer = self.writer.take().ok_or(BlobError::Interrupted)?;
        let chunks = std::mem::take(&mut self.gathered);
        self.gathered_size = 0;
        let write = move || {
            chunks.iter().try_for_each(|chunk| writer.append(chunk))?;
            Ok(writer)
        };
        let writer = blocking_io(write).await?;
        let written = writer.written();
        self.writer = Some(writer);
        self.progress.send_modify(|progress| progress.written = written);
        Ok(())
    }

    /// Fails those that follow now, and keeps what came for those that follow later.
    pub fn interrupt(&mut self) {
        let written = self.progress.borrow().written;
        self.progress = watch::Sender::new(Progress { written, whole: false });
    }

    /// Makes the blob durable if it has the digest `expected`, and gives followers its last byte.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`] when it has another, or when the file system fails; nothing is left behind.
    pub async fn finish_as(mut self, expected: &Digest) -> Result<StoredBlob, BlobError> {
        self.flush().await?;
        let writer = self.writer.take().ok_or(BlobError::Interrupted)?;
        let expected = *expected;
        let stored = blocking_io(move || writer.finish_as(&expected)).await?;
        self.progress.send_modify(|progress| progress.whole = true);
        Ok(stored)
    }
}

/// What it takes to read a growing blob along. Clones read on their own.
#[derive(Clone, Debug)]
pub struct Following {
    file: Arc<File>,
    progress: watch::Receiver<Progress>,
    total: u64,
}

impl Following {
    /// The length that the whole will have.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Reads a part; what lies beyond the end is left out.
    pub fn read(self, range: Range<u64>) -> FollowingReader {
        FollowingReader { rest: clamp(range, self.total), following: self }
    }
}

/// Reads a growing blob, or a part of it.
#[derive(Debug)]
pub struct FollowingReader {
    following: Following,
    rest: Range<u64>,
}

impl FollowingReader {
    /// The next part, at most 256 KiB, as soon as something is there; nothing at the end.
    ///
    /// # Errors
    /// [`BlobError::Interrupted`] when the writer gave up, or what came is not what it should have been.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BlobError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let Following { file, progress, total } = &mut self.following;
        let readable = |progress: &Progress| match progress.whole {
            true => *total,
            // The last byte is what tells a client that all is well.
            false => progress.written.min(total.saturating_sub(1)),
        };
        let at = self.rest.start;
        let end = match progress.wait_for(|progress| readable(progress) > at).await {
            Ok(progress) => readable(&progress).min(self.rest.end).min(at + CHUNK),
            Err(_) => return Err(BlobError::Interrupted),
        };
        let file = Arc::clone(file);
        let read = move || {
            let mut buffer = vec![0; usize::try_from(end - at).unwrap_or(0)];
            let read = file.read_exact_at(&mut buffer, at);
            read.map_err(|error| BlobError::io("a blob that is being written".as_ref(), error))?;
            Ok(Bytes::from(buffer))
        };
        let chunk = blocking_io(read).await?;
        self.rest.start = end;
        Ok(Some(chunk))
    }
}
