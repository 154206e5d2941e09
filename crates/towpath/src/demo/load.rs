//! People who keep asking: connections that are kept alive, each with one request after the other, and requests that take
//! seconds. Whatever is not a whole answer with status 200 is a dropped request.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How many connections ask.
pub(super) const CONNECTIONS: usize = 8;
/// The pause between an answer and the next question: people read, and this machine also has to build.
const PAUSE: Duration = Duration::from_millis(10);
/// An answer that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// Seconds that a slow request takes.
pub(super) const SLOW_SECONDS: u64 = 5;
/// How often a slow request begins: before one has ended, so that at any time one is under way.
const SLOW_EVERY: Duration = Duration::from_secs(2);
/// How many of the things that went wrong are told.
const EXAMPLES: usize = 3;

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) identity: String,
    pub(super) body: String,
}

/// A connection that is kept alive.
struct Connection {
    address: SocketAddr,
    sender: Option<SendRequest<Empty<Bytes>>>,
}

impl Connection {
    async fn get(&mut self, path: &str) -> Result<Answer, String> {
        match tokio::time::timeout(PATIENCE, self.exchange(path)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }

    async fn exchange(&mut self, path: &str) -> Result<Answer, String> {
        let mut sender = match self.sender.take() {
            Some(sender) => sender,
            None => connect(self.address).await?,
        };
        let request = Request::get(path).header("host", self.address.to_string()).body(Empty::new());
        let response =
            sender.send_request(request.map_err(|error| error.to_string())?).await.map_err(|error| chain(&error))?;
        let status = response.status();
        let identity = response.headers().get(super::site::IDENTITY).and_then(|value| value.to_str().ok());
        let identity = identity.unwrap_or_default().to_owned();
        let close =
            response.headers().get("connection").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        let body = response.into_body().collect().await.map_err(|error| chain(&error))?.to_bytes();
        // A server may end a connection if it says so; the next question then goes over a new one.
        self.sender = (!close).then_some(sender);
        Ok(Answer { status, identity, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Empty<Bytes>>, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| chain(&error))?;
    tokio::spawn(connection);
    Ok(sender)
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Asks once, on a connection of its own.
///
/// # Errors
/// When there is no whole answer.
pub(super) async fn get(address: SocketAddr, path: &str) -> Result<Answer, String> {
    Connection { address, sender: None }.get(path).await
}

/// What all connections see together.
struct Shared {
    /// A text of the page that is expected.
    wanted: String,
    stop: AtomicBool,
    requests: AtomicU64,
    dropped: AtomicU64,
    /// Requests that began after the new page had been seen, and got another.
    stale: AtomicU64,
    examples: Mutex<Vec<String>>,
    seen: watch::Sender<Option<Instant>>,
}

impl Shared {
    fn wrong(&self, counter: &AtomicU64, what: String) {
        counter.fetch_add(1, Ordering::Relaxed);
        let mut examples = self.examples.lock().unwrap_or_else(PoisonError::into_inner);
        if examples.len() < EXAMPLES {
            examples.push(what);
        }
    }

    fn note(&self, began: Instant, path: &str, answer: Result<Answer, String>) -> Option<Answer> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match answer {
            Err(error) => self.wrong(&self.dropped, format!("GET {path}: {error}")),
            Ok(answer) if answer.status != StatusCode::OK => {
                self.wrong(&self.dropped, format!("GET {path}: status {}", answer.status));
            }
            Ok(answer) => {
                if path != "/" {
                    return Some(answer);
                }
                let first = *self.seen.borrow();
                if answer.body.contains(&self.wanted) {
                    let now = Instant::now();
                    self.seen.send_if_modified(|seen| seen.is_none().then(|| *seen = Some(now)).is_some());
                } else if first.is_some_and(|first| began > first) {
                    self.wrong(&self.stale, "GET /: an older page after the new one had been seen".to_owned());
                }
                return Some(answer);
            }
        }
        None
    }
}

/// Connections that ask until they are told to stop.
pub(super) struct Load {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    slow: JoinSet<Option<Slow>>,
}

/// A slow request that was answered.
struct Slow {
    began: Instant,
    ended: Instant,
    identity: String,
    whole: bool,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) requests: u64,
    pub(super) dropped: u64,
    pub(super) stale: u64,
    /// Identities of the versions that answered slow requests which began before the new page was seen and ended after.
    pub(super) spanning: Vec<String>,
    pub(super) examples: Vec<String>,
}

impl Load {
    /// Begins to ask `address` for pages, of which `wanted` is a text.
    pub(super) fn start(address: SocketAddr, wanted: &str) -> Self {
        let shared = Arc::new(Shared {
            wanted: wanted.to_owned(),
            stop: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            examples: Mutex::default(),
            seen: watch::Sender::new(None),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let shared = shared.clone();
            tasks.spawn(async move {
                let mut connection = Connection { address, sender: None };
                while !shared.stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let answer = connection.get("/").await;
                    shared.note(began, "/", answer);
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { address, shared, tasks, slow: JoinSet::new() }
    }

    /// When the page with the wanted text was seen first.
    pub(super) async fn seen(&self) -> Instant {
        let mut seen = self.shared.seen.subscribe();
        let first = seen.wait_for(Option::is_some).await;
        first.ok().and_then(|value| *value).unwrap_or_else(Instant::now)
    }

    /// Begins slow requests until the wanted page was seen: the last of them span the moment in which it came.
    pub(super) async fn slow_until_seen(&mut self) {
        while self.shared.seen.borrow().is_none() {
            let (address, shared) = (self.address, self.shared.clone());
            self.slow.spawn(async move {
                let (began, path) = (Instant::now(), format!("/slow?seconds={SLOW_SECONDS}"));
                let answer = get(address, &path).await;
                let answer = shared.note(began, &path, answer)?;
                let whole = answer.body.contains(&format!("{SLOW_SECONDS} of {SLOW_SECONDS}"));
                if !whole {
                    shared.wrong(&shared.dropped, format!("GET {path}: the answer was cut short"));
                }
                Some(Slow { began, ended: Instant::now(), identity: answer.identity, whole })
            });
            let _ = tokio::time::timeout(SLOW_EVERY, self.seen()).await;
        }
    }

    /// Lets all requests that are under way end, and says what was seen.
    pub(super) async fn finish(mut self) -> Seen {
        let first = *self.shared.seen.borrow();
        let mut seen = Seen::default();
        while let Some(slow) = self.slow.join_next().await {
            let Ok(Some(slow)) = slow else { continue };
            if slow.whole && first.is_some_and(|first| slow.began < first && slow.ended > first) {
                seen.spanning.push(slow.identity);
            }
        }
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        seen.requests = self.shared.requests.load(Ordering::Relaxed);
        seen.dropped = self.shared.dropped.load(Ordering::Relaxed);
        seen.stale = self.shared.stale.load(Ordering::Relaxed);
        seen.examples = std::mem::take(&mut *self.shared.examples.lock().unwrap_or_else(PoisonError::into_inner));
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    /// The sample site's server, on a free port.
    struct Site(Child, SocketAddr);

    impl Site {
        fn start(root: &Path) -> Self {
            let mut command = Command::new("perl");
            command.args(["-e", include_str!("site/server.pl")]).env("PORT", "0").env("SITE_ROOT", root);
            let mut child = command.env("TOWPATH_SOURCE_COMMIT", "abc").stderr(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            std::io::BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
            let port = line.split("port ").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
            Self(child, SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())))
        }

        fn signal(&self, signal: rustix::process::Signal) {
            let pid = rustix::process::Pid::from_child(&self.0);
            rustix::process::kill_process(pid, signal).unwrap();
        }
    }

    impl Drop for Site {
        fn drop(&mut self) {
            self.signal(rustix::process::Signal::TERM);
            let _ = self.0.wait();
        }
    }

    fn root(page: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("index.html"), page).unwrap();
        dir
    }

    #[tokio::test]
    async fn the_sample_server_says_who_it_is_and_how_it_is() {
        let dir = root("<p>one</p>");
        let site = Site::start(dir.path());
        let page = get(site.1, "/").await.unwrap();
        assert_eq!((page.status.as_u16(), page.identity.as_str(), page.body.as_str()), (200, "abc", "<p>one</p>"));
        assert_eq!(get(site.1, "/health").await.unwrap().status.as_u16(), 200);
        assert_eq!(get(site.1, "/../etc/passwd").await.unwrap().status.as_u16(), 404);
        let slow = get(site.1, "/slow?seconds=1").await.unwrap();
        assert_eq!(slow.body, "1 of 1, build abc\n");
        std::fs::remove_file(dir.path().join("index.html")).unwrap();
        assert_eq!(get(site.1, "/health").await.unwrap().status.as_u16(), 503);
    }

    #[tokio::test]
    async fn a_new_page_is_seen_and_slow_requests_span_it() {
        let dir = root("<p>old</p>");
        let site = Site::start(dir.path());
        let mut load = Load::start(site.1, "new");
        let change = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            std::fs::write(dir.path().join("next"), "<p>new</p>").unwrap();
            std::fs::rename(dir.path().join("next"), dir.path().join("index.html")).unwrap();
        };
        tokio::join!(load.slow_until_seen(), change);
        let seen = load.finish().await;
        assert_eq!((seen.dropped, seen.stale), (0, 0), "{:?}", seen.examples);
        assert!(seen.requests > 100, "{}", seen.requests);
        assert_eq!(seen.spanning, ["abc"]);
    }

    #[tokio::test]
    async fn what_goes_wrong_is_counted() {
        let dir = root("<p>new</p>");
        let site = Site::start(dir.path());
        let load = Load::start(site.1, "new");
        load.seen().await;
        std::fs::write(dir.path().join("index.html"), "<p>old</p>").unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(site);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let seen = load.finish().await;
        assert!(seen.stale > 0 && seen.dropped > 0, "{seen:?}");
        assert!(seen.examples.len() <= EXAMPLES && !seen.examples.is_empty());
    }
}
