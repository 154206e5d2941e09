//! What follows from a state: the events that need nothing from outside, and the effects that should be under way.
//!
//! [`next`] is a function of the state alone. An effect stays wanted until the event that ends it is in the log, so a
//! restart wants exactly what the stop left undone, and an effect that is no longer wanted is to be cancelled.

use std::collections::BTreeMap;

use model::{Cause, DeliveryId, Event, JobId, JobResult, Outcome, ReuseDecision, RunId, Stage, TargetId};

use crate::jobs;
use crate::state::{Job, State, TargetRun, WorkflowRun};

/// Something that touches the world. Its text form is its idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// Make the snapshot ref.
    Pin,
    /// Read the workflow files of the snapshot.
    PlanWorkflows,
    /// Learn the jobs of a matrix that depends on the outputs of others.
    Expand(JobId),
    /// Run a job to its end.
    Job(JobId),
    /// Decide what must be built.
    PlanReuse(RunId),
    /// Build what is missing and make it visible.
    Build(RunId),
    /// Make the GitOps commit.
    Publish(RunId),
    /// Bring the revision to life.
    Rollout(RunId),
    /// Check what runs.
    Closeout(RunId),
    /// Take a failed rollout back.
    Revert(RunId),
}

impl Effect {
    /// The run whose stage it is, and the stage.
    pub const fn stage(&self) -> Option<(RunId, Stage)> {
        match self {
            Self::PlanReuse(run) => Some((*run, Stage::Reuse)),
            Self::Build(run) => Some((*run, Stage::Build)),
            Self::Publish(run) => Some((*run, Stage::Publish)),
            Self::Rollout(run) => Some((*run, Stage::Rollout)),
            Self::Closeout(run) => Some((*run, Stage::Closeout)),
            Self::Pin | Self::PlanWorkflows | Self::Expand(_) | Self::Job(_) | Self::Revert(_) => None,
        }
    }
}

/// What follows from a state.
#[derive(Debug, Default)]
pub struct Next {
    /// To be recorded, in this order. `StageFinished` carries no duration yet: whoever records it measures.
    pub events: Vec<Event>,
    /// To be under way.
    pub effects: Vec<Effect>,
}

/// What a decision needs to know beside the delivery.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Which run has each target to itself.
    pub claims: BTreeMap<TargetId, RunId>,
    /// `github.server_url`.
    pub server_url: String,
}

impl World {
    /// The world of some deliveries.
    pub fn of<'a>(states: impl Iterator<Item = &'a State>, server_url: &str) -> Self {
        let runs = states.flat_map(|state| state.targets.values());
        let claims = runs.filter(|run| run.holds_target()).map(|run| (run.target, run.run)).collect();
        Self { claims, server_url: server_url.to_owned() }
    }
}

/// The events that follow from some deliveries, in their order. Call it again after they were applied, until there are
/// none.
pub fn follow<'a>(states: impl Iterator<Item = &'a State>, mut world: World) -> Vec<(DeliveryId, Event)> {
    let mut events = Vec::new();
    for state in states {
        for event in next(state, &world).events {
            // Two runs that wait for one target must not both get it in this pass.
            if let Event::StageStarted { run, stage: Stage::Publish } = &event
                && let Some(target) = state.targets.get(run)
            {
                world.claims.insert(target.target, *run);
            }
            events.push((state.delivery.id, event));
        }
    }
    events
}

/// What follows from `state`. Call it again after its events were applied, until there are none.
pub fn next(state: &State, world: &World) -> Next {
    let mut next = Next::default();
    if state.finished {
        return next;
    }
    if !state.pinned {
        start_stage(state, Stage::Source, &mut next);
        next.effects.push(Effect::Pin);
        return next;
    }
    for run in state.workflows.values().filter(|run| run.outcome.is_none()) {
        workflow(state, run, world, &mut next);
    }
    for run in state.targets.values().filter(|run| run.outcome.is_none()) {
        target(state, run, world, &mut next);
    }
    let targets_ended = state.targets.values().all(|run| run.outcome.is_some());
    let workflows_ended = state.workflows.values().all(|run| run.outcome.is_some());
    // Where every run was ended before the workflows were read, nobody wants those of this commit any more.
    let given_up = !state.planned && targets_ended && !state.targets.is_empty();
    if given_up || (state.planned && targets_ended && workflows_ended) {
        next.events.push(Event::DeliveryFinished);
    } else if !state.planned {
        next.effects.push(Effect::PlanWorkflows);
    }
    next
}

/// What ends the runs of `state` that may still be ended: `outcome` is superseded or cancelled.
///
/// A run that holds its target goes on; one half rolled out would be neither the old site nor the new.
pub fn end(state: &State, outcome: Outcome, cause: &Cause) -> Vec<Event> {
    let mut events = Vec::new();
    if !state.planned && state.targets.is_empty() && !state.finished {
        // It has no run yet that could be ended in its place.
        return vec![Event::DeliveryFinished];
    }
    let open = |run: &&WorkflowRun| run.outcome.is_none();
    for run in state.workflows.values().filter(open) {
        let run = run.planned.run;
        events.push(Event::WorkflowRunFinished { run, outcome, cause: Some(cause.clone()) });
    }
    for run in state.targets.values().filter(|run| run.outcome.is_none() && !run.holds_target()) {
        events.push(Event::TargetRunFinished { run: run.run, outcome, cause: Some(cause.clone()) });
    }
    events
}

fn start_stage(state: &State, stage: Stage, next: &mut Next) {
    let waiting = |run: &&TargetRun| run.outcome.is_none() && !run.started(stage);
    next.events.extend(state.targets.values().filter(waiting).map(|run| Event::StageStarted { run: run.run, stage }));
}

fn workflow(state: &State, run: &WorkflowRun, world: &World, next: &mut Next) {
    if let Some(invalid) = &run.planned.invalid {
        let cause = Some(invalid.clone());
        next.events.push(Event::WorkflowRunFinished { run: run.planned.run, outcome: Outcome::Failed, cause });
        return;
    }
    let mut waiting = false;
    let mut under_way = jobs::under_way(run);
    for job in run.jobs.values().filter(|job| job.finished.is_none()) {
        waiting = true;
        if let Some(cause) = jobs::failed_fast(run, job) {
            next.events.push(job_finished(job, JobResult::Cancelled, Some(cause)));
            continue;
        }
        if job.started {
            next.effects.push(Effect::Job(job.planned.job));
            continue;
        }
        match jobs::ready(state, run, job, &world.server_url) {
            jobs::Ready::Wait => {}
            jobs::Ready::Expand => next.effects.push(Effect::Expand(job.planned.job)),
            jobs::Ready::Run { at_once } => {
                let others = under_way.entry(&job.planned.key).or_default();
                if at_once.is_none_or(|most| *others < most) {
                    *others += 1;
                    next.effects.push(Effect::Job(job.planned.job));
                }
            }
            jobs::Ready::End(result, cause) => next.events.push(job_finished(job, result, cause)),
        }
    }
    if !waiting {
        let (outcome, cause) = conclude(run);
        next.events.push(Event::WorkflowRunFinished { run: run.planned.run, outcome, cause });
    }
}

fn job_finished(job: &Job, result: JobResult, cause: Option<Cause>) -> Event {
    Event::JobFinished { job: job.planned.job, result, outputs: BTreeMap::new(), cause }
}

/// How a workflow run ends whose jobs all ended.
fn conclude(run: &WorkflowRun) -> (Outcome, Option<Cause>) {
    let ends = || run.jobs.values().filter_map(|job| job.finished.as_ref().map(|end| (job, end)));
    let failed = ends().find(|(job, end)| end.result == JobResult::Failure && !jobs::may_fail(job));
    if let Some((job, end)) = failed {
        let cause = end.cause.clone().unwrap_or_else(|| Cause::new("the job failed"));
        let message = format!("job {}: {}", job.planned.name, cause.message);
        return (Outcome::Failed, Some(Cause { message, ..cause }));
    }
    if let Some((job, end)) = ends().find(|(_, end)| end.result == JobResult::Cancelled) {
        let cause = end.cause.clone().unwrap_or_else(|| Cause::new(format!("job {} was cancelled", job.planned.name)));
        return (Outcome::Cancelled, Some(cause));
    }
    if ends().all(|(_, end)| end.result == JobResult::Skipped) {
        return (Outcome::Skipped, None);
    }
    (Outcome::Succeeded, None)
}

fn target(state: &State, run: &TargetRun, world: &World, next: &mut Next) {
    if let Some(cause) = run.failure() {
        failed(run, cause, next);
        return;
    }
    let Some(stage) = Stage::ALL.into_iter().find(|stage| !run.ended(*stage) && *stage != Stage::Pipeline) else {
        finish(run, Outcome::Succeeded, next);
        return;
    };
    if !run.started(stage) {
        let taken = world.claims.get(&run.target).is_some_and(|holder| *holder != run.run);
        // What was live when it was looked at will not be for long while another run holds the target.
        if run.live && stage == Stage::Build && !taken {
            finish(run, Outcome::Reused, next);
            return;
        }
        if stage != Stage::Publish || !taken {
            next.events.push(Event::StageStarted { run: run.run, stage });
        }
        return;
    }
    match step(state, run, stage) {
        Step::Wait => {}
        Step::Do(effect) => next.effects.push(effect),
        Step::Done => next.events.push(stage_finished(run, stage, None)),
        Step::Failed(cause) => next.events.push(stage_finished(run, stage, Some(cause.at(stage)))),
    }
}

enum Step {
    Wait,
    Do(Effect),
    Done,
    Failed(Cause),
}

/// What a stage that is under way needs.
fn step(state: &State, run: &TargetRun, stage: Stage) -> Step {
    let id = run.run;
    let done_or = |done: bool, effect: Effect| if done { Step::Done } else { Step::Do(effect) };
    match stage {
        // `next` gets here only with the snapshot pinned.
        Stage::Source => Step::Done,
        Stage::Workflow => gate(state),
        Stage::Reuse => done_or(run.decisions.is_some(), Effect::PlanReuse(id)),
        Stage::Build => {
            let have = |decision: &model::ServiceDecision| {
                matches!(decision.decision, ReuseDecision::Hit { .. }) || run.images.contains_key(&decision.service)
            };
            done_or(run.decisions.iter().flatten().all(have), Effect::Build(id))
        }
        Stage::Pipeline => Step::Done,
        Stage::Publish => done_or(run.published.is_some(), Effect::Publish(id)),
        Stage::Rollout => done_or(run.rolled_out, Effect::Rollout(id)),
        Stage::Closeout => done_or(run.closed_out, Effect::Closeout(id)),
    }
}

/// The target waits for the workflow runs of its delivery, and goes on only if all did well.
fn gate(state: &State) -> Step {
    if !state.planned || state.workflows.values().any(|run| run.outcome.is_none()) {
        return Step::Wait;
    }
    let bad = state.workflows.values().find(|run| run.outcome.is_some_and(|outcome| !outcome.is_good()));
    match bad {
        None => Step::Done,
        Some(run) => {
            let cause = run.cause.clone().unwrap_or_else(|| Cause::new("it did not succeed"));
            let message = format!("workflow {}: {}", run.planned.name, cause.message);
            Step::Failed(Cause { message, ..cause })
        }
    }
}

fn failed(run: &TargetRun, cause: &Cause, next: &mut Next) {
    let changed = run.published.as_ref().is_some_and(|published| published.changed);
    // Without a commit of its own there may still be a version that has the traffic and is not what it should be.
    let undo = (changed || run.rolled_out) && !run.closed_out;
    if undo && !run.reverted {
        next.effects.push(Effect::Revert(run.run));
        return;
    }
    let cause = Some(cause.clone());
    next.events.push(Event::TargetRunFinished { run: run.run, outcome: Outcome::Failed, cause });
}

fn finish(run: &TargetRun, outcome: Outcome, next: &mut Next) {
    next.events.push(Event::TargetRunFinished { run: run.run, outcome, cause: None });
}

fn stage_finished(run: &TargetRun, stage: Stage, cause: Option<Cause>) -> Event {
    Event::StageFinished { run: run.run, stage, millis: 0, cause }
}

#[cfg(test)]
mod tests;
