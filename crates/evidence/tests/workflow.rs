//! The status of workflow runs.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use evidence::{WorkflowStatus, workflow_facts};
use model::{
    Cause, CommitId, Delivery, DeliveryId, Event, JobId, JobPlanned, JobResult, Outcome, RecordedEvent, RefName,
    RepoId, RunId, SnapshotRef, Timestamp, Trigger, WorkflowPlanned,
};

fn job(id: i64, key: &str, name: &str) -> JobPlanned {
    let plan = serde_json::Value::Null;
    JobPlanned { job: JobId(id), key: key.into(), name: name.into(), needs: Vec::new(), plan }
}

fn planned(run: i64, jobs: Vec<JobPlanned>, invalid: Option<Cause>) -> WorkflowPlanned {
    let path = ".github/workflows/ci.yml".into();
    WorkflowPlanned { run: RunId(run), number: 4, attempt: 2, path, name: "CI".into(), jobs, invalid }
}

fn log(events: Vec<(i64, Event)>) -> Vec<RecordedEvent> {
    let commit: CommitId = "c".repeat(40).parse().unwrap();
    let delivery = Delivery {
        id: DeliveryId(1),
        repository: RepoId(1),
        repository_name: "demo/site".parse().unwrap(),
        ref_name: RefName::branch("main").unwrap(),
        before: None,
        commit,
        snapshot: SnapshotRef::of(DeliveryId(1)),
        trigger: Trigger::Push,
        actor: "ann".into(),
    };
    let events = [(0, Event::DeliveryCreated { delivery })].into_iter().chain(events);
    let record = |(seq, (at, event))| RecordedEvent { seq, at: Timestamp(at), delivery: DeliveryId(1), event };
    (1..).zip(events).map(record).collect()
}

fn finished(job: i64, result: JobResult, cause: Option<Cause>) -> Event {
    Event::JobFinished { job: JobId(job), result, outputs: BTreeMap::new(), cause }
}

fn status(events: &[RecordedEvent], now: i64) -> WorkflowStatus {
    WorkflowStatus::of(&workflow_facts(events, RunId(7)).unwrap(), Timestamp(now))
}

#[test]
fn jobs_stand_where_the_log_says() {
    let jobs = vec![job(1, "a", "a"), job(2, "b", "b"), job(3, "c", "c"), job(4, "d", "d")];
    let cause = Cause::new("exit code 1");
    let events = log(vec![
        (1000, Event::WorkflowsPlanned { runs: vec![planned(6, Vec::new(), None), planned(7, jobs, None)] }),
        (2000, Event::JobStarted { job: JobId(1) }),
        (2000, Event::JobStarted { job: JobId(2) }),
        (5000, finished(1, JobResult::Failure, Some(cause.clone()))),
        (5000, finished(3, JobResult::Skipped, None)),
    ]);
    let found = status(&events, 9000);
    let jobs: Vec<_> = found.jobs.iter().map(|it| (it.name.as_str(), it.result, it.seconds)).collect();
    assert_eq!(
        jobs,
        [
            ("a", Some(JobResult::Failure), Some(3.0)),
            ("b", None, Some(7.0)),
            ("c", Some(JobResult::Skipped), None),
            ("d", None, None),
        ]
    );
    assert_eq!((found.jobs[0].cause.as_ref(), found.outcome, found.elapsed_seconds), (Some(&cause), None, 9.0));
    assert_eq!((found.number, found.attempt, found.snapshot_ref.as_str()), (4, 2, "refs/towpath/snapshots/1"));
}

#[test]
fn a_job_left_when_its_run_ended_takes_no_more_time() {
    let cause = Cause::new("cancelled by ann");
    let events = log(vec![
        (0, Event::WorkflowsPlanned { runs: vec![planned(7, vec![job(1, "a", "a")], None)] }),
        (1000, Event::JobStarted { job: JobId(1) }),
        (3000, Event::WorkflowRunFinished { run: RunId(7), outcome: Outcome::Cancelled, cause: Some(cause.clone()) }),
    ]);
    let found = status(&events, 99_000);
    assert_eq!((found.outcome, found.cause), (Some(Outcome::Cancelled), Some(cause)));
    assert_eq!((found.elapsed_seconds, found.jobs[0].seconds), (3.0, Some(2.0)));
}

#[test]
fn the_jobs_of_a_late_matrix_take_the_place_of_the_one_that_stood_for_them() {
    let jobs = vec![job(1, "a", "a"), job(2, "m", "m")];
    let events = log(vec![
        (0, Event::WorkflowsPlanned { runs: vec![planned(7, jobs, None)] }),
        (
            0,
            Event::JobExpanded { run: RunId(7), job: JobId(2), jobs: vec![job(3, "m", "m (1)"), job(4, "m", "m (2)")] },
        ),
        (1000, finished(4, JobResult::Success, None)),
    ]);
    let found = status(&events, 9000);
    let jobs: Vec<_> = found.jobs.iter().map(|it| (it.name.as_str(), it.result)).collect();
    assert_eq!(jobs, [("a", None), ("m (1)", None), ("m (2)", Some(JobResult::Success))]);
}

#[test]
fn a_file_that_cannot_be_run_has_a_run_with_its_cause() {
    let cause = Cause::new("unknown key `job`").in_place("ci.yml:2:1");
    let invalid = planned(7, Vec::new(), Some(cause.clone()));
    let events = log(vec![
        (0, Event::WorkflowsPlanned { runs: vec![invalid] }),
        (10, Event::WorkflowRunFinished { run: RunId(7), outcome: Outcome::Failed, cause: Some(cause.clone()) }),
    ]);
    let found = status(&events, 20);
    assert_eq!((found.outcome, found.cause, found.jobs.len()), (Some(Outcome::Failed), Some(cause), 0));
    assert!(workflow_facts(&events, RunId(8)).is_none());
}
