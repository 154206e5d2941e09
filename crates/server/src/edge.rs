//! What every request and every answer goes through, whichever route it is for: the request's id and its line in the
//! log, its origin, the refusal of what another site's page sends, and the headers that keep browsers from guessing.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body::{Frame, SizeHint};
use tower::ServiceExt;
use tracing::Instrument;

use crate::origin::{ListenerRules, Origin, Scheme};
use crate::problem::Problem;

/// Names a request in its answer and in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest path that the log shows, in bytes.
const LONGEST_PATH: usize = 300;

/// The two ends of a connection, and what is spoken between them.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) scheme: Scheme,
}

/// Who asked, as soon as it is known; for the log.
#[derive(Clone, Default)]
pub(crate) struct Asker(Arc<OnceLock<String>>);

impl Asker {
    pub(crate) fn is(&self, name: impl FnOnce() -> String) {
        self.0.get_or_init(name);
    }
}

/// Answers a request.
pub(crate) async fn serve(mut request: Request, ends: Ends, rules: &ListenerRules, routes: Router) -> Response {
    let line = Line::of(&request, ends.peer);
    let span = tracing::error_span!("request", id = %line.id);
    request.extensions_mut().insert(line.asker.clone());
    let ours = request.uri().path().starts_with("/towpath/");
    let mut response = match admit(&request, ends, rules) {
        Ok(origin) => {
            request.extensions_mut().insert(origin);
            let Ok(response) = routes.oneshot(request).instrument(span).await;
            response
        }
        Err(problem) => problem.into_response(),
    };
    let fails = !response.status().is_success();
    add_headers(response.headers_mut(), &line.id, ours || fails);
    line.until_sent(response)
}

fn admit(request: &Request, ends: Ends, rules: &ListenerRules) -> Result<Origin, Problem> {
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let origin = rules.resolve(ends, authority, request.headers()).map_err(|error| {
        let problem = Problem::new(StatusCode::MISDIRECTED_REQUEST, error.to_string());
        problem.hint("add the name to `hosts` of the listener in the server's file")
    })?;
    if is_cross_site(request.method(), request.headers(), &origin) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "a page of another site may not change anything here"));
    }
    Ok(origin)
}

/// Whether a browser sends this for a page of another site, perhaps with credentials that it remembers. Programs that
/// are no browsers send neither header.
fn is_cross_site(method: &Method, headers: &HeaderMap, origin: &Origin) -> bool {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return false;
    }
    if let Some(site) = headers.get("sec-fetch-site") {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(from) = headers.get(header::ORIGIN) else { return false };
    let from = from.to_str().unwrap_or_default();
    from.split_once("://").is_none_or(|(_, authority)| !authority.eq_ignore_ascii_case(&origin.authority))
}

fn add_headers(headers: &mut HeaderMap, id: &str, private: bool) {
    let mut absent = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    absent(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    // What is stored here is somebody's: shown by a browser, it does nothing and is framed by nobody.
    absent(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; sandbox");
    absent(header::REFERRER_POLICY, "no-referrer");
    absent(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if private {
        absent(header::CACHE_CONTROL, "no-store");
    }
    if let Ok(id) = HeaderValue::try_from(id) {
        headers.insert(REQUEST_ID, id);
    }
}

/// A line of the log in the making.
struct Line {
    id: String,
    method: Method,
    /// Without the query.
    path: String,
    peer: SocketAddr,
    asker: Asker,
    began: Instant,
}

impl Line {
    fn of(request: &Request, peer: SocketAddr) -> Self {
        let path = request.uri().path();
        let path = path.get(..path.len().min(LONGEST_PATH)).unwrap_or_default().to_owned();
        let (method, asker) = (request.method().clone(), Asker::default());
        Self { id: next_id(), method, path, peer, asker, began: Instant::now() }
    }

    /// Writes the line when the whole answer was sent, or its client is gone.
    fn until_sent(self, response: Response) -> Response {
        let status = response.status();
        response.map(|inner| Body::new(Sent { inner, line: self, status, bytes: 0 }))
    }
}

/// Unique while the server runs, and most likely over its restarts.
fn next_id() -> String {
    static START: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let start = START.get_or_init(|| RandomState::new().build_hasher().finish());
    format!("{:08x}-{:x}", start >> 32, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The body of an answer.
struct Sent {
    inner: Body,
    line: Line,
    status: StatusCode,
    bytes: u64,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let Line { id, method, path, peer, asker, began } = &self.line;
        let who = asker.0.get().map_or("-", String::as_str);
        let (status, bytes, millis) = (self.status.as_u16(), self.bytes, began.elapsed().as_millis());
        tracing::info!(target: "server::access", %id, %method, path, status, who, bytes, millis, %peer, "answered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let ours = Origin { scheme: Scheme::Http, authority: "127.0.0.1:7080".into() };
        let crosses = |method: Method, headers: &[(&'static str, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            is_cross_site(&method, &headers, &ours)
        };
        assert!(!crosses(Method::POST, &[]), "a program");
        assert!(!crosses(Method::POST, &[("origin", "http://127.0.0.1:7080")]));
        assert!(!crosses(Method::POST, &[("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:7080")]));
        for origin in ["http://evil.example", "http://127.0.0.1:8080", "null", ""] {
            assert!(crosses(Method::POST, &[("origin", origin)]), "{origin}");
            assert!(!crosses(Method::GET, &[("origin", origin)]), "{origin}");
        }
        for site in ["cross-site", "same-site", "what"] {
            assert!(crosses(Method::DELETE, &[("sec-fetch-site", site)]), "{site}");
        }
    }

    #[test]
    fn ids_differ() {
        assert_ne!(next_id(), next_id());
    }
}
