use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Instant;

use git::{GitError, Materialise, Summary};
use model::{CommitId, Timestamp};

use crate::fixture::{Fixture, RawEntry, walk};

const TIME: Timestamp = Timestamp(1_600_000_000_500);

fn all(path: &str) -> Materialise<'_> {
    Materialise { path, owner: None, mtime: TIME, keep: &|_| true }
}

async fn write(fixture: &Fixture, commit: &CommitId, dest: &Path) -> Result<Summary, GitError> {
    fixture.repository.materialise(commit, all(""), dest).await
}

#[tokio::test]
async fn writes_what_the_commit_holds() {
    let fixture = Fixture::new().await;
    let file = |path: &str, mode, text: &str| (path.to_owned(), mode, text.as_bytes().to_vec());
    let commit = fixture
        .import([
            file("a/b/run", "100755", "#!/bin/sh\n"),
            file("a/b-c/x", "100644", ""),
            file("a/b.txt", "100644", "text"),
            file("a/bb/y", "100644", "y"),
            file("link", "120000", "../outside"),
            file("z é", "100644", "last\n"),
        ])
        .await;
    let dest = fixture.beside("out");
    let summary = write(&fixture, &commit, &dest).await.unwrap();
    assert_eq!(summary, Summary { files: 5, symlinks: 1, directories: 4, submodules: 0, bytes: 10 + 4 + 1 + 10 + 5 });
    let expected = ["a/", "a/b-c/", "a/b-c/x", "a/b.txt", "a/b/", "a/b/run", "a/bb/", "a/bb/y", "link@", "z é"];
    assert_eq!(walk(&dest), expected);
    assert_eq!(std::fs::read(dest.join("a/b/run")).unwrap(), b"#!/bin/sh\n");
    assert_eq!(std::fs::read_link(dest.join("link")).unwrap(), Path::new("../outside"));
    for (path, mode) in [("a/b/run", 0o755), ("a/b.txt", 0o644), ("a/b", 0o755), ("", 0o755)] {
        assert_eq!(dest.join(path).metadata().unwrap().permissions().mode() & 0o7777, mode, "{path}");
    }
    for path in expected {
        let meta = dest.join(path.trim_end_matches(['/', '@'])).symlink_metadata().unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_600_000_000, 500_000_000), "{path}");
    }
    assert_eq!(dest.metadata().unwrap().mtime(), 1_600_000_000);
    // Again over what is there, and over a file in the way.
    std::fs::remove_file(dest.join("a/b.txt")).unwrap();
    symlink("/etc/passwd", dest.join("a/b.txt")).unwrap();
    std::fs::write(dest.join("kept"), "").unwrap();
    let before = std::fs::read("/etc/passwd").unwrap();
    write(&fixture, &commit, &dest).await.unwrap();
    assert_eq!(std::fs::read("/etc/passwd").unwrap(), before);
    assert_eq!(std::fs::read(dest.join("a/b.txt")).unwrap(), b"text");
    assert_eq!(walk(&dest).len(), expected.len() + 1);
}

#[tokio::test]
async fn a_part_and_a_choice() {
    let fixture = Fixture::new().await;
    let files = [("app/Dockerfile", "FROM x"), ("app/src/main", "1"), ("app/target/big", "2"), ("other", "3")];
    let commit = fixture.commit(None, &files, "x").await;
    let keep = |path: &str| !path.starts_with("target/");
    let wanted = Materialise { keep: &keep, ..all("./app/") };
    let dest = fixture.beside("out");
    let summary = fixture.repository.materialise(&commit, wanted, &dest).await.unwrap();
    assert_eq!((summary.files, summary.directories), (2, 1));
    assert_eq!(walk(&dest), ["Dockerfile", "src/", "src/main"]);
    for (path, message) in [
        ("no", format!("commit {} has no \"no\"", commit.short())),
        ("other", format!("commit {} has no \"other\"", commit.short())),
        ("../x", "path \"../x\" is refused: it contains \"..\"".to_owned()),
    ] {
        let error = fixture.repository.materialise(&commit, all(path), &fixture.beside("none")).await.unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    assert!(!fixture.beside("none").exists(), "nothing half done");
}

#[tokio::test]
async fn gives_everything_its_owner() {
    let fixture = Fixture::new().await;
    let file = |path: &str, mode| (path.to_owned(), mode, b"x".to_vec());
    let commit = fixture.import([file("d/run", "100755"), file("link", "120000")]).await;
    let dest = fixture.beside("out");
    let own = fixture.repository.dir().metadata().unwrap();
    let owner = if own.uid() == 0 { (1234, 4321) } else { (own.uid(), own.gid()) };
    let wanted = Materialise { owner: Some(owner), ..all("") };
    fixture.repository.materialise(&commit, wanted, &dest).await.unwrap();
    for path in ["", "d", "d/run", "link"] {
        let meta = dest.join(path).symlink_metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), owner, "{path}");
    }
    assert_eq!(dest.join("d/run").metadata().unwrap().mode() & 0o7777, 0o755);
    if own.uid() != 0 {
        let stranger = Materialise { owner: Some((0, 0)), ..all("") };
        let result = fixture.repository.materialise(&commit, stranger, &fixture.beside("not")).await;
        assert!(matches!(result, Err(GitError::Io { .. })));
    }
}

#[tokio::test]
async fn nothing_is_written_outside() {
    let fixture = Fixture::new().await;
    let outside = fixture.beside("outside");
    std::fs::create_dir(&outside).unwrap();
    let file = fixture.blob(b"pwned").await;
    let link = fixture.blob(outside.as_os_str().as_encoded_bytes()).await;
    let inner = fixture.raw_tree(&[("100644", b"x", &file)]).await;
    let up = fixture.raw_tree(&[("40000", b"outside", &inner)]).await;
    let hostile: [(&str, &[RawEntry<'_>]); 9] = [
        ("a directory called ..", &[("40000", b"..", &up)]),
        ("a file called ..", &[("100644", b"..", &file)]),
        ("a name with slashes", &[("100644", b"../outside/x", &file)]),
        ("an absolute name", &[("100644", b"/x", &file)]),
        ("a link and a directory of one name", &[("120000", b"a", &link), ("40000", b"a", &inner)]),
        ("a link and a name through it", &[("120000", b"a", &link), ("100644", b"a/x", &file)]),
        ("a .git directory", &[("40000", b".git", &inner)]),
        ("a .GIT file", &[("100644", b".GIT", &file)]),
        ("a link to nothing", &[("120000", b"a", &fixture.blob(b"").await)]),
    ];
    for (index, (what, entries)) in hostile.iter().enumerate() {
        let commit = fixture.commit_tree(&fixture.raw_tree(entries).await).await;
        let dest = fixture.beside(&format!("out{index}"));
        let result = write(&fixture, &commit, &dest).await;
        assert!(matches!(result, Err(GitError::BadPath { .. } | GitError::Io { .. })), "{what}: {result:?}");
        assert!(walk(&outside).is_empty(), "{what}");
        assert!(!dest.join(".git").exists() && !dest.join(".GIT").exists(), "{what}");
    }
}

#[tokio::test]
async fn a_link_in_the_way_is_not_followed() {
    let fixture = Fixture::new().await;
    let commit = fixture.commit(None, &[("dir/x", "1"), ("file", "2")], "x").await;
    let (dest, outside) = (fixture.beside("out"), fixture.beside("outside"));
    std::fs::create_dir(&dest).unwrap();
    std::fs::create_dir(&outside).unwrap();
    symlink(&outside, dest.join("dir")).unwrap();
    let error = write(&fixture, &commit, &dest).await.unwrap_err();
    assert!(error.to_string().contains("out/dir"), "{error}");
    assert!(walk(&outside).is_empty());
    symlink(&outside, fixture.beside("link")).unwrap();
    assert!(write(&fixture, &commit, &fixture.beside("link")).await.is_err());
    assert!(walk(&outside).is_empty());
    // A directory where a file should be stays.
    let busy = fixture.beside("busy");
    std::fs::create_dir_all(busy.join("file")).unwrap();
    assert!(matches!(write(&fixture, &commit, &busy).await, Err(GitError::Io { .. })));
}

#[tokio::test]
async fn strange_names_and_submodules() {
    let fixture = Fixture::new().await;
    let file = fixture.blob(b"x").await;
    let tree = fixture
        .raw_tree(&[
            ("100644", b"--help", &file),
            ("100644", b"caf\xe9", &file),
            ("160000", b"module", &"1".repeat(40)),
            ("100644", b"new\nline", &file),
            ("100644", b"tab\t$(id)", &file),
        ])
        .await;
    let commit = fixture.commit_tree(&tree).await;
    let dest = fixture.beside("out");
    let summary = write(&fixture, &commit, &dest).await.unwrap();
    assert_eq!((summary.files, summary.submodules), (4, 1));
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
    assert!(dest.join(name).exists(), "the name is written as it is");
    assert!(dest.join("new\nline").exists() && !dest.join("module").exists());
}

#[tokio::test]
async fn a_missing_object_is_an_error() {
    let fixture = Fixture::new().await;
    let good = fixture.blob(b"x").await;
    let tree = fixture.raw_tree(&[("100644", b"a", &good), ("100644", b"b", &"1".repeat(40))]).await;
    let commit = fixture.commit_tree(&tree).await;
    let error = write(&fixture, &commit, &fixture.beside("out")).await.unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    let none = "2".repeat(40).parse().unwrap();
    assert!(matches!(write(&fixture, &none, &fixture.beside("no")).await, Err(GitError::NoObject { .. })));
}

#[tokio::test]
async fn depth_and_number_are_limited() {
    let fixture = Fixture::new().await;
    let file = fixture.blob(b"x").await;
    let mut tree = fixture.raw_tree(&[("100644", b"f", &file)]).await;
    for _ in 0..201 {
        tree = fixture.raw_tree(&[("40000", b"d", &tree)]).await;
    }
    let deep = fixture.commit_tree(&tree).await;
    let error = write(&fixture, &deep, &fixture.beside("deep")).await.unwrap_err();
    assert!(error.to_string().contains("more than 200 directories deep"), "{error}");
    // Ten directories in each of eight levels: a hundred million files in nine objects.
    let mut bomb = file;
    for level in 0..8 {
        let mode = if level == 0 { "100644" } else { "40000" };
        let names: Vec<[u8; 1]> = (b'0'..=b'9').map(|name| [name]).collect();
        let entries: Vec<_> = names.iter().map(|name| (mode, &name[..], bomb.as_str())).collect();
        bomb = fixture.raw_tree(&entries).await;
    }
    let bomb = fixture.commit_tree(&bomb).await;
    let wanted = Materialise { keep: &|_| false, ..all("") };
    let error = fixture.repository.materialise(&bomb, wanted, &fixture.beside("bomb")).await.unwrap_err();
    assert_eq!(error.to_string(), "the tree is larger than 1000000 files");
}

#[tokio::test]
async fn fifty_thousand_files() {
    let fixture = Fixture::new().await;
    let files =
        (0..50_000).map(|n| (format!("d{}/e{}/f{n}", n % 50, n % 1000), "100644", format!("{n}\n").into_bytes()));
    let commit = fixture.import(files).await;
    // In memory where that is possible: what is measured is not the disk, which others use too.
    let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let dest = place.path().join("out");
    let began = Instant::now();
    let summary = write(&fixture, &commit, &dest).await.unwrap();
    let took = began.elapsed();
    assert_eq!((summary.files, summary.directories), (50_000, 1_050));
    assert_eq!(std::fs::read(dest.join("d49/e999/f49999")).unwrap(), b"49999\n");
    assert!(took.as_secs() < 20, "{took:?}");
}

/// Whoever serves requests moves these between threads.
#[test]
fn futures_can_move_between_threads() {
    fn movable<T: Send>(_: impl Fn(&'static Fixture) -> T) {}
    movable(|fixture| async {
        let id: CommitId = "1".repeat(40).parse().unwrap();
        let _ = fixture.repository.materialise(&id, all(""), Path::new("x")).await;
        let mut batch = fixture.repository.blobs().await.unwrap();
        let _ = tokio::io::AsyncReadExt::read_u8(&mut batch.read("x").await.unwrap()).await;
    });
}
