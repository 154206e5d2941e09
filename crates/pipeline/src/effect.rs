//! What effects do. Each can be started again after a stop at any point: it finds what it did already by its key.

mod build;
mod deploy;
mod job;
mod plan;
mod publish;
mod reuse;

use std::sync::Arc;

use model::{Cause, DeliveryId, Event, RunId, Stage};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::base_images::BaseImagesOf;
use crate::decide::Effect;
use crate::engine::Message;
use crate::images::RegistryImages;
use crate::journal::Journal;
use crate::rooms::Rooms;
use crate::state::{State, TargetRun};

/// What an effect has at hand.
pub(crate) struct Context {
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) journal: Journal,
    /// The delivery as it was when the effect began.
    pub(crate) state: State,
    pub(crate) delivery: DeliveryId,
    pub(crate) effect: Effect,
    pub(crate) cancel: CancellationToken,
    pub(crate) engine: mpsc::Sender<Message>,
}

/// The effect is no longer wanted; nothing it says counts.
fn unwanted() -> Cause {
    Cause::new("no longer wanted")
}

impl Context {
    /// Writes events before the effect ends. They are on disk when this returns.
    async fn record(&self, events: Vec<Event>) -> Result<(), Cause> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Record { delivery: self.delivery, effect: self.effect.clone(), events, reply };
        self.engine.send(message).await.map_err(|_| unwanted())?;
        match answer.await {
            Ok(true) => Ok(()),
            _ => Err(unwanted()),
        }
    }

    fn target(&self, run: RunId) -> Result<&TargetRun, Cause> {
        self.state.targets.get(&run).ok_or_else(|| Cause::new(format!("there is no target run {run}")))
    }

    fn images(&self) -> RegistryImages {
        RegistryImages::new(self.rooms.registry.clone(), self.rooms.blobs.clone())
    }

    /// The base images that builds of this delivery's repository may stand on.
    fn base_images(&self) -> BaseImagesOf {
        let rooms = &self.rooms;
        BaseImagesOf {
            images: self.images(),
            upstreams: rooms.upstreams.clone(),
            access: rooms.access.clone(),
            repository: self.state.delivery.repository_name.clone(),
            hosts: rooms.registry_hosts.clone(),
        }
    }

    fn repository(&self) -> Result<git::Repository, Cause> {
        self.rooms.hosting.repository(self.state.delivery.repository).map_err(|error| Cause::new(error.to_string()))
    }
}

/// Runs an effect to its end.
pub(crate) async fn perform(context: Context) -> Result<Vec<Event>, Cause> {
    match context.effect.clone() {
        Effect::Pin => plan::pin(&context).await,
        Effect::PlanWorkflows => plan::workflows(&context).await,
        Effect::Expand(job) => plan::expand(&context, job).await,
        Effect::Job(job) => job::run(&context, job).await,
        Effect::PlanReuse(run) => reuse::plan(&context, run).await,
        Effect::Build(run) => build::build(&context, run).await,
        Effect::Publish(run) => publish::publish(&context, run).await,
        Effect::Rollout(run) => deploy::rollout(&context, run).await,
        Effect::Closeout(run) => deploy::closeout(&context, run).await,
        Effect::Revert(run) => publish::revert(&context, run).await,
    }
}

/// What is recorded of an effect that failed.
pub(crate) fn failed(state: &State, effect: &Effect, cause: Cause) -> Vec<Event> {
    if let Some((run, stage)) = effect.stage() {
        return vec![Event::StageFinished { run, stage, millis: 0, cause: Some(cause.at(stage)) }];
    }
    match effect {
        // Without its snapshot or its workflows nothing of the delivery can go on.
        Effect::Pin | Effect::PlanWorkflows => {
            let stage = if *effect == Effect::Pin { Stage::Source } else { Stage::Workflow };
            let cause = cause.at(stage);
            let fail = |run: &TargetRun| Event::TargetRunFinished {
                run: run.run,
                outcome: model::Outcome::Failed,
                cause: Some(cause.clone()),
            };
            let open = || state.targets.values().filter(|it| it.outcome.is_none());
            let stage_of =
                |run: &TargetRun| Event::StageFinished { run: run.run, stage, millis: 0, cause: Some(cause.clone()) };
            let mut events: Vec<_> = open().filter(|it| it.under_way(stage)).map(stage_of).collect();
            events.extend(open().map(fail));
            events.push(Event::DeliveryFinished);
            events
        }
        Effect::Job(job) | Effect::Expand(job) => vec![Event::JobFinished {
            job: *job,
            result: model::JobResult::Failure,
            outputs: std::collections::BTreeMap::new(),
            cause: Some(cause.at(Stage::Workflow)),
        }],
        // The branch could not be taken back; the run ends all the same, and says so in the log.
        Effect::Revert(run) => {
            tracing::error!(%run, cause = %cause, "a failed rollout could not be taken back");
            vec![Event::GitopsReverted { run: *run, revision: None }]
        }
        _ => Vec::new(),
    }
}
