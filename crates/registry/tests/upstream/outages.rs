//! An upstream that is down, overloaded, or sends us where it should not.

use std::time::Duration;

use oci::client::Auth;
use registry::upstream::Condition;

use crate::front::{UP, World, freshness};
use crate::site::{header, refusal, sha256};

fn path(reference: impl std::fmt::Display) -> String {
    format!("/v2/{UP}/alice/open/manifests/{reference}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_here_outlives_the_upstream() {
    let world = World::start(|options| options.revalidate_after = Duration::ZERO).await;
    let digest = world.upstream.push_image("alice/open", "v1", "one").await;
    assert_eq!(world.get(&path("v1")).await.status(), 200);
    world.front.answer(500, &[]);
    for _ in 0..10 {
        let stale = world.get(&path("v1")).await;
        assert_eq!((stale.status().as_u16(), freshness(&stale)), (200, "stale"));
        assert_eq!(header(&stale, "warning"), "110 - \"Response is Stale\"");
        assert_eq!(freshness(&world.head(&path("v1")).await), "stale");
    }
    assert_eq!(freshness(&world.get(&path(digest)).await), "hit", "a digest is never stale");
    let asked = world.front.count("HEAD", "/manifests/");
    assert!((3..10).contains(&asked), "after {asked} questions nobody waits for it any more");
    let cold = world.get(&path("v2")).await;
    assert!(!header(&cold, "retry-after").is_empty());
    assert_eq!(refusal(cold).await, (503, "UNAVAILABLE".to_owned()));
    let blob = format!("/v2/{UP}/alice/open/blobs/{}", sha256(b"cold"));
    assert_eq!(world.get(&blob).await.status(), 503);
    assert!(matches!(&world.upstreams.states()[0].condition, Condition::Down { why, .. } if why.contains("500")));
    assert_eq!(world.upstreams.states()[0].stale, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listens_there() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = World::start(|options| options.host = free.to_string().parse().unwrap()).await;
    assert_eq!(refusal(world.get(&path("v1")).await).await, (503, "UNAVAILABLE".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_confirmed_for_too_long_is_not_served() {
    let world = World::start(|options| {
        options.revalidate_after = Duration::ZERO;
        options.stale_for = Duration::ZERO;
    })
    .await;
    world.upstream.push_image("alice/open", "v1", "one").await;
    assert_eq!(world.get(&path("v1")).await.status(), 200);
    world.front.answer(500, &[]);
    assert_eq!(world.get(&path("v1")).await.status(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_says_too_often_is_left_alone() {
    let world = World::start(|options| options.revalidate_after = Duration::ZERO).await;
    world.upstream.push_image("alice/open", "v1", "one").await;
    assert_eq!(world.get(&path("v1")).await.status(), 200);
    world.front.answer(429, &[("retry-after", "600")]);
    for _ in 0..5 {
        assert_eq!(freshness(&world.get(&path("v1")).await), "stale");
    }
    let cold = world.get(&path("v2")).await;
    let pause: u64 = header(&cold, "retry-after").parse().unwrap();
    assert!((1..=600).contains(&pause), "{pause}");
    assert_eq!(refusal(cold).await, (429, "TOOMANYREQUESTS".to_owned()));
    assert_eq!((world.front.count("HEAD", ""), world.front.count("GET", "")), (1, 1), "one question told us");
    assert!(matches!(world.upstreams.states()[0].condition, Condition::Limited { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_pulls_are_kept_for_what_is_not_here() {
    let world = World::start(|options| options.revalidate_after = Duration::ZERO).await;
    world.upstream.push_image("alice/open", "v1", "one").await;
    world.upstream.push_image("alice/open", "v2", "two").await;
    let say = |remaining: &str| {
        let headers = [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", remaining)];
        *world.front.added.lock().unwrap() = headers.map(|(name, value)| (name, value.to_owned())).to_vec();
    };
    say("10;w=21600");
    assert_eq!(freshness(&world.get(&path("v1")).await), "miss");
    let budget = world.upstreams.states()[0].budget.unwrap();
    assert_eq!((budget.limit, budget.remaining), (Some(100), 10));
    assert_eq!(freshness(&world.get(&path("v1")).await), "stale");
    assert_eq!(world.front.count("HEAD", ""), 0);
    say("50;w=21600");
    assert_eq!(freshness(&world.get(&path("v2")).await), "miss", "what is not here is asked for");
    assert_eq!(freshness(&world.get(&path("v1")).await), "revalidated");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_remembered() {
    let world = World::start(|_| ()).await;
    for _ in 0..5 {
        assert_eq!(refusal(world.get(&path("none")).await).await, (404, "MANIFEST_UNKNOWN".to_owned()));
        assert_eq!(world.head(&path("none")).await.status(), 404);
    }
    assert_eq!(world.front.count("GET", "") + world.front.count("HEAD", ""), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sends_us_to_an_internal_address() {
    let world = World::start(|_| ()).await;
    let realm = "Bearer realm=\"http://169.254.169.254/latest/meta-data\",service=\"x\"";
    world.front.answer(401, &[("www-authenticate", realm)]);
    assert_eq!(refusal(world.get(&path("v1")).await).await, (502, "UNKNOWN".to_owned()));
    world.front.answer(307, &[("location", "https://169.254.169.254/blob")]);
    let blob = format!("/v2/{UP}/alice/open/blobs/{}", sha256(b"x"));
    assert_eq!(refusal(world.get(&blob).await).await, (502, "UNKNOWN".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn private_images_are_pulled_with_credentials() {
    let closed = World::start(|_| ()).await;
    closed.upstream.push_image("alice/site", "v1", "one").await;
    let path = format!("/v2/{UP}/alice/site/manifests/v1");
    assert_eq!(closed.get(&path).await.status(), 404, "what is hidden from us is not there");
    let (host, password) = (closed.upstream.host.clone(), closed.upstream.alice.clone());
    let open = World::start(|options| {
        options.host = host.parse().unwrap();
        options.auth = Auth::Basic { user: "alice".to_owned(), password: password.into() };
    })
    .await;
    assert_eq!(open.get(&path).await.status(), 200);
}
