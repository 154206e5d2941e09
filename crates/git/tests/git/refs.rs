use git::{Expected, Git, GitError, RefError, Repository};

use crate::fixture::{Fixture, ref_name};

#[tokio::test]
async fn a_ref_moves_only_from_where_it_is_expected() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let main = ref_name("refs/heads/main");
    let one = fixture.commit(None, &[("a", "1")], "one").await;
    let two = fixture.commit(Some(&one), &[("a", "2")], "two").await;
    repository.update_ref(&main, &one, Expected::Absent).await.unwrap();
    let again = repository.update_ref(&main, &two, Expected::Absent).await;
    assert!(matches!(again, Err(RefError::Conflict { found: Some(found), .. }) if found == one));
    let wrong = repository.update_ref(&main, &two, Expected::At(two.clone())).await.unwrap_err();
    assert_eq!(wrong.to_string(), format!("refs/heads/main is at {}, expected at {}", one.short(), two.short()));
    repository.update_ref(&main, &two, Expected::At(one.clone())).await.unwrap();
    repository.update_ref(&main, &one, Expected::Any).await.unwrap();
    assert_eq!(repository.resolve("main").await.unwrap(), Some(one.clone()));
    let absent = ref_name("refs/heads/absent");
    let missing = repository.update_ref(&absent, &two, Expected::At(one.clone())).await;
    assert!(matches!(missing, Err(RefError::Conflict { found: None, .. })));

    assert!(matches!(repository.delete_ref(&main, Expected::At(two.clone())).await, Err(RefError::Conflict { .. })));
    repository.delete_ref(&main, Expected::At(one.clone())).await.unwrap();
    assert_eq!(repository.resolve("main").await.unwrap(), None);
    repository.delete_ref(&main, Expected::Any).await.unwrap();
    assert!(repository.delete_ref(&main, Expected::At(one)).await.is_err());
}

#[tokio::test]
async fn of_many_at_once_one_wins() {
    let fixture = Fixture::new().await;
    let main = ref_name("refs/heads/main");
    let base = fixture.commit(None, &[("a", "0")], "base").await;
    fixture.repository.update_ref(&main, &base, Expected::Absent).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8 {
        let next = fixture.commit(Some(&base), &[("a", &n.to_string())], "next").await;
        let (repository, main, base) = (fixture.repository.clone(), main.clone(), base.clone());
        tasks.spawn(async move { (repository.update_ref(&main, &next, Expected::At(base)).await, next) });
    }
    let mut winners = Vec::new();
    for (result, next) in tasks.join_all().await {
        match result {
            Ok(()) => winners.push(next),
            Err(error) => assert!(matches!(error, RefError::Conflict { .. }), "{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(fixture.repository.resolve("main").await.unwrap(), winners.pop());
}

#[tokio::test]
async fn names_are_literal() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let commit = fixture.commit(None, &[("a", "1")], "one").await;
    for branch in ["--exec=touch${IFS}pwned", "-h", "--all", "$(id)", "a;b", "-", "ünï"] {
        let name = model::RefName::branch(branch).unwrap();
        repository.update_ref(&name, &commit, Expected::Absent).await.unwrap();
        assert_eq!(repository.resolve(branch).await.unwrap(), Some(commit.clone()), "{branch}");
        assert_eq!(repository.refs(name.as_str()).await.unwrap(), [(name.clone(), commit.clone())]);
        repository.set_head(&name).await.unwrap();
        assert_eq!(repository.head().await.unwrap(), name);
        assert_eq!(repository.resolve("HEAD").await.unwrap(), Some(commit.clone()));
        repository.delete_ref(&name, Expected::At(commit.clone())).await.unwrap();
    }
}

#[tokio::test]
async fn operators_of_git_mean_nothing() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let one = fixture.commit(None, &[("a", "1")], "one").await;
    let two = fixture.commit(Some(&one), &[("a", "2")], "two").await;
    repository.update_ref(&ref_name("refs/heads/main"), &two, Expected::Absent).await.unwrap();
    for name in ["", "main~1", "main^", "main@{0}", "@", ":/one", "main:a", "main\nmain", "..", "refs/heads", "x", "\0"]
    {
        assert_eq!(repository.resolve(name).await.unwrap(), None, "{name:?}");
    }
    let blob = fixture.blob(b"1").await;
    let zeros = "1".repeat(40);
    for name in [&blob, &zeros, &blob[..8], &one.as_str()[..6], &"a".repeat(64)] {
        assert_eq!(repository.resolve(name).await.unwrap(), None, "{name:?}");
    }
    assert_eq!(repository.resolve(&one.as_str()[..10]).await.unwrap(), Some(one));
    assert_eq!(repository.resolve("HEAD").await.unwrap(), Some(two));
}

/// Git itself looks for `refs/tags/refs/heads/main` and `refs/heads/HEAD` when there is no better match.
#[tokio::test]
async fn no_ref_stands_in_for_another() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let commit = fixture.commit(None, &[("a", "1")], "one").await;
    let main = ref_name("refs/heads/main");
    repository.update_ref(&ref_name("refs/tags/refs/heads/main"), &commit, Expected::Absent).await.unwrap();
    repository.update_ref(&ref_name("refs/heads/HEAD"), &commit, Expected::Absent).await.unwrap();
    assert_eq!(repository.resolve("HEAD").await.unwrap(), None, "main is not born");
    assert!(repository.refs("refs/heads/main").await.unwrap().is_empty());
    repository.update_ref(&main, &commit, Expected::Absent).await.unwrap();
    repository.delete_ref(&main, Expected::Any).await.unwrap();
    // A branch with the name of an id is not that id, nor one with a name as long as other repositories' ids.
    let other = fixture.commit(None, &[("a", "2")], "two").await;
    repository.update_ref(&ref_name(&format!("refs/heads/{other}")), &commit, Expected::Absent).await.unwrap();
    assert_eq!(repository.resolve(other.as_str()).await.unwrap(), Some(other));
    let long = "ab".repeat(32);
    repository.update_ref(&ref_name(&format!("refs/heads/{long}")), &commit, Expected::Absent).await.unwrap();
    let id = long.parse().unwrap();
    assert_eq!(repository.resolve(&long).await.unwrap(), None);
    assert!(matches!(repository.tree(&id, "").await, Err(GitError::NoObject { .. })));
    assert!(matches!(repository.commit_info(&id).await, Err(GitError::NoObject { .. })));
}

#[tokio::test]
async fn tags_lead_to_commits() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let commit = fixture.commit(None, &[("a", "1")], "one").await;
    let blob = fixture.blob(b"1").await;
    fixture.git(&["tag", "-a", "-m", "x", "v1", commit.as_str()], b"").await;
    fixture.git(&["tag", "-a", "-m", "x", "v2", "v1"], b"").await;
    fixture.git(&["tag", "-a", "-m", "x", "v3", &blob], b"").await;
    fixture.git(&["update-ref", "refs/tags/v4", &blob], b"").await;
    let tags = repository.refs("refs/tags/").await.unwrap();
    let expected = [(ref_name("refs/tags/v1"), commit.clone()), (ref_name("refs/tags/v2"), commit.clone())];
    assert_eq!(tags, expected);
    assert_eq!(repository.resolve("v2").await.unwrap(), Some(commit));
    assert_eq!(repository.resolve("v3").await.unwrap(), None);
    assert!(repository.refs("refs/tags/v").await.unwrap().len() == 2);
    for none in ["refs/ta*", "--format=x/", "refs/heads", "refs/tags/v1/", "nothing/", "\n"] {
        assert!(repository.refs(none).await.unwrap().is_empty(), "{none:?}");
    }
    // A tag that moves is compared by itself, not by its commit.
    let moved = repository.delete_ref(&ref_name("refs/tags/v1"), Expected::At("1".repeat(40).parse().unwrap())).await;
    assert!(matches!(moved, Err(RefError::Conflict { .. })));
}

#[tokio::test]
async fn packed_refs_are_refs() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let commit = fixture.commit(None, &[("a", "1")], "one").await;
    for n in 0..20 {
        let name = ref_name(&format!("refs/towpath/snapshots/{n}"));
        repository.update_ref(&name, &commit, Expected::Absent).await.unwrap();
    }
    fixture.git(&["pack-refs", "--all", "--prune"], b"").await;
    let name = ref_name("refs/towpath/snapshots/7");
    repository.delete_ref(&name, Expected::At(commit.clone())).await.unwrap();
    assert_eq!(repository.refs("refs/towpath/").await.unwrap().len(), 19);
    assert_eq!(repository.resolve(name.as_str()).await.unwrap(), None);
    let taken = repository.update_ref(&ref_name("refs/towpath/snapshots/8"), &commit, Expected::Absent).await;
    assert!(matches!(taken, Err(RefError::Conflict { .. })));
}

#[tokio::test]
async fn what_cannot_be_written_is_named() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let commit = fixture.commit(None, &[("a", "1")], "one").await;
    repository.update_ref(&ref_name("refs/heads/a"), &commit, Expected::Absent).await.unwrap();
    let below = repository.update_ref(&ref_name("refs/heads/a/b"), &commit, Expected::Absent).await.unwrap_err();
    assert_eq!(below.to_string(), "refs/heads/a/b cannot exist beside refs/heads/a");
    repository.update_ref(&ref_name("refs/heads/c/d"), &commit, Expected::Absent).await.unwrap();
    let above = repository.update_ref(&ref_name("refs/heads/c"), &commit, Expected::Absent).await.unwrap_err();
    assert_eq!(above.to_string(), "refs/heads/c cannot exist beside refs/heads/c/d");
    let none = repository.update_ref(&ref_name("refs/heads/x"), &"1".repeat(40).parse().unwrap(), Expected::Any).await;
    assert!(matches!(none, Err(RefError::Git(GitError::NoObject { .. }))));
}

#[tokio::test]
async fn repositories_are_made_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let git = Git::discover().unwrap();
    let at = dir.path().join("x.git");
    assert!(matches!(Repository::open(&git, &at), Err(GitError::NotARepository { .. })));
    for bad in ["", "a..b", "a b", "x.lock"] {
        assert!(matches!(Repository::init(&git, &at, bad).await, Err(GitError::BadName { .. })), "{bad}");
    }
    let made = Repository::init(&git, &at, "--exec=x").await.unwrap();
    assert_eq!(made.head().await.unwrap(), ref_name("refs/heads/--exec=x"));
    assert_eq!(made.resolve("HEAD").await.unwrap(), None);
    assert!(made.refs("").await.unwrap().is_empty());
    assert!(matches!(Repository::init(&git, &at, "main").await, Err(GitError::Exists { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    assert_eq!(Repository::open(&git, &at).unwrap().head().await.unwrap(), ref_name("refs/heads/--exec=x"));
    let nowhere = Repository::init(&git, &dir.path().join("no/such/x.git"), "main").await;
    assert!(matches!(nowhere, Err(GitError::Io { .. })));
}

/// What serves a repository to clients runs in the same environment, with the repository as an argument.
#[tokio::test]
async fn packs_can_be_served() {
    let fixture = Fixture::new().await;
    let commit = fixture.commit(None, &[("a", "1")], "one").await;
    fixture.repository.update_ref(&ref_name("refs/heads/main"), &commit, Expected::Absent).await.unwrap();
    for service in ["upload-pack", "receive-pack"] {
        let advertised = fixture.git(&[service, "--http-backend-info-refs", "."], b"").await;
        assert!(advertised.contains(&format!("{commit} refs/heads/main")), "{service}: {advertised}");
    }
}
