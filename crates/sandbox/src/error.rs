//! Why a sandbox did not come about.

/// Why a command could not be run, or its end is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SandboxError {
    /// No tier works on this machine.
    #[error("this machine cannot isolate a command: {0}")]
    NoTier(String),
    /// The command itself is not sensible.
    #[error("cannot run in a sandbox: {0}")]
    Invalid(String),
    /// The machine lacks what was asked for.
    #[error("refused: {0}")]
    Refused(String),
    /// A step of building the sandbox failed.
    #[error("cannot make the sandbox: {what}: {reason}")]
    Setup {
        /// The step, with its value.
        what: String,
        /// What the system said.
        reason: String,
    },
    /// The program is not in the root.
    #[error("{0:?}: not found in the sandbox")]
    NotFound(String),
    /// The program is there and cannot be executed.
    #[error("cannot run {program:?} in the sandbox: {reason}")]
    CannotRun {
        /// The program.
        program: String,
        /// What the system said.
        reason: String,
    },
    /// Something outside killed the sandbox's own processes.
    #[error("the sandbox was killed from outside; how its command ended is not known")]
    Lost,
    /// Nothing took the connection.
    #[error("port {port} in the sandbox: {reason}")]
    Connect {
        /// The port inside.
        port: u16,
        /// What the system said.
        reason: String,
    },
}
