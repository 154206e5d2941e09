//! Images that an outside system builds and pushes are delivered, each once, under the manifests of the branch.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use e2e::{Image, Options, Site, World, page, push_image};
use serde_json::{Value, json};

const ONE: &str = "1111111111111111111111111111111111111111";
const TWO: &str = "2222222222222222222222222222222222222222";

fn target(site: &Site) -> String {
    let external = "external: {system: jenkins, tags: 'v*'}";
    site.target_yaml().replace("build: {}", external)
}

fn push(world: &World, site: &Site, tag: &str, text: &str, commit: &str) {
    let health = json!({ "commit": commit }).to_string();
    let files = [("index.html", text), ("health.json", health.as_str())];
    let command = ["httpd", "-f", "-p", "8080", "-h", "/www"];
    push_image(world, &site.repository, tag, Image { files: &files, command: &command, revision: Some(commit) });
}

/// The target runs, oldest first, as soon as there are so many.
fn runs(world: &World, site: &Site, count: usize) -> Vec<i64> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let mut runs: Vec<_> = world.runs(&site.repository);
        runs.retain(|run| run["kind"] == "target");
        if runs.len() >= count || Instant::now() > until {
            assert_eq!(runs.len(), count, "{runs:#?}");
            return runs.iter().rev().map(|run| run["run"].as_i64().unwrap()).collect();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ended(world: &World, run: i64, outcome: &str) -> Value {
    let status = world.wait(run);
    assert_eq!(status["outcome"], outcome, "{status:#}");
    status
}

#[test]
fn what_an_outside_system_pushes_is_delivered_once() {
    let Some(mut world) = World::start(Options::default()) else { return };
    world.call("POST", "/repositories", &json!({ "name": "demo/outside" }));
    let site = Site::over(&world, "outside");
    site.manifests(&site.manifest());
    world.apply(&target(&site));
    site.write("README.md", "Built elsewhere.\n");
    let source = site.commit("feat: built elsewhere");
    site.push("main");
    let first = runs(&world, &site, 1)[0];
    let status = ended(&world, first, "failed");
    let cause = status["cause"]["message"].as_str().unwrap();
    assert_eq!(cause, "jenkins has not pushed demo/outside under a tag v* yet", "{status:#}");

    push(&world, &site, "v1", "one\n", ONE);
    let second = runs(&world, &site, 2)[1];
    let status = ended(&world, second, "succeeded");
    assert_eq!(page(&status), "one\n");
    assert_eq!(status["status"]["sourceCommit"], json!(source));
    assert_eq!(status["status"]["runtimeTargetSha"], json!(ONE), "what the image says of itself: {status:#}");
    let digest = status["status"]["imageDigest"].as_str().unwrap();
    let manifest = site.remote_file("deploy", "deploy/web.yaml");
    assert!(manifest.contains(&format!("demo/outside@{digest}")), "{manifest}");

    // Neither a tag that does not count nor the same image again starts anything, and a restart neither.
    push(&world, &site, "nightly", "none\n", TWO);
    push(&world, &site, "v1", "one\n", ONE);
    push(&world, &site, "v1.0", "one\n", ONE);
    world.kill();
    world.up();
    push(&world, &site, "v2", "two\n", TWO);
    let third = runs(&world, &site, 3)[2];
    let status = ended(&world, third, "succeeded");
    assert_eq!(page(&status), "two\n");

    // A push of the repository brings nothing new: the image is what runs.
    site.write("README.md", "Still built elsewhere.\n");
    site.commit("docs: still");
    site.push("main");
    let fourth = runs(&world, &site, 4)[3];
    ended(&world, fourth, "reused");
    assert_eq!(runs(&world, &site, 4).len(), 4);
}
