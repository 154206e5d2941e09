//! Clients that have a manifest from elsewhere ask what a tag points to, and no more: that is kept as well.

use std::time::Duration;

use oci::media_type;
use registry::upstream::{UpstreamOptions, Upstreams};
use reqwest::Method;

use crate::front::{UP, World, freshness, options};
use crate::site::{header, refusal, serve_with, sha256};

fn path(reference: impl std::fmt::Display) -> String {
    format!("/v2/{UP}/alice/open/manifests/{reference}")
}

fn twin(reference: impl std::fmt::Display) -> String {
    format!("/v2/{UP}/alice/twin/manifests/{reference}")
}

/// A tag is asked about each time.
fn always(options: &mut UpstreamOptions) {
    options.revalidate_after = Duration::ZERO;
}

impl World {
    /// Serves the cache again with nothing in memory, with an upstream that answers with this status.
    async fn restart_down(&mut self, host: &str, status: u16) {
        self.cache.restart().await;
        let mut options = options(host);
        always(&mut options);
        self.upstreams = Upstreams::open(vec![options], Vec::new()).unwrap();
        self.cache.host = serve_with(&self.cache.registry, &self.cache.access, self.upstreams.clone(), None).await;
        self.front.answer(status, &[]);
    }

    /// Host and port of the proxy before the upstream.
    fn front_host(&self) -> String {
        self.upstreams.states()[0].host.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_was_only_looked_at_outlives_the_upstream_and_a_restart() {
    let mut world = World::start(always).await;
    let digest = world.upstream.push_image("alice/open", "v1", "one").await;
    let seen = world.head(&path("v1")).await;
    assert_eq!((freshness(&seen), header(&seen, "docker-content-digest")), ("miss", &*digest.to_string()));
    let length = header(&seen, "content-length").to_owned();
    let host = world.front_host();
    world.restart_down(&host, 503).await;
    let stale = world.head(&path("v1")).await;
    assert_eq!((stale.status().as_u16(), freshness(&stale)), (200, "stale"));
    assert_eq!(header(&stale, "warning"), "110 - \"Response is Stale\"");
    assert_eq!(header(&stale, "docker-content-digest"), digest.to_string());
    assert_eq!(
        (header(&stale, "content-length"), header(&stale, "content-type")),
        (&*length, media_type::OCI_MANIFEST)
    );
    // The bytes are not here, under whatever name they are asked for.
    assert_eq!(refusal(world.get(&path("v1")).await).await, (503, "UNAVAILABLE".to_owned()));
    // Nobody waits for the upstream any more: that is no other answer.
    for _ in 0..5 {
        assert_eq!(freshness(&world.head(&path("v1")).await), "stale");
    }
    assert_eq!(world.head(&path("v2")).await.status(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_by_its_digest_later_is_the_tags() {
    let world = World::start(always).await;
    let digest = world.upstream.push_image("alice/open", "v1", "one").await;
    assert_eq!(freshness(&world.head(&path("v1")).await), "miss");
    assert_eq!(freshness(&world.get(&path(digest)).await), "miss");
    world.front.answer(429, &[("retry-after", "600")]);
    for reference in ["v1", "v1"] {
        let stale = world.get(&path(reference)).await;
        assert_eq!((freshness(&stale), header(&stale, "docker-content-digest")), ("stale", &*digest.to_string()));
        assert_eq!(freshness(&world.head(&path(reference)).await), "stale");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_another_image_of_the_upstream_is_given_where_the_upstream_said_so() {
    for other_first in [true, false] {
        let world = World::start(always).await;
        world.upstream.access.put_repository(&"alice/twin".parse().unwrap(), true).await.unwrap();
        let digest = world.upstream.push_image("alice/open", "v1", "one").await;
        assert_eq!(world.upstream.push_image("alice/twin", "v1", "one").await, digest);
        if other_first {
            assert_eq!(freshness(&world.get(&path("v1")).await), "miss");
            assert_eq!(freshness(&world.head(&twin("v1")).await), "miss");
        } else {
            assert_eq!(freshness(&world.head(&twin("v1")).await), "miss");
            assert_eq!(freshness(&world.get(&path("v1")).await), "miss");
        }
        world.front.answer(503, &[]);
        for answer in [world.get(&twin("v1")).await, world.head(&twin("v1")).await] {
            assert_eq!((freshness(&answer), header(&answer, "docker-content-digest")), ("stale", &*digest.to_string()));
        }
        assert_eq!(freshness(&world.get(&twin(digest)).await), "hit");
        // Of this image it said nothing.
        let untold = format!("/v2/{UP}/alice/third/manifests/{digest}");
        assert_eq!(refusal(world.get(&untold).await).await, (503, "UNAVAILABLE".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_this_registry_is_never_given_for_one_of_an_upstream() {
    let world = World::start(always).await;
    let digest = world.upstream.push_image("alice/open", "v1", "one").await;
    assert_eq!(world.cache.push_image("alice/site", "secret", "one").await, digest);
    assert_eq!(freshness(&world.head(&path("v1")).await), "miss");
    world.front.answer(503, &[]);
    for reference in ["v1".to_owned(), digest.to_string()] {
        assert_eq!(world.get(&path(reference)).await.status(), 503);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_pulled_comes_before_what_was_only_heard() {
    let world = World::start(always).await;
    let one = world.upstream.push_image("alice/open", "v1", "one").await;
    assert_eq!(freshness(&world.get(&path("v1")).await), "miss");
    let two = world.upstream.push_image("alice/open", "v1", "two").await;
    let moved = world.head(&path("v1")).await;
    assert_eq!(header(&moved, "docker-content-digest"), two.to_string());
    world.front.answer(503, &[]);
    for answer in [world.head(&path("v1")).await, world.get(&path("v1")).await] {
        assert_eq!((freshness(&answer), header(&answer, "docker-content-digest")), ("stale", &*one.to_string()));
    }
    // A tag that an administrator has deleted is not given by what was heard of it.
    let deleted = world.cache.request(Method::DELETE, &path("v1")).basic_auth("admin", Some(&world.cache.admin));
    assert_eq!(deleted.send().await.unwrap().status(), 202);
    assert_eq!(world.head(&path("v1")).await.status(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_only_heard_is_told_to_those_who_may_pull_and_for_a_while() {
    let world = World::start(|options| {
        always(options);
        options.anonymous = false;
    })
    .await;
    world.upstream.push_image("alice/open", "v1", "one").await;
    let bob = || world.cache.bob(Method::HEAD, &path("v1")).send();
    assert_eq!(freshness(&bob().await.unwrap()), "miss");
    world.front.answer(503, &[]);
    assert_eq!(world.head(&path("v1")).await.status(), 401);
    assert_eq!(freshness(&bob().await.unwrap()), "stale");
    let world = World::start(|options| {
        always(options);
        options.stale_for = Duration::ZERO;
    })
    .await;
    world.upstream.push_image("alice/open", "v1", "one").await;
    assert_eq!(freshness(&world.head(&path("v1")).await), "miss");
    world.front.answer(503, &[]);
    assert_eq!(world.head(&path("v1")).await.status(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_that_was_looked_at_is_known_too() {
    let world = World::start(|_| ()).await;
    let digest = world.upstream.push_image("alice/open", "v1", "one").await;
    assert_eq!(freshness(&world.head(&path(digest)).await), "miss");
    assert_eq!(freshness(&world.head(&path(digest)).await), "hit");
    assert_eq!(world.front.count("HEAD", "/manifests/"), 1);
    let mut world = world;
    let host = world.front_host();
    world.restart_down(&host, 500).await;
    assert_eq!(freshness(&world.head(&path(digest)).await), "stale");
    assert_eq!(world.get(&path(digest)).await.status(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_is_gone_there_is_forgotten() {
    let world = World::start(|options| {
        always(options);
        options.negative_for = Duration::ZERO;
    })
    .await;
    world.upstream.push_image("alice/open", "v1", "one").await;
    assert_eq!(freshness(&world.head(&path("v1")).await), "miss");
    let gone = world.upstream.alice(Method::DELETE, "/v2/alice/open/manifests/v1").send().await.unwrap();
    assert_eq!(gone.status(), 202);
    // However it was found out.
    assert_eq!(world.get(&path("v1")).await.status(), 404);
    world.front.answer(503, &[]);
    assert_eq!(world.head(&path("v1")).await.status(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_heard_is_forgotten_when_it_is_old_or_too_much() {
    let world = World::start(always).await;
    world.upstream.push_image("alice/open", "v1", "one").await;
    let records = &world.cache.records;
    // As if 10,100 tags had been looked at, the last of them just now, and some of another upstream an age ago.
    let filled = records.write(|tx| {
        let sql = "INSERT INTO registry_heads (image, reference, upstream, digest, media_type, size, checked)
                   VALUES ($1, $2, $3, $4, 'text', 1, $5)";
        let (now, digest) = (model::Timestamp::from(std::time::SystemTime::now()), sha256(b"x"));
        for number in 0..10_200_i64 {
            let (upstream, checked) = if number < 10_100 { (UP, now.0 - 20_000 + number) } else { ("other.test", 0) };
            let tag = format!("t{number}").into_bytes();
            tx.execute(
                sql,
                &[(&b"up.test/x"[..]).into(), tag.into(), upstream.into(), (&digest).into(), checked.into()],
            )?;
        }
        Ok(())
    });
    filled.await.unwrap();
    let count = async |of: &'static str| {
        let counted = records.read(move |tx| {
            let row = tx.query_first("SELECT COUNT(*) FROM registry_heads WHERE upstream = $1", &[of.into()])?;
            row.unwrap().get::<i64>(0)
        });
        counted.await.unwrap()
    };
    assert_eq!((count(UP).await, count("other.test").await), (10_100, 100));
    assert_eq!(freshness(&world.head(&path("v1")).await), "miss");
    assert_eq!((count(UP).await, count("other.test").await), (10_000, 100), "each has its own");
    // Nothing older than it may be served is kept.
    let world = World::start(|options| {
        always(options);
        options.stale_for = Duration::from_millis(1);
    })
    .await;
    world.upstream.push_image("alice/open", "v1", "one").await;
    world.upstream.push_image("alice/open", "v2", "two").await;
    assert_eq!(freshness(&world.head(&path("v1")).await), "miss");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(freshness(&world.head(&path("v2")).await), "miss");
    let left = world.cache.records.read(|tx| {
        let rows = tx.query("SELECT reference FROM registry_heads", &[])?;
        rows.iter().map(|row| row.get::<Vec<u8>>(0)).collect::<Result<Vec<_>, _>>()
    });
    assert_eq!(left.await.unwrap(), [b"v2".to_vec()]);
}
