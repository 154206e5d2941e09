//! What a push makes, with real repositories and nothing that needs a sandbox.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use git::{CommitRequest, Expected};
use model::{CommitId, Event, RefName, RunId, Timestamp};
use pipeline::{Basis, Pipeline, RunKind, RunSummary};
use source::{HostedRepo, RefUpdate};

/// No runner has its label: its job ends at once, with a cause.
const WORKFLOW: &str =
    "name: CI\non: [push, workflow_dispatch]\njobs:\n  a: {runs-on: nowhere, steps: [{run: 'true'}]}\n";

struct World {
    pipeline: Pipeline,
    repo: HostedRepo,
    _basis: Basis,
    _dir: tempfile::TempDir,
}

impl World {
    /// A server with the repository `demo/site`, and a target that follows its branch `main`.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spec = config::ServerSpec::default();
        let basis = Basis::open(&dir.path().join("data"), &spec).await.unwrap();
        let pipeline = pipeline::open(&basis, &spec, "http://127.0.0.1:1").await.unwrap();
        let rooms = pipeline.rooms();
        let repo = rooms.hosting.create(&"demo/site".parse().unwrap(), "main", Timestamp(1)).await.unwrap();
        let target = serde_json::json!({
            "repository": "demo/site",
            "branch": "main",
            "services": [{ "name": "web", "image": "demo/site", "build": {} }],
            "gitops": { "branch": "deploy" },
        });
        let target = config::parse_target_spec(&target).unwrap();
        pipeline::targets::put(&rooms.records, "site", &target).await.unwrap();
        Self { pipeline, repo, _basis: basis, _dir: dir }
    }

    fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Moves a ref to a new commit of one file, as git does before the pipeline hears of it.
    async fn commit(&self, ref_name: &str, workflow: &str, message: &str) -> RefUpdate {
        let repository = self.pipeline().rooms().hosting.repository(self.repo.id).unwrap();
        let name: RefName = ref_name.parse().unwrap();
        let old = repository.resolve(ref_name).await.unwrap();
        let path = ".github/workflows/ci.yml".to_owned();
        let request = CommitRequest {
            parent: old.clone(),
            changes: BTreeMap::from([
                (path, Some(workflow.as_bytes().to_vec())),
                ("message".to_owned(), Some(message.as_bytes().to_vec())),
            ]),
            message: message.to_owned(),
            author_name: "Ann".into(),
            author_email: "ann@localhost".into(),
            when: Timestamp(1_700_000_000_000),
        };
        let new = repository.commit_files(request).await.unwrap();
        repository.update_ref(&name, &new, Expected::Any).await.unwrap();
        RefUpdate { name, old, new: Some(new) }
    }

    async fn push(&self, updates: Vec<RefUpdate>) -> Vec<String> {
        self.pipeline().pushed(&self.repo, updates, "ann").await.unwrap()
    }

    /// All runs, newest first, once none is under way any more.
    async fn ended(&self) -> Vec<RunSummary> {
        for _ in 0..600 {
            if self.pipeline().journal().unfinished().await.unwrap().is_empty() {
                return self.pipeline().runs(None, 100).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not ended: {:?}", self.pipeline().runs(None, 100).await.unwrap());
    }

    async fn events(&self) -> Vec<Event> {
        let events = self.pipeline().journal().after(0, 1000).await.unwrap();
        events.into_iter().map(|recorded| recorded.event).collect()
    }

    /// The commits that were delivered, in order.
    async fn delivered(&self) -> Vec<CommitId> {
        let commit = |event| match event {
            Event::DeliveryCreated { delivery } => Some(delivery.commit),
            _ => None,
        };
        self.events().await.into_iter().filter_map(commit).collect()
    }
}

fn of_kind(runs: &[RunSummary], kind: RunKind) -> Vec<&RunSummary> {
    runs.iter().filter(|run| run.kind == kind).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_makes_a_run_of_the_target_and_of_each_workflow() {
    let world = World::new().await;
    let update = world.commit("refs/heads/main", WORKFLOW, "first").await;
    let commit = update.new.clone().unwrap();
    let lines = world.push(vec![update]).await;
    assert!(lines[0].contains("of target site"), "{lines:?}");
    let runs = world.ended().await;
    let (targets, workflows) = (of_kind(&runs, RunKind::Target), of_kind(&runs, RunKind::Workflow));
    assert_eq!((targets.len(), workflows.len()), (1, 1), "{runs:?}");
    assert_eq!((targets[0].outcome.as_deref(), workflows[0].outcome.as_deref()), (Some("failed"), Some("failed")));
    assert!(workflows[0].cause.as_deref().unwrap().contains("nowhere"), "{runs:?}");
    let main: RefName = "refs/heads/main".parse().unwrap();
    assert_eq!(world.pipeline().journal().head(world.repo.id, &main).await.unwrap(), Some(commit.to_string()));
    // A branch that no target follows has its workflows alone.
    let update = world.commit("refs/heads/other", WORKFLOW, "other").await;
    assert!(world.push(vec![update]).await.is_empty());
    let runs = world.ended().await;
    assert_eq!((of_kind(&runs, RunKind::Target).len(), of_kind(&runs, RunKind::Workflow).len()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_asks_for_it_runs_nothing() {
    let world = World::new().await;
    for (message, workflow) in
        [("docs [ci skip]", WORKFLOW), ("[skip ci] x", "on: [push\n"), ("x\n\nskip-checks: true", WORKFLOW)]
    {
        let update = world.commit("refs/heads/main", workflow, message).await;
        let lines = world.push(vec![update]).await;
        assert!(lines.len() == 1 && lines[0].contains("nothing runs"), "{lines:?}");
        assert_eq!(world.ended().await.len(), 0, "{message}");
    }
    // A person may still ask.
    let main: RefName = "refs/heads/main".parse().unwrap();
    world.pipeline().dispatch(&world.repo, &main, BTreeMap::new(), "ann").await.unwrap();
    assert_eq!(world.ended().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branches_of_manifests_tags_and_other_refs() {
    let world = World::new().await;
    let deploy = world.commit("refs/heads/deploy", WORKFLOW, "manifests").await;
    let note = world.commit("refs/notes/x", WORKFLOW, "note").await;
    assert!(world.push(vec![deploy.clone(), note]).await.is_empty());
    assert!(world.delivered().await.is_empty(), "nothing is live that could be delivered once more");
    let tag = world.commit("refs/tags/v1", WORKFLOW, "release").await;
    world.push(vec![tag.clone()]).await;
    let runs = world.ended().await;
    assert_eq!((runs.len(), runs[0].kind, runs[0].ref_name.as_str()), (1, RunKind::Workflow, "refs/tags/v1"));
    assert_eq!(world.delivered().await, [tag.new.clone().unwrap()]);
    // Deleted refs make nothing.
    let gone = [tag, deploy].map(|update| RefUpdate { name: update.name, old: update.new, new: None });
    world.push(gone.to_vec()).await;
    assert_eq!(world.delivered().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_pushes_the_older_gives_way_and_a_deleted_branch_ends_all() {
    let world = World::new().await;
    let first = world.commit("refs/heads/main", WORKFLOW, "first").await;
    let second = world.commit("refs/heads/main", WORKFLOW, "second").await;
    let gone = RefUpdate { name: second.name.clone(), old: second.new.clone(), new: None };
    for update in [first, second, gone] {
        world.push(vec![update]).await;
    }
    let runs = world.ended().await;
    let outcomes: Vec<_> = of_kind(&runs, RunKind::Target).iter().map(|run| run.outcome.clone().unwrap()).collect();
    // The first may have failed before the second came: its workflow takes no time.
    let older = ["superseded", "failed"].contains(&outcomes[1].as_str());
    assert!(older && ["cancelled", "failed"].contains(&outcomes[0].as_str()), "{outcomes:?}");
    for run in runs {
        let status = world.pipeline().status(run.run).await.unwrap().unwrap();
        assert!(status.ended());
    }
    let snapshots = world.pipeline().rooms().hosting.repository(world.repo.id).unwrap();
    assert_eq!(snapshots.refs("refs/towpath/snapshots/").await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_keeps_its_number_and_counts_attempts() {
    let world = World::new().await;
    let update = world.commit("refs/heads/other", WORKFLOW, "first").await;
    world.push(vec![update]).await;
    let first = world.ended().await[0].run;
    let update = world.commit("refs/heads/other", WORKFLOW, "second").await;
    world.push(vec![update]).await;
    world.ended().await;
    let retry = async |run: RunId| {
        let delivery = world.pipeline().retry(run, "ann").await.unwrap();
        world.ended().await;
        world.pipeline().runs_of(delivery).await.unwrap().pop().unwrap().run
    };
    let second = retry(first).await;
    let third = retry(second).await;
    let fourth = retry(first).await;
    let planned: BTreeMap<RunId, (i64, i64)> = world
        .events()
        .await
        .into_iter()
        .filter_map(|event| match event {
            Event::WorkflowsPlanned { runs } => Some(runs),
            _ => None,
        })
        .flatten()
        .map(|run| (run.run, (run.number, run.attempt)))
        .collect();
    assert_eq!(planned[&first], (1, 1));
    assert_eq!([planned[&second], planned[&third], planned[&fourth]], [(1, 2), (1, 3), (1, 4)]);
    assert_eq!(planned.values().map(|(number, _)| *number).max(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_retry_of_a_dispatch_is_dispatched_again() {
    let world = World::new().await;
    let text = WORKFLOW.replace("[push, workflow_dispatch]", "workflow_dispatch");
    let update = world.commit("refs/heads/other", &text, "first").await;
    world.push(vec![update.clone()]).await;
    assert!(world.ended().await.is_empty());
    let delivery = world.pipeline().dispatch(&world.repo, &update.name, BTreeMap::new(), "ann").await.unwrap();
    let runs = world.ended().await;
    assert_eq!((runs.len(), runs[0].delivery), (1, delivery));
    world.pipeline().retry(runs[0].run, "ann").await.unwrap();
    assert_eq!(world.ended().await.len(), 2);
}
