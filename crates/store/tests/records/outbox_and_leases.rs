//! The outbox and leases.

use model::Timestamp;
use store::outbox::{self, MAX_ATTEMPTS, Message, State};
use store::{Records, leases};

use crate::Place;

async fn enqueue(records: &Records, key: &'static str) -> bool {
    records.write(move |tx| outbox::enqueue(tx, key, "https://hook.example", "{}")).await.unwrap()
}

async fn claim(records: &Records, now: i64) -> Vec<Message> {
    records.write(move |tx| outbox::claim(tx, Timestamp(now), 1_000, 10)).await.unwrap()
}

pub async fn a_message_is_enqueued_once(place: Place) {
    let records = place.open().await;
    assert!(enqueue(&records, "a").await);
    assert!(!enqueue(&records, "a").await);
    assert!(enqueue(&records, "b").await);
    let messages = claim(&records, 5).await;
    assert_eq!(messages.iter().map(|message| message.key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let id = messages[0].id;
    records.write(move |tx| outbox::done(tx, id)).await.unwrap();
    // Also after it arrived.
    assert!(!enqueue(&records, "a").await);
    assert_eq!(claim(&records, 10_000).await.len(), 1);
    let shown = records.read(|tx| outbox::list(tx, Some(State::Done), 10)).await.unwrap();
    assert_eq!((shown.len(), shown[0].key.as_str(), shown[0].attempts), (1, "a", 1));
    assert_eq!(records.read(|tx| outbox::list(tx, None, 10)).await.unwrap().len(), 2);
}

pub async fn a_claimed_message_comes_back_when_its_sender_died(place: Place) {
    let records = place.open().await;
    enqueue(&records, "a").await;
    assert_eq!(claim(&records, 100).await[0].attempts, 1);
    assert_eq!(claim(&records, 1_099).await, []);
    assert_eq!(records.read(outbox::next_due).await.unwrap(), Some(Timestamp(1_100)));
    assert_eq!(claim(&records, 1_100).await[0].attempts, 2);
}

pub async fn a_failing_message_waits_longer_each_time_and_is_given_up(place: Place) {
    let records = place.open().await;
    enqueue(&records, "a").await;
    let (mut now, mut pauses) = (0, Vec::new());
    loop {
        let messages = claim(&records, now).await;
        let id = messages[0].id;
        let state =
            records.write(move |tx| outbox::failed(tx, id, Timestamp(now), "connection refused")).await.unwrap();
        if state == State::Dead {
            break;
        }
        let due = records.read(outbox::next_due).await.unwrap().unwrap();
        pauses.push((due.0 - now) / 1_000);
        assert_eq!(claim(&records, due.0 - 1).await, []);
        now = due.0;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]);
    assert_eq!(claim(&records, i64::MAX).await, []);
    let dead = records.read(|tx| outbox::list(tx, Some(State::Dead), 10)).await.unwrap();
    assert_eq!((dead[0].attempts, dead[0].error.as_deref()), (MAX_ATTEMPTS, Some("connection refused")));
    let error = records.write(|tx| outbox::failed(tx, 99, Timestamp(0), "x")).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no message 99 in the outbox");
}

pub async fn a_message_that_kills_its_sender_is_given_up(place: Place) {
    let records = place.open().await;
    enqueue(&records, "a").await;
    for attempt in 1..=MAX_ATTEMPTS {
        assert_eq!(claim(&records, attempt * 10_000).await[0].attempts, attempt);
    }
    assert_eq!(claim(&records, 1_000_000).await, []);
    let dead = records.read(|tx| outbox::list(tx, Some(State::Dead), 10)).await.unwrap();
    assert_eq!(dead.len(), 1);
}

pub async fn a_lease_has_one_holder_until_it_expires(place: Place) {
    let records = place.open().await;
    records
        .write(|tx| {
            let at = Timestamp;
            assert!(leases::acquire(tx, "scheduler", "one", at(0), 100)?);
            assert!(!leases::acquire(tx, "scheduler", "two", at(99), 100)?);
            assert!(leases::acquire(tx, "other", "two", at(99), 100)?);
            assert!(leases::renew(tx, "scheduler", "one", at(99), 100)?);
            assert!(!leases::renew(tx, "scheduler", "two", at(99), 100)?);
            assert!(!leases::acquire(tx, "scheduler", "two", at(198), 100)?);
            // The first holder died.
            assert!(leases::acquire(tx, "scheduler", "two", at(199), 100)?);
            assert!(!leases::renew(tx, "scheduler", "one", at(200), 100)?);
            leases::release(tx, "scheduler", "one")?;
            let lease = leases::holder(tx, "scheduler")?.unwrap();
            assert_eq!((lease.holder.as_str(), lease.until), ("two", at(299)));
            // Expired and not taken: its holder cannot know that nobody had it in between.
            assert!(!leases::renew(tx, "scheduler", "two", at(299), 100)?);
            leases::release(tx, "scheduler", "two")?;
            assert_eq!(leases::holder(tx, "scheduler")?, None);
            Ok(())
        })
        .await
        .unwrap();
}

pub async fn of_many_replicas_one_gets_the_lease(place: Place) {
    let replicas = [place.open().await, place.open().await, place.open().await];
    let mut tries = Vec::new();
    for number in 0..12 {
        let records = replicas[number % 3].clone();
        tries.push(tokio::spawn(async move {
            let holder = format!("replica {number}");
            records.write(move |tx| leases::acquire(tx, "run 1", &holder, Timestamp(0), 100)).await.unwrap()
        }));
    }
    let mut got = 0;
    for attempt in tries {
        got += usize::from(attempt.await.unwrap());
    }
    assert_eq!(got, 1);
}
