//! Another registry, to which a rule pushes what the clients push. In the end it has every tag as it is here, whole, and no
//! tag that is gone here.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::book::Book;
use super::http::{Answer, Ask, Client};
use super::retained::matches;
use super::{Finding, Wrong};

/// How long it may take to take connections.
const STARTING: Duration = Duration::from_secs(60);
/// How long it may take until nothing is queued. A rule whose destination had trouble rests for a minute at most.
const ARRIVING: Duration = Duration::from_secs(100);
/// What names there begin with.
const PREFIX: &str = "there";

/// A registry that everybody may push to, on a port of its own for as long as it exists.
pub(super) struct There {
    program: PathBuf,
    dir: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
    _port: File,
}

impl There {
    /// Starts it with its data below `dir`.
    pub(super) fn start(program: &Path, dir: PathBuf) -> Result<Self, String> {
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let (port, file) = e2e::free_port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut there = Self { program: program.to_owned(), dir, address, child: None, _port: file };
        there.up()?;
        Ok(there)
    }

    /// Starts it over the same data, unless it runs.
    pub(super) fn up(&mut self) -> Result<(), String> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = self.dir.join("log");
        let failed = |error: std::io::Error| format!("{}: {error}", log.display());
        let log = File::options().create(true).append(true).open(&log).map_err(failed)?;
        let mut command = Command::new(&self.program);
        command.args(["registry", "serve", "--anonymous", "pull,push", "--listen", &self.address.to_string()]);
        command.arg("--data").arg(self.dir.join("data")).env("TOWPATH_LOG", "warn");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.map_err(|error| format!("{}: {error}", self.program.display()))?);
        let until = Instant::now() + STARTING;
        while TcpStream::connect(self.address).is_err() {
            let alive = self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
            if !alive || Instant::now() > until {
                return Err("the registry that is replicated to does not start".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The rule that leads here, for the other registry's file. What retention takes away there is another's business.
    pub(super) fn rule(&self) -> String {
        format!(
            "    replication:\n      - {{name: there, url: 'http://{}', insecurePlainHttp: true, prefix: {PREFIX}, \
             images: ['fault/client-*'], deletes: true}}\n",
            self.address
        )
    }

    /// Waits until everything is replicated, and compares. How many tags were looked at; nothing if the registry that
    /// replicates died meanwhile.
    pub(super) fn check(&self, source: &mut Client, books: &[Book]) -> (u64, Vec<Finding>) {
        match rested(source) {
            Rest::Empty => {}
            Rest::Dead => return (0, Vec::new()),
            Rest::Never(said) => {
                let text = format!("after {} s not everything is replicated: {said}", ARRIVING.as_secs());
                return (0, vec![Finding { wrong: Wrong::Lost, text }]);
            }
        }
        let (mut tags, mut look) = (0, Look { client: Client::new(self.address, ""), findings: Vec::new() });
        for book in books {
            let certain = book.tags.iter().filter_map(|(tag, may)| Some((tag.clone(), may.first()?.clone()?)));
            let certain: BTreeMap<String, String> = certain.collect();
            tags += certain.len() as u64;
            look.image(&format!("{PREFIX}/{}", book.image), &certain);
        }
        (tags, look.findings)
    }

    /// Kills it, if it runs.
    pub(super) fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for There {
    fn drop(&mut self) {
        self.end();
    }
}

enum Rest {
    Empty,
    Dead,
    Never(String),
}

/// Waits until nothing is queued.
fn rested(source: &mut Client) -> Rest {
    let until = Instant::now() + ARRIVING;
    loop {
        let ask = Ask { method: "GET", path: "/towpath/v1/registry/replication", ..Ask::default() };
        let Ok(answer) = source.send(&ask) else { return Rest::Dead };
        let state: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if state["rules"][0]["queued"] == 0 {
            return Rest::Empty;
        }
        if Instant::now() > until {
            return Rest::Never(answer.said());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Looks at what has arrived.
struct Look {
    client: Client,
    findings: Vec<Finding>,
}

impl Look {
    fn found(&mut self, wrong: Wrong, text: String) {
        self.findings.push(Finding { wrong, text: format!("replicated: {text}") });
    }

    fn get(&mut self, path: &str) -> Answer {
        match self.client.send(&Ask { method: "GET", path, ..Ask::default() }) {
            Ok(answer) => answer,
            Err(error) => {
                self.found(Wrong::Answer, format!("GET {path}: {error}"));
                Answer::default()
            }
        }
    }

    /// The tags of an image, which are these.
    fn image(&mut self, image: &str, certain: &BTreeMap<String, String>) {
        let list = self.get(&format!("/v2/{image}/tags/list"));
        let list: Value = serde_json::from_slice(&list.body).unwrap_or_default();
        let listed = list["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for tag in listed.filter(|tag| !certain.contains_key(*tag)) {
            self.found(Wrong::Back, format!("{image}:{tag} is gone here"));
        }
        for (tag, digest) in certain {
            let answer = self.get(&format!("/v2/{image}/manifests/{tag}"));
            match answer.header("docker-content-digest") {
                Some(found) if answer.status == 200 && found == digest => self.whole(image, digest, answer.body),
                Some(found) if answer.status == 200 => {
                    let text = format!("{image}:{tag} points to {found}, not to {digest}");
                    self.found(Wrong::Lost, text);
                }
                _ => self.found(Wrong::Lost, format!("{image}:{tag} has not arrived: {}", answer.said())),
            }
        }
    }

    /// Reads all that a manifest stands on.
    fn whole(&mut self, image: &str, digest: &str, bytes: Vec<u8>) {
        let mut ahead = vec![(digest.to_owned(), bytes)];
        while let Some((digest, bytes)) = ahead.pop() {
            if !matches(&digest, &bytes) {
                self.found(Wrong::Torn, format!("{image}: {digest} has other bytes"));
                continue;
            }
            let text: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let listed = |key: &str| text[key].as_array().cloned().unwrap_or_default();
            let blobs = listed("layers").into_iter().chain([text["config"].clone()]).map(|part| ("blobs", part));
            let parts = blobs.chain(listed("manifests").into_iter().map(|part| ("manifests", part)));
            for (kind, part) in parts {
                let Some(part) = part["digest"].as_str() else { continue };
                let answer = self.get(&format!("/v2/{image}/{kind}/{part}"));
                match answer.status {
                    200 if kind == "manifests" => ahead.push((part.to_owned(), answer.body)),
                    200 if matches(part, &answer.body) => {}
                    200 => self.found(Wrong::Torn, format!("{image}: {part} has other bytes")),
                    _ => self.found(Wrong::Torn, format!("{image}: {part} is missing: {}", answer.said())),
                }
            }
        }
    }
}
