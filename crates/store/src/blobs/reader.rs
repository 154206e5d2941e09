//! Reading a blob from async code.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use model::Digest;
use rustix::io::ReadWriteFlags;

use crate::blobs::bucket::Bucket;
use crate::blobs::outlet::Outlet;
use crate::blobs::{BlobError, blocking_io, clamp};

/// How much is read at a time.
const CHUNK: u64 = 256 * 1024;

/// How many buffers a reader keeps: one that is filled while another is sent.
const KEPT: usize = 2;

/// What a blob is read from.
pub(super) enum Source {
    /// A file, through buffers that are used again.
    File(Arc<File>, Arc<Buffers>),
    /// An object, and what is on its way from there.
    Object(Arc<Bucket>, Option<BoxStream<'static, Result<Bytes, BlobError>>>),
}

impl Source {
    pub(super) fn file(file: File) -> Self {
        Self::File(Arc::new(file), Arc::default())
    }

    pub(super) const fn object(bucket: Arc<Bucket>) -> Self {
        Self::Object(bucket, None)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file, _) => file.fmt(f),
            Self::Object(bucket, _) => bucket.fmt(f),
        }
    }
}

/// An open blob, or a part of it.
#[derive(Debug)]
pub struct BlobReader {
    source: Source,
    digest: Digest,
    size: u64,
    rest: Range<u64>,
    outlet: Option<Outlet>,
}

impl BlobReader {
    pub(super) fn new(source: Source, digest: Digest, size: u64) -> Self {
        Self { source, digest, size, rest: 0..size, outlet: None }
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
        if let Source::Object(_, stream) = &mut self.source {
            *stream = None;
        }
        self.rest.clone()
    }

    /// All that is read from now on goes to the socket behind `outlet`, and is looked at by nobody before.
    pub fn send_through(&mut self, outlet: Outlet) {
        self.outlet = Some(outlet);
    }

    /// The next part, of at most 1 MiB; nothing at the end.
    ///
    /// # Errors
    /// When the file system fails, the bucket does, or there is less than there was.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BlobError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (digest, rest) = (self.digest, self.rest.clone());
        let chunk = match &mut self.source {
            Source::File(file, buffers) => {
                match self.outlet.as_ref().and_then(|outlet| outlet.offer(file, rest.clone())) {
                    Some(chunk) => chunk,
                    None => from_file(file, buffers, rest, digest).await?,
                }
            }
            Source::Object(bucket, stream) => {
                let stream = match stream {
                    Some(stream) => stream,
                    None => stream.insert(bucket.stream(&digest, rest).await?),
                };
                stream.next().await.unwrap_or(Err(BlobError::Corrupt { digest }))?
            }
        };
        self.rest.start += chunk.len() as u64;
        Ok(Some(chunk))
    }
}

async fn from_file(
    file: &Arc<File>,
    buffers: &Arc<Buffers>,
    rest: Range<u64>,
    digest: Digest,
) -> Result<Bytes, BlobError> {
    let at = rest.start;
    let mut buffer = buffers.take(usize::try_from((rest.end - at).min(CHUNK)).unwrap_or(0));
    // What is in memory already needs no other thread.
    let ready = ready(file, &mut buffer.bytes, at);
    if ready < buffer.bytes.len() {
        let file = Arc::clone(file);
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
    Ok(Bytes::from_owner(buffer))
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
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

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
