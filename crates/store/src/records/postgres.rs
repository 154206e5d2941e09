//! Records in PostgreSQL.

mod text;
mod tls;

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use postgres::error::SqlState;
use postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Config, Statement};

use crate::records::error::clip;
use crate::records::pool::{Durable, Role};
use crate::records::sql::{Dialect, translate};
use crate::records::{RecordsError, Row, Value};
use tls::Target;

/// One writer at a time, over all replicas, as SQLite has it: a transaction may read, decide and write, and the log has
/// no gap. The number is "towpath" in ASCII.
const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock(32773656075662440)";
const BEGIN_WRITE_LATER: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = off;
    SELECT pg_advisory_xact_lock(32773656075662440)";
const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// A writer that hangs in a transaction, or waits this long for one that does, is ended by the server.
const SESSION: &str = "SET synchronous_commit = on; SET client_min_messages = warning;
    SET idle_in_transaction_session_timeout = '60s'; SET lock_timeout = '60s'; SET TIME ZONE 'UTC'";

/// A connection of one thread.
pub(crate) struct Postgres {
    client: Client,
    statements: HashMap<String, Statement>,
}

impl Postgres {
    /// Connects to the server that `text` names: `postgresql://…` or `key=value …`.
    pub(crate) fn open(text: &str) -> Result<Self, RecordsError> {
        let unread = |message| RecordsError::Open { location: "PostgreSQL".to_owned(), message };
        let mut target = Target::read(text).map_err(unread)?;
        let config = &mut target.config;
        config.application_name("towpath");
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(10));
        }
        let failed = |message| RecordsError::Open { location: place(&target.config), message };
        let mut client = target.connect().map_err(failed)?;
        client.batch_execute(SESSION).map_err(|error| failed(describe(&error)))?;
        Ok(Self { client, statements: HashMap::new() })
    }

    pub(crate) fn begin(&mut self, role: Role, durable: Durable) -> Result<(), RecordsError> {
        self.batch(match (role, durable) {
            (Role::Writer, Durable::Now) => BEGIN_WRITE,
            (Role::Writer, Durable::Later) => BEGIN_WRITE_LATER,
            (Role::Reader, _) => BEGIN_READ,
        })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs statements that have no parameters and give no answer.
    pub(crate) fn batch(&mut self, sql: &str) -> Result<(), RecordsError> {
        let translated = translate(sql, Dialect::Postgres);
        self.client.batch_execute(&translated).map_err(|error| of(&error, sql))
    }

    pub(crate) fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, RecordsError> {
        let statement = self.statement(sql)?;
        self.client.execute(&statement, &borrowed(params)).map_err(|error| of(&error, sql))
    }

    pub(crate) fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, RecordsError> {
        let statement = self.statement(sql)?;
        let rows = self.client.query(&statement, &borrowed(params)).map_err(|error| of(&error, sql))?;
        rows.iter().map(|row| read(row, sql)).collect()
    }

    fn statement(&mut self, sql: &str) -> Result<Statement, RecordsError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(&translate(sql, Dialect::Postgres)).map_err(|error| of(&error, sql))?;
        if self.statements.len() >= 256 {
            self.statements.clear();
        }
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

fn borrowed(params: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    params.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

fn read(row: &postgres::Row, sql: &str) -> Result<Row, RecordsError> {
    let cell = |column: usize| {
        row.try_get::<_, Cell>(column).map(|cell| cell.0).map_err(|error| match row.columns().get(column) {
            Some(info) if !Cell::accepts(info.type_()) => {
                RecordsError::ColumnType { column, sql: clip(sql), found: info.type_().to_string() }
            }
            _ => of(&error, sql),
        })
    };
    (0..row.len()).map(cell).collect::<Result<Vec<_>, _>>().map(Row)
}

/// A value on its way in.
struct Cell(Value);

impl<'a> FromSql<'a> for Cell {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(match *ty {
            Type::INT8 => Value::Integer(i64::from_sql(ty, raw)?),
            Type::INT4 => Value::Integer(i32::from_sql(ty, raw)?.into()),
            Type::INT2 => Value::Integer(i16::from_sql(ty, raw)?.into()),
            Type::BOOL => Value::Integer(bool::from_sql(ty, raw)?.into()),
            Type::BYTEA => Value::Bytes(raw.to_vec()),
            _ => Value::Text(String::from_utf8(raw.to_vec())?),
        }))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(Value::Null))
    }

    fn accepts(ty: &Type) -> bool {
        matches!(
            *ty,
            Type::INT8
                | Type::INT4
                | Type::INT2
                | Type::BOOL
                | Type::BYTEA
                | Type::TEXT
                | Type::VARCHAR
                | Type::NAME
                | Type::BPCHAR
                | Type::UNKNOWN
        )
    }
}

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match (self, ty) {
            (Self::Null, _) => return Ok(IsNull::Yes),
            (Self::Integer(value), &Type::INT8) => out.put_i64(*value),
            (Self::Integer(value), &Type::INT4) => out.put_i32(i32::try_from(*value)?),
            (Self::Integer(value), &Type::INT2) => out.put_i16(i16::try_from(*value)?),
            (Self::Text(text), &(Type::TEXT | Type::VARCHAR | Type::NAME | Type::BPCHAR | Type::UNKNOWN)) => {
                out.put_slice(text.as_bytes());
            }
            (Self::Bytes(bytes), &Type::BYTEA) => out.put_slice(bytes),
            _ => return Err(format!("{} where {ty} is expected", self.kind()).into()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// The error as the callers know it.
fn of(error: &postgres::Error, sql: &str) -> RecordsError {
    let message = describe(error);
    match error.code() {
        Some(&SqlState::DISK_FULL) => RecordsError::NoSpace,
        Some(&SqlState::UNIQUE_VIOLATION) => RecordsError::Conflict { message },
        Some(
            &SqlState::LOCK_NOT_AVAILABLE | &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED,
        ) => RecordsError::Busy { message },
        Some(
            &SqlState::ADMIN_SHUTDOWN | &SqlState::CRASH_SHUTDOWN | &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        ) => RecordsError::Broken { message },
        None if error.is_closed() || error.source().is_some_and(|source| source.is::<std::io::Error>()) => {
            RecordsError::Broken { message }
        }
        _ => RecordsError::Statement { sql: clip(sql), message },
    }
}

/// What the server said, without the library's wrapping.
fn describe(error: &postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(server), _) => server.message().to_owned(),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

/// The server without its password.
fn place(config: &Config) -> String {
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            postgres::config::Host::Tcp(name) => name.clone(),
            postgres::config::Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    format!("PostgreSQL on {}, database {:?}", hosts.join(","), config.get_dbname().unwrap_or_default())
}
