//! What real clients need of token authentication, point by point.

use std::time::Duration;

use access::{BearerScope, Credentials};
use registry::http::TOKEN_PATH;
use reqwest::{Method, Response};

use crate::site::{SERVICE, Site, header, json, refusal, sha256};

const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

fn scope(name: &str, actions: &[&str]) -> BearerScope {
    let actions = actions.iter().map(|action| (*action).to_owned()).collect();
    BearerScope { kind: "repository".into(), name: name.into(), actions }
}

async fn get(site: &Site, path: &str, token: &str) -> Response {
    site.request(Method::GET, path).bearer_auth(token).send().await.unwrap()
}

async fn post(site: &Site, form: &str) -> Response {
    let request = site.request(Method::POST, TOKEN_PATH).header("Content-Type", FORM);
    request.body(form.to_owned()).send().await.unwrap()
}

/// What the token of an answer was granted, as `name:actions`.
async fn granted(site: &Site, answer: Response) -> Vec<String> {
    assert_eq!(answer.status(), 200);
    let token = json(answer).await["token"].as_str().unwrap().to_owned();
    let claims = site.access.verify_bearer(&token, SERVICE).unwrap();
    claims.scopes.iter().map(|scope| format!("{}:{}", scope.name, scope.actions.join(","))).collect()
}

#[tokio::test]
async fn point_01_the_base_is_challenged_even_where_anybody_may_pull() {
    let site = Site::start().await;
    site.push_image("alice/open", "v1", "x").await;
    let pulled = site.request(Method::GET, "/v2/alice/open/manifests/v1").send().await.unwrap();
    assert_eq!(pulled.status(), 200);
    let base = site.request(Method::GET, "/v2/").send().await.unwrap();
    assert_eq!(base.status(), 401);
    assert!(header(&base, "www-authenticate").starts_with("Bearer "));
}

#[tokio::test]
async fn point_02_the_realm_is_what_was_dialled_and_locations_are_relative() {
    let site = Site::start().await;
    for host in [site.host.as_str(), "registry.example:5000"] {
        // What a client claims about a proxy counts for nothing.
        let request = site.request(Method::GET, "/v2/").header("Host", host);
        let request = request.header("X-Forwarded-Proto", "https").header("X-Forwarded-Host", "evil.example");
        let answer = request.send().await.unwrap();
        let realm = format!("Bearer realm=\"http://{host}{TOKEN_PATH}\",");
        assert!(header(&answer, "www-authenticate").starts_with(&realm), "{host}");
    }
    let answer = site.alice(Method::POST, "/v2/alice/site/blobs/uploads/").send().await.unwrap();
    assert!(header(&answer, "location").starts_with("/v2/alice/site/blobs/uploads/"));
}

#[tokio::test]
async fn point_03_there_is_one_challenge_and_no_basic_beside_it() {
    let site = Site::start().await;
    for path in ["/v2/", "/v2/alice/site/manifests/v1", "/v2/_catalog"] {
        let answer = site.request(Method::GET, path).send().await.unwrap();
        let challenges: Vec<_> = answer.headers().get_all("www-authenticate").iter().collect();
        assert_eq!(challenges.len(), 1, "{path}");
        let challenge = challenges[0].to_str().unwrap();
        assert!(challenge.matches("realm=").count() == 1 && !challenge.contains("Basic"), "{challenge}");
    }
}

#[tokio::test]
async fn point_04_scopes_are_exact() {
    let site = Site::start().await;
    for (method, path, scope) in [
        (Method::GET, "/v2/alice/site/blobs/uploads/", "repository:alice/site:pull,push"),
        (Method::PUT, "/v2/alice/site/manifests/v1", "repository:alice/site:pull,push"),
        (Method::GET, "/v2/a/b/c/manifests/v1", "repository:a/b/c:pull"),
        (Method::GET, "/v2/_catalog", "registry:catalog:*"),
    ] {
        let method = if path.ends_with("uploads/") { Method::POST } else { method };
        let answer = site.request(method, path).send().await.unwrap();
        let challenge = header(&answer, "www-authenticate").to_owned();
        assert!(challenge.contains(&format!(",scope=\"{scope}\"")), "{path}: {challenge}");
    }
}

#[tokio::test]
async fn point_05_expired_and_too_narrow_are_told_apart() {
    let site = Site::start().await;
    let credentials = Credentials::Basic { user: "alice".to_owned(), password: site.alice.as_str().into() };
    let alice = site.access.authenticate(&credentials).await.unwrap();
    let path = "/v2/alice/site/tags/list";
    let pull = [scope("alice/site", &["pull"])];
    let over = get(&site, path, &site.access.issue_bearer(&alice, &pull, SERVICE, Duration::ZERO)).await;
    assert_eq!(over.status(), 401);
    assert!(header(&over, "www-authenticate").ends_with(",error=\"invalid_token\""));
    let narrow = get(&site, path, &site.token("alice", &site.alice, &["repository:alice/other:pull"]).await).await;
    assert_eq!(narrow.status(), 401);
    assert!(header(&narrow, "www-authenticate").ends_with(",error=\"insufficient_scope\""));
    // Without a token there is nothing wrong with it.
    let none = site.request(Method::GET, path).send().await.unwrap();
    assert!(!header(&none, "www-authenticate").contains("error="));
}

#[tokio::test]
async fn point_06_head_is_challenged_without_a_body_and_says_what_it_found() {
    let site = Site::start().await;
    let digest = site.push_image("alice/site", "v1", "x").await;
    let path = "/v2/alice/site/manifests/v1";
    let refused = site.request(Method::HEAD, path).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert!(header(&refused, "www-authenticate").contains("scope=\"repository:alice/site:pull\""));
    assert!(refused.bytes().await.unwrap().is_empty());
    let found = site.alice(Method::HEAD, path).send().await.unwrap();
    assert_eq!(found.status(), 200);
    assert!(header(&found, "content-length").parse::<u64>().unwrap() > 100);
    assert_eq!(header(&found, "content-type"), oci::media_type::OCI_MANIFEST);
    assert_eq!(header(&found, "docker-content-digest"), digest.to_string());
}

#[tokio::test]
async fn point_07_get_takes_repeated_scopes_and_what_docker_adds() {
    let site = Site::start().await;
    let query = "scope=repository:alice/site:pull&scope=repository:alice/site:push,pull&scope=repository:alice/b:pull";
    let path = format!("{TOKEN_PATH}?account=alice&client_id=docker&offline_token=true&service={SERVICE}&{query}");
    let answer = site.alice(Method::GET, &path).send().await.unwrap();
    assert_eq!(granted(&site, answer).await, ["alice/site:pull,push", "alice/b:pull"]);
    let path = format!("{TOKEN_PATH}?account=alice&service={SERVICE}&scope=");
    let answer = site.alice(Method::GET, &path).send().await.unwrap();
    assert!(granted(&site, answer).await.is_empty());
}

#[tokio::test]
async fn point_08_post_takes_scopes_joined_or_repeated_and_a_charset() {
    let site = Site::start().await;
    let form = format!("grant_type=password&service={SERVICE}&client_id=c&username=alice&password={}", site.alice);
    let refresh = format!("grant_type=refresh_token&service={SERVICE}&client_id=c&refresh_token={}", site.alice);
    let joined = "scope=repository%3Aalice%2Fa%3Apull+repository%3Aalice%2Fb%3Apush";
    let repeated = "scope=repository:alice/a:pull&scope=repository:alice/b:push";
    for credentials in [form, refresh] {
        for scopes in [joined, repeated] {
            let answer = post(&site, &format!("{credentials}&{scopes}")).await;
            assert_eq!(granted(&site, answer).await, ["alice/a:pull", "alice/b:push"], "{scopes}");
        }
    }
}

#[tokio::test]
async fn point_09_a_client_whose_post_fails_finds_the_get() {
    let site = Site::start().await;
    // With a password that a form cannot carry over, containerd tries again by GET after one of these.
    for form in ["grant_type=password&username=alice&password=", "grant_type=password", "grant_type=magic"] {
        let status = post(&site, form).await.status().as_u16();
        assert!(matches!(status, 400 | 401 | 404), "{form}: {status}");
    }
    let path = format!("{TOKEN_PATH}?service={SERVICE}&scope=repository:alice/site:pull");
    let answer = site.alice(Method::GET, &path).send().await.unwrap();
    assert_eq!(granted(&site, answer).await, ["alice/site:pull"]);
}

#[tokio::test]
async fn points_10_to_12_an_answer_has_both_names_a_time_and_nothing_else() {
    let site = Site::start().await;
    let form = format!("grant_type=password&access_type=offline&username=alice&password={}", site.alice);
    let got = site.alice(Method::GET, &format!("{TOKEN_PATH}?offline_token=true")).send().await.unwrap();
    for answer in [got, post(&site, &form).await] {
        let answer = json(answer).await;
        let keys: Vec<_> = answer.as_object().unwrap().keys().map(String::as_str).collect();
        // No `issued_at`, which BuildKit reads by its own clock; no `refresh_token`, which is not ours to give.
        assert_eq!(keys, ["access_token", "expires_in", "token"]);
        assert_eq!(answer["token"], answer["access_token"]);
        assert!(answer["expires_in"].as_u64().unwrap() >= 60);
    }
}

#[tokio::test]
async fn point_13_a_grant_is_the_intersection_and_bad_credentials_are_nobody() {
    let site = Site::start().await;
    let path = format!("{TOKEN_PATH}?scope=repository:alice/open:pull,push,delete&scope=repository:alice/site:pull");
    let bob = site.bob(Method::GET, &path).send().await.unwrap();
    assert_eq!(granted(&site, bob).await, ["alice/open:pull"]);
    let nobody = site.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(granted(&site, nobody).await, ["alice/open:pull"]);
    let bad = site.request(Method::GET, &path).basic_auth("bob", Some("wrong")).send().await.unwrap();
    assert_eq!(refusal(bad).await, (401, "UNAUTHORIZED".to_owned()));
}

#[tokio::test]
async fn point_14_docker_login() {
    let site = Site::start().await;
    let challenge = site.request(Method::GET, "/v2/").send().await.unwrap();
    let realm = header(&challenge, "www-authenticate").split('"').nth(1).unwrap().to_owned();
    let path = realm.strip_prefix(&format!("http://{}", site.host)).unwrap();
    let query = format!("{path}?account=alice&client_id=docker&offline_token=true&service={SERVICE}");
    let token = json(site.alice(Method::GET, &query).send().await.unwrap()).await["token"].as_str().unwrap().to_owned();
    assert_eq!(get(&site, "/v2/", &token).await.status(), 200);
}

#[tokio::test]
async fn point_15_the_type_ends_at_the_first_colon_and_actions_follow_the_last() {
    let site = Site::start().await;
    let path = format!("{TOKEN_PATH}?scope=repository(plugin):alice/plugin:pull&scope=repository:host:5000/x:pull");
    let answer = site.alice(Method::GET, &path).send().await.unwrap();
    assert_eq!(granted(&site, answer).await, ["alice/plugin:pull"]);
}

#[tokio::test]
async fn point_16_a_mount_without_its_source_is_an_upload() {
    let site = Site::start().await;
    let blob = site.push_blob("alice/site", b"layer").await;
    let path = format!("/v2/bob/copy/blobs/uploads/?mount={blob}&from=alice/site");
    // Both scopes are asked for; one is given.
    let scopes = ["repository:bob/copy:pull,push", "repository:alice/site:pull"];
    let token = site.token("bob", &site.bob, &scopes).await;
    let answer = site.request(Method::POST, &path).bearer_auth(&token).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    assert!(header(&answer, "location").starts_with("/v2/bob/copy/blobs/uploads/"));
}

#[tokio::test]
async fn point_17_an_upload_outlives_the_token_and_a_restart() {
    let mut site = Site::start().await;
    let credentials = |user: &str, secret: &str| Credentials::Basic { user: user.to_owned(), password: secret.into() };
    let alice = site.access.authenticate(&credentials("alice", &site.alice)).await.unwrap();
    let admin = site.access.authenticate(&credentials("admin", &site.admin)).await.unwrap();
    let push = [scope("alice/site", &["pull", "push"])];
    let good = site.access.issue_bearer(&alice, &push, SERVICE, Duration::from_secs(60));
    let begun = site.request(Method::POST, "/v2/alice/site/blobs/uploads/").bearer_auth(&good).send().await.unwrap();
    let at = header(&begun, "location").to_owned();
    let sent = site.request(Method::PATCH, &at).bearer_auth(&good).body("hello").send().await.unwrap();
    assert_eq!(sent.status(), 202);
    site.restart().await;
    let end = format!("{at}?digest={}", sha256(b"hello"));
    let expired = |who, scopes: &[BearerScope]| site.access.issue_bearer(who, scopes, SERVICE, Duration::ZERO);
    // Somebody else's, another image's and one that was only for reading are worth nothing.
    for (token, status) in [
        (expired(&admin, &push), 404),
        (expired(&alice, &[scope("alice/other", &["push"])]), 401),
        (expired(&alice, &[scope("alice/site", &["pull"])]), 401),
        (expired(&alice, &push), 201),
    ] {
        let put = site.request(Method::PUT, &end).bearer_auth(token).send().await.unwrap();
        assert_eq!(put.status(), status);
    }
}

#[tokio::test]
async fn point_18_basic_works_directly_and_deleting_is_a_scope_of_its_own() {
    let site = Site::start().await;
    site.push_image("alice/site", "v1", "x").await;
    let path = "/v2/alice/site/manifests/v1";
    assert_eq!(site.alice(Method::GET, path).send().await.unwrap().status(), 200);
    let delete = |token: String| site.request(Method::DELETE, path).bearer_auth(token).send();
    let pushing = site.token("alice", &site.alice, &["repository:alice/site:pull,push"]).await;
    let refused = delete(pushing).await.unwrap();
    assert!(header(&refused, "www-authenticate").contains("scope=\"repository:alice/site:delete\""));
    let answer = site.alice(Method::GET, &format!("{TOKEN_PATH}?scope=repository:alice/site:*")).send().await.unwrap();
    let token = json(answer).await["token"].as_str().unwrap().to_owned();
    let granted = site.access.verify_bearer(&token, SERVICE).unwrap().scopes;
    assert_eq!(granted, [scope("alice/site", &["pull", "push", "delete"])]);
    assert_eq!(delete(token).await.unwrap().status(), 202);
}

#[tokio::test]
async fn point_19_an_upload_that_only_asks_costs_nothing() {
    let site = Site::start().await;
    for _ in 0..20 {
        let asked = site.alice(Method::POST, "/v2/alice/site/blobs/uploads/").send().await.unwrap();
        assert_eq!(asked.status(), 202);
    }
    let location = store::Location::Sqlite(site.dir.path().join("towpath.db"));
    let records = store::Records::open(location).await.unwrap();
    let rows = records.read(|tx| tx.query("SELECT id FROM registry_uploads", &[])).await.unwrap();
    assert!(rows.is_empty(), "nothing is recorded before the first byte");
}
