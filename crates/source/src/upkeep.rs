//! What a start finds of an earlier server that was killed, and keeping repositories fast as pushes add up.

use std::path::Path;

use git::Repository;
use model::{RefName, RepoId};

use crate::hosting::{HostedRepo, Hosting, HostingError, REMOVED, remove_directory};

/// Packs of a repository before they are packed together: every push adds one, and every look-up goes through all.
const MOST_PACKS: usize = 40;

impl Hosting {
    /// Undoes or ends what an earlier server was killed in the middle of. For the start, before anything is served.
    ///
    /// A single repository that cannot be put right is logged, and does not keep the others from being served.
    ///
    /// # Errors
    /// When the records or the directory cannot be read.
    pub async fn recover(&self) -> Result<(), HostingError> {
        self.recover_directory().await?;
        for repo in self.list().await? {
            match self.recover_repository(&repo).await {
                Ok(0) => {}
                Ok(removed) => {
                    tracing::info!(repository = %repo.name, removed, "removed what killed git processes left")
                }
                Err(error) => tracing::error!(repository = %repo.name, %error, "a repository cannot be put right"),
            }
        }
        Ok(())
    }

    async fn recover_repository(&self, repo: &HostedRepo) -> Result<usize, HostingError> {
        let repository = self.repository(repo.id)?;
        let removed = repository.recover().await?;
        if let Ok(branch) = RefName::branch(&repo.default_branch)
            && repository.head().await? != branch
        {
            repository.set_head(&branch).await?;
        }
        Ok(removed)
    }

    async fn recover_directory(&self) -> Result<(), HostingError> {
        let failed = |error| HostingError::directory(&self.dir, error);
        for entry in std::fs::read_dir(&*self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(".towpath-scratch-") {
                remove_directory(entry.path()).await?;
            } else if let Some(id) = name.strip_prefix(REMOVED).and_then(id) {
                self.end_removal(id).await?;
            } else if let Some(id) = name.strip_suffix(".git").and_then(id)
                && self.by_id(id).await?.is_none()
            {
                self.forget_unmade(id).await?;
            }
        }
        Ok(())
    }

    /// A removal is decided when the row is gone; until then the repository comes back.
    async fn end_removal(&self, id: RepoId) -> Result<(), HostingError> {
        let (from, to) = (self.removed(id), self.path(id));
        if self.by_id(id).await?.is_none() {
            return remove_directory(from).await;
        }
        std::fs::rename(&from, &to).map_err(|error| HostingError::directory(&from, error))
    }

    /// A directory without a row: an empty one is what a crash left of making it. One with contents stays, as the
    /// records may be the wrong ones.
    async fn forget_unmade(&self, id: RepoId) -> Result<(), HostingError> {
        let path = self.path(id);
        let empty =
            !path.join("packed-refs").exists() && !has_file(&path.join("refs")) && !has_file(&path.join("objects"));
        if empty {
            tracing::info!(dir = %path.display(), "removing a repository that was not made to the end");
            return remove_directory(path).await;
        }
        tracing::warn!(dir = %path.display(), "this repository is not in the records; it is left alone");
        Ok(())
    }

    /// Packs a repository if its pushes have added up. Others may use it meanwhile.
    pub(crate) async fn maintain_if_due(&self, id: RepoId) {
        let Ok(repository) = self.repository(id) else { return };
        if packs(&repository) < MOST_PACKS || !self.packing(|set| set.insert(id)) {
            return;
        }
        if let Err(error) = repository.maintain().await {
            tracing::warn!(repository = %id, %error, "a repository could not be packed");
        }
        self.packing(|set| set.remove(&id));
    }

    fn packing(&self, change: impl FnOnce(&mut std::collections::HashSet<RepoId>) -> bool) -> bool {
        change(&mut self.packing.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn id(text: &str) -> Option<RepoId> {
    text.parse().ok().map(RepoId)
}

/// How many packs there are that git may touch.
fn packs(repository: &Repository) -> usize {
    let Ok(entries) = std::fs::read_dir(repository.dir().join("objects/pack")) else { return 0 };
    let packs =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.extension() == Some("pack".as_ref()));
    packs.filter(|path| !path.with_extension("keep").exists()).count()
}

/// Whether there is any file in or below `dir`; what cannot be read counts as one.
fn has_file(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return true };
    entries.into_iter().any(|entry| match entry {
        Ok(entry) => !entry.file_type().is_ok_and(|kind| kind.is_dir()) || has_file(&entry.path()),
        Err(_) => true,
    })
}
