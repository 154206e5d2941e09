//! Starting a supervisor that nothing ties to this process.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::pipe::PipeFlags;

use super::record::{alive, exit};
use super::{LOG, SuperviseError};
use crate::helper::DETACH;
use crate::probe;

/// Set in a supervisor's environment: its standard output waits for the word that it is ready.
pub(super) const READY: &str = "TOWPATH_SUPERVISED";
/// The word.
pub(super) const READY_WORD: &[u8] = b"ready\n";
/// A supervisor that is not ready by then has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What [`start`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// A new supervisor runs.
    New,
    /// One runs already.
    Running,
    /// One ran and recorded its end; see [`exit`] and [`reset`](super::reset).
    Finished,
}

/// Starts `argv` of this same program as the supervisor of `dir`, unless one lives there or has ended there. Returns
/// when it takes requests, some milliseconds later; it is no child of this process and survives it.
///
/// # Errors
/// When it ended before it was ready, with the last it wrote to its error output.
pub fn start(dir: &Path, argv: &[String]) -> Result<Started, SuperviseError> {
    if alive(dir) {
        return Ok(Started::Running);
    }
    if exit(dir).is_some() {
        return Ok(Started::Finished);
    }
    let what = || format!("start the supervisor of {}", dir.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(super::io(what()))?;
    let log = OpenOptions::new().append(true).create(true).read(true).mode(0o600).open(dir.join(LOG));
    let mut log = log.map_err(super::io(what()))?;
    let said_before = log.seek(SeekFrom::End(0)).map_err(super::io(what()))?;
    let (ready, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(super::io(what()))?;
    let errors = log.try_clone().map_err(super::io(what()))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("towpath").arg(DETACH).args(argv).env(READY, "1");
    command.envs(probe::to_inherit().map(|found| (probe::INHERITED, found)));
    command.stdin(Stdio::null()).stdout(theirs).stderr(errors).process_group(0);
    // This child only makes the supervisor, and ends.
    let status = command.status().map_err(super::io(what()))?;
    drop(command);
    if status.success() && wait_ready(ready).map_err(super::io(what()))? {
        return Ok(Started::New);
    }
    if alive(dir) {
        return Ok(Started::Running);
    }
    Err(SuperviseError::NotStarted { dir: dir.display().to_string(), said: last_words(&mut log, said_before) })
}

/// Whether the word came before the end.
fn wait_ready(pipe: OwnedFd) -> std::io::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    let mut pipe = File::from(pipe);
    let mut word = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = crate::helper::timespec(left);
        match rustix::event::poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) => return Ok(false),
            other => _ = other?,
        }
        let mut some = [0; 64];
        match pipe.read(&mut some)? {
            0 => return Ok(false),
            read => word.extend_from_slice(&some[..read]),
        }
        if word.windows(READY_WORD.len()).any(|part| part == READY_WORD) {
            return Ok(true);
        }
    }
}

fn last_words(log: &mut File, from: u64) -> String {
    let mut text = String::new();
    let read = log.seek(SeekFrom::Start(from)).and_then(|_| log.take(64 << 10).read_to_string(&mut text));
    let last: Vec<&str> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(5).collect();
    match read {
        Ok(_) if !last.is_empty() => last.into_iter().rev().collect::<Vec<_>>().join("; "),
        _ => "it said nothing".to_owned(),
    }
}

/// The process in between: makes the supervisor in a session of its own, and ends so that nobody is its parent.
pub(crate) fn detach() -> ! {
    let argv: Vec<_> = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    let words = argv.split(|byte| *byte == 0).skip(2);
    let mut words: Vec<_> = words.map(|word| std::os::unix::ffi::OsStringExt::from_vec(word.to_vec())).collect();
    // The list ends with a NUL.
    let _: Option<std::ffi::OsString> = words.pop();
    let failed = |error: std::io::Error| -> ! {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("cannot detach: {error}\n").as_bytes());
        std::process::exit(1)
    };
    if let Err(error) = crate::helper::close_inherited() {
        failed(error)
    }
    match crate::helper::fork() {
        Err(error) => failed(error),
        Ok(Some(_)) => std::process::exit(0),
        Ok(None) => {}
    }
    if let Err(error) = rustix::process::setsid() {
        failed(error.into())
    }
    failed(Command::new("/proc/self/exe").arg0("towpath").args(words).exec())
}
