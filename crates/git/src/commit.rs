//! Making a commit without a work tree.

use std::collections::{BTreeMap, BTreeSet};

use model::{CommitId, Timestamp};

use crate::repository::{ANSWER, Scratch};
use crate::{GitError, Mode, Repository, path, process};

/// A commit to be made: files written and deleted on top of another commit.
///
/// The same request makes the same commit, with the same id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRequest {
    /// The commit it follows; nothing for the first of a branch.
    pub parent: Option<CommitId>,
    /// The new content by path from the root of the repository; nothing to delete the file. A file that exists keeps its
    /// mode, a new one is not executable. Deleting what is not there is no error.
    pub changes: BTreeMap<String, Option<Vec<u8>>>,
    /// The message.
    pub message: String,
    /// The name of author and committer.
    pub author_name: String,
    /// The address of author and committer.
    pub author_email: String,
    /// The time of both, in whole seconds; not before 1970.
    pub when: Timestamp,
}

/// Why a commit was not made.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A path must not be written.
    #[error("{path:?} cannot be written: {why}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The author cannot be written into a commit.
    #[error("{value:?} cannot be the {field} of a commit's author")]
    Author {
        /// `name` or `address`.
        field: &'static str,
        /// The value.
        value: String,
    },
    /// The message is empty or contains a NUL byte.
    #[error("the commit message is empty or contains a NUL byte")]
    Message,
    /// The time is before 1970.
    #[error("{0} cannot be the time of a commit")]
    Time(Timestamp),
    /// Git failed.
    #[error(transparent)]
    Git(#[from] GitError),
}

impl Repository {
    /// Makes a commit; no ref is moved. Durable when this returns.
    ///
    /// A path that leads through a symbolic link or a submodule, that is one, or that leads into `.git` is refused.
    ///
    /// # Errors
    /// When something of the request cannot be written, the parent does not exist, or git fails.
    pub async fn commit_files(&self, request: CommitRequest) -> Result<CommitId, CommitError> {
        check(&request)?;
        let modes = self.check_against_parent(&request).await?;
        let scratch = Scratch::create(self.dir())?;
        let blobs = self.write_blobs(&scratch, &request).await?;
        let tree = self.write_tree(&scratch, &request, &modes, &blobs).await?;
        let commit = self.write_commit(&request, &tree).await?;
        self.sync_objects().await?;
        Ok(commit)
    }

    /// Looks up everything the changes touch in the parent. Returns the modes of the files that are there.
    async fn check_against_parent(&self, request: &CommitRequest) -> Result<BTreeMap<String, Mode>, CommitError> {
        let Some(parent) = &request.parent else { return Ok(BTreeMap::new()) };
        if !self.has_commit(parent).await? {
            return Err(GitError::NoObject { object: parent.to_string() }.into());
        }
        let touched: BTreeSet<&str> = request.changes.keys().flat_map(|path| ancestors_and_self(path)).collect();
        let touched: Vec<&str> = touched.into_iter().collect();
        let what = "look up the files of a commit";
        let mut found = BTreeMap::new();
        // The kernel limits how long all arguments may be together.
        for some in touched.chunks(200) {
            let mut args = vec!["ls-tree", "-z", "-t", "--full-tree", self.object_name(parent.as_str())?, "--"];
            args.extend(some);
            let answer = self.ask(what, &args, []).await?;
            for record in answer.split(|b| *b == 0).filter(|record| !record.is_empty()) {
                let tab = record.iter().position(|b| *b == b'\t').ok_or_else(|| GitError::answer(what, record))?;
                let mode = String::from_utf8_lossy(&record[..6]).into_owned();
                found.insert(path::text(&record[tab + 1..]), Mode::parse(&mode));
            }
        }
        let mut modes = BTreeMap::new();
        for (path, content) in &request.changes {
            check_place(path, content.is_some(), &found, &request.changes)?;
            if let Some(Some(mode)) = found.get(path) {
                modes.insert(path.clone(), *mode);
            }
        }
        Ok(modes)
    }

    /// Writes the new contents as blobs. Returns their ids by path.
    async fn write_blobs<'a>(
        &self,
        scratch: &Scratch,
        request: &'a CommitRequest,
    ) -> Result<BTreeMap<&'a str, String>, GitError> {
        let contents: Vec<(&str, &Vec<u8>)> =
            request.changes.iter().filter_map(|(path, content)| Some((path.as_str(), content.as_ref()?))).collect();
        let mut list = String::new();
        for (index, (_, content)) in contents.iter().enumerate() {
            let file = scratch.path().join(index.to_string());
            tokio::fs::write(&file, content).await.map_err(|error| GitError::io(&file, error))?;
            list.push_str(&format!("{index}\n"));
        }
        if contents.is_empty() {
            return Ok(BTreeMap::new());
        }
        let what = "write files";
        let mut command = self.git().command(scratch.path());
        command.env("GIT_DIR", self.dir()).args(["hash-object", "-w", "--no-filters", "--stdin-paths"]);
        let answer = process::run(command, what, list, ANSWER).await?.success(what)?;
        let ids: Vec<String> = String::from_utf8_lossy(&answer).lines().map(str::to_owned).collect();
        if ids.len() != contents.len() {
            return Err(GitError::answer(what, &answer));
        }
        Ok(contents.into_iter().map(|(path, _)| path).zip(ids).collect())
    }

    /// Writes the tree of the commit through an index of its own.
    async fn write_tree(
        &self,
        scratch: &Scratch,
        request: &CommitRequest,
        modes: &BTreeMap<String, Mode>,
        blobs: &BTreeMap<&str, String>,
    ) -> Result<String, CommitError> {
        let what = "write a tree";
        let index = scratch.path().join("index");
        let with_index = |args: &[&str]| {
            let mut command = self.command();
            // The index is thrown away: only what stays must reach the disk.
            command.env("GIT_INDEX_FILE", &index).args(["-c", "core.fsync=all,-index"]).args(args);
            command
        };
        let start = match &request.parent {
            Some(parent) => self.object_name(parent.as_str())?,
            None => "--empty",
        };
        process::run(with_index(&["read-tree", start]), what, [], ANSWER).await?.success(what)?;
        // Deletions first: a file may make place for a directory.
        let none = "0".repeat(self.digits());
        let mut edits = String::new();
        for path in request.changes.iter().filter(|(_, content)| content.is_none()).map(|(path, _)| path) {
            edits.push_str(&format!("0 {none}\t{path}\0"));
        }
        for (path, blob) in blobs {
            let mode = modes.get(*path).copied().unwrap_or(Mode::File);
            edits.push_str(&format!("{} {blob}\t{path}\0", mode.octal()));
        }
        if !edits.is_empty() {
            let command = with_index(&["update-index", "-z", "--index-info"]);
            let output = process::run(command, what, edits, ANSWER).await?;
            // Spellings that other file systems fold into .git are left out of the index, which is no failure for git.
            if let Some(ignored) = output.stderr.lines().find_map(|line| line.strip_prefix("Ignoring path ")) {
                return Err(CommitError::Path { path: path::clip(ignored), why: "git does not allow it".to_owned() });
            }
            output.success(what)?;
        }
        let answer = process::run(with_index(&["write-tree"]), what, [], ANSWER).await?.success(what)?;
        Ok(id_in(what, &answer)?)
    }

    async fn write_commit(&self, request: &CommitRequest, tree: &str) -> Result<CommitId, GitError> {
        let what = "write a commit";
        let date = format!("@{} +0000", request.when.seconds());
        let mut command = self.command();
        command.args(["commit-tree", tree, "-F", "-"]);
        if let Some(parent) = &request.parent {
            command.args(["-p", parent.as_str()]);
        }
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), &request.author_name);
            command.env(format!("GIT_{who}_EMAIL"), &request.author_email);
            command.env(format!("GIT_{who}_DATE"), &date);
        }
        let message = format!("{}\n", request.message.trim_end_matches('\n'));
        let answer = process::run(command, what, message, ANSWER).await?.success(what)?;
        id_in(what, &answer)?.parse().map_err(|_| GitError::answer(what, &answer))
    }
}

/// The object name that a command answered.
fn id_in(what: &str, answer: &[u8]) -> Result<String, GitError> {
    let text = String::from_utf8_lossy(answer).trim().to_owned();
    if text.parse::<CommitId>().is_ok() { Ok(text) } else { Err(GitError::answer(what, answer)) }
}

/// `a`, `a/b` and `a/b/c` of `a/b/c`.
fn ancestors_and_self(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(end, _)| &path[..end]).chain([path])
}

/// What can be said of a request without looking at the repository.
fn check(request: &CommitRequest) -> Result<(), CommitError> {
    for path in request.changes.keys() {
        if let Some(why) = path::forbidden(path.as_bytes()) {
            return Err(CommitError::Path { path: path::clip(path), why: why.to_owned() });
        }
    }
    for (path, _) in request.changes.iter().filter(|(_, content)| content.is_some()) {
        let above = ancestors_and_self(path)
            .find(|above| above.len() < path.len() && request.changes.get(*above).is_some_and(Option::is_some));
        if let Some(above) = above {
            let why = format!("{:?} is written as a file too", path::clip(above));
            return Err(CommitError::Path { path: path::clip(path), why });
        }
    }
    let named = |text: &str| text.chars().any(char::is_alphanumeric);
    for (field, value, fits) in
        [("name", &request.author_name, named(&request.author_name)), ("address", &request.author_email, true)]
    {
        if !fits || value.chars().any(|c| c.is_control() || matches!(c, '<' | '>')) {
            return Err(CommitError::Author { field, value: path::clip(value) });
        }
    }
    if request.message.trim().is_empty() || request.message.contains('\0') {
        return Err(CommitError::Message);
    }
    if request.when.0 < 0 { Err(CommitError::Time(request.when)) } else { Ok(()) }
}

/// Refuses a path that leads through something that is no directory, or that is no file. In `found`, a directory has no
/// mode.
fn check_place(
    path: &str,
    written: bool,
    found: &BTreeMap<String, Option<Mode>>,
    changes: &BTreeMap<String, Option<Vec<u8>>>,
) -> Result<(), CommitError> {
    let refuse = |why: String| Err(CommitError::Path { path: path::clip(path), why });
    for place in ancestors_and_self(path) {
        let itself = place.len() == path.len();
        match found.get(place) {
            None => {}
            Some(None) if itself => return refuse("it is a directory".to_owned()),
            Some(Some(Mode::Symlink)) if !itself => return refuse(format!("{place:?} is a symbolic link")),
            Some(Some(Mode::Gitlink)) if !itself => return refuse(format!("{place:?} is a submodule")),
            Some(Some(Mode::Symlink)) if written => return refuse("it is a symbolic link".to_owned()),
            Some(Some(Mode::Gitlink)) if written => return refuse("it is a submodule".to_owned()),
            Some(Some(_)) if !itself && written && !matches!(changes.get(place), Some(None)) => {
                return refuse(format!("{place:?} is a file"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
