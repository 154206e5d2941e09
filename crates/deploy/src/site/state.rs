//! What is live of a target, on disk. The server writes `state.json`, the proxy writes `addresses.json`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use model::{CommitId, Digest, TargetId};
use serde::{Deserialize, Serialize};

use crate::DeployError;
use crate::files::{read_json, write_json};
use crate::health::Check;

/// The routes of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SiteState {
    pub target: TargetId,
    pub name: String,
    /// Counts the changes of this file.
    pub generation: u64,
    /// The rollout that made it so.
    pub key: String,
    pub revision: CommitId,
    /// In the order of the rollout.
    pub services: Vec<ServiceState>,
}

/// The route to one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceState {
    pub name: String,
    pub public: bool,
    /// Where the proxy listens for it.
    pub listen: SocketAddr,
    /// The name of the instance's directory below `services/<target>`.
    pub instance: String,
    /// What the instance runs; an equal one need not be started again.
    pub fingerprint: Digest,
    /// The port inside the sandbox.
    pub port: u16,
    pub check: Check,
}

/// Where the proxy listens, by service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Addresses(pub BTreeMap<String, Listening>);

/// One listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listening {
    /// What was asked for; its port may be 0.
    pub wanted: SocketAddr,
    /// What it is.
    pub bound: SocketAddr,
}

impl SiteState {
    pub fn read(dir: &Path) -> Result<Option<Self>, DeployError> {
        let path = dir.join("state.json");
        read_json(&path).map_err(DeployError::file("read", &path))
    }

    pub fn write(&self, dir: &Path) -> Result<(), DeployError> {
        let path = dir.join("state.json");
        write_json(&path, self).map_err(DeployError::file("write", &path))
    }

    /// The directory of one of its instances, seen from the directory of the site.
    pub fn instance_dir(site: &Path, target: TargetId, instance: &str) -> PathBuf {
        let root = site.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
        root.join("services").join(target.to_string()).join(instance)
    }

    /// The service the target's address belongs to.
    pub fn public(&self) -> Option<&ServiceState> {
        self.services.iter().find(|service| service.public).or(self.services.first())
    }
}

impl Addresses {
    pub fn read(dir: &Path) -> Result<Self, DeployError> {
        let path = dir.join("addresses.json");
        Ok(read_json(&path).map_err(DeployError::file("read", &path))?.unwrap_or_default())
    }

    pub fn write(&self, dir: &Path) -> Result<(), DeployError> {
        let path = dir.join("addresses.json");
        write_json(&path, self).map_err(DeployError::file("write", &path))
    }

    /// Where a service answers.
    pub fn of(&self, service: &str) -> Option<SocketAddr> {
        self.0.get(service).map(|listening| listening.bound)
    }
}
