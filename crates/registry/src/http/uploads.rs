//! Blobs pushed: mounted, in one piece, or in parts.

use access::Action;
use axum::body::{Body, HttpBody};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, header};
use model::{Algorithm, Digest, ImageName};

use crate::http::auth::Caller;
use crate::http::body::{Sink, receive};
use crate::http::failure::Failure;
use crate::http::form::Form;
use crate::http::{CONTENT_DIGEST, RegistryHttp, empty, range, value};
use crate::uploads::{MAX_BLOB, Session};

/// What the parts of an upload should have at least, in bytes; smaller ones are taken as well.
const CHUNK_LEAST: &str = "65536";

/// Where clients read [`CHUNK_LEAST`].
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// The most images that are asked for a blob whose source the client does not name.
const MOST_SOURCES: usize = 16;

/// The id of an upload.
const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

impl RegistryHttp {
    /// `POST`: mounts a blob, takes one in one piece, or begins an upload.
    pub(super) async fn new_upload(&self, parts: &Parts, image: &ImageName, body: Body) -> Result<Response, Failure> {
        let query = Form::parse(parts.uri.query().unwrap_or_default());
        let source = query.get("from").and_then(|from| from.parse::<ImageName>().ok());
        let caller = self.require(parts, Action::Write, image).await.map_err(|failure| match &source {
            // A client that asks for a token now can ask for what it mounts from as well.
            Some(source) => failure.and_scope(&format!("repository:{source}:pull")),
            None => failure,
        })?;
        self.registry.refuse_frozen(image).await?;
        if let Some(mount) = query.get("mount") {
            let digest: Digest = mount.parse().map_err(Failure::digest)?;
            if self.mount(&caller, image, &digest, query.get("from")).await? {
                return Ok(created(image, &digest));
            }
        } else if let Some(digest) = query.get("digest") {
            let digest: Digest = digest.parse().map_err(Failure::digest)?;
            return self.whole_blob(image, &digest, body).await;
        }
        let algorithm = query.get("digest-algorithm").map_or(Ok(Algorithm::Sha256), algorithm)?;
        let session = self.registry.begin_upload(image, &caller.subject(), algorithm).await?;
        let mut response = progress(&session, 0, StatusCode::ACCEPTED);
        response.headers_mut().insert(CHUNK_MIN_LENGTH, HeaderValue::from_static(CHUNK_LEAST));
        Ok(response)
    }

    /// Whether a blob of another image is now one of this; without a name, of any that the caller may read. Whoever may
    /// not read the other image learns nothing: to them it is as if that did not have the blob, and they send it
    /// themselves.
    async fn mount(
        &self,
        caller: &Caller,
        image: &ImageName,
        digest: &Digest,
        from: Option<&str>,
    ) -> Result<bool, Failure> {
        let sources = match from {
            Some(from) => from.parse().into_iter().collect(),
            None => self.registry.images_with(digest, MOST_SOURCES).await?,
        };
        for source in sources {
            if self.may_read(caller, &source).await && self.registry.mount(image, digest, &source).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn whole_blob(&self, image: &ImageName, digest: &Digest, mut body: Body) -> Result<Response, Failure> {
        if self.registry.linked(image, digest).await?.is_none() {
            self.registry.check_room(image, body.size_hint().lower()).await?;
        }
        let (_lease, writer) = self.registry.blob_writer(image, digest).await?;
        let mut sink = Sink::Blob(writer);
        receive(&mut body, &mut sink, MAX_BLOB).await?;
        if let Sink::Blob(writer) = sink {
            self.registry.finish_blob(image, writer, digest).await?;
        }
        Ok(created(image, digest))
    }

    /// `PATCH`: the next part.
    pub(super) async fn patch_upload(
        &self,
        parts: &Parts,
        image: &ImageName,
        id: &str,
        body: Body,
    ) -> Result<Response, Failure> {
        let session = self.require_upload(parts, image, id).await?;
        let offset = self.append(parts, &session, body, false).await?;
        Ok(progress(&session, offset, StatusCode::ACCEPTED))
    }

    /// `PUT`: the last part, if there is one, and what the whole is.
    pub(super) async fn put_upload(
        &self,
        parts: &Parts,
        image: &ImageName,
        id: &str,
        body: Body,
    ) -> Result<Response, Failure> {
        let session = self.require_upload(parts, image, id).await?;
        let query = Form::parse(parts.uri.query().unwrap_or_default());
        let digest = query.get("digest").ok_or_else(|| Failure::digest("?digest=… is missing"))?;
        let digest: Digest = digest.parse().map_err(Failure::digest)?;
        if body.size_hint().exact() != Some(0) {
            self.append(parts, &session, body, true).await?;
        }
        self.registry.finish_upload(&session, &digest).await?;
        Ok(created(image, &digest))
    }

    /// `GET`: how far it is.
    pub(super) async fn get_upload(&self, parts: &Parts, image: &ImageName, id: &str) -> Result<Response, Failure> {
        let session = self.require_upload(parts, image, id).await?;
        let offset = self.registry.upload_offset(&session).await?;
        Ok(progress(&session, offset, StatusCode::NO_CONTENT))
    }

    /// `DELETE`: never mind.
    pub(super) async fn delete_upload(&self, parts: &Parts, image: &ImageName, id: &str) -> Result<Response, Failure> {
        let session = self.require_upload(parts, image, id).await?;
        self.registry.cancel_upload(&session).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    /// Adds a body to an upload and returns how many bytes that has then. A `Content-Range` must begin where the upload
    /// ends, and be as long as the body.
    async fn append(&self, parts: &Parts, session: &Session, mut body: Body, last: bool) -> Result<u64, Failure> {
        let range = match parts.headers.get(header::CONTENT_RANGE) {
            Some(header) => {
                let range = header.to_str().ok().and_then(range::sent);
                Some(range.ok_or_else(|| Failure::size("Content-Range is not first-last in bytes"))?)
            }
            None => None,
        };
        let announced = range.as_ref().map(|range| range.end - range.start);
        if let (Some(announced), Some(length)) = (announced, body.size_hint().exact())
            && announced != length
        {
            let message = format!("Content-Range announces {announced} bytes, the body has {length}");
            return Err(Failure::size(message));
        }
        let located = |failure: Failure| failure.with(header::LOCATION, value(location(session)));
        let opened = self.registry.append(session, range.map(|range| range.start), last).await;
        let writer = opened.map_err(|error| located(error.into()))?;
        self.registry.check_room(&session.image, writer.offset().saturating_add(body.size_hint().lower())).await?;
        let limit = MAX_BLOB.saturating_sub(writer.offset()).min(announced.unwrap_or(u64::MAX));
        let mut sink = Sink::Upload(writer);
        let received = receive(&mut body, &mut sink, limit).await;
        let Sink::Upload(writer) = sink else { return Ok(0) };
        // What came of a body that broke off counts: the client asks how far it is and goes on from there.
        let whole = received.as_ref().is_ok_and(|received| announced.is_none_or(|announced| announced == *received));
        let closed = if last && whole { writer.close_last().await } else { writer.close().await };
        // Why nothing more was taken comes first: a writer that failed only says that it did.
        let received = received.map_err(located)?;
        let offset = closed.map_err(|error| located(error.into()))?;
        match announced {
            Some(announced) if announced != received => {
                Err(Failure::size(format!("Content-Range announces {announced} bytes, the body has {received}")))
            }
            _ => Ok(offset),
        }
    }
}

/// The kind of digest that a client announces; it hears early of one that will not be taken.
fn algorithm(name: &str) -> Result<Algorithm, Failure> {
    let known = [Algorithm::Sha256, Algorithm::Sha512].into_iter().find(|known| known.name() == name);
    known.ok_or_else(|| {
        let shown: String = name.chars().take(40).collect();
        Failure::digest(format!("digest-algorithm {shown:?} is not supported: sha256 or sha512"))
    })
}

/// Where an upload goes on: without a host, so that it is right under every name of this registry.
fn location(session: &Session) -> String {
    format!("/v2/{}/blobs/uploads/{}", session.image, session.id)
}

fn progress(session: &Session, offset: u64, status: StatusCode) -> Response {
    let mut response = empty(status);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, value(location(session)));
    headers.insert(header::RANGE, value(format!("0-{}", offset.saturating_sub(1))));
    headers.insert(UPLOAD_ID, value(&session.id));
    response
}

fn created(image: &ImageName, digest: &Digest) -> Response {
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, value(format!("/v2/{image}/blobs/{digest}")));
    headers.insert(CONTENT_DIGEST, value(digest));
    response
}
