//! The event log: append-only, in one global order without gaps. It knows nothing of what its events mean.

use model::Timestamp;

use crate::records::{Records, RecordsError, Row, Tx, Value};

const STEPS: &[&str] = &["CREATE TABLE events (
        seq BIGINT NOT NULL PRIMARY KEY,
        at BIGINT NOT NULL,
        stream BIGINT NOT NULL,
        kind TEXT NOT NULL,
        version BIGINT NOT NULL,
        body TEXT NOT NULL);
    CREATE INDEX events_by_stream ON events (stream, seq);
    CREATE TABLE outbox (
        id BIGINT NOT NULL PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        destination TEXT NOT NULL,
        body TEXT NOT NULL,
        state TEXT NOT NULL,
        attempts BIGINT NOT NULL,
        due BIGINT NOT NULL,
        error TEXT);
    CREATE INDEX outbox_by_due ON outbox (state, due);
    CREATE TABLE leases (
        name TEXT NOT NULL PRIMARY KEY,
        holder TEXT NOT NULL,
        until BIGINT NOT NULL)"];

const COLUMNS: &str = "seq, at, stream, kind, version, body";

/// Makes the tables of the log, the [outbox](crate::outbox) and the [leases](crate::leases).
///
/// # Errors
/// As [`Records::migrate`].
pub async fn install(records: &Records) -> Result<(), RecordsError> {
    records.migrate("store", STEPS).await
}

/// An event to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// What the event belongs to (a delivery).
    pub stream: i64,
    /// Its name.
    pub kind: String,
    /// The version of its body.
    pub version: i64,
    /// JSON, opaque here.
    pub body: String,
}

/// An event where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place in the global order, from 1 and without a gap.
    pub seq: i64,
    /// When it was appended.
    pub at: Timestamp,
    /// What it belongs to.
    pub stream: i64,
    /// Its name.
    pub kind: String,
    /// The version of its body.
    pub version: i64,
    /// JSON, opaque here.
    pub body: String,
}

/// Appends events and returns their places in the global order. They exist once the transaction is committed.
///
/// # Errors
/// As [`Tx::execute`].
pub fn append(tx: &mut Tx<'_>, at: Timestamp, events: &[NewEvent]) -> Result<Vec<i64>, RecordsError> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let last = tx.next_ids("events", events.len())?;
    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
    let seqs: Vec<i64> = (last - count + 1..=last).collect();
    let sql = "INSERT INTO events (seq, at, stream, kind, version, body) VALUES ($1, $2, $3, $4, $5, $6)";
    for (seq, event) in seqs.iter().zip(events) {
        let values: [Value; 6] = [
            (*seq).into(),
            at.into(),
            event.stream.into(),
            (&event.kind).into(),
            event.version.into(),
            (&event.body).into(),
        ];
        tx.execute(sql, &values)?;
    }
    tx.appended(last);
    Ok(seqs)
}

/// All events of a stream, in order.
///
/// # Errors
/// As [`Tx::query`].
pub fn stream(tx: &mut Tx<'_>, stream: i64) -> Result<Vec<StoredEvent>, RecordsError> {
    let sql = format!("SELECT {COLUMNS} FROM events WHERE stream = $1 ORDER BY seq");
    tx.query(&sql, &[stream.into()])?.iter().map(read).collect()
}

/// At most `limit` events after place `seq`, in order.
///
/// # Errors
/// As [`Tx::query`].
pub fn after(tx: &mut Tx<'_>, seq: i64, limit: usize) -> Result<Vec<StoredEvent>, RecordsError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let sql = format!("SELECT {COLUMNS} FROM events WHERE seq > $1 ORDER BY seq LIMIT $2");
    tx.query(&sql, &[seq.into(), limit.into()])?.iter().map(read).collect()
}

/// The place of the last event; 0 if there is none.
///
/// # Errors
/// As [`Tx::query`].
pub fn last(tx: &mut Tx<'_>) -> Result<i64, RecordsError> {
    tx.query_first("SELECT MAX(seq) FROM events", &[])?
        .map_or(Ok(None), |row| row.get::<Option<i64>>(0))
        .map(|seq| seq.unwrap_or(0))
}

fn read(row: &Row) -> Result<StoredEvent, RecordsError> {
    Ok(StoredEvent {
        seq: row.get(0)?,
        at: row.get(1)?,
        stream: row.get(2)?,
        kind: row.get(3)?,
        version: row.get(4)?,
        body: row.get(5)?,
    })
}
