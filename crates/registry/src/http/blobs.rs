//! Blobs: pulled whole or in part, and deleted.

use std::ops::Range;

use access::Action;
use axum::body::Body;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use model::{Digest, ImageName};

use crate::RegistryError;
use crate::http::failure::Failure;
use crate::http::range::{Wanted, wanted};
use crate::http::{CONTENT_DIGEST, RegistryHttp, body, empty, value};

impl RegistryHttp {
    pub(super) async fn get_blob(
        &self,
        parts: &Parts,
        image: &ImageName,
        digest: &Digest,
    ) -> Result<Response, Failure> {
        self.require(parts, Action::Read, image).await?;
        let unknown = || RegistryError::BlobUnknown { image: image.clone(), digest: Box::new(*digest) };
        if parts.method == Method::HEAD {
            // Whoever is told that it is here will not send it.
            self.registry.linked_for_push(image, digest).await?.ok_or_else(unknown)?;
        }
        let mut reader = self.registry.blob(image, digest).await?.ok_or_else(unknown)?;
        answer_blob(parts, digest, reader.size(), |range| {
            reader.seek(range);
            body::send(parts, reader)
        })
    }

    pub(super) async fn delete_blob(
        &self,
        parts: &Parts,
        image: &ImageName,
        digest: &Digest,
    ) -> Result<Response, Failure> {
        self.require(parts, Action::Delete, image).await?;
        self.registry.delete_blob(image, digest).await?;
        Ok(empty(StatusCode::ACCEPTED))
    }
}

/// The answer to a request for a blob of `size` bytes, of which `send` makes a body.
pub(super) fn answer_blob(
    parts: &Parts,
    digest: &Digest,
    size: u64,
    send: impl FnOnce(Range<u64>) -> Body,
) -> Result<Response, Failure> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_DIGEST, value(digest));
    headers.insert(header::ETAG, value(format!("\"{digest}\"")));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if has_it(parts, digest) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    // A range is of the one content that has this digest, so there is no condition under which it would not hold.
    let range = parts.headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let range = match wanted(range.filter(|_| parts.method == Method::GET), size) {
        Wanted::All => 0..size,
        Wanted::Part(range) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let shown = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            response.headers_mut().insert(header::CONTENT_RANGE, value(shown));
            range
        }
        Wanted::Nothing => {
            let message = format!("the blob has {size} bytes");
            let failure = Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", message);
            return Err(failure.with(header::CONTENT_RANGE, value(format!("bytes */{size}"))));
        }
    };
    response.headers_mut().insert(header::CONTENT_LENGTH, (range.end - range.start).into());
    if parts.method == Method::GET {
        *response.body_mut() = send(range);
    }
    Ok(response)
}

/// Whether the client says that it has this content already.
pub(super) fn has_it(parts: &Parts, digest: &Digest) -> bool {
    let header = parts.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let tag = format!("\"{digest}\"");
    header.is_some_and(|header| header.split(',').any(|given| given.trim().trim_start_matches("W/") == tag))
}
