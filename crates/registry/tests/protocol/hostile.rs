//! What only attackers and broken clients send.

use oci::media_type;
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::site::{Site, manifest, refusal, sha256};

#[tokio::test]
async fn manifests_that_lie_are_refused() {
    let site = Site::start().await;
    let config = site.push_blob("alice/site", b"{}").await;
    let layer = site.push_blob("alice/site", b"layer").await;
    let absent = sha256(b"absent");
    let good = manifest(config, 2, layer, 5);
    let kind = media_type::OCI_MANIFEST;
    for (what, bytes, media_type, wanted) in [
        ("a missing layer", manifest(config, 2, absent, 5), kind, (400, "MANIFEST_BLOB_UNKNOWN")),
        ("a missing config", manifest(absent, 2, layer, 5), kind, (400, "MANIFEST_BLOB_UNKNOWN")),
        ("a longer layer", manifest(config, 2, layer, 6), kind, (400, "SIZE_INVALID")),
        ("a shorter layer", manifest(config, 2, layer, 1), kind, (400, "SIZE_INVALID")),
        ("no JSON", b"{".to_vec(), kind, (400, "MANIFEST_INVALID")),
        ("another type", good.clone(), media_type::OCI_INDEX, (400, "MANIFEST_INVALID")),
        ("an unknown type", good.clone(), "text/html", (400, "MANIFEST_INVALID")),
        ("nothing", Vec::new(), kind, (400, "MANIFEST_INVALID")),
        ("too much", vec![b' '; oci::MAX_MANIFEST + 1], kind, (413, "SIZE_INVALID")),
        ("two lists of layers", twice(&good), kind, (400, "MANIFEST_INVALID")),
        ("depth", "[".repeat(1 << 20).into_bytes(), kind, (400, "MANIFEST_INVALID")),
    ] {
        let answer = site.push_manifest("alice/site", "v1", bytes, media_type).await;
        assert_eq!(refusal(answer).await, (wanted.0, wanted.1.to_owned()), "{what}");
    }
    let other = site.push_manifest("alice/site", &absent.to_string(), good, kind).await;
    assert_eq!(refusal(other).await, (400, "DIGEST_INVALID".to_owned()));
    assert_eq!(site.alice(Method::GET, "/v2/alice/site/manifests/v1").send().await.unwrap().status(), 404);
}

/// A manifest that one reader may take for another than the next does.
fn twice(manifest: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(manifest).unwrap();
    text.replacen('{', r#"{"layers":[],"#, 1).into_bytes()
}

#[tokio::test]
async fn a_range_never_costs_more_than_the_blob() {
    let site = Site::start().await;
    let digest = site.push_blob("alice/site", b"0123456789").await;
    let path = format!("/v2/alice/site/blobs/{digest}");
    let many = format!("bytes={}", vec!["0-9"; 500].join(","));
    for (range, status, length) in
        [(many.as_str(), 200, 10), ("bytes=0-18446744073709551615", 206, 10), ("bytes=18446744073709551615-", 416, 0)]
    {
        let answer = site.alice(Method::GET, &path).header("Range", range).send().await.unwrap();
        assert_eq!(answer.status(), status, "{range:.40}");
        if status != 416 {
            assert_eq!(answer.bytes().await.unwrap().len(), length, "{range:.40}");
        }
    }
}

#[tokio::test]
async fn a_blob_of_another_image_does_not_count() {
    let site = Site::start().await;
    let config = site.push_blob("alice/one", b"{}").await;
    let layer = site.push_blob("alice/two", b"layer").await;
    let answer = site.push_manifest("alice/one", "v1", manifest(config, 2, layer, 5), media_type::OCI_MANIFEST).await;
    assert_eq!(refusal(answer).await.1, "MANIFEST_BLOB_UNKNOWN");
}

/// Paths as they are, which a well-behaved client would tidy up first.
#[tokio::test]
async fn hostile_names_and_digests() {
    let site = Site::start().await;
    std::fs::write(site.dir.path().join("secret"), "do not show").unwrap();
    let credentials =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("alice:{}", site.alice));
    let zeros = "0".repeat(64);
    for path in [
        "/v2/../secret".to_owned(),
        "/v2/../../manifests/latest".to_owned(),
        "/v2/alice/../bob/manifests/latest".to_owned(),
        "/v2/%2e%2e/%2e%2e/manifests/latest".to_owned(),
        "/v2/alice%2fsite/manifests/latest".to_owned(),
        "/v2/alice/site/blobs/sha256:../../secret".to_owned(),
        "/v2/alice/site/blobs/sha256:..%2f..%2fsecret".to_owned(),
        format!("/v2/alice/site/blobs/SHA256:{zeros}"),
        format!("/v2/alice/site/blobs/sha256:{}", "A".repeat(64)),
        format!("/v2/alice/site/blobs/sha256:{zeros}0"),
        "/v2/alice/site/manifests/%00".to_owned(),
        "/v2/alice/site/manifests/a%0d%0ab".to_owned(),
        "/v2/ALICE/site/manifests/latest".to_owned(),
        "/v2/alice/site/blobs/uploads/../../../secret".to_owned(),
        format!("/v2/{}manifests/x", "a/".repeat(1000)),
    ] {
        for method in ["GET", "PUT", "PATCH", "DELETE", "POST"] {
            let mut socket = tokio::net::TcpStream::connect(&site.host).await.unwrap();
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {credentials}\r\nContent-Length: 0\r\n\
                 Connection: close\r\n\r\n"
            );
            socket.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            let status: u16 = answer.split(' ').nth(1).unwrap().parse().unwrap();
            assert!(matches!(status, 400 | 404 | 405), "{method} {path}: {answer}");
            assert!(!answer.contains("do not show"), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_blob_is_never_run_by_a_browser() {
    let site = Site::start().await;
    let digest = site.push_blob("alice/site", b"<script>alert(1)</script>").await;
    let blob = site.alice(Method::GET, &format!("/v2/alice/site/blobs/{digest}")).send().await.unwrap();
    assert_eq!(crate::site::header(&blob, "content-type"), "application/octet-stream");
    assert_eq!(crate::site::header(&blob, "x-content-type-options"), "nosniff");
}

/// Bodies that never end, and some that were announced longer or shorter than they are.
#[tokio::test]
async fn slow_and_lying_bodies_hold_up_nobody() {
    const SLOW: usize = 100;
    let site = Site::start().await;
    let credentials =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("alice:{}", site.alice));
    let half = sha256(b"only half of it");
    let blob = format!("POST /v2/alice/site/blobs/uploads/?digest={half}");
    let mut slow = Vec::new();
    for number in 0..SLOW {
        let request = if number % 2 == 0 { blob.as_str() } else { "PUT /v2/alice/site/manifests/slow" };
        let head = format!(
            "{request} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {credentials}\r\n\
             Content-Type: application/vnd.oci.image.manifest.v1+json\r\nContent-Length: 1000\r\n\r\nonly half"
        );
        let mut socket = tokio::net::TcpStream::connect(&site.host).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        slow.push(socket);
    }
    site.push_image("alice/site", "v1", "meanwhile").await;
    for mut socket in slow {
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    }
    assert!(!site.has_blob("alice/site", &half).await);
    assert_eq!(site.alice(Method::GET, "/v2/alice/site/manifests/slow").send().await.unwrap().status(), 404);
    assert_eq!(site.alice(Method::GET, "/v2/alice/site/manifests/v1").send().await.unwrap().status(), 200);
    // What stands after the announced length is another request, and not a part of this one.
    let mut socket = tokio::net::TcpStream::connect(&site.host).await.unwrap();
    let short = sha256(b"short");
    let head = format!(
        "POST /v2/alice/site/blobs/uploads/?digest={short} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {credentials}\r\n\
         Content-Length: 5\r\n\r\nshort and more\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let pulled = site.alice(Method::GET, &format!("/v2/alice/site/blobs/{short}")).send().await.unwrap();
    assert_eq!(pulled.bytes().await.unwrap(), "short");
}
