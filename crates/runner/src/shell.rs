//! What runs a `run:` step's script.

use std::path::{Path, PathBuf};

/// Where programs are looked for, in the machine's tools as in a root of layers.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a step's `shell:` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShellError {
    /// It is neither a name that is known nor a command with a place for the script.
    #[error("shell {0:?} is not known: expected bash, sh, python, perl or a command that holds {{0}}")]
    Unknown(String),
    /// A Windows shell, or one that Towpath does not bring.
    #[error("shell {0:?} is not available on Linux runners of this server: use bash, sh, python or perl")]
    Unavailable(String),
    /// There is no such program where the job runs.
    #[error("shell {0:?} was asked for, but there is no {0} among the tools of this runner")]
    Missing(String),
    /// A quotation in a command does not end.
    #[error("shell {0:?} has a quotation mark that is not closed")]
    Quote(String),
}

/// How to run a script file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shell {
    /// The command as GitHub shows it, with `{0}`.
    pub display: String,
    /// What the script's file name ends in.
    pub extension: &'static str,
    words: Vec<String>,
}

impl Shell {
    /// The shell for `name`, `None` being a step that names none. `tools` is what programs are looked for in.
    ///
    /// # Errors
    /// See [`ShellError`].
    pub fn find(name: Option<&str>, tools: &Tools) -> Result<Self, ShellError> {
        let named = |program: &str, line: String, extension| {
            let path = tools.find(program).ok_or_else(|| ShellError::Missing(program.to_owned()))?;
            Self::split(&line, extension).map(|shell| shell.with_program(path))
        };
        match name.map(str::trim).filter(|name| !name.is_empty()) {
            None if tools.find("bash").is_some() => named("bash", "bash -e {0}".to_owned(), "sh"),
            None => named("sh", "sh -e {0}".to_owned(), "sh"),
            Some("bash") if tools.find("bash").is_some() => {
                named("bash", "bash --noprofile --norc -eo pipefail {0}".to_owned(), "sh")
            }
            Some("bash" | "sh") => named("sh", "sh -e {0}".to_owned(), "sh"),
            Some("python") => {
                let program = if tools.find("python").is_some() { "python" } else { "python3" };
                named(program, format!("{program} {{0}}"), "py")
            }
            Some("perl") => named("perl", "perl {0}".to_owned(), "pl"),
            Some(name @ ("pwsh" | "powershell" | "cmd")) => Err(ShellError::Unavailable(name.to_owned())),
            Some(custom) if custom.contains("{0}") => Self::split(custom, "sh").map(|shell| shell.found_in(tools)),
            Some(other) => Err(ShellError::Unknown(other.to_owned())),
        }
    }

    /// The command line that runs `script`.
    pub fn command(&self, script: &str) -> Vec<String> {
        self.words.iter().map(|word| word.replace("{0}", script)).collect()
    }

    fn with_program(mut self, path: String) -> Self {
        if let Some(first) = self.words.first_mut() {
            *first = path;
        }
        self
    }

    fn found_in(self, tools: &Tools) -> Self {
        match self.words.first().filter(|word| !word.contains('/')).and_then(|word| tools.find(word)) {
            Some(path) => self.with_program(path),
            None => self,
        }
    }

    fn split(line: &str, extension: &'static str) -> Result<Self, ShellError> {
        let mut words: Vec<String> = Vec::new();
        let (mut word, mut started, mut quote) = (String::new(), false, None);
        for c in line.chars() {
            match (quote, c) {
                (Some(open), c) if open == c => quote = None,
                (Some(_), c) => word.push(c),
                (None, '"' | '\'') => (quote, started) = (Some(c), true),
                (None, c) if c.is_whitespace() => {
                    if std::mem::take(&mut started) {
                        words.push(std::mem::take(&mut word));
                    }
                }
                (None, c) => {
                    word.push(c);
                    started = true;
                }
            }
        }
        if started {
            words.push(word);
        }
        match quote {
            Some(_) => Err(ShellError::Quote(line.to_owned())),
            None => Ok(Self { display: line.to_owned(), extension, words }),
        }
    }
}

/// The programs that a job finds: those of the machine, or of the layers of its root.
#[derive(Clone, Debug)]
pub struct Tools {
    roots: Vec<PathBuf>,
}

impl Tools {
    /// The machine's own programs.
    pub fn of_machine() -> Self {
        Self { roots: vec![PathBuf::from("/")] }
    }

    /// The programs in `layers`, topmost first.
    pub fn of_layers(layers: &[PathBuf]) -> Self {
        Self { roots: layers.to_vec() }
    }

    /// The path of `program` inside the root, if it is there.
    pub fn find(&self, program: &str) -> Option<String> {
        // The directories that every root of a job has; a machine's other places (`/opt`) are not shown to jobs.
        DEFAULT_PATH
            .split(':')
            .filter(|dir| dir.starts_with("/usr") || dir.starts_with("/bin") || dir.starts_with("/sbin"))
            .map(|dir| format!("{dir}/{program}"))
            .find(|path| self.roots.iter().any(|root| exists(root, path)))
    }
}

/// Whether `path` is there below `root`. Links are not followed: in a layer they lead into the job's root, not ours.
fn exists(root: &Path, path: &str) -> bool {
    let relative = path.trim_start_matches('/');
    std::fs::symlink_metadata(root.join(relative)).is_ok_and(|meta| meta.is_file() || meta.file_type().is_symlink())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(programs: &[&str]) -> (tempfile::TempDir, Tools) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
        for program in programs {
            std::fs::write(dir.path().join("usr/bin").join(program), "").unwrap();
        }
        let tools = Tools::of_layers(&[dir.path().to_owned()]);
        (dir, tools)
    }

    fn command(name: Option<&str>, programs: &[&str]) -> Result<String, ShellError> {
        let (_dir, tools) = tools(programs);
        Shell::find(name, &tools).map(|shell| shell.command("/s").join(" "))
    }

    #[test]
    fn as_github_runs_them() {
        let all = ["bash", "sh", "python3", "perl"];
        for (name, expected) in [
            (None, "/usr/bin/bash -e /s"),
            (Some("bash"), "/usr/bin/bash --noprofile --norc -eo pipefail /s"),
            (Some("sh"), "/usr/bin/sh -e /s"),
            (Some("python"), "/usr/bin/python3 /s"),
            (Some("perl"), "/usr/bin/perl /s"),
            (Some("perl -w {0} 'a b'"), "/usr/bin/perl -w /s a b"),
            (Some("./mine --script={0}"), "./mine --script=/s"),
        ] {
            assert_eq!(command(name, &all).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn without_bash() {
        assert_eq!(command(None, &["sh"]).as_deref(), Ok("/usr/bin/sh -e /s"));
        assert_eq!(command(Some("bash"), &["sh"]).as_deref(), Ok("/usr/bin/sh -e /s"));
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(command(Some("fish"), &["sh"]), Err(ShellError::Unknown("fish".to_owned())));
        assert_eq!(command(Some("pwsh"), &["sh"]), Err(ShellError::Unavailable("pwsh".to_owned())));
        assert_eq!(command(Some("perl"), &["sh"]), Err(ShellError::Missing("perl".to_owned())));
        assert!(matches!(command(Some("sh 'x {0}"), &["sh"]), Err(ShellError::Quote(_))));
    }
}
