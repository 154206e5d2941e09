//! The GitOps commit, and taking it back. One commit for each run: its trailer is the idempotency key.

use std::collections::BTreeMap;

use git::{CommitRequest, Expected, RefError, Repository};
use gitops::ImagePin;
use model::{Cause, CommitId, Event, RefName, RunId, Stage};

use crate::effect::{Context, deploy};
use crate::live;
use crate::state::TargetRun;

/// The trailer of the commit that pins the images of a run.
const PINNED_BY: &str = "Towpath-Run";
/// The trailer of the commit that takes a run back.
const REVERTED_FOR: &str = "Towpath-Revert";
/// How far back an earlier attempt's commit is looked for.
const LOOK_BACK: usize = 100;
/// How often the commit is made anew because somebody else moved the branch in between.
const ATTEMPTS: usize = 8;
/// Bytes of one manifest.
const MANIFEST_LIMIT: u64 = 1 << 20;

/// The GitOps branch of a target.
pub(crate) struct Branch {
    pub(crate) repository: Repository,
    pub(crate) name: RefName,
    pub(crate) path: String,
}

pub(crate) async fn branch(context: &Context, run: &TargetRun) -> Result<Branch, Cause> {
    let name = run.spec.gitops_repository();
    let found = context.rooms.hosting.find(name).await.map_err(|error| Cause::new(error.to_string()))?;
    let hosted = found.ok_or_else(|| {
        Cause::new(format!("the GitOps repository {name} does not exist here")).hint("create it, or change spec.gitops")
    })?;
    let branch = RefName::branch(&run.spec.gitops.branch).map_err(|error| Cause::new(error.to_string()))?;
    let path = run.spec.gitops.path.trim_matches('/').to_owned();
    let path = if path == "." { String::new() } else { path };
    let repository = context.rooms.hosting.repository(hosted.id).map_err(|error| Cause::new(error.to_string()))?;
    Ok(Branch { repository, name: branch, path })
}

impl Branch {
    pub(crate) async fn head(&self) -> Result<CommitId, Cause> {
        let head = self.repository.resolve(self.name.as_str()).await.map_err(|error| Cause::new(error.to_string()))?;
        head.ok_or_else(|| {
            let branch = self.name.short();
            Cause::new(format!("the GitOps branch {branch:?} does not exist"))
                .hint(format!("push the deploy manifests to the branch {branch:?} first"))
        })
    }

    /// The manifests below the target's path at `commit`.
    pub(crate) async fn manifests(&self, commit: &CommitId) -> Result<BTreeMap<String, String>, Cause> {
        let broken = |error: git::GitError| Cause::new(error.to_string());
        let mut files = BTreeMap::new();
        for entry in self.repository.tree(commit, &self.path).await.map_err(broken)? {
            if !entry.path.ends_with(".yaml") && !entry.path.ends_with(".yml") {
                continue;
            }
            let Some(bytes) = self.repository.read_file(commit, &entry.path, MANIFEST_LIMIT).await.map_err(broken)?
            else {
                continue;
            };
            let text = String::from_utf8(bytes)
                .map_err(|_| Cause::new(format!("the manifest {} is not UTF-8 text", entry.path)))?;
            files.insert(entry.path, text);
        }
        Ok(files)
    }
}

pub(crate) async fn publish(context: &Context, id: RunId) -> Result<Vec<Event>, Cause> {
    let run = context.target(id)?;
    let branch = branch(context, run).await?;
    let broken = |error: git::GitError| Cause::new(error.to_string());
    for _ in 0..ATTEMPTS {
        let head = branch.head().await?;
        let earlier = branch.repository.find_trailer(&head, PINNED_BY, &id.to_string(), LOOK_BACK).await;
        if let Some(revision) = earlier.map_err(broken)? {
            let previous = branch.repository.commit_info(&revision).await.map_err(broken)?.parents.first().cloned();
            return Ok(vec![Event::GitopsCommitted { run: id, revision, previous, changed: true }]);
        }
        let files = branch.manifests(&head).await?;
        let pins = pins(context, run)?;
        let changes = gitops::pin(&files, &pins).map_err(|error| deploy::gitops_cause(&error))?;
        if changes.files.is_empty() {
            let event =
                Event::GitopsCommitted { run: id, revision: head.clone(), previous: Some(head), changed: false };
            return Ok(vec![event]);
        }
        let subject = format!("Deploy {} of {}", context.state.delivery.commit.short(), run.spec.repository);
        let changes = changes.files.into_iter().map(|(path, text)| (path, Some(text.into_bytes()))).collect();
        match commit(context, &branch, &head, changes, &subject, (PINNED_BY, id)).await? {
            Some(revision) => {
                let event = Event::GitopsCommitted { run: id, revision, previous: Some(head), changed: true };
                return Ok(vec![event]);
            }
            None => tracing::info!(run = %id, "the GitOps branch moved; making the commit anew"),
        }
    }
    Err(Cause::new(format!("the GitOps branch {} moved {ATTEMPTS} times while it was written", branch.name)))
}

fn pins(context: &Context, run: &TargetRun) -> Result<Vec<ImagePin>, Cause> {
    let pin = |service: &config::Service| {
        let image = run.image_of(&service.name);
        let image = image.ok_or_else(|| Cause::new(format!("service {} has no image", service.name)))?;
        let reference = image.at(&context.rooms.registry_host);
        Ok(ImagePin { service: service.name.clone(), name: image.name.clone(), reference, policies: Vec::new() })
    };
    run.spec.services.iter().map(pin).collect()
}

/// Commits on top of `head` and moves the branch; nothing if the branch is no longer there.
async fn commit(
    context: &Context,
    branch: &Branch,
    head: &CommitId,
    changes: BTreeMap<String, Option<Vec<u8>>>,
    subject: &str,
    (trailer, id): (&str, RunId),
) -> Result<Option<CommitId>, Cause> {
    let delivery = &context.state.delivery;
    let request = CommitRequest {
        parent: Some(head.clone()),
        changes,
        message: format!("{subject}\n\nSource-Commit: {}\n{trailer}: {id}\n", delivery.commit),
        author_name: "Towpath".into(),
        author_email: "towpath@localhost".into(),
        when: std::time::SystemTime::now().into(),
    };
    let revision = branch.repository.commit_files(request).await.map_err(|error| Cause::new(error.to_string()))?;
    match branch.repository.update_ref(&branch.name, &revision, Expected::At(head.clone())).await {
        Ok(()) => Ok(Some(revision)),
        Err(RefError::Conflict { .. }) => Ok(None),
        Err(error) => Err(Cause::new(error.to_string())),
    }
}

/// Puts the manifests back that a failed run changed, and the engine with them, so that no restart brings the broken
/// version to life.
pub(crate) async fn revert(context: &Context, id: RunId) -> Result<Vec<Event>, Cause> {
    let run = context.target(id)?;
    let branch = branch(context, run).await?;
    let published = run.published.as_ref().ok_or_else(|| Cause::new("nothing was published"))?;
    let good = live::of(&context.rooms.records, run.target).await.map_err(|error| Cause::new(error.to_string()))?;
    if run.ended(Stage::Rollout) && run.rolled_out {
        // The broken version has the traffic already: the last good one must have it back.
        if let Some(live) = &good {
            // Whether or not that works, the branch must not go on asking for the broken one.
            if let Err(cause) = deploy::bring_back(context, run, live).await {
                tracing::error!(run = %id, %cause, "the last good version could not be brought back");
            }
        } else {
            tracing::warn!(run = %id, "there is no earlier version to go back to");
        }
    }
    let Some(previous) = &published.previous else {
        return Ok(vec![Event::GitopsReverted { run: id, revision: None }]);
    };
    let broken = |error: git::GitError| Cause::new(error.to_string());
    let ours = branch.manifests(&published.revision).await?;
    let before = branch.manifests(previous).await?;
    for _ in 0..ATTEMPTS {
        let head = branch.head().await?;
        let earlier = branch.repository.find_trailer(&head, REVERTED_FOR, &id.to_string(), LOOK_BACK).await;
        if let Some(revision) = earlier.map_err(broken)? {
            return Ok(vec![Event::GitopsReverted { run: id, revision: Some(revision) }]);
        }
        let now = branch.manifests(&head).await?;
        // Only what this run wrote and nobody has changed since.
        let mine = |(path, text): &(&String, &String)| ours.get(*path) == Some(*text) && now.get(*path) == Some(*text);
        let changed = ours.iter().filter(mine).filter(|(path, text)| before.get(*path) != Some(*text));
        let changes: BTreeMap<_, _> =
            changed.map(|(path, _)| (path.clone(), before.get(path).map(|text| text.clone().into_bytes()))).collect();
        if changes.is_empty() {
            return Ok(vec![Event::GitopsReverted { run: id, revision: Some(head) }]);
        }
        let subject = format!("Revert to the last good state: run {id} failed");
        if let Some(revision) = commit(context, &branch, &head, changes, &subject, (REVERTED_FOR, id)).await? {
            return Ok(vec![Event::GitopsReverted { run: id, revision: Some(revision) }]);
        }
    }
    Err(Cause::new(format!("the GitOps branch {} moved {ATTEMPTS} times while it was written", branch.name)))
}
