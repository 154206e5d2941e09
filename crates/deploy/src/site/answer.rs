//! The body of an answer: the service's, as it comes, or a line of the proxy's own.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::route::InFlight;

/// A body. The request is on its way until this is dropped.
pub(crate) enum Answer {
    Service { body: Incoming, _in_flight: InFlight },
    Own(Full<Bytes>),
}

impl Answer {
    /// An answer in words.
    pub fn text(status: StatusCode, text: String) -> Response<Self> {
        let mut response = Response::new(Self::Own(Full::new(Bytes::from(text + "\n"))));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
        response
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Service { body, .. } => Pin::new(body).poll_frame(cx),
            Self::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Service { body, .. } => body.is_end_stream(),
            Self::Own(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Service { body, .. } => body.size_hint(),
            Self::Own(body) => body.size_hint(),
        }
    }
}
