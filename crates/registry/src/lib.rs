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
pub mod http;
mod listing;
mod manifests;
mod remembered;
mod schema;
mod uploads;
pub mod upstream;
mod usage;

use std::sync::Arc;

use store::{Blobs, Records};
use tokio::sync::RwLock;

pub use blobs::LinkedBlob;
pub use collect::Collected;
pub use error::RegistryError;
pub use events::{ENVELOPE, ImageAction, ImageEvent, Subscription};
pub use listing::{Page, Referrer};
pub use manifests::ManifestRecord;
pub use oci::Reference;
pub use usage::Usage;

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
    /// Read by whoever records that an image has a blob, while a lease holds the blob; written by whoever removes the
    /// bytes of blobs that no record names. So a blob is always leased, recorded or gone.
    linking: RwLock<()>,
    sessions: uploads::Sessions,
    watch: events::Watch,
    remembered: remembered::Remembered,
}

impl Registry {
    /// Opens the registry over `records` and `blobs`, and makes its tables.
    ///
    /// # Errors
    /// When the tables cannot be made, or a newer program made them.
    pub async fn open(records: Records, blobs: Blobs) -> Result<Self, RegistryError> {
        store::log::install(&records).await?;
        records.migrate("registry", schema::STEPS).await?;
        let shared = Shared {
            linking: RwLock::default(),
            sessions: uploads::Sessions::default(),
            watch: events::Watch::default(),
            remembered: remembered::Remembered::new(&records),
        };
        Ok(Self { records, blobs, shared: Arc::new(shared), actor: "towpath".into() })
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
