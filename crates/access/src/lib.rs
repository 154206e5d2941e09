//! Users, organisations, tokens, and the one gate that decides what a principal may do.
//!
//! [`Access::authenticate`] makes a [`Principal`] of what a client sent; [`Access::authorize`] decides, and is the only
//! maker of an [`Authorized`] value. Handlers of git, registry, API and pages take such values, so none can forget to ask.
//! Rights are looked up each time: a revoked token, a removed member and an ended job are refused at the next request.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accounts;
mod asker;
mod bearer;
mod credentials;
mod error;
mod gate;
mod principal;
mod remembered;
mod repositories;
mod schema;
mod secret;
mod tokens;

use std::sync::Arc;

use model::Timestamp;
use store::Records;

pub use accounts::{Organisation, OwnerKind, UserRecord};
pub use asker::Asker;
pub use bearer::{BearerClaims, BearerError, BearerScope};
pub use credentials::Credentials;
pub use error::AccessError;
pub use gate::{Action, Authorized, Denied, Resource};
pub use principal::{JobPrincipal, Level, Principal, Role, Scope, User};
pub use secret::Secret;
pub use tokens::TokenRecord;

/// Accounts and rights, kept in records. Clones share them.
#[derive(Clone, Debug)]
pub struct Access {
    records: Records,
    /// Signs the registry's bearer tokens.
    key: Arc<Secret>,
    /// What may be done without credentials, with every image.
    anonymous_images: Level,
    remembered: Arc<remembered::Remembered>,
}

impl Access {
    /// Makes the tables and the signing key if they are not there.
    ///
    /// # Errors
    /// When the records cannot be written, or a later version wrote them.
    pub async fn install(records: Records) -> Result<Self, AccessError> {
        schema::install(&records).await?;
        let key = bearer::signing_key(&records).await?;
        let remembered = Arc::new(remembered::Remembered::new(&records));
        Ok(Self { records, key: Arc::new(key), anonymous_images: Level::None, remembered })
    }

    /// The same with images open to everybody: for pulling, or for pushing and deleting as well.
    #[must_use]
    pub fn with_anonymous_images(self, allowed: Level) -> Self {
        Self { anonymous_images: allowed, ..self }
    }

    /// What may be done without credentials, with every image.
    pub const fn anonymous_images(&self) -> Level {
        self.anonymous_images
    }
}

/// The time now, for what is stored and for what expires.
fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
