//! Bringing a revision to life with the local engine, and checking it.

use std::collections::BTreeMap;

use ::deploy::{Health, Identity, Rollout, ServiceRollout};
use config::HealthIdentity;
use evidence::Live;
use gitops::{GitopsError, Workload};
use model::{Cause, CommitId, Event, PinnedImage, ReuseDecision, RunId};

use crate::effect::{Context, publish};
use crate::state::TargetRun;

pub(crate) async fn rollout(context: &Context, id: RunId) -> Result<Vec<Event>, Cause> {
    let run = context.target(id)?;
    let wanted = of_run(context, run).await?;
    let report = context.rooms.local.rollout(wanted).await.map_err(|failure| failure.cause())?;
    Ok(vec![Event::RolledOut { run: id, address: Some(report.address), health: report.health }])
}

pub(crate) async fn closeout(context: &Context, id: RunId) -> Result<Vec<Event>, Cause> {
    let run = context.target(id)?;
    let wanted = of_run(context, run).await?;
    let checks: Vec<_> = wanted.services.iter().map(ServiceRollout::check).collect();
    let health = context.rooms.local.closeout(run.target, &checks).await.map_err(|failure| failure.cause())?;
    Ok(vec![Event::ClosedOut { run: id, health }])
}

/// Whether the engine really runs what is recorded as live.
pub(crate) async fn runs(context: &Context, run: &TargetRun, live: &Live) -> bool {
    // Any doubt about what runs is a reason to roll out.
    let Ok(Some(running)) = context.rooms.local.live(run.target).await else { return false };
    live.images.iter().all(|(name, image)| {
        running.services.iter().any(|service| service.name == *name && service.image == *image && service.running)
    })
}

/// Rolls the last good version out again.
pub(crate) async fn bring_back(context: &Context, run: &TargetRun, live: &Live) -> Result<(), Cause> {
    let commits = live.images.keys().map(|service| (service.clone(), live.commit_of(service).clone())).collect();
    let key = format!("run-{}-back-to-{}", run.run, live.run);
    let wanted = request(context, run, key, &live.revision, &live.images, &commits).await?;
    context.rooms.local.rollout(wanted).await.map(|_| ()).map_err(|failure| failure.cause())
}

async fn of_run(context: &Context, run: &TargetRun) -> Result<Rollout, Cause> {
    let published = run.published.as_ref().ok_or_else(|| Cause::new("nothing was published"))?;
    let mut images = BTreeMap::new();
    let mut commits = BTreeMap::new();
    for decision in run.decisions.iter().flatten() {
        let name = &decision.service;
        let image = run.image_of(name).ok_or_else(|| Cause::new(format!("service {name} has no image")))?;
        images.insert(name.clone(), image.clone());
        let commit = match &decision.decision {
            ReuseDecision::Hit { source_commit, .. } => source_commit.clone(),
            ReuseDecision::Miss { .. } => context.state.delivery.commit.clone(),
        };
        commits.insert(name.clone(), commit);
    }
    request(context, run, format!("run-{}", run.run), &published.revision, &images, &commits).await
}

async fn request(
    context: &Context,
    run: &TargetRun,
    key: String,
    revision: &CommitId,
    images: &BTreeMap<String, PinnedImage>,
    commits: &BTreeMap<String, CommitId>,
) -> Result<Rollout, Cause> {
    let branch = publish::branch(context, run).await?;
    let files = branch.manifests(revision).await?;
    let workloads = gitops::workloads(&files).map_err(|error| gitops_cause(&error))?;
    let mut services = Vec::new();
    for service in &run.spec.services {
        let image = images.get(&service.name);
        let image = image.ok_or_else(|| Cause::new(format!("service {} has no image", service.name)))?;
        let workload = workload_of(&workloads, image, &branch.path)?;
        let commit = commits.get(&service.name);
        let expected = commit.map(ToString::to_string).into_iter().chain([image.digest.to_string()]).collect();
        services.push(ServiceRollout {
            name: service.name.clone(),
            image: image.clone(),
            source_commit: commit.cloned(),
            workload,
            health: health(&service.health),
            expected,
            env: vec![("TOWPATH_TARGET".into(), run.name.clone())],
            public: services.is_empty(),
        });
    }
    Ok(Rollout {
        key,
        target: run.target,
        name: run.name.clone(),
        revision: revision.clone(),
        services,
        listen: run.spec.deploy.listen,
    })
}

fn workload_of(workloads: &[Workload], image: &PinnedImage, path: &str) -> Result<Workload, Cause> {
    let found = workloads.iter().find(|workload| workload.container_of(&image.name).is_some());
    found.cloned().ok_or_else(|| {
        let place = if path.is_empty() { "the GitOps branch" } else { path };
        Cause::new(format!("no Deployment below {place} runs the image {}", image.name))
            .hint("add a Deployment with a container of that image, or correct spec.gitops.path of the target")
    })
}

fn health(spec: &config::HealthSpec) -> Health {
    let identity = match &spec.identity {
        HealthIdentity::Header(name) => Identity::Header(name.clone()),
        HealthIdentity::JsonPointer(pointer) => Identity::JsonPointer(pointer.clone()),
        HealthIdentity::None => Identity::None,
    };
    let timeout_ms = u64::from(spec.timeout_seconds) * 1000;
    Health { path: spec.path.clone(), identity, timeout_ms, port: spec.port }
}

/// An error of the manifests as a cause, with its place.
pub(crate) fn gitops_cause(error: &GitopsError) -> Cause {
    let mut cause = Cause::new(error.to_string());
    cause.place = error.place();
    cause.hint = error.hint();
    cause
}
