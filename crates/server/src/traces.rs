//! Spans of requests, sent to an OTLP receiver over HTTP as JSON: one span for each request that is traced.
//!
//! Requests never wait for the receiver: what it does not take in time is lost, and counted.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::{Share, Traces};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::kind::Kind;
use crate::metrics::Metrics;

/// Spans that wait to be sent.
const MOST_WAITING: usize = 4096;
/// Spans of one message.
const MOST_TOGETHER: usize = 512;
/// How long a span waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How long the receiver may take.
const RECEIVER_TIME: Duration = Duration::from_secs(5);

/// Where the sender of a request stands in its trace: the header `traceparent` of W3C Trace Context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    trace: u128,
    span: u64,
    sampled: bool,
}

impl Parent {
    /// Reads the header; nothing if it is not valid.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |part: &str, length: usize| {
            let digits = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
            (part.len() == length && part.bytes().all(digits)).then(|| u128::from_str_radix(part, 16).ok())?
        };
        // A later version may say more behind this; ours does not.
        let ends = parts.next().is_none();
        let version = hex(version, 2).filter(|version| *version != 0xff && (*version != 0 || ends));
        version?;
        let (trace, span) = (hex(trace, 32)?, u64::try_from(hex(span, 16)?).ok()?);
        let sampled = hex(flags, 2)? & 1 == 1;
        (trace != 0 && span != 0).then_some(Self { trace, span, sampled })
    }
}

/// A span that was begun.
#[derive(Debug)]
pub(crate) struct Trace {
    trace: u128,
    span: u64,
    parent: Option<u64>,
    began: SystemTime,
}

/// A request that is over.
pub(crate) struct Span {
    pub(crate) trace: Trace,
    /// The request's id.
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) status: StatusCode,
    pub(crate) client: IpAddr,
    pub(crate) who: Option<String>,
    pub(crate) agent: String,
    pub(crate) duration: Duration,
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// Decides what is traced, and takes it.
pub(crate) struct Tracer {
    sample: Share,
    spans: mpsc::Sender<Span>,
    metrics: Arc<Metrics>,
}

/// Sends it.
pub(crate) struct Exporter {
    spans: mpsc::Receiver<Span>,
    http: reqwest::Client,
    url: String,
    metrics: Arc<Metrics>,
}

impl Tracer {
    /// Both ends.
    pub(crate) fn new(traces: &Traces, metrics: Arc<Metrics>) -> Result<(Self, Exporter), String> {
        let (sender, spans) = mpsc::channel(MOST_WAITING);
        let http =
            reqwest::Client::builder().timeout(RECEIVER_TIME).redirect(reqwest::redirect::Policy::none()).build();
        let http = http.map_err(|error| error.to_string())?;
        let url = format!("{}/v1/traces", traces.endpoint.trim_end_matches('/').trim_end_matches("/v1/traces"));
        let exporter = Exporter { spans, http, url, metrics: Arc::clone(&metrics) };
        Ok((Self { sample: traces.sample, spans: sender, metrics }, exporter))
    }

    /// A span, if the request is to be traced: who sent it decides, or else the share that is.
    pub(crate) fn begin(&self, parent: Option<Parent>) -> Option<Trace> {
        let traced = parent.map_or_else(|| self.sample.takes(rand::random()), |parent| parent.sampled);
        // Zero is no id.
        traced.then(|| Trace {
            trace: parent.map_or_else(|| rand::random::<u128>() | 1, |parent| parent.trace),
            span: rand::random::<u64>() | 1,
            parent: parent.map(|parent| parent.span),
            began: SystemTime::now(),
        })
    }

    pub(crate) fn end(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.metrics.lost_spans.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Exporter {
    /// Sends spans until the last request has ended.
    pub(crate) async fn run(mut self) {
        let mut failing = false;
        let mut batch = Vec::new();
        while self.spans.recv_many(&mut batch, MOST_TOGETHER).await > 0 {
            let gathered = async {
                while batch.len() < MOST_TOGETHER {
                    let room = MOST_TOGETHER - batch.len();
                    if self.spans.recv_many(&mut batch, room).await == 0 {
                        return;
                    }
                }
            };
            let _ = tokio::time::timeout(GATHER, gathered).await;
            match self.send(&batch).await {
                Ok(()) => failing = false,
                Err(error) => {
                    self.metrics.lost_spans.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    if !failing {
                        tracing::warn!(url = self.url, error, "spans cannot be exported");
                    }
                    failing = true;
                }
            }
            batch.clear();
        }
    }

    async fn send(&self, spans: &[Span]) -> Result<(), String> {
        let spans: Vec<_> = spans.iter().map(Span::json).collect();
        let scope = json!({ "name": "towpath", "version": env!("CARGO_PKG_VERSION") });
        let resource = json!({ "attributes": [text("service.name", "towpath")] });
        let scope_spans = json!({ "scope": scope, "spans": spans });
        let body = json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [scope_spans] }] });
        let sent = self.http.post(&self.url).json(&body).send().await;
        let status = sent.map_err(|error| error.without_url().to_string())?.status();
        if status.is_success() { Ok(()) } else { Err(format!("the receiver answers {status}")) }
    }
}

impl Span {
    fn json(&self) -> Value {
        let began = self.trace.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut attributes = vec![
            text("http.request.method", self.method.as_str()),
            text("url.path", &self.path),
            text("towpath.route", self.kind.name()),
            text("towpath.request.id", &self.id),
            text("client.address", &self.client.to_string()),
            text("user_agent.original", &self.agent),
            number("http.response.status_code", u64::from(self.status.as_u16())),
            number("http.request.body.size", self.received),
            number("http.response.body.size", self.sent),
        ];
        attributes.extend(self.who.as_ref().map(|who| text("enduser.id", who)));
        let mut span = json!({
            "traceId": format!("{:032x}", self.trace.trace),
            "spanId": format!("{:016x}", self.trace.span),
            "name": format!("{} {}", self.method, self.kind.name()),
            // A request as its server sees it.
            "kind": 2,
            "startTimeUnixNano": began.as_nanos().to_string(),
            "endTimeUnixNano": (began + self.duration).as_nanos().to_string(),
            "attributes": attributes,
        });
        if let Some(parent) = self.trace.parent {
            span["parentSpanId"] = json!(format!("{parent:016x}"));
        }
        if self.status.is_server_error() {
            span["status"] = json!({ "code": 2 });
        }
        span
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// 64-bit numbers are text in the JSON form of protocol buffers.
fn number(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_parent_and_nothing_like_it() {
        let parent = Parent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        assert_eq!((parent.trace, parent.span), (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7));
        assert!(parent.sampled);
        assert!(
            Parent::parse("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more").is_some_and(|it| !it.sampled)
        );
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Parent::parse(bad), None, "{bad}");
        }
    }
}
