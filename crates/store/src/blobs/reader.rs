//! Reading a blob from async code.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use model::Digest;

use crate::blobs::{BlobError, blocking_io, clamp};

/// How much is read at a time.
const CHUNK: u64 = 256 * 1024;

/// An open blob, or a part of it.
#[derive(Debug)]
pub struct BlobReader {
    file: Arc<File>,
    digest: Digest,
    size: u64,
    rest: Range<u64>,
}

impl BlobReader {
    pub(super) fn new(file: File, digest: Digest, size: u64) -> Self {
        Self { file: Arc::new(file), digest, size, rest: 0..size }
    }

    /// The length of the whole blob in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The digest of the whole blob.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Limits what is read from now on to a part of the blob; what lies beyond its end is left out. Returns the part.
    pub fn seek(&mut self, range: Range<u64>) -> Range<u64> {
        self.rest = clamp(range, self.size);
        self.rest.clone()
    }

    /// The next part, at most 256 KiB; nothing at the end.
    ///
    /// # Errors
    /// When the file system fails or the file is shorter than it was.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BlobError> {
        let length = (self.rest.end - self.rest.start).min(CHUNK);
        if length == 0 {
            return Ok(None);
        }
        let (file, at, digest) = (Arc::clone(&self.file), self.rest.start, self.digest);
        let read = move || {
            let mut buffer = vec![0; usize::try_from(length).unwrap_or(0)];
            file.read_exact_at(&mut buffer, at).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => BlobError::Corrupt { digest },
                _ => BlobError::io(digest.hex().as_ref(), error),
            })?;
            Ok(Bytes::from(buffer))
        };
        let chunk = blocking_io(read).await?;
        self.rest.start += length;
        Ok(Some(chunk))
    }
}
