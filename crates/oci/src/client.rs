//! A client of registries: pulls, pushes, lists and deletes by the OCI distribution specification 1.1.
//!
//! [`Client`] holds the connections, [`RemoteRegistry`] whom we are at one registry, [`Remote`] one repository there.
//! Everything that a registry can send is bounded and checked: the length of manifests, lists, headers and errors, the
//! number of redirects and pages, the digest of every manifest and blob, and where a realm or a redirect may lead.
//! Credentials go to the registry and to the realm that it names, and to nobody else.

mod address;
mod challenge;
mod download;
mod error;
mod exchange;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod listing;
mod manifest;
mod options;
mod quota;
mod session;
mod source;
mod token;
mod upload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::ImageName;
use reqwest::{Method, Url};
use tokio::time::Instant;

use crate::RegistryHost;
use address::{Guard, Reach};
use session::Session;

pub use download::BlobStream;
pub use error::ClientError;
pub use listing::{NamePage, TagPage};
pub use manifest::{FetchedManifest, ManifestHead};
pub use options::{Auth, ClientOptions, MAX_CHUNK};
pub use quota::PullQuota;
pub use source::{BlobSource, ByteStream};
pub use upload::{BlobPush, Pushed};

/// Connections to registries. Clones share everything.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    options: ClientOptions,
    certificates: Vec<reqwest::Certificate>,
    /// One pool for each reach, with and without TLS; made when they are first needed, because reading the system's
    /// certificates takes a while and may fail where nobody needs them.
    wires: Mutex<HashMap<(Reach, bool), reqwest::Client>>,
    /// Until when a host has asked to be left alone.
    pauses: Mutex<HashMap<String, Instant>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl Client {
    /// A client that connects when it is first asked to.
    ///
    /// # Errors
    /// When a file of certificates cannot be read.
    pub fn new(options: ClientOptions) -> Result<Self, ClientError> {
        let certificates = options.certificates()?;
        Ok(Self(Arc::new(Inner { options, certificates, wires: Mutex::default(), pauses: Mutex::default() })))
    }

    /// The registry at `host`, as `auth`. Tokens are kept with it: ask for it once and clone it.
    pub fn registry(&self, host: RegistryHost, auth: Auth) -> RemoteRegistry {
        RemoteRegistry { session: Arc::new(Session::new(self.clone(), host, auth)) }
    }

    /// A repository of the registry at `host`, as `auth`.
    pub fn repository(&self, host: RegistryHost, name: ImageName, auth: Auth) -> Remote {
        self.registry(host, auth).repository(name)
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.0.options
    }

    /// The connections for an address with or without TLS that `reach` limits.
    fn wire(&self, reach: Reach, tls: bool) -> Result<reqwest::Client, ClientError> {
        let mut wires = self.0.wires.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wire) = wires.get(&(reach, tls)) {
            return Ok(wire.clone());
        }
        let options = &self.0.options;
        let builder = reqwest::Client::builder()
            .user_agent(&options.user_agent)
            .connect_timeout(options.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .http1_only()
            .dns_resolver(Guard(reach));
        let builder =
            if tls { builder.tls_certs_merge(self.0.certificates.iter().cloned()) } else { builder.tls_certs_only([]) };
        let wire = builder.build().map_err(|error| {
            ClientError::Options(format!("no connection can be made: {}", error::innermost(&error)))
        })?;
        wires.insert((reach, tls), wire.clone());
        Ok(wire)
    }

    /// Waits until `host` may be asked again.
    async fn wait(&self, host: &str) {
        let until = self.0.pauses.lock().unwrap_or_else(PoisonError::into_inner).get(host).copied();
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    /// Leaves `host` alone for `pause`, in all that this client does.
    fn leave_alone(&self, host: &str, pause: Duration) {
        let now = Instant::now();
        let mut pauses = self.0.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        pauses.retain(|_, until| *until > now);
        let until = pauses.entry(host.to_owned()).or_insert(now);
        *until = (*until).max(now + pause);
    }
}

/// A registry, and whom we are there. Clones share the tokens.
#[derive(Clone)]
pub struct RemoteRegistry {
    session: Arc<Session>,
}

impl std::fmt::Debug for RemoteRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteRegistry").field("host", self.host()).finish_non_exhaustive()
    }
}

impl RemoteRegistry {
    /// Where it is.
    pub fn host(&self) -> &RegistryHost {
        &self.session.host
    }

    /// One of its repositories, whether it exists or not.
    pub fn repository(&self, name: ImageName) -> Remote {
        Remote { session: self.session.clone(), name }
    }

    /// What the registry last said of how many pulls it still allows, if it said anything.
    pub fn quota(&self) -> Option<PullQuota> {
        *self.session.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks whether there is a registry that lets us in.
    ///
    /// # Errors
    /// When there is none, or it does not.
    pub async fn ping(&self) -> Result<(), ClientError> {
        let ask = exchange::Ask::new(Method::GET, self.session.url("")?, Vec::new());
        let response = self.session.send(&ask).await?;
        if response.status().is_success() { Ok(()) } else { Err(self.session.failure("the API", response).await) }
    }
}

/// One repository of a registry. Clones share everything.
#[derive(Clone)]
pub struct Remote {
    session: Arc<Session>,
    name: ImageName,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("host", self.host()).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Remote {
    /// Where its registry is.
    pub fn host(&self) -> &RegistryHost {
        &self.session.host
    }

    /// Its name there.
    pub fn name(&self) -> &ImageName {
        &self.name
    }

    /// Its registry.
    pub fn registry(&self) -> RemoteRegistry {
        RemoteRegistry { session: self.session.clone() }
    }

    /// Whether `other` is in the same registry, as the same user: whether blobs can be mounted from it.
    pub fn shares_registry(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.session, &other.session)
            || (self.host() == other.host() && self.session.auth == other.session.auth)
    }

    fn url(&self, rest: &str) -> Result<Url, ClientError> {
        self.session.url(&format!("{}/{rest}", self.name))
    }

    fn pull(&self) -> Vec<String> {
        vec![format!("repository:{}:pull", self.name)]
    }

    fn push(&self) -> Vec<String> {
        vec![format!("repository:{}:pull,push", self.name)]
    }

    fn erase(&self) -> Vec<String> {
        vec![format!("repository:{}:delete,pull", self.name)]
    }
}
