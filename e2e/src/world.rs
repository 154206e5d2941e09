//! A server of its own.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Git, Program, program, push_base};

/// A port that is free and that no client gets as its own, and the lock that keeps it: the server must have the same
/// again after a restart, whatever other worlds start meanwhile.
/// A port of the loopback address that is free and below those that the system gives out; nobody else here takes it while
/// the file is open.
///
/// # Panics
/// When no port is free.
pub fn free_port() -> (u16, File) {
    // Below the ports that Linux gives out. Test programs run side by side: each begins somewhere else.
    let first = std::process::id() % 400 * 50;
    for step in 0..20_000 {
        let port = u16::try_from(10_000 + (first + step) % 20_000).unwrap();
        let path = std::env::temp_dir().join(format!("towpath-e2e-{}-{port}", rustix::process::geteuid().as_raw()));
        let lock = File::options().create(true).append(true).open(path).unwrap();
        if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return (port, lock);
        }
    }
    panic!("no port is free");
}

/// Bytes of an answer.
const ANSWER_LIMIT: u64 = 256 << 20;

/// How a world is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program.
    pub program: Program,
    /// Environment variables of the server.
    pub env: Vec<(String, String)>,
    /// The data directory; one of the world's own if absent.
    pub data: Option<PathBuf>,
    /// The server's file. If it has listeners, one of them is `127.0.0.1:$PORT`.
    pub config: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { program: Program::Debug, env: Vec::new(), data: None, config: None }
    }
}

/// A server with an organisation `demo` and the base image `demo/base:1`.
pub struct World {
    options: Options,
    dir: TempDir,
    data: PathBuf,
    port: u16,
    _port_lock: File,
    server: Option<Child>,
    token: String,
}

impl World {
    /// Starts a server; nothing if what the world is made of is missing, which is printed.
    pub fn start(options: Options) -> Option<Self> {
        if crate::busybox().is_none() {
            eprintln!("skipped: /bin/busybox of busybox-static is not installed");
            return None;
        }
        let dir = TempDir::new().unwrap();
        let data = options.data.clone().unwrap_or_else(|| dir.path().join("data"));
        let (port, port_lock) = free_port();
        let mut world = Self { options, dir, data, port, _port_lock: port_lock, server: None, token: String::new() };
        world.token = world.up().expect("the first start gives out a token");
        world.call("POST", "/organisations", &json!({ "name": "demo" }));
        push_base("demo/base", "1", |method, path, kind, bytes| world.put_bytes(method, path, kind, bytes));
        Some(world)
    }

    /// Starts the server again; returns the token if this was its first start.
    ///
    /// # Panics
    /// When it does not start.
    pub fn up(&mut self) -> Option<String> {
        let stdout = self.spawn();
        assert!(self.ready(), "the server does not start: {}", self.last_words());
        if !self.token.is_empty() {
            return None;
        }
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        Some(line.trim().to_owned())
    }

    /// Starts the server again; whether it came up, or ended before.
    pub fn try_up(&mut self) -> bool {
        drop(self.spawn());
        self.ready()
    }

    fn spawn(&mut self) -> ChildStdout {
        let program = program(self.options.program);
        let mut command = Command::new(program);
        command.arg("up").arg("--data").arg(&self.data);
        if let Some(config) = &self.options.config {
            let path = self.dir.path().join("towpath.yaml");
            std::fs::write(&path, config.replace("$PORT", &self.port.to_string())).unwrap();
            command.arg("--config").arg(path);
        }
        if !self.options.config.as_ref().is_some_and(|config| config.contains("listeners:")) {
            command.arg("--listen").arg(format!("127.0.0.1:{}", self.port));
        }
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("server.log")).unwrap();
        command.envs(self.options.env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).process_group(0);
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        self.server = Some(child);
        stdout
    }

    fn ready(&mut self) -> bool {
        let until = Instant::now() + Duration::from_secs(60);
        while self.try_get("/readyz").is_none() {
            if !self.alive() || Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Sets an environment variable for the next start.
    pub fn set_env(&mut self, key: &str, value: Option<&str>) {
        self.options.env.retain(|(name, _)| name != key);
        self.options.env.extend(value.map(|value| (key.to_owned(), value.to_owned())));
    }

    /// Whether the server still runs.
    pub fn alive(&mut self) -> bool {
        self.server.as_mut().is_some_and(|server| server.try_wait().unwrap().is_none())
    }

    /// Kills the server as `kill -9` does; what it supervises goes on.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Kills what the server supervises: jobs, services, proxies.
    pub fn end_jobs(&self) {
        end_supervisors(&self.data);
    }

    /// What the server printed.
    pub fn server_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default()
    }

    /// The last lines that the server printed.
    pub fn last_words(&self) -> String {
        let log = self.server_log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// The process id of the server.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// The server's address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The registry's host and port.
    pub fn registry(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A directory for this world's own files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The administrator's token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Git with that token.
    pub fn git(&self) -> Git {
        Git::new(self.dir.path(), &self.token)
    }

    fn agent() -> ureq::Agent {
        let config =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(400)));
        config.build().into()
    }

    fn try_get(&self, path: &str) -> Option<String> {
        let mut response = Self::agent().get(format!("{}{path}", self.url())).call().ok()?;
        response.status().is_success().then(|| response.body_mut().read_to_string().ok())?
    }

    /// Calls `/towpath/v1`; the status and the JSON of the answer.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.try_api(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Calls `/towpath/v1`; the status and the JSON of the answer.
    ///
    /// # Errors
    /// When the server cannot be reached, or dies while it answers.
    pub fn try_api(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value), ureq::Error> {
        let request = self
            .request(method, &format!("/towpath/v1{path}"))
            .header("content-type", "application/json")
            .body(body.map(ToString::to_string).unwrap_or_default())?;
        let mut response = Self::agent().run(request)?;
        let text = response.body_mut().with_config().limit(ANSWER_LIMIT).read_to_string()?;
        Ok((response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    fn request(&self, method: &str, path: &str) -> ureq::http::request::Builder {
        let url = format!("{}{path}", self.url());
        let builder = ureq::http::Request::builder().method(method).uri(url);
        builder.header("authorization", format!("Bearer {}", self.token))
    }

    /// A body of `/towpath/v1` that is read as it comes, for as long as it takes.
    ///
    /// # Panics
    /// When the server cannot be reached or refuses.
    pub fn stream(&self, path: &str) -> impl Read + Send + use<> {
        let request = self.request("GET", &format!("/towpath/v1{path}")).body(()).unwrap();
        let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
        let response = agent.run(request).unwrap_or_else(|error| panic!("GET {path}: {error}"));
        response.into_body().into_reader()
    }

    /// The event log after `seq`.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn events_after(&self, seq: i64) -> Vec<Value> {
        let lines = BufReader::new(self.stream(&format!("/events?after={seq}"))).lines();
        lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    }

    /// The digest that the registry has a manifest under, if it has it.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub fn manifest(&self, image: &str, reference: &str) -> Option<String> {
        let request = self.request("HEAD", &format!("/v2/{image}/manifests/{reference}"));
        let accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
        let response = Self::agent().run(request.header("accept", accept).body(()).unwrap()).unwrap();
        let digest = response.headers().get("docker-content-digest")?.to_str().ok()?;
        (response.status() == 200).then(|| digest.to_owned())
    }

    /// Calls `/towpath/v1`, which must go well.
    ///
    /// # Panics
    /// When it does not.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.api(method, path, Some(body));
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// Gets from `/towpath/v1`, which must go well.
    pub fn get(&self, path: &str) -> Value {
        let (status, answer) = self.api("GET", path, None);
        assert!(status == 200, "GET {path}: {status} {answer}");
        answer
    }

    /// Sends bytes to a path of the server with the administrator's token; the status of the answer.
    pub fn put_bytes(&self, method: &str, path: &str, content_type: &str, bytes: &[u8]) -> u16 {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url()))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", content_type)
            .body(bytes)
            .unwrap();
        Self::agent().run(request).unwrap_or_else(|error| panic!("{method} {path}: {error}")).status().as_u16()
    }

    /// Applies records.
    ///
    /// # Panics
    /// When they are refused.
    pub fn apply(&self, text: &str) {
        let (status, answer) = self.try_apply(text);
        assert!(status == 200, "{status} {answer}");
    }

    /// Applies records; the status and the answer.
    pub fn try_apply(&self, text: &str) -> (u16, Value) {
        let request = ureq::http::Request::post(format!("{}/towpath/v1/apply", self.url()))
            .header("authorization", format!("Bearer {}", self.token))
            .body(text.to_owned())
            .unwrap();
        let mut response = Self::agent().run(request).unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap_or_default())
    }

    /// Waits until a run has ended, over restarts of the server.
    ///
    /// # Panics
    /// When it has not after two minutes.
    pub fn wait(&self, run: i64) -> Value {
        let until = Instant::now() + Duration::from_secs(120);
        while Instant::now() < until {
            let (status, answer) = self.api("GET", &format!("/runs/{run}/wait?timeoutSeconds=20"), None);
            if status == 200 && !answer["outcome"].is_null() {
                return answer;
            }
        }
        panic!("run {run} does not end: {}\n{}", self.get(&format!("/runs/{run}")), self.server_log());
    }

    /// The runs of a repository, newest first.
    pub fn runs(&self, repository: &str) -> Vec<Value> {
        let answer = self.get(&format!("/runs?limit=200&repository={repository}"));
        answer["runs"].as_array().cloned().unwrap_or_default()
    }

    /// The run of this kind for a commit, as soon as it is there.
    ///
    /// # Panics
    /// When it is not after 30 seconds.
    pub fn run_of(&self, repository: &str, kind: &str, commit: &str) -> i64 {
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            let found = self.runs(repository).into_iter().find(|run| run["kind"] == kind && run["commit"] == commit);
            if let Some(run) = found {
                return run["run"].as_i64().unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("there is no {kind} run of {commit}: {:?}", self.runs(repository));
    }

    /// Asks a site; the status and the body, if it answered.
    pub fn ask(url: &str) -> Option<(u16, String)> {
        let mut response = Self::agent().get(url).call().ok()?;
        Some((response.status().as_u16(), response.body_mut().read_to_string().ok()?))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.server_log());
        }
        if self.alive() {
            // Sites outlive the server by design; a test must not leave them behind.
            let targets = self.try_api("GET", "/targets", None).map(|(_, targets)| targets).unwrap_or_default();
            for target in targets["targets"].as_array().into_iter().flatten() {
                let name = target["name"].as_str().unwrap_or_default();
                let _ = self.try_api("DELETE", &format!("/targets/{name}"), None);
            }
        }
        self.kill();
        end_supervisors(&self.data);
    }
}

/// Ends the supervisors of a data directory whose server cannot do it any more.
fn end_supervisors(data: &Path) {
    let within = format!("{}/", data.display());
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let ours = words.iter().any(|word| word == "__workload") && words.iter().any(|word| word.starts_with(&within));
        let pid =
            entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid.filter(|_| ours) {
            // It may end by itself in the meantime.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
