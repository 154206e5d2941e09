//! Looking up what somebody may do with something.

use model::{ImageName, ImagePattern, Timestamp};
use store::{RecordsError, Tx, Value};

use crate::accounts::{OwnerKind, find_owner};
use crate::schema::fold;
use crate::{JobPrincipal, Level, Principal, Resource, RobotPrincipal, Role, User, now};

/// How far somebody's rights on something go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Right {
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
    pub public: Right,
    /// What this principal may do.
    pub own: Right,
    /// Whether they may delete, where that does not follow from their right.
    pub delete: Option<bool>,
    /// When what they show of themselves ends.
    pub until: Option<Timestamp>,
}

/// A principal's own part of their standing.
struct Own {
    right: Right,
    delete: Option<bool>,
    until: Option<Timestamp>,
}

/// Nothing if the principal is not one any more.
pub(crate) fn look_up(
    tx: &mut Tx<'_>,
    principal: &Principal,
    resource: &Resource,
) -> Result<Option<Standing>, RecordsError> {
    let place = place(tx, resource)?;
    let public = if place.public { Right::Read } else { Right::None };
    let own = match principal {
        Principal::Anonymous => Some(Own { right: Right::None, delete: None, until: None }),
        Principal::User(user) => user_right(tx, user, resource, &place)?,
        Principal::Robot(robot) => robot_right(tx, robot, resource)?,
        Principal::Job(job) => job_right(tx, job, resource)?,
    };
    Ok(own.map(|Own { right, delete, until }| Standing { public, own: right, delete, until }))
}

/// Where a resource stands: under which owner, and in which repository of that owner, by their folded names.
struct Place {
    owner: Option<String>,
    repository: Option<String>,
    public: bool,
}

fn place(tx: &mut Tx<'_>, resource: &Resource) -> Result<Place, RecordsError> {
    let (owner, repository) = match resource {
        Resource::Server | Resource::Images | Resource::Cached { .. } => {
            return Ok(Place { owner: None, repository: None, public: false });
        }
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

fn user_right(tx: &mut Tx<'_>, user: &User, resource: &Resource, place: &Place) -> Result<Option<Own>, RecordsError> {
    // The token, not what it once said: it may be revoked, the user deleted or no administrator any more.
    let sql = "SELECT owners.admin, tokens.expires FROM tokens JOIN owners ON owners.id = tokens.holder
               WHERE tokens.id = $1 AND owners.id = $2 AND (tokens.expires IS NULL OR tokens.expires > $3)";
    let Some(row) = tx.query_first(sql, &[user.token.0.into(), user.id.0.into(), now().into()])? else {
        return Ok(None);
    };
    let right = if row.get(0)? { Right::Admin } else { member_right(tx, user.id.0, resource, place)? };
    Ok(Some(Own { right, delete: None, until: row.get(1)? }))
}

fn member_right(tx: &mut Tx<'_>, user: i64, resource: &Resource, place: &Place) -> Result<Right, RecordsError> {
    let Some(owner) = &place.owner else {
        let known = matches!(resource, Resource::Server | Resource::Cached { .. });
        return Ok(if known { Right::Read } else { Right::None });
    };
    let mut right = match find_owner(tx, owner)? {
        Some((id, OwnerKind::User)) if id == user => Right::Admin,
        Some((id, OwnerKind::Organisation)) => {
            let sql = "SELECT role FROM members WHERE organisation = $1 AND member = $2";
            role(tx, sql, &[id.into(), user.into()])?.max(group_right(tx, id, user, resource, place)?)
        }
        _ => Right::None,
    };
    if let Some(repository) = &place.repository {
        let sql = "SELECT role FROM collaborators WHERE owner = $1 AND name = $2 AND collaborator = $3";
        right = right.max(role(tx, sql, &[owner.into(), repository.into(), user.into()])?);
    }
    Ok(right)
}

/// The best of what the groups of a user give on a repository or an image, by its own name or its repository's.
fn group_right(
    tx: &mut Tx<'_>,
    organisation: i64,
    user: i64,
    resource: &Resource,
    place: &Place,
) -> Result<Right, RecordsError> {
    let mut names: Vec<ImageName> = match resource {
        Resource::Server | Resource::Images | Resource::Owner(_) | Resource::Cached { .. } => return Ok(Right::None),
        Resource::Repository(name) => fold(&name.to_string()).parse().into_iter().collect(),
        Resource::Image(name) => vec![name.clone()],
    };
    if let (Some(owner), Some(repository)) = (&place.owner, &place.repository) {
        names.extend(format!("{owner}/{repository}").parse::<ImageName>());
    }
    let sql = "SELECT DISTINCT access_group_grants.pattern, access_group_grants.role
               FROM access_group_members
               JOIN access_groups ON access_groups.id = access_group_members.grouping
               JOIN access_group_grants ON access_group_grants.grouping = access_groups.id
               WHERE access_group_members.member = $1 AND access_groups.organisation = $2";
    let mut best = Right::None;
    for row in tx.query(sql, &[user.into(), organisation.into()])? {
        let pattern: ImagePattern = row.parse(0)?;
        if names.iter().any(|name| pattern.matches(name)) {
            best = best.max(row.parse::<Role>(1)?.into());
        }
    }
    Ok(best)
}

fn role(tx: &mut Tx<'_>, sql: &str, params: &[Value]) -> Result<Right, RecordsError> {
    let row = tx.query_first(sql, params)?;
    row.map_or(Ok(Right::None), |row| row.parse::<Role>(0).map(Right::from))
}

fn robot_right(tx: &mut Tx<'_>, robot: &RobotPrincipal, resource: &Resource) -> Result<Option<Own>, RecordsError> {
    let sql = "SELECT robots.images, robots.actions, robots.expires, owners.folded
               FROM robots LEFT JOIN owners ON owners.id = robots.owner
               WHERE robots.id = $1 AND robots.expires > $2";
    let Some(row) = tx.query_first(sql, &[robot.id.into(), now().into()])? else { return Ok(None) };
    let nothing = Own { right: Right::None, delete: Some(false), until: row.get(2)? };
    let image = match resource {
        Resource::Image(image) => image,
        // Whoever is somebody.
        Resource::Cached { .. } => return Ok(Some(Own { right: Right::Read, ..nothing })),
        _ => return Ok(Some(nothing)),
    };
    // A robot of somebody never leaves their name, whatever its patterns say.
    let owner: Option<String> = row.get(3)?;
    if owner.is_some_and(|owner| owner != image.owner()) {
        return Ok(Some(nothing));
    }
    let images: String = row.get(0)?;
    for pattern in images.split_ascii_whitespace() {
        if pattern.parse::<ImagePattern>().is_ok_and(|pattern| pattern.matches(image)) {
            let actions: String = row.get(1)?;
            let may = |action: &str| actions.split_ascii_whitespace().any(|held| held == action);
            let right = match (may("push"), may("pull")) {
                (true, _) => Right::Write,
                (false, true) => Right::Read,
                (false, false) => Right::None,
            };
            return Ok(Some(Own { right, delete: Some(may("delete")), ..nothing }));
        }
    }
    Ok(Some(nothing))
}

fn job_right(tx: &mut Tx<'_>, job: &JobPrincipal, resource: &Resource) -> Result<Option<Own>, RecordsError> {
    // Dies with the job.
    let sql = "SELECT repository, contents, packages, expires FROM job_tokens
               WHERE job = $1 AND run = $2 AND expires > $3";
    let Some(row) = tx.query_first(sql, &[job.job.0.into(), job.run.0.into(), now().into()])? else {
        return Ok(None);
    };
    let repository: model::RepoName = row.parse(0)?;
    let (owner, name) = (fold(repository.owner()), fold(repository.name()));
    let right = match resource {
        Resource::Repository(other) if fold(other.owner()) == owner && fold(other.name()) == name => {
            row.parse::<Level>(1)?.into()
        }
        Resource::Image(image) if image.owner() == owner && image_repository(image).as_ref() == Some(&name) => {
            row.parse::<Level>(2)?.into()
        }
        Resource::Cached { .. } => Right::Read,
        _ => Right::None,
    };
    // A job may add, never remove: what it pushed may be live.
    Ok(Some(Own { right, delete: Some(false), until: row.get(3)? }))
}
