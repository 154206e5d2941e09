//! Collection beside pushes, undo, freezing, quotas and immutable tags, as clients meet them.

use std::sync::Arc;
use std::time::Duration;

use model::{Digest, ImagePattern, Timestamp};
use oci::{Descriptor, Index, media_type};
use registry::retention::plan::Rule;
use registry::{ImmutableTags, Policy, Quota, RegistryError, Thorough, Undo};
use reqwest::{Method, StatusCode};

use crate::pushers::{Pushers, age, now, problems};
use crate::site::{Site, json, manifest, name, refusal, sha256};

const IMAGE: &str = "alice/site";
/// Long after everything that a test does.
const LATER: Timestamp = Timestamp(i64::MAX);

fn no_grace() -> Policy {
    Policy { grace: Duration::ZERO, undo_window: Duration::ZERO, ..Policy::default() }
}

fn rule() -> Rule {
    Rule {
        images: ImagePattern::all(),
        tags: model::TagPattern::all(),
        keep_newest: None,
        keep_younger: None,
        keep_pulled_within: None,
        untagged_older_than: None,
    }
}

fn everything() -> Undo {
    Undo { images: ImagePattern::all(), tags: None, since: None }
}

/// Pushes an index of two images by tag, children first, and answers the digests: index, then children.
async fn push_index(site: &Site, image: &str, tag: &str, seed: &str) -> Vec<Digest> {
    let (mut digests, mut entries) = (Vec::new(), Vec::new());
    for platform in ["amd64", "arm64"] {
        let config = site.push_blob(image, b"{}").await;
        let content = format!("{seed} for {platform}");
        let layer = site.push_blob(image, content.as_bytes()).await;
        let bytes = manifest(config, 2, layer, content.len() as u64);
        let digest = sha256(&bytes);
        entries.push(Descriptor::new(media_type::OCI_MANIFEST, digest, bytes.len() as u64));
        let answer = site.push_manifest(image, &digest.to_string(), bytes, media_type::OCI_MANIFEST).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        digests.push(digest);
    }
    let bytes = serde_json::to_vec(&Index::new(entries)).unwrap();
    digests.insert(0, sha256(&bytes));
    let answer = site.push_manifest(image, tag, bytes, media_type::OCI_INDEX).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    digests
}

async fn has_manifest(site: &Site, reference: &str) -> bool {
    let answer = site.alice(Method::GET, &format!("/v2/{IMAGE}/manifests/{reference}")).send().await.unwrap();
    answer.status() == StatusCode::OK
}

#[tokio::test]
async fn a_rule_removes_an_old_index_with_its_parts_and_the_disk_is_freed() {
    let site = Site::start().await;
    let mut pushed = Vec::new();
    for number in 1..=4 {
        pushed.push(push_index(&site, IMAGE, &format!("v{number}"), &format!("content {number}")).await);
    }
    let policy = Policy { retention: vec![Rule { keep_newest: Some(2), ..rule() }], ..no_grace() };
    site.registry.configure(policy).await.unwrap();
    let all = ImagePattern::all();
    let dry = site.registry.retain(&all, LATER, false, None).await.unwrap();
    assert_eq!((dry.kept, dry.planned, dry.deleted), (8, 8, 0));
    assert!(has_manifest(&site, "v1").await, "a dry run changes nothing");
    let done = site.registry.retain(&all, LATER, true, None).await.unwrap();
    assert_eq!((done.kept, done.planned, done.deleted), (8, 8, 8));
    let collected = site.registry.collect(LATER, false).await.unwrap();
    assert_eq!((collected.forgotten, collected.unlinked, collected.removed), (8, 4, 4));
    for (number, digests) in pushed.iter().enumerate() {
        for digest in digests {
            assert_eq!(has_manifest(&site, &digest.to_string()).await, number >= 2, "{number} {digest}");
        }
    }
    let layer = sha256(b"content 1 for amd64");
    assert_eq!(site.registry.blobs().stat(&layer).await.unwrap(), None);
    assert_eq!(problems(&site.registry).await, []);
    let again = site.registry.retain(&all, LATER, true, None).await.unwrap();
    assert_eq!((again.kept, again.planned), (8, 0));
}

#[tokio::test]
async fn what_was_deleted_comes_back_until_its_window_ends() {
    let site = Site::start().await;
    let digests = push_index(&site, IMAGE, "v1", "kept").await;
    let delete = async |path: String| site.alice(Method::DELETE, &path).send().await.unwrap().status();
    assert_eq!(delete(format!("/v2/{IMAGE}/manifests/{}", digests[0])).await, StatusCode::ACCEPTED);
    assert_eq!(delete(format!("/v2/{IMAGE}/manifests/{}", digests[1])).await, StatusCode::ACCEPTED);
    let layer = sha256(b"kept for amd64");
    assert_eq!(delete(format!("/v2/{IMAGE}/blobs/{layer}")).await, StatusCode::ACCEPTED);
    assert!(!site.has_blob(IMAGE, &layer).await && !has_manifest(&site, "v1").await);
    // Within the window nothing of it goes, however often it is collected.
    site.registry.collect(now(), true).await.unwrap();
    let listed = site.registry.deleted(&everything(), 10).await.unwrap();
    assert_eq!(listed.len(), 3);
    let tag = Undo { tags: Some("v*".parse().unwrap()), ..everything() };
    let undone = site.registry.undo(&tag).await.unwrap();
    assert_eq!(undone.iter().map(|it| it.refused.clone()).collect::<Vec<_>>(), [None]);
    assert!(has_manifest(&site, "v1").await && site.has_blob(IMAGE, &layer).await);
    assert!(site.registry.exists_with_children(&name(IMAGE), &digests[0]).await.unwrap());
    assert_eq!(problems(&site.registry).await, []);
    assert!(site.registry.deleted(&everything(), 10).await.unwrap().is_empty(), "all of it is back");
    // A tag that was set again is not moved back, and after the window nothing is left.
    assert_eq!(delete(format!("/v2/{IMAGE}/manifests/v1")).await, StatusCode::ACCEPTED);
    site.push_image(IMAGE, "v1", "newer").await;
    let refused = site.registry.undo(&tag).await.unwrap().remove(0).refused.unwrap();
    assert_eq!(refused, "the tag was set again since");
    assert_eq!(delete(format!("/v2/{IMAGE}/manifests/{}", digests[0])).await, StatusCode::ACCEPTED);
    site.registry.collect(LATER, false).await.unwrap();
    assert!(site.registry.deleted(&everything(), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn whoever_was_told_that_something_is_there_finds_it_there() {
    let site = Site::start().await;
    let blob = site.push_blob(IMAGE, b"skipped").await;
    let child = site.push_image(IMAGE, "part", "child").await;
    assert_eq!(
        site.alice(Method::DELETE, &format!("/v2/{IMAGE}/manifests/part")).send().await.unwrap().status(),
        StatusCode::ACCEPTED
    );
    let grace = Duration::from_secs(3600);
    let untagged = Rule { untagged_older_than: Some(0), ..rule() };
    site.registry.configure(Policy { grace, retention: vec![untagged], ..Policy::default() }).await.unwrap();
    // Both were pushed long ago, as far as the records know.
    age(&site.records).await;
    let head = |path: String| site.alice(Method::HEAD, &path).send();
    assert!(site.has_blob(IMAGE, &blob).await);
    assert_eq!(head(format!("/v2/{IMAGE}/manifests/{child}")).await.unwrap().status(), StatusCode::OK);
    let all = ImagePattern::all();
    assert_eq!(site.registry.retain(&all, now(), true, None).await.unwrap().planned, 0);
    site.registry.collect(now(), true).await.unwrap();
    assert!(site.has_blob(IMAGE, &blob).await && has_manifest(&site, &child.to_string()).await);
    // Nobody asks any more: they go.
    age(&site.records).await;
    assert_eq!(site.registry.retain(&all, now(), true, None).await.unwrap().deleted, 1);
    assert_eq!(site.registry.collect(now(), true).await.unwrap().removed, 1);
    assert!(!has_manifest(&site, &child.to_string()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_win_against_a_collection_that_never_rests() {
    let site = Site::start().await;
    site.registry.configure(no_grace()).await.unwrap();
    let registry = site.registry.clone();
    let request = Arc::new(move |method, path: &str| site.alice(method, path));
    Pushers { owner: "alice", registry: registry.clone(), request }.push_beside(&registry).await;
}

#[tokio::test]
async fn a_mount_keeps_what_its_source_lets_go() {
    let site = Site::start().await;
    site.registry.configure(no_grace()).await.unwrap();
    for round in 0..10 {
        let content = format!("mounted {round}");
        let blob = site.push_blob(IMAGE, content.as_bytes()).await;
        let path = format!("/v2/alice/copy{round}/blobs/uploads/?mount={blob}&from={IMAGE}");
        let collect = site.registry.collect(now(), true);
        let (mounted, collected) = tokio::join!(site.alice(Method::POST, &path).send(), collect);
        collected.unwrap();
        if mounted.unwrap().status() == StatusCode::CREATED {
            // It is the copy's; without a grace the next collection may take it, and then it is nobody's.
            let there = site.registry.blobs().stat(&blob).await.unwrap().is_some();
            assert!(
                there || site.registry.linked(&name(&format!("alice/copy{round}")), &blob).await.unwrap().is_none()
            );
        }
    }
    assert_eq!(problems(&site.registry).await, []);
}

#[tokio::test]
async fn content_without_a_record_is_found_and_removed() {
    let site = Site::start().await;
    let lease = site.registry.blobs().lease("a process that dies");
    let orphan = site.registry.blobs().put(&lease, b"orphan"[..].into()).await.unwrap().digest();
    let collected = site.registry.collect(LATER, true).await.unwrap();
    assert_eq!((collected.orphans, collected.removed), (1, 0), "its writer lives");
    drop(lease);
    assert_eq!(site.registry.collect(now(), true).await.unwrap().removed, 1, "it was on the list already");
    assert_eq!(site.registry.blobs().stat(&orphan).await.unwrap(), None);
}

#[tokio::test]
async fn uploads_that_nobody_goes_on_with_are_ended_by_a_collection() {
    let site = Site::start().await;
    let mut uploads = Vec::new();
    for bytes in [&b""[..], b"some"] {
        let path = format!("/v2/{IMAGE}/blobs/uploads/");
        let answer = site.alice(Method::POST, &path).send().await.unwrap();
        let location = crate::site::header(&answer, "location").to_owned();
        if !bytes.is_empty() {
            let answer = site.alice(Method::PATCH, &location).body(bytes).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::ACCEPTED);
        }
        uploads.push(location);
    }
    assert_eq!(site.registry.collect(now(), false).await.unwrap().uploads, 0);
    site.registry.configure(Policy { uploads: Duration::ZERO, ..Policy::default() }).await.unwrap();
    assert_eq!(site.registry.collect(now(), false).await.unwrap().uploads, 2);
    for location in uploads {
        assert_eq!(site.alice(Method::GET, &location).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    }
    assert_eq!(site.registry.usage().await.unwrap().uploads, 0);
}

#[tokio::test]
async fn a_collection_that_died_keeps_nobody_waiting_after_a_restart() {
    let mut site = Site::start().await;
    // As a process leaves it that is killed while it removes a blob.
    let digest = sha256(b"being removed");
    let left = site.records.write(move |tx| {
        let until = Timestamp(now().0 + 60_000);
        assert!(store::leases::acquire(tx, "registry-collection", "the one that died", now(), 120_000)?);
        let sql = "INSERT INTO registry_removals (digest, until) VALUES ($1, $2)";
        tx.execute(sql, &[(&digest).into(), until.into()])
    });
    left.await.unwrap();
    assert!(matches!(site.registry.collect(now(), false).await, Err(RegistryError::Collecting)));
    site.restart().await;
    let begun = std::time::Instant::now();
    assert_eq!(site.push_blob(IMAGE, b"being removed").await, digest);
    assert!(begun.elapsed() < Duration::from_secs(30), "it waited for a removal that nobody carries out");
    site.registry.collect(now(), false).await.unwrap();
    assert!(site.has_blob(IMAGE, &digest).await);
}

#[tokio::test]
async fn a_purge_forgets_what_could_still_be_brought_back() {
    let site = Site::start().await;
    let digest = site.push_image(IMAGE, "v1", "one").await;
    let (grace, soon) = (Duration::ZERO, Timestamp(now().0 + 60_000));
    site.registry.configure(Policy { grace, ..Policy::default() }).await.unwrap();
    site.registry.delete_manifest(&name(IMAGE), &digest).await.unwrap();
    assert_eq!(site.registry.collect(soon, false).await.unwrap().forgotten, 0);
    let purge = Thorough { purge: true, ..Thorough::default() };
    let collected = site.registry.collect_thoroughly(soon, purge).await.unwrap();
    assert_eq!((collected.forgotten, collected.unlinked, collected.removed), (2, 2, 2));
    assert!(site.registry.deleted(&everything(), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_frozen_image_is_read_and_not_changed() {
    let mut site = Site::start().await;
    let digest = site.push_image(IMAGE, "v1", "one").await;
    let pattern: ImagePattern = "alice/*".parse().unwrap();
    site.registry.freeze(pattern.clone(), "ada", "an audit is under way").await.unwrap();
    site.restart().await;
    assert!(has_manifest(&site, "v1").await);
    let upload = site.alice(Method::POST, &format!("/v2/{IMAGE}/blobs/uploads/")).send().await.unwrap();
    assert_eq!(upload.status(), StatusCode::FORBIDDEN);
    let body = json(upload).await;
    let message = body["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("alice/site is frozen by ada since 20"), "{message}");
    assert!(message.contains("because an audit is under way"), "{message}");
    for path in [format!("/v2/{IMAGE}/manifests/v1"), format!("/v2/{IMAGE}/manifests/{digest}")] {
        let answer = site.alice(Method::DELETE, &path).send().await.unwrap();
        assert_eq!(refusal(answer).await, (403, "DENIED".to_owned()));
    }
    let policy = Policy { retention: vec![Rule { keep_newest: Some(0), ..rule() }], ..no_grace() };
    site.registry.configure(policy).await.unwrap();
    let lease = site.registry.blobs().lease("a build");
    let index = serde_json::to_vec(&Index::new(Vec::new())).unwrap();
    let commit = site.registry.commit(&lease, &name(IMAGE), index.into(), media_type::OCI_INDEX, &[]).await;
    assert!(matches!(commit, Err(RegistryError::Frozen { .. })), "{commit:?}");
    let all = ImagePattern::all();
    assert_eq!(site.registry.retain(&all, LATER, true, None).await.unwrap().planned, 0);
    site.registry.freeze(all.clone(), "ada", "").await.unwrap();
    assert!(matches!(site.registry.collect(LATER, true).await, Err(RegistryError::FrozenWhole(_))));
    assert!(site.registry.thaw(&all).await.unwrap() && site.registry.thaw(&pattern).await.unwrap());
    assert_eq!(site.registry.retain(&all, LATER, true, None).await.unwrap().deleted, 2);
}

#[tokio::test]
async fn a_quota_counts_what_an_image_has_and_refuses_more() {
    let site = Site::start().await;
    let quota = |bytes| Policy { quotas: vec![Quota { images: "alice/*".parse().unwrap(), bytes }], ..no_grace() };
    site.registry.configure(quota(1000)).await.unwrap();
    site.push_image(IMAGE, "v1", "one").await;
    site.push_image(IMAGE, "again", "one").await;
    let used = site.registry.quotas().await.unwrap()[0].used;
    assert!(used > 5 && used < 1000, "{used}");
    // Counted anew it is the same.
    site.registry.configure(quota(1000)).await.unwrap();
    assert_eq!(site.registry.quotas().await.unwrap()[0].used, used);
    let large = vec![b'x'; 900];
    let path = format!("/v2/{IMAGE}/blobs/uploads/?digest={}", sha256(&large));
    let answer = site.alice(Method::POST, &path).body(large.clone()).send().await.unwrap();
    let body = json(answer).await;
    assert_eq!(body["errors"][0]["code"], "DENIED");
    assert!(body["errors"][0]["message"].as_str().unwrap().contains("alice/*"), "{body}");
    // Without a length it is refused when it has come.
    let parts: Vec<&'static [u8]> = vec![&[b'x'; 450], &[b'x'; 450]];
    let answer = site.alice(Method::POST, &path).body(crate::site::pieces(parts)).send().await.unwrap();
    assert_eq!(refusal(answer).await, (403, "DENIED".to_owned()));
    assert_eq!(site.registry.quotas().await.unwrap()[0].used, used);
    let other = site.bob(Method::POST, &format!("/v2/bob/site/blobs/uploads/?digest={}", sha256(&large)));
    assert_eq!(other.body(large).send().await.unwrap().status(), StatusCode::CREATED);
    // What goes makes room.
    let digest = site.push_image(IMAGE, "v2", "two").await;
    site.registry.delete_manifest(&name(IMAGE), &digest).await.unwrap();
    site.registry.collect(LATER, false).await.unwrap();
    assert_eq!(site.registry.quotas().await.unwrap()[0].used, used);
}

#[tokio::test]
async fn an_immutable_tag_is_set_once() {
    let site = Site::start().await;
    let immutable = ImmutableTags { images: ImagePattern::all(), tags: "v*".parse().unwrap() };
    site.registry.configure(Policy { immutable_tags: vec![immutable], ..no_grace() }).await.unwrap();
    let first = site.push_image(IMAGE, "v1", "one").await;
    assert_eq!(site.push_image(IMAGE, "v1", "one").await, first, "the same again is fine");
    let config = site.push_blob(IMAGE, b"{}").await;
    let layer = site.push_blob(IMAGE, b"other").await;
    let bytes = manifest(config, 2, layer, 5);
    let moved = site.push_manifest(IMAGE, "v1", bytes.clone(), media_type::OCI_MANIFEST).await;
    let body = json(moved).await;
    assert_eq!(body["errors"][0]["code"], "DENIED");
    assert!(body["errors"][0]["message"].as_str().unwrap().contains("v1 of alice/site is immutable by v*"), "{body}");
    assert!(!has_manifest(&site, &sha256(&bytes).to_string()).await, "nothing of it became visible");
    for reference in ["v1".to_owned(), first.to_string()] {
        let path = format!("/v2/{IMAGE}/manifests/{reference}");
        assert_eq!(site.alice(Method::DELETE, &path).send().await.unwrap().status(), StatusCode::FORBIDDEN);
    }
    assert_eq!(site.push_image(IMAGE, "latest", "one").await, first);
    assert_eq!(
        site.push_manifest(IMAGE, "latest", bytes, media_type::OCI_MANIFEST).await.status(),
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn pulls_are_written_and_keep_what_was_pulled() {
    let site = Site::start().await;
    site.push_image(IMAGE, "used", "one").await;
    site.push_image(IMAGE, "unused", "two").await;
    let day = 86_400_000;
    let pulled = Rule { keep_pulled_within: Some(day), ..rule() };
    site.registry.configure(Policy { retention: vec![pulled], ..no_grace() }).await.unwrap();
    assert!(has_manifest(&site, "used").await);
    let (sender, mut receiver) = tokio::sync::mpsc::channel(16);
    let at = Timestamp(now().0 + 1000);
    site.registry.retain(&ImagePattern::all(), at, true, Some(&sender)).await.unwrap();
    drop(sender);
    let lines: Vec<String> =
        receiver.recv().await.unwrap().decisions.iter().map(|it| format!("{} {}", it.keep, it.why)).collect();
    assert!(lines[1].starts_with("true rule 1: pulled "), "{lines:?}");
    assert!(lines[0].ends_with("never pulled") && lines[0].starts_with("false rule 1: number 1 of 2"), "{lines:?}");
    assert!(has_manifest(&site, "used").await && !has_manifest(&site, "unused").await);
}

#[tokio::test]
async fn verify_names_what_is_wrong() {
    let site = Site::start().await;
    let digests = push_index(&site, IMAGE, "v1", "intact").await;
    let gone = site.push_blob(IMAGE, b"gone").await;
    let torn = site.push_blob(IMAGE, b"torn").await;
    let flipped = site.push_blob(IMAGE, b"flipped").await;
    assert_eq!(problems(&site.registry).await, []);
    let path = |digest| site.registry.blobs().local_path(digest).unwrap();
    std::fs::remove_file(path(&gone)).unwrap();
    std::fs::write(path(&torn), "to").unwrap();
    std::fs::write(path(&flipped), "flopped").unwrap();
    let child = digests[1].to_string();
    let broken =
        site.records.write(move |tx| tx.execute("DELETE FROM registry_manifests WHERE digest = $1", &[child.into()]));
    broken.await.unwrap();
    let mut found = problems(&site.registry).await;
    found.sort();
    let mut expected = vec![
        ("childless".to_owned(), digests[0]),
        ("corrupt".to_owned(), flipped),
        ("missing".to_owned(), gone),
        ("wrong-size".to_owned(), torn),
    ];
    expected.sort();
    assert_eq!(found, expected);
}
