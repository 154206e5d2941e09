//! Repositories as such: names, snapshots, and what crashes leave.

use model::{DeliveryId, RefName, RepoId, RepoName, SnapshotRef, Timestamp};
use source::HostingError;

use crate::support::{Host, hosting};

fn name(text: &str) -> RepoName {
    text.parse().unwrap()
}

#[tokio::test]
async fn names_differ_by_more_than_case() {
    let dir = tempfile::tempdir().unwrap();
    let hosting = hosting(dir.path()).await;
    let one = hosting.create(&name("demo/site"), "main", Timestamp(5)).await.unwrap();
    let taken = hosting.create(&name("Demo/Site"), "main", Timestamp(5)).await;
    assert!(matches!(taken, Err(HostingError::Exists(_))));
    let (lower, upper) = (name("demo/race"), name("demo/RACE"));
    let (left, right) =
        tokio::join!(hosting.create(&lower, "main", Timestamp(5)), hosting.create(&upper, "main", Timestamp(5)));
    assert_ne!(left.is_ok(), right.is_ok(), "one of two at the same time");
    assert_eq!(std::fs::read_dir(dir.path().join("git")).unwrap().count(), 2, "the other leaves nothing");
    assert_eq!(hosting.find(&name("DEMO/site")).await.unwrap(), Some(one.clone()));
    assert_eq!(hosting.by_id(one.id).await.unwrap(), Some(one.clone()));
    hosting.rename(&name("Demo/SITE"), &name("demo/Site")).await.unwrap();
    assert_eq!(hosting.find(&name("demo/site")).await.unwrap().unwrap().name, name("demo/Site"));
    assert!(matches!(hosting.rename(&name("demo/site"), &name("demo/rAce")).await, Err(HostingError::Exists(_))));
    assert!(matches!(hosting.rename(&name("demo/none"), &name("demo/x")).await, Err(HostingError::Unknown(_))));
    hosting.remove(&name("demo/SITE")).await.unwrap();
    assert!(!hosting.directory(one.id).exists());
    assert!(matches!(hosting.remove(&name("demo/site")).await, Err(HostingError::Unknown(_))));
    let again = hosting.create(&name("demo/site"), "main", Timestamp(5)).await.unwrap();
    assert_ne!(again.id, one.id);
    assert_eq!(hosting.list().await.unwrap().len(), 2);
    assert!(matches!(hosting.create(&name("demo/bad"), "a..b", Timestamp(5)).await, Err(HostingError::Git(_))));
    assert_eq!(hosting.find(&name("demo/bad")).await.unwrap(), None);
}

#[tokio::test]
async fn the_default_branch_is_a_branch() {
    let dir = tempfile::tempdir().unwrap();
    let hosting = hosting(dir.path()).await;
    let repo = hosting.create(&name("demo/site"), "main", Timestamp(5)).await.unwrap();
    hosting.set_default_branch(repo.id, &RefName::branch("trunk").unwrap()).await.unwrap();
    assert_eq!(hosting.by_id(repo.id).await.unwrap().unwrap().default_branch, "trunk");
    assert_eq!(hosting.repository(repo.id).unwrap().head().await.unwrap().short(), "trunk");
    assert!(hosting.set_default_branch(repo.id, &"refs/tags/x".parse().unwrap()).await.is_err());
    let unknown = hosting.set_default_branch(RepoId(99), &RefName::branch("x").unwrap()).await;
    assert!(matches!(unknown, Err(HostingError::Unknown(_))));
    // A crash between the records and HEAD.
    std::fs::write(hosting.directory(repo.id).join("HEAD"), "ref: refs/heads/other\n").unwrap();
    hosting.recover().await.unwrap();
    assert_eq!(hosting.repository(repo.id).unwrap().head().await.unwrap().short(), "trunk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_never_changes() {
    let host = Host::start().await;
    let client = host.with_commit("client").await;
    client.git(&["push", "-q", "origin", "main"]).await;
    let one = client.git(&["rev-parse", "HEAD"]).await.parse().unwrap();
    let two = client.commit("file", b"two").await.parse().unwrap();
    let snapshot = SnapshotRef::of(DeliveryId(1));
    assert!(host.hosting.pin(host.repo.id, &snapshot, &two).await.is_err(), "not there yet");
    client.git(&["push", "-q", "origin", "main"]).await;
    let pins = (0..5).map(|_| host.hosting.pin(host.repo.id, &snapshot, &one));
    for pinned in futures_util::future::join_all(pins).await {
        pinned.unwrap();
    }
    let other = host.hosting.pin(host.repo.id, &snapshot, &two).await;
    assert!(matches!(other, Err(HostingError::SnapshotTaken(..))), "{other:?}");
    assert_eq!(host.at(snapshot.as_str()).await, Some(one.to_string()));
    // The commit stays when the client takes its branch away.
    client.git(&["push", "-q", "origin", ":main"]).await;
    assert_eq!(host.at(snapshot.as_str()).await, Some(one.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_leave_nothing() {
    let host = Host::start().await;
    let client = host.with_commit("client").await;
    client.git(&["push", "-q", "origin", "main"]).await;
    let root = host.dir.path().join("git");
    let git = git::Git::discover().unwrap();
    // Made, but not recorded; an unknown one with contents; one half removed before and one after the decision.
    git::Repository::init(&git, &root.join("77.git"), "main").await.unwrap();
    git::Repository::init(&git, &root.join("78.git"), "main").await.unwrap();
    std::fs::write(root.join("78.git/objects/pack/pack-x.pack"), "x").unwrap();
    std::fs::create_dir_all(root.join(".towpath-scratch-1-1/repository")).unwrap();
    std::fs::create_dir_all(root.join(".removed-79/objects")).unwrap();
    std::fs::create_dir_all(host.git_dir().join("objects/tmp_objdir-incoming-x/pack")).unwrap();
    std::fs::rename(host.git_dir(), root.join(format!(".removed-{}", host.repo.id))).unwrap();
    let broken = host.hosting.create(&name("demo/broken"), "main", Timestamp(0)).await.unwrap();
    std::fs::remove_dir_all(host.hosting.directory(broken.id)).unwrap();
    host.hosting.recover().await.unwrap();
    let mut found: Vec<_> =
        std::fs::read_dir(&root).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    let mut wanted = [format!("{}.git", host.repo.id), "78.git".to_owned()];
    wanted.sort();
    assert_eq!(found, wanted);
    assert!(!host.git_dir().join("objects/tmp_objdir-incoming-x").exists());
    client.commit("file", b"two").await;
    client.git(&["push", "-q", "origin", "main"]).await;
}
