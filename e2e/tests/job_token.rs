//! The token of a job: what it is good for, that nobody reads it in the log, and that it dies with the job.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::time::{Duration, Instant};

use e2e::{Options, Site, World};
use serde_json::{Value, json};

/// Prints the token as it is and with spaces in it, so that the test can read what the log hides.
const STEPS: &str = "jobs:
  test:
    runs-on: ubuntu-latest
    env: {TOKEN: \"${{ github.token }}\"}
    steps:
      - run: |
          echo \"plain $TOKEN and ${{ secrets.GITHUB_TOKEN }}\"
          echo \"apart $(printf %s \"$TOKEN\" | sed 's/./& /g')\"
";

/// What a request with this token is answered.
fn status(world: &World, method: &str, path: &str, token: &str) -> u16 {
    let config =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60)));
    let agent: ureq::Agent = config.build().into();
    let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", world.url()));
    let request = request.header("authorization", format!("Bearer {token}")).body(()).unwrap();
    agent.run(request).unwrap().status().as_u16()
}

/// Pushes a workflow with these permissions; its run, and the token that its job printed.
fn push(world: &World, site: &Site, permissions: &str, more: &str) -> (i64, String) {
    site.write(".towpath/workflows/check.yaml", format!("on: push\n{permissions}{STEPS}{more}"));
    let commit = site.commit("ci: print the token");
    site.push("main");
    let run = world.run_of(&site.repository, "workflow", &commit);
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        let (_, log) = world.api("GET", &format!("/runs/{run}/logs"), None);
        let log = log.as_str().unwrap_or_default().to_owned();
        let found = log.lines().find_map(|line| line.split_once(" apart ")).map(|(_, text)| text.replace(' ', ""));
        if let Some(token) = found {
            assert!(token.starts_with("twj_") && token.len() == 44, "{token}");
            assert!(log.contains("plain *** and ***") && !log.contains(&token), "{log}");
            return (run, token);
        }
        assert!(Instant::now() < until, "the job prints nothing: {log}\n{}", world.server_log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn cancel(world: &World, run: i64) -> Value {
    world.call("POST", &format!("/runs/{run}/cancel"), &json!({}));
    world.wait(run)
}

/// Whether a text is in any file below a directory.
fn is_below(dir: &std::path::Path, text: &str) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| match path.is_dir() && !path.is_symlink() {
        true => is_below(&path, text),
        false => std::fs::read(&path)
            .is_ok_and(|content| content.windows(text.len()).any(|window| window == text.as_bytes())),
    })
}

#[test]
fn a_token_is_good_for_its_own_repository_while_the_job_lives() {
    let Some(mut world) = World::start(Options::default()) else { return };
    world.call("POST", "/repositories", &json!({ "name": "demo/app" }));
    world.call("POST", "/repositories", &json!({ "name": "demo/other" }));
    let site = Site::over(&world, "app");
    let hold = "      - run: sleep 300\n";

    let (run, token) = push(&world, &site, "", hold);
    let upload = |image: &str| format!("/v2/{image}/blobs/uploads/");
    let repository = |name: &str| format!("/towpath/v1/repositories/{name}");
    for (method, path, expected) in [
        ("GET", "/v2/".to_owned(), 200),
        ("POST", upload("demo/app"), 202),
        ("POST", upload("demo/app/cache"), 202),
        ("POST", upload("demo/other"), 403),
        ("GET", repository("demo/app"), 200),
        ("PATCH", repository("demo/app"), 403),
        ("GET", repository("demo/other"), 404),
        ("GET", "/towpath/v1/users".to_owned(), 404),
    ] {
        assert_eq!(status(&world, method, &path, &token), expected, "{method} {path}");
    }

    // The job goes on under its supervisor, and so does its token.
    world.kill();
    world.up();
    assert_eq!(status(&world, "POST", &upload("demo/app"), &token), 202);
    assert_eq!(cancel(&world, run)["outcome"], "cancelled");
    assert_eq!(status(&world, "POST", &upload("demo/app"), &token), 401);
    assert_eq!(status(&world, "GET", "/v2/", &token), 401);

    // What `permissions` does not name is nothing.
    let (run, narrow) = push(&world, &site, "permissions: {packages: read}\n", hold);
    assert_eq!(status(&world, "POST", &upload("demo/app"), &narrow), 403);
    assert_eq!(status(&world, "GET", "/v2/demo/app/tags/list", &narrow), 404, "it may look, and there is nothing");
    assert_eq!(status(&world, "GET", &repository("demo/app"), &narrow), 404);
    // The server dies while the job runs, and the job while there is no server: it starts again with another token.
    world.kill();
    world.end_jobs();
    world.up();
    let until = Instant::now() + Duration::from_secs(120);
    while status(&world, "GET", "/v2/", &narrow) != 401 {
        assert!(Instant::now() < until, "the token of a job that was killed is still good");
        std::thread::sleep(Duration::from_millis(50));
    }
    cancel(&world, run);

    let (run, brief) = push(&world, &site, "", "");
    assert_eq!(world.wait(run)["outcome"], "succeeded");
    assert_eq!(status(&world, "GET", "/v2/", &brief), 401);
    for token in [token, narrow, brief] {
        assert!(!is_below(&world.data().join("jobs"), &token), "a token is left on the disk");
    }
}
