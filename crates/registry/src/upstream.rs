//! The pull-through cache: images of other registries, under names of this one.
//!
//! An [`Upstream`] is asked only for what a client asks for, and for that once, however many clients ask. What it sent is
//! kept as any image is. A digest is never asked for again; a tag is, after a while, and if the upstream has no answer
//! then, the old one is served and labelled. What it said of a manifest that nobody fetched is kept as well (`heads.rs`):
//! clients that have it from elsewhere only ask what a tag points to.

mod blobs;
mod error;
mod fetch;
mod flight;
pub(crate) mod heads;
mod health;
mod inside;
mod listing;
mod manifests;
mod memory;
mod names;
mod records;
mod state;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{Digest, ImageName, ImagePattern};
use oci::client::{Auth, Client, ClientError, ClientOptions, ManifestHead, Remote, RemoteRegistry};
use oci::{Reference, RegistryHost};

use crate::{ManifestRecord, RegistryError};

pub(crate) use blobs::CachedBlob;
pub use error::UpstreamError;
use fetch::Fetches;
use flight::Flights;
pub use health::Budget;
use health::{Health, Held, Purpose};
pub use inside::UpstreamImage;
use memory::Memory;
pub use names::{ListenerUpstream, Upstreams};
pub(crate) use names::{Meant, Place};
use state::Counters;
pub use state::{Condition, UpstreamState};

/// How long connecting to an upstream may take.
const CONNECT: Duration = Duration::from_secs(5);

/// An upstream registry, and how it is used.
#[derive(Clone, Debug)]
pub struct UpstreamOptions {
    /// What clients call it: `docker.io`.
    pub name: String,
    /// Where it answers.
    pub host: RegistryHost,
    /// Whether it is spoken to without TLS.
    pub plain_http: bool,
    /// What names of its images begin with here.
    pub prefix: ImageName,
    /// Whether everybody may pull through it, or only who is known here.
    pub anonymous: bool,
    /// The images that may be pulled through it, by their names there; all if empty.
    pub allow: Vec<ImagePattern>,
    /// Images that may not.
    pub deny: Vec<ImagePattern>,
    /// Whom we are there.
    pub auth: Auth,
    /// A file of certificates (PEM) that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// Whether its realm and its blobs may be at internal addresses even if it is not.
    pub allow_private: bool,
    /// How long a tag is good without a question.
    pub revalidate_after: Duration,
    /// How long after its last confirmation a tag is served when the upstream has no answer.
    pub stale_for: Duration,
    /// How long it is remembered that the upstream does not have something.
    pub negative_for: Duration,
    /// How long the upstream may say nothing.
    pub timeout: Duration,
    /// The longest blob that is passed on, in bytes.
    pub max_blob: u64,
    /// How many of the pulls that the upstream allows are kept for what is not here.
    pub reserve: u64,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// From the cache, without a question.
    Hit,
    /// From the upstream.
    Miss,
    /// From the cache; the upstream said that it still holds.
    Revalidated,
    /// From the cache; the upstream had no answer, so it may hold no more.
    Stale,
}

impl Freshness {
    /// As the header `Towpath-Cache` says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Revalidated => "revalidated",
            Self::Stale => "stale",
        }
    }
}

type Answer<T> = Result<(T, Freshness), UpstreamError>;

/// An upstream registry that runs.
pub struct Upstream {
    options: UpstreamOptions,
    name: Arc<str>,
    registry: RemoteRegistry,
    health: Health,
    /// What it does not have.
    absent: Memory<(ImageName, String), ()>,
    manifests: Arc<Flights<(ImageName, Reference), Answer<ManifestRecord>>>,
    heads: Arc<Flights<(ImageName, Reference), Result<ManifestHead, UpstreamError>>>,
    sizes: Arc<Flights<(ImageName, Digest), Result<u64, UpstreamError>>>,
    fetches: Fetches,
    counters: Counters,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Upstream {
    fn new(options: UpstreamOptions) -> Result<Self, ClientError> {
        let host = options.host.clone();
        let client = Client::new(ClientOptions {
            extra_ca: options.ca.iter().cloned().collect(),
            plain_http: if options.plain_http { vec![host.as_str().to_owned()] } else { Vec::new() },
            connect_timeout: CONNECT.min(options.timeout),
            read_timeout: options.timeout,
            // Clients wait meanwhile, and have other registries to ask: what is worth trying again is decided here.
            retries: 0,
            patience: Duration::ZERO,
            allow_private: options.allow_private,
            ..ClientOptions::default()
        })?;
        Ok(Self {
            name: options.name.as_str().into(),
            registry: client.registry(host, options.auth.clone()),
            health: Health::new(options.reserve),
            absent: Memory::new(options.negative_for),
            manifests: Arc::default(),
            heads: Arc::default(),
            sizes: Arc::default(),
            fetches: Fetches::default(),
            counters: Counters::default(),
            options,
        })
    }

    /// What clients call it.
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Whether everybody may pull through it.
    pub const fn is_anonymous(&self) -> bool {
        self.options.anonymous
    }

    fn remote(&self, name: &ImageName) -> Remote {
        self.registry.repository(name.clone())
    }

    fn bad(&self, why: impl ToString) -> UpstreamError {
        UpstreamError::Bad { upstream: self.name(), why: why.to_string() }
    }

    fn absence(&self, what: impl ToString) -> UpstreamError {
        UpstreamError::Absent { upstream: self.name(), what: what.to_string() }
    }

    /// Whether the upstream may be asked now.
    fn admit(&self, purpose: Purpose) -> Result<(), UpstreamError> {
        self.health.admit(purpose, Instant::now()).map_err(|held| self.held(held))
    }

    fn held(&self, held: Held) -> UpstreamError {
        let upstream = self.name();
        match held {
            Held::Down { why, again } => UpstreamError::Down { upstream, why, again },
            Held::Limited { again } => UpstreamError::Limited { upstream, again },
            Held::Reserved => UpstreamError::Limited { upstream, again: Duration::from_secs(60) },
        }
    }

    /// Takes in that the upstream answered, and how many pulls it still allows.
    fn answered(&self) {
        self.health.answered();
        if let Some(quota) = self.registry.quota() {
            let budget = Budget { limit: quota.limit, remaining: quota.remaining, window: quota.window };
            self.health.counted(budget, Instant::now());
        }
    }

    /// Takes in that the upstream did not do what was asked, and says what that means to a client.
    fn judged(&self, error: &ClientError, what: &str) -> UpstreamError {
        let (upstream, now) = (self.name(), Instant::now());
        match error {
            ClientError::RateLimited { retry_after, .. } => {
                let again = self.health.limited(*retry_after, now);
                tracing::warn!(%upstream, seconds = again.as_secs(), "an upstream allows no more pulls");
                UpstreamError::Limited { upstream, again }
            }
            error if error::is_trouble(error) => {
                self.health.failed(error.to_string(), now);
                let again = match self.health.held(now) {
                    Some(Held::Down { again, .. }) => again,
                    _ => Duration::from_secs(1),
                };
                UpstreamError::Down { upstream, why: error.to_string(), again }
            }
            error if error.is_not_found() || error.is_denied() => {
                self.answered();
                if error.is_denied() {
                    tracing::info!(%upstream, what, %error, "an upstream does not show something");
                }
                self.absence(what)
            }
            error => self.bad(error),
        }
    }

    /// Asks the upstream for something, and takes in how that went.
    async fn ask<T>(
        &self,
        purpose: Purpose,
        what: &str,
        question: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, UpstreamError> {
        self.admit(purpose)?;
        // Several requests may stand behind one question: a redirect, a token, a slow body.
        let answer = tokio::time::timeout(self.options.timeout.saturating_mul(3), question).await;
        let host = || self.registry.host().to_string();
        let slow = || ClientError::Unreachable { host: host(), cause: "it takes too long".to_owned() };
        match answer.unwrap_or_else(|_| Err(slow())) {
            Ok(answer) => {
                self.answered();
                Ok(answer)
            }
            Err(error) => Err(self.judged(&error, what)),
        }
    }

    fn is_absent(&self, name: &ImageName, what: &str) -> bool {
        self.absent.get(&(name.clone(), what.to_owned()), Instant::now()).is_some()
    }

    /// Remembers that the upstream does not have something, if that is what `result` says.
    fn remember<T>(&self, name: &ImageName, what: &str, result: Result<T, UpstreamError>) -> Result<T, UpstreamError> {
        if let Err(UpstreamError::Absent { .. }) = &result {
            self.absent.put((name.clone(), what.to_owned()), (), Instant::now());
        }
        result
    }

    /// Counts an answer.
    fn counted<T>(&self, answer: Answer<T>) -> Answer<T> {
        if let Ok((_, freshness)) = &answer {
            self.counters.count(*freshness);
        }
        answer
    }
}

/// Something in here went wrong that leaves the answer as it is.
fn not_kept(upstream: &str, what: &impl std::fmt::Display, error: &RegistryError) {
    tracing::error!(%upstream, %what, %error, "what an upstream sent cannot be kept");
}
