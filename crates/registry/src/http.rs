//! The distribution protocol, version 1.1, and the token endpoint its clients use.
//!
//! A request is parsed once into a [`route::Route`], whoever asks is found out once, and every right is asked of
//! [`Access::authorize`]. Bodies are streamed; answers never name another host than the one that was asked.

mod auth;
mod blobs;
mod body;
mod cached;
mod failure;
mod form;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod listing;
mod manifests;
mod range;
mod route;
mod token;
mod uploads;

use std::fmt;
use std::sync::Arc;

use access::{Access, Level};
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use crate::Registry;
use crate::upstream::Upstreams;
use failure::Failure;
use route::Route;
pub use token::{TOKEN_PATH, token};

/// What clients are told that they speak with.
const VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("docker-distribution-api-version"), HeaderValue::from_static("registry/2.0"));

/// The digest of what is answered.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Finds the address of the token endpoint in the words of the client: scheme, host and port that it dialled.
pub type Realm = Arc<dyn Fn(&Parts) -> String + Send + Sync>;

/// What the protocol needs.
#[derive(Clone)]
pub struct RegistryHttp {
    /// The registry.
    pub registry: Registry,
    /// Who may do what.
    pub access: Access,
    /// The name that tokens are made out to; clients repeat it.
    pub service: Arc<str>,
    /// Where tokens are to be had.
    pub realm: Realm,
    /// Registries whose images are pulled through this one.
    pub upstreams: Upstreams,
}

impl fmt::Debug for RegistryHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryHttp").field("service", &self.service).finish_non_exhaustive()
    }
}

/// Everything below `/v2`. No limit on bodies is set on the way; the handlers bound what they read.
pub fn router(state: RegistryHttp) -> Router {
    Router::new()
        .route("/v2", any(serve))
        .route("/v2/", any(serve))
        .route("/v2/{*path}", any(serve))
        .layer(DefaultBodyLimit::disable())
        .with_state(state)
}

/// The token endpoint alone, at [`TOKEN_PATH`].
pub fn token_router(state: RegistryHttp) -> Router {
    Router::new().route(TOKEN_PATH, any(token)).with_state(state)
}

async fn serve(State(state): State<RegistryHttp>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let outcome = match Route::parse(&parts.method, parts.uri.path()) {
        Ok(route) => Box::pin(state.dispatch(&parts, route, body)).await,
        Err(failure) => Err(failure),
    };
    let mut response = outcome.unwrap_or_else(|failure| {
        failure.log(&parts);
        failure.respond(&parts, &state)
    });
    if parts.method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    response.headers_mut().insert(VERSION.0, VERSION.1);
    // Blobs are a stranger's: no browser shall make something of them.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl RegistryHttp {
    async fn dispatch(&self, parts: &Parts, route: Route, body: Body) -> Result<Response, Failure> {
        let route = self.localised(parts, route)?;
        if let Some(place) = route.image().and_then(|image| self.upstreams.place(image))
            && let Some(answer) = Box::pin(self.cached(parts, &route, &place)).await
        {
            return answer;
        }
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        match (route, &parts.method) {
            (Route::Base, _) if reads => self.base(parts).await,
            (Route::Catalog, _) if reads => self.catalog(parts).await,
            (Route::Tags { image }, _) if reads => self.tags(parts, &image).await,
            (Route::Referrers { image, digest }, _) if reads => self.referrers(parts, &image, &digest).await,
            (Route::Manifest { image, reference }, _) if reads => self.get_manifest(parts, &image, &reference).await,
            (Route::Manifest { image, reference }, &Method::PUT) => {
                self.put_manifest(parts, &image, &reference, body).await
            }
            (Route::Manifest { image, reference }, &Method::DELETE) => {
                self.delete_manifest(parts, &image, &reference).await
            }
            (Route::Blob { image, digest }, _) if reads => self.get_blob(parts, &image, &digest).await,
            (Route::Blob { image, digest }, &Method::DELETE) => self.delete_blob(parts, &image, &digest).await,
            (Route::NewUpload { image }, &Method::POST) => self.new_upload(parts, &image, body).await,
            (Route::Upload { image, id }, &Method::PATCH) => self.patch_upload(parts, &image, &id, body).await,
            (Route::Upload { image, id }, &Method::PUT) => self.put_upload(parts, &image, &id, body).await,
            (Route::Upload { image, id }, _) if reads => self.get_upload(parts, &image, &id).await,
            (Route::Upload { image, id }, &Method::DELETE) => self.delete_upload(parts, &image, &id).await,
            (route, _) => Err(Failure::method(route.methods())),
        }
    }

    /// Answers whether the client is known. Challenged even where anonymous reading is allowed: clients take the
    /// challenge from here and from nowhere else. Where everybody may push, nobody needs to be known.
    async fn base(&self, parts: &Parts) -> Result<Response, Failure> {
        let caller = self.caller(parts).await?;
        if !caller.is_known() && self.access.anonymous_images() != Level::Write {
            return Err(Failure::challenge(None, None));
        }
        self.require_alive(&caller).await?;
        Ok(([(header::CONTENT_TYPE, "application/json")], "{}").into_response())
    }
}

/// An answer without a body.
fn empty(status: StatusCode) -> Response {
    let mut response = status.into_response();
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

/// A header value of a text that this program made; what cannot be one is left empty.
fn value(text: impl fmt::Display) -> HeaderValue {
    HeaderValue::try_from(text.to_string()).unwrap_or(HeaderValue::from_static(""))
}
