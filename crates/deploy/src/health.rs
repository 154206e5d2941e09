//! Asking a service whether it is what was built.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use model::{HealthEvidence, PinnedImage};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

/// The most of an answer that is read for a JSON pointer, in bytes.
const MAX_BODY: usize = 1 << 20;
/// The most of an identity that is kept, in characters.
const MAX_IDENTITY: usize = 200;

/// Where a service says which build it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Identity {
    /// In this header of the answer.
    Header(String),
    /// At this JSON pointer (RFC 6901) in the body of the answer.
    JsonPointer(String),
    /// Nowhere: any 2xx answer will do.
    None,
}

/// How a service is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// The path, beginning with `/`.
    pub path: String,
    /// Where the build identity is.
    pub identity: Identity,
    /// How long the service may take until it is healthy, in milliseconds.
    pub timeout_ms: u64,
    /// The port inside, if it is not the one the service serves on.
    pub port: Option<u16>,
}

/// What a service must answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// The service.
    pub service: String,
    /// How to ask.
    pub health: Health,
    /// The build identity must be one of these: source commit, image digest, build identity.
    pub expected: Vec<String>,
    /// The image it must have been made from.
    pub image: PinnedImage,
}

/// What came of one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is what it should be.
    Healthy(HealthEvidence),
    /// It answered with another status than 2xx.
    Status(u16),
    /// It answered well, and is something else or does not say what it is.
    Other { status: u16, identity: Option<String> },
    /// It did not answer.
    Nothing(String),
}

impl Check {
    /// The question in words.
    pub fn probe(&self) -> String {
        format!("GET {}", self.health.path)
    }

    /// What was seen, in words for a message.
    pub(crate) fn describe(&self, seen: &Seen) -> String {
        match seen {
            Seen::Healthy(_) => "it is healthy".to_owned(),
            Seen::Status(status) => format!("it answered {status}"),
            Seen::Nothing(why) => format!("nothing answered ({why})"),
            Seen::Other { status, identity } => {
                let place = match &self.health.identity {
                    Identity::Header(name) => format!("the header {name}"),
                    Identity::JsonPointer(pointer) => format!("the JSON pointer {pointer}"),
                    Identity::None => "the answer".to_owned(),
                };
                let expected = self.expected.join(" or ");
                match identity {
                    Some(identity) => {
                        format!("it answered {status} with the identity {identity:?} in {place}, expected {expected}")
                    }
                    None => format!("it answered {status} without an identity in {place}, expected {expected}"),
                }
            }
        }
    }

    /// Asks once over `stream`, within `limit`.
    pub(crate) async fn ask(&self, stream: TcpStream, limit: Duration) -> Seen {
        match tokio::time::timeout(limit, self.exchange(stream)).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => Seen::Nothing(chain(&error)),
            Err(_) => Seen::Nothing(format!("no answer within {} s", limit.as_secs_f32())),
        }
    }

    async fn exchange(&self, stream: TcpStream) -> Result<Seen, hyper::Error> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = http::Request::get(&self.health.path)
            .header(http::header::HOST, "localhost")
            .header(http::header::USER_AGENT, "towpath-health")
            .header(http::header::CONNECTION, "close")
            .body(Empty::<Bytes>::new());
        let request = match request {
            Ok(request) => request,
            Err(error) => return Ok(Seen::Nothing(format!("{:?} is no path: {error}", self.health.path))),
        };
        let response = sender.send_request(request).await?;
        let status = response.status();
        let identity = match &self.health.identity {
            Identity::Header(name) => response.headers().get(name.as_str()).map(|value| text(value.as_bytes())),
            Identity::JsonPointer(pointer) if status.is_success() => {
                let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
                body.ok().and_then(|body| at_pointer(&body.to_bytes(), pointer))
            }
            Identity::JsonPointer(_) | Identity::None => None,
        };
        connection.abort();
        Ok(self.judge(status, identity))
    }

    fn judge(&self, status: http::StatusCode, identity: Option<String>) -> Seen {
        if !status.is_success() {
            return Seen::Status(status.as_u16());
        }
        let known = identity.as_ref().is_some_and(|identity| self.expected.contains(identity));
        if self.health.identity != Identity::None && !known {
            return Seen::Other { status: status.as_u16(), identity };
        }
        Seen::Healthy(HealthEvidence {
            service: self.service.clone(),
            probe: self.probe(),
            status: status.as_u16(),
            identity,
            image: self.image.digest,
        })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().chars().take(MAX_IDENTITY).collect()
}

fn at_pointer(body: &[u8], pointer: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    match value.pointer(pointer)? {
        serde_json::Value::String(text) => Some(text.chars().take(MAX_IDENTITY).collect()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// An error with what caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn check(identity: Identity) -> Check {
        let digest = format!("demo/site@sha256:{}", "1".repeat(64));
        let (name, digest) = digest.split_once('@').unwrap();
        Check {
            service: "web".into(),
            health: Health { path: "/health".into(), identity, timeout_ms: 1000, port: None },
            expected: vec!["abc".into(), "def".into()],
            image: PinnedImage { name: name.parse().unwrap(), digest: digest.parse().unwrap() },
        }
    }

    async fn answer(check: &Check, answer: &'static str) -> Seen {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /health HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
            if answer.is_empty() {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        });
        let seen = check.ask(TcpStream::connect(address).await.unwrap(), Duration::from_millis(500)).await;
        server.abort();
        seen
    }

    #[tokio::test]
    async fn identities_by_header_and_pointer() {
        let header = check(Identity::Header("X-Build".into()));
        let good = answer(&header, "HTTP/1.1 200 OK\r\nx-build: def\r\ncontent-length: 0\r\n\r\n").await;
        assert!(matches!(good, Seen::Healthy(evidence) if evidence.identity.as_deref() == Some("def")));
        let other = answer(&header, "HTTP/1.1 200 OK\r\nx-build: old\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(other, Seen::Other { status: 200, identity: Some("old".into()) });
        assert!(header.describe(&other).contains("expected abc or def"));
        let none = answer(&header, "HTTP/1.1 204 No\r\n\r\n").await;
        assert_eq!(none, Seen::Other { status: 204, identity: None });

        let pointer = check(Identity::JsonPointer("/build/id".into()));
        let body = "HTTP/1.0 200 OK\r\n\r\n{\"build\":{\"id\":\"abc\"}}";
        assert!(matches!(answer(&pointer, body).await, Seen::Healthy(_)));
        let body = "HTTP/1.0 200 OK\r\n\r\nnot json";
        assert_eq!(answer(&pointer, body).await, Seen::Other { status: 200, identity: None });
    }

    #[tokio::test]
    async fn only_a_2xx_answer_is_health() {
        let any = check(Identity::None);
        assert!(matches!(answer(&any, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await, Seen::Healthy(_)));
        assert_eq!(answer(&any, "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").await, Seen::Status(500));
        assert_eq!(answer(&any, "HTTP/1.1 302 No\r\ncontent-length: 0\r\n\r\n").await, Seen::Status(302));
        assert!(matches!(answer(&any, "garbage").await, Seen::Nothing(_)));
        assert!(matches!(answer(&any, "").await, Seen::Nothing(why) if why.contains("0.5 s")));
    }
}
