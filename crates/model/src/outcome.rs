//! How a run ends, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Stage;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything was done and checked.
    Succeeded,
    /// Something went wrong; the [`Cause`] says what.
    Failed,
    /// A newer push took its place.
    Superseded,
    /// A person, or the deletion of the branch, ended it.
    Cancelled,
    /// Every service was already live with the same identity: nothing was built, committed or rolled out.
    Reused,
    /// No condition of the run asked for it (a workflow run all of whose jobs were skipped).
    Skipped,
}

impl Outcome {
    /// The name people and programs see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
            Self::Cancelled => "cancelled",
            Self::Reused => "reused",
            Self::Skipped => "skipped",
        }
    }

    /// Whether the run did what was asked of it.
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Succeeded | Self::Reused | Self::Skipped)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why something ended as it did, in words for the person whose push it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// The stage in which it happened.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stage: Option<Stage>,
    /// What failed, with the value, in one line.
    pub message: String,
    /// The place in the user's text (a path with line and caret, a probe), if there is one; may span lines.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub place: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// The last lines of output of what failed, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub last_lines: Vec<String>,
}

impl Cause {
    /// A cause with a message alone.
    pub fn new(message: impl Into<String>) -> Self {
        Self { stage: None, message: message.into(), place: None, hint: None, last_lines: Vec::new() }
    }

    /// The same, in `stage`, unless it names one already.
    #[must_use]
    pub fn at(mut self, stage: Stage) -> Self {
        self.stage.get_or_insert(stage);
        self
    }

    /// The same, with a place in the user's text.
    #[must_use]
    pub fn in_place(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// The same, with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, with the last lines of output.
    #[must_use]
    pub fn last_lines(mut self, lines: Vec<String>) -> Self {
        self.last_lines = lines;
        self
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(stage) = self.stage {
            write!(f, "{stage}: ")?;
        }
        f.write_str(&self.message)
    }
}
