//! A client that costs next to nothing: one connection that is kept, bytes that are thrown away as they come.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::content::Content;

/// How long any one answer may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The peer hides an OCI manifest from whoever does not name it.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, */*";

/// What is sent with a request.
pub(super) enum Body<'a> {
    None,
    /// With their media type.
    Bytes(&'a str, &'a [u8]),
    Content(&'a mut Content),
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Without scheme and host.
    pub(super) location: Option<String>,
    /// Only of answers that are kept.
    pub(super) body: Vec<u8>,
    /// Bytes of the body.
    pub(super) length: u64,
}

/// One connection.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
    host: String,
    authorization: Option<String>,
    /// Where bodies end up that nobody wants.
    scratch: Vec<u8>,
}

impl Client {
    pub(super) fn connect(address: SocketAddr, authorization: Option<String>) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{address}: {error}");
        let stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let stream = BufReader::with_capacity(64 << 10, stream);
        Ok(Self { stream, host: address.to_string(), authorization, scratch: vec![0; 1 << 20] })
    }

    /// Asks and keeps the body.
    pub(super) fn ask(&mut self, method: &str, path: &str, body: Body<'_>) -> Result<Answer, String> {
        self.exchange(method, path, body, true).map_err(|error| format!("{method} {path}: {error}"))
    }

    /// As [`Client::ask`], where only one status is right.
    pub(super) fn expect(&mut self, wanted: u16, method: &str, path: &str, body: Body<'_>) -> Result<Answer, String> {
        let answer = self.ask(method, path, body)?;
        if answer.status == wanted {
            return Ok(answer);
        }
        let text = String::from_utf8_lossy(&answer.body);
        Err(format!("{method} {path}: {} instead of {wanted}: {text:.300}", answer.status))
    }

    /// Gets something and throws it away; its length.
    pub(super) fn drain(&mut self, path: &str) -> Result<u64, String> {
        match self.exchange("GET", path, Body::None, false) {
            Ok(answer) if answer.status == 200 => Ok(answer.length),
            Ok(answer) => Err(format!("GET {path}: {}", answer.status)),
            Err(error) => Err(format!("GET {path}: {error}")),
        }
    }

    fn exchange(&mut self, method: &str, path: &str, body: Body<'_>, keep: bool) -> std::io::Result<Answer> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        if let Some(authorization) = &self.authorization {
            let _ = write!(head, "Authorization: {authorization}\r\n");
        }
        let length = match &body {
            Body::None if method == "GET" || method == "HEAD" => None,
            Body::None => Some(0),
            Body::Bytes(_, bytes) => Some(bytes.len() as u64),
            Body::Content(content) => Some(content.size()),
        };
        if let Some(length) = length {
            let _ = write!(head, "Content-Length: {length}\r\n");
        }
        let kind = if let Body::Bytes(kind, _) = &body { kind } else { "application/octet-stream" };
        let _ = write!(head, "Content-Type: {kind}\r\nAccept: {ACCEPT}\r\n\r\n");
        let stream = self.stream.get_mut();
        match body {
            Body::None => stream.write_all(head.as_bytes())?,
            Body::Bytes(_, bytes) => stream.write_all(&[head.as_bytes(), bytes].concat())?,
            Body::Content(content) => {
                stream.write_all(head.as_bytes())?;
                content.each(|piece| stream.write_all(piece))?;
            }
        }
        self.answer(method == "HEAD", keep)
    }

    fn answer(&mut self, bodiless: bool, keep: bool) -> std::io::Result<Answer> {
        let mut answer = Answer { status: 0, location: None, body: Vec::new(), length: 0 };
        let (mut length, mut chunked) = (None, false);
        let mut line = String::new();
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let text = line.trim_end();
            if answer.status == 0 {
                answer.status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(1);
                continue;
            }
            let Some((name, value)) = text.split_once(':') else { break };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse::<u64>().ok(),
                "transfer-encoding" => chunked = value == "chunked",
                "location" => answer.location = Some(path_of(value)),
                _ => {}
            }
        }
        if bodiless || matches!(answer.status, 204 | 304) {
            return Ok(answer);
        }
        if !chunked {
            self.body(length.unwrap_or(0), keep, &mut answer)?;
            return Ok(answer);
        }
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            self.body(size, keep, &mut answer)?;
            line.clear();
            self.stream.read_line(&mut line)?;
            if size == 0 {
                return Ok(answer);
            }
        }
    }

    fn body(&mut self, length: u64, keep: bool, answer: &mut Answer) -> std::io::Result<()> {
        answer.length += length;
        if keep {
            let read = (&mut self.stream).take(length).read_to_end(&mut answer.body)?;
            return if read as u64 == length { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) };
        }
        let mut left = length;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.scratch.len());
            match self.stream.read(&mut self.scratch[..most])? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => left -= read as u64,
            }
        }
        Ok(())
    }
}

fn path_of(location: &str) -> String {
    match location.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]).to_owned(),
        None => location.to_owned(),
    }
}
