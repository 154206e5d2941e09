//! Collection by one, beside what clients do with the other.

use std::sync::Arc;
use std::time::Duration;

use model::Timestamp;
use oci::media_type;
use registry::Policy;
use reqwest::Method;

use crate::pushers::{Pushers, age, now, problems};
use crate::site::{manifest, sha256};
use crate::{Replica, two};

fn graced(grace: Duration) -> Policy {
    Policy { grace, undo_window: Duration::ZERO, ..Policy::default() }
}

impl Replica {
    async fn push_manifest(&self, image: &str, tag: &str, bytes: Vec<u8>) -> reqwest::Response {
        let put = self.request(Method::PUT, &format!("/v2/{image}/manifests/{tag}"));
        put.header("Content-Type", media_type::OCI_MANIFEST).body(bytes).send().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_to_one_win_against_a_collection_by_the_other_that_never_rests() {
    let Some((_town, one, other)) = two().await else { return };
    for replica in [&one, &other] {
        replica.registry.configure(graced(Duration::ZERO)).await.unwrap();
    }
    let registry = one.registry.clone();
    let request = Arc::new(move |method, path: &str| one.request(method, path));
    Pushers { owner: "demo", registry, request }.push_beside(&other.registry).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_told_by_one_that_a_blob_is_there_finds_it_after_the_other_collected() {
    let Some((_town, one, other)) = two().await else { return };
    for replica in [&one, &other] {
        replica.registry.configure(graced(Duration::from_secs(3600))).await.unwrap();
    }
    let config = one.push_blob("demo/site", b"{}").await;
    let layer = other.push_blob("demo/site", b"layer").await;
    let unasked = one.push_blob("demo/site", b"nobody asks").await;
    age(&one.records).await;
    for digest in [config, layer] {
        let path = format!("/v2/demo/site/blobs/{digest}");
        assert_eq!(one.send(Method::HEAD, &path, "").await.status(), 200);
    }
    let collected = other.registry.collect(now(), true).await.unwrap();
    assert_eq!((collected.unlinked, collected.removed), (1, 1));
    let gone = one.send(Method::HEAD, &format!("/v2/demo/site/blobs/{unasked}"), "").await;
    assert_eq!(gone.status(), 404);
    let pushed = one.push_manifest("demo/site", "1", manifest(config, 2, layer, 5)).await;
    assert_eq!(pushed.status(), 201);
    assert_eq!(problems(&one.registry).await, []);
    // What is mounted by one from what the other forgets stays.
    let old = one.push_blob("demo/old", b"mounted").await;
    age(&one.records).await;
    let path = format!("/v2/demo/new/blobs/uploads/?mount={old}&from=demo/old");
    assert_eq!(one.send(Method::POST, &path, "").await.status(), 201);
    assert_eq!(other.registry.collect(now(), true).await.unwrap().removed, 0);
    assert_eq!(one.registry.blobs().stat(&old).await.unwrap(), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_has_stored_and_not_yet_recorded_is_no_orphan_to_the_other() {
    let Some((_town, one, other)) = two().await else { return };
    for replica in [&one, &other] {
        replica.registry.configure(graced(Duration::from_secs(3600))).await.unwrap();
    }
    let lease = one.registry.blobs().lease("a push");
    let young = one.registry.blobs().put(&lease, b"young"[..].into()).await.unwrap().digest();
    let collected = other.registry.collect(now(), true).await.unwrap();
    assert_eq!((collected.orphans, collected.removed), (0, 0), "within the grace");
    // Over an old object that is on the list already: what the pusher says in the records counts.
    let until = Timestamp(i64::MAX);
    let hold = one.records.write(move |tx| {
        let sql = "INSERT INTO registry_holds (digest, holder, until) VALUES ($1, 'one', $2)";
        tx.execute(sql, &[(&young).into(), until.into()])?;
        tx.execute("INSERT INTO registry_removals (digest, until) VALUES ($1, 0)", &[(&young).into()])
    });
    hold.await.unwrap();
    assert_eq!(other.registry.collect(now(), true).await.unwrap().removed, 0, "held");
    assert_eq!(one.registry.blobs().stat(&young).await.unwrap(), Some(5));
    let over = one.records.write(|tx| tx.execute("DELETE FROM registry_holds", &[]));
    over.await.unwrap();
    let later = Timestamp(now().0 + 7_200_000);
    assert_eq!(other.registry.collect(later, true).await.unwrap().removed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_collects_at_a_time_and_a_push_waits_for_a_removal_by_the_other() {
    let Some((_town, one, other)) = two().await else { return };
    let digest = sha256(b"going");
    // The other says that it removes this one for a while yet.
    let until = Timestamp(now().0 + 700);
    let mark = other.records.write(move |tx| {
        let sql = "INSERT INTO registry_removals (digest, until) VALUES ($1, $2)";
        tx.execute(sql, &[(&digest).into(), until.into()])
    });
    mark.await.unwrap();
    one.push_blob("demo/site", b"going").await;
    assert!(now() >= until, "the push came before the removal was over");
    assert_eq!(other.registry.blobs().stat(&digest).await.unwrap(), Some(5));
    let lease = other.records.write(|tx| store::leases::acquire(tx, "registry-collection", "somebody", now(), 60_000));
    assert!(lease.await.unwrap());
    for replica in [&one, &other] {
        let refused = replica.registry.collect(now(), false).await;
        assert!(matches!(refused, Err(registry::RegistryError::Collecting)), "{refused:?}");
    }
}
