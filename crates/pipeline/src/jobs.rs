//! Which jobs of a workflow run may start: `needs:` and `if:`. Pure.

use std::collections::{BTreeMap, BTreeSet};

use model::{Cause, JobResult};
use workflow::JobPlan;

use crate::context;
use crate::state::{Job, JobEnd, State, WorkflowRun};

/// Whether a job may start.
#[derive(Debug)]
pub enum Ready {
    /// Not yet: jobs that it needs have not ended.
    Wait,
    /// Its matrix can be known now.
    Expand,
    /// Now, while fewer than `at_once` jobs of its matrix are under way.
    Run {
        /// `strategy.max-parallel`; nothing means as many as there are.
        at_once: Option<u64>,
    },
    /// Never: it ends like this.
    End(JobResult, Option<Cause>),
}

/// The plan of a job, as the `workflow` room made it.
///
/// # Errors
/// When the event holds something else.
pub fn plan_of(job: &Job) -> Result<JobPlan, Cause> {
    serde_json::from_value(job.planned.plan.clone())
        .map_err(|error| Cause::new(format!("the recorded plan of job {} cannot be read: {error}", job.planned.key)))
}

/// Whether the failure of this job lets its run succeed.
pub fn may_fail(job: &Job) -> bool {
    plan_of(job).is_ok_and(|plan| plan.continue_on_error)
}

/// How a job ended for those that need it: the failure of one that may fail does not count.
fn seen(job: &Job) -> Option<JobEnd> {
    let mut end = job.finished.clone()?;
    if end.result == JobResult::Failure && may_fail(job) {
        end.result = JobResult::Success;
    }
    Some(end)
}

/// The results of all jobs that `job` needs, and of all that those need: what `success()` and `failure()` look at.
fn ancestors(run: &WorkflowRun, job: &Job) -> Vec<JobResult> {
    let mut open: Vec<&String> = job.planned.needs.iter().collect();
    let mut known = BTreeSet::new();
    let mut results = Vec::new();
    while let Some(key) = open.pop() {
        if !known.insert(key) {
            continue;
        }
        for needed in run.jobs.values().filter(|other| other.planned.key == *key) {
            open.extend(&needed.planned.needs);
            results.extend(seen(needed).map(|end| end.result));
        }
    }
    results
}

/// How many jobs of each key have been handed to a runner and not ended.
pub fn under_way(run: &WorkflowRun) -> BTreeMap<&str, u64> {
    let mut counts = BTreeMap::new();
    for job in run.jobs.values().filter(|job| job.started && job.finished.is_none()) {
        *counts.entry(job.planned.key.as_str()).or_default() += 1;
    }
    counts
}

/// Why a job of a matrix ends because another one of it failed (`strategy.fail-fast`).
pub fn failed_fast(run: &WorkflowRun, job: &Job) -> Option<Cause> {
    let failed = |other: &&Job| {
        other.planned.key == job.planned.key
            && other.finished.as_ref().is_some_and(|end| end.result == JobResult::Failure)
            && plan_of(other).is_ok_and(|plan| plan.fail_fast && !plan.continue_on_error)
    };
    let failed = run.jobs.values().find(failed)?;
    Some(Cause::new(format!("job {} of the same matrix failed, and `fail-fast` is on", failed.planned.name)))
}

/// The results of the jobs that `job` needs: of a matrix the worst result, and the outputs of all.
pub fn needs(run: &WorkflowRun, job: &Job) -> Option<BTreeMap<String, JobEnd>> {
    let mut needs = BTreeMap::new();
    for key in &job.planned.needs {
        for needed in run.jobs.values().filter(|other| other.planned.key == *key) {
            let end = seen(needed)?;
            let merged = needs.entry(key.clone()).or_insert_with(|| JobEnd { outputs: BTreeMap::new(), ..end.clone() });
            if rank(end.result) > rank(merged.result) {
                merged.result = end.result;
            }
            // An output that a job of the matrix leaves empty does not hide what another one set.
            merged.outputs.extend(end.outputs.into_iter().filter(|(_, value)| !value.is_empty()));
        }
    }
    Some(needs)
}

fn rank(result: JobResult) -> u8 {
    match result {
        JobResult::Success => 0,
        JobResult::Skipped => 1,
        JobResult::Cancelled => 2,
        JobResult::Failure => 3,
    }
}

/// Whether `job` may start.
pub fn ready(state: &State, run: &WorkflowRun, job: &Job, server_url: &str) -> Ready {
    let Some(needs) = needs(run, job) else { return Ready::Wait };
    let plan = match plan_of(job) {
        Ok(plan) => plan,
        Err(cause) => return Ready::End(JobResult::Failure, Some(cause)),
    };
    let contexts = context::of_job(state, run, &needs, server_url);
    let status = workflow::Status::of_needs(ancestors(run, job), false);
    let evaluator = workflow::Evaluator::new(&contexts, status);
    match evaluator.condition(plan.condition.as_deref()) {
        Ok(true) if plan.is_late() => Ready::Expand,
        Ok(true) => Ready::Run { at_once: plan.max_parallel },
        Ok(false) => Ready::End(JobResult::Skipped, None),
        Err(error) => {
            let message = format!("the condition of job {} cannot be evaluated: {error}", job.planned.key);
            Ready::End(JobResult::Failure, Some(Cause::new(message)))
        }
    }
}

#[cfg(test)]
mod tests;
