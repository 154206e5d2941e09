//! The events of the log. Everything that is shown or resumed is folded from these.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Cause, CommitId, DeliveryId, Digest, ImageName, JobId, Outcome, PinnedImage, RefName, RepoId, RepoName, RunId,
    SnapshotRef, Stage, TargetId, Timestamp,
};

/// What made a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Trigger {
    /// A ref was created or moved.
    Push,
    /// A person or program asked for a workflow or target on a ref.
    Dispatch {
        /// The workflow inputs.
        inputs: BTreeMap<String, String>,
    },
    /// A schedule fell due.
    Schedule {
        /// The cron expression.
        cron: String,
    },
    /// An earlier run is done again on the same snapshot.
    Retry {
        /// That run.
        of: RunId,
    },
    /// The images of an earlier run are brought back.
    Rollback {
        /// The run whose images come back.
        to: RunId,
    },
    /// An outside system pushed an image.
    Image {
        /// The image.
        image: ImageName,
        /// The manifest that is to run.
        digest: Digest,
    },
}

impl Trigger {
    /// The event name, as `GITHUB_EVENT_NAME` has it where GitHub knows it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Dispatch { .. } => "workflow_dispatch",
            Self::Schedule { .. } => "schedule",
            Self::Retry { .. } => "retry",
            Self::Rollback { .. } => "rollback",
            Self::Image { .. } => "registry_package",
        }
    }
}

/// One trigger on one ref.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Its id, which is also the last part of its snapshot ref.
    pub id: DeliveryId,
    /// The repository.
    pub repository: RepoId,
    /// The repository's name at that time.
    pub repository_name: RepoName,
    /// The ref that was pushed.
    pub ref_name: RefName,
    /// Where the ref stood before; nothing if it is new.
    pub before: Option<CommitId>,
    /// The commit that everything of this delivery reads.
    pub commit: CommitId,
    /// The ref that holds `commit`.
    pub snapshot: SnapshotRef,
    /// Why it came about.
    pub trigger: Trigger,
    /// The name of who pushed or asked.
    pub actor: String,
}

/// What a commit says of itself: `github.event.head_commit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeadCommit {
    /// Its message, cut at 64 KiB.
    pub message: String,
    /// The author's name.
    pub author: String,
    /// The author's address.
    pub email: String,
    /// When it was committed.
    pub committed: Timestamp,
}

/// How a job, and each of its steps, ended. The names are those of the runner protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobResult {
    /// Every step that had to succeed did.
    Success,
    /// A step failed.
    Failure,
    /// It was cancelled.
    Cancelled,
    /// Its condition was false.
    Skipped,
}

impl JobResult {
    /// The name, as `needs.<job>.result` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

/// A job of a planned workflow run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobPlanned {
    /// Its id.
    pub job: JobId,
    /// Its key in the workflow file; the jobs of a matrix share one.
    pub key: String,
    /// Its name for people, with the matrix values.
    pub name: String,
    /// The keys of the jobs it needs.
    pub needs: Vec<String>,
    /// The `workflow` room's plan of the job.
    pub plan: serde_json::Value,
}

/// A workflow file for which a run was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowPlanned {
    /// The run.
    pub run: RunId,
    /// Counts the runs of this workflow in this repository, from 1.
    pub number: i64,
    /// From 1; a retry counts up.
    pub attempt: i64,
    /// The file in the repository.
    pub path: String,
    /// The workflow's `name:`, or its path.
    pub name: String,
    /// Its jobs; empty if the file is not valid.
    pub jobs: Vec<JobPlanned>,
    /// Why the file cannot be run, with line and caret. The run fails with it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub invalid: Option<Cause>,
}

/// Whether a service must be built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "decision")]
pub enum ReuseDecision {
    /// An image with the same identity exists.
    Hit {
        /// The image.
        image: PinnedImage,
        /// The commit it was built from.
        source_commit: CommitId,
        /// The run that built it.
        run: RunId,
    },
    /// It must be built.
    Miss {
        /// The first input that differs, or that there is nothing to compare with.
        why: String,
    },
}

/// The decision on one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDecision {
    /// The service's name in the target.
    pub service: String,
    /// The identity of what its image would be.
    pub identity: Digest,
    /// The identity of its environment alone (base image, recipe, build arguments).
    pub env_identity: Digest,
    /// Whether the last image was built in the same environment: only files changed, if anything did.
    pub env_reused: bool,
    /// What follows from it.
    #[serde(flatten)]
    pub decision: ReuseDecision,
}

/// What was seen of a service while it was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthEvidence {
    /// The service.
    pub service: String,
    /// The request (`GET /health`).
    pub probe: String,
    /// The status code of the answer.
    pub status: u16,
    /// The build identity that it answered; nothing if the target asks for none.
    pub identity: Option<String>,
    /// The digest of the image the running process was made from.
    pub image: Digest,
}

/// One thing that happened in a delivery.
///
/// Stored as JSON with the version [`Event::VERSION`]; a reader of a later version upcasts what it finds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "event")]
pub enum Event {
    /// A trigger was accepted.
    DeliveryCreated {
        /// What is delivered.
        delivery: Delivery,
    },
    /// A target follows this ref: it gets a run.
    TargetRunCreated {
        /// The run.
        run: RunId,
        /// Counts the runs of this target, from 1.
        number: i64,
        /// The target.
        target: TargetId,
        /// The target's name.
        name: String,
        /// The target's configuration as it was then.
        spec: serde_json::Value,
    },
    /// The snapshot ref exists.
    SnapshotPinned {
        /// What the commit says of itself.
        head: HeadCommit,
    },
    /// The workflow files of the snapshot were read.
    WorkflowsPlanned {
        /// A run for every workflow that this trigger fires, and for every file that cannot be read.
        runs: Vec<WorkflowPlanned>,
    },
    /// A job whose matrix depends on the outputs of others is known in full: these take its place.
    JobExpanded {
        /// The workflow run.
        run: RunId,
        /// The job that stood for all of them.
        job: JobId,
        /// The jobs of the matrix.
        jobs: Vec<JobPlanned>,
    },
    /// A job was handed to a runner.
    JobStarted {
        /// The job.
        job: JobId,
    },
    /// A job ended.
    JobFinished {
        /// The job.
        job: JobId,
        /// How.
        result: JobResult,
        /// Its outputs.
        outputs: BTreeMap<String, String>,
        /// Why it did not succeed.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        cause: Option<Cause>,
    },
    /// All jobs of a workflow run ended.
    WorkflowRunFinished {
        /// The run.
        run: RunId,
        /// How.
        outcome: Outcome,
        /// Why it did not succeed.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        cause: Option<Cause>,
    },
    /// A stage of a target run begins.
    StageStarted {
        /// The run.
        run: RunId,
        /// The stage.
        stage: Stage,
    },
    /// A stage of a target run ended.
    StageFinished {
        /// The run.
        run: RunId,
        /// The stage.
        stage: Stage,
        /// How long it took by the monotonic clock, in milliseconds, without what it took before a restart.
        millis: i64,
        /// Why it failed; nothing if it did not.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        cause: Option<Cause>,
    },
    /// It is decided what must be built.
    ReuseDecided {
        /// The run.
        run: RunId,
        /// One decision for each service.
        services: Vec<ServiceDecision>,
        /// Whether all of them are hits, and are what the GitOps branch pins and what runs: nothing is left to do.
        live: bool,
    },
    /// An image is visible in the registry.
    ImageBuilt {
        /// The run.
        run: RunId,
        /// The service.
        service: String,
        /// The identity it was built under.
        identity: Digest,
        /// The image.
        image: PinnedImage,
    },
    /// The GitOps branch holds the images of this run.
    GitopsCommitted {
        /// The run.
        run: RunId,
        /// The head of the GitOps branch that pins the images.
        revision: CommitId,
        /// Its head before; what a failed closeout goes back to.
        previous: Option<CommitId>,
        /// Whether a commit was made, or the branch said so already.
        changed: bool,
    },
    /// The engine runs the revision and traffic goes to it.
    RolledOut {
        /// The run.
        run: RunId,
        /// Where the site answers.
        address: Option<String>,
        /// What each service answered before it got traffic.
        health: Vec<HealthEvidence>,
    },
    /// What runs was checked through the site's own address.
    ClosedOut {
        /// The run.
        run: RunId,
        /// What each service answered.
        health: Vec<HealthEvidence>,
    },
    /// After a failed rollout or closeout the GitOps branch holds the last good images again.
    GitopsReverted {
        /// The run.
        run: RunId,
        /// The head of the branch after it; nothing if there was no good state to go back to.
        revision: Option<CommitId>,
    },
    /// A target run ended.
    TargetRunFinished {
        /// The run.
        run: RunId,
        /// How.
        outcome: Outcome,
        /// Why it did not succeed.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        cause: Option<Cause>,
    },
    /// All runs of a delivery ended.
    DeliveryFinished,
}

impl Event {
    /// The version written today.
    pub const VERSION: i64 = 1;
}

/// An event where it stands in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedEvent {
    /// Its place in the global order, from 1 and without a gap.
    pub seq: i64,
    /// When it was written.
    pub at: Timestamp,
    /// The delivery it belongs to: `deliveryId`, as `delivery` is a key of the event that creates one.
    #[serde(rename = "deliveryId")]
    pub delivery: DeliveryId,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}
