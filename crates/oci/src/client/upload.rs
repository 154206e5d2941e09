//! Pushing a blob: in chunks where the registry takes them, whole where it does not.

use std::sync::Arc;

use bytes::Bytes;
use model::{Digest, ImageName};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::Mutex;

use super::exchange::{Ask, Attempts, Body};
use super::source::{Feed, Part};
use super::{BlobSource, ClientError, MAX_CHUNK, Remote};

/// Below this, a chunk is not made smaller when the other side finds it too long, in bytes.
const SMALLEST_CHUNK: u64 = 8_000_000;

/// A blob to be pushed.
#[derive(Clone)]
pub struct BlobPush {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Where its bytes come from.
    pub source: BlobSource,
    /// The longest chunk in bytes; [`MAX_CHUNK`] if it is longer.
    pub chunk: u64,
    /// A repository of the same registry that has the blob, to mount it from.
    pub mount_from: Option<ImageName>,
}

impl BlobPush {
    /// A push in chunks of [`MAX_CHUNK`].
    pub fn new(digest: Digest, size: u64, source: BlobSource) -> Self {
        Self { digest, size, source, chunk: MAX_CHUNK, mount_from: None }
    }

    /// The same, mounted from `name` if the registry does that.
    #[must_use]
    pub fn or_mount(mut self, name: Option<ImageName>) -> Self {
        self.mount_from = name;
        self
    }
}

/// How a blob came to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// Its bytes were sent.
    Sent,
    /// The registry took it from another of its repositories.
    Mounted,
}

/// An upload that was opened.
enum Opened {
    Mounted,
    At { url: Url, smallest: u64 },
}

/// Why an upload did not go to its end.
enum Stuck {
    /// The registry does not take chunks: send everything at once.
    NoChunks,
    /// A chunk was too long for something on the way.
    TooLong(ClientError),
    /// The upload is gone; another may go better.
    Lost(ClientError),
    /// Nothing helps.
    Failed(ClientError),
}

impl Remote {
    /// Takes a blob over from another repository of the same registry. Whether the registry did.
    ///
    /// # Errors
    /// When the registry does not answer so.
    pub async fn mount(&self, digest: &Digest, from: &ImageName) -> Result<bool, ClientError> {
        match self.open_upload(digest, Some(from)).await? {
            Opened::Mounted => Ok(true),
            Opened::At { url, .. } => {
                self.abandon(url).await;
                Ok(false)
            }
        }
    }

    /// Pushes a blob. Ask [`Remote::blob_exists`] before; this sends it in any case.
    ///
    /// # Errors
    /// When the source fails, the registry refuses, or it broke off too often.
    pub async fn push_blob(&self, push: &BlobPush) -> Result<Pushed, ClientError> {
        let mut attempts = Attempts::new(self.session.client.options());
        let mut chunk = push.chunk.clamp(1, MAX_CHUNK);
        let mut mount = push.mount_from.as_ref();
        loop {
            let (url, smallest) = match self.open_upload(&push.digest, mount.take()).await? {
                Opened::Mounted => return Ok(Pushed::Mounted),
                Opened::At { url, smallest } => (url, smallest),
            };
            let mut upload = Upload { remote: self, push, at: url, attempts: &mut attempts };
            let stuck = match upload.run(chunk.max(smallest)).await {
                Ok(()) => return Ok(Pushed::Sent),
                Err(stuck) => stuck,
            };
            let url = upload.at;
            match stuck {
                Stuck::NoChunks => {
                    self.abandon(url).await;
                    chunk = u64::MAX;
                }
                Stuck::TooLong(_) if chunk / 2 >= SMALLEST_CHUNK && push.size > SMALLEST_CHUNK => {
                    self.abandon(url).await;
                    chunk = chunk.min(push.size) / 2;
                }
                Stuck::Lost(error) => {
                    self.session.pause(&mut attempts, error).await?;
                    // The end of the answer may be all that was lost.
                    if self.blob_exists(&push.digest).await? == Some(push.size) {
                        return Ok(Pushed::Sent);
                    }
                }
                Stuck::TooLong(error) | Stuck::Failed(error) => {
                    self.abandon(url).await;
                    return Err(error);
                }
            }
        }
    }

    async fn open_upload(&self, digest: &Digest, mount: Option<&ImageName>) -> Result<Opened, ClientError> {
        let mut url = self.url("blobs/uploads/")?;
        let mut scopes = self.push();
        if let Some(from) = mount {
            url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from.as_str());
            if from != self.name() {
                scopes.push(format!("repository:{from}:pull"));
            }
        }
        let ask = Ask::new(Method::POST, url, scopes).header(CONTENT_LENGTH, 0.into());
        let response = self.session.send(&ask).await?;
        match response.status() {
            StatusCode::CREATED if mount.is_some() => Ok(Opened::Mounted),
            StatusCode::ACCEPTED => {
                let smallest =
                    number(response.headers(), &HeaderName::from_static("oci-chunk-min-length")).unwrap_or(0);
                Ok(Opened::At { url: self.session.location(&ask.url, &response)?, smallest })
            }
            _ => Err(self.session.failure("an upload", response).await),
        }
    }

    /// Tells the registry that an upload will not go on; it finds out by itself if it does not hear it.
    async fn abandon(&self, url: Url) {
        let ask = Ask::new(Method::DELETE, url, self.push()).once();
        let told = tokio::time::timeout(std::time::Duration::from_secs(10), self.session.send(&ask)).await;
        if !matches!(told, Ok(Ok(_))) {
            tracing::debug!(host = %self.host(), "an upload could not be given up");
        }
    }
}

/// An upload on its way.
struct Upload<'a> {
    remote: &'a Remote,
    push: &'a BlobPush,
    at: Url,
    attempts: &'a mut Attempts,
}

impl Upload<'_> {
    async fn run(&mut self, chunk: u64) -> Result<(), Stuck> {
        let size = self.push.size;
        let feed = Arc::new(Mutex::new(Feed::new(self.push.source.clone(), size)));
        if size <= chunk {
            return self.finish(&feed, 0).await;
        }
        let mut offset = 0;
        while offset < size {
            offset = self.chunk(&feed, offset, chunk.min(size - offset)).await?;
        }
        self.finish(&feed, size).await
    }

    /// Sends one chunk; the place after what has arrived.
    async fn chunk(&mut self, feed: &Arc<Mutex<Feed>>, offset: u64, length: u64) -> Result<u64, Stuck> {
        feed.lock().await.seek(offset);
        let last = offset + length - 1;
        let range = HeaderValue::from_str(&format!("{offset}-{last}"))
            .map_err(|error| Stuck::Failed(ClientError::Options(error.to_string())))?;
        let ask = Ask::new(Method::PATCH, self.at.clone(), self.remote.push())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
            .header(CONTENT_RANGE, range)
            .body(Body::Part(Part::new(feed.clone(), length)))
            .once();
        let answer = self.remote.session.send(&ask).await;
        if let Some(error) = feed.lock().await.take_error() {
            return Err(Stuck::Failed(error));
        }
        let error = match answer {
            Ok(response) if response.status().is_success() => {
                self.move_to(&response).map_err(Stuck::Failed)?;
                return Ok(arrived(response.headers()).unwrap_or(last + 1).min(last + 1));
            }
            Ok(response) => {
                let status = response.status().as_u16();
                let error = self.remote.session.failure("a chunk of an upload", response).await;
                match status {
                    413 => return Err(Stuck::TooLong(error)),
                    416 if offset > 0 => error,
                    400 | 404 | 405 | 411 | 415 | 416 | 501 if offset == 0 => return Err(Stuck::NoChunks),
                    404 => return Err(Stuck::Lost(ClientError::unreachable(self.remote.host(), "the upload is gone"))),
                    _ => return Err(Stuck::Failed(error)),
                }
            }
            Err(error) if error.is_temporary() => error,
            Err(error) => return Err(Stuck::Failed(error)),
        };
        self.resume(error).await
    }

    /// Asks how far an upload got that broke off.
    async fn resume(&mut self, error: ClientError) -> Result<u64, Stuck> {
        // A chunk out of place counts as a break: how often it is tried again has a bound.
        let broken = if error.is_temporary() { error } else { ClientError::unreachable(self.remote.host(), error) };
        self.remote.session.pause(self.attempts, broken.clone()).await.map_err(Stuck::Failed)?;
        let ask = Ask::new(Method::GET, self.at.clone(), self.remote.push());
        match self.remote.session.send(&ask).await {
            Ok(response) if response.status().is_success() => {
                if response.headers().contains_key("location") {
                    self.move_to(&response).map_err(Stuck::Failed)?;
                }
                Ok(arrived(response.headers()).unwrap_or(0).min(self.push.size))
            }
            _ => Err(Stuck::Lost(broken)),
        }
    }

    /// Sends what is left from `offset`, and the digest.
    async fn finish(&mut self, feed: &Arc<Mutex<Feed>>, offset: u64) -> Result<(), Stuck> {
        let mut url = self.at.clone();
        url.query_pairs_mut().append_pair("digest", &self.push.digest.to_string());
        let length = self.push.size - offset;
        let body = if length == 0 {
            Body::Bytes(Bytes::new())
        } else {
            feed.lock().await.seek(offset);
            Body::Part(Part::new(feed.clone(), length))
        };
        let mut ask = Ask::new(Method::PUT, url, self.remote.push())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
            .body(body)
            .once();
        if length == 0 {
            ask = ask.header(CONTENT_LENGTH, 0.into());
        }
        let answer = self.remote.session.send(&ask).await;
        if let Some(error) = feed.lock().await.take_error() {
            return Err(Stuck::Failed(error));
        }
        match answer {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => {
                let long = response.status() == StatusCode::PAYLOAD_TOO_LARGE;
                let error = self.remote.session.failure("the end of an upload", response).await;
                Err(if long && length > 0 { Stuck::TooLong(error) } else { Stuck::Failed(error) })
            }
            Err(error) if error.is_temporary() => Err(Stuck::Lost(error)),
            Err(error) => Err(Stuck::Failed(error)),
        }
    }

    fn move_to(&mut self, response: &Response) -> Result<(), ClientError> {
        self.at = self.remote.session.location(&self.at, response)?;
        Ok(())
    }
}

/// The place after what an upload has: `Range: 0-<last>`, with or without `bytes=`.
fn arrived(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?;
    let last: u64 = text.rsplit('-').next()?.trim().parse().ok()?;
    // An upload without any bytes says `0-0`, as one with a single byte does; sending that byte again is refused, and
    // then asked for once more.
    Some(if last == 0 { 0 } else { last + 1 })
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_an_upload_got() {
        let at = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            arrived(&headers)
        };
        assert_eq!(at("0-99"), Some(100));
        assert_eq!(at("bytes=0-99"), Some(100));
        assert_eq!(at("0-0"), Some(0));
        assert_eq!(at("nonsense"), None);
    }
}
