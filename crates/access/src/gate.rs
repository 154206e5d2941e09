//! The one gate: may this principal do this to that?

use std::fmt;

use model::{ImageName, RepoName};
use store::{RecordsError, Tx};

use crate::accounts::{OwnerKind, find_owner};
use crate::schema::fold;
use crate::{Access, JobPrincipal, Level, Principal, Role, Scope, User, now};

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

/// How far somebody's rights on something go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Right {
    None,
    Read,
    Write,
    Admin,
}

impl From<Role> for Right {
    fn from(role: Role) -> Self {
        match role {
            Role::Read => Self::Read,
            Role::Write => Self::Write,
            Role::Admin => Self::Admin,
        }
    }
}

impl From<Level> for Right {
    fn from(level: Level) -> Self {
        match level {
            Level::None => Self::None,
            Level::Read => Self::Read,
            Level::Write => Self::Write,
        }
    }
}

/// What was found out about a principal and a resource.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// What everybody may do.
    public: Right,
    /// What this principal may do.
    own: Right,
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
            _ => Right::None,
        };
        if *principal == Principal::Anonymous && open >= needed {
            return Ok(Authorized { principal: Principal::Anonymous, action, resource });
        }
        let mut standing = self.standing(principal, action, &resource).await?.ok_or(Denied::Unauthenticated)?;
        standing.public = standing.public.max(open);
        let named = || (principal.to_string(), resource.to_string());
        let best = standing.own.max(standing.public);
        if best >= needed {
            // A token never gives less than none at all.
            if let Some(scope) = missing_scope(principal, action, &resource).filter(|_| standing.public < needed) {
                let (principal, resource) = named();
                return Err(Denied::Scope { principal, scope, action, resource });
            }
            return Ok(Authorized { principal: principal.clone(), action, resource });
        }
        let (who, what) = named();
        Err(match principal {
            Principal::Anonymous => Denied::Unauthenticated,
            _ if best >= Right::Read => Denied::Forbidden { principal: who, action, resource: what },
            _ => Denied::Hidden { resource: what },
        })
    }

    async fn standing(
        &self,
        principal: &Principal,
        action: Action,
        resource: &Resource,
    ) -> Result<Option<Standing>, RecordsError> {
        let key = (principal.clone(), action, resource.clone());
        let asked = self.remembered.ask();
        if let Some(known) = self.remembered.get(asked, &key) {
            return Ok(Some(known));
        }
        let (asker, wanted) = (principal.clone(), resource.clone());
        let found = self.records.read(move |tx| standing(tx, &asker, action, &wanted)).await?;
        if let Some(standing) = found {
            self.remembered.put(asked, key, standing);
        }
        Ok(found)
    }
}

const fn needed(action: Action, resource: &Resource) -> Right {
    match (action, resource) {
        (Action::Read, _) => Right::Read,
        (Action::Write, Resource::Server) => Right::Admin,
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
        (Resource::Image(_), Action::Read) => Scope::ReadPackage,
        (Resource::Image(_), Action::Write | Action::Delete) => Scope::WritePackage,
        (Resource::Owner(_) | Resource::Repository(_), Action::Read) => Scope::ReadRepository,
        (Resource::Owner(_) | Resource::Repository(_), Action::Write) => Scope::WriteRepository,
        (_, Action::Admin | Action::Delete) | (Resource::Server, Action::Write) => Scope::Admin,
    };
    let covered = user.scopes.iter().any(|held| held.includes(scope));
    (!covered).then_some(scope)
}

/// Nothing if the principal is not one any more.
fn standing(
    tx: &mut Tx<'_>,
    principal: &Principal,
    action: Action,
    resource: &Resource,
) -> Result<Option<Standing>, RecordsError> {
    let place = place(tx, resource)?;
    let public = if place.public { Right::Read } else { Right::None };
    let own = match principal {
        Principal::Anonymous => Some(Right::None),
        Principal::User(user) => user_right(tx, user, resource, &place)?,
        // A job may add, never remove: what it pushed may be live.
        Principal::Job(job) if action == Action::Delete => {
            job_right(tx, job, resource)?.map(|right| right.min(Right::Read))
        }
        Principal::Job(job) => job_right(tx, job, resource)?,
    };
    Ok(own.map(|own| Standing { public, own }))
}

/// Where a resource stands: under which owner, and in which repository of that owner, by their folded names.
struct Place {
    owner: Option<String>,
    repository: Option<String>,
    public: bool,
}

fn place(tx: &mut Tx<'_>, resource: &Resource) -> Result<Place, RecordsError> {
    let (owner, repository) = match resource {
        Resource::Server | Resource::Images => return Ok(Place { owner: None, repository: None, public: false }),
        Resource::Owner(owner) => return Ok(Place { owner: Some(fold(owner)), repository: None, public: false }),
        Resource::Repository(name) => (fold(name.owner()), Some(fold(name.name()))),
        Resource::Image(name) => (fold(name.owner()), image_repository(name)),
    };
    let Some(repository) = repository else {
        return Ok(Place { owner: Some(owner), repository: None, public: false });
    };
    let sql = "SELECT public FROM repository_access WHERE owner = $1 AND name = $2";
    match tx.query_first(sql, &[(&owner).into(), (&repository).into()])? {
        Some(row) => Ok(Place { owner: Some(owner), repository: Some(repository), public: row.get(0)? }),
        None => Ok(Place { owner: Some(owner), repository: None, public: false }),
    }
}

/// The repository that an image would belong to: its second component.
fn image_repository(name: &ImageName) -> Option<String> {
    name.as_str().split('/').nth(1).map(str::to_owned)
}

fn user_right(tx: &mut Tx<'_>, user: &User, resource: &Resource, place: &Place) -> Result<Option<Right>, RecordsError> {
    // The token, not what it once said: it may be revoked, the user deleted or no administrator any more.
    let sql = "SELECT owners.admin FROM tokens JOIN owners ON owners.id = tokens.holder
               WHERE tokens.id = $1 AND owners.id = $2 AND (tokens.expires IS NULL OR tokens.expires > $3)";
    let Some(row) = tx.query_first(sql, &[user.token.0.into(), user.id.0.into(), now().into()])? else {
        return Ok(None);
    };
    if row.get(0)? {
        return Ok(Some(Right::Admin));
    }
    let Some(owner) = &place.owner else {
        return Ok(Some(if *resource == Resource::Server { Right::Read } else { Right::None }));
    };
    let mut right = match find_owner(tx, owner)? {
        Some((id, OwnerKind::User)) if id == user.id.0 => Right::Admin,
        Some((id, OwnerKind::Organisation)) => {
            let sql = "SELECT role FROM members WHERE organisation = $1 AND member = $2";
            role(tx, sql, &[id.into(), user.id.0.into()])?
        }
        _ => Right::None,
    };
    if let Some(repository) = &place.repository {
        let sql = "SELECT role FROM collaborators WHERE owner = $1 AND name = $2 AND collaborator = $3";
        right = right.max(role(tx, sql, &[owner.into(), repository.into(), user.id.0.into()])?);
    }
    Ok(Some(right))
}

fn role(tx: &mut Tx<'_>, sql: &str, params: &[store::Value]) -> Result<Right, RecordsError> {
    let row = tx.query_first(sql, params)?;
    row.map_or(Ok(Right::None), |row| row.parse::<Role>(0).map(Right::from))
}

fn job_right(tx: &mut Tx<'_>, job: &JobPrincipal, resource: &Resource) -> Result<Option<Right>, RecordsError> {
    // Dies with the job.
    let sql = "SELECT job FROM job_tokens WHERE job = $1 AND run = $2 AND expires > $3";
    if tx.query_first(sql, &[job.job.0.into(), job.run.0.into(), now().into()])?.is_none() {
        return Ok(None);
    }
    let (owner, name) = (fold(job.repository.owner()), fold(job.repository.name()));
    Ok(Some(match resource {
        Resource::Repository(other) if fold(other.owner()) == owner && fold(other.name()) == name => {
            job.contents.into()
        }
        Resource::Image(image) if image.owner() == owner && image_repository(image).as_ref() == Some(&name) => {
            job.packages.into()
        }
        _ => Right::None,
    }))
}
