//! Records: tables in SQLite or PostgreSQL behind one door.

mod error;
mod pool;
mod postgres;
mod sql;
mod sqlite;
mod tx;
mod value;
mod watches;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

pub use error::RecordsError;
use pool::{Durable, Pool, Role};
pub use tx::Tx;
pub use value::{FromValue, Row, Value};
pub use watches::Watch;

/// Where records are kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// A file, which this process alone writes.
    Sqlite(PathBuf),
    /// A server, as `postgresql://…` or `key=value …`; several processes may share it. TLS is asked for by
    /// libpq's `sslmode` and `sslrootcert`.
    Postgres(String),
}

impl fmt::Debug for Location {
    /// The text for PostgreSQL may hold a password and is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            Self::Postgres(_) => f.write_str("Postgres(…)"),
        }
    }
}

/// Records of all rooms. Clones share the connections.
///
/// Writers take turns, over all processes that share the records, so a transaction may read, decide and write without
/// a second look. Readers see a snapshot and never wait for a writer.
#[derive(Clone)]
pub struct Records {
    pool: Arc<Pool>,
    /// Whether other processes may write as well.
    shared: bool,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

const MIGRATIONS: &str = "CREATE TABLE IF NOT EXISTS migrations (
    room TEXT NOT NULL, step BIGINT NOT NULL, PRIMARY KEY (room, step))";

const STEPS: &[&str] = &["CREATE TABLE sequences (name TEXT NOT NULL PRIMARY KEY, value BIGINT NOT NULL)"];

impl Records {
    /// Opens the records, creating what they need themselves.
    ///
    /// # Errors
    /// [`RecordsError::Open`] when the file or server cannot be opened, [`RecordsError::Newer`] when a later version
    /// wrote them.
    pub async fn open(location: Location) -> Result<Self, RecordsError> {
        let shared = matches!(location, Location::Postgres(_));
        let pool = Pool::start(location).map_err(|_| RecordsError::Stopped("no thread can be started"))?;
        let records = Self { pool: Arc::new(pool), shared };
        records.write(|tx| tx.batch(MIGRATIONS)).await?;
        records.migrate("records", STEPS).await?;
        Ok(records)
    }

    /// Brings the tables of a room to its last step. `steps` are numbered from 1 by their place, never change once
    /// released, and run each in a transaction of its own, once.
    ///
    /// # Errors
    /// [`RecordsError::Newer`] when more steps were done than `steps` has: a later version wrote the records. Nothing is
    /// changed then.
    pub async fn migrate(&self, room: &'static str, steps: &'static [&'static str]) -> Result<(), RecordsError> {
        loop {
            let more = self
                .write(move |tx| {
                    let sql = "SELECT COALESCE(MAX(step), 0) FROM migrations WHERE room = $1";
                    let done: i64 = match tx.query_first(sql, &[room.into()])? {
                        Some(row) => row.get(0)?,
                        None => 0,
                    };
                    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
                    if done > known {
                        return Err(RecordsError::Newer { room: room.to_owned(), found: done, known });
                    }
                    let Some(step) = usize::try_from(done).ok().and_then(|next| steps.get(next)) else {
                        return Ok(false);
                    };
                    tx.batch(step)?;
                    let sql = "INSERT INTO migrations (room, step) VALUES ($1, $2)";
                    tx.execute(sql, &[room.into(), (done + 1).into()])?;
                    Ok(true)
                })
                .await?;
            if !more {
                return Ok(());
            }
        }
    }

    /// Runs `f` on a snapshot.
    ///
    /// # Errors
    /// What `f` returns; [`RecordsError`] of the database.
    pub async fn read<T, F>(&self, f: F) -> Result<T, RecordsError>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, RecordsError> + Send + 'static,
        T: Send + 'static,
    {
        self.pool.run(Role::Reader, Durable::Later, f).await
    }

    /// Runs `f` in one transaction that is durable when this returns, and leaves nothing if `f` returns an error or
    /// panics. Dropping the future before the transaction has begun cancels it; later it is carried through.
    ///
    /// # Errors
    /// What `f` returns; [`RecordsError`] of the database. Only after [`RecordsError::Uncertain`] may something have
    /// been stored.
    pub async fn write<T, F>(&self, f: F) -> Result<T, RecordsError>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, RecordsError> + Send + 'static,
        T: Send + 'static,
    {
        self.pool.run(Role::Writer, Durable::Now, f).await
    }

    /// As [`Records::write`], but durable only with the next transaction of that kind: the death of this process takes
    /// nothing away, a power cut may. For what can be found out again, and nobody was promised.
    ///
    /// # Errors
    /// As [`Records::write`].
    pub async fn write_later<T, F>(&self, f: F) -> Result<T, RecordsError>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, RecordsError> + Send + 'static,
        T: Send + 'static,
    {
        self.pool.run(Role::Writer, Durable::Later, f).await
    }

    /// Whether other processes may have the same records, and write to them.
    pub const fn is_shared(&self) -> bool {
        self.shared
    }

    /// Counts from here on the transactions that write to tables for which `concerns` says so, given their names in lower
    /// case. Nothing if other processes may write as well: then nothing can be remembered.
    pub fn watch(&self, concerns: fn(&str) -> bool) -> Option<Watch> {
        (!self.shared).then(|| self.pool.watches().add(concerns))
    }

    /// The last event that this process appended since it was started; 0 if none. Tells a waiting reader when to look
    /// again. What other replicas append shows only with this process' next event.
    pub fn last_event(&self) -> watch::Receiver<i64> {
        self.pool.last_event().subscribe()
    }
}
