//! Blobs on their way from a file to a connection.

use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Anonymous, RegistrySpec, ServerSpec};
use futures_util::StreamExt;
use server::{Running, ServeOptions};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longer than what is sent at once, with an odd end.
const LENGTH: usize = 5_000_003;

struct Alone {
    running: Running,
    dir: tempfile::TempDir,
    client: reqwest::Client,
    content: Vec<u8>,
    digest: String,
}

impl Alone {
    async fn start() -> Self {
        Self::with(LENGTH).await
    }

    /// A server with one blob of this length.
    async fn with(length: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let anonymous = vec![Anonymous::Pull, Anonymous::Push];
        let registry = RegistrySpec { anonymous, ..RegistrySpec::default() };
        let mut spec = ServerSpec { registry: Some(registry), ..ServerSpec::default() };
        spec.listeners[0].address = ([127, 0, 0, 1], 0).into();
        let running = server::start(ServeOptions { data: dir.path().join("data"), spec }).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let content: Vec<u8> = (0..length).map(|at| (at * 31 / 7 % 253) as u8).collect();
        let hex: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = format!("sha256:{hex}");
        let alone = Self { running, dir, client, content, digest };
        let begin = format!("{}/v2/a/blobs/uploads/?digest={}", alone.url(), alone.digest);
        let pushed = alone.client.post(begin).body(alone.content.clone()).send().await.unwrap();
        assert_eq!(pushed.status(), 201);
        alone
    }

    fn url(&self) -> String {
        format!("http://{}", self.running.addresses[0])
    }

    fn blob(&self) -> String {
        format!("{}/v2/a/blobs/{}", self.url(), self.digest)
    }

    fn file(&self) -> PathBuf {
        find(&self.dir.path().join("data"), self.digest.trim_start_matches("sha256:")).unwrap()
    }
}

fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).find_map(|path| match path.is_dir() {
        true => find(&path, name),
        false => Some(path).filter(|path| path.ends_with(name)),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_part_of_a_blob_arrives_as_it_is() {
    let alone = Alone::start().await;
    let whole = alone.client.get(alone.blob()).send().await.unwrap().bytes().await.unwrap();
    assert!(whole == alone.content);
    let ranges =
        [(0, 0), (1, 4096), (4095, 4096), (65_535, 1_200_000), (1_048_575, 1_048_577), (4_999_000, LENGTH - 1)];
    for (first, last) in ranges {
        let part = alone.client.get(alone.blob()).header("range", format!("bytes={first}-{last}"));
        let part = part.send().await.unwrap();
        assert_eq!(part.status(), 206, "{first}-{last}");
        assert!(part.bytes().await.unwrap() == alone.content[first..=last], "{first}-{last}");
    }
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    assert!(http2.get(alone.blob()).send().await.unwrap().bytes().await.unwrap() == alone.content, "over HTTP/2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_get_the_same_bytes_beside_fast_ones() {
    let alone = Alone::start().await;
    let slow = async {
        let mut body = alone.client.get(alone.blob()).send().await.unwrap().bytes_stream();
        let mut received = Vec::new();
        while let Some(chunk) = body.next().await {
            received.extend_from_slice(&chunk.unwrap());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        received == alone.content
    };
    let fast = async {
        for _ in 0..10 {
            let body = alone.client.get(alone.blob()).send().await.unwrap().bytes().await.unwrap();
            assert!(body == alone.content);
        }
    };
    let (same, ()) = tokio::join!(slow, fast);
    assert!(same);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_a_row_are_answered_in_a_row() {
    let alone = Alone::start().await;
    let mut stream = tokio::net::TcpStream::connect(alone.running.addresses[0]).await.unwrap();
    let path = alone.blob().split_off(alone.url().len());
    let host = alone.running.addresses[0];
    let ask = |range: &str, rest: &str| format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nrange: {range}\r\n{rest}\r\n");
    let both = ask("bytes=100-2000099", "") + &ask("bytes=7-12", "connection: close\r\n");
    stream.write_all(both.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).await.unwrap();
    let after = |answers: &[u8]| answers.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let first = &answers[after(&answers)..];
    assert!(first[..2_000_000] == alone.content[100..2_000_100]);
    let second = &first[2_000_000..];
    assert!(second.starts_with(b"HTTP/1.1 206"), "{:?}", String::from_utf8_lossy(&second[..20]));
    assert_eq!(second[after(second)..], alone.content[7..13]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_became_shorter_breaks_one_answer_off_and_nothing_else() {
    // More than a connection holds that nobody reads from.
    let long = 64 << 20;
    let alone = Alone::with(long).await;
    let (file, connected) = (alone.file(), tokio::net::TcpStream::connect(alone.running.addresses[0]));
    let path = alone.blob().split_off(alone.url().len());
    let mut stream = connected.await.unwrap();
    let ask = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", alone.running.addresses[0]);
    stream.write_all(ask.as_bytes()).await.unwrap();
    // Some of it is on its way, and the rest is offered; then it is gone.
    let mut begun = vec![0; 4096];
    stream.read_exact(&mut begun).await.unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(0).unwrap();
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest).await;
    let arrived = begun.len() + rest.len();
    assert!(arrived < long, "{ended:?}, {arrived} bytes");
    let alive = alone.client.get(format!("{}/livez", alone.url())).send().await.unwrap();
    assert_eq!(alive.status(), 200);
}
