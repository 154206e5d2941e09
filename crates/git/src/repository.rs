//! A bare repository of ours.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::RefName;
use tokio::process::Command;

use crate::{Git, GitError, durable, process};

/// How much git may answer where the length is not otherwise limited, in bytes.
pub(crate) const ANSWER: usize = 64 << 20;

/// A bare repository. Cheap to clone; several processes may use one at the same time.
#[derive(Clone, Debug)]
pub struct Repository {
    git: Git,
    dir: Arc<Path>,
    /// How many digits its object names have: a longer or shorter name could only be that of a branch.
    digits: usize,
}

impl Repository {
    /// Makes an empty bare repository at `dir` whose `HEAD` is `default_branch`. It appears whole or not at all, and is
    /// on the disk when this returns.
    ///
    /// # Errors
    /// When there is something at `dir`, when `default_branch` cannot be a branch, or when writing fails.
    pub async fn init(git: &Git, dir: &Path, default_branch: &str) -> Result<Self, GitError> {
        let head = RefName::branch(default_branch)
            .map_err(|_| GitError::BadName { kind: "branch name", value: default_branch.to_owned() })?;
        if dir.symlink_metadata().is_ok() {
            return Err(GitError::Exists { dir: dir.to_owned() });
        }
        let parent = dir.parent().unwrap_or(Path::new("."));
        let unfinished = Scratch::create(parent)?;
        let made = unfinished.path().join("repository");
        let mut command = git.command(unfinished.path());
        command.args(["init", "--quiet", "--bare", "--template=", "--initial-branch=main", "repository"]);
        process::run(command, "make a repository", [], ANSWER).await?.success("make a repository")?;
        Self { git: git.clone(), dir: made.clone().into(), digits: 40 }.set_head(&head).await?;
        durable::blocking(move || durable::sync_tree(&made).map(|()| made)).await.and_then(|made| {
            // A rename replaces an empty directory, but not a repository that somebody else made meanwhile.
            std::fs::rename(&made, dir).map_err(|error| GitError::io(dir, error))?;
            durable::sync_dir(parent)
        })?;
        Self::open(git, dir)
    }

    /// The bare repository at `dir`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(git: &Git, dir: &Path) -> Result<Self, GitError> {
        let none = || GitError::NotARepository { dir: dir.to_owned() };
        if !(dir.join("HEAD").is_file() && dir.join("objects").is_dir() && dir.join("refs").is_dir()) {
            return Err(none());
        }
        let dir = std::path::absolute(dir).map_err(|_| none())?;
        let config = std::fs::read_to_string(dir.join("config")).map_err(|_| none())?;
        let sha256 = config.lines().any(|line| {
            let line = line.to_ascii_lowercase();
            line.split_once('=').is_some_and(|(key, value)| key.trim() == "objectformat" && value.trim() == "sha256")
        });
        Ok(Self { git: git.clone(), dir: dir.into(), digits: if sha256 { 64 } else { 40 } })
    }

    /// The directory, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The git program.
    pub fn git(&self) -> &Git {
        &self.git
    }

    /// A git process on this repository (see [`Git::command`]), which also is its working directory: `.` for programs
    /// that take a repository as an argument.
    pub fn command(&self) -> Command {
        let mut command = self.git.command(&self.dir);
        command.env("GIT_DIR", ".");
        command
    }

    /// How many digits an object name has.
    pub(crate) fn digits(&self) -> usize {
        self.digits
    }

    /// An object name that git will take for one, and for nothing else.
    pub(crate) fn object_name<'a>(&self, name: &'a str) -> Result<&'a str, GitError> {
        let digits = name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if digits && name.len() == self.digits {
            Ok(name)
        } else {
            Err(GitError::NoObject { object: crate::path::clip(name) })
        }
    }

    /// Runs a git command that must succeed.
    pub(crate) async fn ask(&self, what: &str, args: &[&str], input: impl AsRef<[u8]>) -> Result<Vec<u8>, GitError> {
        let mut command = self.command();
        command.args(args);
        process::run(command, what, input, ANSWER).await?.success(what)
    }

    /// The ref that `HEAD` is: the default branch, whether it exists or not.
    ///
    /// # Errors
    /// When git fails, or `HEAD` is not a ref.
    pub async fn head(&self) -> Result<RefName, GitError> {
        let what = "read HEAD";
        let answer = self.ask(what, &["symbolic-ref", "HEAD"], []).await?;
        let text = String::from_utf8_lossy(&answer);
        text.trim_end_matches('\n').parse().map_err(|_| GitError::answer(what, &answer))
    }

    /// Makes `HEAD` another ref, durably.
    ///
    /// # Errors
    /// When git fails.
    pub async fn set_head(&self, head: &RefName) -> Result<(), GitError> {
        let mut command = self.command();
        command.args(["symbolic-ref", "HEAD", head.as_str()]).kill_on_drop(false);
        process::run(command, "change HEAD", [], ANSWER).await?.success("change HEAD")?;
        let dir = self.dir.clone();
        durable::blocking(move || durable::sync_file(&dir.join("HEAD")).and_then(|()| durable::sync_dir(&dir))).await
    }
}

/// A private directory that goes away with its value.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// What the names of all of them begin with.
    pub(crate) const PREFIX: &'static str = ".towpath-scratch-";

    pub(crate) fn create(parent: &Path) -> Result<Self, GitError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let parent = std::path::absolute(parent).map_err(|error| GitError::io(parent, error))?;
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let dir = parent.join(format!("{}{}-{count}", Self::PREFIX, std::process::id()));
            match std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&dir) {
                Ok(()) => return Ok(Self(dir)),
                // Left by a dead process that had our number.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(GitError::io(&dir, error)),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(dir = %self.0.display(), %error, "a private directory could not be removed");
        }
    }
}
