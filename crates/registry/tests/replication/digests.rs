//! Manifests under SHA-512 digests, and the tags that point to them.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use model::Algorithm;

use super::*;

/// Pushes a small image under a SHA-512 digest with a tag.
pub async fn push_wide(site: &Site, image: &str, tag: &str, content: &str) -> Digest {
    let config = site.push_blob(image, b"{}").await;
    let layer = site.push_blob(image, content.as_bytes()).await;
    let bytes = site::manifest(config, 2, layer, content.len() as u64);
    let digest = oci::digest_of(Algorithm::Sha512, &bytes);
    let answer = site.push_manifest(image, &format!("{digest}?tag={tag}"), bytes, media_type::OCI_MANIFEST).await;
    assert_eq!(answer.status(), 201);
    digest
}

/// A registry that does not know of tags beside a digest, as they were before the specification had them: a proxy that
/// passes on all of a request but its query.
async fn deaf(host: &str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let app = axum::Router::new().fallback(forward).with_state(host.to_owned());
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn forward(State(host): State<String>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let tags = parts.uri.query().is_some_and(|query| query.contains("tag="));
    let path = if tags { parts.uri.path() } else { parts.uri.path_and_query().unwrap().as_str() };
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let sent = client.request(parts.method, format!("http://{host}{path}")).headers(parts.headers);
    let answer = sent.body(reqwest::Body::wrap_stream(body.into_data_stream())).send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut response = (status, Body::from_stream(answer.bytes_stream())).into_response();
    *response.headers_mut() = headers;
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_of_a_sha512_digest_arrives_and_goes() {
    let (here, there) = (Site::start().await, Site::start().await);
    let running = Running::start(&here, ReplicationRule { deletes: true, ..rule(&there.host, &there.bob) }).await;
    let app = remote(&there.host, "bob/mirror/app", bob(&there));
    let first = push_wide(&here, "alice/app", "v1", "one").await;
    let about = push_about(&here, "alice/app", &first, "a/signature", None).await;
    running.rest().await;
    assert_eq!(digest_of(&app, "v1").await, Some(first));
    until("what is about it follows", async || digest_of(&app, &about.to_string()).await.is_some()).await;
    let second = push_wide(&here, "alice/app", "v1", "two").await;
    running.rest().await;
    assert_eq!(digest_of(&app, "v1").await, Some(second));
    let state = running.state().await;
    assert_eq!((state.error, state.done.failed), (None, 0));
    here.registry.delete_tag(&site::name("alice/app"), &"v1".parse().unwrap()).await.unwrap();
    running.rest().await;
    assert!(tags(&app).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_sha512_digest_gets_no_tag_that_is_said() {
    let (here, there) = (Site::start().await, Site::start().await);
    let host = deaf(&there.host).await;
    let running = Running::start(&here, rule(&host, &there.bob)).await;
    let wide = push_wide(&here, "alice/app", "v1", "one").await;
    until("it fails", async || running.state().await.error.is_some()).await;
    let app = remote(&there.host, "bob/mirror/app", bob(&there));
    assert_eq!(digest_of(&app, &wide.to_string()).await, Some(wide), "the manifest is there");
    assert!(tags(&app).await.is_empty(), "and no tag, least of all one of another digest");
    let state = running.state().await;
    let (said, _) = state.error.unwrap();
    assert!(said.contains(&format!("has taken {wide} and not its tag v1")), "{said}");
    assert_eq!((state.queued, state.paused_until), (1, None), "it waits, and holds up nothing else");
    let other = here.push_image("alice/app", "v2", "two").await;
    until("the other arrives", async || digest_of(&app, "v2").await == Some(other)).await;
}
