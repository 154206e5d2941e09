//! Deliveries, targets and workflow runs as tests need them.

use std::collections::BTreeMap;

use model::{
    CommitId, Delivery, DeliveryId, Digest, Event, HeadCommit, JobId, JobPlanned, JobResult, PinnedImage, RefName,
    RepoId, ReuseDecision, RunId, ServiceDecision, SnapshotRef, TargetId, Trigger, WorkflowPlanned,
};
use serde_json::json;
use workflow::{Contexts, JobPlan};

use crate::context;
use crate::state::State;

/// A commit whose id consists of `digit`.
pub fn commit(digit: char) -> CommitId {
    std::iter::repeat_n(digit, 40).collect::<String>().parse().unwrap()
}

/// A digest that is told from others by `number`.
pub fn digest(number: u8) -> Digest {
    Digest::sha256([number; 32])
}

/// An image of `demo/<service>`.
pub fn image(service: &str, number: u8) -> PinnedImage {
    PinnedImage { name: format!("demo/{service}").parse().unwrap(), digest: digest(number) }
}

/// A push of commit `c…` to `main`.
pub fn delivery(id: i64) -> Delivery {
    Delivery {
        id: DeliveryId(id),
        repository: RepoId(1),
        repository_name: "demo/site".parse().unwrap(),
        ref_name: RefName::branch("main").unwrap(),
        before: None,
        commit: commit('c'),
        snapshot: SnapshotRef::of(DeliveryId(id)),
        trigger: Trigger::Push,
        actor: "ann".into(),
    }
}

/// A run of target 1, which has the services `web` and `api`.
pub fn target_run(run: i64) -> Event {
    let spec = json!({
        "repository": "demo/site",
        "branch": "main",
        "services": [
            { "name": "web", "image": "demo/web", "build": {} },
            { "name": "api", "image": "demo/api", "build": {} },
        ],
        "gitops": { "branch": "deploy" },
    });
    Event::TargetRunCreated { run: RunId(run), number: run, target: TargetId(1), name: "site".into(), spec }
}

/// The jobs of a workflow file, with ids from `first` on.
pub fn jobs(plans: Vec<JobPlan>, first: i64) -> Vec<JobPlanned> {
    let job = |(plan, id): (JobPlan, i64)| {
        let value = serde_json::to_value(&plan).unwrap();
        JobPlanned { job: JobId(id), key: plan.key, name: plan.name, needs: plan.needs, plan: value }
    };
    plans.into_iter().zip(first..).map(job).collect()
}

/// A run of the workflow file `text`, with job ids from `first` on.
pub fn workflow_run(run: i64, text: &str, contexts: &Contexts, first: i64) -> WorkflowPlanned {
    let workflow = workflow::parse(".github/workflows/ci.yml", text).unwrap();
    WorkflowPlanned {
        run: RunId(run),
        number: run,
        attempt: 1,
        path: workflow.path().to_owned(),
        name: workflow.name().to_owned(),
        jobs: jobs(workflow::plan(&workflow, contexts).unwrap(), first),
        invalid: None,
    }
}

/// The contexts in which the workflows of a delivery are planned.
pub fn contexts(delivery: &Delivery) -> Contexts {
    context::contexts(delivery, &HeadCommit::default(), "http://here", None, None)
}

/// A delivery whose only workflow is `text`; its run is 1 and its jobs count from 1.
pub fn with_workflow(text: &str) -> State {
    let delivery = delivery(1);
    let runs = vec![workflow_run(1, text, &contexts(&delivery), 1)];
    let head = HeadCommit::default();
    let events =
        [Event::DeliveryCreated { delivery }, Event::SnapshotPinned { head }, Event::WorkflowsPlanned { runs }];
    State::fold(&events).unwrap()
}

/// The end of a job.
pub fn job_end(job: i64, result: JobResult, outputs: &[(&str, &str)]) -> Event {
    let outputs: BTreeMap<_, _> = outputs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    Event::JobFinished { job: JobId(job), result, outputs, cause: None }
}

/// A decision that an image must be built.
pub fn miss(service: &str) -> ServiceDecision {
    decided(service, ReuseDecision::Miss { why: "nothing to compare with".into() })
}

/// A decision that an image is there.
pub fn hit(service: &str) -> ServiceDecision {
    let image = image(service, 9);
    decided(service, ReuseDecision::Hit { image, source_commit: commit('b'), run: RunId(1) })
}

fn decided(service: &str, decision: ReuseDecision) -> ServiceDecision {
    ServiceDecision {
        service: service.into(),
        identity: digest(1),
        env_identity: digest(2),
        env_reused: false,
        decision,
    }
}
