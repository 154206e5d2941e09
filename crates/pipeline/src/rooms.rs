//! The rooms that effects work in.

use std::path::{Path, PathBuf};

use config::seal::Sealer;
use store::Records;

/// The rooms, wired once at start.
pub struct Rooms {
    /// The data directory.
    pub data: PathBuf,
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

/// Bytes kept aside on the data disk.
const RESERVE: u64 = 4 << 20;

impl Rooms {
    /// The file that the output of a stage of a target run is written to.
    pub fn stage_log(&self, run: model::RunId, stage: model::Stage) -> PathBuf {
        self.data.join("logs").join(run.to_string()).join(format!("{stage}.log"))
    }

    /// Whether the data disk has room for another delivery: the reserve is aside, or can be, and as much is free beside it.
    pub fn has_room(&self) -> bool {
        if let Err(error) = set_reserve_aside(&self.data) {
            tracing::warn!(%error, "the reserve of the data disk cannot be set aside");
        }
        let free = rustix::fs::statvfs(&self.data).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        reserve_path(&self.data).exists() && free >= RESERVE
    }

    /// Gives back the space kept aside, so that the log can be written on a disk that others filled.
    pub fn free_reserve(&self) {
        let path = reserve_path(&self.data);
        if path.exists()
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::error!(%error, "the reserve of the data disk cannot be freed");
        }
    }
}

fn reserve_path(data: &Path) -> PathBuf {
    data.join("reserve")
}

/// Sets space aside on the data disk, if there is enough.
///
/// # Errors
/// Never for want of space: then there is none to set aside.
pub fn set_reserve_aside(data: &Path) -> std::io::Result<()> {
    let path = reserve_path(data);
    if std::fs::metadata(&path).is_ok_and(|it| it.len() == RESERVE) {
        return Ok(());
    }
    let file = std::fs::File::create(&path)?;
    let zeros = vec![0_u8; usize::try_from(RESERVE).unwrap_or(0)];
    let written = std::io::Write::write_all(&mut &file, &zeros).and_then(|()| file.sync_all());
    if written.is_err() {
        std::fs::remove_file(&path)?;
    }
    Ok(())
}
