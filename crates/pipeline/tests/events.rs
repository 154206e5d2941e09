//! What was written once can be read for ever.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Cause, CommitId, Delivery, DeliveryId, Digest, Event, HeadCommit, HealthEvidence, JobId, JobPlanned, JobResult,
    Outcome, PinnedImage, RecordedEvent, RefName, RepoId, ReuseDecision, RunId, ServiceDecision, SnapshotRef, Stage,
    TargetId, Timestamp, Trigger, WorkflowPlanned,
};
use pipeline::Journal;
use store::log::NewEvent;
use store::{Location, Records};

/// The events as version 1 wrote them, one on a line. Never to be changed: a new version gets a file of its own.
const VERSION_1: &str = include_str!("fixtures/events-v1.jsonl");

fn commit(digit: char) -> CommitId {
    std::iter::repeat_n(digit, 40).collect::<String>().parse().unwrap()
}

fn image() -> PinnedImage {
    PinnedImage { name: "demo/web".parse().unwrap(), digest: Digest::sha256([7; 32]) }
}

fn cause() -> Cause {
    let cause = Cause::new("it broke").at(Stage::Build).in_place("Dockerfile:3").hint("mend it");
    cause.last_lines(vec!["one".into(), "two".into()])
}

fn health() -> Vec<HealthEvidence> {
    let (service, probe) = ("web".into(), "GET /".into());
    vec![HealthEvidence { service, probe, status: 200, identity: Some("abc".into()), image: Digest::sha256([7; 32]) }]
}

fn delivery(trigger: Trigger, before: Option<CommitId>) -> Event {
    let delivery = Delivery {
        id: DeliveryId(1),
        repository: RepoId(2),
        repository_name: "demo/site".parse().unwrap(),
        ref_name: RefName::branch("main").unwrap(),
        before,
        commit: commit('b'),
        snapshot: SnapshotRef::of(DeliveryId(1)),
        trigger,
        actor: "ann".into(),
    };
    Event::DeliveryCreated { delivery }
}

fn job(id: i64) -> JobPlanned {
    let plan = serde_json::json!({ "key": "a", "name": "a (1)", "line": 3 });
    JobPlanned { job: JobId(id), key: "a".into(), name: "a (1)".into(), needs: vec!["z".into()], plan }
}

fn services() -> Vec<ServiceDecision> {
    let decided = |decision| ServiceDecision {
        service: "web".into(),
        identity: Digest::sha256([1; 32]),
        env_identity: Digest::sha256([2; 32]),
        env_reused: true,
        decision,
    };
    let hit = ReuseDecision::Hit { image: image(), source_commit: commit('a'), run: RunId(3) };
    vec![decided(hit), decided(ReuseDecision::Miss { why: "file a.txt differs".into() })]
}

/// Every event, and every form of what it may hold.
fn all() -> Vec<Event> {
    let run = RunId(4);
    let workflow = |jobs, invalid| WorkflowPlanned {
        run,
        number: 5,
        attempt: 2,
        path: ".github/workflows/ci.yml".into(),
        name: "CI".into(),
        jobs,
        invalid,
    };
    let finished = |result, cause| Event::JobFinished {
        job: JobId(6),
        result,
        outputs: BTreeMap::from([("key".to_owned(), "value".to_owned())]),
        cause,
    };
    let head =
        HeadCommit { message: "m\n\nb".into(), author: "Ann".into(), email: "a@b".into(), committed: Timestamp(1000) };
    let mut events = vec![
        delivery(Trigger::Push, None),
        delivery(Trigger::Dispatch { inputs: BTreeMap::from([("a".to_owned(), "b".to_owned())]) }, Some(commit('a'))),
        delivery(Trigger::Schedule { cron: "0 4 * * *".into() }, None),
        delivery(Trigger::Retry { of: RunId(3) }, None),
        delivery(Trigger::Rollback { to: RunId(3) }, None),
        delivery(Trigger::Image { image: image().name, digest: image().digest }, None),
        Event::TargetRunCreated {
            run,
            number: 1,
            target: TargetId(2),
            name: "site".into(),
            spec: serde_json::json!({ "branch": "main" }),
        },
        Event::SnapshotPinned { head },
        Event::WorkflowsPlanned { runs: vec![workflow(vec![job(6)], None), workflow(Vec::new(), Some(cause()))] },
        Event::JobExpanded { run, job: JobId(6), jobs: vec![job(7), job(8)] },
        Event::JobStarted { job: JobId(6) },
        finished(JobResult::Success, None),
        finished(JobResult::Failure, Some(cause())),
        finished(JobResult::Cancelled, None),
        finished(JobResult::Skipped, None),
        Event::ReuseDecided { run, services: services(), live: true },
        Event::ImageBuilt { run, service: "web".into(), identity: Digest::sha256([1; 32]), image: image() },
        Event::GitopsCommitted { run, revision: commit('d'), previous: Some(commit('e')), changed: true },
        Event::GitopsCommitted { run, revision: commit('d'), previous: None, changed: false },
        Event::RolledOut { run, address: Some("http://127.0.0.1:1".into()), health: health() },
        Event::ClosedOut { run, health: health() },
        Event::GitopsReverted { run, revision: Some(commit('e')) },
        Event::GitopsReverted { run, revision: None },
        Event::DeliveryFinished,
    ];
    for stage in Stage::ALL {
        events.push(Event::StageStarted { run, stage });
        let cause = (stage == Stage::Build).then(cause);
        events.push(Event::StageFinished { run, stage, millis: 1234, cause });
    }
    let outcomes = [
        Outcome::Succeeded,
        Outcome::Failed,
        Outcome::Superseded,
        Outcome::Cancelled,
        Outcome::Reused,
        Outcome::Skipped,
    ];
    for outcome in outcomes {
        let cause = (outcome == Outcome::Failed).then(cause);
        events.push(Event::WorkflowRunFinished { run, outcome, cause: cause.clone() });
        events.push(Event::TargetRunFinished { run, outcome, cause });
    }
    events
}

/// The name under which an event is stored. A new variant does not compile here: give it a place in [`all`] too.
fn kind(event: &Event) -> &'static str {
    match event {
        Event::DeliveryCreated { .. } => "deliveryCreated",
        Event::TargetRunCreated { .. } => "targetRunCreated",
        Event::SnapshotPinned { .. } => "snapshotPinned",
        Event::WorkflowsPlanned { .. } => "workflowsPlanned",
        Event::JobExpanded { .. } => "jobExpanded",
        Event::JobStarted { .. } => "jobStarted",
        Event::JobFinished { .. } => "jobFinished",
        Event::WorkflowRunFinished { .. } => "workflowRunFinished",
        Event::StageStarted { .. } => "stageStarted",
        Event::StageFinished { .. } => "stageFinished",
        Event::ReuseDecided { .. } => "reuseDecided",
        Event::ImageBuilt { .. } => "imageBuilt",
        Event::GitopsCommitted { .. } => "gitopsCommitted",
        Event::RolledOut { .. } => "rolledOut",
        Event::ClosedOut { .. } => "closedOut",
        Event::GitopsReverted { .. } => "gitopsReverted",
        Event::TargetRunFinished { .. } => "targetRunFinished",
        Event::DeliveryFinished => "deliveryFinished",
    }
}

const KINDS: usize = 18;

#[test]
fn every_event_comes_back_as_it_was() {
    let kinds: BTreeSet<_> = all().iter().map(kind).collect();
    assert_eq!(kinds.len(), KINDS);
    for event in all() {
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event, "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["event"], kind(&event));
        let recorded = RecordedEvent { seq: 1, at: Timestamp(5), delivery: DeliveryId(3), event };
        let text = serde_json::to_string(&recorded).unwrap();
        assert_eq!(serde_json::from_str::<RecordedEvent>(&text).unwrap(), recorded, "{text}");
    }
}

async fn records(dir: &tempfile::TempDir) -> Records {
    Records::open(Location::Sqlite(dir.path().join("towpath.db"))).await.unwrap()
}

async fn store_raw(journal: &Journal, version: i64, lines: Vec<String>) {
    let event = move |body: String| {
        let kind = serde_json::from_str::<serde_json::Value>(&body).unwrap()["event"].as_str().unwrap().to_owned();
        NewEvent { stream: 1, kind, version, body }
    };
    let events: Vec<_> = lines.into_iter().map(event).collect();
    journal.records().write(move |tx| store::log::append(tx, Timestamp(1), &events)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_version_1_are_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(records(&dir).await).await.unwrap();
    store_raw(&journal, 1, VERSION_1.lines().map(str::to_owned).collect()).await;
    let read: Vec<_> = journal.after(0, 1000).await.unwrap().into_iter().map(|recorded| recorded.event).collect();
    let expected = all();
    assert_eq!(read.len(), expected.len());
    for (read, expected) in read.into_iter().zip(expected) {
        assert_eq!(read, expected);
    }
}

#[test]
fn version_1_is_written_as_it_always_was() {
    assert_eq!(Event::VERSION, 1, "a new version needs a fixture of its own, and this test its last writer");
    for (line, event) in VERSION_1.lines().zip(all()) {
        let stored: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_value(&event).unwrap(), stored);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_later_version_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(records(&dir).await).await.unwrap();
    store_raw(&journal, Event::VERSION + 1, vec![r#"{"event":"deliveryFinished"}"#.into()]).await;
    let error = journal.after(0, 10).await.unwrap_err().to_string();
    assert!(error.contains("event 1") && error.contains("later version"), "{error}");
    store_raw(&journal, 1, vec![r#"{"event":"somethingElse"}"#.into()]).await;
    let error = journal.after(1, 10).await.unwrap_err().to_string();
    assert!(error.contains("event 2"), "{error}");
}
