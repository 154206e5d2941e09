//! The permissions of what is written do not depend on the umask. A test of its own, as a process has only one.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use git::{CommitRequest, Git, Materialise, Repository};
use model::Timestamp;

#[tokio::test]
async fn the_umask_does_not_matter() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::init(&Git::discover().unwrap(), &dir.path().join("r.git"), "main").await.unwrap();
    let commit = repository
        .commit_files(CommitRequest {
            parent: None,
            changes: BTreeMap::from([("d/file".to_owned(), Some(b"x".to_vec()))]),
            message: "x".to_owned(),
            author_name: "A".to_owned(),
            author_email: "a@example.org".to_owned(),
            when: Timestamp(0),
        })
        .await
        .unwrap();
    let dest = dir.path().join("out");
    let wanted = Materialise { path: "", owner: None, mtime: Timestamp(0), keep: &|_| true };
    repository.materialise(&commit, wanted, &dest).await.unwrap();
    for (path, mode) in [("", 0o755), ("d", 0o755), ("d/file", 0o644)] {
        assert_eq!(dest.join(path).metadata().unwrap().permissions().mode() & 0o7777, mode, "{path}");
    }
}
