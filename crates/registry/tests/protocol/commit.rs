//! Making images visible from inside the program; on SQLite and on PostgreSQL.

use std::time::Duration;

use bytes::Bytes;
use model::{ImagePattern, Tag, TagPattern};
use oci::media_type;
use registry::retention::plan::Rule;
use registry::{Policy, Quota, Reference, Registry, RegistryError, Undo};
use store::{BlobLease, Blobs, Location, Records};
use tempfile::TempDir;

use crate::site::{manifest, name, sha256};

#[path = "../../../store/tests/support/postgresql.rs"]
mod postgresql;

async fn registries() -> Vec<(TempDir, Registry)> {
    let mut opened = Vec::new();
    let dir = tempfile::tempdir().unwrap();
    let mut places = vec![(Location::Sqlite(dir.path().join("towpath.db")), dir)];
    if let Some(database) = tokio::task::spawn_blocking(postgresql::database).await.unwrap() {
        places.push((Location::Postgres(database), tempfile::tempdir().unwrap()));
    }
    for (location, dir) in places {
        let records = Records::open(location).await.unwrap();
        let blobs = Blobs::open(&dir.path().join("blobs")).await.unwrap();
        opened.push((dir, Registry::open(records, blobs).await.unwrap()));
    }
    opened
}

async fn put(registry: &Registry, lease: &BlobLease, content: &'static [u8]) -> model::Digest {
    registry.blobs().put(lease, Bytes::from_static(content)).await.unwrap().digest()
}

fn tags(names: &[&str]) -> Vec<Tag> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[tokio::test]
async fn commit_is_whole_and_idempotent() {
    for (_dir, registry) in registries().await {
        let lease = registry.blobs().lease("a build");
        let (config, layer) = (put(&registry, &lease, b"{}").await, put(&registry, &lease, b"layer").await);
        let bytes = Bytes::from(manifest(config, 2, layer, 5));
        let image = name("alice/site");
        let commit = |tags: Vec<Tag>| {
            let (registry, lease, image, bytes) = (registry.clone(), lease.clone(), image.clone(), bytes.clone());
            async move { registry.commit(&lease, &image, bytes, media_type::OCI_MANIFEST, &tags).await }
        };
        let digest = commit(tags(&["v1", "latest"])).await.unwrap();
        assert_eq!(digest, sha256(&bytes));
        assert_eq!(commit(tags(&["v1"])).await.unwrap(), digest);
        assert_eq!(commit(Vec::new()).await.unwrap(), digest);
        drop(lease);
        let page = registry.tags(&image, None, 10).await.unwrap().unwrap();
        let shown: Vec<_> = page.entries.iter().map(|(tag, at)| (tag.as_str(), *at == digest)).collect();
        assert_eq!((shown, page.more), (vec![("latest", true), ("v1", true)], false));
        let record = registry.manifest(&image, &Reference::Tag("v1".parse().unwrap())).await.unwrap().unwrap();
        assert_eq!(
            (record.bytes, record.media_type.as_str(), record.digest),
            (bytes, media_type::OCI_MANIFEST, digest)
        );
        assert!(registry.exists_with_children(&image, &digest).await.unwrap());
        assert!(!registry.exists_with_children(&name("alice/other"), &digest).await.unwrap());
        let mut reader = registry.blob(&image, &layer).await.unwrap().unwrap();
        assert_eq!(reader.chunk().await.unwrap().unwrap(), "layer");
        assert!(registry.blob(&name("alice/other"), &layer).await.unwrap().is_none());
        assert_eq!(registry.images(None, 10).await.unwrap().entries, std::slice::from_ref(&image));
        // Its blobs stand as long as it does.
        registry.collect(model::Timestamp(i64::MAX), true).await.unwrap();
        assert!(registry.exists_with_children(&image, &digest).await.unwrap());
        assert!(matches!(registry.delete_blob(&image, &layer).await, Err(RegistryError::InUse { .. })));
        registry.delete_manifest(&image, &digest).await.unwrap();
        assert!(registry.tags(&image, None, 10).await.unwrap().unwrap().entries.is_empty());
        assert_eq!(registry.collect(model::Timestamp(i64::MAX), true).await.unwrap().removed, 2);
        assert_eq!(registry.blobs().stat(&layer).await.unwrap(), None);
    }
}

#[tokio::test]
async fn commit_refuses_what_is_not_there() {
    for (_dir, registry) in registries().await {
        let lease = registry.blobs().lease("a build");
        let (config, layer) = (put(&registry, &lease, b"{}").await, put(&registry, &lease, b"layer").await);
        let image = name("alice/site");
        let absent = sha256(b"absent");
        let commit = |bytes: Vec<u8>, kind: &'static str| {
            let (registry, lease, image) = (registry.clone(), lease.clone(), image.clone());
            async move { registry.commit(&lease, &image, bytes.into(), kind, &tags(&["v1"])).await }
        };
        let kind = media_type::OCI_MANIFEST;
        let missing = commit(manifest(config, 2, absent, 5), kind).await;
        assert!(matches!(missing, Err(RegistryError::MissingBlob(digest)) if digest == absent));
        assert!(matches!(commit(manifest(config, 3, layer, 5), kind).await, Err(RegistryError::WrongSize { .. })));
        assert!(matches!(commit(b"{}".to_vec(), kind).await, Err(RegistryError::Manifest(_))));
        let child = oci::Descriptor::new(media_type::OCI_MANIFEST, absent, 1);
        let index = serde_json::to_vec(&oci::Index::new(vec![child])).unwrap();
        assert!(matches!(commit(index, media_type::OCI_INDEX).await, Err(RegistryError::MissingManifest(_))));
        assert!(registry.tags(&image, None, 10).await.unwrap().is_none(), "nothing of it became visible");
        assert!(registry.linked(&image, &config).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn many_at_once_on_one_tag() {
    for (_dir, registry) in registries().await {
        let lease = registry.blobs().lease("builds");
        let (config, layer) = (put(&registry, &lease, b"{}").await, put(&registry, &lease, b"layer").await);
        let mut running = Vec::new();
        for number in 0..20 {
            let (registry, lease) = (registry.clone(), lease.clone());
            let text = String::from_utf8(manifest(config, 2, layer, 5)).unwrap();
            let bytes = text.replacen('{', &format!("{{{}", " ".repeat(number % 5)), 1);
            running.push(tokio::spawn(async move {
                let image = name("alice/site");
                registry.commit(&lease, &image, bytes.into(), media_type::OCI_MANIFEST, &tags(&["latest"])).await
            }));
        }
        for commit in running {
            commit.await.unwrap().unwrap();
        }
        let latest = registry.tags(&name("alice/site"), None, 10).await.unwrap().unwrap().entries[0].1;
        assert!(registry.exists_with_children(&name("alice/site"), &latest).await.unwrap());
    }
}

#[tokio::test]
async fn rules_undo_quotas_and_freezing_are_the_same_on_both() {
    for (_dir, registry) in registries().await {
        let all = ImagePattern::all();
        let rule = Rule {
            images: all.clone(),
            tags: TagPattern::all(),
            keep_newest: Some(0),
            keep_younger: None,
            keep_pulled_within: None,
            untagged_older_than: Some(0),
        };
        let quota = Quota { images: "alice/*".parse().unwrap(), bytes: 10_000 };
        let policy = Policy { retention: vec![rule], quotas: vec![quota], grace: Duration::ZERO, ..Policy::default() };
        registry.configure(policy).await.unwrap();
        let lease = registry.blobs().lease("a build");
        let (config, layer) = (put(&registry, &lease, b"{}").await, put(&registry, &lease, b"layer").await);
        let (image, bytes) = (name("alice/site"), Bytes::from(manifest(config, 2, layer, 5)));
        let kind = media_type::OCI_MANIFEST;
        let digest = registry.commit(&lease, &image, bytes.clone(), kind, &tags(&["v1", "v2"])).await.unwrap();
        let used = registry.quotas().await.unwrap()[0].used;
        assert_eq!(used, 7 + bytes.len() as u64);
        let later = model::Timestamp(i64::MAX);
        assert_eq!(registry.retain(&all, later, true, None).await.unwrap().deleted, 3);
        let undo = Undo { images: all.clone(), tags: None, since: Some(model::Timestamp(0)) };
        assert_eq!(registry.deleted(&undo, 10).await.unwrap().len(), 3);
        registry.collect(std::time::SystemTime::now().into(), true).await.unwrap();
        let undone = registry.undo(&undo).await.unwrap();
        assert!(undone.iter().all(|it| it.refused.is_none()), "{undone:?}");
        assert!(registry.exists_with_children(&image, &digest).await.unwrap());
        assert_eq!(registry.tags(&image, None, 10).await.unwrap().unwrap().entries.len(), 2);
        assert_eq!(registry.quotas().await.unwrap()[0].used, used);
        let (sender, mut events) = tokio::sync::mpsc::channel(100);
        assert_eq!(registry.verify(&all, true, &sender).await.unwrap().problems, 0);
        drop(sender);
        while events.recv().await.is_some() {}
        registry.freeze(all.clone(), "ada", "a move").await.unwrap();
        let refused = registry.commit(&lease, &image, bytes, kind, &[]).await;
        assert!(matches!(refused, Err(RegistryError::Frozen { .. })), "{refused:?}");
        assert!(registry.thaw(&all).await.unwrap() && !registry.thaw(&all).await.unwrap());
    }
}
