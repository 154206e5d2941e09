//! Why the cache has no answer.

use std::sync::Arc;
use std::time::Duration;

use oci::client::ClientError;

use crate::RegistryError;

/// Why something of an upstream cannot be given. Whatever is here already is served all the same.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The upstream does not have it, or does not show it to us.
    #[error("{upstream} has no {what}, or does not show it to this registry")]
    Absent {
        /// The upstream.
        upstream: Arc<str>,
        /// What was asked for.
        what: String,
    },
    /// The configuration leaves this image out.
    #[error("{image} is not among the images of {upstream} that this registry passes on")]
    NotAllowed {
        /// The upstream.
        upstream: Arc<str>,
        /// The image, by its name there.
        image: String,
    },
    /// The upstream is asked too often.
    #[error("{upstream} allows no more pulls now; ask again in {} s", again.as_secs())]
    Limited {
        /// The upstream.
        upstream: Arc<str>,
        /// When it may be asked again.
        again: Duration,
    },
    /// The upstream does not answer.
    #[error("{upstream} cannot be reached, and this is not in the cache: {why}")]
    Down {
        /// The upstream.
        upstream: Arc<str>,
        /// What went wrong.
        why: String,
        /// When it is tried again.
        again: Duration,
    },
    /// The upstream answers nonsense.
    #[error("the answer of {upstream} cannot be used: {why}")]
    Bad {
        /// The upstream.
        upstream: Arc<str>,
        /// What is wrong with it.
        why: String,
    },
    /// A blob is longer than the configuration allows.
    #[error("the blob of {upstream} has {size} bytes, at most {limit} are passed on (maxBlobBytes)")]
    TooLong {
        /// The upstream.
        upstream: Arc<str>,
        /// Its length.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// This registry itself failed.
    #[error(transparent)]
    Here(Arc<RegistryError>),
}

impl From<RegistryError> for UpstreamError {
    fn from(error: RegistryError) -> Self {
        Self::Here(Arc::new(error))
    }
}

impl From<store::BlobError> for UpstreamError {
    fn from(error: store::BlobError) -> Self {
        RegistryError::from(error).into()
    }
}

impl UpstreamError {
    /// Whether an old answer is better than this one.
    pub(super) const fn is_outage(&self) -> bool {
        matches!(self, Self::Limited { .. } | Self::Down { .. } | Self::Bad { .. })
    }
}

/// Whether an upstream that failed like this has trouble of its own.
pub(super) fn is_trouble(error: &ClientError) -> bool {
    error.is_temporary() && !matches!(error, ClientError::RateLimited { .. } | ClientError::Status { status: 429, .. })
}
