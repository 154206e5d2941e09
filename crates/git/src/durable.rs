//! What git leaves to the file system: directory entries on the disk, and the traces of processes that were killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use model::RefName;

use crate::repository::Scratch;
use crate::synced::Synced;
use crate::{GitError, Repository};

/// A lock file older than this has no living owner: git holds one for the time of a few writes.
const LOCK_AGE: Duration = Duration::from_secs(2);

/// Runs file operations away from the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, GitError> + Send + 'static,
) -> Result<T, GitError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(GitError::run("write to the disk", std::io::Error::other(error))))
}

/// Brings the entries of a directory onto the disk.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), GitError> {
    sync_file(dir)
}

pub(crate) fn sync_file(path: &Path) -> Result<(), GitError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| GitError::io(path, error))
}

/// Brings a directory with everything in it onto the disk.
pub(crate) fn sync_tree(dir: &Path) -> Result<(), GitError> {
    for (path, is_dir) in entries(dir)? {
        if is_dir { sync_tree(&path)? } else { sync_file(&path)? }
    }
    sync_dir(dir)
}

/// The entries of a directory, and which of them are directories; nothing if it is gone.
fn entries(dir: &Path) -> Result<Vec<(PathBuf, bool)>, GitError> {
    let error = |error| GitError::io(dir, error);
    let list = match std::fs::read_dir(dir) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(error)?,
    };
    list.map(|entry| entry.and_then(|entry| Ok((entry.path(), entry.file_type()?.is_dir()))).map_err(error)).collect()
}

/// Syncs a directory, unless git has removed it meanwhile.
fn sync_if_there(dir: &Path) -> Result<(), GitError> {
    match sync_dir(dir) {
        Err(GitError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Syncs a directory after all directories below it, not their files.
fn sync_dirs(dir: &Path) -> Result<(), GitError> {
    for (path, is_dir) in entries(dir)? {
        if is_dir {
            sync_dirs(&path)?;
        }
    }
    sync_if_there(dir)
}

fn sync_objects(dir: &Path, synced: &Synced) -> Result<(), GitError> {
    let objects = dir.join("objects");
    let below: Vec<PathBuf> =
        entries(&objects)?.into_iter().filter_map(|(path, is_dir)| is_dir.then_some(path)).collect();
    synced.bring(&objects, &below)
}

fn sync_refs(dir: &Path, refs: &[RefName]) -> Result<(), GitError> {
    let mut dirs: Vec<&Path> = refs.iter().flat_map(|name| Path::new(name.as_str()).ancestors().skip(1)).collect();
    // Deepest first: an entry is of use once what it names is there.
    dirs.sort_unstable_by_key(|path| std::cmp::Reverse((path.components().count(), *path)));
    dirs.dedup();
    dirs.into_iter().try_for_each(|path| sync_if_there(&dir.join(path)))
}

impl Repository {
    /// Brings the directory entries of all objects, and then those of `refs`, onto the disk.
    ///
    /// Git syncs what is in files, not the directories that name them. Whoever let a git process write (as a push does)
    /// calls this before saying that it is done; what this crate writes is synced already. Directories of objects that
    /// are as they were when this process synced them last are left out.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn sync(&self, refs: &[RefName]) -> Result<(), GitError> {
        let (dir, refs, synced) = (self.dir().to_owned(), refs.to_vec(), self.git().synced());
        blocking(move || sync_objects(&dir, &synced).and_then(|()| sync_refs(&dir, &refs))).await
    }

    pub(crate) async fn sync_ref(&self, name: &RefName) -> Result<(), GitError> {
        let (dir, refs) = (self.dir().to_owned(), [name.clone()]);
        blocking(move || sync_refs(&dir, &refs)).await
    }

    /// Brings the directory entries of all objects and refs onto the disk.
    pub(crate) async fn sync_all_refs(&self) -> Result<(), GitError> {
        let (dir, synced) = (self.dir().to_owned(), self.git().synced());
        blocking(move || {
            sync_objects(&dir, &synced)?;
            sync_dirs(&dir.join("refs"))?;
            sync_dir(&dir)
        })
        .await
    }

    pub(crate) async fn sync_objects(&self) -> Result<(), GitError> {
        let (dir, synced) = (self.dir().to_owned(), self.git().synced());
        blocking(move || sync_objects(&dir, &synced)).await
    }

    /// Removes what killed processes left: lock files, which would block their refs for ever, and unfinished objects.
    ///
    /// For the start of a server, before anything else uses the repository. A lock younger than two seconds is waited
    /// for, as its process may have outlived the server. Returns how much was removed.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn recover(&self) -> Result<usize, GitError> {
        let dir = self.dir().to_owned();
        blocking(move || {
            let mut removed = remove_locks(&dir, false)? + remove_locks(&dir.join("refs"), true)?;
            removed += remove_locks(&dir.join("objects").join("info"), false)?;
            for (path, is_dir) in entries(&dir.join("objects"))? {
                if is_dir && !name_of(&path).starts_with("tmp_objdir-") {
                    removed += remove_where(&path, |name| name.starts_with("tmp_") || name.starts_with(".tmp-"))?;
                }
            }
            removed += remove_where(&dir.join("objects"), |name| name.starts_with("tmp_"))?;
            removed += remove_where(&dir, |name| name.starts_with(Scratch::PREFIX))?;
            Ok(removed)
        })
        .await
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn remove_where(dir: &Path, chosen: impl Fn(&str) -> bool) -> Result<usize, GitError> {
    let mut removed = 0;
    for (path, is_dir) in entries(dir)? {
        if chosen(&name_of(&path)) {
            let result = if is_dir { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed += usize::from(gone(&path, result)?);
        }
    }
    Ok(removed)
}

/// Whether a file was removed by us, and not by somebody else just before.
fn gone(path: &Path, result: std::io::Result<()>) -> Result<bool, GitError> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(GitError::io(path, error)),
    }
}

fn remove_locks(dir: &Path, recursive: bool) -> Result<usize, GitError> {
    let mut removed = 0;
    for (path, is_dir) in entries(dir)? {
        if is_dir && recursive {
            removed += remove_locks(&path, true)?;
        } else if !is_dir && path.extension().is_some_and(|extension| extension == "lock") {
            wait_for_lock(&path);
            removed += usize::from(gone(&path, std::fs::remove_file(&path))?);
        }
    }
    Ok(removed)
}

/// Returns when the lock is gone or has no owner any more.
fn wait_for_lock(lock: &Path) {
    let began = Instant::now();
    let old = || {
        let modified = lock.symlink_metadata().and_then(|meta| meta.modified());
        modified.map_or(true, |time| time.elapsed().is_ok_and(|age| age > LOCK_AGE))
    };
    while !old() && began.elapsed() < LOCK_AGE {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use model::Timestamp;

    use super::*;
    use crate::{CommitRequest, Git};

    /// The repository is opened anew for each request: what is known must outlast it.
    #[tokio::test]
    async fn what_was_synced_is_known_to_all_that_have_the_same_git() {
        let dir = tempfile::tempdir().unwrap();
        let git = Git::discover().unwrap();
        let path = dir.path().join("r.git");
        Repository::init(&git, &path, "main").await.unwrap();
        let mut known = Vec::new();
        for page in ["one", "two"] {
            tokio::time::sleep(Duration::from_millis(150)).await;
            let request = CommitRequest {
                parent: None,
                changes: [("page".to_owned(), Some(page.into()))].into(),
                message: page.to_owned(),
                author_name: "A U Thor".to_owned(),
                author_email: "a@example.org".to_owned(),
                when: Timestamp(0),
            };
            Repository::open(&git.clone(), &path).unwrap().commit_files(request).await.unwrap();
            known.push(git.synced().known(&path.join("objects")).len());
        }
        // First `info` and `pack`, then the three of the first commit's objects too; more where writing took its time.
        assert!(known[0] >= 2 && known[1] >= 5, "{known:?}");
    }
}
