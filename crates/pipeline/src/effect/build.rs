//! Building what the reuse plan did not find, and making it visible.

use std::io::Write;

use build::BuildError;
use config::Service;
use model::{Cause, Event, PinnedImage, ReuseDecision, RunId, Stage, Tag};

use crate::effect::{Context, reuse};

pub(crate) async fn build(context: &Context, id: RunId) -> Result<Vec<Event>, Cause> {
    let run = context.target(id)?;
    for decision in run.decisions.iter().flatten() {
        let missing = matches!(decision.decision, ReuseDecision::Miss { .. });
        if !missing || run.images.contains_key(&decision.service) {
            continue;
        }
        let service = run.spec.services.iter().find(|it| it.name == decision.service);
        let service = service.ok_or_else(|| Cause::new(format!("the target has no service {}", decision.service)))?;
        let image = build_service(context, id, service).await?;
        let (service, identity) = (decision.service.clone(), decision.identity);
        context.record(vec![Event::ImageBuilt { run: id, service, identity, image }]).await?;
    }
    Ok(Vec::new())
}

async fn build_service(context: &Context, id: RunId, service: &Service) -> Result<PinnedImage, Cause> {
    let rooms = &context.rooms;
    let run = context.target(id)?;
    let request = reuse::request(context, run, service).await?;
    let images = context.base_images();
    let mut log = open_log(context, id)?;
    let mut line = move |text: &str| {
        // The log is for people; a build does not fail because its log cannot be written.
        let _ = writeln!(log, "{text}");
    };
    let lease = rooms.blobs.lease("build");
    let built = rooms.builder.build(&request, &images, &lease, &mut line, &context.cancel).await;
    let built = built.map_err(|error| cause(service, &error))?;
    let tags = tags(context)?;
    let manifest = bytes::Bytes::from(built.manifest);
    let digest = rooms.registry.commit(&lease, &service.image, manifest, built.media_type, &tags).await;
    let digest = digest.map_err(|error| Cause::new(error.to_string()))?;
    Ok(PinnedImage { name: service.image.clone(), digest })
}

/// `:sha8` of the commit and `:latest`.
fn tags(context: &Context) -> Result<Vec<Tag>, Cause> {
    let short = context.state.delivery.commit.short();
    let parse = |text: &str| text.parse().map_err(|error: model::NameError| Cause::new(error.to_string()));
    Ok(vec![parse(short)?, parse("latest")?])
}

fn open_log(context: &Context, id: RunId) -> Result<std::fs::File, Cause> {
    let path = context.rooms.stage_log(id, Stage::Build);
    let broken =
        |error: std::io::Error| Cause::new(format!("the build log {} cannot be written: {error}", path.display()));
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(broken)?;
    }
    std::fs::OpenOptions::new().create(true).append(true).open(&path).map_err(broken)
}

/// A build error as a cause: message, place and the last lines of a failing RUN.
pub(crate) fn cause(service: &Service, error: &BuildError) -> Cause {
    let cause = error.cause();
    Cause { message: format!("image {} of service {}: {}", service.image, service.name, cause.message), ..cause }
}
