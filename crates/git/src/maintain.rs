//! Keeping a repository fast as it grows.

use crate::{GitError, Repository};

impl Repository {
    /// Packs loose refs and objects together, so that reading stays fast after many pushes.
    ///
    /// As git's own housekeeping is off ([`Git::command`](crate::Git::command)), somebody must call this now and then.
    /// No object is lost, not even one that no ref leads to (yet): others may use the repository meanwhile.
    ///
    /// # Errors
    /// When git fails; the repository is then as it was, or partly packed.
    pub async fn maintain(&self) -> Result<(), GitError> {
        self.ask("pack refs", &["pack-refs", "--all", "--prune"], []).await?;
        self.ask("pack objects", &["repack", "-d", "-q", "--geometric=2"], []).await?;
        self.sync_all_refs().await
    }
}
