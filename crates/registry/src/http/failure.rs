//! What is answered when something is not done, in the form of the specification.

use access::{AccessError, Denied};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;
use store::BlobError;

use crate::RegistryError;
use crate::http::{RegistryHttp, value};

/// An error of the protocol.
#[derive(Debug)]
pub(super) struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: HeaderMap,
    challenge: Option<Challenge>,
    /// What went wrong in here, which the client is not told.
    internal: Option<String>,
}

#[derive(Debug)]
struct Challenge {
    scope: Option<String>,
    error: Option<&'static str>,
}

impl Failure {
    pub fn new(status: StatusCode, code: &'static str, message: impl ToString) -> Self {
        Self(Box::new(Inner {
            status,
            code,
            message: message.to_string(),
            headers: HeaderMap::new(),
            challenge: None,
            internal: None,
        }))
    }

    /// The same with a header.
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "this path is not part of the registry's protocol")
    }

    pub fn method(allowed: &'static str) -> Self {
        let failure = Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", format!("allowed here: {allowed}"));
        failure.with(header::ALLOW, HeaderValue::from_static(allowed))
    }

    pub fn name(error: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "NAME_INVALID", error)
    }

    pub fn no_such_tag(error: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", error)
    }

    pub fn digest(error: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", error)
    }

    pub fn size(error: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "SIZE_INVALID", error)
    }

    pub fn manifest(error: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", error)
    }

    pub fn request(error: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", error)
    }

    /// 401 with a challenge for `scope`; `error` tells a client that has a token why it needs another.
    pub fn challenge(scope: Option<String>, error: Option<&'static str>) -> Self {
        let message = match error {
            None => "authentication is required",
            Some("insufficient_scope") => "the token was not given for this",
            Some(_) => "the token is not valid, or not any more",
        };
        let mut failure = Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message);
        failure.0.challenge = Some(Challenge { scope, error });
        failure
    }

    /// The same challenge for another scope; anything else stays as it is.
    pub fn for_scope(mut self, wanted: &str) -> Self {
        if let Some(Challenge { scope, .. }) = &mut self.0.challenge {
            *scope = Some(wanted.to_owned());
        }
        self
    }

    /// The same challenge for one more scope; anything else stays as it is.
    pub fn and_scope(mut self, more: &str) -> Self {
        if let Some(Challenge { scope: Some(scope), .. }) = &mut self.0.challenge {
            scope.push(' ');
            scope.push_str(more);
        }
        self
    }

    /// The same challenge for a client whose token is not good any more; anything else stays as it is.
    pub fn for_token(mut self) -> Self {
        if let Some(Challenge { error, .. }) = &mut self.0.challenge {
            error.get_or_insert("invalid_token");
        }
        self
    }

    /// Whether the client was asked for credentials because its token has expired.
    pub fn is_invalid_token(&self) -> bool {
        self.0.challenge.as_ref().is_some_and(|challenge| challenge.error == Some("invalid_token"))
    }

    pub fn internal(status: StatusCode, message: &str, why: impl ToString) -> Self {
        let mut failure = Self::new(status, "UNKNOWN", message);
        failure.0.internal = Some(why.to_string());
        failure
    }

    /// Writes what is wrong in here to the log.
    pub fn log(&self, parts: &Parts) {
        if let Some(why) = &self.0.internal {
            tracing::error!(method = %parts.method, path = parts.uri.path(), error = why, "a registry request failed");
        }
    }

    pub fn respond(self, parts: &Parts, state: &RegistryHttp) -> Response {
        let Inner { status, code, message, headers, challenge, .. } = *self.0;
        let body = json!({ "errors": [{ "code": code, "message": message, "detail": null }] });
        let mut response = (status, Json(body)).into_response();
        response.headers_mut().extend(headers);
        if let Some(challenge) = challenge {
            let text = challenge.text(&(state.realm)(parts), &state.service);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value(text));
        }
        response
    }
}

impl Challenge {
    /// One challenge, and no `Basic` beside it: clients that find both choose wrongly.
    fn text(&self, realm: &str, service: &str) -> String {
        let quoted = |text: &str| text.replace(['"', '\\', '\r', '\n'], "");
        let mut text = format!("Bearer realm=\"{}\",service=\"{}\"", quoted(realm), quoted(service));
        if let Some(scope) = &self.scope {
            text.push_str(&format!(",scope=\"{}\"", quoted(scope)));
        }
        if let Some(error) = self.error {
            text.push_str(&format!(",error=\"{error}\""));
        }
        text
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        use RegistryError as E;
        let not_found = StatusCode::NOT_FOUND;
        match &error {
            E::NameUnknown(_) => Self::new(not_found, "NAME_UNKNOWN", error),
            E::ManifestUnknown { .. } => Self::new(not_found, "MANIFEST_UNKNOWN", error),
            E::BlobUnknown { .. } => Self::new(not_found, "BLOB_UNKNOWN", error),
            E::UploadUnknown(_) => Self::new(not_found, "BLOB_UPLOAD_UNKNOWN", error),
            E::MissingBlob(_) | E::MissingManifest(_) => {
                Self::new(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", error)
            }
            E::WrongSize { .. } => Self::size(error),
            E::WrongDigest { .. } => Self::digest(error),
            E::Manifest(oci::ManifestError::TooLong(_)) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID", error)
            }
            E::Manifest(_) => Self::manifest(error),
            E::InUse { .. } => Self::new(StatusCode::METHOD_NOT_ALLOWED, "DENIED", error),
            E::Frozen { .. } | E::FrozenWhole(_) | E::QuotaExceeded { .. } | E::Immutable { .. } => {
                Self::new(StatusCode::FORBIDDEN, "DENIED", error)
            }
            E::BeingRemoved(_) | E::Collecting => Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", error)
                .with(header::RETRY_AFTER, HeaderValue::from_static("1")),
            E::Roots(_) | E::NobodyListens | E::Replication { .. } => {
                Self::internal(StatusCode::SERVICE_UNAVAILABLE, "the registry cannot answer now", error)
            }
            E::TooManyUploads => Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", error)
                .with(header::RETRY_AFTER, HeaderValue::from_static("60")),
            E::BlobTooLong { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", error),
            E::Blobs(inner) => Self::of_blob(inner),
            E::Records(inner) if inner.is_no_space() => Self::no_space(),
            E::Records(inner) => {
                Self::internal(StatusCode::SERVICE_UNAVAILABLE, "the registry cannot answer now", inner)
            }
        }
    }
}

impl From<BlobError> for Failure {
    fn from(error: BlobError) -> Self {
        RegistryError::from(error).into()
    }
}

impl Failure {
    fn of_blob(error: &BlobError) -> Self {
        match error {
            BlobError::NoSpace { .. } => Self::no_space(),
            BlobError::Mismatch { .. } => Self::digest(error),
            BlobError::Offset { at, .. } => Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", error)
                .with(header::RANGE, value(format!("0-{}", at.saturating_sub(1)))),
            BlobError::UploadBusy(_) => Self::new(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID", error),
            other => {
                Self::internal(StatusCode::INTERNAL_SERVER_ERROR, "the registry cannot read or write this blob", other)
            }
        }
    }

    pub fn no_space() -> Self {
        let status = StatusCode::INSUFFICIENT_STORAGE;
        Self::internal(status, "the registry has no space left on its disk", "no space left on the disk")
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Records(why) => {
                Self::internal(StatusCode::SERVICE_UNAVAILABLE, "rights cannot be looked up now", why)
            }
            AccessError::Busy => Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", error)
                .with(header::RETRY_AFTER, HeaderValue::from_static("5")),
            error => Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", error),
        }
    }
}

impl Failure {
    /// What a refusal of the gate is to a client that wanted `scope`. `reading` decides whether something that may not be
    /// seen is not there, or may not be written to.
    pub fn denied(denied: Denied, scope: String, reading: bool) -> Self {
        match denied {
            Denied::Unauthenticated => Self::challenge(Some(scope), None),
            Denied::Hidden { .. } if reading => {
                Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "there is no such image, or it is not for you")
            }
            Denied::Hidden { .. } => {
                Self::new(StatusCode::FORBIDDEN, "DENIED", "requested access to the image is denied")
            }
            Denied::Forbidden { .. } | Denied::Scope { .. } => Self::new(StatusCode::FORBIDDEN, "DENIED", denied),
            Denied::Unavailable(why) => {
                Self::internal(StatusCode::SERVICE_UNAVAILABLE, "rights cannot be looked up now", why)
            }
        }
    }
}
