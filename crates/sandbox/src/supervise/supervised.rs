//! A supervisor seen from the server.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::SuperviseError;
use super::control::{address, open_dir, socket};
use super::record::{ExitRecord, alive, exit};
use crate::watched::watch;
use crate::wire::{self, PACKET};

/// A living supervisor.
#[derive(Debug)]
pub struct Supervised {
    dir: PathBuf,
    /// Connections on which nothing is being asked.
    idle: Mutex<Vec<AsyncFd<OwnedFd>>>,
}

/// Connections kept for later.
const IDLE: usize = 8;

impl Supervised {
    /// Connects to the supervisor of `dir`; nothing if none lives there. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When one lives and cannot be reached.
    pub fn attach(dir: &Path) -> Result<Option<Self>, SuperviseError> {
        match connect(dir) {
            Ok(socket) => Ok(Some(Self { dir: dir.to_owned(), idle: Mutex::new(vec![socket]) })),
            Err(_) if !alive(dir) => Ok(None),
            Err(error) => Err(super::io(format!("reach the supervisor of {}", dir.display()))(error)),
        }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Asks, and returns the answer. Several may ask at once.
    ///
    /// # Errors
    /// When the supervisor is gone or gives no answer.
    pub async fn request(&self, line: &str) -> Result<String, SuperviseError> {
        self.request_with(line).await.map(|(line, _)| line)
    }

    /// The same, with the open file or socket that comes with the answer, if any.
    ///
    /// # Errors
    /// As [`Supervised::request`].
    pub async fn request_with(&self, line: &str) -> Result<(String, Option<OwnedFd>), SuperviseError> {
        // Quotes and escapes take room.
        if line.len() > PACKET / 2 {
            return Err(SuperviseError::TooLong(line.len()));
        }
        let what = || format!("ask the supervisor of {}", self.dir.display());
        // A connection is put back when it has done its work: one that was cut off or given up is dropped.
        let waiting = self.idle().pop();
        let socket = waiting.map_or_else(|| connect(&self.dir), Ok).map_err(super::io(what()))?;
        let sent = socket.async_io(Interest::WRITABLE, |socket| wire::send(socket, &line, &[])).await;
        sent.map_err(super::io(what()))?;
        let received = socket.async_io(Interest::READABLE, |socket| wire::receive::<String>(socket)).await;
        let Some((line, mut fds)) = received.map_err(super::io(what()))? else {
            return Err(SuperviseError::Io { what: what(), source: io::ErrorKind::ConnectionAborted.into() });
        };
        let mut idle = self.idle();
        if idle.len() < IDLE {
            idle.push(socket);
        }
        Ok((line, fds.pop()))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<AsyncFd<OwnedFd>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it was killed and could not record one.
    pub async fn wait(&self) -> Result<ExitRecord, SuperviseError> {
        if let Ok(watch) = connect(&self.dir) {
            // Nothing is ever sent on this connection: what can be read is its end.
            let _ = watch.async_io(Interest::READABLE, |socket| wire::receive::<String>(socket)).await;
        }
        exit(&self.dir).ok_or_else(|| SuperviseError::Lost(self.dir.display().to_string()))
    }
}

fn connect(dir: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let opened = open_dir(dir)?;
    let socket = socket()?;
    match rustix::net::connect(&socket, &address(&opened)?) {
        // Local sockets connect at once; "again" means that too many others are waiting.
        Err(Errno::AGAIN) => Err(io::Error::from_raw_os_error(libc::EBUSY)),
        other => Ok(other?),
    }?;
    watch(socket)
}
