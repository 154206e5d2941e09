//! Texts with expressions in them.

use super::ExpressionError;
use super::parse::{Expr, parse};
use super::scope::Scope;

/// What opens an expression in a text.
pub(crate) const OPEN: &str = "${{";

/// A text that was split at its expressions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template {
    pub(crate) parts: Vec<Part>,
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    Text(String),
    Expr {
        expr: Expr,
        source: String,
    },
    /// `${{ insert }}`, the key whose value is merged into the mapping around it.
    Insert,
}

impl Template {
    /// Splits a text and reads its expressions.
    pub(crate) fn parse(text: &str, scope: &Scope) -> Result<Self, ExpressionError> {
        let mut parts = Vec::new();
        let mut rest = text;
        let mut occurrence = 0;
        while let Some(start) = rest.find(OPEN) {
            let (before, tail) = rest.split_at(start);
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let inside = &tail[OPEN.len()..];
            let locate = |error: ExpressionError| ExpressionError { occurrence, ..error };
            let end = close(inside).ok_or_else(|| {
                let first = inside.lines().next().unwrap_or_default();
                locate(ExpressionError::new(first, 0, "the expression is not closed: `}}` is missing"))
            })?;
            parts.push(read(&inside[..end], scope).map_err(locate)?);
            rest = &inside[end + 2..];
            occurrence += 1;
        }
        if !rest.is_empty() || parts.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if parts.len() > 1 && parts.contains(&Part::Insert) {
            return Err(ExpressionError::new("insert", 0, "`insert` must stand alone"));
        }
        Ok(Self { parts })
    }

    /// The expression, if the text is that and nothing else.
    pub(crate) fn single(&self) -> Option<(&Expr, &str)> {
        match self.parts.as_slice() {
            [Part::Expr { expr, source }] => Some((expr, source)),
            _ => None,
        }
    }

    /// The expressions of the text.
    pub(crate) fn expressions(&self) -> impl Iterator<Item = &Expr> {
        self.parts.iter().filter_map(|part| match part {
            Part::Expr { expr, .. } => Some(expr),
            _ => None,
        })
    }
}

/// Where `}}` stands that is not inside a text.
fn close(inside: &str) -> Option<usize> {
    let mut quoted = false;
    let mut brace_before = false;
    for (at, b) in inside.bytes().enumerate() {
        match b {
            b'\'' => quoted = !quoted,
            b'}' if !quoted && brace_before => return Some(at - 1),
            _ => {}
        }
        // A quoted brace does not count; one that was there before `${{` was cut off neither.
        brace_before = b == b'}' && !quoted;
    }
    None
}

fn read(inside: &str, scope: &Scope) -> Result<Part, ExpressionError> {
    match inside.trim() {
        "" => Err(ExpressionError::new(inside, 0, "there is no expression between `${{` and `}}`")),
        "insert" => Ok(Part::Insert),
        _ => Ok(Part::Expr { expr: parse(inside, scope)?, source: inside.to_owned() }),
    }
}

/// The text in which nothing is an expression any more, so that expanding it yields `text` again.
pub(crate) fn escape(text: &str) -> String {
    text.replace(OPEN, "${{ '${{' }}")
}
