//! Writing a blob from async code.

use bytes::Bytes;
use model::Digest;

use crate::blobs::files::Writer;
use crate::blobs::gather::Gather;
use crate::blobs::{BlobError, StoredBlob};

/// Writes a blob. Dropped unfinished, it leaves nothing behind.
pub struct BlobWriter {
    writer: Gather<Writer>,
    written: u64,
}

impl BlobWriter {
    pub(super) const fn new(writer: Writer) -> Self {
        Self { writer: Gather::new(writer), written: 0 }
    }

    /// How many bytes were written so far.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Writes a chunk. An error may be that of an earlier one.
    ///
    /// # Errors
    /// When the file system fails ([`BlobError::NoSpace`] for a full disk). The blob cannot be finished then.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), BlobError> {
        self.written += chunk.len() as u64;
        self.writer.write(chunk).await
    }

    /// Makes the blob durable under the digest that it has: the file is synced, then its name.
    ///
    /// # Errors
    /// When the file system fails; nothing is left behind.
    pub async fn finish(self) -> Result<StoredBlob, BlobError> {
        self.writer.end(Writer::finish).await
    }

    /// Makes the blob durable if it has the digest `expected`.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`] when it has another, or when the file system fails; nothing is left behind.
    pub async fn finish_as(self, expected: &Digest) -> Result<StoredBlob, BlobError> {
        let expected = *expected;
        self.writer.end(move |writer| writer.finish_as(&expected)).await
    }
}
