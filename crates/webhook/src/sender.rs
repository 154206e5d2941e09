//! Takes messages from the outbox and posts them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use model::Timestamp;
use reqwest::StatusCode;
use reqwest::redirect::Policy;
use store::outbox::{self, Message};
use store::{Records, RecordsError};
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::sign::signature;

/// Messages that are sent at the same time.
const BATCH: usize = 16;
/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// For how long a message is this sender's: longer than any receiver may take.
const CLAIM: Duration = Duration::from_secs(30);
/// How long a sender sleeps at most: another replica may have died with a message in its hands.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// How often those that are remembered longer are forgotten.
const FORGET: Duration = Duration::from_secs(60 * 60);
/// How long a message that arrived is remembered.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Bytes of a receiver's answer that are kept with a failure.
const LONGEST_REASON: usize = 200;

/// Where messages go.
#[derive(Clone)]
pub struct Receiver {
    /// The URL that is posted to.
    pub url: String,
    /// Signs what is sent; unsigned without one.
    pub key: Option<Zeroizing<Vec<u8>>>,
    /// The Content-Type of what is sent.
    pub content_type: &'static str,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("url", &self.url).field("signed", &self.key.is_some()).finish_non_exhaustive()
    }
}

/// Why no message can be sent.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// The HTTP client.
    #[error("the client for webhooks cannot be made: {0}")]
    Client(reqwest::Error),
}

/// Sends messages to the receivers it knows by their destinations.
#[derive(Debug)]
pub struct Sender {
    records: Records,
    receivers: BTreeMap<String, Receiver>,
    signal: Arc<Notify>,
    client: reqwest::Client,
}

/// What became of an attempt.
enum Attempt {
    Arrived,
    Refused(String),
    /// The receiver wants no more of it.
    Gone(String),
}

impl Sender {
    /// A sender over the outbox of `records`; `receivers` by destination. `signal` rings when something new is there.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(
        records: Records,
        receivers: BTreeMap<String, Receiver>,
        signal: Arc<Notify>,
    ) -> Result<Self, SenderError> {
        // A redirect leads to a place that nobody configured.
        let client = reqwest::Client::builder().redirect(Policy::none()).timeout(PATIENCE).user_agent("towpath");
        Ok(Self { records, receivers, signal, client: client.build().map_err(SenderError::Client)? })
    }

    /// Sends what is due, and waits for more, until `stop` ends. What is being sent then is sent and noted first: nobody
    /// else would take it up before its claim is over.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut forgotten = None::<Instant>;
        loop {
            if forgotten.is_none_or(|at| at.elapsed() >= FORGET) {
                forgotten = Some(Instant::now());
                if let Err(error) = self.forget().await {
                    tracing::warn!(%error, "messages that arrived long ago cannot be forgotten");
                }
            }
            let pause = match self.send_due().await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(%error, "the outbox cannot be read");
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                biased;
                () = &mut stop => return,
                _ = tokio::time::timeout(pause.min(LONGEST_SLEEP), self.signal.notified()) => {}
            }
        }
    }

    /// Sends what is due, as much as is sent at one time, and says how long nothing will be.
    ///
    /// # Errors
    /// When the records fail. What was sent and could not be noted is sent again.
    pub async fn send_due(&self) -> Result<Duration, RecordsError> {
        let at = now();
        let claimed = self.records.write(move |tx| outbox::claim(tx, at, millis(CLAIM), BATCH)).await?;
        for (message, attempt) in join_all(claimed.into_iter().map(|message| self.send(message))).await {
            self.note(message, attempt).await?;
        }
        let (at, next) = (now(), self.records.read(outbox::next_due).await?);
        let left = next.map_or(i64::MAX, |due| due.0.saturating_sub(at.0).max(0));
        Ok(Duration::from_millis(left.unsigned_abs()))
    }

    /// Forgets messages that arrived so long ago that nobody sends them twice.
    async fn forget(&self) -> Result<(), RecordsError> {
        let before = Timestamp(now().0.saturating_sub(millis(REMEMBERED)));
        self.records.write(move |tx| outbox::forget(tx, before)).await.map(drop)
    }

    async fn send(&self, message: Message) -> (Message, Attempt) {
        let attempt = match self.receivers.get(&message.destination) {
            Some(receiver) => self.post(receiver, &message).await,
            None => Attempt::Refused(format!("there is no receiver {}", message.destination)),
        };
        (message, attempt)
    }

    async fn post(&self, receiver: &Receiver, message: &Message) -> Attempt {
        let seconds = now().seconds();
        let mut request = self
            .client
            .post(&receiver.url)
            .header("content-type", receiver.content_type)
            .header("webhook-id", &message.key)
            .header("webhook-timestamp", seconds);
        if let Some(key) = &receiver.key {
            request = request.header("webhook-signature", signature(key, &message.key, seconds, &message.body));
        }
        match request.body(message.body.clone()).send().await {
            Ok(answer) if answer.status().is_success() => Attempt::Arrived,
            Ok(answer) if answer.status() == StatusCode::GONE => Attempt::Gone("the receiver answers 410 Gone".into()),
            Ok(answer) => Attempt::Refused(reason(answer).await),
            // The address may hold a secret: it is not shown.
            Err(error) => Attempt::Refused(chain(&error.without_url())),
        }
    }

    async fn note(&self, message: Message, attempt: Attempt) -> Result<(), RecordsError> {
        let (id, at) = (message.id, now());
        let noted = self.records.write(move |tx| match attempt {
            Attempt::Arrived => outbox::done(tx, id).map(|()| None),
            Attempt::Refused(why) => outbox::failed(tx, id, at, &why).map(|state| Some((state, why))),
            Attempt::Gone(why) => outbox::give_up(tx, id, &why).map(|()| Some((outbox::State::Dead, why))),
        });
        if let Some((state, why)) = noted.await? {
            let (to, attempts) = (&message.destination, message.attempts);
            if state == outbox::State::Dead {
                tracing::error!(%to, attempts, why, "a message was given up");
            } else {
                tracing::warn!(%to, attempts, why, "a message did not arrive, and is tried again");
            }
        }
        Ok(())
    }
}

/// What a receiver says against a message; no more of it than fits on a line.
async fn reason(mut answer: reqwest::Response) -> String {
    let status = answer.status();
    let mut said = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        said.extend_from_slice(&chunk[..chunk.len().min(LONGEST_REASON - said.len())]);
        if said.len() == LONGEST_REASON {
            break;
        }
    }
    let said: String = String::from_utf8_lossy(&said).chars().filter(|c| !c.is_control()).collect();
    format!("the receiver answers {status}: {said}").trim_end_matches([':', ' ']).to_owned()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
