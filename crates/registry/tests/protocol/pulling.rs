//! Pulling blobs and manifests, and deleting them.

use model::Timestamp;
use oci::{Descriptor, Index, media_type};
use reqwest::Method;

use crate::site::{Site, header, json, manifest, name, refusal, sha256};

#[tokio::test]
async fn blobs_whole_and_in_part() {
    let site = Site::start().await;
    let content: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let digest = site.push_blob("alice/site", &content).await;
    let path = format!("/v2/alice/site/blobs/{digest}");
    let head = site.alice(Method::HEAD, &path).send().await.unwrap();
    assert_eq!(
        (header(&head, "content-length"), header(&head, "docker-content-digest")),
        ("1000000", &*digest.to_string())
    );
    let whole = site.alice(Method::GET, &path).send().await.unwrap();
    assert_eq!((whole.status().as_u16(), header(&whole, "accept-ranges")), (200, "bytes"));
    assert!(whole.bytes().await.unwrap() == content);
    let range = |range: &'static str| site.alice(Method::GET, &path).header("Range", range).send();
    let part = range("bytes=300000-699999").await.unwrap();
    assert_eq!((part.status().as_u16(), header(&part, "content-range")), (206, "bytes 300000-699999/1000000"));
    assert!(part.bytes().await.unwrap() == content[300_000..700_000]);
    assert!(range("bytes=-5").await.unwrap().bytes().await.unwrap() == content[999_995..]);
    let beyond = range("bytes=1000000-").await.unwrap();
    assert_eq!((beyond.status().as_u16(), header(&beyond, "content-range")), (416, "bytes */1000000"));
    assert_eq!(range("bytes=0-1,5-6").await.unwrap().status(), 200);
    let tag = format!("\"{digest}\"");
    assert_eq!(site.alice(Method::GET, &path).header("If-None-Match", tag).send().await.unwrap().status(), 304);
    assert_eq!(
        refusal(site.alice(Method::GET, &format!("/v2/alice/other/blobs/{digest}")).send().await.unwrap()).await.1,
        "BLOB_UNKNOWN"
    );
}

#[tokio::test]
async fn manifests_come_back_byte_for_byte() {
    let site = Site::start().await;
    let config = site.push_blob("alice/site", b"{}").await;
    let layer = site.push_blob("alice/site", b"layer").await;
    // Spaces and unknown fields belong to the digest.
    let text = String::from_utf8(manifest(config, 2, layer, 5)).unwrap().replacen('{', "{  \"x-mine\": [1],\n", 1);
    let digest = sha256(text.as_bytes());
    let put = site.push_manifest("alice/site", "v1", text.clone().into_bytes(), media_type::OCI_MANIFEST).await;
    assert_eq!((put.status().as_u16(), header(&put, "docker-content-digest")), (201, &*digest.to_string()));
    assert_eq!(header(&put, "location"), format!("/v2/alice/site/manifests/{digest}"));
    for reference in ["v1".to_owned(), digest.to_string()] {
        let path = format!("/v2/alice/site/manifests/{reference}");
        let head = site.alice(Method::HEAD, &path).send().await.unwrap();
        assert_eq!(header(&head, "content-type"), media_type::OCI_MANIFEST);
        assert_eq!(header(&head, "content-length"), text.len().to_string());
        assert_eq!(header(&head, "docker-content-digest"), digest.to_string());
        let get = site.alice(Method::GET, &path).send().await.unwrap();
        assert_eq!(get.text().await.unwrap(), text);
    }
    let unknown = site.alice(Method::GET, "/v2/alice/site/manifests/v2").send().await.unwrap();
    assert_eq!(refusal(unknown).await, (404, "MANIFEST_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn an_index_stands_on_its_manifests() {
    let site = Site::start().await;
    let child = site.push_image("alice/site", "amd64", "layer").await;
    let size =
        site.registry.manifest(&name("alice/site"), &"amd64".parse().unwrap()).await.unwrap().unwrap().bytes.len();
    let index = |size: usize| {
        let entry = Descriptor::new(media_type::OCI_MANIFEST, child, size as u64);
        serde_json::to_vec(&Index::new(vec![entry])).unwrap()
    };
    let lie = site.push_manifest("alice/site", "all", index(size + 1), media_type::OCI_INDEX).await;
    assert_eq!(refusal(lie).await, (400, "SIZE_INVALID".to_owned()));
    let elsewhere = site.push_manifest("alice/other", "all", index(size), media_type::OCI_INDEX).await;
    assert_eq!(refusal(elsewhere).await, (400, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    let put = site.push_manifest("alice/site", "all", index(size), media_type::OCI_INDEX).await;
    assert_eq!(put.status(), 201);
    let digest = sha256(&index(size));
    assert!(site.registry.exists_with_children(&name("alice/site"), &digest).await.unwrap());
    let delete = |what: String| site.alice(Method::DELETE, &format!("/v2/alice/site/{what}")).send();
    // Nothing that something stands on is deleted.
    assert_eq!(refusal(delete(format!("manifests/{child}")).await.unwrap()).await, (405, "DENIED".to_owned()));
    assert_eq!(delete(format!("blobs/{}", sha256(b"layer"))).await.unwrap().status(), 405);
    assert_eq!(delete(format!("manifests/{digest}")).await.unwrap().status(), 202);
    assert_eq!(delete(format!("manifests/{digest}")).await.unwrap().status(), 404);
    assert_eq!(site.alice(Method::GET, "/v2/alice/site/manifests/all").send().await.unwrap().status(), 404);
    assert_eq!(delete("manifests/amd64".to_owned()).await.unwrap().status(), 202);
    assert_eq!(site.alice(Method::GET, "/v2/alice/site/manifests/amd64").send().await.unwrap().status(), 404);
    assert_eq!(delete(format!("manifests/{child}")).await.unwrap().status(), 202);
    assert_eq!(delete(format!("blobs/{}", sha256(b"layer"))).await.unwrap().status(), 202);
    assert_eq!(delete(format!("blobs/{}", sha256(b"layer"))).await.unwrap().status(), 404);
    // Its bytes go when it can no longer be brought back.
    assert_eq!(site.registry.blobs().stat(&sha256(b"layer")).await.unwrap(), Some(5));
    site.registry.collect(Timestamp(i64::MAX), false).await.unwrap();
    assert_eq!(site.registry.blobs().stat(&sha256(b"layer")).await.unwrap(), None);
}

#[tokio::test]
async fn collecting_frees_what_nothing_refers_to() {
    let site = Site::start().await;
    let kept = site.push_image("alice/site", "v1", "kept").await;
    let loose = site.push_blob("alice/site", b"loose").await;
    let shared = site.push_blob("alice/site", b"shared").await;
    let mount = format!("/v2/alice/other/blobs/uploads/?mount={shared}&from=alice/site");
    assert_eq!(site.alice(Method::POST, &mount).send().await.unwrap().status(), 201);
    assert_eq!(site.registry.collect(Timestamp(0), true).await.unwrap().unlinked, 0, "all of them are younger");
    let lease = site.registry.blobs().lease("a build");
    lease.hold(&loose);
    let first = site.registry.collect(Timestamp(i64::MAX), true).await.unwrap();
    assert_eq!((first.unlinked, first.removed, first.bytes), (3, 1, 6), "the leased one stays on disk");
    assert_eq!(site.registry.blobs().stat(&loose).await.unwrap(), Some(5));
    assert_eq!(site.registry.blobs().stat(&shared).await.unwrap(), None);
    assert!(site.registry.exists_with_children(&name("alice/site"), &kept).await.unwrap());
    assert!(!site.has_blob("alice/site", &shared).await);
}

#[tokio::test]
async fn answers_are_json_with_codes() {
    let site = Site::start().await;
    let answer = site.alice(Method::GET, "/v2/alice/site/tags/list").send().await.unwrap();
    assert_eq!(header(&answer, "content-type"), "application/json");
    let body = json(answer).await;
    assert_eq!(body["errors"][0]["code"], "NAME_UNKNOWN");
    assert!(body["errors"][0]["message"].as_str().unwrap().contains("alice/site"));
    let put = site.alice(Method::PUT, "/v2/alice/site/tags/list").send().await.unwrap();
    assert_eq!((put.status().as_u16(), header(&put, "allow")), (405, "GET, HEAD"));
    assert_eq!(site.alice(Method::GET, "/v2/alice/site/nothing/here").send().await.unwrap().status(), 404);
}
