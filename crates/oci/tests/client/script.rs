//! A server that answers what a test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Response, StatusCode};
use bytes::Bytes;
use oci::client::{Auth, Client, ClientOptions, Remote};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Heard {
    pub method: String,
    /// Path and query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Heard {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A scripted server and what it heard.
#[derive(Clone)]
pub struct Script {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Script {
    /// Answers every request with what `answer` says.
    pub async fn start(answer: impl Fn(&Heard) -> Response<Body> + Clone + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let log = heard.clone();
        let app = axum::Router::new().fallback(move |request: Request| {
            let (log, answer) = (log.clone(), answer.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
                let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
                let heard = Heard { method: parts.method.to_string(), path, headers: parts.headers, body };
                log.lock().unwrap().push(heard.clone());
                answer(&heard)
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, heard }
    }

    /// What it heard whose path begins with `prefix`.
    pub fn heard(&self, prefix: &str) -> Vec<Heard> {
        self.heard.lock().unwrap().iter().filter(|heard| heard.path.starts_with(prefix)).cloned().collect()
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The repository `a/b` there.
    pub fn remote(&self, auth: Auth) -> Remote {
        client(&[self.host()]).repository(self.host().parse().unwrap(), "a/b".parse().unwrap(), auth)
    }
}

/// A client that is in a hurry, with plain HTTP for `hosts`.
pub fn client(hosts: &[String]) -> Client {
    Client::new(hasty(hosts)).unwrap()
}

pub fn hasty(hosts: &[String]) -> ClientOptions {
    ClientOptions {
        plain_http: hosts.to_vec(),
        first_pause: Duration::from_millis(5),
        patience: Duration::from_secs(30),
        ..ClientOptions::default()
    }
}

pub fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let name: axum::http::HeaderName = name.parse().unwrap();
        response.headers_mut().append(name, value.parse().unwrap());
    }
    response
}

pub fn basic(user: &str, password: &str) -> Auth {
    Auth::Basic { user: user.to_owned(), password: password.to_owned().into() }
}
