//! An authority that speaks ACME (RFC 8555) → a certificate, ordered when it is needed and renewed in time.
//!
//! Account, certificates and the answers to challenges are in records: whichever process has the turn orders, and each
//! can answer the authority's questions and serve what came of it. [`Issuer`] keeps one certificate, [`Challenges`] knows
//! the answers. The certificate before serves until the next one is there.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod challenges;
mod connection;
mod issuer;
mod order;
mod records;

use std::path::PathBuf;

use model::Timestamp;
use store::{Records, RecordsError};

pub use challenges::{Challenges, Handshake};
pub use issuer::Issuer;

/// What the authority connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// The TLS listener, port 443 (RFC 8737).
    TlsAlpn,
    /// A plain listener, port 80, at `/.well-known/acme-challenge/`.
    Http,
}

impl Challenge {
    /// Its name in the protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TlsAlpn => "tls-alpn-01",
            Self::Http => "http-01",
        }
    }
}

/// What is ordered where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The URL of the authority's directory.
    pub directory: String,
    /// The names that the certificate is made out to.
    pub domains: Vec<String>,
    /// Whom the authority may write to, as `mailto:` addresses.
    pub contact: Vec<String>,
    /// A file of certificates (PEM) that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// How it is shown that the names are ours.
    pub challenge: Challenge,
}

impl Options {
    /// What a certificate is known by.
    fn key(&self) -> String {
        let mut domains = self.domains.clone();
        domains.sort();
        format!("{} {}", self.directory, domains.join(" "))
    }
}

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate and its chain, PEM.
    pub chain: String,
    /// The private key, PEM.
    pub key: String,
}

impl std::fmt::Debug for Issued {
    /// Never the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Why there is no certificate. One line.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The client for the authority.
    #[error("no connection to {directory} can be made: {why}")]
    Client {
        /// The directory.
        directory: String,
        /// Why.
        why: String,
    },
    /// The address leads to something else.
    #[error("{0} is not the directory of an ACME authority")]
    NoDirectory(String),
    /// The authority refused, or could not be reached.
    #[error("{directory}: {what}: {why}")]
    Authority {
        /// The directory.
        directory: String,
        /// What was tried.
        what: String,
        /// Why it did not work.
        why: String,
    },
    /// What came is no certificate.
    #[error("{0}")]
    Content(String),
    /// The records.
    #[error(transparent)]
    Records(#[from] RecordsError),
}

impl AcmeError {
    /// Whether the authority wants a fresher nonce, which it always may.
    pub(crate) fn is_bad_nonce(&self) -> bool {
        matches!(self, Self::Authority { why, .. } if why.contains("urn:ietf:params:acme:error:badNonce"))
    }
}

/// Makes the tables.
///
/// # Errors
/// When they cannot be made, or a newer program made them.
pub async fn install(records: &Records) -> Result<(), AcmeError> {
    store::log::install(records).await?;
    Ok(records.migrate("acme", records::STEPS).await?)
}

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
