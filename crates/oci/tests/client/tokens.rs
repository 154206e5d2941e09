//! Who we say we are, and to whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::http::Response;
use oci::Reference;
use oci::client::{Auth, ClientError, Remote};
use oci::media_type::OCI_MANIFEST;

use crate::script::{Heard, Script, answer, basic, client};

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;

fn tag() -> Reference {
    "v1".parse().unwrap()
}

fn challenge(heard: &Heard, realm: &str) -> Response<Body> {
    let scope = "repository:a/b:pull";
    let host = heard.header("host").unwrap();
    let line = format!(r#"Bearer realm="{realm}",service="{host}",scope="{scope}",error="invalid_token""#);
    answer(401, &[("WWW-Authenticate", &line)], r#"{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}"#)
}

fn manifest() -> Response<Body> {
    answer(200, &[("Content-Type", OCI_MANIFEST)], MANIFEST)
}

/// Accepts the token `t<n>` where n is how many were given; `/token` gives the next.
async fn with_tokens() -> (Script, Arc<AtomicUsize>) {
    let given = Arc::new(AtomicUsize::new(0));
    let counter = given.clone();
    let script = Script::start(move |heard| {
        if heard.path.starts_with("/token") {
            let n = counter.fetch_add(1, Ordering::SeqCst) + 1;
            return answer(200, &[], format!(r#"{{"token":"t{n}","expires_in":300}}"#));
        }
        let good = format!("Bearer t{}", counter.load(Ordering::SeqCst));
        if heard.header("authorization") == Some(&good) {
            manifest()
        } else {
            challenge(heard, &format!("http://{}/token", heard.header("host").unwrap()))
        }
    });
    (script.await, given)
}

#[tokio::test]
async fn a_token_is_kept_and_renewed_when_it_is_refused() {
    let (script, given) = with_tokens().await;
    let remote = script.remote(basic("ada", "hunter2"));
    for _ in 0..3 {
        remote.manifest(&tag(), Remote::ACCEPT).await.unwrap();
    }
    let asked = script.heard("/token");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), Some("Basic YWRhOmh1bnRlcjI="));
    assert!(asked[0].path.contains("scope=repository%3Aa%2Fb%3Apull"), "{}", asked[0].path);
    assert!(asked[0].path.contains("service="));
    // The registry forgets it, as after a restart.
    given.fetch_add(10, Ordering::SeqCst);
    remote.manifest(&tag(), Remote::ACCEPT).await.unwrap();
    assert_eq!(script.heard("/token").len(), 2);
}

#[tokio::test]
async fn tokens_that_are_never_right_end_it() {
    let script = Script::start(|heard| {
        if heard.path.starts_with("/token") {
            return answer(200, &[], r#"{"access_token":"x"}"#);
        }
        challenge(heard, &format!("http://{}/token", heard.header("host").unwrap()))
    })
    .await;
    let error = script.remote(Auth::Anonymous).manifest(&tag(), Remote::ACCEPT).await.unwrap_err();
    assert!(error.is_denied(), "{error}");
    assert_eq!(script.heard("/v2/").len(), 2);
}

#[tokio::test]
async fn a_refresh_token_is_posted_and_basic_is_sent_where_it_is_asked_for() {
    let (script, _) = with_tokens().await;
    script.remote(Auth::Refresh("identity".to_owned().into())).manifest(&tag(), Remote::ACCEPT).await.unwrap();
    let asked = script.heard("/token");
    assert_eq!(asked[0].method, "POST");
    let form = String::from_utf8(asked[0].body.to_vec()).unwrap();
    assert!(form.contains("grant_type=refresh_token") && form.contains("refresh_token=identity"), "{form}");
    let script = Script::start(|heard| match heard.header("authorization") {
        Some("Basic YWRhOmh1bnRlcjI=") => manifest(),
        _ => answer(401, &[("WWW-Authenticate", r#"Basic realm="x""#)], ""),
    })
    .await;
    script.remote(basic("ada", "hunter2")).manifest(&tag(), Remote::ACCEPT).await.unwrap();
    let error = script.remote(Auth::Anonymous).manifest(&tag(), Remote::ACCEPT).await.unwrap_err();
    assert!(error.is_denied(), "{error}");
    let error = script.remote(basic("ada", "wrong")).manifest(&tag(), Remote::ACCEPT).await.unwrap_err();
    assert!(error.is_denied() && !error.to_string().contains("wrong\""), "{error}");
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_place() {
    let digest = oci::digest_of(model::Algorithm::Sha256, b"content");
    let store = Script::start(|_| answer(200, &[], "content")).await;
    let there = format!("http://{}/signed?x=1", store.address);
    let script = Script::start(move |heard| match heard.header("authorization") {
        None => answer(401, &[("WWW-Authenticate", "Basic realm=x")], ""),
        Some(_) => answer(307, &[("Location", &there)], ""),
    })
    .await;
    let hosts = [script.host(), store.host()];
    let remote =
        client(&hosts).repository(script.host().parse().unwrap(), "a/b".parse().unwrap(), basic("ada", "hunter2"));
    assert_eq!(remote.small_blob(&digest, 100).await.unwrap(), "content");
    let heard = store.heard("/signed");
    assert_eq!((heard.len(), heard[0].header("authorization")), (1, None));
    // A place that nobody said is plain HTTP stays closed.
    let error = script.remote(basic("ada", "hunter2")).small_blob(&digest, 100).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_realm_cannot_lead_to_what_only_we_reach() {
    for realm in
        ["https://169.254.169.254/latest/", "https://[fe80::1]/", "file:///etc/passwd", "https://u:p@127.0.0.1/"]
    {
        let script = Script::start(move |heard| challenge(heard, realm)).await;
        let error = script.remote(basic("ada", "hunter2")).manifest(&tag(), Remote::ACCEPT).await.unwrap_err();
        assert!(matches!(error, ClientError::Refused { .. }), "{realm}: {error}");
    }
}

#[tokio::test]
async fn redirects_end() {
    let script = Script::start(|heard| answer(307, &[("Location", &format!("{}x", heard.path))], "")).await;
    let error = script.remote(Auth::Anonymous).manifest(&tag(), Remote::ACCEPT).await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    assert!(script.heard("/").len() < 10);
}
