//! Talking with supervisors: requests and answers are one JSON text each.

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use sandbox::supervise::{self, Control, Request, Started, SuperviseError, Supervised};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::DeployError;
use crate::health::chain;

/// How long an answer may take that is not waited for something.
const ANSWER: Duration = Duration::from_secs(10);
/// The pause between two looks at a supervisor that lives and does not take connections yet.
const PAUSE: Duration = Duration::from_millis(20);

impl From<SuperviseError> for DeployError {
    fn from(error: SuperviseError) -> Self {
        Self::Supervisor(chain(&error))
    }
}

/// Whether a supervisor lives in `dir`.
pub(crate) fn alive(dir: &Path) -> bool {
    supervise::alive(dir)
}

/// Starts the supervisor of the workload `kind` in `dir`, unless it lives.
pub(crate) async fn start(dir: &Path, kind: &'static str) -> Result<(), DeployError> {
    let dir = dir.to_owned();
    let start = move || {
        let argv = ["__workload".to_owned(), kind.to_owned(), dir.to_string_lossy().into_owned()];
        if supervise::start(&dir, &argv)? == Started::Finished {
            supervise::reset(&dir)?;
            supervise::start(&dir, &argv)?;
        }
        Ok::<_, SuperviseError>(())
    };
    // It waits for another process.
    let started = tokio::task::spawn_blocking(start).await;
    Ok(started.map_err(|error| DeployError::Supervisor(error.to_string()))??)
}

/// Asks the supervisor of `dir`.
pub(crate) async fn ask<Q: Serialize, R: DeserializeOwned>(dir: &Path, request: &Q) -> Result<R, DeployError> {
    ask_for(dir, request, ANSWER).await
}

/// Asks, and waits for the answer as long as `limit`.
pub(crate) async fn ask_for<Q: Serialize, R: DeserializeOwned>(
    dir: &Path,
    request: &Q,
    limit: Duration,
) -> Result<R, DeployError> {
    let failed = |why: String| DeployError::Supervisor(format!("the supervisor of {}: {why}", dir.display()));
    let line = serde_json::to_string(request).map_err(|error| failed(error.to_string()))?;
    let Some(supervised) = Supervised::attach(dir)? else { return Err(failed("it does not live".to_owned())) };
    let answer = tokio::time::timeout(limit, supervised.request(&line)).await;
    let line = answer.map_err(|_| failed(format!("no answer within {} s", limit.as_secs())))??;
    serde_json::from_str(&line).map_err(|error| failed(error.to_string()))
}

/// A connection to `port` inside the instance in `dir`. Its bytes do not pass through the supervisor.
///
/// # Errors
/// When its supervisor is gone, or nothing in the sandbox takes the connection.
pub(crate) async fn connect(dir: &Path, port: u16) -> io::Result<TcpStream> {
    let refused = |why: String| io::Error::new(io::ErrorKind::ConnectionRefused, why);
    let attached = Supervised::attach(dir).map_err(|error| refused(chain(&error)))?;
    let supervised = attached.ok_or_else(|| refused("its supervisor is gone".to_owned()))?;
    let request = format!("{{\"op\":\"connect\",\"port\":{port}}}");
    let (line, fd) = supervised.request_with(&request).await.map_err(|error| refused(chain(&error)))?;
    let connection = fd.map(std::net::TcpStream::from).ok_or_else(|| refused(line))?;
    connection.set_nonblocking(true)?;
    TcpStream::from_std(connection)
}

/// Waits until no supervisor lives in `dir`.
pub(crate) async fn gone(dir: &Path, limit: Duration) -> Result<(), DeployError> {
    let end = async {
        while alive(dir) {
            if let Ok(Some(supervised)) = Supervised::attach(dir) {
                // How it ended does not matter here.
                drop(supervised.wait().await);
            }
            // Its lock goes a moment after its socket.
            tokio::time::sleep(PAUSE).await;
        }
    };
    let ended = tokio::time::timeout(limit, end).await;
    ended.map_err(|_| DeployError::Supervisor(format!("the supervisor of {} does not end", dir.display())))
}

/// Hands every request to `handle`, each in a task of its own, for ever.
pub(crate) async fn serve<Q, F>(control: &mut Control, handle: impl Fn(Q, Request) -> F)
where
    Q: DeserializeOwned,
    F: Future<Output = ()> + Send + 'static,
{
    while let Some(request) = control.next().await {
        match serde_json::from_str(request.line()) {
            Ok(asked) => drop(tokio::spawn(handle(asked, request))),
            Err(error) => drop(tokio::spawn(request.reply(error.to_string()))),
        }
    }
}

/// Answers a request. Returns when the answer is on its way.
pub(crate) async fn reply<R: Serialize>(request: Request, reply: &R) {
    request.reply(serde_json::to_string(reply).unwrap_or_default()).await;
}
