//! Pulling a blob.

use std::ops::ControlFlow;

use bytes::Bytes;
use futures_util::StreamExt;
use model::Digest;
use reqwest::header::{CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};

use super::exchange::{Ask, Attempts, next_bytes};
use super::source::ByteStream;
use super::{ClientError, Remote};
use crate::Hasher;

/// How often one download may break off, however far it got in between.
const MAX_BREAKS: u32 = 200;

/// A blob on its way. When the connection breaks, it goes on where it broke; at the end the digest is checked.
pub struct BlobStream {
    remote: Remote,
    digest: Digest,
    size: Option<u64>,
    position: u64,
    hasher: Option<Hasher>,
    response: Option<Response>,
    /// Bytes that come again, because the registry knows no ranges.
    skip: u64,
    breaks: u32,
    attempts: Attempts,
}

impl Remote {
    /// Asks whether there is a blob, and how long it is.
    ///
    /// # Errors
    /// When the registry does not say.
    pub async fn blob_exists(&self, digest: &Digest) -> Result<Option<u64>, ClientError> {
        let ask = Ask::new(Method::HEAD, self.url(&format!("blobs/{digest}"))?, self.pull());
        let response = self.session.send(&ask).await?;
        if response.status().is_success() {
            let length = response.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
            return Ok(Some(length.unwrap_or(0)));
        }
        match self.session.failure(&format!("blob {digest}"), response).await {
            ClientError::NotFound { .. } => Ok(None),
            error => Err(error),
        }
    }

    /// Opens a blob from byte `from` on. The digest is checked at its end if `from` is 0, or if
    /// [`BlobStream::continue_hash`] gives what came before.
    ///
    /// # Errors
    /// When there is no such blob, or it cannot be opened.
    pub async fn blob(&self, digest: &Digest, from: u64) -> Result<BlobStream, ClientError> {
        let mut stream = BlobStream {
            remote: self.clone(),
            digest: *digest,
            size: None,
            position: from,
            hasher: (from == 0).then(|| Hasher::new(digest.algorithm())),
            response: None,
            skip: 0,
            breaks: 0,
            attempts: Attempts::new(self.session.client.options()),
        };
        stream.open().await?;
        Ok(stream)
    }

    /// A small blob, such as a configuration, whole and checked; at most `limit` bytes.
    ///
    /// # Errors
    /// When it cannot be pulled, is longer or not what its digest says.
    pub async fn small_blob(&self, digest: &Digest, limit: u64) -> Result<Bytes, ClientError> {
        let mut stream = self.blob(digest, 0).await?;
        let mut all = Vec::new();
        while let Some(bytes) = stream.chunk().await? {
            if (all.len() + bytes.len()) as u64 > limit {
                return Err(ClientError::protocol(self.host(), format!("blob {digest} is longer than {limit} bytes")));
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.into())
    }
}

impl BlobStream {
    /// The length of the whole blob, if the registry or the caller said.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The place of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Any other length than `size` is an error.
    #[must_use]
    pub fn expect_size(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }

    /// `hasher` has seen everything before [`BlobStream::position`]: the digest is checked at the end.
    #[must_use]
    pub fn continue_hash(mut self, hasher: Hasher) -> Self {
        self.hasher = Some(hasher);
        self
    }

    /// The digest is not checked: the caller hashes what comes.
    #[must_use]
    pub fn without_hash(mut self) -> Self {
        self.hasher = None;
        self
    }

    /// The next bytes; nothing at the end, when everything has come and is what the digest says.
    ///
    /// # Errors
    /// When it broke off too often, or what came is not the blob. What was handed out before is then worthless.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let broken = match self.step().await {
                Ok(ControlFlow::Break(bytes)) => return Ok(bytes),
                Ok(ControlFlow::Continue(())) => continue,
                Err(error) => error,
            };
            self.response = None;
            self.breaks += 1;
            if self.breaks > MAX_BREAKS {
                return Err(broken);
            }
            self.remote.session.pause(&mut self.attempts, broken).await?;
        }
    }

    /// All that is left as a stream.
    pub fn into_stream(self) -> ByteStream {
        futures_util::stream::try_unfold(self, |mut stream| async move {
            Ok(stream.chunk().await?.map(|bytes| (bytes, stream)))
        })
        .boxed()
    }

    async fn step(&mut self) -> Result<ControlFlow<Option<Bytes>>, ClientError> {
        if self.size.is_some_and(|size| self.position >= size) && self.response.is_none() {
            return self.end();
        }
        if self.response.is_none() {
            self.open().await?;
        }
        let Some(response) = &mut self.response else { return Ok(ControlFlow::Continue(())) };
        let patience = self.remote.session.client.options().read_timeout;
        let Some(mut bytes) = next_bytes(self.remote.session.host.as_str(), patience, response).await? else {
            return self.end();
        };
        if self.skip > 0 {
            let again = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= again as u64;
            let _ = bytes.split_to(again);
        }
        if bytes.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        self.position += bytes.len() as u64;
        if self.size.is_some_and(|size| self.position > size) {
            let message = format!("blob {} is longer than it was said to be", self.digest);
            return Err(ClientError::protocol(self.remote.host(), message));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        // It moves: what went wrong before does not count.
        self.attempts = Attempts::new(self.remote.session.client.options());
        Ok(ControlFlow::Break(Some(bytes)))
    }

    fn end(&mut self) -> Result<ControlFlow<Option<Bytes>>, ClientError> {
        let host = &self.remote.session.host;
        if self.size.is_some_and(|size| self.position < size) {
            return Err(ClientError::unreachable(host, "the blob broke off"));
        }
        if let Some(hasher) = self.hasher.take() {
            let found = hasher.finish();
            if found != self.digest {
                let (expected, found) = (Box::new(self.digest), Box::new(found));
                return Err(ClientError::DigestMismatch { host: host.to_string(), expected, found });
            }
        }
        self.size = Some(self.position);
        self.response = None;
        Ok(ControlFlow::Break(None))
    }

    async fn open(&mut self) -> Result<(), ClientError> {
        let url = self.remote.url(&format!("blobs/{}", self.digest))?;
        let mut ask = Ask::new(Method::GET, url, self.remote.pull());
        if self.position > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.position));
            ask = range.into_iter().fold(ask, |ask, range| ask.header(RANGE, range));
        }
        let response = self.remote.session.send(&ask).await?;
        let host = &self.remote.session.host;
        let total = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let (start, total) = content_range(&response)
                    .ok_or_else(|| ClientError::protocol(host, "a partial answer without a Content-Range"))?;
                if start != self.position {
                    let message = format!("asked for bytes from {}, it sent those from {start}", self.position);
                    return Err(ClientError::protocol(host, message));
                }
                self.skip = 0;
                total
            }
            status if status.is_success() => {
                self.skip = self.position;
                response.content_length()
            }
            StatusCode::RANGE_NOT_SATISFIABLE if self.position > 0 => {
                let message = format!("blob {} ends before byte {}", self.digest, self.position);
                return Err(ClientError::protocol(host, message));
            }
            _ => return Err(self.remote.session.failure(&format!("blob {}", self.digest), response).await),
        };
        if let (Some(known), Some(total)) = (self.size, total)
            && known != total
        {
            let message = format!("blob {} has {total} bytes where {known} were expected", self.digest);
            return Err(ClientError::protocol(host, message));
        }
        self.size = self.size.or(total);
        self.response = Some(response);
        Ok(())
    }
}

/// Where a partial answer starts, and the length of the whole if it says.
fn content_range(response: &Response) -> Option<(u64, Option<u64>)> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}
