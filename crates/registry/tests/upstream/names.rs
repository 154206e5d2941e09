//! The three ways to name an image of an upstream, and who may pull and push.

use registry::upstream::Upstreams;
use reqwest::Method;

use crate::front::{UP, World, freshness};
use crate::site::{SERVICE, header, json, refusal, serve_with};

#[tokio::test(flavor = "multi_thread")]
async fn by_prefix_by_namespace_and_by_listener() {
    let world = World::start(|_| ()).await;
    let digest = world.upstream.push_image("alice/open", "v1", "one").await;
    let (registry, access) = (&world.cache.registry, &world.cache.access);
    let mirror = serve_with(registry, access, world.upstreams.clone(), Some(UP)).await;
    let prefix = world.get(&format!("/v2/{UP}/alice/open/manifests/v1")).await;
    assert_eq!(freshness(&prefix), "miss");
    let namespace = world.get(&format!("/v2/alice/open/manifests/v1?ns={UP}")).await;
    let listener = reqwest::get(format!("http://{mirror}/v2/alice/open/manifests/v1")).await.unwrap();
    for answer in [&namespace, &listener] {
        assert_eq!((freshness(answer), header(answer, "docker-content-digest")), ("hit", &*digest.to_string()));
    }
    // The same name without either is another image, and another registry is not passed on.
    let own = world.cache.alice(Method::GET, "/v2/alice/open/manifests/v1").send().await.unwrap();
    assert_eq!(refusal(own).await, (404, "MANIFEST_UNKNOWN".to_owned()));
    let other = world.get("/v2/alice/open/manifests/v1?ns=evil.example").await;
    assert_eq!(refusal(other).await, (404, "NAME_UNKNOWN".to_owned()));
    let here = format!("/v2/alice/open/manifests/v1?ns={}", world.cache.host);
    assert_eq!(refusal(world.get(&here).await).await, (404, "MANIFEST_UNKNOWN".to_owned()));
    assert_eq!(world.front.count("GET", ""), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_known_here_may_pull() {
    let world = World::start(|options| options.anonymous = false).await;
    world.upstream.push_image("alice/open", "v1", "one").await;
    let path = format!("/v2/{UP}/alice/open/manifests/v1");
    let challenged = world.get(&path).await;
    assert_eq!(challenged.status(), 401);
    let scope = format!("scope=\"repository:{UP}/alice/open:pull\"");
    assert!(header(&challenged, "www-authenticate").contains(&scope));
    assert_eq!(world.cache.bob(Method::GET, &path).send().await.unwrap().status(), 200);
    let bob = &world.cache.bob;
    let token = world.cache.token("bob", bob, &[&format!("repository:{UP}/alice/open:pull,push,delete")]).await;
    assert_eq!(world.cache.request(Method::GET, &path).bearer_auth(&token).send().await.unwrap().status(), 200);
    let refused = world.cache.request(Method::DELETE, &path).bearer_auth(&token).send().await.unwrap();
    assert_eq!(refused.status(), 401, "the token was not given for that");
    // Nobody's token is not enough.
    let nobody = format!("{}?service={SERVICE}&scope=repository:{UP}/alice/open:pull", registry::http::TOKEN_PATH);
    let nobody = json(world.get(&nobody).await).await["token"].as_str().unwrap().to_owned();
    assert_eq!(world.cache.request(Method::GET, &path).bearer_auth(nobody).send().await.unwrap().status(), 401);
    // On a listener of the upstream, clients ask for tokens by the name that they know.
    let (registry, access) = (&world.cache.registry, &world.cache.access);
    let mirror = serve_with(registry, access, world.upstreams.clone(), Some(UP)).await;
    for name in ["alice/open".to_owned(), format!("{UP}/alice/open")] {
        let realm = format!("http://{mirror}{}?scope=repository:{name}:pull", registry::http::TOKEN_PATH);
        let client = reqwest::Client::new();
        let granted = client.get(realm).basic_auth("bob", Some(bob)).send().await.unwrap();
        let token = json(granted).await["token"].as_str().unwrap().to_owned();
        let pulled = client.get(format!("http://{mirror}/v2/alice/open/manifests/v1")).bearer_auth(token);
        assert_eq!(pulled.send().await.unwrap().status(), 200, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_a_short_name_is_one_for_the_official_image() {
    let world = World::start(|options| {
        options.name = "docker.io".to_owned();
        options.prefix = "docker.io".parse().unwrap();
        options.anonymous = false;
    })
    .await;
    let token = world.cache.token("bob", &world.cache.bob, &["repository:docker.io/alpine:pull"]).await;
    let path = "/v2/docker.io/alpine/manifests/v1";
    let absent = world.cache.request(Method::GET, path).bearer_auth(token).send().await.unwrap();
    assert_eq!(refusal(absent).await, (404, "MANIFEST_UNKNOWN".to_owned()));
    assert_ne!(world.front.count("GET", "/v2/library/alpine/manifests/v1"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_pushes_and_administrators_delete() {
    let world = World::start(|options| options.deny = vec!["alice/secret*".parse().unwrap()]).await;
    let digest = world.upstream.push_image("alice/open", "v1", "one").await;
    let admin = |method, path: &str| world.cache.request(method, path).basic_auth("admin", Some(&world.cache.admin));
    for (method, path) in [
        (Method::POST, "blobs/uploads/"),
        (Method::POST, "blobs/uploads/?mount=sha256:x&from=alice/site"),
        (Method::PUT, "manifests/v1"),
        (Method::PATCH, "blobs/uploads/00000000000000000000000000000000"),
    ] {
        let refused = admin(method, &format!("/v2/{UP}/alice/open/{path}")).body("{}").send().await.unwrap();
        assert_eq!(refusal(refused).await, (403, "DENIED".to_owned()), "{path}");
    }
    let denied = world.get(&format!("/v2/{UP}/alice/secrets/manifests/v1")).await;
    assert_eq!(refusal(denied).await, (403, "DENIED".to_owned()));
    let path = format!("/v2/{UP}/alice/open/manifests/{digest}");
    assert_eq!(world.get(&path).await.status(), 200);
    let refused = world.cache.alice(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(refusal(refused).await, (403, "DENIED".to_owned()));
    assert_eq!(admin(Method::DELETE, &path).send().await.unwrap().status(), 202);
    assert_eq!(freshness(&world.get(&path).await), "miss", "it comes again when it is asked for");
}

#[tokio::test]
async fn an_upstream_that_cannot_work_is_named() {
    let world = World::start(|_| ()).await;
    let mut options = crate::front::options(&world.upstream.host);
    options.ca = Some("/nowhere/ca.pem".into());
    let error = Upstreams::open(vec![options], Vec::new()).unwrap_err().to_string();
    assert!(error.contains(UP) && error.contains("/nowhere/ca.pem"), "{error}");
}
