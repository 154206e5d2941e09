//! Wiring: the rooms of a data directory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config::ServerSpec;
use config::seal::Sealer;
use store::{Blobs, DataDir, Location, Records};

use crate::images::RegistryImages;
use crate::rooms::{Rooms, set_reserve_aside};
use crate::{Journal, Pipeline, StartError};

/// A pipeline that runs, and what its first start gives out once.
pub struct Opened {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// The first administrator's token; only at the first start.
    pub admin_token: Option<access::Secret>,
    /// Keeps the data directory ours.
    pub data: DataDir,
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

/// Opens every room below `dir` and starts the pipeline. `server_url` is the address of the first listener.
///
/// # Errors
/// When another server holds the directory, it cannot be written, or it is of a later version.
pub async fn open(dir: &Path, spec: &ServerSpec, server_url: &str) -> Result<Opened, OpenError> {
    let data = DataDir::open(dir)?;
    let location = match &spec.records.postgres {
        None => data.records(),
        Some(reference) => Location::Postgres(reference.resolve()?.to_string()),
    };
    let records = Records::open(location).await.map_err(of("the records"))?;
    let journal = Journal::open(records.clone()).await.map_err(of("the event log"))?;
    let (rooms, admin_token) = rooms(&data, spec, server_url, records).await?;
    let recovered = rooms.local.recover().await;
    tracing::info!(?recovered, "picked up what was running");
    let pipeline = Pipeline::start(rooms, journal).await?;
    Ok(Opened { pipeline, admin_token, data })
}

async fn rooms(
    data: &DataDir,
    spec: &ServerSpec,
    server_url: &str,
    records: Records,
) -> Result<(Rooms, Option<access::Secret>), OpenError> {
    let dir = data.path();
    set_reserve_aside(dir).map_err(of("the data directory"))?;
    let sealer = Sealer::open(&dir.join("secrets.key"))?;
    let git = git::Git::discover().map_err(of("git"))?;
    let blobs = Blobs::open(&data.blobs()).await.map_err(of("the blob store"))?;
    let hosting = source::Hosting::open(git, records.clone(), dir.join("git")).await.map_err(of("git hosting"))?;
    hosting.recover().await.map_err(of("git hosting"))?;
    let access = access::Access::install(records.clone()).await.map_err(of("the accounts"))?;
    let admin_token = access.bootstrap().await.map_err(of("the accounts"))?;
    let registry = registry::Registry::open(records.clone(), blobs.clone()).await.map_err(of("the registry"))?;
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
    let images = Arc::new(RegistryImages::new(registry.clone(), blobs.clone()));
    let local = deploy::Local::open(deploy::LocalConfig { dir: dir.to_owned(), layers, images, drain: DRAIN });
    let local = local.map_err(of("the local engine"))?;
    let jobs = runner::Jobs::new(dir.join("jobs"));
    let rooms = Rooms {
        data: dir.to_owned(),
        records,
        blobs,
        hosting,
        access,
        registry,
        builder,
        local,
        jobs,
        labels: labels(&spec.actions.labels),
        job_slots: tokio::sync::Semaphore::new(spec.actions.parallel_jobs as usize),
        sealer,
        server_url: server_url.to_owned(),
        registry_hosts: registry_hosts(spec, &registry_host),
        registry_host,
        job_timeout_minutes: spec.actions.timeout_minutes.into(),
    };
    Ok((rooms, admin_token))
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
