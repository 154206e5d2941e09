//! Replication: chosen images are pushed to other registries, soon after they were pushed here.
//!
//! What a change makes necessary is put into a queue in the transaction of that change (`queue.rs`). An entry is an image
//! with a tag, or with a manifest that is about another: not what it was then, but what it is when its turn comes, so a tag
//! that moved twice is pushed once. One sender at a time works for a rule, under a lease (`sender.rs`); `push.rs` makes the
//! other side as this one is, `there.rs` takes away there what retention or a deletion ends. What a rule has pushed is
//! recorded, and nothing else is ever taken away.

mod push;
pub(crate) mod queue;
mod records;
mod sender;
mod source;
mod state;
mod there;

use std::path::PathBuf;
use std::sync::Arc;

use model::{ImageName, ImagePattern, NameError, Tag, TagPattern};
use oci::RegistryHost;
use oci::client::{Auth, Client, ClientError, ClientOptions};
use oci::transfer::TransferError;
use store::RecordsError;

use crate::retention::plan::Rule;
use crate::{Registry, RegistryError};

use sender::Sender;
pub use state::ReplicationState;

/// A rule: which images are pushed where.
#[derive(Clone, Debug)]
pub struct ReplicationRule {
    /// What it is called; what is queued and what was pushed is known by this.
    pub name: String,
    /// The images; all if empty.
    pub images: Vec<ImagePattern>,
    /// The tags; all if empty.
    pub tags: Vec<TagPattern>,
    /// The registry they are pushed to.
    pub host: RegistryHost,
    /// Whether it is spoken to without TLS.
    pub plain_http: bool,
    /// What is taken off the beginning of their names.
    pub strip: Option<ImageName>,
    /// What their names there begin with.
    pub prefix: Option<ImageName>,
    /// Whom we are there.
    pub auth: Auth,
    /// A file of certificates (PEM) that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// Whether its token server may be at an internal address even if it is not.
    pub allow_private: bool,
    /// Whether a tag that is deleted here is taken away there.
    pub deletes: bool,
    /// What of it goes there by itself. A tag that no rule is about stays.
    pub retention: Vec<Rule>,
}

impl ReplicationRule {
    fn wants_image(&self, image: &ImageName) -> bool {
        self.images.is_empty() || self.images.iter().any(|pattern| pattern.matches(image))
    }

    fn wants(&self, image: &ImageName, tag: &Tag) -> bool {
        self.wants_image(image) && (self.tags.is_empty() || self.tags.iter().any(|pattern| pattern.matches(tag)))
    }

    /// What an image is called there.
    fn name_there(&self, image: &ImageName) -> Result<ImageName, NameError> {
        let stripped = self.strip.as_ref().and_then(|strip| image.as_str().strip_prefix(strip.as_str()));
        let rest = match stripped {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
            _ => image.as_str(),
        };
        match &self.prefix {
            Some(prefix) if rest.is_empty() => Ok(prefix.clone()),
            Some(prefix) => format!("{prefix}/{rest}").parse(),
            None => rest.parse(),
        }
    }

    /// Where it pushes, for people and to know whether that changed.
    fn destination(&self) -> String {
        let prefix = self.prefix.as_ref().map(|prefix| format!("/{prefix}")).unwrap_or_default();
        format!("{}{prefix}", self.host)
    }

    /// All that decides which image is called what there.
    fn place(&self) -> String {
        format!("{} -{}", self.destination(), self.strip.as_ref().map_or("", ImageName::as_str))
    }

    /// All that decides what is pushed.
    fn selection(&self) -> String {
        let images: Vec<&str> = self.images.iter().map(ImagePattern::as_str).collect();
        let tags: Vec<&str> = self.tags.iter().map(TagPattern::as_str).collect();
        format!("{} : {}", images.join(" "), tags.join(" "))
    }
}

/// Why an image was not replicated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplicationError {
    /// The other side, or a blob on its way.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The copying.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// This registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The name that it would have there is none.
    #[error("it cannot be named there: {0}")]
    Name(#[from] NameError),
    /// What the other side cannot do.
    #[error("{0}")]
    There(String),
}

impl From<RecordsError> for ReplicationError {
    fn from(error: RecordsError) -> Self {
        Self::Registry(error.into())
    }
}

impl ReplicationError {
    /// Whether the other side as a whole is to be left alone for a while.
    fn is_temporary(&self) -> bool {
        match self {
            Self::Client(error) | Self::Transfer(TransferError::Client(error)) => error.is_temporary(),
            _ => false,
        }
    }
}

/// The rules of a registry at work. Clones share everything.
#[derive(Clone, Debug)]
pub struct Replication {
    registry: Registry,
    senders: Arc<[Sender]>,
}

impl Replication {
    /// From now on, changes of `registry` are queued for `rules`. For a rule that is new or has changed, all that it is
    /// about is queued; what another place was sent is forgotten, and stays there. Nothing connects yet.
    ///
    /// # Errors
    /// When a file of certificates cannot be read, or the records fail.
    pub async fn open(registry: &Registry, rules: Vec<ReplicationRule>) -> Result<Self, RegistryError> {
        let rules: Vec<Arc<ReplicationRule>> = rules.into_iter().map(Arc::new).collect();
        let senders = rules.iter().map(|rule| {
            let client = Client::new(options(rule)).map_err(|error| RegistryError::Replication {
                rule: rule.name.clone(),
                to: rule.destination(),
                why: error.to_string(),
            })?;
            let remote = client.registry(rule.host.clone(), rule.auth.clone());
            Ok(Sender::new(registry.clone(), Arc::clone(rule), remote))
        });
        let senders = senders.collect::<Result<_, RegistryError>>()?;
        registry.replicate(rules.clone());
        let shared = registry.records.is_shared();
        registry.records.write(move |tx| queue::begin(tx, &rules, shared, crate::now())).await?;
        Ok(Self { registry: registry.clone(), senders })
    }

    /// Replicates until `stopped`.
    pub async fn run(&self, stopped: impl Future<Output = ()>) {
        if self.senders.is_empty() {
            return;
        }
        let work = futures_util::future::join_all(self.senders.iter().map(Sender::run));
        tokio::select! {
            _ = work => {}
            () = stopped => {}
        }
        for sender in self.senders.iter() {
            sender.release().await;
        }
    }

    /// How each rule stands.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn states(&self) -> Result<Vec<ReplicationState>, RegistryError> {
        let mut states = Vec::new();
        for sender in self.senders.iter() {
            states.push(sender.state().await?);
        }
        Ok(states)
    }

    /// Queues everything that the rule `name` is about once more. How much that is; nothing if there is no such rule.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn again(&self, name: &str) -> Result<Option<u64>, RegistryError> {
        let Some(sender) = self.senders.iter().find(|sender| sender.rule().name == name) else { return Ok(None) };
        let rule = Arc::clone(sender.rule());
        let queued = self.registry.records.write(move |tx| queue::everything(tx, &rule, crate::now())).await?;
        self.registry.ring_replication();
        Ok(Some(queued))
    }
}

fn options(rule: &ReplicationRule) -> ClientOptions {
    ClientOptions {
        extra_ca: rule.ca.iter().cloned().collect(),
        plain_http: if rule.plain_http { vec![rule.host.as_str().to_owned()] } else { Vec::new() },
        allow_private: rule.allow_private,
        // What is worth trying again later is decided here.
        retries: 2,
        patience: std::time::Duration::from_secs(10),
        ..ClientOptions::default()
    }
}
