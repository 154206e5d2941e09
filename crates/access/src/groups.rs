//! Groups within organisations: members who have roles on what patterns of names match.

use model::{ImagePattern, RepoName};
use store::{RecordsError, Tx};

use crate::accounts::{organisation_id, user_id};
use crate::robots::is_within;
use crate::schema::fold;
use crate::{Access, AccessError, Role};

/// A group, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// Its name.
    pub name: String,
    /// Its members by name.
    pub members: Vec<String>,
    /// Its roles by pattern.
    pub grants: Vec<(String, Role)>,
}

/// Where a membership comes from that a person gave; others come from the provider of that name.
pub(crate) const BY_HAND: &str = "";

impl Access {
    /// Makes a group of an organisation, without members and roles.
    ///
    /// # Errors
    /// [`AccessError::NoOrganisation`], [`AccessError::BadName`], [`AccessError::Exists`].
    pub async fn create_group(&self, organisation: &str, group: &str) -> Result<(), AccessError> {
        if !RepoName::valid_owner(group) {
            return Err(AccessError::BadName(group.chars().take(100).collect()));
        }
        let (organisation, group) = (organisation.to_owned(), group.to_owned());
        let made = self.change(move |tx| {
            let organisation = organisation_id(tx, &organisation)?;
            if find(tx, organisation, &group)?.is_some() {
                return Err(AccessError::Exists(group).into());
            }
            let id = tx.next_id("access groups")?;
            let sql = "INSERT INTO access_groups (id, organisation, folded, name) VALUES ($1, $2, $3, $4)";
            tx.execute(sql, &[id.into(), organisation.into(), fold(&group).into(), group.into()]).map(drop)
        });
        made.await
    }

    /// Removes a group. What its members had by it they have no more.
    ///
    /// # Errors
    /// [`AccessError::NoOrganisation`], [`AccessError::NoGroup`].
    pub async fn remove_group(&self, organisation: &str, group: &str) -> Result<(), AccessError> {
        self.in_group(organisation, group, |tx, _, group| {
            for sql in [
                "DELETE FROM access_group_members WHERE grouping = $1",
                "DELETE FROM access_group_grants WHERE grouping = $1",
                "DELETE FROM access_groups WHERE id = $1",
            ] {
                tx.execute(sql, &[group.into()])?;
            }
            Ok(())
        })
        .await
    }

    /// Makes a user a member of a group. They need not be a member of the organisation.
    ///
    /// # Errors
    /// [`AccessError::NoOrganisation`], [`AccessError::NoGroup`], [`AccessError::NoUser`].
    pub async fn add_group_member(&self, organisation: &str, group: &str, user: &str) -> Result<(), AccessError> {
        let user = user.to_owned();
        self.in_group(organisation, group, move |tx, _, group| {
            let user = user_id(tx, &user)?;
            insert_member(tx, group, user, BY_HAND)
        })
        .await
    }

    /// Takes a member out of a group, also one whom a provider of identities put there: until they sign in by it again.
    ///
    /// # Errors
    /// [`AccessError::NoOrganisation`], [`AccessError::NoGroup`], [`AccessError::NoUser`].
    pub async fn remove_group_member(&self, organisation: &str, group: &str, user: &str) -> Result<(), AccessError> {
        let user = user.to_owned();
        self.in_group(organisation, group, move |tx, _, group| {
            let user = user_id(tx, &user)?;
            let sql = "DELETE FROM access_group_members WHERE grouping = $1 AND member = $2";
            tx.execute(sql, &[group.into(), user.into()]).map(drop)
        })
        .await
    }

    /// Gives a group a role on the repositories and images that a pattern matches, or changes it. A pattern that matches
    /// a repository's name gives the role on all its images too.
    ///
    /// # Errors
    /// [`AccessError::NoOrganisation`], [`AccessError::NoGroup`], [`AccessError::PatternElsewhere`].
    pub async fn grant_group(
        &self,
        organisation: &str,
        group: &str,
        pattern: ImagePattern,
        role: Role,
    ) -> Result<(), AccessError> {
        let owner = fold(organisation);
        if !is_within(&pattern, &owner) {
            return Err(AccessError::PatternElsewhere { pattern: pattern.to_string(), owner });
        }
        self.in_group(organisation, group, move |tx, _, group| {
            let sql = "INSERT INTO access_group_grants (grouping, pattern, role) VALUES ($1, $2, $3)
                       ON CONFLICT (grouping, pattern) DO UPDATE SET role = excluded.role";
            tx.execute(sql, &[group.into(), pattern.as_str().into(), role.name().into()]).map(drop)
        })
        .await
    }

    /// Takes a group's role on what a pattern matches away. Nothing happens if it had none.
    ///
    /// # Errors
    /// [`AccessError::NoOrganisation`], [`AccessError::NoGroup`].
    pub async fn ungrant_group(&self, organisation: &str, group: &str, pattern: &str) -> Result<(), AccessError> {
        let pattern = pattern.to_owned();
        self.in_group(organisation, group, move |tx, _, group| {
            let sql = "DELETE FROM access_group_grants WHERE grouping = $1 AND pattern = $2";
            tx.execute(sql, &[group.into(), pattern.into()]).map(drop)
        })
        .await
    }

    /// The groups of an organisation by name.
    ///
    /// # Errors
    /// [`AccessError::NoOrganisation`].
    pub async fn groups(&self, organisation: &str) -> Result<Vec<GroupRecord>, AccessError> {
        let organisation = organisation.to_owned();
        let found = self.records.read(move |tx| {
            let organisation = organisation_id(tx, &organisation)?;
            let sql = "SELECT id, name FROM access_groups WHERE organisation = $1 ORDER BY folded";
            let rows = tx.query(sql, &[organisation.into()])?;
            rows.iter().map(|row| read(tx, row.get(0)?, row.get(1)?)).collect()
        });
        Ok(found.await?)
    }

    /// Changes something of a group; `f` gets the ids of the organisation and the group.
    async fn in_group<F>(&self, organisation: &str, group: &str, f: F) -> Result<(), AccessError>
    where
        F: FnOnce(&mut Tx<'_>, i64, i64) -> Result<(), RecordsError> + Send + 'static,
    {
        let (organisation, group) = (organisation.to_owned(), group.to_owned());
        let done = self.change(move |tx| {
            let organisation = organisation_id(tx, &organisation)?;
            let group = find(tx, organisation, &group)?.ok_or_else(|| AccessError::NoGroup(group.clone()))?;
            f(tx, organisation, group)
        });
        done.await
    }
}

pub(crate) fn find(tx: &mut Tx<'_>, organisation: i64, group: &str) -> Result<Option<i64>, RecordsError> {
    let sql = "SELECT id FROM access_groups WHERE organisation = $1 AND folded = $2";
    tx.query_first(sql, &[organisation.into(), fold(group).into()])?.map(|row| row.get(0)).transpose()
}

pub(crate) fn insert_member(tx: &mut Tx<'_>, group: i64, user: i64, source: &str) -> Result<(), RecordsError> {
    let sql = "INSERT INTO access_group_members (grouping, member, source) VALUES ($1, $2, $3)
               ON CONFLICT (grouping, member, source) DO NOTHING";
    tx.execute(sql, &[group.into(), user.into(), source.into()]).map(drop)
}

fn read(tx: &mut Tx<'_>, group: i64, name: String) -> Result<GroupRecord, RecordsError> {
    let sql = "SELECT DISTINCT owners.name FROM access_group_members
               JOIN owners ON owners.id = access_group_members.member
               WHERE access_group_members.grouping = $1 ORDER BY owners.name";
    let members = tx.query(sql, &[group.into()])?.iter().map(|row| row.get(0)).collect::<Result<_, _>>()?;
    let sql = "SELECT pattern, role FROM access_group_grants WHERE grouping = $1 ORDER BY pattern";
    let grants = tx.query(sql, &[group.into()])?;
    let grants = grants.iter().map(|row| Ok((row.get(0)?, row.parse(1)?))).collect::<Result<_, RecordsError>>()?;
    Ok(GroupRecord { name, members, grants })
}
