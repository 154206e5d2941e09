//! Runs git to its end with bounded output.

use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};

use crate::GitError;

/// How much of what git writes to standard error is kept, in bytes.
const STDERR: usize = 8 << 10;

/// How a git process ended.
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    /// The end of it.
    pub(crate) stderr: String,
}

impl Output {
    /// The output of a process that must have succeeded.
    pub(crate) fn success(self, what: &str) -> Result<Vec<u8>, GitError> {
        if self.status.success() { Ok(self.stdout) } else { Err(self.failure(what)) }
    }

    /// The error of a process that did not succeed.
    pub(crate) fn failure(self, what: &str) -> GitError {
        GitError::failed(what, message(self.status, &self.stderr))
    }
}

/// What to say of a process that failed: its last words, or its end.
pub(crate) fn message(status: ExitStatus, stderr: &str) -> String {
    let text = stderr.trim();
    let text = text.strip_prefix("fatal: ").or_else(|| text.strip_prefix("error: ")).unwrap_or(text);
    if text.is_empty() { status.to_string() } else { text.to_owned() }
}

/// Runs `command` with `input` on its standard input and reads at most `limit` bytes of its output.
///
/// `what` completes "git could not …". More output than `limit` ends the process and is an error.
pub(crate) async fn run(
    mut command: Command,
    what: &str,
    input: impl AsRef<[u8]>,
    limit: usize,
) -> Result<Output, GitError> {
    let io_error = |error| GitError::run(what, error);
    let stdin = if input.as_ref().is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(io_error)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (fed, stdout, stderr) = tokio::join!(feed(stdin, input.as_ref()), take(stdout, limit), tail(stderr));
    fed.map_err(io_error)?;
    let Some(stdout) = stdout.map_err(io_error)? else {
        return Err(GitError::TooLarge { what: format!("the answer to {what}"), limit: limit as u64, unit: "bytes" });
    };
    let status = child.wait().await.map_err(io_error)?;
    Ok(Output { status, stdout, stderr })
}

async fn feed(stdin: Option<ChildStdin>, input: &[u8]) -> std::io::Result<()> {
    let Some(mut stdin) = stdin else { return Ok(()) };
    match stdin.write_all(input).await {
        // It ended early; its exit status says why.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// All of `stream`; nothing if it is longer than `limit`.
async fn take(stream: Option<impl AsyncRead + Unpin>, limit: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take((limit as u64).saturating_add(1)).read_to_end(&mut bytes).await?;
    }
    Ok((bytes.len() <= limit).then_some(bytes))
}

/// The last [`STDERR`] bytes of `stream`.
pub(crate) async fn tail(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut kept = Vec::new();
    let mut chunk = [0; 2048];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..count]);
        if kept.len() > 2 * STDERR {
            kept.drain(..kept.len() - STDERR);
        }
    }
    let start = kept.len().saturating_sub(STDERR);
    String::from_utf8_lossy(&kept[start..]).into_owned()
}
