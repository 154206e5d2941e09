//! Reading commits and what lies between them.

use model::{CommitId, Timestamp};

use crate::{GitError, Repository, path, process};

/// How much of a commit is read, in bytes.
const LONGEST: usize = 16 << 20;

/// What a commit says of itself. Texts in other encodings are converted to UTF-8, as far as that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitInfo {
    /// The object name of its tree.
    pub tree: String,
    /// Its parents, the first one first.
    pub parents: Vec<CommitId>,
    /// The author's name.
    pub author: String,
    /// The author's address.
    pub author_email: String,
    /// When it was committed; the epoch if that is not a time.
    pub committed: Timestamp,
    /// The first paragraph of the message as one line.
    pub subject: String,
    /// The whole message, without the newlines at its end.
    pub message: String,
}

impl Repository {
    /// What a commit says of itself.
    ///
    /// # Errors
    /// When the commit does not exist, is longer than 16 MiB, or git fails.
    pub async fn commit_info(&self, commit: &CommitId) -> Result<CommitInfo, GitError> {
        let what = "read a commit";
        let format = "--format=%T%x00%P%x00%an%x00%ae%x00%ct%x00%s%x00%B";
        let mut command = self.command();
        command.args(["log", "--no-walk", "--max-count=1", "--no-color", "--encoding=UTF-8", format]);
        command.arg(self.object_name(commit.as_str())?).arg("--");
        let answer = match process::run(command, what, [], LONGEST).await?.success(what) {
            Ok(answer) => answer,
            Err(error) => return Err(self.or_no_object(commit, error).await),
        };
        let bad = || GitError::answer(what, &answer);
        let text = String::from_utf8_lossy(&answer);
        let fields: Vec<&str> = text.splitn(7, '\0').collect();
        let [tree, parents, author, author_email, committed, subject, message] = fields[..] else { return Err(bad()) };
        Ok(CommitInfo {
            tree: tree.to_owned(),
            parents: parents
                .split(' ')
                .filter(|id| !id.is_empty())
                .map(str::parse)
                .collect::<Result<_, _>>()
                .map_err(|_| bad())?,
            author: author.to_owned(),
            author_email: author_email.to_owned(),
            committed: Timestamp(committed.parse::<i64>().unwrap_or(0).saturating_mul(1000)),
            subject: subject.to_owned(),
            message: message.trim_end_matches('\n').to_owned(),
        })
    }

    /// The newest of the last `limit` commits from `head` on whose message has the trailer `key: value`.
    ///
    /// Anybody who writes a commit message can write a trailer.
    ///
    /// # Errors
    /// When `key` is not letters, digits and `-`, the commit does not exist, or git fails.
    pub async fn find_trailer(
        &self,
        head: &CommitId,
        key: &str,
        value: &str,
        limit: usize,
    ) -> Result<Option<CommitId>, GitError> {
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(GitError::BadName { kind: "trailer key", value: path::clip(key) });
        }
        let what = "search the history";
        let count = format!("--max-count={limit}");
        let format = format!("--format=%H%x1f%(trailers:key={key},valueonly,unfold,separator=%x1f)");
        let args =
            ["log", "-z", "--no-color", "--encoding=UTF-8", &count, &format, self.object_name(head.as_str())?, "--"];
        let answer = match self.ask(what, &args, []).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.or_no_object(head, error).await),
        };
        let text = String::from_utf8_lossy(&answer);
        Ok(text.split('\0').find_map(|record| {
            let mut fields = record.split('\u{1f}');
            let id = fields.next()?;
            fields.any(|found| found.trim() == value.trim()).then(|| id.parse().ok())?
        }))
    }

    /// Whether `ancestor` is `descendant` or in its history: whether going from the one to the other is no force.
    ///
    /// # Errors
    /// When one of them does not exist, or git fails.
    pub async fn is_ancestor(&self, ancestor: &CommitId, descendant: &CommitId) -> Result<bool, GitError> {
        let what = "compare two commits";
        let mut command = self.command();
        command.args(["merge-base", "--is-ancestor"]);
        command.arg(self.object_name(ancestor.as_str())?).arg(self.object_name(descendant.as_str())?);
        let output = process::run(command, what, [], crate::repository::ANSWER).await?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => {
                let error = self.or_no_object(ancestor, output.failure(what)).await;
                Err(self.or_no_object(descendant, error).await)
            }
        }
    }

    /// The paths of the files that differ between two commits, sorted; all files of `new` if there is no `old`. A
    /// renamed file is there with both names. Written as [`TreeEntry::path`](crate::TreeEntry::path).
    ///
    /// # Errors
    /// When one of them does not exist, the list is longer than 64 MiB, or git fails.
    pub async fn changed_paths(&self, old: Option<&CommitId>, new: &CommitId) -> Result<Vec<String>, GitError> {
        let new_name = self.object_name(new.as_str())?;
        let what = "compare two trees";
        let args = match old {
            Some(old) => {
                let old = self.object_name(old.as_str())?;
                vec!["diff-tree", "-r", "-z", "--name-only", "--no-renames", "--no-ext-diff", old, new_name, "--"]
            }
            None => vec!["ls-tree", "-r", "-z", "--name-only", "--full-tree", new_name],
        };
        let answer = match self.ask(what, &args, []).await {
            Ok(answer) => answer,
            Err(error) => {
                let error = self.or_no_object(new, error).await;
                return Err(match old {
                    Some(old) => self.or_no_object(old, error).await,
                    None => error,
                });
            }
        };
        Ok(answer.split(|b| *b == 0).filter(|path| !path.is_empty()).map(path::text).collect())
    }
}
