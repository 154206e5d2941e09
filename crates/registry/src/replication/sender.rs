//! Works off the queue of one rule, one process at a time, a few images at the same time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use model::{ImageName, Timestamp};
use oci::client::RemoteRegistry;
use oci::transfer::Shared;
use store::{fault, leases};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::policy::millis;
use crate::replication::queue::{self, Entry};
use crate::replication::state::{self, Counters, ReplicationState};
use crate::replication::{ReplicationError, ReplicationRule};
use crate::{Registry, RegistryError, now};

/// Images that are replicated at the same time, and blobs that are on their way. [`queue::next`] leaves out so many.
const PARALLEL: usize = 4;
/// For how long a process has its turn, and how often it takes it anew.
const TURN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(8));
/// How long a process waits for another that has the turn.
const OTHERS: Duration = Duration::from_secs(1);
/// How long nobody looks at most: another process may have died in the middle.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// How often retention there looks for what has become too old.
const SWEEP: Duration = Duration::from_secs(600);
/// Blobs after which it is forgotten where there they are; the records know most of it.
const MOST_HOMES: u64 = 10_000;

/// Who works for a rule.
#[derive(Debug)]
pub(super) struct Sender {
    registry: Registry,
    rule: Arc<ReplicationRule>,
    remote: RemoteRegistry,
    shared: Mutex<Arc<Shared>>,
    counters: Counters,
    /// When retention was last looked at, in milliseconds since `started`; one more than that, and 0 for never.
    swept: AtomicU64,
    started: Instant,
    rung: watch::Receiver<u64>,
}

impl Sender {
    pub fn new(registry: Registry, rule: Arc<ReplicationRule>, remote: RemoteRegistry) -> Self {
        let rung = registry.replication_bell();
        let shared = Mutex::new(Arc::new(Shared::new(PARALLEL)));
        let (counters, swept, started) = (Counters::default(), AtomicU64::new(0), Instant::now());
        Self { registry, rule, remote, shared, counters, swept, started, rung }
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn rule(&self) -> &Arc<ReplicationRule> {
        &self.rule
    }

    pub fn remote(&self) -> &RemoteRegistry {
        &self.remote
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What copyings to this destination have in common; a new one when it has grown.
    pub fn shared(&self) -> Arc<Shared> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let progress = &shared.progress;
        let known = [&progress.sent, &progress.mounted, &progress.there];
        if known.iter().map(|count| count.load(Relaxed)).sum::<u64>() > MOST_HOMES {
            *shared = Arc::new(Shared::new(PARALLEL));
        }
        Arc::clone(&shared)
    }

    /// Works for as long as it is polled.
    pub async fn run(&self) {
        let mut rung = self.rung.clone();
        loop {
            rung.borrow_and_update();
            let pause = match Box::pin(self.turn(&mut rung)).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(rule = self.rule.name, %error, "the queue of replication cannot be read");
                    OTHERS
                }
            };
            // Either way there may be something to do.
            let _ = tokio::time::timeout(pause.min(LONGEST_SLEEP), rung.changed()).await;
        }
    }

    /// Does what is due, if no other process does. How long nothing will be due.
    async fn turn(&self, rung: &mut watch::Receiver<u64>) -> Result<Duration, RegistryError> {
        let pause = self.pause().await?;
        if !pause.is_zero() {
            return Ok(pause);
        }
        if !self.take_turn().await? {
            return Ok(OTHERS);
        }
        let keep = async {
            loop {
                tokio::time::sleep(TURN.1).await;
                match self.take_turn().await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => tracing::warn!(rule = self.rule.name, %error, "the turn cannot be kept"),
                }
            }
        };
        let worked = tokio::select! {
            worked = self.work(rung) => worked,
            () = keep => {
                tracing::warn!(rule = self.rule.name, "another process has taken over");
                return Ok(OTHERS);
            }
        };
        self.release().await;
        worked?;
        self.pause().await
    }

    /// How long nothing is due.
    async fn pause(&self) -> Result<Duration, RegistryError> {
        let rule = Arc::clone(&self.rule);
        let (due, paused) = self.registry.records.read(move |tx| queue::next_due(tx, &rule.name)).await?;
        let at = now();
        let left = |until: Timestamp| Duration::from_millis(until.0.saturating_sub(at.0).max(0).unsigned_abs());
        let sweep = self.until_sweep();
        let due = due.map_or(sweep, |due| left(due).min(sweep));
        Ok(due.max(left(paused)))
    }

    fn until_sweep(&self) -> Duration {
        if self.rule.retention.is_empty() {
            return Duration::MAX;
        }
        match self.swept.load(Relaxed) {
            0 => Duration::ZERO,
            then => (Duration::from_millis(then - 1) + SWEEP).saturating_sub(self.started.elapsed()),
        }
    }

    async fn work(&self, rung: &mut watch::Receiver<u64>) -> Result<(), RegistryError> {
        let mut down = false;
        if self.until_sweep().is_zero() {
            let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
            self.swept.store(elapsed + 1, Relaxed);
            if let Err(error) = self.retain_all().await {
                down = error.is_temporary();
                self.complain("retention", &error).await?;
            }
        }
        let mut busy = FuturesUnordered::new();
        let mut images: Vec<ImageName> = Vec::new();
        loop {
            while !down && images.len() < PARALLEL {
                let (rule, others) = (Arc::clone(&self.rule), images.clone());
                let next = self.registry.records.read(move |tx| queue::next(tx, &rule.name, now(), &others)).await?;
                let Some(entry) = next else { break };
                images.push(entry.image.clone());
                busy.push(self.one(entry).boxed());
            }
            let (entry, outcome) = tokio::select! {
                done = busy.next() => match done {
                    Some(done) => done,
                    None => return Ok(()),
                },
                // Something new, which may go on another line.
                Ok(()) = rung.changed(), if !down && images.len() < PARALLEL => continue,
            };
            images.retain(|image| *image != entry.image);
            down |= outcome.as_ref().is_err_and(ReplicationError::is_temporary);
            self.note(entry, outcome).await?;
        }
    }

    async fn one(&self, entry: Entry) -> (Entry, Result<bool, ReplicationError>) {
        let outcome = Box::pin(self.replicate(&entry)).await;
        let outcome = match outcome {
            // That something cannot be deleted there does not mean that it was not pushed.
            Ok(pushed) => match self.retain(&entry.image).await {
                Err(error) => {
                    let _ = self.complain(&format!("retention of {}", entry.image), &error).await;
                    Ok(pushed)
                }
                Ok(()) => Ok(pushed),
            },
            error => error,
        };
        (entry, outcome)
    }

    async fn note(&self, entry: Entry, outcome: Result<bool, ReplicationError>) -> Result<(), RegistryError> {
        let rule = Arc::clone(&self.rule);
        let noted = match outcome {
            Ok(changed) => {
                self.counters.pushed.fetch_add(changed.into(), Relaxed);
                fault::point(fault::BEFORE_DEQUEUE);
                self.registry.records.write(move |tx| queue::done(tx, &rule.name, &entry, now())).await
            }
            Err(error) => {
                self.counters.failed.fetch_add(1, Relaxed);
                let sign = if entry.what.tag().is_some() { ':' } else { '@' };
                let what = format!("{}{sign}{}", entry.image, entry.what);
                let (said, temporary) = (self.say(&what, &error), error.is_temporary());
                self.registry
                    .records
                    .write(move |tx| queue::failed(tx, &rule.name, &entry, (now(), temporary), &said))
                    .await
            }
        };
        Ok(noted?)
    }

    /// A line for people, which goes to the log as well.
    fn say(&self, what: &str, error: &ReplicationError) -> String {
        let to = self.rule.destination();
        tracing::warn!(rule = self.rule.name, what, to, %error, "was not replicated; it is tried again");
        format!("{what} to {to}: {error}")
    }

    async fn complain(&self, what: &str, error: &ReplicationError) -> Result<(), RegistryError> {
        self.counters.failed.fetch_add(1, Relaxed);
        let (rule, said) = (Arc::clone(&self.rule), self.say(what, error));
        Ok(self.registry.records.write(move |tx| queue::trouble(tx, &rule.name, now(), &said)).await?)
    }

    async fn take_turn(&self) -> Result<bool, RegistryError> {
        let (lease, holder) = (queue::lease(&self.rule.name), self.registry.shared.holder.clone());
        let taken = move |tx: &mut store::Tx<'_>| leases::acquire(tx, &lease, &holder, now(), millis(TURN.0));
        Ok(self.registry.records.write(taken).await?)
    }

    /// Lets another process have the turn.
    pub async fn release(&self) {
        let (lease, holder) = (queue::lease(&self.rule.name), self.registry.shared.holder.clone());
        let released = self.registry.records.write(move |tx| leases::release(tx, &lease, &holder)).await;
        if let Err(error) = released {
            tracing::warn!(rule = self.rule.name, %error, "the turn cannot be given back");
        }
    }

    pub async fn state(&self) -> Result<ReplicationState, RegistryError> {
        let (name, to) = (self.rule.name.clone(), self.rule.destination());
        let state = self.registry.records.read(move |tx| state::read(tx, name, to, now())).await?;
        Ok(ReplicationState { done: self.counters.read(), ..state })
    }
}
