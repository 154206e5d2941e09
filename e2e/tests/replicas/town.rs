//! Two servers over one PostgreSQL and one bucket, and nginx, which gives each request to the next of them.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::{Daemon, Program, free_port, installed, program};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use ureq::http::Response;

use crate::{bucket, postgresql};

/// What precedes the address in what a server says.
const SERVES: &str = "towpath serves http://";

const NGINX: &str = "\
    upstream replicas {
        server $ONE max_fails=0;
        server $OTHER max_fails=0;
    }
    server {
        listen $PROXY;
        client_max_body_size 0;
        location / {
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_request_buffering off;
            proxy_buffering off;
        }
    }
";

/// What every replica reads.
const CONFIG: &str = "apiVersion: towpath.dev/v1alpha1
kind: Towpath
spec:
  listeners: [{address: '127.0.0.1:0', hosts: ['$PROXY']}]
  records: {postgres: 'env:TOWPATH_TEST_RECORDS'}
  registry: {}
  blobs: {s3: {endpoint: '$S3', bucket: $BUCKET, prefix: $PREFIX, accessKey: 'env:TOWPATH_TEST_ACCESS',
               secretKey: 'env:TOWPATH_TEST_SECRET', pathStyle: true}}
";

/// A server.
pub struct Replica {
    daemon: Option<Daemon>,
    /// Host and port.
    pub host: String,
    data: PathBuf,
}

/// All of it. Dropped in this order: servers before what they stand on.
pub struct Town {
    pub replicas: Vec<Replica>,
    _nginx: Option<Daemon>,
    /// Host and port of nginx.
    pub proxy: String,
    /// Keeps its port.
    _kept: std::fs::File,
    pub token: String,
    started: usize,
    database: String,
    bucket: bucket::Server,
    _runtime: Runtime,
    dir: TempDir,
}

impl Town {
    /// Two servers, started at once on an empty database; nothing if something is missing, which is printed.
    pub fn start() -> Option<Self> {
        let database = postgresql::database()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let bucket = runtime.block_on(bucket::Server::start());
        let (port, kept) = free_port();
        let proxy = format!("127.0.0.1:{port}");
        let dir = tempfile::tempdir().unwrap();
        let mut town = Self {
            replicas: Vec::new(),
            _nginx: None,
            proxy,
            _kept: kept,
            token: String::new(),
            started: 0,
            database,
            bucket,
            _runtime: runtime,
            dir,
        };
        std::fs::write(town.path("replica.yaml"), town.config(CONFIG)).unwrap();
        let begun = [town.begin(), town.begin()];
        let mut tokens = Vec::new();
        for begun in begun {
            let (replica, said) = serving(begun);
            tokens.extend(said.lines().filter(|line| line.starts_with("twp_")).map(ToOwned::to_owned));
            town.replicas.push(replica);
        }
        assert_eq!(tokens.len(), 1, "one administrator, whose token one of them prints");
        town.token = tokens.remove(0);
        Some(town)
    }

    /// A configuration with what is known filled in.
    pub fn config(&self, text: &str) -> String {
        let options = self.bucket.options();
        text.replace("$PROXY", &self.proxy)
            .replace("$S3", options.endpoint.as_deref().unwrap())
            .replace("$BUCKET", &options.bucket)
            .replace("$PREFIX", &options.prefix)
    }

    /// The program, told where records and bucket are.
    pub fn command(&self) -> Command {
        let mut command = Command::new(program(Program::Debug));
        let options = self.bucket.options();
        command.env("TOWPATH_TEST_RECORDS", &self.database).env_remove("TOWPATH_DATA");
        command.env("TOWPATH_TEST_ACCESS", options.access_key).env("TOWPATH_TEST_SECRET", options.secret_key);
        command
    }

    fn begin(&mut self) -> (Daemon, PathBuf) {
        self.started += 1;
        let data = self.path(format!("data{}", self.started));
        let mut command = self.command();
        command.arg("up").arg("--config").arg(self.path("replica.yaml")).arg("--data").arg(&data);
        (Daemon::start(command, &self.path(format!("log{}", self.started))), data)
    }

    /// Starts nginx; false if it is not installed, which is printed.
    pub fn proxied(&mut self) -> bool {
        if !installed("nginx") {
            return false;
        }
        let http = NGINX.replace("$PROXY", &self.proxy);
        let http = http.replace("$ONE", &self.replicas[0].host).replace("$OTHER", &self.replicas[1].host);
        let address: SocketAddr = self.proxy.parse().unwrap();
        let ready = || TcpStream::connect(address).is_ok();
        self._nginx = Some(Daemon::nginx(Command::new("/usr/sbin/nginx"), self.dir.path(), &http, ready));
        true
    }

    /// Kills a server and takes its disk away.
    pub fn lose(&mut self, number: usize) {
        let replica = &mut self.replicas[number];
        replica.daemon.take().unwrap().kill();
        std::fs::remove_dir_all(&replica.data).unwrap();
    }

    /// Puts a new server in the place of one that was lost.
    pub fn replace(&mut self, number: usize) {
        let begun = self.begin();
        self.replicas[number] = serving(begun).0;
    }

    /// A place for files.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What is in the bucket of uploads that are not finished.
    pub fn staged(&self) -> usize {
        let dirs = self.bucket.objects().join("uploads").read_dir().into_iter().flatten().flatten();
        dirs.map(|dir| dir.path().read_dir().into_iter().flatten().count()).sum()
    }

    /// As the administrator.
    pub fn ask(&self, host: &str, method: &str, path: &str, kind: &str, body: &[u8]) -> Response<ureq::Body> {
        ask(host, &format!("Bearer {}", self.token), method, path, kind, body)
    }

    /// The same to a server, with bytes.
    pub fn send(&self, number: usize, method: &str, path: &str, body: &[u8]) -> Response<ureq::Body> {
        self.ask(&self.replicas[number].host, method, path, "application/octet-stream", body)
    }

    /// The digest that a server has under a tag.
    pub fn digest(&self, host: &str, image: &str, tag: &str) -> String {
        let answer = self.ask(host, "HEAD", &format!("/v2/{image}/manifests/{tag}"), "application/octet-stream", b"");
        answer.headers()["docker-content-digest"].to_str().unwrap().to_owned()
    }

    /// Sends the head of a request and the beginning of its body, and leaves it there.
    pub fn begin_part(&self, number: usize, path: &str, length: usize, sent: &[u8]) -> TcpStream {
        let mut socket = TcpStream::connect(&self.replicas[number].host).unwrap();
        let head = format!(
            "PATCH {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Length: {length}\r\n\r\n",
            self.replicas[number].host, self.token
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(sent).unwrap();
        socket
    }
}

fn serving((mut daemon, data): (Daemon, PathBuf)) -> (Replica, String) {
    let serves = daemon.serves(|| daemon_said(&data).contains(SERVES) && daemon_said(&data).ends_with('\n'));
    let said = daemon.said();
    assert!(serves, "the server ended: {said}");
    let host = said.split_once(SERVES).unwrap().1.split_whitespace().next().unwrap().to_owned();
    (Replica { daemon: Some(daemon), host, data }, said)
}

/// The log beside a data directory.
fn daemon_said(data: &Path) -> String {
    let name = data.file_name().unwrap().to_str().unwrap().replace("data", "log");
    std::fs::read_to_string(data.with_file_name(name)).unwrap_or_default()
}

/// Sends a request and answers whatever comes.
pub fn ask(host: &str, who: &str, method: &str, path: &str, kind: &str, body: &[u8]) -> Response<ureq::Body> {
    let request = ureq::http::Request::builder().method(method).uri(format!("http://{host}{path}"));
    let request = request.header("authorization", who).header("content-type", kind);
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent: ureq::Agent = config.timeout_global(Some(Duration::from_secs(120))).build().into();
    agent.run(request.body(body).unwrap()).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}
