//! Triggers: what makes a delivery.

use std::collections::BTreeMap;

use model::{Cause, CommitId, Delivery, DeliveryId, Event, Outcome, RefName, RunId, SnapshotRef, Trigger};
use source::{HostedRepo, RefUpdate};
use tokio::sync::oneshot;

use crate::engine::{Ending, Message};
use crate::targets::{self, ConfiguredTarget};
use crate::{Pipeline, PipelineError, live};

/// A delivery that is to be.
struct Wanted {
    ref_name: RefName,
    before: Option<CommitId>,
    commit: CommitId,
    trigger: Trigger,
}

impl Pipeline {
    /// Takes what git moved in a push: a delivery for every branch and tag. Everything is on disk when this returns.
    /// The lines are for the person who pushes.
    ///
    /// # Errors
    /// When it could not be recorded; the refs have moved all the same, and the next start makes the deliveries.
    pub async fn pushed(
        &self,
        repo: &HostedRepo,
        updates: Vec<RefUpdate>,
        actor: &str,
    ) -> Result<Vec<String>, PipelineError> {
        let configured = targets::of_repository(&self.rooms.records, &repo.name).await?;
        let (mut wanted, mut again, mut ends) = (Vec::<Wanted>::new(), Vec::new(), Vec::new());
        for update in updates {
            match update.new {
                None => ends.push(deleted(repo, update.name)),
                Some(commit) if update.name.as_branch().is_some() || update.name.as_tag().is_some() => {
                    if keeps_state(&configured, repo, &update.name) {
                        again.extend(self.redeliver(repo, &configured, &update.name).await?);
                        continue;
                    }
                    let before = update.old;
                    wanted.push(Wanted { ref_name: update.name, before, commit, trigger: Trigger::Push });
                }
                Some(_) => {}
            }
        }
        for more in again {
            // One delivery of a ref is enough, and a push of its own says more.
            if wanted.iter().all(|it| it.ref_name != more.ref_name) {
                wanted.push(more);
            }
        }
        self.open(repo, &configured, wanted, ends, actor).await
    }

    /// The words by which a commit asks that nothing runs, if it does.
    async fn skips(&self, repo: model::RepoId, commit: &CommitId) -> Result<Option<&'static str>, PipelineError> {
        let info = self.rooms.hosting.repository(repo)?.commit_info(commit).await?;
        Ok(workflow::skip_mark(&info.message))
    }

    /// A push to a branch of manifests delivers the head of the branch whose state it keeps once more: with the images
    /// that are there already, under the manifests as they are now.
    async fn redeliver(
        &self,
        repo: &HostedRepo,
        configured: &[ConfiguredTarget],
        pushed: &RefName,
    ) -> Result<Vec<Wanted>, PipelineError> {
        let mut wanted: Vec<Wanted> = Vec::new();
        let head = self.rooms.hosting.repository(repo.id)?.resolve(pushed.as_str()).await?;
        if let Some(head) = head
            && self.skips(repo.id, &head).await?.is_some()
        {
            return Ok(wanted);
        }
        let keeps = |it: &&ConfiguredTarget| {
            *it.spec.gitops_repository() == repo.name && pushed.as_branch() == Some(it.spec.gitops.branch.as_str())
        };
        for target in configured.iter().filter(keeps).filter(|it| it.spec.repository == repo.name) {
            let Some(live) = live::of(&self.rooms.records, target.id).await? else { continue };
            let Ok(ref_name) = target.spec.ref_name() else { continue };
            let head = self.rooms.hosting.repository(repo.id)?.resolve(ref_name.as_str()).await?;
            let Some(mut commit) = head else { continue };
            if self.skips(repo.id, &commit).await?.is_some() {
                // What is live stays what is delivered.
                commit = self.delivery_of(live.run).await?.0.commit;
            }
            if wanted.iter().all(|it| it.ref_name != ref_name) {
                let trigger = Trigger::Retry { of: live.run };
                wanted.push(Wanted { ref_name, before: Some(commit.clone()), commit, trigger });
            }
        }
        Ok(wanted)
    }

    /// Does a run again on its own snapshot, as a new delivery.
    ///
    /// # Errors
    /// When there is no such run, or it cannot be recorded.
    pub async fn retry(&self, run: RunId, by: &str) -> Result<DeliveryId, PipelineError> {
        let (earlier, repo) = self.delivery_of(run).await?;
        let trigger = match earlier.trigger {
            Trigger::Push | Trigger::Retry { .. } => Trigger::Retry { of: run },
            // What fires on these, and with which inputs, is in the trigger itself.
            again @ (Trigger::Dispatch { .. }
            | Trigger::Schedule { .. }
            | Trigger::Rollback { .. }
            | Trigger::Image { .. }) => again,
        };
        let wanted = Wanted { ref_name: earlier.ref_name, before: earlier.before, commit: earlier.commit, trigger };
        self.open_one(&repo, wanted, by).await
    }

    /// Brings the images of an earlier run of a target back: of `to`, or of the last run that succeeded before the one
    /// that is live.
    ///
    /// # Errors
    /// When there is nothing to go back to, or it cannot be recorded.
    pub async fn rollback(&self, target: &str, to: Option<RunId>, by: &str) -> Result<DeliveryId, PipelineError> {
        let unknown = || PipelineError::Unknown(format!("there is no target {target:?}"));
        let all = targets::list(&self.rooms.records).await?;
        let target = all.into_iter().find(|it| it.name == target).ok_or_else(unknown)?;
        let to = match to {
            Some(run) => run,
            None => self.before_live(&target).await?,
        };
        let (summary, _) = self
            .journal
            .run(to)
            .await?
            .filter(|(summary, _)| summary.target == Some(target.id))
            .ok_or_else(|| PipelineError::Unknown(format!("there is no run {to} of target {}", target.name)))?;
        if summary.outcome.as_deref() != Some(Outcome::Succeeded.name()) {
            return Err(PipelineError::Refused(format!(
                "run {to} did not succeed; there is nothing to go back to in it"
            )));
        }
        let (earlier, repo) = self.delivery_of(to).await?;
        let trigger = Trigger::Rollback { to };
        let wanted = Wanted { ref_name: earlier.ref_name, before: earlier.before, commit: earlier.commit, trigger };
        self.open_one(&repo, wanted, by).await
    }

    async fn before_live(&self, target: &ConfiguredTarget) -> Result<RunId, PipelineError> {
        let live = live::of(&self.rooms.records, target.id).await?;
        let live = live.ok_or_else(|| PipelineError::Refused(format!("target {} has nothing live", target.name)))?;
        let found = self.journal.last_success_before(target.id, live.run).await?;
        let nothing =
            || PipelineError::Refused(format!("no run of target {} succeeded before run {}", target.name, live.run));
        found.ok_or_else(nothing)
    }

    /// Runs the workflows of a ref that fire on `workflow_dispatch`, and its targets.
    ///
    /// # Errors
    /// When the ref does not exist, or it cannot be recorded.
    pub async fn dispatch(
        &self,
        repo: &HostedRepo,
        ref_name: &RefName,
        inputs: BTreeMap<String, String>,
        by: &str,
    ) -> Result<DeliveryId, PipelineError> {
        self.again(repo, ref_name, Trigger::Dispatch { inputs }, by).await
    }

    /// Delivers the head of a ref once more, for another reason than that it moved.
    pub(crate) async fn again(
        &self,
        repo: &HostedRepo,
        ref_name: &RefName,
        trigger: Trigger,
        by: &str,
    ) -> Result<DeliveryId, PipelineError> {
        let head = self.rooms.hosting.repository(repo.id)?.resolve(ref_name.as_str()).await?;
        let commit = head.ok_or_else(|| PipelineError::Unknown(format!("{} has no ref {ref_name}", repo.name)))?;
        let before = Some(commit.clone());
        self.open_one(repo, Wanted { ref_name: ref_name.clone(), before, commit, trigger }, by).await
    }

    async fn delivery_of(&self, run: RunId) -> Result<(Delivery, HostedRepo), PipelineError> {
        let unknown = || PipelineError::Unknown(format!("there is no run {run}"));
        let (summary, repository) = self.journal.run(run).await?.ok_or_else(unknown)?;
        let events = self.journal.delivery(summary.delivery).await?;
        let delivery = events.into_iter().find_map(|recorded| match recorded.event {
            Event::DeliveryCreated { delivery } => Some(delivery),
            _ => None,
        });
        let repo = self.rooms.hosting.by_id(repository).await?;
        delivery.zip(repo).ok_or_else(unknown)
    }

    async fn open_one(&self, repo: &HostedRepo, wanted: Wanted, by: &str) -> Result<DeliveryId, PipelineError> {
        let configured = targets::of_repository(&self.rooms.records, &repo.name).await?;
        let before = self.journal.ids("deliveries", 1).await?;
        let id = DeliveryId(before.first().copied().unwrap_or_default());
        self.open_with(repo, &configured, vec![(id, wanted)], Vec::new(), by).await?;
        Ok(id)
    }

    async fn open(
        &self,
        repo: &HostedRepo,
        configured: &[ConfiguredTarget],
        wanted: Vec<Wanted>,
        ends: Vec<Ending>,
        actor: &str,
    ) -> Result<Vec<String>, PipelineError> {
        let ids = self.journal.ids("deliveries", wanted.len()).await?;
        let wanted = ids.into_iter().map(DeliveryId).zip(wanted).collect();
        self.open_with(repo, configured, wanted, ends, actor).await
    }

    async fn open_with(
        &self,
        repo: &HostedRepo,
        configured: &[ConfiguredTarget],
        wanted: Vec<(DeliveryId, Wanted)>,
        mut ends: Vec<Ending>,
        actor: &str,
    ) -> Result<Vec<String>, PipelineError> {
        let (mut events, mut lines) = (Vec::new(), Vec::new());
        for (id, wanted) in wanted {
            let delivery = Delivery {
                id,
                repository: repo.id,
                repository_name: repo.name.clone(),
                ref_name: wanted.ref_name,
                before: wanted.before,
                commit: wanted.commit,
                snapshot: SnapshotRef::of(id),
                trigger: wanted.trigger,
                actor: actor.to_owned(),
            };
            let created = self.target_runs(&delivery, configured, &mut lines).await?;
            // What asks that nothing runs takes nobody's place either.
            if !created.skipped {
                ends.push(superseded(&delivery));
            }
            events.push((id, Event::DeliveryCreated { delivery }));
            events.extend(created.events.into_iter().map(|event| (id, event)));
        }
        let (reply, answer) = oneshot::channel();
        self.send(Message::Open { events, ends, reply }).await?;
        answer.await.map_err(|_| PipelineError::Stopping)?;
        Ok(lines)
    }

    async fn target_runs(
        &self,
        delivery: &Delivery,
        configured: &[ConfiguredTarget],
        lines: &mut Vec<String>,
    ) -> Result<TargetRuns, PipelineError> {
        let follows = |it: &&ConfiguredTarget| {
            it.spec.repository == delivery.repository_name
                && delivery.ref_name.as_branch() == Some(it.spec.branch.as_str())
        };
        let mut events = Vec::new();
        if delivery.trigger == Trigger::Push
            && configured.iter().any(|it| follows(&it))
            && let Some(mark) = self.skips(delivery.repository, &delivery.commit).await?
        {
            let short = delivery.commit.short();
            lines.push(format!("towpath: {} {short} says `{mark}`: nothing runs", delivery.ref_name.short()));
            return Ok(TargetRuns { events, skipped: true });
        }
        for target in configured.iter().filter(follows) {
            let ids = self.journal.ids("runs", 1).await?;
            let run = RunId(ids.first().copied().unwrap_or_default());
            let number = self.journal.next_target_number(target.id).await?;
            let spec = serde_json::to_value(&target.spec).map_err(|error| PipelineError::Refused(error.to_string()))?;
            lines.push(format!(
                "towpath: {} {} is run {run} of target {}",
                delivery.ref_name.short(),
                delivery.commit.short(),
                target.name
            ));
            lines.push(format!("towpath: follow it with `towpath status {run}`"));
            let name = target.name.clone();
            events.push(Event::TargetRunCreated { run, number, target: target.id, name, spec });
        }
        Ok(TargetRuns { events, skipped: false })
    }
}

/// The target runs of a delivery.
struct TargetRuns {
    events: Vec<Event>,
    /// Whether there are none because the commit says so.
    skipped: bool,
}

/// A branch of manifests builds nothing itself.
fn keeps_state(configured: &[ConfiguredTarget], repo: &HostedRepo, pushed: &RefName) -> bool {
    let branch = pushed.as_branch();
    configured.iter().any(|it| *it.spec.gitops_repository() == repo.name && branch == Some(&it.spec.gitops.branch))
}

fn deleted(repo: &HostedRepo, ref_name: RefName) -> Ending {
    let cause = Cause::new(format!("{} was deleted", ref_name.short())).hint("what was live before goes on running");
    Ending { repository: repo.id, ref_name, outcome: Outcome::Cancelled, cause, only_delivered: false }
}

fn superseded(by: &Delivery) -> Ending {
    let (commit, branch) = (by.commit.short(), by.ref_name.short());
    let why = match &by.trigger {
        Trigger::Push => format!("{commit} was pushed to {branch} in the meantime"),
        Trigger::Image { image, .. } => format!("an outside system pushed {image} in the meantime"),
        _ => format!("{commit} of {branch} was to be delivered once more in the meantime"),
    };
    Ending {
        repository: by.repository,
        ref_name: by.ref_name.clone(),
        outcome: Outcome::Superseded,
        cause: Cause::new(why),
        only_delivered: true,
    }
}
