//! Blobs and manifests to other registries.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use model::Algorithm;
use oci::client::{Auth, BlobPush, BlobSource, ClientError, Pushed, Remote};
use oci::media_type::{OCI_EMPTY, OCI_MANIFEST};
use oci::{Descriptor, Manifest, Reference, digest_of};

use crate::cut::Cutter;
use crate::peer::{Peer, noise};
use crate::script::{Script, answer, client};

fn push(content: &Bytes) -> BlobPush {
    let digest = digest_of(Algorithm::Sha256, content);
    BlobPush::new(digest, content.len() as u64, BlobSource::bytes(content.clone()))
}

async fn pulled(remote: &Remote, content: &Bytes) -> Bytes {
    remote.small_blob(&digest_of(Algorithm::Sha256, content), 100 << 20).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_registry_takes_chunks_mounts_and_empty_blobs() {
    let Some(peer) = Peer::start().await else { return };
    let remote = peer.remote("a/b");
    let content = noise(2_500_000);
    let chunked = BlobPush { chunk: 1_000_000, ..push(&content) };
    assert_eq!(remote.blob_exists(&chunked.digest).await.unwrap(), None);
    assert_eq!(remote.push_blob(&chunked).await.unwrap(), Pushed::Sent);
    assert_eq!(remote.blob_exists(&chunked.digest).await.unwrap(), Some(2_500_000));
    assert!(pulled(&remote, &content).await == content);
    let other = remote.registry().repository("c".parse().unwrap());
    let mounted = push(&content).or_mount(Some(remote.name().clone()));
    assert_eq!(other.push_blob(&mounted).await.unwrap(), Pushed::Mounted);
    assert!(other.mount(&mounted.digest, remote.name()).await.unwrap());
    let nowhere = "nowhere".parse().unwrap();
    assert!(!other.mount(&digest_of(Algorithm::Sha256, b"?"), &nowhere).await.unwrap());
    let empty = Bytes::new();
    assert_eq!(remote.push_blob(&push(&empty)).await.unwrap(), Pushed::Sent);
    // Straight from one repository into another, and from a file.
    let blob = Descriptor::new("x", chunked.digest, 2_500_000);
    let through = BlobPush { source: BlobSource::remote(remote.clone(), &blob), ..chunked.clone() };
    peer.remote("d").push_blob(&through).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), [&b"head"[..], &content].concat()).unwrap();
    let file = BlobSource::file(dir.path().join("f"), 4, 2_500_000);
    peer.remote("e").push_blob(&BlobPush { source: file, ..chunked }).await.unwrap();
    assert!(pulled(&peer.remote("e"), &content).await == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_lies_about_its_blob_uploads_nothing() {
    let Some(peer) = Peer::start().await else { return };
    let remote = peer.remote("a/b");
    let content = noise(300_000);
    for size in [299_999, 300_001] {
        let wrong = BlobPush { size, chunk: 100_000, ..push(&content) };
        let error = remote.push_blob(&wrong).await.unwrap_err();
        assert!(matches!(error, ClientError::Source(_)), "{error}");
    }
    let other = push(&noise(1000));
    let wrong = BlobPush { digest: other.digest, ..push(&noise(999)) };
    assert!(remote.push_blob(&wrong).await.is_err());
    assert_eq!(remote.blob_exists(&other.digest).await.unwrap(), None);
}

/// The proxy cuts while answers come back, so what was sent is partly there and its answer lost.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_after_connections_broke() {
    let Some(peer) = Peer::start().await else { return };
    let content = noise(3_000_000);
    // An answer of docker-registry is longer than this, so the first connections end within one.
    for (after, times) in [(0, 2), (500, 3), (1000, 2)] {
        let cutter = Cutter::start(peer.address, after, times).await;
        let name = format!("cut/after-{after}").parse().unwrap();
        let remote = client(&[cutter.host()]).repository(cutter.host().parse().unwrap(), name, Auth::Anonymous);
        remote.push_blob(&BlobPush { chunk: 500_000, ..push(&content) }).await.unwrap();
        assert!(pulled(&remote, &content).await == content);
        assert!(cutter.connections() > times);
    }
}

/// What a scripted registry takes: chunks up to some length, or none.
async fn picky(most: Option<usize>) -> (Script, Arc<Mutex<Vec<u8>>>) {
    let got: Arc<Mutex<Vec<u8>>> = Arc::default();
    let store = got.clone();
    let script = Script::start(move |heard| {
        let mut store = store.lock().unwrap();
        match (heard.method.as_str(), most) {
            ("POST", _) => {
                store.clear();
                answer(202, &[("Location", "/v2/a/b/blobs/uploads/1?state=x")], "")
            }
            ("PATCH", None) => answer(405, &[], ""),
            ("PATCH" | "PUT", Some(most)) if heard.body.len() > most => answer(413, &[], "<html>too large"),
            ("PATCH", Some(_)) => {
                let range = format!("{}-{}", store.len(), store.len() + heard.body.len() - 1);
                assert_eq!(heard.header("content-range"), Some(range.as_str()));
                store.extend_from_slice(&heard.body);
                let range = format!("0-{}", store.len() - 1);
                answer(202, &[("Location", "/v2/a/b/blobs/uploads/1?state=y"), ("Range", &range)], "")
            }
            ("PUT", _) => {
                store.extend_from_slice(&heard.body);
                assert!(heard.path.contains("digest=sha256%3A") && heard.path.contains("state="), "{}", heard.path);
                answer(201, &[], "")
            }
            _ => answer(204, &[], ""),
        }
    });
    (script.await, got)
}

#[tokio::test]
async fn chunks_become_one_piece_or_smaller_where_they_are_not_taken() {
    let content = noise(20_000_000);
    for (most, chunk) in [(None, 6_000_000), (Some(9_000_000), 90_000_000), (Some(9_000_000), 16_500_000)] {
        let (script, got) = picky(most).await;
        let remote = script.remote(Auth::Anonymous);
        if most.is_some() && chunk > 20_000_000 {
            // Halved twice, it would be shorter than what is worth a request: this one fails with what was said.
            let error = remote.push_blob(&BlobPush { chunk, ..push(&content) }).await.unwrap_err();
            assert!(matches!(error, ClientError::Status { status: 413, .. }), "{error}");
            continue;
        }
        remote.push_blob(&BlobPush { chunk, ..push(&content) }).await.unwrap();
        assert!(*got.lock().unwrap() == content);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_tags_and_referrers_of_docker_registry() {
    let Some(peer) = Peer::start().await else { return };
    let remote = peer.remote("a/b");
    let config = Bytes::from_static(b"{}");
    let digest = peer.put_blob("a/b", &config).await;
    let image = Manifest::image(Descriptor::new(OCI_EMPTY, digest, 2), Vec::new());
    let bytes = Bytes::from(serde_json::to_vec(&image).unwrap());
    let pushed = remote.push_manifest(&"v1".parse().unwrap(), OCI_MANIFEST, bytes.clone()).await.unwrap();
    let found = remote.manifest(&Reference::Digest(pushed), Remote::ACCEPT).await.unwrap();
    assert_eq!((&found.bytes, found.media_type.as_str()), (&bytes, OCI_MANIFEST));
    let head = remote.head_manifest(&"v1".parse().unwrap(), Remote::ACCEPT).await.unwrap().unwrap();
    assert_eq!((head.digest, head.size), (pushed, Some(bytes.len() as u64)));
    assert_eq!(remote.head_manifest(&"v2".parse().unwrap(), Remote::ACCEPT).await.unwrap(), None);
    // It keeps no list of referrers: the fallback tag does.
    assert_eq!(remote.referrers(&pushed, None).await.unwrap(), []);
    let subject = Some(found.descriptor());
    for kind in ["application/x-signature", "application/x-sbom"] {
        let artifact = Manifest { subject: subject.clone(), artifact_type: Some(kind.to_owned()), ..image.clone() };
        let bytes = Bytes::from(serde_json::to_vec(&artifact).unwrap());
        let digest = digest_of(Algorithm::Sha256, &bytes);
        remote.push_manifest(&Reference::Digest(digest), OCI_MANIFEST, bytes).await.unwrap();
    }
    assert_eq!(remote.referrers(&pushed, None).await.unwrap().len(), 2);
    assert_eq!(remote.referrers(&pushed, Some("application/x-sbom")).await.unwrap().len(), 1);
    remote.delete(&Reference::Digest(pushed)).await.unwrap();
    assert!(remote.delete(&Reference::Digest(pushed)).await.unwrap_err().is_not_found());
    let names = remote.registry().all_repositories(10).await.unwrap();
    assert_eq!(names, ["a/b".parse().unwrap()]);
}
