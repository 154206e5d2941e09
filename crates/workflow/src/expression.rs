//! GitHub's expression language: what stands between `${{` and `}}`.

pub(crate) mod compare;
pub(crate) mod evaluate;
pub(crate) mod format;
pub(crate) mod functions;
pub(crate) mod json;
pub(crate) mod parse;
pub(crate) mod scope;
pub(crate) mod template;
pub(crate) mod token;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::clip;

/// An expression that cannot be read or evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub struct ExpressionError {
    /// What is wrong, with the value.
    pub message: String,
    /// The expression, without `${{ }}`.
    pub expression: String,
    /// Where in the expression, in characters from 0.
    pub position: usize,
    /// Which of the expressions of a text it is, from 0.
    pub occurrence: usize,
}

impl ExpressionError {
    pub(crate) fn new(expression: &str, position: usize, message: impl Into<String>) -> Self {
        Self { message: message.into(), expression: expression.to_owned(), position, occurrence: 0 }
    }
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.expression.is_empty() {
            write!(f, " (at character {} of `{}`)", self.position + 1, clip(&self.expression, 120))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
