//! Jobs, seen from the server.

use std::fs::DirBuilder;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{Cause, JobId};
use sandbox::supervise::{self, Started, SuperviseError, Supervised};

use crate::durable;
use crate::job;
use crate::log::JobLog;
use crate::report::JobReport;
use crate::spec::JobSpec;
use crate::supervisor::CANCEL;

/// How often a job's process may be killed before the job counts as failed: a job that brings its machine down must
/// not do so for ever.
const MAX_STARTS: u32 = 10;

/// Why the server cannot do something with a job.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// A file of the job.
    #[error("job {job}: {what}: {source}")]
    Io {
        /// The job.
        job: JobId,
        /// What was done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Its process.
    #[error("job {job}: {source}")]
    Process {
        /// The job.
        job: JobId,
        /// What is wrong.
        source: SuperviseError,
    },
    /// Its process died before the job ended. [`Jobs::start`] runs it again from its first step.
    #[error("job {0}: its process was killed before the job ended")]
    Interrupted(JobId),
    /// It was never started.
    #[error("job {0} was never started here")]
    Absent(JobId),
}

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It was never started here.
    Absent,
    /// Its process lives.
    Running,
    /// Its process died before it ended.
    Interrupted,
    /// It has ended.
    Ended(Box<JobReport>),
}

/// A part of a job's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPart {
    /// Whole lines: RFC 3339 time, a space, text, newline.
    pub text: Vec<u8>,
    /// Where the next part begins, in bytes.
    pub next: u64,
}

/// The jobs of a server, each in a directory of its own. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Jobs {
    dir: PathBuf,
}

impl Jobs {
    /// The jobs in `dir`, which is made when the first is started.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory of a job.
    pub fn dir(&self, job: JobId) -> PathBuf {
        self.dir.join(job.to_string())
    }

    /// The file of a job's log.
    pub fn log_path(&self, job: JobId) -> PathBuf {
        self.dir(job).join("log")
    }

    /// The file of what the steps of a job wrote to `GITHUB_STEP_SUMMARY`, as Markdown; it need not exist.
    pub fn summary_path(&self, job: JobId) -> PathBuf {
        self.dir(job).join("summary.md")
    }

    /// Starts a job, unless it runs or has ended. Its first log line is there when this returns. A job that was
    /// interrupted runs again from its first step.
    ///
    /// # Errors
    /// When its files cannot be written or its process cannot be started.
    pub async fn start(&self, spec: &JobSpec) -> Result<(), JobsError> {
        let (dir, job) = (self.dir(spec.job), spec.job);
        if matches!(self.state(job)?, JobState::Running | JobState::Ended(_)) {
            return Ok(());
        }
        let at = |what| move |source| JobsError::Io { job, what, source };
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(at("make its directory"))?;
        // Its name, and that of the directory of all jobs, are as durable as what follows.
        dir.ancestors().skip(1).take(2).try_for_each(durable::sync_dir).map_err(at("make its directory"))?;
        first_line(spec, &dir).map_err(at("write its log"))?;
        if count_start(&dir).map_err(at("count its starts"))? > MAX_STARTS {
            let message = format!("the job's process was killed {MAX_STARTS} times; the job is not started again");
            let hint = "see supervisor.log in the job's directory, and the machine's log for want of memory";
            let report = JobReport::failed(Cause::new(message).hint(hint), job::now());
            return report.write(&dir).map_err(at("write its report"));
        }
        spec.write(&dir).map_err(at("write its specification"))?;
        let started = tokio::task::spawn_blocking(move || start(&dir)).await;
        let source = match started {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(source)) => source,
            Err(error) => SuperviseError::Io { what: "start its process".to_owned(), source: io::Error::other(error) },
        };
        Err(JobsError::Process { job, source })
    }

    /// How a job stands.
    ///
    /// # Errors
    /// When its report cannot be read.
    pub fn state(&self, job: JobId) -> Result<JobState, JobsError> {
        let dir = self.dir(job);
        // In this order: a job that ends between the two questions has its report by then.
        let alive = supervise::alive(&dir);
        if let Some(report) = self.report(job)? {
            return Ok(JobState::Ended(Box::new(report)));
        }
        Ok(match alive {
            true => JobState::Running,
            false if dir.join("spec.json").exists() => JobState::Interrupted,
            false => JobState::Absent,
        })
    }

    /// The report, which a process that could not write it may have left in its own record.
    fn report(&self, job: JobId) -> Result<Option<JobReport>, JobsError> {
        let dir = self.dir(job);
        let read = JobReport::read(&dir).map_err(|source| JobsError::Io { job, what: "read its report", source })?;
        Ok(read.or_else(|| serde_json::from_value(supervise::exit(&dir)?.detail).ok()))
    }

    /// Waits until a job has ended. Any number of callers may wait, also after the server was restarted.
    ///
    /// # Errors
    /// [`JobsError::Interrupted`] when its process died first, [`JobsError::Absent`] when there is no such job.
    pub async fn wait(&self, job: JobId) -> Result<JobReport, JobsError> {
        loop {
            match self.state(job)? {
                JobState::Ended(report) => return Ok(*report),
                JobState::Absent => return Err(JobsError::Absent(job)),
                JobState::Interrupted => return Err(JobsError::Interrupted(job)),
                JobState::Running => {}
            }
            match Supervised::attach(&self.dir(job)) {
                // How it ended is read from the report.
                Ok(Some(process)) => drop(process.wait().await),
                // It lives, but listens not yet, or no more.
                Ok(None) | Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Asks a job to end. Its present step is stopped, steps whose condition asks for it still run; [`Jobs::wait`] tells
    /// when it has ended. False if it does not run.
    ///
    /// # Errors
    /// When its process lives and cannot be reached.
    pub async fn cancel(&self, job: JobId) -> Result<bool, JobsError> {
        let failed = |source| JobsError::Process { job, source };
        let Some(process) = Supervised::attach(&self.dir(job)).map_err(failed)? else { return Ok(false) };
        match process.request(CANCEL).await {
            Ok(_) => Ok(true),
            Err(_) if !supervise::alive(&self.dir(job)) => Ok(false),
            Err(source) => Err(failed(source)),
        }
    }

    /// Whole lines of a job's log from the byte `from`, at most about `limit` bytes; none if there are no more yet.
    ///
    /// # Errors
    /// When the log cannot be read; a job without one has an empty log.
    pub fn read_log(&self, job: JobId, from: u64, limit: usize) -> Result<LogPart, JobsError> {
        read_lines(&self.log_path(job), from, limit).map_err(|source| JobsError::Io {
            job,
            what: "read its log",
            source,
        })
    }

    /// Removes everything of a job that has ended or was interrupted, with its log.
    ///
    /// # Errors
    /// When it still runs, or something cannot be removed.
    pub fn remove(&self, job: JobId) -> Result<(), JobsError> {
        let dir = self.dir(job);
        let failed = |source| JobsError::Io { job, what: "remove its files", source };
        if supervise::alive(&dir) {
            return Err(failed(io::Error::other("it is still running")));
        }
        // A process that has just ended may still be removing the same.
        let mut left = 10;
        loop {
            match sandbox::remove_tree(&dir) {
                Err(error) if left > 0 && is_race(&error) => left -= 1,
                other => return other.map_err(failed),
            }
        }
    }
}

/// Counts this start of a job, and says how many there were with it.
fn count_start(dir: &Path) -> io::Result<u32> {
    let starts = durable::read_json::<u32>(&dir.join("starts.json"))?.unwrap_or(0).saturating_add(1);
    durable::write_json(dir, "starts.json", &starts)?;
    Ok(starts)
}

/// Whether a removal failed because somebody else removes, or makes, the same.
fn is_race(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty)
}

/// Writes the first line before the process exists, so that whoever follows the log sees it at once.
fn first_line(spec: &JobSpec, dir: &Path) -> io::Result<()> {
    let mut log = JobLog::open(&dir.join("log"), u64::MAX, job::masker(spec))?;
    if log.lines() == 0 {
        log.say(&job::first_line(spec));
    }
    match log.error() {
        Some(error) => Err(io::Error::new(error.kind(), error.to_string())),
        None => Ok(()),
    }
}

fn start(dir: &Path) -> Result<(), SuperviseError> {
    let argv = ["__workload".to_owned(), "job".to_owned(), dir.to_string_lossy().into_owned()];
    if supervise::start(dir, &argv)? == Started::Finished && !dir.join("report.json").exists() {
        supervise::reset(dir)?;
        supervise::start(dir, &argv)?;
    }
    Ok(())
}

fn read_lines(path: &Path, from: u64, limit: usize) -> io::Result<LogPart> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(LogPart { text: Vec::new(), next: from });
        }
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(from))?;
    // A line always fits.
    let limit = limit.max(crate::log::MAX_LINE * 2);
    let mut text = Vec::new();
    file.take(u64::try_from(limit).unwrap_or(u64::MAX)).read_to_end(&mut text)?;
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    text.truncate(end);
    let next = from.saturating_add(u64::try_from(end).unwrap_or(0));
    Ok(LogPart { text, next })
}
