//! Mounting blobs of other images.

use reqwest::Method;

use crate::site::{Site, header, sha256};

#[tokio::test]
async fn mount_needs_the_right_to_read_the_source() {
    let site = Site::start().await;
    let secret = site.push_blob("alice/site", b"secret").await;
    let open = site.push_blob("alice/open", b"open").await;
    let path = |digest: &model::Digest, from: &str| format!("/v2/bob/copy/blobs/uploads/?mount={digest}&from={from}");
    let mounted = site.bob(Method::POST, &path(&open, "alice/open")).send().await.unwrap();
    assert_eq!((mounted.status().as_u16(), header(&mounted, "docker-content-digest")), (201, &*open.to_string()));
    // As if alice did not have it: bob sends it himself.
    let denied = site.bob(Method::POST, &path(&secret, "alice/site")).send().await.unwrap();
    assert_eq!(denied.status(), 202);
    let absent = site.bob(Method::POST, &path(&sha256(b"absent"), "alice/open")).send().await.unwrap();
    assert_eq!(absent.status(), 202);
    let nowhere = site.bob(Method::POST, &path(&secret, "no/such")).send().await.unwrap();
    assert_eq!(nowhere.status(), 202);
    let nameless = format!("/v2/bob/copy/blobs/uploads/?mount={secret}");
    assert_eq!(site.bob(Method::POST, &nameless).send().await.unwrap().status(), 202);
    let hostile = site.bob(Method::POST, &path(&secret, "../alice/site")).send().await.unwrap();
    assert_eq!(hostile.status(), 202);
    let bad = "/v2/bob/copy/blobs/uploads/?mount=sha256:x&from=alice/open";
    assert_eq!(site.bob(Method::POST, bad).send().await.unwrap().status(), 400);
    let get = |digest: &model::Digest| site.bob(Method::GET, &format!("/v2/bob/copy/blobs/{digest}")).send();
    assert_eq!(get(&open).await.unwrap().status(), 200);
    assert_eq!(get(&secret).await.unwrap().status(), 404);
}

#[tokio::test]
async fn without_a_source_any_that_may_be_read_will_do() {
    let site = Site::start().await;
    let secret = site.push_blob("alice/site", b"secret").await;
    let open = site.push_blob("alice/open", b"open").await;
    let path = |digest: &model::Digest| format!("/v2/bob/copy/blobs/uploads/?mount={digest}");
    assert_eq!(site.bob(Method::POST, &path(&open)).send().await.unwrap().status(), 201);
    // Alice's own is not bob's to find, whatever he knows of it.
    assert_eq!(site.bob(Method::POST, &path(&secret)).send().await.unwrap().status(), 202);
    assert_eq!(site.bob(Method::POST, &path(&sha256(b"absent"))).send().await.unwrap().status(), 202);
    // A narrow token does not reach what its owner may read, but what everybody may.
    let narrow = site.token("alice", &site.alice, &["repository:alice/copy:pull,push"]).await;
    for (digest, status) in [(&secret, 202), (&open, 201)] {
        let path = format!("/v2/alice/copy/blobs/uploads/?mount={digest}");
        assert_eq!(site.request(Method::POST, &path).bearer_auth(&narrow).send().await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn a_token_without_the_source_scope_falls_back_too() {
    let site = Site::start().await;
    let blob = site.push_blob("alice/site", b"layer").await;
    let path = format!("/v2/alice/copy/blobs/uploads/?mount={blob}&from=alice/site");
    // A client without a token is told what to ask for.
    let asked = site.request(Method::POST, &path).send().await.unwrap();
    let challenge = header(&asked, "www-authenticate");
    assert!(challenge.contains("scope=\"repository:alice/copy:pull,push repository:alice/site:pull\""), "{challenge}");
    let narrow = site.token("alice", &site.alice, &["repository:alice/copy:pull,push"]).await;
    assert_eq!(site.request(Method::POST, &path).bearer_auth(narrow).send().await.unwrap().status(), 202);
    let scopes = ["repository:alice/copy:pull,push", "repository:alice/site:pull"];
    let wide = site.token("alice", &site.alice, &scopes).await;
    assert_eq!(site.request(Method::POST, &path).bearer_auth(wide).send().await.unwrap().status(), 201);
}
