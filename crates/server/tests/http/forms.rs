//! Requests that are not as they should be: each ends with a problem document.

use crate::world::{World, answer, raw};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_and_not_done() {
    let world = World::start().await;
    let admin = Some(world.admin.as_str());
    for path in
        ["", "/", "/nothing", "/version/", "/version%2f", "/runs/", "/users/rae/nothing", "/registry", "//version"]
    {
        world.api("GET", path, admin, None).await.is_problem(404);
    }
    for path in ["/", "/towpath", "/towpath/v2/version", "/favicon.ico", "/works/engine", "/works/engine.git/HEAD"] {
        answer(world.request("GET", path, admin)).await.is_problem(404);
    }
    for (method, path, allowed) in [("DELETE", "/version", "GET,HEAD"), ("PUT", "/users", "GET,HEAD,POST")] {
        let answer = world.api(method, path, admin, None).await;
        answer.is_problem(405);
        assert_eq!(answer.header("allow"), allowed);
    }
    answer(world.request("PUT", "/works/engine.git/git-upload-pack", admin)).await.is_problem(405);
    answer(world.request("POST", "/livez", admin)).await.is_problem(405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_and_queries_that_cannot_be_read() {
    let world = World::start().await;
    let admin = Some(world.admin.as_str());
    for path in
        ["/runs/abc", "/runs/1e3", "/runs/99999999999999999999", "/runs/%FF", "/runs?limit=x", "/runs?repository=a"]
    {
        world.api("GET", path, admin, None).await.is_problem(400);
    }
    for path in ["/events?after=x", "/runs/1/wait?timeoutSeconds=-1", "/users/rae/tokens%2F1"] {
        let answer = world.api("GET", path, admin, None).await;
        answer.is_problem(answer.status);
        assert!([400, 404].contains(&answer.status), "{path}: {answer:?}");
    }
    // An encoded slash, dot segments or a NUL never make another path of a name.
    for name in ["works%2Fengine/x", "works/..%2Fengine", "works/%2e%2e", "works/engine%00", "works/-x", "works/a%20b"]
    {
        let answer = world.api("GET", &format!("/repositories/{name}"), admin, None).await;
        assert!([400, 404].contains(&answer.status), "{name}: {answer:?}");
        answer.is_problem(answer.status);
        let path = format!("/{name}/info/refs?service=git-upload-pack");
        let answer = crate::world::answer(world.request("GET", &path, admin)).await;
        answer.is_problem(404);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_cannot_be_read() {
    let world = World::start().await;
    let admin = Some(world.admin.as_str());
    let cases = [
        ("POST", "/users", "", 400),
        ("POST", "/users", "{", 400),
        ("POST", "/users", "[]", 422),
        ("POST", "/users", r#"{"name":7}"#, 422),
        ("POST", "/users", r#"{"name":"n","root":true}"#, 422),
        ("POST", "/users", r#"{"name":"a/b"}"#, 400),
        ("POST", "/users/rae/tokens", r#"{"name":"t","expiresInDays":0}"#, 400),
        ("POST", "/users/rae/tokens", r#"{"name":"t","scopes":["sudo"]}"#, 422),
        ("POST", "/users/rae/tokens", r#"{"name":"t","scopes":[]}"#, 400),
        ("PUT", "/organisations/works/members/rae", r#"{"role":"owner"}"#, 422),
        ("POST", "/repositories", r#"{"name":"one"}"#, 422),
        ("POST", "/repositories", r#"{"name":"v2/x"}"#, 422),
        ("POST", "/repositories", r#"{"name":"works/x","defaultBranch":"--exec=x y"}"#, 400),
        ("POST", "/repositories/works/engine/dispatches", r#"{"ref":"no such"}"#, 400),
        ("POST", "/repositories/works/engine/dispatches", r#"{"ref":"nothing"}"#, 404),
        ("POST", "/apply", "kind: [", 400),
        ("POST", "/apply", "kind: Cow", 400),
    ];
    for (method, path, body, status) in cases {
        let answer = world.api(method, path, admin, Some(body)).await;
        assert_eq!(answer.status, status, "{method} {path} {body}: {answer:?}");
        answer.is_problem(status);
    }
    let unsaid = world.request("POST", "/towpath/v1/users", admin).body(r#"{"name":"n"}"#);
    answer(unsaid).await.is_problem(415);
    let bytes = world.request("POST", "/towpath/v1/apply", admin).body(&b"\xff\xfe"[..]);
    answer(bytes).await.is_problem(400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_and_heads_that_are_too_long() {
    let world = World::start().await;
    let admin = Some(world.admin.as_str());
    let long = "#".repeat((1 << 20) + 1);
    for (method, path) in [("POST", "/apply"), ("POST", "/users"), ("PUT", "/repositories/works/engine/secrets/K")] {
        world.api(method, path, admin, Some(&long)).await.is_problem(413);
    }
    // A client that sends all of it before it listens still gets the answer.
    let huge = "#".repeat(12 << 20);
    world.api("POST", "/apply", admin, Some(&huge)).await.is_problem(413);
    // Who may not is not listened to at all.
    world.api("POST", "/users", Some(&world.eve), Some(&long)).await.is_problem(403);
    world.api("POST", "/apply", None, Some(&long)).await.is_problem(401);

    let address = world.address();
    let head =
        |more: &str| format!("GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{more}\r\n").into_bytes();
    assert!(raw(&address, &head("")).await.starts_with("HTTP/1.1 200 "));
    let answer = raw(&address, &head(&format!("X: {}\r\n", "a".repeat(80 << 10)))).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many: String = (0..200).map(|number| format!("X{number}: a\r\n")).collect();
    let answer = raw(&address, &head(&many)).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_is_answered_without_a_body() {
    let world = World::start().await;
    let (run, _) = world.push().await;
    for path in
        ["/version".to_owned(), "/users".to_owned(), format!("/runs/{run}"), format!("/runs/{run}/logs?follow=true")]
    {
        let answer = world.api("HEAD", &path, Some(&world.admin), None).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, ""), "{path}");
    }
    let answer = world.api("HEAD", "/users", None, None).await;
    assert_eq!((answer.status, answer.text.as_str()), (401, ""));
}
