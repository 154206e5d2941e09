//! The process that starts a service, hands out connections to it, keeps its output and starts it again when it dies.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sandbox::supervise::{self, Control};
use sandbox::{Exit, Running};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::output::Log;
use super::spec::InstanceSpec;
use super::{ports, root};
use crate::control;
use crate::health::chain;

/// How long output is still read after the process ended.
const LAST_OUTPUT: Duration = Duration::from_millis(500);
/// The file that says that the instance went live.
const PROMOTED: &str = "promoted";

/// What the server asks of a supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Hand out a connection to a port inside. The answer is an open socket, or the reason in words.
    Connect { port: u16 },
    /// How the process is.
    Status,
    /// The instance is live: from now on, start its process again whenever it ends.
    Promote,
    /// Stop the process and end. It gets less time than its own if `limit_ms` says so.
    Stop { limit_ms: Option<u64> },
}

/// How the process is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reply {
    pub running: bool,
    /// The first process in the sandbox, as this machine numbers it.
    pub pid: Option<u32>,
    /// How often it was started.
    pub starts: u64,
    /// How it ended the last time.
    pub ended: Option<Ended>,
    /// The ports something in the sandbox listens on.
    pub listening: Vec<u16>,
}

/// The end of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ended {
    /// In words.
    pub how: String,
    /// Whether it came to run at all.
    pub ran: bool,
    /// How long it ran, in milliseconds.
    pub after_ms: u64,
}

struct Supervisor {
    dir: PathBuf,
    spec: InstanceSpec,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    running: Option<Arc<Running>>,
    starts: u64,
    ended: Option<Ended>,
    promoted: bool,
    stopping: bool,
}

/// Supervises the instance in `dir` until it is told to stop.
pub(crate) async fn run(dir: &Path) -> Result<(), String> {
    let spec = InstanceSpec::read(dir).map_err(|error| chain(&error))?;
    let spec = spec.ok_or_else(|| format!("{} has no spec.json", dir.display()))?;
    let state = Mutex::new(State { promoted: dir.join(PROMOTED).exists(), ..State::default() });
    let supervisor = Arc::new(Supervisor { dir: dir.to_owned(), spec, state, changed: Notify::new() });
    let mut control = Control::open(dir).map_err(|error| chain(&error))?;
    tokio::select! {
        result = supervisor.keep() => result?,
        () = control::serve(&mut control, |asked, request| supervisor.clone().answer(asked, request)) => {}
    }
    let _ = root::discard(dir);
    control.finish(Exit::Code(0), serde_json::Value::Null).map_err(|error| chain(&error))
}

impl Supervisor {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(self: Arc<Self>, asked: Request, request: supervise::Request) {
        match asked {
            Request::Connect { port } => return self.hand_out(port, request).await,
            Request::Status => {}
            Request::Promote => {
                // Also for a supervisor that takes over after this one.
                if let Err(error) = std::fs::File::create(self.dir.join(PROMOTED)) {
                    tracing::warn!(%error, "cannot note that the instance is live");
                }
                self.state().promoted = true;
                self.changed.notify_waiters();
            }
            Request::Stop { limit_ms } => {
                let grace = limit_ms.map_or(self.spec.grace_ms, |limit| limit.min(self.spec.grace_ms));
                let mut state = self.state();
                state.stopping = true;
                if let Some(running) = &state.running {
                    running.stop(self.spec.stop_signal, Duration::from_millis(grace));
                }
                drop(state);
                self.changed.notify_waiters();
            }
        }
        control::reply(request, &self.status()).await;
    }

    fn status(&self) -> Reply {
        let state = self.state();
        let pid = state.running.as_ref().and_then(|running| running.pid());
        Reply {
            running: state.running.is_some(),
            pid,
            starts: state.starts,
            ended: state.ended.clone(),
            listening: pid.map(ports::listening).unwrap_or_default(),
        }
    }

    async fn hand_out(&self, port: u16, request: supervise::Request) {
        let running = self.state().running.clone();
        let connection = match running {
            Some(running) => running.connect(port).await.map_err(|error| error.to_string()),
            None => Err("its process does not run".to_owned()),
        };
        match connection {
            Ok(fd) => request.reply_with("", fd).await,
            Err(why) => request.reply(why).await,
        }
    }

    /// Starts the process, and again when it has ended, as long as it is wanted.
    async fn keep(&self) -> Result<(), String> {
        let mut log = Log::open(&self.dir).map_err(|error| format!("cannot write the log: {error}"))?;
        let mut pause = Duration::ZERO;
        loop {
            let started = Instant::now();
            let (how, ran) = self.once(&mut log).await;
            let after = started.elapsed();
            log.note(&format!("{}: {how} after {:.1} s", self.spec.service, after.as_secs_f64()));
            let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            {
                let mut state = self.state();
                state.running = None;
                state.ended = Some(Ended { how, ran, after_ms });
            }
            pause = root::pause(pause, after);
            if self.ends(pause).await {
                return Ok(());
            }
        }
    }

    /// Runs the process once. Says how it ended, and whether it came to run.
    async fn once(&self, log: &mut Log) -> (String, bool) {
        let spec = match root::sandbox_spec(&self.dir, &self.spec) {
            Ok(spec) => spec,
            Err(error) => return (format!("no fresh file system: {error}"), false),
        };
        let mut running = match sandbox::spawn(spec) {
            Ok(running) => running,
            Err(error) => return (chain(&error), false),
        };
        let output = running.take_stdout();
        let running = Arc::new(running);
        {
            let mut state = self.state();
            if state.stopping {
                return ("stopped".to_owned(), false);
            }
            state.starts += 1;
            state.running = Some(running.clone());
        }
        let follow = async {
            if let Some(output) = output {
                log.follow(output).await;
            }
        };
        tokio::pin!(follow);
        let end = tokio::select! {
            end = running.wait() => {
                let _ = tokio::time::timeout(LAST_OUTPUT, &mut follow).await;
                end
            }
            () = &mut follow => running.wait().await,
        };
        match end {
            Ok(exit) => (exit.to_string(), true),
            Err(error) => (chain(&error), false),
        }
    }

    /// Waits until the process is to be started again (then false) or the supervisor is to end (then true).
    async fn ends(&self, pause: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + pause;
        loop {
            let changed = self.changed.notified();
            let (stopping, promoted) = {
                let state = self.state();
                (state.stopping, state.promoted)
            };
            if stopping {
                return true;
            }
            // Before it went live the server wants to know that it ended, not to have it started again.
            if promoted {
                tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(deadline) => return false,
                }
            } else {
                changed.await;
            }
        }
    }
}
