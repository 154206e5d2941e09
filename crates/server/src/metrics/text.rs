//! The counters in Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::kind::Kind;
use crate::metrics::{BOUNDS, METHODS, Metrics, OfKind, STATUSES};

/// A page of metrics in the making.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    /// Begins a metric.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        // A string takes whatever is written into it.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A line of it; `labels` as `{name="value"}`, or nothing.
    pub(super) fn sample(&mut self, name: &str, labels: impl Display, value: impl Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    /// A metric with one line.
    pub(super) fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

impl Metrics {
    /// Writes all counters. What was never counted is left out.
    pub(super) fn write(&self, text: &mut Text) {
        let kinds = || Kind::ALL.iter().zip(&self.kinds).filter(|(_, of)| of.total() > 0);
        let name = "towpath_http_requests_total";
        text.family(name, "counter", "Requests that were answered.");
        for (kind, of) in kinds() {
            of.write_answers(name, kind.name(), text);
        }
        let name = "towpath_http_request_duration_seconds";
        text.family(name, "histogram", "From the head of a request to the last byte of its answer.");
        for (kind, of) in kinds() {
            of.write_durations(name, kind.name(), text);
        }
        for (name, help, of) in [
            ("towpath_http_received_bytes_total", "Bytes of requests' bodies.", OfKind::received as fn(&OfKind) -> u64),
            ("towpath_http_sent_bytes_total", "Bytes of answers' bodies.", OfKind::sent),
        ] {
            text.family(name, "counter", help);
            for (kind, counted) in kinds() {
                text.sample(name, format_args!("{{route=\"{}\"}}", kind.name()), of(counted));
            }
        }
        text.single("towpath_connections", "gauge", "Connections that are open.", self.connections.get());
        text.single("towpath_http_requests_under_way", "gauge", "Requests not answered yet.", self.under_way.get());
        for (name, help, counter) in [
            ("towpath_tls_failed_handshakes_total", "TLS handshakes that failed.", &self.failed_handshakes),
            ("towpath_refused_requests_total", "Requests refused with 429 for their rate.", &self.too_many_requests),
            ("towpath_refused_logins_total", "Requests refused with 429 for failed logins.", &self.too_many_logins),
            ("towpath_lost_spans_total", "Spans that could not be exported.", &self.lost_spans),
        ] {
            text.single(name, "counter", help, counter.load(Relaxed));
        }
    }
}

impl OfKind {
    fn total(&self) -> u64 {
        self.durations.iter().map(|count| count.load(Relaxed)).sum()
    }

    fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    fn write_answers(&self, name: &str, route: &str, text: &mut Text) {
        for (method, answers) in METHODS.iter().zip(&self.answers) {
            let counted = |counter: &AtomicU64| Some(counter.load(Relaxed)).filter(|count| *count > 0);
            for (status, count) in STATUSES.iter().zip(answers).filter_map(|(status, it)| Some((status, counted(it)?)))
            {
                let labels = format_args!("{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}}");
                text.sample(name, labels, count);
            }
        }
    }

    fn write_durations(&self, name: &str, route: &str, text: &mut Text) {
        let mut so_far = 0;
        let bounds = BOUNDS.iter().map(|(written, _)| *written).chain(["+Inf"]);
        let bucket = format!("{name}_bucket");
        for (bound, count) in bounds.zip(&self.durations) {
            so_far += count.load(Relaxed);
            text.sample(&bucket, format_args!("{{route=\"{route}\",le=\"{bound}\"}}"), so_far);
        }
        let labels = format!("{{route=\"{route}\"}}");
        let micros = self.micros.load(Relaxed);
        let seconds = format_args!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        text.sample(&format!("{name}_sum"), &labels, seconds);
        text.sample(&format!("{name}_count"), &labels, so_far);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Method, StatusCode};

    use super::*;
    use crate::metrics::Answered;

    #[test]
    fn a_page_holds_what_was_counted() {
        let metrics = Metrics::default();
        let count = |method: &Method, status, micros| {
            metrics.count(&Answered {
                kind: Kind::Manifest,
                method,
                status,
                duration: Duration::from_micros(micros),
                received: 3,
                sent: 7,
            });
        };
        count(&Method::GET, StatusCode::OK, 90);
        count(&Method::GET, StatusCode::OK, 600_000);
        count(&Method::from_bytes(b"BREW").unwrap(), StatusCode::IM_A_TEAPOT, 500_000_000);
        let mut text = Text::default();
        metrics.write(&mut text);
        let page = text.finish();
        for line in [
            "towpath_http_requests_total{route=\"manifest\",method=\"GET\",status=\"200\"} 2",
            "towpath_http_requests_total{route=\"manifest\",method=\"other\",status=\"other\"} 1",
            "towpath_http_request_duration_seconds_bucket{route=\"manifest\",le=\"0.0001\"} 1",
            "towpath_http_request_duration_seconds_bucket{route=\"manifest\",le=\"1\"} 2",
            "towpath_http_request_duration_seconds_bucket{route=\"manifest\",le=\"+Inf\"} 3",
            "towpath_http_request_duration_seconds_sum{route=\"manifest\"} 500.600090",
            "towpath_http_request_duration_seconds_count{route=\"manifest\"} 3",
            "towpath_http_received_bytes_total{route=\"manifest\"} 9",
            "towpath_http_sent_bytes_total{route=\"manifest\"} 21",
        ] {
            assert!(page.lines().any(|it| it == line), "{line}\n{page}");
        }
        assert!(!page.contains("\"blob\""), "{page}");
    }
}
