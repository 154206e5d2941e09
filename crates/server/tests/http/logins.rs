//! Signing in through a provider, as a browser does it, and the tokens of workloads at the registry.

use config::{GroupMapping, ImageAction, OidcProvider, WorkloadIssuer, WorkloadRule};
use serde_json::{Value, json};

use crate::issuer::TestIssuer;
use crate::world::{World, spec};

async fn start(issuer: &TestIssuer) -> World {
    let mut spec = spec();
    let provider = OidcProvider {
        name: "corp".into(),
        issuer: issuer.url.clone(),
        client_id: "towpath".into(),
        client_secret: None,
        scopes: vec!["openid".into()],
        username_claim: "preferred_username".into(),
        groups_claim: "groups".into(),
        groups: vec![GroupMapping { claim: "builders".into(), group: "works/builders".into() }],
        create_users: true,
        token_hours: 1,
        ca_file: None,
    };
    let workloads = WorkloadIssuer {
        name: "ci".into(),
        issuer: issuer.url.clone(),
        audience: "registry".into(),
        jwks: None,
        ca_file: None,
        rules: vec![WorkloadRule {
            claims: [("repository".to_owned(), "works/*".to_owned())].into(),
            images: vec!["works/**".parse().unwrap()],
            actions: vec![ImageAction::Push],
        }],
    };
    spec.access = Some(config::AccessSpec { oidc: vec![provider], workloads: vec![workloads] });
    World::with(spec).await
}

fn claims(issuer: &TestIssuer, more: Value) -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({ "iss": issuer.url, "exp": now + 60, "sub": "7" });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_comes_back_with_a_token() {
    let issuer = TestIssuer::start().await;
    let world = start(&issuer).await;
    let begin = "/towpath/v1/login/oidc/corp";
    let sent = world.request("GET", begin, None).header("host", "git.example").send().await.unwrap();
    assert_eq!(sent.status(), 303);
    let cookie = sent.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("; Path=/towpath/v1/login/oidc; ") && cookie.contains("; HttpOnly; SameSite=Lax"));
    let url = sent.headers()["location"].to_str().unwrap();
    let redirect = "redirect_uri=http%3A%2F%2Fgit.example%2Ftowpath%2Fv1%2Flogin%2Foidc%2Fcorp%2Fcallback";
    assert!(url.contains(redirect), "{url}");
    let field = |name: &str| {
        let found = url.split(['?', '&']).find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        found.unwrap().to_owned()
    };
    let token = claims(
        &issuer,
        json!({ "aud": "towpath", "preferred_username": "ada", "nonce": field("nonce"), "groups": ["builders"] }),
    );
    issuer.promise(issuer.sign(&token), &field("code_challenge"));
    let back = format!("{begin}/callback?code=good&state={}", field("state"));
    let come = |cookie: Option<&str>, accept: &str| {
        let request = world.request("GET", &back, None).header("host", "git.example").header("accept", accept);
        cookie.map(|cookie| request.try_clone().unwrap().header("cookie", cookie)).unwrap_or(request).send()
    };
    assert_eq!(come(None, "*/*").await.unwrap().status(), 400, "another browser has no cookie");
    let brought = cookie.split(';').next().unwrap();
    let page = come(Some(brought), "text/html").await.unwrap();
    assert_eq!(page.headers()["cache-control"], "no-store");
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    assert!(page.text().await.unwrap().contains("<pre>twp_"));
    let answer = come(Some(brought), "application/json").await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(answer["user"], "ada");
    let ada = answer["token"].as_str();
    assert_eq!(world.api("GET", "/users/ada/tokens", ada, None).await.status, 200);

    // What a program needs to send somebody there, and to know whom it got a token of.
    assert_eq!(world.api("GET", "/login", None, None).await.json(), json!({ "oidc": ["corp"] }));
    let me = world.api("GET", "/user", ada, None).await;
    assert_eq!(me.json(), json!({ "name": "ada", "admin": false }));
    world.api("GET", "/user", None, None).await.is_problem(401);

    world.api("GET", "/login/oidc/nobody", None, None).await.is_problem(404);
    // Somebody who was a user before is linked by an administrator.
    let link = r#"{"subject":"8"}"#;
    let linked = world.api("PUT", "/users/rae/identities/corp", Some(&world.admin), Some(link)).await;
    assert_eq!(linked.status, 204, "{linked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_exchanges_its_token() {
    let issuer = TestIssuer::start().await;
    let world = start(&issuer).await;
    let jwt = issuer.sign(&claims(&issuer, json!({ "aud": "registry", "repository": "works/engine" })));
    let path = "/towpath/v1/registry/token";
    let scope = "scope=repository:works/engine:pull,push";
    let form =
        format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&{scope}&subject_token={jwt}");
    let post = world.request("POST", path, None).header("content-type", "application/x-www-form-urlencoded").body(form);
    let basic = world.request("GET", &format!("{path}?{scope}"), None).basic_auth("ci", Some(&jwt));
    for request in [post, basic] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let upload = |image: &str| {
            let path = format!("/v2/{image}/blobs/uploads/");
            world.request("POST", &path, answer["token"].as_str()).send()
        };
        assert_eq!(upload("works/engine").await.unwrap().status(), 202);
        assert_eq!(upload("eve/own").await.unwrap().status(), 401);
    }
    let other = issuer.sign(&claims(&issuer, json!({ "aud": "registry", "repository": "eve/own" })));
    let refused = world.request("GET", path, None).basic_auth("ci", Some(&other)).send().await.unwrap();
    assert_eq!(refused.status(), 401);
}
