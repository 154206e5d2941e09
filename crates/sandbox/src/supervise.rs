//! Supervisors: processes of this same program that own a workload and outlive the server.
//!
//! Each has a directory. In it are `lock` (held as long as the supervisor lives), `control.sock` (requests to it),
//! `supervisor.log` (what it said on its error output) and, at the end, `exit.json`. Whoever knows the directory can
//! find out whether it lives, talk to it, and learn how it ended.

mod control;
mod detach;
mod record;
mod supervised;

pub use control::{Control, Request};
pub(crate) use detach::detach;
pub use detach::{Started, start};
pub use record::{ExitRecord, alive, exit, reset};
pub use supervised::Supervised;

/// The lock file's name.
const LOCK: &str = "lock";
/// The socket's name.
const SOCKET: &str = "control.sock";
/// The name of the record of the end.
const EXIT: &str = "exit.json";
/// The name of the file that takes the supervisor's error output.
const LOG: &str = "supervisor.log";

/// Why a supervisor cannot be started, or spoken to.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// Another process holds the directory.
    #[error("{0}: a supervisor runs there already")]
    AlreadyRunning(String),
    /// It ended before it was ready.
    #[error("the supervisor of {dir} did not start: {said}")]
    NotStarted {
        /// Its directory.
        dir: String,
        /// The last it said.
        said: String,
    },
    /// It is gone and left no record of its end.
    #[error("the supervisor of {0} was killed before it could record an end")]
    Lost(String),
    /// A request is longer than a packet.
    #[error("a request or answer of {0} bytes is too long")]
    TooLong(usize),
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What, with its path.
        what: String,
        /// Why.
        source: std::io::Error,
    },
}

/// For `map_err`: names what failed.
fn io<E: Into<std::io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> SuperviseError {
    move |error| SuperviseError::Io { what: what.into(), source: error.into() }
}
