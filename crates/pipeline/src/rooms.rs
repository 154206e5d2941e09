//! The rooms that effects work in.

use std::path::PathBuf;

use config::seal::Sealer;
use store::Records;

/// The rooms, wired once at start.
pub struct Rooms {
    /// The data directory.
    pub data: PathBuf,
    /// What is kept aside on its disk.
    pub reserve: store::Reserve,
    /// Records.
    pub records: Records,
    /// Blobs.
    pub blobs: store::Blobs,
    /// Hosted repositories.
    pub hosting: source::Hosting,
    /// The gate.
    pub access: access::Access,
    /// The registry.
    pub registry: registry::Registry,
    /// The registries that are pulled through it.
    pub upstreams: registry::upstream::Upstreams,
    /// The Dockerfile builder.
    pub builder: build::Builder,
    /// The local engine.
    pub local: deploy::Local,
    /// Jobs under supervision.
    pub jobs: runner::Jobs,
    /// The labels that the embedded runner has.
    pub labels: Vec<runner::Label>,
    /// Jobs that may run at the same time.
    pub job_slots: tokio::sync::Semaphore,
    /// Opens the secrets of repositories.
    pub sealer: Sealer,
    /// Where jobs reach the server.
    pub server_url: String,
    /// The registry as images are named in GitOps manifests that name none themselves.
    pub registry_host: String,
    /// The names under which Dockerfiles may call this registry.
    pub registry_hosts: Vec<String>,
    /// Minutes after which a job is ended, whatever it asks for itself.
    pub job_timeout_minutes: u64,
}

/// Bytes that must be free beside the reserve of the data disk for another delivery.
const ROOM: u64 = 4 << 20;

impl Rooms {
    /// The file that the output of a stage of a target run is written to.
    pub fn stage_log(&self, run: model::RunId, stage: model::Stage) -> PathBuf {
        self.data.join("logs").join(run.to_string()).join(format!("{stage}.log"))
    }

    /// Whether the data disk has room for another delivery: the reserve is aside, or can be, and as much is free beside it.
    pub fn has_room(&self) -> bool {
        let aside = self.reserve.set_aside().unwrap_or_else(|error| {
            tracing::warn!(%error, "the reserve of the data disk cannot be set aside");
            false
        });
        let free = rustix::fs::statvfs(&self.data).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        aside && free >= ROOM
    }
}
