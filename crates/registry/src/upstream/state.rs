//! How an upstream is, for people.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::upstream::health::Held;
use crate::upstream::{Budget, Freshness, Upstream};

/// What came of questions since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    revalidated: AtomicU64,
    stale: AtomicU64,
    /// Blobs that were asked for, each connection counted.
    pub fetches: AtomicU64,
    /// Bytes of blobs that came.
    pub bytes: AtomicU64,
}

impl Counters {
    pub fn count(&self, freshness: Freshness) {
        let counter = match freshness {
            Freshness::Hit => &self.hits,
            Freshness::Miss => &self.misses,
            Freshness::Revalidated => &self.revalidated,
            Freshness::Stale => &self.stale,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether an upstream is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It is.
    Well,
    /// It does not answer, and is left alone for a while.
    Down {
        /// What went wrong last.
        why: String,
        /// When it is tried again.
        again: Duration,
    },
    /// It allows no more pulls for a while.
    Limited {
        /// When it is asked again.
        again: Duration,
    },
}

/// How an upstream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamState {
    /// What clients call it.
    pub name: String,
    /// What names of its images begin with here.
    pub prefix: String,
    /// Host and port that are asked.
    pub host: String,
    /// Whether it is asked.
    pub condition: Condition,
    /// How many pulls it allows, if it said.
    pub budget: Option<Budget>,
    /// How many of those are kept for what is not here.
    pub reserve: u64,
    /// Answers from the cache, without a question, since the start.
    pub hits: u64,
    /// Answers from the upstream.
    pub misses: u64,
    /// Answers from the cache that the upstream confirmed.
    pub revalidated: u64,
    /// Answers from the cache in place of the upstream's.
    pub stale: u64,
    /// Requests for blobs that were sent to it.
    pub fetches: u64,
    /// Bytes of blobs that came from it.
    pub bytes: u64,
    /// Blobs that are on their way now.
    pub running: usize,
}

impl Upstream {
    /// How it is now.
    pub fn state(&self) -> UpstreamState {
        let (now, counters) = (Instant::now(), &self.counters);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        UpstreamState {
            name: self.options.name.clone(),
            prefix: self.options.prefix.to_string(),
            host: self.options.host.endpoint().to_owned(),
            condition: match self.health.held(now) {
                Some(Held::Down { why, again }) => Condition::Down { why, again },
                Some(Held::Limited { again }) => Condition::Limited { again },
                Some(Held::Reserved) | None => Condition::Well,
            },
            budget: self.health.budget(now),
            reserve: self.options.reserve,
            hits: read(&counters.hits),
            misses: read(&counters.misses),
            revalidated: read(&counters.revalidated),
            stale: read(&counters.stale),
            fetches: read(&counters.fetches),
            bytes: read(&counters.bytes),
            running: self.fetches.running(),
        }
    }
}
