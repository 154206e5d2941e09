//! The files of a tree, as `git ls-tree -r -z` tells them, without holding all of them at once.

use std::process::Stdio;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout};

use crate::{GitError, Mode, Repository, path, process};

/// How many files one tree may have. A few hundred bytes of nested trees can stand for any number.
pub(crate) const MOST_FILES: u64 = 1_000_000;

/// One file, with its path as bytes.
pub(crate) struct Listed {
    pub(crate) mode: Mode,
    pub(crate) object: String,
    pub(crate) size: Option<u64>,
    pub(crate) path: Vec<u8>,
}

/// A running `git ls-tree`.
pub(crate) struct Listing {
    child: Child,
    stdout: ChildStdout,
    unread: Vec<u8>,
    count: u64,
}

const WHAT: &str = "list a tree";

impl Repository {
    /// Lists the files of a tree, recursively; of a commit's `path` if one is given, else of the whole tree.
    pub(crate) fn listing(&self, tree: &str, path: Option<&str>, sizes: bool) -> Result<Listing, GitError> {
        let tree = self.object_name(tree)?;
        let mut command = self.command();
        command.args(["ls-tree", "-r", "-z", "--full-tree"]).args(sizes.then_some("-l")).arg(tree).arg("--");
        command.args(path.filter(|path| !path.is_empty()));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| GitError::run(WHAT, error))?;
        let Some(stdout) = child.stdout.take() else {
            return Err(GitError::run(WHAT, std::io::ErrorKind::BrokenPipe.into()));
        };
        Ok(Listing { child, stdout, unread: Vec::with_capacity(128 << 10), count: 0 })
    }
}

impl Listing {
    /// The next files; nothing at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Listed>>, GitError> {
        loop {
            self.unread.reserve(64 << 10);
            let count = self.stdout.read_buf(&mut self.unread).await.map_err(|error| GitError::run(WHAT, error))?;
            if count == 0 {
                self.end().await?;
                return Ok(None);
            }
            let Some(end) = self.unread.iter().rposition(|b| *b == 0) else { continue };
            let files = self.unread[..end].split(|b| *b == 0).map(parse).collect::<Result<Vec<_>, _>>()?;
            self.unread.drain(..=end);
            self.count += files.len() as u64;
            if self.count > MOST_FILES {
                return Err(GitError::TooLarge { what: "the tree".to_owned(), limit: MOST_FILES, unit: "files" });
            }
            return Ok(Some(files));
        }
    }

    async fn end(&mut self) -> Result<(), GitError> {
        let stderr = process::tail(self.child.stderr.take()).await;
        let status = self.child.wait().await.map_err(|error| GitError::run(WHAT, error))?;
        if !status.success() {
            return Err(GitError::failed(WHAT, process::message(status, &stderr)));
        }
        if self.unread.is_empty() { Ok(()) } else { Err(GitError::answer(WHAT, &self.unread)) }
    }
}

/// One record: `100644 blob 8b137891… [    1]\tpath`.
fn parse(record: &[u8]) -> Result<Listed, GitError> {
    let bad = || GitError::answer(WHAT, record);
    let tab = record.iter().position(|b| *b == b'\t').ok_or_else(bad)?;
    let head = std::str::from_utf8(&record[..tab]).map_err(|_| bad())?;
    let mut fields = head.split_ascii_whitespace();
    let mode = fields.next().and_then(Mode::parse).ok_or_else(bad)?;
    let object = fields.nth(1).ok_or_else(bad)?.to_owned();
    let size = fields.next().and_then(|size| size.parse().ok());
    let path = record[tab + 1..].to_vec();
    if path.len() > 1 << 20 {
        return Err(GitError::BadPath { path: path::clip(&path::text(&path)), why: "it is longer than 1 MiB" });
    }
    Ok(Listed { mode, object, size, path })
}
