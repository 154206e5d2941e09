//! A large layer passes through; the process stays small. Alone in its program, so that the numbers are its own.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "protocol/site.rs"]
#[allow(dead_code)]
mod site;

use bytes::Bytes;
use model::Algorithm;
use oci::Hasher;
use reqwest::Method;
use site::Site;

const PIECES: usize = 1200;

/// Pieces of 256 KiB, no two alike.
fn piece(number: usize) -> Bytes {
    let mut piece = vec![0x5a; 256 << 10];
    piece[..8].copy_from_slice(&number.to_le_bytes());
    piece.into()
}

fn body() -> reqwest::Body {
    let stream = futures_util::stream::iter((0..PIECES).map(|number| Ok::<_, std::io::Error>(piece(number))));
    reqwest::Body::wrap_stream(stream)
}

/// The most memory this process ever had, in bytes.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_megabytes_in_and_out() {
    let Some(before) = peak() else {
        eprintln!("skipped: /proc/self/status");
        return;
    };
    let site = Site::start().await;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    (0..PIECES).for_each(|number| hasher.update(&piece(number)));
    let digest = hasher.finish();
    let path = format!("/v2/alice/site/blobs/uploads/?digest={digest}");
    assert_eq!(site.alice(Method::POST, &path).body(body()).send().await.unwrap().status(), 201);
    let begun = site.alice(Method::POST, "/v2/alice/other/blobs/uploads/").send().await.unwrap();
    let at = site::header(&begun, "location").to_owned();
    assert_eq!(site.alice(Method::PATCH, &at).body(body()).send().await.unwrap().status(), 202);
    let end = format!("{at}?digest={digest}");
    assert_eq!(site.alice(Method::PUT, &end).send().await.unwrap().status(), 201);
    let mut answer = site.alice(Method::GET, &format!("/v2/alice/site/blobs/{digest}")).send().await.unwrap();
    let mut hasher = Hasher::new(Algorithm::Sha256);
    while let Some(chunk) = answer.chunk().await.unwrap() {
        hasher.update(&chunk);
    }
    assert_eq!(hasher.finish(), digest);
    let grown = peak().unwrap() - before;
    assert!(grown < 80 << 20, "client and server together took {} MiB for 300 MiB", grown >> 20);
}
