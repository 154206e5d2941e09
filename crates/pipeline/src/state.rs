//! The state of one delivery, folded from its events. No I/O, no clock.

use std::collections::BTreeMap;

use config::TargetSpec;
use model::{
    Cause, CommitId, Delivery, Event, HeadCommit, JobId, JobPlanned, JobResult, Outcome, PinnedImage, RunId,
    ServiceDecision, Stage, TargetId, WorkflowPlanned,
};

/// A job of a workflow run.
#[derive(Clone, Debug)]
pub struct Job {
    /// As it was planned.
    pub planned: JobPlanned,
    /// Whether it was handed to a runner.
    pub started: bool,
    /// How it ended.
    pub finished: Option<JobEnd>,
}

/// How a job ended.
#[derive(Clone, Debug)]
pub struct JobEnd {
    /// Its result.
    pub result: JobResult,
    /// Its outputs.
    pub outputs: BTreeMap<String, String>,
    /// Why it did not succeed.
    pub cause: Option<Cause>,
}

/// A run of one workflow file.
#[derive(Clone, Debug)]
pub struct WorkflowRun {
    /// As it was planned.
    pub planned: WorkflowPlanned,
    /// Its jobs, in the order of the file.
    pub jobs: BTreeMap<JobId, Job>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why it did not succeed.
    pub cause: Option<Cause>,
}

/// A run of one target.
#[derive(Clone, Debug)]
pub struct TargetRun {
    /// Its id.
    pub run: RunId,
    /// The target.
    pub target: TargetId,
    /// The target's name.
    pub name: String,
    /// The target as it was when the run was made.
    pub spec: TargetSpec,
    /// The stages that have begun, and how those that ended did.
    pub stages: BTreeMap<Stage, Option<StageEnd>>,
    /// What must be built.
    pub decisions: Option<Vec<ServiceDecision>>,
    /// Whether everything was live already when that was decided.
    pub live: bool,
    /// The image of each service, once it is visible.
    pub images: BTreeMap<String, PinnedImage>,
    /// The GitOps commit.
    pub published: Option<Published>,
    /// Whether the engine runs it.
    pub rolled_out: bool,
    /// Whether the closeout passed.
    pub closed_out: bool,
    /// Whether a failed rollout was taken back.
    pub reverted: bool,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// The GitOps commit of a run.
#[derive(Clone, Debug)]
pub struct Published {
    /// The head that pins the images.
    pub revision: CommitId,
    /// The head before.
    pub previous: Option<CommitId>,
    /// Whether this run made the commit.
    pub changed: bool,
}

/// How a stage ended.
#[derive(Clone, Debug)]
pub struct StageEnd {
    /// Why it failed; nothing if it did not.
    pub cause: Option<Cause>,
}

impl TargetRun {
    /// Whether the stage has begun.
    pub fn started(&self, stage: Stage) -> bool {
        self.stages.contains_key(&stage)
    }

    /// Whether the stage has ended, well or not.
    pub fn ended(&self, stage: Stage) -> bool {
        matches!(self.stages.get(&stage), Some(Some(_)))
    }

    /// Whether the stage is under way.
    pub fn under_way(&self, stage: Stage) -> bool {
        self.outcome.is_none() && matches!(self.stages.get(&stage), Some(None))
    }

    /// The cause of the first stage that failed.
    pub fn failure(&self) -> Option<&Cause> {
        self.stages.values().find_map(|end| end.as_ref().and_then(|end| end.cause.as_ref()))
    }

    /// From its GitOps commit on a run changes what the world sees: it has the target to itself, and goes to its end.
    pub fn holds_target(&self) -> bool {
        self.started(Stage::Publish) && self.outcome.is_none()
    }

    /// The image that each service gets from this run: built, or found by the reuse plan.
    pub fn image_of(&self, service: &str) -> Option<&PinnedImage> {
        self.images.get(service).or_else(|| {
            let decision = self.decisions.as_ref()?.iter().find(|d| d.service == service)?;
            match &decision.decision {
                model::ReuseDecision::Hit { image, .. } => Some(image),
                model::ReuseDecision::Miss { .. } => None,
            }
        })
    }
}

/// One delivery.
#[derive(Clone, Debug)]
pub struct State {
    /// What is delivered.
    pub delivery: Delivery,
    /// Whether the snapshot ref exists.
    pub pinned: bool,
    /// What the commit says of itself.
    pub head: HeadCommit,
    /// Whether the workflow files were read.
    pub planned: bool,
    /// The workflow runs.
    pub workflows: BTreeMap<RunId, WorkflowRun>,
    /// The target runs.
    pub targets: BTreeMap<RunId, TargetRun>,
    /// Whether all of it has ended.
    pub finished: bool,
}

/// An event does not fit the state it is applied to: the log is not one that this program wrote.
#[derive(Debug, thiserror::Error)]
#[error("the event log is inconsistent: {0}")]
pub struct Inconsistent(pub String);

impl State {
    /// The state after the first event of a delivery.
    ///
    /// # Errors
    /// When the event is not [`Event::DeliveryCreated`].
    pub fn new(first: &Event) -> Result<Self, Inconsistent> {
        let Event::DeliveryCreated { delivery } = first else {
            return Err(Inconsistent("a delivery does not begin with its creation".into()));
        };
        Ok(Self {
            delivery: delivery.clone(),
            pinned: false,
            head: HeadCommit::default(),
            planned: false,
            workflows: BTreeMap::new(),
            targets: BTreeMap::new(),
            finished: false,
        })
    }

    /// Folds all events of one delivery.
    ///
    /// # Errors
    /// When they are not the events of one.
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Self, Inconsistent> {
        let mut events = events.into_iter();
        let first = events.next().ok_or_else(|| Inconsistent("a delivery without events".into()))?;
        let mut state = Self::new(first)?;
        for event in events {
            state.apply(event)?;
        }
        Ok(state)
    }

    /// Applies the next event.
    ///
    /// # Errors
    /// When it names a run or job that is not of this delivery.
    pub fn apply(&mut self, event: &Event) -> Result<(), Inconsistent> {
        match event {
            Event::DeliveryCreated { .. } => {}
            Event::TargetRunCreated { run, target, name, spec, .. } => {
                let spec = config::parse_target_spec(spec).map_err(|e| Inconsistent(e.to_string()))?;
                self.targets.insert(*run, new_target_run(*run, *target, name, spec));
            }
            Event::SnapshotPinned { head } => {
                self.pinned = true;
                self.head = head.clone();
            }
            Event::WorkflowsPlanned { runs } => {
                self.planned = true;
                self.workflows = runs.iter().map(|run| (run.run, new_workflow_run(run))).collect();
            }
            Event::JobExpanded { run, job, jobs } => {
                let found = self.workflows.get_mut(run);
                let workflow = found.ok_or_else(|| Inconsistent(format!("no workflow run {run}")))?;
                workflow.jobs.remove(job);
                workflow.jobs.extend(jobs.iter().map(|planned| (planned.job, new_job(planned))));
            }
            Event::JobStarted { job } => self.job(*job)?.started = true,
            Event::JobFinished { job, result, outputs, cause } => {
                let end = JobEnd { result: *result, outputs: outputs.clone(), cause: cause.clone() };
                self.job(*job)?.finished = Some(end);
            }
            Event::WorkflowRunFinished { run, outcome, cause } => {
                let found = self.workflows.get_mut(run);
                let workflow = found.ok_or_else(|| Inconsistent(format!("no workflow run {run}")))?;
                workflow.outcome = Some(*outcome);
                workflow.cause.clone_from(cause);
            }
            Event::DeliveryFinished => self.finished = true,
            of_target => self.apply_to_target(of_target)?,
        }
        Ok(())
    }

    fn apply_to_target(&mut self, event: &Event) -> Result<(), Inconsistent> {
        match event {
            Event::StageStarted { run, stage } => {
                self.target(*run)?.stages.entry(*stage).or_default();
            }
            Event::StageFinished { run, stage, cause, .. } => {
                self.target(*run)?.stages.insert(*stage, Some(StageEnd { cause: cause.clone() }));
            }
            Event::ReuseDecided { run, services, live } => {
                let target = self.target(*run)?;
                target.decisions = Some(services.clone());
                target.live = *live;
            }
            Event::ImageBuilt { run, service, image, .. } => {
                self.target(*run)?.images.insert(service.clone(), image.clone());
            }
            Event::GitopsCommitted { run, revision, previous, changed } => {
                let published = Published { revision: revision.clone(), previous: previous.clone(), changed: *changed };
                self.target(*run)?.published = Some(published);
            }
            Event::RolledOut { run, .. } => self.target(*run)?.rolled_out = true,
            Event::ClosedOut { run, .. } => self.target(*run)?.closed_out = true,
            Event::GitopsReverted { run, .. } => self.target(*run)?.reverted = true,
            Event::TargetRunFinished { run, outcome, .. } => self.target(*run)?.outcome = Some(*outcome),
            _ => {}
        }
        Ok(())
    }

    fn target(&mut self, run: RunId) -> Result<&mut TargetRun, Inconsistent> {
        self.targets.get_mut(&run).ok_or_else(|| Inconsistent(format!("no target run {run}")))
    }

    fn job(&mut self, job: JobId) -> Result<&mut Job, Inconsistent> {
        let found = self.workflows.values_mut().find_map(|run| run.jobs.get_mut(&job));
        found.ok_or_else(|| Inconsistent(format!("no job {job}")))
    }
}

fn new_target_run(run: RunId, target: TargetId, name: &str, spec: TargetSpec) -> TargetRun {
    TargetRun {
        run,
        target,
        name: name.to_owned(),
        spec,
        stages: BTreeMap::new(),
        decisions: None,
        live: false,
        images: BTreeMap::new(),
        published: None,
        rolled_out: false,
        closed_out: false,
        reverted: false,
        outcome: None,
    }
}

fn new_workflow_run(planned: &WorkflowPlanned) -> WorkflowRun {
    WorkflowRun {
        planned: planned.clone(),
        jobs: planned.jobs.iter().map(|job| (job.job, new_job(job))).collect(),
        outcome: None,
        cause: None,
    }
}

fn new_job(planned: &JobPlanned) -> Job {
    Job { planned: planned.clone(), started: false, finished: None }
}
