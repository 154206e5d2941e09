//! The hosted repositories: a row and a bare repository each, by a stable id.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use git::{Expected, Git, GitError, Repository};
use model::{CommitId, RefName, RepoId, RepoName, SnapshotRef, Timestamp};
use store::{Records, RecordsError, Row};

const MIGRATIONS: &[&str] = &["CREATE TABLE repositories (id BIGINT PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    folded TEXT NOT NULL UNIQUE, default_branch TEXT NOT NULL, created BIGINT NOT NULL)"];

/// What the names of directories begin with that are being removed.
pub(crate) const REMOVED: &str = ".removed-";

const COLUMNS: &str = "id, name, default_branch, created";

/// A hosted repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostedRepo {
    /// Its id, which survives a rename.
    pub id: RepoId,
    /// Its name.
    pub name: RepoName,
    /// The branch that HEAD names.
    pub default_branch: String,
    /// When it was made.
    pub created: Timestamp,
}

/// Why a repository cannot be made, found or changed.
#[derive(Debug, thiserror::Error)]
pub enum HostingError {
    /// Another one has the name, perhaps in other letters' case.
    #[error("repository {0} exists already")]
    Exists(RepoName),
    /// There is none.
    #[error("repository {0} does not exist")]
    Unknown(String),
    /// The snapshot ref holds another commit, which can only mean that somebody wrote it.
    #[error("{0} already holds {1}, not {2}")]
    SnapshotTaken(SnapshotRef, CommitId, CommitId),
    /// Git.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A ref could not be moved.
    #[error(transparent)]
    Ref(#[from] git::RefError),
    /// Records.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The directory.
    #[error("the repository's directory {path} cannot be changed: {error}")]
    Directory {
        /// The directory.
        path: String,
        /// Why.
        error: std::io::Error,
    },
}

impl HostingError {
    pub(crate) fn directory(path: &Path, error: std::io::Error) -> Self {
        Self::Directory { path: path.display().to_string(), error }
    }
}

/// All hosted repositories.
#[derive(Clone)]
pub struct Hosting {
    pub(crate) git: Git,
    pub(crate) records: Records,
    pub(crate) dir: Arc<Path>,
    /// The repositories that are being packed.
    pub(crate) packing: Arc<Mutex<HashSet<RepoId>>>,
}

impl Hosting {
    /// Hosting below `dir`, one directory `<id>.git` each.
    ///
    /// # Errors
    /// When the directory or the records cannot be written.
    pub async fn open(git: Git, records: Records, dir: PathBuf) -> Result<Self, HostingError> {
        records.migrate("source", MIGRATIONS).await?;
        make_dir(&dir).map_err(|error| HostingError::directory(&dir, error))?;
        Ok(Self { git, records, dir: dir.into(), packing: Arc::default() })
    }

    pub(crate) fn path(&self, id: RepoId) -> PathBuf {
        self.dir.join(format!("{id}.git"))
    }

    /// The git repository of an id.
    ///
    /// # Errors
    /// When its directory is not there.
    pub fn repository(&self, id: RepoId) -> Result<Repository, HostingError> {
        Ok(Repository::open(&self.git, &self.path(id))?)
    }

    /// The directory of a repository, for a supervised job that reads its snapshot.
    pub fn directory(&self, id: RepoId) -> PathBuf {
        self.path(id)
    }

    /// Makes an empty repository. Names that differ only in case are the same name.
    ///
    /// # Errors
    /// When the name is taken, or it cannot be written.
    pub async fn create(
        &self,
        name: &RepoName,
        default_branch: &str,
        now: Timestamp,
    ) -> Result<HostedRepo, HostingError> {
        if self.find(name).await?.is_some() {
            return Err(HostingError::Exists(name.clone()));
        }
        // The directory first: a row without one would be a repository that nobody can push to.
        let id = self.new_directory(default_branch).await?;
        let repo = HostedRepo { id, name: name.clone(), default_branch: default_branch.to_owned(), created: now };
        let row = repo.clone();
        let inserted = self
            .records
            .write(move |tx| {
                let name = row.name.to_string();
                let folded = name.to_ascii_lowercase();
                tx.execute(
                    "INSERT INTO repositories (id, name, folded, default_branch, created) VALUES ($1, $2, $3, $4, $5)",
                    &[row.id.0.into(), name.into(), folded.into(), row.default_branch.into(), row.created.0.into()],
                )
            })
            .await;
        match inserted {
            Ok(_) => Ok(repo),
            Err(error) => {
                remove_directory(self.path(id)).await?;
                if error.is_conflict() { Err(HostingError::Exists(name.clone())) } else { Err(error.into()) }
            }
        }
    }

    async fn new_directory(&self, default_branch: &str) -> Result<RepoId, HostingError> {
        loop {
            let id = RepoId(self.records.write(|tx| tx.next_id("repositories")).await?);
            match Repository::init(&self.git, &self.path(id), default_branch).await {
                Ok(_) => return Ok(id),
                // The records are older than the directory, as after a restore: what is there is not touched.
                Err(GitError::Exists { dir }) => {
                    tracing::warn!(dir = %dir.display(), "an unknown repository is in the way")
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives a repository another name. Its id, and so everything that belongs to it, stays.
    ///
    /// # Errors
    /// When the new name is taken or there is no repository of the old one.
    pub async fn rename(&self, from: &RepoName, to: &RepoName) -> Result<(), HostingError> {
        let (old, new) = (from.to_string().to_ascii_lowercase(), to.to_string());
        let folded = new.to_ascii_lowercase();
        let sql = "UPDATE repositories SET name = $2, folded = $3 WHERE folded = $1";
        let renamed = self.records.write(move |tx| tx.execute(sql, &[old.into(), new.into(), folded.into()])).await;
        match renamed {
            Ok(0) => Err(HostingError::Unknown(from.to_string())),
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() => Err(HostingError::Exists(to.clone())),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a repository and its git data.
    ///
    /// # Errors
    /// When there is none, or it cannot be removed.
    pub async fn remove(&self, name: &RepoName) -> Result<(), HostingError> {
        let repo = self.find(name).await?.ok_or_else(|| HostingError::Unknown(name.to_string()))?;
        let (from, to) = (self.path(repo.id), self.removed(repo.id));
        // Aside first: from here on no client reaches it, and a start after a crash either brings it back or ends this.
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(HostingError::directory(&from, error));
            }
            _ => sync_dir(&self.dir).map_err(|error| HostingError::directory(&self.dir, error))?,
        }
        let id = repo.id.0;
        self.records.write(move |tx| tx.execute("DELETE FROM repositories WHERE id = $1", &[id.into()])).await?;
        remove_directory(to).await
    }

    /// Where a repository is while it is being removed.
    pub(crate) fn removed(&self, id: RepoId) -> PathBuf {
        self.dir.join(format!("{REMOVED}{id}"))
    }

    /// Changes the branch that HEAD names.
    ///
    /// # Errors
    /// When there is no such repository or it cannot be written.
    pub async fn set_default_branch(&self, id: RepoId, branch: &RefName) -> Result<(), HostingError> {
        let no_branch = || GitError::BadName { kind: "branch", value: branch.to_string() };
        let value = branch.as_branch().ok_or_else(no_branch)?.to_owned();
        let sql = "UPDATE repositories SET default_branch = $2 WHERE id = $1";
        if self.records.write(move |tx| tx.execute(sql, &[id.0.into(), value.into()])).await? == 0 {
            return Err(HostingError::Unknown(id.to_string()));
        }
        // A crash here is put right by the next start.
        Ok(self.repository(id)?.set_head(branch).await?)
    }

    /// The repository of a name, in any case.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn find(&self, name: &RepoName) -> Result<Option<HostedRepo>, HostingError> {
        let folded = name.to_string().to_ascii_lowercase();
        self.one("folded = $1", folded.into()).await
    }

    /// The repository of an id.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn by_id(&self, id: RepoId) -> Result<Option<HostedRepo>, HostingError> {
        self.one("id = $1", id.0.into()).await
    }

    async fn one(&self, condition: &'static str, value: store::Value) -> Result<Option<HostedRepo>, HostingError> {
        let sql = format!("SELECT {COLUMNS} FROM repositories WHERE {condition}");
        Ok(self.records.read(move |tx| tx.query(&sql, &[value])?.first().map(repo).transpose()).await?)
    }

    /// All repositories, by name.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn list(&self) -> Result<Vec<HostedRepo>, HostingError> {
        let sql = format!("SELECT {COLUMNS} FROM repositories ORDER BY name");
        Ok(self.records.read(move |tx| tx.query(&sql, &[])?.iter().map(repo).collect()).await?)
    }

    /// Makes the snapshot ref. Doing it again with the same commit is fine; with another one it is an error.
    ///
    /// # Errors
    /// When the ref holds another commit or cannot be written.
    pub async fn pin(&self, id: RepoId, snapshot: &SnapshotRef, commit: &CommitId) -> Result<(), HostingError> {
        let repository = self.repository(id)?;
        let made = repository.update_ref(snapshot.as_ref_name(), commit, Expected::Absent).await;
        let Err(error) = made else { return Ok(()) };
        match repository.resolve(snapshot.as_str()).await? {
            Some(held) if held == *commit => Ok(()),
            Some(held) => Err(HostingError::SnapshotTaken(snapshot.clone(), held, commit.clone())),
            None => Err(error.into()),
        }
    }
}

fn repo(row: &Row) -> Result<HostedRepo, RecordsError> {
    let name: String = row.get(1)?;
    Ok(HostedRepo {
        id: RepoId(row.get(0)?),
        name: name.parse().map_err(|error: model::NameError| RecordsError::Refused(error.to_string()))?,
        default_branch: row.get(2)?,
        created: Timestamp(row.get(3)?),
    })
}

fn make_dir(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    dir.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_dir)
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}

/// Removes a directory with all that is in it, also while a git process still writes into it.
pub(crate) async fn remove_directory(path: PathBuf) -> Result<(), HostingError> {
    for attempt in 0.. {
        let dir = path.clone();
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(dir)).await;
        match removed.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(()) => break,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty && attempt < 20 => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            Err(error) => return Err(HostingError::directory(&path, error)),
        }
    }
    Ok(())
}
