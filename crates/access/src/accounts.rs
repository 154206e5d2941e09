//! Users and organisations.

use model::{OrgId, RepoName, Timestamp, UserId};
use store::{RecordsError, Row, Tx};

use crate::schema::fold;
use crate::secret::TOKEN;
use crate::{Access, AccessError, Role, Scope, Secret, now, tokens};

/// The name of the first administrator. Reserved, so nobody can own repositories under it.
const ADMIN: &str = "admin";

/// What an owner of repositories is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerKind {
    /// A person or a robot account.
    User,
    /// A group of users.
    Organisation,
}

impl OwnerKind {
    const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Organisation => "organisation",
        }
    }
}

/// A user, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// Their id.
    pub id: UserId,
    /// Their name.
    pub name: String,
    /// Whether they administer the server.
    pub admin: bool,
    /// Since when.
    pub created: Timestamp,
}

/// An organisation, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organisation {
    /// Its id.
    pub id: OrgId,
    /// Its name.
    pub name: String,
    /// Since when.
    pub created: Timestamp,
}

const COLUMNS: &str = "id, name, admin, created";

impl Access {
    /// At the first start, makes the user `admin`, who administers the server, and a token for it. Nothing later on:
    /// once there is a user, there are no default credentials.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn bootstrap(&self) -> Result<Option<Secret>, AccessError> {
        let secret = Secret::generate(TOKEN);
        let stored = secret.clone();
        let made = self.change(move |tx| {
            let sql = "SELECT id FROM owners WHERE kind = $1 LIMIT 1";
            if tx.query_first(sql, &[OwnerKind::User.name().into()])?.is_some() {
                return Ok(false);
            }
            let id = insert_owner(tx, ADMIN, OwnerKind::User, true)?;
            tokens::insert(tx, UserId(id), "first start", &[Scope::All], None, &stored)?;
            Ok(true)
        });
        let made = made.await?;
        Ok(made.then_some(secret))
    }

    /// Makes a user. They sign in by tokens; there are no passwords.
    ///
    /// # Errors
    /// [`AccessError::BadName`], [`AccessError::Exists`].
    pub async fn create_user(&self, name: &str, admin: bool) -> Result<UserId, AccessError> {
        let name = self.checked(name)?;
        let id = self.change(move |tx| insert_owner(tx, &name, OwnerKind::User, admin)).await?;
        Ok(UserId(id))
    }

    /// All users by name.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn list_users(&self) -> Result<Vec<UserRecord>, AccessError> {
        let sql = format!("SELECT {COLUMNS} FROM owners WHERE kind = $1 ORDER BY folded");
        let rows = self.records.read(move |tx| tx.query(&sql, &[OwnerKind::User.name().into()])).await?;
        Ok(rows.iter().map(read_user).collect::<Result<_, _>>()?)
    }

    /// The user of this name, in whatever case.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn find_user(&self, name: &str) -> Result<Option<UserRecord>, AccessError> {
        let name = name.to_owned();
        let found = self.records.read(move |tx| {
            let sql = format!("SELECT {COLUMNS} FROM owners WHERE folded = $1 AND kind = $2");
            let row = tx.query_first(&sql, &[fold(&name).into(), OwnerKind::User.name().into()])?;
            row.as_ref().map(read_user).transpose()
        });
        Ok(found.await?)
    }

    /// Makes a user an administrator, or an ordinary user again.
    ///
    /// # Errors
    /// [`AccessError::NoUser`], [`AccessError::LastAdministrator`].
    pub async fn set_admin(&self, user: UserId, admin: bool) -> Result<(), AccessError> {
        let changed = self.change(move |tx| {
            let sql = format!("SELECT {COLUMNS} FROM owners WHERE id = $1 AND kind = 'user'");
            let row = tx.query_first(&sql, &[user.0.into()])?;
            let found = read_user(&row.ok_or_else(|| AccessError::NoUser(user.to_string()))?)?;
            if found.admin && !admin && count(tx, "SELECT COUNT(*) FROM owners WHERE admin = 1", &[])? < 2 {
                return Err(AccessError::LastAdministrator(found.name).into());
            }
            tx.execute("UPDATE owners SET admin = $2 WHERE id = $1", &[user.0.into(), admin.into()])
        });
        changed.await.map(drop)
    }

    /// Deletes a user with their tokens, memberships and collaborations.
    ///
    /// # Errors
    /// [`AccessError::NoUser`], [`AccessError::OwnsRepositories`], [`AccessError::LastAdministrator`],
    /// [`AccessError::LastManager`].
    pub async fn delete_user(&self, user: UserId) -> Result<(), AccessError> {
        self.change(move |tx| delete_user(tx, user)).await
    }

    /// Makes an organisation that `manager` administers.
    ///
    /// # Errors
    /// [`AccessError::BadName`], [`AccessError::Exists`], [`AccessError::NoUser`].
    pub async fn create_organisation(&self, name: &str, manager: UserId) -> Result<OrgId, AccessError> {
        let name = self.checked(name)?;
        let id = self.change(move |tx| {
            if tx.query_first("SELECT id FROM owners WHERE id = $1 AND kind = 'user'", &[manager.0.into()])?.is_none() {
                return Err(AccessError::NoUser(manager.to_string()).into());
            }
            let id = insert_owner(tx, &name, OwnerKind::Organisation, false)?;
            set_member(tx, id, manager.0, Role::Admin)?;
            Ok(id)
        });
        Ok(OrgId(id.await?))
    }

    /// All organisations by name.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn list_organisations(&self) -> Result<Vec<Organisation>, AccessError> {
        let sql = "SELECT id, name, created FROM owners WHERE kind = $1 ORDER BY folded";
        let rows = self.records.read(move |tx| tx.query(sql, &[OwnerKind::Organisation.name().into()])).await?;
        let read = |row: &Row| {
            Ok::<_, RecordsError>(Organisation { id: OrgId(row.get(0)?), name: row.get(1)?, created: row.get(2)? })
        };
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// What the owner of this name is, in whatever case; nothing if there is none.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn owner(&self, name: &str) -> Result<Option<OwnerKind>, AccessError> {
        let name = name.to_owned();
        Ok(self.records.read(move |tx| Ok(find_owner(tx, &name)?.map(|(_, kind)| kind))).await?)
    }

    /// Makes a user a member of an organisation, or changes their role.
    ///
    /// # Errors
    /// [`AccessError::NoOrganisation`], [`AccessError::NoUser`], [`AccessError::LastManager`].
    pub async fn add_member(&self, organisation: &str, user: &str, role: Role) -> Result<(), AccessError> {
        let (organisation, user) = (organisation.to_owned(), user.to_owned());
        let added = self.change(move |tx| {
            let (organisation, member) = (organisation_id(tx, &organisation)?, user_id(tx, &user)?);
            set_member(tx, organisation, member, role)?;
            keep_a_manager(tx, organisation, &user)
        });
        added.await
    }

    /// Takes a member out of an organisation. Nothing happens if they were none.
    ///
    /// # Errors
    /// [`AccessError::NoOrganisation`], [`AccessError::NoUser`], [`AccessError::LastManager`].
    pub async fn remove_member(&self, organisation: &str, user: &str) -> Result<(), AccessError> {
        let (organisation, user) = (organisation.to_owned(), user.to_owned());
        let removed = self.change(move |tx| {
            let (organisation, member) = (organisation_id(tx, &organisation)?, user_id(tx, &user)?);
            let sql = "DELETE FROM members WHERE organisation = $1 AND member = $2";
            tx.execute(sql, &[organisation.into(), member.into()])?;
            keep_a_manager(tx, organisation, &user)
        });
        removed.await
    }

    /// The members of an organisation by name.
    ///
    /// # Errors
    /// [`AccessError::NoOrganisation`].
    pub async fn members(&self, organisation: &str) -> Result<Vec<(String, Role)>, AccessError> {
        let organisation = organisation.to_owned();
        let members = self.records.read(move |tx| {
            let organisation = organisation_id(tx, &organisation)?;
            let sql = "SELECT owners.name, members.role FROM members JOIN owners ON owners.id = members.member
                       WHERE members.organisation = $1 ORDER BY owners.folded";
            let rows = tx.query(sql, &[organisation.into()])?;
            rows.iter().map(|row| Ok((row.get(0)?, row.parse(1)?))).collect()
        });
        Ok(members.await?)
    }

    /// A name that a user or organisation can have.
    pub(crate) fn checked(&self, name: &str) -> Result<String, AccessError> {
        if RepoName::valid_owner(name) && !self.reserved.contains(&fold(name)) {
            Ok(name.to_owned())
        } else {
            Err(AccessError::BadName(name.chars().take(100).collect()))
        }
    }
}

pub(crate) fn insert_owner(tx: &mut Tx<'_>, name: &str, kind: OwnerKind, admin: bool) -> Result<i64, RecordsError> {
    if find_owner(tx, name)?.is_some() {
        return Err(AccessError::Exists(name.to_owned()).into());
    }
    let id = tx.next_id("owners")?;
    let sql = "INSERT INTO owners (id, folded, name, kind, admin, created) VALUES ($1, $2, $3, $4, $5, $6)";
    let values = [id.into(), fold(name).into(), name.into(), kind.name().into(), admin.into(), now().into()];
    tx.execute(sql, &values)?;
    Ok(id)
}

pub(crate) fn find_owner(tx: &mut Tx<'_>, name: &str) -> Result<Option<(i64, OwnerKind)>, RecordsError> {
    let row = tx.query_first("SELECT id, kind FROM owners WHERE folded = $1", &[fold(name).into()])?;
    let read = |row: Row| {
        let kind = if row.get::<String>(1)? == "user" { OwnerKind::User } else { OwnerKind::Organisation };
        Ok((row.get(0)?, kind))
    };
    row.map(read).transpose()
}

pub(crate) fn user_id(tx: &mut Tx<'_>, name: &str) -> Result<i64, RecordsError> {
    match find_owner(tx, name)? {
        Some((id, OwnerKind::User)) => Ok(id),
        _ => Err(AccessError::NoUser(name.to_owned()).into()),
    }
}

pub(crate) fn organisation_id(tx: &mut Tx<'_>, name: &str) -> Result<i64, RecordsError> {
    match find_owner(tx, name)? {
        Some((id, OwnerKind::Organisation)) => Ok(id),
        _ => Err(AccessError::NoOrganisation(name.to_owned()).into()),
    }
}

fn set_member(tx: &mut Tx<'_>, organisation: i64, member: i64, role: Role) -> Result<(), RecordsError> {
    let sql = "INSERT INTO members (organisation, member, role) VALUES ($1, $2, $3)
               ON CONFLICT (organisation, member) DO UPDATE SET role = excluded.role";
    tx.execute(sql, &[organisation.into(), member.into(), role.name().into()]).map(drop)
}

fn keep_a_manager(tx: &mut Tx<'_>, organisation: i64, user: &str) -> Result<(), RecordsError> {
    let sql = "SELECT member FROM members WHERE organisation = $1 AND role = $2 LIMIT 1";
    match tx.query_first(sql, &[organisation.into(), Role::Admin.name().into()])? {
        Some(_) => Ok(()),
        None => Err(AccessError::LastManager(user.to_owned()).into()),
    }
}

fn delete_user(tx: &mut Tx<'_>, user: UserId) -> Result<(), RecordsError> {
    let sql = format!("SELECT {COLUMNS} FROM owners WHERE id = $1 AND kind = 'user'");
    let row = tx.query_first(&sql, &[user.0.into()])?;
    let found = read_user(&row.ok_or_else(|| AccessError::NoUser(user.to_string()))?)?;
    let sql = "SELECT COUNT(*) FROM repository_access WHERE owner = $1";
    let repositories: i64 = count(tx, sql, &[fold(&found.name).into()])?;
    if repositories > 0 {
        return Err(AccessError::OwnsRepositories { user: found.name, repositories }.into());
    }
    if found.admin && count(tx, "SELECT COUNT(*) FROM owners WHERE admin = 1", &[])? < 2 {
        return Err(AccessError::LastAdministrator(found.name).into());
    }
    let organisations = tx.query("SELECT organisation FROM members WHERE member = $1", &[user.0.into()])?;
    for sql in [
        "DELETE FROM tokens WHERE holder = $1",
        "DELETE FROM robots WHERE owner = $1",
        "DELETE FROM access_group_members WHERE member = $1",
        "DELETE FROM passwords WHERE holder = $1",
        "DELETE FROM identities WHERE holder = $1",
        "DELETE FROM members WHERE member = $1",
        "DELETE FROM collaborators WHERE collaborator = $1",
        "DELETE FROM owners WHERE id = $1",
    ] {
        tx.execute(sql, &[user.0.into()])?;
    }
    organisations.iter().try_for_each(|row| keep_a_manager(tx, row.get(0)?, &found.name))
}

fn count(tx: &mut Tx<'_>, sql: &str, params: &[store::Value]) -> Result<i64, RecordsError> {
    tx.query_first(sql, params)?.map_or(Ok(0), |row| row.get(0))
}

fn read_user(row: &Row) -> Result<UserRecord, RecordsError> {
    Ok(UserRecord { id: UserId(row.get(0)?), name: row.get(1)?, admin: row.get(2)?, created: row.get(3)? })
}
