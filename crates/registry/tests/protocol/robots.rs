//! Robots, as clients use them.

use access::{NewRobot, RobotAction};
use model::Timestamp;
use registry::http::TOKEN_PATH;
use reqwest::Method;

use crate::site::{SERVICE, Site, header, json, refusal, sha256};

async fn robot(site: &Site, name: &str, images: &[&str], actions: &[RobotAction]) -> (i64, String) {
    let new = NewRobot {
        owner: Some("alice".to_owned()),
        name: name.to_owned(),
        images: images.iter().map(|text| text.parse().unwrap()).collect(),
        actions: actions.to_vec(),
        expires: Timestamp(4_000_000_000_000),
    };
    let (record, secret) = site.access.create_robot(new).await.unwrap();
    (record.id, secret.expose().to_owned())
}

#[tokio::test]
async fn a_robot_logs_in_and_pushes_within_its_patterns() {
    let site = Site::start().await;
    let (_, secret) = robot(&site, "ci", &["alice/app", "alice/app/**"], &[RobotAction::Push]).await;
    let login = format!("{TOKEN_PATH}?account=alice%2Bci&client_id=docker&offline_token=true&service={SERVICE}");
    let answer = site.request(Method::GET, &login).basic_auth("alice+ci", Some(&secret)).send().await.unwrap();
    let token = json(answer).await["token"].as_str().unwrap().to_owned();
    let base = site.request(Method::GET, "/v2/").bearer_auth(&token).send().await.unwrap();
    assert_eq!(base.status(), 200);

    let scopes = ["repository:alice/app/web:pull,push,delete", "repository:alice/site:pull,push"];
    let token = site.token("alice+ci", &secret, &scopes).await;
    let claims = site.access.verify_bearer(&token, SERVICE).unwrap();
    assert!(claims.grants("repository", "alice/app/web", "push"));
    assert!(!claims.grants("repository", "alice/app/web", "delete"));
    assert!(!claims.grants("repository", "alice/site", "pull"));
    let blob = sha256(b"layer");
    let path = format!("/v2/alice/app/web/blobs/uploads/?digest={blob}");
    let pushed = site.request(Method::POST, &path).bearer_auth(&token).body("layer").send().await.unwrap();
    assert_eq!(pushed.status(), 201);

    // By its password alone, without a token of the registry.
    let basic = |method, path: &str| site.request(method, path).basic_auth("alice+ci", Some(&secret)).send();
    assert_eq!(basic(Method::GET, &format!("/v2/alice/app/web/blobs/{blob}")).await.unwrap().status(), 200);
    let elsewhere = basic(Method::POST, "/v2/alice/site/blobs/uploads/").await.unwrap();
    assert_eq!(refusal(elsewhere).await, (403, "DENIED".to_owned()));
    assert_eq!(basic(Method::GET, "/v2/alice/site/tags/list").await.unwrap().status(), 404);
    assert_eq!(basic(Method::GET, "/v2/_catalog").await.unwrap().status(), 403);
    let form = format!("grant_type=password&username=alice%2Bci&password={secret}&scope=repository:alice/app:push");
    let post = site.request(Method::POST, TOKEN_PATH).header("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(post.body(form).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_revoked_robot_stops_in_the_middle_of_a_push() {
    let site = Site::start().await;
    let (id, secret) = robot(&site, "ci", &["alice/*"], &[RobotAction::Push]).await;
    let token = site.token("alice+ci", &secret, &["repository:alice/app:pull,push"]).await;
    let begun = site.request(Method::POST, "/v2/alice/app/blobs/uploads/").bearer_auth(&token).send().await.unwrap();
    let at = header(&begun, "location").to_owned();
    let patch = |body: &'static str| site.request(Method::PATCH, &at).bearer_auth(&token).body(body).send();
    assert_eq!(patch("one").await.unwrap().status(), 202);
    site.access.remove_robot(id).await.unwrap();
    let refused = patch("two").await.unwrap();
    assert_eq!(refused.status(), 401);
    assert!(header(&refused, "www-authenticate").ends_with("error=\"invalid_token\""));
    let basic = site.request(Method::GET, "/v2/").basic_auth("alice+ci", Some(&secret)).send().await.unwrap();
    assert_eq!(basic.status(), 401);
}

#[tokio::test]
async fn a_robot_takes_nothing_by_mount_that_it_may_not_read() {
    let site = Site::start().await;
    let hidden = site.push_blob("alice/site", b"hidden").await;
    let (_, secret) = robot(&site, "ci", &["alice/app"], &[RobotAction::Push, RobotAction::Delete]).await;
    let path = format!("/v2/alice/app/blobs/uploads/?mount={hidden}&from=alice/site");
    let scopes = ["repository:alice/app:pull,push", "repository:alice/site:pull"];
    let token = site.token("alice+ci", &secret, &scopes).await;
    for request in [
        site.request(Method::POST, &path).bearer_auth(&token),
        site.request(Method::POST, &path).basic_auth("alice+ci", Some(&secret)),
    ] {
        assert_eq!(request.send().await.unwrap().status(), 202);
    }
    let get = site.request(Method::GET, &format!("/v2/alice/app/blobs/{hidden}")).bearer_auth(&token);
    assert_eq!(get.send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn keys_rotate_and_nobody_is_logged_out() {
    let site = Site::start().await;
    site.push_image("alice/site", "v1", "x").await;
    let before = site.token("alice", &site.alice, &["repository:alice/site:pull"]).await;
    site.access.rotate_keys(false).await.unwrap();
    let after = site.token("alice", &site.alice, &["repository:alice/site:pull"]).await;
    let get = |token: &str| site.request(Method::GET, "/v2/alice/site/manifests/v1").bearer_auth(token).send();
    assert_eq!(get(&before).await.unwrap().status(), 200);
    assert_eq!(get(&after).await.unwrap().status(), 200);
    site.access.rotate_keys(true).await.unwrap();
    let refused = get(&before).await.unwrap();
    assert_eq!(refused.status(), 401);
    assert!(header(&refused, "www-authenticate").ends_with("error=\"invalid_token\""), "the client asks for another");
}

#[tokio::test]
async fn tokens_that_are_too_long_are_not_looked_at() {
    let site = Site::start().await;
    for token in [format!("twb_{}", "x".repeat(20_000)), format!("twr_{}", "x".repeat(20_000)), "x".repeat(40_000)] {
        let answer = site.request(Method::GET, "/v2/").bearer_auth(token).send().await.unwrap();
        assert!(matches!(answer.status().as_u16(), 401 | 431), "{}", answer.status());
    }
}
