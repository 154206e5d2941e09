//! A job's log as it grows.

use std::io;
use std::path::Path;
use std::time::Duration;

use model::JobId;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe;

use crate::jobs::{JobState, Jobs, JobsError};

/// How much is handed out at once, in bytes.
const PART: usize = 256 * 1024;

/// How often is looked whether a job's process was killed, of which nothing in its directory tells.
const LOOK: Duration = Duration::from_secs(1);

/// How often is looked where the system gives no signals, because too many are asked for already.
const WITHOUT_SIGNAL: Duration = Duration::from_millis(50);

/// Reads a job's log from its beginning, or from anywhere, to its end.
#[derive(Debug)]
pub struct LogFollower {
    jobs: Jobs,
    job: JobId,
    next: u64,
    signal: Option<pipe::Receiver>,
}

impl Jobs {
    /// Follows the log of a job from the byte `from`. Must be called within a tokio runtime.
    pub fn follow(&self, job: JobId, from: u64) -> LogFollower {
        LogFollower { jobs: self.clone(), job, next: from, signal: watch(&self.dir(job)).ok() }
    }
}

/// Tells of everything that is written or renamed in `dir`, not below it.
fn watch(dir: &Path) -> io::Result<pipe::Receiver> {
    let signal = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    inotify::add_watch(&signal, dir, WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF)?;
    // It is no pipe, but is waited for and read like one.
    pipe::Receiver::from_owned_fd_unchecked(signal)
}

impl LogFollower {
    /// Where the next lines begin, in bytes.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The next whole lines, as soon as there are some; nothing when the job has ended, or was interrupted, and all has
    /// been read. Safe to cancel.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, JobsError> {
        loop {
            // In this order: what is written before the end is read before the end counts.
            let ended = self.jobs.state(self.job)? != JobState::Running;
            let part = self.jobs.read_log(self.job, self.next, PART)?;
            self.next = part.next;
            if !part.text.is_empty() {
                return Ok(Some(part.text));
            }
            if ended {
                return Ok(None);
            }
            self.changed().await;
        }
    }

    /// Waits until something may have changed.
    async fn changed(&self) {
        match &self.signal {
            // What was signalled does not matter, only that it was.
            Some(signal) => drop(tokio::time::timeout(LOOK, drain(signal)).await),
            None => tokio::time::sleep(WITHOUT_SIGNAL).await,
        }
    }
}

async fn drain(signal: &pipe::Receiver) -> io::Result<usize> {
    signal.readable().await?;
    signal.try_read(&mut [0; 4096])
}
