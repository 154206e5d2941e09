//! Names of repositories, refs and commits.

use std::fmt;
use std::str::FromStr;

use crate::DeliveryId;
use crate::digest::clip;

/// Why a text is not a name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not valid: expected {expected}")]
pub struct NameError {
    kind: &'static str,
    value: String,
    expected: &'static str,
}

impl NameError {
    /// An error for `value`, which should have been a `kind` of the form `expected`.
    pub fn new(kind: &'static str, value: String, expected: &'static str) -> Self {
        Self { kind, value, expected }
    }
}

/// Serialises types whose text form is their only form.
macro_rules! text_serde {
    ($($name:ty),*) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
pub(crate) use text_serde;

/// Owner names that routes of the protocols take.
pub const RESERVED_OWNERS: [&str; 14] = [
    "-", "admin", "api", "assets", "explore", "healthz", "hook", "livez", "login", "metrics", "readyz", "towpath",
    "twirp", "v2",
];

/// A repository: `owner/name`.
///
/// Each part begins with a letter or digit and goes on with letters, digits, `.`, `_` and `-`, at most 100 bytes; `..`,
/// a trailing `.`, `.git` and `.lock` and the reserved owners are refused. Compared as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepoName {
    owner: String,
    name: String,
}

impl RepoName {
    /// The user or organisation.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The part after the slash.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether `part` may stand on either side of the slash; owners have the reserved names taken off as well.
    pub fn valid_owner(part: &str) -> bool {
        valid_part(part) && !RESERVED_OWNERS.contains(&part.to_ascii_lowercase().as_str())
    }
}

fn valid_part(part: &str) -> bool {
    let lower = part.to_ascii_lowercase();
    part.len() <= 100
        && part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !part.contains("..")
        && !part.ends_with('.')
        && !lower.ends_with(".git")
        && !lower.ends_with(".lock")
}

impl FromStr for RepoName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((owner, name)) if Self::valid_owner(owner) && valid_part(name) => {
                Ok(Self { owner: owner.to_owned(), name: name.to_owned() })
            }
            _ => {
                Err(NameError::new("repository", clip(text), "owner/name of letters, digits, . _ -, no reserved owner"))
            }
        }
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// A git commit by its full object name: 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommitId(String);

impl CommitId {
    /// The full object name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..8]
    }
}

impl FromStr for CommitId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if digits && matches!(text.len(), 40 | 64) && text.bytes().any(|b| b != b'0') {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::new("commit", clip(text), "40 or 64 lower-case hexadecimal digits"))
        }
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A full ref name (`refs/heads/main`), by the rules of `git check-ref-format`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefName(String);

impl RefName {
    /// The ref of a branch.
    ///
    /// # Errors
    /// When `branch` cannot be the name of one.
    pub fn branch(branch: &str) -> Result<Self, NameError> {
        format!("refs/heads/{branch}").parse()
    }

    /// The full name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The branch name, if this is a branch.
    pub fn as_branch(&self) -> Option<&str> {
        self.0.strip_prefix("refs/heads/")
    }

    /// The tag name, if this is a tag.
    pub fn as_tag(&self) -> Option<&str> {
        self.0.strip_prefix("refs/tags/")
    }

    /// The branch or tag name without its prefix, as `GITHUB_REF_NAME` has it.
    pub fn short(&self) -> &str {
        self.as_branch().or_else(|| self.as_tag()).unwrap_or(&self.0)
    }
}

fn valid_ref(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let byte = |b: u8| b > 0x20 && b != 0x7f && !b"~^:?*[\\".contains(&b);
    text.len() <= 1024
        && text.starts_with("refs/")
        && text.split('/').all(part)
        && text.bytes().all(byte)
        && !text.contains("..")
        && !text.contains("@{")
        && !text.ends_with('.')
}

impl FromStr for RefName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if valid_ref(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::new("ref", clip(text), "refs/… as git check-ref-format allows it"))
        }
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The ref that holds the commit of one delivery. Only the server writes below its prefix, once per delivery.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotRef(RefName);

impl SnapshotRef {
    /// What every snapshot ref begins with.
    pub const PREFIX: &'static str = "refs/towpath/snapshots/";

    /// The snapshot ref of a delivery.
    pub fn of(delivery: DeliveryId) -> Self {
        Self(RefName(format!("{}{delivery}", Self::PREFIX)))
    }

    /// The full ref name.
    pub fn as_ref_name(&self) -> &RefName {
        &self.0
    }

    /// The full ref name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for SnapshotRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let id = text.strip_prefix(Self::PREFIX).and_then(|id| id.parse::<i64>().ok());
        match id {
            Some(id) => Ok(Self::of(DeliveryId(id))),
            None => Err(NameError::new("snapshot ref", clip(text), "refs/towpath/snapshots/ and a delivery id")),
        }
    }
}

impl fmt::Display for SnapshotRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_serde!(RepoName, CommitId, RefName, SnapshotRef);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn repositories() {
        assert_eq!("demo/site".parse::<RepoName>().expect("valid").owner(), "demo");
        for bad in
            ["", "demo", "demo/", "/site", "a/b/c", "v2/x", "API/x", "a/..", "a/b.git", "-a/b", "a/b.lock", "a/b\n"]
        {
            assert!(bad.parse::<RepoName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn refs_by_git_rules() {
        assert_eq!(RefName::branch("--exec=x").expect("literal").as_branch(), Some("--exec=x"));
        for bad in [
            "main",
            "refs/heads/",
            "refs/heads/a..b",
            "refs/heads/a b",
            "refs/heads/.a",
            "refs/heads/a.lock",
            "refs/heads/@{",
        ] {
            assert!(bad.parse::<RefName>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panic(text in ".*") {
            let _ = (text.parse::<RepoName>(), text.parse::<RefName>(), text.parse::<CommitId>(), text.parse::<SnapshotRef>());
        }
    }
}
