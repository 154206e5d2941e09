//! Who may see a repository and who works on it. That it exists is for the room that hosts it to say; here is only what
//! its rights follow from. A repository that nothing is known of here is private to its owner.

use model::RepoName;
use store::{RecordsError, Tx, Value};

use crate::accounts::user_id;
use crate::schema::fold;
use crate::{Access, AccessError, Role};

/// The columns that name a repository.
fn key(repository: &RepoName) -> [Value; 2] {
    [fold(repository.owner()).into(), fold(repository.name()).into()]
}

impl Access {
    /// Says that there is a repository and whether everybody may read it and its images, or changes that.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn put_repository(&self, repository: &RepoName, public: bool) -> Result<(), AccessError> {
        let [owner, name] = key(repository);
        let sql = "INSERT INTO repository_access (owner, name, public) VALUES ($1, $2, $3)
                   ON CONFLICT (owner, name) DO UPDATE SET public = excluded.public";
        self.change(move |tx| tx.execute(sql, &[owner, name, public.into()]).map(drop)).await
    }

    /// Whether everybody may read a repository; nothing if it is not known here.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn is_public(&self, repository: &RepoName) -> Result<Option<bool>, AccessError> {
        let key = key(repository);
        let sql = "SELECT public FROM repository_access WHERE owner = $1 AND name = $2";
        let row = self.records.read(move |tx| tx.query_first(sql, &key)).await?;
        Ok(row.map(|row| row.get(0)).transpose()?)
    }

    /// Moves what is known of a repository to its new name. Nothing happens if nothing is known.
    ///
    /// # Errors
    /// [`AccessError::Exists`] when the new name is taken.
    pub async fn rename_repository(&self, from: &RepoName, to: &RepoName) -> Result<(), AccessError> {
        let (old, new, to) = (key(from), key(to), to.to_string());
        let renamed = self.change(move |tx| {
            let sql = "SELECT public FROM repository_access WHERE owner = $1 AND name = $2";
            if old != new && tx.query_first(sql, &new)?.is_some() {
                return Err(AccessError::Exists(to).into());
            }
            let [old_owner, old_name] = old;
            let [new_owner, new_name] = new;
            let values = [old_owner, old_name, new_owner, new_name];
            for table in ["repository_access", "collaborators"] {
                let sql = format!("UPDATE {table} SET owner = $3, name = $4 WHERE owner = $1 AND name = $2");
                tx.execute(&sql, &values)?;
            }
            Ok(())
        });
        renamed.await
    }

    /// Forgets a repository. A later one of the same name inherits nothing.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn remove_repository(&self, repository: &RepoName) -> Result<(), AccessError> {
        let key = key(repository);
        let removed = self.change(move |tx| {
            tx.execute("DELETE FROM collaborators WHERE owner = $1 AND name = $2", &key)?;
            tx.execute("DELETE FROM repository_access WHERE owner = $1 AND name = $2", &key).map(drop)
        });
        removed.await
    }

    /// Gives a user a role in one repository, or changes it.
    ///
    /// # Errors
    /// [`AccessError::NoRepository`], [`AccessError::NoUser`].
    pub async fn add_collaborator(&self, repository: &RepoName, user: &str, role: Role) -> Result<(), AccessError> {
        let (repository, user) = (repository.clone(), user.to_owned());
        let added = self.change(move |tx| {
            let [owner, name] = known(tx, &repository)?;
            let user = user_id(tx, &user)?;
            let sql = "INSERT INTO collaborators (owner, name, collaborator, role) VALUES ($1, $2, $3, $4)
                       ON CONFLICT (owner, name, collaborator) DO UPDATE SET role = excluded.role";
            tx.execute(sql, &[owner, name, user.into(), role.name().into()]).map(drop)
        });
        added.await
    }

    /// Takes a collaborator's role away. Nothing happens if they had none.
    ///
    /// # Errors
    /// [`AccessError::NoUser`].
    pub async fn remove_collaborator(&self, repository: &RepoName, user: &str) -> Result<(), AccessError> {
        let (key, user) = (key(repository), user.to_owned());
        let removed = self.change(move |tx| {
            let [owner, name] = key;
            let user = user_id(tx, &user)?;
            let sql = "DELETE FROM collaborators WHERE owner = $1 AND name = $2 AND collaborator = $3";
            tx.execute(sql, &[owner, name, user.into()]).map(drop)
        });
        removed.await
    }

    /// The collaborators of a repository by name.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn collaborators(&self, repository: &RepoName) -> Result<Vec<(String, Role)>, AccessError> {
        let key = key(repository);
        let found = self.records.read(move |tx| {
            let sql = "SELECT owners.name, collaborators.role
                       FROM collaborators JOIN owners ON owners.id = collaborators.collaborator
                       WHERE collaborators.owner = $1 AND collaborators.name = $2 ORDER BY owners.folded";
            tx.query(sql, &key)?.iter().map(|row| Ok((row.get(0)?, row.parse(1)?))).collect()
        });
        Ok(found.await?)
    }
}

fn known(tx: &mut Tx<'_>, repository: &RepoName) -> Result<[Value; 2], RecordsError> {
    let key = key(repository);
    let sql = "SELECT public FROM repository_access WHERE owner = $1 AND name = $2";
    match tx.query_first(sql, &key)? {
        Some(_) => Ok(key),
        None => Err(AccessError::NoRepository(repository.to_string()).into()),
    }
}
