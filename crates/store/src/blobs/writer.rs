//! Writing a blob from async code.

use bytes::Bytes;
use model::Digest;

use crate::blobs::files::Writer;
use crate::blobs::{BlobError, StoredBlob, blocking_io};

/// Small chunks are gathered up to this size before they go to a thread that may block.
const GATHER: usize = 256 * 1024;

/// Writes a blob. Dropped unfinished, it leaves nothing behind.
pub struct BlobWriter {
    /// Away while a thread writes; lost if that write was given up.
    writer: Option<Writer>,
    gathered: Vec<Bytes>,
    gathered_size: usize,
    written: u64,
}

impl BlobWriter {
    pub(super) fn new(writer: Writer) -> Self {
        Self { writer: Some(writer), gathered: Vec::new(), gathered_size: 0, written: 0 }
    }

    /// How many bytes were written so far.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Writes a chunk.
    ///
    /// # Errors
    /// When the file system fails ([`BlobError::NoSpace`] for a full disk). The blob cannot be finished then.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), BlobError> {
        self.written += chunk.len() as u64;
        self.gathered_size += chunk.len();
        self.gathered.push(chunk);
        if self.gathered_size < GATHER && self.gathered.len() < 1024 { Ok(()) } else { self.flush().await }
    }

    /// Makes the blob durable under the digest that it has: the file is synced, then its name.
    ///
    /// # Errors
    /// When the file system fails; nothing is left behind.
    pub async fn finish(mut self) -> Result<StoredBlob, BlobError> {
        self.flush().await?;
        let writer = self.writer.take().ok_or(BlobError::Interrupted)?;
        blocking_io(move || writer.finish()).await
    }

    /// Makes the blob durable if it has the digest `expected`.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`] when it has another, or when the file system fails; nothing is left behind.
    pub async fn finish_as(mut self, expected: &Digest) -> Result<StoredBlob, BlobError> {
        self.flush().await?;
        let writer = self.writer.take().ok_or(BlobError::Interrupted)?;
        let expected = *expected;
        blocking_io(move || writer.finish_as(&expected)).await
    }

    async fn flush(&mut self) -> Result<(), BlobError> {
        let mut writer = self.writer.take().ok_or(BlobError::Interrupted)?;
        let chunks = std::mem::take(&mut self.gathered);
        self.gathered_size = 0;
        let write = move || {
            chunks.iter().try_for_each(|chunk| writer.append(chunk))?;
            Ok(writer)
        };
        self.writer = Some(blocking_io(write).await?);
        Ok(())
    }
}
