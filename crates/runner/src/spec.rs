//! What a job is given.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use model::{CommitId, JobId, JobResult, RefName, RepoId, RepoName, RunId, SnapshotRef};
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::label::Label;

/// How a needed job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NeedResult {
    /// How; of a matrix the worst.
    pub result: JobResult,
    /// Its outputs.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
}

/// What a job may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobLimits {
    /// How many bytes of output its log keeps.
    pub log_bytes: u64,
    /// Its memory in bytes, where the machine lets a limit be set.
    pub memory: Option<u64>,
    /// How many processes it may have at once.
    pub processes: Option<u64>,
    /// How long a step may go on after it was asked to end, in milliseconds.
    pub cancel_grace_ms: u64,
    /// How long steps that run also after a cancellation may take together, in milliseconds.
    pub after_cancel_ms: u64,
}

impl Default for JobLimits {
    fn default() -> Self {
        Self {
            log_bytes: 64 * 1024 * 1024,
            memory: None,
            processes: None,
            cancel_grace_ms: 7_500,
            after_cancel_ms: 300_000,
        }
    }
}

/// A job with everything it needs. Written to `spec.json` in the job's directory, readable by its owner alone, and
/// stripped of its secrets when the job has ended.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobSpec {
    /// The job's id.
    pub job: JobId,
    /// Its workflow run: `GITHUB_RUN_ID`.
    pub run: RunId,
    /// The run's number: `GITHUB_RUN_NUMBER`.
    pub number: i64,
    /// From 1: `GITHUB_RUN_ATTEMPT`.
    pub attempt: i64,
    /// The repository's name.
    pub repository: RepoName,
    /// The repository's id.
    pub repository_id: RepoId,
    /// The commit: `GITHUB_SHA`.
    pub commit: CommitId,
    /// The ref: `GITHUB_REF`.
    pub ref_name: RefName,
    /// The ref that holds the commit for good.
    pub snapshot: SnapshotRef,
    /// The event's name: `GITHUB_EVENT_NAME`.
    pub event_name: String,
    /// The event: `github.event`. Its `inputs`, if it has them, are the `inputs` context.
    pub event: serde_json::Value,
    /// Who caused it: `GITHUB_ACTOR`.
    pub actor: String,
    /// The server's address without a slash at the end: `GITHUB_SERVER_URL`.
    pub server_url: String,
    /// The workflow's file in the repository.
    pub workflow_path: String,
    /// The workflow's name: `GITHUB_WORKFLOW`.
    pub workflow_name: String,
    /// The job itself.
    pub plan: workflow::JobPlan,
    /// How the jobs that it needs ended, by key.
    #[serde(default)]
    pub needs: BTreeMap<String, NeedResult>,
    /// The bare repository on this machine.
    pub git_dir: PathBuf,
    /// The secrets by name.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// The variables by name: the `vars` context.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    /// The labels of the runner.
    pub labels: Vec<Label>,
    /// The job's token: `github.token`, `secrets.GITHUB_TOKEN`.
    #[serde(default)]
    pub token: Option<String>,
    /// What it may use.
    #[serde(default)]
    pub limits: JobLimits,
    /// What it can reach: nothing but itself, unless the server's configuration says otherwise.
    #[serde(default)]
    pub network: sandbox::Network,
}

impl fmt::Debug for JobSpec {
    /// Says which job it is, and no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobSpec")
            .field("job", &self.job)
            .field("run", &self.run)
            .field("repository", &self.repository)
            .field("commit", &self.commit)
            .field("key", &self.plan.key)
            .field("secrets", &self.secrets.keys())
            .finish_non_exhaustive()
    }
}

impl JobSpec {
    /// The secrets with the token under the names that workflows use for it.
    pub(crate) fn all_secrets(&self) -> BTreeMap<String, String> {
        let mut secrets = self.secrets.clone();
        if let Some(token) = &self.token {
            for name in ["GITHUB_TOKEN", "GITEA_TOKEN"] {
                secrets.entry(name.to_owned()).or_insert_with(|| token.clone());
            }
        }
        secrets
    }

    /// Reads `spec.json` of the job directory `dir`; nothing if it is not there.
    ///
    /// # Errors
    /// When it cannot be read or is not a specification.
    pub fn read(dir: &Path) -> io::Result<Option<Self>> {
        durable::read_json(&dir.join("spec.json"))
    }

    /// Writes it to `spec.json` of `dir`, durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        durable::write_json(dir, "spec.json", self)
    }

    /// The same without its secrets and token.
    pub(crate) fn stripped(&self) -> Self {
        Self { secrets: BTreeMap::new(), token: None, ..self.clone() }
    }
}
