//! The snapshot, and the workflow runs that follow from it.

use std::collections::BTreeMap;

use git::Repository;
use model::{Cause, Event, HeadCommit, JobId, JobPlanned, RunId, Stage, Trigger, WorkflowPlanned};
use workflow::{JobPlan, TriggerEvent, Workflow, WorkflowError};

use crate::context;
use crate::effect::Context;
use crate::jobs;
use crate::state::{Job, WorkflowRun};

/// Bytes of one workflow file, as GitHub has it.
const WORKFLOW_LIMIT: u64 = 512 << 10;
/// Bytes of a commit message that are kept.
const MESSAGE_LIMIT: usize = 64 << 10;

/// Makes the snapshot ref, from which everything else of the delivery reads.
pub(crate) async fn pin(context: &Context) -> Result<Vec<Event>, Cause> {
    let delivery = &context.state.delivery;
    let pinned = context.rooms.hosting.pin(delivery.repository, &delivery.snapshot, &delivery.commit).await;
    pinned.map_err(|error| Cause::new(error.to_string()))?;
    let info =
        context.repository()?.commit_info(&delivery.commit).await.map_err(|error| Cause::new(error.to_string()))?;
    let mut message = info.message;
    message.truncate(message.floor_char_boundary(MESSAGE_LIMIT));
    let head = HeadCommit { message, author: info.author, email: info.author_email, committed: info.committed };
    Ok(vec![Event::SnapshotPinned { head }])
}

/// Reads the workflow files of the snapshot and plans a run for each that fires, and for each that is broken.
pub(crate) async fn workflows(context: &Context) -> Result<Vec<Event>, Cause> {
    let delivery = &context.state.delivery;
    if matches!(delivery.trigger, Trigger::Rollback { .. }) {
        // The images of a rollback were tested when they were built.
        return Ok(vec![Event::WorkflowsPlanned { runs: Vec::new() }]);
    }
    if let (Trigger::Push, Some(mark)) = (&delivery.trigger, workflow::skip_mark(&context.state.head.message)) {
        tracing::debug!(delivery = %delivery.id, mark, "the commit asks that nothing runs");
        return Ok(vec![Event::WorkflowsPlanned { runs: Vec::new() }]);
    }
    let repository = context.repository()?;
    let mut trigger = None;
    let mut planned = Vec::new();
    for path in files(context, &repository).await? {
        let text = repository.read_file(&delivery.commit, &path, WORKFLOW_LIMIT).await;
        let text = text.map_err(|error| Cause::new(error.to_string()))?.unwrap_or_default();
        let workflow = match workflow::parse(&path, &String::from_utf8_lossy(&text)) {
            Ok(workflow) => workflow,
            Err(error) => {
                planned.push(Plan { name: path.clone(), path, jobs: Err(invalid(&error)) });
                continue;
            }
        };
        if trigger.is_none() {
            trigger = Some(trigger_event(context, &repository).await?);
        }
        let fires = trigger.as_ref().map(|trigger| workflow::fires(&workflow, trigger));
        if let Some(Err(why)) = fires {
            tracing::debug!(delivery = %delivery.id, %path, why, "the workflow does not fire");
            continue;
        }
        planned.push(plan(context, path, &workflow));
    }
    let runs = number(context, planned).await?;
    Ok(vec![Event::WorkflowsPlanned { runs }])
}

/// The jobs of a matrix that depends on the outputs of others.
pub(crate) async fn expand(context: &Context, id: JobId) -> Result<Vec<Event>, Cause> {
    let (run, job) = find(context, id)?;
    let needs = jobs::needs(run, job).ok_or_else(|| Cause::new("jobs that it needs have not ended"))?;
    let contexts = context::of_job(&context.state, run, &needs, &context.rooms.server_url);
    let plans = workflow::expand_matrix(&jobs::plan_of(job)?, &contexts).map_err(|error| invalid(&error))?;
    let jobs = planned_jobs(context, plans).await?;
    Ok(vec![Event::JobExpanded { run: run.planned.run, job: id, jobs }])
}

pub(crate) fn find(context: &Context, id: JobId) -> Result<(&WorkflowRun, &Job), Cause> {
    let found = context.state.workflows.values().find_map(|run| Some((run, run.jobs.get(&id)?)));
    found.ok_or_else(|| Cause::new(format!("there is no job {id}")))
}

struct Plan {
    path: String,
    name: String,
    jobs: Result<Vec<JobPlan>, Cause>,
}

fn plan(context: &Context, path: String, workflow: &Workflow) -> Plan {
    let name = workflow.name().to_owned();
    let delivery = &context.state.delivery;
    let mut contexts = context::contexts(delivery, &context.state.head, &context.rooms.server_url, None, None);
    if let Trigger::Dispatch { inputs } = &delivery.trigger {
        match workflow::dispatch_inputs(workflow, inputs) {
            Ok(inputs) => contexts.set("inputs", inputs),
            Err(error) => return Plan { jobs: Err(Cause::new(error.to_string()).at(Stage::Workflow)), path, name },
        }
    }
    Plan { jobs: workflow::plan(workflow, &contexts).map_err(|error| invalid(&error)), path, name }
}

async fn files(context: &Context, repository: &Repository) -> Result<Vec<String>, Cause> {
    let commit = &context.state.delivery.commit;
    let mut paths = Vec::new();
    for dir in [".towpath", ".gitea", ".forgejo", ".github"] {
        let entries = repository.tree(commit, dir).await.map_err(|error| Cause::new(error.to_string()))?;
        paths.extend(entries.into_iter().map(|entry| entry.path));
    }
    Ok(workflow::workflow_files(paths.iter().map(String::as_str)).into_iter().map(str::to_owned).collect())
}

async fn trigger_event(context: &Context, repository: &Repository) -> Result<TriggerEvent, Cause> {
    let delivery = &context.state.delivery;
    // A new ref has nothing to compare with: path filters then let everything through, as on GitHub.
    let changed_paths = match &delivery.before {
        None => None,
        Some(before) => repository.changed_paths(Some(before), &delivery.commit).await.ok(),
    };
    let inputs = match &delivery.trigger {
        Trigger::Dispatch { inputs } => inputs.clone(),
        _ => BTreeMap::new(),
    };
    Ok(TriggerEvent {
        before: delivery.before.clone(),
        changed_paths,
        commit_message: context.state.head.message.clone(),
        inputs,
        ..TriggerEvent::new(context::event_name(delivery), delivery.ref_name.clone())
    })
}

async fn number(context: &Context, plans: Vec<Plan>) -> Result<Vec<WorkflowPlanned>, Cause> {
    let broken = |error: store::RecordsError| Cause::new(error.to_string());
    let delivery = &context.state.delivery;
    let ids = context.journal.ids("runs", plans.len()).await.map_err(broken)?;
    let earlier = earlier_numbers(context).await?;
    let mut runs = Vec::with_capacity(plans.len());
    for (plan, id) in plans.into_iter().zip(ids) {
        let Plan { path, name, jobs } = plan;
        let (number, attempt) = match earlier.get(&path) {
            Some(number) => {
                let attempt =
                    context.journal.next_attempt(delivery.repository, &path, *number).await.map_err(broken)?;
                (*number, attempt)
            }
            None => (context.journal.next_number(delivery.repository, &path).await.map_err(broken)?, 1),
        };
        let (jobs, invalid) = match jobs {
            Ok(jobs) => (planned_jobs(context, jobs).await?, None),
            Err(cause) => (Vec::new(), Some(cause)),
        };
        runs.push(WorkflowPlanned { run: RunId(id), number, attempt, path, name, jobs, invalid });
    }
    Ok(runs)
}

/// The numbers of the workflow runs that are done again, by path: a retry keeps its number and counts attempts.
async fn earlier_numbers(context: &Context) -> Result<BTreeMap<String, i64>, Cause> {
    let broken = |error: store::RecordsError| Cause::new(error.to_string());
    let delivery = &context.state.delivery;
    let Trigger::Retry { of } = delivery.trigger else { return Ok(BTreeMap::new()) };
    let Some((summary, _)) = context.journal.run(of).await.map_err(broken)? else { return Ok(BTreeMap::new()) };
    // Another commit is not the same run once more.
    if summary.commit != delivery.commit.as_str() {
        return Ok(BTreeMap::new());
    }
    let events = context.journal.delivery(summary.delivery).await.map_err(broken)?;
    let planned = events.into_iter().find_map(|recorded| match recorded.event {
        Event::WorkflowsPlanned { runs } => Some(runs),
        _ => None,
    });
    Ok(planned.into_iter().flatten().map(|run| (run.path, run.number)).collect())
}

async fn planned_jobs(context: &Context, plans: Vec<JobPlan>) -> Result<Vec<JobPlanned>, Cause> {
    let ids = context.journal.ids("jobs", plans.len()).await.map_err(|error| Cause::new(error.to_string()))?;
    let job = |(plan, id): (JobPlan, i64)| {
        let value = serde_json::to_value(&plan).map_err(|error| Cause::new(error.to_string()))?;
        let JobPlan { key, name, needs, .. } = plan;
        Ok(JobPlanned { job: JobId(id), key, name, needs, plan: value })
    };
    plans.into_iter().zip(ids).map(job).collect()
}

fn invalid(error: &WorkflowError) -> Cause {
    let cause = Cause::new(error.to_string()).at(Stage::Workflow).in_place(error.place());
    match &error.hint {
        Some(hint) => cause.hint(hint.clone()),
        None => cause,
    }
}
