//! What can go wrong with accounts and tokens.

use store::RecordsError;

/// Why an account, a token or a right could not be made, found or changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The credentials are of nobody. Which part is wrong is not said.
    #[error("the user name or token is wrong, revoked or expired")]
    BadCredentials,
    /// The `Authorization` header cannot be read.
    #[error("the Authorization header is {0}")]
    BadHeader(&'static str),
    /// A name cannot be that of a user or organisation.
    #[error("{0:?} cannot be the name of a user or organisation: letters, digits, . _ -, not a reserved name")]
    BadName(String),
    /// A user or organisation has this name already, perhaps in another case.
    #[error("there is a user or organisation {0:?} already")]
    Exists(String),
    /// There is no such user.
    #[error("there is no user {0:?}")]
    NoUser(String),
    /// There is no such organisation.
    #[error("there is no organisation {0:?}")]
    NoOrganisation(String),
    /// There is no such repository here.
    #[error("there is no repository {0:?}")]
    NoRepository(String),
    /// There is no such token.
    #[error("there is no token {0}")]
    NoToken(String),
    /// The name of a token is empty, too long or in use by this user.
    #[error("{0:?} cannot be the name of a token: 1 to 100 characters, not in use by the same user")]
    BadTokenName(String),
    /// There is no such robot.
    #[error("there is no robot {0}")]
    NoRobot(String),
    /// A robot's name cannot be one.
    #[error("{0:?} cannot be the name of a robot: 1 to 60 of a-z 0-9 . _ -, a letter or digit first")]
    BadRobotName(String),
    /// What a robot may do is not said, or not known.
    #[error("{0:?}: a robot needs one or more of pull, push, delete")]
    BadRobotActions(String),
    /// A robot's or group's pattern leads out of its owner's name.
    #[error("{pattern:?} is not within {owner}/: begin it so")]
    PatternElsewhere {
        /// The pattern.
        pattern: String,
        /// The owner.
        owner: String,
    },
    /// A robot has no pattern, or too many.
    #[error("a robot needs 1 to 20 patterns of images such as acme/*, not {0}")]
    PatternCount(usize),
    /// A line of an htpasswd file cannot be taken over.
    #[error("line {line} of the htpasswd file {why}")]
    Htpasswd {
        /// Which, from 1.
        line: usize,
        /// What is wrong. The line itself is not shown.
        why: &'static str,
    },
    /// More passwords are being checked than this machine can.
    #[error("too many passwords are being checked; try again")]
    Busy,
    /// An issuer or provider of the configuration cannot be used.
    #[error("the roots to trust cannot be read: {0}")]
    Identities(String),
    /// There is no such provider of identities.
    #[error("there is no provider {0:?} in spec.access.oidc of the server's file")]
    NoProvider(String),
    /// Nobody said which user this is.
    #[error("{0:?} is nobody's name here, or not known to be yours; an administrator can link you to a user")]
    Unlinked(String),
    /// There is no such group in this organisation.
    #[error("there is no group {0:?}")]
    NoGroup(String),
    /// A token without a scope could do nothing.
    #[error("a token needs at least one scope of: {}", crate::Scope::names())]
    NoScope,
    /// A text is not a scope.
    #[error("{0:?} is not a scope: expected one of {names}", names = crate::Scope::names())]
    BadScope(String),
    /// A text is not a role.
    #[error("{0:?} is not a role: expected read, write or admin")]
    BadRole(String),
    /// A user who owns repositories is not deleted.
    #[error("user {user:?} still owns {repositories} repositories: remove or move them first")]
    OwnsRepositories {
        /// The user.
        user: String,
        /// How many.
        repositories: i64,
    },
    /// Without an administrator nobody could make one.
    #[error("{0:?} is the last administrator")]
    LastAdministrator(String),
    /// An organisation without somebody to manage it could not be changed any more.
    #[error("{0:?} is the last who manages the organisation")]
    LastManager(String),
    /// The records failed.
    #[error(transparent)]
    Records(RecordsError),
}

/// Leaves a transaction with this error.
impl From<AccessError> for RecordsError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Records(error) => error,
            error => Self::room(error),
        }
    }
}

/// The error that a transaction was left with.
impl From<RecordsError> for AccessError {
    fn from(error: RecordsError) -> Self {
        error.into_room().unwrap_or_else(Self::Records)
    }
}
