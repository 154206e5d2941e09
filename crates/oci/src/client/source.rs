//! What a pushed blob is read from.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::Mutex;

use super::{ClientError, Remote};
use crate::Descriptor;

/// The bytes of a blob from some place on.
pub type ByteStream = BoxStream<'static, Result<Bytes, ClientError>>;

type Open = dyn Fn(u64) -> BoxFuture<'static, Result<ByteStream, ClientError>> + Send + Sync;

/// Where the bytes of a blob come from. It is opened again at the place where an upload broke off.
#[derive(Clone)]
pub struct BlobSource(Arc<Open>);

/// How much of a file is read at a time.
const PIECE: usize = 256 << 10;

impl BlobSource {
    /// Bytes in memory.
    pub fn bytes(bytes: Bytes) -> Self {
        Self::opened(move |from| {
            let rest = bytes.slice(usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len())..);
            Box::pin(async move { Ok(futures_util::stream::iter([Ok(rest)]).boxed()) })
        })
    }

    /// A file, or the part of one from `start` with `length` bytes.
    pub fn file(path: PathBuf, start: u64, length: u64) -> Self {
        Self::opened(move |from| {
            let path = path.clone();
            Box::pin(async move {
                let failed = |error: io::Error| ClientError::Source(format!("{}: {error}", path.display()));
                let mut file = tokio::fs::File::open(&path).await.map_err(failed)?;
                file.seek(io::SeekFrom::Start(start + from)).await.map_err(failed)?;
                let left = file.take(length.saturating_sub(from));
                let shown = path.display().to_string();
                let stream = futures_util::stream::try_unfold(left, move |mut left| {
                    let shown = shown.clone();
                    async move {
                        let mut piece = Vec::with_capacity(PIECE);
                        let wanted = (&mut left).take(PIECE as u64).read_to_end(&mut piece).await;
                        let read = wanted.map_err(|error| ClientError::Source(format!("{shown}: {error}")))?;
                        Ok((read > 0).then(|| (Bytes::from(piece), left)))
                    }
                });
                Ok(stream.boxed())
            })
        })
    }

    /// A blob of another repository, checked on its way.
    pub fn remote(remote: Remote, blob: &Descriptor) -> Self {
        let (digest, size) = (blob.digest, blob.size);
        Self::opened(move |from| {
            let remote = remote.clone();
            Box::pin(async move { Ok(remote.blob(&digest, from).await?.expect_size(size).into_stream()) })
        })
    }

    /// Whatever `open` gives for the place from which on the bytes are wanted.
    pub fn opened(
        open: impl Fn(u64) -> BoxFuture<'static, Result<ByteStream, ClientError>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(open))
    }

    /// The bytes from `from` on.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub async fn open(&self, from: u64) -> Result<ByteStream, ClientError> {
        (self.0)(from).await
    }
}

/// A source while it is sent, piece by piece.
pub(super) struct Feed {
    source: BlobSource,
    size: u64,
    position: u64,
    open: Option<ByteStream>,
    left: Bytes,
    error: Option<ClientError>,
}

impl Feed {
    pub fn new(source: BlobSource, size: u64) -> Self {
        Self { source, size, position: 0, open: None, left: Bytes::new(), error: None }
    }

    /// What the source failed with, if it was the source.
    pub fn take_error(&mut self) -> Option<ClientError> {
        self.error.take()
    }

    /// Goes on at `position`.
    pub fn seek(&mut self, position: u64) {
        if position != self.position {
            self.open = None;
            self.left = Bytes::new();
            self.position = position;
        }
    }

    /// At most `most` bytes; fewer than the size in all are an error.
    async fn next(&mut self, most: u64) -> Result<Bytes, ClientError> {
        while self.left.is_empty() {
            self.left = self.pull().await?.ok_or_else(|| self.wrong_length())?;
        }
        let wanted = usize::try_from(most).unwrap_or(usize::MAX).min(self.left.len());
        let piece = self.left.split_to(wanted);
        self.position += piece.len() as u64;
        // The last bytes are handed out only when the source has said that they were the right ones.
        while self.position == self.size && self.left.is_empty() {
            match self.pull().await? {
                Some(bytes) => self.left = bytes,
                None => return Ok(piece),
            }
        }
        if self.position >= self.size && !self.left.is_empty() { Err(self.wrong_length()) } else { Ok(piece) }
    }

    async fn pull(&mut self) -> Result<Option<Bytes>, ClientError> {
        if self.open.is_none() {
            self.open = Some(self.source.open(self.position).await?);
        }
        match &mut self.open {
            Some(stream) => stream.try_next().await,
            None => Ok(None),
        }
    }

    fn wrong_length(&self) -> ClientError {
        ClientError::Source(format!("there are not {} bytes", self.size))
    }
}

/// A piece of a feed, as the body of a request.
pub(super) struct Part {
    feed: Arc<Mutex<Feed>>,
    length: u64,
}

impl Part {
    pub fn new(feed: Arc<Mutex<Feed>>, length: u64) -> Self {
        Self { feed, length }
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// Its bytes; counts in `moved` what was taken.
    pub fn stream(&self, moved: Arc<AtomicU64>) -> BoxStream<'static, io::Result<Bytes>> {
        let start = (self.feed.clone(), self.length, moved);
        futures_util::stream::try_unfold(start, |(feed, left, moved)| async move {
            if left == 0 {
                return Ok(None);
            }
            let mut open = feed.lock().await;
            let bytes = match open.next(left).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    open.error = Some(error);
                    return Err(io::Error::other("the source failed"));
                }
            };
            drop(open);
            moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            let left = left - bytes.len() as u64;
            Ok(Some((bytes, (feed, left, moved))))
        })
        .boxed()
    }
}
