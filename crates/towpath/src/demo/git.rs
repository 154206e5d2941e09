//! The user's git, kept apart from this machine's settings. The token travels in the environment alone: it is in no
//! argument, no URL and no file.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use tokio::process::Command;

use crate::error::Failure;

/// The author of everything.
const NAME: &str = "Towpath demo";
const EMAIL: &str = "demo@localhost";

/// Runs git for one server.
pub(super) struct Git {
    home: PathBuf,
    settings: Vec<(String, String)>,
    remote: String,
}

impl Git {
    /// For the repository `name` of the server at `url`. `home` is an empty directory.
    pub(super) fn new(home: &Path, url: &str, token: &str, name: &str) -> Self {
        let settings = [
            (format!("http.{url}/.extraHeader"), format!("Authorization: Bearer {token}")),
            ("http.proxy".to_owned(), String::new()),
            ("gc.auto".to_owned(), "0".to_owned()),
            ("maintenance.auto".to_owned(), "false".to_owned()),
            ("commit.gpgSign".to_owned(), "false".to_owned()),
            ("advice.detachedHead".to_owned(), "false".to_owned()),
        ];
        Self { home: home.to_owned(), settings: settings.to_vec(), remote: format!("{url}/{name}.git") }
    }

    /// Runs a command in `dir`, and hands back what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub(super) async fn run(&self, dir: &Path, args: &[&str]) -> Result<String, Failure> {
        let mut command = Command::new("git");
        command.args(args).current_dir(dir).env_clear();
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.env("HOME", &self.home).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
        command.env("GIT_AUTHOR_NAME", NAME).env("GIT_AUTHOR_EMAIL", EMAIL);
        command.env("GIT_COMMITTER_NAME", NAME).env("GIT_COMMITTER_EMAIL", EMAIL);
        command.env("GIT_CONFIG_COUNT", self.settings.len().to_string());
        for (index, (key, value)) in self.settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key).env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Failure::failed("git is not installed").hint("install it, then try again"),
            _ => Failure::failed(format!("git cannot be started: {error}")),
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        Err(Failure::failed(format!("git {} failed:\n{said}", args.first().unwrap_or(&""))))
    }

    /// Makes a work tree on a branch that has no commit yet.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) async fn init(&self, dir: &Path, branch: &str) -> Result<(), Failure> {
        std::fs::create_dir_all(dir)?;
        self.run(dir, &["init", "--quiet"]).await?;
        self.run(dir, &["symbolic-ref", "HEAD", &format!("refs/heads/{branch}")]).await?;
        self.run(dir, &["remote", "add", "origin", &self.remote]).await?;
        Ok(())
    }

    /// Writes files (path, text), and commits everything. Returns the commit.
    ///
    /// # Errors
    /// When a file cannot be written or the commit not be made.
    pub(super) async fn commit(&self, dir: &Path, files: &[(&str, &str)], message: &str) -> Result<String, Failure> {
        for (path, text) in files {
            let path = dir.join(path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let same_size = std::fs::metadata(&path).is_ok_and(|found| found.len() == text.len() as u64);
            std::fs::write(&path, text)?;
            if same_size {
                // Git looks at size and time first, and two writes can fall into one tick of the clock.
                let file = std::fs::File::options().write(true).open(&path)?;
                file.set_modified(SystemTime::now() + std::time::Duration::from_secs(2))?;
            }
        }
        self.run(dir, &["add", "--all"]).await?;
        self.run(dir, &["commit", "--quiet", "--message", message]).await?;
        self.run(dir, &["rev-parse", "HEAD"]).await
    }

    /// Pushes HEAD to a branch.
    ///
    /// # Errors
    /// When the server does not take it.
    pub(super) async fn push(&self, dir: &Path, branch: &str) -> Result<(), Failure> {
        self.run(dir, &["push", "--quiet", "origin", &format!("HEAD:refs/heads/{branch}")]).await.map(drop)
    }

    /// Fetches a ref of the server, and returns the commit that it names.
    ///
    /// # Errors
    /// When the server does not have it.
    pub(super) async fn fetch(&self, dir: &Path, name: &str) -> Result<String, Failure> {
        self.run(dir, &["fetch", "--quiet", "origin", name]).await?;
        self.run(dir, &["rev-parse", "FETCH_HEAD"]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_token_out_of_arguments_and_files() {
        let dir = tempfile::tempdir().unwrap();
        let git = Git::new(dir.path(), "http://127.0.0.1:9", "twp_secret", "demo/site");
        let work = dir.path().join("work");
        git.init(&work, "main").await.unwrap();
        let one = git.commit(&work, &[("a/b.txt", "1\n")], "One").await.unwrap();
        let two = git.commit(&work, &[("a/b.txt", "2\n")], "Two").await.unwrap();
        assert_ne!(one, two);
        let kept = git.run(&work, &["config", "--local", "--list"]).await.unwrap();
        assert!(kept.contains("http://127.0.0.1:9/demo/site.git") && !kept.contains("twp_secret"), "{kept}");
        let seen =
            git.run(&work, &["config", "--get-urlmatch", "http.extraHeader", "http://127.0.0.1:9/demo/site.git"]);
        assert_eq!(seen.await.unwrap(), "Authorization: Bearer twp_secret");
        let failure = git.push(&work, "main").await.unwrap_err();
        assert!(failure.message.starts_with("git push failed") && !failure.message.contains("twp_secret"), "{failure}");
    }
}
