//! What goes into a statement and comes out of it.

use crate::records::RecordsError;

/// A value of a column or a parameter. A column is `BIGINT`, `TEXT` or `BYTES`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Null,
    /// `BIGINT`; a truth value is 0 or 1.
    Integer(i64),
    /// `TEXT`; without NUL characters, which PostgreSQL cannot store.
    Text(String),
    /// `BYTES`.
    Bytes(Vec<u8>),
}

impl Value {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Integer(_) => "an integer",
            Self::Text(_) => "a text",
            Self::Bytes(_) => "bytes",
        }
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Integer(value.into())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_owned())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Milliseconds since the epoch.
impl From<model::Timestamp> for Value {
    fn from(value: model::Timestamp) -> Self {
        Self::Integer(value.0)
    }
}

/// The text form.
impl From<&model::Digest> for Value {
    fn from(value: &model::Digest) -> Self {
        Self::Text(value.to_string())
    }
}

/// What [`Row::get`] can make of a column.
pub trait FromValue: Sized {
    /// What is expected, for the error message.
    const EXPECTED: &'static str;

    /// The value, or nothing if it is of another kind.
    fn from_value(value: &Value) -> Option<Self>;
}

impl FromValue for i64 {
    const EXPECTED: &'static str = "an integer";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(value) => Some(*value),
            _ => None,
        }
    }
}

impl FromValue for bool {
    const EXPECTED: &'static str = "0 or 1";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(value) => Some(*value != 0),
            _ => None,
        }
    }
}

impl FromValue for String {
    const EXPECTED: &'static str = "a text";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(value) => Some(value.clone()),
            _ => None,
        }
    }
}

impl FromValue for Vec<u8> {
    const EXPECTED: &'static str = "bytes";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Bytes(value) => Some(value.clone()),
            _ => None,
        }
    }
}

impl FromValue for model::Timestamp {
    const EXPECTED: &'static str = "milliseconds";

    fn from_value(value: &Value) -> Option<Self> {
        i64::from_value(value).map(Self)
    }
}

impl<T: FromValue> FromValue for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}

/// A row of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(pub(crate) Vec<Value>);

impl Row {
    /// The value of a column, counted from 0.
    ///
    /// # Errors
    /// When there is no such column or it is of another kind.
    pub fn get<T: FromValue>(&self, column: usize) -> Result<T, RecordsError> {
        let value = self.0.get(column);
        value.and_then(T::from_value).ok_or(RecordsError::Column {
            column,
            expected: T::EXPECTED,
            found: value.map_or("no such column", Value::kind),
        })
    }

    /// The value of a text column, read as what it is the text of (a digest, a name).
    ///
    /// # Errors
    /// When there is no such column, it is no text or it does not parse.
    pub fn parse<T>(&self, column: usize) -> Result<T, RecordsError>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let text: String = self.get(column)?;
        text.parse().map_err(|error| RecordsError::Unreadable { column, why: format!("{error}") })
    }

    /// All values in order.
    pub fn values(&self) -> &[Value] {
        &self.0
    }
}
