//! Users, organisations, tokens, and the one gate that decides what a principal may do.
//!
//! [`Access::authenticate`] makes a [`Principal`] of what a client sent; [`Access::authorize`] decides, and is the only
//! maker of an [`Authorized`] value. Handlers of git, registry, API and pages take such values, so none can forget to ask.
//! A right is as it stands at each request: a revoked token, a removed member and an ended job are refused at the next one.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accounts;
mod asker;
mod bearer;
mod credentials;
mod error;
mod gate;
mod groups;
mod issuer;
mod keys;
mod login;
mod passwords;
mod principal;
mod repositories;
mod rights;
mod robots;
mod schema;
mod secret;
mod standing;
mod tokens;
mod workloads;

use std::sync::Arc;

use model::Timestamp;
use store::Records;

pub use accounts::{Organisation, OwnerKind, UserRecord};
pub use asker::Asker;
pub use bearer::{BearerClaims, BearerError, BearerScope};
pub use credentials::Credentials;
pub use error::AccessError;
pub use gate::{Action, Authorized, Denied, Resource};
pub use groups::GroupRecord;
pub use issuer::IssuerConfig;
pub use keys::KeyRecord;
pub use login::{GroupMapping, LoggedIn, LoginConfig, LoginError, LoginStart};
pub use passwords::Imported;
pub use principal::{JobPrincipal, Level, Principal, RobotPrincipal, Role, Scope, User};
pub use robots::{NewRobot, RobotAction, RobotRecord};
pub use secret::Secret;
pub use tokens::TokenRecord;
pub use workloads::{WorkloadConfig, WorkloadRule};

/// Accounts and rights, kept in records. Clones share them.
#[derive(Clone, Debug)]
pub struct Access {
    records: Records,
    /// What may be done without credentials, with every image.
    anonymous_images: Level,
    /// Names that no user or organisation can have, in lower case.
    reserved: Arc<[String]>,
    identities: Arc<Known>,
    shared: Arc<Shared>,
}

/// Who else may say who somebody is.
#[derive(Clone, Debug, Default)]
pub struct Identities {
    /// Providers through which people sign in.
    pub logins: Vec<LoginConfig>,
    /// Issuers whose tokens stand for workloads.
    pub workloads: Vec<WorkloadConfig>,
}

/// The same, ready for use.
#[derive(Debug, Default)]
struct Known {
    providers: Vec<login::Provider>,
    workloads: Vec<workloads::Workloads>,
}

/// What is kept in memory.
#[derive(Debug)]
struct Shared {
    /// Sign the registry's bearer tokens.
    keys: keys::Keys,
    /// What the gate found out.
    rights: rights::Rights,
    /// Check passwords.
    passwords: passwords::Passwords,
}

impl Access {
    /// Makes the tables and the first signing key if they are not there.
    ///
    /// # Errors
    /// When the records cannot be written, or a later version wrote them.
    pub async fn install(records: Records) -> Result<Self, AccessError> {
        schema::install(&records).await?;
        let keys = keys::Keys::open(&records).await?;
        let shared = Shared { keys, rights: rights::Rights::default(), passwords: passwords::Passwords::new() };
        Ok(Self {
            records,
            anonymous_images: Level::None,
            reserved: Arc::default(),
            identities: Arc::default(),
            shared: Arc::new(shared),
        })
    }

    /// The same with further names that no user or organisation can have.
    ///
    /// # Errors
    /// [`AccessError::Exists`] when one has such a name already.
    pub async fn reserving(self, names: &[String]) -> Result<Self, AccessError> {
        let names: Arc<[String]> = names.iter().map(|name| schema::fold(name)).collect();
        let wanted = Arc::clone(&names);
        let taken = self.records.read(move |tx| {
            for name in wanted.iter() {
                if accounts::find_owner(tx, name)?.is_some() {
                    return Ok(Some(name.clone()));
                }
            }
            Ok(None)
        });
        match taken.await? {
            Some(name) => Err(AccessError::Exists(name)),
            None => Ok(Self { reserved: names, ..self }),
        }
    }

    /// The same with images open to everybody: for pulling, or for pushing and deleting as well.
    #[must_use]
    pub fn with_anonymous_images(self, allowed: Level) -> Self {
        Self { anonymous_images: allowed, ..self }
    }

    /// The same with others who may say who somebody is.
    ///
    /// # Errors
    /// [`AccessError::Identities`] when the roots to trust for one of them cannot be read.
    pub fn with_identities(self, identities: Identities) -> Result<Self, AccessError> {
        let Identities { logins, workloads } = identities;
        let providers = logins.into_iter().map(login::Provider::new).collect::<Result<_, _>>();
        let workloads = workloads.into_iter().map(workloads::Workloads::new).collect::<Result<_, _>>();
        let known = Known {
            providers: providers.map_err(AccessError::Identities)?,
            workloads: workloads.map_err(AccessError::Identities)?,
        };
        Ok(Self { identities: Arc::new(known), ..self })
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
