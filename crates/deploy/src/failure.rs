//! Why a rollout did not come about.

use model::Cause;
use serde::{Deserialize, Serialize};

/// Why the new version did not take over. The old one serves on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct RolloutFailure {
    /// The service, if it is one service's fault.
    pub service: Option<String>,
    /// The question it was asked (`GET /health`), if it came to that.
    pub probe: Option<String>,
    /// What failed, with the last answer.
    pub message: String,
    /// The last lines of its output, oldest first; at most 20.
    pub last_lines: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl RolloutFailure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    pub(crate) fn of(service: &str, message: impl Into<String>) -> Self {
        Self { service: Some(service.to_owned()), ..Self::new(message) }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same for the end of a run; the stage is the caller's to set.
    pub fn cause(&self) -> Cause {
        let mut cause = Cause::new(&self.message).last_lines(self.last_lines.clone());
        cause.place = match (&self.service, &self.probe) {
            (Some(service), Some(probe)) => Some(format!("{service}: {probe}")),
            (Some(only), None) | (None, Some(only)) => Some(only.clone()),
            (None, None) => None,
        };
        cause.hint.clone_from(&self.hint);
        cause
    }
}

/// Why the local engine cannot be used, or cannot say or change what is live.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A file or directory of the engine cannot be used.
    #[error("cannot {what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A supervisor did not do what it was asked for.
    #[error("{0}")]
    Supervisor(String),
}

impl DeployError {
    pub(crate) fn file(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.display().to_string();
        move |source| Self::File { what, path, source }
    }
}

impl From<DeployError> for RolloutFailure {
    fn from(error: DeployError) -> Self {
        Self::new(crate::health::chain(&error))
    }
}
