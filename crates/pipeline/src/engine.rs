//! The actor that owns all deliveries under way: the only writer of the event log.
//!
//! A message changes states in memory, the events go to disk, and only then do effects start. What is on disk is always
//! enough to go on from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{Cause, DeliveryId, Event, Outcome, RecordedEvent, RunId, Stage, Timestamp};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::decide::{self, Effect, World};
use crate::effect::{self, Context};
use crate::journal::Journal;
use crate::memory;
use crate::rooms::Rooms;
use crate::state::{State, TargetRun};

/// What the actor is told.
pub(crate) enum Message {
    /// New deliveries, already with their ids; `ends` are refs whose open deliveries give way to them.
    Open { events: Vec<(DeliveryId, Event)>, ends: Vec<Ending>, reply: oneshot::Sender<()> },
    /// An effect has something to record before it goes on.
    Record { delivery: DeliveryId, effect: Effect, events: Vec<Event>, reply: oneshot::Sender<bool> },
    /// An effect ended.
    Ended { delivery: DeliveryId, effect: Effect, result: Result<Vec<Event>, Cause> },
    /// A person cancels a run.
    Cancel { run: RunId, by: String, reply: oneshot::Sender<bool> },
    /// The server stops: effects are dropped where they are.
    Stop { reply: oneshot::Sender<()> },
}

/// Open deliveries of a ref that are to end.
pub(crate) struct Ending {
    /// The repository.
    pub(crate) repository: model::RepoId,
    /// The ref.
    pub(crate) ref_name: model::RefName,
    /// As what they end.
    pub(crate) outcome: Outcome,
    /// Why.
    pub(crate) cause: Cause,
    /// Only deliveries that have target runs: without one, every push of a ref is tested to its end.
    pub(crate) only_delivered: bool,
}

struct Active {
    state: State,
    effects: BTreeMap<Effect, UnderWay>,
}

/// An effect under way.
struct UnderWay {
    /// Ends it in an orderly way: what it began is taken back.
    cancel: CancellationToken,
    /// Drops it where it is.
    task: AbortHandle,
}

pub(crate) struct Engine {
    rooms: Arc<Rooms>,
    journal: Journal,
    active: BTreeMap<DeliveryId, Active>,
    clocks: BTreeMap<(RunId, Stage), Instant>,
    sender: mpsc::Sender<Message>,
    inbox: mpsc::Receiver<Message>,
    recorded: broadcast::Sender<RecordedEvent>,
}

impl Engine {
    pub(crate) fn new(
        rooms: Arc<Rooms>,
        journal: Journal,
        states: Vec<State>,
        (sender, inbox): (mpsc::Sender<Message>, mpsc::Receiver<Message>),
        recorded: broadcast::Sender<RecordedEvent>,
    ) -> Self {
        let now = Instant::now();
        let under_way =
            |run: &TargetRun| Stage::ALL.into_iter().find(|stage| run.under_way(*stage)).map(|it| (run.run, it));
        let runs = states.iter().flat_map(|state| state.targets.values());
        let clocks = runs.filter_map(under_way).map(|stage| (stage, now)).collect();
        let active = |state: State| (state.delivery.id, Active { state, effects: BTreeMap::new() });
        let active = states.into_iter().map(active).collect();
        Self { rooms, journal, active, clocks, sender, inbox, recorded }
    }

    pub(crate) async fn run(mut self) {
        self.settle(Vec::new()).await;
        while let Some(message) = self.inbox.recv().await {
            match message {
                Message::Open { events, ends, reply } => {
                    let mut batch = self.endings(&ends);
                    batch.extend(events);
                    self.settle(batch).await;
                    let _ = reply.send(());
                }
                Message::Record { delivery, effect, events, reply } => {
                    let wanted = self.wants(delivery, &effect);
                    if wanted {
                        self.settle(events.into_iter().map(|event| (delivery, event)).collect()).await;
                    }
                    let _ = reply.send(wanted);
                }
                Message::Ended { delivery, effect, result } => self.ended(delivery, effect, result).await,
                Message::Cancel { run, by, reply } => {
                    let events = self.cancel(run, &by);
                    let any = !events.is_empty();
                    self.settle(events).await;
                    let _ = reply.send(any);
                }
                Message::Stop { reply } => {
                    // Not cancelled: a job that is cancelled is killed, and one that is left goes on.
                    for effect in self.active.values().flat_map(|active| active.effects.values()) {
                        effect.task.abort();
                    }
                    let _ = reply.send(());
                    return;
                }
            }
        }
    }

    fn wants(&self, delivery: DeliveryId, effect: &Effect) -> bool {
        self.active.get(&delivery).is_some_and(|active| active.effects.contains_key(effect))
    }

    async fn ended(&mut self, delivery: DeliveryId, effect: Effect, result: Result<Vec<Event>, Cause>) {
        // An effect that is no longer wanted was cancelled: what it says is of a run that ended otherwise.
        let Some(active) = self.active.get_mut(&delivery) else { return };
        if active.effects.remove(&effect).is_none() {
            return;
        }
        let events = match result {
            Ok(events) => events,
            Err(cause) => effect::failed(&active.state, &effect, cause),
        };
        self.settle(events.into_iter().map(|event| (delivery, event)).collect()).await;
    }

    fn endings(&self, ends: &[Ending]) -> Vec<(DeliveryId, Event)> {
        let mut events = Vec::new();
        for ending in ends {
            let same = |active: &&Active| {
                let delivery = &active.state.delivery;
                delivery.repository == ending.repository
                    && delivery.ref_name == ending.ref_name
                    && (!ending.only_delivered || !active.state.targets.is_empty())
            };
            for active in self.active.values().filter(same) {
                let id = active.state.delivery.id;
                let ended = decide::end(&active.state, ending.outcome, &ending.cause);
                events.extend(ended.into_iter().map(|event| (id, event)));
            }
        }
        events
    }

    fn cancel(&self, run: RunId, by: &str) -> Vec<(DeliveryId, Event)> {
        let cause = Cause::new(format!("cancelled by {by}"));
        for (id, active) in &self.active {
            let all = decide::end(&active.state, Outcome::Cancelled, &cause);
            let mine = |event: &Event| match event {
                Event::WorkflowRunFinished { run: this, .. } | Event::TargetRunFinished { run: this, .. } => {
                    *this == run
                }
                _ => false,
            };
            let events: Vec<_> = all.into_iter().filter(mine).map(|event| (*id, event)).collect();
            if !events.is_empty() {
                return events;
            }
        }
        Vec::new()
    }

    /// Applies `batch` and all that follows from it, writes it, and starts and cancels effects.
    async fn settle(&mut self, mut batch: Vec<(DeliveryId, Event)>) {
        for (delivery, event) in &mut batch {
            *event = self.timed(event.clone());
            self.apply(*delivery, event);
        }
        loop {
            let follow = self.follow();
            if follow.is_empty() {
                break;
            }
            for (delivery, event) in &follow {
                self.apply(*delivery, event);
            }
            batch.extend(follow);
        }
        if !batch.is_empty() {
            self.write(batch).await;
        }
        self.start();
        let before = self.active.len();
        self.active.retain(|_, active| !active.state.finished);
        if self.active.len() < before {
            tokio::task::spawn_blocking(memory::give_back);
        }
    }

    fn apply(&mut self, delivery: DeliveryId, event: &Event) {
        match event {
            Event::StageStarted { run, stage } => {
                self.clocks.insert((*run, *stage), Instant::now());
            }
            Event::StageFinished { run, stage, .. } => {
                self.clocks.remove(&(*run, *stage));
            }
            _ => {}
        }
        let applied = match self.active.get_mut(&delivery) {
            Some(active) => active.state.apply(event),
            None => State::new(event).map(|state| {
                self.active.insert(delivery, Active { state, effects: BTreeMap::new() });
            }),
        };
        if let Err(error) = applied {
            tracing::error!(%delivery, %error, "an event does not fit its delivery");
        }
    }

    /// The events that follow from the states as they are.
    fn follow(&self) -> Vec<(DeliveryId, Event)> {
        let events = decide::follow(self.active.values().map(|active| &active.state), self.world());
        events.into_iter().map(|(id, event)| (id, self.timed(event))).collect()
    }

    fn timed(&self, event: Event) -> Event {
        match event {
            Event::StageFinished { run, stage, cause, .. } => {
                let passed = self.clocks.get(&(run, stage)).map_or(Duration::ZERO, Instant::elapsed);
                let millis = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
                Event::StageFinished { run, stage, millis, cause }
            }
            other => other,
        }
    }

    fn world(&self) -> World {
        World::of(self.active.values().map(|active| &active.state), &self.rooms.server_url)
    }

    /// Writes until it is written: nothing may start that is not on disk. A full disk gives way a little, see
    /// [`store::Reserve`], so that the cause of a failure can always be stored.
    async fn write(&self, batch: Vec<(DeliveryId, Event)>) {
        let mut pause = Duration::from_millis(50);
        loop {
            let now = Timestamp::from(std::time::SystemTime::now());
            match self.journal.append(now, batch.clone()).await {
                Ok(recorded) => {
                    for event in recorded {
                        // Nobody listening is fine.
                        let _ = self.recorded.send(event);
                    }
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "the event log cannot be written; trying again");
                    self.rooms.reserve.give_back();
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
        }
    }

    fn start(&mut self) {
        let world = self.world();
        for (id, active) in &mut self.active {
            let wanted = decide::next(&active.state, &world).effects;
            active.effects.retain(|effect, under_way| {
                let keep = wanted.contains(effect);
                if !keep {
                    under_way.cancel.cancel();
                }
                keep
            });
            for effect in wanted {
                if active.effects.contains_key(&effect) {
                    continue;
                }
                let cancel = CancellationToken::new();
                let context = Context {
                    rooms: Arc::clone(&self.rooms),
                    journal: self.journal.clone(),
                    state: active.state.clone(),
                    delivery: *id,
                    effect: effect.clone(),
                    cancel: cancel.clone(),
                    engine: self.sender.clone(),
                };
                let task = tokio::spawn(perform(context)).abort_handle();
                active.effects.insert(effect, UnderWay { cancel, task });
            }
        }
    }
}

async fn perform(context: Context) {
    let (delivery, effect, engine) = (context.delivery, context.effect.clone(), context.engine.clone());
    let cancel = context.cancel.clone();
    store::fault::point("before-effect");
    // A panic in an effect must end its run with a cause, not leave it under way for ever.
    let task = AbortOnDropHandle::new(tokio::spawn(effect::perform(context)));
    let result = match task.await {
        Ok(result) => result,
        Err(error) => Err(Cause::new(format!("an internal error ended this stage: {error}"))),
    };
    store::fault::point("after-effect");
    if let Err(cause) = &result
        && !cancel.is_cancelled()
    {
        tracing::info!(%delivery, ?effect, cause = %cause, "an effect failed");
    }
    let _ = engine.send(Message::Ended { delivery, effect, result }).await;
}
