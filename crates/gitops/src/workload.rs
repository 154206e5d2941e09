//! What an engine has to run, as the manifests say it.

use std::collections::BTreeMap;

use model::{ImageName, ImageRef};
use serde::{Deserialize, Serialize};

use crate::{GitopsError, read};

/// The kinds that are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkloadKind {
    /// `apps/v1` Deployment.
    Deployment,
}

impl WorkloadKind {
    /// The name of the kind, as the manifest has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
        }
    }
}

/// One workload of the manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Its kind.
    pub kind: WorkloadKind,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`, if written.
    pub namespace: Option<String>,
    /// The file it is in.
    pub file: String,
    /// The line it begins at, from 1.
    pub line: usize,
    /// How many instances it asks for; at least 1.
    pub replicas: u32,
    /// How long it may take to stop, in seconds.
    pub grace_seconds: u32,
    /// Its containers, in order; at least one.
    pub containers: Vec<Container>,
}

impl Workload {
    /// The first container whose image has this repository, whatever its registry, tag or digest.
    pub fn container_of(&self, image: &ImageName) -> Option<&Container> {
        self.containers.iter().find(|container| container.runs(image))
    }
}

/// One container of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Its name.
    pub name: String,
    /// The image reference, as written.
    pub image: String,
    /// Replaces the image's entrypoint, unless empty.
    pub command: Vec<String>,
    /// Replaces the image's command, unless empty.
    pub args: Vec<String>,
    /// The working directory, if it is not the image's.
    pub working_dir: Option<String>,
    /// The environment, in order, with `$(NAME)` not yet expanded.
    pub env: Vec<EnvVar>,
    /// The ports it says it listens on.
    pub ports: Vec<Port>,
    /// Its limits.
    pub resources: Resources,
    /// When it is ready.
    pub readiness: Option<Readiness>,
    /// `runAsUser`, of the container or else of the pod.
    pub user: Option<u32>,
    /// `runAsGroup`, of the container or else of the pod.
    pub group: Option<u32>,
    /// Where an empty directory (`emptyDir`) is mounted.
    pub scratch: Vec<String>,
}

impl Container {
    /// Whether the image has this repository, whatever its registry, tag or digest.
    pub fn runs(&self, image: &ImageName) -> bool {
        self.image.parse::<ImageRef>().is_ok_and(|reference| reference.name == *image)
    }
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A port that a container listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its number.
    pub number: u16,
}

/// Limits of a container; what is not limited is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processor time in thousandths of a processor.
    pub cpu_millis: Option<u64>,
}

/// A readiness probe over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// The path that is asked for.
    pub path: String,
    /// The port; nothing if the probe names one that the container does not declare by a number.
    pub port: Option<u16>,
}

/// Reads the workloads of `files` (path → text), by file and place in it. Kinds that run nothing are passed over.
///
/// # Errors
/// When a file is not YAML, a Deployment is not one by its schema, or it asks for what the local engine does not run
/// (volumes other than `emptyDir`, init containers, `valueFrom`, the host's namespaces, other kinds that run pods).
pub fn workloads(files: &BTreeMap<String, String>) -> Result<Vec<Workload>, GitopsError> {
    let mut found = Vec::new();
    for (file, text) in files.iter().filter(|(file, _)| crate::pin::is_yaml(file)) {
        read::file(file, text, &mut found)?;
    }
    Ok(found)
}
