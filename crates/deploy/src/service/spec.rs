//! What an instance runs, on disk.

use std::path::{Path, PathBuf};

use model::{Algorithm, Digest, PinnedImage, TargetId};
use serde::{Deserialize, Serialize};

use crate::DeployError;
use crate::files::{read_json, write_json};

/// Everything its supervisor needs to start the process, again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InstanceSpec {
    pub target: TargetId,
    pub service: String,
    pub image: PinnedImage,
    /// The image's layers, topmost first.
    pub lower: Vec<PathBuf>,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: String,
    pub user: (u32, u32),
    pub groups: Vec<u32>,
    pub hostname: String,
    /// The port it serves on.
    pub port: u16,
    /// Every port that may be connected to.
    pub ports: Vec<u16>,
    /// In bytes.
    pub memory: Option<u64>,
    /// In thousandths of a processor.
    pub cpu_millis: Option<u64>,
    /// Where empty directories are mounted.
    pub scratch: Vec<String>,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
    /// How long it may take to stop, in milliseconds.
    pub grace_ms: u64,
}

impl InstanceSpec {
    /// Equal for what runs equally.
    pub fn fingerprint(&self) -> Digest {
        // The fields are written in their order, so the same specification is the same text.
        let text = serde_json::to_vec(self).unwrap_or_default();
        oci::digest_of(Algorithm::Sha256, &text)
    }

    pub fn read(dir: &Path) -> Result<Option<Self>, DeployError> {
        let path = dir.join("spec.json");
        read_json(&path).map_err(DeployError::file("read", &path))
    }

    pub fn write(&self, dir: &Path) -> Result<(), DeployError> {
        let path = dir.join("spec.json");
        write_json(&path, self).map_err(DeployError::file("write", &path))
    }
}
