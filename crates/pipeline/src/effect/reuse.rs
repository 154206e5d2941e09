//! The reuse plan: the identity of each service's image, and whether one like it exists.

use build::{BuildRequest, Context as BuildContext};
use config::{ExternalProducer, Service};
use evidence::Live;
use model::{Cause, Digest, Event, PinnedImage, RecordedEvent, ReuseDecision, RunId, ServiceDecision, Trigger};
use reuse::{BaseImage, InputFile, LastArtifact, Recipe};

use crate::artifacts::{self, Artifact};
use crate::effect::{Context, publish};
use crate::live;
use crate::state::TargetRun;

/// Bytes of a recipe: some 200,000 files.
const RECIPE_LIMIT: u64 = 64 << 20;

pub(crate) async fn plan(context: &Context, id: RunId) -> Result<Vec<Event>, Cause> {
    let run = context.target(id)?;
    let mut services = Vec::new();
    if let Trigger::Rollback { to } = &context.state.delivery.trigger {
        services = images_of(context, *to, run).await?;
    } else {
        for service in &run.spec.services {
            services.push(match &service.external {
                Some(producer) => outside(context, id, service, producer).await?,
                None => decide(context, run, service).await?,
            });
        }
    }
    let live = is_live(context, run, &services).await?;
    Ok(vec![Event::ReuseDecided { run: id, services, live }])
}

/// What the build of a service gets; also where its identity comes from.
pub(crate) async fn request(context: &Context, run: &TargetRun, service: &Service) -> Result<BuildRequest, Cause> {
    let Some(build) = &service.build else {
        return Err(Cause::new(format!("service {} has no `build:` block", service.name)));
    };
    let delivery = &context.state.delivery;
    let repository = context.repository()?;
    let info = repository.commit_info(&delivery.commit).await.map_err(|error| Cause::new(error.to_string()))?;
    let identity_free = [
        ("SOURCE_COMMIT", delivery.commit.to_string()),
        ("SOURCE_REF", delivery.ref_name.to_string()),
        ("VERSION", delivery.commit.short().to_owned()),
    ];
    let labels = [
        ("org.opencontainers.image.revision", delivery.commit.to_string()),
        ("org.opencontainers.image.source", format!("{}/{}", context.rooms.server_url, delivery.repository_name)),
        ("dev.towpath.run", run.run.to_string()),
    ];
    let owned = |pairs: [(&str, String); 3]| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let files = BuildContext::Commit { repository, commit: delivery.commit.clone(), path: build.context.clone() };
    Ok(BuildRequest {
        dockerfile: build.dockerfile.clone(),
        target: build.target.clone(),
        args: build.args.clone(),
        identity_free_args: owned(identity_free),
        labels: owned(labels),
        ..BuildRequest::new(files, info.committed)
    })
}

async fn decide(context: &Context, run: &TargetRun, service: &Service) -> Result<ServiceDecision, Cause> {
    let rooms = &context.rooms;
    let mut request = request(context, run, service).await?;
    // The labels name this run and commit: they are of the image, and no reason to build it.
    request.labels.clear();
    let images = context.base_images();
    let inputs = rooms.builder.recipe(&request, &images).await.map_err(|error| super::build::cause(service, &error))?;
    let recipe = Recipe {
        schema: reuse::SCHEMA,
        platform: inputs.platform,
        base_images: inputs
            .base_images
            .into_iter()
            .map(|base| BaseImage { reference: base.reference, digest: base.digest })
            .collect(),
        recipe: inputs.recipe,
        files: inputs
            .files
            .into_iter()
            .map(|file| InputFile {
                path: file.path,
                mode: file.mode,
                kind: file.kind.to_string(),
                object: file.object,
            })
            .collect(),
        args: inputs.args,
        secrets: inputs.secrets,
        builder_version: inputs.builder_version,
    };
    let identity = reuse::identity(&recipe);
    store_recipe(context, &recipe, identity).await?;
    let found = artifacts::candidates(&rooms.records, run.target, &service.name, identity)
        .await
        .map_err(|error| Cause::new(error.to_string()))?;
    let env_identity = reuse::env_identity(&recipe);
    let mut env_reused = false;
    let mut decision = None;
    for artifact in &found {
        // The same identity is the same recipe: it need not be read, only its image must still be there.
        if artifact.identity == identity && exists(context, &artifact.image).await? {
            let Artifact { image, source_commit, run, .. } = artifact.clone();
            env_reused = true;
            decision = Some(ReuseDecision::Hit { image, source_commit, run });
            break;
        }
        let Some(last) = last_artifact(context, artifact).await? else { continue };
        env_reused |= reuse::env_identity(&last.recipe) == env_identity;
        if decision.is_none() {
            decision = Some(reuse::decide(&recipe, Some(&last)));
        }
    }
    let decision = decision.unwrap_or_else(|| reuse::decide(&recipe, None));
    Ok(ServiceDecision { service: service.name.clone(), identity, env_identity, env_reused, decision })
}

/// An image that an outside system makes is there or is not: the newest counts, and nothing is built.
async fn outside(
    context: &Context,
    id: RunId,
    service: &Service,
    producer: &ExternalProducer,
) -> Result<ServiceDecision, Cause> {
    let newest = context.rooms.registry.newest(&service.image, &producer.tags).await;
    let newest = newest.map_err(|error| Cause::new(error.to_string()))?;
    let (tag, digest) = newest.ok_or_else(|| {
        let missing = format!("{} has not pushed {} under a tag {} yet", producer.system, service.image, producer.tags);
        Cause::new(missing).hint(format!("the next push of {} delivers it", service.image))
    })?;
    let image = PinnedImage { name: service.image.clone(), digest };
    if !exists(context, &image).await? {
        return Err(Cause::new(format!("{}:{tag} is not whole: something that {image} stands on is gone", image.name)));
    }
    let said = context.images().revision(&image).await.map_err(Cause::new)?;
    let source_commit = said.unwrap_or_else(|| context.state.delivery.commit.clone());
    let decision = ReuseDecision::Hit { image, source_commit, run: id };
    Ok(ServiceDecision {
        service: service.name.clone(),
        identity: digest,
        env_identity: digest,
        env_reused: true,
        decision,
    })
}

/// Keeps the recipe as a blob. Its digest is the identity, so it is found by it and cannot differ from it.
async fn store_recipe(context: &Context, recipe: &Recipe, identity: Digest) -> Result<(), Cause> {
    let broken = |error: store::BlobError| Cause::new(error.to_string());
    let blobs = &context.rooms.blobs;
    if blobs.stat(&identity).await.map_err(broken)?.is_some() {
        return Ok(());
    }
    let lease = blobs.lease("recipe");
    let mut writer = blobs.writer(&lease, identity.algorithm()).await.map_err(broken)?;
    writer.write(recipe.to_json().into_bytes().into()).await.map_err(broken)?;
    writer.finish_as(&identity).await.map_err(broken)?;
    Ok(())
}

async fn last_artifact(context: &Context, artifact: &Artifact) -> Result<Option<LastArtifact>, Cause> {
    let text = context.rooms.blobs.bytes(&artifact.identity, RECIPE_LIMIT).await;
    let text = text.map_err(|error| Cause::new(error.to_string()))?;
    // A recipe that is gone or unreadable is a doubt, and doubt builds.
    let Some(text) = text.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok()) else { return Ok(None) };
    let Ok(recipe) = Recipe::from_json(&text) else { return Ok(None) };
    let exists = exists(context, &artifact.image).await?;
    let Artifact { image, source_commit, run, .. } = artifact.clone();
    Ok(Some(LastArtifact { recipe, image, source_commit, run, exists }))
}

async fn exists(context: &Context, image: &PinnedImage) -> Result<bool, Cause> {
    let found = context.rooms.registry.exists_with_children(&image.name, &image.digest).await;
    found.map_err(|error| Cause::new(error.to_string()))
}

/// The images of an earlier run of the same target, for a rollback to it.
async fn images_of(context: &Context, to: RunId, run: &TargetRun) -> Result<Vec<ServiceDecision>, Cause> {
    let broken = |error: store::RecordsError| Cause::new(error.to_string());
    let (summary, _) =
        context.journal.run(to).await.map_err(broken)?.ok_or_else(|| Cause::new(format!("there is no run {to}")))?;
    let events: Vec<RecordedEvent> = context.journal.delivery(summary.delivery).await.map_err(broken)?;
    let facts =
        evidence::target_facts(&events, to).ok_or_else(|| Cause::new(format!("run {to} is not of a target")))?;
    let images = facts.images();
    let mut decisions = Vec::new();
    for service in &run.spec.services {
        let image = images.get(service.name.as_str());
        let image =
            (*image.ok_or_else(|| Cause::new(format!("run {to} has no image of service {}", service.name)))?).clone();
        if !exists(context, &image).await? {
            return Err(Cause::new(format!("the registry no longer holds {image}, the image of run {to}")));
        }
        let earlier = facts.decisions.iter().flatten().find(|it| it.service == service.name);
        let earlier =
            earlier.ok_or_else(|| Cause::new(format!("run {to} did not decide on service {}", service.name)))?;
        let source_commit = match &earlier.decision {
            ReuseDecision::Hit { source_commit, .. } => source_commit.clone(),
            ReuseDecision::Miss { .. } => facts.delivery.commit.clone(),
        };
        let decision = ReuseDecision::Hit { image, source_commit, run: to };
        decisions.push(ServiceDecision { decision, env_reused: true, ..earlier.clone() });
    }
    Ok(decisions)
}

/// Whether nothing is left to do: every image is what runs, the manifests say so, and the engine really runs them.
async fn is_live(context: &Context, run: &TargetRun, services: &[ServiceDecision]) -> Result<bool, Cause> {
    let live = live::of(&context.rooms.records, run.target).await.map_err(|error| Cause::new(error.to_string()))?;
    let Some(live) = live else { return Ok(false) };
    let same = |it: &ServiceDecision| match &it.decision {
        ReuseDecision::Hit { image, .. } => live.images.get(&it.service) == Some(image),
        ReuseDecision::Miss { .. } => false,
    };
    if services.len() != live.images.len() || !services.iter().all(same) {
        return Ok(false);
    }
    Ok(manifests_are_live(context, run, &live).await? && super::deploy::runs(context, run, &live).await)
}

/// Whether the head of the GitOps branch holds the manifests that are live. Commits may lie between them: a revert, or
/// somebody's change that was taken back.
async fn manifests_are_live(context: &Context, run: &TargetRun, live: &Live) -> Result<bool, Cause> {
    let branch = publish::branch(context, run).await?;
    let head = branch.head().await?;
    if head == live.revision {
        return Ok(true);
    }
    Ok(branch.manifests(&head).await? == branch.manifests(&live.revision).await?)
}
