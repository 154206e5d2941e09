//! The git program, and the environment every one of its processes gets.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use tokio::process::Command;

use crate::GitError;
use crate::synced::Synced;

/// The oldest version that has all that is used here (`cat-file -z`, `core.fsync`, `safe.directory` from the environment).
const NEEDED: Version = Version { major: 2, minor: 38 };

/// The configuration of every git process. It comes before `-c` options, which win, and after the repository's own file.
const SETTINGS: [(&str, &str); 27] = [
    // Repositories are ours even when the data directory was copied by another user.
    ("safe.directory", "*"),
    ("safe.bareRepository", "all"),
    // Nothing in a repository runs a program.
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("protocol.allow", "never"),
    // What git says is written, is on the disk.
    ("core.fsync", "all"),
    ("core.fsyncMethod", "fsync"),
    ("core.filesRefLockTimeout", "5000"),
    ("core.packedRefsTimeout", "5000"),
    ("core.logAllRefUpdates", "false"),
    // Memory: stream whatever is big, map little, one thread.
    ("core.bigFileThreshold", "1m"),
    ("core.packedGitLimit", "32m"),
    ("core.packedGitWindowSize", "1m"),
    ("core.deltaBaseCacheLimit", "8m"),
    ("pack.threads", "1"),
    ("pack.windowMemory", "16m"),
    ("pack.deltaCacheSize", "8m"),
    ("index.threads", "1"),
    // Spellings of `.git` that other file systems fold are refused here too.
    ("core.protectHFS", "true"),
    ("core.protectNTFS", "true"),
    ("core.quotePath", "false"),
    // Nothing goes on in the background, unseen and unbounded.
    ("gc.auto", "0"),
    ("gc.autoDetach", "false"),
    ("receive.autogc", "false"),
    ("maintenance.auto", "false"),
    ("commit.gpgSign", "false"),
];

/// The largest piece of memory that git may ask for at once: a delta whose result is larger ends its process.
const ALLOCATION_LIMIT: &str = "64m";

/// A version of git.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    /// The version in what `git version` prints (`git version 2.39.5 (Apple Git-154)`).
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().strip_prefix("git version ")?.split(['.', ' ', '-']);
        Some(Self { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
    }
}

/// The git program. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Git {
    program: Arc<Path>,
    version: Version,
    synced: Arc<Synced>,
}

impl Git {
    /// Finds git in `PATH` and asks for its version.
    ///
    /// # Errors
    /// When there is none, or it is too old.
    pub fn discover() -> Result<Self, GitError> {
        let searched = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&searched)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join("git"))
            .find(|file| executable(file))
            .ok_or_else(|| GitError::NotInstalled { searched: searched.to_string_lossy().into_owned() })?;
        let what = "tell its version";
        let output = std::process::Command::new(&program)
            .arg("version")
            .env_clear()
            .env("LC_ALL", "C")
            .output()
            .map_err(|error| GitError::run(what, error))?;
        let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        match Version::parse(&found) {
            Some(version) if version >= NEEDED => Ok(Self { program: program.into(), version, synced: Arc::default() }),
            Some(_) => Err(GitError::TooOld { program, found, needed: NEEDED.to_string() }),
            None => Err(GitError::answer(what, &output.stdout)),
        }
    }

    /// The version of the program.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The absolute path of the program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// What of its repositories is known to be on the disk.
    pub(crate) fn synced(&self) -> Arc<Synced> {
        Arc::clone(&self.synced)
    }

    /// A git process in `dir`, to which the caller adds a subcommand and its arguments.
    ///
    /// It reads no configuration but ours and that of the repository at `dir`, runs no hook, asks nobody, takes path
    /// arguments literally, writes durably and keeps its memory small. It is in a process group of its own, so that the
    /// signals of a terminal do not reach it, reads nothing unless told otherwise, and is killed when its [`tokio::process::Child`] is dropped.
    pub fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new(&*self.program);
        command
            .current_dir(dir)
            .env_clear()
            .envs(self.environment())
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(parent) = std::path::absolute(dir).ok().as_deref().and_then(Path::parent) {
            // Not a repository further up, when `dir` is none.
            command.env("GIT_CEILING_DIRECTORIES", parent);
        }
        for (index, (key, value)) in SETTINGS.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key).env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        command.env("GIT_CONFIG_COUNT", SETTINGS.len().to_string());
        command
    }

    fn environment(&self) -> [(&'static str, std::ffi::OsString); 15] {
        let dir = self.program.parent().unwrap_or(Path::new("/usr/bin"));
        let mut path = dir.as_os_str().to_owned();
        path.push(":/usr/local/bin:/usr/bin:/bin");
        [
            ("PATH", path),
            ("HOME", "/nonexistent".into()),
            ("XDG_CONFIG_HOME", "/nonexistent".into()),
            ("LC_ALL", "C".into()),
            ("TZ", "UTC".into()),
            ("GIT_CONFIG_NOSYSTEM", "1".into()),
            ("GIT_CONFIG_GLOBAL", "/dev/null".into()),
            ("GIT_ATTR_NOSYSTEM", "1".into()),
            ("GIT_TERMINAL_PROMPT", "0".into()),
            ("GIT_ASKPASS", "false".into()),
            ("GIT_EDITOR", "false".into()),
            ("GIT_PAGER", "cat".into()),
            // A pushed refs/replace/… must not change what a commit holds.
            ("GIT_NO_REPLACE_OBJECTS", "1".into()),
            ("GIT_LITERAL_PATHSPECS", "1".into()),
            ("GIT_ALLOC_LIMIT", ALLOCATION_LIMIT.into()),
        ]
    }
}

fn executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        assert_eq!(Version::parse("git version 2.39.5\n"), Some(Version { major: 2, minor: 39 }));
        assert_eq!(Version::parse("git version 2.50.1 (Apple Git-155)"), Some(Version { major: 2, minor: 50 }));
        assert_eq!(Version::parse("git version 3.0-rc1"), Some(Version { major: 3, minor: 0 }));
        assert_eq!(Version::parse("jit version 2.39"), None);
        assert!(Version { major: 2, minor: 9 } < NEEDED);
    }

    #[tokio::test]
    async fn nothing_from_outside_reaches_git() {
        let dir = tempfile::tempdir().unwrap();
        let git = Git::discover().unwrap();
        std::fs::write(dir.path().join(".gitconfig"), "[user]\n\tname = stranger\n").unwrap();
        let output = git.command(dir.path()).args(["config", "--list", "--show-scope"]).output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), SETTINGS.len(), "{text}");
        assert!(text.lines().all(|line| line.starts_with("command\t")), "{text}");
        assert!(text.contains("core.fsync=all"), "{text}");
    }

    #[tokio::test]
    async fn a_repository_further_up_is_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let git = Git::discover().unwrap();
        assert!(git.command(dir.path()).args(["init", "--bare", "."]).output().await.unwrap().status.success());
        let below = dir.path().join("below");
        std::fs::create_dir(&below).unwrap();
        let output = git.command(&below).args(["rev-parse", "--git-dir"]).output().await.unwrap();
        assert!(!output.status.success());
    }

    #[tokio::test]
    async fn one_large_piece_of_memory_ends_git() {
        let dir = tempfile::tempdir().unwrap();
        let git = Git::discover().unwrap();
        let mut command = git.command(dir.path());
        command.args(["init", "--bare", "--quiet", "."]).env("GIT_ALLOC_LIMIT", "16");
        let output = command.output().await.unwrap();
        assert!(!output.status.success(), "the limit is obeyed");
    }
}
