//! A client with an image of its own: how it asks, and what it makes of answers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::book::{Book, Content, State};
use super::http::{Answer, Ask, Client};
use super::{Finding, Wrong};
use crate::fault::plan::Random;

/// How long a server that broke off a connection may take to be seen dead.
const DYING: Duration = Duration::from_secs(5);

/// Layers that all clients push: what one deletes another may be using.
const POOL: u64 = 16;

/// The times that the registry goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// How long it leaves a blob alone that no manifest refers to.
    pub(super) grace: Duration,
    /// How long what was deleted can be brought back.
    pub(super) window: Duration,
    /// How long an upload stays that nobody goes on with.
    pub(super) uploads: Duration,
}

impl Times {
    /// Whether an upload may be ended to which nothing was sent since then.
    pub(super) fn is_expired(self, since: Instant) -> bool {
        since.elapsed() + SLACK >= self.uploads
    }
}

/// By how much two clocks of one machine may differ, and what is rounded off.
const SLACK: Duration = Duration::from_millis(50);

/// What all clients of one server know.
pub(super) struct Shared {
    /// The server is dead, or about to be.
    pub(super) dead: AtomicBool,
    /// The disk is full.
    pub(super) full: AtomicBool,
    /// Clients that are not done.
    pub(super) running: AtomicU64,
    /// Answers so far.
    pub(super) asked: AtomicU64,
    /// The images of all clients.
    pub(super) images: Vec<String>,
    /// The power was cut, which takes what was not synced of unfinished uploads.
    pub(super) power_cut: bool,
    /// The times that the registry goes by.
    pub(super) times: Times,
}

/// The server is gone; nothing more is to be asked.
pub(super) struct Stop;

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was done.
    Done,
    /// It was not done, and that is right.
    Refused,
    /// Nobody knows. It is a finding already.
    Wrong,
}

pub(super) struct Worker<'a> {
    pub(super) client: Client,
    pub(super) book: Book,
    pub(super) random: Random,
    pub(super) shared: &'a Shared,
    pub(super) findings: Vec<Finding>,
}

impl Worker<'_> {
    pub(super) fn found(&mut self, wrong: Wrong, text: String) {
        let text = format!("{}: {text}", self.book.image);
        self.findings.push(Finding { wrong, text });
    }

    /// Sends a request whose answer comes, unless the server dies.
    pub(super) fn send(&mut self, ask: &Ask<'_>) -> Result<Answer, Stop> {
        let error = match self.client.send(ask) {
            Ok(answer) => {
                self.shared.asked.fetch_add(1, Ordering::Relaxed);
                return Ok(answer);
            }
            Err(error) => error,
        };
        let until = Instant::now() + DYING;
        while !self.shared.dead.load(Ordering::Acquire) {
            if Instant::now() > until {
                self.found(Wrong::Answer, format!("{} {}: no answer: {error}", ask.method, ask.path));
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(Stop)
    }

    pub(super) fn ask(&mut self, method: &str, path: &str) -> Result<Answer, Stop> {
        self.send(&Ask { method, path, ..Ask::default() })
    }

    /// Reads an answer: `done` are the statuses that say that it was done, `refused` those that may say that it was not.
    pub(super) fn judge(&mut self, what: &str, answer: &Answer, done: &[u16], refused: &[u16]) -> Verdict {
        if done.contains(&answer.status) {
            return Verdict::Done;
        }
        // What makes room is done on a full disk, too.
        let full = answer.status == 507 && self.shared.full.load(Ordering::Relaxed) && !what.starts_with("DELETE");
        if (full || refused.contains(&answer.status)) && answer.error().is_some() {
            return Verdict::Refused;
        }
        self.found(Wrong::Answer, format!("{what}: {}", answer.said()));
        Verdict::Wrong
    }

    pub(super) fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.book.image)
    }

    pub(super) fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.random.below(most as u64)).unwrap_or(0)
    }

    pub(super) fn one_in(&mut self, most: u64) -> bool {
        self.random.below(most) == 0
    }

    /// One of several.
    pub(super) fn choose<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let at = self.below(from.len().max(1));
        from.get(at).cloned()
    }

    /// A layer: often one that others push as well, sometimes one that is sent in several pieces.
    pub(super) fn layer(&mut self) -> Content {
        let (seed, shared) =
            if self.one_in(3) { (self.random.below(POOL), true) } else { (self.random.below(u64::MAX), false) };
        let mut bytes = Random(seed);
        let size = match bytes.below(10) {
            0 => 300_000 + bytes.below(900_000),
            1..=3 => 8_000 + bytes.below(60_000),
            _ => 40 + bytes.below(2_000),
        };
        let words = (0..size.div_ceil(8)).flat_map(|_| bytes.below(u64::MAX).to_le_bytes());
        let bytes: Vec<u8> = words.take(usize::try_from(size).unwrap_or(0)).collect();
        if !shared && self.one_in(5) { Content::sha512(bytes) } else { Content::sha256(bytes) }
    }

    /// Whether a blob will still be there when a manifest refers to it in a moment.
    pub(super) fn is_safe(&self, digest: &str) -> bool {
        let young = |since: Instant| since.elapsed() < self.shared.times.grace / 2;
        let there = self.book.blobs.get(digest).filter(|blob| blob.state == State::There);
        there.is_some_and(|blob| young(blob.since) || self.is_kept(digest))
    }

    /// Whether the registry had to have it until now: a manifest refers to it, or it was pushed within the grace.
    pub(super) fn is_protected(&self, digest: &str) -> bool {
        let young = |since: Instant| since.elapsed() + SLACK < self.shared.times.grace;
        let blob = self.book.blobs.get(digest).filter(|blob| blob.state == State::There);
        let there = self.book.manifests.get(digest).is_some_and(|it| it.state == State::There);
        there || self.is_kept(digest) || blob.is_some_and(|blob| young(blob.since))
    }

    /// Whether a manifest that is there for certain refers to it.
    pub(super) fn is_kept(&self, digest: &str) -> bool {
        self.book.present().iter().any(|it| it.blobs.iter().chain(&it.children).any(|used| used == digest))
    }
}
