//! Wiring: the rooms of a data directory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config::seal::Sealer;
use config::{Anonymous, ServerSpec};
use registry::replication::Replication;
use registry::upstream::Upstreams;
use store::{Blobs, BucketOptions, DataDir, Location, Records};

use crate::identities::identities;
use crate::images::RegistryImages;
use crate::needed::Needed;
use crate::policy;
use crate::presence::Presence;
use crate::rooms::Rooms;
use crate::{Journal, Pipeline, StartError, replication, upstreams};

/// What the registry needs, and the pipeline stands on: all of it is there when only the registry is served.
pub struct Basis {
    /// Keeps the data directory ours.
    pub data: DataDir,
    /// Records.
    pub records: Records,
    /// This server's place among those that share the records.
    pub presence: Option<Presence>,
    /// Blobs.
    pub blobs: Blobs,
    /// The gate.
    pub access: access::Access,
    /// The registry.
    pub registry: registry::Registry,
    /// The registries that are pulled through it.
    pub upstreams: Upstreams,
    /// Where its images are pushed on to.
    pub replication: Replication,
}

impl Basis {
    /// Opens records, blobs, accounts and the registry below `dir`.
    ///
    /// # Errors
    /// When another server holds the directory, it cannot be written, or it is of a later version.
    pub async fn open(dir: &Path, spec: &ServerSpec) -> Result<Self, OpenError> {
        let data = DataDir::open(dir)?;
        let location = match &spec.records.postgres {
            None => data.records(),
            Some(reference) => Location::Postgres(reference.resolve()?.to_string()),
        };
        let records = Records::open(location).await.map_err(of("the records"))?;
        store::log::install(&records).await.map_err(of("the records"))?;
        let bucket = spec.blobs.s3.as_ref().map(|bucket| format!("{}/{}", bucket.bucket, bucket.prefix));
        let presence = Presence::take(&records, data.path(), bucket.as_deref());
        let presence = presence.await.map_err(of("the records"))?;
        let blobs = blobs(&data, &records, spec).await?;
        let access = access::Access::install(records.clone()).await.map_err(of("the accounts"))?;
        let access = access.with_anonymous_images(anonymous(spec));
        let upstreams = upstreams::open(spec)?;
        let access = access.reserving(&upstreams::owners(spec)).await.map_err(|error| OpenError::Room {
            what: "the pull-through cache",
            message: format!("{error}; give the upstream another `prefix`"),
        })?;
        let access = access.with_identities(identities(spec)?).map_err(of("the issuers of identities"))?;
        let registry = registry::Registry::open(records.clone(), blobs.clone()).await.map_err(of("the registry"))?;
        registry.set_reserve(data.reserve().clone());
        registry.configure(policy::of(spec.registry.as_ref())).await.map_err(of("the registry"))?;
        let replication = replication::open(&registry, spec).await?;
        Ok(Self { data, records, presence, blobs, access, registry, upstreams, replication })
    }
}

async fn blobs(data: &DataDir, records: &Records, spec: &ServerSpec) -> Result<Blobs, OpenError> {
    let Some(bucket) = &spec.blobs.s3 else {
        return Blobs::open(&data.blobs()).await.map_err(of("the blob store"));
    };
    let options = BucketOptions {
        endpoint: bucket.endpoint.clone(),
        region: bucket.region.clone(),
        bucket: bucket.bucket.clone(),
        prefix: bucket.prefix.clone(),
        access_key: bucket.access_key.resolve()?.to_string(),
        secret_key: bucket.secret_key.resolve()?.to_string(),
        path_style: bucket.path_style,
    };
    Blobs::open_bucket(&data.blobs(), &options, records).await.map_err(of("the blob store"))
}

/// What may be done with images without credentials.
fn anonymous(spec: &ServerSpec) -> access::Level {
    let allowed = spec.registry.as_ref().map_or(&[][..], |registry| &registry.anonymous);
    if allowed.contains(&Anonymous::Push) {
        access::Level::Write
    } else if allowed.contains(&Anonymous::Pull) {
        access::Level::Read
    } else {
        access::Level::None
    }
}

/// Why the rooms cannot be opened. One line, for whoever starts the server.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory.
    #[error(transparent)]
    Data(#[from] store::DataDirError),
    /// A secret that the configuration names.
    #[error(transparent)]
    Secret(#[from] config::SecretError),
    /// The key of the sealed secrets.
    #[error(transparent)]
    Seal(#[from] config::seal::SealError),
    /// A room.
    #[error("{what} cannot be opened: {message}")]
    Room {
        /// Which.
        what: &'static str,
        /// Why.
        message: String,
    },
    /// The pipeline.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Turns a room's error into one that names the room.
fn of<E: std::error::Error>(what: &'static str) -> impl FnOnce(E) -> OpenError {
    move |error| {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            let text = inner.to_string();
            if !message.ends_with(&text) {
                message = format!("{message}: {text}");
            }
            source = inner.source();
        }
        OpenError::Room { what, message }
    }
}

/// How long requests to an old version may take after the traffic has moved.
const DRAIN: Duration = Duration::from_secs(30);

/// Opens the other rooms of the data directory and starts the pipeline. `server_url` is the address of the first
/// listener.
///
/// # Errors
/// When a room cannot be opened.
pub async fn open(basis: &Basis, spec: &ServerSpec, server_url: &str) -> Result<Pipeline, OpenError> {
    let journal = Journal::open(basis.records.clone()).await.map_err(of("the event log"))?;
    basis.registry.set_roots(Arc::new(Needed::new(journal.clone())));
    let rooms = rooms(basis, spec, server_url).await?;
    let recovered = rooms.local.recover().await;
    tracing::info!(?recovered, "picked up what was running");
    Ok(Pipeline::start(rooms, journal).await?)
}

async fn rooms(basis: &Basis, spec: &ServerSpec, server_url: &str) -> Result<Rooms, OpenError> {
    let dir = basis.data.path();
    let (records, blobs) = (basis.records.clone(), basis.blobs.clone());
    if !blobs.is_local() {
        let message = "it unpacks layers from files, and spec.blobs.s3 keeps them elsewhere; \
                       a file that names only `registry` serves the registry alone";
        return Err(OpenError::Room { what: "the builder", message: message.to_owned() });
    }
    basis.data.reserve().set_aside().map_err(of("the data directory"))?;
    let sealer = Sealer::open(&dir.join("secrets.key"))?;
    let git = git::Git::discover().map_err(of("git"))?;
    let hosting = source::Hosting::open(git, records.clone(), dir.join("git")).await.map_err(of("git hosting"))?;
    hosting.recover().await.map_err(of("git hosting"))?;
    let registry_host = server_url.split_once("://").map_or(server_url, |(_, host)| host).to_owned();
    let ids = sandbox::id_map();
    let layers = oci::LayerStore::open(&dir.join("layers"), ids_for_layers(&ids)).map_err(of("the layer store"))?;
    let builder = build::Builder::new(build::BuilderConfig {
        dir: dir.join("build"),
        blobs: blobs.clone(),
        layers: layers.clone(),
        limits: sandbox::Limits::default(),
    });
    let builder = builder.map_err(of("the builder"))?;
    let images = Arc::new(RegistryImages::new(basis.registry.clone(), blobs.clone()));
    let local = deploy::Local::open(deploy::LocalConfig { dir: dir.to_owned(), layers, images, drain: DRAIN });
    let local = local.map_err(of("the local engine"))?;
    let jobs = runner::Jobs::new(dir.join("jobs"));
    let actions = spec.actions.clone().unwrap_or_default();
    Ok(Rooms {
        data: dir.to_owned(),
        reserve: basis.data.reserve().clone(),
        records,
        blobs,
        hosting,
        access: basis.access.clone(),
        registry: basis.registry.clone(),
        upstreams: basis.upstreams.clone(),
        builder,
        local,
        jobs,
        labels: labels(&actions.labels),
        job_slots: tokio::sync::Semaphore::new(actions.parallel_jobs as usize),
        sealer,
        server_url: server_url.to_owned(),
        registry_hosts: registry_hosts(spec, &registry_host),
        registry_host,
        job_timeout_minutes: actions.timeout_minutes.into(),
    })
}

fn ids_for_layers(ids: &sandbox::IdMapping) -> oci::IdMap {
    if ids.count > 1 { oci::IdMap::shifted(ids.outside) } else { oci::IdMap::single() }
}

/// The built-in labels, and those of the server's file: all stand for this machine's own tools.
fn labels(more: &[String]) -> Vec<runner::Label> {
    let mut labels = runner::default_labels();
    let root = runner::LabelRoot::Host { also: Vec::new() };
    labels.extend(more.iter().map(|name| runner::Label { name: name.clone(), root: root.clone() }));
    labels
}

/// The first listener's address and port, `localhost` with that port, and the hosts that the listeners serve.
fn registry_hosts(spec: &ServerSpec, first: &str) -> Vec<String> {
    let mut hosts = vec![first.to_owned()];
    hosts.extend(first.rsplit_once(':').map(|(_, port)| format!("localhost:{port}")));
    hosts.extend(spec.listeners.iter().flat_map(|listener| listener.hosts.iter().cloned()));
    hosts
}
