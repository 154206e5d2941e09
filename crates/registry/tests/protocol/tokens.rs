//! Challenges and tokens: what real clients need.

use std::time::Duration;

use access::{BearerScope, JobPrincipal, Level};
use model::Timestamp;
use registry::http::TOKEN_PATH;
use reqwest::Method;

use crate::site::{SERVICE, Site, header, json, refusal};

#[tokio::test]
async fn the_base_is_challenged_and_names_the_host_that_was_dialled() {
    let site = Site::start().await;
    let answer = site.request(Method::GET, "/v2/").send().await.unwrap();
    assert_eq!(answer.status(), 401);
    let realm = format!("Bearer realm=\"http://{}{TOKEN_PATH}\",service=\"{SERVICE}\"", site.host);
    let challenges: Vec<_> = answer.headers().get_all("www-authenticate").iter().collect();
    assert_eq!(challenges, [realm.as_str()]);
    assert_eq!(header(&answer, "docker-distribution-api-version"), "registry/2.0");
    assert_eq!(refusal(answer).await, (401, "UNAUTHORIZED".to_owned()));
    let answer = site.request(Method::GET, "/v2/").header("Host", "registry.example:81").send().await.unwrap();
    assert!(header(&answer, "www-authenticate").contains("\"http://registry.example:81/"));
    assert_eq!(site.alice(Method::GET, "/v2/").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_challenge_names_the_exact_scope() {
    let site = Site::start().await;
    for (method, path, scope) in [
        (Method::GET, "/v2/alice/site/manifests/latest", "repository:alice/site:pull"),
        (Method::HEAD, "/v2/alice/site/manifests/latest", "repository:alice/site:pull"),
        (Method::POST, "/v2/alice/site/blobs/uploads/", "repository:alice/site:pull,push"),
        (Method::DELETE, "/v2/alice/site/manifests/latest", "repository:alice/site:delete"),
        (Method::GET, "/v2/_catalog", "registry:catalog:*"),
    ] {
        let answer = site.request(method.clone(), path).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{method} {path}");
        let challenge = header(&answer, "www-authenticate");
        assert!(challenge.ends_with(&format!(",scope=\"{scope}\"")), "{method} {path}: {challenge}");
        if method == Method::HEAD {
            assert!(answer.bytes().await.unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn a_token_for_a_login_and_for_an_image() {
    let site = Site::start().await;
    let login = format!("{TOKEN_PATH}?account=alice&client_id=docker&offline_token=true&service={SERVICE}&scope=");
    let answer = site.alice(Method::GET, &login).send().await.unwrap();
    assert_eq!(header(&answer, "cache-control"), "no-store");
    let answer = json(answer).await;
    assert_eq!(answer["token"], answer["access_token"]);
    assert!(answer["expires_in"].as_u64().unwrap() >= 60);
    assert!(answer.get("issued_at").is_none() && answer.get("refresh_token").is_none());
    let token = answer["token"].as_str().unwrap();
    let base = site.request(Method::GET, "/v2/").bearer_auth(token).send().await.unwrap();
    assert_eq!(base.status(), 200);
    // Good for nothing else: the client shall come back with the scope.
    let path = "/v2/alice/site/blobs/uploads/";
    let narrow = site.request(Method::POST, path).bearer_auth(token).send().await.unwrap();
    let challenge = header(&narrow, "www-authenticate").to_owned();
    assert_eq!(narrow.status(), 401);
    assert!(
        challenge.contains("scope=\"repository:alice/site:pull,push\",error=\"insufficient_scope\""),
        "{challenge}"
    );
    let token = site.token("alice", &site.alice, &["repository:alice/site:pull,push"]).await;
    let answer = site.request(Method::POST, path).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 202);
}

#[tokio::test]
async fn repeated_scopes_are_merged_and_cut_to_what_is_allowed() {
    let site = Site::start().await;
    site.push_image("alice/site", "v1", "x").await;
    let scopes = ["repository:alice/site:pull", "repository:alice/site:push", "repository:bob/site:pull,push"];
    let token = site.token("alice", &site.alice, &scopes).await;
    let claims = site.access.verify_bearer(&token, SERVICE).unwrap();
    let granted = vec![BearerScope {
        kind: "repository".into(),
        name: "alice/site".into(),
        actions: vec!["pull".into(), "push".into()],
    }];
    assert_eq!(claims.scopes, granted);
    let all = site.token("alice", &site.alice, &["repository:alice/site:*"]).await;
    assert!(site.access.verify_bearer(&all, SERVICE).unwrap().grants("repository", "alice/site", "delete"));
    let answer = site.request(Method::DELETE, "/v2/alice/site/manifests/v1").bearer_auth(&token).send().await.unwrap();
    assert!(header(&answer, "www-authenticate").contains("insufficient_scope"));
    let answer = site.request(Method::DELETE, "/v2/alice/site/manifests/v1").bearer_auth(all).send().await.unwrap();
    assert_eq!(answer.status(), 202);
}

#[tokio::test]
async fn bad_credentials_are_nobody_and_never_anonymous() {
    let site = Site::start().await;
    site.push_image("alice/open", "v1", "x").await;
    let open = "/v2/alice/open/manifests/v1";
    let bad = || site.request(Method::GET, TOKEN_PATH).basic_auth("alice", Some("twp_wrong"));
    let answer = bad().send().await.unwrap();
    assert_eq!(refusal(answer).await, (401, "UNAUTHORIZED".to_owned()));
    let other = site.request(Method::GET, TOKEN_PATH).basic_auth("bob", Some(&site.alice)).send().await.unwrap();
    assert_eq!(other.status(), 401);
    let direct = site.request(Method::GET, open).basic_auth("alice", Some("wrong")).send().await.unwrap();
    assert_eq!(direct.status(), 401);
    let garbage = site.request(Method::GET, open).header("Authorization", "Digest x").send().await.unwrap();
    assert_eq!(garbage.status(), 401);
    // Nobody in particular gets a token, which is good for what is public.
    let path = format!("{TOKEN_PATH}?scope=repository:alice/open:pull,push&scope=repository:alice/site:pull");
    let answer = json(site.request(Method::GET, &path).send().await.unwrap()).await;
    let token = answer["token"].as_str().unwrap();
    assert_eq!(site.request(Method::GET, open).bearer_auth(token).send().await.unwrap().status(), 200);
    assert_eq!(site.request(Method::GET, open).send().await.unwrap().status(), 200);
    let push = "/v2/alice/open/blobs/uploads/";
    assert_eq!(site.request(Method::POST, push).bearer_auth(token).send().await.unwrap().status(), 401);
    assert_eq!(site.request(Method::POST, push).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn tokens_by_post() {
    let site = Site::start().await;
    let post = |form: String, kind: &'static str| {
        site.request(Method::POST, TOKEN_PATH).header("Content-Type", kind).body(form).send()
    };
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    let scopes = "scope=repository%3Aalice%2Fsite%3Apull+repository%3Aalice%2Fother%3Apush";
    let password = format!("grant_type=password&service={SERVICE}&username=alice&password={}&{scopes}", site.alice);
    let answer = json(post(password, form).await.unwrap()).await;
    let claims = site.access.verify_bearer(answer["access_token"].as_str().unwrap(), SERVICE).unwrap();
    assert!(claims.grants("repository", "alice/site", "pull") && claims.grants("repository", "alice/other", "push"));
    let refresh = format!("grant_type=refresh_token&service={SERVICE}&refresh_token={}", site.alice);
    assert_eq!(post(refresh, form).await.unwrap().status(), 200);
    for (body, kind, status) in [
        ("grant_type=password&username=alice&password=wrong", form, 401),
        ("grant_type=refresh_token&refresh_token=twb_x.y", form, 401),
        ("grant_type=client_credentials", form, 400),
        ("grant_type=password&username=alice", form, 400),
        ("", form, 400),
        ("{}", "application/json", 400),
    ] {
        assert_eq!(post(body.to_owned(), kind).await.unwrap().status(), status, "{body}");
    }
    let long = "x".repeat(100_000);
    assert_eq!(post(long, form).await.unwrap().status(), 413);
    let put = site.request(Method::PUT, TOKEN_PATH).send().await.unwrap();
    assert_eq!((put.status().as_u16(), header(&put, "allow")), (405, "GET, HEAD, POST"));
}

#[tokio::test]
async fn forged_expired_and_foreign_tokens() {
    let site = Site::start().await;
    let principal = site.access.authenticate(&basic(&site)).await.unwrap();
    let scope = BearerScope {
        kind: "repository".into(),
        name: "alice/site".into(),
        actions: vec!["pull".into(), "push".into()],
    };
    let issue = |service: &str, ttl: u64| {
        site.access.issue_bearer(&principal, std::slice::from_ref(&scope), service, Duration::from_secs(ttl))
    };
    let good = issue(SERVICE, 60);
    let mut forged = good.clone();
    forged.replace_range(10..11, if &good[10..11] == "A" { "B" } else { "A" });
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.";
    let path = "/v2/alice/site/blobs/uploads/";
    for token in [issue(SERVICE, 0), issue("other", 60), forged, format!("twb_{none}"), "twb_".to_owned()] {
        let answer = site.request(Method::POST, path).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{token}");
        assert!(header(&answer, "www-authenticate").ends_with("error=\"invalid_token\""), "{token}");
    }
    let none = site.request(Method::POST, path).bearer_auth(none).send().await.unwrap();
    assert_eq!(none.status(), 401);
    assert_eq!(site.request(Method::POST, path).bearer_auth(good).send().await.unwrap().status(), 202);
    let foreign = site.alice(Method::GET, &format!("{TOKEN_PATH}?service=registry.example")).send().await.unwrap();
    assert_eq!(foreign.status(), 400);
}

fn basic(site: &Site) -> access::Credentials {
    access::Credentials::Basic { user: "alice".to_owned(), password: site.alice.as_str().into() }
}

#[tokio::test]
async fn rights_end_at_the_next_request() {
    let site = Site::start().await;
    site.push_image("alice/site", "v1", "x").await;
    let path = "/v2/alice/site/manifests/v1";
    let token = site.token("alice", &site.alice, &["repository:alice/site:pull"]).await;
    let get = || site.request(Method::GET, path).bearer_auth(&token).send();
    assert_eq!(get().await.unwrap().status(), 200);
    let alice = site.access.find_user("alice").await.unwrap().unwrap();
    let shown = site.access.list_tokens(alice.id).await.unwrap();
    site.access.revoke_token(alice.id, shown[0].id).await.unwrap();
    let refused = get().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert!(header(&refused, "www-authenticate").ends_with("error=\"invalid_token\""));
    assert_eq!(site.request(Method::GET, "/v2/").bearer_auth(&token).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_job_pushes_to_its_own_image_until_it_ends() {
    let site = Site::start().await;
    let job = JobPrincipal {
        repository: "alice/open".parse().unwrap(),
        run: model::RunId(1),
        job: model::JobId(7),
        contents: Level::Read,
        packages: Level::Write,
    };
    let later = Timestamp(4_000_000_000_000);
    let secret = site.access.create_job_token(job, later).await.unwrap().expose().to_owned();
    let token = site.token("alice", &secret, &["repository:alice/open:pull,push", "repository:alice/site:push"]).await;
    assert_eq!(site.request(Method::GET, "/v2/").bearer_auth(&token).send().await.unwrap().status(), 200);
    let post =
        |image: &str| site.request(Method::POST, &format!("/v2/{image}/blobs/uploads/")).bearer_auth(&token).send();
    assert_eq!(post("alice/open").await.unwrap().status(), 202);
    assert_eq!(post("alice/site").await.unwrap().status(), 401);
    site.access.end_job(model::JobId(7)).await.unwrap();
    assert_eq!(post("alice/open").await.unwrap().status(), 401);
    assert_eq!(site.request(Method::GET, "/v2/").bearer_auth(&token).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn what_is_not_yours_is_hidden() {
    let site = Site::start().await;
    let digest = site.push_image("alice/site", "v1", "x").await;
    let blob = crate::site::sha256(b"x");
    for path in [
        "/v2/alice/site/manifests/v1".to_owned(),
        format!("/v2/alice/site/manifests/{digest}"),
        format!("/v2/alice/site/blobs/{blob}"),
        format!("/v2/alice/site/referrers/{digest}"),
        "/v2/alice/site/tags/list".to_owned(),
    ] {
        assert_eq!(site.request(Method::GET, &path).send().await.unwrap().status(), 401, "{path}");
        let ranged = site.request(Method::GET, &path).header("Range", "bytes=0-0").send().await.unwrap();
        assert_eq!(ranged.status(), 401, "{path}");
        assert_eq!(site.bob(Method::GET, &path).send().await.unwrap().status(), 404, "{path}");
        assert_eq!(site.alice(Method::GET, &path).send().await.unwrap().status(), 200, "{path}");
    }
    let push = site.bob(Method::POST, "/v2/alice/site/blobs/uploads/").send().await.unwrap();
    assert_eq!(refusal(push).await, (403, "DENIED".to_owned()));
    let push = site.bob(Method::POST, "/v2/alice/open/blobs/uploads/").send().await.unwrap();
    assert_eq!(refusal(push).await, (403, "DENIED".to_owned()));
    assert_eq!(site.bob(Method::GET, "/v2/_catalog").send().await.unwrap().status(), 403);
}
