//! Manifests and blobs from servers that lie, stumble and break off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use model::{Algorithm, Digest};
use oci::client::{Auth, Client, ClientError, ClientOptions, Remote};
use oci::{Hasher, Reference, digest_of};

use crate::cut::Cutter;
use crate::peer::{Peer, noise};
use crate::script::{Script, answer, client, hasty};

fn sha256(bytes: &[u8]) -> Digest {
    digest_of(Algorithm::Sha256, bytes)
}

#[tokio::test]
async fn a_registry_that_asks_for_patience_gets_it() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let script = Script::start(move |_| match counter.fetch_add(1, Ordering::SeqCst) {
        0 => answer(429, &[("Retry-After", "1")], ""),
        1 => answer(502, &[], "<html>bad gateway"),
        2 => answer(503, &[("Retry-After", "0")], ""),
        _ => answer(200, &[("Content-Type", "application/vnd.oci.image.index.v1+json")], "{}"),
    })
    .await;
    let tag: Reference = "v1".parse().unwrap();
    script.remote(Auth::Anonymous).manifest(&tag, Remote::ACCEPT).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 4);
    let script = Script::start(|_| answer(429, &[("Retry-After", "3600")], "")).await;
    let error = script.remote(Auth::Anonymous).manifest(&tag, Remote::ACCEPT).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)), "{error}");
    assert_eq!(script.heard("/").len(), 1);
}

#[tokio::test]
async fn manifests_are_bounded_and_checked() {
    let wanted = sha256(b"other");
    let script = Script::start(|heard| match heard.path.as_str() {
        "/v2/a/b/manifests/huge" => answer(200, &[], vec![b' '; (4 << 20) + 1]),
        "/v2/a/b/manifests/endless" => {
            let zeros = futures_util::stream::repeat(Ok::<_, std::convert::Infallible>(Bytes::from(vec![0; 64 << 10])));
            answer(200, &[], Body::from_stream(zeros))
        }
        "/v2/a/b/manifests/none" => answer(404, &[], ""),
        "/v2/a/b/manifests/lie" => answer(200, &[("Docker-Content-Digest", &sha256(b"x").to_string())], "{}"),
        _ => answer(200, &[("Content-Type", "application/json")], r#"{"schemaVersion":2,"manifests":[]}"#),
    })
    .await;
    let remote = script.remote(Auth::Anonymous);
    for name in ["huge", "endless"] {
        let error = remote.manifest(&name.parse().unwrap(), Remote::ACCEPT).await.unwrap_err();
        assert!(matches!(error, ClientError::Protocol { .. }), "{name}: {error}");
    }
    assert!(remote.manifest(&"none".parse().unwrap(), Remote::ACCEPT).await.unwrap_err().is_not_found());
    for reference in [Reference::Digest(wanted), "lie".parse().unwrap()] {
        let error = remote.manifest(&reference, Remote::ACCEPT).await.unwrap_err();
        assert!(matches!(error, ClientError::DigestMismatch { .. }), "{error}");
    }
    let guessed = remote.manifest(&"plain".parse().unwrap(), Remote::ACCEPT).await.unwrap();
    assert_eq!(guessed.media_type, oci::media_type::OCI_INDEX);
}

#[tokio::test]
async fn a_blob_that_is_not_what_it_should_be_fails_at_its_end() {
    let script = Script::start(|_| answer(200, &[], "content!")).await;
    let remote = script.remote(Auth::Anonymous);
    let error = remote.small_blob(&sha256(b"other one"), 100).await.unwrap_err();
    assert!(matches!(error, ClientError::DigestMismatch { .. }), "{error}");
    let error = remote.small_blob(&sha256(b"content!"), 7).await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    let mut short = remote.blob(&sha256(b"content!"), 0).await.unwrap().expect_size(5);
    while let Ok(Some(_)) = short.chunk().await {}
    assert!(short.chunk().await.is_err());
}

/// Whether it goes on with ranges or, where the server knows none, by reading past what it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_goes_on_where_it_broke() {
    let content = noise(3_000_000);
    for ranges in [true, false] {
        let whole = content.clone();
        let script = Script::start(move |heard| {
            let range = heard.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
            match range.filter(|_| ranges).map(|start| start.parse::<usize>().unwrap()) {
                Some(start) => {
                    let total = whole.len();
                    let said = format!("bytes {start}-{}/{total}", total - 1);
                    answer(206, &[("Content-Range", &said)], whole.slice(start..))
                }
                None => answer(200, &[], whole.clone()),
            }
        })
        .await;
        let cutter = Cutter::start(script.address, 1_000_000, 2).await;
        let remote = client(&[cutter.host()]).repository(
            cutter.host().parse().unwrap(),
            "a/b".parse().unwrap(),
            Auth::Anonymous,
        );
        let mut stream = remote.blob(&sha256(&content), 0).await.unwrap();
        let mut got = Vec::new();
        while let Some(bytes) = stream.chunk().await.unwrap() {
            got.extend_from_slice(&bytes);
        }
        assert!(got == content);
        assert_eq!(script.heard("/v2/").len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_docker_registry_is_resumed_and_taken_up_from_an_offset() {
    let Some(peer) = Peer::start().await else { return };
    let content = noise(5_000_000);
    let digest = peer.put_blob("a/b", &content).await;
    let cutter = Cutter::start(peer.address, 1_500_000, 3).await;
    let remote = |host: String| {
        client(std::slice::from_ref(&host)).repository(host.parse().unwrap(), "a/b".parse().unwrap(), Auth::Anonymous)
    };
    let stream = remote(cutter.host()).blob(&digest, 0).await.unwrap().into_stream();
    let pieces: Vec<Bytes> = stream.map(|bytes| bytes.unwrap()).collect().await;
    assert!(pieces.concat() == content);
    assert!(cutter.connections() >= 4);
    // From an offset, with the hash of what came before.
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(&content[..4_000_000]);
    let mut rest = remote(peer.host()).blob(&digest, 4_000_000).await.unwrap().continue_hash(hasher);
    assert_eq!(rest.size(), Some(5_000_000));
    let mut got = Vec::new();
    while let Some(bytes) = rest.chunk().await.unwrap() {
        got.extend_from_slice(&bytes);
    }
    assert!(got == content[4_000_000..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_always_breaks_is_given_up() {
    let content = noise(1_000_000);
    let digest = sha256(&content);
    let script = Script::start(move |_| answer(200, &[], content.clone())).await;
    let cutter = Cutter::start(script.address, 0, usize::MAX).await;
    let options = ClientOptions { retries: 2, ..hasty(&[cutter.host()]) };
    let remote = Client::new(options).unwrap().repository(
        cutter.host().parse().unwrap(),
        "a/b".parse().unwrap(),
        Auth::Anonymous,
    );
    let error = remote.small_blob(&digest, 2_000_000).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert_eq!(cutter.connections(), 3);
}
