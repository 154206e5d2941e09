//! A proxy before the upstream that counts and spoils, and a registry that pulls through it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderName, HeaderValue, StatusCode, header};
use oci::client::Auth;
use registry::upstream::{UpstreamOptions, Upstreams};
use tokio::sync::watch;

use crate::site::{Site, serve_with};

/// A request that reached the upstream.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
}

/// A status and the headers that go with it.
type Bare = (StatusCode, Vec<(&'static str, String)>);

/// What the proxy does to answers.
#[derive(Default)]
pub struct Front {
    seen: Mutex<Vec<Seen>>,
    /// Answers this in place of the upstream, with these headers.
    pub instead: Mutex<Option<Bare>>,
    /// Headers that are added.
    pub added: Mutex<Vec<(&'static str, String)>>,
    /// Breaks the next blob off after so many bytes.
    pub cut: Mutex<Option<usize>>,
    /// Stops blobs after so many bytes until they are released.
    pub hold: Mutex<Option<usize>>,
    released: watch::Sender<bool>,
    /// Changes the bytes of blobs.
    pub lies: AtomicBool,
}

impl Front {
    /// The requests of this method whose path holds `part`.
    pub fn requests(&self, method: &str, part: &str) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.method == method && seen.path.contains(part)).cloned().collect()
    }

    pub fn count(&self, method: &str, part: &str) -> usize {
        self.requests(method, part).len()
    }

    pub fn release(&self) {
        *self.hold.lock().unwrap() = None;
        self.released.send_replace(true);
    }

    pub fn answer(&self, status: u16, headers: &[(&'static str, &str)]) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        *self.instead.lock().unwrap() = Some((StatusCode::from_u16(status).unwrap(), headers));
    }

    fn spoil(self: Arc<Self>, answer: reqwest::Response) -> Body {
        let cut = self.cut.lock().unwrap().take();
        let hold = *self.hold.lock().unwrap();
        let mut sent = 0;
        let pieces = answer.bytes_stream().map(|chunk| chunk.unwrap()).flat_map(|chunk| {
            // Small pieces, so that a fault is where it is asked for.
            futures_util::stream::iter(chunk.chunks(8192).map(Bytes::copy_from_slice).collect::<Vec<_>>())
        });
        Body::from_stream(pieces.then(move |chunk| {
            sent += chunk.len();
            let (front, stop, broken) =
                (Arc::clone(&self), hold.is_some_and(|at| sent > at), cut.is_some_and(|at| sent > at));
            async move {
                if stop {
                    let _ = front.released.subscribe().wait_for(|released| *released).await;
                }
                match front.lies.load(Ordering::Relaxed) {
                    _ if broken => Err(std::io::Error::other("cut")),
                    true => Ok(chunk.iter().map(|byte| byte ^ 1).collect()),
                    false => Ok(chunk),
                }
            }
        }))
    }
}

struct Ahead {
    front: Arc<Front>,
    upstream: String,
    client: reqwest::Client,
}

async fn forward(State(ahead): State<Arc<Ahead>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let range = parts.headers.get(header::RANGE).map(|range| range.to_str().unwrap().to_owned());
    let (method, path) = (parts.method.to_string(), parts.uri.path().to_owned());
    let is_blob = path.contains("/blobs/");
    ahead.front.seen.lock().unwrap().push(Seen { method, path, range });
    let instead = ahead.front.instead.lock().unwrap().clone();
    let mut response = match instead {
        Some((status, headers)) => {
            let mut response = status.into_response();
            for (name, text) in headers {
                response.headers_mut().insert(name, HeaderValue::from_str(&text).unwrap());
            }
            return response;
        }
        None => {
            let url = format!("http://{}{}", ahead.upstream, parts.uri.path_and_query().unwrap());
            let sent = ahead.client.request(parts.method.clone(), url).headers(parts.headers.clone());
            let answer = sent.send().await.unwrap();
            let (status, headers) = (answer.status(), answer.headers().clone());
            let body = match is_blob {
                true => Arc::clone(&ahead.front).spoil(answer),
                false => Body::from_stream(answer.bytes_stream()),
            };
            let mut response = Response::new(body);
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            response.headers_mut().remove(header::TRANSFER_ENCODING);
            response
        }
    };
    for (name, text) in ahead.front.added.lock().unwrap().iter() {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(text).unwrap());
    }
    if parts.method == http::Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    response
}

/// A registry that pulls through another; `up.test/alice/open` is its public image.
pub struct World {
    pub upstream: Site,
    pub front: Arc<Front>,
    pub cache: Site,
    pub upstreams: Upstreams,
}

/// What the upstream is called, and what its images' names begin with.
pub const UP: &str = "up.test";

impl World {
    pub async fn start(configure: impl FnOnce(&mut UpstreamOptions)) -> Self {
        let upstream = Site::start().await;
        let front = Arc::new(Front::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let ahead = Ahead {
            front: Arc::clone(&front),
            upstream: upstream.host.clone(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        let app = axum::Router::new().fallback(forward).with_state(Arc::new(ahead));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let mut options = options(&host);
        configure(&mut options);
        let upstreams = Upstreams::open(vec![options], Vec::new()).unwrap();
        let mut cache = Site::start().await;
        cache.host = serve_with(&cache.registry, &cache.access, upstreams.clone(), None).await;
        Self { upstream, front, cache, upstreams }
    }

    /// An answer of the cache to nobody in particular.
    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.cache.request(reqwest::Method::GET, path).send().await.unwrap()
    }

    pub async fn head(&self, path: &str) -> reqwest::Response {
        self.cache.request(reqwest::Method::HEAD, path).send().await.unwrap()
    }

    /// Waits until nothing is on its way.
    pub async fn quiet(&self) {
        let quiet = async {
            while self.upstreams.states()[0].running > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), quiet).await.unwrap();
    }
}

pub fn options(host: &str) -> UpstreamOptions {
    UpstreamOptions {
        name: UP.to_owned(),
        host: host.parse().unwrap(),
        plain_http: true,
        prefix: UP.parse().unwrap(),
        anonymous: true,
        allow: Vec::new(),
        deny: Vec::new(),
        auth: Auth::Anonymous,
        ca: None,
        allow_private: false,
        revalidate_after: Duration::from_secs(3600),
        stale_for: Duration::from_secs(3600),
        negative_for: Duration::from_secs(3600),
        timeout: Duration::from_secs(120),
        max_blob: 1 << 30,
        reserve: 10,
    }
}

/// Where an answer came from.
pub fn freshness(answer: &reqwest::Response) -> &str {
    crate::site::header(answer, "towpath-cache")
}
