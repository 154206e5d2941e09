//! The registry under test, and the disk that its data is on.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

use super::there::There;
use crate::unsynced::Unsynced;

/// How long a server may take to take connections.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a start is tried again whose port somebody else was given meanwhile.
const TRIES: usize = 5;
/// Bytes of a small disk.
const SMALL: u64 = 96 << 20;
/// What the server is told: everything that it does after a time it does after two seconds, and only when it is asked.
const FILE: &str = "apiVersion: towpath.dev/v1alpha1
kind: Towpath
spec:
  registry:
    retention: [{images: 'fault/retained-*', keepNewest: 3, untagged: {olderThan: 0s}}]
    quotas: [{images: '**', bytes: 1000GiB}]
    collection: {every: 0s, grace: 2s, undoWindow: 2s, uploads: 2s}
";
/// The variable that the program looks at.
const FAULT: &str = "TOWPATH_FAULT";

/// What the data is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whatever is there.
    Plain,
    /// A disk that loses at a power cut what was not synced.
    Unsynced,
    /// A disk that is soon full.
    Small,
}

impl Kind {
    fn mount(self, dir: &Path) -> Result<Disk, String> {
        Ok(match self {
            Self::Plain => Disk::Plain,
            Self::Unsynced => Disk::Unsynced(Unsynced::mount(dir)?),
            Self::Small => Disk::Small(Small::mount(dir)?),
        })
    }

    /// Whether such a disk can be mounted.
    pub(super) fn probe(self) -> Result<(), String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        self.mount(&dir.path().join("disk")).map(drop)
    }
}

enum Disk {
    Plain,
    Unsynced(Unsynced),
    Small(Small),
}

/// A mounted disk of [`SMALL`] bytes.
struct Small(PathBuf);

impl Small {
    fn mount(dir: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let options = std::ffi::CString::new(format!("size={SMALL},mode=0700")).map_err(|error| error.to_string())?;
        let mounted = rustix::mount::mount("tmpfs", dir, "tmpfs", MountFlags::empty(), Some(options.as_c_str()));
        mounted
            .map_err(|error| format!("a small disk cannot be mounted at {}: {error}; it needs root", dir.display()))?;
        Ok(Self(dir.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

pub(super) struct Place {
    program: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
    /// The administrator's token.
    pub(super) token: String,
    disk: Disk,
    /// Where everything is replicated to, if anywhere.
    pub(super) there: Option<There>,
    dir: TempDir,
}

impl Place {
    /// A registry that was never started; if it is `replicated`, with another that runs.
    pub(super) fn new(kind: Kind, program: &Path, replicated: bool) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("fault-registry-").tempdir().map_err(|error| error.to_string())?;
        let disk = kind.mount(&dir.path().join("disk"))?;
        let there = replicated.then(|| There::start(program, dir.path().join("there"))).transpose()?;
        let file = format!("{FILE}{}", there.as_ref().map(There::rule).unwrap_or_default());
        std::fs::write(dir.path().join("towpath.yaml"), file).map_err(|error| error.to_string())?;
        let (address, token) = (SocketAddr::from(([127, 0, 0, 1], 0)), String::new());
        Ok(Self { program: program.to_owned(), address, child: None, token, disk, there, dir })
    }

    /// The data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.dir.path().join("disk/data")
    }

    /// Whether it served ever since it was made.
    pub(super) const fn was_started(&self) -> bool {
        !self.token.is_empty()
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts the server, which dies at the fault point `fault`. False if it did so before it took connections.
    pub(super) fn start(&mut self, fault: Option<&str>) -> Result<bool, String> {
        self.there.iter_mut().try_for_each(There::up)?;
        for _ in 0..TRIES {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
            self.address = free.map_err(|error| error.to_string())?;
            let mut child = self.spawn(fault)?;
            let stdout = child.stdout.take();
            self.child = Some(child);
            if self.ready() {
                if self.token.is_empty() {
                    let mut line = String::new();
                    let read = stdout.map(|stdout| BufReader::new(stdout).read_line(&mut line));
                    read.transpose().map_err(|error| error.to_string())?;
                    self.token = line.trim().to_owned();
                }
                return Ok(true);
            }
            let killed = self.end();
            if fault.is_some() && killed {
                return Ok(false);
            }
        }
        Err(format!("the registry does not start: {}", self.last_words()))
    }

    fn spawn(&self, fault: Option<&str>) -> Result<Child, String> {
        let log = File::options().create(true).append(true).open(self.log()).map_err(|error| error.to_string())?;
        let mut command = Command::new(&self.program);
        command.args(["registry", "serve", "--config"]).arg(self.dir.path().join("towpath.yaml"));
        command.args(["--anonymous", "pull,push", "--listen", &self.address.to_string()]);
        command.arg("--data").arg(self.data()).env("TOWPATH_LOG", "warn");
        if let Some(fault) = fault {
            command.env(FAULT, fault);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command.spawn().map_err(|error| format!("{}: {error}", self.program.display()))
    }

    fn ready(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            if !self.alive() || Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        self.alive()
    }

    pub(super) fn alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Kills the server as `kill -9` does. Whether it died of such a signal, now or before.
    pub(super) fn end(&mut self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        let Some(mut child) = self.child.take() else { return false };
        let _ = child.kill();
        child.wait().is_ok_and(|status| status.signal() == Some(9))
    }

    /// Cuts the power, if the disk is one that notices. The server is dead.
    pub(super) fn cut(&mut self) -> Result<(), String> {
        match &mut self.disk {
            Disk::Unsynced(disk) => disk.cut(),
            Disk::Plain | Disk::Small(_) => Ok(()),
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// What the server said last.
    pub(super) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(6)..].join("\n")
    }

    /// Whether history alone takes more than half of a small disk.
    pub(super) fn is_used_up(&self) -> bool {
        let Disk::Small(disk) = &self.disk else { return false };
        rustix::fs::statvfs(&disk.0).is_ok_and(|found| found.f_bavail * found.f_frsize < SMALL / 2)
    }

    /// Fills the small disk, but for about `room` bytes, until the answer is dropped.
    pub(super) fn fill(&self, room: u64) -> Result<Option<Ballast>, String> {
        let Disk::Small(disk) = &self.disk else { return Ok(None) };
        let path = disk.0.join("ballast");
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let mut file = File::create(&path).map_err(failed)?;
        let block = vec![1; 64 << 10];
        loop {
            let found = rustix::fs::statvfs(&disk.0).map_err(|error| failed(error.into()))?;
            let over = (found.f_bavail * found.f_frsize).saturating_sub(room);
            let size = usize::try_from(over).unwrap_or(usize::MAX).min(block.len());
            if size == 0 || file.write_all(&block[..size]).is_err() {
                return Ok(Some(Ballast(path)));
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.end();
    }
}

/// A file that takes the space of a disk until it is dropped.
pub(super) struct Ballast(PathBuf);

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
