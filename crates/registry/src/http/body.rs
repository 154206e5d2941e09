//! Bodies: streamed in with a bound on their length and their silence, streamed out in large pieces.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::StatusCode;
use http::request::Parts;
use http_body_util::BodyExt;
use store::{BlobReader, BlobWriter, FollowingReader, Outlet, UploadWriter};

use crate::RegistryError;
use crate::http::failure::Failure;

/// How long a client may be silent in the middle of a body.
const SILENCE: Duration = Duration::from_secs(300);

/// Where a body goes.
pub(super) enum Sink {
    /// A blob that comes in one piece.
    Blob(BlobWriter),
    /// The next part of an upload.
    Upload(UploadWriter),
}

impl Sink {
    async fn write(&mut self, chunk: Bytes) -> Result<(), Failure> {
        match self {
            Self::Blob(writer) => Ok(writer.write(chunk).await?),
            Self::Upload(writer) => Ok(writer.write(chunk).await?),
        }
    }
}

/// Writes a body to `sink`; more than `limit` bytes are refused. Returns how many there were; what was written of a body
/// that breaks off stays in the sink.
pub(super) async fn receive(body: &mut Body, sink: &mut Sink, limit: u64) -> Result<u64, Failure> {
    let mut received: u64 = 0;
    while let Some(chunk) = next(body, SILENCE).await? {
        received += chunk.len() as u64;
        if received > limit {
            return Err(RegistryError::BlobTooLong { limit }.into());
        }
        sink.write(chunk).await?;
    }
    Ok(received)
}

/// The whole of a small body.
pub(super) async fn collect(body: Body, limit: usize) -> Result<Bytes, Failure> {
    collect_within(body, limit, SILENCE).await
}

async fn collect_within(mut body: Body, limit: usize, silence: Duration) -> Result<Bytes, Failure> {
    let mut collected = BytesMut::new();
    while let Some(chunk) = next(&mut body, silence).await? {
        if collected.len() + chunk.len() > limit {
            let message = format!("the body is longer than {limit} bytes");
            return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message));
        }
        collected.extend_from_slice(&chunk);
    }
    Ok(collected.freeze())
}

async fn next(body: &mut Body, silence: Duration) -> Result<Option<Bytes>, Failure> {
    loop {
        let frame = tokio::time::timeout(silence, body.frame()).await.map_err(|_| {
            let message = format!("nothing was sent for {} seconds", silence.as_secs());
            Failure::new(StatusCode::REQUEST_TIMEOUT, "SIZE_INVALID", message)
        })?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(Failure::size(format!("the body broke off: {error}"))),
            // Trailers say nothing here.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// What is left of a blob, as the body of an answer, straight to the client's connection where that has an [`Outlet`]. A
/// blob that cannot be read to its end breaks the connection off.
pub(super) fn send(request: &Parts, mut reader: BlobReader) -> Body {
    if let Some(outlet) = request.extensions.get::<Outlet>() {
        reader.send_through(outlet.clone());
    }
    Body::from_stream(stream::unfold(Some(reader), async |reader| {
        let mut reader = reader?;
        match reader.chunk().await {
            Ok(chunk) => chunk.map(|chunk| (Ok(chunk), Some(reader))),
            Err(error) => {
                tracing::error!(digest = %reader.digest(), %error, "a blob cannot be read");
                Some((Err(error), None))
            }
        }
    }))
}

/// What is left of a blob that is still coming, as a body; `guard` is kept until it is sent, or its client is gone. A blob
/// that does not come whole, or is not what it should be, breaks the connection off before its last byte.
pub(super) fn send_along(reader: FollowingReader, guard: impl Send + 'static) -> Body {
    Body::from_stream(stream::unfold(Some((reader, guard)), async |state| {
        let (mut reader, guard) = state?;
        match reader.chunk().await {
            Ok(chunk) => chunk.map(|chunk| (Ok(chunk), Some((reader, guard)))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn who_falls_silent_is_not_waited_for() {
        let begun = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"{"))]);
        let body = Body::from_stream(begun.chain(stream::pending()));
        let failure = collect_within(body, 100, Duration::from_millis(10)).await.unwrap_err();
        assert!(format!("{failure:?}").contains("408"), "{failure:?}");
    }
}
