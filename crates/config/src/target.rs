//! Targets: what of a repository runs where.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use model::{ImageName, RefName, RepoName, Stage, TagPattern};
use serde::{Deserialize, Serialize};

use crate::{ConfigError, Metadata};

/// A `kind: Target` document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// [`crate::API_VERSION`].
    pub api_version: String,
    /// `Target`.
    pub kind: String,
    /// Its name.
    pub metadata: Metadata,
    /// What it is.
    pub spec: TargetSpec,
}

/// A repository, branch and services with a GitOps location and a place to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetSpec {
    /// The repository whose pushes are delivered.
    pub repository: RepoName,
    /// The only branch that is delivered.
    pub branch: String,
    /// What is built and run, in this order.
    pub services: Vec<Service>,
    /// Where the desired state is kept.
    pub gitops: GitOps,
    /// Where it runs.
    #[serde(default)]
    pub deploy: Deploy,
    /// How long each stage should take at most.
    #[serde(default)]
    pub budgets: Budgets,
}

/// One image and the workload that runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// Its name, unique in the target.
    pub name: String,
    /// The image repository in the registry.
    pub image: ImageName,
    /// The image is built from the snapshot by this block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildSpec>,
    /// The image is pushed by a job of a workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobProducer>,
    /// The image is pushed by an outside system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalProducer>,
    /// How to see that it lives, and which build it is.
    #[serde(default)]
    pub health: HealthSpec,
}

/// Who makes the image of a service: exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Producer<'a> {
    /// Its own `build:` block.
    Build(&'a BuildSpec),
    /// A named job.
    Job(&'a JobProducer),
    /// An outside system.
    External(&'a ExternalProducer),
}

impl Producer<'_> {
    /// The key that names it in the file.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Build(_) => "build",
            Self::Job(_) => "job",
            Self::External(_) => "external",
        }
    }
}

impl Service {
    /// All producers that the service names; a checked target has one.
    pub fn producers(&self) -> Vec<Producer<'_>> {
        let build = self.build.as_ref().map(Producer::Build);
        let job = self.job.as_ref().map(Producer::Job);
        let external = self.external.as_ref().map(Producer::External);
        [build, job, external].into_iter().flatten().collect()
    }
}

/// How an image is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BuildSpec {
    /// The directory of the repository that COPY and ADD read.
    pub context: String,
    /// The Dockerfile, from the context.
    pub dockerfile: String,
    /// The stage to build; the last by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Build arguments.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
}

impl Default for BuildSpec {
    fn default() -> Self {
        Self { context: ".".into(), dockerfile: "Dockerfile".into(), target: None, args: BTreeMap::new() }
    }
}

/// A workflow job that pushes the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobProducer {
    /// The workflow file.
    pub workflow: String,
    /// The job's key.
    pub job: String,
}

/// An outside system that pushes the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalProducer {
    /// Its name, for the status.
    pub system: String,
    /// The tags that count; the newest of them is what runs. All by default.
    #[serde(default = "TagPattern::all", skip_serializing_if = "is_all")]
    pub tags: TagPattern,
}

fn is_all(tags: &TagPattern) -> bool {
    *tags == TagPattern::all()
}

/// How a service shows that it lives and which build it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HealthSpec {
    /// The path that is asked with GET; an answer from 200 to 299 is good.
    pub path: String,
    /// The port; by default the workload's, then the image's, then 8080.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Where in the answer the build identity stands.
    pub identity: HealthIdentity,
    /// Seconds from start until it must be good.
    pub timeout_seconds: u32,
}

impl Default for HealthSpec {
    fn default() -> Self {
        Self { path: "/".into(), port: None, identity: HealthIdentity::None, timeout_seconds: 30 }
    }
}

/// Where the build identity stands: a service is what was built only if it says so itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub enum HealthIdentity {
    /// In this response header.
    Header(String),
    /// At this JSON pointer (RFC 6901) of the body.
    JsonPointer(String),
    /// Nowhere: only the answer counts.
    #[default]
    None,
}

/// Where the desired state is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GitOps {
    /// The repository; the target's own by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepoName>,
    /// The branch, which must not be the one that is delivered.
    pub branch: String,
    /// The directory of the manifests.
    #[serde(default = "root")]
    pub path: String,
}

fn root() -> String {
    ".".into()
}

/// Where the site runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Deploy {
    /// The engine.
    pub engine: DeployEngine,
    /// Where the site answers; a free port of the loopback address, kept from then on, by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
}

impl Default for Deploy {
    fn default() -> Self {
        Self { engine: DeployEngine::Local, listen: None }
    }
}

/// What brings a revision to life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeployEngine {
    /// Supervised processes on this machine.
    Local,
}

/// Budgets in seconds; each is judged alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Budgets {
    /// From the push to the end.
    pub end_to_end_seconds: u32,
    /// Stage `source`.
    pub source_sync_seconds: u32,
    /// Stage `workflow`.
    pub actions_dispatch_seconds: u32,
    /// Stage `reuse`.
    pub reuse_plan_seconds: u32,
    /// Stage `build`.
    pub build_or_reuse_seconds: u32,
    /// Stages `publish`, `rollout` and `closeout`, each.
    pub gitops_argo_closeout_seconds: u32,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            end_to_end_seconds: 120,
            source_sync_seconds: 20,
            actions_dispatch_seconds: 20,
            reuse_plan_seconds: 20,
            build_or_reuse_seconds: 70,
            gitops_argo_closeout_seconds: 50,
        }
    }
}

impl Budgets {
    /// The budget of a stage in seconds; nothing for a stage without one.
    pub const fn of(&self, stage: Stage) -> Option<u32> {
        match stage {
            Stage::Source => Some(self.source_sync_seconds),
            Stage::Workflow => Some(self.actions_dispatch_seconds),
            Stage::Reuse => Some(self.reuse_plan_seconds),
            Stage::Build => Some(self.build_or_reuse_seconds),
            Stage::Pipeline => None,
            Stage::Publish | Stage::Rollout | Stage::Closeout => Some(self.gitops_argo_closeout_seconds),
        }
    }
}

impl TargetSpec {
    /// The ref whose pushes are delivered.
    ///
    /// # Errors
    /// When the branch cannot be the name of one.
    pub fn ref_name(&self) -> Result<RefName, model::NameError> {
        RefName::branch(&self.branch)
    }

    /// The repository of the desired state.
    pub fn gitops_repository(&self) -> &RepoName {
        self.gitops.repository.as_ref().unwrap_or(&self.repository)
    }

    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// One line that names the key and the value.
    pub fn check(&self) -> Result<(), String> {
        self.ref_name().map_err(|e| format!("spec.branch: {e}"))?;
        RefName::branch(&self.gitops.branch).map_err(|e| format!("spec.gitops.branch: {e}"))?;
        if self.gitops.branch == self.branch && *self.gitops_repository() == self.repository {
            return Err(format!("spec.gitops.branch: {:?} is the branch that is delivered itself", self.branch));
        }
        check_path("spec.gitops.path", &self.gitops.path)?;
        if self.services.is_empty() {
            return Err("spec.services: a target needs at least one service".into());
        }
        let mut names = BTreeSet::new();
        let mut images = BTreeSet::new();
        for (index, service) in self.services.iter().enumerate() {
            let at = format!("spec.services[{index}]");
            if !names.insert(&service.name) {
                return Err(format!("{at}.name: {:?} is the name of another service", service.name));
            }
            if !images.insert(&service.image) {
                return Err(format!(
                    "{at}.image: {} already has a producer, another service of this target",
                    service.image
                ));
            }
            service.check(&at)?;
        }
        Ok(())
    }
}

impl Service {
    fn check(&self, at: &str) -> Result<(), String> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.is_empty() || self.name.len() > 63 || !self.name.bytes().all(legal) {
            return Err(format!("{at}.name: {:?} is not 1 to 63 lower-case letters, digits and dashes", self.name));
        }
        let producers = self.producers();
        let keys: Vec<_> = producers.iter().map(Producer::key).collect();
        match producers.as_slice() {
            [Producer::Build(build)] => {
                check_path(&format!("{at}.build.context"), &build.context)?;
                check_path(&format!("{at}.build.dockerfile"), &build.dockerfile)?;
            }
            [Producer::External(external)] if external.system.trim().is_empty() => {
                return Err(format!("{at}.external.system: is empty; expected the name of who pushes {}", self.image));
            }
            [Producer::External(_)] => {}
            [] => return Err(format!("{at}: the image {} has no producer: give it a `build:` block", self.image)),
            [Producer::Job(_)] => {
                let hint = "use a `build:` block, or `external` for whoever pushes it";
                return Err(format!("{at}.job: images from `job` cannot be delivered yet; {hint}"));
            }
            _ => {
                let keys = keys.join("` and `");
                return Err(format!("{at}: the image {} has two producers, `{keys}`: keep one", self.image));
            }
        }
        if !self.health.path.starts_with('/') {
            return Err(format!("{at}.health.path: {:?} does not begin with /", self.health.path));
        }
        if let HealthIdentity::JsonPointer(pointer) = &self.health.identity
            && !pointer.is_empty()
            && !pointer.starts_with('/')
        {
            return Err(format!("{at}.health.identity.jsonPointer: {pointer:?} does not begin with / (RFC 6901)"));
        }
        Ok(())
    }
}

fn check_path(key: &str, path: &str) -> Result<(), String> {
    if path.starts_with('/') || path.split('/').any(|part| part == "..") || path.is_empty() {
        return Err(format!("{key}: {path:?} must be a path inside the repository"));
    }
    Ok(())
}

/// Reads the `spec` of a target that was recorded in an event.
///
/// # Errors
/// When it is not the spec of a target.
pub fn parse_target_spec(value: &serde_json::Value) -> Result<TargetSpec, ConfigError> {
    serde_json::from_value(value.clone()).map_err(|e| ConfigError::in_file("recorded target", e.to_string()))
}
