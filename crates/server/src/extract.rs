//! What handlers take from a request. Whatever does not fit is answered with a problem document.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// How long the body of a request of our own API may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);

/// The variable parts of a path.
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        read.map(|path| Self(path.0)).map_err(|why| Problem::new(why.status(), why.body_text()))
    }
}

/// The fields of a query.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        read.map(|query| Self(query.0)).map_err(|why| Problem::new(why.status(), why.body_text()))
    }
}

/// An answer in JSON.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// A body that was not read yet: handlers ask the gate first.
pub(crate) struct Input(Request);

impl<S: Send + Sync> FromRequest<S> for Input {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Infallible> {
        Ok(Self(request))
    }
}

impl Input {
    /// The body, which must be JSON of this form.
    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<T, Problem> {
        if !self.is_json() {
            let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is not said to be JSON");
            return Err(problem.hint("send it with `Content-Type: application/json`"));
        }
        parse(&self.bytes().await?)
    }

    /// The same; nothing if there is no body.
    pub(crate) async fn optional_json<T: DeserializeOwned>(self) -> Result<Option<T>, Problem> {
        let bytes = self.bytes().await?;
        if bytes.is_empty() { Ok(None) } else { parse(&bytes).map(Some) }
    }

    /// The body as text.
    pub(crate) async fn text(self) -> Result<String, Problem> {
        let bytes = self.bytes().await?;
        String::from_utf8(bytes.into()).map_err(|_| Problem::bad("the body is not UTF-8"))
    }

    fn is_json(&self) -> bool {
        let value = self.0.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = value.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    }

    async fn bytes(self) -> Result<Bytes, Problem> {
        let read = tokio::time::timeout(BODY_TIME, Bytes::from_request(self.0, &())).await;
        let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body of the request took too long to arrive");
        read.map_err(late)?.map_err(|why| Problem::new(why.status(), why.body_text()))
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let read = axum::Json::<T>::from_bytes(bytes);
    read.map(|json| json.0).map_err(|why| Problem::new(why.status(), why.body_text()))
}
