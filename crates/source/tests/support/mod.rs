//! A server around the hosting, and clients of it.

#![allow(dead_code)] // Each test binary uses its part.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::TryStreamExt;
use git::Git;
use model::{RefName, Timestamp};
use source::{HostedRepo, Hosting, RefUpdate, Service};
use store::{Location, Records};
use tempfile::TempDir;

type Pushes = Arc<Mutex<Vec<Vec<RefUpdate>>>>;

/// A server with one repository.
pub struct Host {
    pub dir: TempDir,
    pub hosting: Hosting,
    pub repo: HostedRepo,
    pub pushes: Pushes,
    /// How many requests were compressed.
    pub gzipped: Arc<AtomicUsize>,
    pub url: String,
    pub address: std::net::SocketAddr,
}

#[derive(Clone)]
struct Served {
    hosting: Hosting,
    repo: HostedRepo,
    pushes: Pushes,
    gzipped: Arc<AtomicUsize>,
}

pub async fn hosting(dir: &Path) -> Hosting {
    let records = Records::open(Location::Sqlite(dir.join("records.db"))).await.unwrap();
    Hosting::open(Git::discover().unwrap(), records, dir.join("git")).await.unwrap()
}

impl Host {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub async fn start_in(dir: TempDir) -> Self {
        let hosting = hosting(dir.path()).await;
        let repo = hosting.create(&"demo/site".parse().unwrap(), "main", Timestamp(0)).await.unwrap();
        let pushes = Pushes::default();
        let gzipped = Arc::default();
        let state = Served {
            hosting: hosting.clone(),
            repo: repo.clone(),
            pushes: pushes.clone(),
            gzipped: Arc::clone(&gzipped),
        };
        let routes = axum::Router::new()
            .route("/r/info/refs", get(info_refs))
            .route("/r/git-upload-pack", post(upload))
            .route("/r/git-receive-pack", post(receive))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { dir, hosting, repo, pushes, gzipped, url: format!("http://{address}/r"), address }
    }

    /// A directory for a client.
    pub fn client(&self, name: &str) -> Client {
        let dir = self.dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        Client { dir, url: self.url.clone() }
    }

    /// A client with a commit on `main` that is not pushed.
    pub async fn with_commit(&self, name: &str) -> Client {
        let client = self.client(name);
        client.git(&["init", "-q", "-b", "main", "."]).await;
        client.git(&["remote", "add", "origin", &self.url]).await;
        client.commit("file", b"one").await;
        client
    }

    /// What on_push was called with, `name:new`, sorted within a push; they are forgotten by this.
    pub fn seen(&self) -> Vec<Vec<String>> {
        let all = std::mem::take(&mut *self.pushes.lock().unwrap());
        let text = |it: RefUpdate| format!("{}:{}", it.name, it.new.map_or("-".to_owned(), |id| id.to_string()));
        all.into_iter()
            .map(|push| {
                let mut push: Vec<_> = push.into_iter().map(text).collect();
                push.sort();
                push
            })
            .collect()
    }

    pub async fn seen_soon(&self) -> Vec<Vec<String>> {
        for _ in 0..200 {
            if !self.pushes.lock().unwrap().is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
        self.seen()
    }

    pub fn git_dir(&self) -> PathBuf {
        self.hosting.directory(self.repo.id)
    }

    pub async fn at(&self, name: &str) -> Option<String> {
        let name = name.parse::<RefName>().unwrap();
        let repository = self.hosting.repository(self.repo.id).unwrap();
        repository.resolve(name.as_str()).await.unwrap().map(|id| id.to_string())
    }

    /// Sends a request as it is, and reads the answer.
    pub async fn post(&self, service: &str, encoding: Option<&str>, body: Vec<u8>) -> Vec<u8> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let encoding = encoding.map_or(String::new(), |it| format!("Content-Encoding: {it}\r\n"));
        let head = format!("POST /r/{service} HTTP/1.0\r\nHost: x\r\n{encoding}Content-Length: {}\r\n\r\n", body.len());
        let (mut read, mut write) = stream.split();
        let mut answer = Vec::new();
        let (_, got) = tokio::join!(
            async {
                write.write_all(head.as_bytes()).await.unwrap();
                let _ = write.write_all(&body).await;
            },
            read.read_to_end(&mut answer)
        );
        got.unwrap();
        let start = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
        answer.split_off(start)
    }
}

async fn info_refs(
    State(served): State<Served>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let service = Service::from_name(&query[0].1).unwrap();
    let body = served.hosting.advertise(served.repo.id, service, protocol(&request)).await.unwrap();
    answer(service, "advertisement", Body::from(body))
}

fn protocol(request: &Request) -> Option<&str> {
    request.headers().get("git-protocol").map(|value| value.to_str().unwrap())
}

fn answer(service: Service, kind: &str, body: Body) -> Response {
    ([("content-type", format!("application/x-{}-{kind}", service.name()))], body).into_response()
}

async fn upload(State(served): State<Served>, request: Request) -> Response {
    let (protocol, gzip) = (protocol(&request).map(str::to_owned), request.headers().contains_key("content-encoding"));
    served.gzipped.fetch_add(usize::from(gzip), Ordering::Relaxed);
    let body = request.into_body().into_data_stream().map_err(std::io::Error::other);
    let served = served.hosting.upload_pack(served.repo.id, protocol.as_deref(), gzip, body).unwrap();
    answer(Service::UploadPack, "result", Body::from_stream(served))
}

async fn receive(State(served): State<Served>, request: Request) -> Response {
    let (protocol, gzip) = (protocol(&request).map(str::to_owned), request.headers().contains_key("content-encoding"));
    let body = request.into_body().into_data_stream().map_err(std::io::Error::other);
    let pushes = served.pushes.clone();
    let on_push = move |updates: Vec<RefUpdate>| async move {
        let lines = vec![format!("towpath: {} refs", updates.len()), "towpath: run 7".to_owned()];
        pushes.lock().unwrap().push(updates);
        lines
    };
    let id = served.repo.id;
    let served = served.hosting.receive_pack(id, protocol.as_deref(), gzip, body, on_push).unwrap();
    answer(Service::ReceivePack, "result", Body::from_stream(served))
}

/// A directory in which the real git client runs.
#[derive(Clone)]
pub struct Client {
    pub dir: PathBuf,
    pub url: String,
}

pub fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.current_dir(dir).args(args).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.env("HOME", dir).env("GIT_TERMINAL_PROMPT", "0").env_remove("http_proxy").env("no_proxy", "*");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "A").env(format!("GIT_{who}_EMAIL"), "a@example.org");
    }
    command.stdin(Stdio::null());
    command
}

impl Client {
    /// How a git command ends.
    pub async fn run(&self, args: &[&str]) -> Output {
        let mut command = command(&self.dir, args);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// What a git command that must succeed prints.
    pub async fn git(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What a git command that must fail says.
    pub async fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "git {args:?}: {text}");
        text
    }

    /// Commits a file; returns the commit.
    pub async fn commit(&self, file: &str, content: &[u8]) -> String {
        std::fs::write(self.dir.join(file), content).unwrap();
        self.git(&["add", "."]).await;
        self.git(&["commit", "-q", "-m", file]).await;
        self.git(&["rev-parse", "HEAD"]).await
    }

    pub async fn with_input(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let (mut command, input) = (command(&self.dir, args), input.to_vec());
        tokio::task::spawn_blocking(move || {
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            let feed = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &input).unwrap());
            let output = child.wait_with_output().unwrap();
            feed.join().unwrap();
            assert!(output.status.success());
            output.stdout
        })
        .await
        .unwrap()
    }

    /// A pack of everything that `commit` reaches.
    pub async fn pack(&self, commit: &str) -> Vec<u8> {
        self.with_input(&["pack-objects", "--revs", "--stdout", "-q"], format!("{commit}\n").as_bytes()).await
    }
}

/// A pkt-line.
pub fn line(text: &str) -> Vec<u8> {
    format!("{:04x}{text}", text.len() + 4).into_bytes()
}

/// The null object name.
pub const NONE: &str = "0000000000000000000000000000000000000000";
