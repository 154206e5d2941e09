//! How a client behaves, and whom it is.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::ClientError;

/// The longest chunk of an upload, in bytes: below the 100 MB that common front proxies accept.
pub const MAX_CHUNK: u64 = 90_000_000;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// What it calls itself.
    pub user_agent: String,
    /// Files of certificates (PEM) that are trusted besides the system's.
    pub extra_ca: Vec<PathBuf>,
    /// Hosts (`host[:port]`) that are spoken to without TLS.
    pub plain_http: Vec<String>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long the other side may say or take nothing.
    pub read_timeout: Duration,
    /// How often a request or an upload is repeated after a connection broke or the other side had trouble of its own.
    pub retries: u32,
    /// The pause before the first repetition; it doubles each time, up to ten seconds.
    pub first_pause: Duration,
    /// How long in all one request waits for a registry that asks to be left alone (429, or 503 with `Retry-After`).
    pub patience: Duration,
    /// Whether realms and redirects may lead to private and loopback addresses wherever the registry itself is.
    /// Link-local addresses, where clouds keep credentials, stay refused.
    pub allow_private: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            user_agent: concat!("towpath/", env!("CARGO_PKG_VERSION")).to_owned(),
            extra_ca: Vec::new(),
            plain_http: Vec::new(),
            connect_timeout: Duration::from_secs(15),
            read_timeout: Duration::from_secs(120),
            retries: 5,
            first_pause: Duration::from_millis(250),
            patience: Duration::from_secs(120),
            allow_private: false,
        }
    }
}

impl ClientOptions {
    /// Whether `host` (`host[:port]`) is spoken to without TLS.
    pub(super) fn is_plain(&self, host: &str) -> bool {
        self.plain_http.iter().any(|plain| plain.eq_ignore_ascii_case(host))
    }

    pub(super) fn certificates(&self) -> Result<Vec<reqwest::Certificate>, ClientError> {
        let mut all = Vec::new();
        for path in &self.extra_ca {
            let bad = |why: String| ClientError::Options(format!("the certificates in {}: {why}", path.display()));
            let text = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
            let found = reqwest::Certificate::from_pem_bundle(&text).map_err(|error| bad(error.to_string()))?;
            if found.is_empty() {
                return Err(bad("there are none (expected PEM)".to_owned()));
            }
            all.extend(found);
        }
        Ok(all)
    }
}

/// Whom the client is at a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// Nobody.
    #[default]
    Anonymous,
    /// A user with a password or a token in its place.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// A token that the registry takes as it is.
    Bearer(Zeroizing<String>),
    /// A refresh token ("identity token"), which the realm exchanges for others.
    Refresh(Zeroizing<String>),
}

impl fmt::Debug for Auth {
    /// Never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { user, .. } => write!(f, "Basic({user:?})"),
            Self::Bearer(_) => f.write_str("Bearer"),
            Self::Refresh(_) => f.write_str("Refresh"),
        }
    }
}
