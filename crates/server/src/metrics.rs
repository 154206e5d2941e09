//! What is counted. Every counter has its place from the start: to count is to add to an atomic, and nothing is looked up.

mod page;
mod process;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::{Method, StatusCode};

use crate::kind::Kind;
pub(crate) use page::routes;

/// Methods that are told apart; any other is the last.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "other"];

/// Statuses that are told apart; any other is the last.
const STATUSES: [&str; 26] = [
    "200", "201", "202", "204", "206", "301", "304", "307", "400", "401", "403", "404", "405", "408", "409", "412",
    "413", "416", "421", "429", "500", "502", "503", "504", "507", "other",
];

/// Upper bounds of a request's duration, in seconds, as they are written, and in microseconds.
const BOUNDS: [(&str, u64); 13] = [
    ("0.0001", 100),
    ("0.0005", 500),
    ("0.001", 1_000),
    ("0.0025", 2_500),
    ("0.005", 5_000),
    ("0.01", 10_000),
    ("0.05", 50_000),
    ("0.1", 100_000),
    ("0.5", 500_000),
    ("1", 1_000_000),
    ("5", 5_000_000),
    ("30", 30_000_000),
    ("120", 120_000_000),
];

/// All counters of a server.
#[derive(Default)]
pub(crate) struct Metrics {
    kinds: [OfKind; Kind::ALL.len()],
    /// Connections that are open.
    pub(crate) connections: Gauge,
    /// Requests whose answer was not sent yet.
    pub(crate) under_way: Gauge,
    /// Handshakes that came to nothing.
    pub(crate) failed_handshakes: AtomicU64,
    /// Requests that were refused because their client asked too often.
    pub(crate) too_many_requests: AtomicU64,
    /// Requests that were refused because of the failed logins before them.
    pub(crate) too_many_logins: AtomicU64,
    /// Spans that were not exported.
    pub(crate) lost_spans: AtomicU64,
}

/// What is counted for one kind of route.
#[derive(Default)]
struct OfKind {
    answers: [[AtomicU64; STATUSES.len()]; METHODS.len()],
    /// Requests by duration, each in the first bound that it does not exceed; the last has no bound.
    durations: [AtomicU64; BOUNDS.len() + 1],
    /// The sum of all durations in microseconds.
    micros: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

/// A request that was answered.
pub(crate) struct Answered<'a> {
    pub(crate) kind: Kind,
    pub(crate) method: &'a Method,
    pub(crate) status: StatusCode,
    /// From its head to the last byte of the answer.
    pub(crate) duration: Duration,
    /// Bytes of its body.
    pub(crate) received: u64,
    /// Bytes of the answer's body.
    pub(crate) sent: u64,
}

impl Metrics {
    /// Counts a request.
    pub(crate) fn count(&self, answered: &Answered<'_>) {
        let of = &self.kinds[answered.kind as usize];
        of.answers[method(answered.method)][status(answered.status)].fetch_add(1, Relaxed);
        let micros = u64::try_from(answered.duration.as_micros()).unwrap_or(u64::MAX);
        let bound = BOUNDS.iter().position(|(_, bound)| micros <= *bound).unwrap_or(BOUNDS.len());
        of.durations[bound].fetch_add(1, Relaxed);
        of.micros.fetch_add(micros, Relaxed);
        of.received.fetch_add(answered.received, Relaxed);
        of.sent.fetch_add(answered.sent, Relaxed);
    }
}

fn method(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1)
}

fn status(status: StatusCode) -> usize {
    STATUSES.iter().position(|known| *known == status.as_str()).unwrap_or(STATUSES.len() - 1)
}

/// A number of things that come and go.
#[derive(Default)]
pub(crate) struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// One more, until what is returned is dropped.
    pub(crate) fn enter(&self) -> Entered {
        self.0.fetch_add(1, Relaxed);
        Entered(Arc::clone(&self.0))
    }

    fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// One of the things that a [`Gauge`] counts.
pub(crate) struct Entered(Arc<AtomicI64>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
