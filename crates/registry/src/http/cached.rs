//! Images of upstream registries: read through the cache, never pushed.

use std::time::Duration;

use access::Action;
use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use model::{Digest, ImageName};
use oci::client::ManifestHead;
use oci::{Index, Reference, media_type};
use serde_json::json;

use crate::RegistryError;
use crate::http::auth::Caller;
use crate::http::blobs::{answer_blob, has_it};
use crate::http::failure::Failure;
use crate::http::form::Form;
use crate::http::listing::{FILTERS, Window, link, window};
use crate::http::route::Route;
use crate::http::{CONTENT_DIGEST, RegistryHttp, body, value};
use crate::upstream::{CachedBlob, Freshness, ListenerUpstream, Meant, Place, UpstreamError};

/// Where the answer came from: `hit`, `miss`, `revalidated` or `stale`.
const CACHE: HeaderName = HeaderName::from_static("towpath-cache");

/// By RFC 7234, for clients and proxies that know it.
const STALE: HeaderValue = HeaderValue::from_static("110 - \"Response is Stale\"");

impl RegistryHttp {
    /// The route with the name that its image has here, whichever registry the client means.
    pub(super) fn localised(&self, parts: &Parts, route: Route) -> Result<Route, Failure> {
        if self.upstreams.is_empty() {
            return Ok(route);
        }
        route.try_map_image(|image| self.local_name(parts, image))
    }

    /// The name that an image has here.
    pub(super) fn local_name(&self, parts: &Parts, image: ImageName) -> Result<ImageName, Failure> {
        if self.upstreams.is_empty() {
            return Ok(image);
        }
        let query = Form::parse(parts.uri.query().unwrap_or_default());
        let host = parts.uri.authority().map(http::uri::Authority::as_str);
        let host = host.or_else(|| parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()));
        let listener = parts.extensions.get::<ListenerUpstream>();
        let meant = Meant {
            namespace: query.get("ns").filter(|name| !name.is_empty()),
            host,
            listener: listener.map(|listener| &*listener.0),
        };
        self.upstreams.local_name(image, &meant).ok_or_else(|| {
            let message = "this registry does not pass on images of the registry that ?ns= or the listener names";
            Failure::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", message)
        })
    }

    /// A request for an image of an upstream; nothing if its route is answered as for any other image.
    pub(super) async fn cached(
        &self,
        parts: &Parts,
        route: &Route,
        place: &Place,
    ) -> Option<Result<Response, Failure>> {
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        Some(match route {
            Route::Manifest { image, reference } if reads => self.cached_manifest(parts, image, place, reference).await,
            Route::Blob { image, digest } if reads => self.cached_blob(parts, image, place, digest).await,
            Route::Tags { image } if reads => self.cached_tags(parts, image, place).await,
            Route::Referrers { image, digest } if reads => self.cached_referrers(parts, image, place, digest).await,
            Route::Manifest { .. } | Route::Blob { .. } if parts.method == Method::DELETE => return None,
            _ => Err(Failure::cache(&place.upstream().name())),
        })
    }

    async fn may_pull(&self, parts: &Parts, image: &ImageName, place: &Place) -> Result<Caller, Failure> {
        let caller = self.require(parts, Action::Read, image).await?;
        place.permitted().map_err(no_name)?;
        Ok(caller)
    }

    async fn cached_manifest(
        &self,
        parts: &Parts,
        image: &ImageName,
        place: &Place,
        reference: &Reference,
    ) -> Result<Response, Failure> {
        let caller = self.may_pull(parts, image, place).await?;
        if parts.method == Method::HEAD {
            let (head, freshness) = place.manifest_head(&self.registry, reference).await.map_err(no_manifest)?;
            // An upstream that does not say how long a manifest is has to send it.
            if let ManifestHead { digest, media_type, size: Some(size) } = &head {
                let (response, _) = manifest_response(parts, digest, media_type, *size);
                return Ok(labelled(response, freshness));
            }
        }
        let (record, freshness) = place.manifest(&self.registry, reference).await.map_err(no_manifest)?;
        let size = record.bytes.len() as u64;
        let (mut response, whole) = manifest_response(parts, &record.digest, &record.media_type, size);
        if whole && parts.method == Method::GET {
            self.announce_pull(&caller, image, reference, &record);
            *response.body_mut() = record.bytes.into();
        }
        Ok(labelled(response, freshness))
    }

    async fn cached_blob(
        &self,
        parts: &Parts,
        image: &ImageName,
        place: &Place,
        digest: &Digest,
    ) -> Result<Response, Failure> {
        self.may_pull(parts, image, place).await?;
        if parts.method == Method::HEAD {
            let (size, freshness) = place.blob_size(&self.registry, digest).await.map_err(no_blob)?;
            return Ok(labelled(answer_blob(parts, digest, size, |_| Body::empty())?, freshness));
        }
        let (blob, freshness) = place.blob(&self.registry, digest).await.map_err(no_blob)?;
        let response = answer_blob(parts, digest, blob.size(), |range| match blob {
            CachedBlob::Stored(mut reader) => {
                reader.seek(range);
                body::send(parts, reader)
            }
            CachedBlob::Coming(following, guard) => body::send_along(following.read(range), guard),
        });
        Ok(labelled(response?, freshness))
    }

    async fn cached_tags(&self, parts: &Parts, image: &ImageName, place: &Place) -> Result<Response, Failure> {
        self.may_pull(parts, image, place).await?;
        let query = Form::parse(parts.uri.query().unwrap_or_default());
        let Window { limit, after } = window(&query)?;
        let (page, freshness) = place.tags(&self.registry, after, limit).await.map_err(no_name)?;
        let mut response = Json(json!({ "name": image, "tags": page.entries })).into_response();
        if let Some(last) = page.entries.last().filter(|_| page.more) {
            link(&mut response, &format!("/v2/{image}/tags/list"), limit, last.as_str(), "");
        }
        Ok(labelled(response, freshness))
    }

    async fn cached_referrers(
        &self,
        parts: &Parts,
        image: &ImageName,
        place: &Place,
        subject: &Digest,
    ) -> Result<Response, Failure> {
        self.may_pull(parts, image, place).await?;
        let query = Form::parse(parts.uri.query().unwrap_or_default());
        let wanted = query.get("artifactType").filter(|text| !text.is_empty());
        let (found, freshness) = place.referrers(&self.registry, subject, wanted).await.map_err(no_name)?;
        let mut response = Json(Index::new(found)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type::OCI_INDEX));
        if wanted.is_some() {
            response.headers_mut().insert(FILTERS, HeaderValue::from_static("artifactType"));
        }
        Ok(labelled(response, freshness))
    }
}

fn no_manifest(error: UpstreamError) -> Failure {
    Failure::of_upstream(error, "MANIFEST_UNKNOWN")
}

fn no_blob(error: UpstreamError) -> Failure {
    Failure::of_upstream(error, "BLOB_UNKNOWN")
}

fn no_name(error: UpstreamError) -> Failure {
    Failure::of_upstream(error, "NAME_UNKNOWN")
}

/// The head of an answer, and whether the client needs its body.
fn manifest_response(parts: &Parts, digest: &Digest, media_type: &str, size: u64) -> (Response, bool) {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_DIGEST, value(digest));
    headers.insert(header::ETAG, value(format!("\"{digest}\"")));
    headers.insert(header::CONTENT_TYPE, value(media_type));
    if has_it(parts, digest) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return (response, false);
    }
    headers.insert(header::CONTENT_LENGTH, size.into());
    (response, true)
}

fn labelled(mut response: Response, freshness: Freshness) -> Response {
    response.headers_mut().insert(CACHE, HeaderValue::from_static(freshness.name()));
    if freshness == Freshness::Stale {
        response.headers_mut().insert(header::WARNING, STALE);
    }
    response
}

impl Failure {
    fn cache(upstream: &str) -> Self {
        let message = format!("these are images of {upstream}: they can be pulled, not pushed");
        Self::new(StatusCode::FORBIDDEN, "DENIED", message)
    }
}

impl Failure {
    /// What an upstream's failure is to a client; `unknown` is what it is told if there is no such thing.
    fn of_upstream(error: UpstreamError, unknown: &'static str) -> Self {
        use UpstreamError as E;
        let later = |failure: Self, pause: Duration| failure.with(header::RETRY_AFTER, pause.as_secs().max(1).into());
        match &error {
            E::Absent { .. } => Self::new(StatusCode::NOT_FOUND, unknown, error),
            E::NotAllowed { .. } => Self::new(StatusCode::FORBIDDEN, "DENIED", error),
            E::Limited { again, .. } => {
                let again = *again;
                later(Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", error), again)
            }
            E::Down { again, .. } => {
                let again = *again;
                later(Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", error), again)
            }
            E::Bad { .. } | E::TooLong { .. } => Self::new(StatusCode::BAD_GATEWAY, "UNKNOWN", error),
            E::Here(inner) => match inner.as_ref() {
                RegistryError::Blobs(why) if why.is_no_space() => Self::no_space(),
                why => Self::internal(StatusCode::SERVICE_UNAVAILABLE, "the registry cannot answer now", why),
            },
        }
    }
}
