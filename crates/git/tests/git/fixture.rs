//! Repositories, also such as no honest client pushes.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use git::{CommitRequest, Git, Repository};
use model::{CommitId, RefName, Timestamp};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

/// Mode, name and object.
pub type RawEntry<'a> = (&'a str, &'a [u8], &'a str);

/// A repository that goes away with its value.
pub struct Fixture {
    dir: TempDir,
    pub repository: Repository,
}

impl Fixture {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let git = Git::discover().unwrap();
        let repository = Repository::init(&git, &dir.path().join("r.git"), "main").await.unwrap();
        Self { dir, repository }
    }

    /// A path beside the repository.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs git in the repository; it must succeed. Returns what it answers, trimmed.
    pub async fn git(&self, args: &[&str], input: &[u8]) -> String {
        let mut command = self.repository.command();
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "A U Thor").env(format!("GIT_{who}_EMAIL"), "a@example.org");
            command.env(format!("GIT_{who}_DATE"), "@1700000000 +0000");
        }
        let mut child =
            command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feed = tokio::spawn(async move {
            let _ = stdin.write_all(&input).await;
        });
        let output = child.wait_with_output().await.unwrap();
        feed.await.unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Writes a blob.
    pub async fn blob(&self, content: &[u8]) -> String {
        self.git(&["hash-object", "-w", "--stdin"], content).await
    }

    /// Writes a tree exactly as told, however wrong.
    pub async fn raw_tree(&self, entries: &[RawEntry<'_>]) -> String {
        let mut bytes = Vec::new();
        for (mode, name, object) in entries {
            bytes.extend_from_slice(mode.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend((0..object.len() / 2).map(|i| u8::from_str_radix(&object[2 * i..2 * i + 2], 16).unwrap()));
        }
        self.git(&["hash-object", "-t", "tree", "-w", "--stdin", "--literally"], &bytes).await
    }

    /// Commits a tree.
    pub async fn commit_tree(&self, tree: &str) -> CommitId {
        self.git(&["commit-tree", tree, "-m", "hostile"], b"").await.parse().unwrap()
    }

    /// Commits files on top of `parent`.
    pub async fn commit(&self, parent: Option<&CommitId>, files: &[(&str, &str)], message: &str) -> CommitId {
        let changes = files.iter().map(|(path, text)| ((*path).to_owned(), Some(text.as_bytes().to_vec()))).collect();
        self.repository.commit_files(request(parent, changes, message)).await.unwrap()
    }

    /// Commits files with their modes through `fast-import`.
    pub async fn import(&self, files: impl IntoIterator<Item = (String, &'static str, Vec<u8>)>) -> CommitId {
        let mut stream =
            b"commit refs/heads/imported\ncommitter A <a@example.org> 1700000000 +0000\ndata 1\nx\n".to_vec();
        for (path, mode, content) in files {
            stream.extend_from_slice(format!("M {mode} inline {path}\ndata {}\n", content.len()).as_bytes());
            stream.extend_from_slice(&content);
            stream.push(b'\n');
        }
        stream.extend_from_slice(b"\ndone\n");
        self.git(&["fast-import", "--quiet", "--done", "--force"], &stream).await;
        self.git(&["rev-parse", "refs/heads/imported"], b"").await.parse().unwrap()
    }
}

pub fn request(
    parent: Option<&CommitId>,
    changes: std::collections::BTreeMap<String, Option<Vec<u8>>>,
    message: &str,
) -> CommitRequest {
    CommitRequest {
        parent: parent.cloned(),
        changes,
        message: message.to_owned(),
        author_name: "Towpath".to_owned(),
        author_email: "towpath@example.org".to_owned(),
        when: Timestamp(1_700_000_000_000),
    }
}

pub fn ref_name(name: &str) -> RefName {
    name.parse().unwrap()
}

/// Every path below `dir`, sorted, with a `/` behind directories and `@` behind links.
pub fn walk(dir: &Path) -> Vec<String> {
    fn visit(dir: &Path, prefix: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                visit(&entry.path(), &format!("{name}/"), found);
                found.push(format!("{name}/"));
            } else {
                found.push(if kind.is_symlink() { format!("{name}@") } else { name });
            }
        }
    }
    let mut found = Vec::new();
    visit(dir, "", &mut found);
    found.sort();
    found
}
