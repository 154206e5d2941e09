//! Whether each change ended as it should. Nothing is believed that can be looked at.

use serde_json::Value;

use super::load;
use super::site::{self, Change};
use super::story::{Run, Story};
use crate::error::Failure;

/// Fields of every status.
const FIELDS: usize = 18;
/// The stages of a delivery that a reused one does not come to.
const NOT_REUSED: [&str; 4] = ["build", "publish", "rollout", "closeout"];

/// `head` is the head of the GitOps branch before the push.
pub(super) async fn check(story: &Story, run: &Run, head: &str) -> Result<(), Failure> {
    fields(run)?;
    undisturbed(run)?;
    match run.change {
        Change::First | Change::Page => delivered(story, run, head).await,
        Change::Docs => reused(story, run, head).await,
        Change::Broken => refused(story, run).await,
    }
}

fn ensure(is: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if is { Ok(()) } else { Err(Failure::failed(otherwise())) }
}

fn text<'v>(status: &'v Value, field: &str) -> &'v str {
    status["status"][field].as_str().unwrap_or_default()
}

fn outcome(run: &Run, wanted: &str) -> Result<(), Failure> {
    ensure(run.status["outcome"] == wanted, || {
        let cause = &run.status["cause"];
        let why = match (cause["stage"].as_str(), cause["message"].as_str()) {
            (Some(stage), Some(message)) => format!(": {stage}: {message}"),
            (None, Some(message)) => format!(": {message}"),
            _ => String::new(),
        };
        let place = cause["place"].as_str().map(|place| format!("\n{place}")).unwrap_or_default();
        let lines = cause["lastLines"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let lines: String = lines.map(|line| format!("\n  {line}")).collect();
        let ended = run.status["outcome"].as_str().unwrap_or("nothing");
        format!("run {} ended {ended}, not {wanted}{why}{place}{lines}", run.status["run"])
    })
}

fn fields(run: &Run) -> Result<(), Failure> {
    let status = run.status["status"].as_object();
    let empty = status.into_iter().flatten().find(|(_, value)| value.is_null()).map(|(name, _)| name);
    ensure(empty.is_none(), || format!("the status has no value for {}", empty.cloned().unwrap_or_default()))?;
    let count = status.map_or(0, serde_json::Map::len);
    ensure(count == FIELDS, || format!("the status has {count} fields, not {FIELDS}"))
}

/// Whoever kept asking got whole answers, and never an older page after a newer one.
fn undisturbed(run: &Run) -> Result<(), Failure> {
    let seen = &run.seen;
    let examples = seen.examples.join("; ");
    ensure(seen.dropped == 0, || format!("{} of {} requests were dropped: {examples}", seen.dropped, seen.requests))?;
    ensure(seen.stale == 0, || format!("{} of {} answers came too late: {examples}", seen.stale, seen.requests))
}

async fn delivered(story: &Story, run: &Run, head_before: &str) -> Result<(), Failure> {
    outcome(run, "succeeded")?;
    ensure(run.content.is_some(), || "the run ended well, but the new page is not served".to_owned())?;
    serves(story, run.change.content(), &run.commit).await?;
    if run.change == Change::Page {
        let before = &story.live.commit;
        let spanning = run.seen.spanning.iter().any(|identity| identity == before);
        ensure(spanning, || "no slow request of the old version spanned its replacement".to_owned())?;
    }
    let digest = text(&run.status, "imageDigest");
    ensure(digest != story.live.digest, || format!("the new page is in the same image as the old, {digest}"))?;
    story.registry.pull(site::REPOSITORY, digest).await?;
    snapshot(story, run).await?;
    let head = story.deploy_head().await?;
    let revision = text(&run.status, "gitopsRevision");
    ensure(head != head_before && head == revision, || {
        format!("the head of the branch deploy is {head}, the status says {revision}; before it was {head_before}")
    })?;
    pinned(story, &head, digest).await
}

/// The snapshot ref can be fetched, and holds the pushed commit.
async fn snapshot(story: &Story, run: &Run) -> Result<(), Failure> {
    let name = text(&run.status, "snapshotRef");
    let held = story.git.fetch(&story.work, name).await?;
    ensure(held == run.commit, || format!("{name} holds {held}, not the pushed commit {}", run.commit))
}

async fn pinned(story: &Story, head: &str, digest: &str) -> Result<(), Failure> {
    let manifest = story.manifest_at(head).await?;
    let pin = format!("/{}@{digest}", site::REPOSITORY);
    ensure(manifest.contains(&pin), || format!("the manifest at {head} does not pin {digest}:\n{manifest}"))
}

/// The site serves this page, and says that it is this commit.
async fn serves(story: &Story, content: &str, commit: &str) -> Result<(), Failure> {
    let Some(address) = story.address else {
        return Err(Failure::failed("the run does not say where the site answers"));
    };
    for path in ["/", "/health"] {
        let answer = load::get(address, path).await;
        let answer = answer.map_err(|error| Failure::failed(format!("http://{address}{path}: {error}")))?;
        let (status, identity) = (answer.status, &answer.identity);
        ensure(status.is_success(), || format!("http://{address}{path} answers {status}"))?;
        ensure(identity == commit, || format!("http://{address}{path} says it is {identity:?}, not {commit}"))?;
        if path == "/" {
            ensure(answer.body.contains(content), || format!("http://{address}/ does not hold {content:?}"))?;
        }
    }
    Ok(())
}

async fn reused(story: &Story, run: &Run, head_before: &str) -> Result<(), Failure> {
    outcome(run, "reused")?;
    for stage in run.status["stages"].as_array().into_iter().flatten() {
        let name = stage["stage"].as_str().unwrap_or_default();
        let idle = stage["state"] == "not-applicable" && stage["seconds"].is_null();
        ensure(idle || !NOT_REUSED.contains(&name), || format!("the stage {name} ran although nothing had changed"))?;
    }
    let digest = text(&run.status, "imageDigest");
    ensure(digest == story.live.digest, || format!("the image is {digest}, not {}", story.live.digest))?;
    let head = story.deploy_head().await?;
    ensure(head == head_before, || format!("the branch deploy moved from {head_before} to {head}"))?;
    snapshot(story, run).await?;
    serves(story, run.change.content(), &story.live.commit).await
}

async fn refused(story: &Story, run: &Run) -> Result<(), Failure> {
    outcome(run, "failed")?;
    let cause = &run.status["cause"];
    ensure(cause["stage"] == "rollout", || format!("the cause names the stage {}, not rollout", cause["stage"]))?;
    let message = cause["message"].as_str().unwrap_or_default();
    let names_probe = message.contains("/health") && message.contains("503");
    ensure(names_probe, || format!("the cause does not name the probe and its answer: {message}"))?;
    let complaint = site::complaint();
    let lines = cause["lastLines"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let complains = lines.into_iter().any(|line| line.contains(&complaint));
    ensure(complains, || format!("the last log lines do not hold {complaint:?}: {}", cause["lastLines"]))?;
    let head = story.deploy_head().await?;
    pinned(story, &head, &story.live.digest).await?;
    snapshot(story, run).await?;
    serves(story, run.change.content(), &story.live.commit).await
}
