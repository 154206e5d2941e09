//! One connection to the registry that notices how an answer ended.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long any one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that are sent at a time: a server that refuses early is heard between two of them.
const PIECE: usize = 64 << 10;

/// A request.
#[derive(Default)]
pub(super) struct Ask<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: Option<&'a [u8]>,
}

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// What a client is told went wrong: the code and the message of the first error in the specification's form.
    pub(super) fn error(&self) -> Option<(String, String)> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        let first = body["errors"].get(0)?;
        Some((first["code"].as_str()?.to_owned(), first["message"].as_str()?.to_owned()))
    }

    /// The status, and the body as far as a person wants to read it.
    pub(super) fn said(&self) -> String {
        let text: String = String::from_utf8_lossy(&self.body).chars().take(200).collect();
        format!("{} {text}", self.status)
    }
}

/// A client of one server, which connects when it has to. Without a token it is nobody.
pub(super) struct Client {
    address: SocketAddr,
    token: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(super) fn new(address: SocketAddr, token: &str) -> Self {
        Self { address, token: token.to_owned(), stream: None }
    }

    pub(super) fn send(&mut self, ask: &Ask<'_>) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                BufReader::new(stream)
            }
        };
        let sent = self.write(stream.get_mut(), ask);
        // A server may answer before it has read everything, and close then.
        let answer = read(&mut stream, ask.method == "HEAD");
        let (answer, stays) = match (answer, sent) {
            (Ok(answer), _) => answer,
            (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
        };
        if stays {
            self.stream = Some(stream);
        }
        Ok(answer)
    }

    fn write(&self, stream: &mut TcpStream, ask: &Ask<'_>) -> io::Result<()> {
        let Ask { method, path, headers, body } = ask;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        if !self.token.is_empty() {
            head += &format!("Authorization: Bearer {}\r\n", self.token);
        }
        for (name, value) in *headers {
            head += &format!("{name}: {value}\r\n");
        }
        let body = body.unwrap_or_default();
        if !matches!(*method, "GET" | "HEAD") {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        stream.write_all(head.as_bytes())?;
        body.chunks(PIECE).try_for_each(|piece| stream.write_all(piece))
    }
}

/// Reads an answer, and whether the connection can be used again.
fn read(stream: &mut BufReader<TcpStream>, bodiless: bool) -> io::Result<(Answer, bool)> {
    let mut line = String::new();
    let mut next = |stream: &mut BufReader<TcpStream>| {
        line.clear();
        match stream.read_line(&mut line)? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            _ => Ok(line.trim_end().to_owned()),
        }
    };
    let first = next(stream)?;
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut answer = Answer { status: status.ok_or_else(|| io::Error::other(first))?, ..Answer::default() };
    loop {
        let text = next(stream)?;
        let Some((name, value)) = text.split_once(':') else { break };
        answer.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let stays = answer.header("connection") != Some("close");
    if bodiless || matches!(answer.status, 204 | 304) {
        return Ok((answer, stays));
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = u64::from_str_radix(&next(stream)?, 16).map_err(io::Error::other)?;
            body(stream, size, &mut answer.body)?;
            next(stream)?;
            if size == 0 {
                return Ok((answer, stays));
            }
        }
    }
    let length = answer.header("content-length").and_then(|length| length.parse().ok());
    body(stream, length.unwrap_or(0), &mut answer.body)?;
    Ok((answer, stays))
}

fn body(stream: &mut BufReader<TcpStream>, length: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    let read = stream.take(length).read_to_end(bytes)?;
    if read as u64 == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
