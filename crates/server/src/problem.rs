//! Errors as RFC 9457 problem documents. What is internal is logged, not shown.

use access::{AccessError, Denied};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use pipeline::PipelineError;
use serde_json::json;

/// A problem document.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), hint: None }
    }

    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
            .hint("set TOWPATH_TOKEN, or give a user name and the token as password")
    }

    /// What the records could not do.
    fn of_records(error: &store::RecordsError) -> Self {
        if error.is_no_space() {
            tracing::error!(%error, "a request failed");
            return Self::new(StatusCode::INSUFFICIENT_STORAGE, "the server has no space left on its disk");
        }
        Self::internal(error)
    }

    pub(crate) fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the server could not do this; its log says why")
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let mut body = json!({
            "type": "about:blank", "title": title, "status": self.status.as_u16(), "detail": self.detail,
        });
        if let Some(hint) = self.hint {
            body["hint"] = json!(hint);
        }
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"towpath\""));
        }
        response
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Unauthenticated => Self::unauthenticated("this needs a valid token"),
            Denied::Forbidden { .. } | Denied::Scope { .. } => Self::new(StatusCode::FORBIDDEN, denied.to_string()),
            // Whether it exists is nobody's business who may not read it.
            Denied::Hidden { .. } => Self::not_found(denied.to_string()),
            Denied::Unavailable(error) => {
                tracing::error!(%error, "rights cannot be looked up");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "rights cannot be looked up")
            }
        }
    }
}

impl From<AccessError> for Problem {
    fn from(error: AccessError) -> Self {
        let detail = error.to_string();
        match error {
            AccessError::BadCredentials | AccessError::BadHeader(_) => Self::unauthenticated(detail),
            AccessError::NoUser(_)
            | AccessError::NoOrganisation(_)
            | AccessError::NoRepository(_)
            | AccessError::NoRobot(_)
            | AccessError::NoGroup(_)
            | AccessError::NoProvider(_)
            | AccessError::NoToken(_) => Self::not_found(detail),
            AccessError::Exists(_)
            | AccessError::OwnsRepositories { .. }
            | AccessError::LastAdministrator(_)
            | AccessError::LastManager(_) => Self::new(StatusCode::CONFLICT, detail),
            AccessError::Unlinked(_) => Self::new(StatusCode::FORBIDDEN, detail),
            AccessError::Busy => Self::new(StatusCode::SERVICE_UNAVAILABLE, detail),
            AccessError::Records(error) => Self::of_records(&error),
            _ => Self::bad(detail),
        }
    }
}

impl From<PipelineError> for Problem {
    fn from(error: PipelineError) -> Self {
        match error {
            PipelineError::Unknown(detail) => Self::not_found(detail),
            PipelineError::Refused(detail) => Self::new(StatusCode::CONFLICT, detail),
            PipelineError::Stopping => Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"),
            PipelineError::Hosting(error) => error.into(),
            PipelineError::Access(error) => error.into(),
            PipelineError::Records(error) => Self::of_records(&error),
            PipelineError::Git(error) => Self::internal(&error),
        }
    }
}

impl From<source::HostingError> for Problem {
    fn from(error: source::HostingError) -> Self {
        match &error {
            source::HostingError::Exists(_) => Self::new(StatusCode::CONFLICT, error.to_string()),
            source::HostingError::Unknown(_) => Self::not_found(error.to_string()),
            _ => Self::internal(&error),
        }
    }
}

impl From<store::RecordsError> for Problem {
    fn from(error: store::RecordsError) -> Self {
        Self::of_records(&error)
    }
}
