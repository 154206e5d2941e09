//! What can go wrong between us and git.

use std::io;
use std::path::{Path, PathBuf};

use model::CommitId;

/// Why something asked of a repository was not done.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no git program.
    #[error("the program git was not found in PATH ({searched})")]
    NotInstalled {
        /// The value of `PATH`.
        searched: String,
    },
    /// The git program lacks what Towpath needs.
    #[error("{} is git {found}: at least {needed} is needed", program.display())]
    TooOld {
        /// The program that was found.
        program: PathBuf,
        /// What it says it is.
        found: String,
        /// The least version.
        needed: String,
    },
    /// The git program could not be started, or not be talked to.
    #[error("git could not be run to {what}: {source}")]
    Run {
        /// What it was for.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Git ended with an error.
    #[error("git could not {what}: {message}")]
    Failed {
        /// What it was for.
        what: String,
        /// The end of what it wrote to standard error, or how it ended.
        message: String,
    },
    /// The disk is full.
    #[error("no space left on the disk to {what}")]
    NoSpace {
        /// What it was for.
        what: String,
    },
    /// The directory is not a repository of ours.
    #[error("{} is not a git repository", dir.display())]
    NotARepository {
        /// The directory.
        dir: PathBuf,
    },
    /// There is something where a repository should be made.
    #[error("{} exists already", dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// The repository does not have the object.
    #[error("object {object} is not in the repository")]
    NoObject {
        /// Its name.
        object: String,
    },
    /// A commit has nothing at the path.
    #[error("commit {} has no {path:?}", commit.short())]
    NoPath {
        /// The commit.
        commit: CommitId,
        /// The path, from the root of the repository.
        path: String,
    },
    /// There is something at the path, but not what was asked for.
    #[error("{path:?} is {found}, not {wanted}")]
    WrongKind {
        /// The path, from the root of the repository, or an object name.
        path: String,
        /// What is there.
        found: &'static str,
        /// What should be.
        wanted: &'static str,
    },
    /// A path cannot be looked up, or must not be written.
    #[error("path {path:?} is refused: {why}")]
    BadPath {
        /// The path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A name that is not the name of anything in git.
    #[error("{value:?} is not a {kind}")]
    BadName {
        /// What it should be.
        kind: &'static str,
        /// The value.
        value: String,
    },
    /// More than is allowed.
    #[error("{what} is larger than {limit} {unit}")]
    TooLarge {
        /// Of what.
        what: String,
        /// How much is allowed.
        limit: u64,
        /// Of which unit (`bytes`, `files`).
        unit: &'static str,
    },
    /// Git answered something that is not understood.
    #[error("git answered {answer:?} when asked to {what}")]
    Answer {
        /// What it was asked.
        what: String,
        /// The beginning of the answer.
        answer: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl GitError {
    /// The failure of a file operation; a full disk is told apart.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { what: format!("write {}", path.display()) }
            }
            _ => Self::Io { path: path.to_owned(), source },
        }
    }

    /// The failure to start git or to talk to it.
    pub(crate) fn run(what: &str, source: io::Error) -> Self {
        Self::Run { what: what.to_owned(), source }
    }

    /// The failure git reports; a full disk is told apart.
    pub(crate) fn failed(what: &str, message: String) -> Self {
        if message.contains("No space left on device") || message.contains("Disk quota exceeded") {
            return Self::NoSpace { what: what.to_owned() };
        }
        Self::Failed { what: what.to_owned(), message }
    }

    /// An answer that is not understood; at most 200 bytes of it are kept.
    pub(crate) fn answer(what: &str, answer: &[u8]) -> Self {
        let start = answer.get(..200).unwrap_or(answer);
        Self::Answer { what: what.to_owned(), answer: String::from_utf8_lossy(start).into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart() {
        let error = GitError::failed("write files", "unable to write file x: No space left on device".to_owned());
        assert_eq!(error.to_string(), "no space left on the disk to write files");
        let error = GitError::io(Path::new("/x/y"), io::Error::from_raw_os_error(28));
        assert_eq!(error.to_string(), "no space left on the disk to write /x/y");
        let error = GitError::failed("write files", "bad object".to_owned());
        assert_eq!(error.to_string(), "git could not write files: bad object");
    }
}
