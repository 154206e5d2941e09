//! The sender against a receiver that is there, refuses, is gone, or comes back.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use store::outbox::{self, Entry};
use store::{Location, Records};
use tempfile::TempDir;
use tokio::sync::Notify;
use webhook::{Receiver, Sender, destination, signature, signing_key};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a receiver got, and what it answers.
#[derive(Clone, Default)]
struct Inbox {
    got: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    answers: Arc<Mutex<Vec<u16>>>,
}

async fn take(State(inbox): State<Inbox>, headers: HeaderMap, body: String) -> (StatusCode, &'static str) {
    inbox.got.lock().unwrap().push((headers, body));
    let answer = inbox.answers.lock().unwrap().pop().unwrap_or(204);
    (StatusCode::from_u16(answer).unwrap(), "because\u{1b}[31m")
}

struct World {
    _dir: TempDir,
    records: Records,
    inbox: Inbox,
    sender: Arc<Sender>,
    signal: Arc<Notify>,
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(Location::Sqlite(dir.path().join("r.db"))).await.unwrap();
        store::log::install(&records).await.unwrap();
        let inbox = Inbox::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let app = Router::new().route("/hook", post(take)).with_state(inbox.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let receiver = Receiver { url, key: Some(signing_key(SECRET)), content_type: "application/json" };
        let receivers = BTreeMap::from([(destination("ci"), receiver)]);
        let signal = Arc::new(Notify::new());
        let sender = Arc::new(Sender::new(records.clone(), receivers, Arc::clone(&signal)).unwrap());
        Self { _dir: dir, records, inbox, sender, signal }
    }

    async fn enqueue(&self, key: &'static str, to: &str) {
        let to = destination(to);
        let new = self.records.write(move |tx| outbox::enqueue(tx, key, &to, r#"{"n":1}"#)).await.unwrap();
        assert!(new);
    }

    async fn entry(&self) -> Entry {
        self.records.read(|tx| outbox::list(tx, None, 10)).await.unwrap().remove(0)
    }
}

#[tokio::test]
async fn a_message_is_signed_and_arrives_once() {
    let world = World::start().await;
    world.enqueue("k1", "ci").await;
    world.sender.send_due().await.unwrap();
    world.sender.send_due().await.unwrap();
    let got = world.inbox.got.lock().unwrap().clone();
    let [(headers, body)] = got.as_slice() else { panic!("{got:?}") };
    assert_eq!((headers["webhook-id"].to_str().unwrap(), body.as_str()), ("k1", r#"{"n":1}"#));
    let seconds = headers["webhook-timestamp"].to_str().unwrap().parse().unwrap();
    let signed = signature(&signing_key(SECRET), "k1", seconds, body);
    assert_eq!(headers["webhook-signature"].to_str().unwrap(), signed);
    assert_eq!(world.entry().await.state, outbox::State::Done);
}

#[tokio::test]
async fn a_receiver_that_fails_is_asked_again_later() {
    let world = World::start().await;
    world.inbox.answers.lock().unwrap().push(503);
    world.enqueue("k1", "ci").await;
    let pause = world.sender.send_due().await.unwrap();
    assert!(pause > Duration::ZERO && pause <= Duration::from_secs(1), "{pause:?}");
    let entry = world.entry().await;
    assert_eq!(entry.state, outbox::State::Waiting);
    let why = entry.error.unwrap();
    assert_eq!(why, "the receiver answers 503 Service Unavailable: because[31m", "no control characters");
    // Whoever waits for the signal or the time sends it then.
    let running = tokio::spawn({
        let sender = Arc::clone(&world.sender);
        async move { sender.run(std::future::pending()).await }
    });
    let arrived = async {
        while world.entry().await.state != outbox::State::Done {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), arrived).await.unwrap();
    world.enqueue("k2", "ci").await;
    world.signal.notify_one();
    let arrived = async {
        while world.inbox.got.lock().unwrap().len() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), arrived).await.unwrap();
    running.abort();
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_left_alone() {
    let world = World::start().await;
    world.inbox.answers.lock().unwrap().push(410);
    world.enqueue("k1", "ci").await;
    world.sender.send_due().await.unwrap();
    assert_eq!(world.entry().await.state, outbox::State::Dead);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_a_stranger_is_named() {
    let world = World::start().await;
    world.inbox.answers.lock().unwrap().push(302);
    world.enqueue("k1", "ci").await;
    world.sender.send_due().await.unwrap();
    assert!(world.entry().await.error.unwrap().contains("302 Found"));
    world.enqueue("k2", "nobody").await;
    world.sender.send_due().await.unwrap();
    assert_eq!(world.entry().await.error.unwrap(), "there is no receiver webhook:nobody");
}

#[tokio::test]
async fn what_arrived_is_forgotten_after_a_while() {
    let world = World::start().await;
    world.enqueue("k1", "ci").await;
    world.sender.send_due().await.unwrap();
    let far = model::Timestamp(i64::MAX);
    assert_eq!(world.records.write(move |tx| outbox::forget(tx, far)).await.unwrap(), 1);
    assert!(world.records.read(|tx| outbox::list(tx, None, 10)).await.unwrap().is_empty());
}
