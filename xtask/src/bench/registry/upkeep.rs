//! What the registry does beside its clients, and for many of them at once: a plan of retention over many manifests,
//! pushes during a collection, and one fetch from an upstream for everybody. Of ours alone.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use serde_json::Value;

use super::client::{Body, Client};
use super::content::{self, Content};
use super::report::Row;

/// How long a server may take to answer at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// Images that the plan is made for, with 20 tags each; every tag is an index of four manifests.
const IMAGES: i64 = 1000;
/// Blobs that nothing refers to.
const LOOSE: u32 = 20_000;
/// Pushes without a collection.
const PUSHES: u32 = 300;
/// Clients that want the same blob.
const CLIENTS: usize = 100;
/// Bytes of that blob.
const BLOB: u64 = 50_000_000;
const CONFIG: &str = "{}";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// The rows.
pub(super) fn measure(program: &Path) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    plan(program, &mut rows)?;
    collection(program, &mut rows)?;
    upstream(program, &mut rows)?;
    Ok(rows)
}

/// A registry over a directory of its own, open to everybody.
struct Server {
    program: PathBuf,
    dir: tempfile::TempDir,
    address: SocketAddr,
    child: Option<Child>,
    token: String,
}

impl Server {
    fn start(program: &Path, registry: &str) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("bench-upkeep-").tempdir().map_err(|error| error.to_string())?;
        let file = format!("apiVersion: towpath.dev/v1alpha1\nkind: Towpath\nspec:\n  registry: {registry}\n");
        std::fs::write(dir.path().join("towpath.yaml"), file).map_err(|error| error.to_string())?;
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = free.map_err(|error| error.to_string())?;
        let mut server = Self { program: program.to_owned(), dir, address, child: None, token: String::new() };
        server.run()?;
        let began = Instant::now();
        // It may answer before it has said the token.
        while server.token.is_empty() {
            if began.elapsed() > PATIENCE {
                return Err(format!("the registry says no token: {}", server.log()));
            }
            let said = std::fs::read_to_string(server.dir.path().join("stdout")).unwrap_or_default();
            said.lines().last().filter(|_| said.ends_with('\n')).unwrap_or_default().clone_into(&mut server.token);
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(server)
    }

    fn run(&mut self) -> Result<(), String> {
        let path = |name: &str| self.dir.path().join(name);
        let file = |name: &str| File::create(path(name)).map_err(|error| format!("{name}: {error}"));
        let mut command = Command::new(&self.program);
        command.args(["registry", "serve", "--anonymous", "pull,push", "--listen", &self.address.to_string()]);
        command.arg("--config").arg(path("towpath.yaml")).arg("--data").arg(path("data"));
        command.env("TOWPATH_LOG", "warn,server::access=info");
        command.stdin(Stdio::null()).stdout(file("stdout")?).stderr(file("log")?);
        self.child = Some(command.spawn().map_err(|error| format!("{command:?}: {error}"))?);
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if began.elapsed() > PATIENCE || ended.is_some() {
                return Err(format!("the registry does not start: {}", self.log()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // It takes connections before it has opened its data.
        Client::connect(self.address, None)?.ask("GET", "/v2/", Body::None).map(drop)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = child.wait();
    }

    /// An administrator's connection.
    fn client(&self) -> Result<Client, String> {
        Client::connect(self.address, Some(format!("Bearer {}", self.token)))
    }

    /// Changes the records while nobody serves them.
    fn seed(&mut self, seed: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> Result<(), String> {
        self.stop();
        let seeded = Connection::open(self.dir.path().join("data/towpath.db")).and_then(|mut records| {
            let tx = records.transaction()?;
            seed(&tx)?;
            tx.commit()
        });
        seeded.map_err(|error| format!("the records: {error}"))?;
        self.run()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What `towpath registry retention --dry-run` takes, to the last of its lines.
fn plan(program: &Path, rows: &mut Vec<Row>) -> Result<(), String> {
    let mut server = Server::start(program, "{retention: [{keepNewest: 10, untagged: {olderThan: 0s}}]}")?;
    server.seed(manifests)?;
    let mut client = server.client()?;
    let (mut best, mut said) = (f64::INFINITY, Value::Null);
    for _ in 0..3 {
        let began = Instant::now();
        let answer = client.expect(200, "GET", "/towpath/v1/registry/retention?images=**", Body::None)?;
        best = best.min(began.elapsed().as_secs_f64());
        let last = answer.body.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        said = serde_json::from_slice(last).map_err(|error| error.to_string())?;
    }
    let decisions = said["summary"]["kept"].as_u64().unwrap_or(0) + said["summary"]["planned"].as_u64().unwrap_or(0);
    let row = Row::new("retention plan of 100,000 manifests", "s", Some(2.0), best);
    rows.push(row.note(format!("{decisions} lines, of tags and manifests")));
    Ok(())
}

/// Images with manifests and tags, as a registry has them that lived for a while.
fn manifests(records: &Connection) -> rusqlite::Result<()> {
    let numbers = "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 99)";
    let digest = |n: &str| format!("'sha256:' || printf('%032x%032x', i.id, {n})");
    let sql = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)
               INSERT INTO registry_images (id, name, created)
               SELECT 1000000 + n, CAST('bench/image' || n AS BLOB), 0 FROM numbers";
    records.execute(sql, [IMAGES])?;
    let sql = format!(
        "{numbers} INSERT INTO registry_manifests (image, digest, media_type, size, pushed, content)
         SELECT i.id, {}, ?1, 1000, n, zeroblob(1000) FROM registry_images i, numbers",
        digest("n")
    );
    records.execute(&sql, [MANIFEST_TYPE])?;
    let sql = format!(
        "{numbers}, parts(p) AS (VALUES (1), (2), (3), (4))
         INSERT INTO registry_references (image, manifest, digest, kind)
         SELECT i.id, {}, {}, 'manifest' FROM registry_images i, numbers, parts WHERE n % 5 = 4",
        digest("n"),
        digest("n - p")
    );
    records.execute(&sql, [])?;
    let sql = format!(
        "{numbers} INSERT INTO registry_tags (image, tag, digest, updated)
         SELECT i.id, CAST('v' || n AS BLOB), {}, n FROM registry_images i, numbers WHERE n % 5 = 4",
        digest("n")
    );
    records.execute(&sql, []).map(drop)
}

/// Tiny images pushed alone, and while blobs are collected.
fn collection(program: &Path, rows: &mut Vec<Row>) -> Result<(), String> {
    let mut server = Server::start(program, "{collection: {every: 0s, grace: 1h}}")?;
    let mut client = server.client()?;
    let mut number = 0;
    let mut alone = Vec::new();
    for _ in 0..PUSHES {
        alone.push(push(&mut client, &mut number)?);
    }
    let blobs = server.dir.path().join("data/blobs/sha256");
    server.seed(|records| loose(records, &blobs))?;
    let mut client = server.client()?;
    let mut collector = server.client()?;
    let (mut beside, began) = (Vec::new(), Instant::now());
    let collected = std::thread::scope(|scope| {
        let body = Body::Bytes("application/json", b"{}");
        let collection = scope.spawn(move || collector.expect(200, "POST", "/towpath/v1/registry/gc", body));
        while !collection.is_finished() {
            beside.push(push(&mut client, &mut number)?);
        }
        collection.join().map_err(|_| "a client panicked".to_owned())?
    })?;
    let length = began.elapsed().as_secs_f64();
    let collected: Value = serde_json::from_slice(&collected.body).map_err(|error| error.to_string())?;
    if collected["removed"] != LOOSE {
        return Err(format!("the collection removed something else than {LOOSE} blobs: {collected}"));
    }
    let (without, with) = (p99(&mut alone), p99(&mut beside));
    rows.push(Row::new("push of a tiny image, p99", "ms", None, without));
    let row = Row::new("the same during a collection", "ms", None, with);
    rows.push(row.note(format!("{} pushes in the {length:.1} s in which {LOOSE} blobs went", beside.len())));
    rows.push(Row::new("as a multiple", "×", Some(2.0), with / without));
    Ok(())
}

/// Blobs of an image that nothing refers to, for long.
fn loose(records: &Connection, blobs: &Path) -> rusqlite::Result<()> {
    let sql = "INSERT INTO registry_blobs (image, digest, size, linked)
               SELECT MIN(id), ?1, ?2, 0 FROM registry_images";
    for number in 0..LOOSE {
        let bytes = format!("loose {number}");
        let digest = content::digest(bytes.as_bytes());
        let hex = digest.trim_start_matches("sha256:");
        let written = std::fs::write(blobs.join(&hex[..2]).join(hex), &bytes);
        written.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        records.execute(sql, params![digest, i64::try_from(bytes.len()).unwrap_or(i64::MAX)])?;
    }
    Ok(())
}

/// Pushes an image of a new layer; how long that took, in milliseconds.
fn push(client: &mut Client, number: &mut u32) -> Result<f64, String> {
    *number += 1;
    let layer = format!("layer {number}");
    let began = Instant::now();
    for bytes in [CONFIG, &layer] {
        let path = format!("/v2/bench/pushed/blobs/uploads/?digest={}", content::digest(bytes.as_bytes()));
        client.expect(201, "POST", &path, Body::Bytes("application/octet-stream", bytes.as_bytes()))?;
    }
    let descriptor = |kind: &str, bytes: &str| {
        let digest = content::digest(bytes.as_bytes());
        format!("{{\"mediaType\":\"{kind}\",\"digest\":\"{digest}\",\"size\":{}}}", bytes.len())
    };
    let manifest = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST_TYPE}\",\"config\":{},\"layers\":[{}]}}",
        descriptor("application/vnd.oci.image.config.v1+json", CONFIG),
        descriptor("application/vnd.oci.image.layer.v1.tar", &layer)
    );
    let path = format!("/v2/bench/pushed/manifests/t{number}");
    client.expect(201, "PUT", &path, Body::Bytes(MANIFEST_TYPE, manifest.as_bytes()))?;
    Ok(began.elapsed().as_secs_f64() * 1000.0)
}

fn p99(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) * 99 / 100).copied().unwrap_or(f64::NAN)
}

/// Many clients that want the same blob, which only an upstream has.
fn upstream(program: &Path, rows: &mut Vec<Row>) -> Result<(), String> {
    let origin = Server::start(program, "{}")?;
    let mut blob = Content::new(BLOB, 7);
    let digest = blob.digest();
    let path = format!("/v2/some/image/blobs/uploads/?digest={digest}");
    origin.client()?.expect(201, "POST", &path, Body::Content(&mut blob))?;
    let cache = format!(
        "{{upstreams: [{{name: origin.test, prefix: origin, url: 'http://{}', insecurePlainHttp: true, anonymous: true}}]}}",
        origin.address
    );
    let cache = Server::start(program, &cache)?;
    let path = format!("/v2/origin/some/image/blobs/{digest}");
    let clients = (0..CLIENTS).map(|_| Client::connect(cache.address, None)).collect::<Result<Vec<_>, String>>()?;
    let began = Instant::now();
    std::thread::scope(|scope| {
        let path = path.as_str();
        let pull = |mut client: Client| move || client.drain(path);
        let threads: Vec<_> = clients.into_iter().map(|client| scope.spawn(pull(client))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join().map_err(|_| "a client panicked")?? {
            BLOB => Ok(()),
            other => Err(format!("a client got {other} bytes")),
        })
    })?;
    let length = began.elapsed().as_secs_f64();
    let wanted = format!("/v2/some/image/blobs/{digest}");
    let log = origin.log();
    let fetches = log.lines().filter(|line| line.contains(&wanted) && line.contains("GET")).count();
    let row =
        Row::new("100 clients, one cold blob: fetches", "", Some(1.0), f64::from(u32::try_from(fetches).unwrap_or(0)));
    rows.push(row.note(format!("{BLOB} bytes for each in {length:.1} s; an upstream of ours, over plain HTTP")));
    if fetches == 0 { Err("the upstream's log says nothing of a fetch".to_owned()) } else { Ok(()) }
}
