//! What every request passes through: limits by client, metrics and traces.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How much a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RateLimits {
    /// Requests in a second that each client may go on with; no limit without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// Requests that a client may send at once after a rest; ten seconds' worth without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Failed logins in a minute from one address; 0 for no limit.
    pub failed_logins_per_minute: u32,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self { requests_per_second: None, burst: None, failed_logins_per_minute: 60 }
    }
}

/// Where Prometheus finds `/metrics`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metrics {
    /// Address and port of a listener that serves nothing else. Whoever reaches it may read.
    pub address: SocketAddr,
    /// Host names under which it may be asked, besides its own address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

/// Where spans of requests are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Traces {
    /// An OTLP receiver over HTTP, as `http://localhost:4318`.
    pub endpoint: String,
    /// The share of requests that are traced, if who sends them has not decided.
    #[serde(default)]
    pub sample: Share,
}

/// A share between 0 and 1, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    /// All of it.
    const WHOLE: u32 = 1_000_000;

    /// Whether a number that is drawn from all numbers falls into it.
    pub const fn takes(self, drawn: u32) -> bool {
        // The product of two 32-bit numbers is a 64-bit one.
        (drawn as u64 * Self::WHOLE as u64) >> 32 < self.0 as u64
    }
}

impl Default for Share {
    fn default() -> Self {
        Self(Self::WHOLE)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / f64::from(Self::WHOLE))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let share = f64::deserialize(deserializer)?;
        if !(0.0..=1.0).contains(&share) {
            return Err(serde::de::Error::custom("expected a share between 0 and 1"));
        }
        // In range, as was just checked.
        Ok(Self((share * f64::from(Self::WHOLE)).round() as u32))
    }
}

impl RateLimits {
    /// Requests at once.
    pub fn burst(&self) -> u32 {
        self.burst.unwrap_or_else(|| self.requests_per_second.unwrap_or_default().saturating_mul(10))
    }
}

/// What is wrong, with its place.
pub(crate) fn check(limits: &RateLimits, traces: Option<&Traces>) -> Result<(), String> {
    if limits.requests_per_second == Some(0) || limits.burst == Some(0) {
        return Err(
            "spec.rateLimits: requestsPerSecond and burst must be at least 1; leave them out for no limit".into()
        );
    }
    if limits.burst.is_some() && limits.requests_per_second.is_none() {
        return Err("spec.rateLimits.burst: means nothing without requestsPerSecond".into());
    }
    match traces {
        Some(traces) if !["http://", "https://"].iter().any(|scheme| traces.endpoint.starts_with(scheme)) => {
            Err(format!("spec.traces.endpoint: {:?} does not begin with http:// or https://", traces.endpoint))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::{ConfigError, ServerSpec, parse_server};

    fn parse(spec: &str) -> Result<ServerSpec, ConfigError> {
        parse_server("towpath.yaml", &format!("apiVersion: towpath.dev/v1alpha1\nkind: Towpath\nspec:\n{spec}"))
    }

    #[test]
    fn reads_limits_metrics_and_traces() {
        let text = "  rateLimits: {requestsPerSecond: 50}\n  metrics: {address: '127.0.0.1:9464'}\n  \
                    traces: {endpoint: 'http://localhost:4318', sample: 0.25}\n";
        let spec = parse(text).unwrap();
        assert_eq!((spec.rate_limits.burst(), spec.rate_limits.failed_logins_per_minute), (500, 60));
        assert_eq!(spec.metrics.unwrap().address.port(), 9464);
        let sample = spec.traces.unwrap().sample;
        assert!(sample.takes(0) && sample.takes((1 << 30) - 1) && !sample.takes(1 << 30) && !sample.takes(u32::MAX));
        assert!(super::Share::default().takes(u32::MAX));
    }

    #[test]
    fn refuses_what_means_nothing() {
        for (text, said) in [
            ("  rateLimits: {requestsPerSecond: 0}\n", "at least 1"),
            ("  rateLimits: {burst: 5}\n", "without requestsPerSecond"),
            ("  traces: {endpoint: 'localhost:4318'}\n", "does not begin with http://"),
            ("  traces: {endpoint: 'http://x', sample: 1.5}\n", "between 0 and 1"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
