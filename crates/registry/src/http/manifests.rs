//! Manifests: pulled, pushed and deleted, byte for byte.

use access::Action;
use axum::body::Body;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderName, Method, StatusCode, header};
use model::{ImageName, Tag};

use crate::events::{ImageAction, ImageEvent};
use crate::http::auth::Caller;
use crate::http::blobs::has_it;
use crate::http::failure::Failure;
use crate::http::form::Form;
use crate::http::{CONTENT_DIGEST, RegistryHttp, body, empty, value};
use crate::{ManifestRecord, Reference, RegistryError};

/// Tells a client which tags point to the manifest it pushed.
const TAGS: HeaderName = HeaderName::from_static("oci-tag");

/// The most tags that are given to a manifest at a time.
const MAX_TAGS: usize = 100;

/// Tells a client that the manifest it pushed is listed as a referrer.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

impl RegistryHttp {
    pub(super) async fn get_manifest(
        &self,
        parts: &Parts,
        image: &ImageName,
        reference: &Reference,
    ) -> Result<Response, Failure> {
        let caller = self.require(parts, Action::Read, image).await?;
        let unknown =
            || RegistryError::ManifestUnknown { image: image.clone(), reference: Box::new(reference.clone()) };
        // A client that may push and asks whether this is here will not send it.
        let before_push = parts.method == Method::HEAD && caller.may_push(image);
        let found = match before_push {
            true => self.registry.manifest_for_push(image, reference).await?,
            false => self.registry.manifest(image, reference).await?,
        };
        let record = found.ok_or_else(unknown)?;
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(CONTENT_DIGEST, value(record.digest));
        headers.insert(header::ETAG, value(format!("\"{}\"", record.digest)));
        headers.insert(header::CONTENT_TYPE, value(&record.media_type));
        if has_it(parts, &record.digest) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        headers.insert(header::CONTENT_LENGTH, record.bytes.len().into());
        if parts.method == Method::GET {
            self.announce_pull(&caller, image, reference, &record);
            *response.body_mut() = record.bytes.into();
        }
        Ok(response)
    }

    /// Says that a caller has read a manifest.
    pub(super) fn announce_pull(
        &self,
        caller: &Caller,
        image: &ImageName,
        reference: &Reference,
        record: &ManifestRecord,
    ) {
        self.registry.pulled(image, reference, &record.digest);
        self.registry.announce_pull(|registry| ImageEvent {
            tag: reference.tag().cloned(),
            media_type: Some(record.media_type.clone()),
            size: Some(record.bytes.len() as u64),
            actor: caller.principal.to_string().into(),
            ..registry.event(ImageAction::Pull, image, Some(record.digest))
        });
    }

    pub(super) async fn put_manifest(
        &self,
        parts: &Parts,
        image: &ImageName,
        reference: &Reference,
        body: Body,
    ) -> Result<Response, Failure> {
        let caller = self.require(parts, Action::Write, image).await?;
        self.registry.refuse_frozen(image).await?;
        let bytes = body::collect(body, oci::MAX_MANIFEST).await?;
        let said = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let guessed = || oci::guess_media_type(&bytes);
        let media_type = said.map(str::to_owned).or_else(guessed);
        let media_type = media_type.ok_or_else(|| Failure::manifest("the Content-Type header is missing"))?;
        let query = Form::parse(parts.uri.query().unwrap_or_default());
        let (tags, expected) = match reference {
            Reference::Tag(tag) => (vec![tag.clone()], query.get("digest").map(str::parse).transpose()),
            Reference::Digest(digest) => (wanted_tags(&query)?, Ok(Some(*digest))),
        };
        let expected = expected.map_err(Failure::digest)?;
        let registry = self.registry.acting_for(&caller.principal.to_string());
        let (digest, subject) = registry.push(image, bytes, &media_type, &tags, expected.as_ref()).await?;
        let mut response = empty(StatusCode::CREATED);
        let headers = response.headers_mut();
        if !tags.is_empty() {
            headers.insert(TAGS, value(tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(", ")));
        }
        headers.insert(header::LOCATION, value(format!("/v2/{image}/manifests/{digest}")));
        headers.insert(CONTENT_DIGEST, value(digest));
        if let Some(subject) = subject {
            headers.insert(SUBJECT, value(subject));
        }
        Ok(response)
    }

    pub(super) async fn delete_manifest(
        &self,
        parts: &Parts,
        image: &ImageName,
        reference: &Reference,
    ) -> Result<Response, Failure> {
        let caller = self.require(parts, Action::Delete, image).await?;
        let registry = self.registry.acting_for(&caller.principal.to_string());
        match reference {
            Reference::Tag(tag) => registry.delete_tag(image, tag).await?,
            Reference::Digest(digest) => registry.delete_referrer(image, digest).await?,
        }
        Ok(empty(StatusCode::ACCEPTED))
    }
}

/// The tags that a manifest is pushed with by its digest: `?tag=a&tag=b`.
fn wanted_tags(query: &Form) -> Result<Vec<Tag>, Failure> {
    let tags = query.all("tag").map(str::parse).collect::<Result<Vec<Tag>, _>>().map_err(Failure::manifest)?;
    if tags.len() > MAX_TAGS {
        let message = format!("at most {MAX_TAGS} tags are taken at a time");
        return Err(Failure::new(StatusCode::URI_TOO_LONG, "MANIFEST_INVALID", message));
    }
    Ok(tags)
}
