//! What the log and its projections hold after a run, on SQLite.

use model::{Cause, CommitId, Digest, HeadCommit, HealthEvidence, JobResult, ServiceDecision, Stage, Trigger};
use store::Location;

use super::*;
use crate::fixtures::{commit, contexts, delivery, digest, hit, image, job_end, miss, target_run, workflow_run};
use crate::state::State;

const FILE: &str = "name: CI\non: push\njobs:\n  a: {runs-on: x, steps: [{run: 'true'}]}\n";

async fn journal(dir: &tempfile::TempDir) -> Journal {
    let records = Records::open(Location::Sqlite(dir.path().join("towpath.db"))).await.unwrap();
    Journal::open(records).await.unwrap()
}

async fn append(journal: &Journal, at: i64, delivery: i64, events: Vec<Event>) -> Vec<RecordedEvent> {
    let events = events.into_iter().map(|event| (DeliveryId(delivery), event)).collect();
    journal.append(Timestamp(at), events).await.unwrap()
}

/// Delivery `id` of commit `digit`, with target run `run` up to its plan.
fn opened(id: i64, digit: char, run: i64, services: Vec<ServiceDecision>) -> Vec<Event> {
    let delivery = Delivery { commit: commit(digit), ..delivery(id) };
    vec![
        Event::DeliveryCreated { delivery },
        target_run(run),
        Event::SnapshotPinned { head: HeadCommit::default() },
        Event::WorkflowsPlanned { runs: Vec::new() },
        Event::ReuseDecided { run: RunId(run), services, live: false },
    ]
}

fn built(run: i64, service: &str, identity: Digest, number: u8) -> Event {
    Event::ImageBuilt { run: RunId(run), service: service.into(), identity, image: image(service, number) }
}

fn delivered(run: i64, revision: CommitId) -> Vec<Event> {
    let run = RunId(run);
    let health = |status| {
        let evidence =
            HealthEvidence { service: "web".into(), probe: "GET /".into(), status, identity: None, image: digest(3) };
        vec![evidence]
    };
    vec![
        Event::GitopsCommitted { run, revision, previous: None, changed: true },
        Event::RolledOut { run, address: Some("http://127.0.0.1:9".into()), health: health(200) },
        Event::ClosedOut { run, health: health(204) },
        Event::TargetRunFinished { run, outcome: Outcome::Succeeded, cause: None },
        Event::DeliveryFinished,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_appended_is_read_back_and_folds() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&dir).await;
    let runs = vec![workflow_run(7, FILE, &contexts(&delivery(1)), 20)];
    let mut events = opened(1, 'c', 5, vec![miss("web"), hit("api")]);
    events[3] = Event::WorkflowsPlanned { runs };
    let first = append(&journal, 100, 1, events.clone()).await;
    let second = append(&journal, 200, 2, opened(2, 'd', 6, vec![hit("web"), hit("api")])).await;
    let third = append(&journal, 300, 1, vec![job_end(20, JobResult::Success, &[("a", "b")])]).await;
    let seqs: Vec<_> = [&first, &second, &third].into_iter().flatten().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=11).collect::<Vec<_>>());

    let of_first: Vec<_> = first.iter().chain(&third).cloned().collect();
    assert_eq!(journal.delivery(DeliveryId(1)).await.unwrap(), of_first);
    assert_eq!(journal.after(9, 10).await.unwrap().iter().map(|it| it.seq).collect::<Vec<_>>(), [10, 11]);
    assert_eq!(journal.after(2, 3).await.unwrap().iter().map(|it| it.seq).collect::<Vec<_>>(), [3, 4, 5]);

    events.push(job_end(20, JobResult::Success, &[("a", "b")]));
    let stored = State::fold(of_first.iter().map(|it| &it.event)).unwrap();
    assert_eq!(format!("{stored:?}"), format!("{:?}", State::fold(&events).unwrap()));
    assert_eq!(journal.unfinished().await.unwrap(), [DeliveryId(1), DeliveryId(2)]);
    append(&journal, 400, 1, vec![Event::DeliveryFinished]).await;
    assert_eq!(journal.unfinished().await.unwrap(), [DeliveryId(2)]);
    assert_eq!(journal.job(JobId(20)).await.unwrap(), Some((RunId(7), DeliveryId(1))));
    assert_eq!(journal.job(JobId(21)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_a_batch_is_written_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&dir).await;
    append(&journal, 1, 1, vec![Event::DeliveryCreated { delivery: delivery(1) }]).await;
    // The second event cannot be projected: there is a delivery 1 already.
    let batch = vec![
        (DeliveryId(2), Event::DeliveryCreated { delivery: delivery(2) }),
        (DeliveryId(1), Event::DeliveryCreated { delivery: delivery(1) }),
    ];
    assert!(journal.append(Timestamp(2), batch).await.unwrap_err().is_conflict());
    assert_eq!(journal.unfinished().await.unwrap(), [DeliveryId(1)]);
    let next = append(&journal, 3, 3, vec![Event::DeliveryCreated { delivery: delivery(3) }]).await;
    assert_eq!(next[0].seq, 2, "the order has no gap where a batch was refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&dir).await;
    let mut events = opened(1, 'c', 5, vec![miss("web"), hit("api")]);
    events[3] = Event::WorkflowsPlanned { runs: vec![workflow_run(7, FILE, &contexts(&delivery(1)), 20)] };
    append(&journal, 100, 1, events).await;
    append(&journal, 200, 2, opened(2, 'd', 8, vec![hit("web"), hit("api")])).await;
    let other = Delivery { repository: RepoId(2), repository_name: "demo/other".parse().unwrap(), ..delivery(3) };
    let runs = vec![workflow_run(9, FILE, &contexts(&other), 30)];
    append(&journal, 300, 3, vec![Event::DeliveryCreated { delivery: other }, Event::WorkflowsPlanned { runs }]).await;
    let cause = Some(Cause::new("no such file").at(Stage::Build));
    let failed = Event::TargetRunFinished { run: RunId(5), outcome: Outcome::Failed, cause };
    let ended = Event::WorkflowRunFinished { run: RunId(7), outcome: Outcome::Succeeded, cause: None };
    append(&journal, 400, 1, vec![ended, failed]).await;

    let ids = |runs: Vec<RunSummary>| runs.iter().map(|run| run.run.0).collect::<Vec<_>>();
    assert_eq!(ids(journal.runs(None, 10).await.unwrap()), [9, 8, 7, 5]);
    assert_eq!(ids(journal.runs(None, 2).await.unwrap()), [9, 8]);
    assert_eq!(ids(journal.runs(Some(RepoId(1)), 10).await.unwrap()), [8, 7, 5]);
    assert_eq!(ids(journal.runs(Some(RepoId(3)), 10).await.unwrap()), [] as [i64; 0]);
    assert_eq!(ids(journal.runs_of(DeliveryId(1)).await.unwrap()), [5, 7]);
    assert_eq!(journal.last_run(TargetId(1)).await.unwrap().unwrap().run, RunId(8));
    assert!(journal.last_run(TargetId(2)).await.unwrap().is_none());

    let (run, repository) = journal.run(RunId(5)).await.unwrap().unwrap();
    assert_eq!((run.kind, run.name.as_str(), run.number), (RunKind::Target, "site", 5));
    assert_eq!((run.delivery, run.ref_name.as_str(), repository), (DeliveryId(1), "refs/heads/main", RepoId(1)));
    assert_eq!(run.commit, commit('c').to_string());
    assert_eq!((run.outcome.as_deref(), run.cause.as_deref()), (Some("failed"), Some("build: no such file")));
    assert_eq!((run.created, run.ended), (Timestamp(100), Some(Timestamp(400))));
    let (run, _) = journal.run(RunId(7)).await.unwrap().unwrap();
    assert_eq!((run.kind, run.name.as_str()), (RunKind::Workflow, "CI"));
    assert!(journal.run(RunId(99)).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_succeeds_is_live_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&dir).await;
    let live = async |target| live::of(journal.records(), TargetId(target)).await.unwrap();
    append(&journal, 1, 1, opened(1, 'c', 5, vec![miss("web"), hit("api")])).await;
    append(&journal, 2, 1, vec![built(5, "web", digest(1), 3)]).await;
    assert_eq!(live(1).await, None);
    append(&journal, 3, 1, delivered(5, commit('1'))).await;
    let found = live(1).await.unwrap();
    assert_eq!((found.run, found.revision.clone()), (RunId(5), commit('1')));
    assert_eq!(found.source_commit, commit('c'));
    // A service whose image was there already is of the commit that it was built from.
    assert_eq!((found.commit_of("web"), found.commit_of("api")), (&commit('c'), &commit('b')));
    assert_eq!(found.images.keys().collect::<Vec<_>>(), ["api", "web"]);
    assert_eq!(found.images["web"], image("web", 3));
    assert_eq!((found.health[0].status, found.address.as_deref()), (204, Some("http://127.0.0.1:9")));
    assert_eq!(live(2).await, None);

    append(&journal, 4, 2, opened(2, 'd', 6, vec![miss("web"), hit("api")])).await;
    for outcome in [Outcome::Failed, Outcome::Superseded, Outcome::Cancelled, Outcome::Reused] {
        append(&journal, 5, 2, vec![Event::TargetRunFinished { run: RunId(6), outcome, cause: None }]).await;
        assert_eq!(live(1).await.as_ref(), Some(&found), "{outcome}");
    }
    // Everything found: what runs is of the commit that was built.
    append(&journal, 6, 3, opened(3, 'e', 7, vec![hit("web"), hit("api")])).await;
    append(&journal, 7, 3, delivered(7, commit('2'))).await;
    let found = live(1).await.unwrap();
    assert_eq!((found.run, found.source_commit), (RunId(7), commit('b')));
    assert_eq!(journal.last_success_before(TargetId(1), RunId(7)).await.unwrap(), Some(RunId(5)));
    assert_eq!(journal.last_success_before(TargetId(1), RunId(5)).await.unwrap(), None);
}

#[test]
fn what_was_live_before_services_had_commits_of_their_own_is_still_read() {
    let revision = commit('1');
    let text = format!(
        r#"{{"run":5,"revision":"{revision}","sourceCommit":"{revision}","images":{{}},"health":[],"address":null}}"#
    );
    let live: evidence::Live = serde_json::from_str(&text).unwrap();
    assert_eq!(live.commit_of("web"), &revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn artifacts_are_found_by_identity_and_else_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&dir).await;
    for (id, (digit, identity)) in [('c', 1), ('d', 2), ('e', 3)].into_iter().enumerate() {
        let id = i64::try_from(id).unwrap() + 1;
        append(&journal, id, id, opened(id, digit, id, vec![miss("web"), miss("api")])).await;
        let event = built(id, "web", digest(identity), identity + 10);
        // An effect that runs again records the same once more.
        append(&journal, id, id, vec![event.clone(), event]).await;
    }
    let find = async |service: &str, identity| {
        let found = artifacts::candidates(journal.records(), TargetId(1), service, digest(identity)).await.unwrap();
        found.into_iter().map(|it| (it.run.0, it.identity == digest(identity))).collect::<Vec<_>>()
    };
    assert_eq!(find("web", 1).await, [(1, true), (3, false)]);
    assert_eq!(find("web", 3).await, [(3, true), (2, false)]);
    assert_eq!(find("web", 9).await, [(3, false), (2, false)]);
    assert_eq!(find("api", 1).await, []);
    let found = artifacts::candidates(journal.records(), TargetId(1), "web", digest(2)).await.unwrap();
    assert_eq!((&found[0].image, &found[0].source_commit), (&image("web", 12), &commit('d')));
    assert!(artifacts::candidates(journal.records(), TargetId(2), "web", digest(1)).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_follow_pushes_alone() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&dir).await;
    let main = RefName::branch("main").unwrap();
    let head = async |name: &RefName| journal.head(RepoId(1), name).await.unwrap();
    assert_eq!(head(&main).await, None);
    let triggers = [
        (Trigger::Push, 'c', 'c'),
        (Trigger::Push, 'd', 'd'),
        (Trigger::Retry { of: RunId(1) }, 'e', 'd'),
        (Trigger::Rollback { to: RunId(1) }, 'e', 'd'),
        (Trigger::Dispatch { inputs: std::collections::BTreeMap::new() }, 'e', 'd'),
    ];
    for (id, (trigger, digit, expected)) in (1..).zip(triggers) {
        let delivery = Delivery { commit: commit(digit), trigger, ..delivery(id) };
        append(&journal, id, id, vec![Event::DeliveryCreated { delivery }]).await;
        assert_eq!(head(&main).await, Some(commit(expected).to_string()));
    }
    assert_eq!(head(&RefName::branch("other").unwrap()).await, None);
    assert_eq!(journal.head(RepoId(2), &main).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_count_by_what_they_number() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(&dir).await;
    let number = async |repository, path| journal.next_number(RepoId(repository), path).await.unwrap();
    assert_eq!((number(1, "a.yml").await, number(1, "a.yml").await, number(1, "b.yml").await), (1, 2, 1));
    assert_eq!(number(2, "a.yml").await, 1);
    let attempt = async |number| journal.next_attempt(RepoId(1), "a.yml", number).await.unwrap();
    assert_eq!((attempt(1).await, attempt(1).await, attempt(2).await), (2, 3, 2));
    let target = async |id| journal.next_target_number(TargetId(id)).await.unwrap();
    assert_eq!((target(1).await, target(1).await, target(2).await), (1, 2, 1));
    assert_eq!(journal.ids("runs", 3).await.unwrap(), [1, 2, 3]);
    assert_eq!(journal.ids("runs", 0).await.unwrap(), [] as [i64; 0]);
    assert_eq!(journal.ids("runs", 1).await.unwrap(), [4]);
}
