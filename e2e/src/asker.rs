//! Somebody who asks a site all the time and notices every answer that is not whole.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Threads that ask a site until they are stopped.
pub struct Asker {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    authority: String,
    accepts: fn(&str) -> bool,
    pause: Duration,
    stop: AtomicBool,
    answered: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// What an asker saw.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Whole answers with a body that was accepted.
    pub answered: u64,
    /// Everything else, with its time.
    pub failures: Vec<String>,
}

impl Asker {
    /// Asks `url` (`http://HOST:PORT/…`, its path is not used) every `pause` over a new connection each time, and as
    /// often over one connection that is kept. A body is whole if `accepts` says so.
    ///
    /// # Panics
    /// When `url` is no such address.
    pub fn start(url: &str, pause: Duration, accepts: fn(&str) -> bool) -> Self {
        let authority = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).expect("an http address");
        let shared = Arc::new(Shared {
            authority: authority.to_owned(),
            accepts,
            pause,
            stop: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            failures: Mutex::default(),
        });
        let ask = |keeps: bool| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.run(keeps))
        };
        let threads = vec![ask(false), ask(true)];
        Self { shared, threads }
    }

    /// What was seen so far.
    ///
    /// # Panics
    /// When one of the threads did.
    pub fn seen(&self) -> Asked {
        let failures = self.shared.failures.lock().unwrap().clone();
        Asked { answered: self.shared.answered.load(Ordering::Relaxed), failures }
    }

    /// Stops asking.
    ///
    /// # Panics
    /// When one of the threads did.
    pub fn finish(mut self) -> Asked {
        self.stop();
        self.seen()
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self, keeps: bool) {
        let mut connection = None;
        while !self.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let kept = connection.is_some();
            match self.ask(&mut connection, keeps) {
                Ok(()) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(why) => {
                    connection = None;
                    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                    let how = if kept { "a kept connection" } else { "a new connection" };
                    let text = format!("{:.3}: over {how}, after {:?}: {why}", since.as_secs_f64(), began.elapsed());
                    self.failures.lock().unwrap().push(text);
                }
            }
            std::thread::sleep(self.pause);
        }
    }

    fn ask(&self, connection: &mut Option<BufReader<TcpStream>>, keeps: bool) -> Result<(), String> {
        let told = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
        let mut stream = match connection.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.authority).map_err(told("connecting"))?;
                stream.set_read_timeout(Some(PATIENCE)).map_err(told("connecting"))?;
                stream.set_nodelay(true).map_err(told("connecting"))?;
                BufReader::new(stream)
            }
        };
        let end = if keeps { "keep-alive" } else { "close" };
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: {end}\r\n\r\n", self.authority);
        stream.get_mut().write_all(request.as_bytes()).map_err(told("sending"))?;
        let answer = read_answer(&mut stream)?;
        if answer.status != 200 {
            return Err(format!("status {}: {}", answer.status, answer.body.trim()));
        }
        if !(self.accepts)(&answer.body) {
            return Err(format!("the body is {:?}", answer.body));
        }
        if keeps && answer.keeps {
            *connection = Some(stream);
        }
        Ok(())
    }
}

struct Answer {
    status: u16,
    body: String,
    /// Whether the connection may be used again.
    keeps: bool,
}

fn read_answer(stream: &mut BufReader<TcpStream>) -> Result<Answer, String> {
    let mut line = |what: &str| {
        let mut text = String::new();
        match stream.read_line(&mut text) {
            Ok(_) if text.ends_with('\n') => Ok(text.trim_end().to_owned()),
            Ok(_) => Err(format!("the connection ended in the {what}, after {text:?}")),
            Err(error) => Err(format!("reading the {what}: {error}")),
        }
    };
    let first = line("status line")?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| format!("the status line is {first:?}"))?;
    let (mut length, mut chunked, mut keeps) = (None, false, true);
    loop {
        let header = line("headers")?;
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').ok_or_else(|| format!("a header is {header:?}"))?;
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("content-length", value) => length = value.parse::<u64>().ok(),
            ("transfer-encoding", value) => chunked = value.eq_ignore_ascii_case("chunked"),
            ("connection", value) => keeps = !value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let body = match length {
        _ if chunked => read_chunks(stream)?,
        Some(length) => read_body(stream, length)?,
        // Without a length a cut cannot be told from an end; what `accepts` says must do.
        None => read_to_end(stream)?,
    };
    keeps &= chunked || length.is_some();
    Ok(Answer { status, body, keeps })
}

fn read_body(stream: &mut BufReader<TcpStream>, length: u64) -> Result<String, String> {
    let mut body = String::new();
    stream.take(length).read_to_string(&mut body).map_err(|error| format!("reading the body: {error}"))?;
    if body.len() as u64 == length { Ok(body) } else { Err(format!("{} of {length} bytes came", body.len())) }
}

fn read_to_end(stream: &mut BufReader<TcpStream>) -> Result<String, String> {
    let mut body = String::new();
    stream.read_to_string(&mut body).map_err(|error| format!("reading the body: {error}"))?;
    Ok(body)
}

fn read_chunks(stream: &mut BufReader<TcpStream>) -> Result<String, String> {
    let mut body = String::new();
    loop {
        let mut size = String::new();
        stream.read_line(&mut size).map_err(|error| format!("reading a chunk: {error}"))?;
        let size = u64::from_str_radix(size.trim(), 16).map_err(|_| format!("a chunk has the size {size:?}"))?;
        let chunk = read_body(stream, size)?;
        body.push_str(&chunk);
        let mut end = String::new();
        stream.read_line(&mut end).map_err(|error| format!("reading a chunk: {error}"))?;
        if size == 0 {
            return Ok(body);
        }
    }
}
