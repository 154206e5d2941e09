//! The server of the demo: `towpath up`, as anybody would start it, in a process group of its own.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::error::Failure;

/// How long it may take until it serves.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to stop.
const STOPPING: Duration = Duration::from_secs(30);
/// What precedes the address in what it says.
const SERVES: &str = "towpath serves http://";
/// Lines of it that are kept to be shown when it fails.
const LINES: usize = 12;

/// A server that runs. Dropped before it was stopped, it is killed.
pub(super) struct Server {
    child: Child,
    /// `http://host:port`.
    pub(super) url: String,
    /// The administrator's token.
    pub(super) token: String,
    said: Said,
}

/// The last lines of its error output.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<VecDeque<String>>>);

impl Said {
    fn add(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n  ")
    }
}

impl Server {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it ends, or does not become ready; with what it said.
    pub(super) async fn start(data: &Path, config: &Path, listen: SocketAddr) -> Result<Self, Failure> {
        let program =
            std::env::current_exe().map_err(|error| Failure::failed(format!("this program is gone: {error}")))?;
        let mut command = Command::new(program);
        command.arg("up").arg("--data").arg(data).arg("--config").arg(config).arg("--listen").arg(listen.to_string());
        command.env_remove("TOWPATH_TOKEN").env_remove("TOWPATH_SERVER").env_remove("TOWPATH_DATA");
        // A Ctrl-C is for the demo, which then stops the server in order.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child =
            command.spawn().map_err(|error| Failure::failed(format!("the server cannot be started: {error}")))?;
        let said = Said::default();
        let (token, token_seen) = watch::channel(None);
        let (address, address_seen) = watch::channel(None);
        let log = said.clone();
        follow(child.stdout.take(), move |line| drop(token.send(Some(line))));
        follow(child.stderr.take(), move |line| {
            if let Some(rest) = line.strip_prefix(SERVES) {
                let _ = address.send(rest.split_whitespace().next().map(str::to_owned));
            }
            log.add(line);
        });
        let began =
            tokio::time::timeout(PATIENCE, async { (first(address_seen).await, first(token_seen).await) }).await;
        let (Ok((Some(address), Some(token))), Ok(None)) = (began, child.try_wait()) else {
            return Err(did_not_start(&mut child, &said).await);
        };
        let server = Self { child, url: format!("http://{address}"), token, said };
        server.ready().await?;
        Ok(server)
    }

    async fn ready(&self) -> Result<(), Failure> {
        let http = super::registry::http()?;
        let ready = async {
            while !http.get(format!("{}/readyz", self.url)).send().await.is_ok_and(|it| it.status().is_success()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let late = |_| Failure::failed(format!("the server at {} is not ready: {}", self.url, self.said.text()));
        tokio::time::timeout(PATIENCE, ready).await.map_err(late)
    }

    /// Waits until it ends by itself.
    pub(super) async fn ended(&mut self) -> Failure {
        match self.child.wait().await {
            Ok(_) => Failure::failed("the site can be served no longer"),
            Err(error) => Failure::failed(format!("the server cannot be watched: {error}")),
        }
    }

    /// Why something failed: that the server is gone, if it is.
    pub(super) fn explain(&mut self, failure: Failure) -> Failure {
        match self.child.try_wait() {
            Ok(Some(status)) => {
                let said = self.said.text();
                Failure::failed(format!("{failure}\nthe server ended by itself ({status}); it said last:\n  {said}"))
            }
            _ => failure,
        }
    }

    /// Stops it. Jobs and sites have supervisors of their own and are not its to stop.
    pub(super) async fn stop(&mut self) {
        let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
        else {
            return;
        };
        // One that has just ended cannot be signalled, which is as good.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        if tokio::time::timeout(STOPPING, self.child.wait()).await.is_err() {
            crate::output::note("the server does not stop by itself; it is killed");
            let _ = self.child.kill().await;
        }
    }
}

/// Hands every line to `line`, to the end of the stream.
fn follow(stream: Option<impl AsyncRead + Unpin + Send + 'static>, line: impl Fn(String) + Send + 'static) {
    let Some(stream) = stream else { return };
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(text)) = lines.next_line().await {
            line(text);
        }
    });
}

/// The first value; nothing if the stream ended without one.
async fn first(mut seen: watch::Receiver<Option<String>>) -> Option<String> {
    seen.wait_for(Option::is_some).await.ok().and_then(|value| value.clone())
}

async fn did_not_start(child: &mut Child, said: &Said) -> Failure {
    // What it said last arrives with its end.
    let ended = tokio::time::timeout(Duration::from_secs(1), child.wait()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let text = said.text();
    let why = text.strip_prefix("error: ").unwrap_or(&text);
    match ended {
        Ok(_) => Failure::failed(format!("the server did not start: {why}")),
        Err(_) => {
            Failure::failed(format!("the server did not say where it serves within {} s: {why}", PATIENCE.as_secs()))
        }
    }
}
