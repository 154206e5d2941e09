//! What a registry did not do, and why.

use std::time::Duration;

use model::Digest;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;

/// Why a request to a registry did not go well.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no such thing.
    #[error("{host} has no {what}")]
    NotFound {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// The registry or its realm wants other credentials.
    #[error("{host} does not let us in: {message}")]
    Unauthorized {
        /// The registry.
        host: String,
        /// What it said.
        message: String,
    },
    /// The registry asks to be left alone for longer than the client's patience.
    #[error("{host} asks us to slow down{}", retry_after.map_or(String::new(), |pause| format!(", for {} s", pause.as_secs())))]
    RateLimited {
        /// The registry.
        host: String,
        /// For how long, if it said.
        retry_after: Option<Duration>,
    },
    /// Any other answer that is not the one hoped for.
    #[error("{host} answered {status} for {what}{}{message}", if message.is_empty() { "" } else { ": " })]
    Status {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// The status code.
        status: u16,
        /// The first error code (`DENIED`, `MANIFEST_INVALID`, …), if there is one.
        code: String,
        /// What it said, clipped.
        message: String,
        /// When to ask again, if it said.
        retry_after: Option<Duration>,
    },
    /// What came is not what was asked for.
    #[error("{host} sent other content than {expected}: its digest is {found}")]
    DigestMismatch {
        /// The registry.
        host: String,
        /// What was asked for.
        expected: Box<Digest>,
        /// What came.
        found: Box<Digest>,
    },
    /// There is no connection, or it broke.
    #[error("{host} cannot be reached: {cause}")]
    Unreachable {
        /// Whom we tried to reach.
        host: String,
        /// What the system said.
        cause: String,
    },
    /// The registry sent us to an address that it has no business to send us to.
    #[error("{host} sends us to {url}, which is refused: {why}")]
    Refused {
        /// The registry.
        host: String,
        /// Where to, without its query.
        url: String,
        /// Why not.
        why: String,
    },
    /// An answer breaks the protocol, or is longer than anything sensible.
    #[error("{host} breaks the protocol: {message}")]
    Protocol {
        /// The registry.
        host: String,
        /// How.
        message: String,
    },
    /// What was to be pushed cannot be read.
    #[error("what was to be pushed cannot be read: {0}")]
    Source(String),
    /// The client cannot work as it is set up.
    #[error("{0}")]
    Options(String),
}

impl ClientError {
    /// Whether the same request may go well a little later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::RateLimited { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Whether the thing that was asked for is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether it was refused for want of rights or credentials.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Unauthorized { .. } | Self::Status { status: 403, .. })
    }

    /// When to ask again, if the registry said.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(super) fn protocol(host: impl ToString, message: impl Into<String>) -> Self {
        Self::Protocol { host: host.to_string(), message: message.into() }
    }

    pub(super) fn unreachable(host: impl ToString, cause: impl ToString) -> Self {
        Self::Unreachable { host: host.to_string(), cause: cause.to_string() }
    }
}

/// The `Retry-After` of an answer in seconds; dates are not read. At most a day.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(86_400)))
}

/// The first code and message of an error's body; of a body that is no such document, its beginning.
pub(super) fn code_and_message(body: &[u8]) -> (String, String) {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<Entry>,
        // Token servers answer one of these instead.
        #[serde(default)]
        details: Option<String>,
        #[serde(default)]
        error_description: Option<String>,
        #[serde(default)]
        error: Option<String>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    match serde_json::from_slice::<Body>(body) {
        Ok(body) => match body.errors.into_iter().next() {
            Some(entry) => (clip(&entry.code, 60), clip(&entry.message, 300)),
            None => {
                let said = body.details.or(body.error_description).or(body.error).unwrap_or_default();
                (String::new(), clip(&said, 300))
            }
        },
        Err(_) => (String::new(), clip(&String::from_utf8_lossy(body), 120)),
    }
}

/// At most `most` characters of what a stranger sent, on one line.
pub(super) fn clip(text: &str, most: usize) -> String {
    let plain = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(most).collect()
}

/// What lies at the bottom of an error, which says most.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut source = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    clip(&source.to_string(), 300)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read_and_clipped() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\nway","detail":{}}]}"#;
        assert_eq!(code_and_message(body), ("DENIED".to_owned(), "no way".to_owned()));
        let (_, long) = code_and_message("x".repeat(5000).as_bytes());
        assert_eq!(long.len(), 120);
        assert_eq!(
            code_and_message(br#"{"details":"incorrect username or password"}"#).1,
            "incorrect username or password"
        );
    }

    #[test]
    fn a_pause_has_a_bound() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "99999999".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(86_400)));
        headers.insert(RETRY_AFTER, "soon".parse().unwrap());
        assert_eq!(retry_after(&headers), None);
    }
}
