//! A client that sees what a browser would: one connection, kept alive, and every answer whole or not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

pub struct Client {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
    /// How often it had to connect anew.
    pub connected: u32,
}

pub struct Answer {
    pub status: u16,
    pub body: String,
}

pub fn address(url: &str) -> SocketAddr {
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = BufReader::new(TcpStream::connect(address).await.unwrap());
        Self { address, stream, connected: 1 }
    }

    pub async fn get(&mut self, path: &str) -> std::io::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        self.stream.write_all(request.as_bytes()).await?;
        self.answer().await
    }

    pub async fn answer(&mut self) -> std::io::Result<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let field = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
            line.split_once(':').map(|(_, value)| value.trim().to_owned())
        };
        let length: usize = field("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        if field("connection").is_some_and(|value| value == "close") {
            self.stream = BufReader::new(TcpStream::connect(self.address).await?);
            self.connected += 1;
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }

    pub fn into_stream(self) -> BufReader<TcpStream> {
        self.stream
    }
}

/// What one client that asks all the time saw.
#[derive(Debug, Default)]
pub struct Load {
    pub good: usize,
    pub dropped: Vec<String>,
    pub connected: u32,
    /// The versions in the order they were first seen, and when the last request that each answered was begun.
    pub versions: Vec<(String, Instant)>,
}

/// Asks one after another until `stop`.
pub async fn ask_until(address: SocketAddr, stop: tokio::sync::watch::Receiver<bool>) -> Load {
    let mut client = Client::connect(address).await;
    let mut load = Load::default();
    while !*stop.borrow() {
        let begun = Instant::now();
        let answer = tokio::time::timeout(Duration::from_secs(10), client.get("/")).await;
        match answer {
            Ok(Ok(answer)) if answer.status == 200 => {
                load.good += 1;
                match load.versions.last_mut().filter(|(version, _)| *version == answer.body) {
                    Some((_, last)) => *last = begun,
                    None => load.versions.push((answer.body, begun)),
                }
            }
            Ok(Ok(answer)) => load.dropped.push(format!("{} {}", answer.status, answer.body)),
            Ok(Err(error)) => {
                load.dropped.push(error.to_string());
                client.stream = BufReader::new(TcpStream::connect(address).await.unwrap());
                client.connected += 1;
            }
            Err(_) => load.dropped.push("no answer in 10 s".to_owned()),
        }
    }
    load.connected = client.connected;
    load
}
