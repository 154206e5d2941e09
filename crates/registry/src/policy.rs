//! What an administrator laid down for the registry: retention, quotas, immutable tags, and when it is collected.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use model::{ImageName, ImagePattern, Tag, TagPattern, Timestamp};

use crate::retention::plan::Rule;
use crate::{Registry, RegistryError, quota};

/// How much the images of a pattern may hold together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The images.
    pub images: ImagePattern,
    /// Bytes of the blobs and manifests that each of them has. What two tags of an image share counts once; what two
    /// images share counts for each.
    pub bytes: u64,
}

/// Tags that are set once and stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImmutableTags {
    /// Of which images.
    pub images: ImagePattern,
    /// Which tags.
    pub tags: TagPattern,
}

impl fmt::Display for ImmutableTags {
    /// `TAGS` for all images, else `IMAGES:TAGS`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.images == ImagePattern::all() { self.tags.fmt(f) } else { write!(f, "{}:{}", self.images, self.tags) }
    }
}

/// The rules of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What goes by itself. For each tag the first rule that is about it counts.
    pub retention: Vec<Rule>,
    /// How much may be held.
    pub quotas: Vec<Quota>,
    /// What is set once.
    pub immutable_tags: Vec<ImmutableTags>,
    /// How often collection runs by itself.
    pub every: Option<Duration>,
    /// How long nothing goes after it was pushed, though nothing refers to it yet.
    pub grace: Duration,
    /// How long what was deleted can be brought back.
    pub undo_window: Duration,
    /// How long an upload stays open after its last byte; one without a byte no longer than an hour.
    pub uploads: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        let day = Duration::from_secs(86_400);
        Self {
            retention: Vec::new(),
            quotas: Vec::new(),
            immutable_tags: Vec::new(),
            every: None,
            grace: day,
            undo_window: day,
            uploads: day,
        }
    }
}

impl Policy {
    /// What makes this tag immutable, if anything does.
    pub fn immutable(&self, image: &ImageName, tag: &Tag) -> Option<&ImmutableTags> {
        self.immutable_tags.iter().find(|it| it.images.matches(image) && it.tags.matches(tag))
    }

    /// The rules for images that are pulled through from elsewhere: what they hold is counted, and nothing is refused. Their
    /// tags move as they do there.
    pub(crate) fn of_others(&self) -> Self {
        let quotas = self.quotas.iter().map(|quota| Quota { bytes: u64::MAX, ..quota.clone() }).collect();
        Self { quotas, immutable_tags: Vec::new(), ..self.clone() }
    }

    /// The time of the last push that is no longer within its grace.
    pub(crate) fn graced(&self, now: Timestamp) -> Timestamp {
        Timestamp(now.0.saturating_sub(millis(self.grace)))
    }

    /// Whether something that was last said to be there at `at` must be marked again before it is said once more, so
    /// that it stays for a grace from now on, or half of one at least.
    pub(crate) fn is_stale(&self, at: Timestamp, now: Timestamp) -> bool {
        now.millis_since(at) > millis(self.grace) / 2
    }
}

/// A time as records have it.
pub(crate) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl Registry {
    /// Lays down the rules. What the images of each quota hold is counted anew.
    ///
    /// # Errors
    /// When the records cannot be read or written.
    pub async fn configure(&self, policy: Policy) -> Result<(), RegistryError> {
        let policy = Arc::new(policy);
        let counted = Arc::clone(&policy);
        self.records.write(move |tx| quota::count(tx, &counted)).await?;
        *self.shared.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
        Ok(())
    }

    /// The rules.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.shared.policy.read().unwrap_or_else(PoisonError::into_inner))
    }
}
