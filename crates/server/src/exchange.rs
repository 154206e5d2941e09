//! A request from its head to the last byte of its answer: what is counted, logged and traced of it, once it is over.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use access::Asker;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Uri, header};
use http_body::{Frame, SizeHint};

use crate::edge::Edge;
use crate::kind::Kind;
use crate::limits::Pass;
use crate::metrics::{Answered, Entered};
use crate::origin::ListenerRules;
use crate::traces::{Parent, Span, Trace};

/// The longest path that is logged, in bytes.
const LONGEST_PATH: usize = 300;
/// The longest name of a client's program, in characters.
const LONGEST_AGENT: usize = 80;

/// A request under way.
pub(crate) struct Exchange {
    edge: Arc<Edge>,
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) client: IpAddr,
    /// What its client may ask; nothing if it was not let in.
    pub(crate) pass: Option<Pass>,
    method: Method,
    uri: Uri,
    agent: Option<HeaderValue>,
    asker: Asker,
    received: Arc<AtomicU64>,
    trace: Option<Trace>,
    began: Instant,
    _under_way: Entered,
}

impl Exchange {
    /// That of a request with this head, from a peer.
    pub(crate) fn of(edge: Arc<Edge>, head: &Parts, peer: IpAddr, rules: &ListenerRules) -> Self {
        // Who is not our proxy starts traces of its own at most.
        let parent = head.headers.get("traceparent").filter(|_| rules.believes(peer));
        let parent = parent.and_then(|value| Parent::parse(value.to_str().ok()?));
        Self {
            id: next_id(),
            kind: Kind::of(head.uri.path()),
            client: rules.client(peer, &head.headers),
            pass: None,
            method: head.method.clone(),
            uri: head.uri.clone(),
            agent: head.headers.get(header::USER_AGENT).cloned(),
            asker: Asker::default(),
            received: Arc::default(),
            trace: edge.tracer.as_ref().and_then(|tracer| tracer.begin(parent)),
            began: Instant::now(),
            _under_way: edge.metrics.under_way.enter(),
            edge,
        }
    }

    /// To be filled by who authenticates the request.
    pub(crate) fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// Counts the bytes of its body.
    pub(crate) fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// Ends when the whole answer was sent, or its client is gone.
    pub(crate) fn until_sent(self, response: Response) -> Response {
        let status = response.status();
        response.map(|inner| Body::new(Sent { inner, exchange: self, status, bytes: 0 }))
    }

    fn end(&mut self, status: StatusCode, sent: u64) {
        let (duration, received) = (self.began.elapsed(), self.received.load(Ordering::Relaxed));
        let (kind, method) = (self.kind, &self.method);
        self.edge.metrics.count(&Answered { kind, method, status, duration, received, sent });
        if let Some(pass) = &self.pass {
            self.edge.limits.settle(pass, self.asker.who(), status, Instant::now());
        }
        self.log(status, duration, received, sent);
        if let (Some(tracer), Some(trace)) = (&self.edge.tracer, self.trace.take()) {
            let who = self.asker.who().map(ToString::to_string);
            let (path, agent) = (self.path().to_owned(), self.agent());
            let (id, client, method) = (self.id.clone(), self.client, self.method.clone());
            tracer.end(Span { trace, id, kind, method, path, status, client, who, agent, duration, received, sent });
        }
    }

    fn log(&self, status: StatusCode, duration: Duration, received: u64, sent: u64) {
        // Formatting is most of the work: none of it is done for a line that nobody wants.
        if !tracing::enabled!(target: "server::access", tracing::Level::INFO) {
            return;
        }
        let who = self.asker.who().map_or_else(|| "-".to_owned(), ToString::to_string);
        let Self { id, method, client, .. } = self;
        let (route, path, agent) = (self.kind.name(), self.path(), self.agent());
        let (status, micros) = (status.as_u16(), u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        tracing::info!(
            target: "server::access",
            %id, %method, path, route, status, who, received, sent, micros, %client, agent, "answered"
        );
    }

    /// Without the query.
    fn path(&self) -> &str {
        let path = self.uri.path();
        path.get(..path.len().min(LONGEST_PATH)).unwrap_or_default()
    }

    fn agent(&self) -> String {
        let text = self.agent.as_ref().and_then(|value| value.to_str().ok()).unwrap_or("-");
        text.chars().take(LONGEST_AGENT).collect()
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
    exchange: Exchange,
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
        self.exchange.end(self.status, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        assert_ne!(next_id(), next_id());
    }
}
