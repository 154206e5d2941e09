//! Manifests: digests for ever, tags for a while.

use std::time::Duration;

use reqwest::Method;

use crate::front::{UP, World, freshness};
use crate::site::header;

fn path(reference: impl std::fmt::Display) -> String {
    format!("/v2/{UP}/alice/open/manifests/{reference}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_asked_for_once() {
    let world = World::start(|_| ()).await;
    let digest = world.upstream.push_image("alice/open", "v1", "one").await;
    let first = world.get(&path("v1")).await;
    assert_eq!((freshness(&first), header(&first, "docker-content-digest")), ("miss", &*digest.to_string()));
    let bytes = first.bytes().await.unwrap();
    for reference in ["v1".to_owned(), digest.to_string()] {
        let again = world.get(&path(reference)).await;
        assert_eq!(freshness(&again), "hit");
        assert_eq!(again.bytes().await.unwrap(), bytes);
    }
    assert_eq!(freshness(&world.head(&path("v1")).await), "hit");
    assert_eq!((world.front.count("GET", ""), world.front.count("HEAD", "")), (1, 0), "and no blob or token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_a_tag_and_then_its_digest_is_one_pull() {
    let world = World::start(|_| ()).await;
    let digest = world.upstream.push_image("alice/open", "v1", "one").await;
    let seen = world.head(&path("v1")).await;
    assert_eq!((freshness(&seen), header(&seen, "docker-content-digest")), ("miss", &*digest.to_string()));
    assert_ne!(header(&seen, "content-length"), "");
    assert_eq!(freshness(&world.head(&path("v1")).await), "hit");
    assert_eq!(freshness(&world.get(&path(digest)).await), "miss");
    assert_eq!((world.front.count("HEAD", "/manifests/"), world.front.count("GET", "/manifests/")), (1, 1));
    // The tag is known by now, with or without the upstream.
    world.front.answer(503, &[]);
    assert_eq!(freshness(&world.get(&path("v1")).await), "hit");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_want_the_same_are_one_question() {
    let world = World::start(|_| ()).await;
    world.upstream.push_image("alice/open", "v1", "one").await;
    let answers =
        futures_util::future::join_all((0..50).map(|_| world.get("/v2/up.test/alice/open/manifests/v1"))).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(world.front.count("GET", "/manifests/"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_asked_about_after_a_while() {
    let world = World::start(|options| options.revalidate_after = Duration::ZERO).await;
    let one = world.upstream.push_image("alice/open", "v1", "one").await;
    assert_eq!(freshness(&world.get(&path("v1")).await), "miss");
    let same = world.get(&path("v1")).await;
    assert_eq!((freshness(&same), header(&same, "docker-content-digest")), ("revalidated", &*one.to_string()));
    assert_eq!((world.front.count("HEAD", "/manifests/"), world.front.count("GET", "/manifests/")), (1, 1));
    let two = world.upstream.push_image("alice/open", "v1", "two").await;
    let moved = world.get(&path("v1")).await;
    assert_eq!((freshness(&moved), header(&moved, "docker-content-digest")), ("miss", &*two.to_string()));
    assert_eq!(world.front.count("GET", "/manifests/"), 2);
    // Gone upstream: the tag is, what it pointed to is not.
    let gone = world.upstream.alice(Method::DELETE, "/v2/alice/open/manifests/v1").send().await.unwrap();
    assert_eq!(gone.status(), 202);
    assert_eq!(world.get(&path("v1")).await.status(), 404);
    for digest in [one, two] {
        assert_eq!(freshness(&world.get(&path(digest)).await), "hit");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_passed_on() {
    let world = World::start(|_| ()).await;
    for tag in ["a", "b", "c"] {
        world.upstream.push_image("alice/open", tag, tag).await;
    }
    let list = "/v2/up.test/alice/open/tags/list";
    let all = crate::site::json(world.get(list).await).await;
    assert_eq!(all, serde_json::json!({ "name": "up.test/alice/open", "tags": ["a", "b", "c"] }));
    let first = world.get(&format!("{list}?n=2")).await;
    let link = header(&first, "link").to_owned();
    assert_eq!(crate::site::json(first).await["tags"], serde_json::json!(["a", "b"]));
    assert!(link.starts_with("</v2/up.test/alice/open/tags/list?n=2&last=b>"), "{link}");
    // Without the upstream: what is here.
    assert_eq!(world.get(&path("b")).await.status(), 200);
    world.front.answer(503, &[]);
    let here = world.get(list).await;
    assert_eq!(freshness(&here), "stale");
    assert_eq!(crate::site::json(here).await["tags"], serde_json::json!(["b"]));
}
