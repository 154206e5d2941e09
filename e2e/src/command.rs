//! The program's commands, run to their end.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Program, World, program};

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit code; nothing if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said besides.
    pub stderr: String,
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started, or has not ended after a minute.
pub fn finish(command: &mut Command) -> Finished {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let until = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            let _ = child.kill();
            let output = child.wait_with_output().unwrap();
            panic!("{command:?} does not end: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl World {
    /// Runs a command of the program against this server, as the administrator.
    pub fn towpath(&self, arguments: &[&str]) -> Finished {
        self.towpath_as(self.token(), arguments)
    }

    /// Runs a command of the program against this server, as whoever has `token`.
    pub fn towpath_as(&self, token: &str, arguments: &[&str]) -> Finished {
        let mut command = Command::new(program(Program::Debug));
        command.args(arguments).env("TOWPATH_SERVER", self.url()).env("TOWPATH_TOKEN", token);
        finish(&mut command)
    }

    /// Runs a command of the program, which must go well, and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn told(&self, arguments: &[&str]) -> String {
        let finished = self.towpath(arguments);
        assert_eq!(finished.code, Some(0), "towpath {}: {}", arguments.join(" "), finished.stderr);
        finished.stdout
    }
}
