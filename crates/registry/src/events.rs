//! What happened to images, for those who asked to be told.
//!
//! A push or delete is put into the outbox in the transaction that makes it true, so no receiver hears of what did not
//! happen, and none misses what did. Pulls change nothing and are too many for that: they are gathered in memory and put
//! there every second; a server that is killed forgets those of its last second.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use model::{Digest, ImageName, ImagePattern, Tag, Timestamp};
use serde_json::json;
use store::{RecordsError, Tx, outbox};
use tokio::sync::{Notify, broadcast, watch};

use crate::replication::{ReplicationRule, queue};
use crate::{Registry, now};

/// The media type of an event's body, which is the notification envelope of the distribution project.
pub const ENVELOPE: &str = "application/vnd.docker.distribution.events.v2+json";

/// Pulls that wait to be put into the outbox; more are forgotten and counted.
const MOST_PULLS: usize = 10_000;

/// How long pulls are gathered.
const GATHER: Duration = Duration::from_secs(1);

/// Events that a listener in this process may be behind before it misses some.
const BACKLOG: usize = 1024;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ImageAction {
    /// A manifest became visible, or a tag points to it.
    Push,
    /// A manifest was read.
    Pull,
    /// A manifest or a tag was taken away.
    Delete,
}

impl ImageAction {
    /// The name in an event.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
            Self::Delete => "delete",
        }
    }
}

/// Something that happened to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageEvent {
    /// Unique; a receiver that is told twice knows it by this.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// What.
    pub action: ImageAction,
    /// To which image.
    pub image: ImageName,
    /// The tag, if there was one.
    pub tag: Option<Tag>,
    /// The manifest; unknown when a tag alone was taken away.
    pub digest: Option<Digest>,
    /// What the manifest is.
    pub media_type: Option<String>,
    /// Its length in bytes.
    pub size: Option<u64>,
    /// Who did it.
    pub actor: Arc<str>,
}

impl ImageEvent {
    /// The event as receivers get it: one notification in the envelope of the distribution project.
    pub fn envelope(&self) -> String {
        let mut target = json!({ "repository": self.image.as_str() });
        let mut say = |key: &str, value: Option<serde_json::Value>| {
            if let Some(value) = value {
                target[key] = value;
            }
        };
        say("mediaType", self.media_type.as_deref().map(Into::into));
        say("digest", self.digest.map(|digest| digest.to_string().into()));
        say("size", self.size.map(Into::into));
        say("length", self.size.map(Into::into));
        say("tag", self.tag.as_ref().map(|tag| tag.as_str().into()));
        let event = json!({
            "id": self.id,
            "timestamp": self.at.to_string(),
            "action": self.action.name(),
            "target": target,
            "actor": { "name": self.actor.as_ref() },
        });
        json!({ "events": [event] }).to_string()
    }
}

/// Who wants to be told what. The events are put into the outbox for `destination`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Where the outbox sends it.
    pub destination: String,
    /// Of which actions.
    pub actions: Vec<ImageAction>,
    /// Of which images; none means all.
    pub images: Vec<ImagePattern>,
}

impl Subscription {
    fn wants(&self, event: &ImageEvent) -> bool {
        let images = &self.images;
        self.actions.contains(&event.action)
            && (images.is_empty() || images.iter().any(|pattern| pattern.matches(&event.image)))
    }
}

/// Those who want to be told, and what they were not told yet.
pub(crate) struct Watch {
    subscriptions: RwLock<Arc<[Subscription]>>,
    wants_pulls: AtomicBool,
    pulls: Mutex<Vec<ImageEvent>>,
    /// Pulls that were too many.
    forgotten: AtomicUsize,
    pulled: Notify,
    /// Rings when there is something new in the outbox.
    outbox: Arc<Notify>,
    live: broadcast::Sender<ImageEvent>,
    /// The rules by which images are replicated.
    replicas: RwLock<Arc<[Arc<ReplicationRule>]>>,
    /// Counts what was queued for them.
    queued: watch::Sender<u64>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            subscriptions: RwLock::new(Arc::new([])),
            wants_pulls: AtomicBool::new(false),
            pulls: Mutex::default(),
            forgotten: AtomicUsize::new(0),
            pulled: Notify::new(),
            outbox: Arc::default(),
            live: broadcast::channel(BACKLOG).0,
            replicas: RwLock::new(Arc::new([])),
            queued: watch::Sender::new(0),
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    fn subscriptions(&self) -> Arc<[Subscription]> {
        Arc::clone(&self.subscriptions.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replicas(&self) -> Arc<[Arc<ReplicationRule>]> {
        Arc::clone(&self.replicas.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Events of one change: put into the outbox and the queues of replication with it, and told in this process when it is
/// durable.
pub(crate) struct Announcement {
    subscriptions: Arc<[Subscription]>,
    replicas: Arc<[Arc<ReplicationRule>]>,
    events: Vec<ImageEvent>,
}

impl Announcement {
    /// Puts the events into the outbox for everybody who wants them, and queues what they make necessary elsewhere. The
    /// change itself was made before in this transaction.
    pub(crate) fn write(&self, tx: &mut Tx<'_>) -> Result<(), RecordsError> {
        for event in &self.events {
            write(tx, event, &self.subscriptions)?;
            self.replicas.iter().try_for_each(|rule| queue::enqueue(tx, rule, event))?;
        }
        Ok(())
    }
}

fn write(tx: &mut Tx<'_>, event: &ImageEvent, subscriptions: &[Subscription]) -> Result<(), RecordsError> {
    for subscription in subscriptions.iter().filter(|subscription| subscription.wants(event)) {
        let key = format!("{}/{}", event.id, subscription.destination);
        outbox::enqueue(tx, &key, &subscription.destination, &event.envelope())?;
    }
    Ok(())
}

impl Registry {
    /// Tells these, and nobody else, from now on.
    pub fn subscribe(&self, subscriptions: Vec<Subscription>) {
        let watch = &self.shared.watch;
        let pulls = subscriptions.iter().any(|it| it.actions.contains(&ImageAction::Pull));
        *watch.subscriptions.write().unwrap_or_else(PoisonError::into_inner) = subscriptions.into();
        watch.wants_pulls.store(pulls, Ordering::Relaxed);
    }

    /// Pushes and deletes as they become durable, for parts of this program. Who reads too slowly misses some and is
    /// told so.
    pub fn events(&self) -> broadcast::Receiver<ImageEvent> {
        self.shared.watch.live.subscribe()
    }

    /// Rings when there is something new in the outbox.
    pub fn outbox_signal(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.watch.outbox)
    }

    /// Queues changes for these rules from now on.
    pub(crate) fn replicate(&self, rules: Vec<Arc<ReplicationRule>>) {
        *self.shared.watch.replicas.write().unwrap_or_else(PoisonError::into_inner) = rules.into();
    }

    /// Counts when something was queued for replication.
    pub(crate) fn replication_bell(&self) -> watch::Receiver<u64> {
        self.shared.watch.queued.subscribe()
    }

    pub(crate) fn ring_replication(&self) {
        self.shared.watch.queued.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The same registry, in which what is done is done by `actor`.
    #[must_use]
    pub fn acting_for(&self, actor: &str) -> Self {
        Self { actor: actor.into(), ..self.clone() }
    }

    pub(crate) fn event(&self, action: ImageAction, image: &ImageName, digest: Option<Digest>) -> ImageEvent {
        let id = format!("{:032x}", rand::random::<u128>());
        let (image, actor) = (image.clone(), Arc::clone(&self.actor));
        ImageEvent { id, at: now(), action, image, tag: None, digest, media_type: None, size: None, actor }
    }

    /// Prepares to tell of a change.
    pub(crate) fn announce(&self, events: Vec<ImageEvent>) -> Arc<Announcement> {
        let watch = &self.shared.watch;
        Arc::new(Announcement { subscriptions: watch.subscriptions(), replicas: watch.replicas(), events })
    }

    /// The change is durable.
    pub(crate) fn announced(&self, announcement: &Announcement) {
        let watch = &self.shared.watch;
        if !announcement.subscriptions.is_empty() {
            watch.outbox.notify_one();
        }
        if !announcement.replicas.is_empty() {
            self.ring_replication();
        }
        if watch.live.receiver_count() > 0 {
            for event in &announcement.events {
                let _ = watch.live.send(event.clone());
            }
        }
    }

    /// A manifest was read. Costs nothing if nobody wants to know.
    pub(crate) fn announce_pull(&self, describe: impl FnOnce(&Self) -> ImageEvent) {
        let watch = &self.shared.watch;
        if !watch.wants_pulls.load(Ordering::Relaxed) {
            return;
        }
        let event = describe(self);
        if !watch.subscriptions().iter().any(|subscription| subscription.wants(&event)) {
            return;
        }
        let mut pulls = watch.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        if pulls.len() < MOST_PULLS {
            pulls.push(event);
            watch.pulled.notify_one();
        } else {
            watch.forgotten.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Puts gathered pulls into the outbox, for as long as it is polled.
    pub async fn tell_pulls(&self) {
        let watch = &self.shared.watch;
        loop {
            watch.pulled.notified().await;
            tokio::time::sleep(GATHER).await;
            if let Err(error) = self.flush_pulls().await {
                tracing::warn!(%error, "pulls could not be put into the outbox");
            }
            let forgotten = watch.forgotten.swap(0, Ordering::Relaxed);
            if forgotten > 0 {
                tracing::warn!(forgotten, "there were too many pulls to tell all of them");
            }
        }
    }

    /// Puts the pulls that were gathered so far into the outbox.
    ///
    /// # Errors
    /// When the records fail; the pulls are forgotten then.
    pub async fn flush_pulls(&self) -> Result<(), RecordsError> {
        let watch = &self.shared.watch;
        let pulls = std::mem::take(&mut *watch.pulls.lock().unwrap_or_else(PoisonError::into_inner));
        if pulls.is_empty() {
            return Ok(());
        }
        let subscriptions = watch.subscriptions();
        let written = self.records.write(move |tx| pulls.iter().try_for_each(|event| write(tx, event, &subscriptions)));
        written.await?;
        watch.outbox.notify_one();
        Ok(())
    }
}
