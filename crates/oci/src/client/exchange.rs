//! A request and its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, Url};

use super::session::Pause;
use super::source::Part;
use super::{ClientError, ClientOptions};
use crate::client::error::innermost;

/// A request, ready to be sent more than once.
pub(super) struct Ask {
    pub method: Method,
    pub url: Url,
    /// What a token must be good for.
    pub scopes: Vec<String>,
    pub headers: HeaderMap,
    pub body: Body,
    /// Whether it is repeated when the connection breaks or the registry has trouble.
    pub repeats: bool,
}

/// What a request carries.
pub(super) enum Body {
    None,
    Bytes(Bytes),
    /// A piece of a blob. It can be sent once.
    Part(Part),
}

impl Ask {
    /// A request without a body.
    pub fn new(method: Method, url: Url, scopes: Vec<String>) -> Self {
        Self { method, url, scopes, headers: HeaderMap::new(), body: Body::None, repeats: true }
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// The same, sent once.
    pub fn once(mut self) -> Self {
        self.repeats = false;
        self
    }

    /// Whether redirects are followed: only where nothing is changed.
    pub fn follows(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// What it asks for, for an error.
    pub fn what(&self) -> String {
        let path: String = self.url.path().chars().take(200).collect();
        format!("{} {path}", self.method)
    }
}

/// Sends a request and waits for the head of its answer. What waits too long is a connection that broke: for the head,
/// and for the other side to take the next bytes of a body.
pub(super) async fn transmit(
    host: &str,
    patience: Duration,
    request: RequestBuilder,
    body: &Body,
) -> Result<Response, ClientError> {
    let moved = Arc::new(AtomicU64::new(0));
    let request = match body {
        Body::None => request,
        Body::Bytes(bytes) => request.body(bytes.clone()),
        Body::Part(part) => {
            let length = HeaderValue::from(part.length());
            request.header(CONTENT_LENGTH, length).body(reqwest::Body::wrap_stream(part.stream(moved.clone())))
        }
    };
    let mut answer = std::pin::pin!(request.send());
    let mut seen = 0;
    loop {
        tokio::select! {
            answer = &mut answer => return answer.map_err(|error| ClientError::unreachable(host, innermost(&error))),
            () = tokio::time::sleep(patience) => {
                let now = moved.load(Ordering::Relaxed);
                if now == seen {
                    return Err(ClientError::unreachable(host, format!("no answer in {} s", patience.as_secs())));
                }
                seen = now;
            }
        }
    }
}

/// The next bytes of an answer's body.
pub(super) async fn next_bytes(
    host: &str,
    patience: Duration,
    response: &mut Response,
) -> Result<Option<Bytes>, ClientError> {
    match tokio::time::timeout(patience, response.chunk()).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(ClientError::unreachable(host, innermost(&error))),
        Err(_) => Err(ClientError::unreachable(host, format!("no data in {} s", patience.as_secs()))),
    }
}

/// The whole body of an answer, if it is not longer than `limit` bytes.
pub(super) async fn whole_body(
    host: &str,
    patience: Duration,
    mut response: Response,
    limit: usize,
) -> Result<Bytes, ClientError> {
    let too_long = || ClientError::protocol(host, format!("an answer is longer than {limit} bytes"));
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(too_long());
    }
    let mut body = BytesMut::new();
    while let Some(bytes) = next_bytes(host, patience, &mut response).await? {
        if body.len() + bytes.len() > limit {
            return Err(too_long());
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body.freeze())
}

/// How often and how long a request has been repeated.
pub(super) struct Attempts {
    left: u32,
    pause: Duration,
    patience: Duration,
}

/// The longest pause of our own between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The pause when a registry does not say how long it wants to be left alone.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(5);

impl Attempts {
    pub fn new(options: &ClientOptions) -> Self {
        Self { left: options.retries, pause: options.first_pause, patience: options.patience }
    }

    /// The pause before the next attempt after `error`; nothing if there shall be none.
    pub fn next(&mut self, error: &ClientError) -> Option<Pause> {
        if !error.is_temporary() {
            return None;
        }
        if let ClientError::RateLimited { retry_after, .. } = error {
            let pause = retry_after.unwrap_or(UNKNOWN_PAUSE).max(Duration::from_millis(100));
            self.patience = self.patience.checked_sub(pause)?;
            return Some(Pause::Asked(pause));
        }
        self.left = self.left.checked_sub(1)?;
        let pause = self.pause.min(LONGEST_PAUSE);
        self.pause = pause * 2;
        // Not all at the same moment, if many were cut off at once.
        Some(Pause::Ours(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_ends() {
        let options = ClientOptions { retries: 3, patience: Duration::from_secs(7), ..ClientOptions::default() };
        let mut attempts = Attempts::new(&options);
        let broken = ClientError::unreachable("h", "broke");
        let pauses = std::iter::from_fn(|| attempts.next(&broken)).count();
        assert_eq!(pauses, 3);
        let mut attempts = Attempts::new(&options);
        let slow =
            |seconds| ClientError::RateLimited { host: "h".into(), retry_after: Some(Duration::from_secs(seconds)) };
        assert!(attempts.next(&slow(4)).is_some());
        assert!(attempts.next(&slow(4)).is_none());
        let gone = ClientError::NotFound { host: "h".into(), what: "x".into() };
        assert!(Attempts::new(&options).next(&gone).is_none());
    }
}
