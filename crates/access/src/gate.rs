//! The one gate: may this principal do this to that?

use std::fmt;

use model::{ImageName, RepoName};
use store::RecordsError;

use crate::standing::Right;
use crate::{Access, Principal, Scope};

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Look at it: clone, pull, list, read logs.
    Read,
    /// Add to it: push, make a repository, start a run.
    Write,
    /// Remove it.
    Delete,
    /// Change its settings and who may do what.
    Admin,
}

impl Action {
    /// The verb, for a message.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Admin => "administer",
        }
    }
}

/// What it is to be done to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// The server: its users, organisations and settings. Whoever is somebody may read; administrators do the rest.
    Server,
    /// A user or organisation. Writing is to make repositories there.
    Owner(String),
    /// A repository with its runs, logs and targets.
    Repository(RepoName),
    /// An image `owner/name` or `owner/name/…`: as the repository `owner/name` if there is one, else as its owner.
    Image(ImageName),
    /// An image of another registry that is pulled through this one. Whoever is somebody may read it, and everybody if it is
    /// open; administrators of the server may remove it; nobody writes to it.
    Cached {
        /// Its name here.
        image: ImageName,
        /// Whether everybody may read it.
        open: bool,
    },
    /// The list of all images: for administrators of the server, and for everybody if all images are.
    Images,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str("the server"),
            Self::Owner(name) => write!(f, "{name}"),
            Self::Repository(name) => write!(f, "repository {name}"),
            Self::Image(name) => write!(f, "image {name}"),
            Self::Cached { image, .. } => write!(f, "image {image}"),
            Self::Images => f.write_str("the list of all images"),
        }
    }
}

/// Proof that a principal may do something. Only [`Access::authorize`] makes it; handlers ask for it, not for a principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorized {
    principal: Principal,
    action: Action,
    resource: Resource,
}

impl Authorized {
    /// Who may.
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What they may do.
    pub const fn action(&self) -> Action {
        self.action
    }

    /// What they may do it to.
    pub const fn resource(&self) -> &Resource {
        &self.resource
    }
}

/// Why something is not allowed.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// Nobody in particular asked, or somebody whose token was revoked meanwhile: 401, with a challenge.
    #[error("authentication is required")]
    Unauthenticated,
    /// They may see it but not do this: 403.
    #[error("{principal} may not {} {resource}", action.name())]
    Forbidden {
        /// Who asked.
        principal: String,
        /// What for.
        action: Action,
        /// On what.
        resource: String,
    },
    /// Their token is not good for it, though they may be: 403.
    #[error("the token of {principal} does not have the scope {scope}, which is needed to {} {resource}", action.name())]
    Scope {
        /// Who asked.
        principal: String,
        /// The scope that is missing.
        scope: Scope,
        /// What for.
        action: Action,
        /// On what.
        resource: String,
    },
    /// They may not even know whether it exists: 404.
    #[error("there is no {resource}")]
    Hidden {
        /// What they asked for.
        resource: String,
    },
    /// It could not be found out: 503. Nothing is allowed then.
    #[error("rights cannot be looked up: {0}")]
    Unavailable(RecordsError),
}

impl From<RecordsError> for Denied {
    fn from(error: RecordsError) -> Self {
        Self::Unavailable(error)
    }
}

impl Access {
    /// Decides whether `principal` may do `action` to `resource`, as things stand now.
    ///
    /// # Errors
    /// [`Denied`] says which of 401, 403 and 404 it is.
    pub async fn authorize(
        &self,
        principal: &Principal,
        action: Action,
        resource: Resource,
    ) -> Result<Authorized, Denied> {
        let needed = needed(action, &resource);
        let open = match &resource {
            Resource::Image(_) | Resource::Images => self.anonymous_images.into(),
            Resource::Cached { open: true, .. } => Right::Read,
            // Whoever may read all images may read these.
            Resource::Cached { .. } => Right::from(self.anonymous_images).min(Right::Read),
            _ => Right::None,
        };
        if *principal == Principal::Anonymous && open >= needed {
            return Ok(Authorized { principal: Principal::Anonymous, action, resource });
        }
        let mut standing = self.standing(principal, &resource).await?.ok_or(Denied::Unauthenticated)?;
        standing.public = standing.public.max(open);
        let best = standing.own.max(standing.public);
        let own = standing.delete.filter(|_| action == Action::Delete).unwrap_or(standing.own >= needed);
        if own || standing.public >= needed {
            // A token never gives less than none at all.
            return match missing_scope(principal, action, &resource).filter(|_| standing.public < needed) {
                None => Ok(Authorized { principal: principal.clone(), action, resource }),
                Some(scope) => {
                    let (principal, resource) = (principal.to_string(), resource.to_string());
                    Err(Denied::Scope { principal, scope, action, resource })
                }
            };
        }
        let what = resource.to_string();
        Err(match principal {
            Principal::Anonymous => Denied::Unauthenticated,
            _ if best >= Right::Read || standing.delete == Some(true) => {
                Denied::Forbidden { principal: principal.to_string(), action, resource: what }
            }
            _ => Denied::Hidden { resource: what },
        })
    }
}

const fn needed(action: Action, resource: &Resource) -> Right {
    match (action, resource) {
        (Action::Read, _) => Right::Read,
        (Action::Write, Resource::Server | Resource::Cached { .. }) => Right::Admin,
        // Who may push an image may also take it back.
        (Action::Write, _) | (Action::Delete, Resource::Image(_)) => Right::Write,
        (Action::Delete | Action::Admin, _) => Right::Admin,
    }
}

fn missing_scope(principal: &Principal, action: Action, resource: &Resource) -> Option<Scope> {
    let user = principal.user()?;
    let scope = match (resource, action) {
        (Resource::Server, Action::Read) => return None,
        (Resource::Images, _) => Scope::Admin,
        (Resource::Image(_) | Resource::Cached { .. }, Action::Read) => Scope::ReadPackage,
        (Resource::Image(_), Action::Write | Action::Delete) => Scope::WritePackage,
        (Resource::Owner(_) | Resource::Repository(_), Action::Read) => Scope::ReadRepository,
        (Resource::Owner(_) | Resource::Repository(_), Action::Write) => Scope::WriteRepository,
        (_, Action::Admin | Action::Delete) | (Resource::Server | Resource::Cached { .. }, Action::Write) => {
            Scope::Admin
        }
    };
    let covered = user.scopes.iter().any(|held| held.includes(scope));
    (!covered).then_some(scope)
}
