//! Collection by one, beside what clients do with the other.

use std::sync::Arc;
use std::time::Duration;

use model::{Digest, ImageName, ImagePattern, Timestamp};
use oci::{Descriptor, media_type};
use registry::{Policy, VerifyEvent};
use reqwest::{Method, StatusCode};

use crate::site::{manifest, name, refusal, sha256};
use crate::{Replica, two};

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

fn graced(grace: Duration) -> Policy {
    Policy { grace, undo_window: Duration::ZERO, ..Policy::default() }
}

impl Replica {
    async fn push_manifest(&self, image: &str, tag: &str, bytes: Vec<u8>) -> reqwest::Response {
        let put = self.request(Method::PUT, &format!("/v2/{image}/manifests/{tag}"));
        put.header("Content-Type", media_type::OCI_MANIFEST).body(bytes).send().await.unwrap()
    }

    /// How many things are wrong; every blob is read.
    async fn problems(&self) -> Vec<String> {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(16);
        let registry = self.registry.clone();
        let verify = tokio::spawn(async move { registry.verify(&ImagePattern::all(), true, &sender).await.unwrap() });
        let mut problems = Vec::new();
        while let Some(event) = receiver.recv().await {
            if let VerifyEvent::Problem(problem) = event {
                problems.push(format!("{problem:?}"));
            }
        }
        verify.await.unwrap();
        problems
    }

    /// Lets everything have been pushed two hours ago.
    async fn age(&self) {
        let at = Timestamp(now().0 - 7_200_000);
        let aged = self.records.write(move |tx| {
            tx.execute("UPDATE registry_blobs SET linked = $1", &[at.into()])?;
            tx.execute("UPDATE registry_manifests SET pushed = $1, renewed = NULL", &[at.into()])
        });
        aged.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_to_one_win_against_a_collection_by_the_other_that_never_rests() {
    let Some((_town, one, other)) = two().await else { return };
    for replica in [&one, &other] {
        replica.registry.configure(graced(Duration::ZERO)).await.unwrap();
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let collector = tokio::spawn({
        let registry = other.registry.clone();
        async move {
            let mut removed = 0;
            while !*stopped.borrow() {
                removed += registry.collect(now(), true).await.unwrap().removed;
            }
            removed
        }
    });
    let one = Arc::new(one);
    let pushers = (0..4).map(|pusher| {
        let one = Arc::clone(&one);
        tokio::spawn(async move { push_until_there(&one, pusher).await })
    });
    let mut pushed = Vec::new();
    for pusher in pushers.collect::<Vec<_>>() {
        pushed.extend(pusher.await.unwrap());
    }
    stop.send_replace(true);
    assert!(collector.await.unwrap() > 0, "nothing was collected meanwhile");
    assert!(pushed.len() > 8, "{}", pushed.len());
    for (image, digest) in pushed {
        assert!(one.registry.exists_with_children(&image, &digest).await.unwrap(), "{image}@{digest}");
    }
    assert_eq!(one.problems().await, Vec::<String>::new());
}

/// Sends a blob: in one piece, or in two parts.
async fn send(one: &Replica, image: &str, content: &[u8], in_parts: bool) -> Digest {
    if !in_parts {
        return one.push_blob(image, content).await;
    }
    let digest = sha256(content);
    let begun = one.send(Method::POST, &format!("/v2/{image}/blobs/uploads/"), "").await;
    let at = crate::header(&begun, "location").to_owned();
    let (head, tail) = content.split_at(content.len() / 2);
    assert_eq!(one.send(Method::PATCH, &at, head.to_vec()).await.status(), 202);
    let done = one.send(Method::PUT, &format!("{at}?digest={digest}"), tail.to_vec()).await;
    assert_eq!(done.status(), 201);
    digest
}

/// Pushes images that share a layer with everybody else's, again where the collection took a blob in between, as it may
/// without a grace; the shared layer comes in one piece, in parts, or is mounted. Answers what was acknowledged and not
/// deleted.
async fn push_until_there(one: &Replica, pusher: usize) -> Vec<(ImageName, Digest)> {
    let mut pushed = Vec::new();
    for round in 0..8 {
        let image = format!("demo/p{pusher}");
        let own = format!("layer {pusher} {round}");
        for attempt in 0..60 {
            let config = one.push_blob(&image, b"{}").await;
            let shared = sha256(b"shared by all");
            let path = format!("/v2/{image}/blobs/uploads/?mount={shared}&from=demo/p{}", (pusher + 1) % 4);
            if attempt % 3 != 0 || one.send(Method::POST, &path, "").await.status() != 201 {
                send(one, &image, b"shared by all", attempt % 2 == 0).await;
            }
            let layer = send(one, &image, own.as_bytes(), round % 2 == 0).await;
            let config = Descriptor::new(media_type::OCI_CONFIG, config, 2);
            let layers = [(shared, 13), (layer, own.len() as u64)];
            let layers = layers.map(|(digest, size)| Descriptor::new(media_type::OCI_LAYER, digest, size));
            let bytes = serde_json::to_vec(&oci::Manifest::image(config, layers.to_vec())).unwrap();
            let digest = sha256(&bytes);
            let answer = one.push_manifest(&image, &format!("r{round}"), bytes).await;
            if answer.status() == StatusCode::CREATED {
                pushed.push((name(&image), digest));
                break;
            }
            assert_eq!(refusal(answer).await, (400, "MANIFEST_BLOB_UNKNOWN".to_owned()));
        }
        // What the shared layer hangs on comes and goes.
        if round % 2 == 0
            && let Some((image, digest)) = pushed.pop()
        {
            one.registry.delete_manifest(&image, &digest).await.unwrap();
        }
    }
    pushed
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
    one.age().await;
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
    assert_eq!(one.problems().await, Vec::<String>::new());
    // What is mounted by one from what the other forgets stays.
    let old = one.push_blob("demo/old", b"mounted").await;
    one.age().await;
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
