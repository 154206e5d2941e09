//! How a command ended.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It used up what it had.
    Limit(LimitHit),
}

/// The limit that ended a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitHit {
    /// [`Limits::wall`](crate::Limits::wall).
    Wall,
    /// [`Limits::memory`](crate::Limits::memory).
    Memory,
    /// [`Limits::output`](crate::Limits::output).
    Output,
}

impl Exit {
    /// Whether it exited with code 0.
    pub const fn success(self) -> bool {
        matches!(self, Self::Code(0))
    }

    /// The code a shell would report: 128 and the signal's number for a signal, 137 (as for SIGKILL) for a limit.
    pub const fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
            Self::Limit(_) => 137,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(name) => write!(f, "killed by {name}"),
                Err(_) => write!(f, "killed by signal {signal}"),
            },
            Self::Limit(LimitHit::Wall) => f.write_str("killed: it ran longer than its time limit"),
            Self::Limit(LimitHit::Memory) => f.write_str("killed: it used more than its memory limit"),
            Self::Limit(LimitHit::Output) => f.write_str("killed: it wrote more output than its limit"),
        }
    }
}
