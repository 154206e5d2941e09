//! Blobs in parts.

use std::time::Duration;

use access::{BearerScope, Credentials};
use model::Algorithm;
use oci::digest_of;
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::site::{SERVICE, Site, header, pieces, refusal, sha256};

async fn begin(site: &Site, image: &str) -> String {
    let answer = site.alice(Method::POST, &format!("/v2/{image}/blobs/uploads/")).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let location = header(&answer, "location").to_owned();
    assert!(location.starts_with(&format!("/v2/{image}/blobs/uploads/")), "relative: {location}");
    assert!(location.ends_with(header(&answer, "docker-upload-uuid")));
    location
}

#[tokio::test]
async fn in_parts_with_a_restart_between() {
    let mut site = Site::start().await;
    let at = begin(&site, "alice/site").await;
    let first = site.alice(Method::PATCH, &at).header("Content-Range", "0-4").body("hello").send().await.unwrap();
    assert_eq!((first.status().as_u16(), header(&first, "range")), (202, "0-4"));
    site.restart().await;
    let status = site.alice(Method::GET, &at).send().await.unwrap();
    assert_eq!((status.status().as_u16(), header(&status, "range"), header(&status, "location")), (204, "0-4", &*at));
    let streamed = pieces(vec![b", ", b"wor", b"ld"]);
    let second = site.alice(Method::PATCH, &at).body(streamed).send().await.unwrap();
    assert_eq!((second.status().as_u16(), header(&second, "range")), (202, "0-11"));
    let digest = sha256(b"hello, world!");
    let end = format!("{at}?digest={digest}");
    let done = site.alice(Method::PUT, &end).header("Content-Range", "12-12").body("!").send().await.unwrap();
    assert_eq!((done.status().as_u16(), header(&done, "docker-content-digest")), (201, &*digest.to_string()));
    assert_eq!(header(&done, "location"), format!("/v2/alice/site/blobs/{digest}"));
    let blob = site.alice(Method::GET, header(&done, "location")).send().await.unwrap();
    assert_eq!(blob.bytes().await.unwrap(), "hello, world!");
    assert_eq!(refusal(site.alice(Method::GET, &at).send().await.unwrap()).await.1, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn parts_out_of_order_are_refused() {
    let site = Site::start().await;
    let at = begin(&site, "alice/site").await;
    let patch = |range: &'static str, body: &'static str| {
        site.alice(Method::PATCH, &at).header("Content-Range", range).body(body).send()
    };
    assert_eq!(patch("0-2", "abc").await.unwrap().status(), 202);
    let early = patch("5-6", "ef").await.unwrap();
    assert_eq!((early.status().as_u16(), header(&early, "range"), header(&early, "location")), (416, "0-2", &*at));
    assert_eq!(patch("0-2", "abc").await.unwrap().status(), 416);
    assert_eq!(patch("3-9", "d").await.unwrap().status(), 400);
    assert_eq!(patch("x", "d").await.unwrap().status(), 400);
    let late = site.alice(Method::PUT, &format!("{at}?digest={}", sha256(b"abcd")));
    assert_eq!(late.header("Content-Range", "7-7").body("d").send().await.unwrap().status(), 416);
    let end = site.alice(Method::PUT, &format!("{at}?digest={}", sha256(b"abcd"))).body("d").send().await.unwrap();
    assert_eq!(end.status(), 201);
}

#[tokio::test]
async fn digests_decide() {
    let site = Site::start().await;
    let wrong = sha256(b"something else");
    let at = begin(&site, "alice/site").await;
    let none = site.alice(Method::PUT, &at).body("abc").send().await.unwrap();
    assert_eq!(refusal(none).await, (400, "DIGEST_INVALID".to_owned()));
    let bad = site.alice(Method::PUT, &format!("{at}?digest=sha256:zz")).send().await.unwrap();
    assert_eq!(refusal(bad).await, (400, "DIGEST_INVALID".to_owned()));
    let put = site.alice(Method::PUT, &format!("{at}?digest={wrong}")).body("abc").send().await.unwrap();
    assert_eq!(refusal(put).await, (400, "DIGEST_INVALID".to_owned()));
    assert!(!site.has_blob("alice/site", &wrong).await && !site.has_blob("alice/site", &sha256(b"abc")).await);
    let path = format!("/v2/alice/site/blobs/uploads/?digest={wrong}");
    let post = site.alice(Method::POST, &path).body("abc").send().await.unwrap();
    assert_eq!(refusal(post).await, (400, "DIGEST_INVALID".to_owned()));
    let long = digest_of(Algorithm::Sha512, b"abc");
    for path in [format!("/v2/alice/site/blobs/uploads/?digest={long}"), String::new()] {
        let answer = if path.is_empty() {
            let at = begin(&site, "alice/site").await;
            site.alice(Method::PUT, &format!("{at}?digest={long}")).body("abc").send().await.unwrap()
        } else {
            site.alice(Method::POST, &path).body("abc").send().await.unwrap()
        };
        assert_eq!(answer.status(), 201);
    }
    assert!(site.has_blob("alice/site", &long).await);
}

#[tokio::test]
async fn a_connection_that_breaks_off_keeps_what_arrived() {
    let site = Site::start().await;
    let at = begin(&site, "alice/site").await;
    let credentials =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("alice:{}", site.alice));
    let mut socket = tokio::net::TcpStream::connect(&site.host).await.unwrap();
    let head = format!(
        "PATCH {at} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {credentials}\r\nContent-Length: 1000\r\n\r\nonly this"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(socket);
    let mut range = String::new();
    for _ in 0..100 {
        let status = site.alice(Method::GET, &at).send().await.unwrap();
        range = header(&status, "range").to_owned();
        if range == "0-8" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(range, "0-8");
    // A blob in one piece that breaks off was never there.
    let digest = sha256(b"only this");
    let mut socket = tokio::net::TcpStream::connect(&site.host).await.unwrap();
    let head = format!(
        "POST /v2/alice/site/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {credentials}\r\n\
         Content-Length: 1000\r\n\r\nonly this"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    assert!(!site.has_blob("alice/site", &digest).await);
}

#[tokio::test]
async fn an_upload_belongs_to_its_image_and_to_who_began_it() {
    let site = Site::start().await;
    let at = begin(&site, "alice/site").await;
    let elsewhere = at.replace("alice/site", "alice/other");
    assert_eq!(site.alice(Method::PATCH, &elsewhere).body("x").send().await.unwrap().status(), 404);
    let admin = site.request(Method::PATCH, &at).basic_auth("admin", Some(&site.admin)).body("x");
    assert_eq!(admin.send().await.unwrap().status(), 404);
    assert_eq!(site.bob(Method::PATCH, &at).body("x").send().await.unwrap().status(), 403);
    assert_eq!(site.request(Method::PATCH, &at).body("x").send().await.unwrap().status(), 401);
    for id in ["%2e%2e%2fx", "0", "0123456789abcdef0123456789abcdef"] {
        let path = format!("/v2/alice/site/blobs/uploads/{id}");
        assert_eq!(site.alice(Method::PATCH, &path).body("x").send().await.unwrap().status(), 404, "{id}");
    }
    assert_eq!(site.alice(Method::DELETE, &at).send().await.unwrap().status(), 204);
    assert_eq!(site.alice(Method::DELETE, &at).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn an_upload_outlives_the_token_it_began_with() {
    let site = Site::start().await;
    let credentials = Credentials::Basic { user: "alice".to_owned(), password: site.alice.as_str().into() };
    let principal = site.access.authenticate(&credentials).await.unwrap();
    let scope = BearerScope {
        kind: "repository".into(),
        name: "alice/site".into(),
        actions: vec!["push".into(), "pull".into()],
    };
    let expired = site.access.issue_bearer(&principal, &[scope], SERVICE, Duration::ZERO);
    let at = begin(&site, "alice/site").await;
    let digest = sha256(b"abc");
    let end = format!("{at}?digest={digest}");
    let forged = site.request(Method::PUT, &end).bearer_auth(format!("{expired}x")).body("abc").send().await.unwrap();
    assert_eq!(forged.status(), 401);
    let put = site.request(Method::PUT, &end).bearer_auth(&expired).body("abc").send().await.unwrap();
    assert_eq!(put.status(), 201);
    // For nothing else.
    let path = format!("/v2/alice/site/blobs/{digest}");
    assert_eq!(site.request(Method::GET, &path).bearer_auth(&expired).send().await.unwrap().status(), 401);
    // And not once the right to push is gone.
    let at = begin(&site, "alice/site").await;
    let alice = site.access.find_user("alice").await.unwrap().unwrap();
    let shown = site.access.list_tokens(alice.id).await.unwrap();
    site.access.revoke_token(alice.id, shown[0].id).await.unwrap();
    let put = site.request(Method::PUT, &format!("{at}?digest={digest}")).bearer_auth(&expired).body("abc");
    assert_eq!(put.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn expiring_spares_what_is_fresh() {
    let site = Site::start().await;
    let at = begin(&site, "alice/site").await;
    assert_eq!(site.registry.expire_uploads().await.unwrap(), 0);
    let digest = sha256(b"");
    let put = site.alice(Method::PUT, &format!("{at}?digest={digest}")).send().await.unwrap();
    assert_eq!(put.status(), 201, "an empty blob is a blob");
}
