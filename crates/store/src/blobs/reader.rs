//! Reading a blob from async code.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use model::Digest;
use rustix::io::ReadWriteFlags;

use crate::blobs::{BlobError, blocking_io, clamp};

/// How much is read at a time.
const CHUNK: u64 = 256 * 1024;

/// How many buffers a reader keeps: one that is filled while another is sent.
const KEPT: usize = 2;

/// An open blob, or a part of it.
#[derive(Debug)]
pub struct BlobReader {
    file: Arc<File>,
    digest: Digest,
    size: u64,
    rest: Range<u64>,
    buffers: Arc<Buffers>,
}

impl BlobReader {
    pub(super) fn new(file: File, digest: Digest, size: u64) -> Self {
        Self { file: Arc::new(file), digest, size, rest: 0..size, buffers: Arc::default() }
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
        let at = self.rest.start;
        let mut buffer = self.buffers.take(usize::try_from(length).unwrap_or(0));
        // What is in memory already needs no other thread.
        let ready = ready(&self.file, &mut buffer.bytes, at);
        if ready < buffer.bytes.len() {
            let (file, digest) = (Arc::clone(&self.file), self.digest);
            let read = move || {
                let rest = &mut buffer.bytes[ready..];
                file.read_exact_at(rest, at + ready as u64).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => BlobError::Corrupt { digest },
                    _ => BlobError::io(digest.hex().as_ref(), error),
                })?;
                Ok(buffer)
            };
            buffer = blocking_io(read).await?;
        }
        self.rest.start += length;
        Ok(Some(Bytes::from_owner(buffer)))
    }
}

/// Reads what the system has in its memory; how much that was.
fn ready(file: &File, buffer: &mut [u8], at: u64) -> usize {
    let mut read = 0;
    while read < buffer.len() {
        let mut rest = [IoSliceMut::new(&mut buffer[read..])];
        match rustix::io::preadv2(file, &mut rest, at + read as u64, ReadWriteFlags::NOWAIT) {
            // Whatever stands in the way, the one who may wait finds out.
            Ok(0) | Err(_) => break,
            Ok(count) => read += count,
        }
    }
    read
}

/// Buffers that come back when what they held was sent: new memory has to be made, cleared and given back each time, which
/// takes longer than to fill it.
#[derive(Debug, Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(self: &Arc<Self>, length: usize) -> Buffer {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut bytes = kept.unwrap_or_default();
        bytes.resize(length, 0);
        Buffer { bytes, home: Arc::clone(self) }
    }
}

/// A buffer that goes home when it is dropped.
#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut kept = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}
