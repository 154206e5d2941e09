//! What the log says of one run.

use std::collections::BTreeMap;

use model::{
    Cause, CommitId, Delivery, Digest, Event, HealthEvidence, JobId, JobResult, Outcome, PinnedImage, RecordedEvent,
    ReuseDecision, RunId, ServiceDecision, Stage, Timestamp, WorkflowPlanned,
};
use serde::{Deserialize, Serialize};

/// What runs at a target: the projection that the pipeline keeps in the same transaction as its events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// The run that brought it to life.
    pub run: RunId,
    /// The head of the GitOps branch that it is.
    pub revision: CommitId,
    /// The commit the images were built from; the newest where they differ.
    pub source_commit: CommitId,
    /// The commit that the image of each service was built from.
    #[serde(default)]
    pub source_commits: BTreeMap<String, CommitId>,
    /// The image of each service.
    pub images: BTreeMap<String, PinnedImage>,
    /// What each service answered at the closeout.
    pub health: Vec<HealthEvidence>,
    /// Where it answers.
    pub address: Option<String>,
}

impl Live {
    /// The commit that the image of a service was built from.
    pub fn commit_of(&self, service: &str) -> &CommitId {
        self.source_commits.get(service).unwrap_or(&self.source_commit)
    }
}

/// What the log says of a target run.
#[derive(Clone, Debug)]
pub struct TargetFacts {
    /// The run.
    pub run: RunId,
    /// Its number in its target.
    pub number: i64,
    /// The target's name.
    pub target: String,
    /// What is delivered.
    pub delivery: Delivery,
    /// When it began.
    pub created: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Whether the snapshot ref exists.
    pub pinned: bool,
    /// The workflow runs of the delivery.
    pub workflow_runs: Vec<RunId>,
    /// When each stage began, and how long it took once it has ended, in milliseconds.
    pub stages: BTreeMap<Stage, StageFacts>,
    /// The reuse plan.
    pub decisions: Option<Vec<ServiceDecision>>,
    /// What was built.
    pub built: BTreeMap<String, PinnedImage>,
    /// The GitOps commit.
    pub revision: Option<CommitId>,
    /// What went back after a failure; the inner option is the head that it went back to.
    pub reverted: Option<Option<CommitId>>,
    /// Where the site answers.
    pub address: Option<String>,
    /// What each service answered, at the closeout or else at the rollout.
    pub health: Vec<HealthEvidence>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why it did not succeed.
    pub cause: Option<Cause>,
}

/// What the log says of a stage.
#[derive(Clone, Debug)]
pub struct StageFacts {
    /// When it began.
    pub started: Timestamp,
    /// How long it took, in milliseconds.
    pub millis: Option<i64>,
    /// Why it failed.
    pub cause: Option<Cause>,
}

/// What the log says of a workflow run.
#[derive(Clone, Debug)]
pub struct WorkflowFacts {
    /// As it was planned.
    pub planned: WorkflowPlanned,
    /// What is delivered.
    pub delivery: Delivery,
    /// When the delivery began.
    pub created: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How each job stands.
    pub jobs: BTreeMap<JobId, JobFacts>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why it did not succeed.
    pub cause: Option<Cause>,
}

/// What the log says of a job.
#[derive(Clone, Debug, Default)]
pub struct JobFacts {
    /// When it was handed to a runner.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How.
    pub result: Option<JobResult>,
    /// Why it did not succeed.
    pub cause: Option<Cause>,
}

impl TargetFacts {
    /// The image of each service that this run brought or would bring: built, or found.
    pub fn images(&self) -> BTreeMap<&str, &PinnedImage> {
        let found = self.decisions.iter().flatten().filter_map(|decision| match &decision.decision {
            ReuseDecision::Hit { image, .. } => Some((decision.service.as_str(), image)),
            ReuseDecision::Miss { .. } => None,
        });
        found.chain(self.built.iter().map(|(service, image)| (service.as_str(), image))).collect()
    }

    /// The commit that the image of each service is built from.
    pub fn source_commits(&self) -> BTreeMap<String, CommitId> {
        let commit = |decision: &ServiceDecision| match &decision.decision {
            ReuseDecision::Hit { source_commit, .. } => source_commit.clone(),
            ReuseDecision::Miss { .. } => self.delivery.commit.clone(),
        };
        self.decisions.iter().flatten().map(|it| (it.service.clone(), commit(it))).collect()
    }

    /// The environment identity of the first service.
    pub fn env_identity(&self) -> Option<Digest> {
        self.decisions.as_ref()?.first().map(|decision| decision.env_identity)
    }
}

/// Folds the events of a delivery into what they say of target run `run`; nothing if it is not of this delivery.
pub fn target_facts(events: &[RecordedEvent], run: RunId) -> Option<TargetFacts> {
    let (delivery, created) = delivery(events)?;
    let mut facts = events.iter().find_map(|recorded| match &recorded.event {
        Event::TargetRunCreated { run: this, number, name, .. } if *this == run => Some(TargetFacts {
            run,
            number: *number,
            target: name.clone(),
            delivery: delivery.clone(),
            created,
            ended: None,
            pinned: false,
            workflow_runs: Vec::new(),
            stages: BTreeMap::new(),
            decisions: None,
            built: BTreeMap::new(),
            revision: None,
            reverted: None,
            address: None,
            health: Vec::new(),
            outcome: None,
            cause: None,
        }),
        _ => None,
    })?;
    for recorded in events {
        facts.apply(recorded);
    }
    Some(facts)
}

impl TargetFacts {
    fn apply(&mut self, recorded: &RecordedEvent) {
        let mine = self.run;
        match &recorded.event {
            Event::SnapshotPinned { .. } => self.pinned = true,
            Event::WorkflowsPlanned { runs } => self.workflow_runs = runs.iter().map(|it| it.run).collect(),
            Event::StageStarted { run, stage } if *run == mine => {
                let facts = StageFacts { started: recorded.at, millis: None, cause: None };
                self.stages.insert(*stage, facts);
            }
            Event::StageFinished { run, stage, millis, cause } if *run == mine => {
                let facts = StageFacts { started: recorded.at, millis: None, cause: None };
                let facts = self.stages.entry(*stage).or_insert(facts);
                facts.millis = Some(*millis);
                facts.cause.clone_from(cause);
            }
            Event::ReuseDecided { run, services, .. } if *run == mine => self.decisions = Some(services.clone()),
            Event::ImageBuilt { run, service, image, .. } if *run == mine => {
                self.built.insert(service.clone(), image.clone());
            }
            Event::GitopsCommitted { run, revision, .. } if *run == mine => self.revision = Some(revision.clone()),
            Event::RolledOut { run, address, health } if *run == mine => {
                self.address.clone_from(address);
                self.health.clone_from(health);
            }
            Event::ClosedOut { run, health } if *run == mine => self.health.clone_from(health),
            Event::GitopsReverted { run, revision } if *run == mine => self.reverted = Some(revision.clone()),
            Event::TargetRunFinished { run, outcome, cause } if *run == mine => {
                self.outcome = Some(*outcome);
                self.ended = Some(recorded.at);
                self.cause.clone_from(cause);
            }
            _ => {}
        }
    }
}

/// Folds the events of a delivery into what they say of workflow run `run`.
pub fn workflow_facts(events: &[RecordedEvent], run: RunId) -> Option<WorkflowFacts> {
    let (delivery, created) = delivery(events)?;
    let planned = events.iter().find_map(|recorded| match &recorded.event {
        Event::WorkflowsPlanned { runs } => runs.iter().find(|it| it.run == run).cloned(),
        _ => None,
    })?;
    let jobs = planned.jobs.iter().map(|job| (job.job, JobFacts::default())).collect();
    let delivery = delivery.clone();
    let mut facts = WorkflowFacts { planned, delivery, created, ended: None, jobs, outcome: None, cause: None };
    for recorded in events {
        match &recorded.event {
            Event::JobExpanded { run: this, job, jobs } if *this == run => {
                facts.jobs.remove(job);
                facts.planned.jobs.retain(|planned| planned.job != *job);
                facts.planned.jobs.extend(jobs.iter().cloned());
                facts.jobs.extend(jobs.iter().map(|planned| (planned.job, JobFacts::default())));
            }
            Event::JobStarted { job } => {
                if let Some(job) = facts.jobs.get_mut(job) {
                    job.started = Some(recorded.at);
                }
            }
            Event::JobFinished { job, result, cause, .. } => {
                if let Some(job) = facts.jobs.get_mut(job) {
                    job.ended = Some(recorded.at);
                    job.result = Some(*result);
                    job.cause.clone_from(cause);
                }
            }
            Event::WorkflowRunFinished { run: this, outcome, cause } if *this == run => {
                facts.outcome = Some(*outcome);
                facts.ended = Some(recorded.at);
                facts.cause.clone_from(cause);
            }
            _ => {}
        }
    }
    Some(facts)
}

fn delivery(events: &[RecordedEvent]) -> Option<(&Delivery, Timestamp)> {
    events.iter().find_map(|recorded| match &recorded.event {
        Event::DeliveryCreated { delivery } => Some((delivery, recorded.at)),
        _ => None,
    })
}
