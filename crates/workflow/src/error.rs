//! What is wrong with a workflow file, and where.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::expression::ExpressionError;
use crate::node::{Node, Place};
use crate::text::clip;

/// A mistake in a workflow file.
///
/// Prints as one line: `path:line:column: message`. [`WorkflowError::place`] shows the line with a caret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub struct WorkflowError {
    /// The file in the repository.
    pub path: String,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What is wrong, with the value.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The line of the file, if it is known.
    pub snippet: Option<String>,
}

impl fmt::Display for WorkflowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.path, self.line, self.column, self.message)
    }
}

impl WorkflowError {
    /// `path:line:column`, and below it the line of the file with a caret under the place.
    pub fn place(&self) -> String {
        let head = format!("{}:{}:{}", self.path, self.line, self.column);
        let Some(snippet) = &self.snippet else { return head };
        let column = usize::try_from(self.column).unwrap_or(1).max(1) - 1;
        let (shown, before) = window(snippet, column);
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let indent: String = shown.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        format!("{head}\n  {number} | {shown}\n  {margin} | {indent}^")
    }

    /// The same with advice.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<WorkflowError> for model::Cause {
    fn from(error: WorkflowError) -> Self {
        let cause = Self::new(error.to_string()).in_place(error.place());
        match error.hint {
            Some(hint) => cause.hint(hint),
            None => cause,
        }
    }
}

/// The part of a long line around a column, and how many characters of it come before the column.
fn window(line: &str, column: usize) -> (String, usize) {
    const WIDTH: usize = 120;
    let clean = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
    let length = line.chars().count();
    if length <= WIDTH {
        return (line.chars().map(clean).collect(), column.min(length));
    }
    let start = column.saturating_sub(WIDTH / 2).min(length - WIDTH);
    let shown: String = line.chars().skip(start).take(WIDTH).map(clean).collect();
    let (left, right) = (if start > 0 { "…" } else { "" }, if start + WIDTH < length { "…" } else { "" });
    (format!("{left}{shown}{right}"), left.chars().count() + column.min(length) - start)
}

/// The lines of a workflow file, for errors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) path: String,
    lines: BTreeMap<u32, String>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        // A carriage return ends a line too, as YAML has it.
        let text = text.replace("\r\n", "\n");
        let lines = (1..).zip(text.split(['\n', '\r'])).map(|(number, line)| (number, clip(line, 2000))).collect();
        Self { path: path.to_owned(), lines }
    }

    /// The same file with no more lines than these nodes stand on.
    pub(crate) fn only<'a>(&self, nodes: impl IntoIterator<Item = &'a Node>) -> Self {
        let mut lines = BTreeMap::new();
        let mut waiting: Vec<&Node> = nodes.into_iter().collect();
        while let Some(node) = waiting.pop() {
            self.copy_line(node.place.line, &mut lines);
            match &node.kind {
                crate::node::Kind::Scalar(_) => {}
                crate::node::Kind::List(items) => waiting.extend(items),
                crate::node::Kind::Map(entries) => {
                    for (key, value) in entries {
                        self.copy_line(key.place.line, &mut lines);
                        waiting.push(value);
                    }
                }
            }
        }
        Self { path: self.path.clone(), lines }
    }

    fn copy_line(&self, number: u32, lines: &mut BTreeMap<u32, String>) {
        if let Some(line) = self.lines.get(&number) {
            lines.insert(number, line.clone());
        }
    }

    /// The first tab in the indentation of a line or of the next one, where a YAML parser trips over it.
    pub(crate) fn tab_indent(&self, line: u32) -> Option<Place> {
        (line..=line.saturating_add(1)).find_map(|line| {
            let text = self.lines.get(&line)?;
            let at = text.chars().take_while(|c| c.is_whitespace()).position(|c| c == '\t')?;
            Some(Place { line, column: u32::try_from(at + 1).ok()? })
        })
    }

    /// The characters of the file from a place on, each with its own place; at most a few thousand.
    fn characters(&self, from: Place) -> Vec<(Place, char)> {
        const MOST: usize = 4000;
        let mut found = Vec::new();
        let mut line = from.line;
        while let Some(text) = self.lines.get(&line).filter(|_| found.len() < MOST) {
            let first = if line == from.line { from.column.max(1) } else { 1 };
            let characters = (1..).zip(text.chars()).skip_while(|(column, _)| *column < first);
            found.extend(characters.map(|(column, c)| (Place { line, column }, c)));
            found.push((Place { line, column: u32::try_from(text.chars().count() + 1).unwrap_or(u32::MAX) }, '\n'));
            line += 1;
        }
        found
    }

    /// Where in the file a character of an expression stands. `scalar` is where the scalar begins that holds it.
    ///
    /// YAML folds lines and has escapes; where the text cannot be followed, the best place known is the answer.
    pub(crate) fn locate(&self, scalar: Place, error: &ExpressionError, bare: bool) -> Place {
        let raw = self.characters(scalar);
        let start = if bare { bare_start(&raw) } else { occurrence(&raw, error.occurrence) };
        let Some(start) = start else { return scalar };
        let single = raw.first().is_some_and(|(_, c)| *c == '\'');
        follow(&raw[start..], &error.expression, error.position, single)
            .or_else(|| raw.get(start).map(|(place, _)| *place))
            .unwrap_or(scalar)
    }

    /// The error of an expression in a scalar; `bare` if it stands there without `${{ }}`.
    pub(crate) fn expression_error(&self, scalar: Place, error: &ExpressionError, bare: bool) -> WorkflowError {
        self.error(self.locate(scalar, error, bare), error.message.clone())
    }

    /// An error at a place of this file.
    pub(crate) fn error(&self, place: Place, message: impl Into<String>) -> WorkflowError {
        WorkflowError {
            path: self.path.clone(),
            line: place.line,
            column: place.column,
            message: message.into(),
            hint: None,
            snippet: self.lines.get(&place.line).cloned(),
        }
    }
}

/// Where an expression begins that a scalar consists of.
fn bare_start(raw: &[(Place, char)]) -> Option<usize> {
    match raw.first()?.1 {
        '\'' | '"' => Some(1),
        '|' | '>' => {
            let end = raw.iter().position(|(_, c)| *c == '\n')?;
            raw.iter().skip(end).position(|(_, c)| !c.is_whitespace()).map(|at| at + end)
        }
        _ => Some(0),
    }
}

/// Where the text after a `${{` begins.
fn occurrence(raw: &[(Place, char)], number: usize) -> Option<usize> {
    let is_open = |window: &[(Place, char)]| matches!(window, [(_, '$'), (_, '{'), (_, '{')]);
    let mut starts = raw.windows(3).enumerate().filter(|(_, window)| is_open(window));
    starts.nth(number).map(|(at, _)| at + 3)
}

/// The place of the character `position` of `expression`, which begins where `raw` begins.
fn follow(raw: &[(Place, char)], expression: &str, position: usize, single_quoted: bool) -> Option<Place> {
    let mut at = 0;
    let mut expected = expression.chars().take(position).peekable();
    while let Some(c) = expected.next() {
        if c.is_whitespace() {
            while expected.next_if(|c| c.is_whitespace()).is_some() {}
            at += raw.get(at..)?.iter().take_while(|(_, c)| c.is_whitespace()).count();
            continue;
        }
        if raw.get(at)?.1 != c {
            return None;
        }
        at += if single_quoted && c == '\'' { 2 } else { 1 };
    }
    raw.get(at).map(|(place, _)| *place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(text: &str, scalar: (u32, u32), expression: &str, position: usize, bare: bool) -> (u32, u32) {
        let source = Source::new("a.yml", text);
        let error = ExpressionError::new(expression, position, "x");
        let place = source.locate(Place { line: scalar.0, column: scalar.1 }, &error, bare);
        (place.line, place.column)
    }

    #[test]
    fn finds_expressions_in_scalars() {
        assert_eq!(located("a: x ${{ foo }}", (1, 4), " foo ", 1, false), (1, 10));
        assert_eq!(located("a: |\n  x\n  ${{ foo\n   && bar }}", (1, 4), " foo\n && bar ", 9, false), (4, 7));
        assert_eq!(located("if: foo == bar", (1, 5), "foo == bar", 7, true), (1, 12));
        assert_eq!(located("if: 'a == ''x'' && b'", (1, 5), "a == 'x' && b", 12, true), (1, 20));
        assert_eq!(located("if: >-\n  a &&\n  b", (1, 5), "a && b", 5, true), (3, 3));
        // What cannot be followed is shown where the expression begins.
        assert_eq!(located(r#"a: "${{ f(\"x\") }}""#, (1, 4), " f(\"x\") ", 6, false), (1, 8));
        assert_eq!(located("a: x", (7, 4), "x", 0, false), (7, 4));
    }

    #[test]
    fn shows_the_line_with_a_caret() {
        let source = Source::new("a.yml", "on: push\n\tjosb: {}\n");
        let error = source.error(Place { line: 2, column: 2 }, "unknown key `josb`");
        assert_eq!(error.to_string(), "a.yml:2:2: unknown key `josb`");
        assert_eq!(error.place(), "a.yml:2:2\n  2 | \tjosb: {}\n    | \t^");
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let line = format!("{}HERE{}", "a".repeat(300), "b".repeat(300));
        let place = Source::new("a.yml", &line).error(Place { line: 1, column: 301 }, "x").place();
        let lines: Vec<&str> = place.lines().collect();
        assert!(lines[1].chars().count() < 140);
        let caret = lines[2].chars().count() - 1;
        assert_eq!(lines[1].chars().nth(caret), Some('H'), "{place}");
    }

    #[test]
    fn lines_end_as_in_yaml() {
        let source = Source::new("a.yml", "a\r\nb\rc\nd");
        let line = |line| source.error(Place { line, column: 1 }, "x").snippet.unwrap();
        assert_eq!([line(1), line(2), line(3), line(4)], ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_place_beyond_the_file_shows_no_line() {
        let error = Source::new("a.yml", "x").error(Place { line: 9, column: 1 }, "x");
        assert_eq!(error.place(), "a.yml:9:1");
        let error = Source::new("a.yml", "x\u{1b}").error(Place { line: 1, column: 999 }, "x");
        assert_eq!(error.place(), "a.yml:1:999\n  1 | x\u{fffd}\n    |   ^");
    }
}
