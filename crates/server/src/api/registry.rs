//! The registry's management: retention, collection, freezing, verifying, undoing. What takes long is answered as lines
//! of JSON while it goes on.

use std::io;

use access::{Action, Resource};
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{StatusCode, header};
use model::{ImagePattern, TagPattern, Timestamp};
use registry::retention::plan::Subject;
use registry::retention::{Planned, Retained};
use registry::{Collected, Deleted, Freeze, Problem as Found, RegistryError, Thorough, Undo, Verified, VerifyEvent};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::core::{Core, Who, name_of};
use crate::extract::{Input, Json, Query};
use crate::problem::Problem;

/// Things that were deleted that are listed at a time.
const LISTED: usize = 10_000;

type Lines = mpsc::Sender<io::Result<Bytes>>;

impl Core {
    /// Whether somebody may manage these images: administrators of the server all, those of an owner that owner's.
    async fn allow_images(&self, who: &Who, images: &ImagePattern) -> Result<(), Problem> {
        who.known()?;
        let owner = images.as_str().split('/').next().unwrap_or_default();
        let resource = if owner.is_empty() || owner.contains(['*', '?', '[', ']', '{', '}', ',', '!']) {
            Resource::Server
        } else {
            Resource::Owner(owner.to_owned())
        };
        self.allow(&who.0, Action::Admin, resource).await.map(drop)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    #[serde(default = "ImagePattern::all")]
    images: ImagePattern,
}

pub(super) async fn plan(State(core): State<Core>, who: Who, Query(which): Query<Which>) -> Result<Response, Problem> {
    core.allow_images(&who, &which.images).await?;
    Ok(retain(core, which.images, false))
}

pub(super) async fn apply(State(core): State<Core>, who: Who, input: Input) -> Result<Response, Problem> {
    who.known()?;
    let which: Which = input.json().await?;
    core.allow_images(&who, &which.images).await?;
    Ok(retain(core, which.images, true))
}

fn retain(core: Core, images: ImagePattern, apply: bool) -> Response {
    lines(async move |out| {
        let (sender, mut planned) = mpsc::channel::<Planned>(4);
        let registry = core.registry.clone();
        let work = async move { registry.retain(&images, now(), apply, Some(&sender)).await };
        let lines = out.clone();
        // Whoever does not listen any more ends the work as well: the receiver is gone with this.
        let tell = async move {
            while let Some(image) = planned.recv().await {
                tell_image(&lines, &image).await?;
            }
            Ok::<_, io::Error>(())
        };
        let (done, told) = tokio::join!(work, tell);
        told?;
        let Retained { kept, planned, deleted } = done.map_err(io::Error::other)?;
        line(&out, &json!({ "summary": { "kept": kept, "planned": planned, "deleted": deleted } })).await
    })
}

async fn tell_image(out: &Lines, image: &Planned) -> io::Result<()> {
    let mut text = Vec::new();
    for decision in &image.decisions {
        let (tag, digest) = match &decision.subject {
            Subject::Tag(tag, digest) => (Some(tag), digest),
            Subject::Manifest(digest) => (None, digest),
        };
        let mut said = json!({ "image": image.image, "digest": digest, "keep": decision.keep, "why": decision.why });
        if let Some(tag) = tag {
            said["tag"] = json!(tag);
        }
        serde_json::to_writer(&mut text, &said)?;
        text.push(b'\n');
    }
    out.send(Ok(text.into())).await.map_err(io::Error::other)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Collect {
    #[serde(default = "yes")]
    scrub: bool,
    #[serde(default)]
    purge: bool,
}

const fn yes() -> bool {
    true
}

pub(super) async fn collect(State(core): State<Core>, who: Who, input: Input) -> Result<Json<Value>, Problem> {
    core.allow(&who.0, Action::Admin, Resource::Server).await?;
    let asked: Collect = input.json().await?;
    // To its end, also if whoever asked is gone: it leaves nothing half done either way.
    let (registry, thorough) = (core.registry.clone(), Thorough { scrub: asked.scrub, purge: asked.purge });
    let collected = tokio::spawn(async move { registry.collect_thoroughly(now(), thorough).await });
    let collected = collected.await.map_err(|error| Problem::internal(&error))??;
    let Collected { uploads, forgotten, unlinked, orphans, removed, bytes } = collected;
    let answer = json!({
        "uploads": uploads, "forgotten": forgotten, "unlinked": unlinked, "orphans": orphans, "removed": removed, "bytes": bytes,
    });
    Ok(Json(answer))
}

fn freeze_json(freeze: &Freeze) -> Value {
    json!({ "images": freeze.images, "by": freeze.by, "since": freeze.since, "because": freeze.because })
}

pub(super) async fn freezes(State(core): State<Core>, who: Who) -> Result<Json<Value>, Problem> {
    who.known()?;
    let mut shown = Vec::new();
    for freeze in core.registry.freezes().await? {
        // Those of others are not there.
        if core.allow_images(&who, &freeze.images).await.is_ok() {
            shown.push(freeze_json(&freeze));
        }
    }
    Ok(Json(json!({ "freezes": shown })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewFreeze {
    #[serde(default = "ImagePattern::all")]
    images: ImagePattern,
    #[serde(default)]
    because: String,
}

pub(super) async fn freeze(State(core): State<Core>, who: Who, input: Input) -> Result<Json<Value>, Problem> {
    who.known()?;
    let new: NewFreeze = input.json().await?;
    core.allow_images(&who, &new.images).await?;
    let freeze = core.registry.freeze(new.images, &name_of(&who.0), &new.because).await?;
    Ok(Json(freeze_json(&freeze)))
}

pub(super) async fn thaw(
    State(core): State<Core>,
    who: Who,
    Query(which): Query<Which>,
) -> Result<StatusCode, Problem> {
    core.allow_images(&who, &which.images).await?;
    if core.registry.thaw(&which.images).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found(format!("nothing was frozen by the pattern {}", which.images)))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Verify {
    #[serde(default = "ImagePattern::all")]
    images: ImagePattern,
    #[serde(default = "yes")]
    read: bool,
}

pub(super) async fn verify(
    State(core): State<Core>,
    who: Who,
    Query(asked): Query<Verify>,
) -> Result<Response, Problem> {
    core.allow_images(&who, &asked.images).await?;
    Ok(lines(async move |out| {
        let (sender, mut events) = mpsc::channel(64);
        let work = core.registry.verify(&asked.images, asked.read, &sender);
        let tell = async {
            while let Some(event) = events.recv().await {
                let said = match event {
                    VerifyEvent::Progress(so_far) => json!({ "progress": verified(so_far) }),
                    VerifyEvent::Problem(found) => json!({ "problem": problem(&found) }),
                };
                line(&out, &said).await?;
            }
            Ok::<_, io::Error>(())
        };
        tokio::pin!(tell);
        let done = tokio::select! {
            done = work => done.map_err(io::Error::other)?,
            told = &mut tell => return told,
        };
        drop(sender);
        tell.await?;
        line(&out, &json!({ "summary": verified(done) })).await
    }))
}

fn verified(verified: Verified) -> Value {
    let Verified { blobs, bytes, manifests, tags, problems } = verified;
    json!({ "blobs": blobs, "bytes": bytes, "manifests": manifests, "tags": tags, "problems": problems })
}

fn problem(found: &Found) -> Value {
    json!({
        "kind": found.wrong.name(), "digest": found.digest, "images": found.images, "detail": found.detail,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deletions {
    #[serde(default = "ImagePattern::all")]
    images: ImagePattern,
    tags: Option<TagPattern>,
    since: Option<Timestamp>,
}

impl From<Deletions> for Undo {
    fn from(asked: Deletions) -> Self {
        Self { images: asked.images, tags: asked.tags, since: asked.since }
    }
}

fn deleted_json(deleted: &Deleted) -> Value {
    let mut said = json!({
        "image": deleted.image, "digest": deleted.digest, "deleted": deleted.at, "why": deleted.why,
    });
    if let Some(tag) = &deleted.tag {
        said["tag"] = json!(tag);
    }
    said
}

pub(super) async fn deleted(
    State(core): State<Core>,
    who: Who,
    Query(asked): Query<Deletions>,
) -> Result<Json<Value>, Problem> {
    core.allow_images(&who, &asked.images).await?;
    let found = core.registry.deleted(&asked.into(), LISTED).await?;
    Ok(Json(json!({ "deleted": found.iter().map(deleted_json).collect::<Vec<_>>() })))
}

pub(super) async fn undo(State(core): State<Core>, who: Who, input: Input) -> Result<Json<Value>, Problem> {
    who.known()?;
    let asked: Deletions = input.json().await?;
    core.allow_images(&who, &asked.images).await?;
    let undone = core.registry.acting_for(&name_of(&who.0)).undo(&asked.into()).await?;
    let said = undone.iter().map(|undone| {
        let mut said = deleted_json(&undone.deleted);
        said["restored"] = json!(undone.refused.is_none());
        if let Some(refused) = &undone.refused {
            said["refused"] = json!(refused);
        }
        said
    });
    Ok(Json(json!({ "undone": said.collect::<Vec<_>>() })))
}

pub(super) async fn quotas(State(core): State<Core>, who: Who) -> Result<Json<Value>, Problem> {
    core.allow(&who.0, Action::Admin, Resource::Server).await?;
    let quota = |it: &registry::QuotaUsage| json!({ "images": it.images, "limit": it.limit, "used": it.used });
    Ok(Json(json!({ "quotas": core.registry.quotas().await?.iter().map(quota).collect::<Vec<_>>() })))
}

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

async fn line(out: &Lines, said: &Value) -> io::Result<()> {
    out.send(Ok(format!("{said}\n").into())).await.map_err(io::Error::other)
}

/// An answer of lines that are written as they come. It ends with a summary; one that breaks off is not taken for whole.
fn lines<F>(write: impl FnOnce(Lines) -> F + Send + 'static) -> Response
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(16);
    let out = sender.clone();
    let work = write(sender);
    tokio::spawn(async move {
        if let Err(error) = work.await {
            tracing::warn!(%error, "an answer of the registry's management was not finished");
            let _ = out.send(Err(error)).await;
        }
    });
    let body = Body::from_stream(ReceiverStream::new(receiver));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Frozen { .. } | RegistryError::FrozenWhole(_) => {
                Self::new(StatusCode::CONFLICT, error.to_string()).hint("thaw it with `towpath registry thaw`")
            }
            RegistryError::Collecting => Self::new(StatusCode::CONFLICT, error.to_string()),
            RegistryError::Records(error) => error.into(),
            error => Self::internal(&error),
        }
    }
}
