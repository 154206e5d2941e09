//! What one process was told by an upstream, another tells when it gets no answer there itself.

use std::time::Duration;

use oci::client::Auth;
use registry::upstream::{UpstreamOptions, Upstreams};
use reqwest::Method;

use crate::site::{Site, header, serve_with};
use crate::{Replica, two};

fn upstreams(host: &str) -> Upstreams {
    let options = UpstreamOptions {
        name: "up.test".to_owned(),
        host: host.parse().unwrap(),
        plain_http: true,
        prefix: "up.test".parse().unwrap(),
        anonymous: true,
        allow: Vec::new(),
        deny: Vec::new(),
        auth: Auth::Anonymous,
        ca: None,
        allow_private: false,
        revalidate_after: Duration::ZERO,
        stale_for: Duration::from_secs(3600),
        negative_for: Duration::ZERO,
        timeout: Duration::from_secs(120),
        max_blob: 1 << 30,
        reserve: 10,
    };
    Upstreams::open(vec![options], Vec::new()).unwrap()
}

async fn pulls_through(replica: Replica, host: &str) -> Replica {
    let host = serve_with(&replica.registry, &replica.access, upstreams(host), None).await;
    Replica { host, ..replica }
}

/// Status, where the answer came from, and the digest.
async fn ask(replica: &Replica, method: Method, image: &str, reference: &str) -> (u16, String, String) {
    let answer = replica.send(method, &format!("/v2/up.test/alice/{image}/manifests/{reference}"), "").await;
    let text = |name| header(&answer, name).to_owned();
    (answer.status().as_u16(), text("towpath-cache"), text("docker-content-digest"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_one_has_looked_at_is_known_to_the_other() {
    let Some((_town, one, other)) = two().await else { return };
    let upstream = Site::start().await;
    upstream.access.put_repository(&"alice/twin".parse().unwrap(), true).await.unwrap();
    let digest = upstream.push_image("alice/open", "v1", "one").await.to_string();
    upstream.push_image("alice/twin", "v1", "one").await;
    let gone = upstream.push_image("alice/twin", "v2", "two").await.to_string();
    let one = pulls_through(one, &upstream.host).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let other = pulls_through(other, &nobody).await;
    let is = |status: u16, from: &str, digest: &str| (status, from.to_owned(), digest.to_owned());
    for tag in ["v1", "v1", "v2", "v2"] {
        assert_eq!(ask(&one, Method::HEAD, "twin", tag).await.0, 200);
    }
    assert_eq!(ask(&other, Method::HEAD, "twin", "v1").await, is(200, "stale", &digest));
    assert_eq!(ask(&other, Method::GET, "twin", "v1").await.0, 503, "nobody has fetched it");
    assert_eq!(ask(&one, Method::GET, "open", "v1").await, is(200, "miss", &digest));
    for method in [Method::HEAD, Method::GET] {
        assert_eq!(ask(&other, method, "twin", "v1").await, is(200, "stale", &digest), "by another image");
    }
    assert_eq!(ask(&one, Method::HEAD, "twin", "v1").await, is(200, "revalidated", &digest));
    // A tag that is gone there is gone for both.
    let deleted = upstream.alice(Method::DELETE, "/v2/alice/twin/manifests/v2").send().await.unwrap();
    assert_eq!(deleted.status(), 202);
    assert_eq!(ask(&other, Method::HEAD, "twin", "v2").await, is(200, "stale", &gone));
    assert_eq!(ask(&one, Method::HEAD, "twin", "v2").await.0, 404);
    assert_eq!(ask(&other, Method::HEAD, "twin", "v2").await.0, 503);
}
