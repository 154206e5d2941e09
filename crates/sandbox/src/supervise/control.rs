//! The supervisor's own side.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::Timestamp;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::detach::{READY, READY_WORD};
use super::record::{self, ExitRecord};
use super::{SOCKET, SuperviseError};
use crate::exit::Exit;
use crate::watched::watch;
use crate::wire;

/// Connections at once; more wait.
const CONNECTIONS: i32 = 128;

/// The supervisor's hold on its directory. Dropping it without [`Control::finish`] leaves no record of an end.
#[derive(Debug)]
pub struct Control {
    dir: PathBuf,
    requests: mpsc::Receiver<Request>,
    listening: tokio::task::JoinHandle<()>,
    _lock: File,
}

/// How long an asker may leave an answer lying.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request; answer it with [`Request::reply`]. Dropped without an answer, it ends the asker's connection.
#[derive(Debug)]
pub struct Request {
    line: String,
    answer: oneshot::Sender<Answer>,
}

#[derive(Debug)]
struct Answer {
    line: String,
    fd: Option<OwnedFd>,
    /// Dropped when the answer is on its way.
    _sent: oneshot::Sender<()>,
}

impl Request {
    /// What is asked.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Answers. Returns when the answer is on its way, or the asker is gone.
    pub async fn reply(self, line: impl Into<String>) {
        self.answer(line.into(), None).await;
    }

    /// Answers, and hands over an open file or socket.
    pub async fn reply_with(self, line: impl Into<String>, fd: OwnedFd) {
        self.answer(line.into(), Some(fd)).await;
    }

    async fn answer(self, line: String, fd: Option<OwnedFd>) {
        let (_sent, done) = oneshot::channel();
        if self.answer.send(Answer { line, fd, _sent }).is_ok() {
            let _ = done.await;
        }
    }
}

impl Control {
    /// Takes the directory, listens in it, and reports to who started this process. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When another supervisor lives there, or the directory cannot be used.
    pub fn open(dir: &Path) -> Result<Self, SuperviseError> {
        let what = || format!("supervise in {}", dir.display());
        let lock = record::take_lock(dir)?;
        let listener = listen(dir).map_err(super::io(what()))?;
        let listener = watch(listener).map_err(super::io(what()))?;
        let (sender, requests) = mpsc::channel(16);
        let listening = tokio::spawn(accept(listener, sender));
        if std::env::var_os(READY).is_some() {
            report().map_err(super::io(what()))?;
        }
        Ok(Self { dir: dir.to_owned(), requests, listening, _lock: lock })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The next request. Safe to cancel.
    pub async fn next(&mut self) -> Option<Request> {
        self.requests.recv().await
    }

    /// Records the end and lets go of the directory; who waits learns of it. The process should end then.
    ///
    /// # Errors
    /// When the record cannot be written. The directory is let go all the same.
    pub fn finish(self, exit: Exit, detail: serde_json::Value) -> Result<(), SuperviseError> {
        let record = ExitRecord { exit, at: Timestamp::from(std::time::SystemTime::now()), detail };
        let written = record::write(&self.dir, &record);
        let _ = std::fs::remove_file(self.dir.join(SOCKET));
        written
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// The address of the socket in `dir`: by way of an open directory, because a socket's path may have 108 bytes only.
pub(super) fn address(dir: &OwnedFd) -> rustix::io::Result<SocketAddrUnix> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}

pub(super) fn open_dir(dir: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

fn listen(dir: &Path) -> std::io::Result<OwnedFd> {
    match std::fs::remove_file(dir.join(SOCKET)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let opened = open_dir(dir)?;
    let socket = socket()?;
    rustix::net::bind(&socket, &address(&opened)?)?;
    rustix::fs::chmodat(&opened, SOCKET, Mode::from_raw_mode(0o600), rustix::fs::AtFlags::empty())?;
    rustix::net::listen(&socket, CONNECTIONS)?;
    Ok(socket)
}

/// Says that all is well, and closes the way it was said.
fn report() -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(READY_WORD)?;
    stdout.flush()?;
    let null = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::stdio::dup2_stdout(&null)?)
}

async fn accept(listener: AsyncFd<OwnedFd>, requests: mpsc::Sender<Request>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = listener
            .async_io(Interest::READABLE, |socket| {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                Ok(rustix::net::accept_with(socket, flags)?)
            })
            .await;
        match accepted.and_then(watch) {
            Ok(socket) => _ = connections.spawn(serve(socket, requests.clone())),
            // Out of descriptors, most likely: some are closed soon.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Answers the requests of one connection in their order.
async fn serve(socket: AsyncFd<OwnedFd>, requests: mpsc::Sender<Request>) {
    loop {
        let received = socket.async_io(Interest::READABLE, |socket| wire::receive::<String>(socket)).await;
        let Ok(Some((line, _))) = received else { return };
        let (answer, answered) = oneshot::channel();
        if requests.send(Request { line, answer }).await.is_err() {
            return;
        }
        let Ok(answer) = answered.await else { return };
        let fds: Vec<_> = answer.fd.iter().map(AsFd::as_fd).collect();
        let send = socket.async_io(Interest::WRITABLE, |socket| wire::send(socket, &answer.line, &fds));
        if !matches!(tokio::time::timeout(PATIENCE, send).await, Ok(Ok(()))) {
            return;
        }
    }
}
