//! Reading the tree of a commit.

use model::CommitId;

use crate::{GitError, Repository, path, process};

/// What a tree says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// A file.
    File,
    /// A file that can be executed.
    Executable,
    /// A symbolic link; its blob is the target.
    Symlink,
    /// A commit of another repository: a submodule, of which nothing is here.
    Gitlink,
}

impl Mode {
    /// The mode in its octal digits, as git prints it. Directories are none.
    pub(crate) fn parse(digits: &str) -> Option<Self> {
        match u32::from_str_radix(digits, 8).ok()? {
            0o120_000 => Some(Self::Symlink),
            0o160_000 => Some(Self::Gitlink),
            mode if mode & !0o7777 != 0o100_000 => None,
            mode if mode & 0o100 != 0 => Some(Self::Executable),
            _ => Some(Self::File),
        }
    }

    /// The octal digits that git writes (`100644`).
    pub const fn octal(self) -> &'static str {
        match self {
            Self::File => "100644",
            Self::Executable => "100755",
            Self::Symlink => "120000",
            Self::Gitlink => "160000",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::File | Self::Executable => "a file",
            Self::Symlink => "a symbolic link",
            Self::Gitlink => "a submodule",
        }
    }
}

/// A file of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeEntry {
    /// From the root of the repository, whatever part of the tree was asked for. Bytes that are not UTF-8 stand as
    /// U+FFFD and two hexadecimal digits each.
    pub path: String,
    /// What it is.
    pub mode: Mode,
    /// The full name of its object: a blob, or for [`Mode::Gitlink`] a commit elsewhere.
    pub object: String,
    /// The length of the blob in bytes; nothing for [`Mode::Gitlink`].
    pub size: Option<u64>,
}

impl Repository {
    /// The files of `commit` at and below `path` (everything if it is empty), in git's order. Empty if there is none.
    ///
    /// # Errors
    /// When the commit does not exist, the path is absolute or contains `..`, there are more than a million files, or
    /// git fails.
    pub async fn tree(&self, commit: &CommitId, path: &str) -> Result<Vec<TreeEntry>, GitError> {
        let path = path::normal(path)?;
        let mut listing = self.listing(commit.as_str(), Some(&path), true)?;
        let mut entries = Vec::new();
        loop {
            match listing.next().await {
                Ok(Some(files)) => entries.extend(files.into_iter().map(|file| TreeEntry {
                    path: path::text(&file.path),
                    mode: file.mode,
                    object: file.object,
                    size: file.size,
                })),
                Ok(None) => return Ok(entries),
                Err(error) => return Err(self.or_no_object(commit, error).await),
            }
        }
    }

    /// The tree object of the directory `path` of a commit (its root if it is empty). Nothing if there is no directory.
    ///
    /// # Errors
    /// When the commit does not exist, the path is absolute or contains `..`, or git fails.
    pub async fn tree_id(&self, commit: &CommitId, path: &str) -> Result<Option<String>, GitError> {
        let path = path::normal(path)?;
        let commit = self.object_name(commit.as_str())?;
        let what = "look up a directory";
        let args = ["cat-file", "-z", "--batch-check=%(objecttype) %(objectname)"];
        let answer = self.ask(what, &args, format!("{commit}\0{commit}:{path}\0")).await?;
        let text = String::from_utf8_lossy(&answer);
        if !text.starts_with("commit ") {
            return Err(GitError::NoObject { object: commit.to_string() });
        }
        // The line of a path that is not there repeats the path, which may look like anything; a found one is last.
        let last = text.trim_end_matches('\n').lines().nth(1).unwrap_or_default();
        let found = last.strip_prefix("tree ").filter(|id| id.parse::<CommitId>().is_ok());
        Ok(found.filter(|_| text.lines().count() == 2).map(str::to_owned))
    }

    /// The content of the file `path` of a commit. Nothing if there is nothing at the path.
    ///
    /// # Errors
    /// When it is a directory, a symbolic link (which is not followed) or a submodule, when it is longer than `limit`
    /// bytes, when the commit does not exist, or git fails.
    pub async fn read_file(&self, commit: &CommitId, path: &str, limit: u64) -> Result<Option<Vec<u8>>, GitError> {
        let path = path::normal(path)?;
        let wrong = |found| GitError::WrongKind { path: path.clone(), found, wanted: "a file" };
        let what = "look up a file";
        // Without -r: a directory is one entry.
        let args = ["ls-tree", "-z", "-l", "--full-tree", self.object_name(commit.as_str())?, "--", &path];
        if path.is_empty() {
            return Err(wrong("a directory"));
        }
        let answer = match self.ask(what, &args, []).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.or_no_object(commit, error).await),
        };
        let Some(tab) = answer.iter().position(|b| *b == b'\t') else { return Ok(None) };
        let head = String::from_utf8_lossy(&answer[..tab]);
        let fields: Vec<&str> = head.split_ascii_whitespace().collect();
        let [mode, kind, object, size] = fields[..] else { return Err(GitError::answer(what, &answer)) };
        match Mode::parse(mode) {
            Some(Mode::File | Mode::Executable) => {}
            Some(other) => return Err(wrong(other.name())),
            None if kind == "tree" => return Err(wrong("a directory")),
            None => return Err(GitError::answer(what, &answer)),
        }
        if size.parse::<u64>().map_or(true, |size| size > limit) {
            return Err(GitError::TooLarge { what: path, limit, unit: "bytes" });
        }
        let mut command = self.command();
        command.args(["cat-file", "blob", object]);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX - 1);
        process::run(command, "read a file", [], limit).await?.success("read a file").map(Some)
    }

    /// `error`, or that the commit does not exist if that is its reason.
    pub(crate) async fn or_no_object(&self, commit: &CommitId, error: GitError) -> GitError {
        match error {
            GitError::Failed { .. } => match self.has_commit(commit).await {
                Ok(false) => GitError::NoObject { object: commit.to_string() },
                Ok(true) => error,
                Err(other) => other,
            },
            _ => error,
        }
    }
}
