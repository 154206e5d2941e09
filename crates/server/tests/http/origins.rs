//! Names under which the server is asked, pages of other sites, and where credentials may be.

use serde_json::json;

use crate::world::{World, answer, raw};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_are_not_ours_are_misdirected() {
    let world = World::start().await;
    let paths = ["/livez", "/towpath/v1/version", "/v2/", "/works/engine.git/info/refs?service=git-upload-pack"];
    for path in paths {
        for host in
            ["evil.example", "git.example.evil", "registry.example", "10.0.0.1", "127.0.0.1.evil", "evil@127.0.0.1"]
        {
            let asked = world.request("GET", path, Some(&world.admin)).header("host", host);
            answer(asked).await.is_problem(421);
        }
        for host in ["git.example", "git.example:80", "registry.example:8443", "localhost", "127.0.0.1:1"] {
            let asked = world.request("GET", path, Some(&world.admin)).header("host", host);
            assert_eq!(answer(asked).await.status, 200, "{path} of {host}");
        }
    }
    let address = world.address();
    let none = raw(&address, b"GET /livez HTTP/1.0\r\n\r\n").await;
    assert!(none.starts_with("HTTP/1.0 421 "), "{none}");
    // What a request names itself goes before its header.
    let absolute = format!("GET http://evil.example/livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    assert!(raw(&address, absolute.as_bytes()).await.starts_with("HTTP/1.1 421 "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_in_answers_follow_the_host_that_was_dialled() {
    let world = World::start().await;
    for (host, realm) in [
        ("git.example", "http://git.example/towpath/v1/registry/token"),
        ("registry.example:8443", "http://registry.example:8443/towpath/v1/registry/token"),
    ] {
        // Nobody here is a trusted proxy.
        let asked = world.request("GET", "/v2/", None).header("host", host);
        let asked = asked.header("x-forwarded-host", "evil.example").header("x-forwarded-proto", "https");
        let challenge = answer(asked.header("forwarded", "host=evil.example;proto=https")).await;
        assert_eq!(challenge.status, 401);
        let header = challenge.header("www-authenticate");
        assert!(header.contains(&format!("realm=\"{realm}\"")), "{header}");
        assert!(!header.contains("evil"), "{header}");

        let token = world.request("GET", "/towpath/v1/registry/token?service=towpath", Some(&world.wyn));
        assert_eq!(answer(token.header("host", host)).await.status, 200);
        let upload = world.request("POST", "/v2/works/engine/blobs/uploads/", Some(&world.wyn)).header("host", host);
        let upload = answer(upload.header("x-forwarded-host", "evil.example")).await;
        assert_eq!(upload.status, 202, "{upload:?}");
        let location = upload.header("location").to_owned();
        let own = location.starts_with('/') || location.starts_with(&format!("http://{host}/"));
        assert!(own && !location.contains("evil"), "{location}");
    }
    let spoofed = world.request("GET", "/livez", None).header("host", "evil.example");
    answer(spoofed.header("x-forwarded-host", "git.example")).await.is_problem(421);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_taken_from_its_header_only() {
    let world = World::start().await;
    let token = &world.admin;
    for name in ["token", "access_token", "private_token", "authorization", "api_key"] {
        world.api("GET", &format!("/users?{name}={token}"), None, None).await.is_problem(401);
        let path = format!("/works/engine.git/info/refs?service=git-upload-pack&{name}={token}");
        answer(world.request("GET", &path, None)).await.is_problem(401);
    }
    for header in ["x-api-key", "private-token", "cookie", "proxy-authorization"] {
        answer(world.request("GET", "/towpath/v1/users", None).header(header, token)).await.is_problem(401);
    }
    // What cannot be read is never taken for none: this is open to everybody.
    for value in [&b"Bearer \xff"[..], b"Digest x", b"Basic !", b"Bearer"] {
        let asked = world.request("GET", "/towpath/v1/repositories", None).header("authorization", value);
        answer(asked).await.is_problem(401);
    }
    let twice = world.request("GET", "/towpath/v1/repositories", Some(token)).header("authorization", "Bearer x");
    answer(twice).await.is_problem(401);
    let basic = world.request("GET", "/towpath/v1/users", None);
    assert_eq!(answer(basic.basic_auth("admin", Some(token))).await.status, 200);
    let other = world.request("GET", "/towpath/v1/users", None);
    answer(other.basic_auth("eve", Some(token))).await.is_problem(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_sites_change_nothing() {
    let world = World::start().await;
    let body = json!({ "name": "nick" }).to_string();
    let post = |name: &'static str, value: String| {
        let request = world.request("POST", "/towpath/v1/users", Some(&world.admin));
        request.header("content-type", "application/json").header(name, value).body(body.clone())
    };
    for value in ["http://evil.example", "null", "http://localhost:9"] {
        answer(post("origin", value.to_owned())).await.is_problem(403);
    }
    answer(post("sec-fetch-site", "cross-site".to_owned())).await.is_problem(403);
    assert!(world.access().find_user("nick").await.unwrap().is_none());
    assert_eq!(answer(post("origin", world.url())).await.status, 201);
    // No page may read an answer either.
    let read = answer(world.request("GET", "/towpath/v1/version", None).header("origin", "http://evil.example")).await;
    assert_eq!(read.header("access-control-allow-origin"), "");
}
