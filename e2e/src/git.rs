//! The real git as a client, in an environment that nothing outside changes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Git with a token for one server.
#[derive(Clone, Debug)]
pub struct Git {
    home: PathBuf,
    token: String,
}

impl Git {
    /// Git with its home in `home`.
    pub fn new(home: &Path, token: &str) -> Self {
        Self { home: home.to_owned(), token: token.to_owned() }
    }

    /// A git command in `dir`, not started yet.
    pub fn command(&self, dir: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.current_dir(dir).args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", &self.home).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
        let header = format!("Authorization: Bearer {}", self.token);
        let config = [
            ("http.extraHeader", header.as_str()),
            ("user.name", "Test"),
            ("user.email", "test@example.org"),
            ("init.defaultBranch", "main"),
            ("advice.detachedHead", "false"),
            ("gc.auto", "0"),
        ];
        command.env("GIT_CONFIG_COUNT", config.len().to_string());
        for (index, (key, value)) in config.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key).env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        command
    }

    /// Runs git and returns what came of it.
    ///
    /// # Panics
    /// When git cannot be started.
    pub fn try_run(&self, dir: &Path, arguments: &[&str]) -> Output {
        self.command(dir, arguments).output().expect("git")
    }

    /// Runs git, which must succeed, and returns its output without the newline at its end.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, dir: &Path, arguments: &[&str]) -> String {
        let output = self.try_run(dir, arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {}: {error}", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}
