//! Tags given with a push, and indexes of referrers that clients keep under tags.

use model::{Algorithm, Digest};
use oci::{Descriptor, Index, Manifest, digest_of, media_type};
use reqwest::Method;

use crate::site::{Site, header, json, manifest, refusal, sha256};

#[tokio::test]
async fn a_push_by_digest_takes_its_tags_along() {
    let site = Site::start().await;
    let config = site.push_blob("alice/site", b"{}").await;
    let layer = site.push_blob("alice/site", b"layer").await;
    let bytes = manifest(config, 2, layer, 5);
    let digest = digest_of(Algorithm::Sha512, &bytes);
    let kind = media_type::OCI_MANIFEST;
    let by_digest = format!("{digest}?tag=1.2.3&tag=1.2&tag=latest");
    let put = site.push_manifest("alice/site", &by_digest, bytes.clone(), kind).await;
    assert_eq!((put.status().as_u16(), header(&put, "oci-tag")), (201, "1.2.3, 1.2, latest"));
    for tag in ["1.2.3", "1.2", "latest"] {
        let head = site.alice(Method::HEAD, &format!("/v2/alice/site/manifests/{tag}")).send().await.unwrap();
        assert_eq!(header(&head, "docker-content-digest"), digest.to_string(), "{tag}");
        assert_eq!(header(&head, "content-length"), bytes.len().to_string(), "{tag}");
    }
    // A tag that is none spoils all of them, and so do too many.
    let bad = site.push_manifest("alice/site", &format!("{digest}?tag=new&tag=-x"), bytes.clone(), kind).await;
    assert_eq!(refusal(bad).await, (400, "MANIFEST_INVALID".to_owned()));
    let many: String = (0..101).map(|number| format!("&tag=t{number}")).collect();
    let many = site.push_manifest("alice/site", &format!("{digest}?{}", &many[1..]), bytes.clone(), kind).await;
    assert_eq!(refusal(many).await.0, 414);
    let list = json(site.alice(Method::GET, "/v2/alice/site/tags/list").send().await.unwrap()).await;
    assert_eq!(list["tags"], serde_json::json!(["1.2", "1.2.3", "latest"]));
    // A tag may say the digest as well, and its algorithm counts.
    let put = site.push_manifest("alice/site", &format!("wide?digest={digest}"), bytes.clone(), kind).await;
    assert_eq!((put.status().as_u16(), header(&put, "docker-content-digest")), (201, &*digest.to_string()));
    let wrong = site.push_manifest("alice/site", &format!("wide?digest={}", sha256(b"other")), bytes, kind).await;
    assert_eq!(refusal(wrong).await, (400, "DIGEST_INVALID".to_owned()));
}

#[tokio::test]
async fn what_cannot_be_a_tag_is_nowhere_and_is_not_taken() {
    let site = Site::start().await;
    for tag in [".hidden", "-x", "a%20b", &"a".repeat(129)] {
        let path = format!("/v2/alice/site/manifests/{tag}");
        for method in [Method::GET, Method::DELETE] {
            let answer = site.alice(method, &path).send().await.unwrap();
            assert_eq!(refusal(answer).await, (404, "MANIFEST_UNKNOWN".to_owned()), "{tag}");
        }
        assert_eq!(site.alice(Method::HEAD, &path).send().await.unwrap().status(), 404, "{tag}");
        let put = site.push_manifest("alice/site", tag, b"{}".to_vec(), media_type::OCI_MANIFEST).await;
        assert_eq!(refusal(put).await, (400, "MANIFEST_INVALID".to_owned()), "{tag}");
    }
}

/// An artifact about `subject`; its digest and length.
async fn artifact(site: &Site, subject: Digest, note: &str) -> Descriptor {
    let empty = site.push_blob("alice/site", b"{}").await;
    let mut manifest = Manifest::image(Descriptor::new(media_type::OCI_EMPTY, empty, 2), Vec::new());
    manifest.artifact_type = Some("application/x.sig".to_owned());
    manifest.subject = Some(Descriptor::new(media_type::OCI_MANIFEST, subject, 1));
    manifest.annotations = Some([("note".to_owned(), note.to_owned())].into());
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let entry = Descriptor::new(media_type::OCI_MANIFEST, sha256(&bytes), bytes.len() as u64);
    let put = site.push_manifest("alice/site", &entry.digest.to_string(), bytes, media_type::OCI_MANIFEST).await;
    assert_eq!(put.status(), 201);
    entry
}

async fn delete(site: &Site, reference: &str) -> u16 {
    let path = format!("/v2/alice/site/manifests/{reference}");
    site.alice(Method::DELETE, &path).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn an_index_of_referrers_that_a_client_kept_stays_true() {
    let site = Site::start().await;
    let subject = site.push_image("alice/site", "v1", "layer").await;
    let entries = [artifact(&site, subject, "one").await, artifact(&site, subject, "two").await];
    let tag = format!("sha256-{}", subject.hex());
    let index = serde_json::to_vec(&Index::new(entries.to_vec())).unwrap();
    assert_eq!(site.push_manifest("alice/site", &tag, index, media_type::OCI_INDEX).await.status(), 201);
    let listed = async |path: String| {
        let answer = site.alice(Method::GET, &path).send().await.unwrap();
        let status = answer.status().as_u16();
        let manifests = json(answer).await["manifests"].as_array().map_or(0, Vec::len);
        (status, manifests)
    };
    let by_tag = || format!("/v2/alice/site/manifests/{tag}");
    let by_api = || format!("/v2/alice/site/referrers/{subject}");
    assert_eq!((listed(by_tag()).await, listed(by_api()).await), ((200, 2), (200, 2)));
    // The index does not hold what it lists, and does not list what is gone.
    assert_eq!(delete(&site, &entries[0].digest.to_string()).await, 202);
    assert_eq!((listed(by_tag()).await, listed(by_api()).await), ((200, 1), (200, 1)));
    assert_eq!(delete(&site, &entries[1].digest.to_string()).await, 202);
    assert_eq!((listed(by_tag()).await, listed(by_api()).await), ((404, 0), (200, 0)));
}

#[tokio::test]
async fn an_index_that_somebody_else_names_holds_its_entries() {
    let site = Site::start().await;
    let subject = site.push_image("alice/site", "v1", "layer").await;
    let entry = artifact(&site, subject, "one").await;
    let index = serde_json::to_vec(&Index::new(vec![entry.clone()])).unwrap();
    for tag in [format!("sha256-{}", subject.hex()), "release".to_owned()] {
        let put = site.push_manifest("alice/site", &tag, index.clone(), media_type::OCI_INDEX).await;
        assert_eq!(put.status(), 201);
    }
    assert_eq!(delete(&site, &entry.digest.to_string()).await, 405);
    assert_eq!(delete(&site, "release").await, 202);
    assert_eq!(delete(&site, &entry.digest.to_string()).await, 202);
}
