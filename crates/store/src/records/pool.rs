//! The threads that talk to the database. A connection belongs to one thread and never leaves it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::fault;
use crate::records::postgres::Postgres;
use crate::records::sqlite::Sqlite;
use crate::records::tx::Ended;
use crate::records::watches::{Watches, Written};
use crate::records::{Location, RecordsError, Row, Tx, Value};

/// Threads that only read.
const READERS: usize = 3;

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The one that writes; writers of other processes wait for it, and it for them.
    Writer,
    /// One of those that see a snapshot.
    Reader,
}

/// When a transaction is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durable {
    /// When its writer hears of it.
    Now,
    /// When the next one is that is durable now.
    Later,
}

type Job = Box<dyn FnOnce(&mut Slot) + Send>;

/// One writer and a few readers; they end when the pool is dropped and their queues are empty.
pub(crate) struct Pool {
    writer: Sender<Job>,
    readers: Sender<Job>,
    last_event: watch::Sender<i64>,
    watches: Arc<Watches>,
}

impl Pool {
    pub(crate) fn start(location: Location) -> std::io::Result<Self> {
        let (writer, jobs) = channel();
        spawn("records-writer", location.clone(), Role::Writer, Arc::new(Mutex::new(jobs)))?;
        let (readers, jobs) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 1..=READERS {
            spawn(&format!("records-reader-{number}"), location.clone(), Role::Reader, Arc::clone(&jobs))?;
        }
        Ok(Self { writer, readers, last_event: watch::Sender::new(0), watches: Arc::default() })
    }

    pub(crate) fn last_event(&self) -> &watch::Sender<i64> {
        &self.last_event
    }

    pub(crate) fn watches(&self) -> &Watches {
        &self.watches
    }

    /// Runs `f` in a transaction on a thread of `role`. A caller that goes away before its turn leaves nothing behind;
    /// after that the transaction is carried through.
    pub(crate) async fn run<T, F>(&self, role: Role, durable: Durable, f: F) -> Result<T, RecordsError>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, RecordsError> + Send + 'static,
        T: Send + 'static,
    {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let (last_event, watches) = (self.last_event.clone(), Arc::clone(&self.watches));
        let job: Job = Box::new(move |slot| {
            if answer.is_closed() {
                return;
            }
            let Done { outcome, appended, written } = slot.transaction(durable, f);
            if role == Role::Writer {
                watches.tell(&written);
            }
            if let Some(seq) = appended {
                last_event.send_replace(seq);
            }
            // The caller may have gone; what is committed stays committed.
            let _ = answer.send(outcome);
        });
        let queue = match role {
            Role::Writer => &self.writer,
            Role::Reader => &self.readers,
        };
        let closed = || RecordsError::Stopped("the records are closed");
        queue.send(job).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

fn spawn(name: &str, location: Location, role: Role, jobs: Arc<Mutex<Receiver<Job>>>) -> std::io::Result<()> {
    let serve = move || {
        let mut slot = Slot { location, role, connection: None };
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            match job {
                Ok(job) => job(&mut slot),
                Err(_) => return,
            }
        }
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(serve).map(drop)
}

/// A thread's place for its connection, which is opened when it is first needed and again after it broke.
struct Slot {
    location: Location,
    role: Role,
    connection: Option<Connection>,
}

/// A transaction that is over.
struct Done<T> {
    outcome: Result<T, RecordsError>,
    /// The last event, if it was stored.
    appended: Option<i64>,
    /// What may have changed.
    written: Written,
}

impl<T> Done<T> {
    const fn failed(error: RecordsError) -> Self {
        Self { outcome: Err(error), appended: None, written: Written::Tables(Vec::new()) }
    }
}

impl Slot {
    fn transaction<T>(&mut self, durable: Durable, f: impl FnOnce(&mut Tx<'_>) -> Result<T, RecordsError>) -> Done<T> {
        // Taken out: whatever goes wrong in between, only a connection without a transaction is put back.
        let mut connection = match self.begin(durable) {
            Ok(connection) => connection,
            Err(error) => return Done::failed(error),
        };
        let mut tx = Tx::new(&mut connection);
        let outcome = catch_unwind(AssertUnwindSafe(|| f(&mut tx)))
            .unwrap_or(Err(RecordsError::Stopped("it panicked, see the log")));
        let Ended { failed, appended, written } = tx.end();
        let outcome = match (outcome, failed) {
            (Ok(_), Some(earlier)) => Err(RecordsError::Ended(earlier)),
            (outcome, _) => outcome,
        };
        let outcome = outcome.and_then(|value| self.commit(&mut connection, appended.is_some()).map(|()| value));
        if outcome.is_ok() || connection.batch("ROLLBACK").is_ok() {
            self.connection = Some(connection);
        }
        let appended = appended.filter(|_| outcome.is_ok());
        Done { outcome, appended, written }
    }

    /// A connection with a transaction begun. One that broke while it was idle is replaced.
    fn begin(&mut self, durable: Durable) -> Result<Connection, RecordsError> {
        if let Some(mut connection) = self.connection.take() {
            match connection.begin(self.role, durable) {
                Ok(()) => return Ok(connection),
                Err(error) if connection.is_closed() || matches!(error, RecordsError::Broken { .. }) => {}
                Err(error) => {
                    if connection.batch("ROLLBACK").is_ok() || !connection.is_remote() {
                        self.connection = Some(connection);
                    }
                    return Err(error);
                }
            }
        }
        let mut connection = Connection::open(&self.location, self.role)?;
        connection.begin(self.role, durable)?;
        Ok(connection)
    }

    fn commit(&self, connection: &mut Connection, events: bool) -> Result<(), RecordsError> {
        if self.role == Role::Reader {
            return connection.commit();
        }
        fault::point(if events { fault::BEFORE_SYNC } else { fault::BEFORE_COMMIT });
        connection.commit().map_err(|error| match error {
            RecordsError::Broken { message } => RecordsError::Uncertain { message },
            other => other,
        })?;
        fault::point(if events { fault::AFTER_SYNC } else { fault::AFTER_COMMIT });
        Ok(())
    }
}

/// A connection to one of the databases.
pub(crate) enum Connection {
    Sqlite(Sqlite),
    Postgres(Box<Postgres>),
}

impl Connection {
    fn open(location: &Location, role: Role) -> Result<Self, RecordsError> {
        match location {
            Location::Sqlite(path) => Sqlite::open(path, role).map(Self::Sqlite),
            Location::Postgres(text) => Postgres::open(text).map(|connection| Self::Postgres(Box::new(connection))),
        }
    }

    fn begin(&mut self, role: Role, durable: Durable) -> Result<(), RecordsError> {
        match self {
            Self::Sqlite(connection) => connection.begin(role, durable),
            Self::Postgres(connection) => connection.begin(role, durable),
        }
    }

    fn commit(&mut self) -> Result<(), RecordsError> {
        match self {
            Self::Sqlite(connection) => connection.commit(),
            Self::Postgres(connection) => connection.batch("COMMIT"),
        }
    }

    const fn is_remote(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(connection) => connection.is_closed(),
        }
    }

    pub(crate) fn batch(&mut self, sql: &str) -> Result<(), RecordsError> {
        match self {
            Self::Sqlite(connection) => connection.batch(sql),
            Self::Postgres(connection) => connection.batch(sql),
        }
    }

    pub(crate) fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, RecordsError> {
        match self {
            Self::Sqlite(connection) => connection.execute(sql, params),
            Self::Postgres(connection) => connection.execute(sql, params),
        }
    }

    pub(crate) fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, RecordsError> {
        match self {
            Self::Sqlite(connection) => connection.query(sql, params),
            Self::Postgres(connection) => connection.query(sql, params),
        }
    }
}
