//! What is asked of the local engine, and what it answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use model::{CommitId, HealthEvidence, PinnedImage, TargetId};
use serde::{Deserialize, Serialize};

use crate::health::{Check, Health};

/// A revision that is to become live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Names this rollout: asked for again with the same key, it ends in the same state, and nothing runs twice.
    pub key: String,
    /// The target.
    pub target: TargetId,
    /// The target's name, for host names and messages.
    pub name: String,
    /// The GitOps revision the manifests are from.
    pub revision: CommitId,
    /// The services. One that is not here any more is stopped.
    pub services: Vec<ServiceRollout>,
    /// Where the public service listens; a free port of the loopback interface if absent. A port of 0 means a free one.
    pub listen: Option<SocketAddr>,
}

/// One service of a [`Rollout`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRollout {
    /// Its name in the target.
    pub name: String,
    /// Its image.
    pub image: PinnedImage,
    /// The commit the image was built from: `TOWPATH_SOURCE_COMMIT`.
    pub source_commit: Option<CommitId>,
    /// The workload that runs it.
    pub workload: gitops::Workload,
    /// How it is asked for its health.
    pub health: Health,
    /// The build identity it answers must be one of these.
    pub expected: Vec<String>,
    /// Further environment variables, which win over the manifest's.
    pub env: Vec<(String, String)>,
    /// Whether the target's address is this service's. At most one is; the first, if none says so.
    pub public: bool,
}

impl ServiceRollout {
    /// What the service must answer.
    pub fn check(&self) -> Check {
        Check {
            service: self.name.clone(),
            health: self.health.clone(),
            expected: self.expected.clone(),
            image: self.image.clone(),
        }
    }
}

/// A rollout that came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutReport {
    /// Where the public service answers: `http://127.0.0.1:8080`.
    pub address: String,
    /// Where each service answers.
    pub addresses: BTreeMap<String, SocketAddr>,
    /// What each service answered before it got traffic.
    pub health: Vec<HealthEvidence>,
    /// The services that ran already just so and were left running.
    pub kept: Vec<String>,
}

/// What is live of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveSite {
    /// The target.
    pub target: TargetId,
    /// Its name when it was rolled out.
    pub name: String,
    /// The key of the rollout that made it so.
    pub key: String,
    /// The GitOps revision.
    pub revision: CommitId,
    /// Where the public service answers; nothing while the proxy has not said so.
    pub address: Option<String>,
    /// Its services.
    pub services: Vec<LiveService>,
}

/// A live service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveService {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: PinnedImage,
    /// Where it answers.
    pub address: Option<SocketAddr>,
    /// Whether its supervisor is alive.
    pub supervised: bool,
    /// Whether its process runs.
    pub running: bool,
    /// The process that was started first in its sandbox, as this machine numbers it.
    pub pid: Option<u32>,
    /// How often it was started again since it went live.
    pub restarts: u64,
}
