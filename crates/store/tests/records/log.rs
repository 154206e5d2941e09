//! The event log.

use model::Timestamp;
use store::log::{NewEvent, StoredEvent, after, append, last, stream};
use store::{Records, RecordsError};

use crate::Place;

fn event(stream: i64, body: &str) -> NewEvent {
    NewEvent { stream, kind: "Happened".to_owned(), version: 1, body: body.to_owned() }
}

async fn all(records: &Records) -> Vec<StoredEvent> {
    records.read(|tx| after(tx, 0, usize::MAX)).await.unwrap()
}

pub async fn events_come_back_by_stream_and_by_place(place: Place) {
    let records = place.open().await;
    assert_eq!(records.read(last).await.unwrap(), 0);
    let events = [event(7, r#"{"a":1}"#), event(8, "{}"), event(7, r#"{"a":"ü"}"#)];
    let seqs = records.write(move |tx| append(tx, Timestamp(5), &events)).await.unwrap();
    assert_eq!(seqs, [1, 2, 3]);
    assert_eq!(records.write(|tx| append(tx, Timestamp(6), &[])).await.unwrap(), [0_i64; 0]);
    let seven = records.read(|tx| stream(tx, 7)).await.unwrap();
    assert_eq!(seven.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 3]);
    let expected = StoredEvent {
        seq: 3,
        at: Timestamp(5),
        stream: 7,
        kind: "Happened".to_owned(),
        version: 1,
        body: r#"{"a":"ü"}"#.to_owned(),
    };
    assert_eq!(seven[1], expected);
    let rest = records.read(|tx| after(tx, 1, 1)).await.unwrap();
    assert_eq!((rest.len(), rest[0].seq), (1, 2));
    assert_eq!(records.read(last).await.unwrap(), 3);
}

pub async fn events_of_a_transaction_that_refuses_leave_no_gap(place: Place) {
    let records = place.open().await;
    let refused = records
        .write(|tx| {
            append(tx, Timestamp(1), &[event(1, "lost"), event(1, "lost")])?;
            Err::<(), _>(RecordsError::Refused("no".to_owned()))
        })
        .await;
    assert!(refused.is_err());
    let seqs = records.write(|tx| append(tx, Timestamp(1), &[event(1, "kept")])).await.unwrap();
    assert_eq!(seqs, [1]);
    assert_eq!(all(&records).await.len(), 1);
}

pub async fn the_order_has_no_gap_under_concurrent_writers(place: Place) {
    const WRITERS: i64 = 6;
    const EACH: i64 = 15;
    let replicas = [place.open().await, place.open().await];
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let records = replicas[usize::try_from(writer).unwrap() % 2].clone();
        writers.push(tokio::spawn(async move {
            for number in 0..EACH {
                let refuse = number % 3 == 2;
                let outcome = records
                    .write(move |tx| {
                        append(tx, Timestamp(number), &[event(writer, &number.to_string()), event(writer, "and")])?;
                        if refuse { Err(RecordsError::Refused("no".to_owned())) } else { Ok(()) }
                    })
                    .await;
                assert_eq!(outcome.is_err(), refuse, "{outcome:?}");
            }
        }));
    }
    // What a reader sees meanwhile is always a whole beginning of the log.
    let reader = tokio::spawn({
        let records = replicas[0].clone();
        async move {
            let mut seen = 0;
            for _ in 0..40 {
                let events = records.read(move |tx| after(tx, seen, usize::MAX)).await.unwrap();
                for event in events {
                    assert_eq!(event.seq, seen + 1, "a reader saw a gap");
                    seen = event.seq;
                }
            }
        }
    });
    for writer in writers {
        writer.await.unwrap();
    }
    reader.await.unwrap();
    let events = all(&replicas[1]).await;
    let expected = WRITERS * EACH / 3 * 2 * 2;
    let seqs: Vec<i64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=expected).collect::<Vec<_>>());
    for pair in events.chunks(2) {
        assert_eq!((pair[0].stream, pair[1].body.as_str()), (pair[1].stream, "and"), "a transaction was torn");
    }
}

pub async fn a_waiting_reader_is_told(place: Place) {
    let records = place.open().await;
    let mut news = records.last_event();
    let waiting = tokio::spawn(async move { *news.wait_for(|seq| *seq >= 2).await.unwrap() });
    for _ in 0..2 {
        records.write(|tx| append(tx, Timestamp(1), &[event(1, "x")])).await.unwrap();
    }
    assert_eq!(waiting.await.unwrap(), 2);
}
