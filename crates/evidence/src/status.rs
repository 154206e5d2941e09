//! The bounded status of a run.

use model::{Cause, JobId, JobResult, Outcome, RunId, Stage, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::fold::{Live, TargetFacts, WorkflowFacts};
use crate::{Budget, BudgetVerdict, fields};

/// The fields that every status has (`spec.statusProjection.requiredFields`).
pub const REQUIRED_FIELDS: [&str; 18] = [
    "target",
    "sourceCommit",
    "snapshotRef",
    "giteaMirrorLag",
    "actionsRunId",
    "pipelineRunName",
    "builderJobName",
    "buildServices",
    "reusedServices",
    "skipImageBuild",
    "reuseEnvImage",
    "imageDigest",
    "gitopsRevision",
    "argoSync",
    "argoHealth",
    "runtimeTargetSha",
    "health",
    "elapsedSeconds",
];

/// The evidence of a closeout (`closeout.requiredEvidence`).
pub const EVIDENCE_FIELDS: [&str; 11] = [
    "sourceCommit",
    "snapshotRef",
    "actionsRunId",
    "pipelineRunName",
    "builderJobName",
    "gitopsRevision",
    "argoHealth",
    "runtimeTargetSha",
    "imageDigest",
    "envIdentity",
    "reuseDecision",
];

/// Where a stage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageState {
    /// It has not begun.
    Pending,
    /// It is under way.
    Running,
    /// It went well.
    Succeeded,
    /// It failed.
    Failed,
    /// It was not needed, or never came to it.
    NotApplicable,
}

/// A stage in a status.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageStatus {
    /// The stage.
    pub stage: Stage,
    /// Its id in the specification.
    pub id: &'static str,
    /// Where it stands.
    pub state: StageState,
    /// What it has taken, in seconds; nothing if it did not begin.
    pub seconds: Option<f64>,
    /// Its budget, in seconds.
    pub budget_seconds: Option<u32>,
    /// Why it failed, or why it does not apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The bounded status of a target run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// The run.
    pub run: RunId,
    /// Its number in its target.
    pub number: i64,
    /// The target's name.
    pub target: String,
    /// The repository.
    pub repository: String,
    /// The branch.
    pub branch: String,
    /// When it began.
    pub created: Timestamp,
    /// How it ended; nothing while it is under way.
    pub outcome: Option<Outcome>,
    /// Why it did not succeed.
    pub cause: Option<Cause>,
    /// Where the site answers.
    pub address: Option<String>,
    /// The eight stages.
    pub stages: Vec<StageStatus>,
    /// What took longer than its budget.
    pub over_budget: Vec<BudgetVerdict>,
    /// The 18 [`REQUIRED_FIELDS`]: each a value, or a text `not_applicable: reason`.
    pub status: Map<String, Value>,
    /// The 11 [`EVIDENCE_FIELDS`], in the same form.
    pub evidence: Map<String, Value>,
}

impl TargetStatus {
    /// The status of a run as of `now`; `live` is what its target runs now.
    pub fn of(facts: &TargetFacts, live: Option<&Live>, budget: &Budget, now: Timestamp) -> Self {
        let stages: Vec<_> = Stage::ALL.into_iter().map(|stage| stage_status(facts, stage, budget, now)).collect();
        let elapsed = seconds(facts.ended.unwrap_or(now).millis_since(facts.created));
        let mut over_budget: Vec<_> = stages.iter().filter_map(over).collect();
        if let Some(budget_seconds) = budget.end_to_end.filter(|most| elapsed > f64::from(*most)) {
            over_budget.push(BudgetVerdict { what: "end-to-end".into(), seconds: elapsed, budget_seconds });
        }
        Self {
            run: facts.run,
            number: facts.number,
            target: facts.target.clone(),
            repository: facts.delivery.repository_name.to_string(),
            branch: facts.delivery.ref_name.short().to_owned(),
            created: facts.created,
            outcome: facts.outcome,
            cause: facts.cause.clone(),
            address: facts.address.clone().or_else(|| live.and_then(|live| live.address.clone())),
            stages,
            over_budget,
            status: fields::collect(&REQUIRED_FIELDS, facts, live, elapsed),
            evidence: fields::collect(&EVIDENCE_FIELDS, facts, live, elapsed),
        }
    }
}

fn over(stage: &StageStatus) -> Option<BudgetVerdict> {
    let (seconds, budget_seconds) = (stage.seconds?, stage.budget_seconds?);
    let verdict = BudgetVerdict { what: stage.id.to_owned(), seconds, budget_seconds };
    (seconds > f64::from(budget_seconds)).then_some(verdict)
}

/// Milliseconds as seconds.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}

fn stage_status(facts: &TargetFacts, stage: Stage, budget: &Budget, now: Timestamp) -> StageStatus {
    let budget_seconds = budget.of(stage);
    let status = |state, seconds, reason| StageStatus { stage, id: stage.id(), state, seconds, budget_seconds, reason };
    if stage == Stage::Pipeline {
        let reason = "the embedded engines need no outside pipeline".to_owned();
        return status(StageState::NotApplicable, None, Some(reason));
    }
    match (facts.stages.get(&stage), facts.outcome) {
        (Some(it), _) if it.cause.is_some() => {
            let reason = it.cause.as_ref().map(|cause| cause.message.clone());
            status(StageState::Failed, it.millis.map(seconds), reason)
        }
        (Some(it), _) if it.millis.is_some() => status(StageState::Succeeded, it.millis.map(seconds), None),
        (Some(it), None) => status(StageState::Running, Some(seconds(now.millis_since(it.started))), None),
        (Some(it), Some(outcome)) => {
            let taken = facts.ended.unwrap_or(now).millis_since(it.started);
            status(
                StageState::NotApplicable,
                Some(seconds(taken)),
                Some(format!("the run {} in it", fields::ended(outcome))),
            )
        }
        (None, None) => status(StageState::Pending, None, None),
        (None, Some(Outcome::Reused)) => {
            status(StageState::NotApplicable, None, Some("everything was live already".into()))
        }
        (None, Some(outcome)) => {
            let reason = format!("the run {} before it", fields::ended(outcome));
            status(StageState::NotApplicable, None, Some(reason))
        }
    }
}

/// The bounded status of a workflow run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowStatus {
    /// The run.
    pub run: RunId,
    /// Its number in its workflow.
    pub number: i64,
    /// From 1; a retry counts up.
    pub attempt: i64,
    /// The workflow file.
    pub path: String,
    /// The workflow's name.
    pub name: String,
    /// The repository.
    pub repository: String,
    /// The full ref.
    pub ref_name: String,
    /// The commit.
    pub commit: String,
    /// The ref that holds it.
    pub snapshot_ref: String,
    /// When it began.
    pub created: Timestamp,
    /// What it took so far, in seconds.
    pub elapsed_seconds: f64,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why it did not succeed.
    pub cause: Option<Cause>,
    /// Its jobs.
    pub jobs: Vec<JobStatus>,
}

/// A job in a status.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    /// The job.
    pub job: JobId,
    /// Its key in the file.
    pub key: String,
    /// Its name.
    pub name: String,
    /// How it ended.
    pub result: Option<JobResult>,
    /// What it took so far, in seconds; nothing if it did not begin.
    pub seconds: Option<f64>,
    /// Why it did not succeed.
    pub cause: Option<Cause>,
}

impl WorkflowStatus {
    /// The status of a run as of `now`.
    pub fn of(facts: &WorkflowFacts, now: Timestamp) -> Self {
        let job = |planned: &model::JobPlanned| {
            let it = facts.jobs.get(&planned.job).cloned().unwrap_or_default();
            let end = it.ended.or(facts.ended).unwrap_or(now);
            JobStatus {
                job: planned.job,
                key: planned.key.clone(),
                name: planned.name.clone(),
                result: it.result,
                seconds: it.started.map(|started| seconds(end.millis_since(started))),
                cause: it.cause,
            }
        };
        Self {
            run: facts.planned.run,
            number: facts.planned.number,
            attempt: facts.planned.attempt,
            path: facts.planned.path.clone(),
            name: facts.planned.name.clone(),
            repository: facts.delivery.repository_name.to_string(),
            ref_name: facts.delivery.ref_name.to_string(),
            commit: facts.delivery.commit.to_string(),
            snapshot_ref: facts.delivery.snapshot.to_string(),
            created: facts.created,
            elapsed_seconds: seconds(facts.ended.unwrap_or(now).millis_since(facts.created)),
            outcome: facts.outcome,
            cause: facts.cause.clone(),
            jobs: facts.planned.jobs.iter().map(job).collect(),
        }
    }
}
