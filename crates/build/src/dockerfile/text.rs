//! Source text and the places in it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The longest Dockerfile that is read, in bytes.
pub const LONGEST: usize = 1 << 20;

/// The text of a Dockerfile with its path; cheap to clone.
#[derive(Clone, Debug)]
pub struct Source {
    path: Arc<str>,
    text: Arc<str>,
}

/// A range of bytes of a [`Source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

impl Source {
    /// The text at `path`, which is only used in messages.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// An error at `span`.
    pub fn error(&self, span: Span, message: impl Into<String>) -> DockerfileError {
        let start = (span.start as usize).min(self.text.len());
        let before = self.text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = self.text.get(line_start..).unwrap_or_default();
        let shown = rest.lines().next().unwrap_or_default().to_owned();
        let column = before[line_start..].chars().count();
        let end = (span.end as usize).clamp(start, line_start + shown.len());
        let width = self.text.get(start..end).map_or(1, |marked| marked.chars().count()).max(1);
        DockerfileError {
            path: self.path.to_string(),
            line: before.matches('\n').count() + 1,
            column: column + 1,
            width,
            shown,
            message: message.into(),
            hint: None,
        }
    }

    /// The line number of `span`, from 1.
    pub fn line(&self, span: Span) -> usize {
        self.error(span, "").line
    }
}

/// Why a Dockerfile cannot be built, with the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}:{line}:{column}: {message}")]
pub struct DockerfileError {
    /// The Dockerfile's path in the context.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    width: usize,
    shown: String,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl DockerfileError {
    /// The same, with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The place: `path:line:column`, the line and a caret below it.
    pub fn place(&self) -> String {
        Place(self).to_string()
    }
}

struct Place<'a>(&'a DockerfileError);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = self.0;
        let margin = error.line.to_string().len();
        // A tab before the caret stays a tab, so that the caret stands below what it marks.
        let pad: String =
            error.shown.chars().take(error.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "{}:{}:{}", error.path, error.line, error.column)?;
        writeln!(f, "  {} | {}", error.line, error.shown)?;
        write!(f, "  {:margin$} | {pad}{}", "", "^".repeat(error.width))
    }
}

/// A piece of a logical line: its text, and where each byte of it stands in the source.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Text {
    text: String,
    offsets: Vec<u32>,
    end: u32,
}

impl Text {
    /// An empty piece at `offset`.
    pub fn at(offset: usize) -> Self {
        Self { text: String::new(), offsets: Vec::new(), end: offset_of(offset) }
    }

    /// Appends `piece`, which stands at `offset` of the source.
    pub fn push(&mut self, piece: &str, offset: usize) {
        self.offsets.extend((offset..offset + piece.len()).map(offset_of));
        self.text.push_str(piece);
        self.end = offset_of(offset + piece.len());
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The source's bytes from the first to the last of this piece.
    pub fn span(&self) -> Span {
        Span { start: self.offsets.first().copied().unwrap_or(self.end), end: self.end }
    }

    /// The place of the byte at `index` of this piece.
    pub fn span_at(&self, index: usize) -> Span {
        let start = self.offsets.get(index).copied().unwrap_or(self.end);
        Span { start, end: start + 1 }
    }

    /// The bytes in `range`, which must lie on character boundaries.
    pub fn slice(&self, range: Range<usize>) -> Self {
        let end = match self.offsets.get(range.end) {
            _ if range.end == range.start => self.offsets.get(range.start).copied().unwrap_or(self.end),
            // The byte before the end, plus one: what follows may stand on a continued line.
            _ => self.offsets.get(range.end - 1).map_or(self.end, |last| last + 1),
        };
        Self { text: self.text[range.clone()].to_owned(), offsets: self.offsets[range].to_vec(), end }
    }

    /// Without white space at either end.
    pub fn trim(&self) -> Self {
        let start = self.text.len() - self.text.trim_start().len();
        let end = self.text.trim_end().len().max(start);
        self.slice(start..end)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

fn offset_of(offset: usize) -> u32 {
    // Sources are at most LONGEST bytes.
    u32::try_from(offset).unwrap_or(u32::MAX)
}
