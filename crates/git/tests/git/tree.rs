use git::{GitError, TreeEntry};

use crate::fixture::Fixture;

fn shown(entries: &[TreeEntry]) -> Vec<String> {
    entries.iter().map(|entry| format!("{} {:?} {:?}", entry.path, entry.mode, entry.size)).collect()
}

#[tokio::test]
async fn lists_what_is_there() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let blob = fixture.blob(b"text\n").await;
    let sub = fixture.raw_tree(&[("100644", b"new\nline", &blob), ("100755", b"run", &blob)]).await;
    let module = "1".repeat(40);
    let tree = fixture
        .raw_tree(&[
            ("100664", b"*", &blob),
            ("100644", b"caf\xe9", &blob),
            ("120000", b"link", &blob),
            ("160000", b"module", &module),
            ("40000", b"sub", &sub),
        ])
        .await;
    let commit = fixture.commit_tree(&tree).await;
    let all = repository.tree(&commit, "").await.unwrap();
    assert_eq!(
        shown(&all),
        [
            "* File Some(5)",
            "caf\u{fffd}e9 File Some(5)",
            "link Symlink Some(5)",
            "module Gitlink None",
            "sub/new\nline File Some(5)",
            "sub/run Executable Some(5)",
        ]
    );
    assert_eq!(all[3].object, module);
    assert_eq!(shown(&repository.tree(&commit, "./sub/").await.unwrap()).len(), 2);
    assert_eq!(shown(&repository.tree(&commit, "sub/run").await.unwrap()), ["sub/run Executable Some(5)"]);
    assert_eq!(shown(&repository.tree(&commit, "*").await.unwrap()), ["* File Some(5)"], "no pattern");
    for none in ["su", "sub/x", "sub/run/x", "link/x", "--all", ":(glob)**", "s*"] {
        assert!(repository.tree(&commit, none).await.unwrap().is_empty(), "{none}");
    }
    for bad in ["/sub", "../x", "sub/../..", "a\0b"] {
        assert!(matches!(repository.tree(&commit, bad).await, Err(GitError::BadPath { .. })), "{bad:?}");
    }
    let module_commit = module.parse().unwrap();
    assert!(matches!(repository.tree(&module_commit, "").await, Err(GitError::NoObject { .. })));

    assert_eq!(repository.tree_id(&commit, "").await.unwrap(), Some(tree));
    assert_eq!(repository.tree_id(&commit, "sub/").await.unwrap(), Some(sub));
    for none in ["sub/run", "nothing", "module", "link", "x\ntree 1111", "-h", "sub/new\nline"] {
        assert_eq!(repository.tree_id(&commit, none).await.unwrap(), None, "{none}");
    }
    assert!(matches!(repository.tree_id(&module_commit, "").await, Err(GitError::NoObject { .. })));
}

#[tokio::test]
async fn reads_files_and_nothing_else() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let secret = fixture.blob(b"/etc/passwd").await;
    let file = fixture.blob(b"\0binary\xff").await;
    let sub = fixture.raw_tree(&[("100644", b"f\n", &file)]).await;
    let tree = fixture
        .raw_tree(&[("120000", b"link", &secret), ("160000", b"module", &"1".repeat(40)), ("40000", b"sub", &sub)])
        .await;
    let commit = fixture.commit_tree(&tree).await;
    assert_eq!(repository.read_file(&commit, "sub/f\n", 8).await.unwrap().unwrap(), b"\0binary\xff");
    let large = repository.read_file(&commit, "sub/f\n", 7).await.unwrap_err();
    assert_eq!(large.to_string(), "sub/f\n is larger than 7 bytes");
    for none in ["x", "sub/x", "link/x", "sub/f", "sub/f\n/x", "module/x", "--help"] {
        assert_eq!(repository.read_file(&commit, none, 99).await.unwrap(), None, "{none}");
    }
    for (path, message) in [
        ("link", "\"link\" is a symbolic link, not a file"),
        ("module", "\"module\" is a submodule, not a file"),
        ("sub", "\"sub\" is a directory, not a file"),
        ("", "\"\" is a directory, not a file"),
    ] {
        assert_eq!(repository.read_file(&commit, path, 99).await.unwrap_err().to_string(), message);
    }
    let missing = "2".repeat(40).parse().unwrap();
    assert!(matches!(repository.read_file(&missing, "a", 9).await, Err(GitError::NoObject { .. })));
}

/// A replacement object is what its repository's git shows in place of a commit; it must not reach us.
#[tokio::test]
async fn replaced_objects_are_not_seen() {
    let fixture = Fixture::new().await;
    let good = fixture.commit(None, &[("a", "good")], "good").await;
    let evil = fixture.commit(None, &[("a", "evil")], "evil").await;
    fixture.git(&["update-ref", &format!("refs/replace/{good}"), evil.as_str()], b"").await;
    assert_eq!(fixture.repository.read_file(&good, "a", 99).await.unwrap().unwrap(), b"good");
    assert_eq!(fixture.repository.commit_info(&good).await.unwrap().message, "good");
}
