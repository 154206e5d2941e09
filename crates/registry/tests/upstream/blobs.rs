//! Blobs: fetched once, read along, resumed, checked.

use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::Method;
use tokio::sync::mpsc;

use crate::front::{UP, World, freshness};
use crate::site::{header, sha256};

/// Content that is not all the same.
fn content(size: usize) -> Vec<u8> {
    (0..size as u64).map(|i| (i.wrapping_mul(i) >> 9) as u8).collect()
}

/// A blob of the public image upstream, and its path in the cache.
async fn blob(world: &World, content: &[u8]) -> String {
    let digest = world.upstream.push_blob("alice/open", content).await;
    format!("/v2/{UP}/alice/open/blobs/{digest}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_clients_on_one_cold_blob_are_one_fetch() {
    let world = World::start(|_| ()).await;
    let content = content(3 << 20);
    let path = blob(&world, &content).await;
    *world.front.hold.lock().unwrap() = Some(1 << 20);
    let (answered, mut answers) = mpsc::channel(100);
    let clients: Vec<_> = (0..100)
        .map(|_| {
            let (request, answered) = (world.cache.request(Method::GET, &path), answered.clone());
            tokio::spawn(async move {
                let answer = request.send().await.unwrap();
                assert_eq!((answer.status().as_u16(), freshness(&answer)), (200, "miss"));
                assert_eq!(answer.content_length(), Some(3 << 20));
                answered.send(()).await.unwrap();
                sha256(&answer.bytes().await.unwrap())
            })
        })
        .collect();
    // All are answered while the upstream still holds most of it back.
    for _ in 0..100 {
        tokio::time::timeout(Duration::from_secs(60), answers.recv()).await.unwrap().unwrap();
    }
    world.front.release();
    for client in clients {
        assert_eq!(client.await.unwrap(), sha256(&content));
    }
    assert_eq!(world.front.count("GET", "/blobs/"), 1);
    world.quiet().await;
    let again = world.get(&path).await;
    assert_eq!(freshness(&again), "hit");
    assert_eq!(again.bytes().await.unwrap(), content);
    assert_eq!((world.front.count("GET", "/blobs/"), world.front.count("HEAD", "/blobs/")), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_or_leaves_holds_nobody_up() {
    let world = World::start(|_| ()).await;
    let content = content(3 << 20);
    let path = blob(&world, &content).await;
    *world.front.hold.lock().unwrap() = Some(1 << 20);
    let idle = world.get(&path).await;
    drop(world.get(&path).await);
    let third = world.get(&path).await;
    // In the middle, and from a place that has not come yet.
    let late = world.cache.request(Method::GET, &path).header("Range", "bytes=2000000-2000009").send().await.unwrap();
    assert_eq!(late.status(), 206);
    world.front.release();
    assert_eq!(third.bytes().await.unwrap(), content);
    assert_eq!(late.bytes().await.unwrap(), content[2_000_000..2_000_010]);
    assert_eq!(world.front.count("GET", "/blobs/"), 1);
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_goes_on_where_the_upstream_broke_off() {
    let world = World::start(|_| ()).await;
    let content = content(3 << 20);
    let path = blob(&world, &content).await;
    *world.front.cut.lock().unwrap() = Some(1 << 20);
    assert_eq!(world.get(&path).await.bytes().await.unwrap(), content);
    let requests = world.front.requests("GET", "/blobs/");
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].range, None);
    assert!(requests[1].range.as_deref().unwrap().starts_with("bytes="), "{requests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_blob_than_asked_for_is_neither_sent_whole_nor_kept() {
    let world = World::start(|_| ()).await;
    let content = content(1 << 20);
    let path = blob(&world, &content).await;
    world.front.lies.store(true, Ordering::Relaxed);
    assert!(world.get(&path).await.bytes().await.is_err(), "the connection is broken off");
    world.quiet().await;
    world.front.lies.store(false, Ordering::Relaxed);
    let honest = world.get(&path).await;
    assert_eq!(freshness(&honest), "miss");
    assert_eq!(honest.bytes().await.unwrap(), content);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_clients_left_goes_on_for_the_next_one() {
    let world = World::start(|_| ()).await;
    let content = content(48 << 20);
    let path = blob(&world, &content).await;
    *world.front.hold.lock().unwrap() = Some(4 << 20);
    let mut first = world.get(&path).await;
    first.chunk().await.unwrap().unwrap();
    drop(first);
    world.quiet().await;
    world.front.release();
    assert_eq!(sha256(&world.get(&path).await.bytes().await.unwrap()), sha256(&content));
    let requests = world.front.requests("GET", "/blobs/");
    assert_eq!(requests.len(), 2);
    assert!(requests[1].range.is_some(), "{requests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_asked_for_is_asked_for() {
    let world = World::start(|options| options.max_blob = 1000).await;
    let small = blob(&world, &content(1000)).await;
    let asked = world.head(&small).await;
    assert_eq!((asked.status().as_u16(), header(&asked, "content-length")), (200, "1000"));
    assert_eq!((world.front.count("HEAD", "/blobs/"), world.front.count("GET", "/blobs/")), (1, 0));
    let large = blob(&world, &content(1001)).await;
    assert_eq!(world.get(&large).await.status(), 502);
    let absent = format!("/v2/{UP}/alice/open/blobs/{}", sha256(b"absent"));
    for _ in 0..3 {
        let (status, code) = crate::site::refusal(world.get(&absent).await).await;
        assert_eq!((status, code.as_str()), (404, "BLOB_UNKNOWN"));
    }
    assert_eq!(world.front.count("GET", &absent[4 + UP.len()..]), 1, "what is not there is remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_another_image_brought_is_not_fetched_again() {
    let world = World::start(|_| ()).await;
    world.upstream.access.put_repository(&"alice/twin".parse().unwrap(), true).await.unwrap();
    let digest = world.upstream.push_image("alice/open", "v1", "the layer").await;
    world.upstream.push_image("alice/twin", "v1", "the layer").await;
    let layer = sha256(b"the layer");
    let path = |image: &str| format!("/v2/{UP}/alice/{image}/blobs/{layer}");
    assert_eq!(world.get(&path("open")).await.text().await.unwrap(), "the layer");
    world.quiet().await;
    assert_eq!(world.get(&format!("/v2/{UP}/alice/twin/manifests/{digest}")).await.status(), 200);
    let shared = world.get(&path("twin")).await;
    assert_eq!(freshness(&shared), "hit");
    assert_eq!(shared.text().await.unwrap(), "the layer");
    assert_eq!(world.front.count("GET", "/blobs/"), 1);
    // What an image of this registry itself has is not an upstream's to give.
    let secret = world.cache.push_blob("alice/site", b"secret").await;
    let stolen = world.get(&format!("/v2/{UP}/alice/open/blobs/{secret}")).await;
    assert_eq!(stolen.status(), 404);
}
