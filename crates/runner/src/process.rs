//! Runs one command in the sandbox until it ends, is cancelled or has used up its time.

use std::time::Duration;

use sandbox::{Exit, SandboxError, Stdio};
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::log::JobLog;
use crate::output::StepOutput;

/// How a command came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself.
    Exit(Exit),
    /// It was cancelled.
    Cancelled,
    /// Its time was over.
    TimedOut,
}

/// When a command must end.
pub struct Until<'a> {
    /// It is asked to end when this is cancelled.
    pub cancel: &'a CancellationToken,
    /// It is asked to end at this time.
    pub deadline: Instant,
    /// How long it may go on after it was asked.
    pub grace: Duration,
}

/// Runs `spec`. What it prints on either stream goes through `output` to `log` in the order in which it was printed.
///
/// # Errors
/// When it cannot be run.
pub async fn run(
    mut spec: sandbox::Spec,
    until: &Until<'_>,
    output: &mut StepOutput,
    log: &mut JobLog,
) -> Result<Ending, SandboxError> {
    spec.stdout = Stdio::Piped;
    spec.stderr = Stdio::Stdout;
    let mut running = sandbox::spawn(spec)?;
    let mut pipe = running.take_stdout();
    let mut buffer = vec![0; 64 * 1024];
    let mut asked = None;
    let exit = loop {
        tokio::select! {
            biased;
            () = until.cancel.cancelled(), if asked.is_none() => asked = Some(Ending::Cancelled),
            () = tokio::time::sleep_until(until.deadline), if asked.is_none() => asked = Some(Ending::TimedOut),
            count = read(&mut pipe, &mut buffer), if pipe.is_some() => {
                match count {
                    0 => pipe = None,
                    count => output.take(&buffer[..count], log),
                }
                continue;
            }
            exit = running.wait() => break exit,
        }
        // SIGTERM, not SIGINT: a shell that waits for a command takes no notice of the latter until that ends.
        running.stop(rustix::process::Signal::TERM.as_raw(), until.grace);
    };
    // Nothing is alive that could still write, so this is only what is left in the pipe.
    while pipe.is_some() {
        match read(&mut pipe, &mut buffer).await {
            0 => pipe = None,
            count => output.take(&buffer[..count], log),
        }
    }
    output.finish(log);
    Ok(match (asked, exit?) {
        // It may have ended well in the same moment, which then counts.
        (Some(_), exit) if exit.success() => Ending::Exit(exit),
        (Some(ending), _) => ending,
        (None, exit) => Ending::Exit(exit),
    })
}

/// Reads some bytes; none at the end, which a failure of the pipe is too.
async fn read(pipe: &mut Option<sandbox::Output>, buffer: &mut [u8]) -> usize {
    match pipe {
        Some(pipe) => pipe.read(buffer).await.unwrap_or(0),
        None => 0,
    }
}
