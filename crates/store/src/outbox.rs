//! What leaves the house: stored with the change that causes it, sent later, again and again until it arrives.
//!
//! A message is enqueued in the transaction of its cause. A sender claims what is due, for a time; if it dies, the
//! message falls due again. The tables are made by [`log::install`](crate::log::install).

use model::Timestamp;

use crate::records::{RecordsError, Row, Tx};

/// How often a message is tried before it is given up.
pub const MAX_ATTEMPTS: i64 = 12;

const FIRST_PAUSE_MS: i64 = 1_000;
const LONGEST_PAUSE_MS: i64 = 3_600_000;

/// Where a message is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// To be sent, or being sent.
    Waiting,
    /// Delivered. Remembered by its key, without its body.
    Done,
    /// Given up after [`MAX_ATTEMPTS`].
    Dead,
}

impl State {
    /// The name people and programs see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }
}

impl std::str::FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Waiting, Self::Done, Self::Dead]
            .into_iter()
            .find(|state| state.name() == text)
            .ok_or_else(|| format!("{text:?} is not the state of a message"))
    }
}

/// A message that was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: i64,
    /// What it is known by; the receiver's idempotency key.
    pub key: String,
    /// Where it goes.
    pub destination: String,
    /// What it says.
    pub body: String,
    /// How often it was tried, this time included.
    pub attempts: i64,
}

/// A message as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: i64,
    /// What it is known by.
    pub key: String,
    /// Where it goes.
    pub destination: String,
    /// Where it is on its way.
    pub state: State,
    /// How often it was tried.
    pub attempts: i64,
    /// When it is tried next, if it is waiting.
    pub due: Timestamp,
    /// Why it did not arrive the last time.
    pub error: Option<String>,
}

/// Puts a message into the outbox, due at once. Returns false, and changes nothing, if there was one with this key.
///
/// # Errors
/// As [`Tx::execute`].
pub fn enqueue(tx: &mut Tx<'_>, key: &str, destination: &str, body: &str) -> Result<bool, RecordsError> {
    if tx.query_first("SELECT id FROM outbox WHERE key = $1", &[key.into()])?.is_some() {
        return Ok(false);
    }
    let id = tx.next_id("outbox")?;
    let sql = "INSERT INTO outbox (id, key, destination, body, state, attempts, due)
               VALUES ($1, $2, $3, $4, $5, 0, 0)";
    let values = [id.into(), key.into(), destination.into(), body.into(), State::Waiting.name().into()];
    tx.execute(sql, &values)?;
    Ok(true)
}

/// Takes at most `limit` messages that are due, oldest first, for `lease_ms` milliseconds. If neither [`done`] nor
/// [`failed`] is said by then, they are due again.
///
/// # Errors
/// As [`Tx::execute`].
pub fn claim(tx: &mut Tx<'_>, now: Timestamp, lease_ms: i64, limit: usize) -> Result<Vec<Message>, RecordsError> {
    // A message that killed its sender each time would otherwise come back for ever.
    let sql = "UPDATE outbox SET state = $1, error = 'its sender died while sending it'
               WHERE state = $2 AND due <= $3 AND attempts >= $4";
    let (waiting, dead) = (State::Waiting.name(), State::Dead.name());
    tx.execute(sql, &[dead.into(), waiting.into(), now.into(), MAX_ATTEMPTS.into()])?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let sql = "SELECT id, key, destination, body, attempts + 1 FROM outbox
               WHERE state = $1 AND due <= $2 ORDER BY due, id LIMIT $3";
    let rows = tx.query(sql, &[waiting.into(), now.into(), limit.into()])?;
    let messages: Vec<Message> = rows.iter().map(read_message).collect::<Result<_, _>>()?;
    let until = now.0.saturating_add(lease_ms.max(0));
    for message in &messages {
        let sql = "UPDATE outbox SET attempts = $2, due = $3 WHERE id = $1";
        tx.execute(sql, &[message.id.into(), message.attempts.into(), until.into()])?;
    }
    Ok(messages)
}

/// The message arrived.
///
/// # Errors
/// As [`Tx::execute`].
pub fn done(tx: &mut Tx<'_>, id: i64) -> Result<(), RecordsError> {
    let sql = "UPDATE outbox SET state = $2, body = '', error = NULL WHERE id = $1";
    tx.execute(sql, &[id.into(), State::Done.name().into()]).map(drop)
}

/// The message did not arrive: it is due again after a pause that doubles each time (one second to one hour), or given
/// up after [`MAX_ATTEMPTS`]. Returns where it is now; nothing changes for a message that arrived or was given up.
///
/// # Errors
/// As [`Tx::execute`]; [`RecordsError::Refused`] when there is no such message.
pub fn failed(tx: &mut Tx<'_>, id: i64, now: Timestamp, error: &str) -> Result<State, RecordsError> {
    let row = tx.query_first("SELECT state, attempts FROM outbox WHERE id = $1", &[id.into()])?;
    let row = row.ok_or_else(|| RecordsError::Refused(format!("there is no message {id} in the outbox")))?;
    let (state, attempts): (State, i64) = (row.parse(0)?, row.get(1)?);
    if state != State::Waiting {
        return Ok(state);
    }
    let state = if attempts >= MAX_ATTEMPTS { State::Dead } else { State::Waiting };
    let due = now.0.saturating_add(pause_ms(attempts));
    let sql = "UPDATE outbox SET state = $2, due = $3, error = $4 WHERE id = $1";
    tx.execute(sql, &[id.into(), state.name().into(), due.into(), error.into()])?;
    Ok(state)
}

/// The message is given up at once: its receiver wants no more of it.
///
/// # Errors
/// As [`Tx::execute`].
pub fn give_up(tx: &mut Tx<'_>, id: i64, error: &str) -> Result<(), RecordsError> {
    let sql = "UPDATE outbox SET state = $2, error = $3 WHERE id = $1 AND state = $4";
    let (dead, waiting) = (State::Dead.name(), State::Waiting.name());
    tx.execute(sql, &[id.into(), dead.into(), error.into(), waiting.into()]).map(drop)
}

/// Forgets messages that arrived, and were last tried before `before`. From then on their keys may be used again.
///
/// # Errors
/// As [`Tx::execute`].
pub fn forget(tx: &mut Tx<'_>, before: Timestamp) -> Result<u64, RecordsError> {
    let sql = "DELETE FROM outbox WHERE state = $1 AND due < $2";
    tx.execute(sql, &[State::Done.name().into(), before.into()])
}

/// Messages for people, newest first; only those in `state` if one is given.
///
/// # Errors
/// As [`Tx::query`].
pub fn list(tx: &mut Tx<'_>, state: Option<State>, limit: usize) -> Result<Vec<Entry>, RecordsError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let sql = "SELECT id, key, destination, state, attempts, due, error FROM outbox
               WHERE $1 = '' OR state = $1 ORDER BY id DESC LIMIT $2";
    tx.query(sql, &[state.map_or("", State::name).into(), limit.into()])?.iter().map(read_entry).collect()
}

/// When the next message falls due, for a sender that sleeps until then.
///
/// # Errors
/// As [`Tx::query`].
pub fn next_due(tx: &mut Tx<'_>) -> Result<Option<Timestamp>, RecordsError> {
    let sql = "SELECT MIN(due) FROM outbox WHERE state = $1";
    tx.query_first(sql, &[State::Waiting.name().into()])?.map_or(Ok(None), |row| row.get(0))
}

fn pause_ms(attempts: i64) -> i64 {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0).min(30);
    FIRST_PAUSE_MS.saturating_mul(1 << doublings).min(LONGEST_PAUSE_MS)
}

fn read_message(row: &Row) -> Result<Message, RecordsError> {
    Ok(Message {
        id: row.get(0)?,
        key: row.get(1)?,
        destination: row.get(2)?,
        body: row.get(3)?,
        attempts: row.get(4)?,
    })
}

fn read_entry(row: &Row) -> Result<Entry, RecordsError> {
    Ok(Entry {
        id: row.get(0)?,
        key: row.get(1)?,
        destination: row.get(2)?,
        state: row.parse(3)?,
        attempts: row.get(4)?,
        due: row.get(5)?,
        error: row.get(6)?,
    })
}
