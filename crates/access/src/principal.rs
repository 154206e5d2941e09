//! Who asks.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use model::{JobId, RepoName, RunId, TokenId, UserId};
use serde::{Deserialize, Serialize};

use crate::AccessError;

/// Who asks for something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody in particular.
    Anonymous,
    /// A user, by one of their tokens.
    User(User),
    /// A robot, by its token.
    Robot(RobotPrincipal),
    /// A job of a workflow run, by the token it was given.
    Job(JobPrincipal),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::User(user) => f.write_str(&user.name),
            Self::Robot(robot) => f.write_str(&robot.login),
            Self::Job(job) => write!(f, "job {} of {}", job.job, job.repository),
        }
    }
}

impl Principal {
    /// The user, if it is one.
    pub const fn user(&self) -> Option<&User> {
        match self {
            Self::User(user) => Some(user),
            Self::Anonymous | Self::Robot(_) | Self::Job(_) => None,
        }
    }
}

/// A user who has shown a token. Made only by authentication.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    pub(crate) id: UserId,
    pub(crate) name: String,
    pub(crate) admin: bool,
    pub(crate) token: TokenId,
    pub(crate) scopes: BTreeSet<Scope>,
}

impl User {
    /// Their id.
    pub const fn id(&self) -> UserId {
        self.id
    }

    /// Their name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether they administer the server.
    pub const fn is_admin(&self) -> bool {
        self.admin
    }

    /// The token they have shown.
    pub const fn token(&self) -> TokenId {
        self.token
    }

    /// What that token is good for.
    pub const fn scopes(&self) -> &BTreeSet<Scope> {
        &self.scopes
    }
}

/// A robot that has shown its token. Made only by authentication.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RobotPrincipal {
    pub(crate) id: i64,
    pub(crate) login: String,
}

impl RobotPrincipal {
    /// Its id.
    pub const fn id(&self) -> i64 {
        self.id
    }

    /// The user name it signs in with: `acme+deploy`.
    pub fn login(&self) -> &str {
        &self.login
    }
}

/// A job, and what its token is good for: its own repository and that repository's images, and reading what is public.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobPrincipal {
    /// The repository of the run.
    pub repository: RepoName,
    /// The run.
    pub run: RunId,
    /// The job.
    pub job: JobId,
    /// `permissions: contents`: the repository.
    pub contents: Level,
    /// `permissions: packages`: its images.
    pub packages: Level,
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),* $(,)? }, $error:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant),*
        }

        impl $name {
            /// All of them, from the least.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name people and programs use.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = AccessError;

            fn from_str(text: &str) -> Result<Self, AccessError> {
                let found = Self::ALL.iter().copied().find(|value| value.name() == text);
                found.ok_or_else(|| $error(text.chars().take(80).collect()))
            }
        }
    };
}

named! {
    /// What a job's token is good for in one area.
    Level {
        /// Nothing that is not public.
        None = "none",
        /// Reading.
        Read = "read",
        /// Reading and writing.
        Write = "write",
    },
    AccessError::BadRole
}

named! {
    /// What a member may do with all repositories of an organisation, or a collaborator with one. Each includes the one
    /// before it.
    Role {
        /// Clone, pull, look at runs.
        Read = "read",
        /// Push, and start runs.
        Write = "write",
        /// Change settings and rights, delete.
        Admin = "admin",
    },
    AccessError::BadRole
}

named! {
    /// What a token is good for. It never gives more than its user has.
    Scope {
        /// Read repositories, their runs and logs.
        ReadRepository = "read:repository",
        /// Also push, make repositories and start runs.
        WriteRepository = "write:repository",
        /// Pull images.
        ReadPackage = "read:package",
        /// Also push and delete images.
        WritePackage = "write:package",
        /// Settings and rights of repositories, organisations and the server.
        Admin = "admin",
        /// Everything.
        All = "all",
    },
    AccessError::BadScope
}

impl Scope {
    /// All names, for a message.
    pub(crate) fn names() -> String {
        Self::ALL.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(", ")
    }

    /// Whether a token with this scope may do what needs `wanted`.
    pub fn includes(self, wanted: Self) -> bool {
        self == wanted
            || match self {
                Self::All => true,
                Self::WriteRepository => wanted == Self::ReadRepository,
                Self::WritePackage => wanted == Self::ReadPackage,
                Self::ReadRepository | Self::ReadPackage | Self::Admin => false,
            }
    }
}

/// Scopes as they are stored: names with spaces between them.
pub(crate) fn join_scopes(scopes: &[Scope]) -> String {
    let scopes: BTreeSet<Scope> = scopes.iter().copied().collect();
    scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(" ")
}

/// The reverse of [`join_scopes`].
pub(crate) fn split_scopes(text: &str) -> Result<BTreeSet<Scope>, AccessError> {
    text.split_ascii_whitespace().map(str::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_by_name_and_what_they_include() {
        assert_eq!("write:package".parse::<Scope>().unwrap(), Scope::WritePackage);
        let error = "sudo".parse::<Scope>().unwrap_err().to_string();
        assert!(error.starts_with("\"sudo\" is not a scope") && error.contains("read:repository"), "{error}");
        assert!(Scope::WritePackage.includes(Scope::ReadPackage));
        assert!(!Scope::ReadPackage.includes(Scope::WritePackage));
        assert!(!Scope::Admin.includes(Scope::ReadRepository));
        assert!(Scope::ALL.iter().all(|scope| Scope::All.includes(*scope)));
        let stored = join_scopes(&[Scope::WritePackage, Scope::ReadRepository, Scope::WritePackage]);
        assert_eq!(stored, "read:repository write:package");
        assert_eq!(split_scopes(&stored).unwrap().len(), 2);
    }
}
