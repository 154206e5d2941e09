use git::GitError;
use model::Timestamp;

use crate::fixture::Fixture;

#[tokio::test]
async fn a_commit_tells_of_itself() {
    let fixture = Fixture::new().await;
    let one = fixture.commit(None, &[("a", "1")], "A subject\non two lines\n\nBody.").await;
    let two = fixture.commit(None, &[("a", "2")], "other").await;
    let tree = fixture.repository.tree_id(&one, "").await.unwrap().unwrap();
    let args = ["commit-tree", &tree, "-p", one.as_str(), "-p", two.as_str(), "-F", "-"];
    let merge = fixture.git(&args, b"caf\xe9").await.parse().unwrap();
    let info = fixture.repository.commit_info(&one).await.unwrap();
    assert_eq!(info.subject, "A subject on two lines");
    assert_eq!(info.message, "A subject\non two lines\n\nBody.");
    assert_eq!(info.committed, Timestamp(1_700_000_000_000));
    let info = fixture.repository.commit_info(&merge).await.unwrap();
    assert_eq!((info.tree, info.parents), (tree, vec![one, two]));
    assert!(info.subject.starts_with("caf"));
    let none = "1".repeat(40).parse().unwrap();
    assert!(matches!(fixture.repository.commit_info(&none).await, Err(GitError::NoObject { .. })));
}

#[tokio::test]
async fn finds_trailers() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let one = fixture.commit(None, &[("a", "1")], "x\n\nTowpath-Run: 7\nTowpath-Key: a b").await;
    let two = fixture.commit(Some(&one), &[("a", "2")], "Towpath-Run: 8\n\nno trailer").await;
    let three = fixture.commit(Some(&two), &[("a", "3")], "x\n\nTowpath-Run: 17\nTowpath-Run: 9").await;
    let find = |value: &'static str, limit| repository.find_trailer(&three, "Towpath-Run", value, limit);
    assert_eq!(find("7", 10).await.unwrap(), Some(one.clone()));
    assert_eq!(find("7", 2).await.unwrap(), None, "not among the last two");
    assert_eq!(find("8", 10).await.unwrap(), None, "that is the subject");
    assert_eq!(find("9", 10).await.unwrap(), Some(three.clone()));
    assert_eq!(find("1", 10).await.unwrap(), None);
    assert_eq!(repository.find_trailer(&three, "towpath-key", "a b", 10).await.unwrap(), Some(one));
    for bad in ["", "a b", "x)%H", "k\n"] {
        let result = repository.find_trailer(&three, bad, "7", 10).await;
        assert!(matches!(result, Err(GitError::BadName { .. })), "{bad}");
    }
    let none = "1".repeat(40).parse().unwrap();
    assert!(matches!(repository.find_trailer(&none, "K", "v", 1).await, Err(GitError::NoObject { .. })));
}

#[tokio::test]
async fn compares_commits() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let one = fixture.commit(None, &[("a", "long enough to be found again\n"), ("dir/b", "2")], "x").await;
    let renamed = fixture.commit(Some(&one), &[("dir/c", "3"), ("a b\n", "x")], "x").await;
    let forced = fixture.commit(None, &[("a", "other")], "x").await;
    assert!(repository.is_ancestor(&one, &renamed).await.unwrap());
    assert!(repository.is_ancestor(&one, &one).await.unwrap());
    assert!(!repository.is_ancestor(&renamed, &one).await.unwrap());
    assert!(!repository.is_ancestor(&one, &forced).await.unwrap());
    assert_eq!(repository.changed_paths(Some(&one), &renamed).await.unwrap(), ["a b\n", "dir/c"]);
    assert_eq!(repository.changed_paths(Some(&renamed), &forced).await.unwrap(), ["a", "a b\n", "dir/b", "dir/c"]);
    assert_eq!(repository.changed_paths(None, &one).await.unwrap(), ["a", "dir/b"]);
    assert!(repository.changed_paths(Some(&one), &one).await.unwrap().is_empty());
    let none = "1".repeat(40).parse().unwrap();
    assert!(matches!(repository.is_ancestor(&none, &one).await, Err(GitError::NoObject { .. })));
    assert!(matches!(repository.is_ancestor(&one, &none).await, Err(GitError::NoObject { .. })));
    assert!(matches!(repository.changed_paths(Some(&none), &one).await, Err(GitError::NoObject { .. })));
    assert!(matches!(repository.changed_paths(None, &none).await, Err(GitError::NoObject { .. })));
}
