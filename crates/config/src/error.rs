//! What is wrong with a configuration text, and where.

use std::fmt;

/// An error in a configuration text: one line of what is wrong, the place, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as the user named it.
    pub file: String,
    /// Line, from 1; 0 if the error has no place.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// What is wrong, with the value.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The line itself.
    pub source_line: Option<String>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file, self.message)?;
        } else {
            write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        }
        if let Some(line) = &self.source_line {
            let number = self.line.to_string();
            let pad = " ".repeat(number.len());
            let caret = " ".repeat(usize::try_from(self.column.saturating_sub(1)).unwrap_or(0));
            write!(f, "\n {number} | {line}\n {pad} | {caret}^")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n hint: {hint}")?;
        }
        Ok(())
    }
}

impl ConfigError {
    /// An error without a place in the text.
    pub fn in_file(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, message: message.into(), hint: None, source_line: None }
    }

    /// The same, with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// From the YAML reader's error, for `text` of `file`.
    pub(crate) fn from_yaml(file: &str, text: &str, error: &serde_saphyr::Error) -> Self {
        use serde_saphyr::Error;
        let place = error.location();
        let line = place.map_or(0, |at| at.line());
        let (message, hint) = match error.without_snippet() {
            Error::SerdeUnknownField { field, expected, .. } => {
                (format!("unknown key `{field}`"), Some(nearest(field, expected)))
            }
            Error::SerdeUnknownVariant { variant, expected, .. } => {
                (format!("unknown value `{variant}`"), Some(nearest(variant, expected)))
            }
            Error::SerdeMissingField { field, .. } => (format!("the key `{field}` is missing"), None),
            other => {
                let whole = other.to_string();
                (whole.lines().next().unwrap_or_default().to_owned(), None)
            }
        };
        let index = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
        // The line may hold the secret that stands where its reference or file belongs.
        let may_hold_one = message.starts_with("secret reference") || message.starts_with(crate::listener::NOT_A_FILE);
        let shown = line != 0 && !may_hold_one;
        let source_line = if shown { text.lines().nth(index).map(str::to_owned) } else { None };
        Self { file: file.to_owned(), line, column: place.map_or(0, |at| at.column()), message, hint, source_line }
    }
}

fn nearest(word: &str, known: &[&str]) -> String {
    let best = known.iter().min_by_key(|known| strsim::damerau_levenshtein(word, known));
    match best {
        Some(best) if strsim::damerau_levenshtein(word, best) <= 3 => format!("did you mean `{best}`?"),
        _ => format!("known are: {}", known.join(", ")),
    }
}
