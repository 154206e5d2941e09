use std::collections::BTreeMap;

use git::{CommitError, Expected, GitError, Mode};
use model::{CommitId, Timestamp};

use crate::fixture::{Fixture, ref_name, request};

fn changes(list: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<Vec<u8>>> {
    list.iter().map(|(path, text)| ((*path).to_owned(), text.map(|text| text.as_bytes().to_vec()))).collect()
}

async fn paths(fixture: &Fixture, commit: &CommitId) -> Vec<String> {
    fixture.repository.tree(commit, "").await.unwrap().into_iter().map(|entry| entry.path).collect()
}

#[tokio::test]
async fn writes_changes_and_deletes() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let first = fixture.commit(None, &[("a/b", "1"), ("a/c", "2"), ("d", "3")], "first").await;
    let edits = [("a/b", Some("new")), ("a/c", None), ("no/such", None), ("e/f/g é", Some("")), ("-x", Some("y"))];
    let second = repository.commit_files(request(Some(&first), changes(&edits), "second")).await.unwrap();
    assert_eq!(paths(&fixture, &second).await, ["-x", "a/b", "d", "e/f/g é"]);
    assert_eq!(repository.read_file(&second, "a/b", 9).await.unwrap().unwrap(), b"new");
    let again = repository.commit_files(request(Some(&first), changes(&edits), "second")).await.unwrap();
    assert_eq!(again, second, "the same request is the same commit");
    let info = repository.commit_info(&second).await.unwrap();
    assert_eq!((info.author.as_str(), info.author_email.as_str()), ("Towpath", "towpath@example.org"));
    assert_eq!((info.parents, info.committed), (vec![first.clone()], Timestamp(1_700_000_000_000)));
    // A file makes place for a directory, and a directory for a file when it is emptied first.
    let swap = repository.commit_files(request(Some(&first), changes(&[("d", None), ("d/x", Some("y"))]), "swap"));
    assert_eq!(paths(&fixture, &swap.await.unwrap()).await, ["a/b", "a/c", "d/x"]);
    assert!(
        !std::fs::read_dir(repository.dir())
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with(".towpath") })
    );
    assert_eq!(fixture.git(&["fsck", "--strict", "--no-dangling"], b"").await, "");
}

#[tokio::test]
async fn large_and_many_files() {
    let fixture = Fixture::new().await;
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let mut many: BTreeMap<String, Option<Vec<u8>>> =
        (0..1500).map(|n| (format!("dir{}/file{n}", n % 7), Some(n.to_string().into_bytes()))).collect();
    many.insert("large".to_owned(), Some(large.clone()));
    let first = fixture.repository.commit_files(request(None, many.clone(), "many")).await.unwrap();
    assert_eq!(paths(&fixture, &first).await.len(), 1501);
    assert_eq!(fixture.repository.read_file(&first, "large", 3_000_000).await.unwrap().unwrap(), large);
    let second = fixture.repository.commit_files(request(Some(&first), many, "same")).await.unwrap();
    assert_eq!(
        fixture.repository.tree_id(&first, "").await.unwrap(),
        fixture.repository.tree_id(&second, "").await.unwrap()
    );
}

#[tokio::test]
async fn a_file_keeps_its_mode() {
    let fixture = Fixture::new().await;
    let file = |path: &str, mode| (path.to_owned(), mode, b"old".to_vec());
    let first = fixture.import([file("run", "100755"), file("text", "100644"), file("link", "120000")]).await;
    let edits = changes(&[("run", Some("1")), ("text", Some("2")), ("link", None), ("new", Some("3"))]);
    let second = fixture.repository.commit_files(request(Some(&first), edits, "x")).await.unwrap();
    let modes: Vec<_> =
        fixture.repository.tree(&second, "").await.unwrap().into_iter().map(|e| (e.path, e.mode)).collect();
    let expected = [("new", Mode::File), ("run", Mode::Executable), ("text", Mode::File)];
    assert_eq!(modes, expected.map(|(path, mode)| (path.to_owned(), mode)));
}

#[tokio::test]
async fn nothing_is_written_through_a_link_or_into_git() {
    let fixture = Fixture::new().await;
    let blob = fixture.blob(b"/etc").await;
    let sub = fixture.raw_tree(&[("120000", b"link", &blob)]).await;
    let tree = fixture
        .raw_tree(&[
            ("100644", b"file", &blob),
            ("120000", b"link", &blob),
            ("160000", b"module", &"1".repeat(40)),
            ("40000", b"sub", &sub),
        ])
        .await;
    let parent = fixture.commit_tree(&tree).await;
    for (path, why) in [
        ("link/passwd", "\"link\" is a symbolic link"),
        ("sub/link/passwd", "\"sub/link\" is a symbolic link"),
        ("link", "it is a symbolic link"),
        ("module", "it is a submodule"),
        ("module/x", "\"module\" is a submodule"),
        ("sub", "it is a directory"),
        ("file/x", "\"file\" is a file"),
        ("", "a part of it is empty"),
        ("/etc/passwd", "a part of it is empty"),
        ("../x", "it contains \".\" or \"..\""),
        ("sub/./x", "it contains \".\" or \"..\""),
        ("sub/.git/config", "it leads into .git"),
        (".GIT/hooks/post-receive", "it leads into .git"),
        ("a\0b", "a part of it contains a NUL byte"),
    ] {
        let result = fixture.repository.commit_files(request(Some(&parent), changes(&[(path, Some("x"))]), "x")).await;
        match result {
            Err(CommitError::Path { path: named, why: said }) => {
                assert_eq!(named, path);
                assert!(said == why || path.contains('\0'), "{path:?}: {said}");
            }
            other => panic!("{path:?}: {other:?}"),
        }
    }
    // Spellings that other file systems fold into .git: git refuses them.
    for path in ["git~1/config", "GIT~1", "a/.git./x", ".g\u{200c}it/config", ".git /config"] {
        let result = fixture.repository.commit_files(request(Some(&parent), changes(&[(path, Some("x"))]), "x")).await;
        let named = matches!(&result, Err(CommitError::Path { path: named, .. }) if named == path);
        assert!(named, "{path:?}: {result:?}");
    }
    let twice = changes(&[("a", Some("1")), ("a/b", Some("2"))]);
    let result = fixture.repository.commit_files(request(Some(&parent), twice, "x")).await;
    assert!(matches!(result, Err(CommitError::Path { .. })));
    let through = fixture.repository.commit_files(request(Some(&parent), changes(&[("link/x", None)]), "x")).await;
    assert!(matches!(through, Err(CommitError::Path { .. })), "deleting through a link is refused as well");
}

#[tokio::test]
async fn what_cannot_be_in_a_commit_is_refused() {
    let fixture = Fixture::new().await;
    let good = request(None, changes(&[("a", Some("1"))]), "x");
    let mut bad = good.clone();
    bad.author_name = "A\nparent x".to_owned();
    assert!(matches!(
        fixture.repository.commit_files(bad.clone()).await,
        Err(CommitError::Author { field: "name", .. })
    ));
    bad.author_name = " <>".to_owned();
    assert!(matches!(fixture.repository.commit_files(bad).await, Err(CommitError::Author { field: "name", .. })));
    let mut bad = good.clone();
    bad.author_email = "a> 0 +0000\ngpgsig x <b".to_owned();
    assert!(matches!(fixture.repository.commit_files(bad).await, Err(CommitError::Author { field: "address", .. })));
    for message in ["", " \n", "a\0b"] {
        let mut bad = good.clone();
        bad.message = message.to_owned();
        assert!(matches!(fixture.repository.commit_files(bad).await, Err(CommitError::Message)));
    }
    let mut bad = good.clone();
    bad.when = Timestamp(-1);
    assert!(matches!(fixture.repository.commit_files(bad).await, Err(CommitError::Time(_))));
    let mut bad = good.clone();
    bad.parent = Some("1".repeat(40).parse().unwrap());
    let error = fixture.repository.commit_files(bad).await.unwrap_err();
    assert!(matches!(error, CommitError::Git(GitError::NoObject { .. })));
    let mut odd = good;
    odd.author_name = "Zoë \"Z\" O'Neil".to_owned();
    odd.message = "--amend\n\n# not a comment\n\nTowpath-Run: 7\n".to_owned();
    let commit = fixture.repository.commit_files(odd).await.unwrap();
    let info = fixture.repository.commit_info(&commit).await.unwrap();
    assert_eq!(info.author, "Zoë \"Z\" O'Neil");
    assert_eq!(info.message, "--amend\n\n# not a comment\n\nTowpath-Run: 7");
    assert_eq!(info.subject, "--amend");
}

#[tokio::test]
async fn commits_at_the_same_time_do_not_meet() {
    let fixture = Fixture::new().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8 {
        let repository = fixture.repository.clone();
        let files = changes(&[("n", Some(&n.to_string())), ("same", Some("same"))]);
        tasks.spawn(async move { (n, repository.commit_files(request(None, files, "x")).await.unwrap()) });
    }
    for (n, commit) in tasks.join_all().await {
        let content = fixture.repository.read_file(&commit, "n", 9).await.unwrap().unwrap();
        assert_eq!(content, n.to_string().as_bytes());
        let name = ref_name(&format!("refs/heads/{n}"));
        fixture.repository.update_ref(&name, &commit, Expected::Absent).await.unwrap();
    }
}
