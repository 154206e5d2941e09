//! The OCI distribution registry: the only way a manifest or a tag becomes visible.
//!
//! [`Registry`] keeps which blobs, manifests and tags an image has; the bytes of blobs are the store's. A manifest becomes
//! visible through [`Registry::commit`] in process and through the same transaction over HTTP, never before everything
//! it refers to is there. [`http`] is the protocol; it asks [`access`] about every request and trusts no name, digest or
//! length that a client sends.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod blobs;
mod collect;
mod commit;
mod error;
mod events;
mod fallback;
mod freeze;
mod holds;
pub mod http;
mod listing;
mod manifests;
mod policy;
mod pulls;
mod quota;
mod remembered;
pub mod replication;
pub mod retention;
mod roots;
mod schema;
mod space;
mod trash;
mod upkeep;
mod uploads;
pub mod upstream;
mod usage;
mod verify;

use std::sync::{Arc, OnceLock, RwLock};

use store::{Blobs, Records};
use tokio::sync::Mutex;

pub use blobs::LinkedBlob;
pub use collect::{Collected, Thorough};
pub use error::RegistryError;
pub use events::{ENVELOPE, ImageAction, ImageEvent, Subscription};
pub use freeze::Freeze;
pub use listing::{Page, Referrer};
pub use manifests::ManifestRecord;
pub use oci::Reference;
pub use policy::{ImmutableTags, Policy, Quota};
pub use quota::QuotaUsage;
pub use roots::{BoxFuture, Root, Roots};
pub use trash::{Deleted, Undo, Undone};
pub use usage::Usage;
pub use verify::{Problem, Verified, VerifyEvent, Wrong};

/// What images exist, and what each of them has. Clones share everything.
#[derive(Clone, Debug)]
pub struct Registry {
    records: Records,
    blobs: Blobs,
    shared: Arc<Shared>,
    /// Who does what is done, for those who are told.
    actor: Arc<str>,
}

#[derive(Debug)]
struct Shared {
    sessions: uploads::Sessions,
    watch: events::Watch,
    remembered: remembered::Remembered,
    policy: RwLock<Arc<Policy>>,
    /// What was frozen when this process last looked; the records decide.
    frozen: RwLock<Vec<model::ImagePattern>>,
    roots: OnceLock<Arc<dyn Roots>>,
    /// What is kept aside on the data disk.
    reserve: OnceLock<store::Reserve>,
    pulls: pulls::Pulls,
    /// Held by the collection that this process runs.
    collecting: Mutex<()>,
    /// Who this process is where several take turns.
    holder: String,
}

impl Shared {
    fn new(records: &Records) -> Self {
        Self {
            sessions: uploads::Sessions::default(),
            watch: events::Watch::default(),
            remembered: remembered::Remembered::new(records),
            policy: RwLock::default(),
            frozen: RwLock::default(),
            roots: OnceLock::new(),
            reserve: OnceLock::new(),
            pulls: pulls::Pulls::default(),
            collecting: Mutex::default(),
            holder: format!("{}-{:016x}", std::process::id(), rand::random::<u64>()),
        }
    }
}

impl Registry {
    /// Opens the registry over `records` and `blobs`, and makes its tables.
    ///
    /// # Errors
    /// When the tables cannot be made, or a newer program made them.
    pub async fn open(records: Records, blobs: Blobs) -> Result<Self, RegistryError> {
        store::log::install(&records).await?;
        records.migrate("registry", schema::STEPS).await?;
        let shared = Arc::new(Shared::new(&records));
        let registry = Self { records, blobs, shared, actor: "towpath".into() };
        registry.know_frozen().await?;
        registry.take_over().await?;
        Ok(registry)
    }

    /// Where the bytes are.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }
}

/// Now, for what is recorded.
fn now() -> model::Timestamp {
    std::time::SystemTime::now().into()
}
