//! The two servers: started, stopped, filled, and looked at from outside.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::client::{Body, Client};
use super::work::Sizes;
use super::{content, peer};
use crate::processes::{Process, seconds};

/// What is measured is what one would run: limits that are kept though nobody reaches them, and metrics.
const CONFIGURATION: &str = "apiVersion: towpath.dev/v1alpha1
kind: Towpath
spec:
  rateLimits: {requestsPerSecond: 1000000}
  metrics: {address: 127.0.0.1:0}
";

/// How long a server may take to answer at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// The image that everything is pushed to.
pub(super) const IMAGE: &str = "bench/image";

/// Which server.
#[derive(Clone)]
pub(super) enum Kind {
    Ours(PathBuf),
    Peer(PathBuf),
}

/// A server over a directory.
pub(super) struct Server {
    kind: Kind,
    dir: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
    /// The administrator's token, of ours.
    token: Option<String>,
    /// From the start of the process until it answered, the last time.
    ready: Duration,
}

impl Server {
    /// Starts a server with its data below `dir`.
    pub(super) fn start(kind: Kind, dir: &Path) -> Result<Self, String> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = free.map_err(|error| error.to_string())?;
        let dir = dir.to_owned();
        let mut server = Self { kind, dir, address, child: None, token: None, ready: Duration::ZERO };
        server.run()?;
        if matches!(server.kind, Kind::Ours(_)) {
            let said = std::fs::read_to_string(server.dir.join("stdout")).unwrap_or_default();
            server.token = Some(said.trim().to_owned());
        }
        Ok(server)
    }

    fn run(&mut self) -> Result<(), String> {
        let file = |name: &str| File::create(self.dir.join(name)).map_err(|error| format!("{name}: {error}"));
        let mut command = self.command()?;
        command.stdin(Stdio::null()).stdout(file("stdout")?).stderr(file("log")?);
        let began = Instant::now();
        let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        self.child = Some(child);
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if began.elapsed() > PATIENCE || ended.is_some() {
                let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                return Err(format!("a server does not start: {log}"));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        Client::connect(self.address, None)?.ask("GET", "/v2/", Body::None)?;
        self.ready = began.elapsed();
        Ok(())
    }

    fn command(&self) -> Result<Command, String> {
        let data = self.dir.join("data");
        match &self.kind {
            Kind::Ours(program) => {
                let file = self.dir.join("towpath.yaml");
                std::fs::write(&file, CONFIGURATION).map_err(|error| error.to_string())?;
                let mut command = Command::new(program);
                command.args(["registry", "serve", "--config"]).arg(file);
                command.args(["--listen", &self.address.to_string(), "--data"]).arg(data);
                command.env("TOWPATH_LOG", "warn,server::access=info");
                Ok(command)
            }
            Kind::Peer(program) => {
                let file = self.dir.join("config.yml");
                let text = peer::configuration(&data, self.address.port());
                std::fs::write(&file, text).map_err(|error| error.to_string())?;
                let mut command = Command::new(program);
                command.arg("serve").arg(file);
                Ok(command)
            }
        }
    }

    /// Stops it and waits for its end.
    pub(super) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = child.wait();
    }

    /// Starts it again a few times, the last time for good: the shortest time to the first answer, in milliseconds.
    pub(super) fn ready(&mut self) -> Result<f64, String> {
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            self.stop();
            self.run()?;
            best = best.min(self.ready.as_secs_f64() * 1000.0);
        }
        Ok(best)
    }

    /// A connection with the right to push and pull.
    pub(super) fn client(&self) -> Result<Client, String> {
        let Some(token) = &self.token else { return Client::connect(self.address, None) };
        let basic = format!("Basic {}", STANDARD.encode(format!("admin:{token}")));
        let path = format!("/towpath/v1/registry/token?service=towpath&scope=repository:{IMAGE}:pull,push");
        let answer = Client::connect(self.address, Some(basic))?.expect(200, "GET", &path, Body::None)?;
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        let token = answer["token"].as_str().ok_or("the token endpoint gives no token")?;
        Client::connect(self.address, Some(format!("Bearer {token}")))
    }

    /// Where it has everything.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn process(&self) -> Result<Process, String> {
        let pid = self.child.as_ref().map(Child::id).ok_or("the server is stopped")?;
        Process::read(pid).ok_or_else(|| "the server has ended".to_owned())
    }

    /// Seconds of processor time so far, with the children it waited for.
    pub(super) fn cpu(&self) -> Result<f64, String> {
        Ok(seconds(self.process()?.ticks))
    }

    /// Memory in MB of a server that has nothing to do.
    pub(super) fn idle(&self) -> Result<f64, String> {
        std::thread::sleep(Duration::from_secs(2));
        Ok(megabytes(self.process()?.rss()))
    }

    /// Forgets the peak of the memory so far.
    pub(super) fn reset_peak(&self) -> Result<(), String> {
        let pid = self.process()?.pid;
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").map_err(|error| format!("clear_refs: {error}"))
    }

    /// The peak of the memory in MB.
    pub(super) fn peak(&self) -> Result<f64, String> {
        Ok(megabytes(self.process()?.peak_rss()))
    }

    /// Fills the image with tags of its manifest `latest`, straight into what the stopped server keeps; how many.
    pub(super) fn seed_tags(&self, sizes: &Sizes) -> Result<u64, String> {
        let manifest = super::work::manifest();
        let digest = content::digest(manifest.as_bytes());
        let data = self.dir.join("data");
        match &self.kind {
            Kind::Ours(_) => {
                seed(&data.join("towpath.db"), &digest, sizes.tags).map_err(|error| format!("tags: {error}"))?;
                Ok(sizes.tags)
            }
            // Each is three files and directories, and it has no pages: a million would take it minutes.
            Kind::Peer(_) => {
                let count = sizes.tags.min(10_000);
                peer::seed(&data, IMAGE, &digest, count).map_err(|error| format!("tags: {error}"))?;
                Ok(count)
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

#[allow(clippy::cast_precision_loss)]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn seed(db: &Path, digest: &str, count: u64) -> rusqlite::Result<()> {
    let mut connection = rusqlite::Connection::open(db)?;
    let tx = connection.transaction()?;
    let sql = "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?1)
               INSERT OR IGNORE INTO registry_tags (image, tag, digest, updated)
               SELECT id, CAST(printf('tag-%07d', n) AS BLOB), ?2, 0 FROM registry_images, numbers
               WHERE name = CAST(?3 AS BLOB)";
    tx.execute(sql, rusqlite::params![i64::try_from(count).unwrap_or(i64::MAX), digest, IMAGE])?;
    tx.commit()
}
