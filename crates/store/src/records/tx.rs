//! A transaction, as its closure sees it.

use crate::records::error::clip;
use crate::records::pool::Connection;
use crate::records::watches::Written;
use crate::records::{RecordsError, Row, Value};

/// An open transaction.
///
/// Statements are SQL that SQLite and PostgreSQL both take, with `$1`, `$2`, … for parameters and the column types
/// `BIGINT`, `TEXT` and `BYTES`. A statement that fails ends the transaction: nothing after it runs and nothing is stored,
/// whatever the closure returns. Where a row may exist already, say `ON CONFLICT`.
pub struct Tx<'c> {
    connection: &'c mut Connection,
    failed: Option<String>,
    appended: Option<i64>,
    written: Written,
}

/// What became of a transaction's statements.
pub(crate) struct Ended {
    /// What failed.
    pub(crate) failed: Option<String>,
    /// The last event appended.
    pub(crate) appended: Option<i64>,
    /// What was written to.
    pub(crate) written: Written,
}

impl<'c> Tx<'c> {
    pub(crate) fn new(connection: &'c mut Connection) -> Self {
        Self { connection, failed: None, appended: None, written: Written::Tables(Vec::new()) }
    }

    pub(crate) fn end(self) -> Ended {
        Ended { failed: self.failed, appended: self.appended, written: self.written }
    }

    /// Says that events up to `seq` are part of this transaction.
    pub(crate) fn appended(&mut self, seq: i64) {
        self.appended = Some(seq);
    }

    /// Runs a statement and returns how many rows it changed.
    ///
    /// # Errors
    /// When the database refuses it ([`RecordsError::is_conflict`] if a row with its key exists), the disk is full, or
    /// the transaction has ended with an earlier statement.
    pub fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, RecordsError> {
        self.run(sql, params, |connection| connection.execute(sql, params))
    }

    /// Runs a statement that answers rows: `SELECT`, or a change with `RETURNING`.
    ///
    /// # Errors
    /// As [`Tx::execute`]; also when a column is neither `BIGINT`, `TEXT` nor `BYTES`. (In PostgreSQL a `SUM` is numeric:
    /// cast it.)
    pub fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, RecordsError> {
        self.run(sql, params, |connection| connection.query(sql, params))
    }

    /// The first row of [`Tx::query`], if there is one.
    ///
    /// # Errors
    /// As [`Tx::query`].
    pub fn query_first(&mut self, sql: &str, params: &[Value]) -> Result<Option<Row>, RecordsError> {
        Ok(self.query(sql, params)?.into_iter().next())
    }

    /// The next number of a sequence, from 1. Without gaps: a transaction that is rolled back gives its number back.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub fn next_id(&mut self, sequence: &str) -> Result<i64, RecordsError> {
        self.next_ids(sequence, 1)
    }

    /// Takes `count` numbers of a sequence and returns the last.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub fn next_ids(&mut self, sequence: &str, count: usize) -> Result<i64, RecordsError> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let sql = "INSERT INTO sequences (name, value) VALUES ($1, $2)
                   ON CONFLICT (name) DO UPDATE SET value = sequences.value + excluded.value
                   RETURNING value";
        let row = self.query_first(sql, &[sequence.into(), count.into()])?;
        row.ok_or(RecordsError::Stopped("a sequence gave no number"))?.get(0)
    }

    /// Runs several statements without parameters.
    pub(crate) fn batch(&mut self, sql: &str) -> Result<(), RecordsError> {
        self.run(sql, &[], |connection| connection.batch(sql))
    }

    fn run<T>(
        &mut self,
        sql: &str,
        params: &[Value],
        f: impl FnOnce(&mut Connection) -> Result<T, RecordsError>,
    ) -> Result<T, RecordsError> {
        if let Some(earlier) = &self.failed {
            return Err(RecordsError::Ended(earlier.clone()));
        }
        self.written.add(sql);
        let nul = |value: &Value| matches!(value, Value::Text(text) if text.contains('\0'));
        let outcome = match params.iter().position(nul) {
            Some(index) => Err(RecordsError::Nul { number: index + 1, sql: clip(sql) }),
            None => f(self.connection),
        };
        if let Err(error) = &outcome {
            self.failed = Some(error.to_string());
        }
        outcome
    }
}
