//! `towpath __workload KIND DIR`: a supervisor, started by a server and outliving it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Becomes the supervisor of the workload in a directory.
pub(crate) fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let kind = arguments.next().unwrap_or_default();
    let dir = PathBuf::from(arguments.next().unwrap_or_default());
    match kind.to_str() {
        Some("job") => runner::supervisor_main(&dir),
        Some(kind) => ExitCode::from(u8::try_from(deploy::workload_main(kind, &dir)).unwrap_or(1)),
        None => ExitCode::from(2),
    }
}
