//! What can go wrong with records.

use std::error::Error;

/// Why records could not be read or written. Nothing of the transaction was stored, except as
/// [`RecordsError::Uncertain`] says.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The closure of the transaction refused, with a message for the user.
    #[error("{0}")]
    Refused(String),
    /// The closure of the transaction refused with an error of its room; see [`RecordsError::into_room`].
    #[error(transparent)]
    Room(Box<dyn Error + Send + Sync>),
    /// A row with this key exists.
    #[error("the records hold this already: {message}")]
    Conflict {
        /// What the database said.
        message: String,
    },
    /// The disk of the records is full.
    #[error("no space left on the disk that holds the records")]
    NoSpace,
    /// The records of a room were written by a later version.
    #[error(
        "the records of {room:?} are at step {found}, this towpath knows steps up to {known}: a newer towpath wrote them"
    )]
    Newer {
        /// The room.
        room: String,
        /// The step they are at.
        found: i64,
        /// The last step known.
        known: i64,
    },
    /// The database cannot be opened or reached.
    #[error("cannot open the records at {location}: {message}")]
    Open {
        /// The file, or the server without its password.
        location: String,
        /// What the system said.
        message: String,
    },
    /// The connection broke before the transaction was committed.
    #[error("the connection to the records broke: {message}")]
    Broken {
        /// What the system said.
        message: String,
    },
    /// The connection broke while the transaction was being committed.
    #[error("the connection to the records broke during a commit, which may or may not be stored: {message}")]
    Uncertain {
        /// What the system said.
        message: String,
    },
    /// Another transaction held the records for too long.
    #[error("the records are busy: {message}")]
    Busy {
        /// What the database said.
        message: String,
    },
    /// The database refused a statement.
    #[error("the records refused {sql:?}: {message}")]
    Statement {
        /// Its beginning.
        sql: String,
        /// What the database said.
        message: String,
    },
    /// A statement had failed before, so the transaction cannot go on.
    #[error("the transaction ended with an earlier statement: {0}")]
    Ended(String),
    /// A parameter cannot be stored.
    #[error("parameter ${number} of {sql:?} holds a NUL character")]
    Nul {
        /// Its number, from 1.
        number: usize,
        /// The beginning of the statement.
        sql: String,
    },
    /// A column is of another kind than its reader expects.
    #[error("column {column} of an answer is {found}, expected {expected}")]
    Column {
        /// Its place, from 0.
        column: usize,
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: &'static str,
    },
    /// A column is of a type that records do not have.
    #[error("column {column} of {sql:?} is of type {found}: cast it to BIGINT, TEXT or BYTES")]
    ColumnType {
        /// Its place, from 0.
        column: usize,
        /// The beginning of the statement.
        sql: String,
        /// Its type.
        found: String,
    },
    /// The text of a column does not parse.
    #[error("column {column} of an answer cannot be read: {why}")]
    Unreadable {
        /// Its place, from 0.
        column: usize,
        /// Why.
        why: String,
    },
    /// The closure of a transaction panicked, or the records are closed.
    #[error("the transaction was not finished: {0}")]
    Stopped(&'static str),
}

impl RecordsError {
    /// An error of a room, to leave a transaction with.
    pub fn room(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Room(Box::new(error))
    }

    /// The error of a room that [`RecordsError::room`] was given.
    ///
    /// # Errors
    /// Returns itself when it is not one, or of another type.
    pub fn into_room<E: Error + 'static>(self) -> Result<E, Self> {
        match self {
            Self::Room(error) => error.downcast().map(|error| *error).map_err(Self::Room),
            other => Err(other),
        }
    }

    /// Whether a row with this key exists already.
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// Whether the disk is full.
    pub const fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace)
    }
}

/// The beginning of a statement on one line, for an error message. Statements hold no values.
pub(crate) fn clip(sql: &str) -> String {
    let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
