//! Why an image could not be built.

use std::io;

use model::Cause;

use crate::dockerfile::DockerfileError;

/// Why an image could not be built. Nothing of it is visible or half done.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Something is wrong with an instruction, or with what it names.
    #[error(transparent)]
    Dockerfile(Box<DockerfileError>),
    /// The command of a RUN failed.
    #[error("{error}")]
    Run {
        /// The instruction and how the command ended.
        error: Box<DockerfileError>,
        /// The last lines of its output, oldest first.
        last_lines: Vec<String>,
    },
    /// The context has no such Dockerfile.
    #[error("there is no {0} in the build context")]
    NoDockerfile(String),
    /// The Dockerfile or an ignore file cannot be used.
    #[error("{path}: {message}")]
    Unusable {
        /// Its path in the context.
        path: String,
        /// Why.
        message: String,
    },
    /// The request names a stage that does not exist.
    #[error("there is no stage {wanted:?} to build")]
    NoTarget {
        /// The stage.
        wanted: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// Nobody waits for it any more.
    #[error("the build was cancelled")]
    Cancelled,
    /// The context cannot be read from its repository.
    #[error("the build context cannot be read")]
    Git(#[from] git::GitError),
    /// A blob cannot be written or read.
    #[error(transparent)]
    Blob(#[from] store::BlobError),
    /// A layer cannot be unpacked.
    #[error(transparent)]
    Layer(#[from] oci::LayerError),
    /// The file system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A thread of the builder broke off.
    #[error("the builder broke off: {0}")]
    Broken(String),
}

impl BuildError {
    /// The cause as it is stored and shown.
    pub fn cause(&self) -> Cause {
        let placed = |error: &DockerfileError| {
            let cause = Cause::new(error.message.clone()).in_place(error.place());
            match &error.hint {
                Some(hint) => cause.hint(hint.clone()),
                None => cause,
            }
        };
        match self {
            Self::Dockerfile(error) => placed(error),
            Self::Run { error, last_lines } => placed(error).last_lines(last_lines.clone()),
            Self::NoTarget { known, .. } => {
                Cause::new(self.to_string()).hint(format!("the stages are {}", known.join(", ")))
            }
            Self::NoDockerfile(_) => Cause::new(self.to_string()).hint("add one, or name the file it is in"),
            _ => Cause::new(chain(self)),
        }
    }

    /// Whether the disk is full.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Blob(error) => error.is_no_space(),
            Self::Git(git::GitError::NoSpace { .. }) => true,
            Self::Layer(oci::LayerError::Write { source, .. } | oci::LayerError::Store { source, .. })
            | Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl From<DockerfileError> for BuildError {
    fn from(error: DockerfileError) -> Self {
        Self::Dockerfile(Box::new(error))
    }
}

/// An error with everything below it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        below = error.source();
    }
    text
}
