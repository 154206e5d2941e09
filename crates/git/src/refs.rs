//! Reading refs, and moving them by compare-and-swap.

use std::fmt;

use model::{CommitId, RefName};

use crate::{GitError, Repository, process};

/// Where a ref must stand for it to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Anywhere.
    Any,
    /// Nowhere: it must not exist.
    Absent,
    /// At this object.
    At(CommitId),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("anywhere"),
            Self::Absent => f.write_str("absent"),
            Self::At(id) => write!(f, "at {}", id.short()),
        }
    }
}

/// Why a ref was not moved.
#[derive(Debug, thiserror::Error)]
pub enum RefError {
    /// It does not stand where it was expected: somebody else moved it.
    #[error("{name} is {}, expected {expected}", found.as_ref().map_or("absent".to_owned(), |id| format!("at {}", id.short())))]
    Conflict {
        /// The ref.
        name: RefName,
        /// Where it should be.
        expected: Expected,
        /// Where it is.
        found: Option<CommitId>,
    },
    /// A ref whose name begins with this one and a slash exists, or the other way round.
    #[error("{name} cannot exist beside {other}")]
    Nested {
        /// The ref.
        name: RefName,
        /// The one in its way.
        other: String,
    },
    /// Git failed.
    #[error(transparent)]
    Git(#[from] GitError),
}

/// A ref and what it holds.
struct Listed {
    name: RefName,
    target: Target,
}

/// The object of a ref. Its id is not always that of a commit, but is written alike.
enum Target {
    Commit(CommitId),
    /// An annotated tag, and its commit.
    Tagged(CommitId, CommitId),
    /// An annotated tag of something else.
    Tag(CommitId),
    Other(CommitId),
}

impl Repository {
    /// The commit that `name` stands for: a commit id, full or abbreviated to at least seven digits, `HEAD`, a full ref
    /// name, a branch or a tag.
    ///
    /// A full id is an id, anything else is looked up as a ref first. Operators of git (`~2`, `@{…}`, `:/text`) and
    /// options have no effect. Nothing if there is no such commit, or an abbreviation is not unique.
    ///
    /// # Errors
    /// When git fails.
    pub async fn resolve(&self, name: &str) -> Result<Option<CommitId>, GitError> {
        if let Ok(id) = name.parse::<CommitId>() {
            return Ok(self.has_commit(&id).await?.then_some(id));
        }
        let names = if name == "HEAD" { vec![self.head().await?] } else { ref_names(name) };
        if !names.is_empty() {
            let patterns: Vec<&str> = names.iter().map(RefName::as_str).collect();
            let listed = self.list_refs(&patterns).await?;
            for name in &names {
                if let Some(found) = listed.iter().find(|listed| listed.name == *name) {
                    return self.commit_of(found).await;
                }
            }
        }
        let digits = name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if digits && (7..64).contains(&name.len()) {
            let found = self.peel(name).await?;
            return Ok(found.filter(|id| id.as_str().starts_with(name)));
        }
        Ok(None)
    }

    /// The refs whose full names begin with `prefix` (`refs/heads/`; everything if it is empty), sorted, with the
    /// commits they lead to. Annotated tags are followed; a ref that leads to no commit is left out.
    ///
    /// # Errors
    /// When git fails, or the list is longer than 64 MiB.
    pub async fn refs(&self, prefix: &str) -> Result<Vec<(RefName, CommitId)>, GitError> {
        // Up to the last slash: git matches whole parts of a name only. A pattern is no prefix of a valid name.
        let pattern = prefix.rfind('/').map_or("", |end| &prefix[..end]);
        if prefix.bytes().any(|b| b <= b' ' || b"*?[\\~^:".contains(&b)) || pattern.starts_with('-') {
            return Ok(Vec::new());
        }
        let patterns: &[&str] = if pattern.is_empty() { &[] } else { &[pattern] };
        let mut refs = Vec::new();
        for listed in self.list_refs(patterns).await? {
            if listed.name.as_str().starts_with(prefix)
                && let Some(commit) = self.commit_of(&listed).await?
            {
                refs.push((listed.name, commit));
            }
        }
        Ok(refs)
    }

    /// The refs that are one of `patterns` or below it; all if there is none.
    async fn list_refs(&self, patterns: &[&str]) -> Result<Vec<Listed>, GitError> {
        let what = "list refs";
        let format = "--format=%(objecttype) %(objectname) %(*objecttype) %(*objectname) %(refname)";
        let answer = self.ask(what, &[&["for-each-ref", format], patterns].concat(), []).await?;
        let mut all = Vec::new();
        for line in answer.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            // Names in other encodings than UTF-8 cannot be spoken of.
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let bad = || GitError::answer(what, line.as_bytes());
            let fields: Vec<&str> = line.splitn(5, ' ').collect();
            let [kind, object, target_kind, target, name] = fields[..] else { return Err(bad()) };
            let Ok(name) = name.parse() else { continue };
            let object = object.parse().map_err(|_| bad())?;
            let commit = match (kind, target_kind) {
                ("commit", _) => Target::Commit(object),
                ("tag", "commit") => Target::Tagged(object, target.parse().map_err(|_| bad())?),
                ("tag", _) => Target::Tag(object),
                _ => Target::Other(object),
            };
            all.push(Listed { name, target: commit });
        }
        Ok(all)
    }

    async fn commit_of(&self, listed: &Listed) -> Result<Option<CommitId>, GitError> {
        match &listed.target {
            Target::Commit(commit) | Target::Tagged(_, commit) => Ok(Some(commit.clone())),
            // A tag of a tag, which older versions of git do not follow to its end.
            Target::Tag(object) => self.peel(object.as_str()).await,
            Target::Other(_) => Ok(None),
        }
    }

    /// The commit that an object id leads to.
    async fn peel(&self, id: &str) -> Result<Option<CommitId>, GitError> {
        let args = ["cat-file", "--batch-check=%(objectname) %(objecttype)"];
        let answer = self.ask("look up an object", &args, format!("{id}^{{commit}}\n")).await?;
        let text = String::from_utf8_lossy(&answer);
        Ok(text.trim_end().strip_suffix(" commit").and_then(|id| id.parse().ok()))
    }

    /// Moves `name` to `new` if it stands where it is expected. Durable when this returns.
    ///
    /// # Errors
    /// [`RefError::Conflict`] when it stands elsewhere; the ref is then as it was.
    pub async fn update_ref(&self, name: &RefName, new: &CommitId, expected: Expected) -> Result<(), RefError> {
        if !self.has_commit(new).await? {
            return Err(GitError::NoObject { object: new.to_string() }.into());
        }
        let old = old_value(&expected, new);
        let input = format!("option no-deref\0update {name}\0{new}\0{old}\0");
        self.transact(name, input, expected).await
    }

    /// Deletes `name` if it stands where it is expected; a ref that does not exist is deleted already if `expected` is
    /// [`Expected::Any`] or [`Expected::Absent`]. Durable when this returns.
    ///
    /// # Errors
    /// [`RefError::Conflict`] when it stands elsewhere; the ref is then as it was.
    pub async fn delete_ref(&self, name: &RefName, expected: Expected) -> Result<(), RefError> {
        let found = self.raw_ref(name).await?;
        match (&found, &expected) {
            (None, Expected::Any | Expected::Absent) => return Ok(()),
            (Some(_), Expected::Absent) | (None, Expected::At(_)) => {
                return Err(RefError::Conflict { name: name.clone(), expected, found });
            }
            (Some(_), _) => {}
        }
        let old = if let Expected::At(old) = &expected { old.as_str() } else { "" };
        self.transact(name, format!("option no-deref\0delete {name}\0{old}\0"), expected).await
    }

    async fn transact(&self, name: &RefName, input: String, expected: Expected) -> Result<(), RefError> {
        let what = format!("move {name}");
        let mut command = self.command();
        // Once begun it is finished: a killed git leaves its lock behind.
        command.args(["update-ref", "--stdin", "-z"]).kill_on_drop(false);
        let output = process::run(command, &what, input, crate::repository::ANSWER).await?;
        if !output.status.success() {
            return Err(self.why_not_moved(name, expected, output.failure(&what)).await);
        }
        Ok(self.sync_ref(name).await?)
    }

    /// Tells a ref that stands elsewhere from everything else that can fail.
    async fn why_not_moved(&self, name: &RefName, expected: Expected, error: GitError) -> RefError {
        let found = match self.raw_ref(name).await {
            Ok(found) => found,
            Err(error) => return error.into(),
        };
        let as_expected = match &expected {
            Expected::Any => true,
            Expected::Absent => found.is_none(),
            Expected::At(old) => found.as_ref() == Some(old),
        };
        if !as_expected {
            return RefError::Conflict { name: name.clone(), expected, found };
        }
        match &error {
            GitError::Failed { message, .. } => match nested(message, name) {
                Some(other) => RefError::Nested { name: name.clone(), other },
                None => error.into(),
            },
            _ => error.into(),
        }
    }

    /// The object that a ref holds, which for an annotated tag is the tag.
    async fn raw_ref(&self, name: &RefName) -> Result<Option<CommitId>, GitError> {
        let listed = self.list_refs(&[name.as_str()]).await?;
        Ok(listed.into_iter().find(|listed| listed.name == *name).map(|listed| match listed.target {
            Target::Commit(object) | Target::Tagged(object, _) | Target::Tag(object) | Target::Other(object) => object,
        }))
    }

    /// Whether the repository has the commit.
    ///
    /// # Errors
    /// When git fails.
    pub async fn has_commit(&self, commit: &CommitId) -> Result<bool, GitError> {
        let args = ["cat-file", "--batch-check=%(objectname) %(objecttype)"];
        let answer = self.ask("look up a commit", &args, format!("{commit}\n")).await?;
        Ok(answer == format!("{commit} commit\n").as_bytes())
    }
}

/// What `update-ref -z` takes as the old value.
fn old_value(expected: &Expected, new: &CommitId) -> String {
    match expected {
        Expected::Any => String::new(),
        Expected::Absent => "0".repeat(new.as_str().len()),
        Expected::At(old) => old.to_string(),
    }
}

/// The ref in the way of `name`, in what git says of it (`'refs/heads/a' exists; cannot create 'refs/heads/a/b'`).
fn nested(message: &str, name: &RefName) -> Option<String> {
    let other = message.split('\'').find(|part| {
        let above = name.as_str().strip_prefix(part).is_some_and(|rest| rest.starts_with('/'));
        above || part.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('/'))
    })?;
    message.contains("exists").then(|| other.to_owned())
}

/// The refs that `name` may mean, the first one first.
fn ref_names(name: &str) -> Vec<RefName> {
    ["", "refs/heads/", "refs/tags/"].iter().filter_map(|prefix| format!("{prefix}{name}").parse().ok()).collect()
}
