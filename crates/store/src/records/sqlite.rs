//! Records in SQLite.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{ErrorCode, OpenFlags, ToSql, ffi, params_from_iter};

use crate::records::error::clip;
use crate::records::pool::{Durable, Role};
use crate::records::sql::{Dialect, translate};
use crate::records::{RecordsError, Row, Value};

/// How long a transaction waits for another process that looks into the file.
const BUSY: Duration = Duration::from_secs(15);

/// How many statements a connection knows in SQLite's words.
const MOST_TRANSLATED: usize = 512;

/// A connection of one thread.
pub(crate) struct Sqlite {
    connection: rusqlite::Connection,
    directory: PathBuf,
    translated: HashMap<String, Rc<str>>,
    /// Whether a transaction is synced when it is committed.
    durable: Durable,
}

impl Sqlite {
    pub(crate) fn open(path: &Path, role: Role) -> Result<Self, RecordsError> {
        let directory = path.parent().unwrap_or(Path::new(".")).to_owned();
        let failed = |error: rusqlite::Error| match of(&error, "", &directory) {
            RecordsError::Statement { message, .. } => {
                RecordsError::Open { location: path.display().to_string(), message }
            }
            other => other,
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = rusqlite::Connection::open_with_flags(path, flags).map_err(failed)?;
        Self::prepare(&connection, role).map_err(failed)?;
        if role == Role::Writer {
            // The database's own name is as durable as what is in it.
            let synced = std::fs::File::open(&directory).and_then(|directory| directory.sync_all());
            synced.map_err(|error| RecordsError::Open {
                location: path.display().to_string(),
                message: error.to_string(),
            })?;
        }
        Ok(Self { connection, directory, translated: HashMap::new(), durable: Durable::Now })
    }

    fn prepare(connection: &rusqlite::Connection, role: Role) -> rusqlite::Result<()> {
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(128);
        // Two that change the mode of a new file at once are not made to wait for each other by the busy timeout.
        let begun = Instant::now();
        while let Err(error) = connection.execute_batch("PRAGMA journal_mode = WAL") {
            if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) || begun.elapsed() > BUSY {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        connection.execute_batch(
            "PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;
             PRAGMA journal_size_limit = 16777216;",
        )?;
        match role {
            Role::Writer => Ok(()),
            Role::Reader => connection.execute_batch("PRAGMA query_only = ON"),
        }
    }

    pub(crate) fn begin(&mut self, role: Role, durable: Durable) -> Result<(), RecordsError> {
        match role {
            Role::Reader => self.step("BEGIN DEFERRED"),
            Role::Writer => {
                if self.durable != durable {
                    // In this mode the log is not synced with each transaction, only in order with the others.
                    let normal = durable == Durable::Later;
                    self.batch(if normal { "PRAGMA synchronous = NORMAL" } else { "PRAGMA synchronous = FULL" })?;
                    self.durable = durable;
                }
                self.step("BEGIN IMMEDIATE")
            }
        }
    }

    pub(crate) fn commit(&mut self) -> Result<(), RecordsError> {
        self.step("COMMIT")
    }

    /// A statement of our own, which is always the same.
    fn step(&mut self, sql: &str) -> Result<(), RecordsError> {
        let run = || self.connection.prepare_cached(sql)?.raw_execute();
        run().map(drop).map_err(|error| of(&error, sql, &self.directory))
    }

    fn translated(&mut self, sql: &str) -> Rc<str> {
        if let Some(known) = self.translated.get(sql) {
            return Rc::clone(known);
        }
        if self.translated.len() >= MOST_TRANSLATED {
            self.translated.clear();
        }
        let translated: Rc<str> = translate(sql, Dialect::Sqlite).into();
        self.translated.insert(sql.to_owned(), Rc::clone(&translated));
        translated
    }

    /// Runs statements that have no parameters and give no answer.
    pub(crate) fn batch(&mut self, sql: &str) -> Result<(), RecordsError> {
        let translated = translate(sql, Dialect::Sqlite);
        self.connection.execute_batch(&translated).map_err(|error| of(&error, sql, &self.directory))
    }

    pub(crate) fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, RecordsError> {
        let translated = self.translated(sql);
        let run = || -> rusqlite::Result<usize> {
            self.connection.prepare_cached(&translated)?.execute(params_from_iter(params))
        };
        run().map(|rows| rows as u64).map_err(|error| of(&error, sql, &self.directory))
    }

    pub(crate) fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, RecordsError> {
        let translated = self.translated(sql);
        let failed = |error: rusqlite::Error| of(&error, sql, &self.directory);
        let mut statement = self.connection.prepare_cached(&translated).map_err(failed)?;
        let columns = statement.column_count();
        let mut rows = statement.query(params_from_iter(params)).map_err(failed)?;
        let mut answer = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let mut values = Vec::with_capacity(columns);
            for column in 0..columns {
                let value = row.get_ref(column).map_err(failed)?;
                values.push(read(value, column, sql)?);
            }
            answer.push(Row(values));
        }
        Ok(answer)
    }
}

fn read(value: ValueRef<'_>, column: usize, sql: &str) -> Result<Value, RecordsError> {
    let wrong = |found: &str| RecordsError::ColumnType { column, sql: clip(sql), found: found.to_owned() };
    match value {
        ValueRef::Null => Ok(Value::Null),
        ValueRef::Integer(value) => Ok(Value::Integer(value)),
        ValueRef::Real(_) => Err(wrong("REAL")),
        ValueRef::Text(text) => {
            String::from_utf8(text.to_vec()).map(Value::Text).map_err(|_| wrong("TEXT that is not UTF-8"))
        }
        ValueRef::Blob(bytes) => Ok(Value::Bytes(bytes.to_vec())),
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// The error as the callers know it.
fn of(error: &rusqlite::Error, sql: &str, directory: &Path) -> RecordsError {
    let message = error.to_string();
    let rusqlite::Error::SqliteFailure(code, _) = error else {
        return RecordsError::Statement { sql: clip(sql), message };
    };
    match code.code {
        ErrorCode::DiskFull => RecordsError::NoSpace,
        // The shared index of the log reports a full disk as a failure to grow it.
        ErrorCode::SystemIoFailure | ErrorCode::CannotOpen if is_full(directory) => RecordsError::NoSpace,
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => RecordsError::Busy { message },
        ErrorCode::ConstraintViolation
            if matches!(
                code.extended_code,
                ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID
            ) =>
        {
            RecordsError::Conflict { message }
        }
        _ => RecordsError::Statement { sql: clip(sql), message },
    }
}

fn is_full(directory: &Path) -> bool {
    rustix::fs::statvfs(directory).is_ok_and(|space| space.f_bavail.saturating_mul(space.f_frsize) < 64 * 1024)
}
